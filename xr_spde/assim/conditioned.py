"""One set of parameter maps and the observations of one time: what lazy tasks compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import member_generator
from xr_spde.assim.correlated import is_independent, log_determinant
from xr_spde.assim.observations import Observations, read_observations
from xr_spde.assim.reading import value_of
from xr_spde.assim.screening import check_innovations
from xr_spde.assim.status import STATUS
from xr_spde.fields.conditioning import Conditioning
from xr_spde.fields.posterior import Posterior, posterior
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.points import as_points
from xr_spde.labels.schema import PATTERNS
from xr_spde.models import ModelRecipe, remaining_std

__all__ = ["OBSERVED", "Case", "CaseReader", "PosteriorBlock"]

Float = NDArray[np.float64]

OBSERVED = "observed"
"""Name of the values of gridded observations among the parameter maps."""


@dataclass(frozen=True, eq=False)
class Case:
    """One field and its observations.

    Attributes
    ----------
    land : ndarray (ny, nx) of bool
        As stored.
    mean : ndarray (ny, nx)
        Prior mean, as stored; zero on land.
    obs : Observations or None
        Those that are used; None where there is nothing but land.
    conditioning : Conditioning or None
        What is conditioned on what.
    """

    land: NDArray[np.bool_]
    mean: Float
    obs: Observations | None = None
    conditioning: Conditioning | None = None

    def solved(self) -> tuple[Posterior, Observations] | None:
        """Return the posterior and the observations; None where there is nothing but land."""
        if self.conditioning is None or self.obs is None:
            return None
        return posterior(self.conditioning), self.obs

    def stored(self, fields: Float) -> Float:
        """Bring canonical fields (..., ny, nx) into the order of the data, with NaN on land."""
        if self.obs is None:
            return fields
        found = np.array(self.obs.grid.from_canonical(fields))
        found[..., self.land] = np.nan
        return found


@dataclass(frozen=True, eq=False)
class CaseReader:
    """How maps and observations become a case.

    Attributes
    ----------
    recipe : ModelRecipe
        Of the model.
    names : tuple of str
        Of the maps, in the order in which they come; :data:`OBSERVED` is the values of gridded
        observations.
    obs : DataArray, Dataset or Observations
        Points, or a template of the gridded ones.
    options : dict
        Of :func:`xr_spde.assim.observations.read_observations`.
    threshold : float or None
        Of quality control.
    route : str
        Of the conditioning.
    """

    recipe: ModelRecipe
    names: tuple[str, ...]
    obs: xr.DataArray | xr.Dataset | Observations
    options: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    route: str = "auto"

    @property
    def source(self) -> xr.DataArray:
        """Values of the observations, for their labels."""
        if isinstance(self.obs, Observations):
            return self.obs.source
        return value_of(as_points(self.obs), self.options["value"])

    def read(self, *arrays: NDArray[Any]) -> Case:
        """Read one case.

        Parameters
        ----------
        *arrays : ndarray
            Maps (ny, nx) as stored, patterns (mode, ny, nx) and gridded observations.

        Returns
        -------
        Case
        """
        maps = dict(zip(self.names, arrays, strict=True))
        observed = maps.pop(OBSERVED, None)
        patterns = np.nan_to_num(maps.pop(PATTERNS, np.zeros((0, *self.recipe.grid.shape))))
        model, land = self.recipe.build(**maps)
        mean = np.where(land, 0.0, maps.get("mean", 0.0))
        if model is None:
            return Case(land, mean)
        grid = self.recipe.grid
        scale = None
        if "std" in maps:
            own = grid.from_canonical(model.variance())
            scale = np.where(land, 0.0, remaining_std(maps["std"], patterns) / np.sqrt(own))
        obs = self._observations(observed, land)
        if self.threshold is not None:
            prior = scale if "std" not in maps else np.where(land, 0.0, maps["std"])
            if prior is None:
                prior = np.sqrt(grid.from_canonical(model.variance()))
            obs = check_innovations(
                obs, obs.innovation(mean), _at_most(obs, prior), threshold=self.threshold
            )
        conditioning = Conditioning(
            model,
            obs.canonical().matrix,
            obs.error,
            is_independent(obs.error),
            log_determinant(obs.error),
            None if scale is None else grid.to_canonical(scale),
            grid.to_canonical(patterns),
            self.route,
        )
        return Case(land, mean, obs, conditioning)

    def _observations(self, observed: NDArray[Any] | None, land: NDArray[np.bool_]) -> Observations:
        """Make the observations ready for the grid."""
        if isinstance(self.obs, Observations):
            same_grid(self.recipe.grid, self.obs.grid, names=("the field", "what was observed"))
            if _storage(self.recipe.grid) != _storage(self.obs.grid):
                raise ParameterError(
                    "the observations were read for a grid that is stored in another order than "
                    "the parameters; read them for these parameters"
                )
            return self.obs
        obs = self.obs
        if observed is not None and isinstance(obs, xr.DataArray):
            obs = obs.copy(data=observed)
        return read_observations(obs, self.recipe.grid, land=land, **self.options)

    def statistics(self, *arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Compute everything but members.

        Parameters
        ----------
        *arrays : ndarray
            As for `read`.

        Returns
        -------
        dict of str to ndarray
            ``mean``, ``std`` and ``increment`` (ny, nx); ``innovation`` and ``status`` with the
            shape of the observations; ``log_likelihood`` and ``chi_square``, numbers.
        """
        case = self.read(*arrays)
        solved = case.solved()
        if solved is None:
            return self._nothing(case)
        found, obs = solved
        innovation = obs.innovation(case.mean)
        increment = case.stored(found.increment(innovation)[0])
        value, chi2 = found.log_likelihood(innovation)
        shape = obs.source.shape
        return {
            "mean": case.mean + increment,
            "std": case.stored(np.sqrt(found.variance())),
            "increment": increment,
            "innovation": np.where(obs.row >= 0, innovation[obs.row], np.nan).reshape(shape),
            "status": obs.status.reshape(shape),
            "log_likelihood": np.array(value),
            "chi_square": np.array(chi2),
        }

    def _nothing(self, case: Case) -> dict[str, NDArray[Any]]:
        """Results where all is land."""
        shape = self.source.shape
        maps = dict.fromkeys(("mean", "std", "increment"), np.full(case.land.shape, np.nan))
        numbers = dict.fromkeys(("log_likelihood", "chi_square"), np.array(np.nan))
        status = np.full(shape, STATUS.index("on_land"), dtype=np.int8)
        return {**maps, **numbers, "innovation": np.full(shape, np.nan), "status": status}


@dataclass(frozen=True, eq=False)
class PosteriorBlock:
    """Draws members given the observations; what a task of the graph calls.

    Attributes
    ----------
    reader : CaseReader
        Of maps and observations.
    entropy : int
        What the seed resolved to.
    dtype : dtype
        Of the members.
    """

    reader: CaseReader
    entropy: int
    dtype: np.dtype[Any]

    def prepare(self, *arrays: NDArray[Any]) -> Case:
        """Read one case."""
        return self.reader.read(*arrays)

    def __call__(self, start: int, stop: int, path: tuple[int, ...], shared: Case) -> NDArray[Any]:
        """Draw members (stop - start, ny, nx) as stored."""
        members = np.empty((stop - start, *shared.land.shape), dtype=self.dtype)
        solved = shared.solved()
        if solved is None:
            members.fill(np.nan)
            return members
        found, obs = solved
        innovation = obs.innovation(shared.mean)
        width = found.model.factor().width
        for low in range(start, stop, width):
            chosen = range(low, min(low + width, stop))
            prior, errors = self._draw(found, obs, chosen, path)
            # where the draw misses what was observed, it is moved by what that says
            missed = innovation - errors - _columnwise(found, prior)
            fields = prior + found.increment(missed)
            members[low - start : chosen.stop - start] = shared.mean + shared.stored(fields)
        return members

    def _draw(
        self, found: Posterior, obs: Observations, members: range, path: tuple[int, ...]
    ) -> tuple[Float, Float]:
        """Draw fields from the prior, those of `emulate`, and errors of the observations."""
        noise = np.empty((len(members), found.model.size))
        amplitudes = np.empty((len(members), found.modes))
        errors = np.empty((len(members), obs.size))
        for k, member in enumerate(members):
            generator = member_generator(self.entropy, member, *path)
            generator.standard_normal(out=noise[k])
            amplitudes[k] = generator.standard_normal(found.modes)
            errors[k] = obs.error.noise(generator)
        return found.prior(noise, amplitudes), errors


def _columnwise(found: Posterior, fields: Float) -> Float:
    """``H u`` (K, p) of canonical fields."""
    return np.asarray((found.recipe.rows @ fields.reshape(len(fields), -1).T).T)


def _at_most(obs: Observations, std: Float) -> Float:
    """Largest variance that the field can have at the observations, whatever its correlations.

    It is exact for one cell, and nearly so for neighbours, whose correlation is close to one.
    """
    operator = obs.canonical()
    flat = obs.grid.to_canonical(std).ravel()
    return np.asarray(abs(operator.matrix) @ flat) ** 2


def _storage(grid: Grid) -> tuple[bool, bool, int]:
    """Order in which a grid is stored."""
    return grid.y_descending, grid.x_descending, grid.roll

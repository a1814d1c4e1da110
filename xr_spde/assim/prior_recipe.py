"""The Dataset of a space-time prior, turned into operators and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SchemaError, unknown
from xr_spde.assim.windows import mesh_of
from xr_spde.fields.driving_noise import NOISE_ALPHAS, ColouredNoise
from xr_spde.fields.mesh import COASTS, Mesh
from xr_spde.fields.second_order import TIME_ORDERS, SecondOrder
from xr_spde.fields.spacetime import ALPHAS, INITIALS, SpaceTime
from xr_spde.fields.spde import ADVECTIONS, SpdeOperator, SpdeParameters
from xr_spde.fields.spde_physical import from_physical, to_physical
from xr_spde.fields.spde_variance import local_std
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import calendar_of
from xr_spde.labels.prior_schema import PRIOR_VARIABLES, STEP, require_prior

__all__ = ["SETTINGS", "PriorRecipe", "check_names", "read_prior", "varying"]

Float = NDArray[np.float64]

SETTINGS: Mapping[str, Any] = {
    "alpha": 4, "boundary": "neumann", "coast": "neumann", "advection": "centred",
    "initial": "stationary", "noise_length": 0.0, "noise_alpha": 2, "time_order": 1,
}  # fmt: skip
"""Attributes of the Dataset of a prior that say what its numbers belong to, with what is meant
where they are not given. The driving noise is smooth over ``noise_length`` (km); fields of
``time_order`` 2 are smooth in time (:mod:`xr_spde.fields.second_order`)."""

_DAY = 86_400.0
_KM = 1_000.0


@dataclass(frozen=True, eq=False)
class PriorRecipe:
    """What the numbers of a prior belong to.

    Attributes
    ----------
    grid : Grid
        Of the fields.
    step : float
        Days.
    settings : mapping
        Those of :data:`SETTINGS`.
    """

    grid: Grid
    step: float
    settings: Mapping[str, Any]

    def mesh(self, land: NDArray[np.bool_]) -> Mesh:
        """Return the mesh, with land in canonical order."""
        s = self.settings
        return mesh_of(self.grid, land=land, edge=s["boundary"], coast=s["coast"])

    def operator(self, land: NDArray[np.bool_]) -> SpdeOperator:
        """Return the operator on the mesh."""
        return SpdeOperator(self.mesh(land), advection=self.settings["advection"])

    def build(self, maps: Mapping[str, Float], land: NDArray[np.bool_], steps: int) -> SpaceTime:
        """Make the prior of a window.

        Parameters
        ----------
        maps : mapping of str to ndarray (ny, nx) or (steps, ny, nx)
            Variables of the Dataset, canonical; those of a step hold on the way to it.
        land : ndarray (ny, nx) of bool
            Canonical.
        steps : int
            Of the window.

        Returns
        -------
        SpaceTime

        Raises
        ------
        ParameterError
            For lengths, times or deviations that are not positive, or a length across that exceeds
            the length.
        """
        operator, alpha = self.operator(land), int(self.settings["alpha"])
        check_positive(maps, land)
        std = np.where(land, 1.0, maps["std"])
        shape = operator.mesh.shape
        numbers = {"shortest": _KM * maps["length_across"], "angle": maps["angle"],
                   "u": _DAY * maps["u"], "v": _DAY * maps["v"]}  # fmt: skip
        numbers = {name: np.where(land, 0.0, value) for name, value in numbers.items()}
        numbers["shortest"] = np.where(land, 1.0, numbers["shortest"])
        far = np.where(land, 1.0, _KM * maps["length"])
        bare = from_physical(shape, alpha=alpha, longest=far,
                             time=np.where(land, 1.0, maps["decay_time"]), **numbers)  # fmt: skip
        noise, order = self._noise(operator.mesh), int(self.settings.get("time_order", 1))
        unit = local_std(bare, operator.mesh, dt=self.step, alpha=alpha, noise=noise, order=order)
        parameters = SpdeParameters.of(
            shape, kappa=bare.kappa, tau=std / unit, m1=bare.m1, m2=bare.m2, v1=bare.v1,
            v2=bare.v2, gamma=bare.gamma, beta=bare.beta, land=land,
        )  # fmt: skip
        kind = SpaceTime if order == 1 else SecondOrder
        return kind(operator, parameters, steps=steps, dt=self.step, alpha=alpha,
                    initial=self.settings["initial"], noise=noise)  # fmt: skip

    def _noise(self, mesh: Mesh) -> ColouredNoise | None:
        """Smoothing of the noise of the settings."""
        far = float(self.settings.get("noise_length", 0.0))
        alpha = int(self.settings.get("noise_alpha", 2))
        return ColouredNoise(mesh, _KM * far, alpha) if far > 0.0 else None

    def check_plain(self, who: str) -> None:
        """Refuse settings that only interpolation knows.

        Parameters
        ----------
        who : str
            Knows others alone.

        Raises
        ------
        ParameterError
            For noise that is smooth in space, or the second order in time.
        """
        given = {name: self.settings[name] for name in ("noise_length", "time_order")}
        if given["noise_length"] > 0.0 or given["time_order"] != 1:
            raise ParameterError(
                f"the prior has {given}; {who} knows white noise (noise_length 0) and the first "
                "order in time alone"
            )

    def physical(self, parameters: SpdeParameters, mesh: Mesh) -> dict[str, Float]:
        """Variables of the Dataset (ny, nx) of the parameters of one step; canonical."""
        alpha = int(self.settings["alpha"])
        p = to_physical(parameters, alpha)
        std = local_std(parameters, mesh, dt=self.step, alpha=alpha)
        found = {"length": p.longest / _KM, "length_across": p.shortest / _KM, "angle": p.angle,
                 "decay_time": p.time, "u": p.u / _DAY, "v": p.v / _DAY, "std": std}  # fmt: skip
        return {name: value[0] for name, value in found.items()}


def read_prior(
    prior: xr.Dataset, *, step: float | None = None, x: str | None = None, y: str | None = None,
    like: Grid | None = None,
) -> tuple[PriorRecipe, dict[str, xr.DataArray]]:  # fmt: skip
    """Read the Dataset of a prior.

    Parameters
    ----------
    prior : Dataset
        From `spde_prior`, from disk, or written by hand.
    step : float, optional
        Days; by default its attribute ``time_step``.
    x, y : str, optional
        Names of the horizontal axes.
    like : Grid, optional
        Grid of a prior that is constant.

    Returns
    -------
    recipe : PriorRecipe
    maps : dict of str to DataArray (Y, X) or (time, Y, X)
        All of :data:`xr_spde.labels.prior_schema.PRIOR_VARIABLES`, broadcast, lazy where they are.

    Raises
    ------
    SchemaError
        As for `require_prior`; variables with further dimensions than a time of dates, or no step.
    UnknownNameError
        For attributes with impossible values.
    """
    require_prior(prior)
    settings = {name: prior.attrs.get(name, usual) for name, usual in SETTINGS.items()}
    check_names(**settings)
    known = {"length_across": prior["length"], "angle": 0.0, "u": 0.0, "v": 0.0, "mean": 0.0}
    maps = {
        name: as_float(prior[name] if name in prior else xr.DataArray(known[name]))
        for name in ("length", "length_across", "angle", "decay_time", "u", "v", "std", "mean")
    }
    plain = prior[[name for name in maps if name in prior]]
    has_grid = any(da.ndim for da in maps.values())
    if not has_grid and like is None:
        raise SchemaError("the prior has no grid; give mean on (Y, X), or a first guess of fields")
    grid = Grid.from_object(plain, x=x, y=y) if has_grid or like is None else like
    plane = {grid.y_dim: grid.ny, grid.x_dim: grid.nx}
    when = varying(prior)
    extra = {str(d) for da in maps.values() for d in da.dims} - {*plane, when}
    if extra:
        raise SchemaError(
            f"the prior has the dimensions {', '.join(map(repr, sorted(extra)))} besides "
            f"{grid.y_dim!r} and {grid.x_dim!r}; select along them first (a prior may vary along "
            "one dimension of dates)"
        )
    for name, da in maps.items():
        lacking = {dim: size for dim, size in plane.items() if dim not in da.dims}
        time = (when,) if when in da.dims else ()
        maps[name] = da.expand_dims(lacking).transpose(*time, grid.y_dim, grid.x_dim)
    days = prior.attrs.get(STEP) if step is None else step
    if days is None or not float(days) > 0.0:
        raise SchemaError(
            f"the length of a step is {days!r} days; expected the attribute {STEP!r} > 0 of the "
            "prior, or a first guess with times"
        )
    return PriorRecipe(grid, float(days), settings), maps


def check_positive(maps: Mapping[str, Float], land: NDArray[np.bool_]) -> None:
    """Check the scales of a prior off land.

    Parameters
    ----------
    maps : mapping of str to ndarray (..., ny, nx)
        Variables of the Dataset.
    land : ndarray (ny, nx) of bool
        Of the same grid.

    Raises
    ------
    ParameterError
        For lengths, times or deviations that are missing or not positive.
    """
    for name in ("length", "length_across", "decay_time", "std"):
        wet = maps[name][..., ~land]
        if not (np.isfinite(wet) & (wet > 0.0)).all():
            raise ParameterError(
                f"{name} of the prior has a minimum of {np.nanmin(wet):g} and "
                f"{np.isnan(wet).sum()} missing values off land; expected numbers > 0"
            )
    infinite = int(np.isinf(maps["mean"][..., ~land]).sum()) if "mean" in maps else 0
    if infinite:
        raise ParameterError(f"mean of the prior has {infinite} infinite values off land")


def varying(prior: xr.Dataset) -> str | None:
    """Name of the dimension of dates along which a prior varies; None where it does not.

    Parameters
    ----------
    prior : Dataset
        Of a prior.

    Returns
    -------
    str or None
    """
    used = {d for name in PRIOR_VARIABLES if name in prior for d in prior[name].dims}
    found = [str(d) for d in used if d in prior.coords and calendar_of(prior[d]) is not None]
    return found[0] if len(found) == 1 else None


def check_names(
    alpha: Any, boundary: str, coast: str, advection: str, initial: str = "stationary",
    noise_length: Any = 0.0, noise_alpha: Any = 2, time_order: Any = 1,
) -> None:  # fmt: skip
    """Check names and powers.

    Parameters
    ----------
    alpha, boundary, coast, advection, initial, noise_length, noise_alpha, time_order
        Settings of a prior.

    Raises
    ------
    UnknownNameError
        For an unknown one.
    ParameterError
        If the length of the noise is no number >= 0.
    """
    if not np.issubdtype(type(noise_length), np.number) or not 0.0 <= noise_length < np.inf:
        raise ParameterError(
            f"noise_length={noise_length!r} of the prior; expected km, 0 for white noise"
        )
    for name, given, known in (
        ("alpha", alpha, ALPHAS), ("boundary", boundary, COASTS), ("coast", coast, COASTS),
        ("advection", advection, ADVECTIONS), ("initial", initial, INITIALS),
        ("noise_alpha", noise_alpha, NOISE_ALPHAS), ("time_order", time_order, TIME_ORDERS),
    ):  # fmt: skip
        if given not in known:
            raise unknown(name, given, map(str, known))

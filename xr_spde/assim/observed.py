"""What is observed of one variable of an ensemble: the values that are read, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.arrays import refuse_broken
from xr_spde.assim.observations import Observations, read_observations
from xr_spde.assim.operators import LinearOperator
from xr_spde.assim.rows import Positions
from xr_spde.assim.screening import check_innovations
from xr_spde.labels.blocks import pick_points
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.lazy import Output, apply_core

Float = NDArray[np.float64]
Index = NDArray[np.intp]

_SEEN = "xr_spde_observation"


@dataclass(frozen=True, eq=False)
class Observed:
    """Observations of one variable, and which of its values they need.

    Attributes
    ----------
    variable : str
        Its name.
    where : dict of str to int
        Which level, time, ... of the variable is observed.
    source : DataArray, Dataset or Observations
        As the user gave them, in memory.
    options : dict
        Of `read_observations`.
    first : Observations
        As read without knowing where land is.
    nodes : ndarray of int (q,) or None
        Grid points that the observations touch, as stored; None where a function observes all.
    """

    variable: str
    where: dict[str, int]
    source: Any
    options: dict[str, Any]
    first: Observations
    nodes: Index | None

    @classmethod
    def of(
        cls,
        variable: str,
        where: dict[str, int],
        source: xr.DataArray | xr.Dataset | Observations,
        grid: Grid,
        options: dict[str, Any],
    ) -> Observed:
        """Read observations for a grid.

        Parameters
        ----------
        variable : str
            What they observe.
        where : dict of str to int
            Its index along leading dimensions.
        source : DataArray, Dataset or Observations
            In memory.
        grid : Grid
            Of the ensemble.
        options : dict
            Of `read_observations`.

        Returns
        -------
        Observed
        """
        if isinstance(source, Observations):
            refuse_options(options)
            same_grid(grid, source.grid, names=("the ensemble", "what was observed"))
            if grid != source.grid:
                raise ParameterError(
                    "the observations were read for a grid that is stored in another order or with "
                    "other names than the ensemble; read them for this ensemble"
                )
            first = source
        else:
            first = read_observations(source, grid, **options)
        if not isinstance(first.operator, LinearOperator):
            return cls(variable, where, source, options, first, None)
        touched = [first.operator.matrix.indices]
        if np.isfinite(first.y).all():  # land also decides by the nearest cell
            j, i = Positions.of(grid, first.y, first.x).cells()
            stored = np.arange(grid.ny * grid.nx).reshape(grid.shape)
            touched.append(grid.to_canonical(stored)[j, i])
        nodes = np.unique(np.concatenate(touched)).astype(np.intp)
        return cls(variable, where, source, options, first, nodes)

    def pick(self, da: xr.DataArray) -> xr.DataArray:
        """Values that the observations need.

        Parameters
        ----------
        da : DataArray (member, ..., y, x)
            The variable.

        Returns
        -------
        DataArray (member, q)
            Values at `nodes`; what the function returns where there are none.
        """
        grid = self.first.grid
        dims, chosen = (grid.y_dim, grid.x_dim), da.isel(self.where)
        if self.nodes is not None:
            return pick_points(chosen, dims, self.nodes)
        spec = {_SEEN: Output((_SEEN,), da.dtype, {_SEEN: self.first.size})}
        return apply_core(self.first.operator.apply, chosen, core_dims=[dims], output=spec)[_SEEN]

    def see(
        self, values: NDArray[Any], threshold: float | None
    ) -> tuple[Observations, NDArray[Any]]:
        """Find which observations are used, and what the members have there.

        Parameters
        ----------
        values : ndarray (N, q)
            As from `pick`.
        threshold : float or None
            Standard deviations that an innovation may have.

        Returns
        -------
        Observations
            Of p that are used.
        ndarray (N, p)
            Observed members.

        Raises
        ------
        ParameterError
            Members with NaN where others have numbers, observations on land, or all rejected.
        """
        obs = self.first
        what = "observation" if self.nodes is None else "observed grid point"
        refuse_broken(f"the ensemble of {self.variable!r}", values, what=what)
        if self.nodes is None:
            members = values
        else:
            land = ~np.isfinite(values[0])
            if land.any() and not isinstance(self.source, Observations):
                mask = np.zeros(obs.grid.shape, dtype=bool)
                mask.ravel()[self.nodes[land]] = True
                obs = read_observations(self.source, obs.grid, land=mask, **self.options)
            matrix = obs.operator.matrix[:, self.nodes]  # type: ignore[attr-defined]
            members = LinearOperator(matrix, (1, self.nodes.size)).apply(values[:, None, :])
        obs, members = self._off_land(obs, members)
        if threshold is None:
            return obs, members
        innovation = obs.values - members.mean(axis=0, dtype=np.float64)
        variance = members.var(axis=0, ddof=1, dtype=np.float64)
        kept = check_innovations(obs, innovation, variance, threshold=threshold)
        keep = np.zeros(obs.size, dtype=bool)
        keep[obs.row[kept.row >= 0]] = True
        return kept, members[:, keep]

    def _off_land(
        self, obs: Observations, members: NDArray[Any]
    ) -> tuple[Observations, NDArray[Any]]:
        """Leave out observations where no member has a value, which a given operator can have."""
        lost = ~np.isfinite(members).all(axis=0)
        if not lost.any():
            return obs, members
        if self.options.get("unusable") != "drop":
            raise ParameterError(
                f"no member of {self.variable!r} has a value at {int(lost.sum())} of {lost.size} "
                f"observations, the first being number {int(np.flatnonzero(lost)[0])} of those "
                "that are used: they touch land; leave them out, or read them with land="
            )
        return obs.select(~lost, "on_land"), members[:, ~lost]


def refuse_options(options: dict[str, Any]) -> None:
    """Refuse settings of the reading of observations that were read already.

    Parameters
    ----------
    options : dict
        Of `read_observations`.

    Raises
    ------
    ParameterError
        If one is not at its default; ``unusable`` is allowed.
    """
    usual = {"operator": "auto", "unusable": options.get("unusable")}
    given = [name for name, value in options.items() if value is not usual.get(name)]
    if given:
        raise ParameterError(
            f"{', '.join(given)} {'was' if len(given) == 1 else 'were'} given together with "
            "observations that have been read already; pass it to read_observations"
        )

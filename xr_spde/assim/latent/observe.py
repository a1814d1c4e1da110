"""Observations of a latent analysis: read, shared out among times, and seen by decoded codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, listed
from xr_spde.assim.correlated import is_independent
from xr_spde.assim.latent.channels import Labelled
from xr_spde.assim.latent.labelled import find_time_dim
from xr_spde.assim.latent.layout import Layout
from xr_spde.assim.latent.scaling import Scaling
from xr_spde.assim.latent.seen import Seen
from xr_spde.assim.observations import Observations, read_observations
from xr_spde.assim.reading import value_of
from xr_spde.assim.rows import Positions
from xr_spde.assim.update import places
from xr_spde.labels.axes import is_time
from xr_spde.labels.points import as_points, calendar_of

__all__ = ["ObservedSeries", "by_variable", "times_of"]

Float = NDArray[np.float64]
_ON = 1e-4  # of a cell, within which a position is that of a grid point


def by_variable(obs: Any, layout: Layout, value: str | None) -> dict[str, Labelled]:
    """Observations by the variable of the model that they are of.

    Parameters
    ----------
    obs : DataArray, Dataset or mapping of str to these
        Observations.
    layout : Layout
        Of the model.
    value : str, optional
        Name of the observed variable of a Dataset.

    Returns
    -------
    dict of str to DataArray or Dataset

    Raises
    ------
    ParameterError
        For variables that the model does not have, or levels.
    """
    names = list(dict.fromkeys(one.variable for one in layout.channels))
    if isinstance(obs, Mapping) and not isinstance(obs, xr.Dataset):
        found = {str(name): one for name, one in obs.items()}
    elif isinstance(obs, xr.Dataset) and value is None and set(names) & set(obs.data_vars):
        own = [n for n in names if n in obs.data_vars]
        rest = [n for n in obs.data_vars if n not in own]
        found = {n: obs[[n, *(r for r in rest if str(r).startswith(f"{n}_"))]] for n in own}
        if len(own) == 1:
            found = {own[0]: obs[[own[0], *rest]]}
    elif isinstance(obs, xr.DataArray | xr.Dataset):
        name = str(obs.name or "") if isinstance(obs, xr.DataArray) else ""
        if len(names) > 1 and name not in names:
            raise ParameterError(
                f"the observations are of {name!r} and the model of {listed(names)}; name them, or "
                "give a mapping by variable"
            )
        found = {name if name in names else names[0]: obs}
    else:
        raise ParameterError(
            f"obs={type(obs).__name__} was given; expected a DataArray, a Dataset or a mapping of "
            "these by variable"
        )
    other = sorted(set(found) - set(names))
    if other:
        raise ParameterError(
            f"observations of {listed(other)} were given and the model is of {listed(names)}"
        )
    return found


def _series_dim(obj: Labelled, source: xr.DataArray) -> str | None:
    """Dimension of time of observations that have another one besides."""
    dims = [str(d) for d in source.dims if is_time(source, str(d))]
    return dims[0] if dims and source.ndim > 1 else None


def times_of(observed: Mapping[str, Labelled], value: str | None) -> xr.DataArray | None:
    """Find the times of observations that have a dimension of time, all variables together.

    Parameters
    ----------
    observed : mapping
        As `by_variable` gives it.
    value : str, optional
        Name of the observed variable.

    Returns
    -------
    DataArray (T,) or None
        None where points have times of their own, or where there are none.
    """
    found = []
    for obj in observed.values():
        source = value_of(as_points(obj), value)
        dim = _series_dim(obj, source)
        if dim is None or dim not in source.coords:
            return None
        found.append(source[dim].values)
    every = np.unique(np.concatenate(found))
    return xr.DataArray(every, dims="time")


@dataclass(frozen=True, eq=False)
class ObservedSeries:
    """How observations are read.

    Attributes
    ----------
    layout, scaling
        Of the model.
    representativeness : ndarray (c,) or (P, c)
        Variance of what decoding misses, normalised.
    times : DataArray (T,)
        Of the analyses.
    positions : callable
        Of times in steps of the model.
    slack : float
        Steps between an observation and its analysis, at most.
    reading : dict
        ``obs_error``, ``unusable``, ``value``, ``obs_x``, ``obs_y``.
    months : ndarray of int (T,) or None
        Months of the analyses.
    """

    layout: Layout
    scaling: Scaling
    representativeness: Float
    times: xr.DataArray
    positions: Any
    slack: float
    reading: dict[str, Any]
    months: NDArray[np.intp] | None

    def read(self, observed: Mapping[str, Labelled]) -> list[Seen | None]:
        """Read observations in memory.

        Parameters
        ----------
        observed : mapping of str to DataArray or Dataset
            By variable.

        Returns
        -------
        list of Seen or None
            By time; None where nothing is observed.

        Raises
        ------
        ParameterError
            Observations at no time of the analyses, of correlated errors, or as
            `read_observations` says.
        """
        parts: list[list[Seen]] = [[] for _ in range(self.times.size)]
        at = self.positions(self.times)
        for name, obj in observed.items():
            for channel, level in self._levels(name, as_points(obj)):
                for when, one, error in self._pieces(name, level):
                    self._share(channel, one, when, error, at, parts)
        return [Seen.joined(some) if some else None for some in parts]

    def _levels(self, name: str, obj: Labelled) -> Iterator[tuple[int, Labelled]]:
        """Channels of a variable, and what is observed of each."""
        dim, channels = self.layout.level_dim, self.layout.channels
        every = {one.level: k for k, one in enumerate(channels) if one.variable == name}
        if None in every:
            yield every[None], obj
            return
        own = {level: k for level, k in every.items() if level is not None}
        if dim not in obj.coords or obj[dim].ndim > 1:
            raise ParameterError(
                f"observations of {name!r} have no levels, and the model has {sorted(own)} along "
                f"{dim!r}; give them a coordinate {dim!r}, of one level or along a dimension"
            )
        levels = np.atleast_1d(obj[dim].values).astype(np.float64)
        unknown = [float(one) for one in levels if float(one) not in own]
        if unknown:
            raise ParameterError(f"{name!r} is observed at the levels {unknown}, and the model has "
                                 f"{sorted(own)} along {dim!r}")  # fmt: skip
        for k, level in enumerate(levels):
            yield own[float(level)], obj.isel({dim: k}, drop=True) if obj[dim].ndim else obj

    def _pieces(
        self, name: str, obj: Labelled
    ) -> Iterator[tuple[xr.DataArray | None, Labelled, Any]]:
        """Give times, observations without a dimension of time, and their errors."""
        error = self.reading["obs_error"]
        if isinstance(error, Mapping) and not isinstance(error, xr.Dataset):
            if name not in error:
                raise ParameterError(f"obs_error= has {listed(error)}, and {name!r} lacks")
            error = error[name]
        obj = as_points(obj)
        source = value_of(obj, self.reading["value"])
        dim = _series_dim(obj, source)
        if dim is None:
            along = [c for c in obj.coords.values()
                     if c.ndim == 1 and source.ndim == 1 and c.dims == source.dims
                     and calendar_of(c) is not None]  # fmt: skip
            scalar = find_time_dim(source)
            alone = None if scalar is None or source[scalar].ndim else source[scalar]
            yield (along[0] if along else alone), obj, error
            return
        if dim not in source.coords:
            raise ParameterError(f"the dimension {dim!r} of the observations has no times")
        for k in range(source.sizes[dim]):
            own = error.isel({dim: k}) if isinstance(error, xr.DataArray) and dim in error.dims \
                else error  # fmt: skip
            yield source[dim][k], obj.isel({dim: k}, drop=True), own

    def _share(
        self, channel: int, obj: Labelled, when: xr.DataArray | None, error: Any, at: Float,
        parts: list[list[Seen]],
    ) -> None:  # fmt: skip
        """Read one piece, and give each time what is near it."""
        source = value_of(obj, self.reading["value"])
        if not np.isfinite(source.values.astype(np.float64)).any():
            return
        if when is None and self.times.size > 1:
            raise ParameterError(
                f"the observations of {self.layout.channels[channel]} have no times, and there are "
                f"{self.times.size} analyses; give them a coordinate of dates"
            )
        one_time = 0
        if when is not None and when.ndim == 0:
            one_time = int(self._nearest(self.positions(when.expand_dims("t")), at, when)[0])
            if one_time < 0:
                return
        found = read_observations(
            obj, self.layout.grid, land=self._land(), obs_error=error,
            **{k: v for k, v in self.reading.items() if k != "obs_error"},
        )  # fmt: skip
        if not is_independent(found.error):
            raise ParameterError(
                f"errors of type {type(found.error).__name__} were given, and a latent analysis "
                "knows independent ones; give standard deviations"
            )
        if when is None or when.ndim == 0:
            parts[one_time].append(self._seen(channel, found, one_time))
            return
        used = when.isel({when.dims[0]: found.row >= 0})
        which = self._nearest(self.positions(used), at, used)
        for k in np.unique(which[which >= 0]):
            parts[k].append(self._seen(channel, found.select(which == k), int(k)))

    def _nearest(self, position: Float, at: Float, when: xr.DataArray) -> NDArray[np.intp]:
        """Analysis of each observation; -1 where none is near."""
        right = np.clip(np.searchsorted(at, position), 1, max(1, at.size - 1))
        left = right - 1
        right = np.minimum(right, at.size - 1)
        nearest = np.where(np.abs(at[right] - position) < np.abs(at[left] - position), right, left)
        far = ~(np.abs(at[nearest] - position) <= self.slack)
        if far.any() and self.reading["unusable"] == "raise":
            raise ParameterError(
                f"{int(far.sum())} of {far.size} observations are more than {self.slack:g} steps "
                f"of the model from every analysis, such as {np.ravel(when.values)[0]} with "
                f"analyses from {self.times.values[0]} to {self.times.values[-1]}; give times= or "
                'window=, or leave them out with unusable="drop"'
            )
        return np.where(far, -1, nearest).astype(np.intp)

    def _land(self) -> NDArray[np.bool_] | None:
        grid = self.layout.grid
        if self.layout.cells.size == grid.ny * grid.nx:
            return None
        land = np.ones(grid.ny * grid.nx, dtype=bool)
        land[self.layout.cells] = False
        return grid.from_canonical(land.reshape(grid.shape))

    def _seen(self, channel: int, found: Observations, k: int) -> Seen:
        """Observations of one time as a filter needs them."""
        layout, std, missed = self.layout, self.scaling.std, self.representativeness
        months = None if self.months is None else self.months[k : k + 1]
        rows = layout.rows(found.y, found.x)
        offset = self.scaling.offset(months, rows)[0][:, channel]
        own = missed[channel] if missed.ndim == 1 else rows @ missed[:, channel]
        return Seen(
            points=layout.place(found.y, found.x), index=_on_grid(layout, found.y, found.x),
            channel=np.full(found.size, channel), values=found.values,
            variance=np.asarray(found.error.variance, np.float64) + own * std[channel] ** 2,
            offset=np.broadcast_to(offset, (found.size,)), scale=np.full(found.size, std[channel]),
            sites=places(layout.grid, found.y, found.x),
        )  # fmt: skip


def _on_grid(layout: Layout, y: Float, x: Float) -> NDArray[np.intp] | None:
    """Points of the training that positions are; None where some are none."""
    at = Positions.of(layout.grid, y, x)
    j, i = at.cells()
    off = at.column - i
    if layout.grid.periodic_x:
        off = (off + 0.5 * layout.grid.nx) % layout.grid.nx - 0.5 * layout.grid.nx
    if (np.abs(at.row - j) > _ON).any() or (np.abs(off) > _ON).any():
        return None
    number = np.full(layout.grid.ny * layout.grid.nx, -1)
    number[layout.cells] = np.arange(layout.cells.size)
    found = number[j * layout.grid.nx + i]
    return None if (found < 0).any() else found

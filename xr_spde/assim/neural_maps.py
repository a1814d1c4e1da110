"""Series of maps: parts that are read in canonical order, and their moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.labels.grid import Grid

__all__ = ["Maps", "Moments"]

Float = NDArray[np.float64]

_BLOCK = 16
"""Times that are read at once where all are read."""


@dataclass(frozen=True, eq=False)
class Maps:
    """A series (time, Y, X), or one map (Y, X), of which parts are read in canonical order.

    Attributes
    ----------
    data : DataArray
        Anything xarray can index: in memory, dask, or still on disk.
    grid : Grid
        Its grid.
    dim : str or None
        Its times.
    """

    data: xr.DataArray
    grid: Grid
    dim: str | None

    def read(self, start: int, stop: int, rows: slice, columns: slice) -> Float:
        """Read some times of a part of the grid.

        Parameters
        ----------
        start, stop : int
            First time and the one after the last.
        rows, columns : slice
            Canonical.

        Returns
        -------
        ndarray (stop - start, ny, nx)
        """
        grid = self.grid
        stored = grid.to_canonical(np.arange(grid.ny * grid.nx).reshape(grid.shape))
        wanted: dict[str, Any] = {
            grid.y_dim: _as_slice(stored[rows, 0] // grid.nx),
            grid.x_dim: _as_slice(stored[0, columns] % grid.nx),
        }
        if self.dim is not None:
            wanted[self.dim] = slice(start, stop)
        order = [d for d in (self.dim, grid.y_dim, grid.x_dim) if d is not None]
        part = np.asarray(self.data.isel(wanted).transpose(*order).values, dtype=np.float64)
        if self.dim is None:
            part = np.broadcast_to(part, (stop - start, *part.shape))
        return part


def _as_slice(index: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Turn a run of indices into a slice, which reads without copies."""
    step = 1 if index.size < 2 else int(index[1] - index[0])
    if abs(step) != 1 or (np.diff(index) != step).any():
        return index
    stop = int(index[-1]) + step
    return slice(int(index[0]), None if stop < 0 else stop, step)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and size of anomalies of a series over some of its times.

    Attributes
    ----------
    mean : ndarray (ny, nx)
        Over the times; NaN where there is never a value.
    variance : float
        About the first guess, or about `mean` where there is none.
    """

    mean: Float
    variance: float

    @classmethod
    def of(cls, maps: Maps, stop: int, guess: Maps | None) -> Moments:
        """Read the times before `stop` once, a few at a time.

        Parameters
        ----------
        maps : Maps
            Series.
        stop : int
            The time after the last.
        guess : Maps, optional
            First guess.

        Returns
        -------
        Moments

        Raises
        ------
        ParameterError
            If there is no value at all, or nothing varies.
        """
        shape = maps.grid.shape
        rows, columns = slice(0, shape[0]), slice(0, shape[1])
        count, total, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for start in range(0, stop, _BLOCK):
            span = start, min(start + _BLOCK, stop)
            part = maps.read(*span, rows, columns)
            if guess is not None:
                part = part - guess.read(*span, rows, columns)
            known = np.isfinite(part)
            part = np.where(known, part, 0.0)
            count += known.sum(0)
            total += part.sum(0)
            squares += np.square(part).sum(0)
        if not count.any():
            raise ParameterError(
                f"all {stop} times to train on are NaN in all {shape[0]} x {shape[1]} cells; a "
                "truth with values is expected: check what was read"
            )
        mean = np.where(count > 0, total / np.maximum(count, 1.0), np.nan)
        about = squares.sum() - (0.0 if guess is not None else np.nansum(count * mean**2))
        variance = float(about / count.sum())
        if not variance > 1e-12 * float(np.nanmax(mean**2) + 1e-300):
            raise ParameterError(
                f"the anomalies of the truth have a variance of {variance:g}: nothing varies; "
                "check what was read, and first_guess= if one was given"
            )
        return cls(mean, variance)

"""Settings of the estimator, and what is said when one makes no sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xr_spde._core.errors import GridError, ParameterError, unknown
from xr_spde._core.memory import check_memory
from xr_spde.labels.grid import Grid
from xr_spde.sar.patterns import CANDIDATES

METHODS = ("auto", "whittle")
"""Estimators by name; "auto" is "whittle", the best one measured so far."""

DILATIONS = (1, 2, 4, 8)
"""Distances between the neighbours of the stencil that are tried, in cells."""

_SMALLEST = 6
# Maps of the size of the grid that are held at once, as measured on 361 x 720 and 721 x 1440 cells.
_MAPS, _MAPS_PER_DILATION = 80, 120


@dataclass(frozen=True)
class Settings:
    """What the fit is asked for; small and picklable, it travels in the graph.

    Attributes
    ----------
    grid : Grid
        The grid of the fields.
    boundary : str
        Boundary of the model.
    buffer : int or "auto"
        Cells between the grid and that boundary.
    modes : int
        Size of the mode dimension: the largest number of patterns.
    fixed_modes : bool
        Whether that number was given rather than to be chosen.
    dilations : tuple of int
        Distances of the stencil's neighbours to try.
    penalty : float or None
        Fixed roughness weight.
    uncertainty : bool
        Whether standard errors are wanted.
    single : bool
        Whether there is one replicate, taken as an anomaly.
    """

    grid: Grid
    boundary: str
    buffer: int | str
    modes: int
    fixed_modes: bool
    dilations: tuple[int, ...]
    penalty: float | None
    uncertainty: bool
    single: bool

    @property
    def periodic(self) -> bool:
        """Whether columns wrap around."""
        return self.boundary != "plane"


def check_method(method: str) -> None:
    """Raise if there is no estimator of that name."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)


def check_size(grid: Grid) -> None:
    """Raise for a grid that has too few rows or columns."""
    if min(grid.shape) < _SMALLEST:
        raise GridError(
            f"the grid has {grid.ny} rows ({grid.y_dim}) and {grid.nx} columns ({grid.x_dim}); "
            f"expected at least {_SMALLEST} of each: parameters that vary need neighbours"
        )


def check_room(grid: Grid, dilations: tuple[int, ...]) -> None:
    """Raise if sums and fit would not fit in memory; gaps in the data take up to twice as much."""
    maps = _MAPS + _MAPS_PER_DILATION * len(dilations)
    check_memory(
        8.0 * maps * grid.ny * grid.nx,
        what=f"estimating parameters on a grid of {grid.ny} x {grid.nx} cells",
        remedy="Coarsen the fields, select a region, or try one spacing only with dilation=1.",
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def check_modes(modes: Any, count: int) -> int:
    """Return the size of the mode dimension."""
    if modes == "auto":
        return min(CANDIDATES[-1], count // 4) if count >= 8 else 0
    if not _whole(modes) or modes < 0:
        raise ParameterError(f'modes={modes!r} was given; expected "auto" or a whole number >= 0')
    if modes and modes > count - 2:
        raise ParameterError(
            f"modes={modes} patterns were asked of {count} replicates; expected at most "
            f"{max(count - 2, 0)}"
        )
    return int(modes)


def check_dilation(dilation: Any, grid: Grid) -> tuple[int, ...]:
    """Return the distances to try on a grid."""
    fitting = tuple(d for d in DILATIONS if 4 * d <= min(grid.shape)) or (1,)
    if dilation == "auto":
        return fitting
    if not _whole(dilation) or dilation not in DILATIONS:
        raise ParameterError(
            f'dilation={dilation!r} was given; expected "auto" or one of {DILATIONS}'
        )
    if 2 * dilation >= min(grid.shape):
        raise ParameterError(
            f"dilation={dilation} needs more than {2 * dilation} rows and columns; the grid has "
            f"{grid.ny} x {grid.nx}"
        )
    return (int(dilation),)


def check_penalty(penalty: Any, count: int, dim: str) -> float | None:
    """Return the penalty; without one, replicates are needed."""
    if penalty is None:
        if count < 2:
            raise ParameterError(
                f"{count} replicate{'' if count == 1 else 's'} along {dim!r}; at least 2 are "
                "needed to tell spread from mean; pass more members or times, name another "
                "dimension with dim=, or declare how smooth the maps are with penalty= (the one "
                "replicate is then taken as an anomaly)"
            )
        return None
    number = isinstance(penalty, int | float | np.number) and not isinstance(penalty, bool)
    if not number or not np.isfinite(penalty) or penalty <= 0:
        raise ParameterError(f"penalty={penalty!r} was given; expected a number > 0, such as 100")
    return float(penalty)

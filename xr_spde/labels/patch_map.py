"""Overlapping patches of a grid, and weights that join what is computed on them without a seam."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PatchAxis", "PatchPlan", "plan_axis"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PatchAxis:
    """Patches along one axis.

    Attributes
    ----------
    size : int
        Cells of the axis.
    side : int
        Cells of every patch.
    starts : tuple of int
        First cell of each; on a circle it may lie before the first or the patch end behind the last
        cell.
    weights : ndarray (patches, side)
        Those of all patches at a cell sum to one.
    """

    size: int
    side: int
    starts: tuple[int, ...]
    weights: Float

    def pieces(self, number: int) -> Iterator[tuple[slice, slice]]:
        """Cells of the axis that a patch covers, and where these are in the patch."""
        start = self.starts[number]
        for turn in range(start // self.size, (start + self.side - 1) // self.size + 1):
            low = max(start, turn * self.size)
            high = min(start + self.side, (turn + 1) * self.size)
            cells = slice(low - turn * self.size, high - turn * self.size)
            yield cells, slice(low - start, high - start)


def plan_axis(size: int, side: int, overlap: int, *, periodic: bool = False) -> PatchAxis:
    """Cut an axis into patches of one size.

    The outer third of what neighbours share has no weight, which leaves out what a patch says next
    to its own edge; over the middle third the weight passes from one to the other as the square of
    a sine.

    Parameters
    ----------
    size : int
        Cells of the axis.
    side : int
        Cells of a patch, at most; fewer where as many smaller ones do.
    overlap : int
        Cells that neighbours share, at least; less than `side`.
    periodic : bool, default False
        Whether the axis closes. A single patch then overlaps itself.

    Returns
    -------
    PatchAxis

    Examples
    --------
    >>> from xr_spde.labels.patch_map import plan_axis
    >>> axis = plan_axis(20, 12, 3)
    >>> axis.starts, axis.weights[0, 7:].round(2).tolist()
    ((0, 8), [1.0, 1.0, 0.67, 0.33, 0.0])
    >>> plan_axis(9, 20, 3, periodic=True).starts
    (-1,)
    """
    if periodic:
        count = 1 if size + overlap <= side else math.ceil(size / (side - overlap))
        side = math.ceil(size / count) + overlap
        starts = tuple(k * size // count - overlap // 2 for k in range(count))
    else:
        count = 1 if size <= side else math.ceil((size - overlap) / (side - overlap))
        side = math.ceil((size + (count - 1) * overlap) / count)
        starts = tuple(k * (size - side) // max(count - 1, 1) for k in range(count))
    crop = overlap // 3
    ramp = overlap - 2 * crop
    inward = np.clip((np.arange(side) - crop + 0.5) / max(ramp, 1), 0.0, 1.0)
    rising = np.sin(0.5 * np.pi * inward) ** 2
    weights = np.ones((count, side))
    for k in range(count):
        weights[k] *= rising if periodic or k else 1.0
        weights[k] *= rising[::-1] if periodic or k < count - 1 else 1.0
    bare = PatchAxis(size, side, starts, weights)
    total = np.zeros(size)
    for k in range(count):
        for cells, own in bare.pieces(k):
            total[cells] += weights[k, own]
    for k in range(count):
        for cells, own in bare.pieces(k):
            weights[k, own] /= total[cells]
    return bare


@dataclass(frozen=True, eq=False)
class PatchPlan:
    """Patches of a plane, by rows.

    Attributes
    ----------
    rows, columns : PatchAxis
        Patches along y and x.
    """

    rows: PatchAxis
    columns: PatchAxis

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the plane."""
        return self.rows.size, self.columns.size

    @property
    def side(self) -> tuple[int, int]:
        """Rows and columns of a patch."""
        return self.rows.side, self.columns.side

    @property
    def count(self) -> int:
        """Number of patches."""
        return len(self.rows.starts) * len(self.columns.starts)

    def band(self, numbers: Sequence[int]) -> slice:
        """Rows of the plane that some patches cover, from the first to the last.

        Parameters
        ----------
        numbers : sequence of int
            Of the patches.

        Returns
        -------
        slice
        """
        starts = [self.rows.starts[n // len(self.columns.starts)] for n in numbers]
        return slice(min(starts), max(starts) + self.rows.side)

    def cut(self, array: NDArray[Any], number: int, top: int = 0) -> NDArray[Any]:
        """Return what a patch covers.

        Parameters
        ----------
        array : ndarray (..., rows, nx)
            The plane or a band of it.
        number : int
            Of the patch.
        top : int, default 0
            First row of the band.

        Returns
        -------
        ndarray (..., side_y, side_x)
        """
        i, j = divmod(number, len(self.columns.starts))
        first = self.rows.starts[i] - top
        cut = array[..., first : first + self.rows.side, :]
        return np.concatenate([cut[..., cells] for cells, _ in self.columns.pieces(j)], axis=-1)

    def add(self, out: NDArray[Any], part: NDArray[Any], number: int, top: int = 0) -> None:
        """Add the weighted values of a patch to a plane or a band of it, in place.

        Parameters
        ----------
        out : ndarray (..., rows, nx)
            What is added to.
        part : ndarray (..., side_y, side_x)
            Values of the patch.
        number : int
            Of the patch.
        top : int, default 0
            First row of the band.
        """
        i, j = divmod(number, len(self.columns.starts))
        first = self.rows.starts[i] - top
        weighted = part * self.rows.weights[i][:, None] * self.columns.weights[j]
        for cells, own in self.columns.pieces(j):
            out[..., first : first + self.rows.side, cells] += weighted[..., own]

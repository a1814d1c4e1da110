"""Empirical correlation with given points, in one pass over the replicates.

For each pair of a cell and a point the moments run over the replicates in which both are present
(pairwise complete). The running sums take the same memory whatever the number of replicates and
grow one replicate after the other, so the result does not depend on how they are chunked. The
first value of each cell is subtracted from all, so that a large mean cancels nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError

__all__ = ["PairSums", "finish", "start", "step"]

Array = NDArray[np.floating]


@dataclass(frozen=True)
class PairSums:
    """Running sums over the replicates in which both the point p and the cell a are present.

    Attributes
    ----------
    at : tuple of tuple of int
        Index (j, i) of each point.
    count : int
        Replicates seen.
    complete : int
        Replicates seen without a missing cell.
    shift : ndarray (ny, nx)
        First value of each cell, NaN before there is one. This and what follows is empty at first.
    cells : ndarray (2, ny, nx)
        Sums of a and a a over the complete replicates.
    points : ndarray (2, points)
        Sums of p and p p over the complete replicates.
    products : ndarray (points, ny, nx)
        Sum of p a over all replicates.
    gaps : ndarray (5, points, ny, nx) or None
        Sums of 1, a, a a, p, p p over the incomplete replicates; None while there are none.
    """

    at: tuple[tuple[int, int], ...]
    count: int = 0
    complete: int = 0
    shift: Array = field(default_factory=lambda: np.empty(0))
    cells: Array = field(default_factory=lambda: np.empty(0))
    points: Array = field(default_factory=lambda: np.empty(0))
    products: Array = field(default_factory=lambda: np.empty(0))
    gaps: Array | None = None


def start(at: tuple[tuple[int, int], ...]) -> PairSums:
    """State before the first replicate.

    Parameters
    ----------
    at : tuple of tuple of int
        Index (j, i) of each point.

    Returns
    -------
    PairSums
    """
    return PairSums(at)


def step(state: PairSums, block: Array) -> PairSums:
    """State after some more replicates; the old one is left intact.

    Parameters
    ----------
    state : PairSums
        What has been seen.
    block : ndarray (m, ny, nx)
        More replicates; NaN is missing.

    Returns
    -------
    PairSums

    Raises
    ------
    ParameterError
        A value is infinite.
    """
    if block.shape[0] == 0:
        return state
    new = _owned(state, block)
    rows, columns = (np.array(index, dtype=np.intp) for index in zip(*state.at, strict=True))
    complete = 0
    for number, replicate in enumerate(block):
        given = np.asarray(replicate, dtype=np.float64)
        fresh = np.isnan(new.shift) & np.isfinite(given)
        if fresh.any():
            new = replace(new, shift=np.where(fresh, given, new.shift))
        values = given - new.shift
        present = np.isfinite(values)
        if present.all():
            complete += 1
            _add_complete(new, values, values[rows, columns])
            continue
        if np.isinf(given).any():
            raise ParameterError(
                f"replicate {state.count + number} has infinite values; expected finite numbers, "
                "or NaN where missing: mask them with `.where(np.isfinite)`"
            )
        gaps = np.zeros((5, *new.products.shape)) if new.gaps is None else new.gaps
        new = replace(new, gaps=gaps)
        values[~present] = 0.0
        _add_partial(new.products, gaps, values, present.astype(np.float64), (rows, columns))
    return replace(new, count=state.count + block.shape[0], complete=state.complete + complete)


def _owned(state: PairSums, block: Array) -> PairSums:
    """Copy of the state that may be written to, with its arrays laid out at first use."""
    if state.count:
        return replace(
            state,
            cells=state.cells.copy(),
            points=state.points.copy(),
            products=state.products.copy(),
            gaps=None if state.gaps is None else state.gaps.copy(),
        )
    shape = block.shape[1:]
    return replace(
        state,
        shift=np.full(shape, np.nan),
        cells=np.zeros((2, *shape)),
        points=np.zeros((2, len(state.at))),
        products=np.zeros((len(state.at), *shape)),
    )


def _add_complete(state: PairSums, a: Array, p: Array) -> None:
    state.cells[0] += a
    state.cells[1] += a * a
    state.points[0] += p
    state.points[1] += p * p
    for k, value in enumerate(p):
        state.products[k] += value * a


def _add_partial(
    products: Array,
    gaps: Array,
    a: Array,
    present: Array,
    at: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> None:
    squares = a * a
    for k, (value, seen) in enumerate(zip(a[at], present[at], strict=True)):
        if seen:
            products[k] += value * a
            terms = (present, a, squares, value * present, value * value * present)
            for total, term in zip(gaps[:, k], terms, strict=True):
                total += term


def finish(state: PairSums) -> Array:
    """Correlation of every cell with each point.

    Parameters
    ----------
    state : PairSums
        After the last replicate.

    Returns
    -------
    ndarray (points, ny, nx)
        In [-1, 1]; NaN where fewer than two replicates have both, or one of them is constant.
    """
    point_sums = state.points[:, :, None, None]
    whole = (float(state.complete), *state.cells, *point_sums)
    gaps = np.zeros((5, 1, 1, 1)) if state.gaps is None else state.gaps
    count, a, aa, p, pp = (total + gap for total, gap in zip(whole, gaps, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        variance_a = aa / count - (a / count) ** 2
        variance_p = pp / count - (p / count) ** 2
        covariance = state.products / count - (a / count) * (p / count)
        result = covariance / np.sqrt(variance_a * variance_p)
        # A constant cell leaves rounding noise of its mean square, not a variance.
        constant = (variance_a <= 1e-13 * aa / count) | (variance_p <= 1e-13 * pp / count)
    usable = (count >= 2) & ~constant & np.isfinite(result)
    return np.where(usable, np.clip(result, -1.0, 1.0), np.nan)

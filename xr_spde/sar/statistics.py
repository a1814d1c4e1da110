"""Lag products: all that a Gaussian SAR likelihood sees of the replicates.

The nine-point stencil meets the data only through second moments inside its own 3 x 3
neighbourhood, that is through products of two cells at most two rows and two columns apart
(LatticeVision, arXiv 2505.09803, replaces raw replicates by networks' channels; these sums are
sufficient, independent of the order of replicates, and of fixed size whatever their number).
They are accumulated one replicate after the other, so the memory needed does not grow with the
number of replicates and the result does not depend on how they are chunked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError

Array = NDArray[np.floating]

#: Half plane of the 5 x 5 neighbourhood, (rows, columns): the other half follows by symmetry.
OFFSETS: tuple[tuple[int, int], ...] = (
    (0, 0), (0, 1), (0, 2),
    (1, -2), (1, -1), (1, 0), (1, 1), (1, 2),
    (2, -2), (2, -1), (2, 0), (2, 1), (2, 2),
)  # fmt: skip
_REACH = 2


@dataclass
class LagState:
    """Running sums over replicates; `step` returns a new state and leaves the old one intact.

    Attributes
    ----------
    periodic : bool
        Whether the last column is a neighbour of the first.
    count : int
        Replicates seen.
    complete : int
        Replicates seen without a missing cell.
    shift : ndarray (ny, nx)
        The first replicate, subtracted from all so that a large mean cancels nothing.
    total, seen : ndarray (ny, nx)
        Sum and number of present values of the incomplete and complete replicates.
    complete_total : ndarray (ny, nx)
        Sum over complete replicates alone.
    products : ndarray (13, ny, nx)
        Sums of y(s) y(s + h) over the replicates where both are present.
    near, far, pairs : ndarray (13, ny, nx) or None
        Sums of y(s), y(s + h) and 1 over the same pairs, for incomplete replicates alone.
    """

    periodic: bool
    count: int = 0
    complete: int = 0
    shift: Array | None = None
    total: Array | None = None
    seen: Array | None = None
    complete_total: Array | None = None
    products: Array | None = None
    near: Array | None = None
    far: Array | None = None
    pairs: Array | None = None


@dataclass(frozen=True)
class LagStatistics:
    """Pixelwise moments and lag covariances of the replicates.

    Attributes
    ----------
    covariance : ndarray (13, ny, nx)
        Unbiased covariance of the cells s and s + h for each h of `OFFSETS`; NaN where fewer
        than two replicates have both.
    pairs : ndarray (13, ny, nx)
        Number of replicates behind each.
    mean, variance : ndarray (ny, nx)
        Pixelwise mean and unbiased variance; NaN where a cell is never, or once, seen.
    seen : ndarray (ny, nx)
        Number of present values.
    replicates : int
        Number of replicates.
    """

    covariance: Array
    pairs: Array
    mean: Array
    variance: Array
    seen: Array
    replicates: int


def start(*, periodic: bool) -> LagState:
    """State before the first replicate.

    Parameters
    ----------
    periodic : bool
        Whether columns wrap around.

    Returns
    -------
    LagState
    """
    return LagState(periodic=periodic)


def shifted(field: Array, offset: tuple[int, int], *, periodic: bool, fill: float = 0.0) -> Array:
    """Values at s + offset, laid out at s; `fill` where s + offset lies outside.

    Parameters
    ----------
    field : ndarray (..., ny, nx)
        Values on the grid, both coordinates increasing.
    offset : tuple of int
        Rows and columns.
    periodic : bool
        Whether columns wrap around.
    fill : float, optional
        Value beyond the edge.

    Returns
    -------
    ndarray (..., ny, nx)
    """
    rows, columns = offset
    ny, nx = field.shape[-2:]
    out = np.full_like(field, fill)
    source = np.roll(field, -columns, axis=-1) if periodic and columns else field
    left, right = (0, nx) if periodic else (max(-columns, 0), nx - max(columns, 0))
    low, high = max(-rows, 0), ny - max(rows, 0)
    if low < high and left < right:
        shift = 0 if periodic else columns
        out[..., low:high, left:right] = source[
            ..., low + rows : high + rows, left + shift : right + shift
        ]
    return out


def step(state: LagState, block: Array) -> LagState:
    """Add replicates to the sums, one after the other.

    Parameters
    ----------
    state : LagState
        Sums so far; not modified.
    block : ndarray (m, ny, nx)
        Replicates; NaN is missing.

    Returns
    -------
    LagState

    Raises
    ------
    ParameterError
        If a value is infinite.
    """
    new = _owned(state, block)
    for replicate in np.asarray(block, dtype=np.float64):
        valid = np.isfinite(replicate)
        if np.isinf(replicate).any():
            where = tuple(int(i) for i in np.argwhere(np.isinf(replicate))[0])
            raise ParameterError(
                f"replicate {new.count} has infinite values (the first at row, column {where}); "
                "expected finite numbers or NaN for missing: mask them with `.where(np.isfinite)`"
            )
        whole = bool(valid.all())
        y = replicate - new.shift if whole else np.where(valid, replicate - new.shift, 0.0)
        _accumulate(new, y, None if whole else valid.astype(np.float64))
        new.count += 1
    return new


def _owned(state: LagState, block: Array) -> LagState:
    """Copy of the state that may be written to, with its arrays laid out at first use."""
    ny, nx = block.shape[-2:]
    if state.products is None:
        first = np.asarray(block[0], dtype=np.float64)
        zeros = np.zeros((ny, nx))
        return LagState(
            periodic=state.periodic,
            shift=np.where(np.isfinite(first), first, 0.0),
            total=zeros,
            seen=zeros.copy(),
            complete_total=zeros.copy(),
            products=np.zeros((len(OFFSETS), ny, nx)),
        )
    copies = {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in vars(state).items()
    }
    return LagState(**copies)


def _accumulate(state: LagState, y: Array, valid: Array | None) -> None:
    """Add one shifted replicate to a state that this call owns."""
    state.total += y
    if valid is None:
        state.complete += 1
        state.complete_total += y
        state.seen += 1.0
    else:
        state.seen += valid
        if state.pairs is None:
            state.near, state.far, state.pairs = (np.zeros_like(state.products) for _ in range(3))
    for k, offset in enumerate(OFFSETS):
        other = shifted(y, offset, periodic=state.periodic)
        state.products[k] += y * other
        if valid is not None:
            there = shifted(valid, offset, periodic=state.periodic)
            state.near[k] += y * there
            state.far[k] += other * valid
            state.pairs[k] += valid * there


def finish(state: LagState, *, centred: bool = True) -> LagStatistics:
    """Covariances from the sums.

    Parameters
    ----------
    state : LagState
        Sums over all replicates.
    centred : bool, optional
        Subtract the pixelwise means (and divide by one replicate less). False takes the data as
        anomalies already, which is all that one replicate allows.

    Returns
    -------
    LagStatistics
    """
    inside = np.ones_like(state.total)
    shape = state.products.shape
    pairs, near, far = np.empty(shape), np.empty(shape), np.empty(shape)
    for k, offset in enumerate(OFFSETS):
        there = shifted(inside, offset, periodic=state.periodic)
        pairs[k] = state.complete * there
        near[k] = state.complete_total * there
        far[k] = shifted(state.complete_total, offset, periodic=state.periodic)
    if state.pairs is not None:
        pairs, near, far = pairs + state.pairs, near + state.near, far + state.far
    with np.errstate(invalid="ignore", divide="ignore"):
        if centred:
            covariance = (state.products - near * far / pairs) / (pairs - 1.0)
            covariance[pairs < 2] = np.nan
        else:
            covariance = _uncentred(state, pairs, near, far)
        mean = np.where(state.seen > 0, state.shift + state.total / state.seen, np.nan)
    variance = covariance[0].copy()
    return LagStatistics(covariance, pairs, mean, variance, state.seen, state.count)


def _uncentred(state: LagState, pairs: Array, near: Array, far: Array) -> Array:
    """Mean products of the values themselves, undoing the shift by the first replicate."""
    out = np.empty_like(pairs)
    for k, offset in enumerate(OFFSETS):
        other = shifted(state.shift, offset, periodic=state.periodic)
        raw = state.products[k] + state.shift * far[k] + other * near[k]
        out[k] = raw / pairs[k] + state.shift * other
    out[pairs < 1] = np.nan
    return out


#: The four linear features of the stencil, B y = kappa2 f0 + hxx f1 + hyy f2 + hxy f3,
#: as weights of the nine neighbours (rows, columns).
_FEATURES: tuple[dict[tuple[int, int], float], ...] = (
    {(0, 0): 1.0},
    {(0, 0): 2.0, (0, 1): -1.0, (0, -1): -1.0},
    {(0, 0): 2.0, (1, 0): -1.0, (-1, 0): -1.0},
    {(1, 1): -0.5, (-1, -1): -0.5, (1, -1): 0.5, (-1, 1): 0.5},
)


def stencil_gram(statistics: LagStatistics, *, periodic: bool) -> tuple[Array, Array]:
    """Second moments of the four features of the stencil, from the lag covariances.

    With B y = sum_i q_i f_i and q = (kappa2, hxx, hyy, hxy), the local quadratic form of the
    likelihood is q' G q: the 9 x 9 moment matrix of the neighbourhood enters through G alone.

    Parameters
    ----------
    statistics : LagStatistics
        Lag covariances of the replicates.
    periodic : bool
        Whether columns wrap around.

    Returns
    -------
    gram : ndarray (4, 4, ny, nx)
        Mean of f_i f_j over replicates; zero where it cannot be formed.
    weight : ndarray (ny, nx)
        Smallest number of replicates behind any of the products of the neighbourhood; zero
        where one of them is missing (edges, coasts).
    """
    ny, nx = statistics.mean.shape
    gram = np.zeros((4, 4, ny, nx))
    weight = np.full((ny, nx), np.inf)
    lookup = {offset: k for k, offset in enumerate(OFFSETS)}
    cells = [(dj, di) for dj in (-1, 0, 1) for di in (-1, 0, 1)]
    for a in cells:
        for b in cells:
            lag = (b[0] - a[0], b[1] - a[1])
            if lag not in lookup:
                continue  # met as (b, a)
            k = lookup[lag]
            moment = shifted(statistics.covariance[k], a, periodic=periodic, fill=np.nan)
            count = shifted(statistics.pairs[k], a, periodic=periodic)
            weight = np.minimum(weight, np.where(np.isfinite(moment), count, 0.0))
            for i, first in enumerate(_FEATURES):
                for j, second in enumerate(_FEATURES):
                    factor = first.get(a, 0.0) * second.get(b, 0.0)
                    if a != b:
                        factor += first.get(b, 0.0) * second.get(a, 0.0)
                    if factor:
                        gram[i, j] += factor * moment
    gram[:, :, weight <= 0] = 0.0
    return gram, weight

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.solvers.card import array_module, check

Array = NDArray[np.float64]

_SUMS = 13 * 5 + 14
"""Maps of the size of the grid that sums over replicates with gaps take, and one replicate."""

#: Half plane of the 5 x 5 neighbourhood, (rows, columns): the other half follows by symmetry.
OFFSETS: tuple[tuple[int, int], ...] = (
    (0, 0), (0, 1), (0, 2),
    (1, -2), (1, -1), (1, 0), (1, 1), (1, 2),
    (2, -2), (2, -1), (2, 0), (2, 1), (2, 2),
)  # fmt: skip


@dataclass(frozen=True)
class LagStatistics:
    """Pixelwise moments and lag covariances of the replicates.

    Attributes
    ----------
    covariance : ndarray (13, ny, nx)
        Unbiased covariance of the cells s and s + h for each h of `OFFSETS`; NaN where fewer
        than two replicates have both. With gaps it is half the variances of the two cells minus
        half the variance of their difference over the pairs: a stencil takes differences, and
        those of covariances from different replicates would be mostly noise.
    pairs : ndarray (13, ny, nx)
        Number of replicates behind each.
    mean, variance : ndarray (ny, nx)
        Pixelwise mean and unbiased variance; NaN where a cell is never, or once, seen.
    seen : ndarray (ny, nx)
        Number of present values.
    replicates : int
        Number of replicates.
    dilation : int
        Cells between neighbours.
    """

    covariance: Array
    pairs: Array
    mean: Array
    variance: Array
    seen: Array
    replicates: int
    dilation: int = 1


def shifted(
    field: Array, offset: tuple[int, int], *, periodic: bool, fill: float = 0.0, xp: Any = np
) -> Array:
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
    xp : module, default numpy
        numpy or cupy, wherever the field is.

    Returns
    -------
    ndarray (..., ny, nx)
    """
    rows, columns = offset
    ny, nx = field.shape[-2:]
    out: Array = xp.full_like(field, fill)
    source = xp.roll(field, -columns, axis=-1) if periodic and columns else field
    left, right = (0, nx) if periodic else (max(-columns, 0), nx - max(columns, 0))
    low, high = max(-rows, 0), ny - max(rows, 0)
    if low < high and left < right:
        shift = 0 if periodic else columns
        out[..., low:high, left:right] = source[
            ..., low + rows : high + rows, left + shift : right + shift
        ]
    return out


def card_bytes(shape: tuple[int, int]) -> int:
    """Memory that the sums of one spacing take on a card, with their covariances at the end."""
    return 8 * (_SUMS + 2 * len(OFFSETS)) * shape[0] * shape[1]


class LagSums:
    """Running sums over replicates, added one after the other and in place.

    Parameters
    ----------
    shape : tuple of int
        Grid size (ny, nx).
    periodic : bool
        Whether the last column is a neighbour of the first.
    dilation : int, optional
        Cells between neighbours: 2 looks at every second row and column around each cell, which
        is the stencil of a grid half as fine, from all its shifted copies.
    device : {"cpu", "cuda"}
        Where the sums are; a replicate goes to a card once, and nothing comes back but whether it
        has gaps.

    Attributes
    ----------
    count : int
        Replicates seen.

    Raises
    ------
    MemoryGuardError
        If the sums would not fit on the card.
    """

    def __init__(
        self, shape: tuple[int, int], *, periodic: bool, dilation: int = 1, device: str = "cpu"
    ) -> None:
        self.periodic, self.dilation, self.count = periodic, dilation, 0
        # a name, not the module: sums are copied and sent
        self._device = device
        xp = self._xp
        if device != "cpu":
            check(
                xp,
                card_bytes(shape),
                what=f"lag products of a grid of {shape[0]} x {shape[1]} cells",
                remedy="Coarsen the fields, or select a region.",
            )
        # the first value of a cell is subtracted from all, so that a large mean cancels nothing
        self._shift: Array = xp.zeros(shape)
        self._total, self._seen = xp.zeros(shape), xp.zeros(shape)
        self._complete, self._complete_total = 0, xp.zeros(shape)
        self._products = xp.zeros((len(OFFSETS), *shape))
        # y(s), y(s + h), 1 and both squares summed over the pairs of replicates with gaps
        self._near = self._far = self._pairs = self._squares = xp.zeros((len(OFFSETS), 1, 1))

    def add(self, replicate: Array) -> None:
        """Add one replicate.

        Parameters
        ----------
        replicate : ndarray (ny, nx)
            Values, both coordinates increasing; NaN is missing.

        Raises
        ------
        ParameterError
            If a value is infinite.
        """
        xp, values = self._xp, self.moved(replicate)
        valid = xp.isfinite(values)
        whole = bool(valid.all())
        if not whole:
            _refuse_infinite(values, self.count, xp)
        if not self._seen.all():
            self._shift = xp.where(valid & (self._seen == 0), values, self._shift)
        y = xp.where(valid, values - self._shift, 0.0)
        present = valid.astype(np.float64)
        self._total += y
        self._seen += present
        if whole:
            self._complete += 1
            self._complete_total += y
        elif self._pairs.shape != self._products.shape:
            shape = self._products.shape
            self._near, self._far, self._pairs, self._squares = (xp.zeros(shape) for _ in range(4))
        for k, offset in enumerate(self._offsets):
            other = shifted(y, offset, periodic=self.periodic, xp=xp)
            self._products[k] += y * other
            if not whole:
                there = shifted(present, offset, periodic=self.periodic, xp=xp)
                self._near[k] += y * there
                self._far[k] += other * present
                self._pairs[k] += present * there
                self._squares[k] += y * y * there + other * other * present
        self.count += 1

    @property
    def _offsets(self) -> list[tuple[int, int]]:
        return [(self.dilation * rows, self.dilation * columns) for rows, columns in OFFSETS]

    def finish(self, *, centred: bool = True) -> LagStatistics:
        """Covariances from the sums.

        Parameters
        ----------
        centred : bool, optional
            Subtract the pixelwise means (and divide by one replicate less). False takes the data
            as anomalies already, which is all that one replicate allows.

        Returns
        -------
        LagStatistics
        """
        xp = self._xp
        covariance, pairs = xp.empty_like(self._products), xp.empty_like(self._products)
        gaps = self._complete < self.count
        with np.errstate(invalid="ignore", divide="ignore"):
            for k, offset in enumerate(self._offsets):  # one by one: few maps at a time
                pairs[k], near, far = self._pair_sums(k, offset)
                if not centred:
                    covariance[k] = self._uncentred(k, offset, pairs[k], near, far)
                elif gaps and k:
                    total = near - far
                    covariance[k] = self._by_differences(k, offset, covariance[0], pairs[k], total)
                else:
                    covariance[k] = (self._products[k] - near * far / pairs[k]) / (pairs[k] - 1.0)
            mean = self._shift + self._total / self._seen
        covariance[pairs < 1 + centred] = np.nan
        maps = (covariance, pairs, mean, covariance[0].copy(), self._seen)
        if xp is not np:
            maps = tuple(one.get() for one in maps)
        return LagStatistics(*maps, self.count, self.dilation)

    @property
    def _xp(self) -> Any:
        return array_module(self._device)

    def moved(self, replicate: Any) -> Any:
        """Return a replicate in float64 where the sums are; one that is there stays as it is."""
        if self._device == "cpu" or isinstance(replicate, np.ndarray):
            host = np.asarray(replicate, dtype=np.float64)
            return host if self._device == "cpu" else self._xp.asarray(np.ascontiguousarray(host))
        return replicate

    def _pair_sums(self, k: int, offset: tuple[int, int]) -> tuple[Array, Array, Array]:
        """Numbers of pairs and their one-sided sums, whole replicates included."""
        xp = self._xp
        there = shifted(xp.ones_like(self._total), offset, periodic=self.periodic, xp=xp)
        far = shifted(self._complete_total, offset, periodic=self.periodic, xp=xp)
        whole = (self._complete * there, self._complete_total * there, far)
        if self._pairs.shape != self._products.shape:
            return whole
        return whole[0] + self._pairs[k], whole[1] + self._near[k], whole[2] + self._far[k]

    def _by_differences(
        self, k: int, offset: tuple[int, int], variance: Array, pairs: Array, total: Array
    ) -> Array:
        """Half the variances of both ends minus half that of the difference over the pairs."""
        xp = self._xp
        complete = self._products[0] - 0.5 * self._squares[0]
        other = shifted(complete, offset, periodic=self.periodic, xp=xp)
        square = complete + other + self._squares[k] - 2.0 * self._products[k]
        spread = (square - total**2 / pairs) / (pairs - 1.0)
        far = shifted(variance, offset, periodic=self.periodic, xp=xp)
        found: Array = 0.5 * (variance + far - spread)
        return found

    def _uncentred(
        self, k: int, offset: tuple[int, int], pairs: Array, near: Array, far: Array
    ) -> Array:
        """Mean products of the values themselves, undoing the shift by first values."""
        xp = self._xp
        other = shifted(self._shift, offset, periodic=self.periodic, xp=xp)
        raw = self._products[k] + self._shift * far + other * near
        found: Array = raw / pairs + self._shift * other
        return found


def _refuse_infinite(values: Array, number: int, xp: Any) -> None:
    """Raise if a value is infinite."""
    infinite = xp.isinf(values)
    if infinite.any():
        infinite = infinite if xp is np else infinite.get()
        row, column = (int(i) for i in np.argwhere(infinite)[0])
        raise ParameterError(
            f"replicate {number} has {int(infinite.sum())} infinite values (the first in row {row},"
            f" column {column}); expected finite numbers, or NaN for missing: mask them first, "
            "`fields.where(np.isfinite(fields))`"
        )


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
    step = statistics.dilation
    cells = [(dj, di) for dj in (-1, 0, 1) for di in (-1, 0, 1)]
    for a in cells:
        for b in cells:
            lag = (b[0] - a[0], b[1] - a[1])
            if lag not in lookup:
                continue  # met as (b, a)
            k = lookup[lag]
            cell = (step * a[0], step * a[1])
            moment = shifted(statistics.covariance[k], cell, periodic=periodic, fill=np.nan)
            count = shifted(statistics.pairs[k], cell, periodic=periodic)
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


def stencil_features(fields: Array, *, dilation: int, periodic: bool) -> Array:
    """Apply the four linear features of the stencil to given fields.

    Parameters
    ----------
    fields : ndarray (..., ny, nx)
        Values on the grid.
    dilation : int
        Cells between neighbours.
    periodic : bool
        Whether columns wrap around.

    Returns
    -------
    ndarray (4, ..., ny, nx)
        Zero is taken beyond the edges.
    """
    out = np.zeros((len(_FEATURES), *fields.shape))
    for k, feature in enumerate(_FEATURES):
        for (rows, columns), factor in feature.items():
            cell = (dilation * rows, dilation * columns)
            out[k] += factor * shifted(fields, cell, periodic=periodic)
    return out

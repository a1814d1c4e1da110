"""Grids cut into windows, for what a direct solver cannot hold whole.

What cells far apart have to do with each other falls off within a few practical ranges, so that a
quantity of the whole grid follows from overlapping windows, each small enough to be factorised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde.fields.closed_form import symbol
from xr_spde.fields.sar import log_tensor, tensor
from xr_spde.fields.stencil import OFFSETS, assemble, check_boundary
from xr_spde.fields.symbol import log_symbol_mean
from xr_spde.solvers.grid_factor import GridFactor

Float = NDArray[np.float64]
Index = NDArray[np.intp]

HALO = (16, 256)
"""Least and largest width of an overlap; larger windows would cost more than they gain."""

TILE = 64
"""Least width of a tile: smaller ones would be mostly overlap."""


def halo(kappa2: Float, rho: Float) -> int:
    """Width of the overlap of windows: the practical range of most cells.

    Parameters
    ----------
    kappa2, rho : ndarray (ny, nx)
        Squared inverse range in grid-cell units and ratio of ranges.

    Returns
    -------
    int
        Practical range along the direction of longest correlation, ``sqrt(8 rho / kappa2)`` cells,
        its 90th percentile, within :data:`HALO`.
    """
    usual = float(np.quantile(np.sqrt(8.0 * rho / kappa2), 0.9))
    return int(np.clip(math.ceil(usual), *HALO))


@dataclass(frozen=True)
class Domain:
    """Stencil weights of a grid and which of its axes close on themselves.

    Parameters
    ----------
    weights : ndarray (9, ny, nx)
        In the order of :data:`xr_spde.fields.stencil.OFFSETS`.
    wraps : tuple of bool
        Of y and x.
    """

    weights: Float
    wraps: tuple[bool, bool]

    @classmethod
    def of(cls, weights: Float, boundary: str) -> Domain:
        """Domain with a boundary named as in :func:`xr_spde.fields.stencil.periodicity`."""
        if check_boundary(boundary) != "paper":
            return cls(weights, (boundary == "torus", boundary != "plane"))
        # y wraps along the diagonals alone
        closed = weights.copy()
        closed[OFFSETS.index((1, 0)), -1] = 0.0
        closed[OFFSETS.index((-1, 0)), 0] = 0.0
        return cls(closed, (True, True))

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        ny, nx = self.weights.shape[1:]
        return ny, nx

    def part(self, rows: Index, columns: Index) -> tuple[Float, str]:
        """Weights of some rows and columns and the boundary of that grid.

        An axis of full length stays closed; beyond the edges of a shorter one lies nothing.
        """
        found = self.weights[:, rows[:, None], columns]
        full = (len(rows) == self.shape[0], len(columns) == self.shape[1])
        closed = tuple(wraps and whole for wraps, whole in zip(self.wraps, full, strict=True))
        if closed == (True, False):
            # no boundary closes y alone: a torus without its seam in x
            for weight, (_, step) in zip(found, OFFSETS, strict=True):
                if step:
                    weight[:, -1 if step > 0 else 0] = 0.0
            return found, "torus"
        return found, "torus" if closed[0] else "cylinder" if closed[1] else "plane"


def spans(size: int, tile: int) -> Iterator[tuple[int, int]]:
    """Cut an axis into tiles of one width, but for the last: half to one and a half of it."""
    count = max(1, round(size / tile))
    for k in range(count):
        yield k * tile, (k + 1) * tile if k < count - 1 else size


def windowed_logdet(domain: Domain, *, overlap: int, tile: int) -> float:
    """``log|det B|`` from windows: exact but for what reaches further than the overlap.

    Along one axis the determinant is the product, tile by tile, of ``det B_past+tile / det B_past``
    over the whole past; here the past is cut to the overlap, since a Schur complement forgets what
    lies further back as fast as ``B^-1`` decays. Along both axes that gives a difference of four
    windows for each tile.

    Parameters
    ----------
    domain : Domain
        Weights and boundary.
    overlap : int
        Cells of the past.
    tile : int
        Cells between cuts. An axis that is not longer than one window is not cut.

    Returns
    -------
    float
    """
    total = 0.0
    for j, i, sign in signed_windows(domain.shape, domain.wraps, overlap=overlap, tile=tile):
        weights, boundary = domain.part(j, i)
        matrix = assemble(weights, boundary=boundary)
        total += sign * GridFactor(matrix, shape=(j.size, i.size), boundary=boundary).logdet()
    return total


def signed_windows(
    shape: tuple[int, int], wraps: tuple[bool, bool], *, overlap: int, tile: int
) -> list[tuple[Index, Index, int]]:
    """Windows whose signed sum stands for the whole grid: each tile with its past, less the past.

    Whatever belongs to a node and its neighbours counts once in that sum, without error: in the
    interior of a window, and at those of its edges that the grid has too. The other edges cancel.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    wraps : tuple of bool
        Which axes are closed.
    overlap, tile : int
        As for `windowed_logdet`.

    Returns
    -------
    list of (ndarray, ndarray, int)
        Rows, columns and sign (or a small number) of each window; those of one shape in a row,
        since they share symbolic work.
    """
    windows, tiles = tiled_windows(shape, wraps, overlap=overlap, tile=tile)
    # the past of one tile can be all of another window
    signs = np.zeros(len(windows), dtype=int)
    for terms in tiles:
        for number, sign in terms:
            signs[number] += sign
    return [(j, i, sign) for (j, i), sign in zip(windows, signs.tolist(), strict=True) if sign]


def tiled_windows(
    shape: tuple[int, int],
    wraps: tuple[bool, bool],
    *,
    overlap: int,
    tile: int,
    widest: int | None = None,
) -> tuple[list[tuple[Index, Index]], list[list[tuple[int, int]]]]:
    """Windows, and those of each tile.

    Parameters
    ----------
    shape, wraps, overlap, tile
        As for `signed_windows`.
    widest : int, optional
        Overlap by which it is decided what is cut: the same tiles for several overlaps.

    Returns
    -------
    windows : list of (ndarray, ndarray)
        Rows and columns, those of one shape in a row.
    tiles : list of list of (int, int)
        For each tile, numbers of windows and their signs.
    """
    axes = [
        list(_pasts(size, overlap, tile, closed, widest or overlap))
        for size, closed in zip(shape, wraps, strict=True)
    ]
    made: dict[tuple[bytes, bytes], tuple[Index, Index]] = {}
    terms: list[list[tuple[tuple[bytes, bytes], int]]] = []
    for (rows, old_rows), (columns, old_columns) in product(*axes):
        terms.append([])
        for (j, first), (i, second) in product(
            ((rows, 1), (old_rows, -1)), ((columns, 1), (old_columns, -1))
        ):
            if j.size and i.size:
                key = j.tobytes(), i.tobytes()
                made[key] = (j, i)
                terms[-1].append((key, first * second))
    keys = sorted(made, key=lambda key: (made[key][0].size, made[key][1].size))
    number = {key: n for n, key in enumerate(keys)}
    tiles = [[(number[key], sign) for key, sign in some] for some in terms]
    return [made[key] for key in keys], tiles


def is_cut(size: int, wraps: bool, overlap: int, tile: int) -> bool:
    """Whether an axis is longer than a window, and long enough for one if it is closed."""
    return size > overlap + (2 if wraps else 1.5) * tile


def _pasts(
    size: int, overlap: int, tile: int, wraps: bool, widest: int
) -> Iterator[tuple[Index, Index]]:
    """Numbers along one axis of each past with its tile, and of the past alone."""
    if not is_cut(size, wraps, widest, tile):
        yield np.arange(size), np.arange(0)
        return
    for start, stop in spans(size, tile):
        first = start - overlap if wraps else max(start - overlap, 0)
        yield np.arange(first, stop) % size, np.arange(first, start) % size


def logdet_with_error(
    kappa2: Float, rho: Float, theta: Float, weights: Float, boundary: str
) -> tuple[float, float]:
    """``log|det B|`` from windows, and a bound of its error.

    Three overlaps, each twice the one before, differ less and less; what is left after the last is
    bounded by the geometric series with the ratio of the last two differences, which errors on the
    safe side for correlations that fall faster than a power. On a torus the smoothest modes, which
    no window holds, add what closing the grid does to the determinant of the mean parameters.

    Parameters
    ----------
    kappa2, rho, theta : ndarray (ny, nx)
        Parameters.
    weights : ndarray (9, ny, nx)
        Stencil weights of the same.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Of the grid.

    Returns
    -------
    value, error : float

    References
    ----------
    Own construction; the decay of Schur complements is that used by Vecchia (1988), J. R. Stat.
    Soc. B 50, for conditional densities.
    """
    domain, width = Domain.of(weights, boundary), overlap_of(kappa2, rho)
    tile = max(TILE, width)
    fine = windowed_logdet(domain, overlap=width, tile=tile)
    if not any(is_cut(*axis, width, tile) for axis in zip(domain.shape, domain.wraps, strict=True)):
        return fine, 0.0
    middle, coarse = (windowed_logdet(domain, overlap=width // k, tile=tile) for k in (2, 4))
    error = float(remainder([fine], [middle], [coarse]))
    return fine, error + seam(kappa2, rho, theta, domain.wraps)


def overlap_of(kappa2: Float, rho: Float) -> int:
    """Width of the overlap for determinants and likelihoods: two practical ranges."""
    # twice the range costs a tenth more and takes the error from units to thousandths
    return min(2 * halo(kappa2, rho), HALO[1])


def remainder(
    fine: ArrayLike, middle: ArrayLike, coarse: ArrayLike, *, least: float = 0.0
) -> Float:
    """Bound of what an overlap leaves out, from all, half and a quarter of it.

    Parameters
    ----------
    fine, middle, coarse : array_like (T, ...)
        Contributions of the tiles. Their differences count by size, so that neither signs that
        happen to cancel nor a single tile decides the ratio of the series.
    least : float
        Share of the last difference that the bound is at least. Where data are integrated out a
        small part may fall off more slowly than the rest, which the ratio does not show: 1 only
        trusts that the last doubling of the overlap has halved the error.

    Returns
    -------
    ndarray (...)
    """
    parts = [np.asarray(one, dtype=np.float64) for one in (fine, middle, coarse)]
    last, first = (np.abs(parts[k] - parts[k + 1]).sum(axis=0) for k in (0, 1))
    ratio = np.minimum(last / np.maximum(first, np.finfo(float).tiny), 0.9)
    return np.asarray(last * np.maximum(ratio / (1.0 - ratio), least))


def seam(kappa2: Float, rho: Float, theta: Float, wraps: tuple[bool, bool]) -> float:
    """Change of ``log|det B|`` by closing both axes, for the mean parameters.

    Parameters
    ----------
    kappa2, rho, theta : ndarray (ny, nx)
        Parameters.
    wraps : tuple of bool
        Which axes are closed; not both, and there are no modes without an edge.

    Returns
    -------
    float
    """
    if not all(wraps):
        return 0.0
    level = float(np.exp(np.log(kappa2).mean()))
    h1, h2 = (float(part.mean()) for part in log_tensor(rho, theta))
    ratio, angle = np.exp(np.hypot(h1, h2)), 0.5 * np.arctan2(h2, h1)
    h = tensor(ratio, angle)
    ky, kx = (2.0 * np.pi * np.fft.fftfreq(size) for size in kappa2.shape)
    closed = sum(float(np.log(symbol(level, *h, kx, k)).sum()) for k in ky)
    mean, _ = log_symbol_mean(*(np.array([v]) for v in (level, *h)))
    return abs(closed - kappa2.size * float(mean[0]))

"""Large-scale patterns: the part of a field's covariance that no local model can hold.

A spatial autoregressive field has correlations that fall with distance and never change sign.
Weather and climate have waves, dipoles and teleconnections besides. The leading principal
components of block means carry them: with patterns phi_k and independent standard normal a_k,

    field = mean + sum_k a_k phi_k + remainder ,

the remainder is what the SAR model describes (for the split into few patterns and a local rest see
Sang and Huang 2012, A full scale approximation of covariance functions). How many patterns are
real and how many are noise of a finite ensemble is settled on data that were held out: patterns
and a local model fitted to the even replicates must foretell the correlations of the odd ones, and
the other way around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.green import tensor_of_log
from xr_spde.fields.sar import tensor_weights
from xr_spde.fields.stencil import assemble
from xr_spde.sar.local import LocalFit, LocalModel
from xr_spde.sar.statistics import OFFSETS, LagStatistics, shifted, stencil_gram
from xr_spde.sar.whittle import LocalProblem
from xr_spde.solvers.superlu import SuperLUFactor

Float = NDArray[np.float64]

#: Share of the variance of a cell that patterns may take.
MAX_SHARE = 0.95
#: Numbers of patterns that are tried.
CANDIDATES = (0, 1, 2, 3, 4, 6, 8, 12)
_MOST_BLOCKS = 400
_FOLDS = 2
_RIM = 5
_GAIN = 0.05
# columns of blocks beyond which a cubic spline no longer feels the edge
_WRAP = 4


class BlockSums:
    """Running sums of block means and their products, even and odd replicates apart.

    Parameters
    ----------
    shape : tuple of int
        Grid size (ny, nx).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        ratio = max(1.0, np.sqrt(shape[0] * shape[1] / _MOST_BLOCKS))
        self.shape = shape
        self.blocks = (max(2, round(shape[0] / ratio)), max(2, round(shape[1] / ratio)))
        self.starts = [
            np.ceil(np.arange(count) * size / count).astype(np.int64)
            for size, count in zip(shape, self.blocks, strict=True)
        ]
        size = self.blocks[0] * self.blocks[1]
        self.count = np.zeros(_FOLDS, dtype=np.int64)
        self._shift: Float = np.zeros(shape)
        self._seen = np.zeros(shape, dtype=bool)
        self._sums, self._products = np.zeros((_FOLDS, size)), np.zeros((_FOLDS, size, size))
        self._whole = np.ones(size, dtype=bool)

    def pool(self, field: Float) -> Float:
        """Sum over the cells of each block, (ny, nx) to (blocks,)."""
        rows = np.add.reduceat(field, self.starts[0], axis=0)
        return np.asarray(np.add.reduceat(rows, self.starts[1], axis=1)).ravel()

    def add(self, replicate: Float) -> None:
        """Add one replicate; a block counts if it has a value in every one of them.

        Parameters
        ----------
        replicate : ndarray (ny, nx)
            Values; NaN is missing.
        """
        values = np.asarray(replicate, dtype=np.float64)
        valid = np.isfinite(values)
        if not self._seen.all():
            # the first value of each cell, so that gaps do not let its mean into the block's
            self._shift = np.where(valid & ~self._seen, values, self._shift)
            self._seen |= valid
        present = self.pool(valid.astype(np.float64))
        self._whole &= present > 0
        total = self.pool(np.where(valid, values - self._shift, 0.0))
        mean = total / np.maximum(present, 1.0)
        fold = int(self.count.sum() % _FOLDS)
        self._sums[fold] += mean
        self._products[fold] += mean[:, None] * mean
        self.count[fold] += 1

    def covariance(self, folds: Sequence[int] = tuple(range(_FOLDS))) -> BlockCovariance:
        """Unbiased covariance of the block means over some of the replicates.

        Parameters
        ----------
        folds : sequence of int, optional
            Which folds; 0 holds the even replicates, 1 the odd ones.

        Returns
        -------
        BlockCovariance
        """
        chosen = list(folds)
        number = int(self.count[chosen].sum())
        sums = self._sums[chosen].sum(axis=0)
        matrix = self._products[chosen].sum(axis=0) - sums[:, None] * sums / number
        matrix /= max(number - 1, 1)
        varies = np.diagonal(matrix) > 0
        return BlockCovariance(self.blocks, self._whole & varies, matrix, number)


@dataclass(frozen=True)
class BlockCovariance:
    """Covariance of block means.

    Attributes
    ----------
    blocks : tuple of int
        Rows and columns of blocks.
    valid : ndarray (blocks,) of bool
        Blocks with data in every replicate that vary.
    matrix : ndarray (blocks, blocks)
        Covariance.
    replicates : int
        Number of replicates.
    """

    blocks: tuple[int, int]
    valid: NDArray[np.bool_]
    matrix: Float
    replicates: int

    def correlation(self) -> Float:
        """Correlation of the valid blocks."""
        inner = self.matrix[np.ix_(self.valid, self.valid)]
        scale = np.sqrt(np.diagonal(inner))
        return np.asarray(inner / scale[:, None] / scale)

    def components(self, number: int) -> Float:
        """Leading principal components as correlations with the valid blocks, (number, valid)."""
        values, vectors = np.linalg.eigh(self.correlation())
        order = np.argsort(values)[::-1][:number]
        return np.asarray((vectors[:, order] * np.sqrt(np.maximum(values[order], 0.0))).T)


def choose_patterns(sums: BlockSums, boundary: str, *, most: int) -> int:
    """Choose the number of patterns that best foretells correlations of replicates held out.

    Parameters
    ----------
    sums : BlockSums
        Block means of the folds.
    boundary : str
        Boundary rule of the grid.
    most : int
        Largest number allowed.

    Returns
    -------
    int
        The smallest number whose error is within 5 % of the least; zero for fewer than 8
        replicates.
    """
    if most <= 0 or sums.count.min() < 4:
        return 0
    everything = range(_FOLDS)
    parts = [
        (sums.covariance([f for f in everything if f != fold]), sums.covariance([fold]))
        for fold in everything
    ]
    shared = np.logical_and.reduce([part.valid for pair in parts for part in pair])
    if shared.sum() < 12:
        return 0
    limit = min(most, int(sums.count.sum() - sums.count.max()) // 3)
    tried = [number for number in CANDIDATES if number <= limit]
    errors = np.zeros(len(tried))
    for pair in parts:
        train, test = (replace(part, valid=shared) for part in pair)
        truth, components = test.correlation(), train.components(tried[-1])
        for place, number in enumerate(tried):
            foretold = block_model(train, components[:number], boundary)
            errors[place] += float(np.mean((foretold - truth) ** 2))
    bound = errors.min() * (1.0 + _GAIN)
    return next(number for number, error in zip(tried, errors, strict=True) if error <= bound)


def block_model(data: BlockCovariance, components: Float, boundary: str) -> Float:
    """Correlation of blocks by patterns and a local model of what they leave.

    Parameters
    ----------
    data : BlockCovariance
        The covariance that both are fitted to.
    components : ndarray (number, valid)
        Patterns, as correlations with the valid blocks.
    boundary : str
        Boundary rule of the grid.

    Returns
    -------
    ndarray (valid, valid)
        Correlation matrix.
    """
    periodic = boundary != "plane"
    components = shrink(components)
    rest = data.correlation() - components.T @ components
    gram, weight = stencil_gram(_block_lags(data, rest), periodic=periodic)
    freedom = max(data.replicates - 1 - len(components), 1)
    model = LocalModel(boundary=boundary, buffer=0, corrections=0)
    if not (weight > 0).any():
        return np.asarray(components.T @ components + np.diag(np.diagonal(rest)))
    weight = np.where(weight > 0, freedom, 0.0)
    fit = LocalProblem(make_positive(gram), weight, model).fit()
    local = local_correlation(fit, boundary)[np.ix_(data.valid, data.valid)]
    return combine(components, local)


def combine(components: Float, local: Float) -> Float:
    """Correlation of patterns and remainder together.

    Parameters
    ----------
    components : ndarray (number, cells)
        Patterns, as correlations.
    local : ndarray (cells, cells)
        Correlation of the remainder.

    Returns
    -------
    ndarray (cells, cells)
    """
    share = np.sqrt(np.maximum(1.0 - np.sum(components**2, axis=0), 0.0))
    return np.asarray(components.T @ components + share[:, None] * share * local)


def shrink(components: Float) -> Float:
    """Leave at least a little variance of every cell to the remainder.

    Parameters
    ----------
    components : ndarray (number, ...)
        Patterns, as correlations.

    Returns
    -------
    ndarray (number, ...)
    """
    share = np.sum(components**2, axis=0)
    return np.asarray(components * np.sqrt(MAX_SHARE / np.maximum(share, MAX_SHARE)))


def _block_lags(data: BlockCovariance, matrix: Float) -> LagStatistics:
    """Lag products of the block grid, read off a covariance matrix of the valid blocks."""
    rows, columns = data.blocks
    size = rows * columns
    full = np.full((size, size), np.nan)
    full[np.ix_(data.valid, data.valid)] = matrix
    index = np.arange(size, dtype=np.float64).reshape(rows, columns)
    lags = np.full((len(OFFSETS), rows, columns), np.nan)
    for k, offset in enumerate(OFFSETS):
        other = shifted(index, offset, periodic=False, fill=-1.0).astype(np.int64)
        inside = other >= 0
        lags[k][inside] = full[index[inside].astype(np.int64), other[inside]]
    pairs = np.where(np.isfinite(lags), float(data.replicates), 0.0)
    zero = np.zeros((rows, columns))
    return LagStatistics(lags, pairs, zero, lags[0], zero, data.replicates)


def make_positive(gram: Float, *, floor: float = 1e-3) -> Float:
    """Nearest usable moments: correlations of the features with eigenvalues above a floor.

    Subtracting patterns, or leaving out pairs with a missing end, can cost a moment matrix its
    positive definiteness.

    Parameters
    ----------
    gram : ndarray (4, 4, ny, nx)
        Symmetric moments.
    floor : float, optional
        Least eigenvalue of the correlation matrix.

    Returns
    -------
    ndarray (4, 4, ny, nx)
    """
    moved = np.moveaxis(gram, (0, 1), (-2, -1))
    diagonal = np.einsum("...aa->...a", moved)
    formed = (diagonal != 0).any(axis=-1)
    if not formed.any():
        return gram
    # subtracting patterns may leave negative ones in most cells
    typical = np.maximum(np.median(np.abs(diagonal[formed]), axis=0), 1e-300)
    scale = np.sqrt(np.maximum(diagonal, 1e-4 * typical))
    values, vectors = np.linalg.eigh(moved / scale[..., :, None] / scale[..., None, :])
    lifted = np.einsum("...ab,...b,...cb->...ac", vectors, np.maximum(values, floor), vectors)
    out = np.moveaxis(lifted * scale[..., :, None] * scale[..., None, :], (-2, -1), (0, 1))
    untouched = (values[..., 0] >= floor) & (diagonal >= 1e-4 * typical).all(axis=-1)
    keep = untouched | (diagonal == 0).all(axis=-1)
    return np.where(keep, gram, out)


def local_correlation(fit: LocalFit, boundary: str) -> Float:
    """Exact correlation of a fitted local model on a small grid, with a rim kept away.

    Parameters
    ----------
    fit : LocalFit
        Maps on the small grid.
    boundary : str
        Boundary rule.

    Returns
    -------
    ndarray (ny * nx, ny * nx)
    """
    rim_y = 0 if boundary == "torus" else _RIM
    rim_x = _RIM if boundary == "plane" else 0
    width = ((rim_y, rim_y), (rim_x, rim_x))
    maps = [np.pad(values, width, mode="edge") for values in (fit.log_kappa2, fit.h1, fit.h2)]
    weights = tensor_weights(np.exp(maps[0]), *tensor_of_log(maps[1], maps[2]))
    high, wide = maps[0].shape[0], maps[0].shape[1]
    index = np.arange(high * wide).reshape(high, wide)
    inner = index[rim_y : high - rim_y, rim_x : wide - rim_x].ravel()
    unit = np.zeros((index.size, inner.size), order="F")
    unit[inner, np.arange(inner.size)] = 1.0
    factor = SuperLUFactor(assemble(weights, boundary=boundary))
    columns = factor.solve_transposed(unit)
    covariance = columns.T @ columns
    scale = np.sqrt(np.diagonal(covariance))
    return np.asarray(covariance / scale[:, None] / scale)


def pattern_maps(
    sums: BlockSums, components: Float, data: BlockCovariance, variance: Float, *, periodic: bool
) -> Float:
    """Patterns on the full grid, in the units of the field.

    A component is known as correlation with block means; a single cell varies more than the mean
    of its block, and its correlation is smaller by the ratio of the two deviations.

    Parameters
    ----------
    sums : BlockSums
        The blocks.
    components : ndarray (number, valid)
        Patterns, as correlations with the valid blocks.
    data : BlockCovariance
        Covariance of the blocks.
    variance : ndarray (ny, nx)
        Variance of the cells; NaN on land.
    periodic : bool
        Whether columns wrap around.

    Returns
    -------
    ndarray (number, ny, nx)
        Zero on land.
    """
    known = np.isfinite(variance)
    inside = np.where(known, variance, 0.0)
    typical = sums.pool(inside) / np.maximum(sums.pool(known.astype(np.float64)), 1.0)
    ratio = np.sqrt(np.diagonal(data.matrix)[data.valid] / typical[data.valid])
    maps = _interpolate(sums, components * np.minimum(ratio, 1.0), data.valid, periodic)
    return np.asarray(shrink(maps) * np.sqrt(inside))


def _interpolate(sums: BlockSums, values: Float, valid: NDArray[np.bool_], periodic: bool) -> Float:
    """Block values on the full grid: cubic between the centres, missing blocks left out."""
    from scipy.ndimage import distance_transform_edt, map_coordinates

    rows, columns = sums.blocks
    full = np.zeros((len(values), rows * columns))
    full[:, valid] = values
    mask = valid.reshape(rows, columns)
    nearest = distance_transform_edt(
        np.logical_not(mask), return_distances=False, return_indices=True
    )
    filled = full.reshape(-1, rows, columns)[:, nearest[0], nearest[1]]
    if periodic:
        filled = np.pad(filled, ((0, 0), (0, 0), (_WRAP, _WRAP)), mode="wrap")
    y = (np.arange(sums.shape[0]) + 0.5) * rows / sums.shape[0] - 0.5
    x = (np.arange(sums.shape[1]) + 0.5) * columns / sums.shape[1] - 0.5 + _WRAP * periodic
    points = np.meshgrid(y, x, indexing="ij")
    maps = [map_coordinates(field, points, order=3, mode="nearest") for field in filled]
    return np.asarray(maps).reshape(len(values), *sums.shape)

"""Exact Gaussian log-density of fields that may have gaps.

With the precision ``Q = B'B`` on all nodes and the nodes split into observed ``o`` and missing
``m``, integrating the missing ones out leaves

    log p(y_o) = log|det B| - log|det Q_mm| / 2 - n_o log(2 pi) / 2 - min over y_m of ||B y||^2 / 2

so that a second sparse factorisation, of ``Q_mm``, is all that gaps cost (Rue and Held 2005,
section 2.2). Land and the buffer are gaps like any other. Few gaps are factorised by themselves;
where they are most of the grid, the dissection of the whole grid takes less, with the nodes that
are known cut off from their neighbours.

Patterns ``P`` with standard normal amplitudes add ``P P'`` to the covariance. With ``r`` and ``W``
the whitened field and patterns, the quadratic form becomes ``r'r - r'W (I + W'W)^-1 W'r`` and the
log-density loses ``log|I + W'W| / 2`` (Woodbury).

Observations ``z = S y_o + noise`` of variance t take ``P = Q + S^2 / t`` in place of ``Q_mm``: with
the posterior mean ``y = P^-1 S z / t`` the quadratic form is ``|z - S y|^2 / t + ||B y||^2``.

Where none of that fits in memory, it is done in overlapping windows, whose signed sum stands for
the grid (:mod:`xr_spde.fields.windows`): constants and products of whitened fields add up alike.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.memory import check_memory
from xr_spde.fields.exact_windows import width_of_tiles
from xr_spde.fields.field import GaussianField
from xr_spde.fields.moments import DIRECT, log_determinant
from xr_spde.fields.stencil import assemble
from xr_spde.fields.windows import Domain, overlap_of, remainder, seam, tiled_windows
from xr_spde.solvers.cache import FACTORS
from xr_spde.solvers.choose import predict_bytes
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.grid_memory import predict
from xr_spde.solvers.superlu import SuperLUFactor

__all__ = ["log_density"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

# Q reaches two cells where B reaches one, and fills about 3.5 times more.
_GRAM_FILL = 3.5
_REMEDY = 'Type method="windows", or use a smaller buffer or a smaller region.'


def log_density(
    model: GaussianField,
    fields: Float,
    scale: Float | None = None,
    patterns: Float | None = None,
    method: str = "auto",
    noise: float = 0.0,
) -> tuple[Float, Float]:
    """Log-density of each field, of mean zero, under the model.

    Parameters
    ----------
    model : GaussianField
        The law of ``y``.
    fields : ndarray (M, ny, nx)
        Canonical; each is ``scale * y``, plus patterns; NaN is missing.
    scale : ndarray (ny, nx), optional
        Factor between ``y`` and the field: positive, or with noise at least zero.
    patterns : ndarray (K, ny, nx), optional
        Large-scale patterns, in the units of the fields.
    method : {"auto", "exact", "windows"}, default "auto"
        Of ``log|det B|``, see :func:`xr_spde.fields.moments.log_determinant`, and of what is
        integrated out.
    noise : float, optional
        Variance of independent noise in the fields.

    Returns
    -------
    density, error : ndarray (M,)
        Of the observed nodes of each field, 0 where there are none; and a bound of what windows
        leave out of it, 0 where there are no windows.

    Raises
    ------
    MemoryGuardError
        If a factor would not fit in memory.
    """
    count = fields.shape[0]
    shapes = np.zeros((0, *model.shape)) if patterns is None else patterns
    cells = math.prod(model.shape)
    factors = np.ones(cells) if scale is None else scale.ravel()
    flat, modes = fields.reshape(count, cells), shapes.reshape(len(shapes), cells)
    if noise == 0.0:
        flat, modes = flat / factors, modes / factors
    observed = np.isfinite(flat)
    _, first, pattern = np.unique(
        np.packbits(observed, axis=1), axis=0, return_index=True, return_inverse=True
    )
    cut = method == "windows" or (method == "auto" and model.chosen not in DIRECT)
    grid = _Windows(model, count) if cut else _Whole(model, method)
    result, error = np.zeros(count), np.zeros(count)
    for number, row in enumerate(first):
        here = np.flatnonzero(pattern.ravel() == number)
        seen = observed[row]
        if not seen.any():
            continue
        values = np.vstack([flat[np.ix_(here, seen)], modes[:, seen]]).T
        taken = factors[seen] if noise > 0.0 else None
        found, error[here] = grid.density(_inside(model, seen), values, taken, noise, here.size)
        if noise == 0.0:
            found -= float(np.log(factors[seen]).sum())
        result[here] = found - 0.5 * int(seen.sum()) * math.log(2.0 * math.pi)
    return result, error


@dataclass(frozen=True)
class _Part:
    """Nodes with their matrix, of the whole grid or of a window.

    Attributes
    ----------
    matrix : sparse matrix (n, n)
    shape, boundary
        Of the grid that they are.
    given : ndarray of int
        Numbers of those that are observed.
    key : str or None
        Names factors that are kept; None keeps none.
    """

    matrix: sp.csc_array
    shape: tuple[int, int]
    boundary: str
    given: Index
    key: str | None

    def products(
        self, values: Float, factors: Float | None, noise: float, count: int
    ) -> tuple[float, Float]:
        """Logarithm of what the rest adds to ``|det B|``; products of whitened values (1 + P, K).

        Of the K columns the first `count` are fields and the others P patterns. The first row are
        the squares of the fields, the others products of the patterns with all: those of fields
        with one another, as many as the square of their number, nobody needs.
        """
        if factors is not None:
            return self._noisy(values, factors, noise, count)
        white = self.matrix[:, self.given] @ values
        hidden = np.ones(self.matrix.shape[0], dtype=bool)
        hidden[self.given] = False
        gaps = np.flatnonzero(hidden)
        if not gaps.size:
            return 0.0, _products(white, count)
        block = self.matrix[:, gaps]
        held = _gap_factor(self, block, gaps)
        white -= block @ held.solve(block.T @ white)
        return -0.5 * held.logdet(), _products(white, count)

    def _noisy(
        self, values: Float, factors: Float, noise: float, count: int
    ) -> tuple[float, Float]:
        """Products for observations with noise."""
        known = np.zeros(self.matrix.shape[0])
        known[self.given] = factors**2 / noise

        def build() -> GridFactor:
            check_memory(
                _whole_gram(self.shape, self.boundary),
                what=f"the posterior of {known.size} cells given observations with noise",
                remedy=_REMEDY,
            )
            posterior = sp.csc_array(self.matrix.T @ self.matrix + sp.diags_array(known))
            shape, boundary = self.shape, self.boundary
            return GridFactor(posterior, shape=shape, boundary=boundary, reach=2, symmetric=True)

        digest = hashlib.blake2b(known.tobytes(), digest_size=20).hexdigest()
        held = FACTORS.get(("noise", self.key, digest), build) if self.key else build()
        right = np.zeros((self.matrix.shape[0], values.shape[1]))
        right[self.given] = values * (factors / noise)[:, None]
        mean = np.asarray(held.solve(right))
        left = (values - mean[self.given] * factors[:, None]) / math.sqrt(noise)
        white = self.matrix @ mean
        lost = held.logdet() + self.given.size * math.log(noise)
        return -0.5 * lost, _products(left, count) + _products(white, count)


class _Whole:
    """The grid at once."""

    def __init__(self, model: GaussianField, method: str) -> None:
        self._model, self._method, self._matrix = model, method, model.matrix()

    def density(
        self, inside: Mask, values: Float, factors: Float | None, noise: float, count: int
    ) -> tuple[Float, float]:
        """Log-densities (count,) and their error; the other columns of `values` are patterns."""
        model = self._model
        given = np.flatnonzero(inside)
        part = _Part(self._matrix, model.padded_shape, model.boundary, given, model.key)
        constant, products = part.products(values, factors, noise, count)
        held = log_determinant(model, self._method)
        error = 0.0 if held.error is None else float(held.error)
        return _without_patterns(products, count)[0] + constant + float(held.value), error


class _Windows:
    """The grid in overlapping windows."""

    def __init__(self, model: GaussianField, replicates: int) -> None:
        self._model, self._domain = model, Domain.of(model.weights(), model.boundary)
        self._overlap, self._replicates = overlap_of(model.kappa2, model.rho), replicates

    @cached_property
    def _tile(self) -> int:
        return width_of_tiles(self._overlap, self._replicates)

    def density(
        self, inside: Mask, values: Float, factors: Float | None, noise: float, count: int
    ) -> tuple[Float, Float]:
        """As for the whole grid, with an error for each field."""
        model, wraps = self._model, self._domain.wraps
        if noise == 0.0 and inside.all():  # nothing to integrate out: no sum but one determinant
            found, error = _Whole(model, "windows").density(inside, values, None, 0.0, count)
            return found, np.full(count, error)
        number = np.full(inside.shape, -1)
        number[inside] = np.arange(len(values))
        given = number, values, factors, noise, count
        constants, products = self._tiles(*given, self._overlap)
        density, amplitudes, spread = _without_patterns(products.sum(axis=0), count)
        density += constants.sum()
        if constants.size == 1:
            return density, np.zeros(count)

        def by_tile(constants: Float, products: Float) -> Float:
            """Densities of each tile (T, count): linear near what patterns leave."""
            crossed, shapes = products[:, 1:, :count], products[:, 1:, count:]
            squares = products[:, 0, :count] - 2.0 * np.einsum("pk,tpk->tk", amplitudes, crossed)
            squares += np.einsum("pk,tpk->tk", amplitudes, shapes @ amplitudes)
            shared = np.einsum("pq,tpq->t", spread, shapes)
            return np.asarray((constants - 0.5 * shared)[:, None] - 0.5 * squares)

        parts = [by_tile(*self._tiles(*given, self._overlap // k)) for k in (2, 4)]
        closing = seam(model.kappa2, model.rho, model.theta, wraps)
        return density, remainder(by_tile(constants, products), *parts, least=1.0) + closing

    def _tiles(
        self, number: Index, values: Float, factors: Float | None, noise: float, count: int,
        overlap: int,
    ) -> tuple[Float, Float]:  # fmt: skip
        """Constants (T,) and products (T, 1 + P, K) of each tile given its past."""
        domain, size = self._domain, values.shape[1]
        windows, tiles = tiled_windows(
            domain.shape, domain.wraps, overlap=overlap, tile=self._tile, widest=self._overlap
        )
        constants = np.zeros(len(windows))
        products = np.zeros((len(windows), 1 + size - count, size))
        for n, (j, i) in enumerate(windows):
            which = number[j[:, None], i].ravel()
            given = np.flatnonzero(which >= 0)
            if not given.size:
                continue  # nothing was seen there: the density of nothing is one
            weights, boundary = domain.part(j, i)
            shape = (j.size, i.size)
            part = _Part(assemble(weights, boundary=boundary), shape, boundary, given, None)
            taken = None if factors is None else factors[which[given]]
            lost, products[n] = part.products(values[which[given]], taken, noise, count)
            constants[n] = lost + GridFactor(part.matrix, shape=shape, boundary=boundary).logdet()
        signs = np.zeros((len(tiles), len(windows)))
        for row, terms in zip(signs, tiles, strict=True):
            for n, sign in terms:
                row[n] += sign
        return signs @ constants, np.tensordot(signs, products, 1)


def _inside(model: GaussianField, seen: Mask) -> Mask:
    """Mark nodes of the padded grid that are observed."""
    (dy, dx), (ny, nx) = model.rim, model.shape
    inside = np.zeros(model.padded_shape, dtype=bool)
    inside[dy : dy + ny, dx : dx + nx] = seen.reshape(ny, nx)
    return inside


def _products(white: Float, count: int) -> Float:
    """Squares of the first `count` columns, and products of the others with all (1 + P, K)."""
    found = np.zeros((1 + white.shape[1] - count, white.shape[1]))
    found[0, :count] = np.einsum("nk,nk->k", white[:, :count], white[:, :count])
    found[1:] = white[:, count:].T @ white
    return found


def _without_patterns(products: Float, count: int) -> tuple[Float, Float, Float]:
    """Log-density (count,), but for constants, of what patterns leave; from whitened products.

    Also the amplitudes (P, count) of the patterns in the fields, and their covariance.
    """
    shapes = products[1:, count:]
    lower = np.linalg.cholesky(np.eye(len(shapes)) + shapes)
    spread = np.linalg.inv(lower)
    spread = spread.T @ spread
    amplitudes = spread @ products[1:, :count]
    taken = np.einsum("km,km->m", products[1:, :count], amplitudes)
    lost = float(np.log(np.diag(lower)).sum())
    return -0.5 * (products[0, :count] - taken) - lost, amplitudes, spread


class _GridGaps:
    """Factor of ``Q_mm`` within that of the whole grid.

    Parameters
    ----------
    block : sparse matrix (n, gaps)
        Columns of B.
    gaps : ndarray of int
        Their numbers.
    shape : tuple of int
        Rows and columns of the grid.
    boundary : str
        Of the grid.
    """

    def __init__(
        self, block: sp.csc_array, gaps: Index, shape: tuple[int, int], boundary: str
    ) -> None:
        self._gaps, self._n = gaps, shape[0] * shape[1]
        inner = sp.coo_array(block.T @ block)
        # one scale for all, which the determinant of what is known then follows from
        level = float(inner.diagonal().mean())
        known = np.ones(self._n, dtype=bool)
        known[gaps] = False
        alone = np.flatnonzero(known)
        self._known = alone.size * math.log(level)
        rows, columns = (np.concatenate([gaps[at], alone]) for at in inner.coords)
        data = np.concatenate([inner.data, np.full(alone.size, level)])
        matrix = sp.csc_array((data, (rows, columns)), shape=(self._n, self._n))
        self._factor = GridFactor(matrix, shape=shape, boundary=boundary, reach=2, symmetric=True)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self._factor.nbytes

    def solve(self, b: Float) -> Float:
        """Solution of ``Q_mm x = b`` for b (gaps, K)."""
        whole = np.zeros((self._n, b.shape[1]))
        whole[self._gaps] = b
        return np.asarray(self._factor.solve(whole)[self._gaps])

    def logdet(self) -> float:
        """Natural logarithm of ``det Q_mm``."""
        return self._factor.logdet() - self._known


def _whole_gram(shape: tuple[int, int], boundary: str) -> int:
    """Bytes that a factor of ``B'B`` takes."""
    made = grid(shape, boundary=boundary, reach=2)
    return predict(made, symmetric=True, dtype=np.float64).peak


def _gap_factor(part: _Part, block: sp.csc_array, gaps: Index) -> SuperLUFactor | _GridGaps:
    """Factor of ``Q_mm``, from this process's cache where it is kept."""
    shape, boundary = part.shape, part.boundary

    def build() -> SuperLUFactor | _GridGaps:
        alone = _GRAM_FILL * predict_bytes(gaps.size)
        whole = _whole_gram(shape, boundary)
        check_memory(
            min(alone, whole),
            what=f"integrating out {gaps.size} cells without data (land, gaps and buffer)",
            remedy=_REMEDY,
        )
        if whole < alone:
            return _GridGaps(block, gaps, shape, boundary)
        return SuperLUFactor(sp.csc_array(block.T @ block))

    digest = hashlib.blake2b(gaps.tobytes(), digest_size=20).hexdigest()
    return FACTORS.get(("gaps", part.key, digest), build) if part.key else build()

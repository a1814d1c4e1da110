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
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.memory import check_memory
from xr_spde.fields.field import GaussianField
from xr_spde.fields.moments import log_determinant
from xr_spde.solvers.cache import FACTORS
from xr_spde.solvers.choose import predict_bytes
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.grid_memory import predict
from xr_spde.solvers.superlu import SuperLUFactor

__all__ = ["log_density"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# Q reaches two cells where B reaches one, and fills about 3.5 times more.
_GRAM_FILL = 3.5


def log_density(
    model: GaussianField,
    fields: Float,
    scale: Float | None = None,
    patterns: Float | None = None,
    method: str = "auto",
    noise: float = 0.0,
) -> Float:
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
        Of ``log|det B|``, see :func:`xr_spde.fields.moments.log_determinant`.
    noise : float, optional
        Variance of independent noise in the fields.

    Returns
    -------
    ndarray (M,)
        Of the observed nodes of each field; 0 where there are none.
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
    matrix = model.matrix()
    result = np.empty(count)
    for number, row in enumerate(first):
        here = np.flatnonzero(pattern.ravel() == number)
        seen = observed[row]
        if not seen.any():
            result[here] = 0.0
            continue
        values = np.vstack([flat[np.ix_(here, seen)], modes[:, seen]]).T
        if noise == 0.0:
            constant, white = _same_gaps(model, matrix, seen, values)
            constant -= float(np.log(factors[seen]).sum())
        else:
            constant, white = _same_noise(model, matrix, seen, values, factors[seen], noise)
        constant -= 0.5 * int(seen.sum()) * math.log(2.0 * math.pi)
        lost, quadratic = _without_patterns(white[:, : here.size], white[:, here.size :])
        constant += float(log_determinant(model, method).value) - lost
        result[here] = constant - 0.5 * quadratic
    return result


def _padded_nodes(model: GaussianField, seen: NDArray[np.bool_]) -> tuple[Index, Index]:
    """Numbers, on the padded grid, of the nodes that are observed, and of the others."""
    (dy, dx), (ny, nx) = model.rim, model.shape
    inside = np.zeros(model.padded_shape, dtype=bool)
    inside[dy : dy + ny, dx : dx + nx] = seen.reshape(ny, nx)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _same_gaps(
    model: GaussianField, matrix: sp.csc_array, seen: NDArray[np.bool_], values: Float
) -> tuple[float, Float]:
    """Logarithm of what gaps add to ``|det B|``, and whitened values (n_o, K)."""
    given, gaps = _padded_nodes(model, seen)
    white = matrix[:, given] @ values
    if not gaps.size:
        return 0.0, white
    block = matrix[:, gaps]
    held = _gap_factor(model, block, gaps)
    return -0.5 * held.logdet(), white - block @ held.solve(block.T @ white)


def _same_noise(
    model: GaussianField,
    matrix: sp.csc_array,
    seen: NDArray[np.bool_],
    values: Float,
    factors: Float,
    noise: float,
) -> tuple[float, Float]:
    """As `_same_gaps`, for observations with noise."""
    given, _ = _padded_nodes(model, seen)
    known = np.zeros(model.size)
    known[given] = factors**2 / noise

    def build() -> GridFactor:
        posterior = sp.csc_array(matrix.T @ matrix + sp.diags_array(known))
        shape, boundary = model.padded_shape, model.boundary
        return GridFactor(posterior, shape=shape, boundary=boundary, reach=2, symmetric=True)

    digest = hashlib.blake2b(known.tobytes(), digest_size=20).hexdigest()
    held = FACTORS.get(("noise", model.key, digest), build)
    right = np.zeros((model.size, values.shape[1]))
    right[given] = values * (factors / noise)[:, None]
    mean = np.asarray(held.solve(right))
    left = (values - mean[given] * factors[:, None]) / math.sqrt(noise)
    lost = held.logdet() + given.size * math.log(noise)
    return -0.5 * lost, np.vstack([left, matrix @ mean])


def _without_patterns(white: Float, shapes: Float) -> tuple[float, Float]:
    """Half the log-determinant that patterns cost, and the quadratic forms of what they leave."""
    quadratic = np.einsum("nm,nm->m", white, white)
    if not shapes.shape[1]:
        return 0.0, quadratic
    lower = np.linalg.cholesky(np.eye(shapes.shape[1]) + shapes.T @ shapes)
    explained = np.linalg.solve(lower, shapes.T @ white)
    lost = float(np.log(np.diag(lower)).sum())
    return lost, quadratic - np.einsum("km,km->m", explained, explained)


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


def _gap_factor(
    model: GaussianField, block: sp.csc_array, gaps: Index
) -> SuperLUFactor | _GridGaps:
    """Factor of ``Q_mm``, from this process's cache."""
    shape, boundary = model.padded_shape, model.boundary

    def build() -> SuperLUFactor | _GridGaps:
        alone = _GRAM_FILL * predict_bytes(gaps.size)
        made = grid(shape, boundary=boundary, reach=2)
        whole = predict(made, symmetric=True, dtype=np.float64).peak
        check_memory(
            min(alone, whole),
            what=f"integrating out {gaps.size} cells without data (land, gaps and buffer)",
            remedy="Use a smaller buffer or a smaller region.",
        )
        if whole < alone:
            return _GridGaps(block, gaps, shape, boundary)
        return SuperLUFactor(sp.csc_array(block.T @ block))

    digest = hashlib.blake2b(gaps.tobytes(), digest_size=20).hexdigest()
    return FACTORS.get(("gaps", model.key, digest), build)

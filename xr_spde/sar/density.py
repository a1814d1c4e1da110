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
) -> Float:
    """Log-density of each field, of mean zero, under the model.

    Parameters
    ----------
    model : GaussianField
        The law of ``y``.
    fields : ndarray (M, ny, nx)
        Canonical; each is ``scale * y``, plus patterns; NaN is missing.
    scale : ndarray (ny, nx), optional
        Positive factor between ``y`` and the field.
    patterns : ndarray (K, ny, nx), optional
        Large-scale patterns, in the units of the fields.
    method : {"auto", "exact", "windows"}, default "auto"
        Of ``log|det B|``, see :func:`xr_spde.fields.moments.log_determinant`.

    Returns
    -------
    ndarray (M,)
        Of the observed nodes of each field; 0 where there are none.
    """
    count = fields.shape[0]
    shapes = np.zeros((0, *model.shape)) if patterns is None else patterns
    flat = (fields if scale is None else fields / scale).reshape(count, -1)
    modes = (shapes if scale is None else shapes / scale).reshape(len(shapes), flat.shape[1])
    observed = np.isfinite(flat)
    _, first, pattern = np.unique(
        np.packbits(observed, axis=1), axis=0, return_index=True, return_inverse=True
    )
    matrix = model.matrix()
    logs = None if scale is None else np.log(scale).ravel()
    result = np.empty(count)
    for number, row in enumerate(first):
        here = np.flatnonzero(pattern.ravel() == number)
        seen = observed[row]
        if not seen.any():
            result[here] = 0.0
            continue
        constant, quadratic = _same_gaps(
            model, matrix, seen, flat[np.ix_(here, seen)], modes[:, seen]
        )
        result[here] = constant - 0.5 * quadratic
        result[here] += float(log_determinant(model, method).value)
        if logs is not None:
            result[here] -= logs[seen].sum()
    return result


def _same_gaps(
    model: GaussianField,
    matrix: sp.csc_array,
    seen: NDArray[np.bool_],
    values: Float,
    modes: Float,
) -> tuple[float, Float]:
    """Constant without ``log|det B|`` and quadratic form of fields that share their gaps.

    Values are (M, n_o) and modes (K, n_o).
    """
    (dy, dx), (ny, nx) = model.rim, model.shape
    inside = np.zeros(model.padded_shape, dtype=bool)
    inside[dy : dy + ny, dx : dx + nx] = seen.reshape(ny, nx)
    given, gaps = np.flatnonzero(inside), np.flatnonzero(~inside)
    residual = matrix[:, given] @ np.vstack([values, modes]).T
    constant = -0.5 * given.size * math.log(2.0 * math.pi)
    if gaps.size:
        block = matrix[:, gaps]
        held = _gap_factor(model, block, gaps)
        residual = residual - block @ held.solve(block.T @ residual)
        constant -= 0.5 * held.logdet()
    white, shapes = residual[:, : len(values)], residual[:, len(values) :]
    quadratic = np.einsum("nm,nm->m", white, white)
    if len(modes):
        lower = np.linalg.cholesky(np.eye(len(modes)) + shapes.T @ shapes)
        constant -= float(np.log(np.diag(lower)).sum())
        explained = np.linalg.solve(lower, shapes.T @ white)
        quadratic = quadratic - np.einsum("km,km->m", explained, explained)
    return constant, quadratic


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

"""Matrices on a grid as chains of strips: banded Cholesky, blocks of the inverse.

In strips as wide as the reach of the matrix every node couples to its own strip and the next ones
on both sides only, so that the matrix is banded and block tridiagonal. On some thousands of nodes
that beats a general sparse solver: dense kernels, no ordering to find, and the diagonal of the
inverse without one solution per node. A periodic axis is folded, both its ends in one strip.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg.lapack import dpbtrf, dpbtrs

from xr_spde._core.errors import ParameterError
from xr_spde.solvers.superlu import SuperLUFactor
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]
Index = NDArray[np.intp]


def strips(shape: tuple[int, int], *, periodic: tuple[bool, bool], reach: int) -> tuple[Index, int]:
    """Order the nodes of a grid strip by strip, in the direction of the narrower ones.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    periodic : tuple of bool
        Whether y and x couple their two ends.
    reach : int
        Largest distance of coupled nodes, in rows or columns.

    Returns
    -------
    order : ndarray of int (ny * nx,)
        Permutation ``p``: ``A[p][:, p]`` is block tridiagonal.
    width : int
        Nodes in a strip; the last one may hold fewer.
    """
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    found = []
    for lines, ring in zip((index, index.T), periodic, strict=True):
        count = len(lines)
        if ring:
            lines = lines[np.stack([np.arange(count), np.arange(count)[::-1]], 1).ravel()[:count]]
        found.append((lines.ravel(), reach * (1 + ring) * lines.shape[1]))
    return min(found, key=lambda one: one[1])


class BandedFactor:
    """Cholesky factor of a symmetric positive definite matrix of small bandwidth.

    A matrix that rounding has cost its definiteness goes to SuperLU, scaled to a unit diagonal.

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        Symmetric.
    order : ndarray of int (n,)
        Permutation that makes it banded.

    Raises
    ------
    ParameterError
        If the matrix holds non-finite values.
    SolverError
        If it is singular.
    """

    def __init__(self, matrix: sp.csc_array, order: Index) -> None:
        if not np.isfinite(matrix.data).all():
            raise ParameterError("matrix holds NaN or infinite values; expected finite numbers")
        self._order, self._places = order, np.argsort(order)
        entries = sp.coo_array(matrix)
        rows, columns = (self._places[indices] for indices in entries.coords)
        below = rows >= columns
        offset = (rows - columns)[below]
        band = np.zeros((int(offset.max()) + 1, order.size), order="F")
        band[offset, columns[below]] = entries.data[below]
        self._scale: Float | None = None
        with single_blas_thread():
            self._band, failed = dpbtrf(band, lower=1, overwrite_ab=1)
        if failed:
            self._scale = 1.0 / np.sqrt(matrix.diagonal())
            outer = sp.diags_array(self._scale)
            self._general = SuperLUFactor(sp.csc_array(outer @ matrix @ outer))

    def solve(self, b: Float) -> Float:
        """Solution of ``A x = b`` for the columns of b (n, K)."""
        if self._scale is not None:
            scale = self._scale[:, None]
            return np.asarray(scale * self._general.solve(scale * b))
        with single_blas_thread():
            solved, _ = dpbtrs(self._band, b[self._order], lower=1, overwrite_b=1)
        return np.asarray(solved[self._places])


def diagonal_blocks(
    matrix: sp.csc_array, order: Index, width: int, nodes: Index
) -> list[tuple[Index, Float]]:
    """Blocks on the diagonal of the inverse of a block tridiagonal matrix.

    Each is the inverse of its own block less what the strips on either side pass on once they are
    eliminated. These are dense: memory grows with ``n * width``, work with ``n * width**2``.

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        Need not be symmetric.
    order : ndarray of int (n,)
        Permutation that makes it block tridiagonal.
    width : int
        Rows of a block.
    nodes : ndarray of int
        Rows of `matrix` whose blocks are wanted.

    Returns
    -------
    list of (members, inverse)
        Rows of `matrix` in a block, ndarray of int (w,), and their part of the inverse (w, w).
    """
    ordered = sp.csr_array(sp.csr_array(matrix)[order][:, order])
    cuts = [slice(start, start + width) for start in range(0, order.size, width)]
    own = [ordered[cut, cut].toarray() for cut in cuts]
    down = [ordered[below, above] for above, below in pairwise(cuts)]
    up = [ordered[above, below] for above, below in pairwise(cuts)]
    wanted = np.zeros(order.size, dtype=bool)
    wanted[nodes] = True
    blocks = []
    with single_blas_thread():
        before = own[:1]
        for block, lower, upper in zip(own[1:], down, up, strict=True):
            before.append(block - (lower @ np.linalg.inv(before[-1])) @ upper)
        passed = np.zeros_like(own[-1])
        for k in range(len(cuts) - 1, -1, -1):
            members = order[cuts[k]]
            if wanted[members].any():
                blocks.append((members, np.linalg.inv(before[k] - passed)))
            if k:
                passed = (up[k - 1] @ np.linalg.inv(own[k] - passed)) @ down[k - 1]
    return blocks

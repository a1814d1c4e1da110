"""Exact variances of ``B^-1 e``: the diagonal of ``(B'B)^-1`` by selected inversion on the grid.

``B'B`` has the condition number of B squared, so it is never formed: a multifrontal QR
factorisation of B along a nested-dissection tree gives the Cholesky factor R of ``B'B`` with the
accuracy of B. Each piece of the tree collects the rows of B that reach it and what its children
passed up, reduces its pivot columns to the triangle R11 and keeps

    R11,   T = R11^-1 R12,

and passes the remaining rows up. The selected inverse Z then follows from the root down, with the
block recursion of Takahashi,

    Z12 = -T Z22,   Z11 = R11^-1 R11^-T + T Z22 T',

where Z22 is the part of Z on the piece's rim, known from its parent.

References
----------
Takahashi, Fagan, Chin (1973), Formation of a sparse bus impedance matrix; Davis (2011),
Algorithm 915, SuiteSparseQR, ACM Trans. Math. Softw. 38 (multifrontal QR).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm
from scipy.linalg.lapack import dgeqrf, dormqr, dtrtri

from xr_spde._core.errors import SolverError
from xr_spde._core.memory import check_memory
from xr_spde.solvers.threads import single_blas_thread
from xr_spde.solvers.tree import Index, Piece, Tree, dissect

Float = NDArray[np.float64]

LEAF = 100
_REACH = 2
_PANEL = 32


def predict(shape: tuple[int, int], *, boundary: str) -> int:
    """Predict the peak memory of :func:`gram_inverse`, from the tree alone.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic.

    Returns
    -------
    int
        Bytes.
    """
    return _predict(dissect(shape, boundary=boundary, reach=_REACH, leaf=LEAF))


def _kept(piece: Piece, tree: Tree) -> int:
    """Return how many numbers a piece keeps between the two sweeps."""
    front = piece.pivots.size + tree.spread(piece.box, _REACH) - piece.box.size
    return piece.pivots.size * front


def _predict(tree: Tree) -> int:
    """Kept blocks, plus the most that either sweep holds besides."""
    kept, held, sweep = 0, 0, 0
    left: list[int] = []
    for piece in tree.pieces:
        pivots, box = piece.pivots.size, piece.box.size
        rim = tree.spread(piece.box, _REACH) - box
        rows = tree.spread(piece.box, 1) - (box - pivots)
        front = pivots + rim
        kept += _kept(piece, tree)
        # going up: the front and what its children left; going down: Z on front and children
        sweep = max(sweep, held + rows * front, 3 * front * front)
        held += (rows - pivots) * rim - sum(left[child] for child in piece.children)
        left.append((rows - pivots) * rim)
    rows_of_b = 60 * tree.shape[0] * tree.shape[1]
    return 8 * (kept + sweep + rows_of_b)


@dataclass(frozen=True)
class _Front:
    """What a piece keeps between the two sweeps."""

    first: int
    rim: Index
    r11: Float
    t: Float


class _Rows:
    """The rows of B with columns renumbered by elimination, grouped by the piece they enter."""

    def __init__(self, matrix: sp.csc_array, tree: Tree, position: Index) -> None:
        n = matrix.shape[0]
        by_row = matrix.tocsr()
        columns = position[by_row.indices]
        earliest = np.minimum.reduceat(columns, by_row.indptr[:-1])
        sizes = np.array([piece.pivots.size for piece in tree.pieces])
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        owner = np.searchsorted(self.starts, earliest, side="right") - 1
        order = np.argsort(owner, kind="stable")
        lengths = np.diff(by_row.indptr)[order]
        take = np.repeat(by_row.indptr[:-1][order] - np.cumsum(lengths) + lengths, lengths)
        take = take + np.arange(take.size)
        self._columns, self._values = columns[take], by_row.data[take]
        self._line = np.repeat(np.arange(n), lengths)
        self._row_ends = np.searchsorted(owner[order], np.arange(sizes.size + 1))
        self._ends = np.concatenate([[0], np.cumsum(lengths)])[self._row_ends]

    def count(self, k: int) -> int:
        """Return the number of rows that enter at piece `k`."""
        return int(self._row_ends[k + 1] - self._row_ends[k])

    def entries(self, k: int) -> tuple[Index, Index, Float]:
        """Return row numbers within the front, columns (elimination order) and values."""
        part = slice(self._ends[k], self._ends[k + 1])
        return self._line[part] - self._row_ends[k], self._columns[part], self._values[part]


def _reduce(front: Float, pivots: int) -> tuple[Float, Float, Float]:
    """QR of the pivot columns in place: R11, R12 and the remaining rows."""
    columns = front.shape[1]
    head, tau, _, info = dgeqrf(front[:, :pivots], lwork=_PANEL * max(pivots, 1), overwrite_a=True)
    if columns > pivots:
        rest, _, info2 = dormqr(
            "L", "T", head, tau, front[:, pivots:], _PANEL * (columns + _PANEL), overwrite_c=True
        )
        info = info or info2
    else:
        rest = front[:, pivots:]
    r11 = np.asfortranarray(np.triu(head[:pivots]))
    if info != 0 or not np.isfinite(r11).all() or not np.diagonal(r11).all():
        raise SolverError(
            "the matrix is singular in double precision; expected kappa2 > 0 at every node"
        )
    return r11, rest[:pivots], rest[pivots:]


def _store(pool: Float, used: int, block: Float) -> Float:
    """Copy of a block in the pool, stored by columns."""
    place = pool[used : used + block.size].reshape(block.shape, order="F")
    place[:] = block
    return place


def _upward(rows: _Rows, tree: Tree, position: Index) -> list[_Front]:
    """Eliminate from the leaves to the root."""
    fronts: list[_Front] = []
    # One allocation goes back to the system as a whole; thousands of small ones hardly would.
    pool = np.empty(sum(_kept(piece, tree) for piece in tree.pieces))
    used = 0
    left: dict[int, Float] = {}
    local = np.empty(position.size, dtype=np.intp)
    for k, piece in enumerate(tree.pieces):
        first, pivots = int(rows.starts[k]), piece.pivots.size
        rim = np.sort(position[tree.rim(piece.box)])
        local[first : first + pivots] = np.arange(pivots)
        local[rim] = np.arange(pivots, pivots + rim.size)
        below = [left.pop(child) for child in piece.children]
        count = rows.count(k)
        front = np.zeros((count + sum(map(len, below)), pivots + rim.size), order="F")
        line, column, value = rows.entries(k)
        front[line, local[column]] = value
        for child, part in zip(piece.children, below, strict=True):
            front[count : count + len(part), local[fronts[child].rim]] = part
            count += len(part)
        r11, r12, remaining = _reduce(front, pivots)
        left[k] = remaining.copy(order="F")
        t = _store(pool, used + r11.size, dtrsm(1.0, r11, r12))
        fronts.append(_Front(first, rim, _store(pool, used, r11), t))
        used += r11.size + t.size
    return fronts


def _downward(fronts: list[_Front], tree: Tree) -> Float:
    """Diagonal of the inverse, in the order of elimination, from the root to the leaves."""
    n = tree.shape[0] * tree.shape[1]
    diagonal = np.empty(n)
    local = np.empty(n, dtype=np.intp)
    known: dict[int, Float] = {len(fronts) - 1: np.zeros((0, 0))}
    for k in range(len(fronts) - 1, -1, -1):
        front, children = fronts[k], tree.pieces[k].children
        z22, pivots = known.pop(k), front.r11.shape[0]
        inverse, _ = dtrtri(front.r11)
        across = front.t @ z22
        part = slice(front.first, front.first + pivots)
        if not children:
            diagonal[part] = np.einsum("ij,ij->i", inverse, inverse)
            diagonal[part] += np.einsum("ij,ij->i", across, front.t)
            continue
        size = pivots + front.rim.size
        z = np.empty((size, size))
        z[:pivots, :pivots] = inverse @ inverse.T + across @ front.t.T
        z[:pivots, pivots:] = -across
        z[pivots:, :pivots] = -across.T
        z[pivots:, pivots:] = z22
        diagonal[part] = np.diagonal(z)[:pivots]
        local[part] = np.arange(pivots)
        local[front.rim] = np.arange(pivots, size)
        for child in children:
            seen = local[fronts[child].rim]
            known[child] = z[np.ix_(seen, seen)]
    return diagonal


def gram_inverse(
    matrix: sp.csc_array, *, shape: tuple[int, int], boundary: str
) -> tuple[Float, float]:
    """Diagonal of ``(B'B)^-1`` and ``log|det B|`` of a nine-point matrix on a grid.

    Parameters
    ----------
    matrix : sparse matrix (ny * nx, ny * nx)
        B; couples nodes at most one row and one column apart.
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic.

    Returns
    -------
    diagonal : ndarray (ny * nx,)
        Variances of ``B^-1 e`` with white noise e.
    logdet : float
        ``log|det B|``.

    Raises
    ------
    MemoryGuardError
        If it is predicted not to fit in memory; nothing has been allocated then.
    SolverError
        If the matrix is singular or not finite.
    """
    tree = dissect(shape, boundary=boundary, reach=_REACH, leaf=LEAF)
    check_memory(
        _predict(tree),
        what=f"the exact variance on {shape[0]} x {shape[1]} nodes (buffer included)",
        remedy="Use a coarser or smaller grid, a smaller buffer, or the variance of draws.",
    )
    order = tree.order()
    position = np.empty_like(order)
    position[order] = np.arange(order.size)
    with single_blas_thread():
        fronts = _upward(_Rows(matrix, tree, position), tree, position)
        logdet = sum(float(np.log(np.abs(np.diagonal(front.r11))).sum()) for front in fronts)
        by_elimination = _downward(fronts, tree)
    return by_elimination[position], logdet

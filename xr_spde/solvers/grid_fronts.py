"""Fronts of a matrix on a grid: assembly, elimination by level, and the blocks that are kept.

Every box of the tree has a dense front: its rows and columns of the matrix plus what its children
passed up. Eliminating the pivots of

    [F11 F12]
    [F21 F22]

leaves ``S = F22 - F21 F11^-1 F12`` for the parent, and keeps ``F11^-1``, ``-F11^-1 F12`` and
``-F21 F11^-1``, with which solutions are products of matrices. Boxes of equal size are stacked.

References
----------
Duff, Reid (1983), The multifrontal solution of indefinite sparse symmetric linear equations,
ACM Trans. Math. Softw. 9; Duff, Reid (1984) for unsymmetric matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.solvers.grid_cut import Grid
from xr_spde.solvers.grid_tree import Batch, GridTree, Index, grow

Float = NDArray[np.float64]

_PIECE = 2**18

LARGE = 100
"""Rows of a front from which entries may be so far apart that they underflow."""


@dataclass(frozen=True)
class Places:
    """Where the stored entries of a sparse matrix stand in the fronts.

    Parameters
    ----------
    source : ndarray of int (nnz,)
        Numbers of the entries, sorted by box.
    spot : ndarray of int (nnz,)
        Where each stands in the stack of fronts of its batch, flat.
    ends : ndarray of int (boxes + 1,)
        Where the entries of each box start.
    """

    source: Index
    spot: Index
    ends: Index

    def of(self, batch: Batch, part: slice) -> tuple[slice, Index]:
        """Entries of some members, and where they stand in the stack of their fronts."""
        first = batch.number + part.start
        entries = slice(int(self.ends[first]), int(self.ends[batch.number + part.stop]))
        return entries, self.spot[entries] - part.start * batch.front**2


def checked(matrix: sp.csc_array, grid: Grid) -> sp.csc_array:
    """Check a matrix on a grid.

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        To be factorised.
    grid : Grid
        What decides the tree.

    Returns
    -------
    scipy.sparse.csc_array (n, n)
        In compressed columns with no entry twice, of finite values.

    Raises
    ------
    ParameterError
        For another shape, complex or non-finite values.
    """
    n = grid.size
    if matrix.shape != (n, n):
        each = "" if grid.layers == 1 else f" and {grid.layers} layers"
        raise ParameterError(
            f"matrix has shape {matrix.shape}; expected {(n, n)} for {grid.shape}{each}"
        )
    if np.iscomplexobj(matrix):
        raise ParameterError(f"matrix is {matrix.dtype}; expected real numbers")
    ordered = sp.csc_array(matrix, dtype=np.float64)
    if not ordered.has_canonical_format:
        ordered = ordered.copy()
        ordered.sum_duplicates()
    if not np.isfinite(ordered.data).all():
        raise ParameterError("matrix holds NaN or infinite values; expected finite numbers")
    return ordered


def places(matrix: sp.csc_array, grid: Grid) -> Places:
    """Find the entries of a sparse matrix in the fronts; the last two patterns are kept.

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        Compressed columns, no entry twice.
    grid : Grid
        What decides the tree.

    Returns
    -------
    Places

    Raises
    ------
    ParameterError
        If the matrix couples nodes further apart than ``grid.reach``.
    """
    # 32 bits suffice: a grid of more nodes is far beyond any memory
    pointers, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    return _places(grid, pointers.tobytes(), indices.tobytes())


@lru_cache(maxsize=2)
def _places(grid: Grid, pointers: bytes, indices: bytes) -> Places:
    finder = _Finder(grow(grid))
    starts = np.frombuffer(pointers, dtype=np.int64)
    counts = starts[1:] - starts[:-1]
    rows = np.frombuffer(indices, dtype=np.int32)
    columns = np.repeat(np.arange(counts.size, dtype=np.int32), counts)
    box = np.empty(rows.size, dtype=np.int32)
    spot = np.empty(rows.size, dtype=np.intp)
    for start in range(0, rows.size, _PIECE):
        part = slice(start, start + _PIECE)
        box[part], spot[part] = finder.find(rows[part], columns[part])
    source = np.argsort(box, kind="stable")
    ends = np.searchsorted(box[source], np.arange(finder.boxes + 1))
    return Places(source, spot[source], ends)


class _Finder:
    """Finds the box that an entry of the matrix enters, and where it stands in the stack there."""

    def __init__(self, tree: GridTree) -> None:
        batches = list(tree.bottom_up())
        counts = np.array([batch.count for batch in batches])
        self.place, self.reach = tree.place, tree.grid.reach
        self.boxes = int(counts.sum())
        self._pivots = np.repeat([batch.pivots for batch in batches], counts)
        self._front = np.repeat([batch.front for batch in batches], counts)
        self._member = np.concatenate([np.arange(count) for count in counts])
        self._first = np.cumsum(self._pivots) - self._pivots
        self._box = np.repeat(np.arange(self.boxes), self._pivots)
        # nodes of the rims, numbered box by box so that one search finds them all
        keys = [
            ((batch.number + np.arange(batch.count))[:, None] * tree.n + batch.index)[
                :, batch.pivots :
            ].ravel()
            for batch in batches
        ]
        spots = [np.tile(np.arange(b.pivots, b.front), b.count) for b in batches]
        joined = np.concatenate(keys)
        by_key = np.argsort(joined)
        self._keys, self._spots = joined[by_key], np.concatenate(spots)[by_key]

    def find(self, rows: NDArray[np.int32], columns: NDArray[np.int32]) -> tuple[Index, Index]:
        """Box of each entry, and its flat place in the stack of fronts of the box's batch."""
        places = self.place[rows], self.place[columns]
        box: Index = self._box[np.minimum(*places)]
        row, column = (self._within(box, place) for place in places)
        front = self._front[box]
        spot: Index = (self._member[box] * front + row) * front + column
        return box, spot

    def _within(self, box: Index, place: Index) -> Index:
        """Where nodes stand in the fronts of boxes."""
        within: Index = place - self._first[box]
        far = np.flatnonzero(within >= self._pivots[box])
        if far.size == 0:
            return within
        wanted = box[far] * self.place.size + place[far]
        found = np.searchsorted(self._keys, wanted)
        found[found == self._keys.size] = 0
        if self._keys.size == 0 or (self._keys[found] != wanted).any():
            raise ParameterError(
                f"matrix couples nodes more than {self.reach} rows or columns apart, or across an "
                "edge that is not periodic; expected a larger reach or another boundary"
            )
        within[far] = self._spots[found]
        return within


@dataclass(frozen=True)
class Blocks:
    """What a batch keeps of its fronts.

    Parameters
    ----------
    down : array (count, pivots, front)
        ``F11^-1`` and ``-F11^-1 F12`` side by side.
    up : array (count, rim, pivots)
        ``-F21 F11^-1``; a view of `down` if the matrix is symmetric.
    shared : bool
        Whether it is.
    """

    down: Any
    up: Any
    shared: bool

    @property
    def nbytes(self) -> int:
        """Bytes, each counted once."""
        return int(self.down.nbytes) + (0 if self.shared else int(self.up.nbytes))


@dataclass
class Elimination:
    """Factorisation in progress: settings, and what has come out so far.

    Parameters
    ----------
    tree : GridTree
        Levels of batches.
    xp : module
        numpy or cupy.
    dtype : dtype
        Of the fronts.
    symmetric : bool
        Whether the matrix is symmetric positive definite.
    workspace : int
        Bytes of fronts at a time.
    scale : float
        Largest entry of the matrix, set by :meth:`run`.
    sign, logdet : float
        Determinant so far.
    """

    tree: GridTree
    xp: Any
    dtype: np.dtype[Any]
    symmetric: bool
    workspace: int
    scale: float = 1.0
    sign: float = 1.0
    logdet: float = 0.0

    def run(self, where: Places, data: Float) -> list[list[Blocks]]:
        """Eliminate from the leaves to the root; blocks of every batch, root first."""
        xp, kept = self.xp, []
        self.scale = float(np.abs(data).max(initial=0.0))
        values = xp.asarray(data[where.source].astype(self.dtype, copy=False))
        passed: list[Any] = []
        for level in reversed(self.tree.levels):
            blocks, schur = [], []
            for batch in level:
                shape = (batch.count, batch.rim, batch.rim)
                schur.append(xp.empty(shape, dtype=self.dtype))
                blocks.append(self._batch(batch, where, values, passed, schur[-1]))
            kept.append(blocks)
            passed = schur
        return kept[::-1]

    def _batch(
        self, batch: Batch, where: Places, values: Any, passed: list[Any], schur: Any
    ) -> Blocks:
        """Assemble and eliminate the boxes of a batch, some at a time."""
        xp, p, f = self.xp, batch.pivots, batch.front
        down = xp.empty((batch.count, p, f), dtype=self.dtype)
        if self.symmetric:
            up = down[:, :, p:].transpose(0, 2, 1)
        else:
            up = xp.empty((batch.count, batch.rim, p), dtype=self.dtype)
        step = max(1, self.workspace // (f * f * self.dtype.itemsize))
        stack = xp.empty((min(step, batch.count), f, f), dtype=self.dtype)
        for part in batch.parts(step):
            front = stack[: part.stop - part.start]
            front[...] = 0
            entries, spot = where.of(batch, part)
            front.reshape(-1)[xp.asarray(spot)] = values[entries]
            add_children(front, batch, part, passed)
            if self.symmetric:
                self._cholesky(front, down[part], schur[part])
            else:
                self._lu(front, down[part], up[part], schur[part])
            if f >= LARGE:
                round_off(down[part, :, :p], 1.0 / self.scale)
                round_off(down[part, :, p:], 1.0)
                round_off(up[part], 1.0)
                round_off(schur[part], self.scale)
        return Blocks(down, up, self.symmetric)

    def _lu(self, front: Any, down: Any, up: Any, schur: Any) -> None:
        """Eliminate with row exchanges among the pivots of a box only."""
        xp, p = self.xp, down.shape[1]
        block, f12, f21 = front[:, :p, :p], front[:, :p, p:], front[:, p:, :p]
        try:
            inverse = xp.linalg.inv(block)
            sign, logdet = xp.linalg.slogdet(block)
        except np.linalg.LinAlgError as error:
            raise _singular("a pivot block has no inverse") from error
        self._check(block, inverse)
        self.sign *= float(xp.prod(sign))
        self.logdet += float(xp.sum(logdet, dtype=np.float64))
        down[:, :, :p] = inverse
        xp.negative(inverse, out=inverse)
        xp.matmul(inverse, f12, out=down[:, :, p:])
        xp.matmul(f21, inverse, out=up)
        xp.matmul(f21, down[:, :, p:], out=schur)
        schur += front[:, p:, p:]

    def _cholesky(self, front: Any, down: Any, schur: Any) -> None:
        """Eliminate from a symmetric positive definite front."""
        xp, p = self.xp, down.shape[1]
        block = front[:, :p, :p]
        try:
            root = xp.linalg.cholesky(block)
            inverse = xp.linalg.inv(root)
        except np.linalg.LinAlgError as error:
            raise _singular("a pivot block is not positive definite") from error
        across = inverse.transpose(0, 2, 1)
        xp.matmul(across, inverse, out=down[:, :, :p])
        self._check(block, down[:, :, :p])
        diagonal = xp.diagonal(root, axis1=1, axis2=2)
        self.logdet += 2.0 * float(xp.sum(xp.log(diagonal), dtype=np.float64))
        half = xp.matmul(inverse, front[:, :p, p:])
        xp.matmul(-across, half, out=down[:, :, p:])
        # one array times its own transpose: numpy computes half of it
        xp.subtract(front[:, p:, p:], xp.matmul(half.transpose(0, 2, 1), half), out=schur)

    def _check(self, block: Any, inverse: Any) -> None:
        """Refuse a pivot block that is singular to working precision."""
        xp = self.xp
        size = xp.max(xp.sum(xp.abs(block), axis=2), axis=1)
        growth = float(xp.max(size * xp.max(xp.sum(xp.abs(inverse), axis=2), axis=1)))
        limit = 0.1 / float(np.finfo(self.dtype).eps)
        if not growth < limit:
            raise _singular(f"a pivot block has condition {growth:.1e}, limit {limit:.1e}")


def round_off(array: Any, size: float) -> None:
    """Round in place, so that products of two entries do not underflow.

    Entries of inverses fall exponentially with distance, soon below the range of float32, where
    arithmetic is many times slower. What is lost is the square root of the smallest number.

    Parameters
    ----------
    array : array
        Large entries stay as they are.
    size : float
        Magnitude of the entries that matter.
    """
    limits = np.finfo(array.dtype)
    large = 10.0 * float(limits.tiny) ** 0.5 / float(limits.eps) * size
    array += large
    array -= large


def add_children(front: Any, batch: Batch, part: slice, passed: list[Any]) -> None:
    """Add what the children passed up to the fronts of some members.

    Parameters
    ----------
    front : array (members, front, front)
        Changed in place.
    batch : Batch
        Whose members they are.
    part : slice
        Which members.
    passed : list of array (count, rim, rim)
        What each batch of the level below passed up.
    """
    for mine, theirs in batch.shared(front, part, passed):
        mine += theirs


def _singular(what: str) -> SolverError:
    """Error for a matrix that cannot be factorised."""
    return SolverError(
        f"{what}: the matrix is singular in working precision, or nearly so; expected a "
        "larger kappa2, float64 where kappa2 is small, and a positive definite matrix where "
        "symmetric=True"
    )

"""Symmetric sparse matrices with a place for every unknown: multifrontal elimination.

For what no longer is a stencil on a grid: a precision on a grid that is bordered by sparse rows,
such as observations. The unknowns are parted by cuts through the plane, nested dissection; at each
cut the fewest of them are held back that separate its sides, the least vertex cover of the entries
that cross it. The front of a part is dense. Pivots are exchanged within a front only, which is
stable enough for matrices that are positive definite on some unknowns and negative definite on
the others (Vanderbei, 1995, SIAM J. Optim. 5: quasi-definite ones).

References
----------
George (1973), SIAM J. Numer. Anal. 10; Duff and Reid (1983), ACM Trans. Math. Softw. 9; Takahashi,
Fagan, Chen (1973) for the inverse on the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg.lapack import dgetrf, dgetri, dgetrs
from scipy.sparse.csgraph import maximum_bipartite_matching

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde._core.memory import check_memory
from xr_spde.solvers.threads import single_blas_thread

__all__ = ["MultifrontalFactor"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Flag = NDArray[np.bool_]

WIDTH = 16
"""Right-hand sides solved for at a time; fixed, so that results are reproducible."""

_LEAF = 96


@dataclass(frozen=True)
class _Part:
    """Pivots from `start` to `stop` in the order of elimination, and what they are coupled to."""

    start: int
    stop: int
    rim: Index
    children: tuple[int, ...]

    @property
    def pivots(self) -> int:
        return self.stop - self.start

    @property
    def front(self) -> int:
        return self.pivots + self.rim.size

    def find(self, positions: Index) -> Index:
        """Rows of the front at which positions stand."""
        inside = positions < self.stop
        rows = self.pivots + np.searchsorted(self.rim, positions)
        return np.where(inside, positions - self.start, rows)


class _Pivots:
    """Pivots of a front, factorised with exchanges among them."""

    def __init__(self, matrix: Float) -> None:
        self._lu, self._exchanges, self.logdet = matrix, np.zeros(0, dtype=np.int32), 0.0
        if not len(matrix):  # of a cut that nothing crosses
            return
        self._lu, self._exchanges, failed = dgetrf(np.asfortranarray(matrix), overwrite_a=1)
        if failed:
            raise SolverError(
                "the matrix is singular in double precision; expected a larger kappa2, or larger "
                "errors of the observations"
            )
        self.logdet = float(np.log(np.abs(np.diagonal(self._lu))).sum())

    def solve(self, b: Float) -> Float:
        """Solve for the columns of b (k, m)."""
        if not b.size:
            return b
        # Their inverse would be a product, and faster, but lose digits where errors are tiny. The
        # wrapper shifts the exchanges while it works: threads must not share them.
        return np.ascontiguousarray(dgetrs(self._lu, self._exchanges.copy(), b)[0])

    def inverse(self) -> Float:
        """Return the inverse (k, k)."""
        return dgetri(self._lu, self._exchanges.copy())[0] if len(self._lu) else self._lu


class MultifrontalFactor:
    """Factorised symmetric quasi-definite matrix.

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        Symmetric, finite float64 values.
    places : ndarray (n, 2)
        Where the unknowns lie in the plane; decides on the work, not on the results.
    last : int, default 0
        So many unknowns at the end are coupled to all others, and are eliminated last.
    late : ndarray of bool (n,), optional
        Unknowns with pivots that may be small: none is eliminated before the one, not among them,
        that it is coupled to most.
    what : str
        What it is, for the error.
    remedy : str
        What to do where it does not fit.

    Raises
    ------
    ParameterError
        If shapes do not fit, or a value is not finite.
    MemoryGuardError
        If it would not fit in memory; nothing large has been allocated then.
    SolverError
        If the matrix is singular in double precision, or nearly so.
    """

    def __init__(
        self,
        matrix: Any,
        places: Float,
        *,
        last: int = 0,
        late: Flag | None = None,
        what: str = "a factor",
        remedy: str = "",
    ) -> None:
        rows = sp.csr_array(matrix, dtype=np.float64)
        if rows.shape[0] != rows.shape[1] or places.shape != (rows.shape[0], 2):
            raise ParameterError(f"the matrix has shape {rows.shape} and places {places.shape}")
        if not np.isfinite(rows.data).all():
            raise ParameterError("matrix holds NaN or infinite values; expected finite numbers")
        self.n = int(rows.shape[0])
        pieces, children = _dissect(rows, places, self.n - last)
        if late is not None:
            pieces = _postponed(rows, pieces, late)
        self._order = np.concatenate(pieces)
        self._ordered = sp.csr_array(rows[self._order][:, self._order])
        self._ordered.sort_indices()
        self._parts = _symbolic(self._ordered, [piece.size for piece in pieces], children)
        self.nbytes, peak = _bytes(self._parts)
        check_memory(peak, what=what, remedy=remedy)
        self._logdet = 0.0
        with single_blas_thread():
            self._blocks = self._eliminate()
        self._check(rows)

    def _check(self, matrix: sp.csr_array) -> None:
        """Solve once and refuse a factorisation that lost the matrix."""
        ones = np.ones((self.n, 1))
        x = self.solve(ones)
        error = np.abs(matrix @ x - ones) / (abs(matrix) @ np.abs(x) + 1.0)
        # written so that NaN fails as well
        if not float(error.max()) < 1e-6:
            raise SolverError(
                f"the factorisation leaves a relative residual of {float(error.max()):.1e}; "
                "expected below 1e-6. The matrix is singular in double precision, or nearly so; "
                "expected a larger kappa2, or larger errors of the observations"
            )

    def _eliminate(self) -> list[tuple[_Pivots, Float]]:
        """Pivots (k, k), and their inverse times the couplings (k, r), of every part."""
        blocks: list[tuple[_Pivots, Float]] = []
        updates: dict[int, Float] = {}
        for number, part in enumerate(self._parts):
            front = self._assembled(part)
            for child in part.children:
                rows = part.find(self._parts[child].rim)
                front[np.ix_(rows, rows)] += updates.pop(child)
            k = part.pivots
            couplings, pivots = front[:k, k:].copy(), _Pivots(front[:k, :k])
            self._logdet += pivots.logdet
            turned = pivots.solve(couplings)
            updates[number] = front[k:, k:] - couplings.T @ turned
            blocks.append((pivots, turned))
        return blocks

    def _assembled(self, part: _Part) -> Float:
        """Front with the entries of the matrix in the rows of its pivots."""
        front = np.zeros((part.front, part.front))
        held = slice(*self._ordered.indptr[[part.start, part.stop]])
        counts = np.diff(self._ordered.indptr[part.start : part.stop + 1])
        row, column = (
            np.repeat(np.arange(part.pivots), counts),
            self._ordered.indices[held].astype(np.intp),
        )
        kept = column >= part.start
        front[row[kept], part.find(column[kept])] = self._ordered.data[held][kept]
        return front

    def solve(self, b: Float, *, width: int = WIDTH) -> Float:
        """Solution of ``A x = b``; the bits of a column do not depend on the others.

        Parameters
        ----------
        b : ndarray (n, K)
            Right-hand sides.
        width : int, default 16
            So many are solved for at a time; another number gives other last bits.

        Returns
        -------
        ndarray (n, K)
        """
        out = np.empty(b.shape)
        with single_blas_thread():
            for start in range(0, b.shape[1], width):
                columns = slice(start, min(start + width, b.shape[1]))
                block = np.zeros((self.n, width))
                block[:, : columns.stop - start] = b[self._order, columns]
                for part, (pivots, turned) in zip(self._parts, self._blocks, strict=True):
                    own = slice(part.start, part.stop)
                    block[part.rim] -= turned.T @ block[own]
                    block[own] = pivots.solve(block[own])
                for part, (_, turned) in zip(self._parts[::-1], self._blocks[::-1], strict=True):
                    block[part.start : part.stop] -= turned @ block[part.rim]
                out[self._order, columns] = block[:, : columns.stop - start]
        return out

    def logdet(self) -> float:
        """Natural logarithm of ``|det A|``."""
        return self._logdet

    def inverse_diagonal(self) -> Float:
        """Diagonal of ``A^-1`` (n,)."""
        diagonal = np.empty(self.n)
        held: dict[int, Float] = {}  # parts of the inverse on fronts whose children are to come
        root = len(self._parts) - 1
        waiting: list[tuple[int, int]] = [(root, -1)]
        left = {number: len(part.children) for number, part in enumerate(self._parts)}
        with single_blas_thread():
            while waiting:
                number, above = waiting.pop()
                part, (pivots, turned) = self._parts[number], self._blocks[number]
                inverse = pivots.inverse()
                rim = np.zeros((0, 0))
                if above >= 0:
                    rows = self._parts[above].find(part.rim)
                    rim = held[above][np.ix_(rows, rows)]
                    left[above] -= 1
                    if not left[above]:
                        del held[above]
                across = -turned @ rim
                own = slice(part.start, part.stop)
                diagonal[own] = np.diagonal(inverse) - (across * turned).sum(axis=1)
                if part.children:
                    held[number] = np.block(
                        [[inverse - across @ turned.T, across], [across.T, rim]]
                    )
                    waiting += [(child, number) for child in part.children]
        out = np.empty(self.n)
        out[self._order] = diagonal
        return out


def _dissect(
    matrix: sp.csr_array, places: Float, count: int
) -> tuple[list[Index], list[tuple[int, ...]]]:
    """Unknowns of every part, children before their parents, and the numbers of the children."""
    pieces: list[Index] = []
    children: list[tuple[int, ...]] = []

    def add(members: Index, below: tuple[int, ...]) -> int:
        pieces.append(members)
        children.append(below)
        return len(pieces) - 1

    def cut(members: Index, graph: sp.csr_array) -> int:
        if members.size <= _LEAF:
            return add(members, ())
        at = places[members]
        along = at[:, np.argmax(np.ptp(at, axis=0))]
        left = np.zeros(members.size, dtype=bool)
        left[np.argsort(along, kind="stable")[: members.size // 2]] = True
        held = _separator(graph, left)
        if 2 * np.count_nonzero(held) > members.size:  # nothing is gained by a cut
            return add(members, ())
        sides = (np.flatnonzero(side & ~held) for side in (left, ~left))
        below = tuple(cut(members[s], graph[s][:, s]) for s in sides if s.size)
        return add(members[held], below)

    inside = sp.csr_array(matrix[:count, :count])
    root = cut(np.arange(count), inside)
    if count < len(places):
        add(np.arange(count, len(places)), (root,))
    return pieces, children


def _postponed(matrix: sp.csr_array, pieces: list[Index], late: Flag) -> list[Index]:
    """Move late unknowns up to the part of what each is coupled to most."""
    number = np.empty(late.size, dtype=np.intp)
    for k, piece in enumerate(pieces):
        number[piece] = k
    rows = abs(matrix[late][:, ~late])
    some = np.diff(rows.indptr) > 0
    strongest = np.flatnonzero(~late)[np.asarray(rows.argmax(axis=1)).ravel()]
    unknown = np.flatnonzero(late)
    moved = np.where(some, np.maximum(number[unknown], number[strongest]), number[unknown])
    number[unknown] = moved
    order = np.argsort(number, kind="stable")
    return np.split(order, np.searchsorted(number[order], np.arange(1, len(pieces))))


def _separator(graph: sp.csr_array, left: Flag) -> Flag:
    """Fewest unknowns without which no entry crosses a cut (the theorem of Koenig)."""
    row = np.repeat(np.arange(left.size), np.diff(graph.indptr))
    crossing = left[row] & ~left[graph.indices]
    ends, starts = graph.indices[crossing], row[crossing]
    first, a = np.unique(starts, return_inverse=True)
    second, b = np.unique(ends, return_inverse=True)
    held = np.zeros(left.size, dtype=bool)
    if not a.size:
        return held
    shape = (first.size, second.size)
    edges = sp.csr_array((np.ones(a.size, dtype=np.int8), (a, b)), shape=shape)
    partner = maximum_bipartite_matching(edges, perm_type="column")  # of the first among the second
    back = np.full(second.size, -1)
    back[partner[partner >= 0]] = np.flatnonzero(partner >= 0)
    # what alternating paths reach from those without a partner
    reached, seen = partner < 0, np.zeros(second.size, dtype=bool)
    while True:
        fresh = np.zeros(second.size, dtype=bool)
        fresh[b[reached[a]]] = True
        fresh &= ~seen
        if not fresh.any():
            break
        seen |= fresh
        reached[back[fresh]] = True
    held[first[~reached]] = True
    held[second[seen]] = True
    return held


def _symbolic(
    ordered: sp.csr_array, sizes: list[int], children: list[tuple[int, ...]]
) -> list[_Part]:
    """Positions of every part and of its rim."""
    parts: list[_Part] = []
    start = 0
    for size, below in zip(sizes, children, strict=True):
        stop = start + size
        near = [ordered.indices[slice(*ordered.indptr[[start, stop]])]]
        rim = np.unique(np.concatenate(near + [parts[child].rim for child in below]))
        parts.append(_Part(start, stop, rim[rim >= stop].astype(np.intp), below))
        start = stop
    return parts


def _bytes(parts: list[_Part]) -> tuple[int, float]:
    """Bytes of the blocks, and at the peak of the elimination or of the inverse."""
    blocks = sum(part.pivots * part.front for part in parts)
    waiting, peak = 0, 0
    for part in parts:
        peak = max(peak, waiting + 2 * part.front**2)
        waiting += part.rim.size**2 - sum(parts[child].rim.size ** 2 for child in part.children)
    return 8 * blocks, 8.0 * (blocks + peak)

"""Solutions and the selected inverse from the blocks of a factorised grid.

With the pivots ``x_p`` of a box and its rim ``x_u``, a solution goes up the tree and down again,

    x_u += U x_p,   then   x_p = D [x_p; x_u],

with the blocks ``U = -F21 F11^-1`` and ``D = [F11^-1, -F11^-1 F12]`` of each box. The inverse Z on
the fronts follows from the root down (block Takahashi),

    Z_pu = D_u Z_uu,   Z_up = Z_uu U,   Z_pp = F11^-1 + Z_pu U,

where ``Z_uu`` is part of the parent's Z.

References
----------
Takahashi, Fagan, Chin (1973), Formation of a sparse bus impedance matrix; Erisman, Tinney (1975),
On computing certain elements of the inverse of a sparse matrix, Commun. ACM 18.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xr_spde.solvers.grid_fronts import LARGE, Blocks, Places, round_off
from xr_spde.solvers.grid_tree import Batch, GridTree


def gather(xp: Any, values: Any, index: Any, out: Any) -> Any:
    """Rows of an array.

    Parameters
    ----------
    xp : module
        numpy or cupy.
    values : array (n, K)
        Source.
    index : array of int
        Rows, all within range.
    out : array (..., K)
        Filled.

    Returns
    -------
    array
        `out`.
    """
    if xp is np:
        # the default mode would fill a copy first, in case an index is out of range
        return np.take(values, index, axis=0, out=out, mode="clip")
    return xp.take(values, index, axis=0, out=out)


@dataclass(frozen=True)
class Sweeps:
    """Blocks of all batches and how to run over them.

    Parameters
    ----------
    tree : GridTree
        Levels of batches.
    blocks : list of list of Blocks
        For every batch.
    index : list of list of array
        ``Batch.index`` of every batch, on the device.
    xp : module
        numpy or cupy.
    dtype : dtype
        Of the blocks.
    workspace : int
        Bytes of gathered rows, or of fronts, at a time.
    scale : float
        Largest entry of the matrix.
    """

    tree: GridTree
    blocks: list[list[Blocks]]
    index: list[list[Any]]
    xp: Any
    dtype: np.dtype[Any]
    workspace: int
    scale: float

    def solve(self, x: Any, *, transposed: bool) -> None:
        """Solve in place.

        Parameters
        ----------
        x : array (n, K)
            Right-hand sides in the order of elimination, C-contiguous; the solution on return.
        transposed : bool
            Whether to solve with the transposed matrix.
        """
        width = x.shape[1]
        rows = [sum(batch.count * batch.rim for batch in level) for level in self.tree.levels]
        pair = [
            self.xp.empty((max(rows[parity::2], default=0), width), dtype=self.dtype)
            for parity in (0, 1)
        ]
        for depth in range(len(rows) - 1, -1, -1):
            self._up(depth, x, pair[depth % 2], pair[1 - depth % 2], transposed)
        most = max(self._step(batch, width) * batch.front for batch in self.tree.bottom_up())
        buffer = self.xp.empty(most * width, dtype=self.dtype)
        for depth in range(len(rows)):
            self._down(depth, x, buffer, transposed)

    def _step(self, batch: Batch, width: int) -> int:
        """Members of a batch whose rows fit the workspace."""
        size = batch.front * width * self.dtype.itemsize
        return min(max(1, self.workspace // size), batch.count)

    def _up(self, depth: int, x: Any, own: Any, passed: Any, transposed: bool) -> None:
        """Eliminate the pivots of a level; `own` gets what goes to the rims."""
        xp, width = self.xp, x.shape[1]
        for batch, blocks in zip(self.tree.levels[depth], self.blocks[depth], strict=True):
            p = batch.pivots
            up = blocks.down[:, :, p:].transpose(0, 2, 1) if transposed else blocks.up
            for part in batch.parts(self._step(batch, width)):
                pivots = x[batch.rows(part)].reshape(-1, p, width)
                rims = own[batch.updates(part)].reshape(pivots.shape[0], batch.rim, width)
                below = []
                for link in batch.links:
                    overlap = link.overlap(part)
                    if overlap is None:
                        continue
                    child = self.tree.levels[depth + 1][link.child]
                    theirs = passed[child.updates(overlap[1])].reshape(-1, child.rim, width)
                    mine = pivots[overlap[0]]
                    for row, row_below, length in link.pivots:
                        mine[:, row : row + length] += theirs[:, row_below : row_below + length]
                    below.append((rims[overlap[0]], theirs, link.rim))
                xp.matmul(up[part], pivots, out=rims)
                for mine, theirs, runs in below:
                    for row, row_below, length in runs:
                        mine[:, row - p : row - p + length] += theirs[
                            :, row_below : row_below + length
                        ]

    def _down(self, depth: int, x: Any, buffer: Any, transposed: bool) -> None:
        """Solve for the pivots of a level, from those of the levels above."""
        xp, width = self.xp, x.shape[1]
        level = zip(self.tree.levels[depth], self.blocks[depth], self.index[depth], strict=True)
        for batch, blocks, index in level:
            p = batch.pivots
            for part in batch.parts(self._step(batch, width)):
                members = part.stop - part.start
                front = buffer[: members * batch.front * width]
                front = front.reshape(members, batch.front, width)
                gather(xp, x, index[part], front)
                pivots = x[batch.rows(part)].reshape(members, p, width)
                if transposed:
                    own = blocks.down[part, :, :p].transpose(0, 2, 1)
                    xp.matmul(own, front[:, :p], out=pivots)
                    pivots += xp.matmul(blocks.up[part].transpose(0, 2, 1), front[:, p:])
                else:
                    xp.matmul(blocks.down[part], front, out=pivots)

    def sample(self, x: Any) -> None:
        """Turn white noise into a draw of precision A, in place; A symmetric.

        Parameters
        ----------
        x : array (n, K)
            Noise in the order of elimination, C-contiguous; the draw on return.
        """
        xp, width = self.xp, x.shape[1]
        for level, held, indices in zip(self.tree.levels, self.blocks, self.index, strict=True):
            for batch, blocks, index in zip(level, held, indices, strict=True):
                p = batch.pivots
                for part in batch.parts(self._step(batch, width)):
                    pivots = x[batch.rows(part)].reshape(-1, p, width)
                    root = xp.linalg.cholesky(blocks.down[part, :, :p])
                    drawn = xp.matmul(root, pivots)
                    drawn += xp.matmul(blocks.down[part, :, p:], x[index[part, p:]])
                    pivots[...] = drawn

    def inverse(self, where: Places | None, *, transposed: bool) -> tuple[Any, Any]:
        """Compute the selected inverse.

        Parameters
        ----------
        where : Places or None
            Entries of a matrix whose places in the inverse are wanted besides the diagonal.
        transposed : bool
            Whether these are to be taken from the transposed inverse.

        Returns
        -------
        diagonal : array (n,)
            In the order of elimination.
        entries : array (nnz,)
            In the order of ``where.source``; empty if `where` is None.
        """
        xp = self.xp
        diagonal = xp.empty(self.tree.n, dtype=self.dtype)
        entries = xp.empty(0 if where is None else where.source.size, dtype=self.dtype)
        known = [xp.empty((1, 0, 0), dtype=self.dtype)]
        for depth, level in enumerate(self.tree.levels):
            below = self.tree.levels[depth + 1] if depth + 1 < len(self.tree.levels) else ()
            passed = [xp.empty((b.count, b.rim, b.rim), dtype=self.dtype) for b in below]
            for batch, blocks, rims in zip(level, self.blocks[depth], known, strict=True):
                size = batch.front**2 * self.dtype.itemsize
                for part in batch.parts(max(1, self.workspace // size)):
                    z = self.front(batch, blocks.down[part], blocks.up[part], rims[part])
                    if batch.front >= LARGE:
                        round_off(z, 1.0 / self.scale)
                    own = xp.diagonal(z, axis1=1, axis2=2)[:, : batch.pivots]
                    diagonal[batch.rows(part)] = own.reshape(-1)
                    if where is not None:
                        share, spot = where.of(batch, part)
                        if transposed:
                            stacked, row = np.divmod(spot, batch.front)
                            member, column = np.divmod(stacked, batch.front)
                            spot = (member * batch.front + row) * batch.front + column
                        entries[share] = z.reshape(-1)[xp.asarray(spot)]
                    hand_down(z, batch, part, passed)
            known = passed
        return diagonal, entries

    def front(self, batch: Batch, down: Any, up: Any, rims: Any) -> Any:
        """Inverse on the fronts of some members."""
        xp, p, f = self.xp, batch.pivots, batch.front
        z = xp.empty((rims.shape[0], f, f), dtype=self.dtype)
        z[:, p:, p:] = rims
        xp.matmul(down[:, :, p:], rims, out=z[:, :p, p:])
        xp.matmul(rims, up, out=z[:, p:, :p])
        xp.matmul(z[:, :p, p:], up, out=z[:, :p, :p])
        z[:, :p, :p] += down[:, :, :p]
        return z


def hand_down(z: Any, batch: Batch, part: slice, passed: list[Any]) -> None:
    """Give the children of some members their share of the inverse.

    Parameters
    ----------
    z : array (members, front, front)
        Inverse on the fronts of the members.
    batch : Batch
        Whose members they are.
    part : slice
        Which members.
    passed : list of array (count, rim, rim)
        Inverse on the rims of each batch of the level below; filled.
    """
    for mine, theirs in batch.shared(z, part, passed):
        theirs[...] = mine

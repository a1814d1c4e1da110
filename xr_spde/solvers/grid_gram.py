"""Diagonal of ``(A'A)^-1`` from the blocks of a factorised grid, without forming ``A'A``.

With white noise e, ``A x = e`` has the covariance ``C = A^-1 A^-T = (A'A)^-1``. ``A'A`` has the
condition number of A squared and couples nodes twice as far apart; neither is met if the noise
goes through the elimination of A with the rows. Its covariance N on the front of a box is the
identity on the pivots and what the children passed up. Eliminating, with
``U = -F21 F11^-1`` and ``D = -F11^-1 F12`` as in :mod:`xr_spde.solvers.grid_sweeps`,

    T = N_pu + N_pp U',   N_uu <- N_uu + U T + N_up U',

leaves the covariance of the noise on the rim. From the root down, with the inverse Z on the fronts,

    W = F11^-1 T Z_uu',   C_pu = W + D C_uu,   C_pp = F11^-1 N_pp F11^-T + C_pu D' + D W'.

References
----------
Li, Darve (2012), Extension and optimization of the FIND algorithm: computing Green's and
less-than Green's functions, J. Comput. Phys. 231.
"""

from __future__ import annotations

from typing import Any

from xr_spde.solvers.grid_fronts import LARGE, Blocks, add_children, round_off
from xr_spde.solvers.grid_sweeps import Sweeps, hand_down
from xr_spde.solvers.grid_tree import Batch

Noise = tuple[Any, Any]


def gram_diagonal(sweeps: Sweeps) -> Any:
    """Compute the diagonal of ``(A'A)^-1``.

    Parameters
    ----------
    sweeps : Sweeps
        Of the factorised A.

    Returns
    -------
    array (n,)
        In the order of elimination.
    """
    noise = _upward(sweeps)
    xp, tree, dtype = sweeps.xp, sweeps.tree, sweeps.dtype
    diagonal = xp.empty(tree.n, dtype=dtype)
    inverse = [xp.empty((1, 0, 0), dtype=dtype)]
    covariance = [xp.empty((1, 0, 0), dtype=dtype)]
    for depth, level in enumerate(tree.levels):
        below = tree.levels[depth + 1] if depth + 1 < len(tree.levels) else ()
        passed = [[xp.empty((b.count, b.rim, b.rim), dtype=dtype) for b in below] for _ in "ZC"]
        for number, batch in enumerate(level):
            blocks, held = sweeps.blocks[depth][number], noise[depth][number]
            for part in batch.parts(_step(sweeps, batch)):
                rims = inverse[number][part], covariance[number][part]
                if batch.links:
                    z, c = _fronts(sweeps, batch, part, blocks, held, rims)
                    own = xp.diagonal(c, axis1=1, axis2=2)[:, : batch.pivots]
                    hand_down(z, batch, part, passed[0])
                    hand_down(c, batch, part, passed[1])
                else:
                    own = _leaves(xp, batch, part, blocks, rims)
                diagonal[batch.rows(part)] = own.reshape(-1)
            noise[depth][number] = xp.empty(0), xp.empty(0)  # let go of it
        inverse, covariance = passed
    return diagonal


def _step(sweeps: Sweeps, batch: Batch) -> int:
    """Members of a batch whose fronts fit the workspace."""
    return max(1, sweeps.workspace // (batch.front**2 * sweeps.dtype.itemsize))


def _upward(sweeps: Sweeps) -> list[list[Noise]]:
    """``F11^-1 T`` and ``F11^-1 N_pp F11^-T`` of every batch, root first; nothing for leaves."""
    xp, dtype, kept = sweeps.xp, sweeps.dtype, []
    passed: list[Any] = []
    for depth in range(len(sweeps.tree.levels) - 1, -1, -1):
        found: list[Noise] = []
        left = []
        for batch, blocks in zip(sweeps.tree.levels[depth], sweeps.blocks[depth], strict=True):
            left.append(xp.empty((batch.count, batch.rim, batch.rim), dtype=dtype))
            kept_rows = batch.count if batch.links else 0
            shapes = ((kept_rows, batch.pivots, k) for k in (batch.rim, batch.pivots))
            across, own = (xp.empty(shape, dtype=dtype) for shape in shapes)
            for part in batch.parts(_step(sweeps, batch)):
                if batch.links:
                    _eliminate(xp, batch, part, blocks, passed, (across, own, left[-1]))
                else:
                    up = blocks.up[part]
                    xp.matmul(up, up.transpose(0, 2, 1), out=left[-1][part])
            found.append((across, own))
        kept.append(found)
        passed = left
    return kept[::-1]


def _eliminate(
    xp: Any, batch: Batch, part: slice, blocks: Blocks, passed: list[Any], out: tuple[Any, ...]
) -> None:
    """Take the noise of some members through the elimination of their pivots."""
    p, f = batch.pivots, batch.front
    up, own = blocks.up[part], blocks.down[part, :, :p]
    front = xp.zeros((part.stop - part.start, f, f), dtype=up.dtype)
    front.reshape(front.shape[0], -1)[:, : p * f : f + 1] = 1
    add_children(front, batch, part, passed)
    turned = up.transpose(0, 2, 1)
    across = xp.matmul(front[:, :p, :p], turned)
    across += front[:, :p, p:]
    left = out[2][part]
    xp.matmul(up, across, out=left)
    left += xp.matmul(front[:, p:, :p], turned)
    left += front[:, p:, p:]
    xp.matmul(own, across, out=out[0][part])
    xp.matmul(xp.matmul(own, front[:, :p, :p]), own.transpose(0, 2, 1), out=out[1][part])
    if f >= LARGE:
        round_off(left, 1.0)


def _fronts(
    sweeps: Sweeps, batch: Batch, part: slice, blocks: Blocks, held: Noise, rims: Noise
) -> Noise:
    """Inverse and covariance on the fronts of some members, from those on their rims."""
    xp, p, f = sweeps.xp, batch.pivots, batch.front
    down = blocks.down[part, :, p:]
    z = sweeps.front(batch, blocks.down[part], blocks.up[part], rims[0])
    c = xp.empty(z.shape, dtype=sweeps.dtype)
    w = xp.matmul(held[0][part], rims[0].transpose(0, 2, 1))
    turned = down.transpose(0, 2, 1)
    c[:, p:, p:] = rims[1]
    xp.matmul(down, rims[1], out=c[:, :p, p:])
    c[:, :p, p:] += w
    c[:, p:, :p] = c[:, :p, p:].transpose(0, 2, 1)
    xp.matmul(c[:, :p, p:], turned, out=c[:, :p, :p])
    c[:, :p, :p] += xp.matmul(down, w.transpose(0, 2, 1))
    c[:, :p, :p] += held[1][part]
    if f >= LARGE:
        round_off(z, 1.0 / sweeps.scale)
        round_off(c, 1.0 / sweeps.scale**2)
    return z, c


def _leaves(xp: Any, batch: Batch, part: slice, blocks: Blocks, rims: Noise) -> Any:
    """Diagonal on the pivots of some members without children."""
    p = batch.pivots
    own, down = blocks.down[part, :, :p], blocks.down[part, :, p:]
    diagonal = xp.sum(own * own, axis=2)
    across = xp.matmul(own, blocks.up[part].transpose(0, 2, 1))
    w = xp.matmul(across, rims[0].transpose(0, 2, 1))
    w += w
    w += xp.matmul(down, rims[1])
    diagonal += xp.sum(w * down, axis=2)
    return diagonal

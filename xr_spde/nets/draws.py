"""Draw many SAR fields at once on a graphics card: block elimination, all cases in one batch.

Ordered by rows of the grid, B is block tridiagonal with blocks of nx x nx. Eliminating row after
row takes ny dense solves of that size, which a card does for dozens of cases in the time of one.
On processor cores a sparse factorisation is the better choice (`xr_spde.solvers`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from xr_spde._core.errors import ParameterError


def _banded(weights: Tensor, columns: Tensor, *, periodic: bool) -> Tensor:
    """Multiply by blocks of three bands, one a case.

    weights (B, 3, nx) belong to the neighbours at i - 1, i, i + 1; columns are (B, nx, K).
    """
    low, centre, high = (weights[:, k, :, None] for k in range(3))
    before, after = torch.roll(columns, 1, 1), torch.roll(columns, -1, 1)
    if not periodic:
        before[:, 0], after[:, -1] = 0.0, 0.0
    return low * before + centre * columns + high * after


def solve_rows(weights: Tensor, noise: Tensor, *, periodic: bool) -> Tensor:
    """Solve B y = e for a batch of grids.

    Parameters
    ----------
    weights : Tensor (B, 9, ny, nx)
        Stencil of each node, as :func:`xr_spde.fields.sar.weights` orders it: rows j + 1, j and
        j - 1, each at columns i - 1, i and i + 1. Neighbours beyond the first and last row drop.
    noise : Tensor (B, M, ny, nx)
        Right-hand sides.
    periodic : bool
        Whether columns wrap around ("cylinder"), or drop too ("plane").

    Returns
    -------
    Tensor (B, M, ny, nx)

    Raises
    ------
    ParameterError
        If the shapes do not belong together, or fewer than three columns are periodic.
    """
    batch, _, ny, nx = weights.shape
    if weights.shape[1] != 9 or noise.shape[0] != batch or noise.shape[2:] != (ny, nx):
        raise ParameterError(
            f"weights is {tuple(weights.shape)} and noise {tuple(noise.shape)}; expected "
            "(B, 9, ny, nx) and (B, M, ny, nx)"
        )
    if periodic and nx < 3:
        raise ParameterError(f"noise has {nx} columns; a periodic grid needs at least 3")
    eye = torch.eye(nx, dtype=weights.dtype, device=weights.device).expand(batch, nx, nx)
    up = weights[:, 0:3].movedim(2, 0)
    own = weights[:, 3:6].movedim(2, 0)
    down = weights[:, 6:9].movedim(2, 0)
    sides = noise.permute(2, 0, 3, 1).to(weights.dtype)
    links: list[Tensor] = []
    solved: list[Tensor] = []
    for j in range(ny):
        block, side = _banded(own[j], eye, periodic=periodic), sides[j]
        if j:
            block = block - _banded(down[j], links[-1], periodic=periodic)
            side = side - _banded(down[j], solved[-1], periodic=periodic)
        above = _banded(up[j], eye, periodic=periodic)
        both = torch.linalg.solve(block, torch.cat([above, side], -1))
        links.append(both[..., :nx])
        solved.append(both[..., nx:])
    out = [solved[-1]]
    for j in reversed(range(ny - 1)):
        out.append(solved[j] - links[j] @ out[-1])
    return torch.stack(out[::-1]).permute(1, 3, 0, 2)

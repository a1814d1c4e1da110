"""Sampling of tensors, differentiable in the field and in the positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xr_spde.fields.sampling import _keys

__all__ = ["sample_tensor"]


def sample_tensor(field: Tensor, y: Tensor, x: Tensor, *, kernel: str, periodic_x: bool) -> Tensor:
    """Tensor at given positions; see :func:`xr_spde.fields.sampling.sample`.

    Parameters
    ----------
    field : Tensor (..., ny, nx)
        Values.
    y, x : Tensor (my, mx) or (b, my, mx)
        Positions in cells.
    kernel : {"linear", "cubic", "monotone"}
        See :data:`xr_spde.fields.sampling.KERNELS`.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    Tensor (..., my, mx)
    """
    ny, nx = field.shape[-2:]
    batch = y.shape[0] if y.ndim == 3 else 1
    wide = field.reshape(batch, -1, ny, nx)
    rows, columns = (p.reshape(batch, *p.shape[-2:]) for p in (y, x))
    if periodic_x:
        # a rim on both sides lets the kernels see across the seam
        wide = functional.pad(wide, (2, 3, 0, 0), mode="circular")
        columns = torch.remainder(columns, nx) + 2
    if kernel == "linear":
        out = _bilinear(wide, rows, columns)
    else:
        out = _cubic(wide, rows, columns, clip=kernel == "monotone")
    return out.reshape(*field.shape[:-2], *y.shape[-2:])


def _bilinear(field: Tensor, y: Tensor, x: Tensor) -> Tensor:
    ny, nx = field.shape[-2:]
    grid = torch.stack([x * (2.0 / (nx - 1)) - 1.0, y * (2.0 / (ny - 1)) - 1.0], dim=-1)
    grid = grid.to(field.dtype)
    return functional.grid_sample(
        field, grid, mode="bilinear", padding_mode="border", align_corners=True
    )


def _cubic(field: Tensor, y: Tensor, x: Tensor, *, clip: bool) -> Tensor:
    ny, nx = field.shape[-2:]
    y, x = y.clamp(0, ny - 1), x.clamp(0, nx - 1)
    j, i = y.detach().floor(), x.detach().floor()
    weights_y, weights_x = _keys((y - j).to(field.dtype)), _keys((x - i).to(field.dtype))
    j, i = j.long(), i.long()
    flat = field.flatten(-2)
    out = field.new_zeros(())
    corners = []
    for dj, weight_y in zip((-1, 0, 1, 2), weights_y, strict=True):
        row = (j + dj).clamp(0, ny - 1) * nx
        for di, weight_x in zip((-1, 0, 1, 2), weights_x, strict=True):
            index = (row + (i + di).clamp(0, nx - 1)).flatten(-2)[:, None]
            value = flat.gather(-1, index.expand(-1, flat.shape[1], -1))
            value = value.unflatten(-1, y.shape[-2:])
            if dj in (0, 1) and di in (0, 1):
                corners.append(value)
            out = out + (weight_y * weight_x)[:, None] * value
    if not clip:
        return out
    around = torch.stack(corners)
    return torch.minimum(torch.maximum(out, around.amin(0)), around.amax(0))

"""Codes that tell a transformer where a token lies in the grid of tokens.

Four kinds, those of the source (LatticeVision, arXiv 2505.09803): none; sinusoidal and learned,
which are added to the tokens; and rotary (Su et al. 2021, arXiv 2104.09864), which turns queries
and keys inside the attention, so that their product depends on the difference of positions only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, unknown

POSITIONS: tuple[str, ...] = ("none", "sinusoidal", "learned", "rope")
"""Kinds of codes."""

ROPES: tuple[str, ...] = ("2d", "raster")
"""Positions that rotary codes see: row and column, or the index in raster order."""

#: Rows and columns of tokens that learned codes cover, as in the source.
MAX_TOKENS = 64
_BASE = 10_000.0


def check_positions(positions: str, rope: str, head_dim: int) -> None:
    """Refuse unknown codes, and heads too narrow for rotary ones.

    Parameters
    ----------
    positions, rope : str
        See :data:`POSITIONS` and :data:`ROPES`.
    head_dim : int
        Width of one attention head.

    Raises
    ------
    UnknownNameError
        For a name that does not exist.
    ParameterError
        If the head does not divide into pairs (per axis).
    """
    if positions not in POSITIONS:
        raise unknown("positional code", positions, POSITIONS)
    if rope not in ROPES:
        raise unknown("rope", rope, ROPES)
    pairs = 4 if rope == "2d" else 2
    if positions == "rope" and head_dim % pairs:
        raise ParameterError(
            f"dim / heads = {head_dim}: rope={rope!r} needs a multiple of {pairs} per head"
        )


def _frequencies(dim: int, device: torch.device) -> Tensor:
    return torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(_BASE) / dim))


def sinusoids(count: int, dim: int, device: torch.device) -> Tensor:
    """Sines (even entries) and cosines (odd entries) of positions 0, 1, ... (Vaswani et al. 2017).

    Parameters
    ----------
    count, dim : int
        Positions and width; `dim` even.
    device : torch.device
        Where to put them.

    Returns
    -------
    Tensor (count, dim)
    """
    angles = torch.arange(count, device=device)[:, None] * _frequencies(dim, device)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class Learned(nn.Module):
    """Two learned tables, of rows and of columns; tokens get the sum.

    Parameters
    ----------
    dim : int
        Width of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(MAX_TOKENS, dim))
        self.columns = nn.Parameter(torch.randn(MAX_TOKENS, dim))

    def forward(self, rows: int, columns: int) -> Tensor:
        """Codes (rows, columns, dim); ParameterError beyond 64 tokens along an axis."""
        if max(rows, columns) > MAX_TOKENS:
            raise ParameterError(
                f"a grid of {rows} x {columns} tokens: positions='learned' knows at most "
                f"{MAX_TOKENS} along an axis; estimate by tiles or use a network with "
                "positions='rope'"
            )
        return self.rows[:rows, None] + self.columns[:columns]


class Positions(nn.Module):
    """Codes of one kind for grids of any size.

    Parameters
    ----------
    kind, rope : str
        See :data:`POSITIONS` and :data:`ROPES`.
    dim, head_dim : int
        Width of a token and of an attention head.
    """

    def __init__(self, kind: str, rope: str, dim: int, head_dim: int) -> None:
        super().__init__()
        self.kind, self.rope, self.dim, self.head_dim = kind, rope, dim, head_dim
        self.learned = Learned(dim) if kind == "learned" else None

    def add(self, tokens: Tensor) -> Tensor:
        """Add codes to tokens (batch, rows, columns, dim), where the kind is one that adds."""
        rows, columns = tokens.shape[1:3]
        if self.learned is not None:
            codes: Tensor = self.learned(rows, columns)
        elif self.kind == "sinusoidal":
            table = sinusoids(max(rows, columns), self.dim, tokens.device)
            codes = table[:rows, None] + table[:columns]
        else:
            return tokens
        return tokens + codes.to(tokens.dtype)

    def turns(self, rows: int, columns: int, device: torch.device) -> Tensor | None:
        """Angles (rows * columns, head_dim / 2) for `rotate`; None unless the kind is rotary."""
        if self.kind != "rope":
            return None
        index = torch.arange(rows * columns, device=device)[:, None]
        if self.rope == "raster":
            angles: Tensor = index * _frequencies(self.head_dim, device)
        else:
            slow = _frequencies(self.head_dim // 2, device)
            angles = torch.cat((index // columns * slow, index % columns * slow), dim=1)
        return angles


def rotate(heads: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring pairs of entries by the angles of their token.

    Parameters
    ----------
    heads : Tensor (..., token, head_dim)
        Queries or keys.
    angles : Tensor (token, head_dim / 2)
        In radians.

    Returns
    -------
    Tensor
        Like `heads`; computed in at least single precision.
    """
    wide = torch.promote_types(heads.dtype, torch.float32)
    first, second = heads.to(wide).unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return turned.flatten(-2).to(heads.dtype)

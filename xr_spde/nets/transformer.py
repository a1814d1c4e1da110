"""A transformer between patches of a grid and patches of a result.

Blocks normalise after each residual sum and have no normalisation at the end, as in the source
(LatticeVision, arXiv 2505.09803). Its released weights were trained with causal attention: each
token saw itself and the tokens before it in raster order, southern rows first. That is
``causal=True`` here, for the sake of those weights; by default every token sees every other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError
from xr_spde.nets.blocks import check_sizes
from xr_spde.nets.positions import Positions, check_positions, rotate


@dataclass(frozen=True)
class Transformer:
    """Shape of a stack of transformer blocks.

    Attributes
    ----------
    dim, depth, heads : int
        Width of a token, number of blocks, heads of each.
    mlp : int or None
        Hidden width of the perceptron of a block; None is four times `dim`.
    dropout : float
        On attention weights and on both residual branches.
    positions, rope : str
        See `xr_spde.nets.positions`.
    causal : bool
        Tokens see only themselves and those before them.

    Raises
    ------
    ParameterError
        For values that cannot be combined.
    UnknownNameError
        For an unknown positional code.
    """

    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int | None = None
    dropout: float = 0.1
    positions: str = "rope"
    rope: str = "2d"
    causal: bool = False

    def __post_init__(self) -> None:
        check_sizes(dim=self.dim, depth=self.depth, heads=self.heads, mlp=self.hidden)
        if self.dim % self.heads or self.dim % 2:
            raise ParameterError(
                f"dim={self.dim}, heads={self.heads}: give an even width that the heads divide"
            )
        if not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout={self.dropout}: give a share from 0 to below 1")
        check_positions(self.positions, self.rope, self.head_dim)

    @property
    def hidden(self) -> int:
        """Hidden width of the perceptron."""
        return 4 * self.dim if self.mlp is None else self.mlp

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.heads

    def options(self) -> dict[str, Any]:
        """Return the attributes by name, JSON-able."""
        return asdict(self)


class Attention(nn.Module):
    """Multi-head self-attention without biases."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.shape = shape
        self.query = nn.Linear(shape.dim, shape.dim, bias=False)
        self.key = nn.Linear(shape.dim, shape.dim, bias=False)
        self.value = nn.Linear(shape.dim, shape.dim, bias=False)
        self.out = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(self, tokens: Tensor, turns: Tensor | None) -> Tensor:
        """Map tokens (batch, token, dim) to the same shape; `turns` for rotary codes."""
        query, key, value = (
            part(tokens).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        if turns is not None:
            query, key = rotate(query, turns), rotate(key, turns)
        heads = F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.shape.dropout if self.training else 0.0,
            is_causal=self.shape.causal,
        )
        return cast(Tensor, self.out(heads.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention and perceptron, each followed by residual sum and normalisation."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.norm1 = nn.LayerNorm(shape.dim)
        self.mlp = nn.Sequential(
            nn.Linear(shape.dim, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.dim)
        )
        self.norm2 = nn.LayerNorm(shape.dim)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, tokens: Tensor, turns: Tensor | None) -> Tensor:
        """Map tokens (batch, token, dim) to the same shape."""
        tokens = self.norm1(tokens + self.dropout(self.attention(tokens, turns)))
        return cast(Tensor, self.norm2(tokens + self.dropout(self.mlp(tokens))))


class PatchTransformer(nn.Module):
    """Patches become tokens, tokens pass the blocks, tokens become patches again.

    Parameters
    ----------
    channels, outputs : int
        Channels in and out.
    patch : int
        Rows and columns of a patch; must divide those of the grid.
    shape : Transformer
        The blocks.

    Notes
    -----
    The last layer holds a patch as (channel, row, column).
    """

    def __init__(self, channels: int, outputs: int, patch: int, shape: Transformer) -> None:
        super().__init__()
        check_sizes(patch=patch)
        self.patch = patch
        self.embed = nn.Conv2d(channels, shape.dim, patch, stride=patch, bias=False)
        self.positions = Positions(shape.positions, shape.rope, shape.dim, shape.head_dim)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.spread = nn.Linear(shape.dim, outputs * patch**2)

    def forward(self, fields: Tensor, periodic: bool = False) -> Tensor:
        """Map (batch, channels, ny, nx) to (batch, outputs, ny, nx).

        `periodic` is accepted and changes nothing: patches do not overlap, and positional codes
        know no seam.
        """
        grid = self.positions.add(self.embed(fields).movedim(1, -1))
        rows, columns = grid.shape[1:3]
        turns = self.positions.turns(rows, columns, fields.device)
        tokens = grid.flatten(1, 2)
        for block in self.blocks:
            tokens = block(tokens, turns)
        patches: Tensor = self.spread(tokens).unflatten(1, (rows, columns)).movedim(-1, 1)
        return F.pixel_shuffle(patches, self.patch)

"""STUN: a U-Net whose bottleneck is a transformer (LatticeVision, arXiv 2505.09803)."""

from __future__ import annotations

from collections.abc import Sequence

from xr_spde.nets.blocks import GridNetwork, Pyramid, check_sizes
from xr_spde.nets.transformer import PatchTransformer, Transformer
from xr_spde.nets.unet import check_widths


class STUN(GridNetwork):
    """Encoder and decoder of the U-Net around a transformer; 105.3 million parameters.

    Parameters
    ----------
    replicates : int
        Channels in: one network serves one number of replicates.
    widths : sequence of int
        Channels of the levels, finest first, multiples of 8.
    patch : int
        Rows and columns of a patch at the coarsest resolution.
    dim, depth, heads, mlp, dropout, positions, rope, causal
        See `xr_spde.nets.transformer.Transformer`. The source has ``rope="raster"`` and
        ``causal=True``.

    Raises
    ------
    ParameterError
        For values that cannot be combined.
    UnknownNameError
        For an unknown positional code.

    Notes
    -----
    On a periodic grid the convolutions wrap; positional codes know no seam, so the result is
    exactly equivariant to shifts of whole tokens only with ``positions="none"``.
    """

    architecture = "stun"

    def __init__(
        self,
        replicates: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        patch: int = 2,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp: int | None = None,
        dropout: float = 0.1,
        positions: str = "rope",
        rope: str = "2d",
        causal: bool = False,
    ) -> None:
        check_sizes(replicates=replicates)
        widths = check_widths(widths)
        shape = Transformer(dim, depth, heads, mlp, dropout, positions, rope, causal)
        middle = PatchTransformer(widths[-1], dim, patch, shape)
        super().__init__(
            Pyramid(replicates, widths, middle, dim),
            patch * 2 ** len(widths),
            {"replicates": replicates, "widths": widths, "patch": patch, **shape.options()},
        )

"""Vision transformer from raw replicates to parameter maps (LatticeVision, arXiv 2505.09803)."""

from __future__ import annotations

from xr_spde.nets.blocks import GridNetwork, check_sizes
from xr_spde.nets.transformer import PatchTransformer, Transformer


class ViT(GridNetwork):
    """Patches of the fields through a transformer, nothing else; 91.5 million parameters.

    Parameters
    ----------
    replicates : int
        Channels in: one network serves one number of replicates.
    patch : int
        Rows and columns of a patch.
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
    On a periodic grid only the padding to whole patches wraps; the network itself is blind to
    the seam.
    """

    architecture = "vit"

    def __init__(
        self,
        replicates: int,
        *,
        patch: int = 16,
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
        shape = Transformer(dim, depth, heads, mlp, dropout, positions, rope, causal)
        super().__init__(
            PatchTransformer(replicates, 3, patch, shape),
            patch,
            {"replicates": replicates, "patch": patch, **shape.options()},
        )

"""U-Net from raw replicates to parameter maps (LatticeVision, arXiv 2505.09803)."""

from __future__ import annotations

from collections.abc import Sequence

from xr_spde._core.errors import ParameterError
from xr_spde.nets.blocks import DoubleConv, GridNetwork, Pyramid, check_sizes


class UNet(GridNetwork):
    """Convolutions at halving resolutions with skip connections; 25.2 million parameters.

    Parameters
    ----------
    replicates : int
        Channels in: one network serves one number of replicates.
    widths : sequence of int
        Channels of the levels, finest first, multiples of 8.
    bottleneck : int
        Channels at the coarsest resolution, a multiple of 8.

    Raises
    ------
    ParameterError
        For sizes that are not such numbers.

    Examples
    --------
    >>> import torch
    >>> from xr_spde.nets.unet import UNet
    >>> tiny = UNet(5, widths=(16, 32), bottleneck=64)
    >>> tiny(torch.zeros(1, 5, 30, 41)).shape
    torch.Size([1, 3, 30, 41])
    """

    architecture = "unet"

    def __init__(
        self,
        replicates: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        bottleneck: int = 768,
    ) -> None:
        check_sizes(replicates=replicates)
        widths = check_widths(widths)
        middle = DoubleConv(widths[-1], bottleneck)
        super().__init__(
            Pyramid(replicates, widths, middle, bottleneck),
            2 ** len(widths),
            {"replicates": replicates, "widths": widths, "bottleneck": bottleneck},
        )


def check_widths(widths: Sequence[int]) -> list[int]:
    """Return the widths of the levels as a list.

    Parameters
    ----------
    widths : sequence of int
        At least one.

    Returns
    -------
    list of int

    Raises
    ------
    ParameterError
        If there is none.
    """
    if len(widths) == 0:
        raise ParameterError("widths=(): give the channels of at least one level")
    return list(widths)

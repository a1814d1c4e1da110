"""A residual network on what an interpolation found: what its prior does not know.

References
----------
Yu and Koltun (2016), Multi-scale context aggregation by dilated convolutions, arXiv 1511.07122; He,
Zhang, Ren, Sun (2016), Deep residual learning, CVPR.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde.nets.blocks import check_sizes

__all__ = ["Refinement"]


class Refinement(nn.Module):
    """Convolutions of growing reach, each added to its input; zero at first.

    Parameters
    ----------
    channels, width, out : int
        Channels in, of the layers, and out.
    depth : int, default 4
        Layers, with dilations of 1, 2, 4, ... cells.
    coarsen : int, default 1
        Squares of so many cells a side are taken as channels of one.
    more : int, default 0
        Channels of further fields, which have one value for each of these squares.
    cycle : int, optional
        Layers after which dilations begin anew from 1; never by default.

    Raises
    ------
    ParameterError
        For sizes that are not such numbers.
    """

    def __init__(
        self, channels: int, width: int, out: int, *, depth: int = 4, coarsen: int = 1,
        more: int = 0, cycle: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(channels=channels, width=width, out=out, depth=depth, coarsen=coarsen)
        self.coarsen, wide = coarsen, coarsen**2
        self.first = nn.Conv2d(channels * wide + more, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=reach, dilation=reach)
            for reach in (2 ** (k % (cycle or depth)) for k in range(depth))
        )
        self.last = nn.Conv2d(width, out * wide, 3, padding=1)
        # untrained, the interpolation stays as it is
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, features: Tensor, more: Tensor | None = None) -> Tensor:
        """Correct.

        Parameters
        ----------
        features : Tensor (B, channels, ny, nx)
            Near unit size.
        more : Tensor (B, more, rows, columns), optional
            Of squares, those at the lower and right edges cut short.

        Returns
        -------
        Tensor (B, out, ny, nx)
        """
        ny, nx = features.shape[-2:]
        padded = F.pad(features, (0, -nx % self.coarsen, 0, -ny % self.coarsen))
        folded = F.pixel_unshuffle(padded, self.coarsen)
        hidden = self.first(folded if more is None else torch.cat([folded, more], 1))
        for layer in self.layers:
            hidden = hidden + layer(F.silu(hidden))
        found = self.last(F.silu(hidden))
        return F.pixel_shuffle(found, self.coarsen)[..., :ny, :nx]

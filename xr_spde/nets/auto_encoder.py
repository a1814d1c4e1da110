"""A learned prior: the bilinear auto-encoder, near whose fixed points fields are likely.

References
----------
Fablet et al. (2021), J. Adv. Model. Earth Syst. 13; Beauchamp et al. (2025), AIES,
arXiv 2402.01855.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde.nets.blocks import check_fields, check_sizes

__all__ = ["BilinearAutoEncoder"]


class BilinearAutoEncoder(nn.Module):
    """Convolutions at half the resolution, with products of features as in quadratic dynamics.

    Parameters
    ----------
    steps : int
        Steps of a window, which are channels.
    width : int, default 64
        Features.

    Raises
    ------
    ParameterError
        For sizes below one.
    """

    def __init__(self, steps: int, width: int = 64) -> None:
        super().__init__()
        check_sizes(steps=steps, width=width)
        self.steps = steps
        self.enter = nn.Conv2d(steps, width, 3, padding=1)
        self.features = nn.Conv2d(width, width, 3, padding=1)
        self.linear = nn.Conv2d(width, width, 3, padding=1)
        self.left = nn.Conv2d(width, width, 3, padding=1)
        self.right = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(2 * width, steps, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Project fields towards likely ones.

        Parameters
        ----------
        x : Tensor (B, steps, ny, nx)
            Anomalies.

        Returns
        -------
        Tensor (B, steps, ny, nx)
        """
        check_fields(x, self.steps)
        ny, nx = x.shape[-2:]
        padded = F.pad(x, (0, nx % 2, 0, ny % 2), mode="replicate")
        h = self.features(F.relu(self.enter(F.avg_pool2d(padded, 2))))
        h = torch.cat([self.linear(h), self.left(h) * self.right(h)], 1)
        fine = F.interpolate(self.leave(h), scale_factor=2, mode="bilinear", align_corners=False)
        return fine[..., :ny, :nx]

r"""First guesses of the SPDE parameters, each from observations alone.

"gradients" is that of the source, from the Sobel gradient g of the mean: ``tau = |g|``,
``kappa = max |g| - |g|``, ``m = v = g``, ``gamma = beta = 1``. "constant" is learned numbers, "map"
learned fields on a fixed domain. "variogram" reads them from the observations: from half the mean
squared difference of observed neighbours, by direction and distance, in space and from one step to
the next, over boxes of several sizes, a small convolutional network adds to the learned numbers.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855; Matheron (1963), Econ. Geol. 58.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde.nets.spde_stencil import THETA
from xr_spde.nets.theta_fields import ThetaFields
from xr_spde.nets.variational_window import Window

__all__ = ["LAGS", "STARTS", "VariogramStart", "sobel_channels", "variograms"]

STARTS = ("variogram", "constant", "map", "gradients")
"""Where the parameters begin."""

LAGS = ((0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, -1), (0, 0, 2), (0, 2, 0), (1, 0, 0))
"""Steps, rows and columns between the observations of a pair."""

_LEAST, _FEW = 1e-4, 4.0


def variograms(window: Window, radii: Sequence[int]) -> Tensor:
    """Logarithms of local half-variograms and variances of the observations, and their trust.

    Parameters
    ----------
    window : Window
        Observations. The variance of their errors is taken off.
    radii : sequence of int
        Half the sides of the boxes, in cells.

    Returns
    -------
    Tensor (B, 2 * radii * (1 + lags), ny, nx)
        Zero where a box has no pair; trust is ``n / (n + 4)`` of n pairs.
    """
    y, noise, seen = window.obs, window.variance, window.mask.to(window.obs.dtype)
    sums = [(seen * (y**2 - noise)).sum(1)]
    counts = [seen.sum(1)]
    steps, ny, nx = y.shape[1:]
    for dt, dj, di in LAGS:
        left, right = max(0, -di), nx - max(0, di)
        here = (..., slice(0, steps - dt), slice(0, ny - dj), slice(left, right))
        there = (..., slice(dt, steps), slice(dj, ny), slice(left + di, right + di))
        pair = seen[here] * seen[there]
        half = 0.5 * ((y[here] - y[there]) ** 2 - noise[here] - noise[there])
        pad = (left, nx - right, 0, dj)
        sums.append(F.pad((pair * half).sum(1), pad))
        counts.append(F.pad(pair.sum(1), pad))
    pairs = torch.stack([torch.stack(sums, 1), torch.stack(counts, 1)], 1)
    features = []
    for radius in radii:
        side = 2 * radius + 1
        boxed = F.avg_pool2d(pairs.flatten(1, 2), side, 1, radius) * side**2
        total, count = boxed.unflatten(1, pairs.shape[1:3]).unbind(1)
        value = torch.log((total / count.clamp_min(0.5)).clamp_min(_LEAST))
        features += [torch.where(count > 0.5, value, 0.0), count / (count + _FEW)]
    return torch.cat(features, 1)


def sobel_channels(mean: Tensor, fields: ThetaFields, sets: int) -> Tensor:
    """Channels of the source's first guess.

    Parameters
    ----------
    mean : Tensor (B, T, ny, nx)
        Of the solver.
    fields : ThetaFields
        What is free, as a "vector".
    sets : int
        1, or T.

    Returns
    -------
    Tensor (B, P, sets, ny, nx)
    """
    smooth, step = mean.new_tensor([1.0, 2.0, 1.0]) / 4.0, mean.new_tensor([-0.5, 0.0, 0.5])
    kernels = torch.stack([smooth[:, None] * step, step[:, None] * smooth])[:, None]
    batch, steps = mean.shape[:2]
    wide = F.pad(mean, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    slope = F.conv2d(wide, kernels).unflatten(0, (batch, steps))
    if sets == 1:
        slope = slope.mean(1, keepdim=True)
    slope = slope / slope.abs().amax((1, 2, 3, 4), keepdim=True).clamp_min(1e-12)
    gx, gy = slope.unbind(2)
    size = gx.abs() + gy.abs()
    least = 0.01
    one = torch.ones_like(gx)
    largest = size.amax((1, 2, 3), keepdim=True)
    values = dict(
        zip(THETA, (largest - size + least, size + least, gx, gy, gx, gy, one, one), strict=True)
    )
    return torch.stack([fields.channel(name, values[name]) for name in fields.names], 1)


class VariogramStart(nn.Module):
    """Reads channels of the parameters from local variograms.

    Parameters
    ----------
    channels : int
        How many.
    hidden : int, default 32
        Features.
    radii : sequence of int, default (2, 5, 11)
        Of :func:`variograms`.
    """

    def __init__(
        self, channels: int, *, hidden: int = 32, radii: Sequence[int] = (2, 5, 11)
    ) -> None:
        super().__init__()
        self.radii = tuple(radii)
        inputs = 2 * len(self.radii) * (1 + len(LAGS))
        # features are the same at neighbouring cells but for noise: 1 x 1 convolutions, then one
        # look around
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1), nn.GELU(), nn.Conv2d(hidden, hidden, 1), nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.GELU(), nn.Conv2d(hidden, channels, 1),
        )  # fmt: skip
        last = self.layers[-1]
        if isinstance(last, nn.Conv2d):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(cast(Tensor, last.bias))

    def forward(self, window: Window, size: tuple[int, int]) -> Tensor:
        """Return what is added to the learned numbers.

        Parameters
        ----------
        window : Window
            Observations.
        size : tuple of int
            Rows and columns of the coarse grid.

        Returns
        -------
        Tensor (B, channels, *size)
        """
        features = F.adaptive_avg_pool2d(variograms(window, self.radii), size)
        return cast(Tensor, self.layers(features))

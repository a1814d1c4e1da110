"""The default network: parameters of a SAR field from the lag statistics of its replicates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError
from xr_spde.nets.lag_features import LagMoments, LagPyramid

#: Numbers of replicates 1, 2, 4 ... for which standard errors are calibrated.
CALIBRATED = 6

_INSIDE = 0.6827  # of a normal variable within one standard deviation


class Block(nn.Module):
    """Residual block: 3 x 3 convolution, GELU, 3 x 3 convolution that starts at zero.

    Without a norm the result at a pixel depends on its neighbourhood alone, so a field may be
    cut into tiles; starting as the identity keeps a deep stack of blocks trainable.

    Parameters
    ----------
    width : int
        Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        y: Tensor = self.second(F.gelu(self.first(x)))
        return x + y


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(count)))


class StatisticsNet(nn.Module):
    """U-shaped network over the pyramid of lag statistics.

    Its finest level works on squares of two by two cells, half the smallest scale that parameters
    of a nine-point stencil can show. Every level gets the statistics pooled at its own scale
    beside what the finer level passes on; at the coarsest the mean over the field is added, as
    context. No layer knows the size of the grid; rows and columns that are not divisible by the
    coarsest square are completed with cells without data.

    Parameters
    ----------
    widths : sequence of int
        Channels of the levels, finest first.
    down, up : sequence of int
        Residual blocks of each level on the way down (one number a level) and up (one less).

    Raises
    ------
    ParameterError
        If these do not fit together.

    References
    ----------
    Task and prior: LatticeVision, arXiv 2505.09803. Direction and strength of the anisotropy are
    predicted as the matrix logarithm of H, which has no seam in the angle.
    """

    architecture = "net"
    #: Channels of the output.
    outputs = 7

    def __init__(
        self,
        widths: tuple[int, ...] = (48, 96, 160, 224),
        down: tuple[int, ...] = (1, 2, 2, 2),
        up: tuple[int, ...] = (1, 2, 1),
    ) -> None:
        super().__init__()
        if not (len(widths) == len(down) == len(up) + 1):
            raise ParameterError(
                f"widths has {len(widths)} levels, down {len(down)} and up {len(up)}; expected at "
                "least one level, as many numbers in down, and one less in up"
            )
        self.options: dict[str, Any] = {"widths": list(widths), "down": list(down), "up": list(up)}
        levels = len(widths)
        self.factor = 2 ** (levels - 1)
        self.pyramid = LagPyramid(levels)
        self.inputs = nn.ModuleList(
            nn.Conv2d(self.pyramid.channels(k), width, 1) for k, width in enumerate(widths)
        )
        self.encoders = nn.ModuleList(_blocks(w, n) for w, n in zip(widths, down, strict=True))
        self.decoders = nn.ModuleList(_blocks(w, n) for w, n in zip(widths[:-1], up, strict=True))
        pairs = list(pairwise(widths))
        self.reduce = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.expand = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        deepest = widths[-1]
        self.context = nn.Sequential(
            nn.Linear(deepest, deepest), nn.GELU(), nn.Linear(deepest, deepest)
        )
        self.head = nn.Conv2d(widths[0], self.outputs, 1)
        #: What is added to the log standard errors for M = 1, 2, 4 ... replicates.
        self.calibration: Tensor
        self.register_buffer("calibration", torch.zeros(3, CALIBRATED))

    def forward(self, moments: LagMoments) -> Tensor:
        """Estimates and their standard errors.

        Parameters
        ----------
        moments : LagMoments
            Of B cases on H x W cells, or already pooled to squares of two.

        Returns
        -------
        Tensor (B, 7, H, W)
            On cells: log kappa2; log rho; cos 2 theta and sin 2 theta; log standard errors of
            log kappa2 and of log H along and across the direction theta.
        """
        rows, columns = (size * moments.side for size in moments.half.shape[-2:])
        squares = moments if moments.side == 2 else moments.pooled()
        # the small differences between lags drown in 16 bits
        with torch.autocast(moments.half.device.type, enabled=False):
            features = self.pyramid(_complete(squares, self.factor))
        skips: list[Tensor] = []
        for k, feature in enumerate(features):
            x = self.inputs[k](feature.contiguous(memory_format=torch.channels_last))
            if k:
                x = x + self.reduce[k - 1](skips[-1])
            skips.append(self.encoders[k](x))
        x = skips[-1]
        x = x + self.context(x.mean((-2, -1)))[:, :, None, None]
        for k in reversed(range(len(self.decoders))):
            coarse = self.expand[k](x)
            x = skips[k] + F.interpolate(coarse, scale_factor=2, mode="bilinear")
            x = self.decoders[k](x)
        cells = F.interpolate(self.head(x).float(), scale_factor=2, mode="bilinear")
        out = self.read(cells[..., :rows, :columns])
        out[:, 4:] += self._calibrated(moments.replicates)[:, :, None, None]
        return out

    def _calibrated(self, replicates: Tensor) -> Tensor:
        """Interpolate the calibration (B, 3), linearly in log M and constant beyond its ends."""
        place = replicates.float().log2().clamp(0.0, CALIBRATED - 1.0)
        knots = torch.arange(CALIBRATED, device=place.device)
        share = (1.0 - (place[:, None] - knots).abs()).clamp(min=0.0)
        return share.to(self.calibration.dtype) @ self.calibration.T

    @torch.no_grad()
    def calibrate(self, cases: Iterable[tuple[LagMoments, Tensor]]) -> None:
        """Scale the standard errors so that 68.3 % of the errors are smaller, for every M.

        Parameters
        ----------
        cases : iterable of (LagMoments, Tensor (1, 3, H, W))
            Inputs and truths that training has not seen; M is rounded to a power of two.
        """
        self.calibration.zero_()
        ratios: dict[int, list[Tensor]] = {}
        device = self.calibration.device
        for case, true in cases:
            inputs, truth = case.to(device), true.to(device)
            k = int(torch.log2(inputs.replicates[0]).round())
            output = self(inputs)[..., : truth.shape[-2], : truth.shape[-1]]
            ratio = errors_of(output, truth).abs() / output[:, 4:].exp()
            # a share of the cells is enough, and each case counts alike
            few = ratio.flatten(2)[0, :, :: max(truth[0, 0].numel() // 4000, 1)]
            ratios.setdefault(k, []).append(few)
        known = sorted(ratios)
        found = torch.stack([torch.cat(ratios[k], 1).quantile(_INSIDE, dim=1).log() for k in known])
        for k in range(CALIBRATED):
            nearest = min(range(len(known)), key=lambda i: abs(known[i] - k))
            self.calibration[:, k] = found[nearest]

    @staticmethod
    def read(raw: Tensor) -> Tensor:
        """Turn the head's numbers, of order one, into those of `forward`."""
        log_kappa2 = 1.8 * raw[:, :1] - 1.5
        log_rho = F.softplus(raw[:, 1:2] + 1.0)
        direction = raw[:, 2:4] / (raw[:, 2:4].square().sum(1, keepdim=True) + 1e-6).sqrt()
        spread = (raw[:, 4:] - 1.5).clamp(-6.0, 2.0)
        return torch.cat([log_kappa2, log_rho, direction, spread], 1)


def _complete(moments: LagMoments, factor: int) -> LagMoments:
    """Add cells without data below and to the right until `factor` divides both sizes."""
    rows, columns = moments.half.shape[-2:]
    extra = (0, -columns % factor, 0, -rows % factor)
    if not any(extra):
        return moments
    half, level, weight, variance, seen = (
        F.pad(x, extra)
        for x in (moments.half, moments.level, moments.weight, moments.variance, moments.seen)
    )
    return replace(moments, half=half, level=level, weight=weight, variance=variance, seen=seen)


def errors_of(output: Tensor, truth: Tensor) -> Tensor:
    """Errors that the standard errors belong to.

    Parameters
    ----------
    output : Tensor (B, 7, H, W)
        As `StatisticsNet.forward` returns it.
    truth : Tensor (B, 3, H, W)
        log kappa2, log rho and theta.

    Returns
    -------
    Tensor (B, 3, H, W)
        Of log kappa2, and of log H along and across the estimated direction.
    """
    log_kappa2, log_rho = output[:, 0], output[:, 1]
    true_kappa2, true_rho = truth[:, 0], truth[:, 1]
    along, across = _turned(output, truth)
    return torch.stack([true_kappa2 - log_kappa2, true_rho * along - log_rho, true_rho * across], 1)


def _turned(output: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of twice the angle from the estimated direction to the true one."""
    cosine, sine, theta = output[:, 2], output[:, 3], truth[:, 2]
    true_cosine, true_sine = torch.cos(2.0 * theta), torch.sin(2.0 * theta)
    return cosine * true_cosine + sine * true_sine, cosine * true_sine - sine * true_cosine


def loss_terms(output: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Squared errors of the means and likelihoods of the standard errors, per cell.

    The standard errors are fitted to the errors as they are (no gradient passes to the means
    through them), so that the means have the least squared error.

    Parameters
    ----------
    output : Tensor (B, 7, H, W)
        As `StatisticsNet.forward` returns it.
    truth : Tensor (B, 3, H, W)
        log kappa2, log rho and theta.

    Returns
    -------
    dict of str to Tensor (B, H, W)
        "kappa2", "rho", "tensor", "angle": squared errors in units of the prior's spread;
        "spread": negative log-likelihood.
    """
    log_kappa2, log_rho = output[:, 0], output[:, 1]
    true_kappa2, true_rho = truth[:, 0], truth[:, 1]
    along, _ = _turned(output, truth)
    errors = errors_of(output, truth)
    spread, zero = output[:, 4:], torch.zeros_like(errors[:, 1:])
    likelihood = 0.5 * (errors.detach() * torch.exp(-spread)).square() + spread
    return {
        # squared within some units; beyond, linear, so that no single case dominates a step
        "kappa2": 2.0 * F.huber_loss(log_kappa2, true_kappa2, reduction="none", delta=3.0) / 1.8**2,
        "tensor": 2.0 * F.huber_loss(errors[:, 1:], zero, reduction="none", delta=2.0).sum(1) / 0.5,
        # an early guess of a huge ratio must not outweigh everything else
        "rho": ((torch.exp(true_rho) - torch.exp(log_rho.clamp(max=2.7))) / 1.5).square(),
        "angle": 1.0 - along,
        "spread": likelihood.sum(1),
    }

"""What the default network sees: log half-variograms at 36 lags, pooled over a pyramid of scales.

For a lag h let ``g(s) = Var(y(s) - y(s + h)) / 2`` and ``l(s) = (Var y(s) + Var y(s + h)) / 2``,
both estimated from the replicates. The input at level k is ``log(sum g / sum l)`` with sums over
blocks of 2^k cells: 1 minus a correlation, whatever the units. Moments are pooled before the
logarithm because a mean of second moments is far less noisy than a mean of their logarithms, most
of all for few replicates. Sums are weighted by the share of replicates that have both cells, so
gaps only lower the weights; the order and number of replicates never matter.

LatticeVision (arXiv 2505.09803) feeds raw replicates; lag products in their place are what a
Gaussian likelihood knows of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

_FIRST = (
    (0, 1), (0, 2),
    (1, -2), (1, -1), (1, 0), (1, 1), (1, 2),
    (2, -2), (2, -1), (2, 0), (2, 1), (2, 2),
)  # fmt: skip
# what doubling the half plane of the 5 x 5 neighbourhood adds to it
_NEW = tuple(h for h in ((2 * j, 2 * i) for j, i in _FIRST) if h not in _FIRST)

#: Lags (rows, columns) by the distance between the stencil's neighbours: 1, 2, 4 and 8 cells.
LAG_GROUPS: tuple[tuple[tuple[int, int], ...], ...] = (
    _FIRST,
    _NEW,
    tuple((2 * j, 2 * i) for j, i in _NEW),
    tuple((4 * j, 4 * i) for j, i in _NEW),
)

#: All lags, group after group.
LAGS: tuple[tuple[int, int], ...] = tuple(h for group in LAG_GROUPS for h in group)

#: Extra channels at every level: relative log variance, share of pairs present, 1 / M.
EXTRAS = 3

_FLOOR = 1e-6  # smallest share of the variance a difference can have: float32 resolves no less


@dataclass
class LagMoments:
    """Moments behind the features, for a batch of cases.

    Attributes
    ----------
    half : Tensor (B, 36, H, W)
        Half the unbiased variance of y(s) - y(s + h); finite, and unused where `weight` is zero.
    level : Tensor (B, 36, H, W)
        Mean of the variances of both cells.
    weight : Tensor (B, 36, H, W)
        Degrees of freedom behind each over those of a complete case, in [0, 1].
    variance : Tensor (B, 1, H, W)
        Unbiased variance of y(s).
    seen : Tensor (B, 1, H, W)
        Its weight.
    replicates : Tensor (B,)
        Number of replicates M.
    """

    half: Tensor
    level: Tensor
    weight: Tensor
    variance: Tensor
    seen: Tensor
    replicates: Tensor

    def to(self, device: str | torch.device) -> LagMoments:
        """Move all tensors to `device`."""
        return LagMoments(*(getattr(self, f.name).to(device) for f in fields(self)))

    @staticmethod
    def stack(cases: list[LagMoments]) -> LagMoments:
        """Join batches of the same size."""
        return LagMoments(
            *(torch.cat([getattr(case, f.name) for case in cases]) for f in fields(LagMoments))
        )


def _ends(shape: torch.Size, lag: tuple[int, int]) -> tuple[Any, Any]:
    """Index of the cells s whose s + lag lies inside, and of those s + lag."""
    rows, columns = lag
    height, width = shape[-2], shape[-1]
    left, right = max(-columns, 0), width - max(columns, 0)
    near = (..., slice(0, max(height - rows, 0)), slice(left, max(right, left)))
    far = (..., slice(rows, max(height, rows)), slice(left + columns, max(right, left) + columns))
    return near, far


def lag_moments(replicates: Tensor) -> LagMoments:
    """Moments of one case from its replicates.

    Parameters
    ----------
    replicates : Tensor (M, H, W)
        Fields; NaN is missing. One replicate is taken as an anomaly; more are centred.

    Returns
    -------
    LagMoments
        A batch of one.
    """
    count = replicates.shape[0]
    freedom = max(count - 1, 1)
    lost = 1 if count > 1 else 0
    valid = torch.isfinite(replicates)
    whole = bool(valid.all())
    y = torch.where(valid, replicates, 0.0)
    present = valid.to(y.dtype)
    number = present.sum(0)
    if lost:
        y = (y - y.sum(0) / number.clamp(min=1)) * present
    share = (number - lost).clamp(min=0)
    variance = y.square().sum(0) / share.clamp(min=1)
    half, level, weight = (y.new_zeros(len(LAGS), *y.shape[1:]) for _ in range(3))
    for k, lag in enumerate(LAGS):
        near, far = _ends(y.shape, lag)
        level[k][near] = 0.5 * (variance[near] + variance[far])
        if whole:
            half[k][near] = 0.5 / freedom * (y[near] - y[far]).square_().sum(0)
            weight[k][near] = 1.0
            continue
        both = present[near] * present[far]
        difference, pairs = (y[near] - y[far]) * both, both.sum(0)
        square = difference.square().sum(0)
        if lost:
            square = square - difference.sum(0).square() / pairs.clamp(min=1)
        dof = (pairs - lost).clamp(min=0)
        half[k][near] = 0.5 * square / dof.clamp(min=1)
        weight[k][near] = dof / freedom
    return LagMoments(
        half[None],
        level[None],
        weight[None],
        variance[None, None],
        (share / freedom)[None, None],
        torch.tensor([float(count)], device=y.device),
    )


class LagPyramid(nn.Module):
    """Pooled log half-variograms, whitened, at each level.

    Whitening (``fit``) matters: neighbouring lags are nearly equal, and it is their small
    differences that carry direction and range.

    Parameters
    ----------
    levels : int
        Number of levels; the last pools blocks of ``2 ** (levels - 1)`` cells.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        for k in range(levels):
            lags = self.lags(k)
            self.register_buffer(f"centre{k}", torch.zeros(lags))
            self.register_buffer(f"whiten{k}", torch.eye(lags))

    @staticmethod
    def lags(level: int) -> int:
        """Lags used at a level: long ones mean little within small blocks."""
        return sum(len(group) for group in LAG_GROUPS[: level + 1])

    def channels(self, level: int) -> int:
        """Channels of the features of a level."""
        return self.lags(level) + EXTRAS

    def _pooled(self, moments: LagMoments) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Log ratio, its weight, variance and its weight at each level."""
        weight, seen = moments.weight, moments.seen
        half, level = moments.half * weight, moments.level * weight
        variance = moments.variance * seen
        out = []
        for k in range(self.levels):
            n = self.lags(k)
            ratio = half[:, :n] / level[:, :n].clamp(min=1e-30)
            mean = variance / seen.clamp(min=1e-6)
            out.append((ratio.clamp(_FLOOR, 4.0).log(), weight[:, :n], mean, seen))
            if k + 1 < self.levels:
                half, level, weight, variance, seen = (
                    F.avg_pool2d(x, 2) for x in (half, level, weight, variance, seen)
                )
        return out

    @torch.no_grad()
    def fit(self, moments: list[LagMoments]) -> None:
        """Set the whitening from some cases.

        Parameters
        ----------
        moments : list of LagMoments
            Typical cases, complete.
        """
        samples: list[list[Tensor]] = [[] for _ in range(self.levels)]
        for case in moments:
            for k, (ratio, weight, _, _) in enumerate(self._pooled(case)):
                good = (weight > 0).all(1).flatten()
                values = ratio.movedim(1, -1).reshape(-1, ratio.shape[1])[good]
                samples[k].append(values[:: max(len(values) // 2000, 1)].double())
        for k, parts in enumerate(samples):
            values = torch.cat(parts)
            centre = values.mean(0)
            spread, axes = torch.linalg.eigh(torch.cov((values - centre).T))
            # directions below 2 % of a log unit are rounding, not signal
            scale = (spread.clamp(min=0) + 4e-4).rsqrt()
            getattr(self, f"centre{k}").copy_(centre)
            getattr(self, f"whiten{k}").copy_(scale[:, None] * axes.T)

    def forward(self, moments: LagMoments) -> list[Tensor]:
        """Features of each level.

        Parameters
        ----------
        moments : LagMoments
            Rows and columns divisible by ``2 ** (levels - 1)``.

        Returns
        -------
        list of Tensor (B, channels(k), H / 2^k, W / 2^k)
        """
        total = (moments.variance * moments.seen).mean((-2, -1), keepdim=True)
        reference = total / moments.seen.mean((-2, -1), keepdim=True).clamp(min=1e-6)
        inverse = (1.0 / moments.replicates)[:, None, None, None]
        out = []
        for k, (ratio, weight, variance, seen) in enumerate(self._pooled(moments)):
            centre, whiten = getattr(self, f"centre{k}"), getattr(self, f"whiten{k}")
            # a lag without data takes its mean, which whitening turns into no information
            centred = (ratio - centre[:, None, None]) * (weight > 0)
            white = torch.einsum("ij,bjhw->bihw", whiten, centred)
            relative = (variance / reference.clamp(min=1e-30)).clamp(1e-4, 1e4).log()
            extras = (
                relative * (seen > 0),
                weight.mean(1, keepdim=True),
                inverse.expand_as(seen),
            )
            out.append(torch.cat([white.clamp(-8.0, 8.0), *extras], 1))
        return out

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

from xr_spde._core.errors import ParameterError
from xr_spde.nets.local_fit import LOCAL_CHANNELS, local_fit

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

#: Lags of `lag_products`.
PRODUCT_LAGS: tuple[tuple[int, int], ...] = (
    (0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (2, 2), (2, -2),
    (0, 4), (4, 0), (4, 4), (4, -4), (1, 2), (2, 1), (1, -2), (2, -1),
)  # fmt: skip

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
    side : int
        Cells along the side of the squares that H and W count.
    """

    half: Tensor
    level: Tensor
    weight: Tensor
    variance: Tensor
    seen: Tensor
    replicates: Tensor
    side: int = 1

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "side"}

    def to(self, device: str | torch.device) -> LagMoments:
        """Move all tensors to `device`."""
        moved = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return LagMoments(**moved, side=self.side)

    @staticmethod
    def stack(cases: list[LagMoments]) -> LagMoments:
        """Join batches of the same size."""
        parts = [case._tensors() for case in cases]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return LagMoments(**joined, side=cases[0].side)

    def pooled(self, side: int = 2) -> LagMoments:
        """Average over squares of cells, weighted; cells without data complete the last ones.

        Parameters
        ----------
        side : int, optional
            Present squares along the side of a new one.

        Returns
        -------
        LagMoments
        """
        rows, columns = self.half.shape[-2:]
        extra = (0, -columns % side, 0, -rows % side)

        def mean(values: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(values, extra), side)

        weight, seen = mean(self.weight), mean(self.seen)
        safe, once = weight.clamp(min=1e-12), seen.clamp(min=1e-12)
        return LagMoments(
            mean(self.half * self.weight) / safe,
            mean(self.level * self.weight) / safe,
            weight,
            mean(self.variance * self.seen) / once,
            seen,
            self.replicates,
            self.side * side,
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


def lag_products(replicates: Tensor) -> Tensor:
    """Mean products of standardised fields: what any network can take instead of the replicates.

    The channels of a network then number 16 whatever the number of replicates, whose order cannot
    matter. `LagPyramid` makes more of the same moments; this is its plain form, to compare with.

    Parameters
    ----------
    replicates : Tensor (B, M, H, W)
        Standardised replicates; NaN is missing.

    Returns
    -------
    Tensor (B, 16, H, W)
        Mean over the replicates that have both of z(s) z(s + h) for each h of `PRODUCT_LAGS`, zero
        where none has; rows and columns count as circular.
    """
    valid = torch.isfinite(replicates)
    whole = bool(valid.all())
    z, present = torch.where(valid, replicates, 0.0), valid.to(replicates.dtype)
    out = []
    for rows, columns in PRODUCT_LAGS:
        far = torch.roll(z, (-rows, -columns), (-2, -1))
        total = torch.linalg.vecdot(z, far, dim=1)
        if not whole:
            there = torch.roll(present, (-rows, -columns), (-2, -1))
            total = total * (z.shape[1] / (present * there).sum(1).clamp(min=1))
        out.append(total / z.shape[1])
    return torch.stack(out, 1)


class LagPyramid(nn.Module):
    """Pooled log half-variograms, whitened, at each level, and local fits of the coarser ones.

    Whitening (``fit``) matters: neighbouring lags are nearly equal, and it is their small
    differences that carry direction and range.

    Parameters
    ----------
    levels : int
        Number of levels; level k has squares of ``2 ** (k + 1)`` cells.
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
        return sum(len(group) for group in LAG_GROUPS[: level + 2])

    def channels(self, level: int) -> int:
        """Channels of the features of a level."""
        return self.lags(level) + EXTRAS + (LOCAL_CHANNELS if level else 0)

    def _pooled(self, moments: LagMoments) -> list[LagMoments]:
        """Moments of each level, from those of squares of two cells."""
        out = [moments]
        for _ in range(self.levels - 1):
            out.append(out[-1].pooled())
        return out

    def _logarithms(self, moments: LagMoments, level: int) -> tuple[Tensor, Tensor]:
        """Take logs of the half-variograms over the variance; also give their weights."""
        n = self.lags(level)
        ratio = moments.half[:, :n] / moments.level[:, :n].clamp(min=1e-30)
        return ratio.clamp(_FLOOR, 4.0).log(), moments.weight[:, :n]

    @torch.no_grad()
    def fit(self, moments: list[LagMoments]) -> None:
        """Set the whitening from some cases.

        Parameters
        ----------
        moments : list of LagMoments
            Typical cases, complete, on squares of two cells.

        Raises
        ------
        ParameterError
            If no block of a level has all its lags: the grids are too small for it.
        """
        samples: list[list[Tensor]] = [[] for _ in range(self.levels)]
        for case in moments:
            for k, level in enumerate(self._pooled(case)):
                ratio, weight = self._logarithms(level, k)
                good = (weight > 0).all(1).flatten()
                values = ratio.movedim(1, -1).reshape(-1, ratio.shape[1])[good]
                samples[k].append(values[:: max(len(values) // 2000, 1)].double())
        for k, parts in enumerate(samples):
            values = torch.cat(parts)
            if len(values) < 2:
                far = max(abs(i) for lag in LAGS[: self.lags(k)] for i in lag)
                raise ParameterError(
                    f"level {k} of {self.levels} looks {far} cells away, and no cell of the "
                    "samples has all those pairs; give larger grids or fewer levels"
                )
            centre = values.mean(0)
            spread, axes = torch.linalg.eigh(torch.cov((values - centre).T))
            # directions below 2 % of a log unit are rounding, not signal
            scale = (spread.clamp(min=0) + 4e-4).rsqrt()
            getattr(self, f"centre{k}").copy_(centre)
            getattr(self, f"whiten{k}").copy_(scale[:, None] * axes.T)

    @torch.no_grad()
    def forward(self, moments: LagMoments) -> list[Tensor]:
        """Features of each level.

        Parameters
        ----------
        moments : LagMoments
            On squares of two cells, rows and columns divisible by ``2 ** (levels - 1)``.

        Returns
        -------
        list of Tensor (B, channels(k), H / 2^k, W / 2^k)
        """
        total = (moments.variance * moments.seen).mean((-2, -1), keepdim=True)
        reference = total / moments.seen.mean((-2, -1), keepdim=True).clamp(min=1e-6)
        inverse = (1.0 / moments.replicates)[:, None, None, None]
        out = []
        for k, level in enumerate(self._pooled(moments)):
            ratio, weight = self._logarithms(level, k)
            centre, whiten = getattr(self, f"centre{k}"), getattr(self, f"whiten{k}")
            # a lag without data takes its mean, which whitening turns into no information
            centred = (ratio - centre[:, None, None]) * (weight > 0)
            white = torch.einsum("ij,bjhw->bihw", whiten, centred)
            relative = (level.variance / reference.clamp(min=1e-30)).clamp(1e-4, 1e4).log()
            parts = [
                white.clamp(-8.0, 8.0),
                relative * (level.seen > 0),
                weight.mean(1, keepdim=True),
                inverse.expand_as(level.seen),
            ]
            if k:
                parts.append(_local(level))
            out.append(torch.cat(parts, 1))
        return out


def _local(moments: LagMoments) -> Tensor:
    """Local fits, with the degrees of freedom behind each block."""
    first = LAG_GROUPS[0]
    n = len(first)
    share = moments.weight[:, :n].amin(1, keepdim=True)
    freedom = (moments.replicates - 1.0).clamp(min=1.0)[:, None, None, None]
    level = moments.level[:, :n].mean(1, keepdim=True)
    return local_fit(moments.half[:, :n], level, share * freedom * moments.side**2, first)

"""Local likelihood estimates as input: what a stationary model says of each block by itself.

With y stationary nearby, half-variograms give the second moments G of the stencil's four features
(``B y = kappa2 f0 + hxx f1 + hyy f2 + hxy f3``), and the likelihood of a block of cells is
``n (L(q) - log(q' G q) / 2)`` for free innovations, L being the mean log symbol of the stencil
(Whittle 1954; stencil: LatticeVision, arXiv 2505.09803). Its maximum under the spread of the prior
takes a few scoring steps, all blocks at once. A network that starts from these maps need not learn
how a variogram depends on the parameters: only how far to trust them and what to gather around.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Channels: log kappa2, both components of log H, log rho; logs of the first three's errors.
LOCAL_CHANNELS = 7

_FEATURES: tuple[dict[tuple[int, int], float], ...] = (
    {(0, 0): 1.0},
    {(0, 0): 2.0, (0, 1): -1.0, (0, -1): -1.0},
    {(0, 0): 2.0, (1, 0): -1.0, (-1, 0): -1.0},
    {(1, 1): -0.5, (-1, -1): -0.5, (1, -1): 0.5, (-1, 1): 0.5},
)
_STEPS, _NODES = 10, 20
_MEAN = (-1.5, 0.0, 0.0)
_SPREAD = (1.9, 0.8, 0.8)
_LONGEST = (1.5, 0.5, 0.5)
_LOW, _HIGH, _MOST = -11.0, 2.5, 2.5


def _moments_of(lags: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """Matrix (4, 4, 1 + lags) that takes variance and half-variograms to G."""
    column = {(0, 0): 0, **{lag: k + 1 for k, lag in enumerate(lags)}}
    out = np.zeros((4, 4, len(lags) + 1))
    for a, first in enumerate(_FEATURES):
        for b, second in enumerate(_FEATURES):
            for (j, i), one in first.items():
                for (m, n), other in second.items():
                    lag = (m - j, n - i)
                    lag = lag if lag in column else (-lag[0], -lag[1])
                    # covariance = variance - half-variogram
                    out[a, b, 0] += one * other
                    if lag != (0, 0):
                        out[a, b, column[lag]] -= one * other
    return out


def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes of 1 - cos t on [0, pi], dense where the symbol is small, and weights."""
    x, w = np.polynomial.legendre.leggauss(_NODES)
    x, w = 0.5 * (x + 1.0), 0.5 * w
    drop = 1.0 - np.cos(math.pi * x**3)
    return torch.tensor(drop, dtype=torch.float32), torch.tensor(3.0 * x**2 * w).float()


def _slope(q: Tensor) -> Tensor:
    """Gradient (4, N) of the mean log symbol, whose mean over one direction is closed."""
    drop, weight = (t.to(q.device)[:, None] for t in _quadrature())
    kappa2, hxx, hyy, hxy = q
    sine2 = drop * (2.0 - drop)
    low = kappa2 + 2.0 * hyy * drop
    total = low + 2.0 * hxx
    # total^2 - 4 hxx^2 - 4 hxy^2 sin^2 without cancellation, as det H = 1
    root = (low**2 + 4.0 * hxx * kappa2 + 8.0 * drop + 4.0 * (hxy * drop) ** 2).sqrt()
    share = 1.0 / (root * (total + root))
    by_total = (weight / root).sum(0)
    by_hxx = 2.0 * by_total - 4.0 * hxx * (weight * share).sum(0)
    by_hyy = (weight * 2.0 * drop / root).sum(0)
    by_hxy = -4.0 * hxy * (weight * sine2 * share).sum(0)
    return torch.stack([by_total, by_hxx, by_hyy, by_hxy])


def _stencil(u: Tensor) -> tuple[Tensor, Tensor]:
    """Weights q (4, N) of the features, and their Jacobian (4, 3, N) for log kappa2 and log H."""
    kappa2, h1, h2 = u[0].exp(), u[1], u[2]
    length = (h1**2 + h2**2 + 1e-8).sqrt()
    cosh, ratio = length.cosh(), length.sinh() / length
    # derivative of sinh(r) / r over r
    bend = (cosh - ratio) / length**2
    zero = torch.zeros_like(h1)
    q = torch.stack([kappa2, cosh + h1 * ratio, cosh - h1 * ratio, h2 * ratio])
    by_h1 = torch.stack(
        [zero, h1 * ratio + ratio + h1**2 * bend, h1 * ratio - ratio - h1**2 * bend, h1 * h2 * bend]
    )
    by_h2 = torch.stack(
        [zero, h2 * ratio + h1 * h2 * bend, h2 * ratio - h1 * h2 * bend, ratio + h2**2 * bend]
    )
    by_kappa2 = torch.stack([kappa2, zero, zero, zero])
    return q, torch.stack([by_kappa2, by_h1, by_h2], 1)


def _inverse(m: Tensor) -> Tensor:
    """Inverse of symmetric matrices (3, 3, N), by cofactors."""
    a, b, c, d, e, f = m[0, 0], m[0, 1], m[0, 2], m[1, 1], m[1, 2], m[2, 2]
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    fourth, fifth, sixth = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * first + b * second + c * third
    rows = [[first, second, third], [second, fourth, fifth], [third, fifth, sixth]]
    return torch.stack([torch.stack(row) for row in rows]) / determinant


@torch.no_grad()
def local_fit(
    half: Tensor, level: Tensor, freedom: Tensor, lags: tuple[tuple[int, int], ...]
) -> Tensor:
    """Most probable stationary model of each block.

    Parameters
    ----------
    half : Tensor (B, 12, H, W)
        Half-variograms at the lags of the 5 x 5 half plane.
    level : Tensor (B, 1, H, W)
        Variance.
    freedom : Tensor (B, 1, H, W)
        Cells times degrees of freedom behind each block; zero gives the prior's mean.
    lags : tuple
        The twelve lags (rows, columns).

    Returns
    -------
    Tensor (B, 7, H, W)
        See `LOCAL_CHANNELS`.
    """
    batch, _, rows, columns = half.shape
    moments = torch.cat([torch.ones_like(level), half / level.clamp(min=1e-30)], 1)
    matrix = torch.tensor(_moments_of(lags), dtype=torch.float32, device=half.device)
    gram = torch.einsum("abk,zkyx->abzyx", matrix, moments.float()).reshape(4, 4, -1)
    count = freedom.float().reshape(-1)
    mean = gram.new_tensor(_MEAN)[:, None]
    precision = gram.new_tensor(_SPREAD)[:, None] ** -2
    u = mean.expand(3, gram.shape[-1]).clone()
    limit = gram.new_tensor(_LONGEST)[:, None]
    inverse = gram.new_zeros(3, 3, gram.shape[-1])
    for _ in range(_STEPS):
        q, jacobian = _stencil(u)
        forced = torch.einsum("abn,bn->an", gram, q)
        power = (q * forced).sum(0).clamp(min=1e-12)
        slope = _slope(q) - forced / power
        curve = 2.0 * gram / power - 2.0 * forced[:, None] * forced / power**2
        gradient = count * torch.einsum("ain,an->in", jacobian, slope) - precision * (u - mean)
        right = torch.einsum("abn,bjn->ajn", curve, jacobian)
        # noise may make the sampled moments indefinite: a little is added to the diagonal
        extra = torch.diag_embed((precision + 1e-6 * count).T).movedim(0, -1)
        hessian = count * torch.einsum("ain,ajn->ijn", jacobian, right) + extra
        inverse = _inverse(hessian)
        step = torch.einsum("ijn,jn->in", inverse, gradient)
        step = step.clamp(-limit, limit)
        u = u + torch.nan_to_num(step)
        u[0].clamp_(_LOW, _HIGH)
        u[1:] *= (_MOST / u[1:].norm(dim=0).clamp(min=1e-6)).clamp(max=1.0)
    spread = torch.diagonal(inverse).T.clamp(1e-6, 4.0).log()
    scaled = (u - mean) / gram.new_tensor(_SPREAD)[:, None]
    ratio = u[1:].norm(dim=0, keepdim=True)
    out = torch.cat([scaled, ratio, 0.25 * torch.nan_to_num(spread)])
    return out.reshape(LOCAL_CHANNELS, batch, rows, columns).movedim(0, 1)

"""Losses and scores of networks that estimate log kappa2, rho and the angle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde.nets.statistics_net import loss_terms

#: Weights of the terms of the default network's loss; "spread" only adjusts the standard errors.
WEIGHTS: Mapping[str, float] = {
    "kappa2": 1.0,
    "tensor": 1.0,
    "rho": 1.0,
    "angle": 0.5,
    "spread": 0.01,
}

# spread of log kappa2, psi and rho over the prior (LatticeVision standardises by its own sample's)
_SPREAD = (1.83, 0.735, 1.48)


def statistics_loss(model: nn.Module, inputs: Any, truth: Tensor) -> Tensor:
    """Loss of the default network, over the cells with data: what lies under land is not asked.

    Parameters
    ----------
    model : Module
        `StatisticsNet`.
    inputs : LagMoments
        Batch.
    truth : Tensor (B, 3, H, W)
        log kappa2, log rho and theta.

    Returns
    -------
    Tensor ()
    """
    rows, columns = truth.shape[-2:]  # squares complete an odd grid
    terms = loss_terms(model(inputs)[..., :rows, :columns], truth)
    seen = (inputs.seen > 0).float()
    for axis in (-2, -1):
        seen = seen.repeat_interleave(inputs.side, axis)
    share = seen[:, 0, :rows, :columns]
    share = share / share.sum().clamp(min=1.0)
    return torch.stack([WEIGHTS[name] * (share * t).sum() for name, t in terms.items()]).sum()


def replicate_loss(model: nn.Module, inputs: Tensor, truth: Tensor) -> Tensor:
    """Sum of the mean squared errors of log kappa2, psi and rho, each over its prior variance.

    Parameters
    ----------
    model : Module
        Network that maps replicates to (log kappa2, psi, rho).
    inputs : Tensor (B, M, H, W)
        Standardised replicates.
    truth : Tensor (B, 3, H, W)
        log kappa2, log rho and theta; for a window network its centre is used.

    Returns
    -------
    Tensor ()

    References
    ----------
    LatticeVision, arXiv 2505.09803, section on training.
    """
    target = torch.stack([truth[:, 0], -truth[:, 2], torch.exp(truth[:, 1])], 1)
    output = model(inputs).float()
    if output.ndim == 2:  # one triple a window
        target = target[..., target.shape[-2] // 2, target.shape[-1] // 2]
    scale = target.new_tensor(_SPREAD).reshape(-1, *(1,) * (output.ndim - 2))
    return 3.0 * F.mse_loss(output / scale, target / scale)


def estimates(output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Read log kappa2, rho and theta off any network's maps.

    Parameters
    ----------
    output : Tensor (B, 7 or 3, H, W)
        Of the default network, or (log kappa2, psi, rho).

    Returns
    -------
    log_kappa2, rho, theta : Tensor (B, H, W)
        theta in [-pi/2, pi/2).
    """
    if output.shape[1] == 3:
        log_kappa2, psi, rho = output.unbind(1)
        theta = -psi
    else:
        log_kappa2, log_rho, cosine, sine = output[:, :4].unbind(1)
        rho, theta = torch.exp(log_rho), 0.5 * torch.atan2(sine, cosine)
    return log_kappa2, rho, torch.remainder(theta + math.pi / 2, math.pi) - math.pi / 2


def _in_release(theta: Tensor) -> Tensor:
    """Angle with its seam at 1.5, in the gap that LatticeVision's generator leaves."""
    return torch.remainder(theta - 1.5, math.pi) + (1.5 - math.pi)


def squared_errors(output: Tensor, truth: Tensor) -> Tensor:
    """Mean squared errors of one batch.

    Parameters
    ----------
    output : Tensor (B, C, H, W)
        As for `estimates`.
    truth : Tensor (B, 3, H, W)
        log kappa2, log rho and theta.

    Returns
    -------
    Tensor (4,)
        Of log kappa2, of the angle as LatticeVision scores it (linearly), of rho, and of the
        angle modulo pi weighted by the true log rho.
    """
    log_kappa2, rho, theta = estimates(output)
    true_log_rho = truth[:, 1]
    linear = _in_release(theta) - _in_release(truth[:, 2])
    wrapped = torch.remainder(linear + math.pi / 2, math.pi) - math.pi / 2
    weight = true_log_rho / true_log_rho.mean().clamp(min=1e-6)
    return torch.stack(
        [
            (log_kappa2 - truth[:, 0]).square().mean(),
            linear.square().mean(),
            (rho - torch.exp(true_log_rho)).square().mean(),
            (wrapped.square() * weight).mean(),
        ]
    )


@torch.no_grad()
def score_held(model: nn.Module, held: Sequence[tuple[str, int, Any, Tensor]]) -> dict[str, float]:
    """Root mean square errors on held cases.

    Parameters
    ----------
    model : Module
        Network that maps inputs to maps.
    held : sequence of (str, int, input, Tensor)
        Size, number of replicates, input and truth of each.

    Returns
    -------
    dict of str to float
        "log_kappa2", "theta" (linear), "rho" and "angle" (modulo pi, weighted) by size and number
        of replicates, and "score": the sum of relative errors of the case with most replicates.
    """
    sums: dict[tuple[str, int], list[Tensor]] = {}
    maps = getattr(model, "maps", model)
    device = next(model.parameters()).device
    for size, count, inputs, truth in held:
        output = maps(inputs.to(device)).float()[..., : truth.shape[-2], : truth.shape[-1]]
        errors = squared_errors(output, truth.to(device))
        sums.setdefault((size, count), []).append(errors)
    scores = {}
    most = max(count for _, count in sums)
    score = 0.0
    for (size, count), cases in sums.items():
        rmse = torch.stack(cases).mean(0).sqrt().tolist()
        for name, value in zip(("log_kappa2", "theta", "rho", "angle"), rmse, strict=True):
            scores[f"{name} {size} M={count}"] = value
        if count == most:
            score += rmse[0] / _SPREAD[0] + rmse[2] / _SPREAD[2] + rmse[3] / _SPREAD[1]
    return {"score": score, **scores}

"""Losses of variational solvers: against a truth, or the cost of interpolation without one.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855; Fablet et al. (2021), J. Adv. Model. Earth Syst.
13. The weights of the terms there are 50, 1000 and 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError, unknown

if TYPE_CHECKING:
    from xr_spde.nets.variational import VariationalSolver
    from xr_spde.nets.variational_window import Window

__all__ = [
    "FOCUSES",
    "deviation_loss",
    "gradient_loss",
    "interpolation_loss",
    "loss_weights",
    "projection_loss",
    "sobel",
    "supervised_loss",
    "time_weights",
]

FOCUSES = ("centre", "end", "all")
"""Which steps of a window count: its middle most, its end most, or all alike."""


def time_weights(steps: int, focus: str) -> Tensor:
    """Weights of the steps of a window.

    Parameters
    ----------
    steps : int
        Of the window.
    focus : {"centre", "end", "all"}
        A triangle, a ramp, or ones.

    Returns
    -------
    Tensor (steps,)
        With a mean of one.

    Raises
    ------
    UnknownNameError
        For another focus.
    """
    if focus not in FOCUSES:
        raise unknown("focus", focus, FOCUSES)
    rise = torch.arange(1, steps + 1, dtype=torch.float32)
    shape = {"centre": torch.minimum(rise, rise.flip(0)), "end": rise, "all": torch.ones(steps)}
    return shape[focus] / shape[focus].mean()


def loss_weights(sea: Tensor, steps: int, *, focus: str = "all", border: int = 0) -> Tensor:
    """Weights of the cells of windows.

    Parameters
    ----------
    sea : Tensor (B, ny, nx) of bool
        False on land, which has no weight.
    steps : int
        Of a window.
    focus : {"centre", "end", "all"}, default "all"
        See :func:`time_weights`.
    border : int, default 0
        Rows and columns at the edges without weight.

    Returns
    -------
    Tensor (B, steps, ny, nx)

    Raises
    ------
    ParameterError
        If the border leaves no cell.
    """
    ny, nx = sea.shape[-2:]
    if border < 0 or 2 * border >= min(ny, nx):
        raise ParameterError(f"border={border} leaves no cell of {ny} x {nx}")
    inner = torch.zeros(ny, nx, device=sea.device)
    inner[border : ny - border, border : nx - border] = 1.0
    weights = time_weights(steps, focus).to(sea.device)
    return weights[None, :, None, None] * (inner * sea)[:, None]


def _mean(squared: Tensor, weights: Tensor) -> Tensor:
    return (weights * squared).sum() / weights.sum().clamp_min(1e-30)


def supervised_loss(x: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error.

    Parameters
    ----------
    x, truth : Tensor (B, T, ny, nx)
        Estimate and truth; where the truth is NaN nothing is asked.
    weights : Tensor (B, T, ny, nx)
        As from :func:`loss_weights`.

    Returns
    -------
    Tensor ()
    """
    known = truth.isfinite()
    return _mean((x - torch.where(known, truth, 0.0)) ** 2, weights * known)


def sobel(x: Tensor) -> Tensor:
    """Gradient along x and y by Sobel's differences, per cell, inside the edges.

    Parameters
    ----------
    x : Tensor (B, T, ny, nx)
        Fields.

    Returns
    -------
    Tensor (B, T, 2, ny - 2, nx - 2)
    """
    smooth, step = x.new_tensor([1.0, 2.0, 1.0]) / 4.0, x.new_tensor([-0.5, 0.0, 0.5])
    kernels = torch.stack([smooth[:, None] * step, step[:, None] * smooth])[:, None]
    batch, steps, ny, nx = x.shape
    found = F.conv2d(x.reshape(batch * steps, 1, ny, nx), kernels)
    return found.reshape(batch, steps, 2, ny - 2, nx - 2)


def gradient_loss(x: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error of the Sobel gradient, its two components added.

    Parameters
    ----------
    x, truth, weights : Tensor (B, T, ny, nx)
        As for :func:`supervised_loss`. A gradient counts where all cells that it is made of do.

    Returns
    -------
    Tensor ()
    """
    known = truth.isfinite()
    weights = weights * known
    left = sobel(x - torch.where(known, truth, 0.0)).square().sum(2)
    all_count = -F.max_pool2d(-weights, 3, stride=1)
    return _mean(left, all_count)


def deviation_loss(
    error: Tensor, deviation: Tensor, weights: Tensor, *, least: float = 1e-3
) -> Tensor:
    """Negative log-likelihood of errors given their standard deviation, but for a constant.

    Parameters
    ----------
    error, deviation, weights : Tensor (B, T, ny, nx)
        Errors, NaN where there is no truth; through them nothing is learned. Land does not matter.
    least : float, default 1e-3
        Smaller deviations count as so much.

    Returns
    -------
    Tensor ()
    """
    known = error.isfinite()
    square = torch.where(known, error.detach(), 0.0).square()
    size = deviation.clamp_min(least)
    return _mean(size.log() + 0.5 * square / size**2, weights * known)


def projection_loss(solver: VariationalSolver, x: Tensor, sea: Tensor) -> Tensor:
    """Mean squared distance of fields to their projection by the learned prior.

    Parameters
    ----------
    solver : VariationalSolver
        With an auto-encoder.
    x : Tensor (B, T, ny, nx)
        Fields.
    sea : Tensor (B, ny, nx) of bool
        False on land.

    Returns
    -------
    Tensor ()

    Raises
    ------
    ParameterError
        If the solver has no learned prior.
    """
    if solver.projection is None:
        raise ParameterError(
            f"prior={solver.options['prior']!r} has no projection; give a solver with "
            'prior="auto-encoder" or "both"'
        )
    weights = sea[:, None].to(x.dtype).expand_as(x)
    return _mean((x - solver.projection(x)) ** 2, weights)


def interpolation_loss(
    solver: VariationalSolver,
    x: Tensor,
    window: Window,
    theta: Tensor | None = None,
    *,
    log: bool = True,
) -> Tensor:
    """Cost of optimal interpolation, which asks for no truth; its minimum is the posterior mean.

    Parameters
    ----------
    solver : VariationalSolver
        With the SPDE as a prior.
    x : Tensor (B, T, ny, nx)
        Its estimate.
    window : Window
        Observations.
    theta : Tensor (B, 8, S, ny, nx), optional
        As the solver was given.
    log : bool, default True
        Mean of the logarithms over the windows, which weighs them alike and does not leave the last
        per cents to rounding; False for the mean.

    Returns
    -------
    Tensor ()

    Raises
    ------
    ParameterError
        If the solver has no SPDE prior.
    """
    if solver.options["prior"] == "auto-encoder":
        raise ParameterError(
            'prior="auto-encoder": the cost of optimal interpolation needs prior="spde" or "both"'
        )
    with torch.autocast(x.device.type, enabled=False):
        cost = solver.problem(window, theta, nodes=1).interpolation_cost(x.float())
        return (cost.log() if log else cost).mean()

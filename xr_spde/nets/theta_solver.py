r"""Solver of the augmented state: a field and the SPDE parameters of its prior, from observations.

The state is x and channels of the free parameters (:mod:`xr_spde.nets.theta_fields`), on the grid
or one `coarse` times coarser. Each of K iterations takes the gradient of

.. math::

    J(x, \theta) = w_y \langle (y - x)^2 / r \rangle_\Omega
        + \frac{w_x}{n} \big( x' Q(\theta) x + 2 \sum \log \tau \big)

by all of it, each kind of parameter scaled by the size of its first gradient, and a ConvLSTM makes
of these the update ``u / (k + 1)``. The part of the log-determinant that needs factors is left to
the network, as in the source, which leaves out all of it. Training makes theta that of the maximum
of the likelihood of the truth (:func:`xr_spde.nets.theta_losses.likelihood_loss`), which nothing
here sees: theta is a function of the observations and of the solver's mean, itself one of them.
Only with ``oracle_theta=True`` is it one of the truth, an upper bound and no estimate.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.blocks import check_sizes
from xr_spde.nets.convlstm import ConvLSTM, State
from xr_spde.nets.spde_stencil import THETA
from xr_spde.nets.spde_terms import ALPHAS, SpdePrior
from xr_spde.nets.stationary import constant_theta
from xr_spde.nets.theta_fields import ThetaFields
from xr_spde.nets.theta_start import STARTS, VariogramStart, sobel_channels
from xr_spde.nets.variational_window import Window

__all__ = ["ThetaSolver"]

_TINY = 1e-12


class ThetaSolver(nn.Module):
    """Estimates the SPDE parameters of windows of observations.

    Parameters
    ----------
    steps : int
        Steps T of a window.
    iterations : int, default 5
        K.
    hidden : int, default 24
        Channels of the memory of the ConvLSTM.
    dropout : float, default 0.0
        Share of its inputs that is dropped in training.
    coarsen : int, default 2
        See `xr_spde.nets.convlstm.ConvLSTM`.
    coarse : int, default 4
        How many times coarser the grid of the parameters is; linear in between.
    per_step : bool, default False
        Whether parameters differ from step to step, or are constant in the window.
    free : sequence of str, optional
        Parameters that are estimated, all by default.
    theta : mapping or sequence, optional
        Numbers of the others, and where the free ones begin; see
        `xr_spde.nets.stationary.constant_theta`.
    diffusion : {"tensor", "vector"}, default "tensor"
        See :data:`xr_spde.nets.theta_fields.DIFFUSIONS`.
    start : {"variogram", "constant", "map", "gradients"}, default "variogram"
        See :mod:`xr_spde.nets.theta_start`; "gradients", that of the source, needs
        ``diffusion="vector"``.
    shape : tuple of int, optional
        ``(ny, nx)`` of the fixed domain of ``start="map"``.
    alpha : {4, 2}, default 4
        Power of the SPDE.
    boundary : {"neumann", "dirichlet", "periodic"}, default "neumann"
        Of the domain.
    create_graph : bool, default False
        Whether training differentiates through the gradients of the cost too, as the source does,
        at twice the work.
    oracle_theta : bool, default False
        Give the truth to the solver: an upper bound, never an estimate.

    Attributes
    ----------
    options : dict
        Arguments, JSON-able, from which the solver can be built again.

    Raises
    ------
    ParameterError, UnknownNameError
        For values that cannot be combined, and unknown names.

    Examples
    --------
    >>> import torch
    >>> from xr_spde.nets.theta_solver import ThetaSolver
    >>> from xr_spde.nets.variational_window import Window
    >>> mask = torch.rand(1, 3, 20, 25, generator=torch.Generator().manual_seed(0)) < 0.2
    >>> sea, mean = torch.ones(1, 20, 25, dtype=torch.bool), torch.zeros(1, 3, 20, 25)
    >>> window = Window(torch.ones(1, 3, 20, 25), mask, torch.full((1, 3, 20, 25), 0.01), sea)
    >>> theta = ThetaSolver(3, free=["kappa", "tau"]).eval()(window, mean)
    >>> theta.shape, bool((theta[:, :2] > 0.0).all())
    (torch.Size([1, 8, 1, 20, 25]), True)
    """

    architecture = "4dvarnet-theta"

    def __init__(
        self,
        steps: int,
        *,
        iterations: int = 5,
        hidden: int = 24,
        dropout: float = 0.0,
        coarsen: int = 2,
        coarse: int = 4,
        per_step: bool = False,
        free: Sequence[str] | None = None,
        theta: Mapping[str, float] | Sequence[float] | None = None,
        diffusion: str = "tensor",
        start: str = "variogram",
        shape: Sequence[int] | None = None,
        alpha: int = 4,
        boundary: str = "neumann",
        create_graph: bool = False,
        oracle_theta: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(steps=steps, iterations=iterations, coarse=coarse)
        if start not in STARTS:
            raise unknown("start", start, STARTS)
        if alpha not in ALPHAS:
            raise unknown("alpha", alpha, map(str, ALPHAS))
        if (start == "map") != (shape is not None) or (start, diffusion) == ("gradients", "tensor"):
            raise ParameterError(
                f"start={start!r} with shape={shape} and diffusion={diffusion!r}; expected a shape "
                'for "map" and only there, and diffusion="vector" with "gradients"'
            )
        constants = constant_theta(theta)
        self.fields = ThetaFields(THETA if free is None else free, constants, diffusion)
        self.options: dict[str, Any] = {
            "steps": steps, "iterations": iterations, "hidden": hidden, "dropout": dropout,
            "coarsen": coarsen, "coarse": coarse, "per_step": per_step,
            "free": list(THETA if free is None else free), "theta": constants,
            "diffusion": diffusion, "start": start, "shape": None if shape is None else list(shape),
            "alpha": alpha, "boundary": boundary, "create_graph": create_graph,
            "oracle_theta": oracle_theta,
        }  # fmt: skip
        self.sets = steps if per_step else 1
        channels = len(self.fields.names) * self.sets
        self.constant = nn.Parameter(self.fields.start())
        self.reading = VariogramStart(channels) if start == "variogram" else None
        self.map: nn.Parameter | None = None
        if shape is not None:
            self.map = nn.Parameter(torch.zeros(channels, *self._coarse(*shape)))
        # gradients by x and channels, both themselves, observed, sea
        self.lstm = ConvLSTM(
            2 * (steps + channels) + steps + 1, hidden, steps + channels,
            dropout=dropout, coarsen=coarsen,
        )  # fmt: skip
        # their gradient passes through that of the cost alone
        self.log_weights = nn.Parameter(torch.zeros(2), requires_grad=create_graph)

    def _coarse(self, ny: int, nx: int) -> tuple[int, int]:
        """Rows and columns of the grid of the parameters."""
        side = self.options["coarse"]
        return max(-(-ny // side), 1), max(-(-nx // side), 1)

    def forward(self, window: Window, mean: Tensor, *, oracle: Tensor | None = None) -> Tensor:
        """Estimate the parameters.

        Parameters
        ----------
        window : Window
            Observations, on any grid.
        mean : Tensor (B, T, ny, nx)
            What a `VariationalSolver` makes of them.
        oracle : Tensor (B, T, ny, nx), optional
            The truth: for ``oracle_theta=True``, and refused without.

        Returns
        -------
        Tensor (B, 8, S, ny, nx)
            In cells and steps, S = T with ``per_step``.

        Raises
        ------
        ParameterError
            For shapes that do not fit, or a truth that is given where it must not be.
        """
        return self.augmented(window, mean, oracle=oracle)[1]

    def augmented(
        self, window: Window, mean: Tensor, *, oracle: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Estimate the whole augmented state.

        Parameters
        ----------
        window, mean, oracle
            As for :meth:`forward`.

        Returns
        -------
        x : Tensor (B, T, ny, nx)
            Field, zero on land.
        theta : Tensor (B, 8, S, ny, nx)
        """
        window, x = self._seen(window, mean, oracle)
        with torch.autocast(x.device.type, enabled=False):
            channels = self._start(window, x)
        graph = torch.is_grad_enabled()
        state: State | None = None
        scales: list[Tensor] | None = None
        sea = window.sea[:, None].to(x.dtype)
        trust = (window.mask / (1.0 + window.variance)).to(x.dtype)
        for k in range(self.options["iterations"]):
            slopes = self._slopes(window, x, channels, graph and self.options["create_graph"])
            scales = [_size(s).detach() for s in slopes] if scales is None else scales
            by_x, *by_channels = [s / size for s, size in zip(slopes, scales, strict=True)]
            around = [self._fine(part, x) for part in (torch.cat(by_channels, 1), channels)]
            features = [by_x, around[0], x, around[1], trust, sea]
            update, state = self.lstm(torch.cat([f.flatten(1, -3) for f in features], 1), state)
            update = update.to(x.dtype) / (k + 1)
            x = x - sea * update[:, : x.shape[1]]
            change = self._pooled(sea * update[:, x.shape[1] :], sea, channels)
            channels = channels - change
        return x, self.fields.theta(self._fine(channels, x))

    def _seen(self, window: Window, mean: Tensor, oracle: Tensor | None) -> tuple[Window, Tensor]:
        """Return what the solver may look at, and the first field."""
        if window.shape[1] != self.options["steps"] or mean.shape != window.obs.shape:
            raise ParameterError(
                f"the window has shape {window.shape} and the mean {tuple(mean.shape)}; this "
                f"solver takes (B, {self.options['steps']}, ny, nx) of both"
            )
        if self.options["oracle_theta"] != (oracle is not None):
            raise ParameterError(
                f"a truth was {'not given' if oracle is None else 'given'} to a solver made with "
                f"oracle_theta={self.options['oracle_theta']}; theta follows from observations "
                "alone unless it is an oracle"
            )
        if oracle is not None:
            whole = window.sea[:, None].expand_as(window.mask) & oracle.isfinite()
            window = Window(oracle, whole, torch.full_like(window.variance, 1e-3), window.sea)
            mean = torch.where(whole, oracle, 0.0)
        kind = self.constant.dtype
        # what a mean says on land is nothing
        return window.to(dtype=kind), torch.where(window.sea[:, None], mean, 0.0).to(kind)

    def _start(self, window: Window, x: Tensor) -> Tensor:
        """First channels (B, P, S, cy, cx)."""
        batch, (ny, nx) = x.shape[0], x.shape[2:]
        size = self._coarse(ny, nx)
        shape = (batch, len(self.fields.names), self.sets, *size)
        if self.options["start"] == "gradients":
            fine = sobel_channels(x, self.fields, self.sets)
            return self._pooled(fine.flatten(1, 2), window.sea[:, None].to(x.dtype), fine)
        found = self.constant[:, None, None, None].expand(shape)
        if self.reading is not None:
            read: Tensor = self.reading(window, size)
            return found + read.reshape(shape)
        if self.map is not None:
            if [ny, nx] != self.options["shape"]:
                raise ParameterError(
                    f'the window is {ny} x {nx}, and start="map" was learned for '
                    f'{self.options["shape"]}; give start="variogram" or "constant" for any domain'
                )
            return found + self.map.reshape(shape[1:])
        return found

    def _fine(self, channels: Tensor, x: Tensor) -> Tensor:
        """Channels (B, P, S, ny, nx) on the grid, linear between the nodes of the coarse one."""
        if channels.shape[-2:] == x.shape[-2:]:
            return channels
        flat = F.interpolate(
            channels.flatten(1, 2), size=x.shape[-2:], mode="bilinear", align_corners=False
        )
        return flat.reshape(*channels.shape[:3], *x.shape[-2:])

    def _pooled(self, update: Tensor, sea: Tensor, like: Tensor) -> Tensor:
        """Means over the water of coarse cells (B, P, S, cy, cx)."""
        size = self._coarse(update.shape[-2], update.shape[-1])
        share = F.adaptive_avg_pool2d(sea, size).clamp_min(1e-6)
        found = F.adaptive_avg_pool2d(sea * update, size) / share
        return found.reshape(*like.shape[:3], *size)

    def _slopes(self, window: Window, x: Tensor, channels: Tensor, graph: bool) -> list[Tensor]:
        """Gradient of the cost by x, and by every group of channels."""
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            if not graph:
                x, channels = x.detach(), channels.detach()
            x, channels = (t if t.requires_grad else t.requires_grad_() for t in (x, channels))
            cost = self._cost(window, x, channels)
            by_x, by_channels = torch.autograd.grad(cost, (x, channels), create_graph=graph)
        return [by_x, *(by_channels[:, list(group)] for group in self.fields.groups)]

    def _cost(self, window: Window, x: Tensor, channels: Tensor) -> Tensor:
        """Sum of the costs of the windows."""
        theta = self.fields.theta(self._fine(channels, x))
        weights = self.log_weights.exp()
        misfit = window.mask * (x - window.obs) ** 2 / window.variance
        seen = window.mask.sum((1, 2, 3)).clamp_min(1)
        water = window.sea[:, None]
        prior = SpdePrior(
            theta, alpha=self.options["alpha"], sea=window.sea, boundary=self.options["boundary"]
        )
        share = x.shape[1] / theta.shape[2]
        logs = torch.where(water, theta[:, 1], 1.0).log().sum((1, 2, 3)) * share
        cells = window.sea.sum((1, 2)).clamp_min(1) * x.shape[1]
        found = weights[0] * misfit.sum((1, 2, 3)) / seen
        return (found + weights[1] * (prior.mahalanobis(x) + 2.0 * logs) / cells).sum()

    def extra_repr(self) -> str:
        """Say which parameters are free, and whether they come from the truth."""
        said = f"free={', '.join(self.fields.names)}"
        return f"{said}, ORACLE: sees the truth" if self.options["oracle_theta"] else said


def _size(slope: Tensor) -> Tensor:
    """Root mean square of each window (B, 1, ...), never zero."""
    axes = tuple(range(1, slope.ndim))
    return slope.square().mean(axes, keepdim=True).sqrt().clamp_min(_TINY)

r"""The variational cost of a window: observations against a prior.

.. math::

    J(x) = \sum_\Omega (y - x)^2 / r + x' Q x \quad\text{(SPDE)}, \qquad
    J(x) = \frac{1}{n} \Big(\sum_\Omega \bar r (y - x)^2 / r
           + w \sum (x - \Phi(x))^2\Big) \quad\text{(auto-encoder)}

With the SPDE prior the cost is that of optimal interpolation; its minimum is the posterior mean.
There x may be given at fewer nodes than there are cells, and observations at times between steps:
:math:`(y - H x)^2` with :class:`xr_spde.nets.observing.Observing`.
With the learned prior only the relative precision of the observations counts, and the weight w is
learned.

References
----------
Fablet et al. (2021), J. Adv. Model. Earth Syst. 13; Beauchamp et al. (2025), AIES,
arXiv 2402.01855.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError
from xr_spde.nets.observing import Observing
from xr_spde.nets.spde_terms import SpdePrior
from xr_spde.nets.stationary import CHANNELS, StationaryPrior
from xr_spde.nets.variational_window import Window

__all__ = ["Problem"]


_DRY = 1e-5


def _at_nodes(theta: Tensor, sea: Tensor, size: int) -> Tensor:
    """Means of parameters (B, 8, S, ny, nx) over squares of cells at sea, in nodes and steps."""
    sets, ny, nx = theta.shape[2:]
    edge = (0, -nx % size, 0, -ny % size)
    wet = sea[:, None].to(theta.dtype)
    share = F.avg_pool2d(F.pad(wet, edge), size).clamp_min(1e-6)[:, :, None]
    # what stands on land may be anything
    known = torch.where(sea[:, None, None], theta, 0.0).flatten(1, 2)
    mean = F.avg_pool2d(F.pad(known, edge), size).unflatten(1, (len(CHANNELS), sets)) / share
    dry = share <= _DRY
    usual = (mean * ~dry).sum((-3, -2, -1), True) / (sets * (~dry).sum((-3, -2, -1), True))
    mean = torch.where(dry, usual, mean)
    powers = {"tau": -1, "m1": -1, "m2": -1, "gamma": -2, "beta": -2}
    scale = theta.new_tensor([float(size) ** powers.get(name, 0) for name in CHANNELS])
    return mean * scale[None, :, None, None, None]


class _SelfAdjoint(torch.autograd.Function):
    """A self-adjoint operator, whose product is its own derivative: no graph is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.operator = operator
        return operator(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _self_adjoint(gradients[0], ctx.operator), None


def _self_adjoint(x: Tensor, operator: Callable[[Tensor], Tensor]) -> Tensor:
    found: Tensor = _SelfAdjoint.apply(x, operator)  # type: ignore[no-untyped-call]
    return found


class Problem:
    """One window and its prior, in at least single precision.

    Parameters
    ----------
    window : Window
        Observations.
    theta : Tensor (B, 8, S, ny, nx) or None
        Parameters of the SPDE, in cells and steps; None for the constant ones.
    constants : mapping
        All eight parameters as numbers.
    alpha : {2, 4}
        Power of the operator.
    boundary : str
        Of the domain.
    spde : bool
        Whether the SPDE is a prior.
    projection : callable, optional
        The auto-encoder, if it is a prior.
    weight : Tensor (), optional
        Of the distance to its projection.
    nodes : int, default 1
        Cells of a side of the squares in whose middles the unknowns stand.
    representation : float, default 0.0
        Standard deviation of what the unknowns cannot represent, added to all errors in square.

    Attributes
    ----------
    window : Window
        Observations, put together at nodes.
    given : Window
        Observations, as given.
    precision, values : Tensor
        Inverse variances of the errors, and observations, at cells.
    sea, observed, theta : Tensor
        At nodes: what is sea, observations, and the parameters in nodes and steps.

    Raises
    ------
    ParameterError
        For a theta of another shape.
    """

    def __init__(
        self,
        window: Window,
        theta: Tensor | None,
        constants: Mapping[str, float],
        *,
        alpha: int,
        boundary: str,
        spde: bool,
        projection: Callable[[Tensor], Tensor] | None = None,
        weight: Tensor | None = None,
        nodes: int = 1,
        representation: float = 0.0,
    ) -> None:
        batch, steps, ny, nx = window.shape
        self.given, self.window = window, window.coarsened(nodes)
        self.alpha, self.boundary = alpha, boundary
        self.spde, self.projection, self.weight = spde, projection, weight
        kind = torch.promote_types(window.obs.dtype, torch.float32)
        self.sea = self.window.sea[:, None].to(kind)
        self.observed, self.values = self.window.obs.to(kind), window.obs.to(kind)
        self.precision = window.mask / (window.variance.to(kind) + representation**2)
        self.observing = None
        if nodes > 1 or window.offset is not None:
            self.observing = Observing(window, nodes, self.sea, boundary)
        if theta is None:
            numbers = self.observed.new_tensor([constants[name] for name in CHANNELS])
            theta = numbers[None, :, None, None, None].expand(batch, -1, 1, ny, nx)
        good = theta.ndim == 5 and theta.shape[0] == batch and theta.shape[1] == len(CHANNELS)
        if not good or theta.shape[2] not in (1, steps) or theta.shape[3:] != (ny, nx):
            raise ParameterError(
                f"theta is {tuple(theta.shape)}; expected {(batch, len(CHANNELS), 1, ny, nx)} or "
                f"{(batch, len(CHANNELS), steps, ny, nx)}"
            )
        self.theta = theta.to(kind) if nodes == 1 else _at_nodes(theta.to(kind), window.sea, nodes)
        self._stationary: StationaryPrior | None = None
        self._prior: SpdePrior | None = None
        self._gains: dict[float, Tensor] = {}

    @property
    def stationary(self) -> StationaryPrior:
        """Prior of the parameters' means over the sea and the steps."""
        if self._stationary is None:
            sea = self.sea[:, None]
            cells = sea.sum((-3, -2, -1)) * self.theta.shape[2]
            kappa, tau, _, _, v1, v2, gamma, beta = self.theta.detach().unbind(1)
            parts = [kappa**2, tau**2, gamma + beta * v1**2, gamma + beta * v2**2]
            sums = [torch.where(self.window.sea[:, None], p, 0.0).sum((-3, -2, -1)) for p in parts]
            kappa2, tau2, h11, h22 = (one / cells[:, 0].clamp_min(1.0) for one in sums)
            ny, nx = self.observed.shape[-2:]
            self._stationary = StationaryPrior(
                kappa2.sqrt(), tau2.sqrt(), h11, h22, (ny, nx),
                alpha=self.alpha, boundary=self.boundary,
            )  # fmt: skip
        return self._stationary

    def spread(self, x: Tensor) -> Tensor:
        """Product of the stationary covariance with fields (B, T, ny, nx), zero on land."""
        return self.sea * _self_adjoint(self.sea * x, self.stationary.covariance)

    def scaled(self, x: Tensor, power: float = 1.0) -> Tensor:
        """As :meth:`spread`, with the size of white noise kept.

        Parameters
        ----------
        x : Tensor (B, T, ny, nx)
            Any.
        power : float, default 1.0
            Of the variances of the modes: below one, small scales are kept more.

        Returns
        -------
        Tensor (B, T, ny, nx)
        """
        if power not in self._gains:
            gain = self.stationary.gain(x.shape[1], power)
            self._gains[power] = self.sea / gain[:, None, None, None]
        product = partial(self.stationary.covariance, power=power)
        return self._gains[power] * _self_adjoint(self.sea * x, product)

    def spread_variance(self) -> Tensor:
        """Mean variance of the stationary prior (B, 1, 1, 1)."""
        return self.stationary.variance.mean((-2, -1))[:, None, None, None]

    def prior_product(self, x: Tensor) -> Tensor:
        """Product of the precision of the SPDE prior with fields (B, T, ny, nx)."""
        if self._prior is None:
            self._prior = SpdePrior(
                self.theta, alpha=self.alpha, sea=self.window.sea, boundary=self.boundary
            )
        if self.theta.requires_grad and torch.is_grad_enabled():
            return self._prior.apply(x)
        return _self_adjoint(x, self._prior.apply)

    def observe(self, x: Tensor) -> Tensor:
        """Values (B, T, ny, nx) at the cells and times of observations from fields at nodes."""
        return x if self.observing is None else self.observing(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y if self.observing is None else self.observing.adjoint(y)

    def cells(self, x: Tensor) -> Tensor:
        """Fields at cells (B, T, ny, nx) from those at nodes."""
        return x if self.observing is None else self.observing.cells(x)

    def product(self, x: Tensor) -> Tensor:
        """Half the second derivative of the quadratic cost, times fields (B, T, ny, nx)."""
        return self.prior_product(x) + self._adjoint(self.precision * self.observe(x))

    def _misfit(self, x: Tensor) -> Tensor:
        return (self.precision * (self.values - self.observe(x)) ** 2).sum((1, 2, 3))

    def interpolation_cost(self, x: Tensor) -> Tensor:
        """Cost of optimal interpolation with the SPDE prior, one number (B,) a window."""
        return self._misfit(x) + (x * self.prior_product(x)).sum((1, 2, 3))

    def cost(self, x: Tensor) -> Tensor:
        """Cost J of fields (B, T, ny, nx), one number (B,) a window."""
        if self.projection is None or self.weight is None:
            return self.interpolation_cost(x)
        left = self.sea * (x - self.projection(x)).to(x.dtype)
        distance = self.weight * (left**2).sum((1, 2, 3))
        if self.spde:
            return self.interpolation_cost(x) + distance
        seen = self.precision > 0.0
        level = seen.sum((1, 2, 3)) / self.precision.sum((1, 2, 3)).clamp_min(1e-30)
        cells = self.sea.sum((1, 2, 3)).clamp_min(1.0) * x.shape[1]
        return (level * self._misfit(x) + distance) / cells

    def gradient(self, x: Tensor, *, create_graph: bool) -> Tensor:
        """Half the gradient of the cost (B, T, ny, nx), zero on land.

        Parameters
        ----------
        x : Tensor (B, T, ny, nx)
            Where.
        create_graph : bool
            Whether gradients flow through it.

        Returns
        -------
        Tensor (B, T, ny, nx)
        """
        if self.projection is None:
            return self.product(x) - self._adjoint(self.precision * self.values)
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.cost(at).sum(), at, create_graph=create_graph)
        return 0.5 * self.sea * found

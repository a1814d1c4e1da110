r"""Terms of the space-time SPDE prior of a window, for networks: distance, determinant, likelihood.

With :math:`A_t = I + (\kappa^2 + m \cdot \nabla - \nabla \cdot H \nabla)^{\alpha/2}` on unit cells
and steps, :math:`W_t = \tau_t^{-2}` and fields that are zero before the window,

.. math::

    x' Q x = \sum_t \| W_t^{1/2} (A_t x_t - x_{t-1}) \|^2 - [\| W_0^{1/2} x_0 \|^2], \qquad
    -\log p(x) = \tfrac12 (x' Q x - \log|Q| + n \log 2 \pi),

the bracket with a stationary or scaled first state only; in the latter :math:`W_0^{1/2}` stands
right of :math:`A_0`, which is without flow. Everything is products of stencils with shifted
fields, and equal to :class:`xr_spde.fields.spacetime.SpaceTime` on a unit mesh; theta is in grid
units, (B, 8, S, ny, nx) with the channels of :data:`xr_spde.nets.spde_stencil.THETA` and S = 1 or
one set of parameters for each of the T steps.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855; Clarotto, Allard, Romary, Desassis (2024), Spat.
Stat. 62.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.spde_determinant import Determinant, Settings
from xr_spde.nets.spde_stencil import (
    apply_stencil,
    boundaries,
    sea_of,
    stencil_of,
    transposed_stencil,
)

__all__ = ["ALPHAS", "INITIALS", "SpdePrior"]

ALPHAS = (2, 4)
"""Powers."""

INITIALS = ("stationary", "scaled", "rest", "given")
"""First state: stationary, with ``Q_0 = A' W A - W``; scaled, stationary without flow for a
constant tau, times tau, ``Q_0 = W^(1/2) (A_s' A_s - I) W^(1/2)``, the same for constant tau and no
flow and positive definite for all parameters; one step after zero; or given, the prior of the later
steps alone."""


class SpdePrior:
    """Gaussian prior of windows; the stencil is built once.

    Parameters
    ----------
    theta : Tensor (B, 8, S, ny, nx)
        Parameters in grid units, kappa, tau and H positive; land does not matter.
    alpha : {2, 4}
        Power of the operator.
    sea : Tensor of bool (B, ny, nx) or (ny, nx), optional
        Off land, which is a barrier. Everywhere by default.
    boundary : {"neumann", "dirichlet", "periodic"} or tuple of two, default "neumann"
        Edges in y and x.
    initial : {"stationary", "scaled", "rest", "given"}, default "stationary"
        See :data:`INITIALS`. The stationary one exists where tau and the velocity vary gently.

    Raises
    ------
    ParameterError
        For shapes that do not fit.
    UnknownNameError
        For another name.
    """

    def __init__(
        self,
        theta: Tensor,
        *,
        alpha: int,
        sea: Tensor | None = None,
        boundary: str | tuple[str, str] = "neumann",
        initial: str = "stationary",
    ) -> None:
        if alpha not in ALPHAS:
            raise unknown("alpha", alpha, map(str, ALPHAS))
        if initial not in INITIALS:
            raise unknown("initial", initial, INITIALS)
        pair = boundaries(boundary)
        self.alpha, self.initial = alpha, initial
        self.sea = sea_of(theta, sea)
        self.sets = theta.shape[2]
        self._periodic = (pair[0] == "periodic", pair[1] == "periodic")
        self._stencil = stencil_of(theta, self.sea, pair)
        self._still: Tensor | None = None
        if initial == "scaled":
            still = torch.cat([theta[:, :2], torch.zeros_like(theta[:, 2:4]), theta[:, 4:]], 1)
            self._still = stencil_of(still[:, :, :1], self.sea, pair)
        tau = theta[:, 1]
        self._transposed: Tensor | None = None
        self._weight = torch.where(self.sea, tau, torch.ones_like(tau)) ** -2.0

    def _fields(self, x: Tensor) -> Tensor:
        """Fields that are zero on land."""
        batch, _, ny, nx = self._weight.shape
        if x.ndim != 4 or x.shape[0] != batch or x.shape[2:] != (ny, nx):
            raise ParameterError(
                f"x has shape {tuple(x.shape)}; expected ({batch}, steps, {ny}, {nx})"
            )
        if self.sets not in (1, x.shape[1]):
            raise ParameterError(
                f"theta has {self.sets} steps for a window of {x.shape[1]}; expected 1 or as many"
            )
        return torch.where(self.sea, x, torch.zeros_like(x))

    def _drift(self, stencil: Tensor, x: Tensor) -> Tensor:
        for _ in range(self.alpha // 2):
            x = apply_stencil(stencil, x, around=any(self._periodic))
        return x

    def transition(self, x: Tensor) -> Tensor:
        """Product of ``A_t`` with every field (B, T, ny, nx), zero on land."""
        x = self._fields(x)
        return x + self._drift(self._stencil, x)

    def noise(self, x: Tensor) -> Tensor:
        """Driving noise ``A_t x_t - x_{t-1}`` (B, T, ny, nx), with zero before the window.

        That of the first step is without flow and over tau where the first state is "scaled".
        """
        x = self._fields(x)
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        found = x + self._drift(self._stencil, x) - before
        if self._still is not None:
            first = self._weight[:, :1].sqrt() * x[:, :1]
            first = first + self._drift(self._still, first)
            found = torch.cat([first, found[:, 1:]], dim=1)
        return found

    def _weighed(self, noise: Tensor) -> Tensor:
        """Noise times its precision."""
        found = self._weight * noise
        if self.initial == "scaled":
            return torch.cat([noise[:, :1], found[:, 1:]], dim=1)
        if self.initial == "given":
            return torch.cat([torch.zeros_like(found[:, :1]), found[:, 1:]], dim=1)
        return found

    def mahalanobis(self, x: Tensor) -> Tensor:
        """Squared distance from zero ``x' Q x``.

        Parameters
        ----------
        x : Tensor (B, T, ny, nx)
            Anomalies; what stands on land does not count.

        Returns
        -------
        Tensor (B,)
        """
        noise = self.noise(x)
        found = (self._weighed(noise) * noise).sum(dim=(1, 2, 3))
        if self.initial in ("stationary", "scaled"):
            first = self._fields(x)[:, 0] ** 2
            found = found - (self._weight[:, 0] * first).sum(dim=(1, 2))
        return found

    def apply(self, x: Tensor) -> Tensor:
        """Product with the precision (B, T, ny, nx): half the gradient of the distance."""
        weighed = self._weighed(self.noise(x))
        if self._transposed is None:
            self._transposed = transposed_stencil(self._stencil)
        found = weighed + self._drift(self._transposed, weighed)
        after = torch.cat([weighed[:, 1:], torch.zeros_like(weighed[:, :1])], dim=1)
        if self.initial in ("stationary", "scaled"):
            weight, first = self._weight[:, :1], found[:, :1]
            if self._still is not None:  # symmetric
                first = weighed[:, :1] + self._drift(self._still, weighed[:, :1])
                first = weight.sqrt() * first
            found = torch.cat([first - weight * self._fields(x)[:, :1], found[:, 1:]], dim=1)
        return found - after

    def log_determinant(
        self, *, steps: int | None = None, probes: int | None = None, seed: int = 0
    ) -> Tensor:
        """Logarithm of ``|Q|``, land left out; differentiable once, in float64.

        Parameters
        ----------
        steps : int, optional
            Of the window; needed where one set of parameters holds for all.
        probes : int, optional
            Estimate the gradient from this many probes; the exact one by default. Eight take 40 %
            less time with alpha = 4 and a stationary first state, and none less with a given one.
        seed : int, default 0
            Of the probes.

        Returns
        -------
        Tensor of float64 (B,)

        Raises
        ------
        ParameterError
            For numbers that do not fit, or parameters that are not finite.
        SolverError
            If the first state has no positive definite precision.
        """
        steps = self.sets if steps is None and self.sets > 1 else steps
        if steps is None or steps < 1 or self.sets not in (1, steps):
            raise ParameterError(
                f"steps={steps} for theta of {self.sets} steps; expected those of the window"
            )
        if probes is not None and probes < 1:
            raise ParameterError(f"probes={probes}; expected at least 1, or None")
        stencil, weight = self._stencil.double(), self._weight.double()
        if self._still is not None:
            stencil = torch.cat([self._still.double(), stencil], dim=2)
        if not (torch.isfinite(stencil).all() and torch.isfinite(weight).all()):
            raise ParameterError(
                "theta has values off land that are not finite, or a tau of zero; the "
                "log-determinant cannot be computed"
            )
        how = Settings(steps, self.alpha // 2, self._periodic, self.initial, probes, seed)
        found: Tensor = Determinant.apply(stencil, weight, self.sea, how)  # type: ignore[no-untyped-call]
        return found

    def negative_log_likelihood(
        self, x: Tensor, *, probes: int | None = None, seed: int = 0
    ) -> Tensor:
        """Negative log-likelihood of complete fields.

        Parameters
        ----------
        x : Tensor (B, T, ny, nx)
            Anomalies.
        probes, seed
            As for :meth:`log_determinant`.

        Returns
        -------
        Tensor of float64 (B,)
            Not divided by anything; :meth:`count` gives the number of values.

        Raises
        ------
        ParameterError
            For values off land that are not finite: the likelihood cannot be computed.
        SolverError
            As :meth:`log_determinant`.
        """
        found = self.mahalanobis(x).double()
        if not torch.isfinite(found).all():
            raise ParameterError(
                f"{int((~torch.isfinite(found)).sum())} of {found.numel()} windows have fields or "
                "parameters off land that are not finite; their likelihood cannot be computed"
            )
        steps = x.shape[1]
        found = found - self.log_determinant(steps=steps, probes=probes, seed=seed)
        return 0.5 * (found + self.count(steps) * math.log(2.0 * math.pi))

    def count(self, steps: int) -> Tensor:
        """Return the number of values (B,) whose likelihood it is, in float64."""
        steps = steps - 1 if self.initial == "given" else steps
        return self.sea.sum(dim=(1, 2, 3)).double() * steps

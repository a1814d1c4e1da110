"""Iterations of a variational solver: a network turns gradients into directions.

References
----------
Fablet et al. (2021), J. Adv. Model. Earth Syst. 13; Saad (2003), Iterative Methods for Sparse
Linear Systems, section 9.4 (flexible conjugate gradients).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xr_spde.nets.convlstm import State
from xr_spde.nets.variational_cost import Problem

__all__ = ["LearnedSteps"]

_TINY, _DEPENDENT = 1e-30, 1e-10


class LearnedSteps(nn.Module):
    """What `xr_spde.nets.variational.VariationalSolver` does in its iterations.

    Attributes
    ----------
    options : dict
        Of the solver.
    spread : bool
        Whether gradients are spread by the covariance of the stationary prior.
    lstm : Module or None
        ``lstm(features, state)`` returns fields and a state; None for conjugate gradients.
    """

    options: dict[str, Any]
    spread: bool
    lstm: nn.Module | None

    def _fields(
        self, problem: Problem, g: Tensor, given: Tensor, state: State | None
    ) -> tuple[list[Tensor], State | None]:
        """Directions (B, T, ny, nx) that the network makes of a gradient of unit size."""
        if self.lstm is None:
            return [problem.scaled(g) if self.spread else g], None
        inputs = [g]
        if self.spread:
            wide = problem.scaled(g)
            inputs.append(wide / _rms(wide))
        out, state = self.lstm(torch.cat([*inputs, given], 1), state)
        parts = list(out.to(g.dtype).split(g.shape[1], 1))
        powers = [1.0, 0.0]
        with torch.autocast(g.device.type, enabled=False):
            if self.options["directions"] == "observed":
                seen = problem.window.mask
                parts = [g + seen * parts[0], *(seen * (g + part) for part in parts[1:])]
                powers = [1.0, 0.5]
            elif self.options["update"] == "search" and self.spread:
                parts[0] = g + parts[0]  # a search measures the length of any step
            if self.spread:
                pairs = zip(parts, powers, strict=True)
                parts = [problem.scaled(part, w) if w else part for part, w in pairs]
            return [problem.sea * part for part in parts], state

    def _descend(self, problem: Problem, x: Tensor, given: Tensor) -> Tensor:
        """Follow the network's directions by fixed lengths."""
        graph, state, scale = torch.is_grad_enabled(), None, None
        count, options = self.options["iterations"], self.options
        for k in range(count):
            if not graph or 0 < k == self._last_cut:
                x, state = x.detach(), _detached(state)
            learning = graph and k >= self._last_cut
            with torch.set_grad_enabled(learning):
                g = problem.gradient(x, create_graph=learning)
                scale = _rms(g).detach() if scale is None else scale
                parts, state = self._fields(problem, g / scale, given, state)
                length = 1.0 / (k + 1) if options["update"] == "decay" else 1.0 / count
                x = x - length * torch.stack(parts).sum(0)
                if options["rate"]:
                    x = x - options["rate"] * (k + 1) / count * g
        return x

    def _search(self, problem: Problem, x: Tensor, given: Tensor) -> Tensor:
        """Follow the network's directions to the minimum, each conjugate to all before."""
        graph, state = torch.is_grad_enabled(), None
        known: list[tuple[Tensor, Tensor, Tensor]] = []
        g = problem.gradient(x, create_graph=graph)
        for k in range(self.options["iterations"]):
            if not graph or 0 < k == self._last_cut:
                x, g, state = x.detach(), g.detach(), _detached(state)
                known = [(p.detach(), q.detach(), w.detach()) for p, q, w in known]
            with torch.set_grad_enabled(graph and k >= self._last_cut):
                parts, state = self._fields(problem, g / _rms(g), given, state)
                for part in parts:
                    p, q = part, problem.product(part)
                    before = _dot(p, q)
                    for old, pushed, curvature in known:
                        share = _dot(q, old) / curvature
                        p, q = p - share * old, q - share * pushed
                    curvature = _dot(p, q)
                    # nothing is left to find along a direction that former ones contain
                    new = curvature > _DEPENDENT * before.clamp_min(_TINY)
                    curvature = torch.where(new, curvature, torch.inf)
                    length = _dot(p, g) / curvature
                    x, g = x - length * p, g - length * q
                    # without a network the last direction is enough
                    known = [*(known if self.lstm is not None else []), (p, q, curvature)]
        return x

    @property
    def _last_cut(self) -> int:
        """Iteration before which no gradient of the training reaches."""
        every = self.options["truncate"]
        return (self.options["iterations"] - 1) // every * every if every else 0


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each window (B, 1, 1, 1), never zero."""
    return (x**2).mean((1, 2, 3), keepdim=True).sqrt().clamp_min(_TINY)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Scalar product of each window (B, 1, 1, 1)."""
    return (x * y).sum((1, 2, 3), keepdim=True)


def _detached(state: State | None) -> State | None:
    return None if state is None else (state[0].detach(), state[1].detach())

"""Neural ordinary differential equations of codes, by the classical Runge-Kutta method (3/8 rule).

`NeuralODE` is that of LAINR: ``dz/dt = f(z)``, a multilayer perceptron with learned Swish
activations. `ResidualODE` is ``dz/dt = L z + c + g(z)``, L the logarithm of a linear propagator.
The linear part is integrated exactly (Lawson's exponential Runge-Kutta), so that the untrained
network, g = 0, is the linear propagator, for steps of any length. And g fades where codes leave the
range of the training, of which the network knows nothing: there, forecasts are linear, and with a
stable linear part bounded.

References
----------
Li, Dong & Zhang (2024), J. Comput. Phys. (LAINR), arXiv 2309.09574; Chen et al. (2018), NeurIPS;
Lawson (1967), SIAM J. Numer. Anal. 4, 372.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.codes import Forcing
from xr_spde._core.errors import ParameterError
from xr_spde._core.linear_flow import LinearFlow

__all__ = [
    "CodeODE",
    "NeuralODE",
    "Perceptron",
    "ResidualODE",
    "Swish",
    "flow",
    "parts_of",
    "rk4_step",
]

Slope = Callable[[Tensor, Tensor | float], Tensor]


class Swish(nn.Module):
    """Activation ``x sigmoid(softplus(beta) x) / 1.1`` with one learned beta."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each number."""
        return x * torch.sigmoid(F.softplus(self.beta) * x) / 1.1


class Perceptron(nn.Module):
    """Linear layers with a learned Swish between.

    Parameters
    ----------
    inputs, outputs : int
        Sizes.
    hidden : int
        Width.
    layers : int
        Hidden layers.
    zero : bool
        Whether the last layer starts at zero.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int, layers: int, *, zero: bool = False
    ) -> None:
        super().__init__()
        sizes = [inputs] + [hidden] * layers
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after), Swish()]
        last = nn.Linear(sizes[-1], outputs)
        if zero:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*parts, last)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        return cast(Tensor, self.layers(x))


def rk4_step(slope: Slope, z: Tensor, time: Tensor | float, h: float) -> Tensor:
    """Take one Runge-Kutta step of fourth order, by the 3/8 rule.

    Parameters
    ----------
    slope : callable
        Of state and time.
    z : Tensor (B, n)
        State.
    time : float or Tensor (B,)
        At the start.
    h : float
        Length.

    Returns
    -------
    Tensor (B, n)
    """
    k1 = slope(z, time)
    k2 = slope(z + (h / 3) * k1, time + h / 3)
    k3 = slope(z + h * (k2 - k1 / 3), time + 2 * h / 3)
    k4 = slope(z + h * (k1 - k2 + k3), time + h)
    return z + (h / 8) * (k1 + 3 * (k2 + k3) + k4)


def parts_of(dt: float, longest: float) -> tuple[int, float]:
    """Divide a step into equal parts.

    Parameters
    ----------
    dt : float
        Its length.
    longest : float
        That no part may exceed.

    Returns
    -------
    count : int
    length : float

    Raises
    ------
    ParameterError
        If `dt` is not a positive number.
    """
    if not (math.isfinite(dt) and dt > 0.0):
        raise ParameterError(f"dt={dt}: expected a positive number of steps")
    count = max(1, math.ceil(dt / longest - 1e-9))
    return count, dt / count


def flow(
    slope: Slope, z: Tensor, dt: float, time: Tensor | float = 0.0, *, longest: float = 1.0
) -> Tensor:
    """Integrate over a time of any length.

    Parameters
    ----------
    slope : callable
        Of state and time.
    z : Tensor (B, n)
        State.
    dt : float
        Length.
    time : float or Tensor (B,), optional
        At the start.
    longest : float, optional
        Longest step of the integration.

    Returns
    -------
    Tensor (B, n)
    """
    count, h = parts_of(dt, longest)
    for k in range(count):
        z = rk4_step(slope, z, time + k * h, h)
    return z


class CodeODE(nn.Module):
    """Normalised codes and the calendar, as inputs of a network.

    Parameters
    ----------
    n : int
        Size of a code.
    longest : float
        Longest step of the integration, in steps of the data.
    forcing : Forcing, optional
        By the calendar.

    Attributes
    ----------
    mixed : bool
        Whether the network runs in bfloat16 in training.
    """

    mean: Tensor
    inward: Tensor
    outward: Tensor
    network: nn.Module

    def __init__(self, n: int, longest: float, forcing: Forcing | None) -> None:
        super().__init__()
        if not longest > 0.0:
            raise ParameterError(f"longest={longest}: expected a positive number of steps")
        self.n, self.longest, self.forcing, self.mixed = n, longest, forcing, False
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("inward", torch.ones(n))
        self.register_buffer("outward", torch.ones(n))

    def normalise(self, mean: Any, inward: Any, outward: Any) -> None:
        """Set what codes are shifted and divided by, and what outputs are multiplied by.

        Parameters
        ----------
        mean, inward, outward : array_like (n,)
            Of codes, of inputs, and of slopes.
        """
        for name, value in (("mean", mean), ("inward", inward), ("outward", outward)):
            buffer = cast(Tensor, getattr(self, name))
            buffer.copy_(torch.as_tensor(np.array(value, dtype=np.float64)))

    def features(self, z: Tensor, time: Tensor | float) -> list[Tensor]:
        """Features of the calendar (B, size) at times in steps, if there is forcing."""
        if self.forcing is None:
            return []
        # in float64: days since 1970 in float32 are good to a few minutes only
        steps = torch.as_tensor(time, dtype=torch.float64, device=z.device).expand(len(z))
        frequencies = torch.as_tensor(self.forcing.frequencies * self.forcing.step)
        phase = steps[:, None] * frequencies.to(z.device)
        return [torch.stack([torch.cos(phase), torch.sin(phase)], -1).flatten(1).to(z)]

    def evaluate(self, u: Tensor, features: list[Tensor]) -> Tensor:
        """Apply the network, in bfloat16 where training asks for it; states never are."""
        mixed = self.mixed and self.training
        with torch.autocast(u.device.type, torch.bfloat16, enabled=mixed):
            slope: Tensor = self.network(torch.cat([u, *features], 1))
        return self.outward * slope.to(u.dtype)


class NeuralODE(CodeODE):
    """Autonomous (or forced) neural ODE of codes.

    Parameters
    ----------
    n : int
        Size of a code.
    hidden : int, default 800
        Width of the network.
    layers : int, default 3
        Hidden layers.
    longest : float, default 1
        Longest step of the integration, in steps of the data.
    forcing : Forcing, optional
        By the calendar.

    Notes
    -----
    With ``n=400, hidden=800`` it has the 1,922,803 parameters of LAINR.
    """

    def __init__(
        self,
        n: int,
        hidden: int = 800,
        layers: int = 3,
        *,
        longest: float = 1.0,
        forcing: Forcing | None = None,
    ) -> None:
        super().__init__(n, longest, forcing)
        size = 0 if forcing is None else forcing.size
        self.network = Perceptron(n + size, n, hidden, layers)

    def slope(self, z: Tensor, time: Tensor | float = 0.0) -> Tensor:
        """Evaluate dz/dt; time in steps since 1970-01-01."""
        return self.evaluate((z - self.mean) / self.inward, self.features(z, time))

    def forward(self, z: Tensor, dt: float = 1.0, time: Tensor | float = 0.0) -> Tensor:
        """Carry codes (B, n) over `dt` steps, from a time (B,) in steps since 1970-01-01."""
        return flow(self.slope, z, dt, time, longest=self.longest)


class ResidualODE(CodeODE):
    """Linear dynamics and a neural residual that is zero at first.

    Parameters
    ----------
    rows : ndarray (n, n + forcing.size + 1)
        Linear map of a step, as `xr_spde._core.linear_flow.LinearFlow` takes it; fixed.
    hidden, layers : int
        Of the residual.
    longest : float, default 1
        Longest step of the integration, in steps of the data.
    inner, outer : float
        Distances, in root mean square of normalised codes, between which the residual fades.
    forcing : Forcing, optional
        By the calendar.
    """

    def __init__(
        self,
        rows: NDArray[Any],
        hidden: int = 800,
        layers: int = 3,
        *,
        longest: float = 1.0,
        inner: float = 2.0,
        outer: float = 2.5,
        forcing: Forcing | None = None,
    ) -> None:
        n = len(rows)
        super().__init__(n, longest, forcing)
        size = 0 if forcing is None else forcing.size
        if not 0.0 < inner < outer:
            raise ParameterError(f"inner={inner}, outer={outer}: expected 0 < inner < outer")
        self.inner, self.outer = inner, outer
        self.network = Perceptron(n + size, n, hidden, layers, zero=True)
        self._flow = LinearFlow(rows, forcing)
        self._powers: dict[tuple[float, torch.dtype, str], Tensor] = {}

    def _power(self, h: float, like: Tensor) -> Tensor:
        """Transposed rows of the code in the linear map over h, (m, n)."""
        key = (h, like.dtype, str(like.device))
        if key not in self._powers:
            if len(self._powers) > 255:
                self._powers.clear()
            whole = np.ascontiguousarray(self._flow.power(h).T)
            self._powers[key] = torch.from_numpy(whole).to(like)
        return self._powers[key]

    def _step(self, z: Tensor, time: Tensor | float, h: float) -> Tensor:
        """Exponential Runge-Kutta step: that of the 3/8 rule, in variables that turn with L."""
        first, second, third = (self._power(part * h, z) for part in (1 / 3, 2 / 3, 1.0))
        one = torch.ones(len(z), 1, dtype=z.dtype, device=z.device)
        rest = torch.cat([*self.features(z, time), one], 1)
        n = self.n
        still = [rest @ power[n:] for power in (first, second, third)]
        k1 = self.slope(z, time)
        k2 = self.slope((z + (h / 3) * k1) @ first[:n] + still[0], time + h / 3)
        moved = k2 @ first[:n]
        k3 = self.slope((z - (h / 3) * k1) @ second[:n] + still[1] + h * moved, time + 2 * h / 3)
        linear, along = z @ third[:n] + still[2], k1 @ third[:n]
        twice, once = k2 @ second[:n], k3 @ first[:n]
        k4 = self.slope(linear + h * (along - twice + once), time + h)
        return linear + (h / 8) * (along + 3 * (twice + once) + k4)

    def slope(self, z: Tensor, time: Tensor | float = 0.0) -> Tensor:
        """Evaluate the residual g; time in steps since 1970-01-01."""
        u = (z - self.mean) / self.inward
        # the root has no slope at zero, and none is asked for inside
        distance = u.square().mean(1, keepdim=True).clamp(self.inner**2, self.outer**2).sqrt()
        share = (self.outer - distance) / (self.outer - self.inner)
        return share**2 * (3.0 - 2.0 * share) * self.evaluate(u, self.features(z, time))

    def forward(self, z: Tensor, dt: float = 1.0, time: Tensor | float = 0.0) -> Tensor:
        """Carry codes (B, n) over `dt` steps, from a time (B,) in steps since 1970-01-01."""
        count, h = parts_of(dt, self.longest)
        for k in range(count):
            z = self._step(z, time + k * h, h)
        return z

r"""SPDE parameters as functions of channels without bounds, which a network may change freely.

Kappa, tau, gamma and beta are a softplus of their channel plus a floor, the velocity is its
channels. The tensor H is either ``gamma I + beta v v'`` with the channels v1, v2, gamma, beta
("vector"), in which v and -v are the same and beta and v are told apart by nothing; or the matrix
exponential

.. math::

    H = e^s \exp \begin{pmatrix} h_1 & h_2 \\ h_2 & -h_1 \end{pmatrix},

with the channels s, h1, h2 ("tensor"), which has no such seams.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855, for the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.spde_stencil import THETA

__all__ = ["DIFFUSIONS", "FLOORS", "ThetaFields"]

DIFFUSIONS = ("tensor", "vector")
"""How H follows from channels."""

FLOORS: Mapping[str, float] = {"kappa": 0.01, "tau": 0.01, "gamma": 0.01, "beta": 0.0}
"""What the softplus is added to."""

_TENSOR = ("log_h", "h1", "h2")
_SMALL = 1e-6


class ThetaFields:
    """Which parameters are free, and how they follow from channels.

    Parameters
    ----------
    free : sequence of str
        Some of :data:`xr_spde.nets.spde_stencil.THETA`; of a "tensor" all of v1, v2, gamma, beta
        are free where one is.
    constants : mapping of str to float
        All eight parameters: of those held fixed, and where the free ones begin.
    diffusion : {"tensor", "vector"}
        See :data:`DIFFUSIONS`.

    Attributes
    ----------
    names : tuple of str
        Channels.
    groups : tuple of tuple of int
        Channels whose gradients are of the same kind.

    Raises
    ------
    ParameterError
        For no free parameter.
    UnknownNameError
        For another name.
    """

    def __init__(self, free: Sequence[str], constants: Mapping[str, float], diffusion: str) -> None:
        for name in free:
            if name not in THETA:
                raise unknown("free parameter", name, THETA)
        if not free:
            raise ParameterError(f"free is empty; expected some of {THETA}")
        if diffusion not in DIFFUSIONS:
            raise unknown("diffusion", diffusion, DIFFUSIONS)
        self.constants = {name: float(constants[name]) for name in THETA}
        self.turned = diffusion == "tensor" and bool(set(free) & set(THETA[4:]))
        plain = [name for name in THETA if name in free and not (self.turned and name in THETA[4:])]
        self.names = (*plain, *(_TENSOR if self.turned else ()))
        single = [(k,) for k in range(len(plain))]
        whole = [tuple(range(len(plain), len(self.names)))] if self.turned else []
        self.groups = (*single, *whole)

    def start(self) -> Tensor:
        """Channels (P,) of the constants."""
        return torch.tensor([self._channel(name) for name in self.names])

    def channel(self, name: str, value: Tensor) -> Tensor:
        """Channel that gives a plain parameter the values (...)."""
        if name not in FLOORS:
            return value
        above = (value - FLOORS[name]).clamp_min(1e-4)
        return above + torch.log(-torch.expm1(-above))

    def _channel(self, name: str) -> float:
        c = self.constants
        if name not in _TENSOR:
            return float(self.channel(name, torch.tensor(c[name], dtype=torch.float64)))
        low, size = c["gamma"], c["v1"] ** 2 + c["v2"] ** 2
        r = 0.5 * math.log((low + c["beta"] * size) / low)
        angle = 2.0 * math.atan2(c["v2"], c["v1"])
        return {
            "log_h": math.log(low) + r, "h1": r * math.cos(angle), "h2": r * math.sin(angle)
        }[name]  # fmt: skip

    def theta(self, channels: Tensor) -> Tensor:
        """Parameters of channels.

        Parameters
        ----------
        channels : Tensor (B, P, S, ny, nx)
            In the order of ``names``.

        Returns
        -------
        Tensor (B, 8, S, ny, nx)
        """
        found = {}
        for name, value in zip(self.names, channels.unbind(1), strict=True):
            found[name] = F.softplus(value) + FLOORS[name] if name in FLOORS else value
        if self.turned:
            found |= _tensor(*(found[name] for name in _TENSOR))
        held = torch.zeros_like(channels[:, 0])
        return torch.stack([found.get(n, held + self.constants[n]) for n in THETA], dim=1)


def _tensor(log_h: Tensor, h1: Tensor, h2: Tensor) -> dict[str, Tensor]:
    """``gamma I + beta v v'`` of a matrix logarithm, v of unit length."""
    # where H is round any direction will do, but the derivative of an angle must exist
    h1 = torch.where(h1.abs() + h2.abs() < _SMALL, h1 + _SMALL, h1)
    r = torch.sqrt(h1**2 + h2**2)
    angle = 0.5 * torch.atan2(h2, h1)
    low, high = torch.exp(log_h - r), torch.exp(log_h + r)
    return {"v1": torch.cos(angle), "v2": torch.sin(angle), "gamma": low, "beta": high - low}

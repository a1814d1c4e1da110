"""ReZero stepper of codes, the baseline of LAINR: blocks ``z + alpha * phi(W z + b)``.

References
----------
Bachlechner et al. (2021), UAI (ReZero); Li, Dong & Zhang (2024), arXiv 2309.09574.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError

__all__ = ["ReZero"]


class ReZero(nn.Module):
    """Residual blocks whose weights start at zero: the untrained network is persistence.

    Parameters
    ----------
    n : int
        Size of a code.
    blocks : int, default 5
        LeakyReLU of slope 0.2 in all but the last.

    Notes
    -----
    ``blocks * (n * n + 2 * n)`` parameters: 5,253,120 of LAINR with ``n=1024``.
    """

    def __init__(self, n: int, blocks: int = 5) -> None:
        super().__init__()
        self.n = n
        self.layers = nn.ModuleList(nn.Linear(n, n) for _ in range(blocks))
        self.alpha = nn.Parameter(torch.zeros(blocks, n))

    def forward(self, z: Tensor, dt: float = 1.0, time: Tensor | float = 0.0) -> Tensor:
        """Carry codes (B, n) over a whole number of steps.

        Parameters
        ----------
        z : Tensor (B, n)
            Codes.
        dt : float, default 1
            Whole number of steps.
        time : float or Tensor, optional
            Not used.

        Returns
        -------
        Tensor (B, n)

        Raises
        ------
        ParameterError
            For a fraction of a step: the network knows one step and no rate of change.
        """
        if not (dt >= 1.0 and float(dt).is_integer()):
            raise ParameterError(
                f"dt={dt}: a ReZero stepper takes whole steps of its training data only; a neural "
                "ODE or a linear propagator takes any"
            )
        for _ in range(int(dt)):
            z = self._once(z)
        return z

    def _once(self, z: Tensor) -> Tensor:
        last = len(self.layers) - 1
        for k, layer in enumerate(self.layers):
            inner = cast(Tensor, layer(z))
            z = z + self.alpha[k] * (inner if k == last else F.leaky_relu(inner, 0.2))
        return z

"""Trained networks as propagators of codes: numpy in and out, guarded, saved as arrays."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xr_spde._core.codes import CodeGuard, Forcing
from xr_spde._core.errors import ParameterError
from xr_spde.nets.inference import single_thread
from xr_spde.nets.ode import NeuralODE, ResidualODE
from xr_spde.nets.rezero import ReZero

__all__ = [
    "PROPAGATORS",
    "NetworkPropagator",
    "NodePropagator",
    "ReZeroPropagator",
    "ResidualNodePropagator",
]

Array = NDArray[Any]


class NetworkPropagator:
    """A network that carries codes forward in time.

    Parameters
    ----------
    network : Module
        Of code, length of the step and time in steps.
    guard : CodeGuard
        Against codes that run away.
    options : dict
        What the network is built of; JSON can hold it.
    arrays : dict of str to ndarray, optional
        What else it is built of, such as the rows of a linear map.
    """

    name: ClassVar[str] = ""
    affine = False

    def __init__(
        self,
        network: nn.Module,
        guard: CodeGuard,
        options: dict[str, Any],
        arrays: dict[str, Array] | None = None,
    ) -> None:
        self.network = network.to("cpu").eval().requires_grad_(False)
        self.guard, self.options, self.arrays = guard, options, arrays or {}
        self._double: nn.Module | None = None

    @property
    def n(self) -> int:
        """Size of a code."""
        return len(self.guard.mean)

    @property
    def forcing(self) -> Forcing | None:
        """Forcing by the calendar."""
        return cast("Forcing | None", getattr(self.network, "forcing", None))

    def step(self, codes: Array, dt: float = 1.0, time: float | None = None) -> Array:
        """Forecast codes.

        Parameters
        ----------
        codes : ndarray (B, n)
            Codes; the network is evaluated in float64 for those of float64.
        dt : float, default 1
            Length of the step in steps of the data.
        time : float, optional
            Days since 1970-01-01 at its start; needed with forcing.

        Returns
        -------
        ndarray (B, n)
            Of the dtype of `codes`.

        Raises
        ------
        ParameterError
            For codes of another size, if there is forcing and no time, or for a length that the
            network cannot take.
        DivergenceError
            If codes ran away.
        """
        if codes.ndim != 2 or codes.shape[1] != self.n:
            raise ParameterError(f"codes have shape {codes.shape}; expected (B, {self.n})")
        if self.forcing is not None and time is None:
            raise ParameterError("time= is missing: this propagator is forced by the calendar")
        at = 0.0 if self.forcing is None or time is None else time / self.forcing.step
        z = torch.from_numpy(np.ascontiguousarray(codes))
        network = self.network
        if z.dtype == torch.float64:
            self._double = self._double or copy.deepcopy(self.network).double()
            network = self._double
        with single_thread(), torch.no_grad():
            moved = cast(Tensor, network(z, float(dt), at)).numpy()
        self.guard.check(moved)
        return np.asarray(moved)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Give what the propagator is saved as."""
        weights = {f"network.{k}": v.numpy() for k, v in self.network.state_dict().items()}
        guard = {"guard.mean": self.guard.mean, "guard.spread": self.guard.spread}
        return {**weights, **guard, **self.arrays}, {**self.options, "limit": self.guard.limit}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the propagator of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        NetworkPropagator
        """
        own = {k: v for k, v in options.items() if k != "limit"}
        rest = {k: v for k, v in arrays.items() if not k.startswith(("network.", "guard."))}
        network = cls.build(own, rest)
        prefix = "network."
        network.load_state_dict(
            {
                k.removeprefix(prefix): torch.from_numpy(np.array(v))
                for k, v in arrays.items()
                if k.startswith(prefix)
            }
        )
        guard = CodeGuard(arrays["guard.mean"], arrays["guard.spread"], options["limit"])
        return cls(network, guard, own, rest)

    @classmethod
    def build(cls, options: dict[str, Any], arrays: dict[str, Array]) -> nn.Module:
        """Build the untrained network.

        Parameters
        ----------
        options : dict
            Arguments of the network; "forcing" as `Forcing.options` gives it, or None.
        arrays : dict of str to ndarray
            What else it takes.

        Returns
        -------
        Module
        """
        given = dict(options)
        if given.get("forcing") is not None:
            given["forcing"] = Forcing(**given["forcing"])
        return _NETWORKS[cls.name](**given, **arrays)


class NodePropagator(NetworkPropagator):
    """Neural ODE."""

    name: ClassVar[str] = "node"


class ResidualNodePropagator(NetworkPropagator):
    """Linear propagator with a neural ODE for what it leaves."""

    name: ClassVar[str] = "residual_node"


class ReZeroPropagator(NetworkPropagator):
    """ReZero stepper, for whole steps."""

    name: ClassVar[str] = "rezero"


_NETWORKS: dict[str, type[nn.Module]] = {
    "node": NeuralODE,
    "residual_node": ResidualODE,
    "rezero": ReZero,
}

PROPAGATORS: dict[str, type[NetworkPropagator]] = {
    kind.name: kind for kind in (NodePropagator, ResidualNodePropagator, ReZeroPropagator)
}
"""Networks by name."""

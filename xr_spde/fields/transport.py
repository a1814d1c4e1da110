r"""Evolution operators behind one interface: what an image does between two times.

An operator is a small frozen object with settings; what it needs on the grid (a velocity, a
diffusivity, a source ...) comes as a mapping of arrays. All of them take numpy arrays, or torch
tensors and are then differentiable in the state and in the parameters.

>>> import numpy as np
>>> from xr_spde.fields.cells import Cells
>>> from xr_spde.fields.transport import Advection
>>> bump = np.zeros((8, 8)); bump[3, 2] = 1.0
>>> moved = Advection().evolve(bump, {"velocity": np.ones((2, 8, 8))}, 2.0, Cells(8, 8))
>>> bool(moved[5, 4] == 1.0)
True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.arrays import Array, as_kind, is_tensor
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import ORDERS, departure, jacobian
from xr_spde.fields.diffusion import diffuse, diffusion_step, wave, wave_step
from xr_spde.fields.evolution import (
    Composed,
    Operator,
    Params,
    UserOperator,
    chosen,
    split_params,
    taken,
)
from xr_spde.fields.flux import splat, stable_step, upwind, weno5
from xr_spde.fields.sampling import KERNELS, sample

__all__ = [
    "OPERATORS",
    "Advection",
    "AdvectionDiffusion",
    "AdvectionSource",
    "Composed",
    "Conservation",
    "Diffusion",
    "Logistic",
    "Operator",
    "Params",
    "ReactionDiffusion",
    "UserOperator",
    "Wave",
    "operator",
    "split_params",
]

ADVECTION_SCHEMES = ("characteristic", "sl", "upwind")
CONSERVATION_SCHEMES = ("weno5", "splat", "jacobian")
_VELOCITY = (("velocity", 2),)


@dataclass(frozen=True)
class Advection:
    r"""Values carried along, :math:`p_t + q \cdot \nabla p = 0`: constants and extrema stay.

    Parameters
    ----------
    scheme : {"characteristic", "sl", "upwind"}
        ``"characteristic"`` integrates coordinates and samples once; ``"sl"`` (semi-Lagrangian)
        samples after every step; ``"upwind"`` is of first order and smears.
    kernel : {"cubic", "monotone", "linear"}
        Of the samples; see :data:`xr_spde.fields.sampling.KERNELS`.
    steps : int, optional
        Runge-Kutta steps; by default :func:`xr_spde.fields.characteristics.steps_for`.
    order : {2, 4}
        Of the steps.

    Raises
    ------
    UnknownNameError
        For another scheme, kernel or order.
    """

    scheme: str = "characteristic"
    kernel: str = "cubic"
    steps: int | None = None
    order: int = 2

    params = _VELOCITY

    def __post_init__(self) -> None:
        """Check the settings."""
        chosen("scheme of advection", self.scheme, ADVECTION_SCHEMES)
        chosen("kernel", self.kernel, KERNELS)
        chosen("order", self.order, ORDERS)

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time; see :class:`Operator`. A negative time runs backwards."""
        q = taken(params, "velocity", self)
        wrap = cells.periodic_x
        if self.scheme == "upwind":
            return upwind(state, q, tau, cells)
        if self.scheme == "characteristic":
            y, x = departure(q, tau, steps=self.steps, order=self.order, periodic_x=wrap)
            return sample(state, y, x, kernel=self.kernel, periodic_x=wrap)
        count = self.steps or max(4, math.ceil(abs(tau) / stable_step(q, 4.0)))
        y, x = departure(q, tau / count, steps=1, order=self.order, periodic_x=wrap)
        for _ in range(count):
            state = sample(state, y, x, kernel=self.kernel, periodic_x=wrap)
        return state

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Return 0.5 cells for upwind; the others are stable at any step."""
        q = taken(params, "velocity", self)
        return stable_step(q, 0.5) if self.scheme == "upwind" else math.inf


@dataclass(frozen=True)
class Conservation:
    r"""Amounts carried along, :math:`p_t + \nabla \cdot (q p) = 0`: concentration, thickness.

    Parameters
    ----------
    scheme : {"weno5", "splat", "jacobian"}
        Fluxes through faces, parcels laid on nodes (both keep the sum to rounding, with walls or a
        closed x), or characteristics times the determinant of the map (smooth, sum kept to the
        order of the scheme).

    Raises
    ------
    UnknownNameError
        For another scheme.
    """

    scheme: str = "weno5"

    params = _VELOCITY

    def __post_init__(self) -> None:
        """Check the settings."""
        chosen("scheme of conservation", self.scheme, CONSERVATION_SCHEMES)

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time; see :class:`Operator`."""
        q = taken(params, "velocity", self)
        if self.scheme == "weno5":
            return weno5(state, q, tau, cells)
        if self.scheme == "splat":
            return splat(state, q, tau, cells)
        wrap = cells.periodic_x
        y, x = departure(q, tau, periodic_x=wrap)
        a, b, c, d = jacobian(y, x, periodic_x=wrap)
        area = as_kind(np.broadcast_to(cells.area[:, None], tuple(y.shape)), state)
        ratio = sample(area, y, x, kernel="linear", periodic_x=wrap) / area
        factor = (a * d - b * c) * ratio
        if factor.ndim == 3:
            factor = factor.reshape(factor.shape[0], *(1,) * (state.ndim - 3), *factor.shape[1:])
        return sample(state, y, x, periodic_x=wrap) * factor

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Return 0.6 cells for fluxes; the others are stable at any step."""
        q = taken(params, "velocity", self)
        return stable_step(q, 0.6) if self.scheme == "weno5" else math.inf


@dataclass(frozen=True)
class Diffusion:
    r"""Smoothing, :math:`p_t = \nabla \cdot (\kappa \nabla p)`; exact in time for one kappa."""

    params = (("diffusivity", 1),)

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time, which cannot be negative; see :class:`Operator`."""
        return diffuse(state, taken(params, "diffusivity", self), tau, cells)

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Return the limit of explicit steps for a field of diffusivities."""
        return diffusion_step(taken(params, "diffusivity", self), cells)


@dataclass(frozen=True)
class Logistic:
    r"""Growth that saturates, :math:`p_t = r p (1 - p / K)`, solved exactly.

    Parameters of the grid: ``growth`` r per unit of time and ``capacity`` K > 0.
    """

    params = (("growth", 1), ("capacity", 1))

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time; see :class:`Operator`."""
        rate, capacity = (taken(params, name, self) for name, _ in self.params)
        exponent = rate * tau + state * 0
        grown = exponent.exp() if is_tensor(exponent) else np.exp(exponent)
        return state * grown / (1 + state * (grown - 1) / capacity)

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Any step."""
        return math.inf


@dataclass(frozen=True)
class AdvectionSource:
    """Advection with a source that each parcel carries: ``u0(X) + tau s(X)``.

    For growth, melting or brightening. Parameters: ``velocity`` and ``source`` per unit of time.
    """

    advection: Advection = Advection()

    params = (("velocity", 2), ("source", 1))

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time; see :class:`Operator`. Backwards it is the exact inverse's form."""
        source = taken(params, "source", self)
        if tau >= 0:
            return self.advection.evolve(state + tau * source, params, tau, cells)
        # A source is known where its parcel started, which backwards is where it ends.
        return self.advection.evolve(state, params, tau, cells) + tau * source

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """As the advection."""
        return self.advection.stable_dt(params, cells)


@dataclass(frozen=True)
class Wave:
    r"""Waves, :math:`p_{tt} = \nabla \cdot (c^2 \nabla p)`; the state is (..., 2, ny, nx).

    Parameter: ``speed`` c. Walls reflect.
    """

    params = (("speed", 1),)

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time; see :class:`Operator`."""
        return wave(state, taken(params, "speed", self), tau, cells)

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Return the step of a Courant number of 0.7 where c varies."""
        return wave_step(taken(params, "speed", self), cells)


class AdvectionDiffusion(Composed):
    """Advection and diffusion; parameters ``velocity`` and ``diffusivity``."""

    def __init__(self, steps: int = 1) -> None:
        super().__init__((Diffusion(), Advection()), steps)


class ReactionDiffusion(Composed):
    """Logistic growth and diffusion (Fisher); parameters growth, capacity and diffusivity."""

    def __init__(self, steps: int = 8) -> None:
        super().__init__((Logistic(), Diffusion()), steps)


OPERATORS: dict[str, Callable[[], Operator]] = {
    "advection": Advection,
    "conservation": Conservation,
    "advection-diffusion": AdvectionDiffusion,
    "advection-source": AdvectionSource,
    "reaction-diffusion": ReactionDiffusion,
    "diffusion": Diffusion,
    "wave": Wave,
}
"""Operators by name, with their default settings."""


def operator(given: str | Operator | Callable[..., Array]) -> Operator:
    """Operator from a name, an object or a function.

    Parameters
    ----------
    given : str, Operator or callable
        A name of :data:`OPERATORS`, an operator, or a function for :class:`UserOperator`.

    Returns
    -------
    Operator

    Raises
    ------
    UnknownNameError
        For an unknown name.
    ParameterError
        For an object that is none of these.
    """
    if isinstance(given, str):
        if given not in OPERATORS:
            raise unknown("operator", given, OPERATORS)
        return OPERATORS[given]()
    if isinstance(given, Operator) and not isinstance(given, type):
        return given
    if callable(given) and not isinstance(given, type):
        return UserOperator(given)
    raise ParameterError(
        f"operator={given!r}; expected a name ({', '.join(OPERATORS)}), an object with params, "
        "evolve and stable_dt, or a function (state, params, tau, cells)"
    )

"""What an evolution operator is: its interface, composition after Strang, and the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.arrays import Array
from xr_spde.fields.cells import Cells

__all__ = ["Composed", "Operator", "Params", "UserOperator", "chosen", "split_params", "taken"]

Params = Mapping[str, Array]
"""Parameters on the grid by name; a velocity is (2, ny, nx), the others (ny, nx) or one number."""


@runtime_checkable
class Operator(Protocol):
    """What an evolution must offer; any object with these three is one."""

    @property
    def params(self) -> tuple[tuple[str, int], ...]:
        """Names of the parameters, each with its number of fields."""

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State (..., ny, nx) after a time tau, from its parameters on the grid."""

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Return the longest step that is stable, infinite where any is."""


def taken(params: Params, name: str, who: object) -> Array:
    """Return one parameter of an operator.

    Parameters
    ----------
    params : mapping
        What was given.
    name : str
        What is needed.
    who : object
        The operator, for the message.

    Returns
    -------
    array or tensor

    Raises
    ------
    ParameterError
        It is not among them.
    """
    if name not in params:
        raise ParameterError(
            f"{type(who).__name__} needs the parameter {name!r}; given: "
            f"{', '.join(map(repr, params)) or 'none'}"
        )
    return params[name]


def chosen(kind: str, given: object, known: Sequence[object]) -> None:
    """Refuse a setting that is not among the known ones.

    Parameters
    ----------
    kind : str
        What is set.
    given : object
        Its value.
    known : sequence
        Values that exist.

    Raises
    ------
    UnknownNameError
        For another value.
    """
    if given not in known:
        raise unknown(kind, given, map(str, known))


@dataclass(frozen=True)
class Composed:
    r"""Several operators at once, split after Strang: half steps around the last one.

    Of second order in the step; exact where the operators commute.

    Parameters
    ----------
    operators : sequence of Operator
        Two or more; the one that is dearest last, as it runs once in a step.
    steps : int
        Number of splitting steps.

    Raises
    ------
    ParameterError
        Fewer than one operator or step.

    References
    ----------
    Strang, G. (1968): On the construction and comparison of difference schemes. SIAM J. Numer.
    Anal. 5, 506-517.
    """

    operators: tuple[Operator, ...]
    steps: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.operators or self.steps < 1:
            raise ParameterError(
                f"{len(self.operators)} operators in {self.steps} steps; expected at least one each"
            )

    @property
    def params(self) -> tuple[tuple[str, int], ...]:
        """Parameters of all operators, each name once."""
        return tuple(dict(pair for one in self.operators for pair in one.params).items())

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time; see :class:`Operator`."""
        *around, middle = self.operators
        h = tau / self.steps
        for _ in range(self.steps):
            for one in around:
                state = one.evolve(state, params, h / 2, cells)
            state = middle.evolve(state, params, h, cells)
            for one in reversed(around):
                state = one.evolve(state, params, h / 2, cells)
        return state

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Smallest of all; those around the last run half steps, yet count in full."""
        return min(one.stable_dt(params, cells) for one in self.operators)


@dataclass(frozen=True)
class UserOperator:
    """An evolution of the user's own.

    Parameters
    ----------
    function : callable
        ``function(state, params, tau, cells)`` returns the state after a time.
    params : tuple of (str, int)
        Parameters and the number of fields of each.
    dt : float
        Longest stable step.
    """

    function: Callable[[Array, Params, float, Cells], Array]
    params: tuple[tuple[str, int], ...] = (("velocity", 2),)
    dt: float = math.inf

    def evolve(self, state: Array, params: Params, tau: float, cells: Cells) -> Array:
        """State after a time; see :class:`Operator`."""
        out = self.function(state, params, tau, cells)
        if tuple(out.shape) != tuple(state.shape):
            raise ParameterError(
                f"the user's operator returned shape {tuple(out.shape)} for a state of shape "
                f"{tuple(state.shape)}; it must keep the shape"
            )
        return out

    def stable_dt(self, params: Params, cells: Cells) -> float:
        """Return what was given."""
        return self.dt


def split_params(which: Operator, fields: Array) -> dict[str, Array]:
    """Cut a stack of fields, such as a network gives, into the parameters of an operator.

    Parameters
    ----------
    which : Operator
        Whose parameters.
    fields : array or tensor (n, ny, nx) or (b, n, ny, nx)
        As many fields as the operator has.

    Returns
    -------
    dict
        Parameters by name; those of one field without the dimension n.

    Raises
    ------
    ParameterError
        For another number of fields.
    """
    need = sum(count for _, count in which.params)
    if fields.ndim < 3 or fields.shape[-3] != need:
        raise ParameterError(
            f"fields of shape {tuple(fields.shape)}; expected (..., {need}, ny, nx) for "
            f"{', '.join(f'{name} ({count})' for name, count in which.params)}"
        )
    found, start = {}, 0
    for name, count in which.params:
        part = fields[..., start : start + count, :, :]
        found[name] = part[..., 0, :, :] if count == 1 else part
        start += count
    return found

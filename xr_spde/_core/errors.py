"""The errors of the package: one base class, each subclass also the builtin kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XrSpdeError(Exception):
    """Base class of every error that xr_spde raises on purpose."""


class AxisNotFoundError(XrSpdeError, ValueError):
    """A spatial or replicate axis is missing or ambiguous."""


class GridError(XrSpdeError, ValueError):
    """Coordinates do not describe a regular grid."""


class ParameterError(XrSpdeError, ValueError):
    """An argument has a value that the method cannot use."""


class DTypeError(XrSpdeError, TypeError):
    """Data have a dtype that the method cannot use."""


class SchemaError(XrSpdeError, ValueError):
    """A parameter dataset does not follow the published schema."""


class UnknownNameError(XrSpdeError, ValueError):
    """A method, solver or data set of that name does not exist."""


# MemoryError first: it has a constructor of its own, and unpickling in dask workers would
# otherwise find that of another base.
class MemoryGuardError(MemoryError, XrSpdeError):
    """The work would not fit in memory; raised before anything is allocated."""


class SolverError(XrSpdeError, ArithmeticError):
    """A factorisation or an iteration failed."""


class DivergenceError(SolverError):
    """A forecast ran away: its states left what the model was trained on, or are not finite."""


class MissingDependencyError(XrSpdeError, ImportError):
    """An optional library is needed and not installed."""


class DataUnavailableError(XrSpdeError, FileNotFoundError):
    """A data set is neither on disk nor reachable."""


def listed(names: Iterable[object]) -> str:
    """Join names for a message.

    Parameters
    ----------
    names : iterable
        Of dimensions, variables and the like.

    Returns
    -------
    str
        The names in quotes, or "none".
    """
    return ", ".join(repr(str(name)) for name in names) or "none"


def unknown(kind: str, given: object, known: Iterable[str]) -> UnknownNameError:
    """Error for a name that is not in a registry.

    Parameters
    ----------
    kind : str
        What was looked up, in the singular ("solver", "method", "data set").
    given : object
        The name that was asked for.
    known : iterable of str
        The names that exist.

    Returns
    -------
    UnknownNameError
        To be raised by the caller; suggests the closest name where one is close.
    """
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return UnknownNameError(f"unknown {kind} {given!r}; known: {listed(names)}{hint}")

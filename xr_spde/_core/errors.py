"""The errors of the package: one base class, each subclass also the builtin kind."""

from __future__ import annotations

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


class MemoryGuardError(XrSpdeError, MemoryError):
    """The work would not fit in memory; raised before anything is allocated."""


class SolverError(XrSpdeError, ArithmeticError):
    """A factorisation or an iteration failed."""


class MissingDependencyError(XrSpdeError, ImportError):
    """An optional library is needed and not installed."""


class DataUnavailableError(XrSpdeError, FileNotFoundError):
    """A data set is neither on disk nor reachable."""


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
        To be raised by the caller.
    """
    names = ", ".join(repr(name) for name in known)
    return UnknownNameError(f"unknown {kind} {given!r}; known: {names}")

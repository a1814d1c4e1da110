"""The errors that xr_spde raises on purpose, to be caught by name.

All derive from `XrSpdeError`, and each is also the builtin kind that fits (`ValueError`,
`TypeError`, `MemoryError`, `ImportError`, ...).
"""

from xr_spde._core.errors import (
    AxisNotFoundError,
    DataUnavailableError,
    DivergenceError,
    DTypeError,
    GridError,
    MemoryGuardError,
    MissingDependencyError,
    ParameterError,
    SchemaError,
    SolverError,
    UnknownNameError,
    XrSpdeError,
)

__all__ = [
    "AxisNotFoundError",
    "DTypeError",
    "DataUnavailableError",
    "DivergenceError",
    "GridError",
    "MemoryGuardError",
    "MissingDependencyError",
    "ParameterError",
    "SchemaError",
    "SolverError",
    "UnknownNameError",
    "XrSpdeError",
]

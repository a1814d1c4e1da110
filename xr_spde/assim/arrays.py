"""Arrays of numpy, or of a library that has the same functions, such as cupy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import DTypeError, ParameterError


def namespace(array: Any) -> Any:
    """Return the module that an array belongs to: numpy, or cupy on a graphics card.

    Nothing is imported: who holds an array has its library loaded already.

    Parameters
    ----------
    array : array
        Anything else than an array counts as numpy's.

    Returns
    -------
    module
    """
    module = sys.modules.get(type(array).__module__.partition(".")[0])
    return module if hasattr(array, "dtype") and hasattr(module, "matmul") else np


def to_host(array: Any) -> NDArray[Any]:
    """Copy an array to the host; one of numpy is returned as it is."""
    return np.asarray(array.get() if namespace(array) is not np else array)


def as_real(name: str, array: Any) -> Any:
    """Return an array of float32 or float64; integers become float64.

    Parameters
    ----------
    name : str
        Of the argument, for the error.
    array : array_like
        Any shape.

    Returns
    -------
    array
        Of the library that the argument came from.

    Raises
    ------
    DTypeError
        For complex numbers, objects, text or dates.
    """
    found = array if hasattr(array, "dtype") else np.asarray(array)
    if found.dtype in (np.float32, np.float64):
        return found
    if found.dtype.kind not in "fiub":
        raise DTypeError(
            f"{name} has dtype {found.dtype}; expected real numbers, float32 or float64"
        )
    return found.astype(np.float32 if found.dtype == np.float16 else np.float64)


def as_members(name: str, array: Any) -> Any:
    """Return an ensemble as real numbers, members along the first axis.

    Parameters
    ----------
    name : str
        Of the argument, for the error.
    array : array_like (N, ...)
        One row per member.

    Returns
    -------
    array (N, ...)

    Raises
    ------
    ParameterError
        For fewer than two axes or fewer than two members.
    """
    found = as_real(name, array)
    if found.ndim < 2:
        raise ParameterError(
            f"{name} has shape {found.shape}; expected (members, values), members first"
        )
    if found.shape[0] < 2:
        raise ParameterError(
            f"{name} holds {found.shape[0]} member(s); an ensemble needs two at least to have a "
            "spread, and tens to have a useful one"
        )
    return found


def refuse_broken(name: str, values: Any, *, what: str) -> None:
    """Refuse an ensemble in which some members lack values that others have.

    Parameters
    ----------
    name : str
        Of the argument.
    values : array (N, ...)
        Values that are missing in all members are let pass: they are land.
    what : str
        What a value stands at, in the singular ("grid point", "observation").

    Raises
    ------
    ParameterError
        Names the first members with NaN or infinite values, and how many values lack.
    """
    xp = namespace(values)
    flat = values.reshape(values.shape[0], -1)
    lacks = ~xp.isfinite(flat)
    partly = lacks & ~lacks.all(axis=0)
    counts = to_host(partly.sum(axis=1))
    if not counts.any():
        return
    members = np.flatnonzero(counts)
    listed = ", ".join(map(str, members[:5])) + (", ..." if members.size > 5 else "")
    where = int(np.flatnonzero(to_host(partly[int(members[0])]))[0])
    raise ParameterError(
        f"{name} has NaN or infinite values in member(s) {listed} (counted from 0; "
        f"{int(counts.sum())} values, the first at {what} {where} of member {members[0]}) where "
        "other members have numbers; leave these members out, or fill them"
    )

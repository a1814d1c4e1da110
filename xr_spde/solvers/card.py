"""What differs between the processor and a graphics card: module of arrays, memory, transfers."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from xr_spde._core.errors import MemoryGuardError
from xr_spde._core.lazyimport import require
from xr_spde._core.memory import check_memory, format_bytes, memory_budget
from xr_spde._core.options import get_option

_SHARE = 0.9


def array_module(device: str) -> types.ModuleType:
    """Return numpy for the processor, cupy for a graphics card.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        As from :func:`xr_spde._core.device.resolve_device`.

    Returns
    -------
    module

    Raises
    ------
    MissingDependencyError
        If cupy is needed and not installed.
    """
    return require("cupy", "gpu") if device == "cuda" else np


def free_memory(xp: Any) -> int:
    """Return the bytes that may still be taken on the card: its free memory and the pool's."""
    return int(xp.cuda.Device().mem_info[0]) + int(xp.get_default_memory_pool().free_bytes())


def budget(xp: Any) -> int:
    """Return the bytes that one factorisation may take where the arrays of a module live.

    Parameters
    ----------
    xp : module
        numpy or cupy.

    Returns
    -------
    int
        Option ``memory_limit``, or 60 % of what is available on the host, 90 % on a card.
    """
    if xp is np or get_option("memory_limit") is not None:
        return memory_budget()
    return int(_SHARE * free_memory(xp))


def check(xp: Any, needed: float, *, what: str, remedy: str) -> None:
    """Refuse work that would not fit where the arrays of a module live.

    Parameters
    ----------
    xp : module
        numpy or cupy.
    needed : float
        Bytes the work is predicted to take.
    what, remedy : str
        As in :func:`xr_spde._core.memory.check_memory`.

    Raises
    ------
    MemoryGuardError
        If it exceeds :func:`budget`.
    """
    if xp is np:
        check_memory(needed, what=what, remedy=remedy)
    elif needed > budget(xp):
        raise MemoryGuardError(
            f"{what} would take about {format_bytes(needed)} on the graphics card; the limit is "
            f"{format_bytes(budget(xp))}. {remedy} To use the processor type "
            'xr_spde.set_options(device="cpu")'
        )


def to_card(xp: Any, array: Any, dtype: np.dtype[Any]) -> Any:
    """Copy an array (n,) or (n, K) of the host to the card, in its own order of storage."""
    turned = np.ascontiguousarray(array.T, dtype=dtype)
    return xp.asarray(turned).T


def to_host(array: Any) -> Any:
    """Copy an array (n,) or (n, K) of the card to the host; contiguous by column."""
    return array.T.get().T


@contextmanager
def exhausted(xp: Any, what: str, fixed: int, *, count: int = 0, each: int = 0) -> Iterator[None]:
    """Say what was too much where the card runs out of memory, and how much would fit.

    Parameters
    ----------
    xp : module
        numpy or cupy.
    what : str
        What is done ("factorising").
    fixed : int
        Bytes that it takes besides right-hand sides.
    count, each : int
        Right-hand sides that are solved for at once, and bytes that each takes.

    Raises
    ------
    MemoryGuardError
        In place of the library's own error.
    """
    if xp is np:
        yield
        return
    try:
        yield
    except xp.cuda.memory.OutOfMemoryError as error:
        free = free_memory(xp)
        fit = min((free - fixed) // each, count - 1) if each else 0
        remedy = f"{fit} right-hand sides at once would fit: type chunks={fit}. " if fit > 0 else ""
        raise MemoryGuardError(
            f"the graphics card ran out of memory while {what}, which takes about "
            f"{format_bytes(fixed + count * each)}, with {format_bytes(free)} free. {remedy}"
            'Less is taken by dtype="float32", none by xr_spde.set_options(device="cpu")'
        ) from error

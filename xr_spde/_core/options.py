"""Settings of the package: a process-wide layer and, over it, one per context.

A plain call changes the process-wide layer, so that worker threads see it. A ``with``
block changes only the context it runs in (thread or asyncio task). Work that runs
elsewhere, such as a dask task, takes the options of the place where it was built along by
:func:`carry_options`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, TypedDict, Unpack, overload

import numpy as np

from xr_spde._core.errors import ParameterError, unknown

__all__ = ["DEVICES", "carry_options", "get_option", "get_options", "set_options"]

DEVICES: Final = ("auto", "cpu", "cuda")


class OptionValues(TypedDict, total=False):
    """The options and their types."""

    device: Literal["auto", "cpu", "cuda"]
    memory_limit: int | None
    factor_cache: int
    progress: bool


_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {"device": "auto", "memory_limit": None, "factor_cache": 2**30, "progress": False}
)


def _device(value: object) -> str:
    if isinstance(value, str) and value in DEVICES:
        return value
    raise unknown("device", value, DEVICES)


def _byte_count(name: str, value: object, *, minimum: int) -> int:
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not is_number or not float(value).is_integer():  # type: ignore[arg-type]
        raise ParameterError(
            f"option {name}={value!r}: expected a whole number of bytes; "
            f"type for instance {name}=2 * 2**30 for 2 GiB"
        )
    number = int(value)  # type: ignore[call-overload]
    if number < minimum:
        raise ParameterError(f"option {name}={value!r}: expected at least {minimum} byte(s)")
    return int(number)


def _memory_limit(value: object) -> int | None:
    return None if value is None else _byte_count("memory_limit", value, minimum=1)


def _factor_cache(value: object) -> int:
    return _byte_count("factor_cache", value, minimum=0)


def _progress(value: object) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ParameterError(f"option progress={value!r}: expected True or False")


_VALIDATORS: Final[Mapping[str, Callable[[object], Any]]] = MappingProxyType(
    {
        "device": _device,
        "memory_limit": _memory_limit,
        "factor_cache": _factor_cache,
        "progress": _progress,
    }
)


class _ProcessLayer:
    """Process-wide values: a settled base and calls that may still become ``with`` blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled: dict[str, Any] = dict(_DEFAULTS)
        self._open: list[tuple[weakref.ref[set_options], dict[str, Any]]] = []
        self.values: Mapping[str, Any] = _DEFAULTS

    def _refresh(self) -> None:
        # A call whose object is gone can no longer be entered: it is final.
        while self._open and self._open[0][0]() is None:
            self._settled.update(self._open.pop(0)[1])
        merged = dict(self._settled)
        for _, values in self._open:
            merged.update(values)
        self.values = MappingProxyType(merged)

    def push(self, owner: set_options, values: dict[str, Any]) -> None:
        with self._lock:
            self._open.append((weakref.ref(owner), values))
            self._refresh()

    def withdraw(self, owner: set_options) -> None:
        with self._lock:
            self._open = [entry for entry in self._open if entry[0]() is not owner]
            self._refresh()


_process = _ProcessLayer()
_context: ContextVar[Mapping[str, Any] | None] = ContextVar("xr_spde_options", default=None)


class set_options:  # noqa: N801 - reads as a verb, as in xarray
    """Change options, for good or inside a ``with`` block.

    Called alone it sets the values for the whole process (all threads). Used as a context
    manager it sets them for the current context only and restores them at the end.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where linear algebra runs. ``"cuda"`` needs cupy (extra ``gpu``) and a graphics card;
        ``"auto"`` takes a card where cupy reports one and the factor fits in its memory.
    memory_limit : int or None
        Bytes that one factorisation may take. None: 60 % of what is available, 90 % on a card.
    factor_cache : int
        Bytes of factorisations kept per process (default 1 GiB).
    progress : bool
        Show progress bars (default False).

    Raises
    ------
    UnknownNameError
        An option or a device of that name does not exist.
    ParameterError
        A value of the wrong kind.

    Notes
    -----
    Lazy results keep the options that held where they were built, whatever thread or process
    computes them: put the ``with`` block around `estimate` or `emulate`, not around `compute`.

    Examples
    --------
    >>> import xr_spde
    >>> with xr_spde.set_options(factor_cache=0):
    ...     xr_spde.get_options()["factor_cache"]
    0
    >>> xr_spde.get_options()["factor_cache"]
    1073741824
    """

    def __init__(self, **options: Unpack[OptionValues]) -> None:
        given: dict[str, Any] = dict(options)
        for name in given:
            if name not in _VALIDATORS:
                raise unknown("option", name, _VALIDATORS)
        self._values = {name: _VALIDATORS[name](value) for name, value in given.items()}
        self._tokens: list[Token[Mapping[str, Any] | None]] = []
        _process.push(self, self._values)

    def __enter__(self) -> set_options:
        """Make the values those of this context instead of the process."""
        _process.withdraw(self)
        self._tokens.append(_context.set({**(_context.get() or {}), **self._values}))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the values of the surrounding context."""
        _context.reset(self._tokens.pop())


def get_options() -> dict[str, Any]:
    """Return all options as they hold here.

    Returns
    -------
    dict
        Name to value; a copy.

    Examples
    --------
    >>> import xr_spde
    >>> sorted(xr_spde.get_options())
    ['device', 'factor_cache', 'memory_limit', 'progress']
    """
    return {**_process.values, **(_context.get() or {})}


@overload
def get_option(name: Literal["device"]) -> str: ...
@overload
def get_option(name: Literal["memory_limit"]) -> int | None: ...
@overload
def get_option(name: Literal["factor_cache"]) -> int: ...
@overload
def get_option(name: Literal["progress"]) -> bool: ...
def get_option(name: str) -> Any:
    """Return one option as it holds here.

    Parameters
    ----------
    name : str
        Name of the option.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    UnknownNameError
        There is no such option.
    """
    options = get_options()
    if name not in options:
        raise unknown("option", name, options)
    return options[name]


class _Carried:
    """A function that runs under the options of the place where it was built; pickles."""

    def __init__(self, func: Callable[..., Any], options: dict[str, Any]) -> None:
        self.func = func
        self.options = options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = _context.set({**(_context.get() or {}), **self.options})
        try:
            return self.func(*args, **kwargs)
        finally:
            _context.reset(token)

    def __dask_tokenize__(self) -> tuple[str, Callable[..., Any], list[tuple[str, Any]]]:
        return ("xr_spde.carry_options", self.func, sorted(self.options.items()))

    def __repr__(self) -> str:
        return f"carry_options({self.func!r})"


def carry_options(func: Callable[..., Any]) -> Callable[..., Any]:
    """Bind a function to the options that hold now.

    Context variables reach neither the threads of a pool nor other processes, so a task
    built inside ``with set_options(...)`` must take the options along.

    Parameters
    ----------
    func : callable
        A function; picklable if the result is to be.

    Returns
    -------
    callable
        Same signature; runs under today's options in whatever thread or process.
    """
    return _Carried(func, get_options())

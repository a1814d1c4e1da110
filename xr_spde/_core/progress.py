"""A progress bar on the standard error stream, without a dependency."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from xr_spde._core.options import get_option

__all__ = ["track"]

Item = TypeVar("Item")

_WIDTH = 30
_REFRESH_SECONDS = 0.1


def _line(label: str, done: int, total: int | None, seconds: float) -> str:
    clock = f"{seconds:6.1f} s"
    if not total:
        return f"\r{label} {done} {clock}"
    filled = min(_WIDTH, _WIDTH * done // total)
    bar = "#" * filled + "-" * (_WIDTH - filled)
    return f"\r{label} [{bar}] {done}/{total} {clock}"


def track(
    items: Iterable[Item],
    *,
    label: str = "",
    total: int | None = None,
    enabled: bool | None = None,
    stream: TextIO | None = None,
) -> Iterator[Item]:
    """Pass items on and draw a bar while they are consumed.

    Parameters
    ----------
    items : iterable
        What to iterate over.
    label : str
        Written before the bar.
    total : int, optional
        Number of items, where ``items`` has no length.
    enabled : bool, optional
        Draw or not; default: the option ``progress``.
    stream : text stream, optional
        Default: standard error.

    Yields
    ------
    object
        The items, unchanged.

    Examples
    --------
    >>> from xr_spde._core.progress import track
    >>> sum(track(range(4), enabled=False))
    6
    """
    if not (get_option("progress") if enabled is None else enabled):
        yield from items
        return
    out = sys.stderr if stream is None else stream
    count = len(items) if total is None and isinstance(items, Sized) else total
    start = drawn = time.perf_counter()
    done = 0
    out.write(_line(label, 0, count, 0.0))
    try:
        for item in items:
            yield item
            done += 1
            now = time.perf_counter()
            if now - drawn >= _REFRESH_SECONDS:
                drawn = now
                out.write(_line(label, done, count, now - start))
    finally:
        out.write(_line(label, done, count, time.perf_counter() - start) + "\n")
        out.flush()

"""One BLAS thread while numbers must not depend on the number of cores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import threadpoolctl


@lru_cache(maxsize=1)
def _controller() -> Any:
    """Return the handle of the BLAS libraries, which takes a millisecond to find."""
    return threadpoolctl.ThreadpoolController()


_lock = threading.Lock()
_state: dict[str, Any] = {"users": 0, "limits": None}


def _take_control() -> None:
    """Let the calling thread set limits.

    From threadpoolctl 3.8 on, only the first thread that ever set a limit may change it, and
    others are ignored without a word; the count of users below makes changing it safe.
    """
    controller = getattr(threadpoolctl, "OpenBLASController", None)
    release = getattr(controller, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside the context, from any number of Python threads at once.

    The limit belongs to the process: the first one in sets it and the last one out restores what
    was there. Blocks of right-hand sides then give the same bits on any machine load, and a
    scheduler with one worker per core is not oversubscribed.
    """
    with _lock:
        if _state["users"] == 0:
            _take_control()
            _state["limits"] = _controller().limit(limits=1, user_api="blas")
        _state["users"] += 1
    try:
        yield
    finally:
        with _lock:
            _state["users"] -= 1
            if _state["users"] == 0:
                _take_control()
                _state["limits"].restore_original_limits()
                _state["limits"] = None
                _take_control()

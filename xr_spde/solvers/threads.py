"""One BLAS thread while numbers must not depend on the number of cores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_state: dict[str, Any] = {"users": 0, "limits": None}


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside the context, from any number of Python threads at once.

    The limit belongs to the process: the first one in sets it and the last one out restores what
    was there. Blocks of right-hand sides then give the same bits on any machine load, and a
    scheduler with one worker per core is not oversubscribed.
    """
    with _lock:
        if _state["users"] == 0:
            _state["limits"] = ThreadpoolController().limit(limits=1, user_api="blas")
        _state["users"] += 1
    try:
        yield
    finally:
        with _lock:
            _state["users"] -= 1
            if _state["users"] == 0:
                _state["limits"].restore_original_limits()
                _state["limits"] = None

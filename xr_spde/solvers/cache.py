"""Factors kept per process, so that a model that travels as parameters is factorised once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar, cast

from xr_spde._core.options import get_option


class Sized(Protocol):
    """Anything that knows its memory."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""


T = TypeVar("T", bound=Sized)


class FactorCache:
    """Least-recently-used store of factors and of arrays derived from them.

    The budget is the option ``factor_cache`` in bytes, read at every use. One entry that alone
    exceeds the budget is kept beside those that share it, until the next such one, since blocks of
    one ensemble come one after the other; a budget of 0 keeps nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()
        self._building: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """Return the entry of `key`, built at most once however many threads ask for it.

        Parameters
        ----------
        key : hashable
            Identifies the content.
        build : callable
            Makes the entry. An exception reaches the caller and leaves nothing behind.

        Returns
        -------
        object
            What `build` returned, now or earlier.
        """
        with self._lock:
            if key in self._entries:
                return cast(T, self._use(key))
            turn = self._building.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._entries:
                    return cast(T, self._use(key))
            try:
                entry = build()
                with self._lock:
                    self._entries[key] = entry
                    self._trim()
            finally:
                with self._lock:
                    self._building.pop(key, None)
        return entry

    def _use(self, key: Hashable) -> Any:
        """Return an entry and mark it as the latest used."""
        self._entries.move_to_end(key)
        return self._entries[key]

    def _trim(self) -> None:
        """Drop the oldest entries until the rest fits the budget."""
        budget = get_option("factor_cache")
        if budget == 0:
            self._entries.clear()
        large = {id(entry) for entry in self._entries.values() if entry.nbytes > budget}
        kept, total = set[int](), 0
        for key, entry in reversed(list(self._entries.items())):
            if id(entry) in kept:
                continue  # one factor may serve under two keys
            if id(entry) in large:
                fits = not kept & large
            else:
                fits = total + entry.nbytes <= budget
                total += entry.nbytes
            if fits:
                kept.add(id(entry))
            else:
                del self._entries[key]

    def _total(self) -> int:
        distinct = {id(entry): entry for entry in self._entries.values()}
        return sum(int(entry.nbytes) for entry in distinct.values())

    @property
    def nbytes(self) -> int:
        """Memory of all entries in bytes."""
        with self._lock:
            return self._total()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    def clear(self) -> None:
        """Forget every entry."""
        with self._lock:
            self._entries.clear()


FACTORS = FactorCache()
"""The cache of this process."""

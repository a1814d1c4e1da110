"""The factor cache: one build per key, and a budget."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from xr_spde._core.options import set_options
from xr_spde.solvers.cache import FactorCache


def block(size: int) -> np.ndarray:
    return np.zeros(size, dtype=np.uint8)


def test_second_request_returns_the_same_object():
    cache = FactorCache()
    first = cache.get("a", lambda: block(10))
    assert cache.get("a", lambda: block(99)) is first
    assert len(cache) == 1
    assert cache.nbytes == 10
    cache.clear()
    assert "a" not in cache


def test_least_recently_used_goes_first():
    cache = FactorCache()
    with set_options(factor_cache=100):
        for key in "abc":
            cache.get(key, lambda: block(30))
        cache.get("a", lambda: block(30))
        cache.get("d", lambda: block(30))
        assert [key in cache for key in "abcd"] == [True, False, True, True]


def test_an_entry_over_the_budget_is_kept_until_the_next_such_one():
    cache = FactorCache()
    with set_options(factor_cache=100):
        cache.get("a", lambda: block(30))
        cache.get("big", lambda: block(1000))
        cache.get("b", lambda: block(30))
        assert [key in cache for key in ("a", "big", "b")] == [True, True, True]
        cache.get("bigger", lambda: block(2000))
        assert [key in cache for key in ("a", "big", "b", "bigger")] == [True, False, True, True]
        for key in "cde":
            cache.get(key, lambda: block(30))
        assert [key in cache for key in ("a", "b", "c", "bigger")] == [False, False, True, True]


def test_one_entry_under_two_keys_counts_once():
    cache = FactorCache()
    with set_options(factor_cache=100):
        shared = cache.get("a", lambda: block(60))
        assert cache.get("b", lambda: shared) is shared
        assert cache.nbytes == 60
        assert "a" in cache


def test_no_budget_keeps_nothing():
    cache = FactorCache()
    with set_options(factor_cache=0):
        assert cache.get("a", lambda: block(1)).size == 1
        assert len(cache) == 0


def test_one_build_under_threads():
    cache, built, results = FactorCache(), [], []

    def build() -> np.ndarray:
        built.append(1)
        time.sleep(0.05)
        return block(8)

    threads = [
        threading.Thread(target=lambda: results.append(cache.get("k", build))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert all(result is results[0] for result in results)


def test_different_keys_build_side_by_side():
    cache, meeting = FactorCache(), threading.Barrier(2, timeout=10)

    def build() -> np.ndarray:
        meeting.wait()
        return block(8)

    threads = [threading.Thread(target=cache.get, args=(key, build)) for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 2


def test_a_failed_build_leaves_nothing_behind():
    cache = FactorCache()

    def fail() -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.get("a", fail)
    assert cache.get("a", lambda: block(3)).size == 3

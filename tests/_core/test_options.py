"""Options: two layers, threads, and tasks that take them along."""

from __future__ import annotations

import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde._core.options import carry_options, get_option, get_options, set_options


def cache_size(_: int = 0) -> int:
    return get_option("factor_cache")


@pytest.fixture(autouse=True)
def _unchanged_afterwards():
    before = get_options()
    yield
    set_options(**before)


def in_thread(func):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(func).result()


def test_defaults():
    assert get_options() == {
        "device": "auto",
        "memory_limit": None,
        "factor_cache": 2**30,
        "progress": False,
    }


def test_plain_call_reaches_every_thread():
    set_options(factor_cache=7)
    gc.collect()
    assert cache_size() == 7
    assert in_thread(cache_size) == 7


def test_with_block_restores_and_nests():
    with set_options(factor_cache=1, progress=True):
        with set_options(factor_cache=2):
            assert (cache_size(), get_option("progress")) == (2, True)
        assert cache_size() == 1
    assert (cache_size(), get_option("progress")) == (2**30, False)


def test_with_block_restores_after_an_error():
    with pytest.raises(RuntimeError), set_options(factor_cache=1):
        raise RuntimeError
    assert cache_size() == 2**30


def test_one_object_may_be_entered_twice():
    option = set_options(factor_cache=3)
    with option:
        with option:
            assert cache_size() == 3
        assert cache_size() == 3
    assert cache_size() == 2**30


def test_with_blocks_of_two_threads_do_not_meet():
    inside = threading.Barrier(2)
    seen: dict[int, set[int]] = {1: set(), 2: set()}

    def work(size: int) -> None:
        for _ in range(50):
            with set_options(factor_cache=size):
                inside.wait()
                seen[size].add(cache_size())
                inside.wait()

    threads = [threading.Thread(target=work, args=(size,)) for size in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {1: {1}, 2: {2}}
    assert cache_size() == 2**30


def test_carried_function_sees_the_options_of_its_birth():
    with set_options(factor_cache=11):
        bare, carried = cache_size, carry_options(cache_size)
    assert in_thread(bare) == 2**30
    assert in_thread(carried) == 11
    assert pickle.loads(pickle.dumps(carried))() == 11
    assert cache_size() == 2**30


def test_carried_function_has_a_stable_dask_token():
    tokenize = pytest.importorskip("dask.base").tokenize
    assert tokenize(carry_options(cache_size)) == tokenize(carry_options(cache_size))
    with set_options(factor_cache=11):
        other = carry_options(cache_size)
    assert tokenize(other) != tokenize(carry_options(cache_size))


def test_numbers_of_other_libraries_are_taken():
    with set_options(memory_limit=np.int64(5), factor_cache=1e9):
        assert get_option("memory_limit") == 5
        assert type(get_option("factor_cache")) is int


@pytest.mark.parametrize(
    ("option", "error", "words"),
    [
        ({"devices": "cpu"}, UnknownNameError, "known: 'device'"),
        ({"device": "gpu"}, UnknownNameError, "'cuda'"),
        ({"device": 0}, UnknownNameError, "'auto'"),
        ({"memory_limit": 0}, ParameterError, "at least 1 byte"),
        ({"memory_limit": "2GB"}, ParameterError, r"2 \* 2\*\*30"),
        ({"factor_cache": -1}, ParameterError, "at least 0"),
        ({"factor_cache": 1.5}, ParameterError, "whole number"),
        ({"factor_cache": float("inf")}, ParameterError, "whole number"),
        ({"factor_cache": True}, ParameterError, "whole number"),
        ({"factor_cache": None}, ParameterError, "whole number"),
        ({"progress": 1}, ParameterError, "True or False"),
    ],
)
def test_bad_values_are_named_and_change_nothing(option, error, words):
    before = get_options()
    with pytest.raises(error, match=words):
        set_options(**{"factor_cache": 1, **option})
    assert get_options() == before


def test_unknown_option_lists_the_known():
    with pytest.raises(UnknownNameError, match="'memory_limit'"):
        get_option("memory")

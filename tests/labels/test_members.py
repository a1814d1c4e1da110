"""The graph of an ensemble: block sizes, keys and independence of its blocks."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

from xr_spde import set_options
from xr_spde._core.options import get_option
from xr_spde.labels.members import BLOCK_BYTES, lazy_members, members_per_block


@pytest.mark.parametrize("n", [1, 31, 32, 100, 1000, 10**6])
@pytest.mark.parametrize("member_bytes", [1, 4 * 46 * 71, 4 * 192 * 288, 8 * 512 * 1024, 10**9])
@pytest.mark.parametrize("group", [8, 64])
def test_blocks_are_multiples_of_a_group_within_64_megabytes(n, member_bytes, group):
    block = members_per_block(n, member_bytes, group)
    assert 1 <= block <= n
    assert block % group == 0 or block == n
    assert block * member_bytes <= BLOCK_BYTES or block <= group
    assert -(-n // block) <= 8 or (block + group) * member_bytes > BLOCK_BYTES


class Numbered:
    """Members ``a + m b``, and how often their maps were prepared."""

    prepared = 0

    def prepare(self, a, b):
        self.prepared += 1
        return a, b

    def __call__(self, start, stop, path, shared):
        a, b = shared
        return np.stack([a + m * b + 1000 * sum(path) for m in range(start, stop)])

    def __dask_tokenize__(self):
        return "numbered"


number_members = Numbered()


def test_every_block_gets_its_members_and_its_leading_index():
    a = np.arange(24.0).reshape(2, 3, 4)
    b = da.ones((2, 3, 4), chunks=(1, 2, 3))
    block = Numbered()
    members = lazy_members(block, [a, b], n=10, per_block=4, dtype="f8", token="t")
    assert members.chunks == ((4, 4, 2), (1, 1), (3,), (4,))
    expected = a + np.arange(10.0)[:, None, None, None]
    expected[:, 1] += 1000
    np.testing.assert_array_equal(members.compute(scheduler="sync"), expected)
    assert block.prepared == 2  # leading indices
    plain = lazy_members(number_members, [a[0], b[0]], n=3, per_block=2, dtype="f8", token="t")
    np.testing.assert_array_equal(plain.compute(), expected[:3, 0])


def test_names_follow_from_content():
    a = np.zeros((3, 4))

    def name(token="t", array=a, n=10):
        return lazy_members(
            number_members, [array, array], n=n, per_block=4, dtype="f8", token=token
        ).name

    assert name() == name()
    assert len({name(), name("u"), name(array=a + 1), name(n=11)}) == 4


class LimitAtWork:
    def prepare(self, a):
        return np.full(a.shape, get_option("memory_limit"))

    def __call__(self, start, stop, path, shared):
        return np.stack([shared + 0 * get_option("memory_limit")] * (stop - start))


def test_options_of_the_place_of_building_reach_the_tasks():
    with set_options(memory_limit=12345):
        members = lazy_members(
            LimitAtWork(), [np.zeros((2, 2))], n=2, per_block=1, dtype="f8", token=0
        )
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(members.compute(), 12345)

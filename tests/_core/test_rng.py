"""Random streams: identity, independence, seeds of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import member_generator, resolve_seed


def test_stream_is_the_published_construction():
    expected = np.random.Generator(np.random.SFC64(np.random.SeedSequence(3, spawn_key=(7, 2))))
    assert np.array_equal(member_generator(3, 7, 2).standard_normal(9), expected.standard_normal(9))


def test_members_are_all_different_and_uncorrelated():
    draws = np.stack([member_generator(1, m).standard_normal(4000) for m in range(20)])
    correlation = np.corrcoef(draws)[np.triu_indices(20, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_a_path_is_not_a_larger_member_number():
    identities = [(0,), (1,), (0, 0), (0, 1), (1, 0)]
    first = {identity: member_generator(5, *identity).integers(2**63) for identity in identities}
    assert len(set(first.values())) == len(identities)


def test_integers_stand_for_themselves():
    big = 2**127 + 1
    assert resolve_seed(0) == 0
    assert resolve_seed(np.uint8(3)) == 3
    assert resolve_seed(big) == big
    assert resolve_seed(np.random.SeedSequence(9)) == 9


def test_children_of_a_seed_sequence_differ():
    one, two = np.random.SeedSequence(9).spawn(2)
    assert len({resolve_seed(one), resolve_seed(two), 9}) == 3
    assert resolve_seed(one) == resolve_seed(np.random.SeedSequence(9).spawn(1)[0])


def test_generator_gives_and_advances():
    generator = np.random.default_rng(4)
    first, second = resolve_seed(generator), resolve_seed(generator)
    assert first != second
    assert first == resolve_seed(np.random.default_rng(4))


def test_none_is_fresh_and_wide():
    drawn = {resolve_seed(None) for _ in range(8)}
    assert len(drawn) == 8
    assert max(drawn) > 2**100


@pytest.mark.parametrize("seed", [-1, True, np.bool_(False), 1.0, np.float64(2), "1", (1, 2)])
def test_other_seeds_are_refused_by_name(seed):
    with pytest.raises(ParameterError, match="seed="):
        resolve_seed(seed)

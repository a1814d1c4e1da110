"""Dissection of a grid in levels of equal boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields.stencil import BOUNDARIES, assemble
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_tree import grow

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    boundary=st.sampled_from(BOUNDARIES),
    reach=st.sampled_from([1, 2]),
    leaf=st.sampled_from([1, 4, 16, 100]),
)
def test_boxes_couple_only_to_their_rim_which_comes_later(shape, boundary, reach, leaf):
    made = grid(shape, boundary=boundary, reach=reach, leaf=leaf)
    tree = grow(made)
    n = shape[0] * shape[1]
    np.testing.assert_array_equal(np.sort(tree.order), np.arange(n))
    np.testing.assert_array_equal(tree.place[tree.order], np.arange(n))
    pattern = assemble(np.ones((9, *shape)), boundary=boundary)
    pattern = (pattern.T @ pattern if reach == 2 else pattern + pattern.T).tocsr()
    pattern = pattern[tree.order][:, tree.order]
    seen = 0
    for batch in tree.bottom_up():
        assert (batch.number, batch.start) == (seen, batch.index[0, 0])
        seen += batch.count
        assert batch.index.shape == (batch.count, batch.front)
        pivots, rims = batch.index[:, : batch.pivots], batch.index[:, batch.pivots :]
        np.testing.assert_array_equal(pivots.ravel(), batch.start + np.arange(pivots.size))
        for own, rim in zip(pivots, rims, strict=True):
            assert np.unique(rim).size == rim.size
            assert (rim > own.max()).all()
            coupled = pattern[own].indices
            assert np.isin(coupled[coupled > own.max()], rim).all()


@settings(max_examples=60, deadline=None)
@given(shape=shapes, boundary=st.sampled_from(BOUNDARIES), reach=st.sampled_from([1, 2]))
def test_links_find_every_child_once(shape, boundary, reach):
    tree = grow(grid(shape, boundary=boundary, reach=reach, leaf=6))
    for level, below in zip(tree.levels, (*tree.levels[1:], ()), strict=True):
        found = [np.zeros(batch.count, dtype=int) for batch in below]
        for batch in level:
            for link in batch.links:
                child = below[link.child]
                found[link.child][link.children] += 1
                covered = np.zeros(child.rim, dtype=int)
                for run in link.pivots + link.rim:
                    above, start, length = run
                    assert (above < batch.pivots) == (run in link.pivots)
                    covered[start : start + length] += 1
                    first = child.pivots + start
                    np.testing.assert_array_equal(
                        batch.index[link.parents, above : above + length],
                        child.index[link.children, first : first + length],
                    )
                assert (covered == 1).all()
        assert all((count == 1).all() for count in found)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, boundary=st.sampled_from(BOUNDARIES), reach=st.sampled_from([1, 2, 3]))
def test_counts_without_arrays_are_those_of_the_tree(shape, boundary, reach):
    made = grid(shape, boundary=boundary, reach=reach, leaf=9)
    counted = [
        sorted((made.cut(k).pivots, k.rim) for k, count in level.items() for _ in range(count))
        for level in made.levels()
    ]
    held = [
        sorted((b.pivots, b.rim) for b in level for _ in range(b.count))
        for level in grow(made).levels
    ]
    assert counted == held


def test_a_level_is_a_few_batches():
    tree = grow(grid((192, 288), boundary="cylinder"))
    assert max(len(level) for level in tree.levels) <= 8
    assert tree.nbytes < 12 * 2**20


def test_bad_arguments_are_named():
    with pytest.raises(UnknownNameError, match="sphere"):
        grid((4, 5), boundary="sphere")
    with pytest.raises(ParameterError, match=r"shape is \(0, 5\)"):
        grid((0, 5), boundary="plane")
    with pytest.raises(ParameterError, match="reach is 0"):
        grid((4, 5), boundary="plane", reach=0)

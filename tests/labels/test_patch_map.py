"""Patches and windows: every cell and step is there, with weights that sum to one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xr_spde.labels.patch_map import PatchPlan, plan_axis
from xr_spde.labels.window_blend import plan_blocks, plan_spans

SIZES = st.tuples(st.integers(1, 90), st.integers(2, 50), st.floats(0.0, 0.99), st.booleans())


@given(SIZES)
def test_weights_sum_to_one(sizes):
    size, side, share, periodic = sizes
    overlap = int(share * side)
    axis = plan_axis(size, side, overlap, periodic=periodic)
    assert axis.side <= max(side, 1)
    total, least = np.zeros(size), 0.0
    for k in range(len(axis.starts)):
        seen = 0
        for cells, own in axis.pieces(k):
            total[cells] += axis.weights[k, own]
            seen += own.stop - own.start
            least = min(least, axis.weights[k].min())
        assert seen == axis.side
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    assert least >= 0.0


@given(SIZES)
def test_what_is_next_to_a_cut_has_no_weight(sizes):
    size, side, share, periodic = sizes
    overlap = int(share * side)
    axis = plan_axis(size, side, overlap, periodic=periodic)
    crop = overlap // 3
    for k, start in enumerate(axis.starts):
        if crop and (periodic or start > 0):
            assert not axis.weights[k, :crop].any()
        if crop and (periodic or start + axis.side < size):
            assert not axis.weights[k, -crop:].any()


@given(st.integers(1, 30), st.integers(1, 40), st.integers(6, 20), st.integers(0, 5), st.booleans())
def test_what_is_cut_is_joined_again(ny, nx, side, overlap, periodic):
    plan = PatchPlan(plan_axis(ny, side, overlap), plan_axis(nx, side, overlap, periodic=periodic))
    field = np.random.default_rng(0).standard_normal((2, ny, nx))
    out = np.zeros_like(field)
    for number in range(plan.count):
        band = plan.band([number])
        part = plan.cut(field[:, band], number, band.start)
        assert part.shape == (2, *plan.side)
        plan.add(out, part, number)
    np.testing.assert_allclose(out, field, atol=1e-12)


@given(st.integers(1, 60), st.integers(1, 15), st.integers(1, 15), st.sampled_from([None, 0, 2]))
def test_blocks_cover_the_series(steps, window, stride, lead):
    spans = plan_spans(steps, window, min(stride, window), lead=lead)
    blocks = plan_blocks(steps, spans)
    assert [b.start for b in blocks] == [0, *(b.stop for b in blocks[:-1])]
    assert blocks[-1].stop == steps
    for block in blocks:
        np.testing.assert_allclose(block.weights.sum(axis=0), 1.0)
        for k in block.spans:
            assert spans[k].first <= block.start < block.stop <= spans[k].stop
            assert spans[k].stop - spans[k].first == window
            if lead is not None:
                assert (block.start, block.stop) == (spans[k].stop - 1, spans[k].stop)
                assert spans[k].until == block.start - lead

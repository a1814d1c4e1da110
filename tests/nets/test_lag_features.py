"""Lag moments against direct loops of numpy, and the features made of them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from xr_spde.errors import ParameterError  # noqa: E402
from xr_spde.nets.lag_features import (  # noqa: E402
    LAG_GROUPS,
    LAGS,
    PRODUCT_LAGS,
    LagMoments,
    LagPyramid,
    lag_moments,
    lag_products,
)
from xr_spde.nets.local_fit import LOCAL_CHANNELS  # noqa: E402
from xr_spde.sar.statistics import OFFSETS, LagSums, shifted  # noqa: E402

SHAPE = (19, 23)  # the longest lag is 16


def smooth(count, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(count, *shape))
    return white + 0.8 * np.roll(white, 1, -1) + 0.5 * np.roll(white, 1, -2)


def holed(fields, seed=1):
    gone = np.random.default_rng(seed).random(fields.shape) < 0.3
    gone[:, 3, 4] = True  # never seen
    gone[1:, 6, 2], gone[0, 6, 2] = True, False  # seen once
    return np.where(gone, np.nan, fields)


def moments_of(fields) -> LagMoments:
    return lag_moments(torch.from_numpy(np.asarray(fields)))


def direct(fields):
    """Half variance of the difference, mean variance and weight, one pair of cells at a time."""
    count, ny, nx = fields.shape
    lost = int(count > 1)
    moments = np.zeros((3, len(LAGS), ny, nx))

    def variance(values):
        values = values[np.isfinite(values)]
        if len(values) <= lost:
            return 0.0
        return np.sum((values - lost * values.mean()) ** 2) / (len(values) - lost)

    for k, (rows, columns) in enumerate(LAGS):
        for j in range(ny - rows):
            for i in range(max(-columns, 0), nx - max(columns, 0)):
                near, far = fields[:, j, i], fields[:, j + rows, i + columns]
                pairs = np.isfinite(near - far).sum()
                moments[0, k, j, i] = variance(near - far) / 2
                moments[1, k, j, i] = (variance(near) + variance(far)) / 2
                moments[2, k, j, i] = max(pairs - lost, 0) / max(count - 1, 1)
    return moments


def test_lags_are_a_half_plane_without_repeats():
    assert [len(group) for group in LAG_GROUPS] == [12, 8, 8, 8]
    assert len(set(LAGS)) == 36
    assert not {(-j, -i) for j, i in LAGS} & set(LAGS)
    assert min(j for j, _ in LAGS) == 0
    for k, group in enumerate(LAG_GROUPS):
        assert set(LAG_GROUPS[0]) >= {(j >> k, i >> k) for j, i in group}


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_moments_are_those_of_a_loop(count, gaps):
    fields = smooth(count) + 100.0
    if gaps:
        fields = holed(fields)
    elif count == 1:
        fields -= 100.0
    found = moments_of(fields)
    half, level, weight = direct(fields)
    np.testing.assert_allclose(found.weight[0], weight, atol=1e-12)
    used = weight > 0
    np.testing.assert_allclose(found.half[0].numpy()[used], half[used], atol=1e-9)
    np.testing.assert_allclose(found.level[0].numpy()[used], level[used], atol=1e-9)
    assert all(x.isfinite().all() for x in (found.half, found.level, found.weight, found.variance))
    assert found.replicates.tolist() == [count]
    seen = np.isfinite(fields).sum(0) - int(count > 1)
    expected = np.clip(seen, 0, None) / max(count - 1, 1)
    np.testing.assert_allclose(found.seen[0, 0], expected, atol=1e-12)
    if count > 1:
        there = seen > 0
        variance = np.nanvar(fields[:, there], 0, ddof=1)
        np.testing.assert_allclose(found.variance[0, 0].numpy()[there], variance, atol=1e-9)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("group", range(4))
def test_half_variance_is_level_less_covariance(group, gaps):
    """The estimator's own lag covariances, at its dilations 1, 2, 4 and 8."""
    fields = holed(smooth(9)) if gaps else smooth(9)
    sums = LagSums(SHAPE, periodic=False, dilation=2**group)
    for field in fields:
        sums.add(field)
    statistics = sums.finish()
    found = moments_of(fields)
    compared = 0
    for k, (rows, columns) in enumerate(OFFSETS):
        lag = (2**group * rows, 2**group * columns)
        if lag not in LAGS:
            continue
        at = LAGS.index(lag)
        far = shifted(statistics.variance, lag, periodic=False, fill=np.nan)
        level = 0.5 * (statistics.variance + far)
        used = found.weight[0, at].numpy() > 0
        np.testing.assert_array_equal(used, np.isfinite(statistics.covariance[k]))
        expected = (level - statistics.covariance[k])[used]
        np.testing.assert_allclose(found.half[0, at].numpy()[used], expected, atol=1e-9)
        np.testing.assert_allclose(found.level[0, at].numpy()[used], level[used], atol=1e-9)
        dof = statistics.pairs[k] - 1
        np.testing.assert_allclose(found.weight[0, at].numpy()[used], dof[used] / 8, atol=1e-12)
        compared += used.sum()
    assert compared > 500


def test_weight_is_zero_where_a_pair_is_never_seen():
    fields = smooth(6)
    fields[:, 10:] = np.nan
    fields[:3, :, 5], fields[3:, :, 7] = np.nan, np.nan
    weight = moments_of(fields).weight[0].numpy()
    for k, (rows, _) in enumerate(LAGS):
        assert (weight[k, max(10 - rows, 0) :] == 0).all()
    assert (weight[LAGS.index((0, 2)), :, 5] == 0).all()  # both columns, never together
    assert (weight[LAGS.index((0, 1)), :10, 5] == 0.4).all()  # three replicates of six


@given(seed=st.integers(0, 2**31), gaps=st.booleans(), count=st.integers(1, 12))
def test_order_of_replicates_changes_nothing(seed, gaps, count):
    fields = smooth(count, (18, 20), seed).astype(np.float32)
    if gaps:
        fields = holed(fields, seed)
    order = np.random.default_rng(seed).permutation(count)
    first, second = moments_of(fields), moments_of(fields[order])
    for name in ("half", "level", "weight", "variance", "seen"):
        a, b = getattr(first, name), getattr(second, name)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    # in double precision: the logarithm of a difference that nearly vanishes amplifies rounding
    first, second = moments_of(fields.astype(float)), moments_of(fields[order].astype(float))
    pyramid = LagPyramid(2).double()
    for a, b in zip(pyramid(first.pooled()), pyramid(second.pooled()), strict=True):
        torch.testing.assert_close(
            a[:, :-LOCAL_CHANNELS], b[:, :-LOCAL_CHANNELS], rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)  # local fits are in single precision


def test_float32_survives_a_mean_far_from_zero():
    fields = smooth(8)
    far, near = moments_of((fields + 300.0).astype(np.float32)), moments_of(fields)
    torch.testing.assert_close(far.half, near.half.float(), rtol=2e-3, atol=2e-4)


@pytest.fixture(scope="module")
def fitted():
    """A pyramid whitened on some fields, and their moments."""
    fields = [smooth(10, (48, 64), seed).astype(np.float32) for seed in range(4)]
    cases = [moments_of(field).pooled() for field in fields]
    pyramid = LagPyramid(3)
    pyramid.fit(cases)
    return pyramid, cases


def test_whitening_gives_unit_covariance_on_what_it_was_fitted_to(fitted):
    pyramid, cases = fitted
    features = pyramid(LagMoments.stack(cases))
    pooled = pyramid._pooled(LagMoments.stack(cases))
    for k, (feature, moments) in enumerate(zip(features, pooled, strict=True)):
        n = pyramid.lags(k)
        assert feature.shape == (4, pyramid.channels(k), 24 >> k, 32 >> k)
        half, level, weight = (x[:, :n] for x in (moments.half, moments.level, moments.weight))
        good = (weight > 0).all(1).flatten()
        white = feature[:, :n].movedim(1, -1).reshape(-1, n)[good].double()
        raw = torch.log(half / level).movedim(1, -1).reshape(-1, n)[good].double()
        spread = torch.linalg.eigvalsh(torch.cov(raw.T))
        unit = torch.diag(spread / (spread + 4e-4))  # of 0.02, below which all is rounding
        if k == 0:
            torch.testing.assert_close(unit, torch.eye(len(unit)).double(), rtol=0, atol=0.1)
        torch.testing.assert_close(torch.cov(white.T), unit, rtol=0, atol=1e-3)
        torch.testing.assert_close(white.mean(0), torch.zeros_like(white[0]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(18, 20), (19, 23)])
def test_pooling_weighs_cells_by_what_is_there(shape):
    cells = moments_of(holed(smooth(6, shape)))
    found = cells.pooled().pooled(3)
    assert found.side == 6
    ny, nx = -(-shape[0] // 2), -(-shape[1] // 2)
    assert found.half.shape == (1, 36, -(-ny // 3), -(-nx // 3))
    for j, i in ((0, 0), (1, 2), (2, 3)):  # the last is cut off by the edge of the larger grid
        block = np.s_[0, :, 6 * j : 6 * j + 6, 6 * i : 6 * i + 6]
        weight, seen = cells.weight[block], cells.seen[block]
        total = weight.sum((1, 2))
        torch.testing.assert_close(found.weight[0, :, j, i], total / 36)
        torch.testing.assert_close(found.seen[0, :, j, i], seen.sum((1, 2)) / 36)
        variance = (cells.variance[block] * seen).sum((1, 2)) / seen.sum((1, 2))
        torch.testing.assert_close(found.variance[0, :, j, i], variance)
        for name in ("half", "level"):
            mean = (getattr(cells, name)[block] * weight).sum((1, 2)) / total.clamp(min=1e-12)
            torch.testing.assert_close(getattr(found, name)[0, :, j, i], mean)


def test_lags_without_data_tell_nothing(fitted):
    pyramid, _ = fitted
    empty = moments_of(np.full((5, 16, 16), np.nan, np.float32)).pooled()
    for k, feature in enumerate(pyramid(empty)):
        n = pyramid.lags(k)
        assert (feature[:, : n + 2] == 0).all()
        assert (feature[:, n + 2] == 0.2).all()  # 1 / M
        # the local fit is the mean of its prior, with the prior's spread
        assert (feature[:, n + 3 : n + 6] == 0).all()
        assert (feature[:, n + 7 :] == feature[:, n + 7 :, :1, :1]).all()


@given(exponent=st.floats(-6.0, 6.0))
def test_units_do_not_matter(fitted, exponent):
    pyramid, _ = fitted
    fields = holed(smooth(6, (16, 16)))
    first, second = (
        pyramid(moments_of((fields * scale).astype(np.float32)).pooled())
        for scale in (1.0, 10.0**exponent)
    )
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)


def test_constant_fields_stay_finite(fitted):
    pyramid, _ = fitted
    for feature in pyramid(moments_of(np.zeros((4, 16, 16), np.float32)).pooled()):
        assert feature.isfinite().all()


def test_stack_joins_and_to_moves():
    cases = [moments_of(smooth(m, (8, 8))) for m in (1, 4)]
    joined = LagMoments.stack(cases).to("cpu")
    assert joined.half.shape == (2, 36, 8, 8)
    assert joined.replicates.tolist() == [1.0, 4.0]
    torch.testing.assert_close(joined.half[1:], cases[1].half)


def test_fields_too_small_to_whiten_are_refused():
    for shape in ((12, 40), (4, 40)):
        with pytest.raises(ParameterError, match=r"level \d of 4 looks \d+ cells.*fewer levels"):
            LagPyramid(4).fit([moments_of(smooth(5, shape)).pooled()])


def test_lag_products_are_mean_products_of_what_is_there():
    fields = holed(smooth(6))
    found = lag_products(torch.from_numpy(fields)[None])[0].numpy()
    for k, (rows, columns) in enumerate(PRODUCT_LAGS):
        product = fields * np.roll(fields, (-rows, -columns), (1, 2))
        count = np.isfinite(product).sum(0)
        expected = np.nansum(product, 0) / np.maximum(count, 1)
        np.testing.assert_allclose(found[k], expected, atol=1e-12)

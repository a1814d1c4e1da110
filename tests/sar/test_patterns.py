"""Large-scale patterns: planted ones are found, none are invented."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.fields.sar import log_tensor, operator
from xr_spde.sar import emulate, estimate
from xr_spde.sar.local import LocalFit
from xr_spde.sar.patterns import (
    MAX_SHARE,
    BlockSums,
    _interpolate,
    choose_patterns,
    combine,
    local_correlation,
    make_positive,
    pattern_maps,
    shrink,
)
from xr_spde.sar.statistics import LagSums, stencil_features, stencil_gram

SHAPE = (20, 28)


def local_fields(count=40, *, seed, shape=SHAPE) -> xr.DataArray:
    maps = {"kappa2": 0.3, "rho": 2.0, "theta": 0.5}
    truth = xr.Dataset({k: (("y", "x"), np.full(shape, v)) for k, v in maps.items()})
    return emulate(truth, count, seed=seed).compute()


def dipole(shape=SHAPE) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    middle, width = (shape[0] - 1) / 2, shape[1]
    bump = [np.exp(-((y - middle) ** 2 + (x - c * width) ** 2) / 25.0) for c in (0.22, 0.78)]
    return bump[0] - bump[1]


def blocks_of(fields) -> BlockSums:
    sums = BlockSums(fields.shape[1:])
    for member in np.asarray(fields):
        sums.add(member)
    return sums


def active(patterns) -> int:
    return int((np.abs(patterns).max(("y", "x")) > 0).sum())


# --- the whole chain -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_dipole_is_found_and_the_rest_is_local(seed):
    fields = local_fields(seed=seed)
    truth = 2.0 * float(fields.std()) * dipole()
    rng = np.random.default_rng(seed)
    amplitude = rng.normal(size=(40, 1, 1))
    amplitude = (amplitude - amplitude.mean()) / amplitude.std(ddof=1)
    found = estimate(fields + amplitude * truth, dilation=1)
    assert active(found.patterns) == 1
    first = found.patterns.values[0]
    assert abs(np.corrcoef(first.ravel(), truth.ravel())[0, 1]) > 0.95
    assert np.abs(first).max() == pytest.approx(np.abs(truth).max(), rel=0.2)
    assert abs(float(np.log(found.kappa2 / 0.3).mean())) < 0.3
    assert float(found.rho.mean()) == pytest.approx(2.0, abs=0.3)
    assert float(found.theta.mean()) == pytest.approx(0.5, abs=0.1)
    # without patterns the dipole passes for range: the correlation at a distance has one sign
    local = estimate(fields + amplitude * truth, modes=0, dilation=1)
    assert abs(float(np.log(found.kappa2 / 0.3).mean())) < abs(
        float(np.log(local.kappa2 / 0.3).mean())
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_pattern_is_seen_in_purely_local_fields(seed):
    assert choose_patterns(blocks_of(local_fields(seed=seed)), "plane", most=12) == 0


def test_the_choice_needs_eight_replicates_and_a_limit():
    amplitude = 5.0 * np.random.default_rng(0).normal(size=(12, 1, 1))
    fields = local_fields(12, seed=0) + amplitude * dipole()
    assert choose_patterns(blocks_of(fields[:7]), "plane", most=12) == 0
    assert choose_patterns(blocks_of(fields), "plane", most=0) == 0
    assert 1 <= choose_patterns(blocks_of(fields), "plane", most=12) <= 3


@pytest.mark.parametrize(("modes", "count", "size"), [("auto", 20, 5), ("auto", 7, 0), (3, 20, 3)])
def test_shape_of_the_mode_dimension(modes, count, size):
    fields = local_fields(count, seed=3, shape=(12, 14))
    found = estimate(fields, modes=modes, dilation=1)
    if size == 0:
        assert "patterns" not in found
        return
    assert found.patterns.dims == ("mode", "y", "x")
    assert found.patterns.shape == (size, 12, 14)
    if modes == 3:  # as many as were asked for
        assert active(found.patterns) == 3
    assert np.isfinite(found.patterns).all()


@pytest.mark.parametrize("modes", [1, 6])
def test_patterns_leave_some_variance_everywhere(modes):
    strong = 50.0 * np.random.default_rng(0).normal(size=(12, 1, 1)) * np.ones((1, 12, 14))
    fields = local_fields(12, seed=1, shape=(12, 14)) + strong
    found = estimate(fields, modes=modes, dilation=1)
    share = (found.patterns**2).sum("mode") / found["std"] ** 2
    assert float(share.max()) <= MAX_SHARE + 1e-9
    assert float(share.min()) > 0.8
    for name in ("kappa2", "rho", "theta"):
        assert np.isfinite(found[name]).all()


def test_patterns_are_zero_on_no_cell_but_land():
    fields = local_fields(12, seed=1, shape=(12, 14))
    land = xr.DataArray(np.zeros((12, 14), dtype=bool), dims=("y", "x"))
    land[3:6, 4:8] = True
    found = estimate(fields.where(~land), modes=2, dilation=1)
    np.testing.assert_array_equal(np.isnan(found.patterns), land.expand_dims(mode=2))
    np.testing.assert_array_equal(np.isnan(found.kappa2), land)


# --- blocks ----------------------------------------------------------------------------------


def block_means(fields, sums) -> np.ndarray:
    edges = [np.append(s, n) for s, n in zip(sums.starts, sums.shape, strict=True)]
    return np.array(
        [
            [
                np.nanmean(f[a:b, c:d])
                for a, b in zip(edges[0][:-1], edges[0][1:], strict=True)
                for c, d in zip(edges[1][:-1], edges[1][1:], strict=True)
            ]
            for f in fields
        ]
    )


@pytest.mark.parametrize("shape", [(20, 28), (50, 61), (7, 90)])
def test_block_covariance_is_that_of_block_means(shape):
    fields = np.random.default_rng(0).normal(size=(9, *shape)) + 5e4
    sums = blocks_of(fields)
    means = block_means(fields - 5e4, sums)
    whole = sums.covariance()
    assert means.shape[1] == sums.blocks[0] * sums.blocks[1]
    np.testing.assert_allclose(whole.matrix, np.cov(means.T), atol=1e-9)
    np.testing.assert_allclose(whole.correlation(), np.corrcoef(means.T), atol=1e-8)
    assert whole.replicates == 9
    assert whole.valid.all()
    for half in (0, 1):
        part = sums.covariance((half,))
        np.testing.assert_allclose(part.matrix, np.cov(means[half::2].T), atol=1e-9)
        assert part.replicates == len(means[half::2])


def test_gaps_do_not_let_the_mean_into_block_means():
    """280 K and anomalies of one degree, a tenth of the values missing."""
    rng = np.random.default_rng(1)
    common = 2.0 * rng.normal(size=(200, 1, 1))
    fields = 280.0 + 0.5 * np.arange(60)[:, None] + common + rng.normal(size=(200, 60, 60))
    gaps = np.where(rng.random(fields.shape) < 0.1, np.nan, fields)
    full, holed = (blocks_of(f).covariance().matrix for f in (fields, gaps))
    np.testing.assert_allclose(np.diag(holed), np.diag(full), rtol=0.25)
    np.testing.assert_allclose(holed.mean(), full.mean(), rtol=0.03)


def test_a_block_without_any_value_is_left_out():
    fields = np.random.default_rng(0).normal(size=(9, 40, 40))
    sums = BlockSums((40, 40))
    fields[4, : sums.starts[0][1], : sums.starts[1][1]] = np.nan
    valid = blocks_of(fields).covariance().valid
    assert not valid[0]
    assert valid[1:].all()


def test_components_are_principal_components_of_the_correlation():
    fields = np.random.default_rng(0).normal(size=(30, 6, 8)).cumsum(axis=2)
    data = blocks_of(fields).covariance()
    parts = data.components(48)
    np.testing.assert_allclose(parts.T @ parts, data.correlation(), atol=1e-10)
    three = data.components(3)
    values = np.linalg.eigvalsh(data.correlation())[::-1][:3]
    np.testing.assert_allclose(np.sum(three**2, axis=1), values, rtol=1e-10)
    np.testing.assert_allclose(three @ three.T, np.diag(values), atol=1e-9)


@pytest.mark.parametrize(("shape", "columns"), [((400, 6), 2), ((200, 6), 3), ((40, 40), 20)])
def test_patterns_turn_with_the_columns_of_a_ring(shape, columns):
    """Also where there are fewer columns of blocks than a spline looks at."""
    sums = BlockSums(shape)
    assert sums.blocks[1] == columns
    values = np.random.default_rng(0).normal(size=(2, *sums.blocks))
    every = np.ones(sums.blocks[0] * columns, dtype=bool)
    plain, turned = (
        _interpolate(sums, np.roll(v, k, axis=-1).reshape(2, -1), every, periodic=True)
        for k, v in ((0, values), (1, values))
    )
    # the memory of a cubic spline falls by .27 per column
    atol = np.abs(values).max() * 0.27**4
    np.testing.assert_allclose(turned, np.roll(plain, shape[1] // columns, axis=-1), atol=atol)


def test_pattern_maps_carry_single_cells_scale():
    """A uniform pattern under white noise: correlation falls, covariance does not."""
    rng = np.random.default_rng(0)
    fields = 2.0 * rng.normal(size=(4000, 1, 1)) + rng.normal(size=(4000, 40, 40))
    sums = blocks_of(fields)
    data = sums.covariance()
    maps = pattern_maps(sums, data.components(1), data, fields.var(axis=0, ddof=1), periodic=False)
    assert maps.shape == (1, 40, 40)
    np.testing.assert_allclose(np.abs(maps), 2.0, rtol=0.1)


# --- algebra ---------------------------------------------------------------------------------


def test_shrink_caps_the_share_and_leaves_the_rest():
    parts = np.random.default_rng(0).normal(size=(3, 50)) * 0.5
    share = np.sum(shrink(parts) ** 2, axis=0)
    before = np.sum(parts**2, axis=0)
    np.testing.assert_allclose(share, np.minimum(before, MAX_SHARE), rtol=1e-12)
    np.testing.assert_array_equal(
        shrink(parts)[:, before < MAX_SHARE], parts[:, before < MAX_SHARE]
    )


def test_combined_correlation_is_a_correlation():
    rng = np.random.default_rng(1)
    parts = shrink(0.6 * rng.normal(size=(2, 12)))
    local = np.corrcoef(rng.normal(size=(12, 40)))
    found = combine(parts, local)
    np.testing.assert_allclose(np.diag(found), 1.0, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > 0
    np.testing.assert_allclose(combine(np.zeros((0, 12)), local), local)


def test_make_positive_repairs_only_what_is_broken():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 7, 4, 9))
    gram = np.moveaxis(root @ np.swapaxes(root, -1, -2), (2, 3), (0, 1)) * 1e-6
    gram[:, :, 0, 0] = 0.0  # land
    broken = gram.copy()
    broken[0, 1, 3, 4] = broken[1, 0, 3, 4] = 10 * np.sqrt(gram[0, 0, 3, 4] * gram[1, 1, 3, 4])
    found = make_positive(broken)
    untouched = np.ones((6, 7), dtype=bool)
    untouched[3, 4] = False
    np.testing.assert_array_equal(found[:, :, untouched], gram[:, :, untouched])
    fixed = found[:, :, 3, 4]
    np.testing.assert_allclose(fixed, fixed.T, rtol=1e-12)
    assert np.linalg.eigvalsh(fixed).min() > 0


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus"])
def test_local_correlation_against_dense_algebra(boundary):
    ny, nx, rim = 5, 6, 5
    rng = np.random.default_rng(3)
    kappa2, rho = rng.uniform(0.2, 1.0, (ny, nx)), rng.uniform(1.0, 3.0, (ny, nx))
    theta = rng.uniform(-1.0, 1.0, (ny, nx))
    h = log_tensor(rho, theta)
    zero = np.zeros((ny, nx))
    found = local_correlation(LocalFit(np.log(kappa2), *h, zero, np.ones((4, 2))), boundary)
    pads = {"plane": (rim, rim), "cylinder": (rim, 0), "torus": (0, 0)}[boundary]
    width = tuple((p, p) for p in pads)
    wide = [np.pad(v, width, mode="edge") for v in (kappa2, rho, theta)]
    matrix = operator(*wide, boundary=boundary).toarray()
    covariance = np.linalg.inv(matrix.T @ matrix)
    index = np.arange(wide[0].size).reshape(wide[0].shape)
    inner = index[pads[0] : pads[0] + ny, pads[1] : pads[1] + nx].ravel()
    inner = covariance[np.ix_(inner, inner)]
    scale = np.sqrt(np.diag(inner))
    np.testing.assert_allclose(found, inner / scale / scale[:, None], atol=1e-9)


def test_features_of_patterns_are_what_they_add_to_the_moments():
    """Gram of local + amplitude x pattern = gram of local + outer product of its features."""
    rng = np.random.default_rng(4)
    local = rng.normal(size=(4000, 8, 9))
    pattern = dipole((8, 9)) * 3.0
    amplitude = rng.normal(size=(4000, 1, 1))
    grams = []
    for fields in (local, local + amplitude * pattern):
        sums = LagSums((8, 9), periodic=False)
        for member in fields:
            sums.add(member)
        grams.append(stencil_gram(sums.finish(), periodic=False)[0][:, :, 1:-1, 1:-1])
    features = stencil_features(pattern[None], dilation=1, periodic=False)[:, 0, 1:-1, 1:-1]
    added = grams[1] - grams[0]
    np.testing.assert_allclose(added, features[:, None] * features, atol=0.9)
    strongest = np.unravel_index(np.argmax(np.abs(features[0])), features[0].shape)
    np.testing.assert_allclose(added[0, 0][strongest], features[0][strongest] ** 2, rtol=0.1)

"""Lag statistics against direct sums of numpy."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import MemoryGuardError, ParameterError
from xr_spde._core.options import set_options
from xr_spde.fields.sar import tensor
from xr_spde.fields.sar import weights as stencil_weights
from xr_spde.fields.stencil import apply
from xr_spde.sar import estimate
from xr_spde.sar.statistics import (
    OFFSETS,
    LagSums,
    shifted,
    stencil_features,
    stencil_gram,
)

SHAPE, COUNT = (9, 11), 8


def sums_of(fields, **settings) -> LagSums:
    sums = LagSums(fields.shape[1:], periodic=settings.pop("periodic", False), **settings)
    for member in fields:
        sums.add(member)
    return sums


@pytest.fixture
def fields() -> np.ndarray:
    rng = np.random.default_rng(0)
    white = rng.normal(size=(COUNT, *SHAPE))
    return white + 0.6 * np.roll(white, 1, axis=-1) + 0.3 * np.roll(white, 1, axis=-2)


@pytest.fixture
def holed(fields) -> np.ndarray:
    gone = np.random.default_rng(1).random(fields.shape) < 0.2
    gone[:, 3, 4] = True  # land
    gone[1:, 6, 2] = True  # seen once
    gone[0, 6, 2] = False
    return np.where(gone, np.nan, fields)


def pair(fields, j, i, offset, *, periodic, dilation=1):
    """Both ends over the replicates that have both; None beyond the edge."""
    row, column = j + dilation * offset[0], i + dilation * offset[1]
    ny, nx = fields.shape[1:]
    if periodic:
        column %= nx
    if not (0 <= row < ny and 0 <= column < nx):
        return None
    both = fields[:, j, i], fields[:, row, column]
    keep = np.isfinite(both[0]) & np.isfinite(both[1])
    return both[0][keep], both[1][keep]


def direct(fields, *, periodic, dilation=1):
    """Covariances pair by pair: numpy.cov, and by differences where a replicate has a gap."""
    ny, nx = fields.shape[1:]
    out = np.full((len(OFFSETS), ny, nx), np.nan)
    pairs = np.zeros_like(out)
    whole = np.isfinite(fields).all()
    for k, offset in enumerate(OFFSETS):
        for j, i in np.ndindex(ny, nx):
            ends = pair(fields, j, i, offset, periodic=periodic, dilation=dilation)
            if ends is None:
                continue
            pairs[k, j, i] = ends[0].size
            if ends[0].size < 2:
                continue
            if whole:
                out[k, j, i] = np.cov(*ends)[0, 1]
                continue
            cells = (j, i), (j + dilation * offset[0], (i + dilation * offset[1]) % nx)
            alone = [np.nanvar(fields[:, row, column], ddof=1) for row, column in cells]
            out[k, j, i] = 0.5 * (sum(alone) - np.var(ends[0] - ends[1], ddof=1))
    return out, pairs


def test_offsets_are_half_of_the_five_by_five_square():
    whole = set(OFFSETS) | {(-a, -b) for a, b in OFFSETS}
    assert whole == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    assert len(OFFSETS) == len(set(OFFSETS)) == 13


@pytest.mark.parametrize("offset", [(0, 0), (1, -2), (-2, 1), (3, 11), (-9, 0), (0, -4)])
@pytest.mark.parametrize("periodic", [False, True])
def test_shifted_against_a_loop(fields, offset, periodic):
    found = shifted(fields, offset, periodic=periodic, fill=-7.0)
    for j in range(SHAPE[0]):
        for i in range(SHAPE[1]):
            row, column = j + offset[0], i + offset[1]
            column = column % SHAPE[1] if periodic else column
            inside = 0 <= row < SHAPE[0] and 0 <= column < SHAPE[1]
            truth = fields[:, row, column] if inside else -7.0
            np.testing.assert_array_equal(found[:, j, i], truth)


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
def test_covariance_of_all_pairs(request, dilation, periodic, gaps):
    values = request.getfixturevalue("holed" if gaps else "fields")
    found = sums_of(values, periodic=periodic, dilation=dilation).finish()
    covariance, pairs = direct(values, periodic=periodic, dilation=dilation)
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10, atol=1e-12)
    assert (found.replicates, found.dilation) == (COUNT, dilation)


def test_gaps_cost_a_smooth_field_little():
    """Second differences, a hundredth of the variance, survive 10 % of missing values."""
    rng = np.random.default_rng(0)
    x = np.arange(30.0)
    level, slope = rng.normal(size=(2, 40, 1, 1)) * np.array([30.0, 1.0])[:, None, None, None]
    fields = level + slope * x + rng.normal(size=(40, 30, 30))
    gaps = np.where(rng.random(fields.shape) < 0.1, np.nan, fields)
    inner = (slice(2, -2), slice(2, -2))
    with_gaps, full = (
        stencil_gram(sums_of(f).finish(), periodic=False)[0][1, 1][inner] for f in (gaps, fields)
    )
    np.testing.assert_allclose(full.mean(), 6.0, rtol=0.05)
    np.testing.assert_allclose(with_gaps.mean(), full.mean(), rtol=0.05)
    assert with_gaps.std() < 2.0 * full.std()


def test_moments_of_cells(holed):
    found = sums_of(holed).finish()
    seen = np.isfinite(holed).sum(axis=0)
    np.testing.assert_array_equal(found.seen, seen)
    land = seen == 0
    mean = np.where(land, np.nan, np.nansum(holed, axis=0) / np.maximum(seen, 1))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    known = seen > 1
    variance = np.array([[np.nanvar(holed[:, j, i], ddof=1) if known[j, i] else np.nan
                          for i in range(SHAPE[1])] for j in range(SHAPE[0])])  # fmt: skip
    np.testing.assert_allclose(found.variance, variance, rtol=1e-10)
    assert np.isnan(found.mean[3, 4])
    assert np.isfinite(found.mean[6, 2])
    assert np.isnan(found.variance[6, 2])


@pytest.mark.parametrize("gaps", [False, True])
def test_uncentred_products_are_means_of_the_values_themselves(request, gaps):
    values = request.getfixturevalue("holed" if gaps else "fields") + 3.0
    found = sums_of(values, periodic=True).finish(centred=False)
    for k, offset in enumerate(OFFSETS):
        for j, i in ((0, 0), (4, 5), (8, 10), (3, 4)):
            ends = pair(values, j, i, offset, periodic=True)
            if ends is None or not ends[0].size:
                assert np.isnan(found.covariance[k, j, i])
            else:
                truth = np.mean(ends[0] * ends[1])
                np.testing.assert_allclose(found.covariance[k, j, i], truth, rtol=1e-11)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [("f8", 1e-9), ("f4", 1e-9)])
def test_a_large_mean_cancels_nothing(request, gaps, dtype, rtol):
    """Pressure: 50000 and anomalies of a hundredth (float64) or a tenth (float32)."""
    small = request.getfixturevalue("holed" if gaps else "fields")
    large = (5e4 + (0.01 if dtype == "f8" else 0.1) * small).astype(dtype)
    found = sums_of(large, periodic=True).finish()
    # the subtraction is exact: what float32 rounded away is in both
    truth, _ = direct(large.astype("f8") - 5e4, periodic=True)
    scale = np.nanmax(truth)
    np.testing.assert_allclose(found.covariance, truth, rtol=rtol, atol=rtol * scale)


def test_order_matters_only_to_rounding(holed):
    order = np.random.default_rng(3).permutation(COUNT)
    first, second = sums_of(holed).finish(), sums_of(holed[order]).finish()
    np.testing.assert_array_equal(first.pairs, second.pairs)
    np.testing.assert_allclose(first.covariance, second.covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.mean, second.mean, rtol=1e-12)


def test_one_replicate_has_no_covariance(fields):
    found = sums_of(fields[:1]).finish()
    assert np.isnan(found.covariance).all()
    np.testing.assert_array_equal(found.mean, fields[0])


def test_input_is_not_changed_and_state_survives_copies(fields):
    import copy
    import pickle

    before = fields.copy()
    sums = sums_of(fields[:4])
    twin, third = copy.deepcopy(sums), pickle.loads(pickle.dumps(sums))
    for member in fields[4:]:
        for one in (sums, twin, third):
            one.add(member)
    np.testing.assert_array_equal(fields, before)
    for other in (twin, third):
        np.testing.assert_array_equal(sums.finish().covariance, other.finish().covariance)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities_are_refused_with_their_place(fields, value):
    fields[2, 4, 7] = fields[2, 5, 1] = value
    with pytest.raises(
        ParameterError, match=r"replicate 2 has 2 infinite values \(the first in row 4, column 7\)"
    ):
        sums_of(fields)


@pytest.mark.parametrize("periodic", [False, True])
def test_features_make_up_the_operator(fields, periodic):
    features = stencil_features(fields, dilation=1, periodic=periodic)
    boundary = "cylinder" if periodic else "plane"
    for kappa2, rho, theta in ((0.1, 1.0, 0.0), (0.5, 3.0, np.pi / 6), (2.0, 6.0, -1.2)):
        q = np.array([kappa2, *tensor(rho, theta)])
        full = [np.full(SHAPE, v) for v in (kappa2, rho, theta)]
        truth = apply(stencil_weights(*full), fields, boundary=boundary)
        np.testing.assert_allclose(np.tensordot(q, features, 1), truth, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("periodic", [False, True])
def test_gram_is_the_covariance_of_the_features(fields, periodic, dilation):
    lags = sums_of(fields, periodic=periodic, dilation=dilation).finish()
    gram, weight = stencil_gram(lags, periodic=periodic)
    features = stencil_features(fields, dilation=dilation, periodic=periodic)
    inner = weight > 0
    rows, columns = np.nonzero(inner)
    clear = SHAPE[0] - 2 * dilation, SHAPE[1] - (0 if periodic else 2 * dilation)
    assert inner.sum() == clear[0] * clear[1]
    for j, i in zip(rows, columns, strict=True):
        np.testing.assert_allclose(gram[:, :, j, i], np.cov(features[:, :, j, i]), atol=1e-11)
    assert (weight[inner] == COUNT).all()
    assert not gram[:, :, ~inner].any()


def test_gram_around_a_gap_has_no_weight(fields):
    fields[:, 4, 5] = np.nan
    gram, weight = stencil_gram(sums_of(fields).finish(), periodic=False)
    hole = np.zeros(SHAPE, dtype=bool)
    hole[3:6, 4:7] = True
    assert not weight[hole].any()
    assert not gram[:, :, hole].any()
    assert (weight[1:-1, 1:-1][~hole[1:-1, 1:-1]] == COUNT).all()


def test_weight_is_the_scarcest_pair(fields):
    fields[:3, 4, 5] = np.nan
    _, weight = stencil_gram(sums_of(fields).finish(), periodic=False)
    assert (weight[3:6, 4:7] == COUNT - 3).all()
    assert weight[1, 1] == COUNT


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_sums_on_a_card(gaps, centred, fields, holed, carded):
    """The figures of the host; each replicate goes over once, and maps come back at the end."""
    data = holed if gaps else fields
    for periodic in (False, True):
        ours = sums_of(data, periodic=periodic, dilation=2)
        carded.transfers.clear()
        there = sums_of(data, periodic=periodic, dilation=2, device="cuda")
        assert carded.transfers == {"to card": COUNT}
        there = pickle.loads(pickle.dumps(copy.deepcopy(there)))
        carded.transfers.clear()
        found, expected = (sums.finish(centred=centred) for sums in (there, ours))
        assert carded.transfers == {"to host": 5}
        for name in ("covariance", "pairs", "mean", "variance", "seen"):
            assert isinstance(getattr(found, name), np.ndarray)
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)
    with pytest.raises(ParameterError, match=r"1 infinite values .the first in row 0, column 1"):
        there.add(np.array([[0.0, np.inf, *np.zeros(9)], *np.zeros((8, 11))]))


def test_estimates_take_the_card_that_is_there(fields, carded, caplog, monkeypatch):
    data = xr.DataArray(fields, dims=("member", "y", "x")).chunk(member=3)
    settings = {"method": "whittle", "modes": 0, "dilation": 1}
    with caplog.at_level(logging.INFO, "xr_spde.sar"):
        there = estimate(data, "member", **settings)
        carded.transfers.clear()
        found = there.compute(scheduler="sync")
    assert "lag products on the graphics card" in caplog.text
    # maps of the moments are taken off a few times, replicates go over once
    assert carded.transfers["to card"] == COUNT
    with set_options(device="cpu"):
        ours = estimate(data, "member", **settings).compute()
    for name in ("kappa2", "rho", "theta", "mean", "std"):
        np.testing.assert_allclose(found[name], ours[name], rtol=1e-7)
    monkeypatch.setattr(carded.cuda.Device, "mem_info", (1000, 2000))
    with caplog.at_level(logging.INFO, "xr_spde.sar"):
        estimate(data, "member", **settings).compute(scheduler="sync")
    assert "lag products on the processor: on the graphics card they would take" in caplog.text
    with set_options(device="cuda"), pytest.raises(MemoryGuardError, match="on the graphics card"):
        estimate(data, "member", **settings).compute(scheduler="sync")

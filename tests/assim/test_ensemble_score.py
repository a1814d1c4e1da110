"""Scores of uncertainty against closed forms of Gaussian predictions (check D3)."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.special import ndtr, ndtri

from xr_spde.assim import score
from xr_spde.assim.ensemble_score import uncertainty_scores
from xr_spde.assim.spread_summary import rank_test
from xr_spde.assim.verification import gaussian_crps
from xr_spde.errors import ParameterError, SchemaError

DIMS = ("time", "y", "x")
SIZE = (20, 250, 250)


def maps(values, name=None):
    dims = DIMS if values.ndim == 3 else ("realization", *DIMS)
    coords = {"time": np.datetime64("2020-01-01", "ns") + np.arange(values.shape[-3])
              * np.timedelta64(1, "D"), "y": np.arange(values.shape[-2]) * 1.0,
              "x": np.arange(values.shape[-1]) * 1.0}  # fmt: skip
    return xr.DataArray(values, coords, dims, name, {"units": "m"})


@pytest.fixture(scope="module")
def right():
    """A prediction that is right, of two spreads, and its truth."""
    rng = np.random.default_rng(0)
    std = np.where(rng.random(SIZE) < 0.5, 0.5, 1.5)
    mean = rng.standard_normal(SIZE)
    truth = mean + std * rng.standard_normal(SIZE)
    result = xr.Dataset({"mean": maps(mean), "std": maps(std)})
    return result, maps(truth)


def test_a_right_prediction_has_the_closed_forms(right):
    result, truth = right
    found = uncertainty_scores(result, truth)
    square = (0.25 + 2.25) / 2
    np.testing.assert_allclose(found.crps, 1.0 / np.sqrt(np.pi), atol=1e-3)
    np.testing.assert_allclose(found.spread_skill, 1.0, atol=2e-3)
    np.testing.assert_allclose(found.coverage, [0.5, 0.9, 0.95], atol=1e-3)
    np.testing.assert_allclose(found.slope, 1.0, atol=5e-3)
    counts = found.pit_histogram * truth.size
    assert rank_test(counts.values)[1] > 0.01
    # the size of the error and the spread: cov(|e|, s) = sqrt(2 / pi) var(s)
    expected = np.sqrt(2 / np.pi) * 0.5 / np.sqrt(square - 2 / np.pi)
    np.testing.assert_allclose(found.correlation_pearson.mean(), expected, atol=2e-3)
    np.testing.assert_allclose(found.correlation_expected, expected, atol=5e-3)
    peer = stats.spearmanr(abs(result["mean"] - truth).values[0].ravel(),
                           result["std"].values[0].ravel()).statistic  # fmt: skip
    np.testing.assert_allclose(found.correlation_spearman[0], peer, atol=1e-12)
    # one spread for all: E CRPS of N(0, v) where the truth is N(0, s^2)
    v = np.sqrt(square)
    constant = np.mean([np.sqrt(2 / np.pi) * np.sqrt(square + s**2) - v / np.sqrt(np.pi)
                        for s in (0.5, 1.5)])  # fmt: skip
    skill = found.crps_skill.sel(reference="constant")
    np.testing.assert_allclose(skill, 1.0 - 1.0 / np.sqrt(np.pi) / constant, atol=2e-3)
    assert found.crps.attrs["units"] == "m"
    assert found.coverage.attrs["units"] == "1"
    np.testing.assert_allclose(found.day_rmse.mean(), np.sqrt(square), rtol=5e-3)


def test_skill_against_climatology_and_a_reference():
    rng = np.random.default_rng(1)
    mean, noise = 0.8 * rng.standard_normal(SIZE), 0.6 * rng.standard_normal(SIZE)
    truth = maps(mean + noise)
    result = xr.Dataset({"mean": maps(mean), "std": maps(np.full(SIZE, 0.6))})
    same = xr.Dataset({"mean": maps(0.0 * mean), "std": maps(np.ones(SIZE))})
    found = uncertainty_scores(result, truth, reference={"climate": same})
    np.testing.assert_allclose(found.crps_skill.sel(reference="climatology"), 0.4, atol=1e-3)
    np.testing.assert_allclose(found.crps_skill.sel(reference="constant"), 0.0, atol=1e-5)
    np.testing.assert_allclose(found.crps_skill.sel(reference="climate"), 0.4, atol=1e-3)
    given = uncertainty_scores(result, truth, climatology=1.0, reference=same)
    assert list(given.reference.values) == ["climatology", "constant", "reference"]
    np.testing.assert_allclose(given.crps_skill[0], found.crps_skill[2], rtol=1e-12)
    assert np.isnan(found.slope)  # of one spread there is no curve


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_spread_shows(right, factor):
    result, truth = right
    wrong = result.assign(std=factor * result["std"])
    found = uncertainty_scores(wrong, truth)
    expected = [2 * ndtr(factor * ndtri(0.5 + 0.5 * p)) - 1 for p in (0.5, 0.9, 0.95)]
    np.testing.assert_allclose(found.coverage, expected, atol=1.5e-3)
    np.testing.assert_allclose(found.spread_skill, factor, rtol=2e-3)
    np.testing.assert_allclose(found.slope, 1.0 / factor, rtol=5e-3)
    shares = found.pit_histogram.values
    middle = shares[8:12].mean() * 20
    assert middle > 1.3 if factor > 1 else middle < 0.8


def test_members_that_are_like_the_truth():
    rng = np.random.default_rng(2)
    count, shape = 8, (10, 150, 150)
    spread = rng.uniform(0.5, 1.5, shape)
    centre = rng.standard_normal(shape)
    drawn = centre + spread * rng.standard_normal((count + 1, *shape))
    members, truth = maps(drawn[1:]), maps(drawn[0])
    found = uncertainty_scores(members, truth)
    np.testing.assert_allclose(found.crps, spread.mean() / np.sqrt(np.pi), rtol=5e-3)
    np.testing.assert_allclose(found.spread_skill, 1.0, atol=5e-3)
    # with the Gaussian's quantiles this would be 0.86: mean and spread come from eight members
    np.testing.assert_allclose(found.coverage, [0.5, 0.9, 0.95], atol=3e-3)
    assert found.rank_p > 0.01
    assert rank_test((found.pit_histogram * truth.size).values)[1] > 0.01
    np.testing.assert_allclose(found.rank_histogram, 1 / (count + 1), atol=2e-3)
    narrow = centre + 0.7 * (drawn[1:] - centre)
    worse = uncertainty_scores(maps(narrow), truth)
    assert worse.rank_p < 1e-6
    assert worse.rank_flatness > 5 * found.rank_flatness
    assert worse.rank_histogram[0] > 1.3 / (count + 1)


def test_a_mapping_with_draws_takes_both(right):
    result, truth = right
    small = {"time": slice(0, 3), "y": slice(0, 40), "x": slice(0, 40)}
    result, truth = result.isel(small), truth.isel(small)
    rng = np.random.default_rng(3)
    shape = (12, *truth.shape)
    result["ensemble"] = result["mean"] + result["std"] * maps(rng.standard_normal(shape))
    found = uncertainty_scores(result, truth)
    alone = uncertainty_scores(result.drop_vars("ensemble"), truth)
    for name in ("rmse", "coverage", "spread", "pit_histogram"):
        xr.testing.assert_equal(found[name], alone[name])
    np.testing.assert_allclose(found.crps, score(result, truth).crps.mean(), rtol=1e-10)
    assert found.sizes["rank"] == 13
    assert found.attrs["xr_spde_kind"] == "ensemble, uncertainty"
    lazy = uncertainty_scores(result.chunk(time=1, y=17), truth.chunk(x=13))
    assert lazy.crps.chunks is not None
    xr.testing.assert_identical(lazy.compute(), found)
    faced = result.assim.score(truth, uncertainty=True, bins=5)
    assert faced.sizes["bin"] == 5


def test_leads_borders_land_and_thinning(right):
    result, truth = right
    result, truth = result.isel(time=slice(0, 4)), truth.isel(time=slice(0, 4))
    leads = xr.concat([result, result.assign(std=2 * result["std"])], xr.Variable("lead", [0, 2]))
    found = uncertainty_scores(leads, truth)
    assert found.coverage.dims == ("lead", "level")
    assert found.correlation_pearson.dims == ("lead", "time")
    one = uncertainty_scores(result, truth)
    np.testing.assert_allclose(found.crps[0], one.crps)
    np.testing.assert_allclose(found.spread_skill[1], 2 * one.spread_skill)
    cropped = uncertainty_scores(result, truth, border=10)
    inner = {"y": slice(10, -10), "x": slice(10, -10)}
    same = uncertainty_scores(result.isel(inner), truth.isel(inner))
    np.testing.assert_allclose(cropped.crps, same.crps)
    land = truth.where(truth.x > 100)
    sea = {"x": slice(101, None)}
    np.testing.assert_allclose(
        uncertainty_scores(result, land).crps,
        uncertainty_scores(result.isel(sea), truth.isel(sea)).crps,
    )
    members = result["mean"] + result["std"] * xr.DataArray(
        np.random.default_rng(0).standard_normal((5, *truth.shape)), dims=("realization", *DIMS)
    )
    thin = uncertainty_scores(members, truth, thin=(2, 25))
    # of 4 steps and 250 x 250 cells 2 and 10 x 10 count
    shifted = uncertainty_scores(members + 5.0, truth, thin=(2, 25))
    assert thin.rank_chi2 < 30
    np.testing.assert_allclose(shifted.rank_chi2, 5 * 2 * 10 * 10, rtol=0.1)


def test_crps_of_a_gaussian_has_a_peer():
    peer = pytest.importorskip("scoringrules")
    rng = np.random.default_rng(0)
    error, std = rng.standard_normal(100), rng.uniform(0.1, 2.0, 100)
    np.testing.assert_allclose(gaussian_crps(error, std), peer.crps_normal(error, 0.0, std))
    np.testing.assert_array_equal(gaussian_crps(error, 0.0), np.abs(error))


def test_rank_test_has_a_peer():
    counts = np.array([12.0, 8.0, 11.0, 19.0])
    chi2, p, _ = rank_test(counts)
    expected = stats.chisquare(counts)
    np.testing.assert_allclose([chi2, p], [expected.statistic, expected.pvalue])
    assert np.isnan(rank_test(np.zeros(3))).all()


def test_bad_input_is_named(right):
    result, truth = right
    result, truth = result.isel(time=slice(0, 2)), truth.isel(time=slice(0, 2))
    with pytest.raises(SchemaError, match="expected mean and std"):
        uncertainty_scores(result[["mean"]], truth)
    with pytest.raises(ParameterError, match="maps in time"):
        uncertainty_scores(result.isel(time=0, drop=True), truth.isel(time=0, drop=True))
    with pytest.raises(ParameterError, match="no time and cell"):
        uncertainty_scores(result, truth * np.nan)
    with pytest.raises(ParameterError, match="levels="):
        uncertainty_scores(result, truth, levels=(90,))
    with pytest.raises(ParameterError, match="border=200"):
        uncertainty_scores(result, truth, border=200)
    with pytest.raises(ParameterError, match="climatology=-1"):
        uncertainty_scores(result, truth, climatology=-1)
    with pytest.raises(ParameterError, match="which there is already"):
        uncertainty_scores(result, truth, reference={"constant": result})
    with pytest.raises(ParameterError, match="belong to uncertainty"):
        score(result, truth, bins=3)

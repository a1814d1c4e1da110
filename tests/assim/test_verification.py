"""Scores with errors of observation: against draws of these errors, closed forms and peers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import chisquare

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.assim import window_task
from xr_spde.assim.score import crps
from xr_spde.assim.verification import (
    binned_spread,
    expected_crps,
    expected_ranks,
    quantile_ranks,
)


def test_crps_without_errors_is_the_usual_one():
    rng = np.random.default_rng(0)
    members, truth = rng.standard_normal((9, 40)), rng.standard_normal(40)
    found = expected_crps(members, truth, 0.0)
    np.testing.assert_allclose(found, crps(members, truth), atol=1e-14)
    peer = pytest.importorskip("scoringrules")
    np.testing.assert_allclose(found, peer.crps_ensemble(truth, members.T, estimator="fair"))


def test_errors_are_averaged_over():
    rng = np.random.default_rng(1)
    members, truth, error = rng.standard_normal((4, 1)), np.array([0.3]), 0.8
    drawn = members + error * rng.standard_normal((4, 400_000))
    one = crps(drawn, np.full(drawn.shape[1], truth[0]))
    near = 4 * one.std() / np.sqrt(one.size)
    assert expected_crps(members, truth, error)[0] == pytest.approx(one.mean(), abs=near)
    ranks = np.bincount((drawn < truth[0]).sum(axis=0), minlength=5) / drawn.shape[1]
    np.testing.assert_allclose(expected_ranks(members, truth, error), ranks, atol=4e-3)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_ranks_against_all_outcomes(size, seed):
    rng = np.random.default_rng(seed)
    members, truth = rng.standard_normal((size, 3)), rng.standard_normal(3)
    below = ndtr((truth - members) / 0.5)
    expected = np.zeros(size + 1)
    for outcome in itertools.product((0, 1), repeat=size):
        chosen = np.array(outcome)[:, None]
        expected[sum(outcome)] += np.where(chosen, below, 1 - below).prod(axis=0).mean()
    np.testing.assert_allclose(expected_ranks(members, truth, 0.5), expected, atol=1e-14)


def test_right_predictions_have_flat_ranks_and_lie_on_the_diagonal():
    rng = np.random.default_rng(2)
    mean, std = rng.standard_normal(40_000), rng.uniform(0.5, 2.0, 40_000)
    truth = mean + std * rng.standard_normal(mean.size)
    assert chisquare(quantile_ranks(mean, std, truth) * mean.size).pvalue > 0.01
    spread, error, count = binned_spread(std, mean - truth)
    np.testing.assert_allclose(error, spread, rtol=0.05)
    assert (np.diff(spread) > 0).all()
    assert count.tolist() == [4000] * 10
    members = mean + 0.6 * rng.standard_normal((10, mean.size))
    seen = mean + rng.standard_normal(mean.size)  # 0.6 of the field and 0.8 of the instrument
    flat = expected_ranks(members, seen, 0.8)
    np.testing.assert_allclose(flat, 1 / 11, atol=4e-3)
    # without the errors of observation the same members look far too sure
    assert expected_ranks(members, seen, 0.0)[0] > 0.12


@pytest.fixture
def solved():
    """Maps of a field that is drawn from its prior, two tracks of it, one of them withheld."""
    rng = np.random.default_rng(3)
    days = np.datetime64("2014-05-15", "ns") + np.arange(8) * np.timedelta64(1, "D")
    coords = {"lat": 40 + 0.5 * np.arange(9), "lon": 3 + 0.5 * np.arange(11)}
    maps = {"length": 90.0, "decay_time": 12.0, "std": 0.1}
    prior = xr.Dataset({k: (("lat", "lon"), np.full((9, 11), v)) for k, v in maps.items()},
                       coords, {"time_step": 1.0, "alpha": 2})  # fmt: skip
    truth = prior.assim.assimilate(
        xr.DataArray(np.full((8, 9, 11), np.nan), {"time": days, **coords}, ("time", "lat", "lon"))
        .pipe(lambda z: z.where(z.lat != 40.0, 0.0)), obs_error=10.0, n=1, seed=5,
    ).ensemble[0]  # fmt: skip
    count = 160
    when = days[0] + (rng.uniform(0, 7, count) * 864e11).astype("m8[ns]")
    where = {"lat": ("obs", rng.uniform(40, 44, count)), "lon": ("obs", rng.uniform(3, 8, count)),
             "time": ("obs", when)}  # fmt: skip
    points = truth.drop_vars("realization").interp({k: xr.DataArray(v[1], dims="obs")
                                                    for k, v in where.items()})  # fmt: skip
    noisy = xr.DataArray(points.values + 0.02 * rng.standard_normal(count), where, "obs")
    guess = xr.zeros_like(truth.drop_vars("realization"))
    return guess, prior, noisy[:80], noisy[80:]


def test_a_withheld_mission_in_one_call(solved):
    guess, prior, seen, withheld = solved
    maps = guess.assim.assimilate(seen, prior=prior, obs_error=0.02, n=20, seed=0)
    found = maps.assim.score(withheld, obs_error=0.02)
    assert found["rank_histogram"].sizes["rank"] == 21
    for name in ("rank_histogram", "bin_count", "step_count"):
        total = 80 if name.endswith("count") else 1.0
        assert float(found[name].sum()) == pytest.approx(total)
    square = (found.step_count * found.step_rmse.fillna(0) ** 2).sum() / found["count"]
    assert float(square) == pytest.approx(float(found.rmse) ** 2)
    gauss = maps.drop_vars("ensemble").assim.score(withheld, obs_error=0.02)
    assert gauss.sizes["rank"] == 20
    # draws and their Gaussian, whose deviation is too large between nodes, tell about the same
    assert float(found.crps) == pytest.approx(float(gauss.crps), rel=0.1)
    assert float(found.rmse) == float(gauss.rmse)
    assert 0.6 < float(found.spread_skill) < 1.6
    assert found["crps"].attrs["long_name"].startswith("continuous")


def test_lazy_maps_are_computed_once(solved, monkeypatch):
    guess, prior, seen, withheld = solved
    calls: list[int] = []
    task = window_task.SpdeTask.__call__

    def counted(self, *args, **given):
        calls.append(self.window.index)
        return task(self, *args, **given)

    monkeypatch.setattr(window_task.SpdeTask, "__call__", counted)
    settings = {"prior": prior, "obs_error": 0.02, "block": 4, "halo": 3, "n": 4, "seed": 0}
    lazy = guess.chunk(time=3).assim.assimilate(seen, **settings)
    assert calls == []
    lazy[["mean", "std", "ensemble"]].compute()
    assert sorted(calls) == [0, 1]
    calls.clear()
    found = lazy.assim.score(withheld, obs_error=0.02)
    assert sorted(calls) == [0, 1]
    whole = guess.assim.assimilate(seen, **settings).assim.score(withheld, obs_error=0.02)
    xr.testing.assert_allclose(found, whole, rtol=1e-12)

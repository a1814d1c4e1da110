"""Analyses in the space of codes against a dense Kalman filter, and what they are told to do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde._core.errors import DivergenceError
from xr_spde.assim.latent.model_error import GaussianError

KNOWN = {"obs_error": 0.1, "background_error": 0.3, "seed": 3}


@pytest.fixture(scope="module")
def noisy(model):
    """The model of the waves, with a model error that is not tiny."""
    n = model.map.n
    root = 0.05 * np.random.default_rng(0).standard_normal((n, n)) + 0.1 * np.eye(n)
    return dataclasses.replace(model, error=GaussianError("full", root, [0.02**2]))


def dense(model, truth, observed):
    """Mean and spread of fields by the Kalman filter of the textbook."""
    std = model.scaling.std[0]
    J = model.map.jacobian(np.zeros(model.map.n)) * std
    offset = model.map.decode(np.zeros((1, model.map.n)))[0, :, 0] * std + model.scaling.mean[0]
    step = model.propagator.step
    b = step(np.zeros((1, model.map.n)))[0]
    A = (step(np.eye(model.map.n)) - b).T
    Q = model.error.covariance
    R = 0.1**2 + model.error.representativeness[0] * std**2
    mean = model.encode(truth[0], noise=0.3).values
    prior = np.diag(1.0 / model.map.spread**2)
    P = np.linalg.inv(J.T @ J / 0.3**2 + prior)
    means, spreads = [], []
    for y in observed.values.reshape(observed.time.size, -1):
        mean, P = A @ mean + b, A @ P @ A.T + Q
        seen = np.isfinite(y)
        H = J[seen]
        gain = P @ H.T @ np.linalg.inv(H @ P @ H.T + R * np.eye(seen.sum()))
        mean = mean + gain @ (y[seen] - offset[seen] - H @ mean)
        P = (np.eye(len(P)) - gain @ H) @ P
        means.append(J @ mean + offset)
        spreads.append(np.sqrt(np.diag(J @ P @ J.T)))
    return np.array(means), np.array(spreads)


def test_kalman_is_the_filter_of_the_textbook(noisy, truth, observed):
    found = truth[0].assim.assimilate(observed, model=noisy, method="kalman", **KNOWN)
    mean, spread = dense(noisy, truth, observed)
    shape = found["mean"].shape
    np.testing.assert_allclose(found["mean"], mean.reshape(shape), atol=1e-8)
    np.testing.assert_allclose(found["std"], spread.reshape(shape), atol=1e-8)
    auto = truth[0].assim.assimilate(observed, model=noisy, **KNOWN)
    xr.testing.assert_identical(auto["mean"], found["mean"])


def test_etkf_q_with_enough_members_is_the_kalman_filter(noisy, truth, observed):
    exact = truth[0].assim.assimilate(observed, model=noisy, method="kalman", **KNOWN)
    found = truth[0].assim.assimilate(observed, model=noisy, method="etkf-q", n=200, **KNOWN)
    last = {"time": slice(4, None)}
    off = np.abs(found["mean"] - exact["mean"]).isel(last) / exact["std"].isel(last)
    assert float(off.max()) < 0.02


@pytest.mark.parametrize("method", ["enkf", "etkf", "denkf", "serial"])
def test_sampled_filters_come_near_it(noisy, truth, observed, method):
    exact = truth[0].assim.assimilate(observed, model=noisy, method="kalman", **KNOWN)
    found = truth[0].assim.assimilate(observed, model=noisy, method=method, n=400, **KNOWN)
    off = (found["mean"] - exact["mean"]).isel(time=slice(4, None)) / exact["std"]
    assert float(np.sqrt((off**2).mean())) < 0.3


def test_senkf_says_that_it_collapses(noisy, truth, observed):
    with pytest.warns(UserWarning, match="no spread"):
        found = truth[0].assim.assimilate(observed, model=noisy, method="senkf", n=8, **KNOWN)
    assert float(found["std"].max()) < 1e-6


def test_the_analysis_is_nearer_to_the_truth_than_forecast_and_observations(model, truth, observed):
    start = truth[0] + 0.5
    found = start.assim.assimilate(observed, model=model, obs_error=0.1, background_error=0.6)
    error = np.sqrt(((found["mean"] - truth) ** 2).mean(("lat", "lon")))
    assert float(error[-4:].max()) < 0.05


def test_times_without_observations_are_forecasts(model, truth, observed):
    gap = observed.where(observed.time != observed.time[4])
    found = truth[0].assim.assimilate(gap, model=model, **KNOWN)
    assert float(found.observations_used[4]) == 0.0
    assert np.isnan(float(found.chi_square[4]))
    np.testing.assert_array_equal(found["increment"][4], 0.0)
    left = gap.dropna("time", how="all")
    again = truth[0].assim.assimilate(left, model=model, times=observed.time, **KNOWN)
    xr.testing.assert_allclose(found["mean"], again["mean"], atol=1e-10)
    some = truth[0].assim.assimilate(left, model=model, **KNOWN)  # one step of two
    np.testing.assert_allclose(some["mean"], found["mean"].sel(time=some.time), atol=1e-8)


def test_points_are_read_where_they_are(model, truth, waves):
    fine = waves(13, seed=99, lat=np.arange(-87.5, 90.0, 2.5), lon=np.arange(0.0, 360.0, 2.5))
    rng = np.random.default_rng(8)
    k = rng.integers(1, 13, 300)
    j, i = rng.integers(0, 71, 300), rng.integers(0, 144, 300)
    values = fine[0].values[k, j, i] + 0.1 * rng.standard_normal(300)
    west = (fine.lon.values[i] + 180.0) % 360.0 - 180.0
    coords = {"time": ("obs", fine.time.values[k]), "lat": ("obs", fine.lat.values[j]),
              "lon": ("obs", west)}  # fmt: skip
    points = xr.DataArray(values, coords, "obs", name="z")
    found = (truth[0] + 0.5).assim.assimilate(
        points, model=model, obs_error=0.1, background_error=0.6, method="etkf-q", seed=0
    )
    assert found.sizes["time"] == 12
    assert float(found.observations_used.sum()) == 300
    error = np.sqrt(((found["mean"] - truth) ** 2).mean(("lat", "lon")))
    assert float(error[-4:].max()) < 0.08


def test_an_infinite_radius_is_no_localisation(noisy, truth, observed):
    plain = truth[0].assim.assimilate(observed, model=noisy, method="etkf-q", n=20, **KNOWN)
    local = truth[0].assim.assimilate(
        observed, model=noisy, method="etkf-q", n=20, localization=np.inf, **KNOWN
    )
    np.testing.assert_allclose(local["mean"], plain["mean"], atol=1e-4)
    np.testing.assert_allclose(local["std"], plain["std"], atol=1e-4)


def test_localised_increments_stay_near_one_observation(noisy, truth):
    at = {"time": truth.time[1], "lat": ("obs", [7.5]), "lon": ("obs", [90.0])}
    one = xr.DataArray([float(truth[1].sel(lat=7.5, lon=90.0)) + 1.0], at, "obs", name="z")
    near, far = {"lat": 7.5, "lon": 90.0}, {"lat": 7.5, "lon": 270.0}
    kinds = {}
    for radius in (None, 4e6):
        found = truth[0].assim.assimilate(
            one, model=noisy, method="etkf-q", n=8, localization=radius, times=truth.time[1:2],
            **KNOWN,
        )  # fmt: skip
        step = np.abs(found["increment"][0])
        kinds[radius] = float(step.sel(**far) / step.sel(**near))
    assert kinds[4e6] < 0.7 * kinds[None]


def test_inflation_widens_and_an_adaptive_one_learns(noisy, truth, observed):
    from xr_spde.assim import Adaptive

    spread = {}
    for factor in (1.0, 1.2, Adaptive(uncertainty=0.5)):
        found = (truth[0] + 1.0).assim.assimilate(
            observed, model=noisy, method="etkf-q", inflation=factor, **{**KNOWN, "obs_error": 0.1}
        )
        spread[str(factor)[:8]] = float(found["std"].mean())
    assert spread["1.2"] > spread["1.0"]
    assert spread["Adaptive"] >= spread["1.0"]


def test_representativeness_widens_what_is_expected_of_innovations(noisy, truth, observed):
    both = [
        truth[0].assim.assimilate(observed, model=noisy, representativeness=flag, **KNOWN)
        for flag in (True, False)
    ]
    assert float((both[0] - both[1]).innovation_expected_rms.min()) > 0.0


def test_an_ensemble_of_first_guesses_and_codes_are_taken(noisy, truth, observed, waves):
    ensemble = waves(1, seed=7, members=12).isel(time=0)
    found = ensemble.assim.assimilate(observed, model=noisy, obs_error=0.1)
    assert dict(found.codes.sizes) == {"time": 12, "member": 12, "code": 6}
    again = noisy.encode(ensemble).assim.assimilate(observed, model=noisy, obs_error=0.1)
    np.testing.assert_allclose(again["mean"], found["mean"], atol=1e-8)


def test_lazy_and_chunked_input_gives_the_same_numbers(noisy, truth, observed):
    known = {**KNOWN, "model": noisy, "method": "etkf-q", "n": 20}
    expected = truth[0].assim.assimilate(observed, **known)
    for chunks in ({"time": 1}, {"lat": 5, "lon": 7}):
        found = truth[0].assim.assimilate(observed.chunk(chunks), **known)
        assert all(found[name].chunks for name in ("mean", "std", "codes", "chi_square"))
        xr.testing.assert_identical(found.compute(scheduler="synchronous"), expected)


def test_seeds_decide_what_is_random(noisy, truth, observed):
    runs = [
        truth[0].assim.assimilate(observed, model=noisy, method="enkf", **{**KNOWN, "seed": seed})
        for seed in (1, 1, 2)
    ]
    xr.testing.assert_identical(runs[0], runs[1])
    assert float(np.abs(runs[0]["mean"] - runs[2]["mean"]).max()) > 0.0


def test_single_precision_stays(noisy, truth, observed):
    found = truth[0].astype(np.float32).assim.assimilate(observed, model=noisy, **KNOWN)
    double = truth[0].assim.assimilate(observed, model=noisy, **KNOWN)
    assert found["mean"].dtype == np.float32
    np.testing.assert_allclose(found["mean"], double["mean"], atol=1e-4)


class Explosive:
    """Dynamics that double codes."""

    name, affine = "linear", True

    def step(self, codes, dt=1.0, time=None):
        return codes * 10.0**dt


def test_codes_that_run_away_are_reported_with_step_and_member(model, truth, observed):
    wild = dataclasses.replace(model, propagator=Explosive())
    with pytest.raises(DivergenceError, match=r"step \d+: \d of 4 .members \d") as caught:
        truth[0].assim.assimilate(
            observed, model=wild, method="etkf", obs_error=100.0, n=4, representativeness=False
        )
    assert "in the forecast of 2001-01-0" in "".join(caught.value.__notes__)


def test_wild_observations_are_left_out(noisy, truth, observed):
    spoilt = observed.copy()
    where = np.argwhere(np.isfinite(spoilt.values[3]))[0]
    spoilt.values[3, where[0], where[1]] += 100.0
    found = truth[0].assim.assimilate(spoilt, model=noisy, threshold=6.0, **KNOWN)
    clean = truth[0].assim.assimilate(observed, model=noisy, threshold=6.0, **KNOWN)
    assert float((clean - found).observations_used[3]) == 1.0
    np.testing.assert_allclose(found["mean"], clean["mean"], atol=0.05)

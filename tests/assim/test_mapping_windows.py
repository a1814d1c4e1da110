"""Windows of "auto" halo, any chunks, and the iterated solver, through the accessor."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.assim.prior_recipe import read_prior
from xr_spde.errors import ParameterError, UnknownNameError

NY, NX, STD = 7, 8, 0.08
COORDS = {
    "lat": ("lat", 40.0 + 0.5 * np.arange(NY), {"units": "degrees_north"}),
    "lon": ("lon", 3.0 + 0.5 * np.arange(NX), {"units": "degrees_east"}),
}
LAND = np.zeros((NY, NX), bool)
LAND[2:4, 5] = True
START = np.datetime64("2014-05-15", "ns")


def make_prior(decay, alpha, **attrs):
    maps = {"length": 90.0, "decay_time": decay, "std": STD, "mean": 0.0}
    maps = {k: (("lat", "lon"), np.where(LAND, np.nan, v)) for k, v in maps.items()}
    return xr.Dataset(maps, COORDS, {"time_step": 1.0, "alpha": alpha, **attrs})


def make_points(days, *, seed=0, a_day=4):
    """Points anywhere in space and time, but for a gap of a few days without any."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(0.0, days - 1.0, a_day * days)
    at = np.where((at > 0.4 * days) & (at < 0.5 * days), 0.2 * at, at)
    coords = {"lat": ("obs", rng.uniform(40.2, 42.8, at.size)),
              "lon": ("obs", rng.uniform(3.2, 4.9, at.size)),
              "time": ("obs", START + (at * 86400e9).astype("timedelta64[ns]"))}  # fmt: skip
    return xr.DataArray(STD * rng.standard_normal(at.size), coords, "obs")


def steps(days):
    return START + np.arange(days) * np.timedelta64(1, "D")


@pytest.mark.parametrize(("alpha", "decay", "halo"), [(2, 4.0, 8), (4, 6.0, 9)])
def test_auto_halo_agrees_with_the_whole_series(alpha, decay, halo):
    """With sparse points and days without any: what the guide states about seams.

    The field forgets 95 % within the halo, and observations in between say the rest again. Twice
    the halo is five times as good at least.
    """
    days = 40
    prior = make_prior(decay, alpha)
    recipe, maps = read_prior(prior)
    space = recipe.build({k: v.values for k, v in maps.items()}, LAND, days)
    rng = np.random.default_rng(8)
    field = space.sample(rng.standard_normal((1, days, NY * NX))).reshape(days, NY, NX)
    truth = xr.DataArray(field, {"time": steps(days), **COORDS}, ("time", "lat", "lon"))
    points = make_points(days)
    seen = truth.interp({k: points[k] for k in ("time", "lat", "lon")})
    points = points.copy(data=seen + 0.03 * rng.standard_normal(points.size))
    settings = {"obs_error": 0.03, "times": steps(days)}
    whole = prior.assim.assimilate(points, block=days, halo=0, **settings)
    cut = prior.assim.assimilate(points, **settings)
    assert (cut.attrs["xr_spde_windows"], whole.attrs["xr_spde_windows"]) == (4, 1)
    assert cut.attrs["xr_spde_halo"] == halo
    longer = prior.assim.assimilate(points, halo=2 * halo, block=10, **settings)
    off, less = (abs(one["mean"] - whole["mean"]) / STD for one in (cut, longer))
    assert float(np.sqrt((off**2).mean())) < 0.01
    assert float(off.max()) < 0.05
    assert float(less.max()) < 0.2 * float(off.max())
    assert float(abs(cut["std"] / whole["std"] - 1).max()) < 0.005


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 13}, {"time": 30, "lat": 2, "lon": 3}])
def test_auto_windows_do_not_depend_on_chunks(chunks):
    days = 30
    prior, points = make_prior(4.0, 2), make_points(days)
    guess = (0.1 * prior["std"] + xr.DataArray(np.arange(days) / days, {"time": steps(days)})
             ).transpose("time", "lat", "lon")  # fmt: skip
    settings = {"prior": prior, "obs_error": 0.03, "n": 1, "seed": 1}
    eager = guess.assim.assimilate(points, **settings)
    lazy = guess.chunk(chunks).assim.assimilate(points, **settings)
    for name in ("mean", "std", "ensemble", "residual"):
        assert lazy[name].chunks is not None
        np.testing.assert_array_equal(lazy[name].compute(scheduler="threads"), eager[name])


def test_progress_is_that_of_dask(capsys):
    from dask.diagnostics import ProgressBar

    days = 30
    prior, points = make_prior(4.0, 2), make_points(days)
    guess = xr.DataArray(np.zeros((days, NY, NX)), {"time": steps(days), **COORDS},
                         ("time", "lat", "lon")).chunk(time=10)  # fmt: skip
    maps = guess.assim.assimilate(points, prior=prior, obs_error=0.03)
    with ProgressBar():
        maps["mean"].compute()
    assert "100% Completed" in capsys.readouterr().out


def test_iterated_solver_agrees_with_the_exact_one_and_says_so(caplog):
    days = 12
    prior, points = make_prior(12.0, 2), make_points(days, a_day=6)
    settings = {"obs_error": 0.03, "times": steps(days), "seed": 2, "n": 3, "tol": 1e-9}
    with caplog.at_level(logging.INFO, logger="xr_spde.solvers"):
        exact = prior.assim.assimilate(points, solver="auto", draws=200, **settings)
        assert "solver='auto': direct of up to 12 steps" in caplog.text
        found = prior.assim.assimilate(points, solver="pcg", draws=200, **settings)
    assert "solver='pcg': conjugate gradients, 12 blocks" in caplog.text
    assert "conjugate gradients: " in caplog.text
    assert found.attrs["xr_spde_solver"] == "pcg"
    for one, least in ((exact, 1e-11), (found, 1e-7)):
        assert one.attrs["xr_spde_residual"] == float(one["residual"].max()) < least
    assert found.attrs["xr_spde_residual"] > 0.0
    for name in ("mean", "ensemble"):
        assert float(abs(found[name] - exact[name]).max()) < 1e-7 * STD
    # Rao-Blackwellised: a plain estimate from 200 draws scatters by sqrt(1 / 400) = 5 %
    ratio = (found["std"] / exact["std"]).values
    assert np.sqrt(np.nanmean((ratio - 1) ** 2)) < 0.03
    assert np.nanmean(ratio) == pytest.approx(1.0, abs=0.005)
    again = prior.assim.assimilate(points, solver="pcg", draws=200, **settings)
    np.testing.assert_array_equal(again["std"], found["std"])


@pytest.mark.parametrize(
    ("solver", "attrs"), [("direct", {}), ("pcg", {}), ("direct", {"noise_length": 60.0})]
)
def test_conditional_draws_have_the_posterior_covariance(solver, attrs):
    """Along random directions, between cells and days, against the inverse of dense matrices."""
    days, members = 4, 1500
    prior, points = make_prior(12.0, 2, **attrs), make_points(days)
    found = prior.assim.assimilate(points, obs_error=0.03, times=steps(days), n=members, seed=5,
                                   solver=solver, draws=0, tol=1e-9)  # fmt: skip
    recipe, maps = read_prior(prior)
    space = recipe.build({k: v.values for k, v in maps.items()}, LAND, days)
    rows = np.zeros((points.size, days * NY * NX))
    for k, one in enumerate(points):
        at = [float((one.time.values - START) / np.timedelta64(1, "D")),
              (one.lat.item() - 40.0) / 0.5, (one.lon.item() - 3.0) / 0.5]  # fmt: skip
        for corner in np.ndindex(2, 2, 2):
            index = [int(a) + c for a, c in zip(at, corner, strict=True)]
            weight = np.prod([1 - abs(a - i) for a, i in zip(at, index, strict=True)])
            if weight > 0:
                rows[k, np.ravel_multi_index(index, (days, NY, NX))] += weight
    water = np.tile(~LAND.ravel(), days)
    precision = space.precision().toarray() + rows.T @ rows / 0.03**2
    covariance = np.linalg.inv(precision[np.ix_(water, water)])
    draws = found["ensemble"].values.reshape(members, -1)[:, water]
    off = draws - found["mean"].values.ravel()[water]
    whitened = off @ np.linalg.cholesky(np.linalg.inv(covariance))
    moment = whitened.T @ whitened / members - np.eye(water.sum())
    count = water.sum() * (water.sum() + 1) / 2
    # squares of independent normal numbers of variance 1/M (2/M on the diagonal)
    scaled = np.triu(moment) ** 2 * members
    scaled[np.diag_indices_from(scaled)] /= 2
    assert scaled.sum() / count == pytest.approx(1.0, abs=5 * np.sqrt(2 / count))
    assert np.abs(moment).max() < 6 * np.sqrt(2 / members)


def test_smooth_noise_makes_smooth_maps_of_the_same_deviation():
    """With alpha = 2, whose fields are rough in space otherwise."""
    one = make_points(4, a_day=1)[:1]
    roughness = {}
    for length in (0.0, 150.0):
        prior = make_prior(12.0, 2, noise_length=length, noise_alpha=4)
        recipe, maps = read_prior(prior)
        space = recipe.build({k: v.values for k, v in maps.items()}, LAND, 1)
        x = space.sample(np.random.default_rng(0).standard_normal((50, 1, NY * NX)))
        x = np.where(LAND, np.nan, x.reshape(50, NY, NX))
        roughness[length] = np.nanvar(np.diff(x, axis=2)) / np.nanvar(x)
        assert prior.assim.assimilate(one, obs_error=0.03, times=steps(4))["std"].max() < 3 * STD
    assert roughness[150.0] < 0.3 * roughness[0.0]
    with pytest.raises(ParameterError, match="noise_length=-1"):
        make_prior(12.0, 2, noise_length=-1.0).assim.assimilate(one, obs_error=0.03)
    with pytest.raises(UnknownNameError, match="noise_alpha"):
        make_prior(12.0, 2, noise_alpha=3).assim.assimilate(one, obs_error=0.03)

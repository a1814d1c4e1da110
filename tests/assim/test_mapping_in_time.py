"""Priors that vary in time, and errors along tracks: against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.assim.test_mapping import DAY, DAYS, NX, NY, START, TIMES, make_points, make_prior
from xr_spde.assim import AlongTrack
from xr_spde.assim.prior_recipe import read_prior
from xr_spde.assim.windows import spacetime_rows
from xr_spde.errors import ParameterError, SchemaError
from xr_spde.labels.grid import Grid


def moving_prior():
    """Length, decay time, flow, std and mean differ from step to step."""
    base, share = make_prior(), xr.DataArray(np.linspace(0.0, 1.0, DAYS), {"time": TIMES}, "time")
    changes = {"length": 90.0 + 40.0 * share, "decay_time": 12.0 - 4.0 * share}
    changes |= {"std": 0.08 + 0.04 * share, "u": 0.05 * share - 0.02, "mean": 0.3 + 0.1 * share}
    water = base["std"].notnull()
    return base.assign({k: v.where(water).transpose("time", ...) for k, v in changes.items()})


def dense_rows(points):
    from xr_spde.assim.observations import read_observations

    found = read_observations(points, Grid.from_object(make_prior()), obs_error=1.0)
    days = (points.time.values - START) / DAY
    return spacetime_rows(found.canonical().matrix, days, DAYS).toarray()


def propagated(prior):
    """Covariance of all steps by the recursion, each step from the parameters of its own time."""
    recipe, _ = read_prior(prior.isel(time=0), step=1.0)
    land = prior["std"].isel(time=0).isnull().values
    total = np.zeros((DAYS * NY * NX,) * 2)
    n, past = NY * NX, None
    for t in range(DAYS):
        maps = read_prior(prior.isel(time=t), step=1.0)[1]
        one = recipe.build({k: v.values for k, v in maps.items()}, land, 2)
        move = np.linalg.inv(one.transition(0).toarray()) * one.sea  # columns of land are empty
        if past is None:
            own = np.linalg.inv(one.first().toarray()) * np.outer(one.sea, one.sea)
        else:
            own = move @ (past + np.diag(one.sea / one.weight(0))) @ move.T
            own *= np.outer(one.sea, one.sea)
        here = slice(t * n, (t + 1) * n)
        total[here, here] = own
        for s in range(t):
            there, before = slice(s * n, (s + 1) * n), slice((t - 1) * n, t * n)
            total[here, there] = (move @ total[before, there]) * np.outer(one.sea, one.sea)
            total[there, here] = total[here, there].T
        past = own
    return total, np.tile(~land.ravel(), DAYS)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_prior_that_varies_in_time(solver):
    prior, points = moving_prior(), make_points()
    found = prior.assim.assimilate(points, obs_error=0.03, solver=solver, tol=1e-10, draws=0)
    np.testing.assert_array_equal(found.time, TIMES)
    covariance, water = propagated(prior)
    rows = dense_rows(points)
    gain = np.linalg.solve(rows @ covariance @ rows.T + 0.03**2 * np.eye(len(rows)),
                           rows @ covariance).T  # fmt: skip
    mean = np.nan_to_num(prior["mean"].values.ravel())
    expected = mean + gain @ (points.values - rows @ mean)
    got = found["mean"].values.ravel()
    np.testing.assert_allclose(got[water], expected[water], atol=1e-7)
    if solver == "direct":
        both = prior.assim.assimilate(points, obs_error=0.03, n=2, seed=1)
        std = np.sqrt(np.diagonal(covariance - gain @ rows @ covariance))
        np.testing.assert_allclose(both["std"].values.ravel()[water], std[water], atol=1e-8)


def test_windows_take_the_parameters_of_their_steps():
    prior, points = moving_prior(), make_points(60)
    how = {"obs_error": 0.03, "draws": 0, "solver": "direct"}
    whole = prior.assim.assimilate(points, block=DAYS, **how)
    cut = prior.assim.assimilate(points, block=2, halo=DAYS, **how)
    np.testing.assert_allclose(cut["mean"], whole["mean"], atol=1e-9)
    guess = prior["mean"].rename("ssh")
    from_guess = guess.assim.assimilate(points, prior=prior, **how)
    np.testing.assert_allclose(from_guess["mean"], whole["mean"], atol=1e-9)
    longer = prior.isel(time=slice(0, 4))
    np.testing.assert_allclose(
        longer.assim.assimilate(points, unusable="drop", times=TIMES[:4], **how)["mean"],
        prior.assim.assimilate(points, unusable="drop", times=TIMES[:4], **how)["mean"],
    )


def test_times_that_do_not_match():
    prior, points = moving_prior(), make_points()
    with pytest.raises(ParameterError, match=r"lacks 2 of the 6 output times.*interpolate"):
        prior.isel(time=slice(0, 4)).assim.assimilate(points, obs_error=0.03, times=TIMES)
    with pytest.raises(ParameterError, match="missing at some times"):
        prior.assign(std=prior["std"].where(prior.time < TIMES[2])).assim.assimilate(
            points, obs_error=0.03
        )
    with pytest.raises(ParameterError, match="threshold"):
        prior.assim.assimilate(points, obs_error=0.03, threshold=3.0)
    with pytest.raises(SchemaError, match="dates"):
        prior.drop_vars("time").assim.assimilate(points, obs_error=0.03, times=TIMES)


def track_points():
    points = make_points(40)
    return points.assign_coords(track=("obs", np.arange(40) // 10)).sortby("time")


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_errors_along_tracks(solver):
    prior, points = make_prior(), track_points()
    error = AlongTrack(0.05, length=80e3, share=0.8, track="track")
    how = {"times": TIMES, "solver": solver, "tol": 1e-10, "seed": 1}
    found = prior.assim.assimilate(points, obs_error=error, draws=200, n=400, **how)
    covariance, rows = propagated(prior.expand_dims(time=TIMES))[0], dense_rows(points)
    from xr_spde.assim.observations import read_observations

    white = read_observations(points, Grid.from_object(prior), obs_error=error).error.whiten
    root = white(np.eye(len(rows)))
    r = np.linalg.inv(root @ root.T)
    gain = np.linalg.solve(rows @ covariance @ rows.T + r, rows @ covariance).T
    expected = 0.3 + gain @ (points.values - 0.3)
    std = np.sqrt(np.diagonal(covariance - gain @ rows @ covariance)).reshape(DAYS, NY, NX)
    water = found["mean"].notnull().values
    np.testing.assert_allclose(found["mean"].values[water],
                               expected.reshape(DAYS, NY, NX)[water], atol=1e-7)  # fmt: skip
    exact = solver == "direct"
    np.testing.assert_allclose(found["std"].values[water], std[water], rtol=1e-8 if exact else 0.15)
    ratio = found["ensemble"].std("realization").values[water] / std[water]
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)
    plain = prior.assim.assimilate(points, obs_error=0.05, draws=0, **how)
    assert abs(plain["mean"] - found["mean"]).max() > 1e-3


def test_errors_along_tracks_that_are_refused():
    prior, points = make_prior(), track_points()
    how = {"times": TIMES}
    with pytest.raises(ParameterError, match=r"share=1.*0\.9"):
        prior.assim.assimilate(points, obs_error=AlongTrack(0.05, 8e4, track="track"), **how)
    with pytest.raises(ParameterError, match="oi-gaussian"):
        prior.assim.assimilate(
            points, obs_error=AlongTrack(0.05, 8e4, share=0.5, track="track"), lx=1.0, ly=1.0,
            lt=5.0, std=0.1, method="oi-gaussian", **how,
        )  # fmt: skip

"""Prior of a field in space and time, fitted to scattered observations."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401
from xr_spde._core.errors import DTypeError, ParameterError, UnknownNameError
from xr_spde.assim import AlongTrack
from xr_spde.assim.prior_points import spde_prior_from_points
from xr_spde.assim.prior_points_input import read_point_problem
from xr_spde.assim.prior_recipe import read_prior
from xr_spde.fields.spde_fit_points import _PointProblem
from xr_spde.fields.spde_maps import MAPS
from xr_spde.fields.track_noise import TrackNoise

LAT, LON = np.arange(36.0, 42.0, 0.5), np.arange(2.0, 8.5, 0.5)
START = np.datetime64("2014-05-15", "ns")
TRUTH = {"length": 90.0, "decay_time": 12.0, "std": 0.1}
ERRORS = {0: 0.02, 1: 0.05}


def grid():
    z = np.zeros((LAT.size, LON.size))
    z[:3, :3] = np.nan
    return xr.DataArray(z, {"lat": LAT, "lon": LON}, ("lat", "lon"))


def drawn(seed, *, steps=10, count=1500, track_error=0.0, alpha=2):
    """Observations of two missions of a field with known parameters, nowhere near land."""
    rng = np.random.default_rng(seed)
    maps = {name: xr.where(grid().isnull(), np.nan, value) for name, value in TRUTH.items()}
    recipe, labelled = read_prior(xr.Dataset(maps, attrs={"time_step": 1.0, "alpha": alpha}))
    land = grid().isnull().values
    arrays = {name: np.asarray(da.values) for name, da in labelled.items()}
    prior = recipe.build(arrays, land, steps)
    field = prior.sample(rng.standard_normal((1, prior.total, prior.nodes)))[0]
    axes = {"day": np.arange(steps), "lat": LAT, "lon": LON}
    fields = xr.DataArray(field.reshape(steps, *land.shape), axes)
    mission = rng.integers(0, 2, count)
    where = {"day": rng.uniform(0, steps - 1, count), "lat": rng.uniform(37.6, 41.4, count),
             "lon": rng.uniform(3.6, 7.9, count)}  # fmt: skip
    track = np.floor(where["day"] * 4).astype(int) * 2 + mission
    where["lon"] = 3.6 + 4.3 * ((where["lat"] - 37.6) / 3.8 * 0.5 + (track % 7) / 14)
    points = {name: ("obs", values) for name, values in where.items()}
    z = fields.interp({name: xr.DataArray(v, dims="obs") for name, v in where.items()}).values
    z = z + np.array([ERRORS[0], ERRORS[1]])[mission] * rng.standard_normal(count)
    if track_error:
        z = z + track_error * rng.standard_normal(track.max() + 1)[track]
    when = START + (where["day"] * 86400e9).astype("timedelta64[ns]")
    del points["day"]
    found = {
        "ssh": ("obs", z, {"units": "m"}),
        "mission": ("obs", mission),
        "track": ("obs", track),
    }
    return xr.Dataset(found, {**points, "time": ("obs", when)})


def test_parameters_and_errors_of_each_mission_are_found():
    obs = drawn(0, count=1000)
    prior = obs.assim.spde_prior(grid=grid(), time_step=1.0, alpha=2, mean=0.0, nugget="mission",
                                 value="ssh")  # fmt: skip
    assert prior.converged
    at = prior.isel(lat=6, lon=6)
    for name, truth in TRUTH.items():
        assert at[name].item() == pytest.approx(truth, rel=0.6), name
        assert abs(at[name].item() - truth) < 3.0 * at[f"{name}_stderr"].item(), name
    np.testing.assert_allclose(prior.obs_error, [ERRORS[0], ERRORS[1]], rtol=0.12)
    off = abs(prior.obs_error - [ERRORS[0], ERRORS[1]])
    assert (off < 3.0 * prior.obs_error_stderr).all()
    np.testing.assert_array_equal(prior["mean"].isnull(), grid().isnull())


def test_errors_along_tracks_are_told_from_the_field():
    obs = drawn(1, count=700, track_error=0.06)
    how = {"grid": grid(), "time_step": 1.0, "alpha": 2, "mean": 0.0, "value": "ssh",
           "stderr": False, "window": 3}  # fmt: skip
    with_them = spde_prior_from_points(obs, track="track", **how)
    without = spde_prior_from_points(obs, **how)
    assert with_them.track_error.item() == pytest.approx(0.06, rel=0.3)
    assert with_them.track_length.attrs["units"] == "km"
    assert "errors" in with_them.obs_error.attrs["long_name"]
    assert with_them.track_length.item() > 300.0  # the bias is constant along a track
    assert with_them.log_likelihood > without.log_likelihood + 20.0


def test_cross_validation_is_the_sum_of_conditional_densities():
    from scipy.stats import multivariate_normal

    obs = drawn(2, count=60)
    given = defaults(obs, objective="missions", nugget=False, obs_error=0.05)
    problem = read_point_problem(given)
    windows, steps, operator = problem.windows(20)
    start, _ = problem.start(operator)
    found = _PointProblem(
        operator, windows, 0, "missions", steps=steps, dt=1.0, alpha=2, initial="stationary",
        knots=(1, 1), names=("log_kappa", "log_tau", "log_h"), start=start, smoothness=0.3,
        further=np.zeros(0),
    )  # fmt: skip
    from xr_spde.fields.spacetime import SpaceTime

    prior = SpaceTime(operator, start, steps=steps, dt=1.0, alpha=2)
    window = windows[0]
    cov = window.rows @ np.linalg.inv(prior.precision().toarray()) @ window.rows.T
    cov += np.diag(window.known)
    expected = 0.0
    for m in (0, 1):
        a, b = np.flatnonzero(window.mission == m), np.flatnonzero(window.mission != m)
        gain = np.linalg.solve(cov[np.ix_(b, b)], cov[np.ix_(b, a)]).T
        exact = multivariate_normal(gain @ window.innovation[b],
                                    cov[np.ix_(a, a)] - gain @ cov[np.ix_(b, a)])  # fmt: skip
        expected -= exact.logpdf(window.innovation[a])
    value, gradient, _ = found.evaluate(np.zeros(found.size))
    assert value == pytest.approx(expected, rel=1e-9)
    direction = np.array([0.3, -0.5, 0.8])
    ends = [found.evaluate(sign * 1e-4 * direction)[0] for sign in (1, -1)]
    assert gradient @ direction == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6)


def test_gradient_by_knots_and_errors():
    given = defaults(drawn(6, count=80), nugget="mission", track="track", window=4)
    problem = read_point_problem(given)
    windows, steps, operator = problem.windows(4)
    start, _ = problem.start(operator)
    found = _PointProblem(
        operator, windows, 2, "likelihood", steps=steps, dt=1.0, alpha=2, initial="stationary",
        knots=(2, 2), names=MAPS, start=start, smoothness=0.3,
        further=np.log([0.03, 0.05, 0.02, 2e5]),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    place, direction = 0.05 * rng.standard_normal((2, found.size))
    assert found.size == len(MAPS) * 4 + 4
    slope = found.evaluate(place)[1] @ direction
    ends = [found.evaluate(place + sign * 1e-4 * direction)[0] for sign in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-5)


def defaults(obs, **changes):
    given = {"obs": obs, "grid": grid(), "time_step": 1.0, "times": None, "region": None,
             "alpha": 2, "mean": 0.0, "obs_error": 0.0, "nugget": True, "track": None,
             "objective": "likelihood", "mission": "mission", "knots": (1, 1),
             "boundary": "neumann", "coast": "neumann", "advection": "centred",
             "unusable": "raise", "value": "ssh", "obs_x": None, "obs_y": None, "x": None,
             "y": None}  # fmt: skip
    return given | changes


def test_windows_hold_every_observation_once():
    problem = read_point_problem(defaults(drawn(3, count=200)))
    for length in (1, 2, 4, 9, 50):
        windows, steps, _ = problem.windows(length)
        assert sum(w.innovation.size for w in windows) == 200
        assert all(w.rows.shape[1] == steps * LAT.size * LON.size for w in windows)
        for w in windows:
            np.testing.assert_allclose(w.rows.sum(axis=1), 1.0)


def test_region_and_mean():
    obs = drawn(4, count=300)
    base = grid().where(grid().isnull(), 0.3)
    prior = spde_prior_from_points(
        obs, grid=grid(), time_step=1.0, alpha=2, value="ssh", mean=base, max_iterations=3,
        region={"lat": slice(38, 41), "lon": slice(4, 8)},
    )  # fmt: skip
    assert prior.length.shape == grid().shape
    np.testing.assert_array_equal(prior.length.isnull(), grid().isnull())
    assert float(prior.length.max()) == pytest.approx(float(prior.length.min()))
    assert prior["mean"].equals(base.rename("mean"))
    assert prior.attrs["observations"] < 300
    maps = prior.assim.assimilate(obs.ssh, obs_error=float(prior.obs_error))
    assert np.isfinite(maps["mean"]).sum() > 0


def test_bad_input():
    obs = drawn(5, count=30)
    fit = obs.assim.spde_prior
    for settings, words in (
        ({"nugget": False}, "needs obs_error"), ({"nugget": "ship"}, "ship"),
        ({"window": 0}, "window"), ({"time_step": 0.0}, "time_step"), ({"track": "ship"}, "ship"),
        ({"obs_error": AlongTrack(0.1, 1e5)}, "AlongTrack"),
        ({"mean": grid().isel(lat=slice(0, 8))}, "mean is missing on"),
        ({"time_step": 90.0, "times": ["2014-05-15"]}, "one time"),
        ({"region": {"lat": slice(38, 41)}, "knots": (2, 2)}, "region"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=words):
            fit(grid=grid(), value="ssh", **settings)
    for settings in ({"mean": "time"}, {"objective": "maximum"}, {"alpha": 3}):
        with pytest.raises(UnknownNameError, match=next(iter(settings))):
            fit(grid=grid(), value="ssh", **settings)
    with pytest.raises(ParameterError, match="two missions"):
        obs.isel(obs=obs.mission == 0).assim.spde_prior(
            grid=grid(), value="ssh", objective="missions", time_step=1.0
        )
    with pytest.raises(DTypeError, match="grid="):
        obs.assim.spde_prior()
    with pytest.raises(ParameterError, match="share their place"):
        TrackNoise(np.zeros(3), np.zeros(3))


def test_precision_of_errors_along_tracks():
    rng = np.random.default_rng(0)
    distance, track, std = rng.uniform(0, 9, 12), rng.integers(0, 3, 12), rng.uniform(1, 2, 12)
    apart = np.abs(np.subtract.outer(distance, distance))
    same = np.equal.outer(track, track)
    covariance = np.outer(std, std) * np.exp(-apart / 2.5) * same
    noise = TrackNoise(distance, track)
    found = noise.errors(std, 2.5)
    np.testing.assert_allclose(found.precision.toarray(), np.linalg.inv(covariance), atol=1e-10)
    assert found.logdet == pytest.approx(-np.linalg.slogdet(covariance)[1])
    h = 1e-5
    for k, moves in enumerate([(np.exp(h), 1.0), (1.0, np.exp(h))]):
        ends = [noise.errors(std * moves[0] ** s, 2.5 * moves[1] ** s) for s in (1, -1)]
        slope, change = found.slopes[k]
        assert change == pytest.approx((ends[0].logdet - ends[1].logdet) / (2 * h), rel=1e-6)
        np.testing.assert_allclose(slope.toarray(),
                                   (ends[0].precision - ends[1].precision).toarray() / (2 * h),
                                   rtol=1e-5, atol=1e-7)  # fmt: skip


def smoothed_maps():
    """Maps of a product: a field of the prior of alpha = 4, smoothed in space and time."""
    from scipy.ndimage import gaussian_filter

    lat, lon = 38.0 + 0.25 * np.arange(10), 3.0 + 0.25 * np.arange(12)
    maps = {"length": 45.0, "decay_time": 12.0, "std": 0.1}
    shape = lat.size, lon.size
    prior = xr.Dataset({k: (("lat", "lon"), np.full(shape, v)) for k, v in maps.items()},
                       {"lat": lat, "lon": lon}, {"time_step": 1.0})  # fmt: skip
    recipe, labelled = read_prior(prior)
    arrays = {name: np.asarray(da.values) for name, da in labelled.items()}
    space = recipe.build(arrays, np.zeros(shape, dtype=bool), 40)
    noise = np.random.default_rng(0).standard_normal((1, space.total, space.nodes))
    field = gaussian_filter(space.sample(noise).reshape(40, *shape), (1.0, 0.7, 0.7))
    days = START + np.arange(40) * np.timedelta64(1, "D")
    return xr.DataArray(field, {"time": days, "lat": lat, "lon": lon}, name="ssh")


def test_maps_of_a_product_are_thinned():
    maps = smoothed_maps()
    with pytest.warns(UserWarning, match="thin="):
        full = maps.assim.spde_prior(mean=0.0, anisotropic=False, stderr=False)
    assert full.decay_time.median() > 60.0  # of 12 days
    found = maps.assim.spde_prior(grid=maps.isel(time=0, drop=True), thin=(4, 3), time_step=4.0,
                                  mean=0.0, window=5, stderr=False)  # fmt: skip
    assert found.length.median().item() == pytest.approx(45.0, rel=0.4)
    assert found.decay_time.median().item() == pytest.approx(12.0, rel=0.6)
    assert found["std"].median().item() == pytest.approx(float(maps.std()), rel=0.2)
    assert found.attrs["observations"] == 10 * 4 * 4
    grid = maps.isel(time=0, drop=True)
    for settings, words in (({}, "no thin="), ({"thin": (0, 2)}, "thin"), ({"thin": 3}, "thin")):
        with pytest.raises(ParameterError, match=words):
            maps.assim.spde_prior(grid=grid, **settings)
    with pytest.raises(ParameterError, match="points were given"):
        drawn(0, count=5).assim.spde_prior(grid=grid, thin=(2, 2))

"""Maps in space and time: against dense algebra, any chunks, bad input, priors from disk."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.errors import (
    GridError,
    MemoryGuardError,
    ParameterError,
    SchemaError,
    UnknownNameError,
)
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_variance import local_std

NY, NX, DAYS = 7, 8, 6
COORDS = {
    "lat": ("lat", 40.0 + 0.5 * np.arange(NY), {"units": "degrees_north"}),
    "lon": ("lon", 3.0 + 0.5 * np.arange(NX), {"units": "degrees_east"}),
}
START = np.datetime64("2014-05-15", "ns")
DAY = np.timedelta64(1, "D")


def make_prior(**changes):
    numbers = {"length": 90.0, "length_across": 60.0, "angle": 0.4, "decay_time": 12.0,
               "u": 0.02, "v": -0.01, "std": 0.08, "mean": 0.3} | changes  # fmt: skip
    land = np.zeros((NY, NX), bool)
    land[2:4, 5] = True
    maps = {k: (("lat", "lon"), np.where(land, np.nan, v)) for k, v in numbers.items()}
    return xr.Dataset(maps, COORDS, {"time_step": 1.0, "alpha": 2})


def make_points(count=25, seed=0, last=DAYS - 1.0):
    rng = np.random.default_rng(seed)
    when = START + (rng.uniform(0, last, count) * 86400e9).astype("timedelta64[ns]")
    at = {"lat": ("obs", rng.uniform(40.2, 42.8, count)), "time": ("obs", when),
          "lon": ("obs", rng.uniform(3.2, 4.9, count))}  # fmt: skip
    return xr.DataArray(0.3 + 0.1 * rng.standard_normal(count), at, "obs", attrs={"units": "m"})


TIMES = START + np.arange(DAYS) * DAY


def dense(prior, points, error):
    """Kriging with the dense covariance of the recipe, observations by weights made here."""
    from xr_spde.assim.prior_recipe import read_prior

    recipe, maps = read_prior(prior)
    land = np.isnan(maps["std"].values)
    space = recipe.build({k: v.values for k, v in maps.items()}, land, DAYS)
    water = np.tile(~land.ravel(), DAYS)
    covariance = np.zeros((water.size, water.size))
    q = space.precision().toarray()[np.ix_(water, water)]
    covariance[np.ix_(water, water)] = np.linalg.inv(q)
    rows = np.zeros((points.size, water.size))
    for k, one in enumerate(points):
        j, i = (one.lat.item() - 40.0) / 0.5, (one.lon.item() - 3.0) / 0.5
        t = float((one.time.values - START) / DAY)
        for a in (0, 1):
            for b in (0, 1):
                for c in (0, 1):
                    weight = (1 - abs(t - (int(t) + a))) * (1 - abs(j - (int(j) + b)))
                    weight *= 1 - abs(i - (int(i) + c))
                    node = ((int(t) + a) * NY + int(j) + b) * NX + int(i) + c
                    if weight > 0:
                        rows[k, node] += weight
    gain = (
        covariance
        @ rows.T
        @ np.linalg.inv(rows @ covariance @ rows.T + error**2 * np.eye(len(rows)))
    )
    mean = 0.3 + gain @ (points.values - 0.3)
    std = np.sqrt(np.diag(covariance - gain @ rows @ covariance))
    keep = np.where(water, 1.0, np.nan)
    posterior = (covariance - gain @ rows @ covariance)[np.ix_(water, water)]
    shape = (DAYS, NY, NX)
    return (mean * keep).reshape(shape), (std * keep).reshape(shape), posterior


@pytest.fixture(scope="module")
def solved():
    prior, points = make_prior(), make_points()
    found = prior.assim.assimilate(points, obs_error=0.03, times=TIMES, n=3, seed=1)
    return prior, points, found


def test_mean_and_deviation_are_those_of_dense_kriging(solved):
    prior, points, found = solved
    mean, std, _ = dense(prior, points, 0.03)
    np.testing.assert_allclose(found["mean"], mean, atol=1e-8)
    np.testing.assert_allclose(found["std"], std, atol=1e-8)
    assert found["mean"].dims == ("time", "lat", "lon")
    assert found.attrs["xr_spde_residual"] < 1e-8
    assert (found.time.values == TIMES).all()


def test_three_ways_to_say_it_agree(solved):
    prior, points, found = solved
    guess = xr.full_like(found["mean"], 0.3).where(found["mean"].notnull())
    by_guess = guess.assim.assimilate(points, prior=prior, obs_error=0.03, method="oi")
    turned = points.assim.assimilate(prior=prior, method="oi", obs_error=0.03, times=TIMES)
    for other in (by_guess, turned):
        np.testing.assert_allclose(other["mean"], found["mean"], atol=1e-12)
        np.testing.assert_allclose(other["std"], found["std"], atol=1e-12)


def test_storage_order_does_not_matter(solved):
    prior, points, found = solved
    flipped = prior.isel(lat=slice(None, None, -1)).transpose("lon", "lat")
    other = flipped.assim.assimilate(points[::-1], obs_error=0.03, times=TIMES)
    assert other["mean"].lat[0] > other["mean"].lat[-1]
    np.testing.assert_allclose(other["mean"].sortby("lat"), found["mean"], atol=1e-10)


def test_draws_do_not_depend_on_their_number_and_have_the_deviation(solved):
    prior, points, found = solved
    many = prior.assim.assimilate(points, obs_error=0.03, times=TIMES, n=400, seed=1)
    np.testing.assert_allclose(many.ensemble[:3], found.ensemble, atol=1e-10)
    _, _, covariance = dense(prior, points, 0.03)
    off = (many.ensemble.mean("realization") - found["mean"]).values.ravel()
    off = off[np.isfinite(off)]
    # 400 times the squared distance of their mean is chi-square with as many degrees as cells
    chi2 = 400 * off @ np.linalg.solve(covariance, off)
    assert abs(chi2 - off.size) < 4 * np.sqrt(2 * off.size)
    ratio = (many.ensemble.var("realization") / found["std"] ** 2).mean()
    assert float(ratio) == pytest.approx(1.0, abs=0.03)


def test_gridded_observations_are_the_points_of_their_cells():
    prior = make_prior()
    rng = np.random.default_rng(3)
    values = np.where(rng.random((3, NY, NX)) < 0.3, rng.standard_normal((3, NY, NX)), np.nan)
    times = START + np.array([0.0, 1.5, 5.0]) * 24 * np.timedelta64(1, "h")
    grid = xr.DataArray(values, {"time": times, **COORDS}, ("time", "lat", "lon"))
    found = prior.assim.assimilate(grid, obs_error=0.05, times=TIMES, unusable="drop")
    water = grid.where(prior["std"].notnull()).stack(obs=("time", "lat", "lon")).dropna("obs")
    at = {k: ("obs", water[k].values) for k in ("time", "lat", "lon")}
    points = xr.DataArray(water.values, at, "obs")
    other = prior.assim.assimilate(points, obs_error=0.05, times=TIMES)
    np.testing.assert_allclose(found["mean"], other["mean"], atol=1e-9)
    error = xr.full_like(grid, 0.05)
    again = prior.assim.assimilate(grid, obs_error=error, times=TIMES, unusable="drop")
    np.testing.assert_allclose(again["std"], other["std"], atol=1e-9)


@pytest.mark.parametrize("lead", [0, 2])
def test_analyses_and_forecasts_do_not_see_the_future(lead):
    prior, points = make_prior(), make_points(40)
    settings = {"obs_error": 0.03, "times": TIMES[:-2]}
    ahead = settings | {"lead": lead, "halo": DAYS, "unusable": "drop"}
    found = prior.assim.assimilate(points, **ahead)
    known = points.time <= TIMES[DAYS - 3 - lead]
    assert 0 < int(known.sum()) < points.size
    alone = prior.assim.assimilate(points[known], **settings)
    np.testing.assert_allclose(found["mean"][-1], alone["mean"][-1], atol=1e-9)
    np.testing.assert_allclose(found["std"][-1], alone["std"][-1], atol=1e-9)
    later = points.copy(data=points.where(known, 9.0))
    again = prior.assim.assimilate(later, **ahead)
    np.testing.assert_array_equal(again["mean"][-1], found["mean"][-1])
    both = prior.assim.assimilate(points, **settings, unusable="drop")
    assert float(abs(both["mean"] - found["mean"]).isel(time=2).max()) > 1e-3


def series(days=40):
    prior = make_prior(decay_time=3.0, mean=0.0)
    times = START + np.arange(days) * DAY
    rng = np.random.default_rng(5)
    values = 0.08 * rng.standard_normal((days, NY, NX))
    values[rng.random(values.shape) < 0.8] = np.nan
    return prior, xr.DataArray(values, {"time": times, **COORDS}, ("time", "lat", "lon"))


def test_windows_are_seamless_and_do_not_depend_on_chunks():
    prior, obs = series()
    settings = {"obs_error": 0.03, "unusable": "drop", "times": obs.time, "n": 2, "seed": 4}
    whole = prior.assim.assimilate(obs, block=40, halo=0, **settings)
    cut = prior.assim.assimilate(obs, block=10, halo=15, **settings)
    for name in ("mean", "std", "ensemble"):
        assert float(abs(cut[name] - whole[name]).max()) < 1e-3 * 0.08
    for chunks in ({"time": 7}, {"time": 40, "lon": 3}):
        lazy = prior.assim.assimilate(obs.chunk(chunks), block=10, halo=15, **settings)
        assert all(lazy[name].chunks for name in ("mean", "std", "ensemble", "residual"))
        for name in ("mean", "std", "ensemble"):
            np.testing.assert_array_equal(lazy[name].compute(), cut[name])
    part = lazy["mean"].isel(time=slice(0, 3)).compute()
    np.testing.assert_array_equal(part, cut["mean"][:3])


def test_gaussian_covariance_is_dense_kriging():
    points = make_points(20)
    guess = xr.DataArray(np.full((DAYS, NY, NX), 0.3), {"time": TIMES, **COORDS},
                         ("time", "lat", "lon"))  # fmt: skip
    scales = {"lx": 1.0, "ly": 0.8, "lt": 30.0, "std": 0.1}
    found = guess.assim.assimilate(points, method="oi-gaussian", obs_error=0.05, **scales)
    day = (points.time.values - START) / DAY
    a = np.column_stack([day / 30.0, points.lat / 0.8, points.lon])
    t, y, x = np.meshgrid(np.arange(DAYS) / 30.0, guess.lat / 0.8, guess.lon, indexing="ij")
    b = np.column_stack([t.ravel(), y.ravel(), x.ravel()])

    def cov(p, q):
        return 0.01 * np.exp(-np.sum((p[:, None] - q[None]) ** 2, axis=-1))

    gain = np.linalg.solve(cov(a, a) + 0.0025 * np.eye(20), cov(a, b)).T
    # the mean is 0.3 everywhere, whatever the weights in time and space
    np.testing.assert_allclose(found["mean"].values.ravel(), 0.3 + gain @ (points.values - 0.3),
                               atol=1e-9)  # fmt: skip
    np.testing.assert_allclose(found["std"].values.ravel() ** 2,
                               0.01 - np.sum(gain * cov(b, a), axis=1), atol=1e-9)  # fmt: skip


def test_local_std_is_that_of_the_prior_far_from_edges():
    mesh = Mesh.of((48, 48), boundary="periodic", dx=1.3, dy=0.9)
    for alpha in (2, 4):
        parameters = SpdeParameters.of(mesh.shape, kappa=0.6, tau=1.7, m1=0.3, v1=1.0, v2=0.5,
                                       gamma=1.0, beta=0.7)  # fmt: skip
        told = local_std(parameters, mesh, dt=0.7, alpha=alpha)[0, 0, 0]
        prior = SpaceTime(SpdeOperator(mesh), parameters, steps=1, dt=0.7, alpha=alpha)
        variance = prior.first_factor().inverse_diagonal()
        assert told == pytest.approx(np.sqrt(variance[0]), rel=5e-3)


def replaced(points, name, index, value):
    changed = points[name].values.copy()
    changed[index] = value
    return points.assign_coords({name: ("obs", changed)})


BAD = {
    "outside the grid": (lambda p: replaced(p, "lat", 3, 60.0), {}, "1 of 25 .* outside the grid"),
    "all outside": (lambda p: p.assign_coords(lat=p.lat + 30), {"unusable": "drop"}, "none of the"),
    "outside the times": (lambda p: replaced(p, "time", 2, START - DAY), {},
                          "1 of 25 observations are outside the times"),
    "all at other times": (lambda p: p.assign_coords(time=p.time + 99 * DAY),
                           {"unusable": "drop"}, "25 of 25 observations are outside the times"),
    "duplicates": (lambda p: xr.concat([p, p[4:6]], "obs"), {}, "2 of 27 observations repeat"),
    "zero error": (lambda p: p, {"obs_error": 0.0}, "zero, negative"),
    "no place": (lambda p: replaced(p, "lon", 7, np.nan), {}, "1 of 25 .* no 'lon'.*index 7"),
    "no time": (lambda p: replaced(p, "time", 7, np.datetime64("NaT")), {}, "no 'time'"),
    "unsorted output": (lambda p: p, {"times": TIMES[::-1]}, "do not increase"),
    "irregular output": (lambda p: p, {"times": TIMES[[0, 1, 3, 5]]}, "expected equal steps"),
    "scales of the other": (lambda p: p, {"lx": 1.0}, "belong to method"),
    "half a member": (lambda p: p, {"n": 0.5}, "n=0.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_observations_are_refused(name):
    change, settings, message = BAD[name]
    with pytest.raises(ParameterError, match=message):
        make_prior().assim.assimilate(
            change(make_points()), **{"obs_error": 0.03, "times": TIMES} | settings
        )


def test_more_draws_than_memory_are_refused_before_anything_is_computed():
    with pytest.raises(MemoryGuardError, match=r"1000000000 draws of 6 steps.*fewer"):
        make_prior().assim.assimilate(make_points(), obs_error=0.03, times=TIMES, n=10**9)


def test_points_of_dask_arrays_give_lazy_maps(solved):
    prior, points, found = solved
    lazy = prior.assim.assimilate(points.chunk(obs=7), obs_error=0.03, times=TIMES)
    assert lazy["mean"].chunks is not None
    np.testing.assert_array_equal(lazy["mean"].compute(), found["mean"])


def test_what_is_dropped_is_counted():
    points = replaced(replaced(make_points(), "time", 2, START - DAY), "lat", 3, 60.0)
    found = make_prior().assim.assimilate(points, obs_error=0.03, times=TIMES, unusable="drop")
    assert "1 outside times" in found.attrs["xr_spde_observations"]
    assert "1 outside grid" in found.attrs["xr_spde_observations"]
    assert "23 used" in found.attrs["xr_spde_observations"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"decay_time": -1.0}, "decay_time of the prior"), ({"length": -5.0}, "length of the prior"),
     ({"length_across": 95.0}, "shortest exceeds"), ({"length_across": -2.0}, "length_across"),
     ({"std": 0.0}, "std of the prior")],
)  # fmt: skip
def test_bad_priors_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        make_prior(**changes).assim.assimilate(make_points(), obs_error=0.03, times=TIMES)


def test_priors_on_another_grid_and_others_are_refused():
    prior, points = make_prior(), make_points()
    guess = xr.DataArray(np.zeros((DAYS, NY, NX)), {"time": TIMES, **COORDS},
                         ("time", "lat", "lon"))  # fmt: skip
    with pytest.raises(GridError, match="the prior"):
        guess.assim.assimilate(points, prior=prior.isel(lon=slice(1, None)), obs_error=0.1)
    with pytest.raises(ParameterError, match="do not increase"):
        guess[::-1].assim.assimilate(points, prior=prior, obs_error=0.1)
    with pytest.raises(SchemaError, match="lacks 'std'"):
        prior.drop_vars("std").assim.assimilate(points, obs_error=0.1)
    with pytest.raises(UnknownNameError, match="argument"):
        prior.assim.assimilate(points, obs_error=0.1, leed=2)
    with pytest.raises(ParameterError, match="needs an ensemble"):
        prior.assim.assimilate(points, obs_error=0.1, method="letkf")
    with pytest.raises(ParameterError, match="lacks lx, ly"):
        guess.assim.assimilate(points, method="oi-gaussian", obs_error=0.1)
    with pytest.raises(ParameterError, match="localization"):
        prior.assim.assimilate(points, obs_error=0.1, localization=1e5)


def test_tracks_score_maps_at_their_own_times(solved):
    _, points, found = solved
    told = found.assim.score(points, obs_error=0.03)
    at = {k: points[k] for k in ("time", "lat", "lon")}
    # what is NaN on land has no weight there, so that only points far from it compare with interp
    mean, std = (found[k].interp(at) for k in ("mean", "std"))
    clear = mean.notnull()
    inside = points[clear]
    some = found.assim.score(inside, obs_error=0.03)
    error = (mean - points)[clear]
    assert int(told["count"]) == 25
    assert some["rmse"].item() == pytest.approx(float(np.sqrt((error**2).mean())))
    within = abs(error) <= 1.6448536 * np.hypot(std[clear], 0.03)
    assert some["coverage"].sel(level=0.9).item() == pytest.approx(float(within.mean()))
    with pytest.raises(ParameterError, match="within the times"):
        found.assim.score(points.assign_coords(time=points.time + 99 * DAY))
    with pytest.raises(ParameterError, match="obs_error"):
        found.assim.score(found["mean"], obs_error=-1.0)


def test_challenge_scores_from_the_accessor(solved):
    _, _, found = solved
    told = found.assim.score(1.1 * found["mean"], challenge=True)
    assert told["mu"].item() == pytest.approx(1 - 0.1 / 1.1)
    assert set(told) == {
        "score", "mu", "sigma", "lambda_x", "lambda_t", "least_lambda_x", "least_lambda_t",
    }  # fmt: skip

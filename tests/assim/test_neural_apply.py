"""Maps by a solver: windows, patches, labels; a linear and local one has the answer known."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xr_spde  # noqa: F401  registers the accessors
from tests.assim.standins import ExactSolver, LocalSolver
from xr_spde.assim import AlongTrack
from xr_spde.assim.neural_cells import cells_of
from xr_spde.assim.prior_recipe import read_prior
from xr_spde.assim.tracks import TrackErrors
from xr_spde.assim.tracks_in_time import PointSeries
from xr_spde.fields.grid_units import to_grid_units
from xr_spde.labels.patch_map import plan_axis

START = np.datetime64("2014-05-15", "ns")
DAY = np.timedelta64(1, "D")
MODEL = LocalSolver()


def times_of(days):
    return START + np.arange(days) * DAY


def make_sea(ny=40, nx=50, *, dtype="f8"):
    coords = {"lat": ("lat", 35.0 + 0.1 * np.arange(ny), {"units": "degrees_north"}),
              "lon": ("lon", 3.0 + 0.1 * np.arange(nx), {"units": "degrees_east"})}  # fmt: skip
    land = np.zeros((ny, nx), bool)
    land[ny // 3 : ny // 2, nx // 4 : nx // 3] = True
    return xr.DataArray(np.where(land, np.nan, 0.0).astype(dtype), coords, ("lat", "lon"))


def make_gridded(like, days, *, seed=0, share=0.1, dtype="f8"):
    """Observations of a tenth of the cells."""
    rng = np.random.default_rng(seed)
    values = 0.1 * rng.standard_normal((days, *like.shape))
    values[rng.random(values.shape) > share] = np.nan
    coords = {"time": times_of(days), **like.coords}
    return xr.DataArray(values.astype(dtype), coords, ("time", "lat", "lon"), attrs={"units": "m"})


def make_points(like, days, count=300, *, seed=0):
    rng = np.random.default_rng(seed)
    at = rng.uniform(0.0, days - 1.0, count)
    lat, lon = like["lat"].values, like["lon"].values
    coords = {"lat": ("obs", rng.uniform(lat.min(), lat.max(), count)),
              "lon": ("obs", rng.uniform(lon.min(), lon.max(), count)),
              "time": ("obs", START + (at * 86400e9).astype("timedelta64[ns]"))}  # fmt: skip
    return xr.DataArray(0.1 * rng.standard_normal(count), coords, "obs", "sla", {"units": "m"})


def assimilate(obj, obs=None, *, model=MODEL, **settings):
    return obj.assim.assimilate(obs, model=model, **{"obs_error": 0.03, **settings})


def direct(gridded, like, model, error=0.03):
    """What the solver makes of a whole window."""
    sea = ~np.isnan(like.values)
    values = gridded.values[None] / model.scale
    mask = np.isfinite(values) & sea
    variance = np.where(mask, (error / model.scale) ** 2, 1.0)
    found = model.solve(
        np.where(mask, values, 0).astype("f4"), mask, variance.astype("f4"), sea[None]
    )[0]
    return np.where(sea, model.scale * found[0], np.nan)


def test_one_window_is_what_the_solver_says():
    like = make_sea()
    obs = make_gridded(like, 5)
    post = assimilate(obs, like=like)
    np.testing.assert_allclose(post["mean"], direct(obs, like, MODEL), atol=1e-7)
    assert post["mean"].dims == ("time", "lat", "lon")
    assert post["mean"].attrs == {"long_name": "field given the observations", "units": "m"}
    assert post.attrs["xr_spde_method"] == "4dvarnet"
    assert post.attrs["xr_spde_model"] == '{"data": "none"}'


@pytest.mark.parametrize(("patch", "overlap"), [(16, 9), (21, 12), (30, 9), (39, 15)])
def test_patches_of_a_local_solver_are_the_whole_domain(patch, overlap):
    """A solver that reaches three cells, where three are left out: exact but for rounding."""
    like = make_sea()
    obs = make_gridded(like, 5)
    whole = assimilate(obs, like=like)["mean"]
    cut = assimilate(obs, like=like, patch=patch, overlap=overlap)
    assert cut.attrs["xr_spde_patches"] > 1
    np.testing.assert_allclose(cut["mean"], whole, atol=1e-7)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(12, 40), st.integers(0, 100))
def test_patches_of_any_domain(ny, nx, patch, seed):
    like = make_sea(ny, nx)
    obs = make_gridded(like, 2, seed=seed, share=0.4)
    whole = assimilate(obs, like=like, model=LocalSolver(steps=2))["mean"]
    settings = {"patch": patch, "overlap": 9, "model": LocalSolver(steps=2)}
    np.testing.assert_allclose(assimilate(obs, like=like, **settings)["mean"], whole, atol=1e-7)


@pytest.mark.parametrize("patch", [24, 256])
def test_longitudes_that_close_have_no_seam(patch):
    """Turned by any angle the answer turns with it."""
    coords = {"lat": 40.0 + 5.0 * np.arange(4), "lon": 6.0 * np.arange(60)}
    rng = np.random.default_rng(2)
    values = np.where(rng.random((3, 4, 60)) < 0.5, 0.1 * rng.standard_normal((3, 4, 60)), np.nan)
    obs = xr.DataArray(values, {"time": times_of(3), **coords}, ("time", "lat", "lon"))
    model = LocalSolver(steps=3, spacing=(556.0, 480.0))
    settings = {"patch": patch, "overlap": 12, "model": model}
    first = assimilate(obs, **settings)["mean"]
    turned = assimilate(obs.roll(lon=17, roll_coords=True), **settings)["mean"]
    np.testing.assert_allclose(turned, first.roll(lon=17, roll_coords=True), atol=1e-7)
    # the same far from any edge on a strip that is longer by a turn on both sides
    long = xr.DataArray(np.tile(values, 3), {"time": times_of(3), "y": 556e3 * np.arange(4.0),
                        "x": 480e3 * np.arange(180.0)}, ("time", "y", "x"))  # fmt: skip
    for name in "xy":
        long[name].attrs["units"] = "m"
    strip = assimilate(long, model=model)["mean"]
    np.testing.assert_allclose(first, strip[..., 60:120], atol=1e-7)


class Timeless(LocalSolver):
    """Every step by itself."""

    def spread(self, values):
        steps = [LocalSolver.spread(self, v[:, None]) for v in np.moveaxis(values, 1, 0)]
        return np.concatenate(steps, axis=1)


@pytest.mark.parametrize("days", [1, 3, 5, 6, 13])
@pytest.mark.parametrize("stride", [1, 2, 5, "auto"])
def test_series_of_any_length(days, stride):
    """Without memory, windows say the same of a step, and their weights sum to one."""
    like, model = make_sea(20, 24), Timeless()
    obs = make_gridded(like, days)
    post = assimilate(obs, like=like, model=model, stride=stride)
    expected = [direct(obs.isel(time=[k]), like, model)[0] for k in range(days)]
    np.testing.assert_allclose(post["mean"], np.stack(expected), atol=1e-7)


def test_a_forecast_knows_nothing_of_what_comes_later():
    like, days = make_sea(20, 24), 9
    points = make_points(like, days)
    settings = {"like": like, "times": times_of(days), "unusable": "drop"}
    for lead in (0, 1):  # the memory of the stand-in ends after a day
        post = assimilate(points, lead=lead, **settings)
        for day in (3, 6):
            when = START + (day - lead) * DAY
            changed = points.copy(data=np.where(points["time"] > when, 9.0, points))
            again = assimilate(changed, lead=lead, **settings)
            assert post["mean"][: day + 1].equals(again["mean"][: day + 1])
            assert not post["mean"][day + 1].equals(again["mean"][day + 1])
    assert float(abs(post["mean"][0]).max()) == 0.0  # nothing was observed the day before
    whole = assimilate(points, **settings)
    assert not whole["mean"][3].equals(post["mean"][3])


def test_first_guess_is_what_anomalies_are_about():
    """With a plane in space and time as both truth and first guess nothing is left to correct."""
    like, days = make_sea().fillna(0.0), 7  # next to land a value is a mean of fewer cells
    day = xr.DataArray(np.arange(days), {"time": times_of(days)}, ("time",))
    guess = like + 0.2 * (like["lat"] - 35) - 0.1 * (like["lon"] - 3) + 0.05 * day
    guess = guess.transpose("time", "lat", "lon")
    points = make_points(like, days)
    at = (points["time"] - START) / DAY
    plane = 0.2 * (points["lat"] - 35) - 0.1 * (points["lon"] - 3) + 0.05 * at
    settings = {"unusable": "drop"}
    exact = assimilate(guess, points.copy(data=plane), **settings)
    np.testing.assert_allclose(exact["mean"], guess, atol=1e-9)
    off = assimilate(guess, points.copy(data=points + plane), **settings)
    anomaly = assimilate(points, like=like, times=times_of(days), **settings)
    np.testing.assert_allclose(off["mean"], guess + anomaly["mean"], atol=1e-7)
    assert (off["status"] == anomaly["status"]).all()


def guess_and_points(days=12):
    like = make_sea()
    rng = np.random.default_rng(5)
    noise = 0.05 * rng.standard_normal((days, *like.shape))
    guess = xr.DataArray(noise, {"time": times_of(days), **like.coords}, ("time", "lat", "lon"))
    return guess + like, make_points(like, days)


@pytest.mark.parametrize(
    ("scheduler", "chunks", "leads"),
    [("synchronous", {"time": 1}, (None, 1)), ("threads", {"time": 5, "lat": 7}, (None, 1)),
     ("threads", {"time": 12, "lon": 11}, (None, 1)), ("processes", {"time": 12}, (None,))],
)  # fmt: skip
def test_chunks_and_schedulers_do_not_matter(scheduler, chunks, leads):
    guess, points = guess_and_points()
    settings = {"unusable": "drop", "patch": 24, "overlap": 9}
    for lead in leads:
        eager = assimilate(guess, points, lead=lead, **settings)
        lazy = assimilate(guess.chunk(chunks), points, lead=lead, **settings)
        assert dask.is_dask_collection(lazy["mean"])
        computed = lazy.compute(scheduler=scheduler)
        xr.testing.assert_identical(computed, eager)


def test_gridded_lazy_observations_are_read_by_their_windows():
    like, days = make_sea(), 40
    obs = make_gridded(like, days)
    read = []

    def look(block, block_info=None):
        if block_info:
            read.append(block_info[0]["array-location"][0])
        return block

    lazy = obs.chunk({"time": 1})
    lazy = lazy.copy(data=lazy.data.map_blocks(look, dtype=obs.dtype, meta=np.empty((0, 0, 0))))
    settings = {"like": like, "obs_error": xr.full_like(obs, 0.03).chunk({"time": 10})}
    post = assimilate(lazy, **settings)
    assert not read
    eager = assimilate(obs, like=like)
    one = post["mean"].isel(time=3).compute(scheduler="synchronous")
    assert one.equals(eager["mean"].isel(time=3))
    # one scale for the whole series is asked of all observations, and each is read once
    assert len(read) == days


def test_graph_holds_the_solver_once():
    guess, points = guess_and_points()
    post = assimilate(guess.chunk({"time": 1}), points, unusable="drop", patch=24, overlap=9)
    graph = dict(post["mean"].__dask_graph__())
    import pickle

    marked = LocalSolver(card={"data": "x" * 100_000})
    bare = len(pickle.dumps(graph))
    post = assimilate(guess.chunk({"time": 1}), points, model=marked, unusable="drop",
                      patch=24, overlap=9)  # fmt: skip
    assert len(pickle.dumps(dict(post["mean"].__dask_graph__()))) < bare + 250_000


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_order_and_names_of_axes_do_not_matter(dtype):
    like, days = make_sea(dtype=dtype), 5
    obs = make_gridded(like, days, dtype=dtype)
    post = assimilate(obs, like=like)
    assert post["mean"].dtype == dtype
    other = assimilate(obs[:, ::-1].transpose("lon", "time", "lat"), like=like[::-1].T)
    assert other["mean"].dims == ("time", "lat", "lon")
    assert (other["lat"].values == like["lat"].values[::-1]).all()
    assert other["mean"].sel(lat=like["lat"]).equals(post["mean"])
    named = obs.rename(lat="nav_j", lon="nav_i")
    named["nav_j"].attrs["axis"], named["nav_i"].attrs["axis"] = "Y", "X"
    named = assimilate(named, like=like.rename(lat="nav_j", lon="nav_i"), y="nav_j", x="nav_i",
                       obs_y="nav_j", obs_x="nav_i")  # fmt: skip
    assert named["mean"].dims == ("time", "nav_j", "nav_i")
    assert np.array_equal(named["mean"], post["mean"], equal_nan=True)


@given(st.integers(0, 10_000))
def test_what_is_not_observed_never_matters(seed):
    """NaN outside, errors there, anything on land."""
    rng = np.random.default_rng(seed)
    like = make_sea(20, 24)
    obs = make_gridded(like, 3, seed=seed)
    error = xr.full_like(obs, 0.03).where(obs.notnull(), rng.choice([np.nan, -1.0, 7.0]))
    post = assimilate(obs, like=like, obs_error=error.where(obs.notnull(), 1e9))
    land = like.isnull()
    wild = obs.where(~land, rng.choice([np.nan, 1e6]))
    again = assimilate(wild, like=like, obs_error=error)
    assert again["mean"].equals(post["mean"])
    assert (post["mean"].isnull() == land).all()


def test_points_of_a_cell_are_averaged_by_their_errors():
    """Three of two tracks in one cell; the part that a track shares is not averaged away."""
    std = np.array([0.1, 0.2, 0.1, 0.3])
    tracks = TrackErrors(std, [0.0, 1.0, 0.0, 5.0], [0, 0, 1, 1], length=100.0, share=0.36)
    nothing: list = np.zeros(4)
    points = PointSeries(
        rows=None, value=np.array([1.0, 2.0, 4.0, 7.0]), variance=std**2, y=nothing, x=nothing,
        position=np.array([1.4, 1.4, 0.9, 1.6]), number=nothing, given=nothing, tracks=tracks,
    )  # fmt: skip
    cells = cells_of(points, 3, (2, 2), cell=np.array([3, 3, 3, 1]))
    assert cells.step.tolist() == [1, 2]
    assert cells.cell.tolist() == [3, 1]
    assert cells.count.tolist() == [3, 1]
    own, common = 0.64 * std**2, 0.36 * std**2
    w = 1 / own[:2]
    mean = (w @ [1.0, 2.0]) / w.sum()
    variance = 1 / w.sum() + (w @ common[:2]) / w.sum()
    both = 1 / np.array([variance, std[2] ** 2])
    np.testing.assert_allclose(cells.value, [both @ [mean, 4.0] / both.sum(), 7.0])
    np.testing.assert_allclose(cells.variance, [1 / both.sum(), 0.09])
    past = cells_of(points, 3, (2, 2), cell=np.array([3, 3, 3, 1]), past=True)
    assert past.count.tolist() == [1, 1]


def test_errors_along_tracks_pull_less():
    """Twenty points in a cell with one error in common say little more than one."""
    like = make_sea(12, 12).fillna(0.0)
    place = {
        "lat": ("obs", 35.5 + 0.001 * np.arange(20)),
        "lon": ("obs", np.full(20, 3.5)),
        "time": ("obs", np.repeat(times_of(5)[2], 20)),
        "track": ("obs", np.zeros(20, int)),
    }
    points = xr.DataArray(np.full(20, 0.1), place, "obs", "sla")
    settings = {"like": like, "times": times_of(5)}
    pull = {
        share: float(assimilate(
            points, obs_error=AlongTrack(0.2, length=300e3, share=share, track="track"), **settings
        )["mean"].max())
        for share in (1e-6, 0.3, 0.9)
    }  # fmt: skip
    free = float(assimilate(points, obs_error=0.2, **settings)["mean"].max())
    one = float(assimilate(points[:1], obs_error=0.2, **settings)["mean"].max())
    np.testing.assert_allclose(pull[1e-6], free, rtol=1e-4)
    assert free > pull[0.3] > pull[0.9] > one


def test_parameters_are_in_km_and_days():
    like = make_sea()
    model = LocalSolver(parameters=True, theta_solver="there")
    maps = assimilate(make_gridded(like, 8), like=like, model=model, parameters=True)
    units = {name: maps[name].attrs["units"] for name in maps if name.startswith("theta")}
    assert units == {
        "theta_length": "km", "theta_length_across": "km", "theta_angle": "radian",
        "theta_decay_time": "days", "theta_u": "m s-1", "theta_v": "m s-1",
        "theta_tau": "m km day-0.5",
    }  # fmt: skip
    assert (maps["theta_length"].isnull() == like.isnull()).all()
    # nothing is observed, hence nothing but the numbers of the stand-in
    nothing = make_gridded(like, 8).where(False)
    nothing[0, 0, 0] = 0.0
    maps = assimilate(nothing, like=like, model=model, parameters=True).isel(time=5, lon=2)
    kappa, dy = 0.5, 6371.0 * np.radians(0.1)
    np.testing.assert_allclose(maps["theta_decay_time"], kappa**-4.0, rtol=1e-5)
    dx = dy * np.cos(np.radians(maps["lat"]))
    h11, h22, h12 = 3.0 * dx**2, 2.25 * dy**2, 0.5 * dx * dy
    largest = 0.5 * (h11 + h22) + np.hypot(0.5 * (h11 - h22), h12)
    np.testing.assert_allclose(maps["theta_length"], np.sqrt(largest) / kappa, rtol=1e-5)
    speed = 2 * kappa**2 * 0.1 * dx * 1e3 / 86400.0
    np.testing.assert_allclose(maps["theta_u"], speed, rtol=1e-5)
    np.testing.assert_allclose(maps["theta_tau"], 0.1 * np.sqrt(dx * dy), rtol=1e-5)


@pytest.fixture(scope="module")
def network():
    """An untrained solver with the SPDE prior: conjugate gradients that are not there yet."""
    torch = pytest.importorskip("torch")
    from xr_spde.assim.neural_solver import NeuralSolver
    from xr_spde.nets.variational import VariationalSolver

    torch.manual_seed(0)
    net = VariationalSolver(5, iterations=4, hidden=8, coarsen=2)
    return NeuralSolver(net, scale=0.1, spacing=(11.0, 9.0), time_step=1.0, units="m", leads=2)


def test_a_network_at_work(network):
    """Finite, alike for any order of the points and, bit for bit, any number of threads."""
    import torch

    like, days = make_sea(), 7
    points = make_points(like, days)
    settings = {"like": like, "times": times_of(days), "unusable": "drop", "model": network}
    post = assimilate(points, **settings)
    assert (post["mean"].isnull() == like.isnull()).all()
    assert 0.01 < float(post["mean"].std()) < 0.2
    again = assimilate(points.isel(obs=slice(None, None, -1)), **settings)
    np.testing.assert_allclose(again["mean"], post["mean"], atol=1e-6)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert assimilate(points, **settings)["mean"].equals(post["mean"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_seams_of_a_network_are_no_rougher_than_elsewhere(network):
    """Second differences within and without seams, relative to those of the whole domain."""
    like = make_sea(60, 140).fillna(0.0)
    y, x = np.meshgrid(np.arange(60), np.arange(140), indexing="ij")
    time = np.arange(5)[:, None, None]
    truth = 0.1 * np.sin(x / 5 + 0.3 * time) * np.cos(y / 6)
    seen = (np.abs(x - y - 37 * time) % 31 < 2) | ((x + y - 29 * time) % 43 < 2)
    obs = make_gridded(like, 5).copy(data=np.where(seen, truth, np.nan))
    settings = {"like": like, "model": network, "obs_error": 0.01}
    whole = assimilate(obs, **settings)["mean"].values
    cut = assimilate(obs, patch=60, overlap=24, **settings)["mean"].values
    axis = plan_axis(140, 60, 24)
    shared = np.zeros(140)
    for k in range(len(axis.starts)):
        for cells, own in axis.pieces(k):
            shared[cells] += (axis.weights[k, own] > 0.0) & (axis.weights[k, own] < 1.0)
    seam = shared[1:-1] > 0
    assert 10 < seam.sum() < 60
    rough = [np.diff(one, 2, axis=-1) for one in (whole, cut)]
    ratio = [np.std(one[..., seam]) / np.std(one[..., ~seam]) for one in rough]
    assert ratio[1] / ratio[0] < 1.05
    assert np.std(cut - whole) < 0.05 * np.std(whole)


def test_observations_on_finer_cells_are_averaged():
    like = make_sea(20, 24)
    fine = make_gridded(make_sea(20, 24), 5, share=1.1)
    lat, lon = (np.repeat(like[k].values, 2) + np.tile([-0.025, 0.025], like.sizes[k])
                for k in ("lat", "lon"))  # fmt: skip
    values = fine.values.repeat(2, axis=1).repeat(2, axis=2)
    split = values + 0.01 * np.tile([[1, -1], [-1, 1]], (20, 24))
    coords = {"time": fine["time"], "lat": lat, "lon": lon}
    four = xr.DataArray(split, coords, ("time", "lat", "lon"))
    one = assimilate(fine, like=like, obs_error=0.015)["mean"]
    found = assimilate(four, like=like, obs_error=0.03, unusable="drop")["mean"]
    np.testing.assert_allclose(found, one, atol=1e-6)


def test_the_solution_in_cells_and_steps_is_that_in_km_and_days():
    """Exact interpolation as the solver, beside that of the same prior in physical units.

    Points are at centres of cells and at steps, where both see the same; columns decrease.
    """
    ny, nx, days, std = 14, 17, 5, 0.08
    axes = {"y": ("y", 9.0 * np.arange(ny), {"units": "km"}),
            "x": ("x", 12.0 * np.arange(nx)[::-1], {"units": "km"})}  # fmt: skip
    land = np.zeros((ny, nx), bool)
    land[8:12, 5:9] = True
    numbers = {"length": 60.0, "length_across": 40.0, "angle": 0.4, "decay_time": 5.0, "std": std}
    maps = {k: (("y", "x"), np.where(land, np.nan, v)) for k, v in numbers.items()}
    prior = xr.Dataset(maps, axes, {"time_step": 1.0, "alpha": 4})
    recipe, read = read_prior(prior)
    canonical = {k: recipe.grid.to_canonical(v.values) for k, v in read.items()}
    built = recipe.build(canonical, recipe.grid.to_canonical(land), days)
    theta = to_grid_units(built.parameters, dx=12e3, dy=9e3, dt=1.0, alpha=4, scale=std)
    model = ExactSolver(
        steps=days, scale=std, spacing=(9.0, 12.0), prior_theta=tuple(theta[:, 0, 1, 1])
    )
    rng = np.random.default_rng(0)
    values = std * rng.standard_normal((days, ny, nx))
    values[rng.random(values.shape) > 0.05] = np.nan
    obs = xr.DataArray(values, {"time": times_of(days), **axes}, ("time", "y", "x"))
    obs = obs.where(~land)
    exact = prior.assim.assimilate(obs, obs_error=0.03, times=times_of(days))
    found = assimilate(obs, model=model, like=prior["std"], draws=300, seed=2)
    np.testing.assert_allclose(found["mean"], exact["mean"], atol=1e-5 * std)
    ratio = found["std"] / exact["std"]
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(ratio.std()) == pytest.approx(1 / np.sqrt(600), rel=0.3)

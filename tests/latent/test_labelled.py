"""Labelled images: frames at any time, velocities in metres per second, scores, bad input."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import (
    AxisNotFoundError,
    DTypeError,
    GridError,
    ParameterError,
    SchemaError,
    UnknownNameError,
)
from xr_spde.latent.textures import texture

N = 40
HOURS = np.array(["2020-03-01T00", "2020-03-01T06", "2020-03-01T09"], "datetime64[ns]")
STEPS = np.array([0.0, 2.0, 3.0])  # a steady motion: 6 h, then 3 h


def moving(t, y=N, x=N, shift=(1.0, 1.5)):
    """Texture that moves by ``shift`` (rows, columns) per unit of time."""
    j, i = np.mgrid[0:y, 0:x].astype(float)
    return texture(3, j - shift[0] * t, i - shift[1] * t)


@pytest.fixture(scope="module")
def images() -> xr.DataArray:
    stack = np.stack([moving(t) for t in STEPS])
    coords = {
        "time": ("time", HOURS, {"axis": "T", "long_name": "time of the pass"}),
        "y": ("y", 500.0 * np.arange(N), {"units": "m"}),
        "x": ("x", 500.0 * np.arange(N), {"units": "m"}),
        "orbit": ("time", [1, 2, 3]),
        "height": 10.0,
    }
    return xr.DataArray(stack, coords, ("time", "y", "x"), "sigma0", {"units": "1"})


@pytest.fixture(scope="module")
def motion(images) -> xr.Dataset:
    return images.latent.velocity(medium="sea_ice")


def test_frames_are_where_the_texture_is(images, motion):
    times = np.array(["2020-03-01T01:30", "2020-03-01T03", "2020-03-01T07:30"], "datetime64[ns]")
    found = images.latent.interpolate(times, motion=motion)
    inner = (slice(6, -6), slice(6, -6))
    for k, t in enumerate((0.5, 1.0, 2.5)):
        truth = moving(t)
        still = images.latent.interpolate(times[k], method="linear").values
        off = np.abs(found.values[k] - truth)[inner].mean()
        assert off < 0.2 * np.abs(still - truth)[inner].mean()
    assert found.dims == images.dims
    assert found.name == "sigma0"
    assert {**images.attrs, "xr_spde_interpolation": "field"}.items() <= found.attrs.items()
    assert found["time"].attrs == images["time"].attrs
    assert set(found.coords) == {"time", "y", "x", "height"}  # orbit belonged to the old times
    np.testing.assert_array_equal(found["time"], times)


def test_given_images_come_back_exactly(images, motion):
    again = images.latent.interpolate(images.time, motion=motion)
    np.testing.assert_allclose(again.values, images.values, atol=1e-12)


def test_one_time_drops_the_dimension(images, motion):
    one = images.latent.interpolate("2020-03-01T03:00", motion=motion)
    assert one.dims == ("y", "x")
    assert one["time"].values == np.datetime64("2020-03-01T03:00")


def test_velocity_in_metres_per_second(images, motion):
    u, v = 1.5 * 500 / 10800, 500 / 10800
    np.testing.assert_allclose(motion["u"].median(["y", "x"]), u, rtol=0.03)
    np.testing.assert_allclose(motion["v"].median(["y", "x"]), v, rtol=0.03)
    assert motion["u"].attrs["units"] == "m s-1"
    assert motion["u"].attrs["standard_name"] == "sea_ice_x_velocity"
    assert motion["divergence"].attrs["units"] == "s-1"
    np.testing.assert_array_equal(
        motion["time_bounds"].values, np.stack([HOURS[:-1], HOURS[1:]], 1)
    )
    assert motion["time"].values[0] == np.datetime64("2020-03-01T03")
    assert not motion["beyond_search"].any()
    opening = motion["divergence"].clip(0).sum(["y", "x"]) * 500.0**2
    np.testing.assert_allclose(motion["opening_rate"], opening, rtol=1e-9)


def test_motion_from_disk_gives_the_same_frames(images, motion, tmp_path):
    motion.to_netcdf(tmp_path / "motion.nc")
    with xr.open_dataset(tmp_path / "motion.nc") as back:
        again = images.latent.interpolate(HOURS[0] + np.timedelta64(2, "h"), motion=back)
    direct = images.latent.interpolate(HOURS[0] + np.timedelta64(2, "h"))
    np.testing.assert_allclose(again, direct, atol=1e-9)


def test_storage_order_does_not_matter(images):
    when = "2020-03-01T02"
    pair = images.isel(time=[0, 1])
    found = pair.latent.interpolate(when)
    turned = pair.isel(y=slice(None, None, -1)).transpose("x", "time", "y")
    again = turned.latent.interpolate(when)
    assert again.dims == ("x", "y")
    np.testing.assert_allclose(again.sortby("y").transpose("y", "x"), found, atol=1e-12)
    moved = turned.latent.velocity()
    assert float(moved["v"].median()) > 0  # along increasing y, however it is stored


@pytest.mark.parametrize("start", [150.0, -30.0, 340.0])
def test_longitudes_in_either_convention(start):
    """A strip across the dateline or Greenwich, stored as 0 ... 360 or -180 ... 180."""
    lon, lat = start + 1.0 * np.arange(N), 60 + 0.5 * np.arange(N)
    stack = np.stack([moving(0.0), moving(2.0)])
    frames = [
        xr.DataArray(stack, {"time": HOURS[:2], "lat": lat, "lon": values}, ("time", "lat", "lon"))
        for values in (lon % 360, (lon + 180) % 360 - 180)
    ]
    made = [da.latent.velocity() for da in frames]
    np.testing.assert_allclose(made[0]["u"].values, made[1]["u"].values, atol=1e-12)
    metres = 3.0 * np.radians(1.0) * 6_371_000 * np.cos(np.radians(lat))
    middle = slice(10, -10)
    expected = (metres / (6 * 3600))[middle]
    found = made[0]["u"].isel(time=0, lat=middle).median("lon")
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_a_closed_circle_has_no_seam():
    lon, lat = np.arange(0, 360, 6.0), -50 + 2.5 * np.arange(40)

    def wave(shift):
        x, y = np.radians(lon - shift)[None], np.linspace(0, 6, 40)[:, None]
        return np.sin(5 * x + y) + 0.7 * np.cos(9 * x - 2 * y) + 0.5 * np.sin(3 * y + x)

    coords = {"time": [0.0, 1.0], "lat": lat, "lon": lon}
    stack = xr.DataArray(np.stack([wave(0), wave(12)]), coords, ("time", "lat", "lon"))
    stack["time"].attrs["units"] = "days"
    half = stack.latent.interpolate(0.5)
    truth = wave(6)
    seam = np.r_[0:3, 57:60]
    assert np.abs(half.values - truth)[:, seam].mean() < 0.03
    rolled = stack.assign_coords(lon=(lon + 180) % 360 - 180).roll(lon=30, roll_coords=True)
    again = rolled.latent.interpolate(0.5)
    np.testing.assert_allclose(
        again.assign_coords(lon=again.lon % 360).sortby("lon"), half, atol=1e-9
    )


def test_model_calendars(images):
    cftime = pytest.importorskip("cftime")
    dates = [cftime.Datetime360Day(2000, 2, 28), cftime.Datetime360Day(2000, 3, 1)]
    pair = images.isel(time=[0, 1]).drop_vars("orbit").assign_coords(time=dates)
    by_text = pair.latent.interpolate(["2000-02-30"])  # this calendar has it
    assert by_text["time"].values[0] == cftime.Datetime360Day(2000, 2, 30)
    by_date = pair.latent.interpolate([cftime.Datetime360Day(2000, 2, 30)])
    np.testing.assert_array_equal(by_text, by_date)
    days = float(pair.latent.velocity()["u"].median()) * 3 * 86400 / 500
    assert days == pytest.approx(3.0, rel=0.03)
    with pytest.raises(ParameterError, match="360_day"):
        pair.latent.interpolate(np.datetime64("2000-02-29"))
    with pytest.raises(ParameterError, match="calendar"):
        pair.latent.interpolate(cftime.DatetimeNoLeap(2000, 2, 28))


def test_numbers_with_and_without_units(images):
    pair = images.isel(time=[0, 1]).drop_vars("orbit").assign_coords(time=[0.0, 6.0])
    pair["time"].attrs["units"] = "hours"
    u = float(pair.latent.velocity()["u"].median())
    assert u == pytest.approx(1.5 * 500 / 10800, rel=0.03)
    bare = pair.drop_vars(["x", "y", "time"])
    with pytest.warns(UserWarning, match="no units"):
        found = bare.latent.velocity()
    assert float(found["u"].median()) == pytest.approx(3.0, rel=0.03)  # cells per interval
    assert found["u"].attrs["units"].startswith("cell")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_dtypes(images, dtype):
    pair = (1000 * images.isel(time=[0, 1])).astype(dtype)
    found = pair.latent.interpolate("2020-03-01T03")
    assert found.dtype == (np.float32 if dtype == np.float32 else np.float64)
    truth = 1000 * moving(1.0)
    assert np.abs(found - truth)[6:-6, 6:-6].mean() < 15


def test_lazy_chunked_and_mapped_over_levels(images):
    two = xr.concat([images, images[::, ::-1].assign_coords(y=images.y)], "level")
    times = HOURS[0] + np.array([1, 4, 7], "timedelta64[h]")
    found = two.latent.interpolate(times)
    assert found.dims == two.dims
    calls = []

    def watched(block):
        calls.append(1)
        return block

    for chunks in ({"time": 1, "level": 1}, {"y": 11, "x": 17, "time": 2}):
        lazy = two.chunk(chunks).map_blocks(watched, template=two.chunk(chunks))
        later = lazy.latent.interpolate(times)
        moved = lazy.latent.velocity()
        assert dask.is_dask_collection(later.data)
        assert dask.is_dask_collection(moved["u"].data)
        assert not calls
        for scheduler in ("synchronous", "threads"):
            np.testing.assert_array_equal(later.compute(scheduler=scheduler), found)
        calls.clear()


def test_one_fit_per_pair(images, monkeypatch):
    from xr_spde.latent import reading

    fits = []
    original = reading.fit_motion

    def counted(*args, **settings):
        fits.append(1)
        return original(*args, **settings)

    monkeypatch.setattr(reading, "fit_motion", counted)
    times = HOURS[0] + np.arange(1, 6).astype("timedelta64[h]")
    lazy = images.chunk({"time": 1}).latent.interpolate(times, path="steady")
    lazy.compute(scheduler="synchronous")
    assert len(fits) == 1  # the second interval was not asked for


def test_gaps_are_filled_from_the_other_image(images):
    gappy = images.isel(time=[0, 1]).copy()
    gappy[0, :, 5:15] = np.nan
    gappy[1, 25:32] = np.nan
    gappy[:, :4, 30:] = np.nan
    made = gappy.latent.interpolate("2020-03-01T03", uncertainty=True)
    seen_once = np.isfinite(gappy).any("time").values
    inner = np.zeros_like(seen_once)
    inner[6:-6, 6:-6] = True
    assert np.isfinite(made["sigma0"].values[inner & seen_once]).mean() > 0.97
    assert np.isnan(made["sigma0"].values[0, 36])
    off = np.abs(made["sigma0"].values - moving(1.0))[inner]
    assert np.nanmean(off) < 0.02
    assert set(np.unique(made["seen"])) <= {0, 1, 2}
    assert made["disagreement"].isnull().equals(made["seen"] != 2)
    moved = gappy.latent.velocity()
    np.testing.assert_array_equal(moved["u"].isnull()[0], ~seen_once)


def test_datasets_map_over_their_variables(images):
    pair = images.isel(time=[0, 1])
    ds = xr.Dataset({"a": pair, "b": -2 * pair, "crs": 0, "name": ("time", ["p", "q"])})
    found = ds.latent.interpolate("2020-03-01T03")
    assert set(found.data_vars) == {"a", "b", "crs"}
    xr.testing.assert_allclose(found["b"], (-2 * found["a"]).rename("b"), atol=0.02)
    moved = ds[["a", "b"]].latent.velocity()
    assert moved["u"].sizes["variable"] == 2


def test_extrapolation_must_be_asked_for(images):
    late = "2020-03-01T10:30"
    with pytest.raises(ParameterError, match="extrapolate=True"):
        images.latent.interpolate(late)
    found = images.latent.interpolate(late, extrapolate=True)
    assert np.abs(found - moving(3.5))[8:-8, 8:-8].mean() < 0.01
    with pytest.raises(ParameterError, match="extrapolate"):
        images.latent.interpolate(late, method="linear", extrapolate=True)


def test_scores_on_a_withheld_frame(images):
    given, truth = images.isel(time=[0, 2]), images.isel(time=1)
    card = given.latent.compare(truth, methods=["field", "linear"])
    assert float(card["rmse"].sel(approach="field")) < 0.4 * float(
        card["rmse"].sel(approach="linear")
    )
    assert card["rmse"].attrs["units"] == "1"
    lazy = given.chunk().latent.compare(images.isel(time=[1]).chunk(), methods=["field", "linear"])
    assert dask.is_dask_collection(lazy["rmse"].data)
    np.testing.assert_allclose(lazy["rmse"].isel(time=0), card["rmse"], rtol=1e-12)
    with pytest.raises(ParameterError, match="withhold"):
        images.latent.compare(truth)
    with pytest.raises(ParameterError, match="no coordinate 'time'"):
        given.latent.compare(truth.drop_vars("time"))
    with pytest.raises(GridError, match="same cells"):
        given.latent.compare(truth.isel(x=slice(1, None)))
    with pytest.raises(UnknownNameError, match="linear"):
        given.latent.compare(truth, methods=["lineal"])


BAD = {
    "one frame": (lambda da: da.isel(time=[0]), ParameterError, "1 frame"),
    "no time axis": (lambda da: da.isel(time=0), AxisNotFoundError, "two frames"),
    "twice": (lambda da: da.isel(time=[0, 1, 1]), ParameterError, "occurs twice"),
    "unsorted": (lambda da: da.isel(time=[1, 0]), ParameterError, "sortby"),
    "no data": (lambda da: da.where(da.orbit != 1), ParameterError, "first image has no data"),
    "of two grids": (
        lambda da: xr.concat(
            [da.isel(time=0), da.isel(time=1).assign_coords(x=da.x + 250.0)], "time", join="outer"
        ),
        ParameterError,
        "different grids",
    ),
    "constant": (lambda da: da.where(da.orbit != 2, 1.0), ParameterError, "is constant"),
    "infinite": (lambda da: da.where(da.x > 0, np.inf), ParameterError, "infinite"),
    "complex": (lambda da: da + 1j, DTypeError, "real numbers"),
    "small": (lambda da: da.isel(x=slice(8)), ParameterError, "at least 16"),
    "irregular": (lambda da: da.assign_coords(x=da.x**2), GridError, "x"),
    "polar": (
        lambda da: da.rename(y="lat", x="lon").assign_coords(
            lat=89.5 - 0.5 * np.arange(N), lon=1.0 * np.arange(N)
        ),
        GridError,
        "polar stereographic",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_says_what_to_do(images, name):
    spoil, error, text = BAD[name]
    spoiled = spoil(images)
    with pytest.raises(error, match=text):
        spoiled.latent.velocity()
    with pytest.raises(error, match=text):
        spoiled.latent.interpolate("2020-03-01T03")


def test_other_bad_arguments(images, motion):
    with pytest.raises(ParameterError, match="between 2020-03-01T00"):
        images.where(images.orbit != 1).latent.velocity()
    with pytest.raises(ParameterError, match="dates"):
        images.latent.interpolate(3.0)
    with pytest.raises(ParameterError, match="no date"):
        images.latent.interpolate("yesterday")
    with pytest.raises(UnknownNameError, match="linear"):
        images.latent.interpolate(HOURS[0], method="lineal")
    with pytest.raises(UnknownNameError, match="sea_ice"):
        images.latent.velocity(medium="seaice")
    with pytest.raises(SchemaError, match="velocity"):
        images.latent.interpolate(HOURS[0], motion=motion[["u"]])
    with pytest.raises(ParameterError, match="same frames"):
        images.isel(time=[0, 1]).latent.interpolate(HOURS[0], motion=motion)
    with pytest.raises(GridError, match="same cells"):
        images.latent.interpolate(HOURS[0], motion=motion.isel(x=slice(1, None)))
    with pytest.raises(ParameterError, match="means nothing"):
        images.latent.interpolate(HOURS[0], method="linear", motion=motion)
    with pytest.raises(ParameterError, match="patch"):
        images.latent.interpolate(HOURS[0], patch=8)


def test_motion_beyond_the_search_is_reported():
    stack = np.stack([moving(0.0), moving(1.0, shift=(0.0, 6.0))])
    pair = xr.DataArray(stack, {"time": HOURS[:2]}, ("time", "y", "x"))
    with pytest.warns(UserWarning, match="search"):
        found = pair.latent.velocity(search=0.12)
    assert bool(found["beyond_search"].all())

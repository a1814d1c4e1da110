"""The correlation score against its own definition, known truth, and reordered data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import AxisNotFoundError, GridError, ParameterError, UnknownNameError
from xr_spde.metrics import correlation_score
from xr_spde.sar.emulate import emulate

SPACE = ("lat", "lon")


def parameters(kappa2, rho, theta, coords=None):
    maps = {"kappa2": kappa2, "rho": rho, "theta": theta}
    return xr.Dataset({name: (SPACE, values) for name, values in maps.items()}, coords=coords)


def ensemble(members, ny=7, nx=9, seed=0, dim="number"):
    values = np.random.default_rng(seed).standard_normal((members, ny, nx)).cumsum(axis=2)
    coords = {"lat": np.linspace(10.0, 70.0, ny), "lon": np.arange(nx) * 5.0}
    return xr.DataArray(values + 100.0, dims=(dim, *SPACE), coords=coords, name="z")


@pytest.fixture(scope="module")
def pair():
    return ensemble(12), ensemble(40, seed=1, dim="realization")


def by_hand(real, synthetic, points, weights):
    """Raw and floor from numpy's own correlation matrices."""
    maps = []
    for members in (real, synthetic):
        flat = members.values.reshape(members.shape[0], -1)
        maps.append(np.corrcoef(flat.T))
    cells = np.arange(real[0].size).reshape(real.shape[1:])
    at = [cells[int(np.argmin(abs(real.lat.values - y))), int(x / 5)] for y, x in points]
    raw = (maps[0][at] - maps[1][at]) ** 2
    noise = 1 / (real.shape[0] - 1) + 1 / (synthetic.shape[0] - 1)
    floor = (1 - maps[1][at] ** 2) ** 2 * noise
    share = weights.ravel() / weights.sum()
    return np.sqrt((raw @ share).mean()), np.sqrt((floor @ share).mean())


@pytest.mark.parametrize("weights", ["area", None])
def test_equals_the_definition(pair, weights):
    real, synthetic = pair
    points = [(10.0, 0.0), (40.0, 20.0), (70.0, 40.0)]
    score = correlation_score(real, synthetic, points=points, weights=weights)
    area = np.ones((7, 9))
    if weights == "area":
        area *= np.cos(np.deg2rad(real.lat.values))[:, None]
    raw, floor = by_hand(real, synthetic, points, area)
    np.testing.assert_allclose(score.raw, raw, rtol=1e-10)
    np.testing.assert_allclose(score.floor, floor, rtol=1e-10)
    np.testing.assert_allclose(score.ratio, raw / floor, rtol=1e-10)
    np.testing.assert_allclose(score.corrected, np.sqrt(max(raw**2 - floor**2, 0)), rtol=1e-9)
    np.testing.assert_array_equal(score.point_lat, [10.0, 40.0, 70.0])
    np.testing.assert_array_equal(score.point_lon, [0.0, 20.0, 40.0])


def test_pools_squares_over_points(pair):
    score = correlation_score(*pair, n_points=6)
    np.testing.assert_allclose(score.raw**2, (score.point_raw**2).mean(), rtol=1e-12)
    np.testing.assert_allclose(score.floor**2, (score.point_floor**2).mean(), rtol=1e-12)


@pytest.mark.parametrize(
    "turn",
    [
        lambda da: da.isel(lat=slice(None, None, -1)),
        lambda da: da.isel(lon=slice(None, None, -1)),
        lambda da: da.transpose("lon", ..., "lat"),
        lambda da: da.assign_coords(lon=da.lon + 360.0),
    ],
)
def test_storage_order_does_not_matter(pair, turn):
    real, synthetic = pair
    expected = correlation_score(real, synthetic, n_points=5)
    for fields, members in ((turn(real), synthetic), (real, turn(synthetic))):
        found = correlation_score(fields, members, n_points=5)
        for name in ("raw", "floor", "point_raw", "point_floor"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


def test_rolled_global_grid_gives_the_same_score():
    values = np.random.default_rng(3).standard_normal((8, 5, 12))
    coords = {"lat": np.linspace(-60.0, 60.0, 5), "lon": np.arange(12) * 30.0}
    real = xr.DataArray(values, dims=("member", *SPACE), coords=coords)
    rolled = real.roll(lon=5, roll_coords=True)
    rolled = rolled.assign_coords(lon=(rolled.lon + 180) % 360 - 180)
    expected = correlation_score(real, real + real.roll(member=1), n_points=4)
    found = correlation_score(rolled, real + real.roll(member=1), n_points=4)
    np.testing.assert_allclose(found.point_raw, expected.point_raw, rtol=1e-12)


def test_lazy_and_chunked_is_the_same(pair):
    real, synthetic = pair
    expected = correlation_score(real, synthetic, n_points=4)
    lazy = correlation_score(
        real.chunk(number=5), synthetic.chunk(realization=7, lat=3), n_points=4
    )
    assert all(lazy[name].chunks is not None for name in ("raw", "floor", "ratio", "point_raw"))
    xr.testing.assert_allclose(lazy.compute(), expected, rtol=1e-12)


def test_land_is_left_out(pair):
    real, synthetic = pair
    sea = xr.ones_like(real[0], dtype=bool)
    sea[2:5, 3:7] = False
    masked = correlation_score(real.where(sea), synthetic.where(sea), n_points=60)
    assert masked.sizes["point"] == int(sea.sum())
    assert bool(masked.point_raw.notnull().all())
    lat, lon = masked.point_lat, masked.point_lon
    assert bool(sea.sel(lat=lat, lon=lon).all())
    weights = sea.astype(float) * np.cos(np.deg2rad(real.lat))
    points = list(zip(lat.values, lon.values, strict=True))
    whole = correlation_score(real, synthetic, points=points, weights=weights)
    np.testing.assert_allclose(masked.raw, whole.raw, rtol=1e-12)
    np.testing.assert_allclose(masked.floor, whole.floor, rtol=1e-12)


def test_missing_members_raise_the_floor(pair):
    real, synthetic = pair
    gappy = real.copy()
    gappy[:6, 5:, :] = np.nan
    at = [(10.0, 0.0)]
    full = correlation_score(real, synthetic, points=at, weights=None)
    some = correlation_score(gappy, synthetic, points=at, weights=None)
    r = np.corrcoef(synthetic.values.reshape(40, -1).T)[0].reshape(7, 9)
    noise = np.full((7, 9), 1 / 11)
    noise[5:] = 1 / 5
    expected = np.sqrt(((1 - r**2) ** 2 * (noise + 1 / 39)).mean())
    np.testing.assert_allclose(some.floor, expected, rtol=1e-10)
    assert float(some.floor) > float(full.floor)


def test_leading_dimensions_are_mapped(pair):
    real, synthetic = pair
    seasons = xr.concat([real, real[::-1] ** 2], "season")
    drawn = xr.concat([synthetic, synthetic**2], "season")
    points = [(40.0, 20.0), (10.0, 5.0)]
    both = correlation_score(seasons, drawn, dim="number", points=points)
    assert both.raw.dims == ("season",)
    for n in range(2):
        one = correlation_score(seasons[n], drawn[n], dim="number", points=points)
        np.testing.assert_allclose(both.raw[n], one.raw, rtol=1e-12)
        np.testing.assert_allclose(both.point_floor.isel(season=n), one.point_floor, rtol=1e-12)


def test_seed_and_number_of_points(pair):
    first, again, other = (correlation_score(*pair, n_points=8, seed=s) for s in (4, 4, 5))
    np.testing.assert_array_equal(first.point_lat, again.point_lat)
    assert not (
        np.array_equal(first.point_lat, other.point_lat)
        and np.array_equal(first.point_lon, other.point_lon)
    )
    positions = set(zip(first.point_lat.values, first.point_lon.values, strict=True))
    assert len(positions) == 8


def test_area_weights_choose_fewer_polar_points():
    real = ensemble(5, ny=30, nx=20)
    real = real.assign_coords(lat=np.linspace(0.0, 89.0, 30), lon=np.arange(20) * 2.0)
    mean = {
        w: float(correlation_score(real, real, n_points=150, weights=w).point_lat.mean())
        for w in ("area", None)
    }
    # cos-weighted mean latitude of a hemisphere is 90 (1 - 2 / pi) = 32.7 degrees
    assert abs(mean[None] - 44.5) < 5
    assert mean["area"] < mean[None] - 5


def test_attributes(pair):
    score = correlation_score(*pair, n_points=3)
    assert score.attrs["xr_spde_real_members"] == 12
    assert score.attrs["xr_spde_synthetic_members"] == 40
    assert all(score[name].attrs["units"] == "1" for name in score.data_vars)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"weights": "aera"}, UnknownNameError, "known: 'area'"),
        ({"n_points": 0}, ParameterError, "n_points=0"),
        ({"points": [(80.0, 0.0)]}, ParameterError, "outside the grid"),
        ({"dim": "time"}, AxisNotFoundError, "time"),
        ({"weights": xr.DataArray(np.ones(3), dims="lat")}, ParameterError, "weights have"),
        ({"weights": xr.DataArray(-np.ones((7, 9)), dims=SPACE)}, ParameterError, "not negative"),
    ],
)
def test_bad_arguments(pair, change, error, match):
    with pytest.raises(error, match=match):
        correlation_score(*pair, **change)


def test_bad_data(pair):
    real, synthetic = pair
    with pytest.raises(ParameterError, match="2 replicates"):
        correlation_score(real[:2], synthetic)
    with pytest.raises(GridError, match="the same cells are expected"):
        correlation_score(real, synthetic[:, 1:])
    with pytest.raises(GridError, match="the same cells are expected"):
        correlation_score(real, synthetic.assign_coords(lon=synthetic.lon + 2.0))
    with pytest.raises(ParameterError, match="missing or has weight"):
        correlation_score(real.where(False), synthetic)


@pytest.mark.slow
def test_published_check_on_a_known_field():
    """Specification B6: 144 x 96, 30 real members, 1000 replicates."""
    u, v = np.meshgrid(np.linspace(-1, 1, 144), np.linspace(-1, 1, 96))
    kappa2 = 0.02 + 0.25 / (1 + np.exp(-6 * (u + 0.3 * np.sin(4 * v))))
    rho = 1.5 + 4.5 * np.exp(-((u + 0.3) ** 2 + v**2) / 0.4)
    theta = 0.9 * np.sin(2.5 * u + v)
    level = np.full_like(kappa2, np.exp(np.log(kappa2).mean()))
    models = {
        "exact": parameters(kappa2, rho, theta),
        "halved": parameters(2 * kappa2, 1 + (rho - 1) / 2, theta),
        "isotropic": parameters(level, np.ones_like(rho), np.zeros_like(theta)),
    }
    real = emulate(models["exact"], 30, seed=0).compute()
    scores = {
        name: correlation_score(real, emulate(model, 1000, seed=5), weights=None).compute()
        for name, model in models.items()
    }
    assert 0.18 < float(scores["exact"].raw) < 0.19
    corrected = {name: float(score.corrected) for name, score in scores.items()}
    assert corrected["exact"] < 0.05
    assert corrected["exact"] < 0.8 * corrected["halved"] < 0.64 * corrected["isotropic"]
    # The exact maps of the model carry no sampling noise of their own.
    direct = correlation_score(real, models["exact"], weights=None)
    assert "xr_spde_synthetic_members" not in direct.attrs
    assert abs(float(direct.ratio) - 1.0) < 0.03
    assert float(direct.floor) < float(scores["exact"].floor)

"""From fields to parameters to an ensemble to an analysis; the same numbers however it is run."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import xr_spde
from xr_spde.assim import assimilate

SHAPE = (20, 24)
ERROR = 0.2


@pytest.fixture(scope="module")
def fields():
    """Forty fields on a sea with an island, (time, lat, lon)."""
    truth = xr_spde.synthetic.constant_parameters(SHAPE, kappa2=0.2, rho=2.0, theta=0.4)
    drawn = truth.sar.emulate(41, seed=4).compute().values
    drawn[:, 4:8, 5:9] = np.nan
    coords = {
        "lat": ("lat", 50.0 - 0.5 * np.arange(SHAPE[0]), {"units": "degrees_north"}),
        "lon": ("lon", 350.0 + 0.5 * np.arange(SHAPE[1]), {"units": "degrees_east"}),
    }
    return xr.DataArray(drawn, coords, ("time", "lat", "lon"), "z", {"units": "m"})


@pytest.fixture(scope="module")
def obs(fields):
    """A field seen with errors at a third of the cells of the sea, as points from -180 to 180."""
    rng = np.random.default_rng(0)
    seen = fields[0].stack(obs=("lat", "lon")).dropna("obs")
    seen = seen[rng.random(seen.size) < 1 / 3]
    lat, lon = seen.lat.values, (seen.lon.values + 180) % 360 - 180
    values = seen.values + ERROR * rng.standard_normal(seen.size)
    return xr.DataArray(values, {"lat": ("obs", lat), "lon": ("obs", lon)}, "obs")


def test_the_chain_reads_like_the_sentence(fields, obs):
    """And both of its ends, an ensemble and the field itself, are better than what was known."""
    ds = fields[1:].to_dataset()
    params = ds.sar.estimate(dim="time")
    ensemble = params.sar.emulate(100, seed=1)
    post = ds.sar.estimate(dim="time").sar.emulate(100, seed=1).assim.assimilate(obs, obs_error=0.2)
    exact = params.assim.assimilate(obs, obs_error=0.2)
    before, after, best = (one.assim.score(fields[0]) for one in (ensemble, post, exact))
    assert float(after.rmse) < 0.8 * float(before.rmse)
    assert float(best.rmse) < float(after.rmse) * 1.02
    assert float(after.crps) < 0.8 * float(before.crps)
    assert 0.7 < float(best.spread_skill) < 1.4
    name = next(str(n) for n in post.data_vars if "realization" in post[n].dims)
    assert post[name].attrs["units"] == "m"
    assert bool((post["mean"].isnull() == fields[0].isnull()).all())


sizes = st.lists(st.integers(2, 12), min_size=1, max_size=4)


def cut(total, pieces):
    """Chunks of given sizes, over and over, until all is used up."""
    found = []
    while sum(found) < total:
        found.append(min(pieces[len(found) % len(pieces)], total - sum(found)))
    return tuple(found)


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(rows=sizes, columns=sizes, members=sizes)
def test_any_chunks_give_the_same_bits(fields, obs, rows, columns, members):
    ens = fields[1:13].rename(time="number").astype(np.float32)
    options = {"obs_error": ERROR, "localization": 120e3, "inflation": 1.1, "seed": 0}
    chunks = {"lat": cut(20, rows), "lon": cut(24, columns), "number": cut(12, members)}
    with dask.config.set(scheduler="synchronous"):
        found = assimilate(ens.chunk(chunks), obs, **options).compute()
    whole = assimilate(ens, obs, **options)
    for name in ("z", "mean", "std", "increment", "chi_square", "innovation"):
        np.testing.assert_array_equal(found[name], whole[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["letkf", "etkf"])
def test_schedulers_and_chunks_of_members_and_space(fields, obs, method, dtype):
    ens = fields[1:].rename(time="number").astype(dtype)
    options = {"method": method, "obs_error": ERROR, "rotate": True, "seed": 5, "rtps": 0.3}
    options |= {"localization": 150e3} if method == "letkf" else {}
    eager = assimilate(ens, obs, **options)
    assert eager.z.dtype == eager["std"].dtype == dtype
    for scheduler, chunks in (
        ("synchronous", {"number": 7, "lat": 6, "lon": 24}),
        ("threads", {"number": 40, "lat": 20, "lon": 5}),
        ("processes", {"number": 13, "lat": 11, "lon": 11}),
    ):
        with dask.config.set(scheduler=scheduler, num_workers=2):
            found = assimilate(ens.chunk(chunks), obs, **options).compute()
        for name in ("z", "mean", "std", "increment"):
            if method == "letkf":
                np.testing.assert_array_equal(found[name], eager[name])
            else:
                tolerance = 3e-6 if dtype == np.float32 else 1e-13
                np.testing.assert_allclose(found[name], eager[name], atol=tolerance)
    other = assimilate(ens, obs, **{**options, "seed": 6})
    assert float(abs(other.z - eager.z).max()) > 1e-3


def test_labels_of_all_kinds_stay(fields, obs):
    cftime = pytest.importorskip("cftime")
    ens = (
        fields[1:]
        .rename(time="number")
        .assign_coords(
            time=cftime.DatetimeNoLeap(2001, 2, 28),
            level=500.0,
            area=(("lat", "lon"), np.ones(SHAPE), {"units": "km2"}),
            model=("number", [f"m{k}" for k in range(40)]),
        )
    )
    ens.lon.attrs["note"] = "kept"
    when = [cftime.DatetimeNoLeap(2001, 2, 28, k % 24) for k in range(obs.size)]
    seen = obs.assign_coords(when=("obs", when))
    post = assimilate(
        ens.transpose("lat", "lon", "number"), seen, obs_error=ERROR, method="etkf",
        window=np.timedelta64(12, "h"),
    )  # fmt: skip
    assert post.z.dims == ("lat", "lon", "number")
    assert post.z.attrs == ens.attrs
    for name in ens.coords:
        xr.testing.assert_identical(post.z[name], ens.transpose("lat", "lon", "number")[name])
        assert post.coords[name].attrs == ens[name].attrs
    assert "area" in post["mean"].coords
    assert "model" not in post["mean"].coords
    assert int(post.observations_used) == sum(date.hour <= 12 for date in when)


def test_a_seam_and_two_conventions_of_longitude(obs):
    """A globe stored from 0 to 360, observed from -180 to 180, across the seam."""
    lat, lon = np.arange(-88.0, 90.0, 8.0), np.arange(0.0, 360.0, 8.0)
    rng = np.random.default_rng(0)
    west = 2 * np.pi * rng.random((30, 1, 1))
    z = np.sin(np.radians(lon) + west) * np.cos(np.radians(lat))[:, None]
    globe = xr.DataArray(z, {"lat": lat, "lon": lon}, ("number", "lat", "lon"), "z")
    turned = globe.assign_coords(lon=(globe.lon + 180) % 360 - 180).sortby("lon")
    place = {"lat": ("obs", [0.0, 10.0]), "lon": ("obs", [-1.0, 3.0])}
    seen = xr.DataArray([0.3, 0.2], place, "obs")
    options = {"obs_error": 0.1, "localization": 3000e3}
    one = assimilate(globe, seen, **options)
    two = assimilate(turned, seen.assign_coords(lon=seen.lon % 360), **options)
    back = two.assign_coords(lon=two.lon % 360).sortby("lon")
    np.testing.assert_allclose(back.z, one.z, atol=1e-12)
    assert float(abs(one.increment.sel(lon=352, lat=0))) > 0.01
    assert float(abs(one.increment.sel(lon=8, lat=0))) > 0.01

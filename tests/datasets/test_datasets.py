"""Sample data: the embedded set, the local folder, the downloads and the cuts."""

from __future__ import annotations

import functools
import hashlib
import http.server
import pickle
import threading

import numpy as np
import pytest
import xarray as xr

import xr_spde
from xr_spde._core.errors import (
    DataUnavailableError,
    MissingDependencyError,
    ParameterError,
    SchemaError,
    UnknownNameError,
)
from xr_spde.datasets import samples as datasets
from xr_spde.tutorial import list_datasets, open_dataset

REGISTERED = sorted(name for name, sample in datasets.CATALOGUE.items() if sample.public_name)


def registry() -> dict[str, tuple[str, str]]:
    lines = datasets._registry_path().read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: (checksum, url) for name, checksum, url in rows}


# -- the embedded ensemble


def test_embedded_ensemble_equals_the_public_one(real_data):
    reference = xr.open_dataset(real_data("ecmwf_ens_z500_20120920.nc"))
    embedded = open_dataset("ecmwf_ensemble")
    xr.testing.assert_equal(embedded, reference)
    assert embedded.z.dtype == reference.z.dtype == np.float32
    assert embedded.z.attrs == reference.z.attrs


def test_embedded_ensemble_is_plausible_and_attributed():
    ds = open_dataset("ecmwf_ensemble")
    assert ds.z.dims == ("number", "latitude", "longitude")
    heights = ds.z.mean() / 9.80665
    assert 5500 < float(heights) < 5800
    assert int(ds.z.isnull().sum()) == 0
    assert "CC BY 4.0" in ds.attrs["attribution"]
    assert "CC BY 4.0" in ds.attrs["license"]


def test_embedded_ensemble_needs_no_netcdf4_library(monkeypatch):
    monkeypatch.setattr(datasets, "has_module", lambda name: False)
    monkeypatch.setitem(__import__("sys").modules, "netCDF4", None)
    assert open_dataset("ecmwf_ensemble").sizes["number"] == 51


def test_opening_is_lazy_and_pickles():
    lazy = open_dataset("ecmwf_ensemble").z
    assert not lazy.variable._in_memory
    assert open_dataset("ecmwf_ensemble", chunks={"number": 10}).z.chunks[0] == (10,) * 5 + (1,)
    assert pickle.loads(pickle.dumps(lazy)).equals(lazy)


# -- catalogue and registry


def test_catalogue_and_registry_name_the_same_files():
    names = {datasets.CATALOGUE[name].public_name for name in REGISTERED}
    assert names == set(registry())
    assert len(REGISTERED) == 7


@pytest.mark.parametrize(("checksum", "url"), registry().values(), ids=registry())
def test_registry_pins_a_public_netcdf_file(checksum, url):
    kind, _, digest = checksum.partition(":")
    assert kind == "sha256"
    assert len(digest) == 64
    assert int(digest, 16) > 0
    assert url.startswith("https://")
    assert url.endswith((".nc", ".cdf"))


@pytest.mark.parametrize("name", REGISTERED)
def test_files_used_as_they_are_have_the_registered_checksum(name, real_data):
    sample = datasets.CATALOGUE[name]
    path = real_data(sample.filename)
    checksum = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert (checksum == registry()[sample.public_name][0]) == (sample.prepare is None)


def test_listing_names_every_set():
    assert list(list_datasets()) == list(datasets.CATALOGUE)
    assert all(list_datasets().values())


@pytest.mark.parametrize("name", sorted(datasets.CATALOGUE))
def test_every_set_opens_from_the_local_folder(name, real_data):
    real_data(datasets.CATALOGUE[name].filename)
    ds = xr_spde.open_dataset(name)
    assert ds.attrs["attribution"] == datasets.CATALOGUE[name].attribution
    assert max(variable.ndim for variable in ds.data_vars.values()) >= 3


def test_unknown_set_lists_the_known():
    with pytest.raises(UnknownNameError, match="did you mean 'ecmwf_ensemble'"):
        open_dataset("ecmwf_ensembles")
    with pytest.raises(UnknownNameError, match="'navy_winds'"):
        datasets.fetch("ecmwf_ensemble")


# -- the local folder


def test_local_path(tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(tmp_path))
    (tmp_path / "a.nc").touch()
    assert datasets.local_path("a.nc") == tmp_path / "a.nc"
    with pytest.raises(DataUnavailableError, match=f"b.nc is not in {tmp_path}"):
        datasets.local_path("b.nc")
    with pytest.raises(ParameterError, match="plain file name"):
        datasets.local_path("../a.nc")
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE)
    with pytest.raises(DataUnavailableError, match="export XR_SPDE_DATA_DIR="):
        datasets.local_path("a.nc")


# -- downloads, from a server on this machine


@pytest.fixture
def public(tmp_path, monkeypatch):
    """A server with one file, and a function that registers it (with a checksum) as navy_winds."""
    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(Quiet, directory=served)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def register(checksum: str, filename: str = "winds.cdf") -> None:
        url = f"http://127.0.0.1:{server.server_port}/{filename}"
        path = tmp_path / "registry.txt"
        path.write_text(f"monthly_navy_winds.cdf sha256:{checksum} {url}\n")
        monkeypatch.setattr(datasets, "_registry_path", lambda: path)

    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)
    yield served, register
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def upstream_winds() -> xr.Dataset:
    """Winds as the public file has them: other names, stamps every 730.5 h, longitudes from 20."""
    rng = np.random.default_rng(0)
    shape = (132, 5, 144)
    hours = 372 + 730.5 * np.arange(shape[0])
    return xr.Dataset(
        {
            name: (("TIME", "FNOCY", "FNOCX"), rng.normal(0, 5, shape).astype("f4"))
            for name in ("UWND", "VWND")
        },
        coords={
            "TIME": ("TIME", hours, {"units": "hours since 1982-01-01"}),
            "FNOCY": ("FNOCY", np.linspace(-90, 90, shape[1]), {"units": "degrees_north"}),
            "FNOCX": ("FNOCX", 20 + 2.5 * np.arange(shape[2]), {"units": "degrees_east"}),
        },
    )


def test_download_is_checked_cached_and_cut(public, tmp_path):
    served, register = public
    upstream_winds().to_netcdf(served / "winds.cdf", engine="scipy")
    register(hashlib.sha256((served / "winds.cdf").read_bytes()).hexdigest())
    ds = open_dataset("navy_winds")
    assert dict(ds.sizes) == {"time": 96, "lat": 5, "lon": 144}
    (served / "winds.cdf").unlink()
    xr.testing.assert_equal(open_dataset("navy_winds"), ds)
    assert (tmp_path / "cache/monthly_navy_winds.cdf").is_file()


def test_offline_message_says_what_where_and_how(public, tmp_path):
    _, register = public
    register("0" * 64)
    with pytest.raises(DataUnavailableError) as caught:
        open_dataset("navy_winds")
    message = str(caught.value)
    assert "navy_winds (Monthly surface winds" in message
    assert "http://127.0.0.1" in message
    assert str(tmp_path / "cache" / "monthly_navy_winds.cdf") in message
    assert "navy_winds_198201_198912.nc in XR_SPDE_DATA_DIR" in message


def test_offline_message_names_the_folder_that_was_looked_in(public, tmp_path, monkeypatch):
    _, register = public
    register("0" * 64)
    monkeypatch.setenv("XR_SPDE_DATA_DIR", "/nonexistent")
    with pytest.raises(
        DataUnavailableError, match=r"in XR_SPDE_DATA_DIR \(now /nonexistent, which"
    ):
        open_dataset("navy_winds")


def test_another_file_at_the_address_is_refused(public):
    served, register = public
    (served / "winds.cdf").write_bytes(b"CDF something else")
    register("0" * 64)
    with pytest.raises(DataUnavailableError, match="hash"):
        open_dataset("navy_winds")


def test_a_file_put_by_hand_is_used_offline(public, tmp_path):
    _, register = public
    (tmp_path / "cache").mkdir()
    by_hand = tmp_path / "cache" / "monthly_navy_winds.cdf"
    upstream_winds().to_netcdf(by_hand, engine="scipy")
    register(hashlib.sha256(by_hand.read_bytes()).hexdigest())
    assert open_dataset("navy_winds").sizes["time"] == 96


# -- the cuts


def test_navy_winds_follow_their_months_and_meridians():
    raw = xr.decode_cf(upstream_winds())
    cut = datasets.cut_navy_winds(raw)
    months = np.arange("1982-01", "1990-01", dtype="datetime64[M]")
    assert np.array_equal(cut.time.values.astype("datetime64[M]"), months)
    assert set(cut.time.dt.day.values) == {15}
    assert np.array_equal(cut.lon, 2.5 * np.arange(144))
    for short, public_name in (("u", "UWND"), ("v", "VWND")):
        same = raw[public_name].sel(FNOCX=360 + 7.5).isel(TIME=50)
        np.testing.assert_allclose(cut[short].sel(lon=7.5).isel(time=50), same, atol=0.001001)
        steps = cut[short].values / 0.002
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)


def test_navy_winds_give_the_local_file_back(real_data):
    local = xr.open_dataset(real_data("navy_winds_198201_198912.nc"))
    # The way back to the public form: names, longitudes from 20, stamps on a 730.5 h clock.
    raw = local.rename(u="UWND", v="VWND", lon="FNOCX", lat="FNOCY", time="TIME")
    raw = raw.roll(FNOCX=-8, roll_coords=True)
    raw["FNOCX"] = 20 + 2.5 * np.arange(144)
    clock = np.datetime64("1982-01-16T12", "ns") + np.arange(96) * np.timedelta64(43830, "m")
    cut = datasets.cut_navy_winds(raw.assign_coords(TIME=clock).astype("f4"))
    xr.testing.assert_allclose(cut, local, rtol=0, atol=1e-12)
    assert np.array_equal(cut.time, local.time)
    assert cut.u.attrs == local.u.attrs
    assert cut.lat.attrs == local.lat.attrs


def test_mediterranean_days_and_variable(real_data):
    local = xr.open_dataset(real_data("med_adt_20050401_20050531.nc"))
    before = local.isel(time=[0]).assign_coords(time=[np.datetime64("2005-03-31", "ns")])
    raw = xr.concat([before, local], "time").assign(ugos=0 * local.adt, crs=1)
    xr.testing.assert_equal(datasets.cut_mediterranean_adt(raw), local)


def test_alboran_gets_cf_attributes_only(real_data):
    local = xr.open_dataset(real_data("alboran_avhrr_sst_201705.nc"))
    raw = local.copy()
    raw["SST"].attrs = {"units": "Celsius", "missing": "x"}
    raw["lon"].attrs = {}
    tidy = datasets.tidy_alboran_sst(raw)
    xr.testing.assert_identical(tidy.drop_attrs(deep=False), local.drop_attrs(deep=False))
    assert raw["SST"].attrs["units"] == "Celsius"


@pytest.mark.parametrize(
    "cut", [datasets.cut_navy_winds, datasets.cut_mediterranean_adt, datasets.tidy_alboran_sst]
)
def test_a_cut_refuses_another_file_by_name(cut):
    with pytest.raises(SchemaError, match=r"found none among \['salinity'\]"):
        cut(xr.Dataset({"salinity": ("x", [1.0])}))


# -- engines


@pytest.mark.parametrize(
    ("start", "engine"),
    [(b"CDF\x01", "scipy"), (b"\x1f\x8b\x08\x00", "scipy"), (b"\x89HDF", "netcdf4")],
)
def test_engine_from_the_first_bytes(start, engine, tmp_path):
    pytest.importorskip("netCDF4")
    (tmp_path / "f").write_bytes(start)
    assert datasets.netcdf_engine(tmp_path / "f") == engine


def test_engine_falls_back_and_then_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"\x89HDF")
    monkeypatch.setattr(datasets, "has_module", lambda name: name == "h5netcdf")
    assert datasets.netcdf_engine(tmp_path / "f") == "h5netcdf"
    monkeypatch.setattr(datasets, "has_module", lambda name: False)
    monkeypatch.setitem(__import__("sys").modules, "netCDF4", None)
    with pytest.raises(MissingDependencyError, match=r"xr_spde\[io\]"):
        datasets.netcdf_engine(tmp_path / "f")


def test_engine_refuses_what_is_not_netcdf(tmp_path):
    (tmp_path / "f").write_bytes(b"GRIB")
    with pytest.raises(ParameterError, match="GRIB"):
        datasets.netcdf_engine(tmp_path / "f")


# -- the set that is computed


def test_a_synthetic_set_is_computed_once_and_kept(tmp_path, monkeypatch, caplog):
    calls = []

    def small(**options):
        calls.append(options)
        return shallow_water(speed=options["speed"], hours=(0, 4), step=2, rows=8, truncation=15)

    shallow_water = xr_spde.synthetic.shallow_water
    monkeypatch.setattr(xr_spde.synthetic, "shallow_water", small)
    monkeypatch.setattr(datasets, "_cache", lambda: type("Cache", (), {"path": str(tmp_path)}))
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)
    with caplog.at_level("INFO", logger="xr_spde"):
        first, again = (open_dataset("shallow_water_jets") for _ in range(2))
    assert (len(calls), calls[0]["rows"], calls[0]["step"]) == (1, 32, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["shallow_water_jets.nc"]
    assert "is computed once" in caplog.text
    assert not first.height.variable._in_memory
    xr.testing.assert_identical(first, again)
    exact = shallow_water(speed=calls[0]["speed"], hours=(0, 4), step=2, rows=8, truncation=15)
    for name in ("height", "vorticity"):
        step = float(exact[name].max() - exact[name].min()) / 65_000
        np.testing.assert_allclose(first[name], exact[name], atol=0.51 * step)
    assert (first.speed < 73).sum() == 6

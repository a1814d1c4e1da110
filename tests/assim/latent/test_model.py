"""The latent model: fields to codes and back on any grid, forecasts, scores, and its file."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xr_spde  # noqa: F401  registers the accessor
from xr_spde._core.errors import SchemaError
from xr_spde.assim import LatentModel, fit, load_model
from xr_spde.assim.latent.clock import Clock


def test_fields_of_the_training_come_back(model, series):
    codes = model.encode(series)
    assert codes.dims == ("member", "time", "code")
    assert codes.sizes["code"] == 6
    back = model.decode(codes)
    xr.testing.assert_allclose(back, series.transpose(*back.dims), atol=1e-6)
    assert back.attrs == series.attrs
    assert back.name == "z"


def test_forecasts_are_those_of_the_waves(model, truth):
    found = model.forecast(truth.isel(time=0), 12)
    assert found.dims == ("time", "lat", "lon")
    np.testing.assert_array_equal(found.time, truth.time[1:])
    np.testing.assert_allclose(found, truth[1:], atol=2e-3)


def test_steps_of_any_length_are_those_of_the_times(model, truth):
    when = truth.time[[1, 4, 5, 11]]
    found = model.forecast(truth.isel(time=0), times=when)
    np.testing.assert_allclose(found, truth.sel(time=when), atol=2e-3)


def test_scores_of_exact_waves_vanish_and_persistence_does_not(model, truth):
    table = model.score(truth, 3)
    assert dict(table.sizes) == {"lead": 4, "variable": 1}
    assert float(table.rmse.max()) < 2e-3
    assert float(table.persistence[1:].min()) > 0.1
    assert table.forecasts.values.tolist() == [13, 12, 11, 10]


@given(order=st.permutations(["time", "lat", "lon"]), flip=st.booleans(), roll=st.integers(0, 23))
@settings(max_examples=10, deadline=None)
def test_codes_do_not_depend_on_storage(model, truth, order, flip, roll):
    expected = model.encode(truth)
    stored = truth.transpose(*order)
    stored = stored.isel(lat=slice(None, None, -1)) if flip else stored
    stored = stored.roll(lon=roll, roll_coords=True)
    found = model.encode(stored).transpose(*expected.dims)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_fields_of_another_grid_and_with_gaps_have_the_same_codes(model, waves, truth):
    fine = waves(13, seed=99, lat=np.arange(-87.5, 90.0, 5.0), lon=np.arange(0.0, 360.0, 5.0))
    expected = model.encode(truth)
    scale = float(expected.std())
    np.testing.assert_allclose(model.encode(fine.isel(member=0)), expected, atol=0.05 * scale)
    holes = truth.where(np.random.default_rng(0).random(truth.shape) < 0.5)
    np.testing.assert_allclose(model.encode(holes, prior=False), expected, atol=1e-6 * scale)


def test_decoding_at_points_and_on_a_grid_is_the_field_there(model, truth):
    codes = model.encode(truth)
    at = xr.Dataset(coords={"lat": ("obs", [10.0, -33.0]), "lon": ("obs", [-20.0, 359.0])})
    found = model.decode(codes, at)
    assert found.dims == ("time", "obs")
    expected = truth.pad(lon=(2, 2), mode="wrap").assign_coords(lon=np.arange(-30.0, 390.0, 15.0))
    expected = expected.interp(lat=at.lat, lon=at.lon % 360, method="linear")
    np.testing.assert_allclose(found, expected, atol=0.1)
    same = model.decode(codes, truth)
    np.testing.assert_array_equal(same, model.decode(codes))


def test_single_precision_stays_and_double_agrees(model, truth):
    single = model.decode(model.encode(truth.astype(np.float32)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, model.decode(model.encode(truth)), atol=1e-4)


def test_lazy_fields_give_the_same_codes_whatever_the_chunks(model, series):
    expected = model.decode(model.encode(series))
    for chunks in ({"time": 5}, {"lat": 3, "member": 1}, {"lon": 7, "time": 24}):
        lazy = model.decode(model.encode(series.chunk(chunks)))
        assert lazy.chunks is not None
        np.testing.assert_allclose(lazy.compute().transpose(*expected.dims), expected, atol=1e-12)


def test_lazy_training_gives_the_same_model(model, series):
    lazy = fit(series.chunk(time=5, lat=4), method="pod", code=6, seed=1)
    for name, values in model.map.state()[0].items():
        np.testing.assert_array_equal(lazy.map.state()[0][name], values)


def test_what_is_saved_is_what_is_loaded(model, truth, observed, tmp_path):
    pytest.importorskip("safetensors")
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert repr(again) == repr(model)
    assert isinstance(again, LatentModel)
    known = {"obs_error": 0.1, "method": "etkf", "seed": 4, "model": model}
    first = truth.isel(time=0).assim.assimilate(observed, **known)
    second = truth.isel(time=0).assim.assimilate(observed, **{**known, "model": again})
    xr.testing.assert_identical(first, second)


def test_a_file_of_something_else_is_refused(tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(SchemaError):
        load_model(tmp_path / "model.safetensors")


def test_a_climatology_by_month_comes_off_and_back():
    rng = np.random.default_rng(1)
    time = xr.date_range("2000-01-15", periods=60, freq="MS")
    season = np.cos(2.0 * np.pi * np.arange(60) / 12.0)[:, None, None] * np.ones((4, 6))
    lat, lon = np.linspace(-45.0, 45.0, 4), np.arange(0.0, 360.0, 60.0)
    pattern = rng.standard_normal((2, 4, 6))
    weather = np.einsum("tk,kyx->tyx", rng.standard_normal((60, 2)), pattern)
    field = xr.DataArray(
        20.0 + 10.0 * season + weather, {"time": time, "lat": lat, "lon": lon},
        ("time", "lat", "lon"),
    )  # fmt: skip
    model = fit(field, method="pod", code=2, dynamics="persistence")
    assert model.scaling.climatology is not None
    assert str(model.clock) == "1 month"
    np.testing.assert_allclose(model.decode(model.encode(field)), field, atol=1.0)
    ahead = model.forecast(field.isel(time=-1), 2)
    assert [str(t)[:7] for t in ahead.time.values] == ["2005-02", "2005-03"]


@pytest.mark.parametrize(
    ("freq", "said"), [("MS", "1 month"), ("6h", "6 h"), ("5D", "5 days"), ("YS", "12 months")]
)
def test_steps_of_calendars_are_known(freq, said):
    times = xr.DataArray(xr.date_range("2001-01-01", periods=30, freq=freq), dims="time")
    clock = Clock.of(times)
    assert str(clock) == said
    gaps, other = clock.intervals(times)
    assert other == 0
    np.testing.assert_array_equal(gaps, 1.0)
    np.testing.assert_allclose(clock.positions(times), np.arange(30), atol=0.12)

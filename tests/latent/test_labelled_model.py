"""The latent model on labelled images: the same frames by every way."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

from xr_spde.errors import ParameterError
from xr_spde.latent.cases import make_case
from xr_spde.latent.dynamics import LatentDynamics

SHORT = {"iterations": 20, "patch": 32, "progress": False}


@pytest.fixture(scope="module")
def images() -> xr.DataArray:
    """Rows from north to south; the middle is known."""
    case = make_case("tex_rot", 48)
    stack = np.stack([case.u0, case.frame(0.5), case.u1])[:, ::-1]
    times = np.array(["2020-03-01T00", "2020-03-01T03", "2020-03-01T06"], "datetime64[ns]")
    coords = {"time": times, "y": np.arange(48.0)[::-1], "x": np.arange(48.0)}
    return xr.DataArray(stack, coords, ("time", "y", "x"), "a", {"units": "K"})


@pytest.fixture(scope="module")
def model(images):
    return images.isel(time=[0, 2]).latent.fit(seed=3, **SHORT)


def test_frames_of_a_fit_given_or_new_lazy_or_not(images, model, tmp_path):
    pair, middle = images.isel(time=[0, 2]), images.isel(time=1)
    given = pair.latent.interpolate(middle.time, method="latent", model=model)
    blend = pair.latent.interpolate(middle.time, method="linear")
    assert np.abs(given - middle).mean() < 0.3 * np.abs(blend - middle).mean()
    assert given.dims == ("y", "x")
    assert given.attrs["units"] == "K"
    lazy = pair.chunk({"time": 1, "y": 20}).latent.interpolate(
        middle.time, method="latent", seed=3, **SHORT
    )
    assert lazy.chunks is not None
    np.testing.assert_allclose(lazy, given, atol=1e-6)
    model.save(tmp_path / "model")
    again = pair.latent.interpolate(
        middle.time, method="latent", model=LatentDynamics.load(tmp_path / "model")
    )
    np.testing.assert_allclose(again, given, atol=1e-6)
    detailed = pair.latent.interpolate(middle.time, method="latent", model=model, uncertainty=True)
    assert set(detailed.data_vars) == {"a", "disagreement", "seen"}


def test_frames_of_one_compute_share_one_fit(images, model, monkeypatch):
    import dask

    from xr_spde.latent import labelled_model

    fits = []

    def counted(stack, *args, **kwargs):
        if stack.shape != (2, 48, 48):  # dask asks what comes out
            raise ValueError("no images")
        fits.append(1)
        return model

    monkeypatch.setattr(labelled_model, "fit_latent_dynamics", counted)
    lazy = images.isel(time=[0, 2]).chunk({"time": 1, "y": 20})
    how = {"method": "latent", "seed": 3, **SHORT}
    several = lazy.latent.interpolate(images.time[[0, 1]], **how)
    another = lazy.latent.interpolate(images.time[1], **how)
    assert not fits
    assert several.chunksizes["time"] == (1, 1)
    found = dask.compute(several, another)
    assert len(fits) == 1
    np.testing.assert_array_equal(found[0].isel(time=1), found[1])
    assert found[0].coords.equals(images.isel(time=[0, 1]).coords)
    stacked = xr.concat([lazy, lazy + 1], "level").chunk({"level": 1})
    stacked.latent.interpolate(images.time[1], **how).compute()
    assert len(fits) == 3


def test_the_score_card_has_a_row_for_a_model(images, model):
    pair, middle = images.isel(time=[0, 2]), images.isel(time=1)
    card = pair.latent.compare(middle, methods=["latent", "linear"], model=model)
    assert list(card.approach.values) == ["latent", "linear"]
    assert float(card.rmse.sel(approach="latent")) < 0.3 * float(card.rmse.sel(approach="linear"))
    frame = pair.latent.interpolate(middle.time, method="latent", model=model)
    error = float(np.sqrt(((frame - middle) ** 2).mean()))
    assert float(card.rmse.sel(approach="latent")) == pytest.approx(error)
    from xr_spde.latent.compare import compare

    whole = (u.values[::-1] for u in (pair[0], pair[1], middle))
    array = compare(*whole, methods=["latent"], model=model)
    assert array["latent"].rmse == pytest.approx(error)
    with pytest.raises(ParameterError, match="not among methods"):
        pair.latent.compare(middle, methods=["linear"], model=model)


def test_states_there_and_back(images, model):
    states = images.latent.encode(model)
    assert states.dims == ("time", "channel", "y", "x")
    back = states.latent.decode(model)
    assert back.dims == images.dims
    assert np.abs(back - images).max() < 0.02
    lazy = images.chunk({"y": 10}).latent.encode(model)
    np.testing.assert_allclose(lazy.compute(), states, atol=1e-6)
    with pytest.raises(ParameterError, match="channel"):
        images.latent.decode(model)
    with pytest.raises(ParameterError, match="48"):
        images.isel(x=slice(8, None)).latent.encode(model)


def test_velocity_of_a_model(images, model):
    pair = images.isel(time=[0, 2])
    pair = pair.assign_coords(
        y=("y", pair.y.values, {"units": "km"}), x=("x", pair.x.values, {"units": "km"})
    )
    moved = pair.latent.velocity(model=pair.latent.fit(seed=3, **SHORT))
    plain = pair.latent.velocity()
    # a turn by 20 degrees in 6 h, from x to y
    turn = 2 * np.radians(20) / (6 * 3600)
    for found in (moved, plain):
        inner = found.isel(time=0, x=slice(8, -8), y=slice(8, -8))
        assert float(inner.vorticity.median()) / turn == pytest.approx(1, rel=0.1)
    assert moved["u_spread"].dims == ("y", "x")
    assert moved["u_spread"].attrs["units"] == "m s-1"
    frame = pair.latent.interpolate("2020-03-01T03", motion=moved)
    assert np.abs(frame - images.isel(time=1))[8:-8, 8:-8].mean() < 0.01


def test_a_model_of_other_frames_is_refused(images, model):
    with pytest.raises(ParameterError, match="fit it to them"):
        images.latent.interpolate("2020-03-01T01", method="latent", model=model)
    with pytest.raises(ParameterError, match="level"):
        images.expand_dims(level=2).latent.fit(**SHORT)
    with pytest.raises(ParameterError, match="level"):
        images.isel(time=[0, 2]).expand_dims(level=2).latent.velocity(model=model)
    two = xr.Dataset({"a": images.isel(time=[0, 2]), "b": images.isel(time=[0, 2])})
    with pytest.raises(ParameterError, match="one variable"):
        two.latent.interpolate("2020-03-01T01", method="latent", model=model)
    with pytest.raises(ParameterError, match="means nothing"):
        images.latent.interpolate("2020-03-01T01", model=model)

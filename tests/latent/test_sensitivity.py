"""Many fits of the same frames with other settings."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

from xr_spde.errors import ParameterError, UnknownNameError
from xr_spde.latent import sensitivity_effects
from xr_spde.latent.cases import make_case

QUICK = {"iterations": 3, "patch": 16, "width": 4, "depth": 2}


@pytest.fixture(scope="module")
def images():
    case = make_case("tex_rot", 32)
    stack = np.stack([case.u0, case.frame(0.5), case.u1])
    coords = {"time": [0.0, 1.0, 2.0], "y": np.arange(32.0), "x": np.arange(32.0)}
    return xr.DataArray(stack, coords, ("time", "y", "x"), "a", {"units": "K"}), case.displacement


def test_each_setting_by_itself(images, tmp_path):
    frames, displacement = images
    pair, middle = frames.isel(time=[0, 2]), frames.isel(time=1)
    vary = {"lam_sm": [1e-3, 1e-2, 1.0], "stride": [8], "seed": [0, 5], "initial": ["none"]}
    how = {"vary": vary, "displacement": displacement, "store": tmp_path / "runs", **QUICK}
    runs = pair.latent.sensitivity(middle, **how)
    assert list(runs.varied.values) == ["", "lam_sm", "lam_sm", "stride", "seed", "initial"]
    assert list(runs.lam_sm.values) == [1e-2, 1e-3, 1.0, 1e-2, 1e-2, 1e-2]
    assert list(runs.stride.values) == [4, 4, 4, 8, 4, 4]
    assert runs.rmse.attrs["units"] == "K"
    rest = runs.isel(run=-1)
    assert bool(rest.flagged.sel(flag="motion"))
    assert float(rest.mean_speed) < 0.2 * float(runs.mean_speed[0])
    assert float(rest.epe) > 5 * float(runs.epe[0])
    frame = pair.latent.interpolate(1.0, method="latent", progress=False, **QUICK)
    assert float(runs.rmse[0]) == pytest.approx(float(np.sqrt(((frame - middle) ** 2).mean())))

    effects = sensitivity_effects(runs)
    assert float(effects.rmse.sel(factor="initial")) == float(abs(rest.rmse - runs.rmse[0]))
    assert float(effects.rmse.sel(factor="initial")) == float(effects.rmse.max())

    # kept runs are not fitted again, lazily or not, whatever else is asked for
    again = pair.chunk({"y": 16}).latent.sensitivity(middle, **how)
    assert again.rmse.chunks is not None
    xr.testing.assert_identical(again.compute(), runs)


def test_all_settings_at_once(images):
    pair = images[0].isel(time=[0, 2])
    vary = {"lam_sm": [1e-3, 1e-1], "lam_c": [0.0, 2.0], "width": [4, 8]}
    runs = pair.latent.sensitivity(vary=vary, design="sobol", samples=4, **QUICK)
    assert runs.sizes["run"] == 4
    # one value in each quarter of the logarithmic range
    quarters = np.floor(4 * (np.log10(runs.lam_sm) + 3) / 2)
    assert sorted(quarters.values) == [0, 1, 2, 3]
    assert set(runs.width.values) == {4, 8}
    assert np.isnan(runs.rmse).all()
    assert np.isnan(runs.epe).all()
    effects = sensitivity_effects(runs)
    assert (np.abs(effects.end_residual) <= 1).all()


def test_what_cannot_be_used_is_refused_before_the_first_fit(images):
    pair = images[0].isel(time=[0, 2])
    with pytest.raises(UnknownNameError, match="one-at-a-time"):
        pair.latent.sensitivity(design="grid", **QUICK)
    with pytest.raises(ParameterError, match="no settings"):
        pair.latent.sensitivity(vary={"lambda": [1.0]}, **QUICK)
    with pytest.raises(ParameterError, match="gaps would stay"):
        pair.latent.sensitivity(vary={"stride": [20]}, **QUICK)
    with pytest.raises(ParameterError, match="power of two"):
        pair.latent.sensitivity(design="sobol", samples=6, **QUICK)
    with pytest.raises(ParameterError, match="withhold"):
        pair.latent.sensitivity(pair.isel(time=0), **QUICK)

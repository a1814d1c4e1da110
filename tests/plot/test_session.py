"""Figures leave the session of a user as they found it."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import xr_spde
from xr_spde.plot.style import house_style


@pytest.fixture
def params() -> xr.Dataset:
    return xr_spde.synthetic.constant_parameters((12, 14), kappa2=0.3, rho=2.0, theta=0.4)


def test_settings_come_back_and_a_backend_set_up_meanwhile_stays():
    before = dict(mpl.rcParams)
    with house_style():
        assert mpl.rcParams["font.size"] == 9
        mpl.rcParams["interactive"] = not before["interactive"]
    after = dict(mpl.rcParams)
    assert after["font.size"] == before["font.size"]
    assert after["interactive"] != before["interactive"]
    mpl.rcParams["interactive"] = before["interactive"]


def test_parameters_beside_fields_take_the_replicates_of_the_fields(params):
    fields = xr_spde.sar.emulate(params, 20, seed=1).compute().rename(realization="number")
    at = tuple(float(params.kappa2[d][5]) for d in params.kappa2.dims)
    figure = params.sar.plot.correlation(at, fields, dim="number")
    maps = [axes for axes in figure.axes if axes.collections]
    drawn = np.asarray(maps[1].collections[0].get_array(), dtype=float).reshape(12, 14)
    truth = fields.sar.correlation(at, dim="number")
    assert np.nanmax(np.abs(drawn - truth.values)) < 1e-6
    plt.close(figure)

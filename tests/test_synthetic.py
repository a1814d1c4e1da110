"""Truth with known parameters."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde import synthetic
from xr_spde._core.errors import ParameterError, SchemaError, UnknownNameError
from xr_spde.labels.grid import Grid
from xr_spde.labels.schema import validate_parameters


@pytest.mark.parametrize(("domain", "boundary"), [("plane", "plane"), ("global", "cylinder")])
def test_random_parameters_follow_the_schema_on_a_grid_that_is_understood(domain, boundary):
    params = synthetic.random_parameters((18, 36), seed=1, domain=domain)
    validate_parameters(params)
    grid = Grid.from_object(params)
    assert (grid.shape, grid.boundary, params.attrs["boundary"]) == ((18, 36), boundary, boundary)
    assert float(params.kappa2.std()) > 0


def test_random_parameters_are_their_seed():
    first, again, other = (synthetic.random_parameters((8, 9), seed=s) for s in (1, 1, 2))
    assert first.identical(again)
    assert not first.equals(other)
    fresh = synthetic.random_parameters((8, 9))
    assert synthetic.random_parameters((8, 9), seed=int(fresh.attrs["xr_spde_seed"])).equals(fresh)


def test_constant_parameters():
    params = synthetic.constant_parameters((4, 5), kappa2=0.2, rho=2, theta=-0.5)
    assert {float(v) for v in np.unique(params.to_array())} == {0.2, 2.0, -0.5}
    assert np.array_equal(params.x, 1000 * np.arange(5))
    assert Grid.from_object(params).kind == "projected"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"kappa2": 0}, SchemaError),
        ({"kappa2": 1, "rho": 0.5}, SchemaError),
        ({"kappa2": 1, "theta": np.nan}, SchemaError),
        ({"kappa2": 1, "domain": "sphere"}, UnknownNameError),
        ({"kappa2": 1, "shape": (1, 5)}, ParameterError),
    ],
)
def test_bad_truth_is_refused(options, error):
    with pytest.raises(error):
        synthetic.constant_parameters(**{"shape": (4, 5), **options})


def small_sea(**options):
    defaults = {"shape": (20, 24), "days": 3, "seed": 1, "spin_up": 5}
    return synthetic.turbulent_sea(**(defaults | options))


def test_a_turbulent_sea_is_labelled_and_is_its_seed():
    sea = small_sea(latitude=-40.0, longitude=20.0)
    assert (sea.dims, sea.shape, sea.dtype) == (("time", "lat", "lon"), (3, 20, 24), np.float32)
    assert sea.attrs["units"] == "m"
    assert (float(sea.lat.mean()), float(sea.lon.mean())) == pytest.approx((-40.0, 20.0))
    np.testing.assert_allclose(np.diff(sea.lon), 0.1)
    assert (np.diff(sea.time) == np.timedelta64(1, "D")).all()
    assert Grid.from_object(sea).kind == "geographic"
    assert sea.identical(small_sea(latitude=-40.0, longitude=20.0))
    assert not sea.equals(small_sea(latitude=-40.0, longitude=20.0, seed=2))


def test_a_sea_is_kept_and_found_again(tmp_path, caplog):
    with caplog.at_level("INFO", logger="xr_spde"):
        first, again = (small_sea(cache=tmp_path, step=0.5) for _ in range(2))
    assert len(list(tmp_path.iterdir())) == 1
    assert ["is kept in" in r.message for r in caplog.records] == [True, False]
    xr.testing.assert_identical(first, again)
    xr.testing.assert_equal(first, small_sea(step=0.5))
    with pytest.raises(ParameterError, match="integer seed"):
        small_sea(cache=tmp_path, seed=None)


def test_large_cells_are_means_of_smaller_ones():
    fine = small_sea(shape=(40, 60), resolution=0.1, radius=30.0, criticality=1.8)
    coarse = small_sea(shape=(20, 30), resolution=0.2, radius=30.0, criticality=1.8)
    # the periodic domains are the same, and so is the flow
    mean = fine.coarsen(lat=2, lon=2).mean()
    np.testing.assert_allclose(coarse, mean, atol=1e-5)
    np.testing.assert_allclose(coarse.lat, mean.lat)
    np.testing.assert_allclose(coarse.lon, mean.lon)


@pytest.mark.parametrize(
    "wrong",
    [{"shape": (1, 5)}, {"days": 0}, {"resolution": -0.1}, {"step": 0.0}, {"latitude": 2.0},
     {"latitude": 84.5}, {"spin_up": -1}, {"drag": 0.0}, {"criticality": 0.9}, {"radius": 0.0},
     {"dtype": "int8"}, {"start": "soon"}],
)  # fmt: skip
def test_impossible_seas_are_refused(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        small_sea(**wrong)


@pytest.mark.slow
def test_a_turbulent_sea_has_the_statistics_it_promises():
    sea = synthetic.turbulent_sea((80, 80), days=160, seed=0)
    assert 0.1 < float(sea.std()) < 0.4
    halves = [float(sea[part].std()) for part in (slice(0, 80), slice(80, None))]
    assert max(halves) < 1.25 * min(halves)  # stationary after the default spin-up

    def correlation(lag, dim):
        one, other = sea.isel({dim: slice(lag, None)}), sea.isel({dim: slice(0, -lag)})
        return float((one.values * other.values).mean() / (sea.values**2).mean())

    assert correlation(1, "time") > 0.95
    assert correlation(7, "time") > 0.37 > correlation(25, "time")
    # 0.37 within 50 to 150 km: eddies of 100 to 300 km across
    assert correlation(5, "lat") > 0.37 > correlation(14, "lat")

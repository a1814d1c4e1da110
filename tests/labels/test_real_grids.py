"""Axes and grids of real files."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import GridError
from xr_spde.labels.arrays import array_of
from xr_spde.labels.axes import find_replicates, find_spatial
from xr_spde.labels.grid import Grid

GEO, MAP = "geographic", "projected"
# file: variables, replicates, shape, kind, periodic, descending, (north pole, south pole)
GRIDS = {
    "A1B_north_america": (["air_temperature"], "time", (37, 49), GEO, False, False, (0, 0)),
    "alboran_avhrr_sst_201705": (["SST"], "time", (201, 301), GEO, False, False, (0, 0)),
    "cobe_sst_annual_1950_2009": (["sst"], "year", (180, 360), GEO, True, False, (1, 1)),
    "cobe_sst_monthly_1950_2009_2deg": (["sst"], "time", (90, 180), GEO, True, False, (1, 1)),
    "conus_annual_meantemp_totalpr_1950_1999": (
        ["meantemp", "totalpr"], "time", (56, 116), GEO, False, False, (0, 0),
    ),
    "ecmwf_ens_z500_20120920": (["z"], "number", (46, 71), GEO, False, False, (0, 0)),
    "era5_eda_z_t_500_850_201701": (["z", "t"], "number", (61, 120), GEO, True, False, (1, 1)),
    "ersstv5_monthly_201001_202008": (["sst"], "time", (89, 180), GEO, True, True, (0, 0)),
    "fmi_radar_20160928": (["reflectivity"], "time", (512, 512), MAP, False, False, (0, 0)),
    "med_adt_20050401_20050531": (["adt"], "time", (128, 344), GEO, False, False, (0, 0)),
    "med_adt_sla_20160515": (["adt", "sla"], "time", (128, 344), GEO, False, False, (0, 0)),
    "navy_winds_198201_198912": (["u", "v"], "time", (73, 144), GEO, True, False, (1, 1)),
    "s1_seaice_20200123_20200125": (["sigma0"], "time", (703, 749), MAP, False, False, (0, 0)),
    "s1_seaice_hh_20200301_20200302": (
        ["sigma0_hh"], "time", (701, 1135), MAP, False, False, (0, 0),
    ),
}  # fmt: skip
POINTS = ["airs_co2_20030501_20030515", "med_adt_alongtrack_20140515_20140603"]


@pytest.fixture
def open_real(real_data):
    pytest.importorskip("netCDF4")

    def opened(name):
        if name.startswith("A1B"):
            pytest.importorskip("cftime")
        return xr.open_dataset(real_data(f"{name}.nc"))

    return opened


@pytest.mark.parametrize("name", GRIDS)
def test_real_grid(open_real, name):
    variables, replicates, shape, kind, periodic, descending, poles = GRIDS[name]
    with open_real(name) as dataset:
        da = array_of(dataset)
        joined = len(variables) > 1
        assert (list(da["variable"].values) if joined else [da.name]) == variables
        grid = Grid.from_object(da)
        assert grid == Grid.from_object(dataset)
        assert find_replicates(da, spatial=find_spatial(da)) == replicates
        assert (grid.shape, grid.kind, grid.periodic_x) == (shape, kind, periodic)
        assert (grid.y_descending, (grid.north_pole, grid.south_pole)) == (descending, poles)
        dy, dx = grid.cell_size()
        assert ((dx > 0) & (dx < 4e5) & (dy < 4e5)).all()
        np.testing.assert_allclose(
            np.sort(dataset[grid.y_dim]), grid.canonical_y(), atol=1e-3 * abs(grid.dy)
        )


def test_real_field_rolled_and_flipped(open_real):
    with open_real("ersstv5_monthly_201001_202008") as dataset:
        stored = dataset["sst"].isel(time=0).load()
    turned = stored.roll(lon=71, roll_coords=True).sortby("lat")
    turned = turned.assign_coords(
        lon=((turned.lon + 180) % 360 - 180).assign_attrs(stored.lon.attrs)
    )
    one, two = Grid.from_object(stored), Grid.from_object(turned)
    np.testing.assert_array_equal(one.to_canonical(stored.values), two.to_canonical(turned.values))
    assert one.locate(35.0, -40.0) == two.locate(35.0, 320.0)


@pytest.mark.parametrize("name", POINTS)
def test_real_points_are_refused(open_real, name):
    with open_real(name) as dataset, pytest.raises(GridError, match="these are points, not a grid"):
        Grid.from_object(dataset)

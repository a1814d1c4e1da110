"""Meshes of labelled grids, and rows in space and time."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import xarray as xr

from xr_spde.assim.windows import mesh_of, spacetime_rows
from xr_spde.errors import GridError, ParameterError
from xr_spde.labels.grid import Grid


def labelled(lat, lon, units=("degrees_north", "degrees_east")):
    coords = {"lat": ("lat", lat, {"units": units[0]}), "lon": ("lon", lon, {"units": units[1]})}
    return Grid.from_object(xr.DataArray(np.zeros((len(lat), len(lon))), coords, ("lat", "lon")))


def test_mesh_in_metres():
    grid = labelled(np.array([60.0, 30.0, 0.0]), np.arange(0.0, 360.0, 30.0))
    mesh = mesh_of(grid, edge="dirichlet")
    assert mesh.boundary == ("dirichlet", "periodic")
    assert mesh.dx[0, 0] == pytest.approx(np.radians(30) * 6371e3)
    assert mesh.dx[2, 0] == pytest.approx(0.5 * mesh.dx[0, 0])
    assert mesh.dy[0, 0] == pytest.approx(np.radians(30) * 6371e3)
    bare = Grid.from_object(xr.DataArray(np.zeros((3, 4)), dims=("y", "x")))
    with pytest.raises(GridError, match="no lengths"):
        mesh_of(bare)


def test_rows_are_linear_in_time():
    rng = np.random.default_rng(0)
    space = sp.csr_array(rng.random((4, 6)))
    at = np.array([0.0, 1.25, 2.0, 0.5])
    found = spacetime_rows(space, at, 3)
    trend = np.arange(3.0)[:, None] * np.ones(6)
    np.testing.assert_allclose(found @ trend.ravel(), at * space.sum(axis=1))
    assert np.diff(found.indptr).tolist() == [6, 12, 6, 12]
    np.testing.assert_allclose(spacetime_rows(space, np.zeros(4), 1).toarray(), space.toarray())


def test_observations_outside_the_window_are_counted():
    space = sp.csr_array(np.eye(3))
    with pytest.raises(ParameterError, match=r"2 of 3 observations are outside.*index 1"):
        spacetime_rows(space, np.array([0.5, 2.5, np.nan]), 3)
    with pytest.raises(ParameterError, match="position has shape"):
        spacetime_rows(space, np.zeros(2), 3)

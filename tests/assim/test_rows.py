"""Rows of weights of positions on random grids, against great circles and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xr_spde.assim.operators import LinearOperator
from xr_spde.assim.rows import (
    Positions,
    area_rows,
    bilinear_rows,
    nearest_rows,
    window_rows,
    without_land,
)
from xr_spde.labels.grid import EARTH_RADIUS, Grid


def make_grid(lat, lon):
    data = xr.DataArray(np.zeros((len(lat), len(lon))), {"lat": lat, "lon": lon}, ("lat", "lon"))
    return Grid.from_object(data)


def global_grid(ny, nx, *, poles=False, first=0.0):
    gap = 0.0 if poles else 90.0 / ny
    return make_grid(np.linspace(-90.0 + gap, 90.0 - gap, ny), first + np.arange(nx) * 360.0 / nx)


def plane(ny, nx, step=1000.0):
    coords = {
        name: (name, np.arange(n) * step, {"units": "m"}) for name, n in (("y", ny), ("x", nx))
    }
    return Grid.from_object(xr.DataArray(np.zeros((ny, nx)), coords, ("y", "x")))


def great_circle(lat, lon, grid):
    """Distance (p, ny, nx) in metres from vectors in space."""

    def vectors(y, x):
        y, x = np.radians(y), np.radians(x)
        return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)

    nodes = vectors(*np.meshgrid(grid.canonical_y(), grid.canonical_x(), indexing="ij"))
    chord = np.linalg.norm(vectors(lat, lon)[:, None, None] - nodes, axis=-1)
    return 2.0 * EARTH_RADIUS * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0))


def band_areas(grid):
    """Area of the band of each row, by the midpoint rule in steps of a thousandth."""
    steps = grid.canonical_y()[:, None] + abs(grid.dy) * (np.arange(0.0005, 1.0, 0.001) - 0.5)
    return np.where(np.abs(steps) < 90.0, np.cos(np.radians(steps)), 0.0).mean(axis=1)


grids = st.builds(
    global_grid,
    st.integers(3, 12),
    st.integers(4, 15),
    poles=st.booleans(),
    first=st.sampled_from([0.0, -180.0, 3.0, -90.5]),
)
regions = st.builds(
    lambda y, x, ny, nx, dy, dx: make_grid(y + dy * np.arange(ny), x + dx * np.arange(nx)),
    st.floats(-60.0, 30.0), st.floats(-360.0, 360.0), st.integers(2, 8), st.integers(2, 8),
    st.floats(0.2, 6.0), st.floats(0.2, 20.0),
)  # fmt: skip


def scatter(grid, seed, count=40):
    rng = np.random.default_rng(seed)
    y, x = grid.canonical_y(), grid.canonical_x()
    if grid.periodic_x:
        return np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, count))), rng.uniform(-540, 540, count)
    half_y, half_x = abs(grid.dy) / 2, abs(grid.dx) / 2
    lat = rng.uniform(y[0] - half_y, y[-1] + half_y, count)
    lon = rng.uniform(x[0] - half_x, x[-1] + half_x, count)
    return lat, lon + 360.0 * rng.integers(-1, 2, count)


@given(st.one_of(grids, regions), st.integers(0, 10**6))
def test_nearest_cell_is_the_one_at_the_least_great_circle(grid, seed):
    lat, lon = scatter(grid, seed)
    at = Positions.of(grid, lat, lon)
    assert at.inside.all()
    rows, distance = nearest_rows(at), great_circle(lat, lon, grid).reshape(40, -1)
    chosen = distance[np.arange(40), rows.indices]
    np.testing.assert_allclose(chosen, distance.min(axis=1), rtol=1e-9, atol=1.0)


@given(grids, st.integers(0, 10**6))
def test_bilinear_is_a_mean_and_exact_for_what_is_linear_in_space(grid, seed):
    lat, lon = scatter(grid, seed)
    rows = bilinear_rows(Positions.of(grid, lat, lon))
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    assert rows.data.min() > 0.0
    # a smooth field on the sphere: second differences bound the error, also across the poles
    x, y = np.meshgrid(np.radians(grid.canonical_x()), np.radians(grid.canonical_y()))
    field = np.cos(y) * np.cos(x - 0.3) + 0.5 * np.sin(y)
    truth = np.cos(np.radians(lat)) * np.cos(np.radians(lon) - 0.3) + 0.5 * np.sin(np.radians(lat))
    steps = np.radians([grid.dy, grid.dx])
    assert np.abs(rows @ field.ravel() - truth).max() <= 1.2 * np.sum(steps**2) / 8 + 1e-12


@given(regions, st.integers(0, 10**6))
def test_bilinear_is_exact_for_bilinear_fields_between_the_centres(grid, seed):
    lat, lon = scatter(grid, seed)
    at = Positions.of(grid, lat, lon)
    y, x = grid.canonical_y(), np.arange(grid.nx)
    field = (2.0 + y)[:, None] * (1.0 - 0.3 * x)
    inner_y, inner_x = np.clip(lat, y[0], y[-1]), np.clip(at.column, 0, grid.nx - 1)
    found = bilinear_rows(at) @ field.ravel()
    np.testing.assert_allclose(found, (2.0 + inner_y) * (1.0 - 0.3 * inner_x), atol=1e-8)


def test_the_pole_looks_the_same_from_every_side():
    field = np.random.default_rng(0).standard_normal((4, 6))
    grid = global_grid(4, 6)
    lon = np.array([0.0, 60.0, 180.0, 240.0])
    found = bilinear_rows(Positions.of(grid, np.full(4, 90.0), lon)) @ field.ravel()
    # half a circle apart, the two rows about the pole are exchanged
    np.testing.assert_allclose(found[:2], found[2:])
    np.testing.assert_allclose(found[0], (field[-1, 0] + field[-1, 3]) / 2)
    just_before = Positions.of(grid, np.array([67.5 - 1e-9, 67.5 + 1e-9]), np.array([70.0, 70.0]))
    before, after = bilinear_rows(just_before) @ field.ravel()
    assert before == pytest.approx(after, abs=1e-6)


@given(st.one_of(grids, regions), st.integers(0, 10**6), st.floats(10e3, 4000e3))
def test_areas_are_the_cells_within_the_great_circle(grid, seed, radius):
    lat, lon = scatter(grid, seed, 10)
    rows = area_rows(Positions.of(grid, lat, lon), radius).toarray()
    distance = great_circle(lat, lon, grid).reshape(10, -1)
    area = np.repeat(band_areas(grid), grid.nx)
    for row, far in zip(rows, distance, strict=True):
        if np.abs(far - radius).min() < 1.0:
            continue  # a centre on the rim itself
        within = far <= radius
        if not within.any():
            within = row > 0
            assert within.sum() == 1
            assert far[within][0] == pytest.approx(far.min(), abs=1.0)
        expected = np.where(within, area, 0.0) / area[within].sum()
        np.testing.assert_allclose(row, expected, atol=1e-5)


@pytest.mark.parametrize("poles", [False, True])
def test_the_whole_sphere_is_weighed_by_its_area(poles):
    grid = global_grid(37, 8, poles=poles)
    rows = area_rows(Positions.of(grid, np.array([10.0, 90.0]), np.array([5.0, 0.0])), 21e6)
    shares = rows.toarray().reshape(2, 37, 8).sum(axis=2)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    north = grid.canonical_y() + abs(grid.dy) / 2
    caps = (1.0 + np.sin(np.radians(np.minimum(north, 90.0)))) / 2.0
    np.testing.assert_allclose(np.cumsum(shares, axis=1), [caps, caps], atol=1e-12)
    # a disc that ends on a row, from the pole: all of that row or nothing
    rim = EARTH_RADIUS * np.radians(90.0 - grid.canonical_y()[30])
    row = area_rows(Positions.of(grid, np.array([90.0]), np.array([7.0])), rim).toarray()
    assert {int(np.count_nonzero(one)) for one in row.reshape(37, 8)} <= {0, 8}


def test_areas_and_windows_on_a_plane():
    grid = plane(7, 8)
    at = Positions.of(grid, np.array([3000.0, 0.0]), np.array([4000.0, 0.0]))
    disc = area_rows(at, 1100.0).toarray().reshape(2, 7, 8)
    assert np.count_nonzero(disc[0]) == 5
    assert disc[0, 3, 4] == disc[0, 2, 4] == pytest.approx(0.2)
    assert np.count_nonzero(disc[1]) == 3  # cut off by the corner
    window = window_rows(at, (3, 5)).toarray().reshape(2, 7, 8)
    np.testing.assert_allclose(window[0, 2:5, 2:7], 1 / 15)
    np.testing.assert_allclose(window[1, :2, :3], 1 / 6)


def test_windows_wrap_at_the_seam_and_weigh_by_area():
    grid = global_grid(4, 6)
    at = Positions.of(grid, grid.canonical_y()[[1]], np.array([359.0]))
    row = window_rows(at, (3, 3)).toarray().reshape(4, 6)
    assert set(np.flatnonzero(row.any(axis=0))) == {5, 0, 1}
    area = np.cos(np.radians(grid.canonical_y()[:3]))
    np.testing.assert_allclose(row[:3, 0], area / (3 * area.sum()))
    everything = window_rows(at, (9, 99)).toarray()
    assert np.count_nonzero(everything) == 24
    assert everything.sum() == pytest.approx(1.0)


def test_positions_beyond_half_a_cell_are_outside():
    grid = make_grid(np.array([50.0, 40.0, 30.0]), np.array([-10.0, 0.0, 10.0]))
    lat, lon = np.array([55.0, 55.1, 25.0, 40.0, 40.0]), np.array([0.0, 0.0, 375.0, 15.1, 345.0])
    at = Positions.of(grid, lat, lon)
    np.testing.assert_array_equal(at.inside, [True, False, True, False, True])
    beyond = Positions.of(global_grid(4, 6), np.array([90.5, np.nan]), np.zeros(2))
    assert not beyond.inside.any()


def test_land_gives_its_weight_to_the_sea_beside_it():
    grid = plane(2, 3)
    y, x = np.array([400.0, 400.0, 0.0]), np.array([1000.0, 400.0, 2000.0])
    at = Positions.of(grid, y, x)
    land = np.array([[False, False, True], [True, False, False]])
    j, i = at.cells()
    rows, lost = without_land(bilinear_rows(at), land.ravel(), j * 3 + i)
    np.testing.assert_array_equal(lost, [False, False, True])
    np.testing.assert_allclose(rows.sum(axis=1)[:2], 1.0)
    np.testing.assert_allclose(rows.toarray()[1, [0, 1, 3, 4]], np.array([36, 24, 0, 16]) / 76)
    field = np.where(land, np.nan, 2.0)
    np.testing.assert_allclose(LinearOperator(rows, (2, 3)).apply(field)[:2], 2.0)

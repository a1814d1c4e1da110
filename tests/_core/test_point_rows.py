"""Values between points: polynomials and harmonics, seams and poles, masks, scattered points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.point_rows import PointRows
from xr_spde.errors import ParameterError


def lattice(nx, ny, *, poles=False):
    x = np.arange(nx) * 2 * np.pi / nx
    y = np.linspace(-np.pi / 2, np.pi / 2, ny) if poles else np.arcsin(np.linspace(-0.99, 0.99, ny))
    return np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1).reshape(-1, 2)


def smooth(points):
    x, y = points.T
    return np.cos(y) * np.cos(x - 1.0) + np.sin(y) ** 2 + np.cos(y) ** 2 * np.sin(2 * x)


def anywhere(rng, count):
    return np.stack([rng.uniform(-8, 8, count), np.arcsin(rng.uniform(-1, 1, count))], axis=1)


@pytest.mark.parametrize("poles", [False, True])
@pytest.mark.parametrize("nx", [48, 49])
def test_whole_sphere_over_seam_and_poles(nx, poles):
    points = lattice(nx, 40, poles=poles)
    targets = anywhere(np.random.default_rng(0), 2000)
    rows, inside = PointRows(points).rows(targets)
    assert inside.all()
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-12)
    assert np.abs(rows @ smooth(points) - smooth(targets)).max() < (2e-3 if poles else 8e-3)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_cubic_polynomials_of_a_plane_are_reproduced(seed):
    rng = np.random.default_rng(seed)
    x, y = (np.sort(rng.uniform(-1, 1, n)) for n in (7, 9))
    points = np.stack(np.broadcast_arrays(x[:, None], y), axis=-1).reshape(-1, 2)
    points = points[rng.permutation(len(points))]
    c = rng.standard_normal((4, 4))
    targets = np.stack([rng.uniform(x[0], x[-1], 30), rng.uniform(y[0], y[-1], 30)], axis=1)
    rows, inside = PointRows(points, sphere=False).rows(targets)
    assert inside.all()
    found = rows @ np.polynomial.polynomial.polyval2d(*points.T, c)
    size = np.abs(rows).sum(axis=1)  # uneven nodes make large weights, and round-off with them
    wanted = np.polynomial.polynomial.polyval2d(*targets.T, c)
    assert (np.abs(found - wanted) < 1e-11 * (1 + size) * (1 + np.abs(c).sum())).all()


def test_given_points_are_reproduced_and_others_are_outside():
    points = np.radians(lattice_degrees())
    rows, inside = PointRows(points).rows(points)
    assert inside.all()
    np.testing.assert_allclose(rows.toarray(), np.eye(len(points)), atol=1e-12)
    far = np.radians([[10.0, 40.0], [-3.6, 40.0], [359.0, 35.0], [3.0, 48.0]])
    assert PointRows(points).rows(far)[1].tolist() == [True, False, True, False]


def lattice_degrees():
    x, y = np.arange(-3.0, 20.0), np.arange(30.0, 46.0)
    return np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1).reshape(-1, 2)


def test_masked_points_never_count():
    points = lattice(32, 20)
    usable = np.abs(points[:, 0] - 3.0) > 0.8
    values = np.where(usable, smooth(points), np.nan)
    targets = anywhere(np.random.default_rng(1), 1000)
    rows, inside = PointRows(points, usable).rows(targets)
    assert usable[rows.indices].all()
    found = rows @ np.nan_to_num(values)
    # near the mask, one-sided means of the cell are of first order
    assert np.abs(found - smooth(targets))[inside].max() < 0.3
    assert 0.7 < inside.mean() < 0.95
    assert (rows.sum(axis=1)[~inside] == 0.0).all()


@pytest.mark.parametrize("sphere", [True, False])
def test_scattered_points(sphere):
    rng = np.random.default_rng(2)
    points, targets = anywhere(rng, 3000), anywhere(rng, 500)
    if not sphere:
        points, targets = (np.clip(p / [8, np.pi / 2], -1, 1) for p in (points, targets))
    known = PointRows(points, sphere=sphere)
    assert not known.grid
    rows, inside = known.rows(targets)
    assert inside.mean() > 0.95
    error = np.abs(rows @ smooth(points) - smooth(targets))
    assert np.median(error[inside]) < 1e-4
    assert error[inside].max() < 0.02
    again = known.rows(points[:50])[0].toarray()
    np.testing.assert_allclose(again, np.eye(3000)[:50], atol=1e-8)


def test_refused():
    points = lattice(8, 6)
    for bad in (points * 60, points[:, :1], np.full((3, 2), np.nan), np.empty((0, 2))):
        with pytest.raises(ParameterError, match="points has"):
            PointRows(bad)
    with pytest.raises(ParameterError, match="usable"):
        PointRows(points, np.zeros(48, bool))

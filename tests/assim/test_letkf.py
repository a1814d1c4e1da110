"""Local analyses: against the global filter, against loops, and bit by bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError
from xr_spde.assim.filters import analyse
from xr_spde.assim.letkf import LocalFilter, letkf, padded
from xr_spde.assim.localization import Neighbours, gaspari_cohn, on_ring, on_sphere
from xr_spde.assim.projection import project


@pytest.fixture(scope="module")
def globe():
    """Members on a coarse globe, three variables per point, and observations of the first."""
    rng = np.random.default_rng(0)
    lon, lat = np.meshgrid(np.arange(0, 360, 15.0), np.arange(-80, 81, 16.0))
    points = on_sphere(lon, lat)
    size, n, p = 12, len(points), 150
    ensemble = rng.standard_normal((size, 3, n)) + 4.0
    seen = rng.integers(0, n, p)
    sites = on_sphere(lon.ravel()[seen] + rng.uniform(-5, 5, p), lat.ravel()[seen])
    observed = ensemble[:, 0, seen]
    y = 4.0 + rng.standard_normal(p)
    return ensemble, observed, y, rng.uniform(0.2, 2.0, p), points, sites


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize(("n", "p", "size"), [(12, 7, 20), (12, 30, 9), (5, 1, 2)])
def test_infinite_radius_is_the_etkf(make, n, p, size, rotate):
    linear = make(n, p, size)
    arguments = (linear.E, linear.HE, linear.y, linear.r)
    settings = {"rotate": rotate, "seed": 1, "inflation": 1.05, "rtpp": 0.2, "rtps": 0.3}
    places = {"points": on_ring(np.arange(n), n), "sites": on_ring(np.arange(p), n)}
    found = letkf(*arguments, **places, radius=np.inf, **settings)
    np.testing.assert_allclose(found, analyse(*arguments, **settings), atol=1e-11)


def test_each_point_is_the_etkf_of_its_own_observations(globe):
    ensemble, observed, y, r, points, sites = globe
    radius = 4e6
    found = letkf(ensemble, observed, y, r, points=points, sites=sites, radius=radius)
    chords = np.linalg.norm(points.xyz[:, None] - sites.xyz, axis=2)
    distance = points.along(chords)
    for k in range(0, len(points), 7):
        weight = gaspari_cohn(distance[k], radius)
        near = weight > 0
        expected = analyse(ensemble[:, :, k], observed[:, near], y[near], r[near] / weight[near])
        np.testing.assert_allclose(found[:, :, k], expected, atol=1e-11)


def test_domain_localisation(globe):
    ensemble, observed, y, r, points, sites = globe
    found = letkf(ensemble, observed, y, r, points=points, sites=sites, radius=3e6, taper="boxcar")
    near = points.along(np.linalg.norm(points.xyz[40] - sites.xyz, axis=1)) <= 3e6
    expected = analyse(ensemble[:, :, 40], observed[:, near], y[near], r[near])
    np.testing.assert_allclose(found[:, :, 40], expected, atol=1e-11)


@pytest.mark.parametrize("variables", [1, 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_same_bits_for_any_chunks(globe, dtype, variables):
    ensemble, observed, y, r, points, sites = globe
    ensemble = ensemble[:, :variables]
    settings = {"rtps": 0.5, "inflation": 1.02, "rotate": True, "seed": 3, "radius": 3e6}
    cast = ensemble.astype(dtype)
    whole = letkf(cast, observed, y, r, points=points, sites=sites, **settings)
    assert whole.dtype == dtype
    for size in (1, 7, 100):
        for start in range(0, len(points), size):
            part = slice(start, start + size)
            found = letkf(
                np.ascontiguousarray(cast[:, :, part]), observed, y, r,
                points=points[part], sites=sites, **settings,
            )  # fmt: skip
            np.testing.assert_array_equal(found, whole[:, :, part])
    order = np.random.default_rng(0).permutation(len(points))
    found = letkf(cast[:, :, order], observed, y, r, points=points[order], sites=sites, **settings)
    np.testing.assert_array_equal(found, whole[:, :, order])


def test_same_bits_for_other_stacks(globe, monkeypatch):
    ensemble, observed, y, r, points, sites = globe
    arguments = {"points": points, "sites": sites, "radius": 3e6}
    whole = letkf(ensemble, observed, y, r, **arguments)
    changes = [
        ("letkf", "_POINTS", 50),
        ("letkf", "_STACK", 3),
        ("letkf", "_PAIRS", 100),
        ("roots", "_STACK", 5),
    ]
    for module, name, value in changes:
        monkeypatch.setattr(f"xr_spde.assim.{module}.{name}", value)
        np.testing.assert_array_equal(letkf(ensemble, observed, y, r, **arguments), whole)


def test_in_another_process_with_the_observations_in_reach(globe):
    ensemble, observed, y, r, points, sites = globe
    projection, radius = project(observed, y, r), 3e6
    whole = LocalFilter(projection, Neighbours(sites, radius))(ensemble, points)
    part = slice(30, 50)
    near = np.unique(Neighbours(sites, radius).of(points[part])[1])
    assert near.size < y.size
    sent = LocalFilter(projection.select(near), Neighbours(sites[near], radius))
    found = pickle.loads(pickle.dumps(sent))(ensemble[:, :, part], points[part])
    np.testing.assert_array_equal(found, whole[:, :, part])


def test_statistics_of_the_innovations_around_points(globe):
    _, observed, y, r, points, sites = globe
    projection = project(observed, y, r)
    everywhere = LocalFilter(projection, Neighbours(sites, np.inf)).innovations(points)
    expected = projection.misfit, projection.spread, projection.count
    for found, value in zip(everywhere, expected, strict=True):
        np.testing.assert_allclose(found, value)
    south = np.flatnonzero(sites.xyz[:, 2] < 0)
    local = LocalFilter(projection, Neighbours(sites, 3e6))
    pieces = [local.innovations(points[k : k + 17]) for k in range(0, len(points), 17)]
    whole = local.innovations(points)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    local = LocalFilter(projection.select(south), Neighbours(sites[south], 2e6))
    misfit, spread, count = local.innovations(points)
    north = points.xyz[:, 2] > 4e6
    assert (misfit[north] == 0).all()
    weight = gaspari_cohn(sites.along(np.linalg.norm(sites.xyz - points.xyz[60], axis=1)), 2e6)
    weight[sites.xyz[:, 2] >= 0] = 0
    assert count[60] == pytest.approx(weight.sum())
    assert misfit[60] == pytest.approx(weight @ projection.innovation**2)
    assert spread[60] == pytest.approx(weight @ (observed.var(axis=0, ddof=1) / r))


def test_distant_observations_do_not_matter(globe):
    ensemble, observed, y, r, points, sites = globe
    far = points.along(np.linalg.norm(points.xyz[0] - sites.xyz, axis=1)) > 2e6
    settings = {"points": points[:1], "sites": sites, "radius": 2e6}
    here = ensemble[:, :, :1]
    found = letkf(here, observed, y, r, **settings)
    other = letkf(here, observed, np.where(far, y + 100, y), r, **settings)
    np.testing.assert_array_equal(found, other)


def test_points_without_observations_keep_their_members(globe):
    ensemble, observed, y, r, points, sites = globe
    south = sites.xyz[:, 2] < 0
    found = letkf(
        ensemble, observed[:, south], y[south], r[south],
        points=points, sites=sites[south], radius=2e6,
    )  # fmt: skip
    north = points.xyz[:, 2] > 2e6
    np.testing.assert_allclose(found[:, :, north], ensemble[:, :, north], rtol=1e-14)


def test_land_stays_land_and_missing_observations_are_left_out(globe):
    ensemble, observed, y, r, points, sites = globe
    land = ensemble.copy()
    land[:, :, 20] = np.nan
    land[:, 1, 30] = np.nan
    settings = {"points": points, "radius": 3e6}
    gaps = y.copy()
    gaps[::4] = np.nan
    keep = np.isfinite(gaps)
    found = letkf(land, observed, gaps, r, sites=sites, **settings)
    assert np.isnan(found[:, :, 20]).all()
    assert np.isnan(found[:, 1, 30]).all()
    some = letkf(ensemble, observed[:, keep], y[keep], r[keep], sites=sites[keep], **settings)
    where = np.isfinite(found)
    assert where.sum() == found.size - 12 * 4
    np.testing.assert_array_equal(found[where], some[where])


def test_bits_of_a_plain_ensemble_do_not_depend_on_chunks(globe):
    ensemble, observed, y, r, points, sites = globe
    members = ensemble[:, 0]
    whole = letkf(members, observed, y, r, points=points, sites=sites, radius=3e6)
    for k in range(0, len(points), 5):
        found = letkf(
            members[:, k : k + 1], observed, y, r,
            points=points[k : k + 1], sites=sites, radius=3e6,
        )  # fmt: skip
        np.testing.assert_array_equal(found, whole[:, k : k + 1])


def test_accurate_and_dense_observations():
    """Eigenvalues that span many decades: the root still preserves the mean."""
    rng = np.random.default_rng(0)
    ring = on_ring(np.arange(200), 200)
    ensemble = rng.standard_normal((10, 200))
    y = rng.standard_normal(200)
    for variance in (1e-2, 1e-6):
        found = letkf(ensemble, ensemble, y, variance, points=ring, sites=ring, radius=np.inf)
        expected = analyse(ensemble, ensemble, y, variance)
        np.testing.assert_allclose(found, expected, atol=1e-15 / variance + 1e-12)


def test_padded_counts_are_a_little_larger():
    count = np.arange(1, 5000)
    found = padded(count)
    assert (found >= count).all()
    assert (found <= np.maximum(count + 7, 1.126 * count)).all()
    assert len(np.unique(found)) < 80


def test_bad_input(globe):
    ensemble, observed, y, r, points, sites = globe
    places = {"points": points, "sites": sites}
    with pytest.raises(ParameterError, match="two at least"):
        letkf(ensemble[:1], observed[:1], y, r, radius=2e6, **places)
    with pytest.raises(ParameterError, match="12 members first and 3 points last"):
        letkf(ensemble, observed, y, r, radius=2e6, points=points[:3], sites=sites)
    with pytest.raises(ParameterError, match="99 places are given for 150 observations"):
        letkf(ensemble, observed, y, r, radius=2e6, points=points, sites=sites[:99])
    with pytest.raises(ParameterError, match="in metres > 0"):
        letkf(ensemble, observed, y, r, radius=-1e6, **places)
    with pytest.raises(ParameterError, match="factor >= 1"):
        letkf(ensemble, observed, y, r, radius=2e6, inflation=0.5, **places)
    with pytest.raises(ParameterError, match="rtps=2"):
        LocalFilter(project(observed, y, r), Neighbours(sites, 1e6), rtps=2)
    broken = ensemble.copy()
    broken[5, 1, 4] = np.nan
    with pytest.raises(ParameterError, match=r"member\(s\) 5 "):
        letkf(broken, observed, y, r, radius=2e6, **places)
    with pytest.warns(UserWarning, match="shorter than the step"):
        letkf(ensemble, observed, y, r, radius=1e4, **places)

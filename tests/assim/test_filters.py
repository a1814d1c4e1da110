"""Global filters against the Kalman filter in dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xr_spde._core.errors import DTypeError, ParameterError, UnknownNameError
from xr_spde._core.rng import member_generator
from xr_spde.assim.filters import FILTERS, analyse, analysis_weights
from xr_spde.assim.projection import project
from xr_spde.assim.transforms import (
    adjust,
    mean_basis,
    mean_preserving_rotation,
    transform,
)

SQUARE_ROOTS = ("etkf", "etkf-q", "serial")


def moments(members):
    return members.mean(axis=0), np.cov(members.T)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("method", SQUARE_ROOTS)
@pytest.mark.parametrize(("n", "p", "size"), [(12, 7, 20), (12, 30, 20), (40, 9, 10), (3, 1, 2)])
def test_square_roots_are_the_kalman_filter(make, method, rotate, n, p, size):
    linear = make(n, p, size)
    mean, cov = linear.posterior()
    found = analyse(linear.E, linear.HE, linear.y, linear.r, method=method, rotate=rotate, seed=3)
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=1e-11)
    np.testing.assert_allclose(np.cov(found.T), cov, atol=1e-11)


def test_cycle_of_the_filter_with_model_equals_the_kalman_filter(make):
    linear = make(6, 3, 9)
    rng = np.random.default_rng(1)
    model = 0.95 * np.linalg.qr(rng.standard_normal((6, 6)))[0]
    members, (mean, cov) = linear.E, moments(linear.E)
    for _ in range(30):
        linear.y = rng.standard_normal(3)
        members, mean, cov = members @ model.T, model @ mean, model @ cov @ model.T
        members = analyse(members, members @ linear.H.T, linear.y, linear.r)
        mean, cov = linear.posterior(mean, cov)
    np.testing.assert_allclose(members.mean(axis=0), mean, atol=1e-10)
    np.testing.assert_allclose(np.cov(members.T), cov, atol=1e-10)


def test_mean_of_enkf_and_denkf_is_that_of_the_kalman_filter(linear):
    mean, _ = linear.posterior()
    for method in ("enkf", "denkf"):
        found = analyse(linear.E, linear.HE, linear.y, linear.r, method=method, seed=0)
        np.testing.assert_allclose(found.mean(axis=0), mean, atol=1e-11)


def test_denkf_subtracts_half_the_gain(linear):
    _, cov = moments(linear.E)
    gain = cov @ linear.H.T @ np.linalg.inv(linear.H @ cov @ linear.H.T + np.diag(linear.r))
    half = np.eye(12) - 0.5 * gain @ linear.H
    found = analyse(linear.E, linear.HE, linear.y, linear.r, method="denkf")
    np.testing.assert_allclose(np.cov(found.T), half @ cov @ half.T, atol=1e-11)


def perturbations(linear, seed):
    """Errors (N, p) from the published streams: one per member, centred."""
    size, p = linear.HE.shape
    drawn = np.stack([member_generator(seed, j).standard_normal(p) for j in range(size)])
    return np.sqrt(linear.r) * (drawn - drawn.mean(axis=0))


@pytest.mark.parametrize(("n", "p", "size"), [(12, 7, 20), (12, 30, 20), (12, 5, 9)])
def test_enkf_is_the_gain_applied_to_perturbed_observations(make, n, p, size):
    linear = make(n, p, size)
    cov = np.cov(linear.E.T)
    gain = cov @ linear.H.T @ np.linalg.inv(linear.H @ cov @ linear.H.T + np.diag(linear.r))
    expected = linear.E + (linear.y + perturbations(linear, 5) - linear.HE) @ gain.T
    found = analyse(linear.E, linear.HE, linear.y, linear.r, method="enkf", seed=5)
    np.testing.assert_allclose(found, expected, atol=1e-11)


@pytest.mark.parametrize(("n", "p", "size"), [(12, 7, 20), (12, 5, 9)])
def test_senkf_takes_its_gain_from_the_perturbed_members(make, n, p, size):
    linear = make(n, p, size)
    seen = linear.HE - perturbations(linear, 5)
    X, Y = (a - a.mean(axis=0) for a in (linear.E, seen))
    gain = X.T @ Y @ np.linalg.pinv(Y.T @ Y)
    expected = linear.E + (linear.y - seen) @ gain.T
    found = analyse(linear.E, linear.HE, linear.y, linear.r, method="senkf", seed=5)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_senkf_collapses_where_observations_are_many(make):
    many = make(12, 40, 20)
    with pytest.warns(UserWarning, match="no spread left"):
        found = analyse(many.E, many.HE, many.y, many.r, method="senkf", seed=0)
    assert found.std(axis=0).max() < 1e-6 * many.E.std(axis=0).min()


def test_enkf_converges_as_one_over_the_root_of_n(make):
    linear = make(4, 3, 10, shift=0.0)
    truth = np.eye(4) + 0.5
    mean, cov = linear.posterior(np.zeros(4), truth)
    root = np.linalg.cholesky(truth)
    sizes, errors = (25, 100, 400), []
    for size in sizes:
        found = []
        for seed in range(40):
            rng = np.random.default_rng([size, seed])
            members = rng.standard_normal((size, 4)) @ root.T
            moved = analyse(
                members, members @ linear.H.T, linear.y, linear.r, method="enkf", seed=seed
            )
            found.append([*(moved.mean(axis=0) - mean), *(np.cov(moved.T) - cov).ravel()])
        errors.append(np.sqrt(np.mean(np.square(found))))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.08)
    assert errors[-1] < np.sqrt(np.mean(truth**2 + 1.5**2) / sizes[-1])  # that of the prior


def test_unit_error_variance_given_in_every_way(linear):
    from xr_spde.assim.noise import IndependentErrors

    ways = [2.0, np.full(7, 2.0), IndependentErrors(np.full(7, 2.0)), 2]
    found = [analyse(linear.E, linear.HE, linear.y, way) for way in ways]
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("method", sorted(set(FILTERS) - {"senkf"}))
def test_useless_observations_change_nothing(linear, method):
    found = analyse(linear.E, linear.HE, linear.y, linear.r * 1e24, method=method, seed=0)
    np.testing.assert_allclose(found, linear.E, atol=1e-10)


@pytest.mark.parametrize("method", sorted(FILTERS))
def test_missing_observations_are_as_if_not_given(linear, method):
    y = linear.y.copy()
    y[[1, 4]] = np.nan
    keep = np.isfinite(y)
    found = analyse(linear.E, linear.HE, y, linear.r, method=method, seed=2)
    some = analyse(linear.E, linear.HE[:, keep], y[keep], linear.r[keep], method=method, seed=2)
    np.testing.assert_array_equal(found, some)


@pytest.mark.parametrize("method", ["etkf", "denkf", "serial"])
def test_order_of_members_does_not_matter(linear, method):
    order = np.random.default_rng(0).permutation(20)
    found = analyse(linear.E, linear.HE, linear.y, linear.r, method=method)
    other = analyse(linear.E[order], linear.HE[order], linear.y, linear.r, method=method)
    np.testing.assert_allclose(other, found[order], atol=1e-12)


@given(st.integers(2, 12), st.integers(1, 20), st.integers(2, 15), st.integers(0, 10**6))
def test_any_shape_any_pieces(make, n, p, size, seed):
    linear = make(n, p, size, seed)
    weights = analysis_weights(project(linear.HE, linear.y, linear.r))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    mean, cov = linear.posterior()
    found = transform(linear.E, weights)
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=1e-9)
    np.testing.assert_allclose(np.cov(found.T), cov, atol=1e-9)
    cut = n // 2
    pieces = [transform(linear.E[:, part], weights) for part in (slice(cut), slice(cut, n))]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), found, atol=1e-12)


@pytest.mark.parametrize("method", sorted(FILTERS))
def test_single_precision(linear, method):
    single = [array.astype(np.float32) for array in (linear.E, linear.HE, linear.y, linear.r)]
    found = analyse(*single, method=method, seed=1)
    assert found.dtype == np.float32
    expected = analyse(linear.E, linear.HE, linear.y, linear.r, method=method, seed=1)
    np.testing.assert_allclose(found, expected, atol=2e-4 if method == "senkf" else 2e-5)


def test_single_precision_keeps_its_digits_on_a_large_mean(linear):
    """Geopotential: 54000 with anomalies of one; float32 has steps of 0.004 there."""
    shifted = (linear.E + 54_000.0).astype(np.float32)
    exact = shifted.astype(np.float64)
    weights = analysis_weights(project(linear.HE, linear.y, linear.r))
    error = transform(shifted, weights) - weights @ exact
    assert np.abs(error).max() < 0.004


def test_same_seed_same_draws_and_streams_per_member(linear):
    first, again, other = (
        analyse(linear.E, linear.HE, linear.y, linear.r, method="enkf", seed=seed)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    rng = np.random.default_rng(0)
    one, two = (
        analyse(linear.E, linear.HE, linear.y, linear.r, method="enkf", seed=rng) for _ in range(2)
    )
    assert not np.allclose(one, two)


def test_perturbations_do_not_depend_on_blocks(make, monkeypatch):
    linear = make(12, 30, 20)
    whole = analyse(linear.E, linear.HE, linear.y, linear.r, method="enkf", seed=1)
    monkeypatch.setattr("xr_spde.assim.filters._BLOCK", 7)
    monkeypatch.setattr("xr_spde.assim.projection._BLOCK", 11)
    monkeypatch.setattr("xr_spde.assim.transforms._BLOCK_BYTES", 1)
    pieces = analyse(linear.E, linear.HE, linear.y, linear.r, method="enkf", seed=1)
    np.testing.assert_allclose(pieces, whole, atol=1e-12)


def test_leading_axes_land_and_in_place(linear):
    cube = linear.E.reshape(20, 3, 4).copy()
    cube[:, 1, 2] = np.nan
    found = analyse(cube, linear.HE, linear.y, linear.r)
    assert found.shape == cube.shape
    assert np.isnan(found[:, 1, 2]).all()
    assert np.isfinite(np.delete(found.reshape(20, -1), 6, axis=1)).all()
    same = analyse(cube, linear.HE, linear.y, linear.r, out=cube)
    assert same is cube
    np.testing.assert_array_equal(cube, found)


def test_relaxation_and_inflation(linear):
    arguments = (linear.E, linear.HE, linear.y, linear.r)
    plain = analyse(*arguments)
    prior, posterior = linear.E - linear.E.mean(axis=0), plain - plain.mean(axis=0)
    inflated = analyse(*arguments, inflation=1.1)
    np.testing.assert_allclose(inflated - plain.mean(axis=0), 1.1 * posterior, atol=1e-12)
    relaxed = analyse(*arguments, rtpp=0.4)
    expected = 0.6 * posterior + 0.4 * prior
    np.testing.assert_allclose(relaxed - plain.mean(axis=0), expected, atol=1e-12)
    spread = analyse(*arguments, rtps=0.7)
    np.testing.assert_allclose(spread.mean(axis=0), plain.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(
        spread.std(axis=0), 0.7 * linear.E.std(axis=0) + 0.3 * plain.std(axis=0), atol=1e-12
    )


@pytest.mark.parametrize("size", [2, 3, 10, 41])
def test_rotations_keep_the_mean(size):
    rotation = mean_preserving_rotation(size, 0)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(size), atol=1e-13)
    np.testing.assert_allclose(rotation.sum(axis=1), 1.0, atol=1e-13)
    basis = mean_basis(size)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size - 1), atol=1e-13)
    np.testing.assert_allclose(basis.sum(axis=0), 0.0, atol=1e-13)


def test_rotations_are_uniform():
    """Entries of a Haar matrix of size m have mean 0 and variance 1 / m."""
    basis = mean_basis(5)
    found = np.stack([basis.T @ mean_preserving_rotation(5, k) @ basis for k in range(2000)])
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=0.06)
    np.testing.assert_allclose((found**2).mean(axis=0), 0.25, atol=0.03)


def test_nothing_to_adjust(linear):
    weights = analysis_weights(project(linear.HE, linear.y, linear.r))
    np.testing.assert_allclose(adjust(weights), weights, atol=1e-15)


def test_statistics_of_the_innovations(linear):
    found = project(linear.HE, linear.y, linear.r)
    innovation = linear.y - linear.HE.mean(axis=0)
    cov = np.cov(linear.HE.T)
    total = cov + np.diag(linear.r)
    assert found.chi_square == pytest.approx(innovation @ np.linalg.solve(total, innovation))
    assert found.spread == pytest.approx(np.trace(cov / linear.r))
    assert found.misfit == pytest.approx(np.sum(innovation**2 / linear.r))
    assert (found.size, found.count) == (20, 7)


def test_innovation_from_another_centre(linear):
    centre = linear.HE.mean(axis=0) + 0.1
    found = project(linear.HE, linear.y, linear.r, centre=centre)
    np.testing.assert_allclose(found.innovation, (linear.y - centre) / np.sqrt(linear.r))


def test_bad_input(linear):
    E, HE, y, r = linear.E, linear.HE, linear.y, linear.r
    cases = [
        ((E[:1], HE[:1], y, r), {}, "two at least"),
        ((E, HE[:, :3], y, r), {}, r"expected \(N, p\) and \(p,\)"),
        ((E[:9], HE, y, r), {}, "9 members"),
        ((E, HE, y, 0.0), {}, "not a positive number at 7 of 7"),
        ((E, HE, y, -r), {}, "not a positive number"),
        ((E, HE, y, r[:3]), {}, "those of 3 observations; there are 7"),
        ((E, HE, np.full(7, np.nan), r), {}, "none of the 7 observations"),
        ((E, HE, np.where(y == y[2], np.inf, y), r), {}, "1 infinite values"),
        ((E, HE, y, r), {"inflation": 0.9}, "factor >= 1"),
        ((E, HE, y, r), {"inflation": np.nan}, "factor >= 1"),
        ((E, HE, y, r), {"rtps": 1.2}, "rtps=1.2"),
        ((E, HE, y, r), {"rtpp": -0.1}, "rtpp=-0.1"),
        ((E, HE, y, r), {"out": np.empty((2, 2))}, r"out has shape \(2, 2\)"),
        ((E[:, 0], HE, y, r), {}, "members first"),
    ]
    for arguments, settings, message in cases:
        with pytest.raises(ParameterError, match=message):
            analyse(*arguments, **settings)
    with pytest.raises(UnknownNameError, match="did you mean 'etkf'"):
        analyse(E, HE, y, r, method="etk")
    with pytest.raises(DTypeError, match="complex"):
        analyse(E + 1j, HE, y, r)
    with pytest.raises(ParameterError, match="the weights have shape"):
        transform(E, np.eye(3))


def test_broken_members_are_named(linear):
    broken = linear.E.copy()
    broken[4, 2] = broken[11, 3] = np.nan
    with pytest.raises(ParameterError, match=r"member\(s\) 4, 11 .* value 2 of member 4"):
        analyse(broken, linear.HE, linear.y, linear.r)
    seen = linear.HE.copy()
    seen[6, 1] = np.inf
    with pytest.raises(ParameterError, match=r"observed ensemble .* member\(s\) 6 "):
        analyse(linear.E, seen, linear.y, linear.r)
    seen[:, 1] = np.nan
    with pytest.raises(ParameterError, match="no member has a value at 1 of 7 observations"):
        analyse(linear.E, seen, linear.y, linear.r)

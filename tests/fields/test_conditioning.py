"""Exact conditioning of Gaussian fields against dense algebra."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import xr_spde
from xr_spde.errors import MemoryGuardError, ParameterError, SolverError, UnknownNameError
from xr_spde.fields.augmented import AugmentedPosterior
from xr_spde.fields.conditioning import Conditioning
from xr_spde.fields.field import GaussianField
from xr_spde.fields.posterior import Posterior, posterior
from xr_spde.fields.sar import operator

BOUNDARIES = ("plane", "cylinder", "torus")
SHAPE = (9, 11)


class DenseErrors:
    """Errors with any covariance, by its Cholesky root."""

    def __init__(self, covariance):
        self.covariance, self.variance = covariance, np.diagonal(covariance)
        self.root = np.linalg.inv(np.linalg.cholesky(covariance))

    def whiten(self, x):
        return x @ self.root.T

    def select(self, keep):
        return DenseErrors(self.covariance[np.ix_(keep, keep)])

    @property
    def logdet(self):
        return np.linalg.slogdet(self.covariance)[1]

    def sparse_form(self):
        turn = np.diag(np.linspace(1.0, 2.0, len(self.covariance)))
        rest = sp.csr_array(turn @ self.covariance @ turn)
        return sp.csr_array(turn), rest, np.linalg.slogdet(turn)[1]


def model_of(seed, boundary, buffer=2):
    rng = np.random.default_rng(seed)
    kappa2, rho = np.exp(rng.normal(-1.5, 0.5, SHAPE)), np.exp(rng.uniform(0.0, 1.2, SHAPE))
    return GaussianField(kappa2, rho, rng.uniform(-1.5, 1.5, SHAPE), boundary, buffer)


def rows_of(rng, near, far):
    """Rows of two neighbours each, and rows over the whole grid."""
    ny, nx = SHAPE
    rows = np.zeros((near + far, ny * nx))
    for k in range(near):
        j, i = rng.integers(ny - 1), rng.integers(nx)
        rows[k, [j * nx + i, (j + 1) * nx + (i + 1) % nx]] = rng.uniform(0.2, 1.0, 2)
    rows[near:] = rng.uniform(0.0, 1.0, (far, ny * nx)) / nx
    return sp.csr_array(rows)


def setting(seed, boundary, route, near=12, far=3, modes=2, scaled=True, correlated=False):
    rng, model = np.random.default_rng(seed + 1), model_of(seed, boundary)
    p = near + far
    covariance = np.diag(rng.uniform(0.05, 0.5, p))
    if correlated:
        covariance += 0.1 * np.exp(-np.abs(np.subtract.outer(np.arange(p), np.arange(p))) / 2.0)
    errors = DenseErrors(covariance)
    scale = rng.uniform(0.5, 2.0, SHAPE) if scaled else None
    patterns = rng.standard_normal((modes, *SHAPE)) if modes else None
    rows = rows_of(rng, near, far)
    return Conditioning(model, rows, errors, not correlated, errors.logdet, scale, patterns, route)


def dense_prior(recipe):
    """Covariance of u from the parameters themselves."""
    model = recipe.model
    widths = [(width, width) for width in model.rim]
    maps = [np.pad(m, widths, mode="edge") for m in (model.kappa2, model.rho, model.theta)]
    inverse = np.linalg.inv(operator(*maps, boundary=model.boundary).toarray())
    inside = np.zeros(model.padded_shape, dtype=bool)
    (dy, dx), (ny, nx) = model.rim, model.shape
    inside[dy : dy + ny, dx : dx + nx] = True
    kept = inverse[inside.ravel()]
    scale = np.ones(SHAPE) if recipe.scale is None else recipe.scale
    prior = (kept @ kept.T) * np.outer(scale, scale)
    return prior + recipe.flat_patterns.T @ recipe.flat_patterns


def dense_posterior(recipe, d):
    prior, rows = dense_prior(recipe), recipe.rows.toarray()
    seen = rows @ prior @ rows.T + recipe.errors.covariance
    gain = np.linalg.solve(seen, rows @ prior).T
    mean, variance = gain @ d, np.diagonal(prior - gain @ rows @ prior)
    chi2 = d @ np.linalg.solve(seen, d)
    value = -0.5 * (d.size * np.log(2 * np.pi) + np.linalg.slogdet(seen)[1] + chi2)
    return mean.reshape(SHAPE), variance.reshape(SHAPE), value, chi2


@settings(max_examples=40)
@given(
    st.integers(0, 10**6),
    st.sampled_from(BOUNDARIES),
    st.sampled_from(["precision", "augmented", "covariance"]),
    st.sampled_from([(12, 3, 2), (12, 0, 0), (0, 3, 2), (5, 0, 3), (30, 2, 0)]),
    st.booleans(),
    st.booleans(),
)
def test_mean_variance_and_evidence_are_those_of_kriging(
    seed, boundary, route, sizes, scaled, correlated
):
    near, far, modes = sizes
    recipe = setting(seed, boundary, route, near, far, modes, scaled, correlated)
    d = np.random.default_rng(seed + 2).standard_normal(recipe.size)
    mean, variance, value, chi2 = dense_posterior(recipe, d)
    found = posterior(recipe)
    assert isinstance(found, AugmentedPosterior) == (route == "augmented")
    np.testing.assert_allclose(found.increment(d)[0], mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.variance(), variance, rtol=1e-9, atol=1e-9)
    assert found.log_likelihood(d) == pytest.approx((value, chi2), rel=1e-9)


def test_what_enters_the_precision_is_what_its_stencil_holds():
    recipe = setting(0, "cylinder", "precision", near=12, far=3)
    np.testing.assert_array_equal(recipe.near, np.arange(15) < 12)
    assert not setting(0, "cylinder", "covariance").near.any()
    assert not setting(0, "cylinder", "auto").near.any()
    assert not setting(0, "cylinder", "precision", correlated=True).near.any()
    many = setting(0, "cylinder", "auto", near=250)
    assert np.count_nonzero(many.near) == 250
    wide = setting(0, "cylinder", "auto", near=5, far=400)
    assert wide.augmented
    assert np.count_nonzero(wide.near) == 5
    assert not setting(0, "cylinder", "auto", near=5, far=399).augmented
    assert not setting(0, "cylinder", "covariance", near=5, far=400).augmented
    # across the seam two columns are neighbours, on a plane they are not
    rows = np.zeros((1, 99))
    rows[0, [0, 10]] = 0.5
    for boundary, expected in (("cylinder", True), ("plane", False)):
        errors = DenseErrors(np.eye(1))
        seam = Conditioning(
            model_of(0, boundary), sp.csr_array(rows), errors, True, 0.0, route="precision"
        )
        assert seam.near[0] == expected


@pytest.mark.parametrize("route", ["precision", "covariance"])
def test_members_do_not_depend_on_their_company(route):
    recipe = setting(1, "cylinder", route, near=20)
    d = np.random.default_rng(0).standard_normal((70, recipe.size))
    found = posterior(recipe)
    whole = found.increment(d)
    np.testing.assert_array_equal(found.increment(d[66:68]), whole[66:68])
    np.testing.assert_array_equal(found.increment(d[13:14]), whole[13:14])
    again = pickle.loads(pickle.dumps(recipe))
    assert again.key == recipe.key
    assert posterior(again) is found


def test_small_errors_and_long_ranges_keep_their_digits():
    maps = np.full(SHAPE, 0.01), np.full(SHAPE, 2.0), np.full(SHAPE, 0.3)
    rng = np.random.default_rng(0)
    for route, tolerance in (("precision", 1e-6), ("covariance", 1e-9)):
        errors = DenseErrors(np.diag(np.full(15, 1e-6)))
        rows = rows_of(rng, 15, 0)
        recipe = Conditioning(
            GaussianField(*maps, "plane", 3), rows, errors, True, errors.logdet, route=route
        )
        d = rows @ np.sin(np.arange(99) / 9.0)
        mean, variance, value, _ = dense_posterior(recipe, d)
        found = Posterior(recipe)
        np.testing.assert_allclose(found.increment(d)[0], mean, atol=tolerance)
        np.testing.assert_allclose(found.variance(), variance, atol=tolerance * variance.max())
        assert found.log_likelihood(d)[0] == pytest.approx(value, rel=1e-6)


def test_what_does_not_fit_says_so():
    recipe = setting(0, "plane", "auto")
    parts = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    for change, message in (
        ({"rows": recipe.rows[:3]}, r"rows have shape \(3, 99\); expected \(15, 99\)"),
        ({"scale": np.ones((2, 2))}, r"scale has shape \(2, 2\)"),
        ({"patterns": np.ones((2, 2, 2))}, r"patterns have shape \(2, 2, 2\)"),
    ):
        with pytest.raises(ParameterError, match=message):
            Conditioning(**(parts | change))
    with pytest.raises(UnknownNameError, match="unknown route 'dual'"):
        Conditioning(**(parts | {"route": "dual"}))


def test_a_border_that_does_not_fit_is_refused_before_it_is_made():
    recipe = setting(0, "plane", "covariance")
    posterior(recipe)  # the factors are there already
    with (
        xr_spde.set_options(memory_limit=32 * 16**2),
        pytest.raises(MemoryGuardError, match="15 observations that need a column each"),
    ):
        Posterior(recipe)


def test_many_columns_are_said_to_take_long(monkeypatch):
    monkeypatch.setattr("xr_spde.fields.posterior.MANY_COLUMNS", 10)
    with pytest.warns(UserWarning, match="15 of 15 observations take a column each"):
        Posterior(setting(0, "plane", "covariance"))


def test_a_singular_precision_names_the_other_route():
    maps = np.full(SHAPE, 1e-14), np.ones(SHAPE), np.zeros(SHAPE)
    errors = DenseErrors(np.eye(15) * 1e20)
    recipe = Conditioning(
        GaussianField(*maps, "torus"), rows_of(np.random.default_rng(0), 15, 0), errors, True,
        errors.logdet, route="precision",
    )  # fmt: skip
    with pytest.raises(SolverError, match='route="covariance"'):
        Posterior(recipe)


def test_errors_that_cannot_augment_the_precision():
    class Bare(DenseErrors):
        sparse_form = None

    recipe = setting(0, "plane", "auto", near=0, far=400)
    errors = Bare(recipe.errors.covariance)
    settings = (recipe.model, recipe.rows, errors, False, errors.logdet, None, None)
    assert not Conditioning(*settings, "auto").augmented
    with pytest.raises(ParameterError, match=r"errors of type Bare have no sparse_form\(\)"):
        Conditioning(*settings, "augmented").near  # noqa: B018


def test_the_guard_of_memory_speaks_of_what_augments():
    recipe = setting(7, "plane", "augmented", near=0, far=30)
    guarded = pytest.raises(MemoryGuardError, match="30 observations that are wide or have corr")
    with xr_spde.set_options(memory_limit=1000), guarded:
        AugmentedPosterior(recipe)


@pytest.mark.parametrize("variance", [1e-4, 1e-7, 1e-10, 1e-14])
@pytest.mark.parametrize("times", [1, 20])
def test_tiny_errors_lose_no_digits(times, variance):
    """The same places again and again, less and less exactly, are as one with all the weight."""
    recipe = setting(3, "cylinder", "auto", near=12, far=3)

    def conditioned(rows, variances):
        errors = DenseErrors(np.diag(variances))
        settings = (recipe.model, rows, errors, True, errors.logdet, recipe.scale, recipe.patterns)
        return Conditioning(*settings, "auto")

    each = variance * np.geomspace(1.0, 1e6, 15 * times).reshape(times, 15)
    once = conditioned(recipe.rows, 1.0 / (1.0 / each).sum(axis=0))
    again = conditioned(sp.csr_array(sp.vstack([recipe.rows] * times)), each.ravel())
    d = recipe.rows @ np.random.default_rng(5).standard_normal(99)
    mean, expected, value, chi2 = dense_posterior(once, d)
    found = posterior(again)
    np.testing.assert_allclose(found.increment(np.tile(d, times))[0], mean, atol=1e-8)
    if times > 1 and variance < 1e-8:  # said rather than given
        with pytest.raises(SolverError, match=r"one place with tiny errors .* join them"):
            found.variance()
        return
    np.testing.assert_allclose(found.variance(), expected, atol=1e-9)
    if times == 1:
        assert found.log_likelihood(d) == pytest.approx((value, chi2), rel=1e-8)

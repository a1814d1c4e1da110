"""Variances by windows and probes: the law of total variance, error bars, seeds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import chi2

from xr_spde._core.errors import MemoryGuardError, ParameterError, UnknownNameError
from xr_spde._core.options import set_options
from xr_spde.fields import moments, probing, windows
from xr_spde.fields.field import GaussianField
from xr_spde.fields.moments import covariance_columns, log_determinant, variance
from xr_spde.fields.probing import Window, probed_variance, sides
from xr_spde.fields.sar import weights
from xr_spde.fields.stencil import assemble
from xr_spde.fields.windows import Domain
from xr_spde.solvers.cache import FACTORS

BOUNDARIES = ["plane", "cylinder", "torus", "paper"]


def maps_of(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(0.02), np.log(1.0), shape))
    return kappa2, rng.uniform(1, 7, shape), rng.uniform(-1.5, 1.5, shape)


@pytest.fixture
def small_windows(monkeypatch):
    """Windows that cut a grid small enough for dense algebra."""
    monkeypatch.setattr(windows, "HALO", (4, 6))
    monkeypatch.setattr(moments, "TILE", 8)
    monkeypatch.setattr(windows, "TILE", 8)
    FACTORS.clear()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(31, 34), (9, 60), (60, 9)])
def test_variance_given_what_is_outside_and_variance_of_the_mean(boundary, shape):
    """With every column of B^-1 as a probe the two parts add up to the exact variance."""
    table = weights(*maps_of(shape))
    inverse = np.linalg.inv(assemble(table, boundary=boundary).toarray())
    domain = Domain.of(table, boundary)
    found = np.full(shape, np.nan)
    axes = zip(shape, domain.wraps, strict=True)
    for y, x in product(*(list(sides(n, wraps, 0, 3, 6)) for n, wraps in axes)):
        window = Window(domain, y, x)
        near, means = window.moments(inverse[window.ring])
        assert np.isnan(found[window.target]).all()
        found[window.target] = near + (means**2).sum(axis=2)
        assert (near <= found[window.target]).all()
    np.testing.assert_allclose(found.ravel(), (inverse**2).sum(axis=1), rtol=1e-9)


@pytest.mark.parametrize("boundary", ["plane", "torus"])
def test_error_bars_cover(small_windows, boundary):
    """Over repeats: no bias, and as many within one and two standard errors as there should be."""
    model = GaussianField(*maps_of((40, 44)), boundary=boundary, buffer=3)
    exact = variance(model, "selected").value
    repeats = [variance(model, "probing", probes=16, seed=seed) for seed in range(50)]
    errors = np.array([one.value - exact for one in repeats])
    stated = np.array([one.error for one in repeats])
    z = errors / stated
    for width in (1.0, 2.0):
        # the error is estimated from the same mean of squares, chi-squared with as many degrees
        ends = 16 / (1.0 + width * np.sqrt(2 / 16) * np.array([1.0, -1.0]))
        expected = np.diff(chi2(16).cdf(ends))[0]
        assert (abs(z) < width).mean() == pytest.approx(expected, abs=0.03)
    spread = errors.std(axis=0)
    np.testing.assert_allclose(stated.mean(), spread.mean(), rtol=0.1)
    # by the stated error, which 800 squares tell better than 50 repeats tell the spread
    bias = errors.mean(axis=0) / (stated.mean(axis=0) / np.sqrt(len(repeats)))
    assert abs(bias.mean()) < 0.35  # cells are alike: some tens of independent ones
    assert (abs(bias) < 4.5).all()
    # a plain mean over 16 draws would be 35 % off
    assert 1e-4 < np.sqrt(((errors / exact) ** 2).mean()) < 0.1


def test_overlap_and_probes_narrow_the_error():
    table, shape = weights(*maps_of((40, 44))), (40, 44)
    matrix = assemble(table, boundary="cylinder")
    inverse = np.linalg.inv(matrix.toarray())
    exact = (inverse**2).sum(axis=1).reshape(shape)
    given = {"margins": (0, 0), "tile": 8, "seed": 3}
    rms = {}
    for overlap, probes in ((2, 16), (2, 256), (8, 16)):
        value, error = probed_variance(
            Domain.of(table, "cylinder"),
            lambda noise: inverse @ noise,
            overlap=overlap,
            probes=probes,
            **given,
        )
        rms[overlap, probes] = np.sqrt((((value - exact) / exact) ** 2).mean())
        stated = np.sqrt(((error / exact) ** 2).mean())
        assert rms[overlap, probes] == pytest.approx(stated, rel=0.4)
    assert rms[2, 256] < 0.4 * rms[2, 16]
    assert rms[8, 16] < 0.1 * rms[2, 16]


def test_the_seed_decides_and_blocks_do_not(small_windows, monkeypatch):
    model = GaussianField(*maps_of((40, 44)), boundary="plane", buffer=2)
    first = variance(model, "probing", probes=9, seed=5)
    assert variance(model, "probing", probes=9, seed=5) is first
    other = variance(model, "probing", probes=9, seed=6)
    assert (other.value != first.value).any()
    FACTORS.clear()
    monkeypatch.setattr(probing, "_BLOCK_BYTES", 8 * model.size * 2)
    again = variance(model, "probing", probes=9, seed=5)
    np.testing.assert_array_equal(again.value, first.value)
    np.testing.assert_array_equal(again.error, first.error)
    with pytest.raises(ValueError, match="read-only"):
        again.value[0, 0] = 1.0


def test_auto_is_exact_where_that_fits(small_windows, monkeypatch):
    model = GaussianField(*maps_of((40, 44)))
    assert variance(model).error is None
    FACTORS.clear()
    monkeypatch.setattr(moments, "predict", lambda *_, **__: 10**15)
    found = variance(model)
    assert found.error is not None
    np.testing.assert_array_equal(model.variance(), found.value)
    with (
        pytest.raises(MemoryGuardError, match="probes on the rings"),
        set_options(memory_limit=40_000_000),
    ):
        variance(model, "probing", probes=100_000)


def test_covariances_are_solved_for_in_blocks(monkeypatch):
    model = GaussianField(*maps_of((13, 15)), boundary="plane", buffer=2)
    nodes = np.array([40, 41, 90, 200, 41])
    expected = covariance_columns(model, nodes)
    monkeypatch.setattr(moments, "_COLUMN_BYTES", 8 * model.size * 2)
    np.testing.assert_array_equal(covariance_columns(model, nodes), expected)
    np.testing.assert_array_equal(expected[1], expected[4])


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_log_likelihood_from_windows(small_windows, boundary):
    model = GaussianField(*maps_of((60, 64)), boundary=boundary)
    exact, cut = (log_determinant(model, method) for method in ("exact", "windows"))
    assert exact.error is None
    off = abs(float(cut.value - exact.value))
    assert 0.0 < off < float(cut.error)
    fields = np.random.default_rng(0).standard_normal((3, 60, 64))
    difference = model.log_likelihood(fields, method="windows") - model.log_likelihood(fields)
    assert difference == pytest.approx(3 * float(cut.value - exact.value), rel=1e-6)


def test_bad_arguments():
    model = GaussianField(*maps_of((6, 7)))
    with pytest.raises(UnknownNameError, match="method of the variance 'exact'"):
        variance(model, "exact")
    with pytest.raises(UnknownNameError, match="method of the log-determinant 'probing'"):
        log_determinant(model, "probing")
    with pytest.raises(ParameterError, match="probes=1"):
        variance(model, "probing", probes=1)

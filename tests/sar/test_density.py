"""Density of fields with gaps: both ways to integrate them out, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from xr_spde._core.errors import MemoryGuardError
from xr_spde._core.options import set_options
from xr_spde.fields.field import GaussianField
from xr_spde.sar import density
from xr_spde.sar.density import log_density
from xr_spde.solvers.cache import FACTORS
from xr_spde.solvers.superlu import SuperLUFactor

SHAPE = (26, 30)


def model_of(boundary: str, buffer: int = 0) -> GaussianField:
    rng = np.random.default_rng(0)
    kappa2 = np.exp(rng.uniform(np.log(0.01), np.log(1.0), SHAPE))
    maps = kappa2, rng.uniform(1, 7, SHAPE), rng.uniform(-1.5, 1.5, SHAPE)
    return GaussianField(*maps, boundary=boundary, buffer=buffer)


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus", "paper"])
@pytest.mark.parametrize("missing", [0.02, 0.5, 0.97])
def test_gaps_alone_and_within_the_grid(boundary, missing, monkeypatch, dense_covariance):
    model = model_of(boundary)
    rng = np.random.default_rng(1)
    fields = rng.standard_normal((3, *SHAPE))
    fields[:, rng.random(SHAPE) < missing] = np.nan
    fields[2, 4:6] = np.nan
    full = dense_covariance(model.kappa2, model.rho, model.theta, boundary)
    expected = []
    for field in fields:
        seen = np.isfinite(field).ravel()
        law = multivariate_normal(cov=full[np.ix_(seen, seen)])
        expected.append(law.logpdf(field.ravel()[seen]))
    for bytes_alone in (0.0, 1e12):
        FACTORS.clear()
        monkeypatch.setattr(density, "_GRAM_FILL", bytes_alone)
        np.testing.assert_allclose(log_density(model, fields), expected, rtol=1e-10)


@pytest.mark.parametrize(("missing", "kind"), [(0.1, SuperLUFactor), (0.95, density._GridGaps)])
def test_the_way_that_takes_less_memory_is_taken(missing, kind):
    model = model_of("plane", buffer=40)
    gaps = np.flatnonzero(np.random.default_rng(2).random(model.size) < missing)
    held = density._gap_factor(model, model.matrix()[:, gaps], gaps)
    assert isinstance(held, kind)
    assert held.nbytes > 0


def test_nothing_observed_and_too_much_missing():
    model = model_of("plane")
    fields = np.full((2, *SHAPE), np.nan)
    np.testing.assert_array_equal(log_density(model, fields), 0.0)
    fields[:, 10:14] = 0.5
    model.factor()
    with (
        set_options(memory_limit=1_500_000),
        pytest.raises(MemoryGuardError, match="integrating out 660 cells without data"),
    ):
        log_density(model, fields)


@pytest.mark.parametrize(("boundary", "buffer"), [("plane", 0), ("cylinder", 0), ("cylinder", 3)])
def test_noise_beside_gaps_and_patterns(boundary, buffer):
    model = model_of(boundary, buffer)
    rng = np.random.default_rng(3)
    fields, patterns = rng.standard_normal((3, *SHAPE)), rng.standard_normal((2, *SHAPE))
    fields[1:, 4, 4:8] = np.nan
    scale = rng.uniform(0.5, 2.0, SHAPE)
    scale[2, 3] = 0.0
    unit = np.linalg.inv(model.matrix().toarray())
    rows = np.s_[buffer : buffer + SHAPE[0]]
    inner = (unit @ unit.T).reshape(*model.padded_shape, *model.padded_shape)[rows, :, rows]
    whole = scale.ravel()[:, None] * inner.reshape(fields[0].size, -1) * scale.ravel()
    flat = patterns.reshape(2, -1)
    whole += flat.T @ flat + 0.3 * np.eye(len(whole))
    expected = []
    for field in fields:
        seen = np.isfinite(field).ravel()
        law = multivariate_normal(cov=whole[np.ix_(seen, seen)])
        expected.append(law.logpdf(field.ravel()[seen]))
    found = log_density(model, fields, scale, patterns, noise=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-10)

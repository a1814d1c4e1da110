"""Density of fields with gaps: both ways to integrate them out, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import multivariate_normal

from xr_spde._core.errors import MemoryGuardError
from xr_spde._core.options import set_options
from xr_spde.fields.field import GaussianField
from xr_spde.sar import density, log_likelihood
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
        np.testing.assert_allclose(log_density(model, fields)[0], expected, rtol=1e-10)


@pytest.mark.parametrize(("missing", "kind"), [(0.1, SuperLUFactor), (0.95, density._GridGaps)])
def test_the_way_that_takes_less_memory_is_taken(missing, kind):
    model = model_of("plane", buffer=40)
    gaps = np.flatnonzero(np.random.default_rng(2).random(model.size) < missing)
    part = density._Part(model.matrix(), model.padded_shape, "plane", gaps[:0], model.key)
    held = density._gap_factor(part, part.matrix[:, gaps], gaps)
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
        pytest.raises(MemoryGuardError, match=r'integrating out 660 cells .*method="windows"'),
    ):
        log_density(model, fields)
    with (
        set_options(memory_limit=1_500_000),
        pytest.raises(MemoryGuardError, match=r'posterior of 780 cells .*method="windows"'),
    ):
        log_density(model, fields, noise=0.1)


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
    found, _ = log_density(model, fields, scale, patterns, noise=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus", "paper"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_windows_leave_out_no_more_than_they_say(boundary, noise, monkeypatch):
    """Land, gaps, patterns and a rim, on a grid that both ways can do."""
    monkeypatch.setattr(density, "width_of_tiles", lambda *_: 14)
    shape = (60, 80)
    y, x = (2.0 * np.pi * np.arange(size) / size for size in shape)
    one = 0.5 + 0.5 * np.sin(y[:, None]) * np.cos(x)
    maps = 0.2 * 4.0**one, 1.0 + 2.0 * one, np.pi * one
    model = GaussianField(*maps, boundary=boundary, buffer=3)
    rng = np.random.default_rng(5)
    fields, patterns = rng.standard_normal((5, *shape)), rng.standard_normal((2, *shape))
    fields[:, 8:32, 20:60] = np.nan
    fields[2:4, rng.random(shape) < 0.3] = np.nan
    fields[4] = np.nan
    scale = rng.uniform(0.5, 2.0, shape)
    exact, none = log_density(model, fields, scale, patterns, "exact", noise)
    found, error = log_density(model, fields, scale, patterns, "windows", noise)
    np.testing.assert_array_equal(none, 0.0)
    assert found[4] == error[4] == 0.0
    off = np.abs(found - exact)[:4]
    assert (off <= error[:4] + 1e-11 * np.abs(exact[:4])).all()
    assert off.max() < 1e-3


def test_windows_do_where_gaps_do_not_fit(monkeypatch):
    """Nothing of the size of the grid is factorised."""
    model = GaussianField(*(np.full((160, 200), v) for v in (0.5, 1.5, 0.3)), boundary="plane")
    fields = np.random.default_rng(0).standard_normal((2, 160, 200))
    fields[:, 30:130, 20:180] = np.nan
    monkeypatch.setattr(density, "width_of_tiles", lambda *_: 64)
    exact, _ = log_density(model, fields, method="exact")
    FACTORS.clear()
    with set_options(memory_limit=60_000_000):
        with pytest.raises(MemoryGuardError, match="windows"):
            log_density(model, fields, method="exact")
        found, error = log_density(model, fields, method="windows")
    assert (np.abs(found - exact) <= error + 1e-11 * np.abs(exact)).all()


def test_windows_are_gone_through_once_for_all_replicates(monkeypatch):
    """Not once for every slab of replicates: their factors are not kept."""
    rng = np.random.default_rng(5)
    maps = {"kappa2": 0.8, "rho": 2.0, "theta": 0.4, "std": 1.5}
    params = xr.Dataset({k: (("y", "x"), np.full((30, 34), v)) for k, v in maps.items()})
    fields = xr.DataArray(rng.standard_normal((70, 30, 34)), dims=("realization", "y", "x"))
    fields = fields.where(fields.isel(realization=0) < 1.5)
    calls: list[int] = []
    tiles = density._Windows._tiles

    def counted(self, number, values, *rest):
        calls.append(values.shape[1])
        return tiles(self, number, values, *rest)

    monkeypatch.setattr(density._Windows, "_tiles", counted)
    found = log_likelihood(fields, params, method="windows")
    assert set(calls) == {70}
    exact = log_likelihood(fields, params, method="exact")
    assert abs(float(found - exact)) <= float(found.log_likelihood_error)

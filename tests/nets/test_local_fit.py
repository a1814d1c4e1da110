"""Stationary fits of blocks against closed forms and simulated fields."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.fields.closed_form import torus_covariance  # noqa: E402
from xr_spde.fields.sar import log_tensor, operator, tensor  # noqa: E402
from xr_spde.fields.symbol import log_symbol_mean  # noqa: E402
from xr_spde.nets.lag_features import LAG_GROUPS, lag_moments  # noqa: E402
from xr_spde.nets.local_fit import (  # noqa: E402
    _MEAN,
    _SPREAD,
    _moments_of,
    _slope,
    _stencil,
    local_fit,
)
from xr_spde.solvers.superlu import SuperLUFactor  # noqa: E402

LAGS = LAG_GROUPS[0]
# (kappa2, rho, theta) over the range of the prior
MODELS = [(0.05, 3.0, 0.5), (1.5, 1.0, 0.0), (0.005, 6.0, -1.2), (0.3, 5.0, 1.5), (0.01, 1.5, 0.8)]


def exact(kappa2, rho, theta, size=256):
    """Half-variograms and variance of a stationary field, as a batch of one block."""
    covariance = torus_covariance((size, size), kappa2=kappa2, rho=rho, theta=theta)
    half = np.array([covariance[0, 0] - covariance[j, i] for j, i in LAGS])
    shape = (1, -1, 1, 1)
    return torch.tensor(half).reshape(shape).float(), torch.tensor(covariance[0, 0]).reshape(shape)


def fitted(half, level, freedom):
    """Log kappa2, both components of log H, and their standard errors."""
    level = level.float()
    out = local_fit(half, level, torch.full_like(level, freedom), LAGS)[0, :, 0, 0].double().numpy()
    return out[:3] * _SPREAD + _MEAN, np.exp(2.0 * out[4:]), out[3]


def draws(count=40, seed=0):
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(1e-4), np.log(2.0), count))
    return kappa2, rng.uniform(1.0, 7.0, count), rng.uniform(-np.pi / 2, np.pi / 2, count)


def test_the_slope_of_the_log_determinant_is_that_of_the_estimator():
    kappa2, rho, theta = draws()
    q = np.stack([kappa2, *tensor(rho, theta)])
    _, expected = log_symbol_mean(*q)
    found = _slope(torch.tensor(q).float()).numpy()
    # what a fit feels: slopes times the size of the parameters
    np.testing.assert_allclose(found * q, np.stack(expected) * q, atol=2e-3)


def test_stencil_and_its_derivatives():
    kappa2, rho, theta = draws()
    u = np.stack([np.log(kappa2), *log_tensor(rho, theta)])
    q, jacobian = _stencil(torch.tensor(u))
    np.testing.assert_allclose(q, np.stack([kappa2, *tensor(rho, theta)]), rtol=1e-6, atol=1e-6)
    for k in range(3):
        step = np.zeros((3, 1))
        step[k] = 1e-5
        high, low = (_stencil(torch.tensor(u + s))[0] for s in (step, -step))
        torch.testing.assert_close(jacobian[:, k], (high - low) / 2e-5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_moments_give_the_innovations_their_variance(model):
    """B y has unit variance, so q' G q is one over the variance of y."""
    kappa2, rho, theta = model
    half, level = exact(*model)
    moments = np.concatenate([[1.0], (half / level).double().numpy().ravel()])
    q = np.array([kappa2, *tensor(rho, theta)])
    power = q @ (_moments_of(LAGS) @ moments) @ q
    # single precision of the half-variograms is felt at long ranges
    assert power * float(level) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("model", MODELS)
def test_exact_moments_give_back_the_parameters(model):
    kappa2, rho, theta = model
    found, errors, log_rho = fitted(*exact(*model), 1e6)
    expected = np.array([np.log(kappa2), *log_tensor(rho, theta)])
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert log_rho == pytest.approx(np.log(rho), abs=0.03)
    assert (errors < 0.05).all()


def test_no_data_gives_the_prior():
    found, errors, _ = fitted(*exact(*MODELS[0]), 0.0)
    np.testing.assert_allclose(found, _MEAN, atol=1e-5)
    np.testing.assert_allclose(errors, _SPREAD, rtol=1e-3)


def test_less_data_means_larger_errors_and_more_of_the_prior():
    previous = np.zeros(3)
    for freedom in (1e5, 1e3, 1e2, 1e1):
        _, errors, _ = fitted(*exact(*MODELS[0]), freedom)
        assert (errors > previous).all()
        previous = errors


def test_errors_are_of_the_size_they_claim():
    """Blocks of 32 x 32 cells, 6 replicates, 25 times two models."""
    scores = []
    for model in MODELS[:1] + MODELS[3:4]:
        kappa2, rho, theta = model
        size = 52  # ten cells around each block stay unseen
        factor = SuperLUFactor(
            operator(np.full((size, size), kappa2), rho, theta, boundary="torus")
        )
        truth = np.array([np.log(kappa2), *log_tensor(rho, theta)])
        noise = np.random.default_rng(1).standard_normal((factor.n, 150))
        fields = factor.solve(noise).T.reshape(25, 6, size, size)[..., 10:42, 10:42]
        for six in torch.from_numpy(fields).float():
            block = lag_moments(six).pooled(32)
            half, level = block.half[:, :12], block.level[:, :12].mean(1, keepdim=True)
            found, errors, _ = fitted(half, level, 5.0 * 32**2)
            scores.append((found - truth) / errors)
    rms = np.sqrt(np.mean(np.square(scores), axis=0))
    assert (rms > 0.5).all()
    assert (rms < 2.0).all()


def test_nonsense_stays_finite():
    draw = torch.Generator().manual_seed(0)
    half = torch.rand(2, 12, 9, 7, generator=draw) * 10.0
    level = torch.rand(2, 1, 9, 7, generator=draw)
    level[0, 0, :3] = 0.0
    half[1, :, 4:] = 0.0
    freedom = 10.0 ** torch.randint(0, 6, (2, 1, 9, 7), generator=draw)
    out = local_fit(half, level, freedom, LAGS)
    assert out.shape == (2, 7, 9, 7)
    assert out.isfinite().all()
    assert out.abs().max() < 20.0

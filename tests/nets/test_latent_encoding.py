"""Codes from fields: against dense least squares, with gaps, weights, priors, and by Adam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError
from xr_spde.nets.latent_encoding import CodePrior, code_prior, encode, encode_by_adam
from xr_spde.nets.sinr import Sinr, SinrSettings


def sphere(count, seed=0):
    rng = np.random.default_rng(seed)
    latitude = np.arcsin(rng.uniform(-1.0, 1.0, count))
    return np.stack([rng.uniform(0.0, 2.0 * np.pi, count), latitude], axis=1)


def network(**options):
    torch.manual_seed(1)
    small = {"variables": 2, "code": 5, "depth": 3, "order": 2, "width": 12}
    net = Sinr(SinrSettings(**{**small, **options})).double()
    if not net.affine:
        torch.nn.init.normal_(net.gain_weight, std=0.3)
    return net


def draw(net, points, fields, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(fields, net.n, generator=generator, dtype=torch.float64)
    functions = net.functions(points)
    with torch.no_grad():
        values = net(codes, functions)
    return codes, functions, values, generator


def dense(net, functions, values, weights, prior, noise):
    """The same minimum from the whole Jacobian, stacked over the prior, one field at a time."""
    zero = torch.zeros(1, net.n, dtype=torch.float64)
    with torch.no_grad():
        offset = net(zero, functions)[0].numpy()
        jacobian = np.stack(
            [
                net(row[None], functions)[0].numpy() - offset
                for row in torch.eye(net.n, dtype=torch.float64)
            ],
            axis=-1,
        )
    root = np.linalg.cholesky(np.linalg.inv(prior.covariance.numpy())).T
    found = []
    for value in values.numpy():
        known = np.isfinite(value)
        w = np.where(known, weights, 0.0)
        w = w / w.sum()
        scale = noise * np.sqrt((w**2).sum())
        a = np.concatenate([(np.sqrt(w)[..., None] * jacobian).reshape(-1, net.n), scale * root])
        left = np.where(known, value - offset, 0.0) * np.sqrt(w)
        b = np.concatenate([left.ravel(), scale * root @ prior.mean.numpy()])
        found.append(np.linalg.lstsq(a, b, rcond=None)[0])
    return np.array(found)


@pytest.mark.parametrize("common", [0, 3])
@pytest.mark.parametrize("gaps", ["none", "one", "each"])
def test_codes_are_those_of_dense_least_squares(gaps, common):
    net = network(common=common)
    _, functions, values, generator = draw(net, sphere(150), 6)
    values = values + 0.1 * torch.randn(values.shape, generator=generator, dtype=values.dtype)
    if gaps == "one":
        values[:, 40:90, 1] = torch.nan
    if gaps == "each":
        values[torch.rand(values.shape, generator=generator) < 0.6] = torch.nan
    weights = torch.rand(150, 2, generator=generator, dtype=torch.float64)
    root = torch.randn(net.n, net.n, generator=generator, dtype=torch.float64)
    prior = CodePrior(0.3 * torch.ones(net.n), root @ root.T + 0.1 * torch.eye(net.n))
    found = encode(net, functions, values, weights, prior=prior, noise=0.2)
    expected = dense(net, functions, values, weights.numpy(), prior, 0.2)
    np.testing.assert_allclose(found.codes, expected, atol=1e-8)
    w = torch.where(values.isfinite(), weights, 0.0)
    with torch.no_grad():
        left = (net(found.codes, functions) - values).nan_to_num(0.0).square()
    np.testing.assert_allclose(found.misfit, (w * left).sum((1, 2)) / w.sum((1, 2)), atol=1e-10)
    # Levenberg-Marquardt is on the way to the same point
    slow = encode(
        net, functions, values, weights, prior=prior, noise=0.2, damped=True, tolerance=1e-14
    )
    np.testing.assert_allclose(slow.codes, expected, atol=1e-6)
    assert slow.iterations.max() <= 8


@pytest.mark.parametrize("modulation", ["shift", "product"])
def test_codes_come_back_from_their_own_fields(modulation):
    net = network(modulation=modulation)
    codes, functions, values, _ = draw(net, sphere(200), 5)
    found = encode(net, functions, values, iterations=30, tolerance=1e-14)
    assert bool(found.converged.all())
    with torch.no_grad():
        again = net(found.codes, functions)
    assert float((again - values).abs().max()) < 1e-5
    if modulation == "shift":
        np.testing.assert_allclose(found.codes, codes, atol=1e-5)


def test_ten_iterations_do_more_than_hundreds_of_adam():
    net = network(modulation="product")
    _, functions, values, generator = draw(net, sphere(200), 5)
    values = values + 0.05 * torch.randn(values.shape, generator=generator, dtype=values.dtype)
    ours = encode(net, functions, values)
    adam = encode_by_adam(net, functions, values, iterations=500)
    assert int(ours.iterations.max()) <= 11
    assert bool((ours.misfit <= 1.0001 * adam.misfit).all())


def test_adam_finds_the_minimum_of_an_affine_decoder():
    net = network()
    _, functions, values, generator = draw(net, sphere(100), 3)
    values = values + 0.1 * torch.randn(values.shape, generator=generator, dtype=values.dtype)
    values[0, 10:50] = torch.nan
    exact = encode(net, functions, values)
    adam = encode_by_adam(net, functions, values)
    assert bool(adam.converged.all())
    np.testing.assert_allclose(adam.misfit, exact.misfit, rtol=0.02)
    assert bool((adam.misfit >= (1 - 1e-9) * exact.misfit).all())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), damped=st.booleans())
def test_order_of_points_and_masked_values_do_not_matter(seed, damped):
    net = network(modulation="product" if damped else "shift")
    _, functions, values, generator = draw(net, sphere(60, seed), 3, seed)
    weights = torch.rand(60, generator=generator, dtype=torch.float64)
    values[:, ::3, 0] = torch.nan
    prior = CodePrior(torch.zeros(net.n), torch.ones(net.n))
    found = encode(net, functions, values, weights, prior=prior)
    order = torch.randperm(60, generator=generator)
    turned = encode(net, functions[:, order], values[:, order], weights[order], prior=prior)
    np.testing.assert_allclose(turned.codes, found.codes, atol=1e-6)
    # a value of weight 0 is as good as a missing one, whatever it is
    both = weights[:, None].repeat(1, 2)
    both[::3, 0] = 0.0
    wild = encode(net, functions, values.nan_to_num(1e30), both, prior=prior)
    np.testing.assert_allclose(wild.codes, found.codes, atol=1e-9)


def test_field_without_values_gets_the_prior_and_one_variable_tells_nothing_of_another():
    net = network()
    _, functions, values, _ = draw(net, sphere(60), 3)
    values[1] = torch.nan
    values[2, :, 1] = torch.nan
    prior = CodePrior(torch.full((net.n,), 0.5), torch.ones(net.n))
    found = encode(net, functions, values, prior=prior)
    np.testing.assert_array_equal(found.codes[1], 0.5)
    assert torch.isnan(found.misfit[1])
    assert int(found.iterations[1]) == 0
    np.testing.assert_allclose(found.codes[2, 5:], 0.5, atol=1e-12)


def test_few_values_leave_the_rest_to_the_prior():
    """Three values for ten numbers: with a prior the mean of a Gaussian, without one the start."""
    net = network()
    codes, functions, values, _ = draw(net, sphere(3), 1)
    prior = code_prior(codes.repeat(4, 1) + torch.arange(4.0)[:, None])
    found = encode(net, functions, values, prior=prior, noise=1e-3)
    assert bool(torch.isfinite(found.codes).all())
    free = encode(net, functions, values, start=codes)
    np.testing.assert_allclose(free.codes, codes, atol=1e-4)
    with torch.no_grad():
        left = net(found.codes, functions) - values
    assert float(left.abs().max()) < 1e-2


def test_float32_agrees_with_float64():
    net = network()
    _, functions, values, _ = draw(net, sphere(100), 4)
    prior = CodePrior(torch.zeros(net.n), torch.ones(net.n))
    double = encode(net, functions, values, prior=prior).codes
    single = encode(net.float(), functions.float(), values.float(), prior=prior).codes
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, double, atol=2e-3)


def test_noise_of_a_variable_is_its_weight():
    """Two variables of unequal noise: the conditional mean of a Gaussian, in dense matrices."""
    net = network(common=3)
    _, functions, values, generator = draw(net, sphere(40), 4)
    values = values + 0.1 * torch.randn(values.shape, generator=generator, dtype=values.dtype)
    values[0, 5:30, 0] = torch.nan
    prior = CodePrior(torch.zeros(net.n), torch.ones(net.n))
    noise = torch.tensor([0.1, 0.2], dtype=torch.float64)
    found = encode(net, functions, values, prior=prior, noise=noise).codes
    with torch.no_grad():
        offset = net(torch.zeros(1, net.n, dtype=torch.float64), functions)[0]
        rows = net(torch.eye(net.n, dtype=torch.float64), functions) - offset
    for value, code in zip(values, found, strict=True):
        known = value.isfinite()
        h = rows[:, known].T.numpy()
        cov = h @ h.T + np.diag(noise.square().expand(40, 2)[known].numpy())
        expected = h.T @ np.linalg.solve(cov, (value - offset)[known].numpy())
        np.testing.assert_allclose(code, expected, atol=1e-7)


def test_modes_at_hand_are_used_as_they_are():
    net = network()
    _, functions, values, _ = draw(net, sphere(100), 4)
    kept = tuple(part.detach() for part in net.modes(functions))
    found = encode(net, functions, values)
    again = encode(net, functions, values, modes=kept)
    np.testing.assert_array_equal(found.codes, again.codes)


def test_what_does_not_fit_is_refused():
    net = network()
    codes, functions, values, _ = draw(net, sphere(20), 2)
    with pytest.raises(ParameterError, match="20 points"):
        encode(net, functions, values[:, :10])
    with pytest.raises(ParameterError, match="weights have shape"):
        encode(net, functions, values, torch.ones(3))
    with pytest.raises(ParameterError, match="not negative"):
        encode(net, functions, values, -torch.ones(20))
    with pytest.raises(ParameterError, match="start has shape"):
        encode(net, functions, values, start=codes[:1])
    with pytest.raises(ParameterError, match="prior has a mean"):
        encode(net, functions, values, prior=CodePrior(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ParameterError, match="at least 2"):
        code_prior(codes[:1])

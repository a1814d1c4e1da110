"""Terms of the prior in torch: against SpaceTime and dense algebra (A7), and gradients (A8)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, SolverError, UnknownNameError
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.nets.spde_stencil import THETA
from xr_spde.nets.spde_terms import SpdePrior

STEPS, SHAPE = 3, (5, 6)
RANGES = {
    "kappa": (0.8, 1.0), "tau": (0.95, 1.05), "m1": (-0.15, 0.15), "m2": (-0.15, 0.15),
    "v1": (0.2, 1.0), "v2": (-1.0, 1.0), "gamma": (0.5, 0.6), "beta": (0.5, 1.0),
}  # fmt: skip


def mahalanobis(x, theta, **how):
    return SpdePrior(theta, **how).mahalanobis(x)


def apply_precision(x, theta, **how):
    return SpdePrior(theta, **how).apply(x)


def log_determinant(theta, *, steps=None, probes=None, seed=0, **how):
    return SpdePrior(theta.double(), **how).log_determinant(steps=steps, probes=probes, seed=seed)


def negative_log_likelihood(x, theta, *, probes=None, seed=0, **how):
    prior = SpdePrior(theta.double(), **how)
    return prior.negative_log_likelihood(x.double(), probes=probes, seed=seed)


def case(seed, *, sets=STEPS, land=True, batch=2):
    """Parameters that vary gently, so that a stationary first state exists; fields; sea."""
    rng = np.random.default_rng(seed)
    theta = np.stack([rng.uniform(*RANGES[name], (batch, sets, *SHAPE)) for name in THETA], axis=1)
    sea = (rng.random((batch, *SHAPE)) > 0.2) | (not land)
    sea[:, 0, 0] = True
    x = rng.standard_normal((batch, STEPS, *SHAPE))
    return torch.tensor(theta), torch.tensor(x), torch.tensor(sea)


def exact(theta, sea, b, *, alpha, initial="stationary", boundary="neumann"):
    mesh = Mesh.of(SHAPE, land=~sea[b].numpy(), boundary=boundary)
    values = dict(zip(THETA, theta[b].numpy(), strict=True))
    parameters = SpdeParameters.of(SHAPE, land=mesh.land, **values)
    operator = SpdeOperator(mesh)
    return SpaceTime(operator, parameters, steps=STEPS, alpha=alpha, initial=initial)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 4]),
    st.sampled_from(["neumann", "dirichlet", "periodic", ("neumann", "periodic")]),
    st.sampled_from(["stationary", "rest"]),
    st.sampled_from([1, STEPS]),
    st.booleans(),
)
def test_equal_to_the_sparse_prior(seed, alpha, boundary, initial, sets, land):
    theta, x, sea = case(seed, sets=sets, land=land)
    how = {"alpha": alpha, "boundary": boundary, "initial": initial}
    known = [exact(theta, sea, b, **how) for b in range(2)]
    # what stands on land never counts, not even if it is missing
    x, theta = x.where(sea[:, None], torch.nan), theta.where(sea[:, None, None], torch.nan)
    wet = (x.nan_to_num() * sea[:, None]).numpy().reshape(2, -1)
    md = mahalanobis(x, theta, sea=sea, **how)
    qx = apply_precision(x, theta, sea=sea, **how).numpy().reshape(2, -1)
    found = log_determinant(theta, steps=STEPS, sea=sea, **how)
    for b, prior in enumerate(known):
        dense = prior.precision().toarray()
        np.testing.assert_allclose(md[b], wet[b] @ dense @ wet[b], rtol=1e-10)
        np.testing.assert_allclose(md[b], prior.mahalanobis(wet[b]), rtol=1e-10)
        np.testing.assert_allclose(qx[b], dense @ wet[b], rtol=1e-9, atol=1e-9)
        assert float(found[b]) == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-10)
        assert float(found[b]) == pytest.approx(prior.log_determinant(), rel=1e-10)


@pytest.mark.parametrize("alpha", [2, 4])
def test_likelihood_against_the_dense_density(alpha):
    from scipy.stats import multivariate_normal

    theta, x, sea = case(1, land=False)
    found = negative_log_likelihood(x, theta, alpha=alpha)
    for b in range(2):
        covariance = np.linalg.inv(exact(theta, sea, b, alpha=alpha).precision().toarray())
        density = multivariate_normal(cov=covariance).logpdf(x[b].ravel())
        assert float(found[b]) == pytest.approx(-density, rel=1e-10)


@pytest.mark.parametrize("alpha", [2, 4])
def test_given_first_state_is_the_conditional_density(alpha):
    theta, x, sea = case(2)
    how = {"alpha": alpha, "sea": sea}
    prior = SpdePrior(theta, initial="given", **how)
    found = prior.negative_log_likelihood(x)
    # p(x_1.. | x_0) = p(x_0, x_1..) / p(x_0), and p(x_0) is that of a window of one step
    joint = negative_log_likelihood(x, theta, initial="rest", **how)
    first = negative_log_likelihood(x[:, :1], theta[:, :, :1], initial="rest", **how)
    # under "rest" x_0 has precision A' W A alone, and so has the window of one step
    torch.testing.assert_close(found, joint - first, rtol=1e-10, atol=1e-10)
    gradient = torch.autograd.functional.vjp(lambda y: prior.mahalanobis(y).sum(), x)[1]
    torch.testing.assert_close(2.0 * prior.apply(x), gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("alpha", [2, 4])
def test_scaled_first_state_against_dense_algebra(alpha):
    theta, x, sea = case(8)
    theta[:, 1] = torch.rand(theta[:, 1].shape, dtype=theta.dtype) * 10.0 + 0.1
    how = {"alpha": alpha, "sea": sea}
    for b in range(2):
        wet, tau = sea[b].numpy().ravel(), theta[b, 1, 0].numpy().ravel()
        prior = exact(theta, sea, b, alpha=alpha, initial="rest")
        dense = prior.precision().toarray()
        still = theta.clone()
        still[:, 2:4] = 0.0
        a, n = exact(still, sea, b, alpha=alpha).transition(0).toarray(), len(tau)
        root = np.where(wet, 1.0 / tau, 1.0)
        own = root[:, None] * (a.T @ a - np.diag(wet)) * root
        dense[:n, :n] += own - prior.first().toarray()
        y = (x[b] * sea[b]).numpy().ravel()
        given = (x[b : b + 1], theta[b : b + 1])
        one = how | {"sea": sea[b], "initial": "scaled"}
        assert float(mahalanobis(*given, **one)) == pytest.approx(y @ dense @ y, rel=1e-10)
        found = apply_precision(*given, **one).numpy().ravel()
        np.testing.assert_allclose(found, dense @ y, rtol=1e-9, atol=1e-9)
        value = float(log_determinant(given[1], **one))
        assert value == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-10)
    fast = theta.clone()
    fast[:, 0], fast[:, 2:4] = 0.02, 3.0 * torch.randn(theta[:, 2:4].shape, dtype=theta.dtype)
    assert torch.isfinite(log_determinant(fast, initial="scaled", **how)).all()
    flat = theta.clone()
    flat[:, 1], flat[:, 2:4] = 2.0, 0.0
    same = [negative_log_likelihood(x, flat, initial=i, **how) for i in ("scaled", "stationary")]
    torch.testing.assert_close(*same, rtol=1e-12, atol=0)


@pytest.mark.parametrize("initial", ["stationary", "scaled", "rest", "given"])
@pytest.mark.parametrize("alpha", [2, 4])
@pytest.mark.parametrize("sets", [1, STEPS])
def test_gradients_by_the_field_and_all_eight_parameters(alpha, initial, sets):
    theta, x, sea = case(3, sets=sets, batch=1)
    how = {"alpha": alpha, "sea": sea, "initial": initial}
    for term in (mahalanobis, negative_log_likelihood):
        by = torch.autograd.functional.vjp(lambda y, p, f=term: f(y, p, **how)[0], (x, theta))[1]
        rng = torch.Generator().manual_seed(0)
        for which, value in enumerate((x, theta)):
            for channel in range(8 if which else 1):
                here = (slice(None), channel) if which else ...
                direction = torch.zeros_like(value)
                noise = torch.randn(value[here].shape, generator=rng, dtype=value.dtype)
                direction[here] = noise * sea[:, None]
                ends = []
                for sign in (1.0, -1.0):
                    moved = [x, theta]
                    moved[which] = value + sign * 1e-5 * direction
                    ends.append(float(term(*moved, **how)[0]))
                slope = (ends[0] - ends[1]) / 2e-5
                size = float(by[which][here].norm() * direction.norm())
                assert abs(float((by[which] * direction).sum()) - slope) <= 1e-5 * size
    y = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: mahalanobis(y, theta, **how), y, rtol=1e-5)


def test_twice_differentiable_in_field_and_parameters():
    theta, x, sea = case(4, batch=1)
    theta, x = theta.requires_grad_(), x.requires_grad_()
    how = {"alpha": 2, "sea": sea}
    assert torch.autograd.gradgradcheck(lambda y, p: mahalanobis(y, p, **how), (x, theta))


@pytest.mark.parametrize(("alpha", "initial"), [(2, "scaled"), (4, "stationary")])
def test_probes_are_unbiased(alpha, initial):
    """Mean of many single-probe gradients, within three standard errors, and exact value."""
    theta, _, sea = case(5, sets=1, batch=1)
    how = {"alpha": alpha, "sea": sea, "steps": STEPS, "initial": initial}

    def gradient(**more):
        p = theta.clone().requires_grad_()
        value = log_determinant(p, **how, **more)
        return value.detach(), torch.autograd.grad(value.sum(), p)[0][0, :, 0][:, sea[0]]

    value, wanted = gradient()
    draws = []
    for seed in range(500):
        again, found = gradient(probes=2, seed=seed)
        draws.append(found)
        torch.testing.assert_close(again, value, rtol=0, atol=0)
    draws = torch.stack(draws)
    # of every parameter the sum over the nodes
    deviation = draws.sum(2).mean(0) - wanted.sum(1)
    # that by tau is exact where the first state is scaled
    error = draws.sum(2).std(0) / len(draws) ** 0.5
    assert (deviation.abs() <= 3.0 * error + 1e-9).all()
    repeated = gradient(probes=2, seed=3)[1]
    torch.testing.assert_close(repeated, draws[3], rtol=0, atol=0)


def test_single_precision():
    theta, x, sea = case(6)
    how = {"alpha": 4, "sea": sea}
    single = mahalanobis(x.float(), theta.float(), **how)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), mahalanobis(x, theta, **how), rtol=1e-5, atol=0)
    nll = negative_log_likelihood(x.float(), theta.float(), **how)
    assert nll.dtype == torch.float64
    torch.testing.assert_close(nll, negative_log_likelihood(x, theta, **how), rtol=1e-5, atol=0)


def test_what_cannot_be_computed_is_an_error_that_says_so():
    theta, x, sea = case(7)
    how = {"alpha": 2, "sea": sea}
    holed = x.clone()
    holed[0][sea[0].expand(STEPS, -1, -1)] = torch.nan
    with pytest.raises(ParameterError, match="not finite"):
        negative_log_likelihood(holed, theta, **how)
    broken = theta.clone()
    broken[0, 1] = torch.nan
    with pytest.raises(ParameterError, match="not finite"):
        log_determinant(broken, **how)
    sharp = theta.clone()
    sharp[:, 1, :, :, ::2] = 1e3
    with pytest.raises(SolverError, match='initial="scaled"'):
        log_determinant(sharp, **how)
    for initial in ("scaled", "given"):
        assert torch.isfinite(log_determinant(sharp, initial=initial, **how)).all()
    with pytest.raises(UnknownNameError, match="alpha"):
        mahalanobis(x, theta, alpha=3)
    with pytest.raises(UnknownNameError, match="boundary"):
        mahalanobis(x, theta, alpha=2, boundary="open")
    with pytest.raises(UnknownNameError, match="initial"):
        mahalanobis(x, theta, alpha=2, initial="hot")
    with pytest.raises(ParameterError, match="steps"):
        log_determinant(theta[:, :, :1], alpha=2)
    with pytest.raises(ParameterError, match="theta has shape"):
        mahalanobis(x, theta[:, :7], alpha=2)
    with pytest.raises(ParameterError, match="sea has shape"):
        mahalanobis(x, theta, alpha=2, sea=sea[..., :3])
    with pytest.raises(ParameterError, match="x has shape"):
        mahalanobis(x[..., :3], theta, alpha=2)
    with pytest.raises(ParameterError, match="expected 1 or as many"):
        mahalanobis(x[:, :2], theta, alpha=2)
    with pytest.raises(ParameterError, match="probes"):
        log_determinant(theta, alpha=2, probes=0)

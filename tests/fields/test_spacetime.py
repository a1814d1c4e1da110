"""The prior over a window against closed forms and dense algebra (checks A4 to A7)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, SolverError, UnknownNameError
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import ADVECTIONS, SpdeOperator, SpdeParameters


def prior(shape, *, boundary="dirichlet", dx=1.0, dy=1.0, advection="centred", steps=3, dt=1.0,
          alpha=4, initial="stationary", burn_in=0, land=None, **parameters):  # fmt: skip
    mesh = Mesh.of(shape, dx=dx, dy=dy, boundary=boundary, land=land)
    operator = SpdeOperator(mesh, advection=advection)
    given_values = SpdeParameters.of(shape, land=land, **parameters)
    return SpaceTime(operator, given_values, steps=steps, dt=dt, alpha=alpha,
                     initial=initial, burn_in=burn_in)  # fmt: skip


def sines(shape):
    """Basis of the sine transform and eigenvalues of minus the five-point Laplacian."""
    bases, values = [], []
    for n in shape:
        k = np.arange(1, n + 1)
        bases.append(np.sqrt(2 / (n + 1)) * np.sin(np.pi * np.outer(k, k) / (n + 1)))
        values.append(2 - 2 * np.cos(np.pi * k / (n + 1)))
    return np.kron(*bases), (values[0][:, None] + values[1]).ravel()


def varied(rng, shape, steps=None):
    """Parameters that vary in space, and in time if `steps` is given."""
    full = shape if steps is None else (steps, *shape)
    found = {"kappa": rng.uniform(0.4, 0.8, full), "tau": rng.uniform(0.8, 1.2, full)}
    found |= {name: 0.2 * rng.standard_normal(full) for name in ("m1", "m2")}
    found |= {name: rng.standard_normal(full) for name in ("v1", "v2")}
    return found | {"gamma": rng.uniform(0.3, 1.0, full), "beta": rng.uniform(0.0, 2.0, full)}


@pytest.mark.parametrize("alpha", [2, 4])
def test_every_block_of_the_covariance_in_the_sine_basis(alpha):
    shape, steps, dt, tau, kappa = (13, 11), 6, 0.7, 1.3, 0.4
    found = prior(shape, steps=steps, dt=dt, alpha=alpha, kappa=kappa, tau=tau)
    covariance = np.linalg.inv(found.precision().toarray())
    basis, laplacian = sines(shape)
    growth = 1 + dt * (kappa**2 + laplacian) ** (alpha // 2)
    n = basis.shape[0]
    for t in range(steps):
        for s in range(steps):
            modes = tau**2 * dt / (growth**2 - 1) * growth ** -float(abs(t - s))
            exact = (basis * modes) @ basis.T
            block = covariance[t * n : (t + 1) * n, s * n : (s + 1) * n]
            assert np.abs(block - exact).max() <= 1e-10


@pytest.mark.parametrize("alpha", [2, 4])
def test_precision_inverts_the_covariance_of_the_recursion(alpha):
    """Steps, spacings and noise of other sizes than one: a factor dt or dx dy would show."""
    shape, steps, dt, dx, dy = (5, 6), 4, 0.3, 0.7, 1.4
    rng = np.random.default_rng(0)
    p = varied(rng, shape, steps)
    found = prior(shape, dx=dx, dy=dy, steps=steps, dt=dt, alpha=alpha, initial="rest", **p)
    n = 30
    whole = np.zeros((steps * n, steps * n))
    response = np.zeros((n, steps * n))
    for t in range(steps):
        spatial = found.spatial(t).toarray()
        growth = np.eye(n) + dt * np.linalg.matrix_power(spatial, alpha // 2)
        forcing = np.zeros((n, steps * n))
        forcing[:, t * n : (t + 1) * n] = np.diag(p["tau"][t].ravel() * np.sqrt(dt / (dx * dy)))
        response = np.linalg.solve(growth, response + forcing)
        whole[t * n : (t + 1) * n] = response
    covariance = np.linalg.inv(found.precision().toarray())
    np.testing.assert_allclose(covariance, whole @ whole.T, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["neumann", "dirichlet", "periodic"]),
       st.sampled_from(ADVECTIONS), st.sampled_from([2, 4]), st.booleans(),
       st.integers(0, 2))  # fmt: skip
def test_products_distances_and_determinants(seed, boundary, advection, alpha, moving, burn_in):
    rng = np.random.default_rng(seed)
    shape = (5, 6)
    land = rng.random(shape) < 0.2
    land[0, 0] = False
    found = prior(shape, boundary=boundary, dx=rng.uniform(0.7, 1.5, (5, 1)), dy=1.2, land=land,
                  advection=advection, dt=0.5, alpha=alpha, initial="rest", burn_in=burn_in,
                  **varied(rng, shape, 3 if moving else None))  # fmt: skip
    dense = found.precision().toarray()
    assert np.abs(dense - dense.T).max() <= 1e-13 * np.abs(dense).max()
    assert np.linalg.eigvalsh(dense).min() > 0.0
    x = rng.standard_normal((dense.shape[0], 2)) * np.tile(found.sea, found.total)[:, None]
    np.testing.assert_allclose(found.apply(x), dense @ x, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(
        found.mahalanobis(x), np.einsum("ik,ij,jk->k", x, dense, x), rtol=1e-10
    )
    assert found.mahalanobis(x[:, 0]) == pytest.approx(found.mahalanobis(x)[0])
    assert found.log_determinant() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-10)


def test_draws_are_a_root_of_the_covariance():
    rng = np.random.default_rng(1)
    shape, land = (4, 5), np.zeros((4, 5), dtype=bool)
    land[1, 2] = True
    found = prior(shape, land=land, initial="rest", alpha=2, **varied(rng, shape, 3))
    n = found.total * found.nodes
    root = found.sample(np.eye(n).reshape(n, found.total, found.nodes)).reshape(n, n)
    water = np.tile(found.sea, found.total)
    exact = np.linalg.inv(found.precision().toarray()) * water * water[:, None]
    np.testing.assert_allclose(root.T @ root, exact, atol=1e-12)


def test_stationary_distribution_of_a_flow_on_a_torus():
    """Constant coefficients with advection: the operator commutes with its adjoint."""
    shape = (8, 9)
    found = prior(shape, boundary="periodic", alpha=2, advection="upwind-1", kappa=0.5, m1=0.6,
                  m2=-0.3, beta=1.5, v1=1.0, v2=0.5, steps=4)  # fmt: skip
    covariance = np.linalg.inv(found.precision().toarray())
    n = 72
    blocks = [covariance[t * n : (t + 1) * n, t * n : (t + 1) * n] for t in range(4)]
    for block in blocks[1:]:
        np.testing.assert_allclose(block, blocks[0], atol=1e-12)


def test_latitude_dependent_spacing_stays_stationary():
    found = prior((7, 8), dx=np.linspace(0.6, 1.4, 7)[:, None], dy=1.1, boundary="neumann",
                  alpha=4, kappa=0.6, beta=2.0, v1=0.5, v2=1.0)  # fmt: skip
    covariance = np.linalg.inv(found.precision().toarray())
    np.testing.assert_allclose(covariance[:56, :56], covariance[112:, 112:], atol=1e-10)


def test_window_from_rest_begins_with_too_small_a_variance():
    """Fault of the released code; the burn-in mends it."""
    kw = {"alpha": 2, "kappa": 0.5, "steps": 2}
    exact, rest, burnt = (
        np.linalg.inv(prior((9, 9), **kw, initial=i, burn_in=k).precision().toarray())[
            81 * k + 40, 81 * k + 40
        ]
        for i, k in (("stationary", 0), ("rest", 0), ("rest", 12))
    )
    assert rest < 0.8 * exact
    assert burnt == pytest.approx(exact, rel=1e-3)


def test_given_first_state_continues_a_window():
    kw = {"alpha": 2, "kappa": 0.5, "m1": 0.2}
    whole = np.linalg.inv(prior((4, 5), steps=3, initial="rest", **kw).precision().toarray())
    first = np.linalg.inv(whole[20:40, 20:40])
    later = prior((4, 5), steps=2, initial=sp.csc_array(first), **kw)
    np.testing.assert_allclose(np.linalg.inv(later.precision().toarray()), whole[20:, 20:],
                               atol=1e-12)  # fmt: skip


@pytest.mark.slow
def test_variance_and_lag_correlation_of_draws():
    """Against the infinite lattice: exact first state, then one step."""
    found = prior((64, 64), kappa=0.33, steps=2)
    rng = np.random.default_rng(5)
    sums = np.zeros(3)
    inner = np.s_[:, 8:-8, 8:-8]
    for _ in range(20):
        draws = found.sample(rng.standard_normal((100, 2, 4096)))
        now, then = (draws[:, t].reshape(100, 64, 64)[inner] for t in (0, 1))
        sums += [np.mean(now**2), np.mean(then**2), np.mean(now * then)]
    variance, later, lagged = sums / 20
    assert variance == pytest.approx(0.333172, rel=0.02)
    assert later == pytest.approx(0.333172, rel=0.02)
    assert lagged / np.sqrt(variance * later) == pytest.approx(0.89111, abs=0.005)


def test_spin_up_is_long_for_smooth_fields():
    """From rest, ten steps are far too few with alpha = 4; the sums are exact, in the middle."""
    found = prior((48, 48), kappa=0.33, steps=1, initial="rest")
    response = np.zeros(48**2)
    response[24 * 48 + 24] = 1.0
    variances = []
    for _ in range(240):  # of A^-1 z_0 + A^-2 z_-1 + ...
        response = found.factor(0).solve_transposed(response)
        variances.append(response @ response)
    after = np.cumsum(variances)
    assert after[9] < 0.7 * 0.333172
    assert after[59] / 0.333172 == pytest.approx(0.944, abs=0.01)
    assert after[239] == pytest.approx(0.333172, rel=5e-3)


def test_indefinite_first_state_is_an_error():
    tau = np.where(np.arange(12) % 2, 0.05, 20.0) * np.ones((12, 1))
    found = prior((12, 12), alpha=2, kappa=0.1, tau=tau)
    with pytest.raises(SolverError, match="burn_in"):
        found.log_determinant()


@pytest.mark.parametrize(
    ("given_values", "message"),
    [({"steps": 0}, "steps=0"), ({"dt": 0.0}, "dt=0.0"), ({"burn_in": -1}, "burn_in=-1")],
)
def test_impossible_windows(given_values, message):
    with pytest.raises(ParameterError, match=message):
        prior((4, 4), kappa=1.0, **given_values)


def test_parameters_of_another_window_and_unknown_names():
    with pytest.raises(ParameterError, match="1 or 3"):
        prior((4, 4), kappa=np.ones((2, 4, 4)))
    with pytest.raises(UnknownNameError, match="alpha"):
        prior((4, 4), kappa=1.0, alpha=3)
    with pytest.raises(UnknownNameError, match="rest"):
        prior((4, 4), kappa=1.0, initial="resting")
    found = prior((4, 4), kappa=1.0)
    with pytest.raises(ParameterError, match="noise has shape"):
        found.sample(np.zeros((2, 3, 15)))

"""Maximum likelihood of the prior: recovery, standard errors, smooth maps (check B6)."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_fit import _FieldProblem, fit
from xr_spde.fields.spde_maps import MAPS, from_maps, knot_basis, to_maps

STILL = tuple(name for name in MAPS if name not in ("u", "v"))


def drawn(seed, n, windows, *, alpha=2, steps=5, dt=1.0, dx=1.0, boundary="dirichlet", **values):
    mesh = Mesh.of((n, n), dx=dx, dy=dx, boundary=boundary)
    operator = SpdeOperator(mesh)
    truth = SpdeParameters.of((n, n), **values)
    prior = SpaceTime(operator, truth, steps=steps, dt=dt, alpha=alpha)
    noise = np.random.default_rng(seed).standard_normal((windows, steps, n * n))
    return operator, truth, prior.sample(noise).reshape(windows, steps, n, n)


def test_maps_and_back():
    rng = np.random.default_rng(0)
    operator = SpdeOperator(Mesh.of((4, 5), dx=3e4, dy=2e4))
    truth = SpdeParameters.of(
        (4, 5), kappa=rng.random((4, 5)) + 0.1, tau=2.0, m1=rng.standard_normal((4, 5)),
        v1=rng.standard_normal((4, 5)), v2=0.3, beta=2.0, gamma=0.5,
    )  # fmt: skip
    back = from_maps(to_maps(truth, operator, 0.5), operator, 0.5)
    for name in ("kappa", "tau", "m1", "m2"):
        np.testing.assert_allclose(getattr(back, name), getattr(truth, name), rtol=1e-12)
    np.testing.assert_allclose(back.tensor(), truth.tensor(), rtol=1e-10)
    round_maps = to_maps(SpdeParameters.of((4, 5), kappa=1.0), operator, 1.0)
    assert not round_maps["h1"].any()


def test_knots():
    basis = knot_basis((7, 9), (3, 2))
    assert basis.shape == (6, 63)
    np.testing.assert_allclose(basis.sum(axis=0), 1.0)
    with pytest.raises(ParameterError, match="knots"):
        knot_basis((7, 9), (8, 2))


@pytest.mark.parametrize("alpha", [2, 4])
def test_gradient_at_the_knots(alpha):
    operator, truth, fields = drawn(0, 7, 2, alpha=alpha, kappa=0.6, beta=1.0, v1=1.0, v2=0.4,
                                    steps=3, dt=0.7, dx=1.3)  # fmt: skip
    problem = _FieldProblem(operator, fields, dt=0.7, alpha=alpha, knots=(2, 2), names=MAPS,
                            start=truth, smoothness=0.3, initial="stationary")  # fmt: skip
    rng = np.random.default_rng(1)
    place, direction = 0.05 * rng.standard_normal((2, problem.size))
    slope = problem.evaluate(place)[1] @ direction
    ends = [problem.evaluate(place + sign * 1e-4 * direction)[0] for sign in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_recovery_of_constant_parameters(beta):
    """Windows of 32 x 32 x 5, alpha = 2.

    With four of them the standard error of log kappa is 0.12 to 0.17, so that no estimator can
    promise 10 %; 64 of them bring it to 0.03 and 0.04.
    """
    v = {"v1": np.cos(0.6), "v2": np.sin(0.6)}
    operator, truth, fields = drawn(1, 32, 64, kappa=0.33, beta=beta, **v)
    found = fit(operator, fields, alpha=2, names=STILL)
    assert found.converged
    one = {name: getattr(found.parameters, name)[0, 0, 0] for name in truth.__dict__}
    assert found.stderr["log_kappa"][0, 0] < 0.05
    assert one["kappa"] == pytest.approx(0.33, rel=0.1)
    assert one["tau"] == pytest.approx(1.0, rel=0.1)
    assert one["gamma"] == pytest.approx(1.0, rel=0.1)
    exact = to_maps(truth, operator, 1.0)
    for name in ("log_kappa", "log_tau", "log_h"):
        assert abs(found.maps[name] - exact[name])[0, 0] < 3.5 * found.stderr[name][0, 0]
    if beta:
        assert one["beta"] == pytest.approx(beta, rel=0.1)
        assert np.arctan2(one["v2"], one["v1"]) == pytest.approx(0.6, abs=0.03)
    else:
        assert one["beta"] < 0.1


@pytest.mark.slow
def test_standard_errors_are_those_of_repeated_experiments():
    """With a flow, in metres and seconds: errors over standard errors scatter by one."""
    dx, dt = 2e4, 86400.0
    scale = {
        "kappa": 0.4 * dt**-0.5,
        "tau": dx * dt**-0.5,
        "gamma": dx**2 / dt,
        "m1": 0.3 * dx / dt,
    }
    z = []
    for seed in range(10):
        operator, truth, fields = drawn(seed, 16, 4, dx=dx, dt=dt, boundary="periodic", **scale)
        found = fit(operator, fields, alpha=2, dt=dt)
        exact = to_maps(truth, operator, dt)
        z.append([(found.maps[n] - exact[n])[0, 0] / found.stderr[n][0, 0] for n in MAPS])
    spread = np.sqrt(np.mean(np.square(z), axis=0))
    assert ((spread > 0.4) & (spread < 1.8)).all(), dict(zip(MAPS, spread, strict=True))
    assert 0.75 < np.sqrt(np.mean(np.square(z))) < 1.25


@pytest.mark.slow
def test_recovery_of_a_smooth_map():
    n = 32
    kappa = np.exp(np.linspace(np.log(0.25), np.log(0.75), n)) * np.ones((n, 1))
    operator, truth, fields = drawn(3, n, 6, alpha=4, kappa=kappa)
    found = fit(operator, fields, alpha=4, knots=(1, 3), names=("log_kappa", "log_tau", "log_h"))
    exact = to_maps(truth, operator, 1.0)
    error = (found.maps["log_kappa"] - exact["log_kappa"]) / found.stderr["log_kappa"]
    assert np.abs(error).max() < 3.5
    assert found.maps["log_kappa"][0, -1] - found.maps["log_kappa"][0, 0] > 0.7
    flat = fit(operator, fields, alpha=4, names=("log_kappa", "log_tau", "log_h"), stderr=False)
    assert found.log_likelihood > flat.log_likelihood + 10
    assert np.isnan(flat.stderr["log_kappa"]).all()
    assert not flat.stderr["u"].any()


def test_what_cannot_be_fitted():
    operator = SpdeOperator(Mesh.of((6, 6)))
    with pytest.raises(ParameterError, match="do not vary"):
        fit(operator, np.zeros((1, 3, 6, 6)))
    with pytest.raises(ParameterError, match="fields have shape"):
        fit(operator, np.zeros((3, 6, 6)))
    with pytest.raises(ParameterError, match="names"):
        fit(operator, np.zeros((1, 3, 6, 6)), names=("kappa",))
    _, _, fields = drawn(0, 6, 1, kappa=0.6)
    with pytest.warns(UserWarning, match="still rising"):
        fit(operator, fields, max_iterations=1, stderr=False)

"""Draws of the prior over a domain and series: blocks, members, tiles and their variance."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from xr_spde.errors import ParameterError
from xr_spde.fields import prior_draws
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.prior_draws import draw_prior, observation_noise
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters


def constant(shape, *, kappa=0.5, tau=1.0, m1=0.0, v1=0.0, beta=0.0):
    numbers = np.array([kappa, tau, m1, 0.0, v1, 0.0, 1.0, beta])
    return np.zeros((8, 1, *shape)) + numbers[:, None, None, None]


def varied(shape, steps, seed=0):
    rng = np.random.default_rng(seed)
    theta = np.repeat(constant(shape, m1=0.2, v1=1.0, beta=0.5), steps, axis=1)
    theta[:2] *= rng.uniform(0.9, 1.1, (2, steps, *shape))
    return theta


@pytest.mark.parametrize("alpha", [2, 4])
def test_covariance_is_the_inverse_of_the_precision(alpha):
    shape, steps = (5, 6), 4
    sea = np.ones(shape, dtype=bool)
    sea[1:3, 2] = False
    theta = varied(shape, steps)
    fields, _ = draw_prior(theta, sea=sea, members=range(20_000), first=3, entropy=1, alpha=alpha)
    mesh = Mesh.of(shape, land=~sea)
    names = ("kappa", "tau", "m1", "m2", "v1", "v2", "gamma", "beta")
    parameters = SpdeParameters.of(shape, **dict(zip(names, theta, strict=True)))
    prior = SpaceTime(SpdeOperator(mesh), parameters, steps=steps, alpha=alpha)
    root, matrix = np.diag(np.sqrt(prior.weight(0))), prior.transition(0).toarray()
    first = root @ (matrix.T @ matrix - np.diag(prior.sea)) @ root
    prior = SpaceTime(SpdeOperator(mesh), parameters, steps=steps, alpha=alpha,
                      initial=sp.csc_array(first))  # fmt: skip
    expected = np.linalg.inv(prior.precision().toarray())
    water = np.tile(prior.sea > 0, steps)
    found = np.cov(fields.reshape(len(fields), -1).T, bias=True)[np.ix_(water, water)]
    expected = expected[np.ix_(water, water)]
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # a covariance of 20 000 draws has a relative error of 0.007, at most five times that
    assert np.abs((found - expected) / scale).max() < 0.05
    assert (fields[..., ~sea] == 0.0).all()


def test_members_do_not_depend_on_others_or_on_blocks():
    shape, steps = (14, 11), 9
    sea = np.ones(shape, dtype=bool)
    theta = varied(shape, steps)
    settings = {"sea": sea, "entropy": 5}
    whole, end = draw_prior(theta, members=range(4), first=0, **settings)
    alone, _ = draw_prior(theta, members=[2, 0], first=0, **settings)
    np.testing.assert_array_equal(alone, whole[[2, 0]])
    parts, state = [], None
    for first, stop in ((0, 4), (4, 5), (5, 9)):
        part, state = draw_prior(theta[:, first:stop], state, members=range(4), first=first,
                                 **settings)  # fmt: skip
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    np.testing.assert_array_equal(state, end)


def test_large_planes_are_drawn_in_tiles_without_seams(monkeypatch):
    shape, steps = (36, 40), 4
    sea = np.ones(shape, dtype=bool)
    sea[15:25, 18:21] = False
    theta = constant(shape, kappa=0.5, m1=0.1)
    settings = {"sea": sea, "members": range(2), "first": 0, "entropy": 2, "steps": steps}
    start = prior_draws._start
    monkeypatch.setattr(prior_draws, "_start", lambda *a, whole: start(*a, whole=False))
    whole, _ = draw_prior(theta, **settings)
    monkeypatch.setattr(prior_draws, "MOST_NODES", 36**2)
    tiled, state = draw_prior(theta, halo=12, **settings)
    assert np.abs(tiled - whole).max() < 0.05 * whole.std()
    # the chain of blocks holds for tiles too
    a, held = draw_prior(theta, halo=12, **{**settings, "steps": 2})
    b, last = draw_prior(theta, held, halo=12, **{**settings, "first": 2, "steps": 2})
    np.testing.assert_array_equal(np.concatenate([a, b], axis=1), tiled)
    np.testing.assert_array_equal(last, state)


def test_columns_that_close_have_no_seam(monkeypatch):
    shape = (20, 72)
    sea = np.ones(shape, dtype=bool)
    settings = {"sea": sea, "members": range(2), "first": 0, "entropy": 2, "steps": 3,
                "boundary": ("neumann", "periodic")}  # fmt: skip
    start = prior_draws._start
    monkeypatch.setattr(prior_draws, "_start", lambda *a, whole: start(*a, whole=False))
    whole, _ = draw_prior(constant(shape), **settings)
    monkeypatch.setattr(prior_draws, "MOST_NODES", 52**2 // 2)
    tiled, _ = draw_prior(constant(shape), halo=14, **settings)
    assert np.abs(tiled - whole).max() < 0.03 * whole.std()
    step = np.abs(np.diff(whole, axis=-1)).mean()
    assert np.abs(whole[..., 0] - whole[..., -1]).mean() < 1.3 * step


@pytest.mark.parametrize(("kappa", "alpha"), [(0.5, 4), (0.3, 4), (0.33, 2)])
def test_spin_up_reaches_the_stationary_variance(monkeypatch, kappa, alpha):
    shape = (24, 24)
    settings = {"sea": np.ones(shape, dtype=bool), "members": range(400), "first": 0, "steps": 2,
                "entropy": 3, "alpha": alpha, "boundary": ("periodic", "periodic")}  # fmt: skip
    start = prior_draws._start
    monkeypatch.setattr(prior_draws, "_start", lambda *a, whole: start(*a, whole=False))
    fields, _ = draw_prior(constant(shape, kappa=kappa), **settings)
    w = 2.0 * np.pi * np.fft.fftfreq(24)
    symbol = (kappa**2 + 4 - 2 * np.cos(w) - 2 * np.cos(w)[:, None]) ** (alpha // 2)
    variance = 1.0 / ((1.0 + symbol) ** 2 - 1.0)
    for step in range(2):
        np.testing.assert_allclose(fields[:, step].var(), variance.mean(), rtol=0.04)
    lagged = (fields[:, 0] * fields[:, 1]).mean()
    np.testing.assert_allclose(lagged, (variance / (1.0 + symbol)).mean(), rtol=0.04)


def test_a_first_state_exists_however_tau_varies():
    theta = constant((10, 10), kappa=0.3)
    theta[1, 0, :, 5:] = 60.0
    settings = {"sea": np.ones((10, 10), dtype=bool), "first": 0, "entropy": 0, "steps": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fields, _ = draw_prior(theta, members=range(300), **settings)
    spread = fields[:, 0].std(axis=0)
    assert spread[:, 7:].mean() > 40 * spread[:, :3].mean()


def test_a_flow_that_converges_too_sharply_is_spun_up():
    theta = constant((10, 10), kappa=0.1)
    theta[2, 0, :, :5], theta[2, 0, :, 5:] = 4.0, -4.0
    settings = {"sea": np.ones((10, 10), dtype=bool), "members": [0], "first": 0, "entropy": 0}
    with pytest.warns(UserWarning, match="spun up from rest"):
        fields, _ = draw_prior(theta, steps=2, **settings)
    assert np.isfinite(fields).all()


def test_errors_belong_to_cell_and_step():
    whole = observation_noise(7, [0, 1], 0, 6, (5, 4))
    np.testing.assert_array_equal(observation_noise(7, [1], 2, 4, (5, 4))[0], whole[1, 2:4])
    assert whole.dtype == np.float32
    large = observation_noise(7, [0], 0, 20, (50, 50))
    assert abs(large.std() - 1.0) < 0.01


def test_wrong_shapes_are_named():
    sea = np.ones((4, 4), dtype=bool)
    settings = {"sea": sea, "members": [0], "first": 0, "entropy": 0}
    with pytest.raises(ParameterError, match="theta has shape"):
        draw_prior(np.ones((8, 1, 3, 4)), **settings)
    with pytest.raises(ParameterError, match="2 steps for a block of 3"):
        draw_prior(np.repeat(constant((4, 4)), 2, axis=1), steps=3, **settings)
    with pytest.raises(ParameterError, match="state has shape"):
        draw_prior(constant((4, 4)), np.zeros((1, 3)), steps=3, **settings)

"""Spread and members of maps by a solver: exact where the solver is, one field across patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from tests.assim.standins import ExactSolver, LocalSolver
from tests.assim.test_neural_apply import assimilate, make_gridded, make_points, make_sea, times_of

MODEL = LocalSolver()


def test_spread_of_an_exact_solver_is_that_of_the_posterior():
    """400 draws: 3.5 % of sampling error in each cell, and a hundredth of that in their mean."""
    like = make_sea(16, 17)
    model = ExactSolver(steps=4)
    obs = make_gridded(like, 4, share=0.08)
    post = assimilate(obs, like=like, model=model, draws=400, seed=1)
    sea, wet = like.notnull().values, np.tile(like.notnull().values.ravel(), 4)
    cov, _ = model.prior_covariance(sea)
    seen = (obs.notnull().values & sea).ravel()[wet]
    middle = cov[np.ix_(seen, seen)] + (0.03 / model.scale) ** 2 * np.eye(seen.sum())
    exact = np.diag(cov - cov[:, seen] @ np.linalg.solve(middle, cov[seen]))
    ratio = post["std"].values.ravel()[wet] / (model.scale * np.sqrt(exact))
    assert abs(np.mean(ratio) - 1) < 0.01
    assert np.std(ratio) == pytest.approx(1 / np.sqrt(2 * 400), rel=0.25)
    assert post.attrs["xr_spde_members"] == 400
    assert float(post["linearity_defect"].max()) < 1e-5


def test_members_go_on_across_patches_and_windows():
    """Of a linear and local solver: those of the whole domain, draw by draw."""
    like = make_sea()
    obs = make_gridded(like, 5)
    settings = {"like": like, "n": 3, "seed": 7}
    whole = assimilate(obs, **settings)
    cut = assimilate(obs, patch=21, overlap=12, **settings)
    assert cut.attrs["xr_spde_patches"] > 1
    np.testing.assert_allclose(cut["ensemble"], whole["ensemble"], atol=1e-6)
    assert (whole["ensemble"].isnull() == like.isnull()).all()
    spread = np.sqrt(((whole["ensemble"] - whole["mean"]) ** 2).mean("realization"))
    np.testing.assert_allclose(whole["std"], spread, rtol=1e-5)


def test_a_member_is_itself_however_it_comes_about():
    like, days = make_sea(20, 24), 13
    obs = make_gridded(like, days)
    few = assimilate(obs, like=like, n=2, seed=3)
    more = assimilate(obs, like=like, n=22, draws=25, seed=3)
    assert more.sizes["realization"] == 22
    np.testing.assert_allclose(more["ensemble"][:2], few["ensemble"], atol=1e-7)
    for chunks in ({"time": 1}, {"time": 6, "lon": 5}):
        lazy = assimilate(obs.chunk(chunks), like=like, n=22, draws=25, seed=3)
        xr.testing.assert_identical(lazy.compute(scheduler="threads"), more)
    other = assimilate(obs, like=like, n=2, seed=4)
    assert not other["ensemble"].equals(few["ensemble"])


def test_forecasts_spread_more():
    like, days = make_sea(20, 24), 10
    points = make_points(like, days, 3000)
    settings = {"like": like, "times": times_of(days), "unusable": "drop", "draws": 30, "seed": 0}
    stds = [float(assimilate(points, lead=lead, **settings)["std"][3:].mean())
            for lead in (None, 0, 1)]  # fmt: skip
    assert stds == sorted(stds)
    assert stds[2] > 1.02 * stds[1] > 1.02 * stds[0]


def test_parameters_found_are_those_of_the_draws():
    """A solver that finds a stronger noise draws a wider prior, returned or not."""
    like = make_sea(20, 24)
    obs = make_gridded(like, 5)
    model = LocalSolver(parameters=True, theta_solver="there")
    settings = {"like": like, "draws": 20, "seed": 0}
    found = assimilate(obs, model=model, parameters=True, **settings)
    plain = assimilate(obs, model=model, **settings)
    assert "theta_length" in found
    assert "theta_length" not in plain
    assert plain["std"].equals(found["std"])
    constant = assimilate(obs, **settings)
    assert float(found["std"].mean()) > 1.1 * float(constant["std"].mean())
    lazy = assimilate(obs.chunk({"time": 2}), model=model, parameters=True, **settings)
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), found)


def test_recalibration_of_the_solver_scales_the_spread():
    like = make_sea(20, 24)
    obs = make_gridded(like, 5)
    model = replace(MODEL, recalibration={"factors": {"mapping": 1.5}})
    settings = {"like": like, "n": 2, "seed": 0}
    bare = assimilate(obs, model=model, recalibrate=False, **settings)
    wide = assimilate(obs, model=model, **settings)
    np.testing.assert_allclose(wide["std"], 1.5 * bare["std"], rtol=1e-6)
    assert wide.attrs["xr_spde_recalibrated"] == 1.5


def test_members_of_an_untrained_solver_that_converged_are_those_of_the_exact_one():
    pytest.importorskip("torch")
    from xr_spde.assim.neural_solver import NeuralSolver
    from xr_spde.nets.variational import VariationalSolver

    like, exact = make_sea(16, 17), ExactSolver(steps=4)
    numbers = {"kappa": 0.6, "tau": 0.4, "v1": 1.0, "gamma": 1.0}
    solver = VariationalSolver(4, iterations=20, hidden=2, theta=numbers)
    model = NeuralSolver(solver, exact.scale, exact.spacing, exact.time_step, units=exact.units)
    obs = make_gridded(like, 4, share=0.08)
    settings = {"like": like, "n": 3, "seed": 1}
    one, other = (assimilate(obs, model=m, **settings) for m in (model, exact))
    for name in ("mean", "ensemble", "std"):
        apart = float(abs(one[name] - other[name]).max())
        assert apart < 0.02 * float(other[name].std()), name

"""Multigrid with arrays that are not numpy's, as on a graphics card."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from xr_spde._core.errors import MemoryGuardError, SolverError
from xr_spde._core.options import set_options
from xr_spde.fields.field import GaussianField
from xr_spde.fields.sar import weights
from xr_spde.sar import emulate
from xr_spde.solvers import card, choose, multigrid
from xr_spde.solvers.multigrid import MultigridFactor, predict_bytes
from xr_spde.solvers.multigrid_lines import CyclicLines, Lines


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 31, 100])
def test_cyclic_reduction_solves_what_elimination_solves(length, ring):
    rng = np.random.default_rng(length)
    lower, upper = -rng.uniform(0.0, 1.0, (2, length, 5))
    diagonal = 0.1 - lower - upper
    b = rng.standard_normal((length, 5))
    found, expected = b.copy(), b.copy()
    CyclicLines(lower, diagonal, upper, ring=ring).solve(found)
    Lines(lower, diagonal, upper, ring=ring).solve(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def varied(shape, seed=0):
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(1e-2), np.log(1.0), shape))
    return [kappa2, rng.uniform(1, 5, shape), rng.uniform(-1.5, 1.5, shape)]


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus", "paper"])
@pytest.mark.parametrize("shape", [(37, 50), (48, 33)])
def test_same_figures_on_another_device(boundary, shape, stand_in):
    table = weights(*varied(shape))
    settings = {"boundary": boundary, "coarsest": 60, "tol": 1e-10}
    ours, there = (
        MultigridFactor(table, **settings),
        MultigridFactor(table, **settings, xp=stand_in),
    )
    b = np.random.default_rng(0).standard_normal((ours.n, 3))
    scale = np.abs(ours.solve(b)).max()
    for rhs in (b, np.asfortranarray(b), b[:, 0].copy()):
        stand_in.transfers.clear()
        found = there.solve(rhs)
        assert stand_in.transfers == {"to card": 1, "to host": 1}
        np.testing.assert_allclose(found, ours.solve(rhs), atol=1e-8 * scale)
    stand_in.transfers.clear()
    solved = there.solve(stand_in.asarray(b))
    assert stand_in.transfers == {"to card": 1}
    np.testing.assert_allclose(solved.get(), ours.solve(b), atol=1e-8 * scale)
    assert all(one.residual <= 1e-10 for one in there.convergence)
    found = there.solve_transposed(b)
    np.testing.assert_allclose(found, ours.solve_transposed(b), atol=1e-8 * scale)


def test_the_memory_of_a_card_is_predicted(stand_in):
    shape = (64, 96)
    held = MultigridFactor(weights(*varied(shape)), boundary="torus", coarsest=500, xp=stand_in)
    host = predict_bytes(shape, boundary="torus", coarsest=500)
    assert host < predict_bytes(shape, boundary="torus", coarsest=500, host=False)
    assert held.nbytes < predict_bytes(shape, boundary="torus", coarsest=500, host=False)


@pytest.fixture
def small_card(carded, monkeypatch):
    """Let the card hold multigrid, but no factor by dissection."""
    monkeypatch.setattr(multigrid, "COARSEST", 60)
    for function in (multigrid.predict_bytes, MultigridFactor.__init__):
        defaults = dict(function.__kwdefaults__, coarsest=60)
        monkeypatch.setattr(function, "__kwdefaults__", defaults)
    monkeypatch.setattr(card, "free_memory", lambda _: 900 * 2**20)
    monkeypatch.setitem(choose.SOLVERS, "dissection", _huge(choose.SOLVERS["dissection"]))
    return carded


def _huge(solver):
    from dataclasses import replace

    return replace(solver, memory=lambda *_: 2**40)


def test_auto_takes_multigrid_on_the_card_for_members(small_card, caplog):
    import xarray as xr

    maps = zip(("kappa2", "rho", "theta"), varied((30, 44)), strict=True)
    params = xr.Dataset({name: (("y", "x"), values) for name, values in maps})
    with caplog.at_level(logging.INFO, "xr_spde.solvers"):
        there = emulate(params, 20, seed=3)
        members = there.compute(scheduler="sync")
    found = {name: there.attrs[f"xr_spde_{name}"] for name in ("solver", "device")}
    assert found == {"solver": "multigrid", "device": "cuda"}
    assert "multigrid on the graphics card" in caplog.text
    small_card.transfers.clear()
    again = emulate(params, 20, seed=3, chunks=7)
    np.testing.assert_array_equal(again.compute(scheduler="sync"), members)
    # one member at a time, to the card once and back once
    assert small_card.transfers == {"to card": 20, "to host": 20}
    with set_options(device="cpu"):
        ours = emulate(params, 20, seed=3, solver="superlu").compute()
    np.testing.assert_allclose(members, ours, atol=1e-5 * float(ours.std()))


def test_memory_that_runs_out_and_what_does_not_converge(small_card, monkeypatch):
    model = GaussianField(*varied((30, 44)), solver="multigrid")
    held = model.factor()

    def full(*_, **__):
        raise small_card.cuda.memory.OutOfMemoryError

    each = 16 * held.n
    with monkeypatch.context() as patch:
        patch.setattr(held, "_columns", full)
        patch.setattr(card, "free_memory", lambda _: held._predicted + 3 * each)
        with pytest.raises(MemoryGuardError, match=r"for 9 right-hand sides.*type chunks=3"):
            held.solve(np.ones((held.n, 9)))
        patch.setattr(card, "free_memory", lambda _: 10**5)
        with pytest.raises(MemoryGuardError, match=r"on the graphics card.*device=\"cpu\""):
            MultigridFactor(model.weights(), boundary="plane", xp=small_card)
    with pytest.raises(SolverError, match=r"residual of .* after 1 cycles"):
        MultigridFactor(
            model.weights(), boundary="plane", max_iterations=1, tol=1e-12, xp=small_card
        ).solve(np.random.default_rng(0).standard_normal(held.n))

"""The grid solver with arrays that are not numpy's, as on a graphics card."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse as sp

from xr_spde._core.errors import MemoryGuardError
from xr_spde._core.options import set_options
from xr_spde.fields.field import GaussianField
from xr_spde.fields.sar import operator
from xr_spde.sar import emulate
from xr_spde.solvers import choose
from xr_spde.solvers.grid_factor import GridFactor


@pytest.mark.parametrize("symmetric", [False, True])
def test_same_figures_on_another_device(symmetric, stand_in):
    shape = (37, 50)
    matrix = operator(np.full(shape, 0.2), 3.0, 0.5, boundary="cylinder")
    matrix = sp.csc_array(matrix.T @ matrix) if symmetric else matrix
    settings = {"shape": shape, "boundary": "cylinder", "reach": 2, "symmetric": symmetric}
    ours, there = GridFactor(matrix, **settings), GridFactor(matrix, **settings, xp=stand_in)
    b = np.random.default_rng(0).standard_normal((ours.n, 70))
    for rhs in (b, np.asfortranarray(b), b[:, 0].copy()):
        solved = there.solve(stand_in.asarray(rhs))
        assert not isinstance(solved, np.ndarray)
        np.testing.assert_allclose(solved.get(), ours.solve(rhs), rtol=1e-10, atol=1e-12)
        solved = there.solve_transposed(stand_in.asarray(rhs)).get()
        np.testing.assert_allclose(solved, ours.solve_transposed(rhs), rtol=1e-10, atol=1e-12)
    refined = there.solve_refined(matrix, b)
    np.testing.assert_allclose(refined, ours.solve(b), rtol=1e-10, atol=1e-12)
    assert there.logdet() == pytest.approx(ours.logdet(), rel=1e-12)
    assert there.nbytes == ours.nbytes
    np.testing.assert_allclose(there.inverse_diagonal(), ours.inverse_diagonal(), rtol=1e-11)
    found, expected = there.gram_inverse_diagonal(), ours.gram_inverse_diagonal()
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for transposed in (False, True):
        found, expected = (
            held.inverse_on_pattern(transposed=transposed).data for held in (there, ours)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_block_of_the_host_goes_over_and_back_in_one_piece(stand_in):
    shape = (20, 30)
    matrix = operator(np.full(shape, 0.2), 3.0, 0.5, boundary="cylinder")
    settings = {"shape": shape, "boundary": "cylinder"}
    ours, there = GridFactor(matrix, **settings), GridFactor(matrix, **settings, xp=stand_in)
    b = np.random.default_rng(0).standard_normal((3 * there.width, there.n))
    for rhs in (b.T, b[:70].T.copy(), b[0]):
        stand_in.transfers.clear()
        found = there.solve(rhs)
        assert stand_in.transfers == {"to card": 1, "to host": 1}
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, ours.solve(rhs), rtol=1e-10, atol=1e-12)


MAPS = [np.full((14, 18), value) for value in (0.3, 2.5, 0.4)]


def test_auto_takes_the_card_and_explicit_cpu_does_not(carded, caplog):
    with caplog.at_level(logging.INFO, "xr_spde.solvers"):
        model = GaussianField(*MAPS)
        key, held = model.key, model.factor()
        assert held._xp is carded
        with set_options(device="cpu"):
            assert model.key != key
            assert model.factor()._xp is np
    assert "dissection on the graphics card in float64" in caplog.text
    assert "dissection on the processor in float64" in caplog.text
    noise = np.random.default_rng(0).standard_normal((5, model.size))
    found = model.sample(noise)
    with set_options(device="cpu"):
        np.testing.assert_allclose(found, model.sample(noise), rtol=1e-11, atol=1e-12)


def parameters():
    import xarray as xr

    return xr.Dataset(
        {k: (("y", "x"), v) for k, v in zip(("kappa2", "rho", "theta"), MAPS, strict=True)}
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_members_are_those_of_the_processor(carded, dtype):
    there = emulate(parameters(), 300, seed=3, dtype=dtype)
    assert (there.attrs["xr_spde_solver"], there.attrs["xr_spde_device"]) == ("dissection", "cuda")
    with set_options(device="cpu"):
        ours = emulate(parameters(), 300, seed=3, dtype=dtype)
    assert ours.attrs["xr_spde_device"] == "cpu"
    assert ours.data.name != there.data.name
    there[:1].compute()  # factorises
    carded.transfers.clear()
    found = there.compute(scheduler="sync")
    blocks = there.data.numblocks[0]
    assert carded.transfers == {"to card": blocks, "to host": blocks}
    scale = float(ours.std())
    tolerance = 1e-11 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(found, ours.compute(), atol=tolerance * scale)
    again = emulate(parameters(), 300, seed=3, dtype=dtype, chunks=7)
    np.testing.assert_array_equal(again, found)


def test_a_card_that_is_too_small_hands_over_to_the_processor(carded, monkeypatch, caplog):
    monkeypatch.setattr(carded.cuda.Device, "mem_info", (10**5, 10**6))
    choice = choose.choose((14, 18), boundary="plane")
    assert (choice.solver, choice.device) == ("dissection", "cpu")
    with (
        set_options(device="cuda"),
        pytest.raises(MemoryGuardError, match=r"on the graphics card.*limit is 87.*device=\"cpu\""),
    ):
        choose.choose((14, 18), boundary="plane")


def test_memory_that_runs_out_names_the_chunk_that_fits(carded, monkeypatch):
    held = GaussianField(*MAPS).factor()
    each, fixed = 2 * 8 * held.n, held.memory.solving

    def full(*_, **__):
        raise carded.cuda.memory.OutOfMemoryError

    monkeypatch.setattr(held, "_solve_there", full)
    monkeypatch.setattr(carded.cuda.Device, "mem_info", (fixed + 7 * each, 2**30))
    with pytest.raises(MemoryGuardError, match=r"for 40 right-hand sides.*type chunks=7"):
        held.solve(np.ones((held.n, 40)))
    monkeypatch.setattr(carded.cuda.Device, "mem_info", (0, 2**30))
    with pytest.raises(MemoryGuardError, match=r"0 B free. Less is taken by dtype=\"float32\""):
        held.solve(np.ones((held.n, 40)))
    monkeypatch.setattr(carded.cuda.Device, "mem_info", (2**30, 2**30))
    monkeypatch.setattr(carded, "matmul", full)
    with pytest.raises(MemoryGuardError, match=r"while factorising.*device=\"cpu\""):
        GaussianField(*MAPS, boundary="torus").factor()
    with pytest.raises(MemoryGuardError, match="while inverting"):
        held.gram_inverse_diagonal()


def test_a_solver_of_the_processor_says_so_where_the_card_was_asked_for(carded):
    with set_options(device="cuda"), pytest.warns(UserWarning, match="'superlu' runs on the proc"):
        assert choose.choose((14, 18), boundary="plane", solver="superlu").device == "cpu"

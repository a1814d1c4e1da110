"""A fitted solver survives files and processes, and says what it is."""

import dataclasses
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.assim.neural_solver import NeuralSolver, load_solver  # noqa: E402
from xr_spde.errors import DataUnavailableError, ParameterError, SchemaError  # noqa: E402
from xr_spde.nets.registry import build_network  # noqa: E402
from xr_spde.nets.weights import save_weights  # noqa: E402


def network(seed=0):
    torch.manual_seed(seed)
    return build_network("4dvarnet", {"steps": 3, "iterations": 2, "hidden": 4}).eval()


def model(**changes):
    card = {"data": "made here", "seed": 3, "scores": {"mapping": 0.5}}
    settings = {"scale": 0.12, "spacing": (11.0, 8.5), "time_step": 1.0, "units": "m", "leads": 2}
    return NeuralSolver(network(), **{**settings, "card": card, **changes})


def same(first, second):
    mine, theirs = first.solver.state_dict(), second.solver.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name in ("scale", "spacing", "time_step", "tasks", "leads", "units", "scaling",
                 "recalibration", "card"):  # fmt: skip
        assert getattr(first, name) == getattr(second, name), name


def test_file_and_pickle_give_the_same_solver(tmp_path):
    one = model(recalibration={"factors": {"mapping": 1.2}}, scaling="observations")
    one.save(tmp_path / "solver.safetensors")
    state = torch.random.get_rng_state()
    same(one, load_solver(tmp_path / "solver.safetensors"))
    assert torch.equal(state, torch.random.get_rng_state())
    same(one, pickle.loads(pickle.dumps(one)))


def test_half_the_size_keeps_three_digits(tmp_path):
    one = model()
    for half in (True, False):
        one.save(tmp_path / f"{half}.safetensors", half=half)
    read = load_solver(tmp_path / "True.safetensors")
    for name, value in one.solver.state_dict().items():
        torch.testing.assert_close(read.solver.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_it_says_what_it_is():
    one = model(scaling="observations")
    for text in (repr(one), one._repr_html_()):
        for word in ("3 steps", "11 x 8.5 km", "forecast", "0.12 m", "made here", "mapping 0.5"):
            assert word in text
    assert "<script" not in model(card={"data": "<script>"})._repr_html_()


def test_scale_of_other_regions_is_that_of_their_observations():
    rng = np.random.default_rng(0)
    field, noise = 3.0 * rng.standard_normal(20_000), 0.5 * rng.standard_normal(20_000)
    variance = np.full(20_000, 0.25)
    assert model().scale_for(field + noise, variance) == 0.12
    adaptive = model(scaling="observations")
    assert adaptive.scale_for(field + noise, variance) == pytest.approx(3.0, rel=0.03)
    # noise alone: a share is left, so that nothing is divided by zero
    assert 0.0 < adaptive.scale_for(noise, 2.0 * variance) < 0.2
    assert adaptive.scale_for(np.zeros(0), np.zeros(0)) == 0.12


@pytest.mark.parametrize(
    "changes", [{"scale": 0.0}, {"spacing": (1.0, np.nan)}, {"tasks": ("guess",)}, {"scaling": "x"}]
)
def test_impossible_numbers_are_refused(changes):
    with pytest.raises(ParameterError, match="given"):
        model(**changes)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataUnavailableError, match="'sea-level'"):
        load_solver("atlantic")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(SchemaError, match="safetensors"):
        load_solver(tmp_path / "text")
    save_weights(tmp_path / "net", network())
    with pytest.raises(SchemaError, match="cannot be read"):
        load_solver(tmp_path / "net")


def test_recalibration_replaces_nothing_else():
    one = model()
    two = dataclasses.replace(one, recalibration={"factors": {}})
    assert two.recalibration == {"factors": {}}
    assert two.solver is one.solver

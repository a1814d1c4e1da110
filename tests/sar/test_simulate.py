"""Training sets on disk: made again bit for bit, in pieces, by any number of processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

from xr_spde._core.errors import ParameterError  # noqa: E402
from xr_spde.sar import simulate  # noqa: E402
from xr_spde.sar.priors import draw_test_case  # noqa: E402
from xr_spde.sar.simulate import (  # noqa: E402
    ARRAYS,
    CaseGroup,
    FreshCases,
    StoredCases,
    simulate_cases,
    solve_cases,
)

SHAPE = (9, 12)


def group(cases=4, **settings) -> CaseGroup:
    return CaseGroup(**({"shape": SHAPE, "cases": cases, "replicates": 3, "buffer": 2} | settings))


def content(folder, name="9x12"):
    store = zarr.open_group(str(folder / name), mode="r")
    return {array: store[array][:] for array in (*ARRAYS, "done")}


def same(first, second, cases=None):
    return all(np.array_equal(first[n][:cases], second[n][:cases]) for n in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert list(simulate_cases(folder, group(), seed=3)) == [0, 1, 2, 3]
    return folder


def test_a_set_holds_what_the_prior_draws(whole):
    found = content(whole)
    assert found["done"].all()
    assert {name: a.dtype for name, a in found.items() if name != "done"} == ARRAYS
    seeds = np.random.SeedSequence(3, spawn_key=SHAPE).generate_state(4, np.uint64)
    fields, *maps = draw_test_case(SHAPE, 3, seed=int(seeds[2]), buffer=2)
    np.testing.assert_array_equal(found["fields"][2], fields.astype(np.float16))
    for name, expected in zip(("kappa2", "rho", "theta"), maps, strict=True):
        np.testing.assert_array_equal(found[name][2], expected.astype(np.float32))
    assert len({case.tobytes() for case in found["fields"]}) == 4


def test_a_set_is_reproducible_and_depends_on_seed_and_size(whole, tmp_path):
    list(simulate_cases(tmp_path / "again", group(), seed=3))
    assert same(content(whole), content(tmp_path / "again"))
    list(simulate_cases(tmp_path / "other", group(), seed=4))
    assert not np.array_equal(content(whole)["rho"], content(tmp_path / "other")["rho"])
    list(simulate_cases(tmp_path / "again", group(shape=(12, 9)), seed=3))
    turned = content(tmp_path / "again", "12x9")
    assert not np.array_equal(turned["rho"].swapaxes(1, 2), content(whole)["rho"])


def test_a_set_made_in_pieces_is_the_same(whole, tmp_path):
    assert list(simulate_cases(tmp_path, group(1), seed=3)) == [0]
    before = content(tmp_path)
    assert list(simulate_cases(tmp_path, group(4), seed=3)) == [1, 2, 3]
    assert same(content(whole), content(tmp_path))
    assert same(before, content(tmp_path), 1)
    # nothing is left to do, and fewer than there are is no reason to lose some
    assert list(simulate_cases(tmp_path, group(4), seed=3)) == []
    assert list(simulate_cases(tmp_path, group(2), seed=3)) == []
    assert same(content(whole), content(tmp_path))


def test_several_processes_make_the_same_set(whole, tmp_path):
    assert sorted(simulate_cases(tmp_path, group(), seed=3, workers=2)) == [0, 1, 2, 3]
    assert same(content(whole), content(tmp_path))


def test_a_case_whose_writing_was_killed_is_made_again(whole, tmp_path, monkeypatch):
    draw, calls = simulate._case, []

    def dies(group, seed):
        calls.append(seed)
        values = draw(group, seed)
        if len(calls) == 2:
            values["fields"] = np.full_like(values["fields"], 7.0)
            values["theta"] = np.zeros((5, 5))  # cannot be stored; fields, kappa2 and rho are
        return values

    monkeypatch.setattr(simulate, "_case", dies)
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        list(simulate_cases(tmp_path, group(), seed=3))
    assert content(tmp_path)["done"].tolist() == [True, False, False, False]
    with pytest.raises(ParameterError, match="lacks some of the cases 0 to 1; simulate"):
        StoredCases(tmp_path, group(), "rho", 0, 2)
    assert list(simulate_cases(tmp_path, group(), seed=3)) == [1, 2, 3]
    assert same(content(whole), content(tmp_path))


def test_stopping_early_cancels_the_rest(tmp_path):
    many = group(300)
    cases = simulate_cases(tmp_path, many, seed=3, workers=2)
    next(cases)
    cases.close()
    assert 1 <= content(tmp_path)["done"].sum() < 100


@pytest.mark.parametrize(
    "other", [{"replicates": 2}, {"buffer": 3}, {"boundary": "plane"}, {"preset": "rotated"}]
)
def test_another_kind_of_cases_under_the_same_name_is_refused(whole, other):
    with pytest.raises(ParameterError, match=r"9x12 holds cases of.*give another folder"):
        list(simulate_cases(whole, group(**other), seed=3))
    with pytest.raises(ParameterError, match=r"'seed': 3.*not.*'seed': 5"):
        list(simulate_cases(whole, group(), seed=5))


def test_impossible_groups_are_refused():
    for wrong in ({"cases": 0}, {"replicates": 0}, {"shape": (0, 4)}):
        with pytest.raises(ParameterError, match="each must be at least 1"):
            group(**wrong)


def test_stored_cases_are_read_when_asked_for(whole):
    stored = StoredCases(whole, group(), "fields", 1, 4)
    assert stored.shape == (3, 3, *SHAPE)
    np.testing.assert_array_equal(stored[0], content(whole)["fields"][1])
    copy = pickle.dumps(stored)
    assert len(copy) < 1000
    np.testing.assert_array_equal(pickle.loads(copy)[2], content(whole)["fields"][3])


def test_cases_that_are_not_there_are_missed(whole, tmp_path):
    for folder, stop in ((whole, 5), (tmp_path, 2)):
        with pytest.raises(ParameterError, match=r"lacks some of the cases 0.*simulate them first"):
            StoredCases(folder, group(), "fields", 0, stop)


@pytest.mark.parametrize("boundary", ["cylinder", "plane"])
def test_cases_solved_together_are_those_solved_one_by_one(boundary):
    """The path of a graphics card, on the processor."""
    pytest.importorskip("torch")
    together = solve_cases(group(boundary=boundary), [7, 8, 9], device="cpu")
    for seed, found in zip((7, 8, 9), together, strict=True):
        expected = draw_test_case(SHAPE, 3, seed=seed, buffer=2, boundary=boundary)
        for name, value in zip(ARRAYS, expected, strict=True):
            # half precision of the fields
            np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=2e-3)


def test_other_boundaries_are_refused_on_a_device():
    pytest.importorskip("torch")
    with pytest.raises(ParameterError, match="boundary is 'torus'"):
        solve_cases(CaseGroup((8, 8), 1, boundary="torus"), [1], device="cpu")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fresh_cases_depend_on_their_numbers_alone(device, monkeypatch):
    if device != "cpu":  # a card's solver, run on the processor
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch.Tensor, "to", lambda self, *_: self)
    fresh = FreshCases(group(1), 5, device=device)
    assert fresh.shape[0] > 10**18
    assert fresh.shape[1:] == (3, 9, 12)
    first, second, third = fresh.fetch([7, 10**17, 8])
    assert not np.array_equal(first["fields"], second["fields"])
    assert not np.array_equal(first["rho"], third["rho"])
    (again,) = FreshCases(group(1), 5).fetch([7])
    for name, value in again.items():
        np.testing.assert_allclose(first[name], value, rtol=2e-3, atol=2e-3)
    (other,) = FreshCases(group(1), 6).fetch([7])
    assert not np.array_equal(other["fields"], again["fields"])

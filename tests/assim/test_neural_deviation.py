"""A solver that tells the deviation of its errors, and one that reads times within a step."""

import dask
import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from tests.assim.test_neural_apply import (  # noqa: E402
    START,
    assimilate,
    make_gridded,
    make_sea,
    times_of,
)
from xr_spde.assim import load_solver  # noqa: E402
from xr_spde.assim.neural_ensemble import simulated_values  # noqa: E402
from xr_spde.assim.neural_solver import NeuralSolver  # noqa: E402
from xr_spde.assim.recalibration import recalibrate  # noqa: E402
from xr_spde.nets.variational import VariationalSolver  # noqa: E402

NET = {"hidden": 0, "iterations": 12, "nodes": 2, "refine": 6, "depth": 2, "deviation": True}


def make_model(steps=5, **options):
    torch.manual_seed(0)
    net = VariationalSolver(steps, **(NET | options)).eval()
    if net.options["refine"]:
        torch.nn.init.normal_(net.refine.last.weight, std=0.05)
    return NeuralSolver(net, scale=0.1, spacing=(11.0, 9.0), time_step=1.0, units="m", leads=2)


MODEL = make_model()


def test_the_deviation_is_that_of_the_solver_without_any_draw():
    like = make_sea()
    obs = make_gridded(like, 5)
    post = assimilate(obs, like=like, model=MODEL)
    sea = ~np.isnan(like.values)
    mask = np.isfinite(obs.values)[None] & sea
    given = (np.where(mask, obs.values / 0.1, 0.0), mask, np.where(mask, 0.09, 1.0), sea[None])
    mean, _, deviation = MODEL.estimate(*given)
    np.testing.assert_allclose(post["mean"].values[:, sea], 0.1 * mean[0][:, sea], atol=1e-6)
    np.testing.assert_allclose(post["std"].values[:, sea], 0.1 * deviation[0][:, sea], atol=1e-6)
    assert (post["std"].isnull() == like.isnull()).all()
    assert post["std"].attrs["units"] == "m"
    assert "linearity_defect" not in post
    assert post.attrs["xr_spde_spread"] == "learned"


@pytest.mark.parametrize("chunks", [{"time": 2}, {"lat": 13}])
def test_lazy_deviations_are_the_same(chunks):
    like = make_sea()
    obs = make_gridded(like, 9)
    eager = assimilate(obs, like=like, model=MODEL, n=2, seed=3)
    lazy = assimilate(obs.chunk(chunks), like=like, model=MODEL, n=2, seed=3)
    assert lazy["std"].chunks is not None
    with dask.config.set(scheduler="threads"):
        computed = lazy.compute()
    for name in ("mean", "std", "ensemble"):
        assert computed[name].equals(eager[name])


def test_members_are_brought_to_it_unless_they_are_wanted_as_they_are():
    like = make_sea()
    obs = make_gridded(like, 5)
    alone = assimilate(obs, like=like, model=MODEL)
    many = assimilate(obs, like=like, model=MODEL, n=20, seed=0)
    assert many["mean"].equals(alone["mean"])
    assert many["std"].equals(alone["std"])
    spread = np.sqrt(((many["ensemble"] - many["mean"]) ** 2).mean("realization"))
    # the deviation behind `std` of members divides by their number about a known mean
    xr.testing.assert_allclose(spread, many["std"], rtol=1e-5)
    raw = assimilate(obs, like=like, model=MODEL, n=20, seed=0, recalibrate=False)
    own = np.sqrt(((raw["ensemble"] - raw["mean"]) ** 2).mean("realization"))
    xr.testing.assert_allclose(own, raw["std"], rtol=1e-5)
    assert not np.allclose(raw["std"], many["std"], equal_nan=True)


def test_factors_are_on_the_deviation(tmp_path):
    like = make_sea()
    truth = make_gridded(like, 9, share=1.1, seed=1)
    obs = truth.where(np.random.default_rng(0).random(truth.shape) < 0.2)
    model = recalibrate(MODEL, truth, obs, method="coverage", like=like, obs_error=0.01)
    assert model.recalibration["members"] == 0
    before = assimilate(obs, like=like, model=model, recalibrate=False, obs_error=0.01)
    after = assimilate(obs, like=like, model=model, obs_error=0.01)
    factor = model.recalibration["factors"]["mapping"]
    xr.testing.assert_allclose(after["std"], factor * before["std"], rtol=1e-6)
    inside = np.abs(after["mean"] - truth) <= 1.6449 * after["std"]
    assert float(inside.where(like.notnull()).mean()) == pytest.approx(0.9, abs=0.01)
    model.save(tmp_path / "m.safetensors")
    again = load_solver(tmp_path / "m.safetensors")
    assert assimilate(obs, like=like, model=again, obs_error=0.01)["std"].equals(after["std"])
    assert "learned" in repr(again)


def rising(times):
    """Error of the maps of a field that rises evenly, from points at any hour."""
    model = make_model(times=times, refine=0, deviation=False, iterations=150)
    like = make_sea().fillna(0.0)
    rng = np.random.default_rng(0)
    days = rng.uniform(0.5, 3.5, 8000)
    coords = {"lat": ("obs", rng.uniform(35.0, 38.9, days.size)),
              "lon": ("obs", rng.uniform(3.0, 7.9, days.size)),
              "time": ("obs", START + (days * 86400e9).astype("timedelta64[ns]"))}  # fmt: skip
    points = xr.DataArray(0.1 * (days - 2.0), coords, "obs", "sla", {"units": "m"})
    post = assimilate(points, like=like, times=times_of(5), model=model, obs_error=0.002)
    found = post["mean"].isel(lat=slice(6, -6), lon=slice(6, -6), time=slice(1, 4))
    wanted = xr.DataArray(0.1 * (np.arange(1, 4) - 2.0), dims="time")
    return float(np.sqrt(((found - wanted) ** 2).mean()))


def test_points_count_at_their_times_where_the_solver_reads_them():
    assert rising(times=True) < 0.5 * rising(times=False)


def test_draws_are_seen_at_the_times_of_the_points():
    fields = np.arange(4.0)[None, :, None, None] * np.ones((2, 4, 3, 3))
    offset = np.full((4, 3, 3), -0.25)
    mask = np.ones(offset.shape, dtype=bool)
    found = simulated_values(fields, 0.0 * fields, mask, 1.0 + 0.0 * offset, offset)
    np.testing.assert_allclose(found[0, :, 0, 0], [0.0, 0.75, 1.75, 2.75])

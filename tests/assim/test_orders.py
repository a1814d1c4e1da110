"""Order of tasks and methods on a turbulent sea, with the weights of the package (check D5)."""

import dask
import numpy as np
import pytest
import xarray as xr

import xr_spde

pytest.importorskip("torch")

pytestmark = pytest.mark.long

NADIRS = ["topex", "jason", "gfo", "envisat"]
PRIOR = {"length": 80.0, "decay_time": 230.0, "std": 0.2}
DAYS = slice(9, 28, 2)
INNER = {"lat": slice(4, -4), "lon": slice(4, -4)}


@pytest.fixture(scope="module")
def experiment():
    truth = xr_spde.synthetic.turbulent_sea((48, 48), days=32, seed=31)
    # every other second, so that the dense algebra of the Gaussian covariance takes seconds
    tracks = truth.assim.simulate_tracks(NADIRS, noise=0.025, seed=0, every=2.0)
    return truth.astype(float), tracks


@pytest.fixture(scope="module")
def neural(experiment):
    """Maps of some days by lead, as users get them: only windows of these days are computed."""
    truth, tracks = experiment
    guess = xr.zeros_like(truth).chunk(time=1)
    model = xr_spde.assim.load_solver("sea-level")
    with dask.config.set(scheduler="synchronous"):
        return {
            lead: guess.assim.assimilate(tracks, model=model, lead=lead,
                                         unusable="drop")[["mean", "std"]]
            .isel(time=DAYS).compute()
            for lead in (None, 0, 2, 4)
        }  # fmt: skip


def mu(mean, truth):
    mean = mean.isel(time=mean.time.isin(truth.time[DAYS])).dropna("time", how="all")
    right = truth.sel(time=mean.time).isel(INNER)
    error = mean.isel(INNER) - right
    return 1.0 - float(np.sqrt((error**2).mean() / (right**2).mean()))


def test_order_of_tasks(experiment, neural):
    truth, _ = experiment
    found = [mu(maps["mean"], truth) for maps in neural.values()]
    spread = [float((maps["std"].isel(INNER) ** 2).mean()) for maps in neural.values()]
    assert found == sorted(found, reverse=True)
    assert spread == sorted(spread)


def test_order_of_methods(experiment, neural):
    truth, tracks = experiment
    small = xr.zeros_like(truth.coarsen(lat=2, lon=2).mean())
    plane = small[0].drop_vars("time").drop_attrs()
    prior = xr.Dataset({k: xr.full_like(plane, v) for k, v in PRIOR.items()})
    settings = {"unusable": "drop", "draws": 0}
    prior = prior.assign_attrs(time_step=1.0, alpha=4)
    maps = {
        "SPDE": small.assim.assimilate(tracks, prior=prior, **settings),
        "Gaussian": small.assim.assimilate(tracks, method="oi-gaussian", lx=1.0, ly=1.0, lt=7.0,
                                           std=0.2, **settings),
    }  # fmt: skip
    found = {name: mu(one["mean"].interp_like(truth), truth) for name, one in maps.items()}
    found["neural"] = mu(neural[None]["mean"], truth)
    before = neural[0]["mean"].shift(time=2)  # an analysis four days old
    found["persistence"] = mu(before, truth)
    assert min(found[name] for name in ("SPDE", "Gaussian", "neural")) > found["persistence"], found


def test_spread_tells_of_errors(experiment, neural):
    truth, _ = experiment
    for lead, maps in neural.items():
        right = truth.sel(time=maps.time).isel(INNER)
        sure = maps[["mean", "std"]].isel(INNER).assim.score(right, uncertainty=True)
        assert float(sure.correlation_pearson.mean()) > 0.2, lead

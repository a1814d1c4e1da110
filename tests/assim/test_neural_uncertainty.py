"""From gridded observations to scores of an ensemble, with a network and its own prior.

The network is not trained: eight iterations of conjugate gradients, near the exact interpolation.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import assimilate
from xr_spde.assim.neural_solver import NeuralSolver
from xr_spde.assim.recalibration import recalibrate
from xr_spde.fields.prior_draws import draw_prior, observation_noise

pytest.importorskip("torch")

N, STEPS, NOISE = 20, 5, np.sqrt(1e-3)


def world(entropy, count, start):
    """A Gaussian world with an island, seen along diagonal tracks with errors."""
    theta = np.zeros((8, 1, N, N)) + np.array([0.33, 1, 0, 0, 0, 0, 1, 0])[:, None, None, None]
    sea = np.ones((N, N), dtype=bool)
    sea[10:14, 3:9] = False
    field, _ = draw_prior(theta, sea=sea, members=[0], first=0, steps=count, entropy=entropy)
    y, x = np.indices((N, N))
    seen = np.stack([((x - y - 5 * t) % N < 2) | ((x + y - 5 * t) % N < 2) for t in range(count)])
    errors = NOISE * observation_noise(entropy, [0], 0, count, (N, N))[0]
    coords = {"time": np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(1, "D"),
              "y": ("y", np.arange(N) * 1e4, {"units": "m"}),
              "x": ("x", np.arange(N) * 1e4, {"units": "m"})}  # fmt: skip
    truth = xr.DataArray(np.where(sea, field[0], np.nan), coords, ("time", "y", "x"))
    return truth, truth.where(seen) + errors


def solver(tau=1.0):
    from xr_spde.nets.variational import VariationalSolver

    net = VariationalSolver(STEPS, iterations=8, hidden=4, theta={"kappa": 0.33, "tau": tau})
    return NeuralSolver(net.eval(), 1.0, (10.0, 10.0), 1.0, leads=2)


@pytest.mark.slow
def test_the_spread_is_that_of_the_errors():
    """Coverage of 90 % in [0.85, 0.95], and the daily correlation that such a spread can have."""
    truth, seen = world(3, 24, "2013-03-01")
    settings = {"model": solver(), "like": truth[0], "draws": 30, "obs_error": NOISE, "seed": 1}
    rmse, spread = [], []
    for lead in (None, 2):
        maps = assimilate(seen, lead=lead, **settings)
        found = maps.assim.score(truth, uncertainty=True)
        assert 0.85 < found.coverage.sel(level=0.9) < 0.95
        assert 0.9 < found.spread_skill < 1.1
        expected = found.correlation_expected.mean()
        assert expected > 0.25
        assert abs(found.correlation_pearson.mean() - expected) < 0.1
        assert found.crps_skill.sel(reference="constant") > 0.0
        assert 0.0 < float(maps["linearity_defect"].mean()) < 0.3
        rmse.append(float(found.rmse))
        spread.append(float(found.spread))
    assert rmse[0] < rmse[1]
    assert spread[0] < spread[1]


@pytest.mark.slow
def test_a_prior_that_is_wrong_is_recalibrated():
    truth, seen = world(3, 16, "2013-03-01")
    other, seen_before = world(4, 16, "2013-01-01")
    model = solver(tau=0.5)
    settings = {"obs_error": NOISE}
    better = recalibrate(model, other, seen_before, leads=(None, 2), members=20, method="coverage",
                         test_period=("2013-03-01", "2013-03-16"), **settings)  # fmt: skip
    assert better.recalibration["period"] == ["2013-01-01", "2013-01-16"]
    shared = {"like": truth[0], "draws": 20, "n": 20, "seed": 2, **settings}
    for lead in (None, 2):
        found = {
            name: assimilate(seen, lead=lead, model=one, **shared).assim.score(
                truth, uncertainty=True
            )
            for name, one in (("plain", model), ("better", better))
        }
        assert found["plain"].coverage.sel(level=0.9) < 0.8
        assert 0.85 < found["better"].coverage.sel(level=0.9) < 0.95
        assert found["better"].crps < found["plain"].crps
        assert found["better"].rank_flatness < found["plain"].rank_flatness
    plain = assimilate(seen, model=better, recalibrate=False, **shared)
    scaled = assimilate(seen, model=better, **shared)
    factor = better.recalibration["factors"]["mapping"]
    np.testing.assert_allclose(scaled["std"], factor * plain["std"], rtol=1e-6)
    assert scaled.attrs["xr_spde_recalibrated"] == factor

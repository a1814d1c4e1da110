"""The solver of sea level that comes with the package."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.assim import load_solver  # noqa: E402
from xr_spde.assim.neural_priors import draw_field  # noqa: E402
from xr_spde.nets.variational_window import Window  # noqa: E402

SIZE, SHARE, ERROR = 48, 0.06, 0.1


@pytest.fixture(scope="module")
def shipped():
    return load_solver("sea-level")


def windows(model, length, decay, count=4):
    """Draws of a prior that no training has seen, a few cells of them observed."""
    rng, kappa = np.random.default_rng(0), decay**-0.25
    theta = {"kappa": kappa, "gamma": (length * kappa) ** 2, "u": 0.0, "v": 0.0, "v1": 1.0,
             "v2": 0.0, "beta": 0.0}  # fmt: skip
    wide = [draw_field(theta, model.steps, (96, 96), rng)[:, :SIZE, :SIZE] for _ in range(count)]
    truth = torch.from_numpy(np.stack(wide)).float()
    noise = ERROR * torch.from_numpy(rng.standard_normal(truth.shape)).float()
    mask = torch.from_numpy(rng.random(truth.shape) < SHARE)
    sea = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    return Window(truth + noise, mask, torch.full_like(truth, ERROR**2), sea), truth


def test_it_says_where_it_comes_from(shipped):
    assert {"data", "seed", "command", "scores", "machine"} <= set(shipped.card)
    assert shipped.tasks == ("mapping", "nrt", "forecast")
    assert shipped.scaling == "observations"
    assert shipped.time_step == 1.0
    scores = shipped.card["scores"]
    assert scores["mapping"] < scores["nrt"] < scores["lead1"] < scores["lead4"] < 0.6


@pytest.mark.parametrize(("length", "decay"), [(3.0, 8.0), (5.0, 15.0), (8.0, 30.0)])
def test_it_explains_most_of_fields_it_never_saw(shipped, length, decay):
    window, truth = windows(shipped, length, decay)
    with torch.no_grad():
        assert float((shipped.solver(window) - truth).square().mean()) < 0.35


def test_less_is_known_of_days_that_are_not_observed(shipped):
    window, truth = windows(shipped, 5.0, 40.0)
    errors = []
    for hidden in (0, 2, 4):
        mask = window.mask.clone()
        mask[:, window.shape[1] - hidden :] = False
        with torch.no_grad():
            found = shipped.solver(Window(window.obs, mask, window.variance, window.sea))
        errors.append(float((found - truth)[:, -1].square().mean()))
    assert errors[0] < errors[1] < errors[2] < 1.0

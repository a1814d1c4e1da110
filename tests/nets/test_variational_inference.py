"""A variational solver on arrays: one thread, gaps, land, and what a network of parameters adds."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.errors import ParameterError, SolverError  # noqa: E402
from xr_spde.nets.variational import VariationalSolver  # noqa: E402
from xr_spde.nets.variational_inference import run_window  # noqa: E402

SHAPE = (2, 4, 10, 12)


def cases(seed=0):
    rng = np.random.default_rng(seed)
    obs = rng.standard_normal(SHAPE)
    mask = rng.random(SHAPE) < 0.3
    sea = np.ones((2, 10, 12), bool)
    sea[:, :3, :4] = False
    return obs, mask, np.full(SHAPE, 0.01), sea


def make_solver(**options):
    torch.manual_seed(0)
    return VariationalSolver(4, iterations=3, hidden=6, **options)


@pytest.mark.parametrize("prior", ["spde", "auto-encoder"])
def test_values_where_nothing_is_observed_never_matter(prior):
    obs, mask, variance, sea = cases()
    solver = make_solver(prior=prior, coarsen=2)
    clean, none, _ = run_window(solver, None, obs, mask, variance, sea)
    seen = mask & sea[:, None]
    dirty = run_window(solver, None, np.where(seen, obs, np.nan), mask,
                       np.where(seen, variance, -1.0), sea)[0]  # fmt: skip
    assert none is None
    assert clean.dtype == np.float32
    assert np.isfinite(clean).all()
    assert (clean == dirty).all()


def test_threads_and_graphs_are_left_as_they_were():
    before = torch.get_num_threads()
    solver = make_solver()
    run_window(solver, None, *cases())
    assert torch.get_num_threads() == before
    assert all(p.grad is None for p in solver.parameters())


class Theta(torch.nn.Module):
    """Parameters that say what the mean was."""

    def forward(self, window, mean):
        return mean.mean(1)[:, None, None].expand(-1, 8, 1, -1, -1).abs() + 0.5


def test_parameters_come_from_the_mean_and_are_skipped_when_not_wanted():
    given = cases()
    solver = make_solver()
    mean, theta, _ = run_window(solver, Theta(), *given)
    assert theta.shape == (2, 8, 1, 10, 12)
    np.testing.assert_allclose(theta[:, 0, 0], np.abs(mean.mean(1)) + 0.5, rtol=1e-6)
    alone, none, _ = run_window(solver, Theta(), *given, parameters=False)
    assert none is None
    assert (alone == mean).all()
    again, kept, _ = run_window(solver, Theta(), *given, theta)
    assert (kept == theta).all()
    assert (again == mean).all()  # this solver does not read parameters


def test_what_is_beyond_single_precision_is_refused():
    """Errors of a tenth of a millionth of the anomalies are the least that change anything."""
    obs, mask, variance, sea = cases()
    solver = make_solver()
    first, second = (run_window(solver, None, obs, mask, c * variance, sea)[0]
                     for c in (1e-10, 1e-11))  # fmt: skip
    np.testing.assert_allclose(first, second, atol=1e-4)
    with pytest.raises(ParameterError, match="from 1e-16 in units of the scale"):
        run_window(solver, None, obs, mask, 1e-14 * variance, sea)
    with pytest.raises(SolverError, match="not finite; it was given anomalies up to"):
        run_window(solver, None, np.full(SHAPE, 1e38), mask, variance, sea)

"""Windows whose iterations are done once: the same windows, and what is learned from them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde._core.errors import ParameterError  # noqa: E402
from xr_spde.nets.refinement_training import Searched, search_windows  # noqa: E402
from xr_spde.nets.theta_solver import ThetaSolver  # noqa: E402
from xr_spde.nets.variational import VariationalSolver  # noqa: E402
from xr_spde.nets.variational_losses import deviation_loss  # noqa: E402
from xr_spde.nets.variational_training import Objective, Solvers, loss_of  # noqa: E402
from xr_spde.nets.variational_windows import Sample, WindowBatches, stacked  # noqa: E402

STEPS, SIDE = 4, 12


class Series:
    """Waves that are observed here and there."""

    shape = (SIDE, SIDE)

    def cut(self, place, rng):
        t, y, x = np.meshgrid(np.arange(STEPS), np.arange(SIDE), np.arange(SIDE), indexing="ij")
        truth = np.sin(0.5 * x + 0.3 * y + 0.2 * t + rng.uniform(0, 6))
        mask = rng.random(truth.shape) < 0.2
        noise = 0.1 * rng.standard_normal(truth.shape)
        offset = np.where(mask, rng.uniform(-0.5, 0.5, truth.shape), 0.0)
        return Sample(np.where(mask, truth + noise, 0.0), mask, np.full(truth.shape, 0.01), truth,
                      np.ones(self.shape, dtype=bool), offset)  # fmt: skip


def batches(augment=()):
    return WindowBatches([Series()], [(0, 40)], [1.0], steps=STEPS, patch=SIDE, batch=3,
                         hidden={0: 0.5, 1: 0.5}, augment=augment, seed=4)  # fmt: skip


def solver(**more):
    torch.manual_seed(0)
    options = {"hidden": 0, "iterations": 6, "nodes": 2, "times": True, "refine": 8, "depth": 2}
    return VariationalSolver(STEPS, **(options | {"deviation": True} | more))


def test_kept_windows_give_what_the_whole_solver_gives(tmp_path):
    net = solver()
    torch.nn.init.normal_(net.refine.last.weight, std=0.1)
    kept = search_windows(net, batches(), 6, tmp_path)
    assert len(kept.windows) == 6
    numbers = []
    for step in range(2):
        searched, truth = kept[step]
        assert isinstance(searched, Searched)
        mean, deviation = net.refined(net.problem(searched.window), searched.x)
        whole, told = net.estimate(searched.window)
        # fields are kept in half precision
        assert torch.allclose(mean, whole, atol=5e-3)
        assert torch.allclose(deviation, told, rtol=2e-2)
        numbers += [k for one in truth.numpy() for k in range(6)
                    if np.allclose(one, kept.windows[k]["truth"], atol=1e-3)]  # fmt: skip
    assert sorted(numbers) == list(range(6))  # each once before any twice


def test_an_interrupted_search_goes_on_and_is_the_same(tmp_path):
    first = search_windows(solver(), batches(), 5, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    made = path.stat().st_mtime_ns
    second = search_windows(solver(), batches(), 5, tmp_path)
    assert path.stat().st_mtime_ns == made  # nothing was done twice
    for one, other in zip(first.windows, second.windows, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])
    # a last file with fewer windows than are wanted now is made again
    assert len(search_windows(solver(), batches(), 8, tmp_path).windows) == 8


def test_windows_of_other_settings_are_refused(tmp_path):
    search_windows(solver(), batches(), 3, tmp_path)
    with pytest.raises(ParameterError, match=r"x differs"):
        search_windows(solver(iterations=1), batches(), 3, tmp_path)
    other = batches()
    other.seed += 1
    with pytest.raises(ParameterError, match="other data, settings or weights"):
        search_windows(solver(), other, 3, tmp_path)


def test_squares_that_are_cut_short_are_not_turned(tmp_path):
    # nine rows in squares of four are three of nodes, which divide nine
    low = WindowBatches([Series()], [(0, 40)], [1.0], steps=STEPS, patch=9, batch=3,
                        hidden={0: 1.0}, augment=("mirror",), seed=4)  # fmt: skip
    whole = low.sources[0].cut
    low.sources[0].cut = lambda place, rng: whole(place, rng).mapped(lambda a: a[..., :9, :9])
    assert not search_windows(solver(nodes=4), low, 2, tmp_path).mirror


def test_the_deviation_is_learned_together_with_parameters():
    net, theta = solver(), ThetaSolver(STEPS, iterations=1, hidden=4)
    both = Solvers(net, theta)
    window, truth = batches()[0]
    loss_of(Objective(likelihood=0.0))(both, window, truth).backward()
    told = net.refine.last.bias.grad.reshape(2, -1)
    assert (told.abs().amax(1) > 0.0).all()


def test_without_a_truth_nodes_learn_too():
    net = solver(deviation=False)
    window, truth = batches()[0]
    value = loss_of(Objective(loss="unsupervised"))(net, window, truth)
    value.backward()
    with torch.no_grad():
        cells = net.cost(net(window), window).log().mean()
    assert float(value.detach()) == pytest.approx(float(cells), rel=1e-5)
    assert float(net.refine.last.bias.grad.abs().max()) > 0.0


def test_turned_windows_are_windows_of_the_turned_sea(tmp_path):
    kept = search_windows(solver(), batches(("mirror",)), 6, tmp_path)
    plain = search_windows(solver(), batches(("mirror",)), 6, tmp_path)
    plain.mirror = False
    turned = 0
    for step in range(4):
        (one, truth), (other, right) = kept[step], plain[step]
        for b in range(3):
            if torch.equal(truth[b], right[b]):
                continue
            turned += 1
            for name in ("obs", "offset"):
                sign = -1.0 if name == "obs" else 1.0
                values, wanted = getattr(one.window, name)[b], getattr(other.window, name)[b]
                assert torch.equal(values, sign * wanted.flip(-2))
            assert torch.equal(one.x[b], -other.x[b].flip(-2))
            assert torch.equal(truth[b], -right[b].flip(-2))
    assert 0 < turned < 12


def test_the_network_after_the_iterations_learns_and_its_deviation_too(tmp_path):
    net = solver(refine=16)
    kept = search_windows(net, batches(), 240, tmp_path)
    loss = loss_of(Objective(gradient=0.0, deviation=0.05))
    optimizer = torch.optim.Adam(net.refine.parameters(), lr=5e-3)
    for step in range(160):
        value = loss(net, *kept[step])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    window, truth = stacked([batches().sample(100, k) for k in range(8)])
    with torch.no_grad():
        problem, x = net.searched(window)
        mean, deviation = net.refined(problem, x)
    error, before = mean - truth, problem.cells(x) - truth
    assert error.square().mean() < 0.7 * before.square().mean()
    within = (error.abs() < 1.645 * deviation).float().mean()
    assert 0.75 < float(within) < 0.98


def test_the_likelihood_of_errors_is_least_at_their_size():
    torch.manual_seed(1)
    error = 0.3 * torch.randn(2, 3, 40, 40)
    weights = torch.ones_like(error)
    values = [float(deviation_loss(error, torch.full_like(error, s), weights))
              for s in (0.2, 0.3, 0.45)]  # fmt: skip
    assert values[1] < min(values[0], values[2])
    assert values[1] == pytest.approx(np.log(0.3) + 0.5, abs=0.02)
    error[0, 0] = torch.nan  # no truth, nothing asked
    assert np.isfinite(float(deviation_loss(error, torch.full_like(error, 0.3), weights)))

"""Observation operators between nodes and steps, against dense algebra and known fields."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from xr_spde._core.errors import ParameterError  # noqa: E402
from xr_spde.nets.observing import Observing, between  # noqa: E402
from xr_spde.nets.stationary import constant_theta  # noqa: E402
from xr_spde.nets.variational import VariationalSolver  # noqa: E402
from xr_spde.nets.variational_cost import Problem  # noqa: E402
from xr_spde.nets.variational_window import Window  # noqa: E402


def window(shape=(1, 4, 9, 11), *, land=True, offset=True, seed=0):
    rng = np.random.default_rng(seed)
    sea = np.ones((shape[0], *shape[2:]), dtype=bool)
    if land:
        sea[:, :3, :4] = False
    mask = (rng.random(shape) < 0.4) & sea[:, None]
    late = rng.uniform(-0.5, 0.5, shape)
    arrays = (rng.standard_normal(shape), mask, rng.uniform(0.01, 0.5, shape), sea)
    return Window(*map(torch.from_numpy, arrays), torch.from_numpy(late) if offset else None)


@given(cells=st.integers(1, 40), size=st.integers(1, 5), periodic=st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_sum_to_one_and_nodes_are_kept(cells, size, periodic):
    rows = between(cells, size, periodic and cells % size == 0)
    assert torch.allclose(rows.sum(1), torch.ones(cells, dtype=rows.dtype))
    if size % 2 and cells % size == 0:  # nodes are cells
        nodes = rows[size // 2 :: size]
        assert torch.allclose(nodes, torch.eye(len(nodes), dtype=rows.dtype))


def test_parabolas_are_interpolated_exactly_inside():
    rows = between(40, 2).numpy()
    x = np.arange(20) * 2.0 + 0.5
    cells = np.arange(40.0)
    inside = slice(4, -4)
    for power in (1, 2):
        np.testing.assert_allclose((rows @ x**power)[inside], cells[inside] ** power, atol=1e-9)


def test_a_closed_axis_has_no_seam():
    wave = np.cos(2 * np.pi * (np.arange(20) * 2 + 0.5) / 40)
    cells = np.cos(2 * np.pi * np.arange(40) / 40)
    np.testing.assert_allclose(between(40, 2, periodic=True).numpy() @ wave, cells, atol=2e-3)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
def test_the_adjoint_is_that_of_the_operator(size, boundary):
    one = window()
    coarse = one.coarsened(size)
    observing = Observing(one, size, coarse.sea[:, None].double(), boundary)
    x = torch.randn(1, 4, *coarse.sea.shape[1:], dtype=torch.float64)
    y = torch.randn(1, 4, 9, 11, dtype=torch.float64)
    assert float((observing(x) * y).sum()) == pytest.approx(float((x * observing.adjoint(y)).sum()))


def test_times_between_steps_are_linear_and_land_says_nothing():
    one = window(land=True)
    sea = one.coarsened(2).sea[:, None].double()
    observing = Observing(one, 2, sea, "neumann")
    rising = torch.arange(4.0, dtype=torch.float64)[None, :, None, None] * sea
    found = observing(torch.where(sea > 0, rising, torch.nan).nan_to_num(1e6) * sea)
    wanted = torch.arange(4.0, dtype=torch.float64)[None, :, None, None] + one.offset
    inner = one.mask.clone()
    inner[:, [0, -1]] = False  # beyond the window nothing changes
    inner[:, :, :5, :6] = False  # next to land a share of nodes is missing
    assert torch.allclose(found[inner], wanted[inner])


def dense(problem, shape):
    """Matrix of the observation operator."""
    n = int(np.prod(shape))
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    return torch.stack([problem.observe(column[None])[0].ravel() for column in eye], 1)


@pytest.mark.parametrize("size", [1, 2])
def test_the_cost_at_nodes_is_that_of_dense_algebra(size):
    one = window((1, 3, 8, 9))
    theta = constant_theta({"kappa": 0.5, "tau": 0.7, "gamma": 0.9})
    problem = Problem(one, None, theta, alpha=4, boundary="neumann", spde=True, nodes=size,
                      representation=0.2)  # fmt: skip
    shape = (3, *problem.window.sea.shape[1:])
    x = torch.randn(1, *shape, dtype=torch.float64) * problem.sea
    h = dense(problem, shape)
    weight = (one.mask / (one.variance + 0.04)).ravel()
    left = one.obs.ravel() - h @ x.ravel()
    prior = (x * problem.prior_product(x)).sum()
    assert float(problem.cost(x)) == pytest.approx(float((weight * left**2).sum() + prior))
    slope = -(h.T @ (weight * left)).reshape(1, *shape) + problem.prior_product(x)
    assert torch.allclose(problem.gradient(x, create_graph=False), problem.sea * slope)


def test_parameters_at_nodes_are_those_of_the_same_field():
    """A prior at nodes two cells apart has the variance and length of that at cells."""
    one = window((1, 3, 40, 40), land=False)
    theta = constant_theta({"kappa": 0.4, "tau": 0.9, "gamma": 4.0})
    fine, coarse = (
        Problem(one, None, theta, alpha=4, boundary="neumann", spde=True, nodes=n) for n in (1, 2)
    )
    given = float(fine.spread_variance())
    assert float(coarse.spread_variance()) == pytest.approx(given, rel=0.03)
    point = torch.zeros(1, 3, 40, 40, dtype=torch.float64)
    point[0, 1, 20:22, 20:22] = 0.25
    wide = fine.spread(point)[0, 1, 20, 20:]
    node = torch.zeros(1, 3, 20, 20, dtype=torch.float64)
    node[0, 1, 10, 10] = 1.0
    half = coarse.spread(node)[0, 1, 10, 10:]
    pairs = 0.5 * (wide[0::2] + wide[1::2])
    assert torch.allclose(half[:6], pairs[:6].to(half.dtype), rtol=0.05, atol=0.02 * given)


@pytest.mark.parametrize("nodes", [1, 2])
def test_iterations_reach_the_minimum_of_dense_algebra(nodes):
    one = window((1, 3, 8, 10), land=True, seed=3)
    theta = {"kappa": 0.5, "tau": 0.7, "gamma": 0.9}
    solver = VariationalSolver(3, iterations=60, hidden=4, theta=theta, nodes=nodes, times=True)
    torch.nn.init.zeros_(solver.lstm.head.weight)
    with torch.no_grad():
        problem, x = solver.double().searched(one)
    h, shape = dense(problem, x.shape[1:]), x.shape[1:]
    sea = problem.sea.expand_as(x).ravel() > 0
    eye = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *shape)
    q = torch.stack([problem.prior_product(e[None]).ravel() for e in eye], 1)
    weight = (one.mask / one.variance).ravel()
    a = q + h.T @ (weight[:, None] * h)
    wanted = torch.zeros(x.numel(), dtype=torch.float64)
    right = h.T @ (weight * one.obs.ravel())
    wanted[sea] = torch.linalg.solve(a[sea][:, sea], right[sea])
    assert torch.allclose(x.ravel(), wanted, atol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ParameterError, match="refine="):
        VariationalSolver(3, deviation=True)
    with pytest.raises(ParameterError, match='prior="spde"'):
        VariationalSolver(3, prior="both", nodes=2)
    with pytest.raises(ParameterError, match="nodes=0"):
        VariationalSolver(3, nodes=0)
    one = window()
    with pytest.raises(ParameterError, match="offset is"):
        Window(one.obs, one.mask, one.variance, one.sea, one.obs[:, :2])
    with pytest.raises(ParameterError, match="more than a step"):
        Window(one.obs, one.mask, one.variance, one.sea, 3.0 + torch.zeros_like(one.obs))


@pytest.mark.parametrize(("cycle", "wanted"), [(None, [1, 2, 4, 8, 16]), (4, [1, 2, 4, 8, 1])])
def test_reaches_double_and_begin_anew_where_asked(cycle, wanted):
    """Weights that were trained with one reach must be used with it."""
    solver = VariationalSolver(3, refine=4, depth=5, cycle=cycle)
    assert [layer.dilation[0] for layer in solver.refine.layers] == wanted

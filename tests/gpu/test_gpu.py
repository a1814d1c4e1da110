"""The same figures on a graphics card; skipped where cupy finds none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.device import card_count
from xr_spde._core.errors import MemoryGuardError, SolverError
from xr_spde._core.options import set_options
from xr_spde.fields.exact import ExactLikelihood
from xr_spde.fields.exact_windows import WindowedLikelihood
from xr_spde.fields.field import GaussianField
from xr_spde.fields.sar import operator, tensor, weights
from xr_spde.sar import emulate, estimate
from xr_spde.sar.statistics import LagSums
from xr_spde.solvers.choose import choose
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.multigrid import MultigridFactor

cupy = pytest.importorskip("cupy")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(card_count() == 0, reason="cupy reports no graphics card"),
]

SHAPE = (96, 144)


def varied(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(1e-2), np.log(2.0), SHAPE))
    return [kappa2, rng.uniform(1, 5, SHAPE), rng.uniform(-1.5, 1.5, SHAPE)]


@pytest.mark.parametrize("boundary", ["cylinder", "plane", "torus"])
def test_solutions_and_selected_inverses(boundary):
    matrix = operator(*varied(), boundary=boundary)
    settings = {"shape": SHAPE, "boundary": boundary}
    ours, there = GridFactor(matrix, **settings), GridFactor(matrix, **settings, xp=cupy)
    b = np.random.default_rng(0).standard_normal((ours.n, 300))
    np.testing.assert_allclose(there.solve(cupy.asarray(b)).get(), ours.solve(b), atol=1e-9)
    np.testing.assert_allclose(there.solve_transposed(b), ours.solve_transposed(b), atol=1e-9)
    assert there.logdet() == pytest.approx(ours.logdet(), rel=1e-12)
    for name in ("inverse_diagonal", "gram_inverse_diagonal"):
        np.testing.assert_allclose(getattr(there, name)(), getattr(ours, name)(), rtol=1e-9)
    found, expected = (held.inverse_on_pattern(transposed=True).data for held in (there, ours))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_positive_definite():
    matrix = operator(*varied(1), boundary="cylinder")
    matrix = (matrix.T @ matrix).tocsc()
    settings = {"shape": SHAPE, "boundary": "cylinder", "reach": 2, "symmetric": True}
    ours, there = GridFactor(matrix, **settings), GridFactor(matrix, **settings, xp=cupy)
    b = np.random.default_rng(0).standard_normal((ours.n, 9))
    np.testing.assert_allclose(there.solve(b), ours.solve(b), atol=1e-8)
    with pytest.raises(SolverError):
        GridFactor(-matrix, **settings, xp=cupy)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_members_are_those_of_the_processor(dtype):
    maps = zip(("kappa2", "rho", "theta"), varied(2), strict=True)
    params = xr.Dataset({name: (("y", "x"), values) for name, values in maps})
    members = {}
    for device in ("cuda", "cpu"):
        with set_options(device=device):
            members[device] = emulate(params, 40, seed=3, dtype=dtype)
        assert members[device].attrs["xr_spde_device"] == device
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(members["cuda"], members["cpu"], atol=tolerance)
    with set_options(device="cuda"):
        again = emulate(params, 40, seed=3, dtype=dtype, chunks=7)
    np.testing.assert_array_equal(again, members["cuda"])


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_likelihood_and_its_slope_are_those_of_the_processor(noise):
    rng = np.random.default_rng(3)
    fields = rng.standard_normal((4, *SHAPE))
    fields[1:, 20:30, 40:60] = np.nan
    kappa2, rho, theta = varied(4)
    q, log_d = np.stack([kappa2, *tensor(rho, theta)]), rng.uniform(-1, 1, SHAPE)
    found = {}
    for device in ("cuda", "cpu"):
        with set_options(device=device):
            likelihood = ExactLikelihood(fields, "cylinder", rim=4)
            found[device] = likelihood.value_and_slope(q, log_d, noise)
    for there, here in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-8, atol=1e-8 * np.abs(here).max())


@pytest.mark.parametrize("boundary", ["cylinder", "plane", "torus", "paper"])
def test_multigrid(boundary):
    table = weights(*varied(5))
    settings = {"boundary": boundary, "coarsest": 500, "tol": 1e-10}
    ours, there = MultigridFactor(table, **settings), MultigridFactor(table, **settings, xp=cupy)
    b = np.random.default_rng(0).standard_normal((ours.n, 3))
    scale = np.abs(ours.solve(b)).max()
    for rhs in (b, b[:, 0].copy()):
        np.testing.assert_allclose(there.solve(rhs), ours.solve(rhs), atol=1e-8 * scale)
    np.testing.assert_array_equal(there.solve(b[:, 1:2])[:, 0], there.solve(b)[:, 1])
    found = there.solve(cupy.asarray(b))
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_allclose(found.get(), ours.solve(b), atol=1e-8 * scale)
    found = there.solve_transposed(b)
    np.testing.assert_allclose(found, ours.solve_transposed(b), atol=1e-8 * scale)


@pytest.mark.parametrize("gaps", [False, True])
def test_lag_products(gaps):
    fields = np.random.default_rng(6).standard_normal((5, *SHAPE))
    if gaps:
        fields[1:, 20:30, 40:60] = np.nan
    ours, there = (LagSums(SHAPE, periodic=True, device=one) for one in ("cpu", "cuda"))
    for field in fields:
        ours.add(field)
        there.add(field)
    for name in ("covariance", "pairs", "mean", "variance", "seen"):
        found, expected = (getattr(sums.finish(), name) for sums in (there, ours))
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["whittle", "mle"])
def test_estimates_are_those_of_the_processor(method):
    maps = [np.full((32, 48), value) for value in (0.3, 2.0, 0.5)]
    model = GaussianField(*maps, boundary="plane", buffer=10)
    noise = np.random.default_rng(7).standard_normal((8, model.size))
    data = xr.DataArray(model.sample(noise), dims=("member", "y", "x")).chunk(member=3)
    settings = {"method": method, "modes": 0, "dilation": 1, "buffer": 4, "penalty": 30.0}
    found = {}
    for device in ("cuda", "cpu"):
        with set_options(device=device):
            found[device] = estimate(data, "member", **settings).compute()
    for name in ("kappa2", "rho", "std"):
        np.testing.assert_allclose(found["cuda"][name], found["cpu"][name], rtol=1e-3)


def test_the_likelihood_of_windows_is_that_of_the_processor():
    fields = np.random.default_rng(8).standard_normal((3, *SHAPE))
    fields[:, 20:50, 40:60] = np.nan
    q, log_d = np.stack([np.full(SHAPE, 0.4), *tensor(np.full(SHAPE, 2.0), 0.3)]), np.zeros(SHAPE)
    found = {}
    for device in ("cuda", "cpu"):
        with set_options(device=device):
            cut = WindowedLikelihood(fields, "plane", rim=4, overlap=16, tile=32)
            found[device] = cut.value_and_slope(q, log_d)
    for there, here in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-8, atol=1e-8 * np.abs(here).max())


def test_singular_matrices_are_refused():
    maps = np.full((32, 32), 1e-17), np.ones((32, 32)), np.zeros((32, 32))
    with set_options(device="cuda"), pytest.raises(SolverError, match="kappa2"):
        GaussianField(*maps, boundary="torus").factor()


def test_the_guard_knows_the_memory_of_the_card():
    with (
        set_options(device="cuda"),
        pytest.raises(MemoryGuardError, match=r"on the graphics card.*device=\"cpu\""),
    ):
        choose((60_000, 60_000), boundary="plane", solver="dissection")

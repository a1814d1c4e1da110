"""Several unknowns per node, and draws from a factor, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from xr_spde._core.errors import ParameterError
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.grid_memory import predict


def coupled(shape, layers, reach, boundary, seed=0):
    """Random symmetric positive definite matrix of the widest pattern that is allowed."""
    ny, nx = shape
    j, i = np.divmod(np.arange(ny * nx), nx)
    dj, di = (np.abs(a[:, None] - a) for a in (j, i))
    if boundary == "cylinder":
        di = np.minimum(di, nx - di)
    near = np.tile((dj <= reach) & (di <= reach), (layers, layers))
    draws = np.random.default_rng(seed).standard_normal(near.shape)
    matrix = np.where(near, draws + draws.T, 0.0)
    matrix += np.diag(np.abs(matrix).sum(axis=1) + 1.0)
    return sp.csc_array(matrix)


@pytest.mark.parametrize("boundary", ["plane", "cylinder"])
@pytest.mark.parametrize(("layers", "reach"), [(1, 2), (3, 1), (4, 2)])
def test_layers_against_dense_algebra(boundary, layers, reach):
    shape = (9, 13)
    matrix = coupled(shape, layers, reach, boundary)
    dense, b = matrix.toarray(), np.random.default_rng(1).standard_normal((matrix.shape[0], 3))
    for symmetric in (True, False):
        held = GridFactor(matrix, shape=shape, boundary=boundary, reach=reach, layers=layers,
                          symmetric=symmetric, leaf=6)  # fmt: skip
        np.testing.assert_allclose(held.solve(b), np.linalg.solve(dense, b), atol=1e-12)
        assert held.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
        inverse = np.linalg.inv(dense)
        np.testing.assert_allclose(held.inverse_diagonal(), inverse.diagonal(), atol=1e-13)
        found = held.inverse_on_pattern()
        where = matrix.toarray() != 0.0
        np.testing.assert_allclose(found.toarray()[where], inverse[where], atol=1e-13)
        assert held.nbytes == held.memory.factor


def test_draws_have_the_inverse_for_covariance():
    shape, layers = (7, 9), 2
    matrix = coupled(shape, layers, 1, "plane", seed=3)
    held = GridFactor(matrix, shape=shape, boundary="plane", layers=layers, symmetric=True, leaf=6)
    # a linear map of white noise: its product with its own transpose is the covariance, exactly
    root = held.sample(np.eye(held.n))
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(matrix.toarray()), atol=1e-13)
    alone = held.sample(np.eye(held.n)[:, 5])
    assert np.array_equal(alone, root[:, 5])


def test_draws_need_a_symmetric_factor():
    matrix = coupled((5, 5), 1, 1, "plane")
    held = GridFactor(matrix, shape=(5, 5), boundary="plane")
    with pytest.raises(ParameterError, match="symmetric=True"):
        held.sample(np.zeros(25))


def test_layers_are_checked_and_counted():
    with pytest.raises(ParameterError, match="layers is 0"):
        grid((4, 4), boundary="plane", layers=0)
    with pytest.raises(ParameterError, match="3 layers"):
        GridFactor(sp.eye_array(32, format="csc"), shape=(4, 4), boundary="plane", layers=3)
    one, five = (
        predict(grid((40, 40), boundary="plane", reach=2, leaf=9, layers=k), symmetric=True,
                dtype=np.float64).factor
        for k in (1, 5)
    )  # fmt: skip
    assert five == 25 * one

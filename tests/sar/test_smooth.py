"""Bilinear nodes: what they reproduce, and their roughness."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from xr_spde.sar.smooth import NodeGrid, NodePairs, SparseSum

GRIDS = [
    ((20, 24), 4.0, False), ((20, 24), 4.0, True), ((7, 30), 5.5, False), ((9, 6), 4.0, True),
    ((6, 6), 40.0, False), ((13, 17), 1.0, True), ((2, 9), 4.0, False),
]  # fmt: skip


@pytest.fixture(params=GRIDS, ids=str)
def grid(request) -> NodeGrid:
    shape, spacing, periodic = request.param
    return NodeGrid.cover(shape, spacing=spacing, periodic=periodic)


def positions(grid: NodeGrid) -> tuple[np.ndarray, np.ndarray]:
    """Where the nodes lie, in cells."""
    (ny, nx), (ky, kx) = grid.grid_shape, grid.shape
    y = np.linspace(0, ny - 1, ky)
    x = np.arange(kx) * nx / kx if grid.periodic else np.linspace(0, nx - 1, kx)
    return np.meshgrid(y, x, indexing="ij")


def test_hats_are_positive_and_sum_to_one(grid):
    basis = grid.basis()
    assert basis.shape == (np.prod(grid.grid_shape), grid.size)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0, atol=1e-13)
    assert basis.data.min() >= 0
    np.testing.assert_array_equal(np.diff(basis.indptr), 4)


def test_linear_functions_are_reproduced(grid):
    (ny, nx) = grid.grid_shape
    rows, columns = positions(grid)
    y, x = np.mgrid[0:ny, 0:nx]
    slope = 0.0 if grid.periodic else -0.7
    nodes = 2.0 + 0.3 * rows + slope * columns
    np.testing.assert_allclose(
        grid.basis() @ nodes.ravel(), (2.0 + 0.3 * y + slope * x).ravel(), atol=1e-11
    )


def test_bilinear_functions_are_reproduced():
    grid = NodeGrid.cover((20, 24), spacing=4.0, periodic=False)
    rows, columns = positions(grid)
    y, x = np.mgrid[0:20, 0:24]
    np.testing.assert_allclose(grid.basis() @ (rows * columns).ravel(), (y * x).ravel(), atol=1e-10)


def test_a_difference_has_two_ends_on_small_lattices_too(grid):
    np.testing.assert_array_equal(np.diff(grid.differences.indptr), 2)
    assert set(grid.differences.data) == {-1.0, 1.0}


def test_columns_wrap_around():
    grid = NodeGrid.cover((10, 24), spacing=4.0, periodic=True)
    rng = np.random.default_rng(0)
    nodes = rng.normal(size=grid.shape)
    field = (grid.basis() @ nodes.ravel()).reshape(10, 24)
    step = 24 // grid.shape[1]
    turned = (grid.basis() @ np.roll(nodes, 1, axis=1).ravel()).reshape(10, 24)
    np.testing.assert_allclose(turned, np.roll(field, step, axis=1), atol=1e-13)
    # halfway between the last node and the first
    between = grid.basis(np.array([0.0]), np.array([24 - step / 2])) @ nodes.ravel()
    np.testing.assert_allclose(between, 0.5 * (nodes[0, -1] + nodes[0, 0]), atol=1e-13)


def test_positions_between_cells_are_interpolated(grid):
    rows = np.linspace(0, grid.grid_shape[0] - 1, 5)
    columns = np.linspace(0, grid.grid_shape[1] - 1, 4)
    y, _ = positions(grid)
    found = (grid.basis(rows, columns) @ y.ravel()).reshape(5, 4)
    np.testing.assert_allclose(found, rows[:, None] * np.ones(4), atol=1e-11)


def test_membrane_is_the_sum_of_squared_differences(grid):
    values = np.random.default_rng(1).normal(size=grid.shape)
    total = np.sum(np.diff(values, axis=0) ** 2) + np.sum(np.diff(values, axis=1) ** 2)
    if grid.periodic:
        total += np.sum((values[:, 0] - values[:, -1]) ** 2)
    flat = values.ravel()
    np.testing.assert_allclose(flat @ (grid.membrane @ flat), total, rtol=1e-12)
    np.testing.assert_allclose(np.sum((grid.differences @ flat) ** 2), total, rtol=1e-12)
    assert not (grid.membrane @ np.ones(grid.size)).any()


def test_spectrum_holds_the_eigenvalues(grid):
    values = np.linalg.eigvalsh(grid.membrane.toarray())
    np.testing.assert_allclose(values[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(np.sort(grid.spectrum), values[1:], atol=1e-11)
    assert grid.spectrum.min() > 1e-4


@pytest.mark.parametrize("subset", [False, True])
def test_pairs_are_the_weighted_product_of_the_basis(grid, subset):
    rng = np.random.default_rng(2)
    basis = grid.basis()
    if subset:
        basis = basis[rng.random(basis.shape[0]) < 0.6]
    pairs = NodePairs.of(basis)
    weight = rng.normal(size=basis.shape[0])
    found = np.zeros((grid.size, grid.size))
    np.add.at(found, (pairs.rows, pairs.columns), pairs.matrix @ weight)
    dense = basis.toarray()
    np.testing.assert_allclose(found, dense.T @ (weight[:, None] * dense), atol=1e-12)
    # every pair once
    assert len({*zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True)}) == pairs.rows.size


def test_sums_of_sparse_matrices():
    rng = np.random.default_rng(3)
    parts = [sp.coo_array(sp.random_array((9, 9), density=d, rng=rng)) for d in (0.1, 0.3, 0.5)]
    total = SparseSum(*np.concatenate([p.coords for p in parts], axis=1), 9)
    for factor in (1.0, -2.0):
        found = total([factor * p.data for p in parts])
        truth = factor * sum(p.toarray() for p in parts)
        np.testing.assert_allclose(found.toarray(), truth, atol=1e-15)
    assert found.has_canonical_format

"""Stencil assembly against a loop over nodes, and the worked examples A1 and A2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields import sar
from xr_spde.fields.stencil import BOUNDARIES, OFFSETS, apply, assemble

SHAPES = [(1, 1), (1, 5), (5, 1), (2, 2), (2, 3), (3, 2), (3, 3), (4, 7), (9, 6)]


def dense(weights: np.ndarray, boundary: str) -> np.ndarray:
    """Node by node, written from the boundary rules alone."""
    _, ny, nx = weights.shape
    out = np.zeros((ny * nx, ny * nx))
    for j in range(ny):
        for i in range(nx):
            for k, (dj, di) in enumerate(OFFSETS):
                jj, ii = j + dj, i + di
                if boundary == "plane" and not (0 <= ii < nx and 0 <= jj < ny):
                    continue
                if boundary == "cylinder" and not 0 <= jj < ny:
                    continue
                if boundary == "paper" and di == 0 and not 0 <= jj < ny:
                    continue
                out[j * nx + i, (jj % ny) * nx + ii % nx] += weights[k, j, i]
    return out


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_assembly_and_application_match_a_loop(shape, boundary):
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((9, *shape))
    expected = dense(weights, boundary)
    matrix = assemble(weights, boundary=boundary)
    np.testing.assert_allclose(matrix.toarray(), expected, atol=1e-13)
    fields = rng.standard_normal((2, 3, *shape))
    direct = apply(weights, fields, boundary=boundary)
    flat = fields.reshape(6, -1) @ expected.T
    np.testing.assert_allclose(direct.reshape(6, -1), flat, atol=1e-12)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_pattern_is_sorted_and_free_of_duplicates(boundary):
    for shape in SHAPES:
        matrix = assemble(np.ones((9, *shape)), boundary=boundary)
        columns = np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))
        keys = columns * matrix.shape[0] + matrix.indices
        assert (np.diff(keys) > 0).all()


def test_assembled_matrices_do_not_share_their_pattern():
    first = assemble(np.ones((9, 4, 5)), boundary="plane")
    first.indices[:] = 0
    second = assemble(np.ones((9, 4, 5)), boundary="plane")
    np.testing.assert_array_equal(second.toarray(), dense(np.ones((9, 4, 5)), "plane"))


def compass(weights: np.ndarray) -> dict[str, float]:
    names = ("NW", "N", "NE", "W", "C", "E", "SW", "S", "SE")
    return dict(zip(names, weights[:, 0, 0], strict=True))


def test_a1_stencil_at_45_degrees():
    w = compass(sar.weights(np.full((1, 1), 0.5), 3.0, -np.pi / 4))
    expected = {
        "NW": -2 / 3, "N": -5 / 3, "NE": 2 / 3,
        "W": -5 / 3, "C": 7.1666667, "E": -5 / 3,
        "SW": 2 / 3, "S": -5 / 3, "SE": -2 / 3,
    }  # fmt: skip
    for name, value in expected.items():
        assert w[name] == pytest.approx(value, abs=1e-6)


def test_a1_stencil_at_60_degrees_shows_no_transposition():
    w = compass(sar.weights(np.full((1, 1), 0.5), 3.0, -np.deg2rad(60)))
    expected = {"N": -2.333333, "S": -2.333333, "E": -1.0, "W": -1.0, "C": 7.166667}
    expected |= {"NE": 0.577350, "SW": 0.577350, "NW": -0.577350, "SE": -0.577350}
    for name, value in expected.items():
        assert w[name] == pytest.approx(value, abs=1e-6)


def test_a1_row_sums_are_kappa2():
    rng = np.random.default_rng(2)
    kappa2 = np.exp(rng.uniform(np.log(1e-4), np.log(2.0), (20, 50)))
    rho, theta = rng.uniform(1, 7, (20, 50)), rng.uniform(-np.pi / 2, np.pi / 2, (20, 50))
    np.testing.assert_allclose(sar.weights(kappa2, rho, theta).sum(axis=0), kappa2, atol=1e-12)
    rows = sar.operator(kappa2, rho, theta, boundary="torus").sum(axis=1)
    np.testing.assert_allclose(rows, kappa2.ravel(), atol=1e-12)


def test_a2_matrix_and_covariance():
    nx, ny = 8, 6
    b = sar.operator(np.full((ny, nx), 0.5), 3.0, -np.deg2rad(60), boundary="paper").toarray()

    def node(i: int, j: int) -> int:
        return (j - 1) * nx + i - 1

    sums = b.sum(axis=1).reshape(ny, nx)
    np.testing.assert_allclose(sums[1:-1], 0.5, atol=1e-12)
    np.testing.assert_allclose(sums[[0, -1]], 2.833333, atol=1e-6)
    row = b[node(4, 1)]
    expected = {
        (4, 1): 7.166667, (3, 1): -1, (5, 1): -1, (4, 2): -2.333333, (3, 2): -0.577350,
        (5, 2): 0.577350, (3, 6): 0.577350, (5, 6): -0.577350,
    }  # fmt: skip
    for place, value in expected.items():
        assert row[node(*place)] == pytest.approx(value, abs=1e-6)
    assert np.count_nonzero(row) == len(expected)
    covariance = np.linalg.inv(b.T @ b)
    assert covariance[node(4, 3), node(4, 3)] == pytest.approx(0.10680834, abs=1e-8)
    assert covariance[node(4, 1), node(4, 1)] == pytest.approx(0.05020151, abs=1e-8)
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    for place, value in {
        (5, 3): 0.60470014, (4, 4): 0.78381481, (5, 4): 0.39735327, (5, 2): 0.64476565
    }.items():  # fmt: skip
        assert correlation[node(4, 3), node(*place)] == pytest.approx(value, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(
    shift=st.integers(0, 8),
    boundary=st.sampled_from(["cylinder", "torus", "paper"]),
    seed=st.integers(0, 99),
)
def test_periodic_x_commutes_with_rolling(shift, boundary, seed):
    rng = np.random.default_rng(seed)
    weights, field = rng.standard_normal((9, 5, 8)), rng.standard_normal((5, 8))
    rolled = apply(np.roll(weights, shift, -1), np.roll(field, shift, -1), boundary=boundary)
    np.testing.assert_array_equal(
        rolled, np.roll(apply(weights, field, boundary=boundary), shift, -1)
    )


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus"])
def test_mirror_in_y_turns_the_angle(boundary):
    rng = np.random.default_rng(3)
    kappa2, rho = rng.uniform(0.1, 1, (6, 7)), rng.uniform(1, 5, (6, 7))
    theta, field = rng.uniform(-1.5, 1.5, (6, 7)), rng.standard_normal((6, 7))
    here = apply(sar.weights(kappa2, rho, theta), field, boundary=boundary)
    there = apply(
        sar.weights(kappa2[::-1], rho[::-1], -theta[::-1]), field[::-1], boundary=boundary
    )
    np.testing.assert_allclose(there[::-1], here, atol=1e-12)


def test_missing_values_spread_to_neighbours_only():
    field = np.zeros((6, 7))
    field[0, 0] = np.nan
    out = apply(np.ones((9, 6, 7)), field, boundary="plane")
    assert np.isnan(out[:2, :2]).all()
    assert np.isnan(out).sum() == 4


def test_bad_arguments():
    weights = np.ones((9, 4, 5))
    with pytest.raises(ParameterError, match=r"\(8, 4, 5\).*\(9, ny, nx\)"):
        assemble(weights[:8], boundary="plane")
    with pytest.raises(UnknownNameError, match=r"unknown boundary 'sphere'.*'torus'"):
        assemble(weights, boundary="sphere")
    with pytest.raises(ParameterError, match="NaN"):
        assemble(weights * np.nan, boundary="plane")
    with pytest.raises(ParameterError, match=r"\(5, 4\)"):
        apply(weights, np.ones((5, 4)), boundary="plane")

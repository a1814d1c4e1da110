"""Observation operators on arrays."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from xr_spde.assim.operators import (
    FunctionOperator,
    LinearOperator,
    ObservationOperator,
    as_operator,
)
from xr_spde.errors import ParameterError


def random_operator(seed, shape=(5, 6), count=7):
    rng = np.random.default_rng(seed)
    return LinearOperator(sp.random_array((count, 30), density=0.2, rng=rng), shape)


@given(st.integers(0, 10**6), st.sampled_from([(), (1,), (3,), (2, 4)]))
def test_apply_and_adjoint_are_those_of_the_matrix(seed, leading):
    rng, operator = np.random.default_rng(seed), random_operator(seed)
    x, y = rng.standard_normal((*leading, 5, 6)), rng.standard_normal((*leading, 7))
    dense = operator.matrix.toarray()
    np.testing.assert_allclose(operator.apply(x), x.reshape(*leading, 30) @ dense.T, atol=1e-13)
    spread = operator.adjoint(y)
    assert spread.shape == x.shape
    assert np.vdot(operator.apply(x), y) == pytest.approx(np.vdot(x, spread), abs=1e-12)


def test_single_precision_stays_and_fields_do_not_touch_one_another():
    operator, rng = random_operator(4), np.random.default_rng(0)
    x = rng.standard_normal((20, 5, 6)).astype(np.float32)
    whole = operator.apply(x)
    assert whole.dtype == np.float32
    assert operator.adjoint(whole).dtype == np.float32
    np.testing.assert_array_equal(operator.apply(x[13:14])[0], whole[13])


def test_missing_values_reach_only_those_who_touch_them():
    operator = LinearOperator(np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]), (2, 2))
    fields = np.array([[1.0, 2.0], [4.0, np.nan]])
    np.testing.assert_allclose(operator.apply(fields), [1.0, 3.0])


def test_parts_of_the_grid_sum_up_to_the_whole():
    operator, x = random_operator(5), np.random.default_rng(0).standard_normal((3, 5, 6))
    total = 0.0
    for rows in (slice(0, 2), slice(2, 5)):
        for columns in (slice(0, 4), slice(4, 6)):
            total = total + operator.window(rows, columns).apply(x[:, rows, columns])
    np.testing.assert_allclose(total, operator.apply(x))


def test_selected_combined_and_reordered_rows():
    operator, x = random_operator(6), np.random.default_rng(0).standard_normal((5, 6))
    found = operator.apply(x)
    keep = np.array([True, False] * 3 + [True])
    np.testing.assert_allclose(operator.select(keep).apply(x), found[keep])
    np.testing.assert_allclose(operator.select(np.array([3, 1])).apply(x), found[[3, 1]])
    mean = np.full((1, 7), 1 / 7)
    np.testing.assert_allclose(operator.combine(mean).apply(x), [found.mean()])
    flipped = np.arange(30).reshape(5, 6)[::-1]
    np.testing.assert_allclose(operator.reorder(flipped).apply(x[::-1]), found)


def test_any_function_is_an_operator():
    def wind(fields):
        return np.hypot(fields[..., 0, :], fields[..., 1, :])

    operator = as_operator(wind, shape=(2, 3), count=3)
    assert isinstance(operator, FunctionOperator)
    assert isinstance(operator, ObservationOperator)
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    np.testing.assert_allclose(operator.apply(x), wind(x))
    kept = operator.select(np.array([False, True, True])).select(np.array([1]))
    np.testing.assert_allclose(kept.apply(x), wind(x)[:, [2]])
    assert kept.size == 1


def test_what_a_user_gives_becomes_an_operator():
    matrix = np.eye(3, 6)
    for given_one in (matrix, sp.csr_array(matrix), LinearOperator(matrix, (2, 3))):
        found = as_operator(given_one, shape=(2, 3), count=3)
        np.testing.assert_allclose(found.apply(np.arange(6.0).reshape(2, 3)), [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearOperator(np.eye(4), (2, 3)), r"expected \(p, 6\)"),
        (lambda: LinearOperator(np.full((1, 6), np.nan), (2, 3)), "NaN or infinite weights"),
        (lambda: random_operator(0).apply(np.zeros((6, 5))), r"expected \(\.\.\., 5, 6\)"),
        (lambda: random_operator(0).adjoint(np.zeros(6)), r"expected \(\.\.\., 7\)"),
        (lambda: as_operator("bilinear", shape=(2, 3), count=1), "type str was given"),
        (lambda: as_operator(np.eye(2, 6), shape=(2, 3), count=3), "2 rows and there are 3"),
        (
            lambda: FunctionOperator(lambda x: x, 4).apply(np.zeros((5, 2, 3))),
            r"returned shape \(5, 2, 3\).*expected \(5, 4\)",
        ),
    ],
)
def test_bad_operators_say_what_is_wrong(make, message):
    with pytest.raises(ParameterError, match=message):
        make()

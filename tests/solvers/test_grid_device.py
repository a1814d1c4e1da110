"""The grid solver with arrays that are not numpy's, as on a graphics card."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from xr_spde.fields.sar import operator
from xr_spde.solvers.grid_factor import GridFactor


class DeviceArray:
    """Array with the habits of cupy's: no way into numpy but `get`, no indices from the host."""

    def __init__(self, values):
        self.values = values

    def __array__(self, *args, **kwargs):
        raise TypeError("no implicit conversion to a numpy array; use get()")

    __array_ufunc__ = None

    def get(self):
        return self.values.copy()

    def __getitem__(self, key):
        return wrap(self.values[unwrap(key)])

    def __setitem__(self, key, value):
        self.values[unwrap(key)] = unwrap(value)

    def __iadd__(self, other):
        self.values += unwrap(other)
        return self

    def __isub__(self, other):
        self.values -= unwrap(other)
        return self

    def __neg__(self):
        return wrap(-self.values)

    def __mul__(self, other):
        return wrap(self.values * unwrap(other))

    def __float__(self):
        return float(self.values)

    def __getattr__(self, name):
        found = getattr(self.values, name)
        return over(found) if callable(found) else wrap(found)


def wrap(value):
    if isinstance(value, tuple) and any(isinstance(one, np.ndarray) for one in value):
        return tuple(map(wrap, value))
    return DeviceArray(value) if isinstance(value, np.ndarray | np.generic) else value


def unwrap(value):
    if isinstance(value, tuple):
        return tuple(map(unwrap, value))
    if isinstance(value, np.ndarray):
        raise TypeError("a numpy array where one of the device is needed")
    return value.values if isinstance(value, DeviceArray) else value


def over(function):
    """Let a function of numpy take and return arrays of the device."""

    def called(*args, **kwargs):
        kwargs = {name: unwrap(value) for name, value in kwargs.items()}
        return wrap(function(*map(unwrap, args), **kwargs))

    return called


NAMES = (
    "abs ascontiguousarray diagonal empty log matmul max negative prod subtract sum take".split()
)
device = SimpleNamespace(
    **{name: over(getattr(np, name)) for name in NAMES},
    linalg=SimpleNamespace(
        **{name: over(getattr(np.linalg, name)) for name in ("cholesky", "inv", "slogdet")}
    ),
    asarray=lambda value: value if isinstance(value, DeviceArray) else DeviceArray(value),
)


@pytest.mark.parametrize("symmetric", [False, True])
def test_same_figures_on_another_device(symmetric):
    shape = (37, 50)
    matrix = operator(np.full(shape, 0.2), 3.0, 0.5, boundary="cylinder")
    matrix = sp.csc_array(matrix.T @ matrix) if symmetric else matrix
    settings = {"shape": shape, "boundary": "cylinder", "reach": 2, "symmetric": symmetric}
    ours, there = GridFactor(matrix, **settings), GridFactor(matrix, **settings, xp=device)
    b = np.random.default_rng(0).standard_normal((ours.n, 70))
    for rhs in (b, np.asfortranarray(b), b[:, 0].copy()):
        solved = there.solve(device.asarray(rhs))
        assert isinstance(solved, DeviceArray)
        np.testing.assert_allclose(solved.get(), ours.solve(rhs), rtol=1e-10, atol=1e-12)
        solved = there.solve_transposed(device.asarray(rhs)).get()
        np.testing.assert_allclose(solved, ours.solve_transposed(rhs), rtol=1e-10, atol=1e-12)
    refined = there.solve_refined(matrix, b)
    np.testing.assert_allclose(refined, ours.solve(b), rtol=1e-10, atol=1e-12)
    assert there.logdet() == pytest.approx(ours.logdet(), rel=1e-12)
    assert there.nbytes == ours.nbytes
    np.testing.assert_allclose(there.inverse_diagonal(), ours.inverse_diagonal(), rtol=1e-11)
    for transposed in (False, True):
        found, expected = (
            held.inverse_on_pattern(transposed=transposed).data for held in (there, ours)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
def test_cupy_agrees_with_numpy():
    cupy = pytest.importorskip("cupy")
    shape = (96, 144)
    matrix = operator(np.full(shape, 0.05), 3.0, 0.5, boundary="cylinder")
    settings = {"shape": shape, "boundary": "cylinder"}
    ours, there = GridFactor(matrix, **settings), GridFactor(matrix, **settings, xp=cupy)
    b = np.random.default_rng(0).standard_normal((ours.n, 300))
    np.testing.assert_allclose(there.solve(cupy.asarray(b)).get(), ours.solve(b), rtol=1e-9)
    assert there.logdet() == pytest.approx(ours.logdet(), rel=1e-12)
    np.testing.assert_allclose(there.inverse_diagonal(), ours.inverse_diagonal(), rtol=1e-10)

"""Ensemble filters on arrays of a graphics card; skipped where cupy finds none."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.device import card_count
from xr_spde.assim.correlated import AlongTrack
from xr_spde.assim.filters import analyse
from xr_spde.assim.inflation import inflate
from xr_spde.assim.letkf import letkf
from xr_spde.assim.localization import on_sphere
from xr_spde.assim.model_noise import add_noise
from xr_spde.assim.operators import LinearOperator

cupy = pytest.importorskip("cupy")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(card_count() == 0, reason="cupy reports no graphics card"),
]


@pytest.fixture(scope="module")
def problem():
    """Return members (40, 3000), an operator, observed members, 200 observations, errors."""
    rng = np.random.default_rng(0)
    members = rng.standard_normal((40, 30)) @ rng.standard_normal((30, 3000)) / 5.0
    matrix = np.zeros((200, 3000))
    matrix[np.arange(200), rng.integers(0, 3000, 200)] = 1.0
    operator = LinearOperator(matrix, (50, 60))
    observed = operator.apply(members.reshape(40, 50, 60))
    return members, operator, observed, rng.standard_normal(200), rng.uniform(0.2, 2.0, 200)


@pytest.mark.parametrize("variance", [1.0, 1e-12])
@pytest.mark.parametrize("method", ["etkf", "denkf", "enkf", "serial"])
def test_global_filters(problem, method, variance):
    members, _, observed, y, r = problem
    settings = {"method": method, "rotate": True, "rtps": 0.3, "seed": 1}
    expected = analyse(members, observed, y, variance * r, **settings)
    moved = [cupy.asarray(array) for array in (members, observed, y, variance * r)]
    found = analyse(*moved, **settings)
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_allclose(found.get(), expected, atol=1e-8)


@pytest.mark.parametrize("variance", [1.0, 1e-9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variables", [1, 12])
def test_letkf(problem, dtype, variables, variance):
    members, operator, observed, y, r = problem
    lat, lon = np.meshgrid(np.linspace(-80, 80, 50), np.arange(60) * 6.0, indexing="ij")
    points = on_sphere(lon, lat)
    places = {"points": points, "sites": points[operator.matrix.indices]}
    fields = np.repeat(members[:, None], variables, axis=1).astype(dtype)
    given = (observed, y, variance * r)
    expected = letkf(fields, *given, **places, radius=3000e3, rtps=0.5)
    found = letkf(cupy.asarray(fields), *map(cupy.asarray, given), **places, radius=3000e3,
                  rtps=0.5)  # fmt: skip
    assert isinstance(found, cupy.ndarray)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.get(), expected, atol=1e-8 if dtype == "float64" else 2e-3)


def test_operators_noise_and_correlated_errors(problem):
    members, operator, observed, y, r = problem
    there = cupy.asarray(members)
    seen = operator.apply(there.reshape(40, 50, 60))
    np.testing.assert_allclose(seen.get(), observed, atol=1e-12)
    np.testing.assert_allclose(operator.adjoint(seen).get(), operator.adjoint(observed), atol=1e-12)
    np.testing.assert_allclose(inflate(there, 1.2).get(), inflate(members, 1.2), atol=1e-12)
    np.testing.assert_allclose(
        add_noise(there, 0.1, seed=0).get(), add_noise(members, 0.1, seed=0), atol=1e-8
    )
    errors = AlongTrack(1.0, length=3.0, share=0.5).errors(r, np.arange(200.0), np.zeros(200))
    found = analyse(there, seen, cupy.asarray(y), errors)
    np.testing.assert_allclose(found.get(), analyse(members, observed, y, errors), atol=1e-9)

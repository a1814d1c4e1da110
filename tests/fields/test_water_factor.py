"""Factors that leave land out, against dense algebra and the factor of the whole grid."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde.fields import window_blocks
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.water_factor import WaterFactor
from xr_spde.solvers.grid_factor import GridFactor


def made(seed, *, shape=(9, 11), share=0.5, steps=3, boundary="neumann", alpha=2):
    """A prior on a sea of islands and lakes, some cut off from the others."""
    rng = np.random.default_rng(seed)
    land = rng.random(shape) < share
    land[0, 0] = False
    mesh = Mesh.of(shape, dx=rng.uniform(0.8, 1.2, (shape[0], 1)), land=land, boundary=boundary)
    parameters = SpdeParameters.of(
        shape, land=land, kappa=rng.uniform(0.4, 0.8, shape), v1=1.0, v2=0.4, beta=1.0,
        m1=0.1 * rng.standard_normal(shape),
    )  # fmt: skip
    prior = SpaceTime(SpdeOperator(mesh), parameters, steps=steps, alpha=alpha, initial="rest")
    return rng, prior


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.6, 0.95]), st.integers(1, 3),
       st.sampled_from(["neumann", "periodic"]))  # fmt: skip
def test_solutions_inverse_and_determinant(seed, share, steps, boundary):
    rng, prior = made(seed, share=share, steps=steps, boundary=boundary)
    matrix = prior.precision()
    dense = matrix.toarray()
    found = WaterFactor(matrix, prior.operator.mesh, steps)
    b = rng.standard_normal((len(dense), 20))
    np.testing.assert_allclose(found.solve(b), np.linalg.solve(dense, b), atol=1e-9)
    np.testing.assert_allclose(found.solve(b[:, 3]), np.linalg.solve(dense, b[:, 3]), atol=1e-9)
    np.testing.assert_array_equal(found.solve(b[:, 5:6])[:, 0], found.solve(b)[:, 5])
    np.testing.assert_allclose(found.inverse_diagonal(), np.diag(np.linalg.inv(dense)), atol=1e-9)
    assert found.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_interpolation_is_the_same_with_and_without_land(monkeypatch, solver):
    rng, prior = made(1, shape=(14, 15), alpha=4)
    nodes = rng.choice(np.flatnonzero(np.tile(prior.sea, 3)), 40, replace=False)
    rows = sp.csr_array(sp.eye_array(3 * 14 * 15, format="csr")[np.sort(nodes)])
    d, variance = rng.standard_normal(40), np.full(40, 0.01)
    found, kinds = [], []
    for least in (0.75, 0.0):
        monkeypatch.setattr(window_blocks, "SKIP_LAND", least)
        one = SpaceTimePosterior(prior, rows, variance, solver=solver, tol=1e-10)
        deviation = one.deviation(draws=4, noise=np.random.default_rng(0))
        found.append((one.mean(d), one.mean(d[None])[0], deviation, one.blocks))
        kinds.append(type(one.factors[0]))
        assert (found[-1][0][:, prior.operator.mesh.land] == 0.0).all()
    assert kinds == [WaterFactor, GridFactor]
    for with_land, without in zip(found[0][:3], found[1][:3], strict=True):
        np.testing.assert_allclose(with_land, without, atol=1e-7)
    assert found[0][3].work < 0.6 * found[1][3].work
    assert found[0][3].needed < found[1][3].needed


def test_what_is_predicted_covers_what_is_taken():
    _, prior = made(2, shape=(60, 70), share=0.0, steps=2)
    y, x = np.indices((60, 70))
    sea = (np.abs(y - 30 - 10 * np.sin(x / 6)) < 9) | (np.hypot(y - 12, x - 50) < 10)
    mesh = Mesh.of((60, 70), land=~sea)
    prior = SpaceTime(SpdeOperator(mesh), prior.parameters, steps=2, alpha=2)
    assert 0.2 < sea.mean() < 0.5
    rows = sp.csr_array(sp.eye_array(2 * 60 * 70, format="csr")[[35 * 70 + 20]])
    found = SpaceTimePosterior(prior, rows, np.ones(1), solver="direct")
    assert found.factors[0].nbytes < found.blocks.needed

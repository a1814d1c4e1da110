"""Factors of matrices whose rows differ by many orders of magnitude."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from xr_spde.fields.exact import ExactLikelihood
from xr_spde.fields.sar import operator, tensor
from xr_spde.solvers.scaled import ScaledFactor

SHAPE = (9, 11)


@pytest.fixture
def matrix() -> sp.csc_array:
    rng = np.random.default_rng(0)
    maps = np.full(SHAPE, 0.3), rng.uniform(1, 4, SHAPE), rng.uniform(-1, 1, SHAPE)
    b = operator(*maps, boundary="plane")
    return sp.csc_array(b.T @ b)


def test_it_is_the_factor_of_the_matrix(matrix):
    scale = np.exp(np.random.default_rng(1).uniform(-12, 12, matrix.shape[0]))
    rough = sp.csc_array(sp.diags_array(scale) @ matrix @ sp.diags_array(scale))
    held = ScaledFactor(rough, shape=SHAPE, boundary="plane", reach=2)
    inverse = np.linalg.inv(matrix.toarray())  # that of the other is too ill-conditioned to invert
    expected = inverse / scale / scale[:, None]
    b = np.random.default_rng(2).standard_normal((matrix.shape[0], 3))
    np.testing.assert_allclose(held.solve(b * scale[:, None]), (inverse @ b) / scale[:, None])
    logdet = np.linalg.slogdet(matrix.toarray())[1] + 2.0 * np.log(scale).sum()
    assert held.logdet() == pytest.approx(logdet, rel=1e-12)
    found = held.inverse_on_pattern().tocoo()
    np.testing.assert_allclose(found.data, expected[found.row, found.col], rtol=1e-8)


def test_likelihood_where_the_variance_runs_over_eight_orders(caplog):
    """Dense truth, for observations with noise."""
    shape, rng = (24, 30), np.random.default_rng(3)
    log_d = rng.uniform(-16.0, 3.0, shape)
    kappa2, rho, theta = (np.full(shape, value) for value in (0.3, 2.0, 0.4))
    inverse = np.linalg.inv(operator(kappa2, rho, theta, boundary="plane").toarray())
    law = inverse @ np.diag(np.exp(log_d.ravel())) @ inverse.T + 0.1 * np.eye(log_d.size)
    fields = rng.standard_normal((2, *shape))
    flat = fields.reshape(2, -1)
    expected = -0.5 * float(np.vdot(flat, np.linalg.solve(law, flat.T).T))
    expected -= np.linalg.slogdet(2.0 * np.pi * law)[1]
    q = np.stack([kappa2, *tensor(rho, theta)])
    with caplog.at_level("INFO", logger="xr_spde.fields.exact"):
        found = ExactLikelihood(fields, "plane").value_and_slope(q, log_d, 0.1)[0]
    assert "scaled" in caplog.text
    assert found == pytest.approx(expected, rel=1e-10)

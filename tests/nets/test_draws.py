"""Block elimination against the sparse factorisation."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.errors import ParameterError
from xr_spde.fields.sar import operator, weights
from xr_spde.sar.priors import draw_parameters

torch = pytest.importorskip("torch")
from xr_spde.nets.draws import solve_rows  # noqa: E402


@pytest.mark.parametrize("boundary", ["cylinder", "plane"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-3)])
def test_rows_solve_the_sparse_system(boundary, dtype, tolerance):
    from scipy.sparse.linalg import spsolve

    rng = np.random.default_rng(4)
    maps = [draw_parameters((13, 17), rng=rng) for _ in range(3)]
    noise = rng.standard_normal((3, 5, 13, 17))
    stencils = np.stack([weights(*m) for m in maps])
    found = solve_rows(
        torch.tensor(stencils, dtype=getattr(torch, dtype)),
        torch.tensor(noise),
        periodic=boundary == "cylinder",
    )
    for case, m in enumerate(maps):
        matrix = operator(*m, boundary=boundary)
        expected = spsolve(matrix, noise[case].reshape(5, -1).T).T.reshape(5, 13, 17)
        error = np.abs(found[case].numpy() - expected).max() / np.abs(expected).max()
        assert error < tolerance


def test_shapes_that_differ_are_refused():
    with pytest.raises(ParameterError, match="noise"):
        solve_rows(torch.ones(2, 9, 4, 5), torch.ones(2, 3, 5, 4), periodic=False)
    with pytest.raises(ParameterError, match="columns"):
        solve_rows(torch.ones(1, 9, 4, 2), torch.ones(1, 3, 4, 2), periodic=True)

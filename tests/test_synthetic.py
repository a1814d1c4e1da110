"""Truth with known parameters."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde import synthetic
from xr_spde._core.errors import ParameterError, SchemaError, UnknownNameError
from xr_spde.labels.grid import Grid
from xr_spde.labels.schema import validate_parameters


@pytest.mark.parametrize(("domain", "boundary"), [("plane", "plane"), ("global", "cylinder")])
def test_random_parameters_follow_the_schema_on_a_grid_that_is_understood(domain, boundary):
    params = synthetic.random_parameters((18, 36), seed=1, domain=domain)
    validate_parameters(params)
    grid = Grid.from_object(params)
    assert (grid.shape, grid.boundary, params.attrs["boundary"]) == ((18, 36), boundary, boundary)
    assert float(params.kappa2.std()) > 0


def test_random_parameters_are_their_seed():
    first, again, other = (synthetic.random_parameters((8, 9), seed=s) for s in (1, 1, 2))
    assert first.identical(again)
    assert not first.equals(other)
    fresh = synthetic.random_parameters((8, 9))
    assert synthetic.random_parameters((8, 9), seed=int(fresh.attrs["xr_spde_seed"])).equals(fresh)


def test_constant_parameters():
    params = synthetic.constant_parameters((4, 5), kappa2=0.2, rho=2, theta=-0.5)
    assert {float(v) for v in np.unique(params.to_array())} == {0.2, 2.0, -0.5}
    assert np.array_equal(params.x, 1000 * np.arange(5))
    assert Grid.from_object(params).kind == "projected"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"kappa2": 0}, SchemaError),
        ({"kappa2": 1, "rho": 0.5}, SchemaError),
        ({"kappa2": 1, "theta": np.nan}, SchemaError),
        ({"kappa2": 1, "domain": "sphere"}, UnknownNameError),
        ({"kappa2": 1, "shape": (1, 5)}, ParameterError),
    ],
)
def test_bad_truth_is_refused(options, error):
    with pytest.raises(error):
        synthetic.constant_parameters(**{"shape": (4, 5), **options})

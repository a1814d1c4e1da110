"""The accessor delegates: same signatures, same results, no state."""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pytest
import xarray as xr

from xr_spde import plot, sar
from xr_spde._core.errors import SchemaError
from xr_spde.accessors import SarDataArrayAccessor, SarDatasetAccessor
from xr_spde.accessors.figures import SarFieldFigures, SarParameterFigures
from xr_spde.synthetic import constant_parameters

METHODS = {
    SarDataArrayAccessor: ("estimate", "standardize", "correlation", "log_likelihood"),
    SarDatasetAccessor: (
        "estimate", "standardize", "correlation", "log_likelihood",
        "emulate", "variance", "range", "operator",
    ),
}  # fmt: skip
FIGURES = {
    SarFieldFigures: ("correlation", "members"),
    SarParameterFigures: ("parameters", "ellipses", "correlation", "members"),
}
PAIRS = [(c, name, sar) for c, names in METHODS.items() for name in names]
PAIRS += [(c, name, plot) for c, names in FIGURES.items() for name in names]


def arguments(function) -> list[tuple[str, object, object]]:
    """Names, kinds and defaults of what follows the object."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [(p.name, p.kind, p.default) for p in parameters]


@pytest.fixture
def params() -> xr.Dataset:
    rng = np.random.default_rng(0)
    maps = {
        "kappa2": rng.uniform(0.2, 1.0, (6, 8)),
        "rho": rng.uniform(1.0, 3.0, (6, 8)),
        "theta": rng.uniform(-1.5, 1.5, (6, 8)),
        "std": rng.uniform(1.0, 2.0, (6, 8)),
    }
    coords = {"lat": np.linspace(40, 50, 6), "lon": np.linspace(0, 14, 8)}
    return xr.Dataset({k: (("lat", "lon"), v) for k, v in maps.items()}, coords)


@pytest.mark.parametrize(
    ("accessor", "name", "module"), PAIRS, ids=[f"{c.__name__}.{n}" for c, n, _ in PAIRS]
)
def test_signatures_are_those_of_the_functions(accessor, name, module):
    ours, theirs = arguments(getattr(accessor, name)), arguments(getattr(module, name))
    if accessor is SarParameterFigures and name == "correlation":
        ours, theirs = ([a for a in x if a[0] != "labels"] for x in (ours, theirs))
    assert ours == theirs


@pytest.mark.parametrize("accessor", [*METHODS, *FIGURES])
def test_every_method_is_documented(accessor):
    for name, method in inspect.getmembers(accessor, inspect.isfunction):
        if not name.startswith("_"):
            text = inspect.getdoc(method)
            assert "Parameters\n---" in text, name
            assert "Returns\n---" in text, name
            for parameter in list(inspect.signature(method).parameters)[1:]:
                assert parameter in text, (name, parameter)


@pytest.mark.parametrize("accessor", METHODS)
def test_first_sentence_says_which_sar_this_is(accessor):
    first = inspect.getdoc(accessor).split(".")[0]
    assert "autoregressive" in first
    assert "not synthetic aperture radar" in first


def test_results_are_those_of_the_functions(params):
    ensemble = params.sar.emulate(20, seed=1)
    xr.testing.assert_identical(ensemble, sar.emulate(params, 20, seed=1))
    at = {"lat": 44.0, "lon": 6.0}
    xr.testing.assert_identical(params.sar.correlation(at), sar.correlation(params, at))
    xr.testing.assert_identical(ensemble.sar.correlation(at), sar.correlation(ensemble, at))
    xr.testing.assert_identical(params.sar.variance(), sar.variance(params))
    xr.testing.assert_identical(params.sar.range(), sar.range(params))
    xr.testing.assert_identical(ensemble.sar.standardize(), sar.standardize(ensemble))
    xr.testing.assert_identical(
        ensemble.sar.log_likelihood(params), sar.log_likelihood(ensemble, params)
    )
    assert (params.sar.operator() != sar.operator(params)).nnz == 0
    ds = ensemble.to_dataset(name="t")
    xr.testing.assert_identical(ds.sar.standardize()["t"], ensemble.sar.standardize().rename("t"))


def test_a_dataset_without_parameters_says_what_is_missing(params):
    ds = params.sar.emulate(4, seed=1).to_dataset(name="t2m")
    for method in ("variance", "range", "operator"):
        with pytest.raises(SchemaError, match=r"lacks 'kappa2', 'rho', 'theta'; found 't2m'"):
            getattr(ds.sar, method)()
    with pytest.raises(SchemaError, match=r"found 't2m'.*estimate\(\)"):
        ds.sar.emulate(10)


def test_making_the_accessor_looks_at_nothing():
    assert isinstance(xr.Dataset().sar, SarDatasetAccessor)
    assert isinstance(xr.DataArray().sar, SarDataArrayAccessor)
    assert set(vars(xr.DataArray().sar)) == {"_obj"}
    ds = xr.Dataset({"sar": ("x", [1.0])})
    assert isinstance(ds.sar, SarDatasetAccessor)
    assert ds["sar"].size == 1


def test_functions_are_not_shadowed_by_their_modules():
    for name in ("emulate", "diagnose", "estimate"):
        importlib.import_module(f"xr_spde.sar.{name}")
    for name in sar.__all__:
        assert inspect.isfunction(getattr(sar, name)), name


def test_the_chain_reads_like_the_manual():
    truth = constant_parameters((20, 24), kappa2=0.4, rho=3.0, theta=0.6)
    ds = truth.sar.emulate(40, seed=1).to_dataset(name="t2m").compute()
    params = ds.t2m.sar.estimate(modes=0, dilation=1)
    assert float(abs(params.theta - 0.6).mean()) < 0.15
    xr.testing.assert_identical(ds.sar.estimate(modes=0, dilation=1), params)
    ensemble = params.sar.emulate(50, seed=2)
    assert ensemble.name == "t2m"
    both = ds.assign(twice=2 * ds.t2m).sar.estimate(modes=0, dilation=1)
    assert list(both["variable"].values) == ["t2m", "twice"]
    assert both.sar.emulate(3, seed=1).dims == ("realization", "variable", "y", "x")

"""`import xr_spde` costs xarray and next to nothing more."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import xarray as xr

import xr_spde

FORBIDDEN = (
    "torch cupy cupyx matplotlib dask distributed scipy scipy.sparse scipy.sparse.linalg cf_xarray "
    "pooch zarr netCDF4 h5netcdf h5py numba pandas.plotting._matplotlib threadpoolctl cmocean "
    "xr_spde.fields xr_spde.solvers xr_spde.labels xr_spde.plot xr_spde.datasets xr_spde.tutorial "
    "xr_spde.sar.estimate xr_spde.sar.emulate xr_spde.sar.diagnose"
).split()
PROBE = """
import json, sys, time
import {modules}
print(json.dumps([time.process_time(), sorted(sys.modules)]))
"""
BUDGET_SECONDS = 0.1
RUNS = 5


def probe(modules: str) -> tuple[float, set[str]]:
    # Bytecode is allowed: an installed package has it, and compiling is not importing.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    out = subprocess.run(
        [sys.executable, "-c", PROBE.format(modules=modules)],
        check=True,
        capture_output=True,
        text=True,
        env=env,
    )
    seconds, names = json.loads(out.stdout)
    return seconds, set(names)


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[float, set[str]]]:
    """Least CPU seconds and loaded modules, runs of the two alternating."""
    runs = {name: [probe(name)] for name in ("xarray", "xarray, xr_spde")}
    for _ in range(RUNS - 1):
        for name, results in runs.items():
            results.append(probe(name))
    return {name: (min(s for s, _ in results), results[-1][1]) for name, results in runs.items()}


def test_nothing_heavy_is_loaded(measured):
    added = measured["xarray, xr_spde"][1] - measured["xarray"][1]
    assert "xr_spde.accessors.sar" in added
    assert sorted(added & set(FORBIDDEN)) == []
    outside = {name.split(".")[0] for name in added} - set(sys.stdlib_module_names)
    assert outside == {"xr_spde"}


def test_cost_over_xarray(measured):
    cost = measured["xarray, xr_spde"][0] - measured["xarray"][0]
    assert cost < BUDGET_SECONDS, f"{cost:.3f} CPU s over xarray"


def test_accessor_is_registered_on_both_kinds():
    assert hasattr(xr.DataArray, "sar")
    assert hasattr(xr.Dataset, "sar")


@pytest.mark.parametrize("name", xr_spde.__all__)
def test_every_public_name_resolves_and_is_listed(name):
    assert getattr(xr_spde, name) is not None
    assert name in dir(xr_spde)


def test_lazy_names_are_the_objects_of_their_modules():
    assert xr_spde.open_dataset is xr_spde.tutorial.open_dataset
    assert xr_spde.__version__ == xr_spde._core.version.__version__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'kriging'"):
        xr_spde.kriging  # noqa: B018

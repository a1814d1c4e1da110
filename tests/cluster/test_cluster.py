"""Worker processes: the same bits, one factor in each, small graphs, and a worker that dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pytest
import xarray as xr

from xr_spde.sar import emulate, estimate

distributed = pytest.importorskip("distributed")

COUNT = 60
SETTINGS = {"uncertainty": True, "modes": 2, "dilation": 1}


@contextmanager
def two_workers() -> Iterator[Any]:
    """Start two processes with one thread each."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with two_workers() as connected:
        yield connected


@pytest.fixture(scope="module")
def reference(params) -> xr.DataArray:
    return emulate(params, COUNT, seed=12).compute(scheduler="sync")


@pytest.fixture(scope="module")
def estimated(reference) -> xr.Dataset:
    return estimate(reference, **SETTINGS)


# Workers cannot import this module, so what they run is nested and travels as code.
def counting() -> Callable[[], None]:
    """Make a process count, from now on, the matrices that it factorises."""

    def patch() -> None:
        import xr_spde.fields.field as module
        from xr_spde.solvers.cache import FACTORS

        FACTORS.clear()
        module.made, original = [], module.factor  # type: ignore[attr-defined]

        def factor(*args: Any, **kwargs: Any) -> Any:
            module.made.append("factor")  # type: ignore[attr-defined]
            return original(*args, **kwargs)

        module.factor = factor

    return patch


def counts() -> Callable[[], list[str]]:
    def read() -> list[str]:
        import xr_spde.fields.field as module

        return list(module.made)  # type: ignore[attr-defined]

    return read


def dying(module: str, owner: str, method: str, *, after: int, marker: Path) -> Callable[[], None]:
    """Make the first process that has called a method that often kill itself."""

    def patch() -> None:
        import importlib
        import os
        import signal

        cls = getattr(importlib.import_module(module), owner)
        original, calls = getattr(cls, method), []

        def call(self: Any, *args: Any) -> Any:
            calls.append(1)
            if len(calls) > after:
                try:
                    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass  # one death is enough
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args)

        setattr(cls, method, call)

    return patch


def test_emulate_gives_the_bits_of_the_synchronous_scheduler(params, reference, client):
    for chunks in (7, 32):
        found = emulate(params, COUNT, seed=12, chunks=chunks).compute()
        xr.testing.assert_identical(found, reference)


def test_estimate_gives_the_bits_of_the_synchronous_scheduler(reference, estimated, client):
    lazy = estimate(reference.chunk(realization=7, lat=5), **SETTINGS)
    xr.testing.assert_identical(lazy.compute(), estimated)
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_identical(lazy.compute(), estimated)


def test_a_matrix_is_factorised_once_in_every_process(params, reference, client):
    client.run(counting())
    # Once for the draws and the map of variances together, in two ensembles of twenty blocks.
    for seed in (12, 13):
        emulate(params, COUNT, seed=seed, chunks=3).compute()
    made = {worker: Counter(names) for worker, names in client.run(counts()).items()}
    assert len(made) == 2
    assert all(count == {"factor": 1} for count in made.values()), made


@pytest.fixture
def doomed(tmp_path) -> Iterator[Callable[..., None]]:
    """Workers of this test alone, one of which dies when it has called a method that often."""
    marker = tmp_path / "died"
    with two_workers() as client:
        yield lambda *where, after: client.run(dying(*where, after=after, marker=marker))
    assert marker.exists()


# However the work is divided between two workers, one of them gets more than a third of it.
def test_a_worker_that_dies_changes_no_bit_of_an_ensemble(params, reference, doomed):
    doomed("xr_spde.fields.field", "GaussianField", "sample", after=COUNT // 9)
    xr.testing.assert_identical(emulate(params, COUNT, seed=12, chunks=3).compute(), reference)


def test_a_worker_that_dies_changes_no_bit_of_an_estimate(reference, estimated, doomed):
    doomed("xr_spde.sar.statistics", "LagSums", "add", after=COUNT // 3)
    lazy = estimate(reference.chunk(realization=5), **SETTINGS)
    xr.testing.assert_identical(lazy.compute(), estimated)


def test_a_worker_that_dies_changes_no_bit_of_a_store(params, reference, doomed, tmp_path):
    pytest.importorskip("zarr")
    doomed("xr_spde.fields.field", "GaussianField", "sample", after=COUNT // 9)
    emulate(params, COUNT, seed=12, chunks=3).to_zarr(tmp_path / "e.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "e.zarr", consolidated=False) as found:
        np.testing.assert_array_equal(found["field"].values, reference.values)


# --- graphs ------------------------------------------------------------------------------------


def graph_bytes(collection: Any) -> int:
    (optimised,) = dask.optimize(collection)
    return len(cloudpickle.dumps(optimised.__dask_graph__()))


@pytest.fixture(scope="module")
def large(params) -> xr.Dataset:
    """Maps of a one-degree grid: 1.1 MB."""
    lat, lon = np.linspace(-89.0, 89.0, 192), np.arange(288) * 1.25
    near = params.fillna(1.0).interp(lat=lat, lon=lon, kwargs={"fill_value": 1.0})
    return near.astype("f4")


@pytest.mark.parametrize("chunks", ["auto", 1])
def test_graphs_of_ten_thousand_members_stay_under_a_megabyte(large, chunks, tmp_path):
    pytest.importorskip("zarr")
    # Maps in memory are in the graph, once; those that are read lazily are not.
    in_memory = graph_bytes(emulate(large, 10_000, seed=1, chunks=chunks))
    assert in_memory - large.nbytes < 10**6
    large.to_zarr(tmp_path / "params.zarr", consolidated=False)
    lazy = xr.open_zarr(tmp_path / "params.zarr", consolidated=False)
    assert graph_bytes(emulate(lazy, 10_000, seed=1, chunks=chunks)) < 10**6


def test_estimates_from_ten_thousand_members_have_graphs_under_a_megabyte(large):
    stored = emulate(large, 10_000, seed=1, chunks=32)
    assert graph_bytes(estimate(stored, modes=0)) - large.nbytes < 10**6

"""The same ensemble, bit for bit, from every scheduler and chunking, written to Zarr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import dask
import numpy as np
import pytest
import xarray as xr

from xr_spde.sar import emulate

CHUNKS = [7, 32, 50]


def parameters() -> xr.Dataset:
    ny, nx = 10, 16
    rng = np.random.default_rng(2)
    dims, shape = ("level", "lat", "lon"), (2, ny, nx)
    maps = {
        "kappa2": rng.uniform(0.1, 1.0, shape),
        "rho": rng.uniform(1.0, 5.0, shape),
        "theta": rng.uniform(-1.5, 1.5, shape),
        "mean": rng.normal(280.0, 5.0, shape),
        "std": rng.uniform(0.5, 2.0, shape),
    }
    coords = {"lat": np.linspace(72.0, -72.0, ny), "lon": (np.arange(nx) * 22.5 + 90) % 360}
    ds = xr.Dataset({k: (dims, v.astype("f4")) for k, v in maps.items()}, coords)
    land = xr.zeros_like(ds["rho"], dtype=bool)
    land[:, 4:6, 3:8] = True
    return ds.where(~land)


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return emulate(parameters(), 50, seed=12).compute(scheduler="sync").values


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as workers,
        distributed.Client(workers),
    ):
        yield


def check_store(reference, folder, chunks: int, **config) -> None:
    pytest.importorskip("zarr")
    with dask.config.set(**config), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        emulate(parameters(), 50, seed=12, chunks=chunks).to_zarr(folder / "ensemble.zarr")
    with xr.open_zarr(folder / "ensemble.zarr") as back:
        assert back["field"].dtype == np.float32
        np.testing.assert_array_equal(back["field"].values, reference)
        assert back["field"].attrs["xr_spde_seed"] == 12


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_local_schedulers_write_the_same_bits(reference, tmp_path, scheduler, chunks):
    check_store(reference, tmp_path, chunks, scheduler=scheduler, num_workers=2)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_distributed_writes_the_same_bits(reference, tmp_path, chunks, cluster):
    check_store(reference, tmp_path, chunks)


def test_more_threads_than_cores_share_one_factor(reference):
    from xr_spde.solvers.cache import FACTORS

    FACTORS.clear()
    with dask.config.set(scheduler="threads", num_workers=8):
        found = emulate(parameters(), 50, seed=12, chunks=3).compute()
    np.testing.assert_array_equal(found.values, reference)
    # Two factors, one of them in double precision for the map of variances, and that map, for each
    # of the two levels.
    assert len(FACTORS) == 6


def test_the_graph_holds_the_parameters_once_and_no_factor():
    import pickle

    small, large = (emulate(parameters(), n, seed=1, chunks=5).data for n in (5, 500))
    maps = 5 * 2 * 10 * 16 * 4
    one, many = (len(pickle.dumps(dict(a.dask))) for a in (small, large))
    tasks = len(large.dask) - len(small.dask)
    assert tasks == 2 * 99
    assert one < maps + 20_000
    assert (many - one) / tasks < 500


def test_lazy_parameters_give_the_same_bits(reference):
    lazy = parameters().chunk(level=1, lat=3, lon=5)
    np.testing.assert_array_equal(emulate(lazy, 50, seed=12).values, reference)

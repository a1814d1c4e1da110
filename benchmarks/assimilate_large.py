"""Analysis of an ensemble on disk that is larger than what may be held: peak memory and time.

    OMP_NUM_THREADS=1 python benchmarks/assimilate_large.py [--quick] [--folder DIR]

An ensemble of 40 members on 1e7 points (float32, 1.6 GB) is read from Zarr, analysed lazily, and
all results are written to Zarr, with two threads, each method in a process of its own. The folder
(a temporary one by default) needs 4 GB. Truth is drawn like a member and is known everywhere, so
that the analysis can be scored; a part of it is computed again from other chunks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import xarray as xr

SIZE, WAVES, ERROR = 40, 60, 0.3
CHUNKS, OTHER = (250, 1000), (130, 700)


def coordinates(shape: list[int]) -> dict[str, Any]:
    """Latitudes without the poles, longitudes that close the circle."""
    ny, nx = shape
    lat, lon = np.linspace(-80.0, 80.0, ny), np.arange(nx) * (360.0 / nx)
    return {
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }


def fields(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Truth and members (1 + N, points): random sums of waves, some 4000 km long, of variance 1."""
    rng = np.random.default_rng(0)
    vectors, phases = 9.0 * rng.standard_normal((WAVES, 3)), rng.uniform(0, 2 * np.pi, WAVES)
    amplitudes = rng.standard_normal((1 + SIZE, WAVES)) * np.sqrt(2.0 / WAVES)
    a, b = np.radians(lat), np.radians(lon)
    xyz = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])
    waves = np.cos(vectors @ xyz + phases[:, None]).astype(np.float32)
    return amplitudes.astype(np.float32) @ waves


def draw(path: str, shape: list[int]) -> dict[str, float]:
    """Write the members, one chunk after the other."""
    import dask.array as da

    coords = coordinates(shape)
    lat, lon = coords["lat"][1], coords["lon"][1]

    def block(block_info: Any = None) -> np.ndarray:
        _, rows, columns = block_info[None]["array-location"]
        y, x = np.meshgrid(lat[slice(*rows)], lon[slice(*columns)], indexing="ij")
        return fields(y.ravel(), x.ravel())[1:].reshape(SIZE, *y.shape)

    chunks = da.core.normalize_chunks((SIZE, *CHUNKS), (SIZE, *shape))
    z = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    ensemble = xr.Dataset({"z": (("realization", "lat", "lon"), z)}, coords)
    ensemble.to_zarr(path, mode="w", consolidated=False)
    return {"bytes": z.nbytes}


def observations(count: int) -> xr.DataArray:
    """Truth at points spread evenly over the sphere between 79 S and 79 N, with errors."""
    rng = np.random.default_rng(1)
    top = np.sin(np.radians(79.0))
    lat, lon = np.degrees(np.arcsin(rng.uniform(-top, top, count))), rng.uniform(-180, 180, count)
    values = fields(lat, lon)[0] + ERROR * rng.standard_normal(count)
    return xr.DataArray(values, {"lat": ("obs", lat), "lon": ("obs", lon)}, "obs")


def analyse(source: str, target: str, method: str, radius: float | None, count: int) -> dict:
    """Analyse all, write all, and score; then a part again from other chunks."""
    import dask

    import xr_spde  # noqa: F401  registers the accessor

    settings: dict[str, Any] = {"method": method, "obs_error": ERROR, "seed": 0}
    settings |= {} if radius is None else {"localization": radius}
    obs = observations(count)
    with dask.config.set(scheduler="threads", num_workers=2):
        cpu, wall = time.process_time(), time.perf_counter()
        ensemble = xr.open_zarr(source, consolidated=False).z
        result = ensemble.assim.assimilate(obs, **settings)
        laid = time.process_time() - cpu
        result.to_zarr(target, mode="w", consolidated=False)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = _machine.peak_megabytes()
        written = xr.open_zarr(target, consolidated=False)
        before = error(written["mean"] - written["increment"])
        ny, nx = ensemble.shape[1:]
        part = {"lat": slice(ny // 3, ny // 3 + ny // 10), "lon": slice(nx - nx // 20, nx)}
        other = xr.open_zarr(source, consolidated=False, chunks=dict(zip(part, OTHER, strict=True)))
        again = other.z.assim.assimilate(obs, **settings).z.isel(part).values
        apart = float(np.abs(again - written.z.isel(part).values).max())
    return {
        "lay": laid, "cpu": cpu, "wall": wall, "peak": peak, "apart": apart,
        "before": before, "after": error(written["mean"]), "chi_square": float(written.chi_square),
    }  # fmt: skip


def error(mean: xr.DataArray) -> float:
    """Root mean square departure from the truth, rows in turn."""
    total, lon = 0.0, mean["lon"].values
    for start in range(0, mean.sizes["lat"], 250):
        rows = mean.isel(lat=slice(start, start + 250))
        y, x = np.meshgrid(rows["lat"].values, lon, indexing="ij")
        truth = np.concatenate([fields(a, b)[0] for a, b in zip(y, x, strict=True)])
        total += float(((rows.values.ravel() - truth) ** 2).sum(dtype=np.float64))
    return float(np.sqrt(total / mean.size))


PARTS = {"draw": draw, "analyse": analyse}


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="250 000 points, printed only")
    parser.add_argument("--folder", type=Path, help="where the stores are written")
    options = parser.parse_args()
    shape, count = ([500, 500], 2_000) if options.quick else ([2500, 4000], 10_000)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, target = f"{folder}/ensemble.zarr", f"{folder}/analysis.zarr"
        size = _machine.isolated(__file__, "draw", path=source, shape=shape)["bytes"]
        rows = []
        for method, radius in (("letkf", 800e3), ("etkf", None)):
            found = _machine.isolated(
                __file__, "analyse",
                source=source, target=target, method=method, radius=radius, count=count,
            )  # fmt: skip
            names = ("peak", "lay", "cpu", "wall", "before", "after", "apart")
            rows.append([method, *(found[name] for name in names)])
    header = [
        "filter", "peak MB", "graph CPU s", "CPU s", "wall s", "RMSE before", "after",
        "largest change, other chunks",
    ]  # fmt: skip
    body = (
        f"{_machine.machine()}\n\n{SIZE} members on {shape[0]} x {shape[1]} points, float32, "
        f"{size / 1e9:.2f} GB in chunks of {CHUNKS[0]} x {CHUNKS[1]} points and all members; "
        f"{count} observations with errors of {ERROR} (fields have variance 1); localisation "
        "800 km for the LETKF. Lazily from Zarr to Zarr on two threads: analysed members, mean, "
        "standard deviation and increment. Peak memory is that of the whole process, Python and "
        "libraries included. The last column compares a part of the grid with the same analysis "
        f"from chunks of {OTHER[0]} x {OTHER[1]}.\n\n{_machine.table(header, rows)}"
    )
    _machine.write(
        "assimilate_large",
        "Analysis of an ensemble larger than memory should hold",
        "OMP_NUM_THREADS=1 python benchmarks/assimilate_large.py",
        body,
        keep=not options.quick,
    )


if __name__ == "__main__" and not _machine.answer(PARTS):
    main()

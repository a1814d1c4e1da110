"""Fields per second and peak memory of emulation, beside plain SuperLU, gstlearn and GSTools.

Each figure comes from a process of its own, with one thread, in CPU seconds; candidates take
turns and medians are shown. ``--quick`` does the smaller grid once, with fewer members, and
writes no file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import xarray as xr
from _machine import answer, isolated, machine, peak_megabytes, table, write

GRIDS = ((192, 288), (512, 1024), (1024, 2048))
ROUNDS = dict(zip(GRIDS, (5, 3, 1), strict=True))
FIELDS = dict(zip(GRIDS, (256, 64, 32), strict=True))
MEMBERS = 1000
BLOCK = 32
Maps = dict[str, np.ndarray]


def maps(shape: tuple[int, int]) -> Maps:
    """Smooth maps: kappa2 from 0.01 to 0.5, rho from 1 to 4, directions of all kinds."""
    ny, nx = shape
    y, x = np.linspace(0, 1, ny)[:, None], 2 * np.pi * np.arange(nx) / nx
    wave = np.sin(x) * np.cos(3 * y) + np.cos(2 * x + 4 * y)
    level = (wave - wave.min()) / np.ptp(wave)
    return {
        "kappa2": 0.01 * 50.0**level,
        "rho": 2.5 + 1.5 * np.cos(x - 2 * y),
        "theta": 1.5 * np.sin(x + 3 * y),
    }


def parameters(shape: tuple[int, int]) -> xr.Dataset:
    """Label the test maps as a parameter Dataset of a global grid, with mean and spread."""
    ny, nx = shape
    lat, lon = -90 + 180 * (np.arange(ny) + 0.5) / ny, 360 * np.arange(nx) / nx
    coords = {
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }
    moments = {
        "mean": np.repeat(288 - 30 * np.sin(np.radians(lat)) ** 2, nx).reshape(shape),
        "std": np.repeat(1 + np.sin(np.radians(lat)) ** 2, nx).reshape(shape),
    }
    values = maps(shape) | {k: v.astype(np.float32) for k, v in moments.items()}
    return xr.Dataset({k: (("lat", "lon"), v) for k, v in values.items()}, coords)


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of a call, all threads of this process together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def emulation(
    shape: list[int], buffer: int | str, dtype: str, fields: int, repeats: int
) -> dict[str, float]:
    """Measure the package: first block cold, then blocks with the factor and the variance kept."""
    import dask

    from xr_spde.fields.field import GaussianField
    from xr_spde.sar import emulate

    params = parameters((shape[0], shape[1]))
    model = GaussianField(**maps((shape[0], shape[1])), boundary="cylinder", buffer=buffer)
    factor, variance = seconds(lambda: model.factor(dtype)), seconds(model.variance)
    with dask.config.set(scheduler="synchronous"):
        ensemble = emulate(params, fields, seed=1, buffer=buffer, dtype=dtype)
        ensemble.compute()
        field = median(seconds(ensemble.compute) for _ in range(repeats)) / fields
    width = model.factor(dtype).width
    noise = np.random.default_rng(1).standard_normal((width, model.size))
    solve = median(seconds(lambda: model.sample(noise, dtype)) for _ in range(repeats)) / width
    return {"factor": factor, "variance": variance, "field": field, "solve": solve}


def zarr(shape: list[int], buffer: int | str, members: int, workers: int) -> dict[str, float]:
    """Write an ensemble block by block; everything included from parameters in memory."""
    import dask

    from xr_spde.sar import emulate

    params = parameters((shape[0], shape[1]))
    ready, start = peak_megabytes(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, dask.config.set(num_workers=workers):
        target = Path(folder) / "ensemble.zarr"
        cpu = seconds(
            lambda: (
                emulate(params, members, seed=1, buffer=buffer)
                .to_dataset(name="field")
                .to_zarr(target, consolidated=False)
            )
        )
        return {"cpu": cpu, "wall": time.perf_counter() - start, "ready_mb": ready}


def plain(shape: list[int], fields: int) -> dict[str, float]:
    """Run scipy's splu with its defaults on the same matrix, in blocks of 32, scale excluded."""
    from scipy.sparse.linalg import splu

    from xr_spde.fields.sar import operator

    matrix = operator(**maps((shape[0], shape[1])), boundary="cylinder")
    held: list[Any] = []
    factor = seconds(lambda: held.append(splu(matrix)))
    rng = np.random.Generator(np.random.SFC64(1))

    def draw() -> None:
        for _ in range(fields // BLOCK):
            held[0].solve(rng.standard_normal((BLOCK, matrix.shape[0])).T)

    draw()
    return {"factor": factor, "field": seconds(draw) / (fields // BLOCK * BLOCK)}


def gstlearn(shape: list[int], fields: int) -> dict[str, float]:
    """Simulate the non-stationary SPDE of gstlearn with grid cells as mesh and its sparse Cholesky.

    Same maps (as Matern scales along and across, and angle), unit variance, plane boundary.
    """
    import gstlearn as gl

    ny, nx = shape
    values = maps((ny, nx))
    operators: list[Any] = []

    def prepare() -> None:
        grid = gl.DbGrid.create(nx=[nx, ny])
        root, scale = np.sqrt(values["rho"]), 1 / np.sqrt(values["kappa2"])
        columns = {"along": root * scale, "across": scale / root}
        for name, column in (columns | {"angle": np.degrees(values["theta"])}).items():
            grid.addColumns(column.ravel(), name)
        model = gl.Model.createFromParam(gl.ECov.MATERN, 1.0, 1.0, 1.0, gl.VectorDouble([5.0, 5.0]))
        covariance = model.getCovAniso(0)
        covariance.attachNoStatDb(grid)
        covariance.makeScaleNoStatDb("along", 0)
        covariance.makeScaleNoStatDb("across", 1)
        covariance.makeAngleNoStatDb("angle", 0)
        mesh = gl.MeshETurbo.createFromGrid(grid, False)
        operators.extend([gl.PrecisionOpMatrix(mesh, covariance), mesh, model, grid])
        operators[0].simulateOne()  # the first draw factorises

    factor = seconds(prepare)
    return {
        "factor": factor,
        "field": seconds(lambda: [operators[0].simulateOne() for _ in range(fields)]) / fields,
    }


def gstools(shape: list[int], generator: str) -> dict[str, float]:
    """Simulate one stationary Matern field, nu = 1, unit variance, scale 4 cells, with GSTools."""
    import gstools as gs

    ny, nx = shape
    model = gs.Matern(dim=2, var=1, len_scale=4, nu=1)
    options: dict[str, Any] = {"mode_no": 1000}
    if generator == "Fourier":
        options = {"generator": "Fourier", "period": [ny, nx], "mode_no": [64, 64]}
    axes = [np.arange(ny, dtype=float), np.arange(nx, dtype=float)]
    work = gs.SRF(model, seed=1, **options)
    return {"factor": 0.0, "field": seconds(lambda: work.structured(axes))}


PARTS = {f.__name__: f for f in (emulation, zarr, plain, gstlearn, gstools)}


def candidates(shape: tuple[int, int]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return what is compared: label of the row, part and arguments."""
    small = shape == GRIDS[0]
    ours = {"fields": FIELDS[shape], "repeats": 3}
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        f"xr_spde, {dtype}, `buffer={buffer}`": (
            "emulation",
            {"buffer": 0 if buffer == "0" else "auto", "dtype": dtype, **ours},
        )
        for dtype in ("float64", "float32")
        for buffer in ("0", '"auto"')
    }
    if shape == GRIDS[-1]:
        return rows
    return rows | {
        "scipy `splu`, its defaults, `buffer=0`": ("plain", {"fields": 128 if small else 32}),
        "gstlearn SPDE, non-stationary": ("gstlearn", {"fields": 20 if small else 4}),
        "GSTools, 1000 random modes, stationary": ("gstools", {"generator": "RandMeth"}),
        "GSTools, Fourier 64 x 64, stationary": ("gstools", {"generator": "Fourier"}),
    }


def speed(shape: tuple[int, int], rounds: int) -> str:
    """Table of seconds per field, candidates taking turns."""
    runs: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds):
        for label, (part, arguments) in candidates(shape).items():
            if part == "gstools" and turn and shape != GRIDS[0]:
                continue  # a minute each
            runs.setdefault(label, []).append(isolated(__file__, part, shape=shape, **arguments))
    rows = []
    for label, results in runs.items():
        middle = {key: median(run[key] for run in results) for key in results[0]}
        ready = middle["factor"] + middle.get("variance", 0.0)
        rows.append(
            [
                label,
                middle["factor"] if middle["factor"] else None,
                middle.get("variance"),
                1000 * middle["solve"] if "solve" in middle else None,
                1000 * middle["field"],
                ready + MEMBERS * middle["field"],
                middle["peak_mb"],
            ]
        )
    header = ["", "factor, s", "exact variance, s", "solve, ms", "**field, ms**"]
    title = f"## {shape[0]} x {shape[1]}: CPU seconds of one thread, median of {rounds}\n\n"
    return title + table([*header, f"{MEMBERS} fields, s", "peak MB"], rows)


def memory(cases: list[tuple[tuple[int, int], int | str, int, int]]) -> str:
    """Table of whole processes that write ensembles to Zarr."""
    rows = []
    for shape, buffer, members, workers in cases:
        run = isolated(
            __file__, "zarr", shape=shape, buffer=buffer, members=members, workers=workers
        )
        size = members * shape[0] * shape[1] * 4 / 1e6
        cells = [f"{shape[0]} x {shape[1]}", str(buffer), members, workers, size, run["peak_mb"]]
        rows.append([*cells, run["ready_mb"], run["cpu"], run["wall"]])
    header = ["grid", "buffer", "members", "threads", "ensemble MB", "**peak MB**", "of it imports"]
    return "## Writing to Zarr, everything included\n\n" + table([*header, "CPU s", "wall s"], rows)


NOTES = """
A field of xr_spde is finished: noise, solution, crop, `mean + std * y / sqrt(variance)`; `solve` is
the sparse solution alone. Factor and exact variance are found once per process; the variance is
always found in float64, with a factor of its own where fields are in float32. Peak memory is that
of the whole process, libraries and parameters included. `splu` is given the matrix, draws its own
noise and solves 32 right-hand sides at a time, but scales nothing. Totals are extrapolated from
fewer fields: 256, 64 or 32 for xr_spde, by grid, 128 or 32 for splu, 20 or 4 for gstlearn, 1 for
GSTools. gstlearn draws the same non-stationary maps with the
grid as mesh and unit variance on a plane; GSTools has no such non-stationary model, and draws a
stationary Matern field with nu = 1 and a scale of 4 cells (once at 512 x 1024). `buffer="auto"`
solves on a larger grid ({rows}).
""".strip()


def main() -> None:
    """Measure and write the tables."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument(
        "--quick", action="store_true", help="smaller grid, one round, printed only"
    )
    quick = reader.parse_args().quick
    small, large, largest = GRIDS
    shapes = GRIDS[:1] if quick else GRIDS
    body = [machine("gstools", "gstlearn")]
    body += [speed(shape, 1 if quick else ROUNDS[shape]) for shape in shapes]
    cases: list[tuple[tuple[int, int], int | str, int, int]] = [(small, "auto", 200, 2)]
    if not quick:
        cases = [(small, 0, MEMBERS, 2), (small, "auto", MEMBERS, 2), (small, "auto", 4000, 2)]
        cases += [(small, "auto", MEMBERS, 8), (large, "auto", MEMBERS, 2)]
        cases += [(largest, "auto", 64, 2)]
    body.append(memory(cases))
    padded = []
    for shape in shapes:
        from xr_spde.fields.field import GaussianField

        model = GaussianField(**maps(shape), boundary="cylinder", buffer="auto")
        padded.append(f"{model.padded_shape[0]} rows for {shape[0]}")
    body.append(NOTES.format(rows=", ".join(padded)))
    command = "python benchmarks/emulate.py" + (" --quick" if quick else "")
    write("emulate", "Emulation", command, "\n\n".join(body), keep=not quick)


if __name__ == "__main__" and not answer(PARTS):
    main()

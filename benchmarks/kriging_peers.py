"""The same kriging task in xr_spde, gstlearn and GSTools: time, memory and error.

    OMP_NUM_THREADS=1 python benchmarks/kriging_peers.py [--quick] [--keep FOLDER]

A field with the Matern correlation ``(r / l) K_1(r / l)``, l = 10 cells and variance 1, drawn by
circulant embedding on a grid twice as fine, is seen at random centres of cells with errors of
0.1 and predicted at the nodes of a grid, all parameters known. Dense kriging is done here, with
scipy: the truth of a simple kriging with this covariance. The second task is in space and time with
a Gaussian covariance, which GSTools has as a spatio-temporal model and xr_spde as "oi-gaussian".
Each package runs in a process of its own with one thread; what is absent gets a dash.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from _machine import answer, isolated, machine, table, write
from numpy.typing import NDArray

Float = NDArray[np.float64]

LENGTH, ERROR = 10.0, 0.1
MARGIN = 20
CASES = ((200, 1_000), (200, 3_000), (200, 10_000), (400, 10_000))
NODES = 20_000
"""Nodes at which predictions are compared with those of dense kriging."""

DAYS, SIDE, SEEN = 20, 60, 500
SCALES = {"lx": 6.0, "ly": 6.0, "lt": 10.0}


def correlation(distance: Float) -> Float:
    """Matern correlation of smoothness 1."""
    from scipy.special import k1

    r = np.maximum(distance / LENGTH, 1e-10)
    return np.asarray(r * k1(r))


def make(path: str, n: int, count: int) -> dict[str, Any]:
    """Draw the field, observe it, and krige it with dense algebra."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(n + count)
    size = 1 << int(np.ceil(np.log2(2 * (n + 6 * LENGTH))))
    lag = 0.5 * np.minimum(np.arange(size), size - np.arange(size))
    spectrum = np.fft.fft2(correlation(np.hypot(lag[:, None], lag))).real
    noise = rng.standard_normal((2, size, size))
    field = np.fft.fft2(np.sqrt(np.maximum(spectrum, 0.0)) * (noise[0] + 1j * noise[1])).real / size
    cells = np.column_stack(np.divmod(rng.choice((n - 1) ** 2, count, replace=False), n - 1))
    seen = field[2 * cells[:, 0] + 1, 2 * cells[:, 1] + 1] + ERROR * rng.standard_normal(count)
    places = cells + 0.5
    some = np.sort(rng.choice(n * n, min(n * n, NODES), replace=False))
    knots = np.arange(0.0, 1.5 * n, 1e-3)
    known = correlation(knots)

    def covariance(a: Float, b: Float) -> Float:
        spot = 1e3 * cdist(a, b)
        low = spot.astype(np.int32)
        spot -= low
        return np.asarray(known[low] * (1.0 - spot) + known[low + 1] * spot)

    matrix = covariance(places, places)
    matrix[np.diag_indices(count)] += ERROR**2
    weights = cho_solve(cho_factor(matrix, lower=True, overwrite_a=True), seen)
    nodes = np.column_stack(np.divmod(some, n)).astype(float)
    exact = np.concatenate([
        covariance(nodes[k : k + 1000], places) @ weights for k in range(0, len(nodes), 1000)
    ])  # fmt: skip
    truth = field[: 2 * n : 2, : 2 * n : 2]
    np.savez(path, truth=truth, places=places, seen=seen, some=some, exact=exact)
    return {}


def task(path: str) -> tuple[int, Float, Float]:
    """Read the size of the grid, places (y, x) and values of the observations."""
    with np.load(path) as held:
        return held["truth"].shape[0], held["places"], held["seen"]


def timed(path: str, name: str, mean: Callable[[], Any]) -> dict[str, Any]:
    """Predict, and keep the result for the comparison."""
    began = time.process_time()
    found = mean()
    spent = time.process_time() - began
    np.save(f"{path}.{name}.npy", np.asarray(found, dtype=np.float64))
    return {"mean_s": spent}


def spacetime(path: str) -> dict[str, Any]:
    """Predict by xr_spde with the space-time prior: one time, and steps far below its memory."""
    import xarray as xr

    import xr_spde  # noqa: F401

    n, places, seen = task(path)
    line = np.arange(-MARGIN, n + MARGIN, dtype=float)
    coords = {name: (name, line, {"units": "km"}) for name in ("y", "x")}
    maps = {"length": LENGTH, "decay_time": 1.0, "std": 1.0}
    shape = (line.size, line.size)
    # in the limit of short steps the first state is the Matern field
    prior = xr.Dataset({k: (("y", "x"), np.full(shape, v)) for k, v in maps.items()}, coords,
                       {"time_step": 1e-7, "alpha": 4})  # fmt: skip
    now = np.datetime64("2014-05-15", "ns")
    at = {"y": ("obs", places[:, 0]), "x": ("obs", places[:, 1]),
          "time": ("obs", np.full(seen.size, now))}  # fmt: skip
    obs = xr.DataArray(seen, at, "obs")

    def mean() -> Any:
        found = prior.assim.assimilate(obs, obs_error=ERROR, times=[now], draws=0)
        return found["mean"][0, MARGIN : MARGIN + n, MARGIN : MARGIN + n]

    return timed(path, "spacetime", mean)


def sar(path: str) -> dict[str, Any]:
    """Predict by xr_spde with the parameters of a spatial field, with the standard deviation."""
    import xarray as xr

    import xr_spde  # noqa: F401

    n, places, seen = task(path)
    maps = {"kappa2": LENGTH**-2.0, "rho": 1.0, "theta": 0.0, "mean": 0.0, "std": 1.0}
    coords = {name: (name, np.arange(n, dtype=float), {"units": "km"}) for name in ("y", "x")}
    params = xr.Dataset({k: (("y", "x"), np.full((n, n), v)) for k, v in maps.items()}, coords)
    at = {"y": ("obs", places[:, 0]), "x": ("obs", places[:, 1])}
    obs = xr.DataArray(seen, at, "obs")

    def mean() -> Any:
        found = params.assim.assimilate(obs, obs_error=ERROR, boundary="plane")
        return found["mean"]

    return timed(path, "sar", mean)


def gstlearn(
    path: str, spde: bool, refine: int = 11, nodes: int = 300, cholesky: bool = True
) -> dict[str, Any]:
    """Predict by gstlearn, with an SPDE on a triangular mesh or all observations at once."""
    import gstlearn as gl

    n, places, seen = task(path)
    data = gl.Db.create()
    data["x"], data["y"], data["z"] = places[:, 1], places[:, 0], seen
    data["v"] = np.full(seen.size, ERROR**2)
    data.setLocators(["x", "y"], gl.ELoc.X)
    data.setLocator("z", gl.ELoc.Z)
    data.setLocator("v", gl.ELoc.V)
    grid = gl.DbGrid.create([n, n], [1.0, 1.0], [0.0, 0.0])
    model = gl.Model.createFromParam(
        gl.ECov.MATERN, range=LENGTH, sill=1.0, param=1.0, flagRange=False
    )

    def mean() -> Any:
        if spde:
            how = gl.SPDEParam.create()
            how.setRefineK(refine)
            how.setNxMax(nodes)
            gl.krigingSPDE(data, grid, model, True, False, int(cholesky), params=how)
        else:
            gl.kriging(data, grid, model, gl.NeighUnique.create(), True, False)
        return np.asarray(grid[grid.getLastName()]).reshape(n, n)

    return timed(path, f"gstlearn-{spde}-{refine}-{cholesky}", mean)


def gstools(path: str) -> dict[str, Any]:
    """Predict by GSTools with all observations at once."""
    import gstools as gs

    n, places, seen = task(path)
    model = gs.Matern(dim=2, var=1.0, len_scale=LENGTH, nu=1.0, rescale=1.0)
    line = np.arange(n, dtype=float)

    def mean() -> Any:
        found = gs.krige.Simple(
            model, [places[:, 1], places[:, 0]], seen, mean=0.0, cond_err=ERROR**2,
            exact=False, pseudo_inv=False,
        )  # fmt: skip
        return found.structured([line, line], return_var=False, chunk_size=2000).T

    return timed(path, "gstools", mean)


def series(path: str) -> tuple[Float, Float, Float]:
    """Observe a smooth field in space and time: t, y and x, values, and the field."""
    rng = np.random.default_rng(1)
    at = rng.uniform(0, 1, (SEEN, 3)) * [DAYS - 1, SIDE - 1, SIDE - 1]
    waves = rng.standard_normal((400, 3)) * np.sqrt(2.0) / [SCALES[k] for k in ("lt", "ly", "lx")]
    phases = rng.uniform(0, 2 * np.pi, 400)
    t, y, x = np.meshgrid(np.arange(DAYS), np.arange(SIDE), np.arange(SIDE), indexing="ij")
    nodes = np.column_stack([t.ravel(), y.ravel(), x.ravel()])
    field, seen = (
        np.sqrt(2 / 400) * np.concatenate([
            np.cos(part @ waves.T + phases).sum(1) for part in np.array_split(p, 40)
        ])
        for p in (nodes, at)
    )  # fmt: skip
    return at, seen + ERROR * rng.standard_normal(SEEN), field


def series_ours(path: str) -> dict[str, Any]:
    """Predict in space and time by xr_spde."""
    import xarray as xr

    import xr_spde  # noqa: F401

    at, seen, field = series(path)
    start = np.datetime64("2014-05-15", "ns")
    times = start + np.arange(DAYS) * np.timedelta64(1, "D")
    line = np.arange(SIDE, dtype=float)
    guess = xr.DataArray(np.zeros((DAYS, SIDE, SIDE)), {"time": times, "y": line, "x": line},
                         ("time", "y", "x"))  # fmt: skip
    when = start + (at[:, 0] * 86400e9).astype("timedelta64[ns]")
    obs = xr.DataArray(seen, {"time": ("obs", when), "y": ("obs", at[:, 1]),
                              "x": ("obs", at[:, 2])}, "obs")  # fmt: skip

    def mean() -> Any:
        return guess.assim.assimilate(obs, method="oi-gaussian", obs_error=ERROR, std=1.0,
                                      draws=0, **SCALES)["mean"]  # fmt: skip

    return timed(path, "ours", mean) | {"rmse": rmse(np.load(f"{path}.ours.npy").ravel(), field)}


def series_gstools(path: str) -> dict[str, Any]:
    """Predict in space and time by GSTools."""
    import gstools as gs

    at, seen, field = series(path)
    model = gs.Gaussian(temporal=True, spatial_dim=2, var=1.0, rescale=1.0,
                        len_scale=[SCALES["lx"], SCALES["ly"], SCALES["lt"]])  # fmt: skip
    line = np.arange(SIDE, dtype=float)

    def mean() -> Any:
        found = gs.krige.Simple(model, at[:, ::-1].T, seen, mean=0.0, cond_err=ERROR**2,
                                exact=False, pseudo_inv=False)  # fmt: skip
        told = found.structured([line, line, np.arange(DAYS, dtype=float)], return_var=False,
                                chunk_size=2000)  # fmt: skip
        return told.transpose(2, 1, 0)

    return timed(path, "gstools", mean) | {
        "rmse": rmse(np.load(f"{path}.gstools.npy").ravel(), field)
    }


PARTS = {one.__name__: one for one in (make, spacetime, sar, gstlearn, gstools, series_ours,
                                       series_gstools)}  # fmt: skip


def rmse(a: Float, b: Float) -> float:
    """Root mean square difference."""
    return float(np.sqrt(np.mean((a - b) ** 2)))


def present(name: str) -> bool:
    """Whether a package is there."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def once(kept: str, part: str, **arguments: Any) -> dict[str, Any]:
    """Run a part, or read what an interrupted run has kept of it."""
    record = Path(f"{kept}.json")
    if not record.exists():
        record.write_text(json.dumps(isolated(__file__, part, **arguments)))
    return dict(json.loads(record.read_text()))


def in_space(n: int, count: int, folder: str) -> list[list[Any]]:
    """Run one task of space in all packages that have a way to it."""
    path = f"{folder}/{n}-{count}.npz"
    once(path, "make", path=path, n=n, count=count)
    with np.load(path) as held:
        truth, some, exact = held["truth"], held["some"], held["exact"]
    label = [f"{n} x {n}", count]
    own = rmse(exact, truth.ravel()[some])
    rows: list[list[Any]] = [[*label, "dense kriging, the reference", None, None, own, 0.0]]
    ways: list[tuple[str, str, str, dict[str, Any], bool]] = [
        ("xr_spde, space-time prior", "spacetime", "spacetime", {}, True),
        ("xr_spde, spatial prior, with std", "sar", "sar", {}, True),
    ]
    if present("gstlearn"):
        ways += [
            ("gstlearn, SPDE as it comes", "gstlearn", "gstlearn-True-11-True", {"spde": True},
             True),
            ("gstlearn, SPDE, mesh of the grid's spacing", "gstlearn", "gstlearn-True-35-True",
             {"spde": True, "refine": 35, "nodes": 0}, True),
            ("the same by conjugate gradients", "gstlearn", "gstlearn-True-35-False",
             {"spde": True, "refine": 35, "nodes": 0, "cholesky": False}, True),
            ("gstlearn, all observations", "gstlearn", "gstlearn-False-11-True", {"spde": False},
             n <= 200 and count <= 3_000),
        ]  # fmt: skip
    if present("gstools"):
        ways.append(("GSTools, all observations", "gstools", "gstools", {}, n <= 200
                     and count <= 1_000))  # fmt: skip
    for name, part, held_as, settings, affordable in ways:
        if not affordable:
            rows.append([*label, name, None, None, None, None])
            continue
        found = once(f"{path}.{held_as}", part, path=path, **settings)
        mean = np.load(f"{path}.{held_as}.npy").ravel()[some]
        rows.append([*label, name, found["mean_s"], f"{found['peak_mb']:.0f}",
                     rmse(mean, truth.ravel()[some]), rmse(mean, exact)])  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run, print and write the tables."""
    if answer(PARTS):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small case, nothing written")
    parser.add_argument("--keep", help="folder of finished parts, to go on with")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = options.keep or temporary
        rows = [
            row
            for n, count in (((60, 300),) if options.quick else CASES)
            for row in in_space(n, count, folder)
        ]
        path, inside = str(Path(folder) / "series"), []
        if not options.quick:
            ours = once(f"{path}.ours", "series_ours", path=path)
            inside.append(["xr_spde, oi-gaussian", ours, 0.0])
            if present("gstools"):
                peer = once(f"{path}.gstools", "series_gstools", path=path)
                apart = rmse(np.load(f"{path}.gstools.npy"), np.load(f"{path}.ours.npy"))
                inside.append(["GSTools, spatio-temporal model", peer, apart])
    head = ["CPU s", "peak MB", "RMSE to the truth"]
    body = f"""{machine("gstlearn", "gstools")}

{table(["grid", "observations", "", *head, "rms difference to dense"], rows)}

The standard deviation of the field is 1. The difference to dense kriging is what a discretised
field and its margin cost: xr_spde computes on the grid itself ({MARGIN} cells wider on every side
for the space-time prior), gstlearn on a triangular mesh of its own. A dash: all observations at
once on these sizes takes minutes to hours. Errors and differences are those of {NODES} nodes.
For the mean of one stationary field in space gstlearn is the faster, by conjugate gradients on its
mesh; the exact standard deviation of xr_spde is in its time."""
    if inside:
        told = [[name, one["mean_s"], f"{one['peak_mb']:.0f}", one["rmse"], apart]
                for name, one, apart in inside]  # fmt: skip
        body += f"""

In space and time: {SEEN} observations, {DAYS} x {SIDE} x {SIDE} nodes, Gaussian covariance.

{table(["", *head, "rms difference to xr_spde"], told)}"""
    command = "OMP_NUM_THREADS=1 python benchmarks/kriging_peers.py"
    write("kriging_peers", "Kriging beside gstlearn and GSTools", command, body,
          keep=not options.quick)  # fmt: skip


if __name__ == "__main__":
    main()

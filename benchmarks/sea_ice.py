"""Drift of real sea ice from two pairs of Sentinel-1 scenes, whole and at full resolution.

    OMP_NUM_THREADS=1 python benchmarks/sea_ice.py [--tile CELLS]

Through the accessor: `.latent.velocity()`, and `.latent.interpolate()` to the middle of the
interval; also on means over blocks of cells, which have less speckle. Checked against block
matching, which is written here and shares nothing with the package: squares of 41 x 41 cells every
25, the displacement of largest correlation, refined by a parabola, kept where the correlation is
0.5 or more and not at the rim of the search.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import _machine
import numpy as np
import xarray as xr
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.datasets import local_path
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure
from xr_spde.fields.sampling import sample_missing
from xr_spde.latent.compare import displacement_of
from xr_spde.latent.motion import Motion

FILES = {
    "March 2020": ("s1_seaice_hh_20200301_20200302.nc", "sigma0_hh"),
    "January 2020": ("s1_seaice_20200123_20200125.nc", "sigma0"),
}
RUNS = {
    "March, full": ("March 2020", 1),
    "March, 4 x 4": ("March 2020", 4),
    "January, full": ("January 2020", 1),
    "January, 2 x 2": ("January 2020", 2),
}
HALF, EVERY, REACH = 20, 25, 6
DAY = 86400.0


def shift_of(u0: np.ndarray, u1: np.ndarray) -> tuple[int, int]:
    """Rows and columns at the peak of the cross-correlation of whole images."""
    a, b = (np.where(np.isfinite(u), (u - np.nanmean(u)) / np.nanstd(u), 0.0) for u in (u0, u1))
    shape = [2 * n for n in a.shape]
    product = irfft2(np.conj(rfft2(a, shape)) * rfft2(b, shape), shape)
    peak = np.unravel_index(product.argmax(), product.shape)
    rows, columns = ((p + n // 2) % n - n // 2 for p, n in zip(peak, shape, strict=True))
    return int(rows), int(columns)


def matched(u0: np.ndarray, u1: np.ndarray, about: tuple[int, int]) -> np.ndarray:
    """Row, column and displacement (rows, columns) of every square that was found again."""
    found, rim = [], HALF + REACH
    top, left = (rim + abs(s) for s in about)
    for y in range(top, u0.shape[0] - top, EVERY):
        for x in range(left, u0.shape[1] - left, EVERY):
            square = u0[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1]
            r, c = y + about[0], x + about[1]
            around = u1[r - rim : r + rim + 1, c - rim : c + rim + 1]
            if not (np.isfinite(square).all() and np.isfinite(around).all()):
                continue
            views = np.lib.stride_tricks.sliding_window_view(around, square.shape)
            views = views - views.mean(axis=(2, 3), keepdims=True)
            centred = square - square.mean()
            power = (views**2).sum(axis=(2, 3)) * (centred**2).sum()
            match = (views * centred).sum(axis=(2, 3)) / np.sqrt(power)
            i, j = np.unravel_index(match.argmax(), match.shape)
            if match.max() < 0.5 or {i, j} & {0, 2 * REACH}:
                continue
            fine = [_vertex(match[i - 1 : i + 2, j]), _vertex(match[i, j - 1 : j + 2])]
            found.append([y, x, about[0] + i - REACH + fine[0], about[1] + j - REACH + fine[1]])
    return np.array(found)


def _vertex(three: np.ndarray) -> float:
    low, middle, high = three
    return float((low - high) / (2 * (low - 2 * middle + high)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Over the cells that both know."""
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def scene(name: str, mean: int, tile: int | None) -> dict[str, Any]:
    """Fit a scene, of means over so many rows and columns, and look at what came out."""
    file, variable = FILES[name]
    with xr.open_dataset(local_path(file)) as data:
        full = data[variable].astype(np.float32).load()
    ice = full.coarsen(y=mean, x=mean, boundary="trim").mean() if mean > 1 else full
    extra = {} if tile is None else {"tile": tile}
    begun, wall = time.process_time(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        drift = ice.latent.velocity(medium="sea_ice", **extra).load()
    spent, waited = time.process_time() - begun, time.perf_counter() - wall
    begun = time.process_time()
    middle = ice.time[0] + (ice.time[1] - ice.time[0]) / 2
    frame = ice.latent.interpolate(middle.values, motion=drift, **extra)
    framed = time.process_time() - begun
    peak = _machine.peak_megabytes()  # of the package, before the checks
    found = drift.isel(time=0)
    u0, u1 = ice.to_numpy()
    seconds = float((ice.time[1] - ice.time[0]) / np.timedelta64(1, "s"))
    cells = Cells(*u0.shape, *(float(abs(ice[d][1] - ice[d][0])) for d in ("y", "x")))
    seen = np.isfinite(u0) | np.isfinite(u1)
    u, v = (found[n].fillna(0.0).to_numpy() for n in ("u", "v"))
    motion = Motion(cells.to_cells(u, v, seconds=seconds), cells, 0.0)
    moved = mean * displacement_of(motion)
    fine = full.to_numpy()
    blocks = matched(*fine, shift_of(*fine))
    at = tuple(np.minimum(blocks[:, :2].T.astype(int) // mean, np.array(u0.shape)[:, None] - 1))
    there = np.stack([moved[1][at], moved[0][at]])
    off = np.hypot(*(there - blocks[:, 2:].T))
    carried = sample_missing(u0, *departure(motion.velocity, 1.0))
    return {
        "cells": f"{u0.shape[0]} x {u0.shape[1]}",
        "missing": float(np.isnan(ice).mean()),
        "cpu": spent,
        "wall": waited,
        "frame": framed,
        "fit_mb": peak,
        "drift": [float(np.median(m[seen])) for m in moved[::-1]],
        "block": np.median(blocks[:, 2:], axis=0).tolist(),
        "fit_there": np.median(there, axis=1).tolist(),
        "squares": len(blocks),
        "off": [float(q) for q in np.quantile(off, [0.5, 0.9])],
        "still": correlation(u0, u1),
        "after": correlation(carried, u1),
        "frame_missing": float(np.isnan(frame.to_numpy()[seen]).mean()),
        **where_it_parts(u0, u1, found),
    }


def where_it_parts(u0: np.ndarray, u1: np.ndarray, found: xr.Dataset) -> dict[str, Any]:
    """Shear and divergence in the dark twentieth of the ice, open or newly frozen, and outside."""
    both = np.isfinite(u0) & np.isfinite(u1)
    smooth = [gaussian_filter(np.where(np.isnan(u), np.nanmean(u), u), 1.0) for u in (u0, u1)]
    darker = np.minimum(*smooth)
    lead = both & (darker < np.quantile(darker[both], 0.05))
    ice = both & ~lead
    rates = {
        "shear": found["shear"].to_numpy() * DAY,
        "opening": np.maximum(found["divergence"].to_numpy(), 0) * DAY,
        "closing": np.maximum(-found["divergence"].to_numpy(), 0) * DAY,
    }
    shares = np.bincount(found["determined"].to_numpy()[both], minlength=3) / both.sum()
    return {k: [float(r[lead].mean()), float(r[ice].mean())] for k, r in rates.items()} | {
        "determined": shares.tolist()
    }


PARTS = {"scene": scene}


def body(found: dict[str, dict[str, Any]]) -> str:
    """Tables with what they mean."""
    fits = [
        [
            name,
            s["cells"],
            f"{100 * s['missing']:.0f} %",
            s["cpu"],
            s["wall"],
            s["frame"],
            s["fit_mb"],
        ]
        for name, s in found.items()
    ]
    drift = [
        [
            name,
            "{:.1f}, {:.1f}".format(*s["drift"]),
            s["squares"],
            "{:.2f}, {:.2f}".format(*s["block"]),
            "{:.2f}, {:.2f}".format(*s["fit_there"]),
            "{:.2f} / {:.2f}".format(*s["off"]),
            f"{s['still']:.2f}",
            f"{s['after']:.2f}",
        ]
        for name, s in found.items()
    ]
    parts = [
        [
            name,
            *("{:.3f} / {:.3f}".format(*s[k]) for k in ("shear", "opening", "closing")),
            "{:.0f} / {:.0f} / {:.0f} %".format(*(100 * d for d in s["determined"])),
        ]
        for name, s in found.items()
    ]
    text = [
        _machine.machine(),
        "CPU time, time on the clock (of a machine that is busy with other work) and memory of "
        "`velocity`, float32, one thread, and CPU time of one frame with the motion given.",
        _machine.table(
            ["scene", "cells", "missing", "CPU s", "wall s", "frame, CPU s", "peak MB"], fits
        ),
        "Displacement over the interval (rows, columns, in cells of full resolution): the median "
        "over the scene, and at the squares that block matching finds again. Last: correlation of "
        "the first image with the second, in place and carried along the motion.",
        _machine.table(
            [
                "scene",
                "median",
                "squares",
                "matched",
                "fit there",
                "apart, median / 90 %",
                "in place",
                "carried",
            ],
            drift,
        ),
        "Mean rates per day in the darkest twentieth of the cells (open or newly frozen leads) / "
        "in the others, and the shares of cells where the images within about three cells "
        "determine the motion in no / one / both directions.",
        _machine.table(["scene", "shear", "opening", "closing", "determined"], parts),
    ]
    return "\n\n".join(text)


def main() -> None:
    """Both scenes, each in a process of its own."""
    if _machine.answer(PARTS):
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tile", type=int, help="also fit by tiles of so many cells")
    chosen = parser.parse_args()
    found = {
        label: _machine.isolated(__file__, "scene", name=name, mean=mean, tile=None)
        for label, (name, mean) in RUNS.items()
    }
    if chosen.tile:
        found[f"March, tiles of {chosen.tile}"] = _machine.isolated(
            __file__, "scene", name="March 2020", mean=1, tile=chosen.tile
        )
    again = f" --tile {chosen.tile}" if chosen.tile else ""
    command = f"OMP_NUM_THREADS=1 python benchmarks/sea_ice.py{again}"
    _machine.write("sea_ice", "Drift of sea ice between two radar scenes", command, body(found))


if __name__ == "__main__":
    main()

"""The frame between two images: errors of each method on pairs whose middle is known.

    OMP_NUM_THREADS=1 python benchmarks/in_between.py [--seeds 700 800 900] [--quick]

Cases of xr_spde.latent.cases, 128 x 128, at the middle of the interval; the seeds of textures are
shifted by each of --seeds. Settings of the field were chosen on the shifts 0, 100 and 200;
published figures are from shifts that were not looked at before. Peers run at one setting each:
linear blend, OpenCV's Farneback and DIS (also laid forward with covers), optimal transport (POT),
and pysteps' Lucas-Kanade. What is not installed is passed over. Speckled pairs are scored after a
Gaussian of 1.5 pixels, for all methods alike.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from typing import Any

import _machine
import numpy as np
from scipy.ndimage import gaussian_filter

from xr_spde._core.errors import MissingDependencyError
from xr_spde._core.lazyimport import require
from xr_spde.latent.baselines import BASELINES, baseline
from xr_spde.latent.cases import CASES, make_case
from xr_spde.latent.compare import displacement_of, endpoint_error, rmse, ssim
from xr_spde.latent.frames import frame_between
from xr_spde.latent.motion import fit_motion

PEERS = (*(name for name in BASELINES if name != "transport"), "transport", "pysteps")
FIELDS = {"field": "auto", "field, varying": "varying"}
FREE = ("growth",)  # cases on which the variant with varying brightness is run as well
ALIKE = ("growth", "bell_rot")  # cases without textures, the same for every seed


def pysteps(u0: np.ndarray, u1: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Lucas-Kanade and two-way semi-Lagrangian extrapolation of pysteps."""
    motion = require("pysteps.motion", "bench")
    carry = require("pysteps.extrapolation.semilagrangian", "bench").extrapolate
    flow = motion.get_method("LK")(np.stack([u0, u1]))
    parts = [
        carry(u0, flow, [tau], allow_nonfinite_values=True)[0],
        carry(u1, -flow, [1 - tau], allow_nonfinite_values=True)[0],
    ]
    shares = [s * np.isfinite(p) for s, p in zip((1 - tau, tau), parts, strict=True)]
    total = shares[0] + shares[1]
    mixed = sum(s * np.nan_to_num(p) for s, p in zip(shares, parts, strict=True))
    frame = np.where(total > 0, mixed / np.where(total > 0, total, 1), (1 - tau) * u0 + tau * u1)
    return frame, flow


def run(method: str, u0: np.ndarray, u1: np.ndarray) -> tuple[np.ndarray, Any]:
    """Middle and displacement by one method."""
    if method in FIELDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of motion as long as the search
            motion = fit_motion(u0, u1, brightness=FIELDS[method])
        return frame_between(u0, u1, motion, 0.5).image, displacement_of(motion)
    if method == "pysteps":
        return pysteps(u0, u1, 0.5)
    return baseline(u0, u1, 0.5, method=method)


def score(name: str, seed: int, methods: list[str]) -> dict[str, dict[str, float | None]]:
    """Figures of each method on one pair, with CPU seconds."""
    case = make_case(name, seed=seed)
    truth = case.frame(0.5)
    found: dict[str, dict[str, float | None]] = {}
    for method in methods:
        begun = time.process_time()
        try:
            frame, moved = run(method, case.u0, case.u1)
        except MissingDependencyError:
            continue
        spent = time.process_time() - begun
        if name == "speckle":
            frame = gaussian_filter(frame, 1.5)
        epe = None if moved is None else endpoint_error(moved, case.displacement)
        similar = ssim(frame, truth, data_range=1.0)
        found[method] = {
            "rmse": rmse(frame, truth),
            "ssim": similar,
            "epe": epe,
            "seconds": spent,
        }
    return found


PARTS = {"score": score}


def text(found: dict[str, Any] | None) -> str | None:
    """RMSE / SSIM / EPE."""
    if found is None:
        return None
    epe = "" if found["epe"] is None else f" / {found['epe']:.2f}"
    return f"{found['rmse']:.4f} / {found['ssim']:.3f}{epe}"


def synthetic(seeds: list[int], names: list[str], methods: list[str]) -> str:
    """Table of all cases and seeds, and the CPU seconds of each method."""
    rows, spent = [], []
    for name in names:
        for number, seed in enumerate(seeds):
            if number and name in ALIKE:
                continue
            left_out = {"field, varying"} if name not in FREE else set()
            left_out |= {"transport"} if number else set()  # a quarter of a minute each
            chosen = [m for m in methods if m not in left_out]
            found = _machine.isolated(__file__, "score", name=name, seed=seed, methods=chosen)
            rows.append([name, seed, *(text(found.get(m)) for m in methods)])
            spent.append([found[m]["seconds"] if m in found else None for m in methods])
    seconds = [[t for t in column if t is not None] for column in zip(*spent, strict=True)]
    rows.append(["CPU s, median", "", *(float(np.median(t)) if t else None for t in seconds)])
    return _machine.table(["case", "seed", *methods], rows)


def main() -> None:
    """Run, print and write the table."""
    if _machine.answer(PARTS):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[700, 800, 900])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--methods", nargs="+", default=[*FIELDS, *PEERS])
    parser.add_argument("--quick", action="store_true", help="one seed, no peers, printed only")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    methods = [*FIELDS, "linear"] if options.quick else options.methods
    parts = [
        _machine.machine("opencv-python-headless", "pot", "pysteps"),
        "Middle of the interval: RMSE / SSIM (range 1) / mean endpoint error in pixels. A dash: "
        "not run (transport on the first seed only), or not installed.",
        synthetic(seeds, options.cases, methods),
    ]
    command = "OMP_NUM_THREADS=1 python benchmarks/in_between.py " + " ".join(sys.argv[1:])
    title = "The frame between two images"
    _machine.write("in_between", title, command, "\n\n".join(parts), keep=not options.quick)


if __name__ == "__main__":
    main()

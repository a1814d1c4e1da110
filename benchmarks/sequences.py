"""Frames between those of a sequence: a motion for each pair, and one that changes smoothly.

    OMP_NUM_THREADS=1 python benchmarks/sequences.py [--seed 300] [--quick]

Scenes of xr_spde.latent.cases_in_time (which accelerate, reverse, turn) and cases of
xr_spde.latent.cases (steady) at 128 x 128, seen at irregular times; and two hours of rain every 30
and 60 minutes on 4 x 4 means, with the frames between withheld. Errors are over the middles of all
intervals.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import _machine
import numpy as np
import xarray as xr

from xr_spde.datasets import local_path
from xr_spde.latent.cases import make_case
from xr_spde.latent.cases_in_time import SCENES
from xr_spde.latent.compare import rmse
from xr_spde.latent.frames import frame_between
from xr_spde.latent.sequence import PATHS, fit_sequence

MOVING = ("accelerating", "reversing", "turning")
STEADY = ("swirl", "lead_open", "floe_rot", "tex_rot")
SEEN = ((0.0, 0.4, 1.0), (0.0, 0.25, 0.45, 0.7, 1.0))


def errors(frame: Callable[[float], np.ndarray], times: Sequence[float]) -> dict[str, float]:
    """Root mean square errors in the middles, and CPU seconds of the motions."""
    frames = [frame(t) for t in times]
    middles = [(a + b) / 2 for a, b in pairwise(times)]
    truths = [frame(t) for t in middles]
    blends = [(a + b) / 2 for a, b in pairwise(frames)]

    def total(found: Sequence[np.ndarray]) -> float:
        return float(
            np.sqrt(np.mean([rmse(a, b) ** 2 for a, b in zip(found, truths, strict=True)]))
        )

    result = {"linear": total(blends)}
    for path in reversed(PATHS):
        begun = time.process_time()
        motions = fit_sequence(frames, times, path=path)
        result[f"{path}, s"] = time.process_time() - begun
        for blend in ("area", "expected"):
            made = [
                frame_between(a, b, motion, 0.5, blend=blend).image
                for a, b, motion in zip(frames[:-1], frames[1:], motions, strict=True)
            ]
            result[f"{path}, {blend}"] = total(made)
    return result


def scene(name: str, times: list[float], seed: int) -> dict[str, float]:
    """One scene or case."""
    if name in SCENES:
        return errors(lambda t: SCENES[name](t, 128, seed), times)
    return errors(make_case(name, seed=seed).frame, times)


def rain(minutes: int) -> dict[str, float]:
    """Reflectivity clipped at 0 dBZ."""
    with xr.open_dataset(local_path("fmi_radar_20160928.nc")) as data:
        full = data["reflectivity"].load().clip(0).fillna(0)
    means = full.coarsen(y=4, x=4, boundary="trim").mean().to_numpy().astype(np.float64)
    return errors(lambda t: means[round(t / 5)], list(np.arange(0.0, 121.0, minutes)))


PARTS = {"scene": scene, "rain": rain}


def main() -> None:
    """Run, print and write the table."""
    if _machine.answer(PARTS):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="one scene, printed only")
    options = parser.parse_args()
    columns = ["linear", "steady, area", "smooth, area", "steady, expected", "smooth, expected"]
    rows = []
    for name in MOVING[:1] if options.quick else (*MOVING, *STEADY):
        for times in SEEN:
            found = _machine.isolated(
                __file__, "scene", name=name, times=list(times), seed=options.seed
            )
            shown = [found[key] for key in columns[:3]]
            rows.append([name, len(times), *shown, None, None, found["smooth, s"]])
    for minutes in () if options.quick else (30, 60):
        found = _machine.isolated(__file__, "rain", minutes=minutes)
        count = 120 // minutes + 1
        rows.append([f"rain, dBZ, every {minutes} min", count, *(found[k] for k in columns),
                     found["smooth, s"]])  # fmt: skip
    parts = [
        _machine.machine(),
        "Root mean square error in the middles of all intervals; CPU seconds of all motions.",
        _machine.table(["scene", "frames", *columns, "CPU s"], rows),
    ]
    command = "OMP_NUM_THREADS=1 python benchmarks/sequences.py " + " ".join(sys.argv[1:])
    _machine.write(
        "sequences", "Frames of a sequence", command, "\n\n".join(parts), keep=not options.quick
    )


if __name__ == "__main__":
    main()

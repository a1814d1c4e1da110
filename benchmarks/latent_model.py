"""The latent model between two images: the guard case, what it adds to the classical motion.

    OMP_NUM_THREADS=1 python benchmarks/latent_model.py [--seeds 100 200] [--networks 0 1]
        [--data DIR] [--quick]

Cases of 128 x 128 and their central 64 x 64 cells, whose middle is known (`xr_spde.latent.cases`).
Texture seeds 100 and 200 are those of development. What is measured is kept, and not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import _machine

FIGURES = ("rmse", "ssim", "epe", "one_sided", "end", "speed", "seconds")
DEGENERATE = {"initial": "none", "residual": False, "lam_c": 0.0, "lam_h": 0.0, "lam_mag": 1e-2}
FOUR_TERMS = {"residual": False, "lam_c": 0.0, "lam_h": 0.0}


def pair(name: str, seed: int, n: int) -> tuple[Any, Any, Any]:
    """Images, their middle and the displacement, cut to the central n x n cells."""
    import numpy as np

    from xr_spde.latent.cases import make_case

    case = make_case(name, seed=seed)
    low = (128 - n) // 2
    cut = (..., slice(low, low + n), slice(low, low + n))
    return np.stack([case.u0, case.u1])[cut], case.frame(0.5)[cut], case.displacement[cut]


def figures(frame: Any, motion: Any, middle: Any, displacement: Any) -> dict[str, float]:
    """Scores of a frame and of the motion that led to it."""
    import numpy as np

    from xr_spde.latent.compare import displacement_of, endpoint_error, rmse, ssim

    return {
        "rmse": rmse(frame, middle),
        "ssim": ssim(frame, middle, data_range=1.0),
        "epe": endpoint_error(displacement_of(motion), displacement),
        "speed": float(np.hypot(*motion.velocity).mean()),
    }


def classical(name: str, seed: int, n: int = 128) -> dict[str, Any]:
    """Linear blend, and the frame along the motion from the images alone."""
    from xr_spde.latent.compare import rmse
    from xr_spde.latent.frames import frame_between
    from xr_spde.latent.motion import fit_motion

    images, middle, displacement = pair(name, seed, n)
    start = time.process_time()
    motion = fit_motion(*images)
    seconds = time.process_time() - start
    frame = frame_between(*images, motion, 0.5).image
    scores = figures(frame, motion, middle, displacement)
    return {**scores, "linear": rmse(images.mean(axis=0), middle), "seconds": seconds}


def latent(
    name: str, seed: int, network: int, n: int = 128, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Frame of the latent model."""
    from xr_spde.latent.compare import rmse
    from xr_spde.latent.fit import fit_latent_dynamics
    from xr_spde.latent.motion import Motion

    images, middle, displacement = pair(name, seed, n)
    start = time.process_time()
    model = fit_latent_dynamics(images, seed=network, progress=False, **(settings or {}))
    seconds = time.process_time() - start
    motion = Motion(model.velocity[0], model.cells, mismatch=0.0)
    return {
        **figures(model.frame(0.5).image, motion, middle, displacement),
        "one_sided": rmse(model.carried(0, 0.5)[0], middle),
        "end": rmse(model.carried(0, 1.0)[0], images[1]),
        "seconds": seconds,
        "flags": ", ".join(model.diagnose().flags) or "none",
    }


def runs(seeds: list[int], networks: list[int]) -> list[tuple[str, dict[str, Any]]]:
    """Label and arguments of every fit."""
    lead = {"name": "lead_open", "n": 128, "settings": {}}
    planned = [
        ("latent", {**lead, "seed": seed, "network": network})
        for network in networks
        for seed in seeds
    ]
    swirl = {"name": "swirl", "seed": seeds[0], "network": networks[0], "n": 128}
    planned.insert(len(seeds), ("latent", {**swirl, "settings": {"iterations": 200}}))
    small = {"patch": 32, "iterations": 120}
    crop = {"name": "lead_open", "seed": seeds[0], "network": networks[0], "n": 64}
    kinds = {"latent": {}, "degenerate": DEGENERATE, "four terms": FOUR_TERMS}
    for label, changes in kinds.items():
        planned.append((label, {**crop, "settings": {**small, **changes}}))
    return planned


def measured(store: Path, part: str, **given: Any) -> dict[str, Any]:
    """Run a part, or take what an earlier run kept."""
    key = json.dumps([part, given], sort_keys=True)
    kept = json.loads(store.read_text()) if store.exists() else {}
    if key not in kept:
        kept[key] = _machine.isolated(__file__, part, **given)
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_text(json.dumps(kept, indent=1))
    return dict(kept[key])


def layout(rows: list[list[Any]], options: argparse.Namespace) -> None:
    """Write the table of what is measured so far."""
    header = ["case", "cells", "texture", "method", "network", "RMSE", "SSIM", "EPE"]
    header += ["one-sided", "end", "mean speed", "CPU s", "flags"]
    body = [
        _machine.machine("torch"),
        "Errors of the frame in the middle, images between 0 and 1; EPE and speed in cells. "
        "One-sided: from the first image alone; end: the same at the second image, before the "
        "correction that makes it exact. Classical: the motion from the images alone, with which "
        "the latent model starts. Degenerate: from rest, without residual networks and without "
        "consistency, lam_mag = 0.01; four terms: the loss of the source, with the classical "
        "start. Flags are those of `diagnose()`. One thread; the machine was shared. Settings were "
        "chosen on the crop of texture 100.",
        _machine.table(header, rows),
    ]
    command = "OMP_NUM_THREADS=1 python benchmarks/latent_model.py"
    title = "The latent model of two images"
    _machine.write("latent_model", title, command, "\n\n".join(body), keep=not options.quick)


def main() -> None:
    """Run every part in a process of its own; the table grows with each."""
    if _machine.answer({"classical": classical, "latent": latent}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 200], help="of textures")
    parser.add_argument("--networks", type=int, nargs="+", default=[0, 1], help="network seeds")
    parser.add_argument("--data", default="benchmarks/.latent_model", help="where results are kept")
    parser.add_argument("--quick", action="store_true", help="the crops, printed only")
    options = parser.parse_args()
    store = Path(options.data) / "results.json"
    rows: list[list[Any]] = []
    known: set[tuple[str, int, int]] = set()
    for label, given in runs(options.seeds, options.networks):
        name, seed, n = place = given["name"], given["seed"], given["n"]
        if options.quick and n > 64:
            continue
        if place not in known:
            known.add(place)
            found = measured(store, "classical", name=name, seed=seed, n=n)
            rows.append([name, n, seed, "linear", None, found["linear"], *[None] * 7])
            rows.append([name, n, seed, "classical", None, *map(found.get, FIGURES), None])
        found = measured(store, "latent", **given)
        rows.append([name, n, seed, label, given["network"], *map(found.get, FIGURES)])
        rows[-1].append(found["flags"])
        rows.sort(key=lambda row: (row[0], -row[1], row[2]))
        layout(rows, options)


if __name__ == "__main__":
    main()

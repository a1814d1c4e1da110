"""The latent model between two images: the guard case, what it adds to the classical motion.

    OMP_NUM_THREADS=1 python benchmarks/latent_model.py [--seeds 100 200] [--networks 0 1] [--quick]

Cases of 128 x 128 whose middle is known (`xr_spde.latent.cases`). Texture seeds 100 and 200 are
those of development: settings were chosen on 100.
"""

from __future__ import annotations

import argparse
import time
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


def main() -> None:
    """Run every part in a process of its own and write the table."""
    if _machine.answer({"classical": classical, "latent": latent}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 200], help="of textures")
    parser.add_argument("--networks", type=int, nargs="+", default=[0, 1], help="network seeds")
    parser.add_argument("--quick", action="store_true", help="one small crop, printed only")
    options = parser.parse_args()
    small = {"patch": 32, "iterations": 20} if options.quick else {}
    n = 64 if options.quick else 128
    runs: list[tuple[str, str, int, int, dict[str, Any]]] = [
        ("lead_open", "latent", seed, network, small)
        for seed in options.seeds
        for network in options.networks
    ]
    runs.append(("lead_open", "degenerate", options.seeds[0], 0, {**DEGENERATE, **small}))
    runs.append(("lead_open", "four terms", options.seeds[0], 0, {**FOUR_TERMS, **small}))
    runs.append(("swirl", "latent", options.seeds[0], 0, {"iterations": 200, **small}))
    rows: list[list[Any]] = []
    known: set[tuple[str, int]] = set()
    for name, label, seed, network, settings in runs:
        if (name, seed) not in known:
            known.add((name, seed))
            found = _machine.isolated(__file__, "classical", name=name, seed=seed, n=n)
            rows.append([name, seed, "linear", None, found["linear"], *[None] * 7])
            rows.append([name, seed, "classical", None, *map(found.get, FIGURES), None])
        given = {"name": name, "seed": seed, "network": network, "n": n, "settings": settings}
        found = _machine.isolated(__file__, "latent", **given)
        rows.append([name, seed, label, network, *map(found.get, FIGURES), found["flags"]])
        print(*rows[-1], flush=True)
    header = ["case", "texture", "method", "network", "RMSE", "SSIM", "EPE"]
    header += ["one-sided", "end", "mean speed", "CPU s", "flags"]
    body = [
        _machine.machine("torch"),
        "Errors of the frame in the middle, images between 0 and 1; EPE and speed in cells. "
        "One-sided: from the first image alone; end: the same at the second image, before the "
        "correction that makes it exact. Classical: the motion from the images alone, with which "
        "the latent model starts. Degenerate: from rest, without residual networks and without "
        "consistency, lam_mag = 0.01; four terms: the loss of the source, with the classical "
        "start. Flags are those of `diagnose()`. One thread; the machine was shared.",
        _machine.table(header, rows),
    ]
    command = "OMP_NUM_THREADS=1 python benchmarks/latent_model.py"
    title = "The latent model of two images"
    _machine.write("latent_model", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

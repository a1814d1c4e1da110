"""Ensemble filters on the model of Lorenz (1996): error of the analysis, beside DAPPER's.

    OMP_NUM_THREADS=1 python benchmarks/lorenz96.py [--cycles 5000] [--seeds 2] [--quick]

40 variables, F = 8, Runge-Kutta steps of 0.05, each variable observed after each step with unit
noise, no model noise (Sakov and Oke, 2008). The error is the root mean square over variables of the
mean of the analysis, averaged over time after 400 cycles of spin-up. Where DAPPER is installed it
gets the same truth, the same observations and the same settings; ensembles start from draws of
their own.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import _machine
import numpy as np

from xr_spde.assim.filters import analyse
from xr_spde.assim.letkf import letkf
from xr_spde.assim.localization import on_ring

SIZE, FORCING, STEP, SPIN_UP = 40, 8.0, 0.05, 400
START_VARIANCE = 0.001
# name, members, inflation, rotation, radius of localisation as DAPPER means it, figure that DAPPER
# documents (of Sakov and Oke's table where they have it), name and arguments in DAPPER
CASES: list[tuple[str, int, float, bool, float | None, float, tuple[str, dict[str, Any]]]] = [
    ("enkf", 40, 1.06, False, None, 0.22, ("EnKF", {"upd_a": "PertObs"})),
    ("denkf", 40, 1.01, False, None, 0.18, ("EnKF", {"upd_a": "DEnKF"})),
    ("etkf", 24, 1.013, True, None, 0.18, ("EnKF", {"upd_a": "Sqrt"})),
    ("serial", 28, 1.02, True, None, 0.18, ("EnKF", {"upd_a": "Serial"})),
    ("letkf", 7, 1.04, True, 4.0, 0.22, ("LETKF", {"loc_rad": 4.0})),
]
# DAPPER's Gaspari-Cohn length is 1.82 loc_rad; a radius here is where the taper vanishes, twice it
RADIUS = 2 * 1.82


def tendency(x: np.ndarray) -> np.ndarray:
    """Time derivative of states along the last axis."""
    wide = np.concatenate([x[..., -2:], x, x[..., :1]], axis=-1)
    return (wide[..., 3:] - wide[..., :-3]) * wide[..., 1:-2] - x + FORCING


def step(x: np.ndarray) -> np.ndarray:
    """One Runge-Kutta step of states along the last axis."""
    first = tendency(x)
    second = tendency(x + 0.5 * STEP * first)
    third = tendency(x + 0.5 * STEP * second)
    fourth = tendency(x + STEP * third)
    return x + STEP / 6.0 * (first + 2.0 * (second + third) + fourth)


def start(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw initial states around (1, 0, ..., 0)."""
    state = np.sqrt(START_VARIANCE) * rng.standard_normal((*shape, SIZE))
    state[..., 0] += 1.0
    return state


def experiment(cycles: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth (cycles + 1, 40) from the start on, and observations (cycles, 40) of what follows."""
    rng = np.random.default_rng(seed)
    truth = np.empty((cycles + 1, SIZE))
    truth[0] = start(rng, ())
    for k in range(cycles):
        truth[k + 1] = step(truth[k])
    return truth, truth[1:] + rng.standard_normal((cycles, SIZE))


def ours(case: int, cycles: int, seed: int) -> dict[str, float]:
    """Error, and milliseconds of CPU per cycle, of one filter here."""
    name, size, inflation, rotate, radius, _, _ = CASES[case]
    truth, observations = experiment(cycles, seed)
    rng = np.random.default_rng([seed, 1])
    ensemble = start(rng, (size,))
    ring = on_ring(np.arange(SIZE), SIZE)
    settings = {"inflation": inflation, "rotate": rotate, "seed": rng}
    if radius is not None:
        settings |= {"points": ring, "sites": ring, "radius": RADIUS * radius}
    errors = np.empty(cycles)
    begun = time.process_time()
    for k in range(cycles):
        ensemble = step(ensemble)
        if radius is None:
            ensemble = analyse(ensemble, ensemble, observations[k], 1.0, method=name, **settings)
        else:
            ensemble = letkf(ensemble, ensemble, observations[k], 1.0, **settings)
        errors[k] = np.sqrt(np.mean((ensemble.mean(axis=0) - truth[k + 1]) ** 2))
    spent = time.process_time() - begun
    return {"error": float(errors[SPIN_UP:].mean()), "ms": 1000 * spent / cycles}


def dapper(case: int, cycles: int, seed: int) -> dict[str, float | None]:
    """Return the same of DAPPER; nothing where it is not installed."""
    try:
        import dapper.da_methods as methods
        import dapper.mods as modelling
        from dapper.mods.Lorenz96.sakov2008 import HMM
        from dapper.tools.seeding import set_seed
    except ImportError:
        return {"error": None, "ms": None}
    _, size, inflation, rotate, _, _, (name, arguments) = CASES[case]
    truth, observations = experiment(cycles, seed)
    HMM.tseq = modelling.Chronology(STEP, dko=1, Ko=cycles - 1, BurnIn=SPIN_UP * STEP)
    run = getattr(methods, name)(N=size, infl=inflation, rot=rotate, **arguments)
    set_seed(1000 + seed)
    begun = time.process_time()
    run.assimilate(HMM, truth, observations, liveplots=False)
    spent = time.process_time() - begun
    run.stats.average_in_time()
    return {"error": float(run.avrgs.err.rms.a.val), "ms": 1000 * spent / cycles}


PARTS = {"ours": ours, "dapper": dapper}


def pooled(results: list[dict[str, Any]], key: str) -> float | None:
    """Mean over seeds, or nothing."""
    values = [one[key] for one in results]
    return None if None in values else float(np.mean(values))


def main() -> None:
    """Run, print and write the table."""
    if _machine.answer(PARTS):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=5000, help="after the spin-up")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="600 cycles, one seed, printed only")
    options = parser.parse_args()
    cycles, seeds = (600, 1) if options.quick else (options.cycles, options.seeds)
    rows = []
    for case, (name, size, inflation, _, _, figure, _) in enumerate(CASES):
        found = {
            part: [
                _machine.isolated(__file__, part, case=case, cycles=cycles + SPIN_UP, seed=seed)
                for seed in range(1, seeds + 1)
            ]
            for part in PARTS
        }
        figures = [pooled(found[part], key) for key in ("error", "ms") for part in PARTS]
        rows.append([name, size, inflation, figure, *figures])
    header = ["filter", "N", "inflation", "published", "RMSE", "DAPPER", "ms/cycle", "DAPPER ms"]
    body = [
        _machine.machine("dapper"),
        f"{cycles} cycles after {SPIN_UP} of spin-up, mean of {seeds} seed(s); CPU time of one "
        "thread, forecast included. A dash: DAPPER is not installed.",
        _machine.table(header, rows),
    ]
    command = f"OMP_NUM_THREADS=1 python benchmarks/lorenz96.py --cycles {cycles} --seeds {seeds}"
    title = "Ensemble filters on the Lorenz-96 model"
    _machine.write("lorenz96", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

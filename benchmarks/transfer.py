"""What the default network loses on sizes of grids that it never saw in training.

    python benchmarks/transfer.py [--one 64 64] [--steps 600] [--data DIR] [--quick]

Two default networks with the same number of steps, cells in a batch, and cells in the training
set: one sees grids of one size only, the other those of all the sizes in training (equal shares).
Both are scored on the same held-out fields of each size, M = 30. "loss" is how much larger the
RMSE of the first is, in percent, with the standard error over the fields (bootstrap, pairs);
what another seed of the training would change is not in it. The prior draws its patterns on the
unit square, so that a larger grid has smoother maps: part of any loss is that, not the size.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import _machine
import _networks as networks
import numpy as np
import published_sar as published

from xr_spde.nets.cases import CaseBatches
from xr_spde.nets.objectives import score_held

FULL = 30
SIZES = ((64, 64), (48, 96), (96, 144), (128, 128))  # in training; transposed ones come with them
UNSEEN = ((96, 48), (192, 96))  # scored besides
CELLS = 65536  # of a batch
RATE = 2e-3
VALIDATIONS = 4
VALIDATED = 12
RESAMPLES = 1000
SEED = 1

Scores = dict[networks.Shape, list[dict[str, Any]]]


def name_of(shape: networks.Shape) -> str:
    return f"{shape[0]} x {shape[1]}"


def train(folder: str, wanted: dict[networks.Shape, int], steps: int) -> tuple[Any, float]:
    """Train on some sizes, with so many cases of each; also give the CPU seconds."""
    groups, held = [], []
    each = -(-VALIDATED // len(wanted))
    for shape, cases in wanted.items():
        groups.append(networks.read(folder, shape, each, each + cases))
        kept = networks.read(folder, shape, 0, each)
        held += networks.validation(kept, moments=True, count=FULL)
    batches = CaseBatches(
        groups, [1.0] * len(groups), cells=CELLS, variation=networks.fixed(FULL), seed=SEED
    )
    model = networks.build("net", {}, seed=SEED)
    settings = networks.schedule(steps, RATE, "muon", validations=VALIDATIONS)
    _, seconds = networks.train(model, batches, settings, partial(score_held, held=held))
    return model, seconds


def scores(model: Any, folder: str, shape: networks.Shape, fields: int) -> list[dict[str, Any]]:
    cases = (published.case_arrays(folder, shape, k) for k in range(fields))
    return [networks.score(model, case, FULL) for case in cases]


def losses(one: list[dict[str, Any]], every: list[dict[str, Any]]) -> str:
    """Percent by which the RMSE of the first is larger, with standard errors."""
    squares = np.array([[s["squares"] for s in both] for both in (one, every)])
    drawn = np.random.default_rng(SEED).integers(len(one), size=(RESAMPLES, len(one)))

    def percent(sums: np.ndarray) -> np.ndarray:
        return 100.0 * (np.sqrt(sums[0] / sums[1]) - 1.0)

    spread = percent(squares[:, drawn].sum(2)).std(0)
    pairs = zip(percent(squares.sum(1)), spread, strict=True)
    return ", ".join(f"{value:+.1f} ± {error:.1f}" for value, error in pairs)


def options_of_run() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, nargs=2, default=[64, 64], help="rows and columns")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--cases", type=int, default=1500, help="fields of the one size")
    parser.add_argument("--fields", type=int, default=40, help="held-out fields of each size")
    parser.add_argument("--data", default="benchmarks/.transfer", help="where fields are kept")
    parser.add_argument("--quick", action="store_true", help="a few steps each, printed only")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.cases, options.fields = 4, 32, 2
    return options


def main() -> None:
    """Simulate, train, print and write the table."""
    options = options_of_run()
    one = (options.one[0], options.one[1])
    trained, held = (str(Path(options.data) / name) for name in ("trained", "held"))
    sizes = tuple(dict.fromkeys((one, *SIZES)))
    cells = options.cases * one[0] * one[1]
    share = {s: max(round(cells / len(sizes) / (s[0] * s[1])), 1) for s in sizes}
    wanted = {"one size": {one: options.cases}, "all sizes": share}
    scored = tuple(dict.fromkeys((*sizes, *UNSEEN)))
    everything = {s: VALIDATED + n for s, n in (share | wanted["one size"]).items()}
    networks.simulate(trained, everything, seed=networks.TRAINED_SEED, workers=1)
    networks.simulate(held, dict.fromkeys(scored, options.fields), seed=published.SEED, workers=1)
    found: dict[str, Scores] = {}
    spent = []
    for label, cases in wanted.items():
        model, seconds = train(trained, cases, options.steps)
        found[label] = {s: scores(model, held, s, options.fields) for s in scored}
        spent.append(f"{label}: {sum(cases.values())} fields, {seconds:.0f} CPU s")
        print(spent[-1], flush=True)
    rows = []
    for shape in scored:
        mine = [found[label][shape] for label in wanted]
        pools = [published.pooled(each) for each in mine]
        seen = "second" if shape in sizes or shape[::-1] in sizes else "neither"
        triples = [published.triple(s["rmse"]) for s in pools]
        angles = [round(s["angle"], 4) for s in pools]
        role = "both" if shape == one else seen
        rows.append([name_of(shape), role, *triples, losses(*mine), *angles])
    labels = (f"RMSE, {name_of(one)} only", "RMSE, all sizes", "loss %")
    header = ("size", "trained on by", *labels, "angle, one", "angle, all")
    body = [
        _machine.machine("torch"),
        f"{options.steps} steps each ({'; '.join(spent)}); {options.fields} held-out fields of "
        f"each size; triples are {', '.join(published.NAMES)}. Trained on by both, the second, "
        "or neither.",
        _machine.table(header, rows),
    ]
    command = (
        f"OMP_NUM_THREADS=1 python benchmarks/transfer.py --one {one[0]} {one[1]} "
        f"--steps {options.steps} --cases {options.cases}"
    )
    title = "The default network on sizes it was not trained on"
    _machine.write("transfer", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

"""Learning curves on raw replicates and on lag products, with the same small U-Net.

    python benchmarks/learning.py [--cases 2200] [--steps 800] [--data DIR] [--quick]

48 x 32 fields of the prior of LatticeVision's generator, 30 replicates, standardised cell by cell;
batches of 16, AdamW with a rate that rises to 2e-3 and falls once. The U-Net (0.48 million
parameters) sees either the replicates in a new random order at each visit, as in the paper, or
16 products of neighbours averaged over the replicates (`xr_spde.nets.lag_features.lag_products`).
A default network of a quarter of its parameters gets the same fields as lag statistics. The
shares of variance explained on held-out fields are those of the averaged weights; "wanted" is
what 800 steps on 2200 fields must reach. The last rows show the networks on lags fewer replicates
than they were trained for.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import _machine
import _networks as networks
import published_sar as published
from torch import Tensor, nn

from xr_spde.nets.cases import CaseBatches
from xr_spde.nets.lag_features import PRODUCT_LAGS, lag_products
from xr_spde.nets.training import Schedule

SHAPE = (48, 32)
FULL = 30
FEWER = (15, 5)
BATCH = 16
RATE = 2e-3
POINTS = 8  # of a curve
SEED = 5

# least R2 of log kappa2, theta and rho after 800 steps on 2200 fields
WANTED = {"U-Net on replicates": (0.75, 0.75, 0.15), "U-Net on lag products": (0.80, 0.90, 0.55)}


class OnProducts(nn.Module):
    """A network on replicates that sees their lag products."""

    architecture = "unet"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, replicates: Tensor) -> Tensor:
        """Estimate as the network does, whatever the number of replicates."""
        return self.network(lag_products(replicates))


def contestants() -> dict[str, nn.Module]:
    """Build the untrained networks."""
    unet: dict[str, Any] = {"widths": [32, 64], "bottleneck": 128}
    build = partial(networks.build, seed=SEED)
    replicates, products = WANTED
    return {
        replicates: build("unet", {"replicates": FULL, **unet}),
        products: OnProducts(build("unet", {"replicates": len(PRODUCT_LAGS), **unet})),
        "default network, small": build("net", {"widths": [24, 48], "down": [1, 2], "up": [1]}),
    }


def learn(
    model: nn.Module, cases: networks.Case, held: list[networks.Case], steps: int
) -> tuple[list[dict[str, Any]], float]:
    """Train; return the scores along the way and the CPU seconds of the training."""
    batches = CaseBatches(
        [cases],
        [1.0],
        cells=BATCH * SHAPE[0] * SHAPE[1],
        variation=networks.fixed(FULL, symmetries=False),
        seed=SEED,
        moments=model.architecture == "net",
    )
    settings = Schedule(
        steps=steps,
        rate=RATE,
        warmup=max(3 * steps // 10, 1),
        average=0.95,
        every=-(-steps // POINTS),
        patience=POINTS + 1,
        mixed=False,
    )
    curve: list[dict[str, Any]] = []

    def validate(mean: nn.Module) -> dict[str, float]:
        scores = published.pooled([networks.score(mean, case, FULL) for case in held])
        step = min((len(curve) + 1) * settings.every, steps)
        curve.append({"step": step, **scores})
        return {"score": -float(step)}  # the last weights are kept: nothing is chosen by these

    _, seconds = networks.train(model, batches, settings, validate)
    return curve, seconds


def main() -> None:
    """Simulate, train, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2200, help="fields to train on")
    parser.add_argument("--fields", type=int, default=100, help="held-out fields")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--data", default="benchmarks/.learning", help="where fields are kept")
    parser.add_argument("--quick", action="store_true", help="a few steps each, printed only")
    options = parser.parse_args()
    if options.quick:
        options.cases, options.fields, options.steps = 40, 4, 16
    trained, held = (str(Path(options.data) / name) for name in ("trained", "held"))
    networks.simulate(trained, {SHAPE: options.cases}, seed=networks.TRAINED_SEED, workers=1)
    networks.simulate(held, {SHAPE: options.fields}, seed=published.SEED, workers=1)
    cases = networks.read(trained, SHAPE, 0, options.cases)
    tested = [published.case_arrays(held, SHAPE, k) for k in range(options.fields)]
    curves, summary, fewer = {}, [], []
    for name, model in contestants().items():
        curve, seconds = learn(model, cases, tested, options.steps)
        curves[name] = curve
        last, wanted = curve[-1], WANTED.get(name)
        met = None if wanted is None else "yes" if (last["r2"] >= wanted).all() else "no"
        figures = [published.triple(last[k]) for k in ("rmse", "r2")]
        wanted = None if wanted is None else published.triple(wanted, 2)
        parameters = sum(p.numel() for p in model.parameters())
        summary.append([name, parameters, seconds, *figures, wanted, met])
        for count in FEWER if name not in list(WANTED)[:1] else ():
            s = published.pooled([networks.score(model, case, count) for case in tested])
            fewer.append([name, count, *[published.triple(s[k]) for k in ("rmse", "r2")]])
    header = ("input", "parameters", "CPU s", "RMSE", "R2", "R2 wanted", "met")
    steps = [point["step"] for point in next(iter(curves.values()))]
    rows = [
        [step, *[published.triple(curve[k]["r2"]) for curve in curves.values()]]
        for k, step in enumerate(steps)
    ]
    body = [
        _machine.machine("torch"),
        f"{options.cases} fields to train on, {options.fields} held out, {options.steps} steps; "
        f"triples are {', '.join(published.NAMES)}.",
        _machine.table(header, summary),
        "R2 on the way:",
        _machine.table(("steps", *curves), rows),
        "The same weights with fewer replicates:",
        _machine.table(("input", "M", "RMSE", "R2"), fewer),
    ]
    command = (
        f"OMP_NUM_THREADS=1 python benchmarks/learning.py --cases {options.cases} "
        f"--steps {options.steps}"
    )
    title = "Learning from replicates and from their lags"
    _machine.write("learning", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

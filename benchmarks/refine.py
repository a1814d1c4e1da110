"""Steps of the likelihood after the default network: error on fields of the prior.

    OMP_NUM_THREADS=1 python benchmarks/refine.py [--fields 6] [--steps 10] [--data DIR] [--quick]

The first held-out fields of `benchmarks/published_sar.py` (192 x 288). The steps must not make the
network worse where it knows better, which is here: its training drew from the same prior.
"""

from __future__ import annotations

import argparse
from functools import partial

import _machine
import published_sar as published


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--data", default="benchmarks/.published", help="where fields are kept")
    parser.add_argument("--quick", action="store_true", help="one small field, printed only")
    options = parser.parse_args()
    shape, number = ((96, 144), 1) if options.quick else ((192, 288), options.fields)
    published.simulate(options.data, {shape: number})
    rows = []
    for count in (5, 15, 30):
        for name, steps in (("net", 0), (f"net, refine={options.steps}", options.steps)):
            one = partial(published.score, data=options.data, shape=shape, count=count)
            scores = [one(index, method="net", refine=steps) for index in range(number)]
            pooled = published.pooled(scores)
            figures = [published.triple(pooled[k]) for k in ("rmse", "mae")]
            rows.append([name, count, *figures, published.triple(pooled["inside"][0])])
    header = ["method", "M", "RMSE", "MAE", "1 sigma"]
    body = [
        _machine.machine("torch"),
        f"Triples are {', '.join(published.NAMES)}.",
        _machine.table(header, rows),
    ]
    command = f"OMP_NUM_THREADS=1 python benchmarks/refine.py --fields {number}"
    title = f"Steps of the likelihood after the network, {number} fields"
    _machine.write("refine", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

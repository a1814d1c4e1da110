"""The runs of shallow water beside those that were published: how fast they change, what varies.

    python benchmarks/shallow_water.py --cache FOLDER [--modes]

Persistence, the first field of a window of ten hours in place of the next nine, tells whether the
flow is the same as that of Li, Dong and Zhang (2024), who ran another program at twice the
resolution. Their curve is the mean over 16 of the 48 windows of the test runs 19 and 20, as far as
can be told from their program; the mean over all windows is higher, since most of the 16 are of the
slower run. With ``--modes`` (two more CPU minutes): what principal components of the runs 1 to 18
leave out of the test runs.
"""

from __future__ import annotations

import argparse
import time

import _machine
import _shallow_water as data
import numpy as np

PUBLISHED = (0.0144, 0.0273, 0.0398, 0.0524, 0.0648, 0.0769, 0.0888, 0.1004, 0.1116)
MODES = (64, 128, 256, 400)


def curves(runs: data.Runs) -> str:
    """Table of persistence by lead."""
    logged, whole = (
        data.persistence(runs.test, runs.weights, which) for which in (data.LOGGED, None)
    )
    rows = [
        [f"{k + 1} h", one, float(logged[k].mean()), f"{100 * (logged[k].mean() / one - 1):+.1f} %",
         float(whole[k].mean()), *whole[k].tolist()]
        for k, one in enumerate(PUBLISHED)
    ]  # fmt: skip
    return _machine.table(
        ["lead", "published", "16 windows", "difference", "all windows", "height", "vorticity"],
        rows,
    )


def projection(runs: data.Runs) -> str:
    """Table of what principal components leave out, the area as weights, both variables as one."""
    root = np.sqrt(np.repeat(runs.weights, 2)).astype(np.float32)
    train = runs.train.reshape(-1, root.size) * root
    mean = train.mean(axis=0)
    train -= mean
    gram = (train @ train.T).astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(values)[::-1][: max(MODES)]
    modes = train.T @ (vectors[:, order] / np.sqrt(values[order])).astype(np.float32)
    test = runs.test.reshape(-1, root.size) * root - mean
    codes = test @ modes
    rows = []
    for count in MODES:
        error = (test - codes[:, :count] @ modes[:, :count].T).reshape(*runs.test.shape)
        found = np.sqrt(np.square(error, dtype=np.float64).sum(axis=2)).mean(axis=1)
        rows.append([count, float(found.mean()), *found.mean(axis=0).tolist(),
                     *found.mean(axis=1).tolist()])  # fmt: skip
    header = ["components", "error", "height", "vorticity"]
    return _machine.table(header + [f"run {seed}" for seed in runs.test_seeds], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True, help="folder of the runs; computed into it once")
    parser.add_argument("--modes", action="store_true", help="principal components as well")
    options = parser.parse_args()
    start = time.process_time()
    runs = data.read(options.cache)
    used = time.process_time() - start
    body = (
        f"{_machine.machine()}\n\nReading the twenty runs from the cache, and computing those that "
        f"were not in it, took {used:.0f} CPU seconds. "
        f"Height {runs.mean[0]:.1f} m, standard deviation {runs.std[0]:.1f} m; vorticity "
        f"{runs.std[1]:.3e} 1/s (all that follows in these units). Errors are roots of the mean "
        f"square over the area, then averaged over windows and variables.\n\n{curves(runs)}"
    )
    command = "python benchmarks/shallow_water.py --cache FOLDER"
    if options.modes:
        command += " --modes"
        body += f"\n\nPrincipal components of the runs 1 to 18:\n\n{projection(runs)}"
    _machine.write("shallow_water", "Shallow water on the sphere", command, body)


if __name__ == "__main__":
    main()

"""Optimal interpolation with the space-time prior: time, memory and accuracy by size.

    OMP_NUM_THREADS=1 python benchmarks/spacetime.py [--quick]

The varying-anisotropy case of the Gaussian-process experiment of arXiv 2402.01855 (kappa 0.33,
tau 1, gamma 1, beta 25, v from the gradient of a sum of two sines), seen by satellite-like
tracks without noise and interpolated with an error variance of 1e-3. "MSE" is the mean square error
of the posterior mean over the variance of the truth, on all days. Each case is a process of its
own.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from _machine import answer, isolated, machine, table, write

CASES = ((2, 5, 100), (4, 5, 100), (4, 5, 120), (2, 20, 100), (2, 5, 200))


def one(alpha: int, steps: int, n: int) -> dict[str, Any]:
    """Interpolate one draw of the prior."""
    import numpy as np
    import scipy.sparse as sp

    from xr_spde.fields.interpolation import SpaceTimePosterior
    from xr_spde.fields.mesh import Mesh
    from xr_spde.fields.spacetime import SpaceTime
    from xr_spde.fields.spde import SpdeOperator, SpdeParameters

    y, x = np.indices((n, n))
    wave = 2 * math.pi / 50
    parameters = SpdeParameters.of(
        (n, n), kappa=0.33, beta=25.0, v1=0.6 * np.cos(wave * x), v2=-wave / 4 * np.cos(wave * y)
    )
    mesh = Mesh.of((n, n), boundary="dirichlet")
    prior = SpaceTime(SpdeOperator(mesh), parameters, steps=steps, alpha=alpha)
    truth = prior.sample(np.random.default_rng(0).standard_normal((1, steps, n * n))).ravel()
    seen = [((x - y - 10 * t) % n < 4) | ((x + y - 10 * t) % n < 4) for t in range(steps)]
    nodes = np.flatnonzero(np.stack(seen))
    rows = sp.csr_array(sp.eye_array(truth.size, format="csr")[nodes])
    began = time.process_time()
    found = SpaceTimePosterior(prior, rows, np.full(nodes.size, 1e-3))
    mean = found.mean(truth[nodes]).ravel()
    spent = time.process_time() - began
    result = {
        "how": "direct" if found.blocks.direct else f"PCG, {found.iterations} iterations",
        "mean_s": spent,
        "mse": float(np.mean((mean - truth) ** 2) / np.mean(truth**2)),
        "residual": found.residual,
        "deviation_s": None,
    }
    if found.blocks.direct:
        began = time.process_time()
        found.deviation()
        result["deviation_s"] = time.process_time() - began
    return result


def main() -> None:
    """Run, print and write the table."""
    if answer({"one": one}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small case, nothing written")
    options = parser.parse_args()
    rows = []
    for alpha, steps, n in ((2, 5, 32),) if options.quick else CASES:
        found = isolated(__file__, "one", alpha=alpha, steps=steps, n=n)
        rows.append([
            f"{n} x {n} x {steps}", alpha, found["how"], found["mean_s"], found["deviation_s"],
            f"{found['peak_mb']:.0f}", found["mse"], f"{found['residual']:.0e}",
        ])  # fmt: skip
    header = ["grid", "alpha", "solver", "CPU s of the mean", "of the exact deviation", "peak MB",
              "MSE", "residual"]  # fmt: skip
    command = "OMP_NUM_THREADS=1 python benchmarks/spacetime.py"
    body = f"{machine()}\n\n{table(header, rows)}"
    title = "Optimal interpolation in space and time"
    write("spacetime", title, command, body, keep=not options.quick)


if __name__ == "__main__":
    main()

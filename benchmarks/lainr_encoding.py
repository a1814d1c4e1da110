"""Time of finding the code of a field, by least squares and as the source does.

    OMP_NUM_THREADS=1 python benchmarks/lainr_encoding.py [--quick]

The network of the source (565,641 weights, random ones: values do not matter for the time) and
fields of 128 x 64 points, two variables and 400 numbers. CPU seconds of one thread, the least of
three; "points known" says where the harmonics and the modes are at hand from an earlier call.
Errors are root mean squares of what is left beside that of the field, for fields that the decoder
can meet up to a noise of 0.1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _machine import machine, table, write


def seconds(call: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Least CPU seconds of some calls, and what the last returned."""
    times, found = [], None
    for _ in range(repeats):
        began = time.process_time()
        found = call()
        times.append(time.process_time() - began)
    return min(times), found


def rows_of(modulation: str, points: np.ndarray, area: np.ndarray, steps: int) -> list[list[Any]]:
    """Rows of the table for one kind of decoder."""
    from xr_spde.nets.latent_encoding import CodePrior, encode, encode_by_adam
    from xr_spde.nets.sinr import Sinr, SinrSettings

    torch.manual_seed(0)
    net = Sinr(SinrSettings(variables=2, modulation=modulation))
    if not net.affine:
        torch.nn.init.normal_(net.gain_weight, std=0.02 / net.reads**0.5)
    net.requires_grad_(False)
    functions, weights = net.functions(points), torch.as_tensor(area)
    values = net(torch.randn(20, net.n), functions)
    net.read_weight /= values.std()
    net.read_bias /= values.std()
    values = values / values.std() + 0.1 * torch.randn(values.shape)
    gaps = torch.where(torch.rand(values.shape) < 0.9, torch.nan, values)
    prior = CodePrior(torch.zeros(net.n), torch.ones(net.n))
    kept = net.modes(functions) if net.affine else None

    def solve(fields: torch.Tensor, known: bool = True) -> Any:
        at = functions if known else net.functions(points)
        modes = kept if known else None
        return encode(net, at, fields, weights, prior=prior, noise=0.1, modes=modes)

    one = values[:1]
    cases = {"least squares" if net.affine else "Levenberg-Marquardt": lambda: solve(one, False)}
    if net.affine:
        cases["points known"] = lambda: solve(one)
        cases["20 fields, points known"] = lambda: solve(values)
        cases["20 fields, each with gaps of its own (90 %)"] = lambda: solve(gaps)
    cases[f"Adam, {steps} of up to 10,000 steps"] = lambda: encode_by_adam(
        net, functions, one, weights, iterations=steps
    )
    rows = []
    for name, call in cases.items():
        spent, found = seconds(call, 1 if "Adam" in name else 3)
        left = float(found.misfit.mean().sqrt())
        rows.append([modulation, name, spent, int(found.iterations.max()), left])
    return rows


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small grid, printed only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ny = 16 if options.quick else 64
    latitude, area = np.polynomial.legendre.leggauss(ny)
    points = np.stack(
        np.meshgrid(np.arange(2 * ny) * np.pi / ny, np.arcsin(latitude), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    weights, steps = np.tile(area, 2 * ny) / (4 * ny), 20
    rows = [row for kind in ("shift", "product") for row in rows_of(kind, points, weights, steps)]
    header = ["modulation", "codes by", "CPU s", "iterations", "error left"]
    text = (
        "Target: one field of 128 x 64 x 2 in less than 1 s. The decoder of the source "
        '("shift") is affine in its code, so that one linear solution is exact. "product" is '
        "the variant whose code also multiplies the filters. Fields carry a noise of 0.1 beside a "
        "standard deviation of 1; less than 0.1 is left where the code follows the noise."
    )
    body = f"{machine('torch')}\n\n{text}\n\n{table(header, rows)}"
    command = "OMP_NUM_THREADS=1 python benchmarks/lainr_encoding.py"
    write("lainr_encoding", "Time of encoding", command, body, keep=not options.quick)


if __name__ == "__main__":
    main()

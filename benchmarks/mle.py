"""Maximum of the exact likelihood: efficiency where it is known, and time on a whole grid.

    OMP_NUM_THREADS=1 python benchmarks/mle.py [--repeats 20 100] [--quick]

Fields of constant parameters (kappa2 0.05, ratio 3, 30 degrees) on a torus of 64 x 64, ten
replicates each, fitted with ``structure="stationary"``: bias and spread of the estimates over
repeats, in units of the Cramer-Rao bound (the spectral likelihood is exact on a torus; the mean of
the replicates takes one of them), and the share of the errors within the standard error given. Over
n repeats such a ratio is itself uncertain by 1 / sqrt(2 n).

Then a full non-stationary fit of 30 replicates on 192 x 288, in CPU seconds on one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import xarray as xr
from _machine import answer, isolated, machine, table, write

TRUTH = (0.05, 3.0, np.pi / 6)
SHAPE, REPLICATES = (64, 64), 10
NAMES = ("log kappa2", "log rho", "theta")


def bound() -> np.ndarray:
    """Cramer-Rao bound (3,) of log kappa2, log rho and theta, the variance being free."""
    from xr_spde.fields.sar import tensor

    ky, kx = np.meshgrid(*(2.0 * np.pi * np.fft.fftfreq(n) for n in SHAPE), indexing="ij")

    def log_density(u: np.ndarray) -> np.ndarray:
        hxx, hyy, hxy = tensor(np.exp(u[1]), u[2])
        symbol = np.exp(u[0]) + 2.0 * hxx * (1.0 - np.cos(kx)) + 2.0 * hyy * (1.0 - np.cos(ky))
        return u[3] - 2.0 * np.log(symbol + 2.0 * hxy * np.sin(kx) * np.sin(ky)).ravel()

    at = np.array([np.log(TRUTH[0]), np.log(TRUTH[1]), TRUTH[2], 0.0])
    steps = 1e-5 * np.eye(4)
    slopes = np.array([(log_density(at + s) - log_density(at - s)) / 2e-5 for s in steps])
    information = 0.5 * (REPLICATES - 1) * slopes @ slopes.T
    return np.sqrt(np.diag(np.linalg.inv(information)))[:3]


def one_repeat(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors and standard errors of log kappa2, log rho and theta."""
    from xr_spde.sar import emulate, estimate
    from xr_spde.synthetic import constant_parameters

    maps = constant_parameters(SHAPE, kappa2=TRUTH[0], rho=TRUTH[1], theta=TRUTH[2])
    fields = emulate(maps, REPLICATES, seed=seed, boundary="torus", buffer=0).compute()
    found = estimate(
        fields,
        method="mle",
        structure="stationary",
        uncertainty=True,
        boundary="torus",
        buffer=0,
    ).mean(("y", "x"))
    errors = [
        np.log(found.kappa2 / TRUTH[0]),
        np.log(found.rho / TRUTH[1]),
        found.theta - TRUTH[2],
    ]
    stderr = [found.kappa2_stderr / found.kappa2, found.rho_stderr / found.rho, found.theta_stderr]
    return np.array([float(e) for e in errors]), np.array([float(s) for s in stderr])


def full(shape: list[int]) -> dict[str, float]:
    """CPU seconds of a non-stationary fit, and of the local one it starts from."""
    from xr_spde.sar import estimate
    from xr_spde.sar.priors import draw_test_case

    fields, kappa2, rho, _ = draw_test_case((shape[0], shape[1]), 30, seed=5)
    data = xr.DataArray(fields, dims=("realization", "y", "x"))
    out = {}
    for method in ("whittle", "mle"):
        began = time.process_time()
        found = estimate(
            data, method=method, modes=0, dilation=1, boundary="cylinder", uncertainty=True
        )
        out[f"{method} s"] = time.process_time() - began
        out[f"{method} kappa2"] = float(np.sqrt(np.mean(np.log(found.kappa2 / kappa2) ** 2)))
        out[f"{method} rho"] = float(np.sqrt(np.mean((found.rho - rho) ** 2)))
    return out


def main() -> None:
    """Run, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--shape", type=int, nargs=2, default=[192, 288])
    parser.add_argument("--quick", action="store_true", help="three repeats, a small grid")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.shape = [3], [48, 72]
    errors, stderr = (
        np.array(part) for part in zip(*map(one_repeat, range(max(options.repeats))), strict=True)
    )
    limit, rows = bound(), []
    for count in options.repeats:
        for k, name in enumerate(NAMES):
            e = errors[:count, k] / limit[k]
            inside = np.mean(np.abs(errors[:count, k]) < stderr[:count, k])
            figures = (e.mean(), e.std(ddof=1), np.sqrt(np.mean(e**2)), inside)
            rows.append([count, name, f"{limit[k]:.5f}", *(f"{v:.2f}" for v in figures)])
    times = isolated(__file__, "full", shape=options.shape)
    header = ("repeats", "parameter", "bound", "bias / bound", "spread / bound", "RMSE / bound")
    second = [
        [m, f"{times[f'{m} s']:.1f}", f"{times[f'{m} kappa2']:.3f}", f"{times[f'{m} rho']:.3f}"]
        for m in ("whittle", "mle")
    ]
    size = " x ".join(map(str, options.shape))
    body = [
        machine(),
        table((*header, "1 sigma"), rows),
        f"Fit of 30 replicates on {size}, standard errors included; at most "
        f"{times['peak_mb']:.0f} MB in the process:",
        table(("method", "CPU s", "RMSE log kappa2", "RMSE rho"), second),
    ]
    command = "OMP_NUM_THREADS=1 python benchmarks/mle.py"
    title = "Maximum of the exact likelihood"
    write("mle", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__" and not answer({"full": full}):
    main()

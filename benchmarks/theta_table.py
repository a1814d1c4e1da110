"""SPDE parameters learned from observations, beside the best constant ones, the truth, an oracle.

Two processes of known parameters on 24 x 24 cells and 5 steps, alpha 2: "diff" of the source (the
same H in every world), and smooth maps of H, kappa and tau that differ from world to world. 16 % of
the cells are observed along diagonals at random places with an error variance of 0.001; the
networks see those and the interpolation of them with the constant fit, and are trained on the
likelihood of the truth.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import answer, isolated, machine, table, write

import xr_spde
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_fit import fit
from xr_spde.nets.spde_stencil import THETA, tensor_of
from xr_spde.nets.theta_losses import likelihood_loss
from xr_spde.nets.theta_solver import ThetaSolver
from xr_spde.nets.variational import VariationalSolver
from xr_spde.nets.variational_window import Window

SIDE, STEPS, ALPHA, ERROR, TEST = 24, 5, 2, 1e-3, 48
CASES: dict[str, dict[str, Any]] = {
    "diff, one H": {"train": 160, "steps": 80, "coarse": 4, "ways": ("learned", "map", "oracle")},
    "smooth, changing H": {"train": 300, "steps": 140, "coarse": 4, "ways": ("learned", "oracle")},
}
WORDS = {
    "learned": "learned, observations only", "map": "learned map of a fixed domain",
    "oracle": "ORACLE: the network sees the truth",
}  # fmt: skip


def wave(rng: np.random.Generator) -> np.ndarray:
    """Two plane waves of 25 to 60 cells, of unit variance together."""
    y, x = np.mgrid[:SIDE, :SIDE]
    found = np.zeros((SIDE, SIDE))
    for _ in range(2):
        angle, number = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(25, 60)
        phase = rng.uniform(0, 2 * np.pi)
        found += np.cos(number * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return found


def smooth_world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Field (T, ny, nx) and theta (8, 1, ny, nx); eigenvalues of H from about 0.4 to 20."""
    rng = np.random.default_rng(seed)
    size, h1, h2 = 1.0 + 0.4 * wave(rng), 0.6 * wave(rng), 0.6 * wave(rng)
    r, angle = np.hypot(h1, h2), 0.5 * np.arctan2(h2, h1)
    parameters = SpdeParameters.of(
        (SIDE, SIDE), kappa=0.33 * np.exp(0.2 * wave(rng)), tau=np.exp(0.2 * wave(rng)),
        v1=np.cos(angle), v2=np.sin(angle), gamma=np.exp(size - r),
        beta=np.exp(size + r) - np.exp(size - r),
    )  # fmt: skip
    operator, burn_in = SpdeOperator(Mesh.of((SIDE, SIDE))), 25
    prior = SpaceTime(operator, parameters, steps=STEPS, alpha=ALPHA, initial="rest",
                      burn_in=burn_in)  # fmt: skip
    drawn = prior.sample(rng.standard_normal((1, STEPS + burn_in, SIDE**2)))[0, burn_in:]
    theta = np.stack([getattr(parameters, name) for name in THETA])
    return drawn.reshape(STEPS, SIDE, SIDE), theta


def worlds(case: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields (count, T, ny, nx) and their theta (count, 8, 1, ny, nx)."""
    if case.startswith("smooth"):
        pairs = [smooth_world(100_000 * seed + k) for k in range(count)]
        return np.stack([x for x, _ in pairs]), np.stack([theta for _, theta in pairs])
    made = xr_spde.synthetic.spacetime_field(
        (SIDE, SIDE), STEPS, preset="diff", alpha=ALPHA, runs=count, seed=seed
    )
    theta = np.stack([made[name].values for name in THETA])[None, :, None]
    return made.field.values, np.repeat(theta, count, 0)


def masks(count: int, rng: np.random.Generator) -> np.ndarray:
    """Diagonals of width 2 that move by 5 cells a step, from random places (count, T, ny, nx)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    step = 5 * np.arange(STEPS)[None, :, None, None]
    first, second = rng.integers(0, SIDE, (2, count, 1, 1, 1))
    return ((x - y - step + first) % SIDE < 2) | ((x + y - step + second) % SIDE < 2)


class Data:
    """Windows, interpolation, truth and parameters, in units of the deviation."""

    def __init__(self, case: str, count: int, seed: int, like: Data | None = None) -> None:
        fields, theta = worlds(case, count, seed)
        rng = np.random.default_rng(seed)
        seen = masks(count, rng)
        noisy = fields + ERROR**0.5 * rng.standard_normal(fields.shape)
        self.scale = fields.std() if like is None else like.scale
        theta = theta.copy()
        theta[:, 1] /= self.scale
        self.theta = torch.tensor(theta, dtype=torch.float32)
        self.truth = torch.tensor(fields / self.scale, dtype=torch.float32)
        self.window = Window(
            torch.tensor(noisy / self.scale, dtype=torch.float32), torch.tensor(seen),
            torch.full(fields.shape, ERROR / self.scale**2),
            torch.ones(count, SIDE, SIDE, dtype=torch.bool),
        )  # fmt: skip
        self.constants = constant_fit(self.truth.numpy()) if like is None else like.constants
        solver = VariationalSolver(STEPS, iterations=10, hidden=4, alpha=ALPHA,
                                   theta=self.constants).eval()  # fmt: skip
        with torch.no_grad():
            parts = [solver(self.part(slice(k, k + 32))[0]) for k in range(0, count, 32)]
        self.mean = torch.cat(parts)

    def part(self, index: Any) -> tuple[Window, Any, torch.Tensor]:
        """Windows, their interpolation once it is there, and the truth."""
        w = self.window
        own = Window(w.obs[index], w.mask[index], w.variance[index], w.sea[index])
        return own, self.mean[index] if hasattr(self, "mean") else None, self.truth[index]


def constant_fit(fields: np.ndarray) -> dict[str, float]:
    """Fit constants to 64 complete windows by maximum likelihood, with flow and tensor."""
    operator = SpdeOperator(Mesh.of((SIDE, SIDE)))
    found = fit(operator, fields[:64].astype(np.float64), alpha=ALPHA, stderr=False)
    return {name: float(getattr(found.parameters, name)[0, 0, 0]) for name in THETA}


def scores(theta: torch.Tensor, data: Data) -> dict[str, float]:
    """Likelihood for each value; correlations with the true maps."""
    theta = theta.expand(len(data.truth), -1, -1, SIDE, SIDE)
    sea = data.window.sea
    found = {"nll": float(likelihood_loss(theta, data.truth, sea, alpha=ALPHA))}
    pairs = {"h11": (tensor_of(theta)[0], tensor_of(data.theta)[0])}
    pairs |= {name: (theta[:, k].log(), data.theta[:, k].log()) for k, name in
              enumerate(("kappa", "tau"))}  # fmt: skip
    for name, (one, other) in pairs.items():
        varies = min(float(one.std()), float(other.std())) > 1e-4
        found[name] = float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) if varies else None
    return found


def learned(way: str, train: Data, test: Data, steps: int, coarse: int) -> Any:
    """Scores of a network trained for the likelihood, on worlds that it has not seen."""
    torch.manual_seed(0)
    began, oracle = time.process_time(), way == "oracle"
    fixed = {"start": "map", "shape": [SIDE, SIDE]} if way == "map" else {}
    free = [name for name in THETA if name not in ("m1", "m2")]
    net = ThetaSolver(
        STEPS, alpha=ALPHA, iterations=3, hidden=16, coarse=coarse, free=free,
        theta=train.constants, oracle_theta=oracle, **fixed,
    )  # fmt: skip
    rate = 1e-2 if way == "map" else 4e-3
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        index = torch.tensor(rng.choice(len(train.truth), 8, replace=False))
        window, mean, truth = train.part(index)
        theta = net(window, mean, oracle=truth if oracle else None)
        loss = likelihood_loss(theta, truth, window.sea, alpha=ALPHA)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    net.eval()
    found = []
    with torch.no_grad():
        for k in range(0, len(test.truth), 16):
            window, mean, truth = test.part(slice(k, k + 16))
            found.append(net(window, mean, oracle=truth if oracle else None))
    return scores(torch.cat(found), test) | {"cpu_s": time.process_time() - began}


def one(case: str, quick: bool) -> dict[str, Any]:
    """All rows of a process."""
    torch.set_num_threads(1)
    how = CASES[case]
    train = Data(case, 40 if quick else how["train"], 1)
    test = Data(case, 16 if quick else TEST, 2, train)
    numbers = torch.tensor([train.constants[name] for name in THETA])
    rows = {"true parameters": scores(test.theta, test)}
    rows["constant, maximum likelihood"] = scores(numbers[None, :, None, None, None], test)
    for way in how["ways"]:
        steps = 25 if quick else how["steps"]
        rows[WORDS[way]] = learned(way, train, test, steps, how["coarse"])
    return {"rows": rows}


def main() -> None:
    if answer({"one": one}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps, nothing written")
    parser.add_argument("--folder", type=Path, help="keep the rows of finished processes here")
    options = parser.parse_args()
    lines = []
    for case in CASES:
        kept = options.folder and options.folder / f"{case.split(',')[0]}.json"
        if kept and kept.exists():
            rows = json.loads(kept.read_text())
        else:
            rows = isolated(__file__, "one", case=case, quick=options.quick)["rows"]
            if kept:
                kept.write_text(json.dumps(rows))
        best, constant = (rows[k]["nll"] for k in list(rows)[:2])
        for name, row in rows.items():
            share = 100.0 * (constant - row["nll"]) / (constant - best)
            lines.append([case, name, f"{row['nll']:.4f}", f"{share:.0f} %", row["h11"],
                          row["kappa"], row["tau"], row.get("cpu_s")])  # fmt: skip
    header = ["process", "parameters", "NLL per value", "of the gap", "corr H11",
              "corr log kappa", "corr log tau", "CPU s of training"]  # fmt: skip
    text = (
        f"{(__doc__ or '').partition(chr(10))[2].strip()}\n\nThe negative log-likelihood is that "
        f"of the truth of {TEST} worlds that were not trained on (first state: that of a constant "
        "tau, scaled); the gap is "
        "that between the constants and the true parameters. Correlations are over all cells of "
        "these worlds. The oracle is an upper bound and no estimate. Constants are fitted to 64 "
        "complete windows of truth."
    )
    body = f"{machine('torch')}\n\n{text}\n\n{table(header, lines)}"
    write("theta_table", "Parameters of the prior from observations",
          "OMP_NUM_THREADS=1 python benchmarks/theta_table.py", body,
          keep=not options.quick)  # fmt: skip


if __name__ == "__main__":
    main()

"""The neural solver on Gaussian processes, against their exact interpolation.

    OMP_NUM_THREADS=1 python benchmarks/gp_table.py [--quick] [--folder FOLDER]

Two processes of arXiv 2402.01855 on 100 x 100 cells and 5 steps: "iso alpha=4" (kappa 0.33, H = I)
and "diff alpha=2" (H varies, from the gradient of two sines, beta 25), zero beyond the edges, drawn
in their stationary state; stripes of 4 cells that move by 10 cells a step are seen (7.8 %), without
noise but with an error variance of 1e-3 in the solvers. Where H varies the solvers are given its
maps. Networks are trained on patches of 32 x 32 cells; a run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from _machine import machine, table, write
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.nets.blocks import DoubleConv, Pyramid
from xr_spde.nets.stationary import CHANNELS
from xr_spde.nets.training import Run, Schedule, prepare
from xr_spde.nets.variational import VariationalSolver
from xr_spde.nets.variational_cost import Problem
from xr_spde.nets.variational_losses import interpolation_loss
from xr_spde.nets.variational_window import Window

Float = NDArray[np.float64]
ALPHAS = {"iso alpha=4": 4, "diff alpha=2": 2}
STEPS, PATCH, BATCH, VARIANCE = 5, 32, 4, 1e-3

# MSE and mean cost J in the authors' run logs (single runs on other draws), for orientation
LOGS: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "iso alpha=4": {
        "exact OI": (0.1878, 5272), "UNet, MSE loss": (0.2899, 401961),
        "gradient descent": (0.3044, None), "LSTM + CNN prior, MSE loss": (0.2140, None),
        "LSTM + SPDE prior, MSE loss": (0.2227, 20362),
        "LSTM + SPDE prior, OI loss": (0.2770, 9651),
    },
    "diff alpha=2": {
        "exact OI": (0.0509, 59165), "UNet, MSE loss": (0.0685, 925069),
        "gradient descent": (0.0651, None), "LSTM + CNN prior, MSE loss": (0.0622, 321818),
        "LSTM + SPDE prior, MSE loss": (0.0605, 132927),
        "LSTM + SPDE prior, OI loss": (0.0641, 67719),
    },
}  # fmt: skip


def prior(process: str, n: int, corner: tuple[int, int] = (0, 0)) -> SpaceTime:
    """Build the process on n x n cells of the domain."""
    alpha = ALPHAS[process]
    values: dict[str, Any] = {"kappa": 0.33}
    if alpha == 2:
        y, x = np.indices((n, n)) + np.reshape(corner, (2, 1, 1))
        wave = 2 * math.pi / 50
        values |= {"beta": 25.0, "v1": 0.6 * np.cos(wave * x), "v2": -wave / 4 * np.cos(wave * y)}
    operator = SpdeOperator(Mesh.of((n, n), boundary="dirichlet"))
    return SpaceTime(operator, SpdeParameters.of((n, n), **values), steps=STEPS, alpha=alpha)


def draws(process: SpaceTime, count: int, seed: int) -> Float:
    """Draw fields (count, steps, ny, nx)."""
    noise = np.random.default_rng(seed).standard_normal((count, STEPS, process.nodes))
    return process.sample(noise).reshape(count, STEPS, *process.operator.mesh.shape)


def stripes(n: int, corner: tuple[int, int] = (0, 0), first: int = 0) -> NDArray[np.bool_]:
    """Cells that are seen (steps, n, n)."""
    y, x = np.indices((n, n)) + np.reshape(corner, (2, 1, 1))
    moved = [10 * (t + first) for t in range(STEPS)]
    return np.stack([((x - y - s) % 100 < 4) | ((x + y - s) % 100 < 4) for s in moved])


def maps(process: SpaceTime) -> Tensor:
    """Return the parameters as a solver takes them (1, 8, 1, ny, nx)."""
    found = [getattr(process.parameters, name) for name in CHANNELS]
    return torch.as_tensor(np.stack(found), dtype=torch.float32)[None]


def window_of(truth: Tensor, seen: Tensor) -> Window:
    """Return a window of perfect observations."""
    sea = torch.ones(len(truth), *truth.shape[2:], dtype=torch.bool)
    return Window(truth, seen, torch.full_like(truth, VARIANCE), sea)


@dataclass
class Case:
    """A batch of patches as a training run moves it."""

    window: Window
    theta: Tensor

    def to(self, device: str) -> Case:
        """Move to a device."""
        return Case(self.window.to(device), self.theta.to(device))


class Patches:
    """Batches of patches; that of a step depends on the step alone."""

    def __init__(self, process: str, places: int = 12, members: int = 40) -> None:
        draw = np.random.default_rng(5)
        self.truths, self.thetas = [], []
        for place in range(places):
            corner = tuple(draw.integers(0, 100 - PATCH, 2)) if "diff" in process else (0, 0)
            one = prior(process, PATCH, corner)
            self.truths.append(torch.as_tensor(draws(one, members, place + 1)).float())
            self.thetas.append(maps(one)[0])

    def batch(self, step: int) -> tuple[Case, Tensor]:
        """Return the batch of a step and its truth."""
        draw = np.random.default_rng((9, step))
        places = draw.integers(0, len(self.truths), BATCH)
        truth = torch.stack([self.truths[p][draw.integers(len(self.truths[p]))] for p in places])
        seen = [stripes(PATCH, tuple(draw.integers(0, 100, 2)), draw.integers(10)) for _ in places]
        theta = torch.stack([self.thetas[p] for p in places])
        return Case(window_of(truth, torch.as_tensor(np.stack(seen))), theta), truth


class Direct(nn.Module):
    """A U-Net from observations and where they are to the field."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Pyramid(2 * STEPS, [16, 32], DoubleConv(32, 64), 64, STEPS)

    def forward(self, window: Window, theta: Tensor | None = None) -> Tensor:
        """Map a window to fields (B, T, ny, nx)."""
        ny, nx = window.shape[2:]
        inputs = torch.cat([window.obs, window.mask.float()], 1)
        return self.body(F.pad(inputs, (0, -nx % 4, 0, -ny % 4)))[..., :ny, :nx]


def network(kind: str, process: str) -> nn.Module:
    """Build an untrained network."""
    alpha, varied = ALPHAS[process], "diff" in process
    build = partial(VariationalSolver, STEPS, alpha=alpha, boundary="dirichlet")
    plain = {"preconditioner": "none", "update": "mean", "iterations": 15, "hidden": 24}
    if kind == "direct":
        return Direct()
    if kind == "source":
        return build(**plain)
    if kind == "cnn":
        return build(prior="auto-encoder", width=16, **plain)
    return build(iterations=10, hidden=16, parameters=varied, directions=kind)


def squared(model: nn.Module, case: Case, truth: Tensor) -> Tensor:
    """Logarithm of the mean squared error."""
    return (model(case.window, case.theta) - truth).square().mean().log()


def unsupervised(model: nn.Module, case: Case, truth: Tensor) -> Tensor:
    """Mean logarithm of the cost of interpolation, without the truth."""
    return interpolation_loss(model, model(case.window, case.theta), case.window, case.theta)


@dataclass(frozen=True)
class Recipe:
    """How a network of the table is trained."""

    kind: str
    loss: Callable[[nn.Module, Case, Tensor], Tensor]
    steps: int
    rate: float
    start: str = ""


RECIPES = {
    "LSTM + SPDE prior, OI loss": Recipe("free", unsupervised, 240, 4e-3),
    "LSTM + SPDE prior at observed cells, OI loss": Recipe("observed", unsupervised, 450, 4e-3),
    "LSTM + SPDE prior at observed cells, MSE loss": Recipe(
        "observed", squared, 150, 1e-3, "LSTM + SPDE prior at observed cells, OI loss"
    ),
    "LSTM of the source + SPDE prior, MSE loss": Recipe("source", squared, 300, 4e-3),
    "UNet, MSE loss": Recipe("direct", squared, 400, 3e-3),
    "LSTM + CNN prior, MSE loss": Recipe("cnn", squared, 150, 4e-3),
}


def trained(name: str, process: str, folder: Path, patches: Patches, share: float) -> nn.Module:
    """Train a network, or go on with it."""
    recipe = RECIPES[name]
    prepare(0, 1)
    model = network(recipe.kind, process)
    if recipe.start:
        model = trained(recipe.start, process, folder, patches, share)
    steps = max(int(recipe.steps * share), 4)
    # the free directions of the smoother process diverged at the larger rate
    rate = min(recipe.rate, 3e-3) if recipe.kind == "free" and "iso" in process else recipe.rate
    schedule = Schedule(steps=steps, rate=rate, warmup=20, decay=0.0, average=0.97,
                        every=max(steps // 6, 1), patience=99, mixed=False)  # fmt: skip
    run = Run(model, schedule, folder / f"{process} {name}".replace(" ", "-"), recipe=repr(share))

    def batches() -> Iterator[tuple[Case, Tensor]]:
        for step in range(run.step, steps):
            yield patches.batch(step)

    def validate(found: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            held = [float(recipe.loss(found, *patches.batch(10**6 + k))) for k in range(4)]
        return {"score": sum(held) / len(held), "cpu_s": time.process_time()}

    for row in run.train(batches(), recipe.loss, validate):
        print(process, name, {key: round(value, 4) for key, value in row.items()}, flush=True)
    return run.model.eval()


class Exam:
    """Windows of the whole domain with their exact interpolation."""

    def __init__(self, process: str, count: int, n: int, folder: Path) -> None:
        self.prior, self.seen = prior(process, n), stripes(n)
        self.truth, self.nodes = draws(self.prior, count, 0), np.flatnonzero(self.seen)
        self.values = self.truth.reshape(count, -1)[:, self.nodes]
        kept = folder / f"exact-{process}-{n}-{count}.npy".replace(" ", "-")
        if not kept.exists():
            rows = sp.csr_array(sp.eye_array(self.truth[0].size, format="csr")[self.nodes])
            exact = SpaceTimePosterior(self.prior, rows, np.full(self.nodes.size, VARIANCE))
            np.save(kept, exact.mean(self.values))
        self.exact = np.load(kept)
        self.least = self.cost(self.exact)
        theta = maps(self.prior).expand(count, -1, -1, -1, -1)
        truth = torch.as_tensor(self.truth).float()
        seen = torch.as_tensor(self.seen).expand(truth.shape).clone()
        self.case = Case(window_of(truth, seen), theta)

    def cost(self, x: Float) -> Float:
        """Cost J of fields, by sparse algebra."""
        flat = x.reshape(len(x), -1)
        misfit = ((self.values - flat[:, self.nodes]) ** 2).sum(1) / VARIANCE
        return misfit + self.prior.mahalanobis(flat.T)

    def row(self, name: str, x: Float, seconds: float | None) -> list[Any]:
        """Scores of an estimate as a row of the table."""
        mse, best = (float(np.mean((y - self.truth) ** 2)) for y in (x, self.exact))
        middle = [float(np.mean((y - self.truth)[:, STEPS // 2] ** 2)) for y in (x, self.exact)]
        power = float(np.mean(self.truth**2))
        cost = self.cost(x)
        return [name, mse, f"{mse / best:.3f}", f"{middle[0] / middle[1]:.3f}",
                f"{(1 - mse / power) / (1 - best / power):.3f}",
                f"{np.mean(cost / self.least):.3f}", seconds]  # fmt: skip

    def problem(self) -> Problem:
        """Return the cost as solvers without a network see it, in double precision."""
        alpha = self.prior.alpha
        solver = VariationalSolver(STEPS, alpha=alpha, boundary="dirichlet")
        return solver.problem(self.case.window.to(dtype=torch.float64), self.case.theta.double())


def descend(
    problem: Problem, inverse: Callable[[Tensor], Tensor], stops: list[int], *, conjugate: bool
) -> Iterator[tuple[int, Float, float]]:
    """Steepest descent or conjugate gradients, preconditioned, from zero."""
    began = time.process_time()
    x = torch.zeros_like(problem.observed)
    g = problem.gradient(x, create_graph=False)
    z = inverse(g)
    p, old = z, (g * z).sum((1, 2, 3), keepdim=True)
    for k in range(1, max(stops) + 1):
        q = problem.product(p)
        length = (p * g).sum((1, 2, 3), keepdim=True) / (p * q).sum((1, 2, 3), keepdim=True)
        x, g = x - length * p, g - length * q
        if k in stops:
            yield k, x.numpy(), time.process_time() - began
        z = inverse(g)
        new = (g * z).sum((1, 2, 3), keepdim=True)
        p, old = (z + new / old * p if conjugate else z), new


def rows_of(process: str, folder: Path, share: float, count: int, n: int) -> list[list[Any]]:
    """Make all rows of one process."""
    exam = Exam(process, count, n, folder)
    rows = [exam.row("exact OI", exam.exact, None)]
    problem = exam.problem()
    diagonal = torch.as_tensor(exam.prior.precision().diagonal()).reshape(STEPS, n, n)
    diagonal = diagonal + problem.precision
    size = len(exam.truth)
    for k, x, s in descend(problem, lambda g: g, [200], conjugate=False):
        rows.append(exam.row(f"gradient descent, exact line search, {k} iterations", x, s / size))
    for k, x, s in descend(problem, lambda g: g / diagonal, [10, 20, 50, 100], conjugate=True):
        rows.append(exam.row(f"CG (Jacobi), {k} iterations", x, s / size))
    for k, x, s in descend(problem, problem.spread, [10, 20], conjugate=True):
        rows.append(exam.row(f"CG (stationary prior), {k} iterations", x, s / size))
    torch.manual_seed(0)
    models: list[tuple[str, nn.Module]] = [
        ("LSTM + SPDE prior at observed cells, untrained", network("observed", process).eval())
    ]
    patches = Patches(process)
    models += [(name, trained(name, process, folder, patches, share)) for name in RECIPES]
    for name, model in models:
        longest = getattr(model, "options", {}).get("iterations", 0)
        counts = (10, 20) if name.startswith("LSTM + SPDE") else (longest,)
        rows += [solved(exam, name, model, count) for count in counts]
    return rows


def solved(exam: Exam, name: str, model: nn.Module, iterations: int) -> list[Any]:
    """Scores of a network after some iterations."""
    if iterations:
        model.options["iterations"] = iterations
        name = f"{name}, {iterations} iterations"
    began = time.process_time()
    with torch.no_grad():
        x = model(exam.case.window, exam.case.theta).double().numpy()
    return exam.row(name, x, (time.process_time() - began) / len(x))


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and short, nothing written")
    parser.add_argument("--folder", type=Path, default=Path("gp_table"), help="checkpoints")
    parser.add_argument("--only", choices=ALPHAS, help="train and print one process")
    parser.add_argument("--without", nargs="*", default=[], choices=RECIPES, help="networks")
    options = parser.parse_args()
    for name in options.without:
        del RECIPES[name]
    options.folder.mkdir(exist_ok=True, parents=True)
    share, count, n = (0.01, 2, 40) if options.quick else (1.0, 4, 100)
    header = ["method", "MSE", "over OI", "central step over OI", "EV over OI", "J over J*",
              "CPU s a window"]  # fmt: skip
    parts = []
    for process in [options.only] if options.only else ALPHAS:
        kept = options.folder / f"table-{process}-{n}.md".replace(" ", "-")
        if not kept.exists():
            kept.write_text(table(header, rows_of(process, options.folder, share, count, n)))
        parts.append(f"## {process}\n\n{kept.read_text()}")
        logged: list[list[Any]] = [[name, mse, cost] for name, (mse, cost) in LOGS[process].items()]
        best = LOGS[process]["exact OI"]
        for row in logged:
            row += [row[1] / best[0], row[2] / best[1] if row[2] and best[1] else None]
        names = ["published run logs", "MSE", "J", "MSE over OI", "J over J*"]
        parts.append(table(names, logged))
    command = "OMP_NUM_THREADS=1 python benchmarks/gp_table.py"
    command += "".join(f' --without "{name}"' for name in options.without)
    recipes = "; ".join(f"{name}: {one.steps} steps" for name, one in RECIPES.items())
    body = "\n\n".join(
        [f"{machine('torch')}", NOTES.format(count=count, batch=BATCH, recipes=recipes), *parts]
    )
    keep = not (options.quick or options.only)
    write("gp_table", "Neural solver on Gaussian processes", command, body, keep=keep)


NOTES = """Means over {count} windows. "MSE" is the mean squared error on all cells and steps,
"over OI" its ratio to that of exact optimal interpolation with the true prior, below which nothing
can be but for sampling; "EV" the explained variance; J the cost of interpolation, computed by
sparse algebra in double precision, and J* its minimum. "LSTM + SPDE prior" is preconditioned by the
stationary prior (of the mean parameters), steps by exact line search and is trained with 10
iterations; "at observed cells" is `directions="observed"`. The OI loss knows no truth; with the MSE
loss the network starts from its weights. CPU seconds are for windows side by
side, on one thread of a machine that other work shared. Batches of {batch} patches; {recipes}. The
run logs of the authors are single runs on other draws with 10 steps of spin-up, given for
orientation only."""


if __name__ == "__main__":
    main()

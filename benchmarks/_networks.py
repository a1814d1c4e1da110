"""What benchmarks that train networks share: sets of cases, training on one thread, scores."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from published_sar import deviations
from torch import Tensor, nn

from xr_spde.nets.cases import CaseBatches, Variation, held_case
from xr_spde.nets.lag_features import lag_moments
from xr_spde.nets.objectives import estimates
from xr_spde.nets.registry import build_network
from xr_spde.nets.training import Run, Schedule, loss_of, prepare
from xr_spde.sar.simulate import ARRAYS, CaseGroup, StoredCases, simulate_cases

Shape = tuple[int, int]
Case = dict[str, np.ndarray]
Validate = Callable[[nn.Module], dict[str, float]]

TRAINED_SEED = 20261121

# means of log kappa2, psi and rho over the prior, where networks on replicates start
_PRIOR_MEAN = (-1.3, 0.12, 3.9)
_WARM = 3  # steps before the clock starts


def simulate(folder: str, wanted: Mapping[Shape, int], *, seed: int, workers: int) -> None:
    """Simulate the cases that a folder lacks."""
    for shape, cases in wanted.items():
        for _ in simulate_cases(folder, CaseGroup(shape, cases), seed=seed, workers=workers):
            pass


def read(folder: str, shape: Shape, start: int, stop: int) -> Case:
    """Read some cases into memory, as a group of `CaseBatches`."""
    stored = {n: StoredCases(folder, CaseGroup(shape, stop), n, start, stop) for n in ARRAYS}
    return {n: np.stack([one[k] for k in range(stop - start)]) for n, one in stored.items()}


def validation(cases: Case, *, moments: bool, count: int) -> list[tuple[str, int, Any, Tensor]]:
    """Cases as `xr_spde.nets.objectives.score_held` takes them."""
    each = ({n: a[k] for n, a in cases.items()} for k in range(len(cases["kappa2"])))
    return [("", count, *held_case(case, count, moments=moments)) for case in each]


def fixed(count: int, *, symmetries: bool = True) -> Variation:
    """Batches for one number of replicates: complete and standardised, as networks on them want."""
    return Variation(count, fixed=True, symmetries=symmetries, standardize=True, gaps=0.0)


def build(architecture: str, options: Mapping[str, Any], *, seed: int) -> nn.Module:
    """Untrained network; one on replicates starts from the means of the prior.

    From the default initial weights the first hundreds of steps would go into finding them.
    """
    prepare(seed, 1)
    model = build_network(architecture, options)
    if architecture != "net":
        start_at_prior(model)
    return model


@torch.no_grad()
def start_at_prior(model: nn.Module) -> None:
    """Set the last biases to the means of the prior; the layer's channels come in three groups."""
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)][-1]
    last.bias.view(3, -1).copy_(torch.tensor(_PRIOR_MEAN)[:, None])


def schedule(steps: int, rate: float, optimizer: str, *, validations: int = 1) -> Schedule:
    """Settle a short run: a tenth of it warms up, and it never stops early."""
    return Schedule(
        steps=steps,
        rate=rate,
        warmup=max(steps // 10, 1),
        average=0.99,
        every=-(-steps // validations),
        patience=validations + 1,
        optimizer=optimizer,
    )


def step_seconds(
    model: nn.Module, batches: CaseBatches, settings: Schedule, *, steps: int
) -> float:
    """CPU seconds of a step, making its batch included; the model is used up."""
    stamps = []

    def stamped() -> Iterator[tuple[Any, Tensor]]:
        for k in range(_WARM + steps + 1):
            stamps.append(time.process_time())
            yield batches[k]

    _drive(model, stamped(), replace(settings, steps=_WARM + steps + 1), lambda _: {"score": 0.0})
    return (stamps[_WARM + steps] - stamps[_WARM]) / steps


def train(
    model: nn.Module, batches: CaseBatches, settings: Schedule, validate: Validate
) -> tuple[float, float]:
    """Train in place, with the weights of the best validation at the end.

    Batches are made in the same thread, so that they count.

    Returns
    -------
    score, seconds : float
        Of that validation; CPU seconds, without those of the validations.
    """
    spent = 0.0

    def timed(mean: nn.Module) -> dict[str, float]:
        nonlocal spent
        began = time.process_time()
        scores = validate(mean)
        spent += time.process_time() - began
        return scores

    began = time.process_time()
    if model.architecture == "net":
        plain = CaseBatches(
            batches.groups,
            batches.shares,
            cells=batches.cells,
            variation=Variation(gaps=0.0),
            seed=batches.seed + 1,
        )
        fit: list[Any] = [plain[k][0] for k in range(4)]
    else:
        fit = []
    score = _drive(model, (batches[k] for k in range(settings.steps)), settings, timed, fit)
    return score, time.process_time() - began - spent


def _drive(
    model: nn.Module,
    batches: Iterator[tuple[Any, Tensor]],
    settings: Schedule,
    validate: Validate,
    fit: Sequence[Any] = (),
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(model, settings, folder)
        if fit:
            run.fit_inputs(list(fit))
        for _ in run.train(batches, loss_of(model.architecture), validate):
            pass
    return run.best


@torch.no_grad()
def score(model: nn.Module, case: Case, count: int) -> dict[str, Any]:
    """Score maps from the first replicates of a case, statistics included in the time."""
    shown = torch.from_numpy(case["fields"][:count].astype(np.float32))
    began = time.perf_counter()
    if model.architecture == "net":
        output = model(lag_moments(shown))
    else:
        output = getattr(model, "maps", model)(shown[None])
    log_kappa2, rho, theta = (m[0].numpy().astype(float) for m in estimates(output))
    seconds = time.perf_counter() - began
    scored = deviations([log_kappa2, theta, rho], case)
    del scored["errors"]
    return scored | {"seconds": seconds}

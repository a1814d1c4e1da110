"""Training of a variational solver and of the solver for its SPDE parameters."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, SolverError, unknown
from xr_spde._core.progress import track
from xr_spde.nets.refinement_training import Searched, SearchedWindows
from xr_spde.nets.theta_losses import likelihood_loss, parameter_penalty
from xr_spde.nets.training import Run, Schedule
from xr_spde.nets.variational_losses import (
    deviation_loss,
    gradient_loss,
    interpolation_loss,
    loss_weights,
    projection_loss,
    supervised_loss,
)
from xr_spde.nets.variational_window import Window
from xr_spde.nets.variational_windows import WindowBatches, stacked

__all__ = ["LOSSES", "Objective", "Solvers", "estimate", "held_threads", "train", "validation"]

LOGGER = logging.getLogger(__name__)

LOSSES = ("supervised", "unsupervised")
"""Distance to a truth, or the cost of optimal interpolation, which asks for none."""

_TOGETHER = 8


@dataclass(frozen=True)
class Objective:
    """What the training makes small.

    Attributes
    ----------
    loss : {"supervised", "unsupervised"}
        See :data:`LOSSES`.
    gradient : float
        Weight of the error of the gradient, per cell, beside that of the field.
    projection : float
        Weight of the distance of fields to their projection, where the prior is learned.
    likelihood : float
        Weight of the likelihood of the truth beside the errors, in joint training.
    border : int
        Rows and columns at the edges of a window that do not count.
    smoothness : float
        Weight of `xr_spde.nets.theta_losses.parameter_penalty` beside the likelihood.
    deviation : float
        Weight of the likelihood of the errors, for a solver that tells their deviation.
    """

    loss: str = "supervised"
    gradient: float = 5.0
    projection: float = 0.02
    likelihood: float = 0.05
    border: int = 0
    smoothness: float = 0.0
    deviation: float = 0.02

    def __post_init__(self) -> None:
        """Check the name and the weights."""
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        weights = (self.gradient, self.projection, self.likelihood, self.border, self.smoothness,
                   self.deviation)  # fmt: skip
        if min(weights) < 0.0:
            raise ParameterError(f"{self} has a negative weight")


class Solvers(nn.Module):
    """A solver of the state and one of the parameters, trained together.

    Parameters
    ----------
    solver, theta_solver : Module
        `VariationalSolver` and `ThetaSolver`.
    """

    def __init__(self, solver: nn.Module, theta_solver: nn.Module) -> None:
        super().__init__()
        self.solver, self.theta_solver = solver, theta_solver


def estimate(solver: Any, theta_solver: Any | None, window: Window) -> tuple[Tensor, Tensor | None]:
    """Mean and SPDE parameters of windows, from observations alone.

    The mean that constant parameters give says the parameters, and where the solver takes
    parameters (its option ``parameters``) these give the mean again.

    Parameters
    ----------
    solver : VariationalSolver
        Of the state.
    theta_solver : ThetaSolver or None
        Of the parameters.
    window : Window
        Observations.

    Returns
    -------
    mean : Tensor (B, T, ny, nx)
    theta : Tensor (B, 8, S, ny, nx) or None
    """
    if theta_solver is None:
        return solver(window), None
    return _both(solver, theta_solver, window)[:2]


def _both(
    solver: Any, theta_solver: Any, window: Window, truth: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean, parameters, and the deviation of a solver that tells it."""
    mean, deviation = solver.estimate(window)
    theta = _parameters(theta_solver, window, mean, truth)
    if solver.options["parameters"]:
        mean, deviation = solver.estimate(window, theta)
    return mean, theta, deviation


def _parameters(theta_solver: Any, window: Window, mean: Tensor, truth: Tensor | None) -> Tensor:
    """Parameters from the observations; an oracle, and only that, gets the truth."""
    oracle = truth if theta_solver.options["oracle_theta"] else None
    found: Tensor = theta_solver(window, mean, oracle=oracle)
    return found


def _state_loss(
    objective: Objective, solver: Any, window: Window, truth: Tensor, x: Tensor,
    theta: Any = None, deviation: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Loss of an estimate of the state."""
    if objective.loss == "unsupervised":
        return interpolation_loss(solver, x, window, theta)
    weights = loss_weights(window.sea, x.shape[1], border=objective.border).expand_as(x)
    value = supervised_loss(x, truth, weights)
    if objective.gradient:
        value = value + objective.gradient * gradient_loss(x, truth, weights)
    if objective.deviation and deviation is not None:
        told = deviation_loss(x - truth, deviation, weights)
        value = value + objective.deviation * told
    if objective.projection and getattr(solver, "projection", None) is not None:
        known = torch.where(truth.isfinite(), truth, x.detach())
        both = projection_loss(solver, x, window.sea) + projection_loss(solver, known, window.sea)
        value = value + objective.projection * both
    return value


def _likelihood(
    objective: Objective, theta: Tensor, window: Window, truth: Tensor, solver: Any
) -> Tensor:
    """Negative log-likelihood of the truth for each value, and how rough the parameters are."""
    found = likelihood_loss(
        theta, truth, window.sea, alpha=solver.options["alpha"],
        boundary=solver.options["boundary"],
    )  # fmt: skip
    if objective.smoothness:
        penalty = parameter_penalty(theta, window.sea, smoothness=objective.smoothness)
        found = found + penalty.double()
    return found


def loss_of(objective: Objective, solver: Any = None) -> Callable[[Any, Any, Tensor], Tensor]:
    """Loss as `xr_spde.nets.training.Run` takes it.

    Parameters
    ----------
    objective : Objective
        What is to be small.
    solver : VariationalSolver, optional
        Trained before, where the theta solver is trained alone.

    Returns
    -------
    callable
        Of a `VariationalSolver`, of a `ThetaSolver` where `solver` is given, or of `Solvers`.
    """

    def of_state(model: Any, window: Any, truth: Tensor) -> Tensor:
        if isinstance(window, Searched):
            window, x = window.window, window.x
            mean, deviation = model.refined(model.problem(window), x)
        else:
            mean, deviation = model.estimate(window)
        return _state_loss(objective, model, window, truth, mean, deviation=deviation)

    def of_theta(model: Any, window: Window, truth: Tensor) -> Tensor:
        with torch.no_grad():
            mean = solver(window)
        theta = _parameters(model, window, mean, truth)
        return _likelihood(objective, theta, window, truth, solver)

    def of_both(model: Any, window: Window, truth: Tensor) -> Tensor:
        if not isinstance(model, Solvers):
            return of_state(model, window, truth)
        mean, theta, deviation = _both(model.solver, model.theta_solver, window, truth)
        value = _state_loss(objective, model.solver, window, truth, mean, theta, deviation)
        fitted = _likelihood(objective, theta, window, truth, model.solver)
        return value + objective.likelihood * fitted

    return of_both if solver is None else of_theta


def validation(
    batches: WindowBatches, count: int, leads: Sequence[int], objective: Objective,
    *, solver: Any = None, device: str = "cpu",
) -> Callable[[nn.Module], dict[str, float]]:  # fmt: skip
    """Make a function from a model to its scores on windows that are not trained on.

    Parameters
    ----------
    batches : WindowBatches
        Of the part of the series that is held out.
    count : int
        Windows.
    leads : sequence of int
        Last steps without observations that are tried: 0 for mapping and near real time.
    objective : Objective
        As in training.
    solver : VariationalSolver, optional
        As in :func:`loss_of`.
    device : str, optional
        Torch device.

    Returns
    -------
    callable
        Root mean square errors in units of the scale: "mapping" in the middle third of a window,
        "nrt" at its end, "lead1" and so on without observations of the last steps; and "score",
        their mean. Without a truth, or for the theta solver, "score" alone, the loss.
    """
    held = {
        lead: [
            stacked([
                batches.sample(number, 0, hidden=lead)
                for number in range(low, min(low + _TOGETHER, count))
            ])
            for low in range(0, count, _TOGETHER)
        ]
        for lead in leads
    }  # fmt: skip
    loss = loss_of(objective, solver)

    def plain(model: Any) -> dict[str, float]:
        values = [float(loss(model, w.to(device), t.to(device))) for w, t in held[leads[0]]]
        return {"score": sum(values) / len(values)}

    def errors(model: Any) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for lead, parts in held.items():
            for window, truth in parts:
                pair = (model.solver, model.theta_solver) if isinstance(model, Solvers) \
                    else (model, None)  # fmt: skip
                x = estimate(pair[0], pair[1], window.to(device))[0].cpu()
                _add_errors(sums, lead, x, truth, window.sea)
        scores = {name: (total / max(n, 1.0)) ** 0.5 for name, (total, n) in sums.items()}
        return {**scores, "score": sum(scores.values()) / len(scores)}

    @torch.no_grad()
    def scores(model: Any) -> dict[str, float]:
        direct = objective.loss == "unsupervised" or solver is not None
        return plain(model) if direct else errors(model)

    return scores


def _add_errors(
    sums: dict[str, list[float]], lead: int, x: Tensor, truth: Tensor, sea: Tensor
) -> None:
    """Add squared errors and their number to the tasks that a window tells of."""
    steps = x.shape[1]
    third = steps // 3
    parts = {"nrt": slice(steps - 1, steps), "mapping": slice(third, steps - third)} if lead == 0 \
        else {f"lead{lead}": slice(steps - 1, steps)}  # fmt: skip
    for name, part in parts.items():
        known = truth[:, part].isfinite() & sea[:, None]
        error = torch.where(known, x[:, part] - truth[:, part], 0.0)
        total, count = sums.setdefault(name, [0.0, 0.0])
        sums[name] = [total + float(error.square().sum()), count + float(known.sum())]


@contextmanager
def held_threads(threads: int, seed: int) -> Iterator[None]:
    """Give torch so many threads and a seed, and leave both as they were.

    Parameters
    ----------
    threads : int
        Of one operation.
    seed : int
        Of first weights.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed % 2**62)
            yield
    finally:
        torch.set_num_threads(before)


def train(
    model: nn.Module, schedule: Schedule, batches: WindowBatches | SearchedWindows,
    validate: Callable[[nn.Module], dict[str, float]], objective: Objective,
    folder: str | os.PathLike[str], *, solver: Any = None, device: str = "cpu", seed: int = 0,
    recipe: str = "", until: int | None = None, progress: bool | None = None, label: str = "train",
) -> dict[str, float]:  # fmt: skip
    """Train, or go on where a former run in the folder was stopped.

    Parameters
    ----------
    model : Module
        Holds the best averaged weights afterwards.
    schedule : Schedule
        Of the training.
    batches : WindowBatches
        By step.
    validate : callable
        Of :func:`validation`.
    objective : Objective
        What is to be small.
    folder : path
        Of the run.
    solver : VariationalSolver, optional
        As in :func:`loss_of`.
    device : str, optional
        Torch device.
    seed : int, optional
        Of what is drawn in training beside the windows.
    recipe : str, optional
        What else decides the result.
    until : int, optional
        Step after which the training is left, a validation one.
    progress : bool, optional
        Draw a bar.
    label : str, optional
        Of the bar.

    Returns
    -------
    dict of str to float
        Scores of the best validation.

    Raises
    ------
    ParameterError
        If the folder holds another run.
    SolverError
        If the training diverged.
    """
    torch.manual_seed(seed % 2**62)
    run = Run(model, schedule, folder, device=device, recipe=recipe)
    last = schedule.steps if until is None else min(until, schedule.steps)
    steps = track(range(run.step, last), label=label, enabled=progress)
    for row in run.train((batches[k] for k in steps), loss_of(objective, solver), validate):
        LOGGER.info("%s: %s", label, json.dumps({k: round(v, 5) for k, v in row.items()}))
    if not run.best < float("inf"):
        raise SolverError(
            f"no validation of the run in {Path(folder)} had a finite score: it diverged, and "
            "there is nothing to keep; give a lower rate=, in another folder"
        )
    model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return run.best_scores

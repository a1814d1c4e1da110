"""A training loop that resumes from any kill: averaged weights, early stop, mixed precision."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from xr_spde._core.errors import ParameterError
from xr_spde.nets.lag_features import LagPyramid
from xr_spde.nets.objectives import replicate_loss, statistics_loss
from xr_spde.nets.optimizer import OPTIMIZERS, make_optimizer

Loss = Callable[[nn.Module, Any, Tensor], Tensor]


@dataclass(frozen=True)
class Schedule:
    """Settings of the loop.

    Attributes
    ----------
    steps : int
        Optimiser steps in all.
    rate : float
        Largest learning rate: reached after `warmup` steps, then a half cosine down to 1/100.
    warmup : int
        Steps of the linear rise.
    decay : float
        Weight decay of AdamW.
    clip : float
        Largest norm of the gradient.
    average : float
        Decay of the moving average of the weights, which is what is validated and kept.
    every : int
        Steps between validations (and checkpoints).
    patience : int
        Validations without a better score after which the run stops.
    mixed : bool
        bfloat16 in the forward pass.
    optimizer : str
        "adamw", or "muon": see `xr_spde.nets.optimizer`.
    """

    steps: int = 10_000
    rate: float = 1e-3
    warmup: int = 300
    decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    every: int = 500
    patience: int = 10
    mixed: bool = True
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        counts, sizes = (self.steps, self.every, self.patience), (self.rate, self.clip)
        known = self.optimizer in OPTIMIZERS
        if min(counts) < 1 or min(sizes) <= 0.0 or not 0.0 <= self.average < 1.0 or not known:
            raise ParameterError(
                f"schedule is {asdict(self)}; expected steps, every and patience of at least 1, a "
                'positive rate and clip, an average in [0, 1), and optimizer "adamw" or "muon"'
            )

    def factor(self, step: int) -> float:
        """Learning rate at a step over the largest."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


class Run:
    """State of a training run, in a folder.

    Parameters
    ----------
    model : Module
        Network; holds the averaged weights of the best validation after `train`.
    schedule : Schedule
        See there.
    folder : path-like
        Where checkpoints (``state.pt``) and the record (``record.jsonl``) go.
    device : str, optional
        Torch device.
    recipe : str, optional
        Everything else that decides what the weights become; kept in the checkpoint.

    Raises
    ------
    ParameterError
        If the folder holds a run of another network, optimiser or recipe.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        folder: str | os.PathLike[str],
        *,
        device: str = "cpu",
        recipe: str = "",
    ) -> None:
        self.recipe = recipe
        self.schedule, self.folder, self.device = schedule, Path(folder), device
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = model.to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = make_optimizer(
            schedule.optimizer, self.model, schedule.rate, schedule.decay
        )
        self.seed = torch.initial_seed() % 2**62
        self.step, self.best, self.since = 0, math.inf, 0
        self.best_scores: dict[str, float] = {}
        self.best_state = copy.deepcopy(self.mean.state_dict())
        if (self.folder / "state.pt").exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.folder / "state.pt", map_location=self.device, weights_only=True)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ParameterError(
                f"{self.folder} holds a run of another network, give another folder: {error}"
            ) from error
        self.mean.load_state_dict(state["mean"])
        self.best_state = state["best_state"]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError) as error:
            raise ParameterError(
                f"{self.folder} holds a run with another optimizer than "
                f"{self.schedule.optimizer!r}; set that one, or give another folder"
            ) from error
        if state["recipe"] != self.recipe:
            raise ParameterError(
                f"{self.folder} holds a run with other settings; give another folder, or these:\n"
                f"{state['recipe']}"
            )
        self.step, self.best, self.since = state["step"], state["best"], state["since"]
        self.best_scores = state["best_scores"]

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "since": self.since,
            "best_scores": self.best_scores,
            "recipe": self.recipe,
        }
        # a kill while writing must leave the former checkpoint whole
        partial = self.folder / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "state.pt")

    def fit_inputs(self, samples: list[Any]) -> None:
        """Set the input normalisation of a `StatisticsNet` from sample batches.

        Parameters
        ----------
        samples : list of LagMoments
            Complete cases.
        """
        cast(LagPyramid, self.model.get_submodule("pyramid")).fit(samples)
        for network in (self.mean.state_dict(), self.best_state):
            for name, value in self.model.state_dict().items():
                if name.startswith("pyramid."):
                    network[name].copy_(value)

    @property
    def finished(self) -> bool:
        """Whether all steps are done or the score has stopped improving."""
        return self.step >= self.schedule.steps or self.since >= self.schedule.patience

    def train(
        self,
        batches: Iterable[tuple[Any, Tensor]],
        loss: Loss,
        validate: Callable[[nn.Module], dict[str, float]],
    ) -> Iterator[dict[str, float]]:
        """Train until finished, then put the best averaged weights into `model`.

        Parameters
        ----------
        batches : iterable
            Inputs and truths, from step `self.step` on.
        loss : callable
            Of model, inputs and truth.
        validate : callable
            Scores of a model; "score" is what is to fall.

        Yields
        ------
        dict
            Step, mean loss and scores at each validation.
        """
        total, steps = 0.0, 0
        for inputs, truth in batches:
            if self.finished:
                break
            total += self._update(inputs, truth, loss)
            steps += 1
            if self.step % self.schedule.every == 0 or self.step == self.schedule.steps:
                scores = validate(self.mean)
                self.since += 1
                if scores["score"] < self.best:
                    self.best, self.since, self.best_scores = scores["score"], 0, scores
                    self.best_state = copy.deepcopy(self.mean.state_dict())
                self._save()
                row = {"step": float(self.step), "loss": total / steps, **scores}
                with (self.folder / "record.jsonl").open("a") as record:
                    record.write(json.dumps(row) + "\n")
                total, steps = 0.0, 0
                yield row
        self.model.load_state_dict(self.best_state)
        self.model.eval()

    def _update(self, inputs: Any, truth: Tensor, loss: Loss) -> float:
        """One optimiser step; returns the loss."""
        schedule = self.schedule
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate * schedule.factor(self.step)
        self.model.train()
        torch.manual_seed(self.seed + self.step)  # so that a resumed run repeats its dropout
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, schedule.mixed):
            value = loss(self.model, inputs.to(self.device), truth.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), schedule.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        # the average forgets its start quickly at first
        keep = min(schedule.average, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            parameters = zip(self.mean.parameters(), self.model.parameters(), strict=True)
            for mean, new in parameters:
                mean.data.lerp_(new, 1.0 - keep)
            for old, fresh in zip(self.mean.buffers(), self.model.buffers(), strict=True):
                old.copy_(fresh)
        return float(value.detach())


def prepare(seed: int, threads: int) -> None:
    """Seed the initial weights and limit the threads of this process.

    Parameters
    ----------
    seed : int
        Seed of torch.
    threads : int
        Threads of one operation.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)


def loader(batches: Dataset[Any], start: int, stop: int, *, workers: int = 1) -> DataLoader[Any]:
    """Batches of the steps from start to stop, made by one more process.

    Parameters
    ----------
    batches : Dataset
        Indexed by step.
    start, stop : int
        First step and the one after the last.
    workers : int, optional
        Processes; 0 makes the batches in this one.

    Returns
    -------
    DataLoader
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )


def loss_of(architecture: str) -> Loss:
    """Loss with which an architecture is trained.

    Parameters
    ----------
    architecture : str
        Key of the registry.

    Returns
    -------
    callable
    """
    return statistics_loss if architecture == "net" else replicate_loss

"""Training of networks that carry codes forward: one step, roll-outs, scheduled sampling.

The source of LAINR trains on one step (``horizon=1, policy="last"``), or on windows of ten in which
each step starts from the true code with a probability that falls with the epochs
(``policy="scheduled"``). The mean over all steps of a roll-out (``policy="rollout"``) is the third
way. Losses are squared errors of codes over the mean squared change in a step: persistence over one
step has the loss one.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xr_spde._core.codes import CodeGuard, Forcing, metric_root
from xr_spde._core.errors import ParameterError, SolverError, unknown
from xr_spde._core.progress import track
from xr_spde.nets.code_batches import (
    CodeBatch,
    CodeBatches,
    CodeWindows,
    complete_windows,
    roll_out,
)
from xr_spde.nets.inference import single_thread
from xr_spde.nets.latent_propagators import PROPAGATORS, NetworkPropagator
from xr_spde.nets.ode import CodeODE
from xr_spde.nets.training import Run, Schedule

__all__ = ["POLICIES", "DynamicsSettings", "fit_dynamics"]

LOGGER = logging.getLogger(__name__)

Float = NDArray[np.float64]

POLICIES = ("rollout", "last", "scheduled")
"""Mean error of all steps of a roll-out, error of its last, or of steps that may start anew."""

_INSIDE = 0.99


@dataclass(frozen=True)
class DynamicsSettings:
    """What is trained, and how.

    Attributes
    ----------
    kind : {"residual_node", "node", "rezero"}
        Network: see `xr_spde.nets.ode` and `xr_spde.nets.rezero`.
    hidden, layers : int
        Width and number of hidden layers of the neural ODE.
    blocks : int
        Of ReZero.
    longest : float
        Longest step of the integration, in steps of the data.
    policy : {"rollout", "last", "scheduled"}
        See :data:`POLICIES`.
    horizon : int
        Steps of a roll-out in training.
    decay : float
        Of the probability of starting anew, in each epoch of scheduled sampling.
    noise : float
        Standard deviation of noise on the codes that roll-outs start from, over the spread of the
        change in a step.
    scaling : {"component", "common", "none"}
        How a neural ODE sees codes: each over its own standard deviation, all over a common one, or
        as they are, as in the source.
    reach : float
        Distance at which the residual of "residual_node" has faded, over that at which it begins
        to: the 99th percentile of the codes of the training. Above one.
    limit : float
        Of the guard, see `xr_spde._core.codes.CodeGuard`.
    batch : int
        Windows in a step of the optimiser.
    schedule : Schedule
        Of the training.

    Raises
    ------
    UnknownNameError
        For another kind, policy or scaling.
    ParameterError
        For impossible numbers.
    """

    kind: str = "residual_node"
    hidden: int = 800
    layers: int = 3
    blocks: int = 5
    longest: float = 1.0
    policy: str = "rollout"
    horizon: int = 3
    decay: float = 0.999
    noise: float = 0.0
    scaling: str = "component"
    reach: float = 1.25
    limit: float = 10.0
    batch: int = 64
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            steps=3000, warmup=100, average=0.995, every=200, patience=5, mixed=False
        )
    )

    def __post_init__(self) -> None:
        """Check names and numbers."""
        for what, given, known in (
            ("propagator", self.kind, PROPAGATORS),
            ("policy", self.policy, POLICIES),
            ("scaling", self.scaling, ("common", "component", "none")),
        ):
            if given not in known:
                raise unknown(what, given, known)
        counts = (self.hidden, self.layers, self.blocks, self.horizon, self.batch)
        sizes = (self.longest, self.reach - 1.0, self.limit)
        if min(counts) < 1 or min(sizes) <= 0.0 or self.noise < 0.0 or not 0 < self.decay <= 1:
            raise ParameterError(
                f"{self}: expected counts of 1 or more, positive longest and limit, a reach above "
                "1, a decay in (0, 1] and no negative noise"
            )


def fit_dynamics(
    windows: ArrayLike,
    settings: DynamicsSettings,
    folder: str | os.PathLike[str],
    seed: int = 0,
    *,
    dts: ArrayLike | None = None,
    times: ArrayLike | None = None,
    held: ArrayLike | None = None,
    linear: Any | None = None,
    forcing: Forcing | None = None,
    metric: ArrayLike | None = None,
    device: str = "cpu",
    progress: bool | None = None,
) -> NetworkPropagator:
    """Train a network on windows of codes, or go on where a run in the folder was stopped.

    Parameters
    ----------
    windows : array_like (W, S, n)
        Codes at S times in a row; those with NaN are left out.
    settings : DynamicsSettings
        What is trained, and how; the horizon is S - 1 at most.
    folder : path
        Of the run.
    seed : int, default 0
        Of first weights and of the order of windows.
    dts : array_like (W, S - 1), optional
        Lengths of the steps, in steps of the data; by default one.
    times : array_like (W, S), optional
        Days since 1970-01-01; needed with forcing.
    held : array_like of bool (W,), optional
        Windows that only choose when to stop; by default the last tenth.
    linear : LinearPropagator, optional
        What a "residual_node" starts from, with its forcing; fitted without the windows held.
    forcing : Forcing, optional
        By the calendar, of a "node".
    metric : array_like (n,) or (n, n), optional
        What errors of codes mean in fields, as `xr_spde.fields.linear_dynamics.fit_linear` takes
        it; the loss is measured in it.
    device : str, default "cpu"
        Torch device.
    progress : bool, optional
        Draw a bar.

    Returns
    -------
    NetworkPropagator
        The best on the windows held; the untrained network where training made those no better (a
        warning is logged): persistence, or the linear propagator.

    Raises
    ------
    ParameterError
        For shapes that do not fit, missing arguments, or a folder of another run.
    SolverError
        If the training diverged.
    """
    if settings.kind == "residual_node":
        if linear is None:
            raise ParameterError('linear= is missing: a "residual_node" starts from a linear map')
        forcing = linear.forcing
    elif settings.kind == "rezero" and forcing is not None:
        raise ParameterError('forcing= was given to "rezero", which knows no time')
    data, part = complete_windows(windows, dts, times, held, forcing)
    if settings.horizon > data.dts.shape[1]:
        raise ParameterError(
            f"horizon={settings.horizon}: windows of {data.codes.shape[1]} codes have "
            f"{data.dts.shape[1]} steps; give longer windows"
        )
    inside, outside = data.part(~part), data.part(part)
    with single_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**62)
        propagator, change = _begin(inside, settings, linear, forcing)
        batches = CodeBatches(
            inside,
            settings.horizon,
            settings.batch,
            seed % 2**62,
            noise=settings.noise * np.sqrt(change) if settings.noise else None,
            decay=settings.decay if settings.policy == "scheduled" else None,
        )
        unit = _Unit.of(inside, metric)
        _train(propagator, batches, outside, unit, settings, folder, device, progress)
    network = propagator.network.to("cpu").eval().requires_grad_(False)
    return type(propagator)(network, propagator.guard, propagator.options, propagator.arrays)


@dataclass(frozen=True)
class _Unit:
    """Measures errors of codes over the change in a step."""

    root: Tensor

    @classmethod
    def of(cls, data: CodeWindows, metric: ArrayLike | None) -> _Unit:
        root = metric_root(metric, data.codes.shape[2])
        change = np.diff(data.codes.astype(np.float64), axis=1) / np.sqrt(data.dts[..., None])
        size = np.sqrt(np.square(change @ root).mean())
        return cls(torch.from_numpy((root / size).astype(np.float32)))

    def squares(self, errors: Tensor) -> Tensor:
        """Squared errors of codes (..., n) in units of the change."""
        return (errors @ self.root.to(errors)).square()


def _begin(
    data: CodeWindows, settings: DynamicsSettings, linear: Any | None, forcing: Forcing | None
) -> tuple[NetworkPropagator, Float]:
    """Untrained propagator, and the mean squared change of codes in a step."""
    codes = data.codes.astype(np.float64)
    flat, n = codes.reshape(-1, codes.shape[2]), codes.shape[2]
    mean, spread = flat.mean(0), flat.std(0)
    if not spread.max() > 0.0:
        raise ParameterError("the codes do not change: there are no dynamics to learn")
    spread = np.maximum(spread, 1e-6 * spread.max())
    kind = PROPAGATORS[settings.kind]
    options: dict[str, Any] = {"n": n, "blocks": settings.blocks}
    arrays = {}
    step = np.diff(codes, axis=1) / np.sqrt(data.dts[..., None])
    change = np.square(step).mean((0, 1))
    inward = spread if settings.scaling == "component" else np.full(n, np.sqrt(np.mean(spread**2)))
    if settings.kind != "rezero":
        options = {
            "n": n, "hidden": settings.hidden, "layers": settings.layers,
            "longest": settings.longest,
            "forcing": None if forcing is None else forcing.options(),
        }  # fmt: skip
    left = change
    if linear is not None and settings.kind == "residual_node":
        distance = np.quantile(np.sqrt(np.square((flat - mean) / inward).mean(1)), _INSIDE)
        options |= {"inner": float(distance), "outer": settings.reach * float(distance)}
        del options["n"]
        arrays["rows"] = linear.rows
        left = _residual(linear, data, codes)
    network: Any = kind.build(options, arrays)
    if settings.kind != "rezero" and settings.scaling != "none":
        floor = 1e-6 * np.sqrt(left.max())
        network.normalise(mean, inward, np.maximum(np.sqrt(left), floor))
    return kind(network, CodeGuard(mean, spread, settings.limit), options, arrays), change


def _residual(linear: Any, data: CodeWindows, codes: Float) -> Float:
    """Mean squared error of one step of the linear propagator, by component."""
    total, factor = np.zeros(codes.shape[2]), linear.forcing.step if linear.forcing else 1.0
    for k in range(data.dts.shape[1]):
        for length in np.unique(data.dts[:, k]):
            part = np.flatnonzero(data.dts[:, k] == length)
            start = codes[part, k]
            if linear.forcing is None:
                moved = linear.step(start, length)
            else:
                moved = start @ linear.matrix(length).T + np.array(
                    [linear.offset(length, time * factor) for time in data.times[part, k]]
                )
            total += np.square(codes[part, k + 1] - moved).sum(0) / length
    return np.asarray(total / data.dts.size)


def _train(
    propagator: NetworkPropagator, batches: CodeBatches, held: CodeWindows, unit: _Unit,
    settings: DynamicsSettings, folder: str | os.PathLike[str], device: str,
    progress: bool | None,
) -> None:  # fmt: skip
    """Train the network of a propagator in place."""
    network = propagator.network.requires_grad_(True)
    last = settings.policy == "last"

    def loss(model: nn.Module, batch: CodeBatch, truth: Tensor) -> Tensor:
        squares = unit.squares(roll_out(model, batch) - truth)
        return (squares[:, -1] if last else squares).mean()

    validate = _validation(held, unit, device)
    with torch.no_grad():
        before = validate(network.to(device).eval())
    schedule = settings.schedule
    told = {k: v for k, v in asdict(settings).items() if k != "schedule"}
    check = [zlib.crc32(np.ascontiguousarray(a).tobytes()) for a in (
        batches.windows.codes, batches.windows.dts, batches.windows.times, held.codes,
        unit.root.numpy(), *propagator.arrays.values())]  # fmt: skip
    recipe = json.dumps({**told, "seed": batches.seed, "data": check, "schedule": asdict(schedule)})
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    if isinstance(network, CodeODE):
        network.mixed = schedule.mixed
    run = Run(network, schedule, folder, device=device, recipe=recipe)
    steps = track(range(run.step, schedule.steps), label="dynamics", enabled=progress)
    for row in run.train((batches[k] for k in steps), loss, validate):
        LOGGER.info("dynamics: %s", json.dumps({k: round(v, 5) for k, v in row.items()}))
    if not run.best < float("inf"):
        raise SolverError(
            f"no validation of the run in {Path(folder)} had a finite score: it diverged, and "
            "there is nothing to keep; give a lower rate, in another folder"
        )
    if settings.kind != "node" and not run.best < before["score"]:
        LOGGER.warning(
            "training made %r no better on the windows held out (%.4g, untrained %.4g): the "
            "untrained one is kept", settings.kind, run.best, before["score"],
        )  # fmt: skip
        network.load_state_dict(initial)


def _validation(
    held: CodeWindows, unit: _Unit, device: str
) -> Callable[[nn.Module], dict[str, float]]:
    """Make a function from a network to its roll-out errors, over the change in one step."""
    batch = held.whole().to(device)
    truth = batch.codes[:, 1:]

    @torch.no_grad()
    def scores(model: nn.Module) -> dict[str, float]:
        errors = unit.squares(roll_out(model, batch) - truth).mean((0, 2)).sqrt()
        named = {"first": float(errors[0]), "last": float(errors[-1])}
        return {**named, "score": float(errors.mean())}

    return scores

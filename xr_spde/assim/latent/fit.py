"""Fit latent models: a state map, dynamics of its codes, and errors from what was held out."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.lazyimport import require
from xr_spde._core.rng import resolve_seed
from xr_spde._core.warn import warn
from xr_spde.assim.latent.channels import Labelled, variables_of
from xr_spde.assim.latent.forecasts import score_parts
from xr_spde.assim.latent.model import LatentModel
from xr_spde.assim.latent.model_error import fit_error
from xr_spde.assim.latent.protocols import ErrorModel, Propagator, StateMap
from xr_spde.assim.latent.residuals import (
    cross_residuals,
    representativeness,
    step_residuals,
)
from xr_spde.assim.latent.settings import LatentSettings
from xr_spde.assim.latent.training import Part, Training, read_training
from xr_spde.fields.linear_dynamics import PersistencePropagator, fit_linear, window_index

__all__ = ["MAPS", "METHODS", "fit_latent"]

Float = NDArray[np.float64]
_CARD = "xr_spde.assim.fit"
_LEADS = 3
_ENOUGH = 3  # residuals for each number of a code, from which a full covariance is estimated


@dataclass(frozen=True, eq=False)
class Task:
    """What the fit of a part is given.

    Attributes
    ----------
    training : Training
        The series.
    settings : LatentSettings
        Of the fit.
    entropy : int
        Of all that is random.
    folder : str
        For what a training keeps.
    """

    training: Training
    settings: LatentSettings
    entropy: int
    folder: str

    @property
    def sphere(self) -> bool:
        """Whether points are longitude and latitude."""
        return self.training.layout.domain == "sphere"

    @property
    def points(self) -> Float:
        """Points of the training."""
        return self.training.layout.points

    def code_size(self, default: int) -> int:
        """Size of a code: as given, or a default that the snapshots allow."""
        count = len(self.training.trained.snapshots)
        if self.settings.code is None:
            return max(1, min(default, count // 4))
        return int(self.settings.code)


def _fit_pod(task: Task) -> tuple[StateMap, Float]:
    from xr_spde.fields.pod import fit_pod

    code = task.settings.code
    modes: float = code if code is not None and code < 1.0 else task.code_size(400)
    snapshots = task.training.trained.snapshots
    if modes >= 1 and modes > len(snapshots) - 1:
        raise ParameterError(
            f"code={modes:g} was given and there are {len(snapshots)} snapshots to train on, which "
            f"span {len(snapshots) - 1} modes about their mean; give at most that, or more times"
        )
    return fit_pod(snapshots, task.points, task.training.weights, modes=modes,
                   sphere=task.sphere, seed=task.entropy, **task.settings.network)  # fmt: skip


MAPS: dict[str, Callable[[Task], tuple[StateMap, Float]]] = {"pod": _fit_pod}
"""Fits of state maps by method."""

METHODS = ("lainr", "pod", "cae", "aeflow", "auto")
"""Latent methods of `xr_spde.assim.fit`."""


def fit_latent(
    obj: Labelled, observations: Any, settings: LatentSettings, method: str
) -> LatentModel:
    """Fit a latent model; see `xr_spde.assim.fit`.

    Parameters
    ----------
    obj : DataArray or Dataset (..., time, Y, X)
        A series of fields: variables, levels and members as they are; NaN is missing.
    observations : None
        Latent models are fitted to fields.
    settings : LatentSettings
        Of the fit.
    method : str
        Of :data:`METHODS`.

    Returns
    -------
    LatentModel
        Its card has the scores on the times that were held out.

    Raises
    ------
    ParameterError
        Observations, too few times or snapshots, variables that are all missing or do not vary.
    GridError
        No sphere where one is asked for.

    Warns
    -----
    UserWarning
        If intervals of the series differ.
    """
    if observations is not None:
        raise ParameterError(
            f'method="{method}" is fitted to a series of fields, and observations were given; '
            "leave them out here and give them to assimilate"
        )
    s = settings
    training = read_training(
        obj, variables=None if s.variables is None else list(s.variables), held=s.held,
        climatology=s.climatology, domain=s.domain, dim=s.dim, x=s.x, y=s.y,
    )  # fmt: skip
    entropy = resolve_seed(s.seed)
    axes = _axes(obj, training)
    with ExitStack() as stack:
        folder = s.folder or stack.enter_context(tempfile.TemporaryDirectory())
        names = ("pod", "lainr") if method == "auto" else (method,)
        fitted = {
            name: _one(Task(training, _own(s, name, method), entropy, str(Path(folder) / name)),
                       name, axes)
            for name in names
        }  # fmt: skip
    if method != "auto":
        return fitted[method]
    marks = {name: one.card["scores"]["forecast"] for name, one in fitted.items()}
    best = min(marks, key=lambda name: float(marks[name]))
    told = ", ".join(f"{name} {mark:.4g}" for name, mark in marks.items())
    warn(
        f'method="auto" keeps {best!r}: root mean square errors of forecasts of up to {_LEADS} '
        f"steps in the times that were held out are {told}, in standard deviations"
    )
    return replace(fitted[best], card={**fitted[best].card, "compared": marks})


def _own(settings: LatentSettings, name: str, method: str) -> LatentSettings:
    """Give the settings of a method that "auto" compares: options of networks are of "lainr"."""
    if method != "auto" or name != "pod":
        return settings
    return replace(settings, network={}, propagator={}, dynamics="linear")


def _axes(obj: Labelled, training: Training) -> dict[str, xr.Variable]:
    one = next(iter(variables_of(obj).values()))
    grid = training.layout.grid
    return {d: one[d].variable.to_base_variable() for d in (grid.y_dim, grid.x_dim)
            if d in one.coords}  # fmt: skip


def _one(task: Task, name: str, axes: Mapping[str, xr.Variable]) -> LatentModel:
    """Fit the parts of a model one after the other."""
    training = task.training
    state_map, codes = MAPS[name](task)
    shape = training.trained.values.shape[:2]
    trained = np.asarray(codes, dtype=np.float64).reshape(*shape, -1)
    held = _encoded(state_map, training.held)
    propagator = _dynamics(task, name, trained)
    error = _error(task, state_map, propagator, trained, held)
    model = LatentModel(
        state_map, propagator, error, training.layout, training.scaling, training.clock, axes,
        training.attrs, training.time_name,
    )  # fmt: skip
    entropy = task.entropy
    scores = _scores(state_map, propagator, training, held)
    card = {
        "command": _CARD, "method": name, "data": training.described,
        "seed": entropy if entropy < 2**63 else str(entropy),
        "settings": task.settings.recipe(), "scores": scores,
        "machine": f"{platform.machine()}, {task.settings.threads} thread(s)", **task.settings.card,
    }  # fmt: skip
    return replace(model, card=card)


def _encoded(state_map: StateMap, part: Part) -> Float:
    """Codes (W, T, n) of snapshots."""
    found = np.asarray(state_map.encode(part.snapshots), dtype=np.float64)
    return found.reshape(*part.values.shape[:2], -1)


def _dynamics(task: Task, name: str, trained: Float) -> Propagator:
    """Fit the propagator to codes (W, T, n)."""
    kind = task.settings.dynamics
    if kind == "auto":
        kind = "linear" if name == "pod" else "residual_node"
    if kind == "persistence":
        return PersistencePropagator()
    forcing = _forcing(task)
    if kind == "linear":
        options = _windows(task.training.trained, trained, 2)
        return fit_linear(options.pop("windows"), **options, forcing=forcing,
                          **task.settings.propagator)  # fmt: skip
    require("torch", "torch")
    from xr_spde.nets.latent_dynamics_training import DynamicsSettings, fit_dynamics
    from xr_spde.nets.training import Schedule

    given = dict(task.settings.propagator)
    names = {one.name for one in fields(Schedule)}
    usual = DynamicsSettings().schedule
    schedule = replace(usual, **{k: given.pop(k) for k in list(given) if k in names})
    unknown_names = sorted(set(given) - {one.name for one in fields(DynamicsSettings)})
    if unknown_names:
        known = {one.name for one in fields(DynamicsSettings)} | names
        raise unknown("option of the dynamics", unknown_names[0], sorted(known))
    settings = DynamicsSettings(kind=kind, schedule=schedule, **given)
    options = _windows(task.training.trained, trained, settings.horizon + 1)
    windows = options.pop("windows")
    held = np.arange(len(windows)) >= len(windows) - max(1, len(windows) // 10)
    linear = None
    if kind == "residual_node":
        inside = {k: v[~held] for k, v in options.items()}
        linear = fit_linear(windows[~held], **inside, forcing=forcing)
    return fit_dynamics(
        windows, settings, f"{task.folder}/dynamics", task.entropy % 2**31, held=held,
        linear=linear, forcing=None if linear is not None else forcing, **options,
        progress=task.settings.progress,
    )  # fmt: skip


def _windows(part: Part, codes: Float, length: int) -> dict[str, Any]:
    """Windows (W', S, n) of codes (W, T, n) in the order of time, their intervals and days."""
    index = window_index(codes.shape[1], min(length, codes.shape[1]))
    members = len(codes)
    return {
        "windows": codes[:, index].swapaxes(0, 1).reshape(-1, index.shape[1], codes.shape[2]),
        "dts": np.repeat(part.gaps[index[:, :-1]], members, axis=0),
        "times": np.repeat(part.days[index], members, axis=0),
    }


def _forcing(task: Task) -> Any:
    from xr_spde._core.codes import Forcing

    if not task.settings.forcing:
        return None
    clock = task.training.clock
    if clock.unit == "number":
        raise ParameterError(
            "forcing=True needs dates, and the times of the series are plain numbers"
        )
    days = clock.step * (365.2425 / 12.0 if clock.unit == "month" else 1.0)
    periods = tuple(p for p in (365.2425, 1.0) if p > 2.0 * days)
    if not periods:
        raise ParameterError(f"forcing=True: steps of {clock} resolve neither season nor day")
    return Forcing(periods, step=days)


def _error(
    task: Task, state_map: StateMap, propagator: Propagator, trained: Float, held: Float
) -> ErrorModel:
    """Model error and representativeness, from what the dynamics were not fitted to."""
    training = task.training
    pieces = _windows(training.held, held, 2)
    if propagator.name == "linear":
        # refitted without a fifth of the windows, five times: more residuals than the held ones
        own = _windows(training.trained, trained, 2)
        pieces = {name: np.concatenate([own[name], pieces[name]]) for name in own}
        forcing = getattr(propagator, "forcing", None)

        def fit(which: NDArray[np.int64]) -> Propagator:
            some = {name: values[which] for name, values in pieces.items()}
            return fit_linear(some.pop("windows"), **some, forcing=forcing,
                              **task.settings.propagator)  # fmt: skip

        residuals = cross_residuals(fit, **pieces)
    else:
        residuals = step_residuals(propagator, **pieces)
    kind = task.settings.model_error
    if kind == "auto":
        kind = "full" if len(residuals) >= _ENOUGH * state_map.n else "diagonal"
    missed = np.concatenate(
        [state_map.decode(codes) - part for codes, part in zip(held, training.held.values,
                                                               strict=True)]
    )  # fmt: skip
    per = task.settings.representativeness
    return fit_error(
        residuals, kind, representativeness=representativeness(missed, training.weights, per=per)
    )


def _scores(
    state_map: StateMap, propagator: Propagator, training: Training, held: Float
) -> dict[str, float]:
    """Root mean square errors on held-out times, in standard deviations, all variables together."""
    found = score_parts(state_map, propagator, training, held, _LEADS)
    return {name: round(float(value), 5) for name, value in found.items()}

"""Fit latent models: a state map, dynamics of its codes, and errors from what was held out."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.lazyimport import require
from xr_spde._core.rng import resolve_seed
from xr_spde._core.warn import warn
from xr_spde.assim.latent.background import field_metric
from xr_spde.assim.latent.channels import Labelled, variables_of
from xr_spde.assim.latent.forecasts import score_parts
from xr_spde.assim.latent.maps import MAPS, WHOLE, Task, options_of
from xr_spde.assim.latent.model import LatentModel
from xr_spde.assim.latent.model_error import GaussianError, fit_error
from xr_spde.assim.latent.protocols import ErrorModel, Propagator, StateMap
from xr_spde.assim.latent.residuals import (
    cross_residuals,
    representativeness,
    step_residuals,
)
from xr_spde.assim.latent.running import DEAD
from xr_spde.assim.latent.settings import LatentSettings
from xr_spde.assim.latent.training import Part, Training, read_training
from xr_spde.fields.linear_dynamics import PersistencePropagator, fit_linear, window_index

__all__ = ["METHODS", "fit_latent"]

Float = NDArray[np.float64]
_CARD = "xr_spde.assim.fit"
_LEADS = 3
_ENOUGH = 3  # residuals for each number of a code, from which a full covariance is estimated


METHODS = (*MAPS, "auto")
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
        climatology=s.climatology, domain=s.domain, whole=method in WHOLE, dim=s.dim, x=s.x, y=s.y,
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
    metric = None
    if name != "pod":  # of which codes are errors of fields already
        middle = np.asarray(state_map.jacobian(state_map.mean), dtype=np.float64)
        metric = field_metric(np.nan_to_num(middle), training.weights)
    propagator = _dynamics(task, name, trained, metric)
    error = _error(task, state_map, propagator, trained, held, metric)
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


def _dynamics(task: Task, name: str, trained: Float, metric: Float | None) -> Propagator:
    """Fit the propagator to codes (W, T, n), in the metric (n, n) of their fields."""
    kind = task.settings.dynamics
    if kind == "auto":
        kind = "linear" if name == "pod" else "residual_node"
    if kind == "persistence":
        return PersistencePropagator()
    forcing = _forcing(task)
    if kind == "linear":
        options = _windows(task.training.trained, trained, 2)
        return fit_linear(options.pop("windows"), **options, forcing=forcing, metric=metric,
                          **task.settings.propagator)  # fmt: skip
    require("torch", "torch")
    from xr_spde.nets.latent_dynamics_training import DynamicsSettings, fit_dynamics
    from xr_spde.nets.training import Schedule

    given, timing = options_of(task.settings.propagator, DynamicsSettings, Schedule)
    schedule = replace(DynamicsSettings().schedule, **timing)
    settings = DynamicsSettings(kind=kind, schedule=schedule, **given)
    options = _windows(task.training.trained, trained, settings.horizon + 1)
    windows = options.pop("windows")
    held = np.arange(len(windows)) >= len(windows) - max(1, len(windows) // 10)
    linear = None
    if kind == "residual_node":
        inside = {k: v[~held] for k, v in options.items()}
        linear = fit_linear(windows[~held], **inside, forcing=forcing, metric=metric)
    return fit_dynamics(
        windows, settings, f"{task.folder}/dynamics", task.entropy % 2**31, held=held,
        linear=linear, forcing=None if linear is not None else forcing, **options,
        metric=metric, progress=task.settings.progress,
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
    task: Task, state_map: StateMap, propagator: Propagator, trained: Float, held: Float,
    metric: Float | None,
) -> ErrorModel:  # fmt: skip
    """Model error and representativeness, from what the dynamics were not fitted to."""
    training = task.training
    residuals = _residuals(task, propagator, trained, held, metric)
    kind = task.settings.model_error
    if kind == "auto":
        kind = "full" if len(residuals) >= _ENOUGH * state_map.n else "diagonal"
    decoded = np.stack([state_map.decode(codes) for codes in held])
    missed = (decoded - training.held.values).reshape(-1, *decoded.shape[2:])
    own = representativeness(missed, training.weights, per=task.settings.representativeness)
    live = state_map.spread > DEAD * state_map.spread.max()
    if kind != "scalar" or live.all():
        return fit_error(residuals, kind, representativeness=own)
    # one variance for numbers that the training uses; in others it would be far off all codes
    variance = fit_error(residuals, "diagonal").noise
    variance[live] = variance[live].mean()
    return GaussianError("diagonal", variance, own)


def _residuals(
    task: Task, propagator: Propagator, trained: Float, held: Float, metric: Float | None
) -> Float:
    """Errors of single steps (K, n) that the dynamics were not fitted to.

    Linear dynamics are fitted anew without a fifth of the windows, five times: that gives more of
    them than the held times alone.
    """
    pieces = _windows(task.training.trained, trained, 2)
    if held.shape[1] > 1:
        last = _windows(task.training.held, held, 2)
        if propagator.name != "linear":
            return step_residuals(propagator, **last)
        pieces = {name: np.concatenate([pieces[name], last[name]]) for name in pieces}
    if propagator.name != "linear":
        return step_residuals(propagator, **pieces)
    forcing = getattr(propagator, "forcing", None)

    def fit(which: NDArray[np.int64]) -> Propagator:
        some = {name: values[which] for name, values in pieces.items()}
        options = {**some, "forcing": forcing, "metric": metric, **task.settings.propagator}
        return fit_linear(options.pop("windows"), **options)

    return cross_residuals(fit, **pieces)


def _scores(
    state_map: StateMap, propagator: Propagator, training: Training, held: Float
) -> dict[str, float]:
    """Root mean square errors on held-out times, in standard deviations, all variables together."""
    found = score_parts(state_map, propagator, training, held, _LEADS)
    return {name: round(float(value), 5) for name, value in found.items()}

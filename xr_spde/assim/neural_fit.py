"""Fit networks that interpolate observations in space and time."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.lazyimport import require
from xr_spde._core.rng import resolve_seed
from xr_spde.assim.latent.fit import METHODS as LATENT
from xr_spde.assim.latent.fit import fit_latent
from xr_spde.assim.latent.settings import latent_settings
from xr_spde.assim.neural_priors import RandomPriorSource, matched_theta
from xr_spde.assim.neural_series import Series, read_series
from xr_spde.assim.neural_settings import FitSettings, settings_of
from xr_spde.assim.neural_solver import NeuralSolver

__all__ = ["METHODS", "fit", "fit_solver", "held_windows"]

_SAMPLES = 24
_CARD = "xr_spde.assim.fit"


def fit(obj: Any, observations: Any = None, *, method: str = "4dvarnet", **settings: Any) -> Any:
    """Fit a model to a truth and what is observed of it, or to observations alone.

    Parameters
    ----------
    obj : DataArray (time, Y, X), sequence of these, or Dataset
        The truth: one series, several, or with a further dimension of runs; read window by window,
        so that it may be larger than memory. Or the observations, gridded or along tracks, where
        nothing else is known and ``loss="unsupervised"``. Of latent methods fields
        (..., time, Y, X): several variables, levels and members as they are; NaN is missing.
    observations : DataArray, Dataset or sequence of these, optional
        Of the truth: gridded on its grid with NaN, or points with times. By default simulated along
        the tracks of missions, with new errors in every window.
    method : {"4dvarnet", "lainr", "pod", "cae", "aeflow", "auto"}, default "4dvarnet"
        A variational solver of learned steps and prior. Or a latent model: "lainr" represents
        fields by a network of the coordinates, "pod" by their leading modes, "cae" and "aeflow" by
        auto-encoders, all with dynamics of their codes; "auto" fits "pod" and "lainr" and keeps
        what forecasts held-out times better, and says so.
    **settings
        Of latent methods see `xr_spde.assim.latent.settings.LatentSettings`: ``code``,
        ``dynamics``, ``model_error``, ``held``, ``climatology``, ``network``, ``folder``, ``seed``
        and more. Of "4dvarnet" see `xr_spde.assim.neural_settings.FitSettings`: ``missions``,
        ``noise``, ``tasks``, ``window``, ``patch``, ``loss``, ``spde_prior``, ``theta``,
        ``network``, ``start``, ``steps``, ``folder``, ``seed`` and more.

    Returns
    -------
    NeuralSolver or LatentModel
        For ``model=`` of `assimilate`; its card says how it was trained and what it reaches on the
        times that were held out, as root mean square errors in units of its scale.

    Raises
    ------
    UnknownNameError
        For an unknown method, setting, task, mission or augmentation.
    ParameterError
        Too few times for the window, irregular times, series with other steps or units, a truth or
        first guess that is all NaN, impossible numbers, or a folder with another run.
    AxisNotFoundError, GridError, MissingDependencyError, SolverError
        No horizontal axes or times, another grid, no torch, a training that diverged.

    Notes
    -----
    The same seed gives the same weights on one machine with one thread, also where the training was
    interrupted and goes on in its folder, and whether the data are lazy or not.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim import fit
    >>> days = np.datetime64("2020-01-01", "ns") + np.arange(40) * np.timedelta64(1, "D")
    >>> coords = {"time": days, "lat": np.arange(8.0), "lon": np.arange(8.0)}
    >>> z = np.random.default_rng(0).standard_normal((40, 8, 8))
    >>> truth = xr.DataArray(z, coords, ("time", "lat", "lon"), attrs={"units": "m"})
    >>> seen = truth.where(truth > 0.0)
    >>> net = {"iterations": 2, "hidden": 4, "width": 4}
    >>> model = fit(truth, seen, obs_error=0.1, window=5, leads=2, steps=2, network=net)
    >>> model.steps, model.tasks
    (5, ('mapping', 'nrt', 'forecast'))
    """
    if method in LATENT:
        return fit_latent(obj, observations, latent_settings(settings), method)
    if method not in METHODS:
        raise unknown("method", method, (*METHODS, *LATENT))
    return METHODS[method](obj, observations, settings_of(settings))


def fit_solver(obj: Any, observations: Any, settings: FitSettings) -> NeuralSolver:
    """Fit a variational solver; see :func:`fit`.

    Parameters
    ----------
    obj, observations
        As for :func:`fit`.
    settings : FitSettings
        Of the fit.

    Returns
    -------
    NeuralSolver
    """
    require("torch", "torch")
    require("safetensors", "torch")
    from xr_spde.nets.registry import build_network
    from xr_spde.nets.variational_training import Solvers, held_threads

    entropy = resolve_seed(settings.seed)
    settings = _completed(settings)
    series = read_series(obj, observations, settings)
    with ExitStack() as stack:
        folder = settings.folder or stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(held_threads(settings.threads, entropy))
        options = _options(series, settings, entropy)
        solver: Any = build_network("4dvarnet", options)
        _start(solver, settings, "solver")
        theta: Any = None
        if settings.theta is not None:
            told = {name: solver.options[name] for name in ("alpha", "theta", "boundary")}
            told |= settings.theta_network
            theta = build_network("4dvarnet-theta", {"steps": settings.window, **told})
            _start(theta, settings, "theta_solver")
        stage = _Stage(series, settings, entropy, str(folder), options)
        if settings.theta == "joint":
            both = Solvers(solver, theta)
            scores = stage.run(both, "joint")
            solver, theta = both.solver, both.theta_solver
        else:
            scores = stage.run(solver, "state")
            if theta is not None:
                found = stage.run(theta, "theta", solver=solver.eval().requires_grad_(False))
                scores |= {"nll": found["score"]}
    return _labelled(series, settings, entropy, solver.eval(), theta and theta.eval(), scores)


def held_windows(obj: Any, observations: Any, count: int, **settings: Any) -> list[Any]:
    """Windows of the held-out part that a fit with these arguments would be validated on.

    Parameters
    ----------
    obj, observations, **settings
        As for :func:`fit`.
    count : int
        Number of windows.

    Returns
    -------
    list of xr_spde.nets.variational_windows.Sample
        With all observations, and the truth, in units of the scale.
    """
    chosen = _completed(settings_of(settings))
    series = read_series(obj, observations, chosen)
    batches = _batches(series, chosen, resolve_seed(chosen.seed), held=True)
    return [batches.sample(number, 0, hidden=0) for number in range(count)]


METHODS: Mapping[str, Callable[[Any, Any, FitSettings], NeuralSolver]] = {"4dvarnet": fit_solver}
"""Fits by the name of their method."""


def _completed(settings: FitSettings) -> FitSettings:
    """Take over from the weights to start from what must be the same."""
    start = settings.start
    if start is None:
        return settings
    if not isinstance(start, NeuralSolver):
        raise ParameterError(
            f"start={type(start).__name__} was given; expected a NeuralSolver, such as "
            'xr_spde.assim.load_solver("sea-level")'
        )
    changes = {k: v for k, v in settings.network.items() if start.solver.options.get(k) != v}
    fixed = {"steps", "hidden", "coarsen", "prior", "width", "preconditioner", "parameters"}
    if start.solver.options["refine"]:
        # a network after the iterations can be added, but not changed
        fixed |= {"refine", "depth", "cycle", "nodes", "times", "deviation"}
    if changes.keys() & fixed:
        raise ParameterError(
            f"network={dict(settings.network)!r} and start= with options {start.solver.options} "
            f"were given; weights go on with the same {', '.join(sorted(fixed))}"
        )
    if settings.theta is not None and start.theta_solver is not None and settings.theta_network:
        raise ParameterError("theta_network= belongs to a new theta solver, and start= has one")
    own = {} if start.theta_solver is None else dict(start.theta_solver.options)
    own.pop("steps", None)
    return replace(settings, network={**start.solver.options, **changes}, window=start.steps,
                   theta_network=own or settings.theta_network)  # fmt: skip


def _start(network: Any, settings: FitSettings, name: str) -> None:
    """Take the weights to start from, where there are any."""
    old = None if settings.start is None else getattr(settings.start, name)
    if old is not None:
        network.load_state_dict({**network.state_dict(), **old.state_dict()})


def _options(series: Series, settings: FitSettings, entropy: int) -> dict[str, Any]:
    """Options of the network; those of its stationary prior from the data where not given."""
    own = {
        "prior": "auto-encoder" if settings.loss == "supervised" else "spde", "alpha": series.alpha,
        **settings.network,
    }  # fmt: skip
    own["steps"] = settings.window
    if settings.loss == "unsupervised" and own["prior"] == "auto-encoder":
        raise ParameterError(
            'loss="unsupervised" is the cost of interpolation with an SPDE prior, and '
            'network={"prior": "auto-encoder"} has none; give "spde" or "both"'
        )
    if settings.searched is not None and not own.get("refine"):
        raise ParameterError(
            f"searched={settings.searched} trains the network after the iterations alone, and "
            'network= has none; give network={"refine": 64}, or leave searched out'
        )
    if own.get("deviation") and (settings.loss == "unsupervised" or not settings.deviation):
        raise ParameterError(
            'network={"deviation": True} learns from errors against a truth, and '
            f"loss={settings.loss!r}, deviation={settings.deviation} were given: give "
            'loss="supervised" and deviation= > 0, or a network= or start= without it'
        )
    if "theta" not in own:
        own["theta"] = series.theta() if settings.spde_prior is not None \
            else _matched(series, settings, entropy)  # fmt: skip
    return own


def _matched(series: Series, settings: FitSettings, entropy: int) -> dict[str, float]:
    """Numbers of a prior with the correlations of windows of the truth."""
    batches = _batches(series, settings, entropy, held=False)
    windows = [batches.sample(number, 2**31) for number in range(_SAMPLES)]
    return matched_theta([np.where(w.sea, w.truth, np.nan) for w in windows])


def _batches(series: Series, settings: FitSettings, entropy: int, *, held: bool) -> Any:
    """Windows to train on, or those that are held out."""
    from xr_spde.nets.variational_windows import WindowBatches

    spans = series.held if held else series.trained
    sources: list[Any] = [series.sources[k] for k, _ in spans]
    bounds = [span for _, span in spans]
    shares = [float(stop - first) for first, stop in bounds]
    if settings.random_priors and not held:
        more = settings.random_priors / (1.0 - settings.random_priors)
        sources += [RandomPriorSource(source, {}) for source in sources]
        shares += [share * more for share in shares]
        bounds += bounds
    return WindowBatches(
        sources, bounds, shares, steps=settings.window, patch=settings.patch,
        batch=settings.batch, hidden=settings.hidden, augment=() if held else settings.augment,
        amplitude=settings.amplitude, causal=settings.causal, seed=2 * entropy + int(held),
    )  # fmt: skip


class _Stage:
    """One network after the other, on the same windows."""

    def __init__(
        self, series: Series, settings: FitSettings, entropy: int, folder: str,
        options: Mapping[str, Any],
    ) -> None:  # fmt: skip
        from xr_spde.nets.variational_training import Objective

        self.settings, self.entropy, self.folder = settings, entropy, folder
        self.batches = _batches(series, settings, entropy, held=False)
        self.held = _batches(series, settings, entropy, held=True)
        names = (
            "loss",
            "gradient",
            "projection",
            "likelihood",
            "border",
            "smoothness",
            "deviation",
        )
        self.objective = Objective(**{name: getattr(settings, name) for name in names})
        self.told = {"data": series.described, "options": dict(options)}

    def run(self, network: Any, name: str, *, solver: Any = None) -> dict[str, float]:
        """Train one network; returns its scores."""
        from xr_spde.nets.training import Schedule
        from xr_spde.nets.variational_training import train, validation

        s = self.settings
        steps = s.steps if solver is None else s.theta_steps or max(s.steps // 4, 1)
        schedule = Schedule(
            steps=steps, rate=s.rate, warmup=max(1, min(200, steps // 10)), average=s.average,
            every=s.every or max(1, steps // 20), patience=s.patience, decay=1e-3,
            mixed=s.device == "cuda" if s.mixed is None else s.mixed,
        )  # fmt: skip
        leads = [lead for lead in range(s.forecasts + 1) if lead == 0 or lead in s.hidden]
        if solver is not None or s.loss == "unsupervised":
            leads = [0]
            solver = None if solver is None else solver.to(s.device)
        validate = validation(self.held, s.validation_windows, leads, self.objective,
                              solver=solver, device=s.device)  # fmt: skip
        told = {**self.told, "settings": s.recipe(name)}
        batches = self.batches if solver is not None else self._batches_of(network)
        scores = train(
            network, schedule, batches, validate, self.objective, f"{self.folder}/{name}",
            solver=solver, device=s.device, seed=self.entropy,
            recipe=json.dumps(told, default=str, sort_keys=True),
            until=s.until if solver is None else None, progress=s.progress, label=name,
        )  # fmt: skip
        if solver is not None:
            solver.to("cpu")
        return scores

    def _batches_of(self, network: Any) -> Any:
        """Windows to train a solver of the state on, or those that are searched once."""
        from xr_spde.nets.refinement_training import search_windows

        s = self.settings
        if s.searched is None:
            return self.batches
        for name, part in network.named_children():
            part.requires_grad_(name == "refine")
        return search_windows(network, self.batches, s.searched, f"{self.folder}/searched",
                              device=s.device, progress=s.progress)  # fmt: skip


def _labelled(
    series: Series, settings: FitSettings, entropy: int, solver: Any, theta: Any,
    scores: Mapping[str, float],
) -> NeuralSolver:  # fmt: skip
    """Put what was fitted together with what its use needs."""
    plain = json.loads(json.dumps(settings.recipe("card"), default=str))
    for name in ("network", "theta_network", "x", "y", "value"):
        plain.pop(name, None)
    card = {
        "command": _CARD,
        "data": series.described,
        "seed": entropy if entropy < 2**63 else str(entropy),
        "settings": plain,
        "scores": {name: round(float(value), 5) for name, value in scores.items()},
        "machine": f"{platform.machine()}, {settings.threads} thread(s), {settings.device}",
        "train_period": series.periods(held=False),
        "validation_period": series.periods(held=True),
        **settings.card,
    }
    leads = settings.forecasts
    return NeuralSolver(
        solver, scale=series.scale, spacing=series.spacing, time_step=series.step,
        tasks=settings.named_tasks, leads=leads, units=series.units, scaling=settings.scaling,
        theta_solver=theta, card=card,
    )  # fmt: skip

"""A trained variational solver with all that its use needs: scale, steps, tasks, and its card."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SchemaError, listed
from xr_spde._core.lazyimport import require
from xr_spde.assim.weights_file import weights_file

__all__ = ["SHIPPED", "TASKS", "NeuralSolver", "load_solver"]

Float = NDArray[np.float64]

SHIPPED: Mapping[str, str] = {"sea-level": "sea_level.safetensors"}
"""Solvers that come with the package, by name."""

TASKS = ("mapping", "nrt", "forecast")
"""With observations on both sides, up to the last step, and before it."""

SCALINGS = ("fixed", "observations")
"""Whether anomalies are divided by the scale of the training, or by that of the observations."""

FORMAT_VERSION = 1
"""Version of the format that is written; older ones are read too."""

_KIND = "neural solver"
_SMALLEST = 0.05
"""Least share of the variance of observations that is taken for the signal."""


@dataclass(frozen=True, eq=False)
class NeuralSolver:
    """A fitted variational solver: gridded observations of a window in, the field out.

    Attributes
    ----------
    solver : Module
        `xr_spde.nets.variational.VariationalSolver`.
    scale : float
        Standard deviation of the anomalies in training, in `units`: anomalies are divided by it.
    spacing : (float, float)
        Steps of the grid in km, along Y and along X, in training.
    time_step : float
        Days.
    tasks : tuple of str
        Of :data:`TASKS`, for which it was trained.
    leads : int
        Largest number of last steps without observations in training.
    units : str
        Of the field.
    scaling : {"fixed", "observations"}
        "observations": weights for any region; see `scale_for`.
    theta_solver : Module, optional
        `xr_spde.nets.theta_solver.ThetaSolver`: SPDE parameters from observations and mean.
    recalibration : mapping, optional
        Factors on the spread by lead; see `xr_spde.assim.recalibration`.
    card : mapping
        How it was trained: data, seed, command, scores, machine.
    """

    solver: Any
    scale: float
    spacing: tuple[float, float]
    time_step: float
    tasks: tuple[str, ...] = TASKS
    leads: int = 0
    units: str = "1"
    scaling: str = "fixed"
    theta_solver: Any = None
    recalibration: Mapping[str, Any] | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers."""
        numbers = (self.scale, self.time_step, *self.spacing)
        if not all(np.isfinite(n) and n > 0.0 for n in numbers) or len(self.spacing) != 2:
            raise ParameterError(
                f"scale={self.scale}, time_step={self.time_step} and spacing={self.spacing} were "
                "given; expected numbers > 0, two of spacing"
            )
        if self.scaling not in SCALINGS or not set(self.tasks) <= set(TASKS):
            raise ParameterError(
                f"scaling={self.scaling!r} and tasks={self.tasks} were given; known are "
                f"{listed(SCALINGS)} and {listed(TASKS)}"
            )

    @property
    def steps(self) -> int:
        """Steps of a window."""
        return int(self.solver.options["steps"])

    @property
    def size(self) -> int:
        """Number of weights, of both networks."""
        nets = [net for net in (self.solver, self.theta_solver) if net is not None]
        return sum(weights.numel() for net in nets for weights in net.parameters())

    def scale_for(self, anomalies: Float, variance: Float) -> float:
        """By what the anomalies of a series are divided.

        Parameters
        ----------
        anomalies : ndarray (p,)
            Observed, about the first guess, of the whole series.
        variance : ndarray (p,)
            Of their errors.

        Returns
        -------
        float
            `scale` where `scaling` is "fixed". Otherwise the standard deviation of the field as
            the observations have it, ``sqrt(mean(anomaly^2 - variance))``, which makes the weights
            of one region those of another; at least a share of 5 % of the observed variance.
        """
        if self.scaling == "fixed" or not np.size(anomalies):
            return float(self.scale)
        seen = float(np.mean(np.square(anomalies, dtype=np.float64)))
        signal = max(seen - float(np.mean(variance, dtype=np.float64)), _SMALLEST * seen)
        return float(np.sqrt(signal)) if signal > 0.0 else float(self.scale)

    @property
    def alpha(self) -> int:
        """Power of the prior."""
        net = self.solver if self.theta_solver is None else self.theta_solver
        return int(net.options.get("alpha", 4))

    @property
    def reads_theta(self) -> bool:
        """Whether the mean depends on the parameters that are estimated."""
        return self.theta_solver is not None and bool(self.solver.options.get("parameters"))

    @property
    def oracle(self) -> bool:
        """Whether the SPDE parameters are those of the truth: an upper bound, never an estimate."""
        return self.theta_solver is not None and bool(self.theta_solver.options["oracle_theta"])

    @property
    def reads_times(self) -> bool:
        """Whether observations count at their times within a step."""
        return bool(self.solver.options.get("times"))

    @property
    def deviates(self) -> bool:
        """Whether the solver has learned the standard deviation of its errors."""
        return bool(self.solver.options.get("deviation"))

    def solve(
        self,
        obs: NDArray[Any],
        mask: NDArray[np.bool_],
        variance: NDArray[Any],
        sea: NDArray[np.bool_],
        theta: NDArray[Any] | None = None,
        **settings: Any,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Estimate the fields of windows: the first two of what :meth:`estimate` returns.

        Parameters
        ----------
        obs, mask, variance, sea, theta, **settings
            As for :meth:`estimate`.

        Returns
        -------
        mean : ndarray (B, T, ny, nx)
        theta : ndarray (B, 8, S, ny, nx) or None
        """
        return self.estimate(obs, mask, variance, sea, theta, **settings)[:2]

    def estimate(
        self,
        obs: NDArray[Any],
        mask: NDArray[np.bool_],
        variance: NDArray[Any],
        sea: NDArray[np.bool_],
        theta: NDArray[Any] | None = None,
        *,
        parameters: bool = True,
        oracle: NDArray[Any] | None = None,
        offset: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Estimate the fields of windows, on arrays.

        Parameters
        ----------
        obs, mask, variance : ndarray (B, T, ny, nx)
            Anomalies divided by the scale, where there is one, and variances of their errors.
        sea : ndarray (B, ny, nx) of bool
            False on land.
        theta : ndarray (B, 8, S, ny, nx), optional
            Parameters of the prior; by default estimated, where there is a network for it.
        parameters : bool, default True
            Whether to estimate parameters that the mean does not need.
        oracle : ndarray (B, T, ny, nx), optional
            True anomalies divided by the scale, for a model whose theta solver was made with
            ``oracle_theta=True``: parameters from the truth, an upper bound and no estimate.
        offset : ndarray (B, T, ny, nx), optional
            Times of the observations after their step, in steps, for a solver that reads them.

        Returns
        -------
        mean : ndarray (B, T, ny, nx)
        theta : ndarray (B, 8, S, ny, nx) or None
        deviation : ndarray (B, T, ny, nx) or None
            Standard deviation of the errors of the mean, of a solver that has learned it.
        """
        require("torch", "torch")
        from xr_spde.nets.variational_inference import run_window

        return run_window(self.solver, self.theta_solver, obs, mask, variance, sea, theta,
                          parameters=parameters, oracle=oracle, offset=offset)  # fmt: skip

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write the solver to one safetensors file with a description in JSON.

        Parameters
        ----------
        path : path
            File to write, by habit ``.safetensors``; its folder must exist. An existing one is
            replaced only when the new one is complete.
        half : bool, default False
            Store numbers in 16 bits: half the size, about three significant digits.

        Raises
        ------
        ParameterError
            If the card cannot be written as JSON, or a weight is not finite.
        """
        require("torch", "torch")
        from xr_spde.nets.tensor_file import write_tensors
        from xr_spde.nets.weights import stored_tensors

        nets = {"solver": self.solver, "theta_solver": self.theta_solver}
        described, tensors = {}, {}
        for name, net in nets.items():
            if net is not None:
                described[name] = {"architecture": net.architecture, "options": net.options}
                for key, value in stored_tensors(net, half=half).items():
                    tensors[f"{name}.{key}"] = value
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        numbers |= {"spacing": list(self.spacing), "tasks": list(self.tasks)}
        recalibration = None if self.recalibration is None else dict(self.recalibration)
        write_tensors(path, tensors, {
            "format": FORMAT_VERSION, "kind": _KIND, "networks": described, **numbers,
            "recalibration": recalibration, "card": dict(self.card),
        })  # fmt: skip

    def _facts(self) -> dict[str, str]:
        """Name and value of what describes the solver."""
        spread = "a theta solver" if self.theta_solver is not None else "none learned"
        spread = "ORACLE: a theta solver that sees the truth" if self.oracle else spread
        if self.recalibration is not None:
            spread += ", recalibrated"
        o = self.solver.options
        facts = {
            "window": f"{self.steps} steps of {self.time_step:g} days",
            "cells": " x ".join(f"{step:.3g}" for step in self.spacing) + " km",
            "tasks": ", ".join(self.tasks) + (f" (up to {self.leads} steps)" if self.leads else ""),
            "scale": f"{self.scale:.4g} {self.units}"
            + (", or that of the observations" if self.scaling == "observations" else ""),
            "prior": str(o.get("prior", "")),
            "iterations": str(o.get("iterations", "")),
            "weights": f"{self.size:,}",
            "spread": "learned" if self.deviates else "",
            "parameters of the spread": spread,
        }
        facts |= {f"card: {k}": _short(v) for k, v in self.card.items()}
        return {name: value for name, value in facts.items() if value}

    def __repr__(self) -> str:
        lines = [f"  {name}: {value}" for name, value in self._facts().items()]
        return "\n".join([f"<NeuralSolver {self.solver.architecture}>", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<b>NeuralSolver</b> {html.escape(self.solver.architecture)}<table>{rows}</table>"


_NUMBERS = ("scale", "time_step", "leads", "units", "scaling")
_LONGEST = 100


def _short(value: object) -> str:
    text = ", ".join(f"{k} {_short(v)}" for k, v in value.items()) if isinstance(value, Mapping) \
        else f"{value:.4g}" if isinstance(value, float) else str(value)  # fmt: skip
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def load_solver(path: str | os.PathLike[str]) -> NeuralSolver:
    """Read what `NeuralSolver.save` wrote, or a solver that comes with the package.

    Parameters
    ----------
    path : path or str
        File, or a name of :data:`SHIPPED`, such as "sea-level". Nothing in a file is executed.

    Returns
    -------
    NeuralSolver
        Ready to estimate, on the processor. Random numbers drawn later do not depend on this call.

    Raises
    ------
    DataUnavailableError
        If there is no such file, and no solver of that name.
    SchemaError
        If it holds something else, is damaged, or of a newer format.
    MissingDependencyError
        Without torch.
    """
    require("torch", "torch")
    require("safetensors", "torch")
    from xr_spde.nets.tensor_file import read_tensors

    place = weights_file(path, SHIPPED, "solver")
    kinds: dict[str, Any] = {"kind": str, "networks": dict, "spacing": list, "tasks": list}
    kinds |= {"scale": float, "time_step": float, "card": dict}
    description, tensors = read_tensors(place, kinds, FORMAT_VERSION)
    if description["kind"] != _KIND or "solver" not in description["networks"]:
        raise SchemaError(f"{place} holds {description['kind']!r}, not a {_KIND}")
    nets = {
        name: _network(place, name, told, tensors) for name, told in description["networks"].items()
    }
    return NeuralSolver(
        **nets,
        **{name: description[name] for name in _NUMBERS},
        spacing=tuple(description["spacing"]),
        tasks=tuple(description["tasks"]),
        recalibration=description.get("recalibration"),
        card=description["card"],
    )


def _network(place: Path, name: str, told: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    from xr_spde.nets.weights import built

    prefix = f"{name}."
    own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    return built(place, told["architecture"], told["options"], own)

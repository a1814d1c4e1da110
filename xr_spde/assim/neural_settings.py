"""What can be chosen when a neural solver is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.rng import Seed
from xr_spde.assim.neural_solver import SCALINGS, TASKS, NeuralSolver
from xr_spde.assim.observing import MISSIONS, Mission

__all__ = ["FitSettings", "settings_of"]

_DEVICES = ("cpu", "cuda")
_THETA = ("two-stage", "joint")
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class FitSettings:
    """Settings of `xr_spde.assim.fit` with ``method="4dvarnet"``.

    Attributes
    ----------
    missions : sequence of str, sequence of these, or mapping of str to Mission
        Who observes the truth where no observations are given, along simulated tracks; of several
        sets one is drawn for every window.
    noise : float, (float, float), or mapping of str to these
        Standard deviation of the errors of their points, in units of the truth, by mission where
        these differ; of two the logarithm between them is drawn for every window.
    obs_error : float or DataArray, optional
        Standard deviation of the errors of given observations; by default a variable of theirs.
    value, x, y : str, optional
        Names of the observed variable and of the horizontal axes.
    first_guess : float or DataArray (Y, X) or (time, Y, X), optional
        Anomalies are about it. By default the mean of the truth over the times to train on, cell by
        cell; without a truth the mean of `spde_prior`.
    tasks : sequence of str
        Of "mapping", "nrt" and "forecast". One network for all: of half of the windows the last 1
        to `leads` steps are hidden where "forecast" is among them. Of the last step that is seen
        points that come after it are left out, as at work, but for "mapping" alone.
    leads : int
        Steps that are forecast.
    window : int
        Steps of a window.
    patch : int
        Rows and columns of a window at most.
    loss : {"supervised", "unsupervised"}
        Errors against the truth, or the cost of interpolation with `spde_prior`.
    gradient, projection, likelihood : float
        Weights of the terms beside it; see `xr_spde.nets.variational_training.Objective`.
    border : int
        Rows and columns at the edges of a window that do not count.
    deviation : float
        Weight of the likelihood of the errors given the standard deviation that a network with
        ``network={"deviation": True}`` tells.
    searched : int, optional
        Number of windows whose iterations are done once, in the folder, before the network after
        them (``network={"refine": ...}``) is trained on them alone: minutes for what takes hours
        otherwise, but the iterations stay those of `start`. By default all is trained.
    smoothness : float
        Weight of the roughness of the SPDE parameters beside their likelihood; see
        `xr_spde.nets.theta_losses.parameter_penalty`.
    spde_prior : Dataset, optional
        As `spde_prior` returns it: for the preconditioner and for an SPDE prior of the solver; its
        mean over the grid is taken. By default numbers that have the correlations of the truth.
    random_priors : float
        Share of windows that are draws of SPDE priors of random ranges, observed as the truth is:
        for weights that are to be used in other regions.
    theta : {"two-stage", "joint"}, optional
        Train a solver for SPDE parameters too, after the one of the state or with it.
    network, theta_network : mapping, optional
        Options of `xr_spde.nets.variational.VariationalSolver` and
        `xr_spde.nets.theta_solver.ThetaSolver`.
    start : NeuralSolver, optional
        Weights to start from, with its networks, window and leads.
    steps, batch : int
        Steps of the training and windows of each.
    until : int, optional
        Step of the training after which it is left, as if the rest was to follow.
    theta_steps : int, optional
        Of the second stage; by default a quarter of `steps`.
    rate, average : float
        Largest learning rate, and decay of the average of the weights.
    every, patience : int, optional
        Steps between validations (by default a twentieth of all), and after how many without
        progress the training stops.
    validation : float or sequence of int
        Share of the times at the end of each series, or numbers of whole series, that are not
        trained on.
    gap : int, optional
        Times in front of these that are not used; by default those of a window.
    validation_windows : int
        Number of windows drawn there.
    augment : sequence of str
        Of `xr_spde.nets.variational_windows.AUGMENTATIONS`.
    amplitude : float
        Of the augmentation of that name.
    scaling : {"fixed", "observations"}
        See `NeuralSolver`.
    folder : path, optional
        Where checkpoints go, and from which an interrupted fit goes on; without it nothing is kept.
    seed : int, SeedSequence, Generator or None
        Of all that is random.
    threads : int
        Of one operation of torch.
    device : {"cpu", "cuda"}
        Where to train.
    mixed : bool, optional
        Half precision in the convolutions; by default on a graphics card.
    progress : bool, optional
        Draw a bar; by default the option ``progress``.
    card : mapping
        More to be kept with the weights, such as where the data come from.
    """

    missions: Any = ("topex", "jason", "gfo", "envisat")
    noise: Any = 0.03
    obs_error: float | xr.DataArray | None = None
    value: str | None = None
    x: str | None = None
    y: str | None = None
    first_guess: float | xr.DataArray | None = None
    tasks: Sequence[str] = TASKS
    leads: int = 4
    window: int = 9
    patch: int = 64
    loss: str = "supervised"
    gradient: float = 5.0
    projection: float = 0.02
    likelihood: float = 0.05
    border: int = 0
    deviation: float = 0.02
    searched: int | None = None
    smoothness: float = 0.0
    spde_prior: xr.Dataset | None = None
    random_priors: float = 0.0
    theta: str | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    theta_network: Mapping[str, Any] = field(default_factory=dict)
    start: NeuralSolver | None = None
    steps: int = 2000
    theta_steps: int | None = None
    until: int | None = None
    batch: int = 4
    rate: float = 2e-3
    average: float = 0.995
    every: int | None = None
    patience: int = 20
    validation: float | Sequence[int] = 0.15
    gap: int | None = None
    validation_windows: int = 24
    augment: Sequence[str] = ()
    amplitude: float = 0.3
    scaling: str = "fixed"
    folder: Any = None
    seed: Seed = 0
    threads: int = 1
    device: str = "cpu"
    mixed: bool | None = None
    progress: bool | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and numbers that need no data."""
        for name, least in (("leads", 0), ("window", 2), ("patch", 8), ("steps", 1), ("batch", 1),
                            ("validation_windows", 1), ("threads", 1), ("patience", 1),
                            ("border", 0)):  # fmt: skip
            _check_whole(name, getattr(self, name), least)
        for name in ("theta_steps", "gap", "every", "until", "searched"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 0 if name == "gap" else 1)
        for task in self.named_tasks:
            if task not in TASKS:
                raise unknown("task", task, TASKS)
        for name, known in (("theta", _THETA), ("device", _DEVICES), ("scaling", SCALINGS)):
            given = getattr(self, name)
            if given not in known and not (name == "theta" and given is None):
                raise unknown(name, given, known)
        if not self.tasks or ("forecast" in self.named_tasks and not 0 < self.leads < self.window):
            raise ParameterError(
                f"tasks={self.named_tasks}, leads={self.leads} and window={self.window} were "
                "given; expected at least one task, and leads >= 1 and shorter than the window to "
                "forecast"
            )
        if not 0.0 <= self.random_priors < 1.0:
            raise ParameterError(
                f"random_priors={self.random_priors!r} was given; expected a share in [0, 1)"
            )
        share = self.validation
        if isinstance(share, float) and not 0.0 < share <= _HALF:
            raise ParameterError(
                f"validation={share!r} was given; expected a share in (0, 0.5], or the numbers of "
                "whole series"
            )
        if self.theta is not None and self.loss == "unsupervised":
            raise ParameterError(
                f"theta={self.theta!r} needs a truth, whose likelihood is maximised, and loss="
                '"unsupervised" was given; fit a prior to the observations with .assim.spde_prior()'
            )
        if self.theta == "joint" and self.searched is not None:
            raise ParameterError(
                f'searched={self.searched} with theta="joint": the iterations, which would be '
                'trained, are done once before; give theta="two-stage", or leave searched out'
            )

    @property
    def named_tasks(self) -> tuple[str, ...]:
        """Names of the tasks, where one was given by itself too."""
        return (self.tasks,) if isinstance(self.tasks, str) else tuple(self.tasks)

    @property
    def forecasts(self) -> int:
        """Largest number of hidden steps."""
        return self.leads if "forecast" in self.named_tasks else 0

    @property
    def causal(self) -> bool:
        """Whether windows know nothing from after their last seen step, as is so in real time."""
        return self.named_tasks != ("mapping",)

    @property
    def hidden(self) -> dict[int, float]:
        """How often so many of the last steps are hidden."""
        others = dict.fromkeys(range(1, self.forecasts + 1), 1.0 / self.leads)
        if not others:
            return {0: 1.0}
        if not set(self.named_tasks) - {"forecast"}:
            return others
        return {0: _HALF} | {lead: _HALF * share for lead, share in others.items()}

    def systems(
        self,
    ) -> tuple[list[tuple[str, ...]], dict[str, Mission], dict[str, tuple[float, float]]]:
        """Missions that fly together, their orbits, and their errors.

        Returns
        -------
        systems : list of tuple of str
        orbits : dict of str to Mission
        noise : dict of str to (float, float)

        Raises
        ------
        UnknownNameError
            For an unknown mission.
        ParameterError
            For no mission, or errors that are not positive.
        """
        given = self.missions
        orbits: dict[str, Mission] = dict(given if isinstance(given, Mapping) else MISSIONS)
        sets: list[tuple[str, ...]]
        if isinstance(given, str):
            sets = [(given,)]
        elif isinstance(given, Mapping) or all(isinstance(name, str) for name in given):
            sets = [tuple(given)]
        else:
            sets = [tuple(names) for names in given]
        for name in (name for names in sets for name in names):
            if name not in orbits:
                raise unknown("mission", name, orbits)
        names = list(dict.fromkeys(name for names in sets for name in names))
        told = self.noise
        noise = {n: told.get(n, np.nan) if isinstance(told, Mapping) else told for n in names}
        noise = {n: (v, v) if np.ndim(v) == 0 else tuple(v) for n, v in noise.items()}
        good = all(len(v) == 2 and 0.0 < v[0] <= v[1] < np.inf for v in noise.values())
        if not sets or not all(sets) or not good:
            raise ParameterError(
                f"missions={given!r} and noise={told!r} were given; expected at least one mission, "
                "and for each a standard deviation > 0 (of perfect observations a small one)"
            )
        return sets, orbits, {n: (float(a), float(b)) for n, (a, b) in noise.items()}

    def recipe(self, stage: str) -> dict[str, Any]:
        """Return what decides the result of a stage and can be written as JSON.

        Parameters
        ----------
        stage : str
            "state" leaves out what belongs to the parameters.

        Returns
        -------
        dict
        """
        left_out = {"obs_error", "first_guess", "spde_prior", "start", "folder", "progress",
                    "card", "missions", "threads"}  # fmt: skip
        if stage == "state":
            left_out |= {
                "until",
                "theta",
                "theta_steps",
                "theta_network",
                "likelihood",
                "smoothness",
            }
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        seed = plain["seed"]
        plain["seed"] = seed if isinstance(seed, int) else str(seed)
        if isinstance(self.missions, Mapping):
            plain["missions"] = {name: asdict(m) for name, m in self.missions.items()}
        else:
            plain["missions"] = self.missions
        return plain


def _check_whole(name: str, given: Any, least: int) -> None:
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not whole or given < least:
        raise ParameterError(f"{name}={given!r} was given; expected a whole number >= {least}")


def settings_of(given: Mapping[str, Any]) -> FitSettings:
    """Read settings that a user gave.

    Parameters
    ----------
    given : mapping
        By name.

    Returns
    -------
    FitSettings

    Raises
    ------
    UnknownNameError
        For an unknown name.
    ParameterError
        For impossible values.
    """
    known = [f.name for f in fields(FitSettings)]
    for name in given:
        if name not in known:
            raise unknown("argument", name, known)
    return FitSettings(**given)

"""What can be chosen when a latent model is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.rng import Seed
from xr_spde.assim.latent.layout import DOMAINS
from xr_spde.assim.latent.scaling import CLIMATOLOGIES

__all__ = ["DYNAMICS", "ERRORS", "LatentSettings", "latent_settings"]

DYNAMICS = ("auto", "linear", "node", "residual_node", "rezero", "persistence")
"""Propagators by name; "auto" is linear for POD, for networks linear and a neural ODE beside it."""

ERRORS = ("auto", "scalar", "diagonal", "full")
"""Kinds of the model error; "auto" is full where there are residuals enough."""


@dataclass(frozen=True, eq=False)
class LatentSettings:
    """Settings of `xr_spde.assim.fit` with a latent method.

    Attributes
    ----------
    code : int or float, optional
        Size of a code: modes of "pod", or below one the share of the variance that they carry; of
        "lainr" the numbers per variable. By default what the number of snapshots allows.
    dynamics : str
        Of :data:`DYNAMICS`.
    model_error : str
        Of :data:`ERRORS`.
    representativeness : {"variable", "point"}
        What has a variance of what decoding misses of its own.
    held : float
        Share of the times, the last ones, that are held out: model error, representativeness and
        scores are those of times that nothing was fitted to.
    climatology : {"auto", "monthly", "none"}
        What is taken off first; see :data:`xr_spde.assim.latent.scaling.CLIMATOLOGIES`.
    forcing : bool
        Whether the dynamics know season and hour.
    domain : {"auto", "sphere", "plane"}
        What the points are; "auto" is the sphere where longitudes close the circle.
    variables : sequence of str, optional
        Of a Dataset; by default all of floating numbers.
    dim : str, optional
        Dimension of members, each a trajectory of its own.
    x, y : str, optional
        Names of the horizontal axes.
    network, propagator : mapping
        Options of the state map and of the dynamics: those of `xr_spde.fields.pod.fit_pod`, of
        `xr_spde.fields.linear_dynamics.fit_linear`, and of
        `xr_spde.nets.latent_dynamics_training.DynamicsSettings` and its schedule.
    folder : str, optional
        Where a training keeps its state, from which it goes on after an interruption.
    seed : int, SeedSequence, Generator or None
        Of all that is random.
    threads : int
        Of a training.
    progress : bool, optional
        Whether to show it.
    card : mapping
        What else the card is to say.
    """

    code: float | None = None
    dynamics: str = "auto"
    model_error: str = "auto"
    representativeness: str = "variable"
    held: float = 0.2
    climatology: str = "auto"
    forcing: bool = False
    domain: str = "auto"
    variables: Sequence[str] | None = None
    dim: str | None = None
    x: str | None = None
    y: str | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    propagator: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    seed: Seed = None
    threads: int = 1
    progress: bool | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        for kind, given, known in (
            ("dynamics", self.dynamics, DYNAMICS),
            ("model error", self.model_error, ERRORS),
            ("climatology", self.climatology, CLIMATOLOGIES),
            ("domain", self.domain, DOMAINS),
            ("representativeness", self.representativeness, ("variable", "point")),
        ):
            if given not in known:
                raise unknown(kind, given, known)
        code = self.code
        if code is not None and not (0.0 < code < 1.0 or (code >= 1 and int(code) == code)):
            raise ParameterError(
                f"code={code!r} was given; expected a whole number from 1, or a share below one"
            )

    def recipe(self) -> dict[str, Any]:
        """Give what describes the fit, for a card."""
        left = ("folder", "progress", "card", "seed", "threads")
        return {k: v for k, v in asdict(self).items() if k not in left and v not in (None, {})}


def latent_settings(given: Mapping[str, Any]) -> LatentSettings:
    """Make settings of keywords.

    Parameters
    ----------
    given : mapping
        By name.

    Returns
    -------
    LatentSettings

    Raises
    ------
    UnknownNameError
        For a setting or a name that does not exist.
    ParameterError
        For numbers out of their range.
    """
    known = [one.name for one in fields(LatentSettings)]
    for name in given:
        if name not in known:
            raise unknown("setting", name, known)
    return LatentSettings(**given)

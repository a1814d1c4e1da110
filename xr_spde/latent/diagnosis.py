"""Whether a fit of latent dynamics means what it says: signs of degenerate solutions.

The end images alone leave the middle free: an encoder may hide the second image in the latent state
and a decoder turn a small shift into it. The signs looked for here need no truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.characteristics import flow_report
from xr_spde.fields.unsteady import velocity_at
from xr_spde.latent.arguments import QUIET
from xr_spde.latent.dynamics import LatentDynamics
from xr_spde.latent.motion import fit_motion

__all__ = ["LIMITS", "Diagnosis", "diagnose", "end_residual"]

LIMITS = {
    "motion": 0.6,
    "latent": 0.5,
    "image": 0.5,
    "sides": 0.5,
    "windows": 0.3,
    "folded": 0.01,
}
"""Beyond these a number is a warning; "motion" is a least value, the others are largest ones."""

_MEANING = {
    "motion": "the motion is far below that found from the images alone: the decoder does its work",
    "latent": "the motion does not carry one latent state into the other: the middle is not tied",
    "image": "the end images are not reached by the motion and the decoder",
    "sides": "the two images disagree on the frame in the middle",
    "windows": "windows that overlap disagree on the motion",
    "folded": "paths cross: the frames are not to be trusted there",
}


@dataclass(frozen=True)
class Diagnosis:
    """Numbers by which a fit is judged, and the warnings they raise.

    Attributes
    ----------
    numbers : dict
        ``motion``: mean speed over that of the motion found from the images alone.
        ``latent``, ``image``: root mean square mismatch of the latent states, and of the images,
        after transport over an interval, relative to without; the worse of both directions. What
        noise alone explains is taken off where there is much (above 0.1 of the images).
        ``sides``: difference of both sides of the frame in the middle, relative to that of the
        images. ``windows``: mean disagreement of the windows over the mean speed. ``folded``: share
        of cells whose paths cross. All over the worst interval.
    flags : tuple of str
        Names of the numbers beyond :data:`LIMITS`.
    operator : str
        Of the latent state.
    residuals : dict of int to float
        Of each restart by its seed, where there were several; the smallest was kept.
    operators : dict of str to float
        Mismatch at the images of each operator that was tried.
    """

    numbers: dict[str, float]
    flags: tuple[str, ...]
    operator: str = "advection"
    residuals: Mapping[int, float] = field(default_factory=dict)
    operators: Mapping[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is suspicious."""
        return not self.flags

    def __repr__(self) -> str:
        """One line for each number, with what it means where it is beyond its limit."""
        lines = ["<Diagnosis> " + ("nothing suspicious" if self.ok else "not to be trusted")]
        for name, value in self.numbers.items():
            sign = ">=" if name == "motion" else "<="
            said = f"  ! {_MEANING[name]}" if name in self.flags else ""
            lines.append(f"  {name:8} {value:8.3f}  ({sign} {LIMITS[name]:g}){said}")
        if self.residuals:
            marks = ", ".join(f"{seed}: {mark:.3g}" for seed, mark in self.residuals.items())
            lines.append(f"  kept the best of {len(self.residuals)} restarts ({marks})")
        if self.operators:
            marks = ", ".join(f"{name}: {mark:.3g}" for name, mark in self.operators.items())
            lines.append(f"  kept the operator {self.operator} ({marks})")
        return "\n".join(lines)


def diagnose(model: LatentDynamics) -> Diagnosis:
    """Look for degenerate solutions.

    Parameters
    ----------
    model : LatentDynamics
        A fit. Without a classical motion of its own, that of each interval is estimated first,
        which takes some seconds.

    Returns
    -------
    Diagnosis
    """
    shares = (model.times - model.times[0]) / model.span
    rows = [_interval(model, k, shares) for k in range(len(shares) - 1)]
    numbers = {
        name: (min if name == "motion" else max)(row[name] for row in rows) for name in LIMITS
    }
    flags = tuple(
        name
        for name, limit in LIMITS.items()
        if (numbers[name] < limit if name == "motion" else numbers[name] > limit)
    )
    return Diagnosis(numbers, flags, model.settings.operator, model.residuals, model.operators)


def end_residual(model: LatentDynamics) -> float:
    """Mismatch at the images of what is carried there from their neighbours.

    Parameters
    ----------
    model : LatentDynamics
        A fit.

    Returns
    -------
    float
        Root mean square over both directions and all intervals, over the standard deviation of the
        images. Little of it says little about the frames between.
    """
    shares = (model.times - model.times[0]) / model.span
    total, count = 0.0, 0
    for k in range(len(shares) - 1):
        for j, goal in ((k, k + 1), (k + 1, k)):
            value, known, *_ = model.carried(j, float(shares[goal]))
            off = (value - model.frames[goal])[known & np.isfinite(model.frames[goal])]
            total, count = total + float(np.sum(off**2)), count + off.size
    return float(np.sqrt(total / max(count, 1)) / model.scale[1])


def _interval(model: LatentDynamics, k: int, shares: NDArray[np.float64]) -> dict[str, float]:
    """All numbers of one interval."""
    s0, s1 = float(shares[k]), float(shares[k + 1])
    middle, length = 0.5 * (s0 + s1), s1 - s0
    velocity = np.asarray(velocity_at(model.velocity, middle)) * length
    if model.classical is not None and len(shares) == 2:
        classical = model.classical
    else:
        classical = fit_motion(model.frames[k], model.frames[k + 1], model.cells).velocity
    speed, yardstick = (float(np.hypot(*q).mean()) for q in (velocity, classical))

    images, states = model.frames, model.latent
    noise = 2 * model.noise**2 if model.noise > QUIET else 0.0  # of a difference, in variances
    floor = noise * model.scale[1] ** 2
    own_floor = noise if model.settings.residual else 0.0  # else a state has no known unit
    latent, image = [], []
    for j, goal, s in ((k, k + 1, s1), (k + 1, k, s0)):
        value, known, _, state = model.carried(j, s)
        seen = known & np.isfinite(images[goal]) & np.isfinite(images[j])
        latent.append(_ratio(state - states[goal], states[j] - states[goal], seen, own_floor))
        image.append(_ratio(value - images[goal], images[j] - images[goal], seen, floor))
    first, second = (model.carried(j, middle) for j in (k, k + 1))
    seen = first[1] & second[1] & np.isfinite(images[k]) & np.isfinite(images[k + 1])
    report = flow_report(velocity, 1.0, model.cells)
    return {
        # a scene at rest has no motion to fall short of
        "motion": 1.0 if yardstick < 0.25 else speed / yardstick,
        "latent": max(latent),
        "image": max(image),
        "sides": _ratio(second[0] - first[0], images[k + 1] - images[k], seen, floor),
        "windows": length * float(np.hypot(*model.spread).mean()) / max(speed, 0.25),
        "folded": report.folded,
    }


def _ratio(
    after: NDArray[np.floating],
    before: NDArray[np.floating],
    seen: NDArray[np.bool_],
    floor: float,
) -> float:
    """Root mean square, less a mean square of noise, over that without motion."""
    sizes = [float(np.mean(f[..., seen] ** 2)) if seen.any() else 0.0 for f in (after, before)]
    return float(np.sqrt(max(sizes[0] - floor, 0.0) / sizes[1])) if sizes[1] > 0 else 0.0

r"""Motion of more than two frames: velocities that change while an interval lasts.

Each pair of neighbours has a steady velocity, its mean over the interval. How it changes on the way
is read off the intervals before and after: with :math:`\bar q_k` per unit of time and
:math:`\Delta_k` the length of an interval, the velocity at the frame between two of them is

.. math::

    q(t_{k+1}) = \bar q_k + \frac{\Delta_k}{\Delta_k + \Delta_{k+1}}\,\delta, \qquad
    \delta = \bar q_{k+1} - \bar q_k,

which is exact for velocities linear in time, and within an interval q is the parabola that has
these ends and this mean. Velocities belong to places (an eddy) or to what moves through (a floe):
:math:`\delta` is taken at the place and along the path, and the smaller of the two is believed.

Fits err, most where images change as they move, such as rain. With :math:`s^2` the variance that
the images themselves tell (:mod:`xr_spde.latent.uncertainty`), the share

.. math::

    g = \max\Big(0,\ 1 - \frac{\langle 2 s^2 \rangle}{\langle \delta^2 \rangle}\Big)

of the changes is more than errors; only that much is kept of them, and for the rest the velocity is
replaced by the mean of the interval and its neighbours (James and Stein; means over about 6 cells).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, median_filter

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure, nodes, steps_for
from xr_spde.fields.sampling import sample
from xr_spde.fields.unsteady import PER_SPAN, trace, velocity_at
from xr_spde.latent.motion import Motion, fit_motion
from xr_spde.latent.uncertainty import local_information

__all__ = [
    "PATHS",
    "ChangingMotion",
    "fit_sequence",
    "held_velocities",
    "joined",
    "parabola",
    "settled",
    "squared_error",
]

Float = NDArray[np.floating]

PATHS = ("smooth", "steady")
"""Velocities that change smoothly from pair to pair; or each pair on its own."""

_WINDOW = 5  # cells, of the median of a change
_AROUND = 6.0  # cells, over which changes are compared with errors
_FAR = 1e-3  # weight of the whole image where little is known around
_TINY = 1e-12
_SETTLED = 0.1  # cells; a path bends by an eighth of what its velocity changes


@dataclass(frozen=True, eq=False)
class ChangingMotion(Motion):
    """A velocity that changes over the interval; `velocity` is its mean.

    Attributes
    ----------
    ends : ndarray (2, 2, ny, nx)
        Velocity at the first and at the second image, in cells per interval, x first.
    """

    ends: NDArray[np.floating] | None = None

    @property
    def coefficients(self) -> Float:
        """Velocity (3, 2, ny, nx) as :mod:`xr_spde.fields.unsteady` takes it."""
        return self.velocity[None] if self.ends is None else parabola(self.velocity, self.ends)

    def reversed(self) -> ChangingMotion:
        """Return the motion from the second image to the first."""
        ends = None if self.ends is None else -self.ends[::-1]
        back = super().reversed()
        return ChangingMotion(**{**vars(back), "ends": ends})

    def positions(self, at: float, since: float) -> tuple[Float, Float]:
        """Positions (y, x) in cells, at one time, of the parcels that are at the nodes at another.

        Parameters
        ----------
        at : float
            Time, as a share of the interval, at which parcels are at the nodes.
        since : float
            Time at which their positions are asked. Outside the interval the velocity stays as it
            is at its end.

        Returns
        -------
        y, x : ndarray (ny, nx)
        """
        if self.ends is None:
            return super().positions(at, since)
        parts, wrap = self.coefficients, self.cells.periodic_x
        a, b = float(np.clip(at, 0, 1)), float(np.clip(since, 0, 1))
        places = nodes(self.velocity, self.cells.shape)
        if at != a:
            places = departure(velocity_at(parts, a), at - a, start=places, periodic_x=wrap)
        if a != b:
            need = max(steps_for(velocity_at(parts, t), 1.0, periodic_x=wrap) for t in (0, 0.5, 1))
            steps = math.ceil(need / PER_SPAN)
            places = trace(parts, a, b, steps=steps, start=places, periodic_x=wrap)
        if b != since:
            places = departure(velocity_at(parts, b), b - since, start=places, periodic_x=wrap)
        return places


def parabola(mean: Float, ends: Float) -> Float:
    """Velocity of an interval from its mean and that at its ends.

    Parameters
    ----------
    mean : ndarray (2, ny, nx)
        Over the interval.
    ends : ndarray (2, 2, ny, nx)
        At its beginning and end.

    Returns
    -------
    ndarray (3, 2, ny, nx)
        Coefficients as :mod:`xr_spde.fields.unsteady` takes them.
    """
    first, last = ends
    return np.stack([mean, (last - first) / 2, (first + last) / 2 - mean])


def joined(
    velocity: Float,
    length: float,
    before: tuple[Float, float] | None,
    after: tuple[Float, float] | None,
    *,
    error: Float | None = None,
    periodic_x: bool = False,
) -> tuple[Float, Float]:
    """Velocity of an interval and at its ends, from its own and its neighbours'.

    Where there is no neighbour on one side, the velocity changes linearly over the interval.

    Parameters
    ----------
    velocity : ndarray (2, ny, nx)
        Mean over the interval as its pair tells it, in cells per interval, x first.
    length : float
        Of the interval.
    before, after : (ndarray, float), optional
        The same of the interval before and of the one after, each in cells per its own length.
    error : ndarray (ny, nx), optional
        Mean square error of a velocity in cells, both components together; NaN where unknown. By
        default there is none.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    velocity : ndarray (2, ny, nx)
        Mean over the interval, in cells per interval.
    ends : ndarray (2, 2, ny, nx)
        At the beginning and at the end.
    """
    changes = {
        side: (_change(velocity, length, *other, side, periodic_x), length / other[1])
        for side, other in ((-1, before), (1, after))
        if other is not None
    }
    if not changes:
        return velocity, np.stack([velocity, velocity])
    kept = 1.0 if error is None else _kept(list(changes.values()), error, periodic_x)
    # a shorter interval tells a speed less well
    shares = {side: min(1.0, ratio**-2) for side, (_, ratio) in changes.items()}
    towards = sum(shares[side] * change for side, (change, _) in changes.items())
    mean = velocity + (1 - kept) * towards / (1 + sum(shares.values()))
    gains = {side: kept * change * ratio / (1 + ratio) for side, (change, ratio) in changes.items()}
    first = gains[-1] if -1 in gains else -gains[1]
    last = gains[1] if 1 in gains else -gains[-1]
    dtype = velocity.dtype
    return np.asarray(mean, dtype), np.stack([mean + first, mean + last]).astype(dtype)


def settled(velocity: Float, ends: Float) -> bool:
    """Whether a velocity changes so little over its interval that it may be taken as steady.

    Parameters
    ----------
    velocity : ndarray (2, ny, nx)
        Mean over the interval, in cells per interval.
    ends : ndarray (2, 2, ny, nx)
        At its beginning and end.

    Returns
    -------
    bool
        Within a root mean square of 0.1 cells.
    """
    return float(np.sqrt(np.mean((ends - velocity) ** 2))) < _SETTLED


def _change(
    velocity: Float, length: float, other: Float, its_length: float, side: int, periodic_x: bool
) -> Float:
    """Return what the velocity of a neighbour differs by, in cells per own length."""
    as_here = other * (length / its_length)
    at_place = as_here - velocity
    half = departure(velocity, -side / 2, periodic_x=periodic_x)
    there = departure(other, -side / 2, start=half, periodic_x=periodic_x)
    on_path = sample(as_here, *there, kernel="linear", periodic_x=periodic_x) - velocity
    smaller = (on_path**2).sum(axis=0) < (at_place**2).sum(axis=0)
    change = np.where(smaller, on_path, at_place)
    rim = _WINDOW if periodic_x else 0
    wide = np.pad(change, ((0, 0), (0, 0), (rim, rim)), mode="wrap")
    calm = np.stack([median_filter(part, _WINDOW, mode="nearest") for part in wide])
    return calm[..., rim : rim + change.shape[-1]]


def _kept(changes: Sequence[tuple[Float, float]], error: Float, periodic_x: bool) -> Float:
    """Share of the changes that errors of the fits do not explain, around each place."""
    known = np.isfinite(error)
    if not known.any():  # the images tell no motion anywhere; what there is comes from neighbours
        return np.zeros_like(error)
    seen = np.sum([(change**2).sum(axis=0) for change, _ in changes], axis=0)
    # errors of this interval and of the other, whose speed is scaled to this length
    told = error * sum(1 + ratio**2 for _, ratio in changes)
    sides: tuple[Literal["nearest", "wrap"], ...]
    sides = ("nearest", "wrap" if periodic_x else "nearest")

    def around(field: Float) -> Float:
        inside = np.where(known, field, 0.0)
        weight = gaussian_filter(known.astype(np.float64), _AROUND, mode=sides) + _FAR
        total = gaussian_filter(inside, _AROUND, mode=sides) + _FAR * field[known].mean()
        return np.asarray(total / weight)

    return np.clip(1 - around(told) / np.maximum(around(seen), _TINY), 0, 1)


def held_velocities(motion: Motion, begin: float, end: float) -> list[tuple[Float, float]]:
    """Velocities, each steady, that together stand for a motion between two times.

    Parameters
    ----------
    motion : Motion
        Steady, or changing.
    begin, end : float
        Times as shares of the interval; outside it the velocity stays as it is at its end.

    Returns
    -------
    list of (ndarray (2, ny, nx), float)
        In cells per interval, each with the time over which it holds, from `begin` on; negative
        where `end` is before `begin`.
    """
    if not isinstance(motion, ChangingMotion) or motion.ends is None:
        return [(motion.velocity, end - begin)]
    count = max(1, math.ceil(PER_SPAN * abs(end - begin) - 1e-9))
    h = (end - begin) / count
    middles = np.clip(begin + h * (np.arange(count) + 0.5), 0, 1)
    return [(velocity_at(motion.coefficients, float(s)), h) for s in middles]


def fit_sequence(
    frames: Sequence[ArrayLike],
    times: ArrayLike,
    cells: Cells | None = None,
    *,
    path: str = "smooth",
    **settings: Any,
) -> list[Motion]:
    """Estimate the motion between each of several images and the next.

    Parameters
    ----------
    frames : sequence of array_like (ny, nx)
        Two or more images; NaN is missing.
    times : array_like (n,)
        When they were taken, increasing, in any unit.
    cells : Cells, optional
        As in `xr_spde.latent.motion.fit_motion`.
    path : {"smooth", "steady"}
        Whether velocities change on the way from pair to pair. Two images tell no change.
    **settings
        Of `xr_spde.latent.motion.fit_motion`.

    Returns
    -------
    list of Motion
        One for each interval.

    Raises
    ------
    ParameterError
        For times that do not increase, or another number of them.
    UnknownNameError
        For another path.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.latent.sequence import fit_sequence
    >>> from xr_spde.latent.textures import texture
    >>> y, x = np.mgrid[0:32, 0:32]
    >>> frames = [texture(1, y, x - 4.0 * t**2) for t in (0.0, 0.5, 1.0)]  # from rest
    >>> first, _ = fit_sequence(frames, [0.0, 0.5, 1.0], starts=["zero"])
    >>> np.median(first.ends[:, 0], axis=(1, 2)).round(1).tolist()
    [0.0, 2.0]
    """
    if path not in PATHS:
        raise unknown("path", path, PATHS)
    when = np.asarray(times, dtype=np.float64)
    lengths = np.diff(when)
    if when.shape != (len(frames),) or len(frames) < 2 or not (lengths > 0).all():
        raise ParameterError(
            f"{len(frames)} frames at times {when.tolist()}; expected two or more, at as many "
            "times that increase"
        )
    found = [fit_motion(a, b, cells, **settings) for a, b in pairwise(frames)]
    if path == "steady" or len(found) == 1:
        return found
    each = [(m.velocity, float(d)) for m, d in zip(found, lengths, strict=True)]
    around = zip([None, *each[:-1]], each, [*each[1:], None], found, pairwise(frames), strict=True)
    made: list[Motion] = []
    for before, here, after, motion, pair in around:
        wrap = motion.cells.periodic_x
        error = squared_error(*pair, motion.velocity, motion.brightness, wrap)
        mean, ends = joined(*here, before, after, error=error, periodic_x=wrap)
        # the pieces of an interval move steadily: they belong to a steady path
        still = settled(mean, ends)
        parts = {**vars(motion), "velocity": mean, "layers": motion.layers if still else None}
        made.append(Motion(**parts) if still else ChangingMotion(**parts, ends=ends))
    return made


def squared_error(
    u0: ArrayLike, u1: ArrayLike, velocity: Float, brightness: str, periodic_x: bool
) -> Float:
    """Mean square error of a fitted velocity from the images alone, both components together.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; NaN is missing.
    velocity : ndarray (2, ny, nx)
        In cells per interval.
    brightness : {"constant", "varying"}
        What was followed.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    ndarray (ny, nx)
        Square cells; NaN where the images do not determine the motion, see
        `xr_spde.latent.uncertainty.local_information`.
    """
    told = local_information(u0, u1, velocity, brightness=brightness, periodic_x=periodic_x)
    return np.asarray(told.covariance[0] + told.covariance[2], dtype=np.float64)

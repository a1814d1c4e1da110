"""One image followed through velocities that change with time, on arrays."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure, flow_report, jacobian, nodes
from xr_spde.fields.evolution import Operator
from xr_spde.fields.sampling import fill_nearest, sample
from xr_spde.fields.transport import Advection, Conservation
from xr_spde.fields.unsteady import PER_SPAN, velocity_at
from xr_spde.latent.blending import visibility
from xr_spde.latent.operators import check_parameters
from xr_spde.latent.sequence import parabola

__all__ = ["Schedule", "evolve_image"]

Float = NDArray[np.floating]

_LOG = logging.getLogger("xr_spde.latent")


@dataclass(frozen=True, eq=False)
class Schedule:
    """Velocity at any time.

    Attributes
    ----------
    rates : ndarray (m, 2, ny, nx)
        In cells per unit of time, x first.
    times : ndarray (m, 2) or (m,), optional
        Beginning and end of the intervals of which these are the means, increasing; or instants,
        between which the velocity goes linearly. Without, it is steady and m is 1. Before and after
        it stays as it is at the first and last time.
    ends : ndarray (m, 2, 2, ny, nx), optional
        Velocity at the beginning and end of each interval.
    """

    rates: Float
    times: NDArray[np.float64] | None = None
    ends: Float | None = None

    def at(self, time: float) -> Float:
        """Velocity (2, ny, nx) at a time."""
        if self.times is None:
            return np.asarray(self.rates[0])
        if self.times.ndim == 1:
            place = float(np.interp(time, self.times, np.arange(self.times.size)))
            k = min(int(place), max(self.times.size - 2, 0))
            share = place - k
            later = self.rates[min(k + 1, self.times.size - 1)]
            return np.asarray((1 - share) * self.rates[k] + share * later)
        k = int(np.clip(np.searchsorted(self.times[:, 0], time, side="right") - 1, 0, None))
        if self.ends is None:
            return np.asarray(self.rates[k])
        first, last = self.times[k]
        share = float(np.clip((time - first) / (last - first), 0, 1))
        return np.asarray(velocity_at(parabola(self.rates[k], self.ends[k]), share))

    def held(self, begin: float, end: float) -> list[tuple[Float, float]]:
        """Steady velocities that stand for this one between two times.

        Parameters
        ----------
        begin, end : float
            Times; `end` may come first.

        Returns
        -------
        list of (ndarray (2, ny, nx), float)
            Each with the time over which it holds, from `begin` on; negative backwards.
        """
        low, high = min(begin, end), max(begin, end)
        known = np.empty(0) if self.times is None else np.unique(self.times)
        cuts = np.r_[low, known[(known > low) & (known < high)], high]
        pieces = []
        for a, b in pairwise(cuts):
            if a == b:
                continue
            count = self._count(float(a), float(b), known)
            h = (b - a) / count
            pieces += [(self.at(float(a + (k + 0.5) * h)), float(h)) for k in range(count)]
        return pieces if end >= begin else [(q, -h) for q, h in reversed(pieces)]

    def _count(self, a: float, b: float, known: NDArray[np.float64]) -> int:
        """Pieces between neighbouring cuts: one where nothing changes."""
        steady = self.times is None or (self.times.ndim == 2 and self.ends is None)
        if steady or b <= known[0] or a >= known[-1]:
            return 1
        k = int(np.searchsorted(known, a, side="right")) - 1
        whole = known[k + 1] - known[k]
        return max(1, math.ceil(PER_SPAN * (b - a) / whole - 1e-9))


def evolve_image(
    image: Float,
    schedule: Schedule | None,
    times: NDArray[np.float64],
    which: Operator,
    parameters: Mapping[str, float | Float],
    cells: Cells,
) -> Float:
    """Follow an image to several times.

    What comes from outside the grid is missing, and so are gaps where they have gone; conserved
    amounts have walls around them instead.

    Parameters
    ----------
    image : ndarray (ny, nx)
        At time 0; NaN is missing.
    schedule : Schedule, optional
        Velocity; not needed by operators that take none.
    times : ndarray (n,)
        Times, in any order; negative ones run backwards where the operator can.
    which : Operator
        See :mod:`xr_spde.fields.transport`.
    parameters : mapping
        What it needs besides the velocity, per unit of time.
    cells : Cells
        The grid.

    Returns
    -------
    ndarray (n, ny, nx)
        Of the dtype of the image.

    Raises
    ------
    ParameterError
        Parameters that are missing or strange.
    """
    check_parameters(which, parameters)
    made = np.empty((times.size, *image.shape), image.dtype)
    filled = fill_nearest(image)
    along = isinstance(which, Advection) and which.scheme == "characteristic"
    for sign in (1, -1):
        state, now = filled, 0.0
        for k in np.argsort(sign * times):
            time = float(times[k])
            if sign * time < 0 or (time == 0 and sign < 0):
                continue
            places = nodes(filled, cells.shape)
            if schedule is not None:
                places = _origin(schedule.held(0.0, time), places, cells)
            if along and isinstance(which, Advection):
                state = np.asarray(
                    sample(filled, *places, kernel=which.kernel, periodic_x=cells.periodic_x)
                )
            else:
                pieces = [] if schedule is None else schedule.held(now, time)
                state = _run(state, pieces, time - now, which, parameters, cells)
                now = time
            made[k] = np.where(_known(image, places, which, cells), state, np.nan)
    return made


def _run(
    state: Float,
    pieces: list[tuple[Float, float]],
    span: float,
    which: Operator,
    parameters: Mapping[str, float | Float],
    cells: Cells,
) -> Float:
    """Step an operator through the pieces, or over the whole span where nothing moves."""
    if "velocity" not in dict(which.params):
        return np.asarray(which.evolve(state, parameters, span, cells)) if span else state
    for q, h in pieces:
        state = np.asarray(which.evolve(state, {**parameters, "velocity": q}, h, cells))
    return state


def _origin(
    pieces: list[tuple[Float, float]], start: tuple[Float, Float], cells: Cells
) -> tuple[Float, Float]:
    """Positions at time 0 of the parcels that reach the nodes."""
    y, x = start
    for q, h in reversed(pieces):
        y, x = departure(q, h, start=(y, x), periodic_x=cells.periodic_x)
    _report(pieces, (y, x), cells)
    return y, x


def _known(
    image: Float, places: tuple[Float, Float], which: Operator, cells: Cells
) -> NDArray[np.bool_]:
    """Where the values come from data."""
    y, x = places
    if isinstance(which, Conservation):
        y = np.clip(y, 0, cells.ny - 1)
        x = x if cells.periodic_x else np.clip(x, 0, cells.nx - 1)
    known, _ = visibility(np.isnan(image), y, x, periodic_x=cells.periodic_x)
    return known


def _report(pieces: list[tuple[Float, float]], places: tuple[Float, Float], cells: Cells) -> None:
    """Log how far the numbers of the flow can be trusted."""
    if not _LOG.isEnabledFor(logging.INFO):
        return
    parts = [flow_report(q, h, cells) for q, h in pieces]
    a, b, c, d = jacobian(*places, periodic_x=cells.periodic_x)
    det = a * d - b * c
    _LOG.info(
        "flow over a time of %g: largest Courant number %.2g and Lipschitz number %.2g of %d "
        "steps, smallest Jacobian %.2g, %.2g %% of cells folded",
        sum(h for _, h in pieces),
        max(part.courant for part in parts),
        max(part.lipschitz for part in parts),
        sum(part.steps for part in parts),
        det.min(),
        100 * (det <= 0).mean(),
    )

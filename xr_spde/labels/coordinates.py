"""Checks of coordinate values: numbers at one constant step, on a line or around the circle."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import GridError
from xr_spde.labels.axes import SpatialAxis

Values = NDArray[np.floating]

# One per cent of a step admits Gaussian latitudes, whose first step is 0.9 % short.
_STEP_TOLERANCE = 1e-2
_CLOSURE_TOLERANCE = 1e-3
_SEAM_DEGREES = 1e-3


def coordinate_values(obj: xr.DataArray | xr.Dataset, axis: SpatialAxis) -> Values:
    """Positions along an axis; 0, 1, 2, ... where it has no coordinate.

    Parameters
    ----------
    obj : DataArray or Dataset
        Labelled data.
    axis : SpatialAxis
        One of its horizontal axes.

    Returns
    -------
    ndarray (n,)
        Finite floats, in the precision they are stored in.

    Raises
    ------
    GridError
        The coordinate is not numeric, or has NaN or infinite values.
    """
    if axis.coord is None:
        return np.arange(obj.sizes[axis.dim], dtype=float)
    values = obj.coords[axis.coord].values
    if values.dtype.kind not in "iuf":
        raise GridError(
            f"the coordinate {axis.coord!r} has dtype {values.dtype}; numbers at a constant step "
            "are expected; replace it with numeric positions, or drop it with "
            f".drop_vars({axis.coord!r}) to work in grid cells"
        )
    floats = values if values.dtype.kind == "f" else values.astype(float)
    bad = np.flatnonzero(~np.isfinite(floats))
    if bad.size:
        raise GridError(
            f"the coordinate {axis.coord!r} is NaN or infinite at {bad.size} of {floats.size} "
            f"positions, first at index {bad[0]}; every position must be known; fill them in, or "
            f"drop them with .isel({axis.dim}=...)"
        )
    return floats


def regular_step(values: Values, name: str) -> float:
    """Signed step of a regular coordinate.

    Parameters
    ----------
    values : ndarray (n,)
        Positions, n >= 2.
    name : str
        Name of the coordinate, for messages.

    Returns
    -------
    float
        Mean step; every step is within 1 % of it (or within the rounding of float32).

    Raises
    ------
    GridError
        Repeated, non-monotonic or irregular positions.
    """
    floats = values.astype(float)
    steps = np.diff(floats)
    repeated = np.flatnonzero(steps == 0)
    if repeated.size:
        k = int(repeated[0])
        raise GridError(
            f"the coordinate {name!r} repeats the value {floats[k]:g} at indices {k} and {k + 1}; "
            f"positions must differ; drop the repeat with .drop_duplicates({name!r})"
        )
    turned = np.flatnonzero(np.sign(steps) != np.sign(steps[0]))
    if turned.size:
        k = int(turned[0])
        raise GridError(
            f"the coordinate {name!r} is not monotonic: it goes {floats[k - 1]:g}, {floats[k]:g}, "
            f"{floats[k + 1]:g} from index {k - 1}; increasing or decreasing positions are "
            f"expected; sort them with .sortby({name!r})"
        )
    step = float(floats[-1] - floats[0]) / (floats.size - 1)
    worst = int(np.argmax(np.abs(steps - step)))
    if abs(steps[worst] - step) > _STEP_TOLERANCE * abs(step) + _rounding(values, step):
        raise GridError(
            f"the coordinate {name!r} is irregular: its steps run from {steps.min():g} to "
            f"{steps.max():g}, farthest from the mean {step:g} between index {worst} "
            f"({floats[worst]:g}) and {worst + 1} ({floats[worst + 1]:g}); a constant step is "
            f"expected; interpolate with .interp({name}=...)"
        )
    return step


def around_circle(values: Values, name: str) -> tuple[float, bool, int]:
    """Step, closure and roll of longitudes, compared modulo 360.

    The stored sequence may start anywhere on the circle and run either way. A regional grid leaves
    out one arc, which may lie anywhere in the storage order.

    Parameters
    ----------
    values : ndarray (n,)
        Longitudes in degrees, n >= 2.
    name : str
        Name of the coordinate, for messages.

    Returns
    -------
    step : float
        Signed step in storage order.
    periodic : bool
        Whether the circle closes: the arc left out is one step, to 1e-3 of it.
    roll : int
        Position, in increasing order, of the column that becomes the first: the one after the arc
        left out, or where the circle closes the smallest longitude modulo 360.

    Raises
    ------
    GridError
        The same meridian twice, an order that is not monotonic around the circle, or irregular
        steps.
    """
    floats = values.astype(float)
    forward, backward = _arcs(floats), _arcs(floats[::-1])
    # The right way round the circle is the one that takes the fewest turns (or the shorter arc).
    if floats.size > 2:
        descending = bool(backward.sum() < forward.sum() - 180.0)
    else:
        descending = bool(forward[0] > 180.0)
    ordered, arcs = (floats[::-1], backward) if descending else (floats, forward)
    _check_turns(ordered, arcs, name)
    roll = (int(np.argmax(arcs)) + 1) % arcs.size
    first = np.roll(ordered, -roll)[:1]
    unwrapped = first + np.concatenate([[0.0], np.cumsum(np.roll(arcs, -roll)[:-1])])
    step = regular_step(unwrapped.astype(values.dtype), name)
    tolerance = _CLOSURE_TOLERANCE * step + _rounding(values, step)
    periodic = bool(abs(arcs.max() - step) <= tolerance)
    if periodic:
        step = 360.0 / arcs.size
        roll = int(np.argmin([wrap_longitude(value, step) for value in ordered]))
    return (-step if descending else step), periodic, roll


def wrap_longitude(value: float, step: float) -> float:
    """Longitude in [0, 360).

    Within 1e-3 degrees (or a quarter of a step) below 360 it counts as 0 and comes out slightly
    negative, so that rounding cannot move the seam by a column.

    Parameters
    ----------
    value : float
        Longitude in degrees.
    step : float
        Positive step of the grid.

    Returns
    -------
    float
    """
    wrapped = float(value) % 360.0
    return wrapped - 360.0 if 360.0 - wrapped < min(_SEAM_DEGREES, step / 4) else wrapped


def check_latitude(values: Values, name: str) -> None:
    """Refuse latitudes beyond the poles.

    Parameters
    ----------
    values : ndarray (n,)
        Latitudes in degrees.
    name : str
        Name of the coordinate, for the message.

    Raises
    ------
    GridError
        A value outside [-90, 90].
    """
    worst = float(values[np.argmax(np.abs(values))])
    if abs(worst) > 90.0 + 1e-3:
        raise GridError(
            f"the latitude {name!r} reaches {worst:g}; values between -90 and 90 degrees are "
            "expected; check that x and y are not exchanged, or set the units of the coordinate"
        )


def _arcs(ordered: Values) -> Values:
    """Arc from each longitude eastward to the next, and from the last to the first."""
    arcs = np.diff(ordered, append=ordered[:1]) % 360.0
    arcs[360.0 - arcs < 1e-9] = 0.0
    return arcs


def _check_turns(ordered: Values, arcs: Values, name: str) -> None:
    repeated = np.flatnonzero(arcs == 0)
    if repeated.size:
        k = int(repeated[0])
        after = (k + 1) % arcs.size
        raise GridError(
            f"the longitudes {name!r} hold the same meridian twice ({ordered[k]:g} and "
            f"{ordered[after]:g}, {repeated.size} such pair{'s' if repeated.size > 1 else ''}); "
            f"every column must differ; drop one, such as with .isel({name}=slice(None, -1))"
        )
    if round(float(arcs.sum()) / 360.0) != 1:
        raise GridError(
            f"the longitudes {name!r} are not monotonic around the circle ({ordered[0]:g}, "
            f"{ordered[1]:g}, ... {ordered[-1]:g}); sort them with .sortby({name!r})"
        )


def _rounding(values: Values, step: float) -> float:
    """Return the rounding error of a difference of positions, at most a tenth of the step."""
    single = values.dtype.itemsize <= 4 or np.array_equal(values, values.astype(np.float32))
    eps = np.finfo(np.float32 if single else np.float64).eps
    return min(4.0 * float(eps) * float(np.abs(values).max()), 0.1 * abs(step))

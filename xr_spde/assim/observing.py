"""Simulated tracks and swaths of satellites over a truth: observing-system experiments.

References
----------
Repeat orbits: Chelton, Ries, Haines, Fu, Callahan (2001), in Satellite Altimetry and Earth
Sciences; the set of missions is that of the SSH mapping data challenge 2020a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from zlib import crc32

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import DTypeError, GridError, ParameterError, unknown
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde.assim.observations import read_observations
from xr_spde.assim.times import days_since, step_of, time_dim
from xr_spde.assim.windows import spacetime_rows
from xr_spde.labels.arrays import as_float
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid

__all__ = ["MISSIONS", "Mission", "ground_track", "simulate_tracks"]

Float = NDArray[np.float64]

_EARTH = 6371.0
_DAY = 86_400.0
_BLOCK = 16
"""Times of the truth that are read at once."""
_GLANCE, _GLANCED = 30.0, 3.0
"""Seconds between looks at where a satellite is, and degrees that it moves by less in these."""


@dataclass(frozen=True)
class Mission:
    """A satellite on a circular orbit whose ground track repeats.

    Attributes
    ----------
    inclination : float
        Degrees.
    repeat : float
        Days until the ground track repeats.
    turns : int
        Rotations of the Earth below the orbit until then.
    revolutions : int
        Revolutions of the satellite until then.
    node : float, default 0
        Longitude at which it crosses the equator northward, degrees east, at the start of 2000.
    swath : (float, float), optional
        Least and largest distance from the ground track that is seen, on either side, in km; what
        lies below the satellite by default.
    """

    inclination: float
    repeat: float
    turns: int
    revolutions: int
    node: float = 0.0
    swath: tuple[float, float] | None = None


MISSIONS: Mapping[str, Mission] = {
    "jason": Mission(66.04, 9.9156, 10, 127),
    "topex": Mission(66.04, 9.9156, 10, 127, node=180.0 / 127),  # in the middle between jason's
    "gfo": Mission(108.04, 17.0505, 17, 244),
    "envisat": Mission(98.55, 35.0, 35, 501),
    "swot": Mission(77.6, 20.8646, 21, 292, swath=(10.0, 60.0)),
}
"""Orbits of missions; where they cross the equator is made up."""


def ground_track(mission: Mission, seconds: Float) -> tuple[Float, Float]:
    """Place below a satellite.

    Parameters
    ----------
    mission : Mission
        Its orbit.
    seconds : ndarray (n,)
        Since the start of 2000.

    Returns
    -------
    latitude, longitude : ndarray (n,)
        Degrees; longitudes within (-180, 180].

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.observing import MISSIONS, ground_track
    >>> lat, lon = ground_track(MISSIONS["jason"], np.array([0.0, 9.9156 * 86400]))
    >>> np.round(lat, 6) + 0.0, np.round(lon, 6) + 0.0
    (array([0., 0.]), array([0., 0.]))
    """
    cycle = (seconds / (mission.repeat * _DAY)) % 1.0
    along = 2.0 * np.pi * ((mission.revolutions * cycle) % 1.0)
    tilt = np.radians(mission.inclination)
    latitude = np.degrees(np.arcsin(np.sin(tilt) * np.sin(along)))
    longitude = np.degrees(np.arctan2(np.cos(tilt) * np.sin(along), np.cos(along)))
    longitude += mission.node - 360.0 * ((mission.turns * cycle) % 1.0)
    return latitude, 180.0 - (180.0 - longitude) % 360.0


def simulate_tracks(
    truth: xr.DataArray,
    missions: Sequence[str] | Mapping[str, Mission] = ("topex", "jason", "gfo", "envisat"),
    *,
    noise: float | Mapping[str, float] = 0.03,
    seed: Seed = None,
    every: float = 1.0,
    across: float = 6.0,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Observe a truth along the tracks of satellites, with errors.

    Parameters
    ----------
    truth : DataArray (time, Y, X)
        Regular times, on a grid of degrees; NaN is land. Read a few times at once.
    missions : sequence of str, or mapping of str to Mission
        Names of :data:`MISSIONS`, or orbits of one's own.
    noise : float or mapping of str to float, default 0.03
        Standard deviation of independent errors, in units of the truth; by mission where these
        differ.
    seed : int, SeedSequence, Generator or None
        Of the errors. Those of a mission do not depend on which others fly.
    every : float, default 1
        Seconds between observations: at 1 s some 6 to 7 km.
    across : float, default 6
        Spacing across a swath in km.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset (obs)
        The variable of the truth (``value`` where that has no name) and its ``*_error``, for
        `assimilate` and `score`; ``mission`` and ``track``, the number of the pass; ``time``,
        ``latitude`` and ``longitude``. What has land among its four cells is left out.

    Raises
    ------
    DTypeError, GridError, AxisNotFoundError
        No DataArray, or not on degrees, or without time.
    UnknownNameError
        An unknown mission.
    ParameterError
        Impossible numbers, irregular times, or no observation at all.

    Notes
    -----
    The truth is interpolated linearly in space and time. Orbits are circular, and fixed in time:
    another part of a series is seen where it would have been seen in the whole. Real errors are
    correlated along tracks and across swaths.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim import simulate_tracks
    >>> days = np.datetime64("2005-04-01", "ns") + np.arange(10) * np.timedelta64(1, "D")
    >>> coords = {"time": days, "lat": np.arange(30.0, 46.0), "lon": np.arange(0.0, 30.0)}
    >>> truth = xr.DataArray(np.zeros((10, 16, 30)), coords, ("time", "lat", "lon"), "adt")
    >>> tracks = simulate_tracks(truth, ["jason", "swot"], noise=0.02, seed=1)
    >>> list(tracks.data_vars), round(float(tracks.adt.std()), 3)
    (['adt', 'adt_error', 'mission', 'track'], 0.02)
    """
    flown = _missions(missions)
    errors = _errors(noise, flown)
    for name, number in (("every", every), ("across", across)):
        if not 0.0 < number < np.inf:
            raise ParameterError(f"{name}={number!r} was given; expected a number > 0")
    if not isinstance(truth, xr.DataArray):
        raise DTypeError(
            f"a truth of type {type(truth).__name__} was given; expected a DataArray with time"
        )
    grid, dim = Grid.from_object(truth, x=x, y=y), time_dim(truth, "the truth")
    if grid.kind != "geographic":
        raise GridError(
            f"the truth is on {grid.described()}; satellites fly over latitudes and longitudes"
        )
    step, entropy = step_of(truth[dim], "the truth"), resolve_seed(seed)
    start = _origin(truth[dim])
    parts = []
    for number, (name, mission) in enumerate(flown.items()):
        seen = _passes(mission, grid, start, step * (truth.sizes[dim] - 1), every, across)
        stream = member_generator(entropy, crc32(name.encode()))
        drawn = errors[name] * stream.standard_normal(seen["day"].size)
        parts.append(seen | {"drawn": drawn, "mission": np.full(drawn.size, number, np.int8),
                             "error": np.full(drawn.size, errors[name])})  # fmt: skip
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    value = _sample(truth, grid, dim, joined, step) + joined.pop("drawn")
    kept = np.isfinite(value)
    if not kept.any():
        raise ParameterError(
            f"none of {', '.join(flown)} sees the truth in {step * (truth.sizes[dim] - 1):g} days; "
            "give more times, a larger region, or other missions"
        )
    least = float(truth[grid.x_dim].min())  # longitudes as the truth counts them
    joined["longitude"] = least + (joined["longitude"] - least) % 360.0
    found = _labelled({name: array[kept] for name, array in joined.items()}, value[kept], truth,
                      dim, list(flown))  # fmt: skip
    settings = {"missions": " ".join(flown), "every": float(every), "across": float(across)}
    return found.assign_attrs(
        Conventions="CF-1.11", **provenance("simulate_tracks", seed=entropy, **settings)
    )


def _missions(missions: Sequence[str] | Mapping[str, Mission]) -> dict[str, Mission]:
    if isinstance(missions, Mapping):
        found = dict(missions)
    else:
        names = [missions] if isinstance(missions, str) else list(missions)
        for name in names:
            if name not in MISSIONS:
                raise unknown("mission", name, MISSIONS)
        found = {name: MISSIONS[name] for name in names}
    if not found:
        raise ParameterError("no mission was given; expected at least one")
    return found


def _errors(noise: float | Mapping[str, float], flown: Mapping[str, Mission]) -> dict[str, float]:
    given = dict(noise) if isinstance(noise, Mapping) else dict.fromkeys(flown, noise)
    lacking = [name for name in flown if name not in given]
    wrong = [name for name in flown if name in given and not 0.0 <= float(given[name]) < np.inf]
    if lacking or wrong:
        raise ParameterError(
            f"noise={noise!r} was given; expected a standard deviation >= 0 for each of "
            f"{', '.join(flown)}"
        )
    return {name: float(given[name]) for name in flown}


def _origin(times: xr.DataArray) -> float:
    """Seconds from the start of 2000 to the first time."""
    first = times.values[0]
    epoch = (
        np.datetime64("2000-01-01", "ns") if times.dtype.kind == "M" else type(first)(2000, 1, 1)
    )
    return float(days_since(times[:1], xr.DataArray(epoch))[0]) * _DAY


def _passes(
    mission: Mission, grid: Grid, start: float, days: float, every: float, across: float
) -> dict[str, Any]:
    """Days since the first time, places and pass numbers of what is seen over the grid."""
    south, north = grid.canonical_y()[[0, -1]]
    west, east = grid.canonical_x()[[0, -1]]
    beyond = 0.0 if mission.swath is None else np.degrees(mission.swath[1] / _EARTH)
    wide = beyond / max(np.cos(np.radians(min(max(abs(south), abs(north)), 89.0))), 0.02)
    found = []
    first, last = int(np.ceil(start / every)), int(np.floor((start + days * _DAY) / every))
    for low in range(first, last + 1, 100_000):
        seconds = every * np.arange(low, min(low + 100_000, last + 1), dtype=np.float64)
        seconds = _on_the_way(mission, seconds, every, grid, beyond)
        y, x = ground_track(mission, seconds)
        near = (y >= south - beyond) & (y <= north + beyond)
        if not grid.periodic_x:
            near &= (x - west + wide) % 360.0 <= east - west + 2.0 * wide
        found.append(seconds[near])
    seconds = np.concatenate(found)
    y, x = ground_track(mission, seconds)
    if mission.swath is not None:
        seconds, y, x = _swath(mission, seconds, y, x, across)
    half = mission.repeat * _DAY / (2 * mission.revolutions)  # from pole to pole
    track = np.floor(seconds / half + 0.5).astype(np.int32)
    x = west + (x - west) % 360.0
    inside = (y >= south) & (y <= north) & (grid.periodic_x | (x <= east))
    return {"day": (seconds[inside] - start) / _DAY, "latitude": y[inside],
            "longitude": x[inside], "track": track[inside]}  # fmt: skip


def _on_the_way(mission: Mission, seconds: Float, every: float, grid: Grid, beyond: float) -> Float:
    """Leave out times at which a satellite is far from the grid, seen from few of them."""
    stride = max(1, int(_GLANCE / every))
    south, north = grid.canonical_y()[[0, -1]]
    west, east = grid.canonical_x()[[0, -1]]
    y, x = ground_track(mission, seconds[::stride])
    around = beyond + _GLANCED
    near = (y >= south - around) & (y <= north + around)
    if not grid.periodic_x:
        farthest = min(max(abs(south), abs(north)) + around, 89.0)
        wide = around / max(np.cos(np.radians(farthest)), 0.02)
        near &= (x - west + wide) % 360.0 <= east - west + 2.0 * wide
    return seconds[np.repeat(near, stride)[: seconds.size]]


def _swath(
    mission: Mission, seconds: Float, y: Float, x: Float, across: float
) -> tuple[Float, Float, Float]:
    """Points beside the ground track: times, latitudes and longitudes, line by line."""
    least, most = mission.swath or (0.0, 0.0)
    side = np.arange(least, most + 1e-9, across)
    offset = np.concatenate([-side[::-1], side]) / _EARTH
    before, after = (ground_track(mission, seconds + lag) for lag in (-0.5, 0.5))
    north = after[0] - before[0]
    east = ((after[1] - before[1] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(y))
    speed = np.hypot(north, east)
    # distances are short enough for a plane: turned by a right angle to the track
    aside_y = np.degrees(offset) * (-east / speed)[:, None]
    aside_x = np.degrees(offset) * (north / speed / np.cos(np.radians(y)))[:, None]
    times = np.repeat(seconds, offset.size)
    return times, (y[:, None] + aside_y).ravel(), (x[:, None] + aside_x).ravel()


def _sample(
    truth: xr.DataArray, grid: Grid, dim: str, seen: Mapping[str, Any], step: float
) -> Float:
    """Truth at the points, NaN where one of the cells about them is missing."""
    value = np.full(seen["day"].size, np.nan)
    if not value.size:
        return value
    at = {name: ("obs", seen[name], {"units": units}) for name, units in
          (("latitude", "degrees_north"), ("longitude", "degrees_east"))}  # fmt: skip
    points = xr.DataArray(np.zeros(value.size), at, "obs")
    found = read_observations(points, grid, obs_error=1.0, unusable="drop")
    order = np.argsort(seen["day"][found.row >= 0], kind="stable")
    which = np.flatnonzero(found.row >= 0)[order]
    rows, position = found.canonical().matrix[order], seen["day"][which] / step
    fields = as_float(truth).transpose(dim, grid.y_dim, grid.x_dim)
    for first in range(0, max(truth.sizes[dim] - 1, 1), _BLOCK):
        maps = grid.to_canonical(
            fields.isel({dim: slice(first, first + _BLOCK + 1)}).values.astype(np.float64)
        )
        low, high = np.searchsorted(position, [first, first + _BLOCK])
        high = position.size if first + _BLOCK >= truth.sizes[dim] - 1 else high
        here = spacetime_rows(rows[low:high], position[low:high] - first, len(maps))
        value[which[low:high]] = here @ maps.ravel()
    return value


def _labelled(
    seen: Mapping[str, Any], value: Float, truth: xr.DataArray, dim: str, names: list[str]
) -> xr.Dataset:
    """Attach names, coordinates and attributes."""
    origin = truth[dim].values[0]
    if truth[dim].dtype.kind == "M":
        when = origin + np.round(seen["day"] * _DAY * 1e9).astype("timedelta64[ns]")
    else:
        when = np.array([origin + timedelta(days=float(day)) for day in seen["day"]], dtype=object)
    name = "value" if truth.name is None else str(truth.name)
    what = str(truth.attrs.get("long_name", name))
    flags = {"long_name": "mission", "flag_values": np.arange(len(names), dtype=np.int8),
             "flag_meanings": " ".join(names)}  # fmt: skip
    kept = as_float(truth).dtype
    return xr.Dataset(
        {
            name: ("obs", value.astype(kept), dict(truth.attrs)),
            f"{name}_error": ("obs", seen["error"].astype(kept), derived_attrs(
                truth.attrs, long_name=f"standard error of {what}")),
            "mission": ("obs", seen["mission"], flags),
            "track": ("obs", seen["track"], {"long_name": "number of the pass"}),
        },
        {
            "time": ("obs", when, {"standard_name": "time"}),
            "latitude": ("obs", seen["latitude"], {"standard_name": "latitude",
                                                   "units": "degrees_north"}),
            "longitude": ("obs", seen["longitude"], {"standard_name": "longitude",
                                                     "units": "degrees_east"}),
        },
    )  # fmt: skip

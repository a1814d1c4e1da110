"""Sea level of quasi-geostrophic turbulence: a non-Gaussian truth to train and to score on."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.memory import check_memory
from xr_spde._core.progress import track
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde.fields.quasi_geostrophic import TwoLayer
from xr_spde.synthetic.coordinates import degrees_around, times_from

__all__ = ["turbulent_sea"]

_LOG = logging.getLogger(__name__)

_EARTH = 6.371e6
_ROTATION = 7.2921e-5
_GRAVITY = 9.81
_DAY = 86_400.0

_RATIO = 0.25
_RADII = (24.0, 33.0)
_CRITICALITIES = (1.6, 2.1)
_WIDER = 1.25
"""The periodic domain is larger than what is cut from it: opposite edges are not neighbours."""
_LEAST_RADII = 25.0
"""Least side of the periodic domain in deformation radii: room for several eddies."""
_CELLS_PER_RADIUS = 2.0
_FIRST_SPEED = 3.0
"""Speed of the first eddies over the shear, near that of the statistically stationary flow."""


def turbulent_sea(
    shape: tuple[int, int] = (100, 100),
    days: int = 60,
    *,
    resolution: float = 0.1,
    seed: Seed = None,
    step: float = 1.0,
    latitude: float = 38.0,
    longitude: float = -60.0,
    start: str = "2012-10-01",
    radius: float | None = None,
    criticality: float | None = None,
    drag: float = 11.6,
    spin_up: int = 200,
    dtype: str = "float32",
    cache: str | os.PathLike[str] | None = None,
) -> xr.DataArray:
    """Sea level of two-layer quasi-geostrophic turbulence, as of an energetic mid-latitude ocean.

    With the defaults eddies of 100 to 300 km, a standard deviation of 0.1 to 0.4 m that differs
    from seed to seed, and a correlation in time that falls to 1/e within 10 to 20 days. A day of
    128 x 128 cells takes about 0.08 CPU seconds, with those of the spin-up.

    Parameters
    ----------
    shape : tuple of int, default (100, 100)
        ``(ny, nx)``.
    days : int, default 60
        Length of the series; its times are ``0, step, 2 step, ...`` below it.
    resolution : float, default 0.1
        Cells in degrees, in both directions. Cells above half the deformation radius are the means
        of finer ones, on which the flow is computed.
    seed : int, SeedSequence, Generator or None
        Of the first eddies, and of `radius` and `criticality` where these are not given.
    step : float, default 1
        Days between maps.
    latitude, longitude : float, default 38, -60
        Middle of the region in degrees. The Coriolis parameter and its gradient are of this
        latitude, south or north.
    start : str, default "2012-10-01"
        First time.
    radius : float, optional
        Deformation radius in km; drawn from 24 to 33.
    criticality : float, optional
        By how much the shear exceeds the one at which the flow becomes unstable; drawn from 1.6 to
        2.1. The sea level grows with it, and with the third power of the radius.
    drag : float, default 11.6
        Days in which friction at the bottom damps the lower layer.
    spin_up : int, default 200
        Days in front of the series until the flow has forgotten how it was started.
    dtype : {"float32", "float64"}, default "float32"
        Precision of the computation and of the result.
    cache : path, optional
        Folder in which the sea is kept, as netCDF, and looked for at the next call; the seed must
        be an integer.

    Returns
    -------
    DataArray (time, lat, lon)
        ``ssh`` in m, its mean over the whole domain zero at any time; settings in the attributes.

    Raises
    ------
    ParameterError
        Impossible numbers, a latitude at the equator or a pole, or a criticality at which the
        flow is stable.
    SolverError
        The flow has blown up.
    MemoryGuardError
        The series does not fit in memory.

    Notes
    -----
    Sea level is ``f psi / g`` with the stream function of the upper layer (a quarter as deep as the
    lower). What is idealised: the flow is forced by a uniform shear whose own slope of the sea
    surface is left out; bottom, stratification, f and beta are uniform, and cells are as wide as
    those of the middle row; there are no coasts, no jets fixed in place, no tides, waves, fronts at
    the surface or winds. It is cut from a doubly periodic domain at least a quarter larger. The
    flow is chaotic: numbers are the same wherever the libraries compute the same Fourier
    transforms, and after some weeks different, if alike in all statistics, elsewhere.

    References
    ----------
    Vallis (2017), Atmospheric and Oceanic Fluid Dynamics, chapter 9; Arbic and Flierl (2004),
    J. Phys. Oceanogr. 34.

    Examples
    --------
    >>> import xr_spde
    >>> sea = xr_spde.synthetic.turbulent_sea((24, 24), days=4, seed=1, spin_up=10)
    >>> sea.dims, sea.units, dict(sea.sizes)
    (('time', 'lat', 'lon'), 'm', {'time': 4, 'lat': 24, 'lon': 24})
    """
    _check(shape, days, resolution, step, latitude, drag, spin_up)
    if cache is not None and not isinstance(seed, int | np.integer):
        raise ParameterError(f"seed={seed!r} with a cache; a sea is found again by an integer seed")
    entropy = resolve_seed(seed)
    rng = member_generator(entropy, 0)
    drawn = rng.uniform(*_RADII), rng.uniform(*_CRITICALITIES)
    radius = drawn[0] if radius is None else float(radius)
    criticality = drawn[1] if criticality is None else float(criticality)
    if not (radius > 0.0 and criticality > 1.0):
        raise ParameterError(
            f"radius={radius:g}, criticality={criticality:g}; expected km > 0, and a criticality "
            "> 1: below it the flow is stable and comes to rest"
        )
    settings = {"shape": tuple(int(n) for n in shape), "days": days, "resolution": resolution,
                "step": step, "latitude": latitude, "longitude": longitude, "start": start,
                "radius": radius, "criticality": criticality, "drag": drag, "spin_up": spin_up,
                "dtype": dtype}  # fmt: skip
    attrs = provenance("turbulent_sea", seed=entropy, **settings)
    path = None if cache is None else _cached(Path(cache), attrs)
    if path is not None and path.is_file():
        _LOG.info("sea level is read from %s", path)
        return xr.load_dataarray(path, engine="scipy")
    refined = max(1, math.ceil(_CELLS_PER_RADIUS * _metres(resolution) / (1e3 * radius)))
    model = _model(shape, resolution / refined, refined, latitude, radius, criticality, drag, dtype)
    times = times_from(start, np.arange(math.ceil(days / step - 1e-9)) * step)
    check_memory(
        np.dtype(dtype).itemsize * (times.size * math.prod(shape) + 60 * math.prod(model.shape)),
        what=f"{times.size} maps of {shape[0]} x {shape[1]}", remedy="give fewer days or cells",
    )  # fmt: skip
    state = model.random_state(rng, _FIRST_SPEED * model.shear)
    values = np.empty((times.size, *shape), dtype=dtype)
    for k, psi in enumerate(_flow(model, state, spin_up, step, times.size)):
        values[k] = _cut(psi, shape, refined)
    values *= np.dtype(dtype).type(_coriolis(latitude)[0] / _GRAVITY)
    result = _labelled(values, times, settings, attrs)
    if path is not None:
        _keep(result, path)
    return result


def _check(
    shape: tuple[int, int], days: int, resolution: float, step: float, latitude: float,
    drag: float, spin_up: int,
) -> None:  # fmt: skip
    if len(shape) != 2 or min(shape) < 2:
        raise ParameterError(f"shape={shape!r}; expected (ny, nx), each at least 2")
    given = {"days": days, "resolution": resolution, "step": step, "drag": drag}
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0.0):
            raise ParameterError(f"{name}={value!r}; expected a number > 0")
    if spin_up < 0:
        raise ParameterError(f"spin_up={spin_up!r}; expected days >= 0")
    reach = abs(latitude) + 0.5 * resolution * shape[0]
    if not abs(latitude) >= 5.0 or reach >= 85.0:
        raise ParameterError(
            f"latitude={latitude!r} with {shape[0]} rows of {resolution:g} degrees; expected a "
            "middle at least 5 degrees from the equator and rows within 85 degrees"
        )


def _metres(degrees: float) -> float:
    return math.radians(degrees) * _EARTH


def _coriolis(latitude: float) -> tuple[float, float]:
    """Coriolis parameter in 1/s and its northward gradient in 1/(m s)."""
    angle = math.radians(latitude)
    return 2.0 * _ROTATION * math.sin(angle), 2.0 * _ROTATION * math.cos(angle) / _EARTH


def _model(
    shape: tuple[int, int], resolution: float, refined: int, latitude: float, radius: float,
    criticality: float, drag: float, dtype: str,
) -> TwoLayer:  # fmt: skip
    dy = _metres(resolution)
    spacing = dy, dy * math.cos(math.radians(latitude))
    sides = []
    for n, side in zip(shape, spacing, strict=True):
        least = max(_WIDER * n * refined, _LEAST_RADII * 1e3 * radius / side)
        sides.append(2 * scipy.fft.next_fast_len(math.ceil(least / 2), real=True))
    beta, metres = _coriolis(latitude)[1], 1e3 * radius
    # the lower layer's gradient, beta - F2 shear, changes sign at the criticality one
    shear = criticality * beta * metres**2 * (1.0 + _RATIO) / _RATIO
    return TwoLayer(
        (sides[0], sides[1]), spacing, radius=metres, ratio=_RATIO, shear=shear, beta=beta,
        drag=1.0 / (drag * _DAY), dtype=dtype,
    )  # fmt: skip


def _flow(
    model: TwoLayer, state: NDArray[Any], spin_up: int, step: float, count: int
) -> Iterator[NDArray[Any]]:
    """Stream function of the upper layer, map by map."""
    waits = [float(spin_up)] + [step] * (count - 1)
    for wait in track(waits, label="turbulence"):
        pieces = math.ceil(wait)  # of a day at most, after which steps are chosen anew
        for _ in range(pieces):
            state = model.advance(state, wait * _DAY / pieces)
        yield model.to_grid(model.stream(state)[0])


def _cut(psi: NDArray[Any], shape: tuple[int, int], refined: int) -> NDArray[Any]:
    """Corner of the periodic domain, in means of finer cells."""
    ny, nx = shape
    fine = psi[: ny * refined, : nx * refined]
    return np.asarray(fine.reshape(ny, refined, nx, refined).mean(axis=(1, 3)))


def _labelled(
    values: NDArray[Any], times: xr.DataArray, settings: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> xr.DataArray:  # fmt: skip
    return xr.DataArray(
        values,
        {"time": times, **degrees_around(
            (settings["latitude"], settings["longitude"]), settings["shape"],
            settings["resolution"])},
        ("time", "lat", "lon"),
        "ssh",
        {
            "units": "m", "standard_name": "sea_surface_height_above_mean_sea_level",
            "long_name": "sea level of quasi-geostrophic turbulence", **attrs,
        },
    )  # fmt: skip


def _cached(folder: Path, attrs: Mapping[str, Any]) -> Path:
    text = json.dumps(attrs, sort_keys=True)
    return folder / f"turbulent_sea_{hashlib.sha256(text.encode()).hexdigest()[:16]}.nc"


def _keep(sea: xr.DataArray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # whole files only, if two write
    sea.to_netcdf(part, engine="scipy")
    part.replace(path)
    _LOG.info("sea level is kept in %s", path)

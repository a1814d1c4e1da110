"""Unstable jets on a rotating sphere: truth to learn dynamics from, on demand."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.memory import check_memory
from xr_spde._core.progress import track
from xr_spde._core.provenance import provenance
from xr_spde.fields.legendre import gauss_latitudes
from xr_spde.fields.shallow_water import ShallowWater
from xr_spde.fields.unstable_jets import jets
from xr_spde.synthetic.coordinates import times_from

__all__ = ["shallow_water"]

_LOG = logging.getLogger(__name__)

_SPEEDS = 60.0, 80.0
_SECONDS = 3600.0
_BATCH = 10
"""Runs at once: tables and states of more do not stay in the caches of a processor."""

_NAMES: Mapping[str, Mapping[str, str]] = {
    "height": {"units": "m", "long_name": "height of the surface above its global mean"},
    "vorticity": {
        "units": "s-1", "long_name": "relative vorticity",
        "standard_name": "atmosphere_relative_vorticity",
    },
}  # fmt: skip


_RUN: Mapping[str, str] = {"long_name": "run"}


def shallow_water(
    seed: int | Sequence[int] = tuple(range(1, 21)),
    *,
    speed: float | Sequence[float] | None = None,
    hours: tuple[float, float] = (360.0, 600.0),
    step: float = 1.0,
    rows: int = 64,
    interleaved: bool = False,
    truncation: int = 63,
    start: str = "2000-01-01",
    dtype: str = "float32",
    cache: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    r"""Run shallow water on the rotating earth from unstable jets in both hemispheres.

    With the defaults the twenty runs of 240 hours on which latent assimilation was introduced,
    seeds 1 to 18 to learn from and 19 and 20 to test. They differ in the speed of the jets alone,
    which break up within days into waves and vortices. A run takes about 4 CPU seconds.

    Parameters
    ----------
    seed : int or sequence of int, default 1 to 20
        Each draws the speed of one run from 60 to 80 m/s, by numpy's legacy generator as the source
        does.
    speed : float or sequence of float, optional
        Speed in the middle of the jets in m/s, one for each run, in place of seeds; for instance to
        test beyond the speeds of the training.
    hours : tuple of float, default (360, 600)
        Hours after the start at which the series begins, and before which it ends.
    step : float, default 1
        Hours between fields.
    rows : int, default 64
        Latitudes; twice as many longitudes. They are every second one of a Gauss grid.
    interleaved : bool, default False
        The other half of that grid: points that no training has seen.
    truncation : int, default 63
        Highest degree of the spherical harmonics that the flow is computed in.
    start : str, default "2000-01-01"
        Date of the start.
    dtype : {"float32", "float64"}, default "float32"
        Precision of the computation and of the result.
    cache : path, optional
        Folder in which runs are kept, a netCDF file each, and looked for at the next call. The
        result is then lazy, in chunks of one run.

    Returns
    -------
    Dataset (trajectory, time, lat, lon)
        ``height`` in m, ``vorticity`` in 1/s, and the coordinate ``speed`` (trajectory) in m/s;
        ``trajectory`` is the seed, or counts from 1 where speeds are given.

    Raises
    ------
    ParameterError
        Impossible numbers.
    SolverError
        The flow has blown up: jets far faster than 80 m/s.
    MemoryGuardError
        The series do not fit in memory.

    Notes
    -----
    A layer of 10 km, biharmonic diffusion as strong at degree 32 as one of 1e5 m2/s. The
    hemispheres mirror each other (height even, vorticity odd), which is exact for the jets and
    kept exact by computing one of them. The bump that disturbs the jets begins abruptly at
    longitude zero, as in the source. Waves grow: rounding, which differs with the runs computed
    together and with the library, is amplified to about 1e-4 of the fields in 600 hours of
    float32.

    References
    ----------
    Galewsky, Scott and Polvani (2004), Tellus A 56; Li, Dong and Zhang (2024), J. Comput. Phys.

    Examples
    --------
    >>> import xr_spde
    >>> ds = xr_spde.synthetic.shallow_water(19, hours=(0, 4), step=2, rows=16, truncation=21)
    >>> dict(ds.sizes), round(float(ds.speed[0]), 2), ds.height.units
    ({'trajectory': 1, 'time': 2, 'lat': 16, 'lon': 32}, 61.95, 'm')
    """
    labels, speeds = _runs(seed, speed)
    first, last = (float(h) for h in hours)
    if not (0.0 <= first < last < math.inf and math.isfinite(step) and step > 0.0):
        raise ParameterError(
            f"hours={hours!r}, step={step!r}; expected 0 <= first < last, step > 0"
        )
    if rows < 4:
        raise ParameterError(f"rows={rows!r}; expected at least 4 latitudes")
    model = ShallowWater(truncation, dtype=dtype)
    count = math.ceil((last - first) / step - 1e-9)
    times = np.asarray(first + step * np.arange(count), dtype=np.float64)
    settings = {"hours": [first, last], "step": step, "rows": rows, "interleaved": interleaved,
                "truncation": truncation, "start": start, "dtype": dtype}  # fmt: skip
    coords = _coordinates(times, rows, interleaved, start)
    held = _BATCH if cache is not None else len(speeds)
    size = times.size * 2 * rows**2 * 2 * np.dtype(dtype).itemsize
    check_memory(
        held * size, what=f"{held} runs of {times.size} fields of {rows} x {2 * rows}",
        remedy="give fewer runs or hours, or a cache",
    )  # fmt: skip
    if cache is None:
        parts = [
            _labelled(values, coords, chosen, labels[k : k + _BATCH])
            for k in range(0, len(speeds), _BATCH)
            for chosen in [speeds[k : k + _BATCH]]
            for values in [_run(model, chosen, times, coords)]
        ]
        result = xr.concat(parts, "trajectory") if len(parts) > 1 else parts[0]
    else:
        result = _kept(Path(cache), model, labels, speeds, times, coords, settings)
    result.attrs.update(provenance("shallow_water", speed=speeds, **settings))
    return result


def _runs(
    seed: int | Sequence[int], speed: float | Sequence[float] | None
) -> tuple[list[int], list[float]]:
    """Labels and speeds of the runs."""
    if speed is not None:
        speeds = [float(s) for s in np.atleast_1d(np.asarray(speed, dtype=np.float64))]
        labels = list(range(1, len(speeds) + 1))
    else:
        labels = [int(s) for s in np.atleast_1d(seed)]
        if any(s < 0 for s in labels) or len(set(labels)) < len(labels):
            raise ParameterError(f"seed={seed!r}; expected different integers >= 0")
        speeds = [float(np.random.RandomState(s).uniform(*_SPEEDS)) for s in labels]
    if not speeds or not all(math.isfinite(s) and s > 0.0 for s in speeds):
        raise ParameterError(f"speed={speed!r}; expected at least one number > 0, in m/s")
    return labels, speeds


def _coordinates(
    times: NDArray[np.float64], rows: int, interleaved: bool, start: str
) -> dict[str, xr.DataArray]:
    latitudes = np.degrees(np.arcsin(gauss_latitudes(2 * rows)[0]))
    longitudes = 90.0 / rows * np.arange(4 * rows)
    described = {
        "lat": (latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": (longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    return {"time": times_from(start, times / 24.0)} | {
        name: xr.DataArray(values[int(interleaved) :: 2], dims=name, attrs=attrs)
        for name, (values, attrs) in described.items()
    }


def _run(
    model: ShallowWater, speeds: list[float], times: NDArray[np.float64],
    coords: Mapping[str, xr.DataArray],
) -> NDArray[Any]:  # fmt: skip
    """Height and vorticity of runs (2, runs, times, rows, columns)."""
    lat, lon = (np.radians(coords[name].values) for name in ("lat", "lon"))
    read = model.sampler(np.sin(lat), lon)
    values = np.empty((2, len(speeds), times.size, lat.size, lon.size), dtype=model.dtype)
    state = jets(model, speeds)
    waits = np.diff(times, prepend=0.0)
    for k, wait in enumerate(track(waits.tolist(), label="shallow water")):
        pieces = max(1, math.ceil(wait / 24.0))  # a flow that blows up is noticed within a day
        for _ in range(pieces if wait > 0.0 else 0):
            state = model.advance(state, wait * _SECONDS / pieces)
        fields = read(state, list(_NAMES))
        for which, name in enumerate(_NAMES):
            values[which, :, k] = fields[name]
    return values


def _labelled(
    values: NDArray[Any], coords: Mapping[str, xr.DataArray], speeds: list[float], labels: list[int]
) -> xr.Dataset:
    dims = ("trajectory", "time", "lat", "lon")
    return xr.Dataset(
        {name: (dims, part, dict(attrs)) for part, (name, attrs) in zip(
            values, _NAMES.items(), strict=True)},
        {
            "trajectory": ("trajectory", np.asarray(labels), dict(_RUN)),
            "speed": ("trajectory", np.asarray(speeds),
                      {"units": "m s-1", "long_name": "first speed in the middle of the jets"}),
            **coords,
        },
    )  # fmt: skip


def _kept(
    folder: Path, model: ShallowWater, labels: list[int], speeds: list[float],
    times: NDArray[np.float64], coords: Mapping[str, xr.DataArray], settings: Mapping[str, Any],
) -> xr.Dataset:  # fmt: skip
    """Open the runs in the cache; those that are not there are computed and written."""
    paths = {}
    for speed in speeds:
        text = json.dumps(provenance("shallow_water", speed=speed, **settings), sort_keys=True)
        paths[speed] = folder / f"shallow_water_{hashlib.sha256(text.encode()).hexdigest()[:16]}.nc"
    missing = [speed for speed, path in paths.items() if not path.is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(0, len(missing), _BATCH):
        chosen = missing[k : k + _BATCH]
        values = _run(model, chosen, times, coords)
        for which, speed in enumerate(chosen):
            _keep(_labelled(values[:, which : which + 1], coords, [speed], [0]), paths[speed])
    _LOG.info("%d runs of shallow water in %s, %d of them new", len(speeds), folder, len(missing))
    opened = [
        xr.open_dataset(paths[speed], engine="scipy", chunks={}).assign_coords(
            trajectory=("trajectory", [label], dict(_RUN))
        )
        for label, speed in zip(labels, speeds, strict=True)
    ]
    return xr.concat(opened, "trajectory", coords="minimal", compat="override", join="override")


def _keep(run: xr.Dataset, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # whole files only, if two write
    run.to_netcdf(part, engine="scipy")
    part.replace(path)

"""Forecasts of codes with labels, and their scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.codes import CodeGuard
from xr_spde._core.errors import ParameterError
from xr_spde.assim.latent.channels import Labelled, snapshot_dims
from xr_spde.assim.latent.clock import Clock, months_of
from xr_spde.assim.latent.labelled import CODE, Reader, find_time_dim
from xr_spde.assim.latent.protocols import Propagator, StateMap
from xr_spde.assim.latent.training import Training
from xr_spde.assim.times import as_times
from xr_spde.labels.lazy import single_core_chunk

__all__ = ["future_times", "roll_out", "score_series"]

Float = NDArray[np.float64]
Decode = Callable[[NDArray[Any]], NDArray[Any]]
_BLOCK = 16


def future_times(
    clock: Clock, start: xr.DataArray | None, steps: int | None, times: Any, name: str
) -> tuple[xr.DataArray, Float, Float]:
    """Find the times of a forecast.

    Parameters
    ----------
    clock : Clock
        Of the model.
    start : DataArray () or None
        Time of the first fields.
    steps : int, optional
        Number of steps.
    times : array_like, optional
        Or their times.
    name : str
        Name of the dimension.

    Returns
    -------
    DataArray (T,)
        Times.
    ndarray (T,), ndarray (T,)
        Length of each interval in steps, and days since 1970-01-01 at its start.

    Raises
    ------
    ParameterError
        As `LatentModel.forecast`.
    """
    if (steps is None) == (times is None):
        raise ParameterError(
            "steps= and times= were given; leave one out" if steps is not None else
            "neither steps= nor times= was given; type for instance steps=5"
        )  # fmt: skip
    if steps is not None:
        if int(steps) != steps or steps < 1:
            raise ParameterError(f"steps={steps!r} was given; expected a whole number from 1")
        return _regular(clock, start, int(steps), name)
    if start is None:
        raise ParameterError(
            "times= was given and the start has no time; give it one, such as with "
            'start.assign_coords(time=np.datetime64("2020-01-01"))'
        )
    found = as_times(times, start.expand_dims(name))
    found = xr.DataArray(found.values, dims=name)
    gaps: Float = np.diff(clock.positions(found, start), prepend=0.0)
    if not (gaps > 0.0).all():
        raise ParameterError(
            f"times= does not increase from the start, {start.values}: the first that does not "
            f"is {found.values[int(np.argmax(gaps <= 0.0))]}"
        )
    gaps = _whole(clock, gaps)
    before = xr.DataArray(np.concatenate([[start.values[()]], found.values[:-1]]), dims=name)
    return found, gaps, clock.days(before)


def _whole(clock: Clock, gaps: Float) -> Float:
    """Gaps that are nearly whole steps, as calendar months are, are whole."""
    near = np.rint(gaps)
    slack = 0.12 if clock.unit == "month" else 1e-6
    return np.asarray(np.where((np.abs(gaps - near) <= slack) & (near >= 1.0), near, gaps))


def _regular(
    clock: Clock, start: xr.DataArray | None, steps: int, name: str
) -> tuple[xr.DataArray, Float, Float]:
    ahead = np.arange(1, steps + 1)
    ones: Float = np.ones(steps)
    if start is None:
        found = xr.DataArray(ahead * clock.step, dims=name)
        return found, ones, np.asarray((ahead - 1) * clock.step, dtype=np.float64)
    if clock.unit == "number":
        values = float(start) + ahead * clock.step
        found = xr.DataArray(values, dims=name)
        return found, ones, np.asarray(values - clock.step, dtype=np.float64)
    first = start.values[()]
    if clock.unit == "day":
        values = np.array([first + _span(k * clock.step, start) for k in ahead])
    else:
        values = np.array([_months_later(start, round(k * clock.step)) for k in ahead])
    found = xr.DataArray(values, dims=name)
    before = xr.DataArray(np.concatenate([[first], values[:-1]]), dims=name)
    return found, ones, clock.days(before)


def _span(days: float, start: xr.DataArray) -> Any:
    from datetime import timedelta

    if start.dtype.kind == "M":
        return np.timedelta64(round(days * 86400e3), "ms").astype("timedelta64[ns]")
    return timedelta(days=days)


def _months_later(start: xr.DataArray, months: int) -> Any:
    """Find the same day so many months later, or the last one there is."""
    year, month = divmod(int(start.dt.year) * 12 + int(start.dt.month) - 1 + months, 12)
    day = int(start.dt.day)
    if start.dtype.kind == "M":
        first = np.datetime64(f"{year:04d}-{month + 1:02d}-01", "ns")
        after = np.datetime64(f"{year + month // 11:04d}-{(month + 1) % 12 + 1:02d}-01", "ns")
        length = int((after - first) / np.timedelta64(1, "D"))
        rest = start.values[()] - start.values[()].astype("datetime64[D]").astype("datetime64[ns]")
        return first + np.timedelta64(min(day, length) - 1, "D") + rest
    date: Any = start.item().replace(year=year, month=month + 1, day=1)
    return date.replace(day=min(day, date.daysinmonth))


def roll_out(model: Any, codes: xr.DataArray, steps: int | None, times: Any) -> xr.DataArray:
    """Forecast codes; see `LatentModel.forecast`.

    Parameters
    ----------
    model : LatentModel
        The model.
    codes : DataArray (..., code)
        At the start.
    steps, times
        As there.

    Returns
    -------
    DataArray (..., time, code)
    """
    start = model.time_of(codes)
    name = find_time_dim(codes) or model.time_name
    if name in codes.dims:
        codes = codes.isel({name: 0})
    codes = codes.drop_vars(name, errors="ignore")
    future, gaps, days = future_times(model.clock, start, steps, times, name)
    guard = CodeGuard(model.map.mean, model.map.spread)

    def roll(block: NDArray[Any]) -> NDArray[Any]:
        state = block.reshape(-1, block.shape[-1])
        path = np.empty((len(state), len(gaps), block.shape[-1]), block.dtype)
        for k, (gap, day) in enumerate(zip(gaps, days, strict=True)):
            state = model.propagator.step(state, float(gap), float(day))
            guard.check(state, k)
            path[:, k] = state
        return path.reshape(*block.shape[:-1], *path.shape[1:])

    found: xr.DataArray = xr.apply_ufunc(
        roll, single_core_chunk(codes, [CODE]), input_core_dims=[[CODE]],
        output_core_dims=[[name, CODE]], dask="parallelized", output_dtypes=[codes.dtype],
        dask_gufunc_kwargs={"output_sizes": {name: len(gaps)}}, keep_attrs=True,
    )  # fmt: skip
    return found.assign_coords({name: (name, future.values)})


def score_series(
    model: Any, obj: Labelled, leads: int, *, dim: str | None, x: str | None, y: str | None
) -> xr.Dataset:
    """Score a series; see `LatentModel.score`.

    Parameters
    ----------
    model : LatentModel
        The model.
    obj, leads, dim, x, y
        As there.

    Returns
    -------
    Dataset (lead, variable)
    """
    reader, fields = Reader.of(obj, model.layout, model.scaling, x=x, y=y)
    dims = snapshot_dims(fields, dim, (str(fields.dims[-2]), str(fields.dims[-1])))
    fields = fields.transpose(*dims, *fields.dims[-3:])
    times = fields[dims[-1]]
    gaps, _ = model.clock.intervals(times) if times.size > 1 else (np.empty(0), 0)
    months = months_of(times)
    whole = fields.expand_dims("one_member") if len(dims) == 1 else fields
    days, weights = model.clock.days(times), model.layout.area[:, None]
    if reader.points is not None:
        weights = np.full((len(reader.points), 1), 1.0 / len(reader.points))
    sums = _Sums(leads, len(model.layout.channels), weights)
    decode = partial(model.map.decode, points=reader.points)
    for member in range(whole.shape[0]):
        for first in range(0, times.size, _BLOCK):
            stop = min(first + _BLOCK + leads, times.size)
            block = np.asarray(whole[member, first:stop].values)
            truth = reader(block, None if months is None else months[first:stop])
            starts = min(_BLOCK, times.size - first)
            codes = model.map.encode(truth[:starts], reader.points)
            sums.add_first(truth[:starts], decode(codes))
            for k in range(starts):
                _follow(model.propagator, decode, sums, codes[k : k + 1], truth[k:],
                        gaps[first + k :], days[first + k :])  # fmt: skip
    return sums.labelled(model)


def _follow(
    propagator: Propagator, decode: Decode, sums: _Sums, code: Float, truth: Float, gaps: Float,
    days: Float,
) -> None:  # fmt: skip
    """Add one forecast to the sums, as far as steps have length one."""
    for lead in range(1, min(sums.leads, len(truth) - 1, len(gaps)) + 1):
        if gaps[lead - 1] != 1.0:
            return
        code = propagator.step(code, 1.0, float(days[lead - 1]))
        sums.add(lead, truth[lead], decode(code)[0], truth[0])


class _Sums:
    """Root mean squares, meaned over snapshots."""

    def __init__(self, leads: int, channels: int, weights: Float) -> None:
        self.leads, self.weights = leads, weights
        self.model = np.zeros((leads + 1, channels))
        self.persistence, self.climatology = np.zeros_like(self.model), np.zeros(channels)
        self.count = np.zeros(leads + 1)

    def _root(self, error: Float) -> Float:
        """Over points, of (..., P, c)."""
        seen = np.isfinite(error)
        weight = np.where(seen, self.weights, 0.0)
        total = weight.sum(axis=-2)
        squares = np.square(np.where(seen, error, 0.0), dtype=np.float64)
        return np.sqrt((weight * squares).sum(axis=-2) / np.where(total > 0, total, np.nan))

    def add_first(self, truth: Float, found: Float) -> None:
        """Add reconstructions (B, P, c)."""
        self.model[0] += np.nansum(self._root(truth - found), axis=0)
        self.climatology += np.nansum(self._root(truth), axis=0)
        self.count[0] += len(truth)

    def add(self, lead: int, truth: Float, found: Float, first: Float) -> None:
        """Add a forecast (P, c)."""
        self.model[lead] += self._root(truth - found)
        self.persistence[lead] += self._root(truth - first)
        self.count[lead] += 1

    def summary(self) -> dict[str, float]:
        """Means over variables, and over leads from one on."""
        found = {
            "reconstruction": np.mean(self.model[0] / self.count[0]),
            "climatology": np.mean(self.climatology / self.count[0]),
        }
        some = self.count[1:] > 0
        for name, sums in (("forecast", self.model), ("persistence", self.persistence)):
            if some.any():
                found[name] = np.mean(sums[1:][some] / self.count[1:][some, None])
        return {name: float(value) for name, value in found.items()}

    def labelled(self, model: Any) -> xr.Dataset:
        """Make the table."""
        count = np.where(self.count > 0, self.count, np.nan)[:, None]
        table = xr.Dataset(
            {
                "rmse": (("lead", "variable"), self.model / count),
                "persistence": (("lead", "variable"), self.persistence / count),
                "climatology": ("variable", self.climatology / count[0]),
                "scale": ("variable", model.scaling.std),
                "forecasts": ("lead", self.count.astype(int)),
            },
            {"lead": np.arange(self.leads + 1), "variable": list(model.variables)},
        )
        for name in ("rmse", "persistence", "climatology"):
            table[name].attrs = {"units": "1", "long_name": f"{name}, in standard deviations"}
        table["lead"].attrs = {"units": f"steps of {model.clock}"}
        return table


def score_parts(
    state_map: StateMap, propagator: Propagator, training: Training, codes: Float, leads: int
) -> dict[str, float]:
    """Score parts on what a training holds out.

    Parameters
    ----------
    state_map, propagator
        What was fitted.
    training : Training
        With what was held out.
    codes : ndarray (W, T, n)
        Codes of that.
    leads : int
        Steps of the forecasts.

    Returns
    -------
    dict of str to float
        ``reconstruction``, ``climatology``, and over leads 1 to `leads` ``forecast`` and
        ``persistence``: root mean square errors in standard deviations, meaned over variables.
    """
    part, w = training.held, training.weights
    sums = _Sums(leads, state_map.variables, w[:, None] if w.ndim == 1 else w)
    for truth, own in zip(part.values, codes, strict=True):
        for first in range(0, len(truth), _BLOCK):
            some = slice(first, first + _BLOCK)
            sums.add_first(truth[some], state_map.decode(own[some]))
            for k in range(first, min(first + _BLOCK, len(truth))):
                _follow(propagator, state_map.decode, sums, own[k : k + 1], truth[k:],
                        part.gaps[k:], part.days[k:])  # fmt: skip
    return sums.summary()

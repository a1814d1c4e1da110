"""Forecast and analysis in turn, with the user's own model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import DTypeError, ParameterError
from xr_spde._core.lazyimport import require
from xr_spde._core.rng import Seed, resolve_seed
from xr_spde._core.warn import warn
from xr_spde.assim.assimilate import Given, assimilate
from xr_spde.assim.ensembles import Ensemble, read_ensemble
from xr_spde.assim.inflation import Adaptive

__all__ = ["cycle", "steps"]

_CHANGING = ("xr_spde_seed", "xr_spde_version")  # each time has a stream of its own

Labelled = xr.DataArray | xr.Dataset
Forecast = Callable[[Any, Any, Any], Any]


def cycle(
    obj: Labelled,
    obs: Given | Mapping[str, Given],
    *,
    forecast: Forecast,
    times: Sequence[Any] | None = None,
    start: Any = None,
    store: str | Path | None = None,
    seed: Seed = None,
    time_dim: str = "time",
    **settings: Any,
) -> xr.Dataset:
    """Alternate a forecast model and analyses, and keep all analyses.

    Parameters
    ----------
    obj : DataArray or Dataset
        The first ensemble (realization, ..., Y, X), valid at `start`.
    obs : DataArray, Dataset or mapping of str to these
        Of all times: with the dimension `time_dim`, or points with times and ``window=``.
    forecast : callable
        ``forecast(ensemble, start, stop)`` with an object like `obj`, valid at `start`; returns the
        same valid at `stop`, or of a DataArray its bare values.
    times : sequence, optional
        Of the analyses, increasing; by default those of the observations' dimension `time_dim`.
    start : datetime64, number or cftime date, optional
        Time of `obj`; by default its scalar coordinate `time_dim`. Where there is neither, `obj` is
        the forecast of the first analysis.
    store : path, optional
        Folder in which every analysis becomes a Zarr store as soon as it is complete. Called again
        with the same arguments, `cycle` goes on from the last one there, with the same numbers as
        without the interruption (where something is random: with a `seed`). Memory then holds one
        time only.
    seed : int, SeedSequence, Generator or None
        Of all that is random; every time has a stream of its own.
    time_dim : str, default "time"
        Name of the dimension of the result.
    **settings
        Of `assimilate`. An `Adaptive` inflation learns from one time to the next.

    Returns
    -------
    Dataset
        What `assimilate` returned at each time, along `time_dim`; statistics of single observations
        are left out where their number changes. Lazy, from the store, where there is one.

    Raises
    ------
    ParameterError
        A forecast of another shape, or with NaN where there were numbers (names member and time);
        times that do not increase, that observations do not have, or on another calendar than the
        ensemble's; a store of another cycle or of other settings.
    DTypeError
        A forecast that is no function, or returns something else than an ensemble.

    Warns
    -----
    UserWarning
        If random numbers are drawn into a store without a seed.

    Notes
    -----
    Order of dimensions, name, attributes and labels that the model's arithmetic loses are given
    back; values on other labels are refused. An error of the model's own says in a note for which
    times it was raised. A lazy forecast is looked through for NaN block by block before the
    analysis, and so computed twice.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim import cycle
    >>> rng = np.random.default_rng(0)
    >>> coords = {"lat": np.arange(4.0), "lon": np.arange(5.0)}
    >>> ens = xr.DataArray(rng.standard_normal((10, 4, 5)), coords, ("member", "lat", "lon"))
    >>> place = {"time": [1, 2, 3], "lat": ("obs", [2.0]), "lon": ("obs", [3.0])}
    >>> obs = xr.DataArray([[1.0], [0.5], [0.25]], place, ("time", "obs"))
    >>> def halve(ensemble, start, stop):
    ...     return ensemble * 0.5 ** (stop - start)
    >>> out = cycle(ens, obs, forecast=halve, start=0, obs_error=0.1, method="etkf")
    >>> dict(out["mean"].sizes)
    {'time': 3, 'lat': 4, 'lon': 5}
    """
    whole = list(
        steps(
            obj, obs, forecast=forecast, times=times, start=start, store=store, seed=seed,
            time_dim=time_dim, **settings,
        )
    )  # fmt: skip
    sizes = whole[0].sizes
    varying = {d for part in whole for d in part.dims if part.sizes[d] != sizes.get(d)}
    if "window" in settings:
        varying |= {
            d for name in whole[0] if str(name).endswith("status") for d in whole[0][name].dims
        }
    parts = [part.drop_dims([d for d in part.dims if d in varying]) for part in whole]
    return xr.concat(
        parts,
        time_dim,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="drop_conflicts",
    )


def steps(
    obj: Labelled,
    obs: Given | Mapping[str, Given],
    *,
    forecast: Forecast,
    times: Sequence[Any] | None = None,
    start: Any = None,
    store: str | Path | None = None,
    seed: Seed = None,
    time_dim: str = "time",
    **settings: Any,
) -> Iterator[xr.Dataset]:
    """Alternate a forecast model and analyses, one time after the other.

    Parameters
    ----------
    obj, obs, forecast, times, start, store, seed, time_dim, **settings
        As in `cycle`.

    Returns
    -------
    iterator of Dataset
        What `assimilate` returns, time by time, with the scalar coordinate `time_dim`: computed, or
        lazy from the store where there is one.

    Raises
    ------
    ParameterError
        As in `cycle`.
    """
    first = read_ensemble(obj, settings.get("dim"), x=settings.get("x"), y=settings.get("y"))
    when = _times(obs, times, time_dim)
    now = obj[time_dim].values[()] if start is None and _scalar(obj, time_dim) else start
    if not callable(forecast):
        raise DTypeError(
            f"forecast= is a {type(forecast).__name__}; expected a function such as "
            "forecast(ensemble, start, stop)"
        )
    if now is not None and not _precedes(now, when[0]):
        raise ParameterError(
            f"the ensemble is valid at {now}, after the first analysis at {when[0]}; pass the "
            "times= that are left"
        )
    if store is not None and seed is None and _random(settings):
        warn(
            "the analyses draw random numbers and no seed was given: a cycle that goes on from "
            f"{store} after an interruption draws others; type for instance seed=1"
        )
    entropy, state, settled = resolve_seed(seed), obj, dict[str, Any]()
    for number, time in enumerate(when):
        part = None if store is None else _reopen(Path(store), number, time, time_dim)
        if part is None:
            if now is not None and now != time:
                state = _forecast(forecast, state, first, (now, time))
            stream = np.random.SeedSequence(entropy, spawn_key=(zlib.crc32(str(time).encode()),))
            own = {k: _at(v, time, time_dim) for k, v in settings.items()}
            # with a dimension of time a time without observations is one of many, and no error
            stamped = state.drop_vars(time_dim, errors="ignore").expand_dims({time_dim: [time]})
            part = assimilate(stamped, _at(obs, time, time_dim), seed=stream, **own)
            part = part.isel({time_dim: 0})
            _same_settings(settled, part.attrs, store)
            part = part.compute() if store is None else _write(part, Path(store), number)
        settled = part.attrs
        if isinstance(settings.get("inflation"), Adaptive):
            known = float(part["inflation"])
            settings["inflation"] = replace(settings["inflation"], variance_factor=known)
        state, now = _members(part, obj, first), time
        yield part


def _random(settings: Mapping[str, Any]) -> bool:
    """Whether analyses with these settings draw random numbers."""
    method = settings.get("method")
    noisy = settings.get("model_noise") is not None and method != "etkf-q"
    return noisy or bool(settings.get("rotate")) or method in ("enkf", "senkf")


def _precedes(start: Any, first: Any) -> bool:
    """Whether an ensemble is not later than the first analysis."""
    try:
        return bool(start <= first)
    except TypeError as error:
        calendars = [getattr(t, "calendar", type(t).__name__) for t in (start, first)]
        raise ParameterError(
            f"the ensemble is valid at {start} ({calendars[0]}) and the first analysis at {first} "
            f"({calendars[1]}), which cannot be compared; bring both to one calendar, such as with "
            "obs.convert_calendar('standard', use_cftime=False), or pass start="
        ) from error


def _scalar(obj: Labelled, name: str) -> bool:
    return name in obj.coords and obj[name].ndim == 0


def _times(obs: Any, times: Sequence[Any] | None, dim: str) -> list[Any]:
    """Find the times of the analyses."""
    if times is None:
        sources = (
            list(obs.values())
            if isinstance(obs, Mapping) and not isinstance(obs, xr.Dataset)
            else [obs]
        )
        labels = [o[dim].values for o in sources if isinstance(o, Labelled) and dim in o.indexes]
        if not labels:
            raise ParameterError(
                f"the observations have no dimension {dim!r} with labels, so that the times of the "
                "analyses are not known; pass times=, and window= for observations in between"
            )
        times = list(labels[0] if len(labels) == 1 else np.unique(np.concatenate(labels)))
    found = list(np.asarray(times))
    if not found or any(not a < b for a, b in pairwise(found)):
        raise ParameterError(
            f"times= holds {len(found)} times that do not all increase; sort them, each once"
        )
    return found


def _at(given: Any, time: Any, dim: str) -> Any:
    """Cut out one time of whatever has labels along it; missing values where it lacks this one."""
    if isinstance(given, Mapping) and not isinstance(given, xr.Dataset):
        return {name: _at(one, time, dim) for name, one in given.items()}
    if not isinstance(given, Labelled) or dim not in given.indexes:
        return given
    return given.reindex({dim: [time]})


def _forecast(
    forecast: Forecast, state: Labelled, first: Ensemble, span: tuple[Any, Any]
) -> Labelled:
    """Run the user's model, and refuse what is no ensemble like the one before."""
    step = f"the forecast from {span[0]} to {span[1]}"
    try:
        found = forecast(state, *span)
    except Exception as error:
        error.add_note(f"raised by {step}")
        raise
    if isinstance(state, xr.DataArray) and isinstance(found, np.ndarray):
        if found.shape != state.shape:
            raise ParameterError(f"{step} returned shape {found.shape}; expected {state.shape}")
        found = state.copy(data=found)
    if type(found) is not type(state):
        raise DTypeError(
            f"{step} returned a {type(found).__name__}; expected a {type(state).__name__} like "
            "the ensemble it was given"
        )
    parts = {}
    for name in first.variables:
        if isinstance(found, xr.Dataset) and name not in found:
            raise ParameterError(f"{step} returned no variable {name!r}")
        one, old = (o[name] if isinstance(o, xr.Dataset) else o for o in (found, state))
        if dict(one.sizes) != dict(old.sizes):
            raise ParameterError(
                f"{step} returned {name!r} with the sizes {dict(one.sizes)}; expected "
                f"{dict(old.sizes)}"
            )
        _check_places(one, old, f"{step} returned {name!r}")
        parts[name] = _like(_checked(one, old, first.dim, step), old)
    return found.assign(parts) if isinstance(found, xr.Dataset) else parts[name]


def _like(one: xr.DataArray, old: xr.DataArray) -> xr.DataArray:
    """Give back what arithmetic loses: order of dimensions, name, attributes, labels."""
    lost = {d: old[d] for d in old.indexes if d in one.dims and d not in one.coords}
    own = one.transpose(*old.dims).assign_coords(lost).rename(old.name)
    return own.assign_attrs({**old.attrs, **one.attrs})


def _check_places(one: xr.DataArray, old: xr.DataArray, what: str) -> None:
    """Refuse values that have moved to other labels."""
    for dim in one.dims:
        both = dim in one.indexes and dim in old.indexes
        if both and not one.indexes[dim].equals(old.indexes[dim]):
            raise ParameterError(
                f"{what} with other labels along {dim!r}; expected those of the ensemble it was "
                "given, in their order: a model moves values, not coordinates"
            )


def _checked(one: xr.DataArray, old: xr.DataArray, dim: str, step: str) -> xr.DataArray:
    """Refuse NaN where there were numbers: of lazy fields when a block is computed, not before."""
    labels = one[dim].values if dim in one.coords else np.arange(one.sizes[dim])
    bare = old.drop_vars(old.coords), xr.DataArray(labels, dims=dim)
    what = f"{step} returned NaN or infinite values of {one.name!r} where there were numbers"
    found: xr.DataArray = xr.apply_ufunc(
        _refuse_lost, one, *bare, kwargs={"what": what}, dask="parallelized",
        output_dtypes=[one.dtype], keep_attrs=True,
    )  # fmt: skip
    return found


def _refuse_lost(new: Any, old: Any, label: Any, *, what: str) -> Any:
    """Give back a block, or say in which members numbers were lost."""
    lost = np.isfinite(old) & ~np.isfinite(new)
    if lost.any():
        members = np.broadcast_to(label, lost.shape)[lost]
        raise ParameterError(
            f"{what}: {members.size} in {np.unique(members).size} members, the first in member "
            f"{members[0]}: the model may have become unstable"
        )
    return new


def _members(part: xr.Dataset, obj: Labelled, first: Ensemble) -> Labelled:
    """Take the analysed members out of a result, as the forecast model knows them."""
    if isinstance(obj, xr.Dataset):
        return obj.drop_vars([d for d in obj.coords if d in part.coords]).assign(
            {name: part[name] for name in first.variables}
        )
    (name,) = first.variables
    own = part[name]
    kept = [c for c in own.coords if c in obj.coords or own[c].ndim == 0]
    return own.drop_vars([c for c in own.coords if c not in kept]).rename(obj.name)


def _write(part: xr.Dataset, store: Path, number: int) -> xr.Dataset:
    """Write one analysis, which has its name only when it is complete."""
    require("zarr", "io")
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"store={str(store)!r} is no folder and cannot be made one ({error}); give another"
        ) from error
    target = store / f"{number:06d}.zarr"
    partial = target.with_suffix(".part")
    part.to_zarr(partial, mode="w", consolidated=False)
    partial.rename(target)
    return xr.open_zarr(target, consolidated=False)


def _same_settings(before: Mapping[str, Any], now: Mapping[str, Any], store: Any) -> None:
    """Refuse to go on with other settings than those of the analyses that are there."""
    if not before:
        return
    names = [n for n in {**before, **now} if n.startswith("xr_spde_") and n not in _CHANGING]
    other = [n for n in names if str(before.get(n)) != str(now.get(n))]
    if other:
        listed = ", ".join(
            f"{n.removeprefix('xr_spde_')} was {before.get(n)} and is {now.get(n)}" for n in other
        )
        raise ParameterError(
            f"{store} holds analyses with other settings: {listed}; give another store, or the "
            "settings of before"
        )


def _reopen(store: Path, number: int, time: Any, dim: str) -> xr.Dataset | None:
    """Open an analysis that is complete."""
    target = store / f"{number:06d}.zarr"
    if not target.exists():
        return None
    require("zarr", "io")
    part = xr.open_zarr(target, consolidated=False)
    if dim not in part.coords or part[dim].values[()] != time:
        found = part[dim].values if dim in part.coords else "no time"
        raise ParameterError(
            f"{target} holds the analysis of {found}, and number {number} of this cycle is {time}; "
            "give another store, or delete it"
        )
    return part

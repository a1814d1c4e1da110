"""Analyses of labelled ensembles: one after the other along shared dimensions, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError
from xr_spde.assim.ensembles import Ensemble, observed_index
from xr_spde.assim.inflation import Adaptive
from xr_spde.assim.observations import Observations
from xr_spde.assim.observed import Observed
from xr_spde.assim.radius import RadiusSample
from xr_spde.assim.reading import own_name, value_of
from xr_spde.assim.screening import select_time
from xr_spde.assim.status import STATUS, status_attrs, summarised
from xr_spde.assim.update import BlockUpdate, Settings, Solve, Update
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.blocks import Summary, map_blocks, pick_points, summarise
from xr_spde.labels.points import as_points, calendar_of

Paired = dict[str, tuple[Any, dict[str, Any]]]

_NUMBERS: dict[str, tuple[str, str, Any]] = {
    "observations_used": ("count", "number of observations used", np.int64),
    "innovation_mean": ("mean", "mean of observed minus forecast", np.float64),
    "innovation_rms": ("rms", "root mean square of observed minus forecast", np.float64),
    "innovation_expected_rms": ("expected", "what it should be, by spread and errors", np.float64),
}
_MAPS = {
    "mean": "mean of the analysed members",
    "std": "standard deviation of the analysed members",
    "increment": "analysed minus forecast mean",
}
_OTHERS = ("innovation", "status", "chi_square", "localization", "inflation")


def analyse(ensemble: Ensemble, observed: Paired, settings: Settings, *, window: Any) -> xr.Dataset:
    """Analyse an ensemble with observations.

    Parameters
    ----------
    ensemble : Ensemble
        The forecast.
    observed : dict of str to (observations, dict)
        By variable, as from :func:`xr_spde.assim.ensembles.pair`.
    settings : Settings
        Of the filter.
    window : timedelta or None
        About the times of the fields.

    Returns
    -------
    Dataset
        As from :func:`xr_spde.assim.assimilate`.
    """
    taken = [name for name in (*_MAPS, *_OTHERS, *_NUMBERS) if name in ensemble.variables]
    if taken:
        raise ParameterError(
            f"the result needs the name {taken[0]!r}, which the ensemble has; rename it, such as "
            f'with .rename("z")'
        )
    result = _along(ensemble, observed, settings, window, alone=True)
    for name in ensemble.variables:
        result[name] = result[name].transpose(*_given(ensemble, name).dims, missing_dims="ignore")
    return result


def _given(ensemble: Ensemble, name: str) -> xr.DataArray:
    obj = ensemble.given
    return obj[name] if isinstance(obj, xr.Dataset) else obj


def _along(
    ensemble: Ensemble, observed: Paired, settings: Settings, window: Any, *, alone: bool
) -> xr.Dataset:
    """Map over the first dimension that observations share, if there is one."""
    for dim in ensemble.leading:
        labels = next(da[dim] for da in ensemble.variables.values() if dim in da.dims)
        shares = [n for n, (obs, _) in observed.items() if dim in _dims(obs)]
        times = window is not None and calendar_of(labels) is not None and not shares
        if not shares and not times:
            continue
        for name in shares:
            _check_labels(observed[name][0], labels, dim)
        parts = []
        for k in range(labels.size):
            one = {
                name: _at(obs, options, dim, k) if name in shares else (obs, options)
                for name, (obs, options) in observed.items()
            }
            if times:
                one = _within(one, labels[k], window)
            part = _along(
                ensemble.isel(dim, k), one, settings, None if times else window, alone=False
            )
            parts.append(part.drop_dims(_obs_dims(part)) if times and labels.size > 1 else part)
        index = labels if dim in labels.coords else dim
        return xr.concat(
            parts, index, data_vars="all", coords="minimal", compat="override", join="override"
        )
    if window is not None:
        own = _own_time(ensemble)
        kept = _within(observed, own, window)
        if alone and not any(value_of(as_points(o), s["value"]).size for o, s in kept.values()):
            raise ParameterError(
                f"none of the observations lies within window={window} of the time of the "
                f"ensemble, {own.values[()]}; select other ones, or widen the window"
            )
        observed = kept
    return _one(ensemble, observed, settings, alone=alone)


def _dims(obs: Any) -> tuple[str, ...]:
    return () if isinstance(obs, Observations) else tuple(map(str, obs.dims))


def _obs_dims(part: xr.Dataset) -> list[Any]:
    """Dimensions of single observations, whose number changes from time to time."""
    found = (part[name].dims for name in part.data_vars if str(name).endswith("status"))
    return [d for dims in found for d in dims]


def _at(obs: Any, options: dict[str, Any], dim: str, k: int) -> tuple[Any, dict[str, Any]]:
    own = {
        key: v.isel({dim: k}) if isinstance(v, xr.DataArray) and dim in v.dims else v
        for key, v in options.items()
    }
    return obs.isel({dim: k}), own


def _check_labels(obs: xr.DataArray | xr.Dataset, labels: xr.DataArray, dim: str) -> None:
    if dim in obs.coords and dim in labels.coords:
        same = obs.indexes[dim].equals(labels.indexes[dim])
    else:
        same = obs.sizes[dim] == labels.size
    if not same:
        raise ParameterError(
            f"the observations and the ensemble have other labels along {dim!r} "
            f"({obs.sizes[dim]} and {labels.size} of them); select the same ones, such as "
            f"obs.sel({dim}=ens.{dim}) or obs.reindex({dim}=ens.{dim})"
        )


def _own_time(ensemble: Ensemble) -> xr.DataArray:
    for da in ensemble.variables.values():
        for name in da.coords:
            if da[name].ndim == 0 and calendar_of(da[name]) is not None:
                return da[name]
    raise ParameterError(
        "window= selects observations about the time of the ensemble, which has no coordinate of "
        "one date; give it one, such as ens.assign_coords(time=...), or select the observations"
    )


def _within(observed: Paired, time: xr.DataArray, window: Any) -> Paired:
    """Keep the observations about a time."""
    found = {}
    for name, (obs, options) in observed.items():
        if isinstance(obs, Observations):
            raise ParameterError(
                "window= was given together with observations that have been read already; select "
                "their times before reading them"
            )
        chosen = select_time(obs, time.reset_coords(drop=True), window=window)
        found[name] = (chosen, options)
    return found


def _has_values(obs: Any, options: dict[str, Any]) -> bool:
    if isinstance(obs, Observations):
        return True
    return bool(value_of(as_points(obs), options["value"]).notnull().any())


def _one(ensemble: Ensemble, observed: Paired, settings: Settings, *, alone: bool) -> xr.Dataset:
    """Analyse with observations of one time."""
    grid, variables = ensemble.grid, ensemble.variables
    empty = {}
    if not alone:  # one of many times may have none
        empty = {name: pair for name, pair in observed.items() if not _has_values(*pair)}
    seen = [
        Observed.of(
            name, observed_index(variables[name], ensemble.leading, obs, name), obs, grid, options
        )
        for name, (obs, options) in observed.items()
        if name not in empty
    ]
    summary = _summary(ensemble, seen, settings)
    common: dict[str, Any] = {"space": ensemble.space}
    common["outputs"] = {"analysis": (), **dict.fromkeys(_MAPS, (ensemble.dim,))}
    work = BlockUpdate(grid)
    if settings.method == "letkf":  # the weights of a point are found once for all its values
        core = (ensemble.dim, *ensemble.leading)
        found = map_blocks(work, summary, list(variables.values()), core=core, **common)
    else:
        found = [
            map_blocks(work, summary, [da], core=(ensemble.dim,), **common)[0]
            for da in variables.values()
        ]
    result = xr.Dataset()
    for (name, da), maps in zip(variables.items(), found, strict=True):
        result[name] = maps["analysis"].assign_attrs(da.attrs)
        for key, text in _MAPS.items():
            attrs = derived_attrs(da.attrs, long_name=text)
            result[_prefix(ensemble, name) + key] = maps[key].assign_attrs(attrs)
    for name, (obs, options) in empty.items():
        source = value_of(as_points(obs), options["value"])
        nothing = {"count": 0, "innovation": np.full(source.shape, np.nan)}
        nothing |= {"status": np.full(source.shape, STATUS.index("missing"))}
        kept = Summary({f"{k}_0": v for k, v in nothing.items()}, lazy=False)
        result = _about(result, _prefix(ensemble, name), variables[name], source, kept, 0)
    for number, part in enumerate(seen):
        prefix, da = _prefix(ensemble, part.variable), variables[part.variable]
        result = _about(result, prefix, da, part.first.source, summary, number)
    return _with_settings(result, ensemble, settings, summary)


def _prefix(ensemble: Ensemble, name: str) -> str:
    return "" if len(ensemble.variables) == 1 else f"{name}_"


def _summary(ensemble: Ensemble, seen: list[Observed], settings: Settings) -> Summary:
    """Lay out what is found before any block is analysed."""
    if not seen:
        kept = {"update": Update(1.0, 0.0), "chi_square": 0.0, "localization": np.nan}
        if isinstance(settings.inflation, Adaptive):
            kept["inflation"] = settings.inflation.variance_factor
        return Summary(kept, lazy=False)
    arrays = [part.pick(ensemble.variables[part.variable]) for part in seen]
    sample = None
    if settings.method == "letkf" and settings.localization is None:
        sample = RadiusSample.on(ensemble.grid)
        first = ensemble.variables[seen[0].variable].isel(seen[0].where)
        arrays.append(pick_points(first, ensemble.space, sample.nodes))
    return summarise(Solve(tuple(seen), ensemble.grid, settings, sample), *arrays)


def _about(
    result: xr.Dataset,
    prefix: str,
    field: xr.DataArray,
    source: xr.DataArray,
    summary: Summary,
    number: int,
) -> xr.Dataset:
    """Add what is known of the innovations of one variable."""
    for name, (key, text, dtype) in _NUMBERS.items():
        units = "1" if key == "count" else None
        words = derived_attrs(field.attrs, long_name=text, units=units)
        result[prefix + name] = ((), summary.array(f"{key}_{number}", (), dtype), words)
    dims = [prefix + own_name(d) for d in source.dims]
    innovation = summary.array(f"innovation_{number}", source.shape, np.float64)
    words = derived_attrs(field.attrs, long_name="observed minus forecast mean")
    result[prefix + "innovation"] = (dims, innovation, words)
    status = summary.array(f"status_{number}", source.shape, np.int8)
    result[prefix + "status"] = (dims, status, status_attrs())
    if not summary.lazy:
        result.attrs[prefix + "observations"] = summarised(status)
    own = {
        prefix + own_name(n): ([prefix + own_name(d) for d in c.dims], c.values, c.attrs)
        for n, c in source.coords.items()
        if c.ndim
    }
    return result.assign_coords(own)


def _with_settings(
    result: xr.Dataset, ensemble: Ensemble, settings: Settings, summary: Summary
) -> xr.Dataset:
    """Add the numbers about the analysis as a whole."""
    numbers = {"chi_square": "squared innovations in units of what was expected, summed up"}
    if settings.method == "letkf":
        numbers["localization"] = "distance at which observations lose their last influence"
    if isinstance(settings.inflation, Adaptive):
        numbers["inflation"] = "factor on the variance of the forecast"
    for name, text in numbers.items():
        metres = name == "localization" and ensemble.grid.kind != "index"
        attrs = {"long_name": text, "units": "m" if metres else "1"}
        result[name] = ((), summary.array(name, (), np.float64), attrs)
    return result

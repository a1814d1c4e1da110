"""The Dataset of a space-time prior: its variables in units of people, described and recognised.

Variables on (Y, X), or without dimensions where they are constant, or on (time, Y, X) where they
vary from step to step, each holding on the way to its time: ``length`` and
``length_across`` (km), ``angle``, ``decay_time`` (days), ``u``, ``v`` (m s-1), ``std`` (units of
the field), ``mean``, optionally ``*_stderr``. ``length``, ``decay_time`` and ``std`` are needed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

from xr_spde._core.errors import SchemaError
from xr_spde.labels.attrs import check_schema, derived_attrs

__all__ = [
    "NEEDED",
    "PRIOR_SCHEMA",
    "PRIOR_VARIABLES",
    "STEP",
    "describe_prior",
    "is_prior",
    "require_prior",
]

PRIOR_SCHEMA = "xr_spde.spde_prior"
PRIOR_SCHEMA_VERSION = 1
NEEDED = ("length", "decay_time", "std")
PRIOR_VARIABLES = ("length", "length_across", "angle", "decay_time", "u", "v", "std", "mean")
STEP = "time_step"
"""Attribute with the length of a step in days."""

_WORDS: dict[str, tuple[str, str | None]] = {
    "length": ("correlation length along the direction of longest correlation", "km"),
    "length_across": ("correlation length across the direction of longest correlation", "km"),
    "angle": ("direction of longest correlation, counter-clockwise from increasing X toward "
              "increasing Y", "radian"),
    "decay_time": ("decay time of the longest waves", "days"),
    "u": ("velocity along increasing X at which anomalies move", "m s-1"),
    "v": ("velocity along increasing Y at which anomalies move", "m s-1"),
    "std": ("stationary standard deviation of {}", None),
    "mean": ("prior mean of {}", None),
    "obs_error": ("standard deviation of independent errors of observations of {}", None),
    "track_error": ("standard deviation of errors along tracks of {}", None),
    "track_length": ("distance at which errors along tracks are correlated by 1 / e", "km"),
}  # fmt: skip


def is_prior(obj: object) -> bool:
    """Whether an object is meant as the Dataset of a space-time prior.

    Parameters
    ----------
    obj : object
        Anything.

    Returns
    -------
    bool
    """
    if not isinstance(obj, xr.Dataset):
        return False
    return obj.attrs.get("schema") == PRIOR_SCHEMA or {"length", "decay_time"} <= set(obj.data_vars)


def require_prior(prior: object) -> xr.Dataset:
    """Check the structure of the Dataset of a prior, without reading its values.

    Parameters
    ----------
    prior : object
        What was given as one.

    Returns
    -------
    Dataset

    Raises
    ------
    SchemaError
        Another type, missing variables, other units, or a newer schema.
    """
    if not isinstance(prior, xr.Dataset):
        raise SchemaError(
            f"prior is of type {type(prior).__name__}; expected a Dataset with "
            f"{', '.join(NEEDED)}; pass the result of .assim.spde_prior()"
        )
    missing = [name for name in NEEDED if name not in prior]
    if missing:
        raise SchemaError(
            f"the prior lacks {', '.join(map(repr, missing))}; expected {', '.join(NEEDED)}; pass "
            "the result of .assim.spde_prior()"
        )
    check_schema(prior.attrs, PRIOR_SCHEMA, PRIOR_SCHEMA_VERSION, what="the prior")
    for name, (_, units) in _WORDS.items():
        given = prior[name].attrs.get("units", units) if name in prior else units
        if units is not None and given != units:
            raise SchemaError(f"{name} has units {given!r}; {units!r} are expected; convert it")
    return prior


def describe_prior(
    variables: Mapping[str, xr.DataArray],
    *,
    source: xr.DataArray,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Build the Dataset of a prior with CF attributes and its schema.

    Parameters
    ----------
    variables : mapping of str to DataArray
        Those of :data:`PRIOR_VARIABLES`, their ``*_stderr``, and further numbers.
    source : DataArray
        The fields, for units and the name of the quantity.
    attrs : mapping
        Of the Dataset.

    Returns
    -------
    Dataset
    """
    result = xr.Dataset({name: da.drop_attrs(deep=False) for name, da in variables.items()})
    what = str(source.attrs.get("long_name", source.name or "field"))
    units: Mapping[Hashable, object] = {k: v for k, v in source.attrs.items() if k == "units"}
    for name in map(str, result.data_vars):
        base = name.removesuffix("_stderr")
        if base not in _WORDS:
            continue
        text, own = _WORDS[base]
        text = ("standard error of: " if base != name else "") + text.format(what)
        result[name].attrs = derived_attrs(units if own is None else {}, long_name=text, units=own)
    head = {"Conventions": "CF-1.11", "schema": PRIOR_SCHEMA}
    return result.assign_attrs({**head, "schema_version": PRIOR_SCHEMA_VERSION, **attrs})

"""The parameter Dataset: built, described and checked in one place.

Variables on (..., Y, X): ``kappa2``, ``rho``, ``theta``, optionally ``mean`` and ``std`` of the
replicates, ``*_stderr`` and large-scale ``patterns`` on (..., mode, Y, X), and the variance
``nugget`` (...) of the observations' noise. NaN in all three parameters at a grid point is land.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import SchemaError, listed
from xr_spde._core.provenance import provenance
from xr_spde.labels.arrays import as_float
from xr_spde.labels.attrs import check_schema, derived_attrs
from xr_spde.labels.axes import find_spatial

PARAMETER_SCHEMA = "xr_spde.sar_parameters"
PARAMETER_SCHEMA_VERSION = 1
PARAMETERS = ("kappa2", "rho", "theta")
MOMENTS = ("mean", "std")
STDERR = "_stderr"
PATTERNS = "patterns"
NUGGET = "nugget"
MODE = "mode"

_RHO_TOLERANCE = 1e-6
_ATTRS: dict[str, dict[str, str]] = {
    "kappa2": {
        "long_name": "inverse squared correlation range, per squared grid cell",
        "units": "1",
    },
    "rho": {"long_name": "anisotropy ratio", "units": "1"},
    "theta": {
        "long_name": "direction of longest correlation, counter-clockwise from increasing X "
        "toward increasing Y",
        "units": "radian",
    },
}

_NUMBERS = {
    "dilation": "cells between the neighbours of the fitted stencil",
    "log_likelihood": "exact log-likelihood at the fit",
    "log_likelihood_error": "bound of the error of the log-likelihood",
    "effective_parameters": "effective number of fitted parameters",
}


def is_parameters(obj: object) -> bool:
    """Whether an object is meant as a parameter Dataset rather than as fields.

    ``theta`` and ``rho`` alone say nothing: potential temperature and density have these names.

    Parameters
    ----------
    obj : object
        Anything.

    Returns
    -------
    bool

    Examples
    --------
    >>> import xarray as xr
    >>> from xr_spde.labels.schema import is_parameters
    >>> is_parameters(xr.Dataset({"theta": 290.0, "rho": 1.2})), is_parameters(
    ...     xr.Dataset({"kappa2": 0.5, "theta": 0.0})
    ... )
    (False, True)
    """
    if not isinstance(obj, xr.Dataset):
        return False
    return "kappa2" in obj.data_vars or obj.attrs.get("schema") == PARAMETER_SCHEMA


def parameter_attrs(
    name: str, source: Mapping[Hashable, object] | None = None
) -> dict[str, object]:
    """CF attributes of one variable of a parameter Dataset.

    Parameters
    ----------
    name : str
        ``kappa2``, ``rho``, ``theta``, ``mean``, ``std``, or one of them with ``_stderr``.
    source : mapping, optional
        Attributes of the fields, whose units ``mean`` and ``std`` inherit.

    Returns
    -------
    dict
    """
    base = name.removesuffix(STDERR)
    if base == PATTERNS:
        what = str((source or {}).get("long_name", "field"))
        return derived_attrs(source or {}, long_name=f"large-scale patterns of {what}")
    if base in _NUMBERS:
        return {"long_name": _NUMBERS[base], "units": "1"}
    if base == NUGGET:
        what = str((source or {}).get("long_name", "field"))
        units = (source or {}).get("units")
        squared = {} if units is None else {"units": "1" if units == "1" else f"({units})^2"}
        return {"long_name": f"variance of the noise of {what}", **squared}
    if base == "coefficients":
        name_of = "regression coefficients, in units of the field over those of the covariate"
        stderr = f"standard error of: {name_of}"
        return {"long_name": stderr if name.endswith(STDERR) else name_of}
    if base in _ATTRS:
        attrs: dict[str, object] = dict(_ATTRS[base])
    else:
        words = {"mean": "mean", "std": "standard deviation"}.get(base, base)
        what = str((source or {}).get("long_name", "field"))
        attrs = derived_attrs(source or {}, long_name=f"{words} of {what} over the replicates")
    if base != name:
        attrs["long_name"] = f"standard error of: {attrs['long_name']}"
    return attrs


def parameters_dataset(
    variables: Mapping[str, xr.DataArray],
    *,
    method: str,
    boundary: str,
    source: xr.DataArray | None = None,
    settings: Mapping[str, object] | None = None,
) -> xr.Dataset:
    """Build a parameter Dataset with its CF attributes, schema and provenance.

    Parameters
    ----------
    variables : mapping of str to DataArray (..., Y, X)
        At least ``kappa2``, ``rho`` and ``theta``; lazy arrays stay lazy.
    method : str
        How they were obtained.
    boundary : str
        Boundary of the operator the parameters belong to.
    source : DataArray, optional
        The fields, for units and the name of the quantity.
    settings : mapping, optional
        Settings of the method, recorded as attributes.

    Returns
    -------
    Dataset
        Coordinates are those of ``variables``.

    Raises
    ------
    SchemaError
        A parameter is missing.
    """
    _require(variables)
    from_attrs = {} if source is None else _quantity_attrs(source)
    described = {
        name: da.drop_attrs(deep=False).assign_attrs(parameter_attrs(name, from_attrs))
        for name, da in variables.items()
    }
    dataset = xr.Dataset(described)
    for variable in dataset.variables.values():
        # The map projection is often a data variable, which does not come along with a field.
        if variable.attrs.get("grid_mapping", "") not in dataset.variables:
            variable.attrs.pop("grid_mapping", None)
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "schema": PARAMETER_SCHEMA,
        "schema_version": PARAMETER_SCHEMA_VERSION,
        "boundary": boundary,
        **({} if source is None or source.name is None else {"source_variable": str(source.name)}),
        **provenance(method, **(settings or {})),
    }
    return dataset


def validate_parameters(
    params: xr.Dataset, *, x: str | None = None, y: str | None = None
) -> xr.Dataset:
    """Check the structure of a parameter Dataset, without reading its values.

    Parameters
    ----------
    params : Dataset
        From an estimator, from disk or written by hand; a parameter may be constant along some
        dimensions (``rho = 1``).
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    Dataset
        The variables of the schema only, floating, transposed to (..., Y, X); the three parameters
        broadcast against one another.

    Raises
    ------
    SchemaError
        Not a Dataset, missing parameters, a newer schema, angles in degrees, no horizontal axes,
        moments on dimensions that the parameters do not have.
    DTypeError
        Complex, object or date values.
    """
    if not isinstance(params, xr.Dataset):
        raise SchemaError(
            f"a {type(params).__name__} was given; a parameter Dataset with {', '.join(PARAMETERS)}"
            " is expected; pass the result of estimate()"
        )
    _require(params.data_vars)
    _check_identity(params)
    names = (*PARAMETERS, *MOMENTS, PATTERNS, NUGGET)
    known = [n for n in params.data_vars if str(n).removesuffix(STDERR) in names]
    floats = {str(name): as_float(params[name]) for name in known}
    floats.update(zip(PARAMETERS, xr.broadcast(*(floats[n] for n in PARAMETERS)), strict=True))
    y_dim, x_dim = find_spatial(params[known], x=x, y=y)
    core = floats["kappa2"]
    if not {y_dim, x_dim} <= set(core.dims):
        raise SchemaError(
            f"the parameters have dimensions {listed(core.dims)}, without {y_dim!r} and {x_dim!r};"
            " at least one of kappa2, rho and theta must vary on the grid; broadcast it with "
            "xr.full_like or .broadcast_like"
        )
    leading = [dim for dim in core.dims if dim not in (y_dim, x_dim)]
    if PATTERNS in floats and MODE not in floats[PATTERNS].dims:  # one, selected from several
        floats = {name: da.drop_vars(MODE, errors="ignore") for name, da in floats.items()}
        floats[PATTERNS] = floats[PATTERNS].expand_dims(MODE)
    for name, da in floats.items():
        allowed = {PATTERNS: (*core.dims, MODE), NUGGET: leading}.get(name, core.dims)
        extra = [dim for dim in da.dims if dim not in allowed]
        if extra and name == NUGGET and set(extra) <= set(core.dims):
            raise SchemaError(
                f"'nugget' has the dimension{'s' if len(extra) > 1 else ''} {listed(extra)}; one "
                "variance for all cells is expected; average it"
            )
        if extra:
            raise SchemaError(
                f"{name!r} has the dimension{'s' if len(extra) > 1 else ''} {listed(extra)}, "
                f"which kappa2, rho and theta ({listed(core.dims)}) lack; select along it first"
            )
    order = (*[dim for dim in leading if dim != MODE], MODE, y_dim, x_dim)
    ordered = {
        name: da.transpose(*[d for d in order if d in da.dims]) for name, da in floats.items()
    }
    return xr.Dataset(ordered, attrs=params.attrs)


def check_parameter_values(
    kappa2: NDArray[np.floating],
    rho: NDArray[np.floating],
    theta: NDArray[np.floating],
    *,
    mean: NDArray[np.floating] | None = None,
    std: NDArray[np.floating] | None = None,
) -> NDArray[np.bool_]:
    """Check parameter values; meant to run inside lazy tasks.

    Parameters
    ----------
    kappa2, rho, theta : ndarray (..., ny, nx)
        Parameters; NaN in all three at a point is land.
    mean, std : ndarray (..., ny, nx), optional
        Moments of the field.

    Returns
    -------
    ndarray (..., ny, nx) of bool
        True on land.

    Raises
    ------
    SchemaError
        Naming the variable, the number of bad points and the first of them: ``kappa2 <= 0``,
        ``rho < 1`` (by more than 1e-6), ``theta`` beyond a full turn (degrees?), infinities, NaN in
        only some of the three parameters, NaN of a moment off land, a negative ``std``.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.labels.schema import check_parameter_values
    >>> kappa2 = np.array([[0.1, np.nan]])
    >>> check_parameter_values(kappa2, kappa2 * 0 + 2, kappa2 * 0)
    array([[False,  True]])
    """
    values = dict(zip(PARAMETERS, np.broadcast_arrays(kappa2, rho, theta), strict=True))
    missing = {name: np.isnan(array) for name, array in values.items()}
    land = missing["kappa2"] & missing["rho"] & missing["theta"]
    _check_missing(missing, land)
    moments = {"mean": mean, "std": std}
    values.update({name: array for name, array in moments.items() if array is not None})
    for name, array in values.items():
        _refuse(np.isinf(array), name, array, "infinite", "finite values are expected")
    _refuse(
        values["kappa2"] <= 0, "kappa2", values["kappa2"], "not positive",
        "kappa2 > 0 is expected (an inverse squared range); clip it, such as .clip(min=1e-4)",
    )  # fmt: skip
    _refuse(
        values["rho"] < 1 - _RHO_TOLERANCE, "rho", values["rho"], "below 1",
        "rho >= 1 is expected; where it is below, use 1 / rho and turn theta by pi / 2",
    )  # fmt: skip
    _refuse(
        np.abs(values["theta"]) > 2.0 * np.pi, "theta", values["theta"], "beyond a full turn",
        "radian are expected; convert degrees with np.deg2rad",
    )  # fmt: skip
    if std is not None:
        _refuse(std < 0, "std", std, "negative", "a standard deviation is expected; take abs(std)")
    for name in ("mean", "std"):
        if name in values:
            _refuse(
                np.isnan(values[name]) & ~land, name, values[name], "NaN off land",
                "NaN is allowed only where kappa2, rho and theta are all NaN; fill it, or set the "
                "three to NaN there",
            )  # fmt: skip
    return np.asarray(land)


def _check_missing(missing: Mapping[str, NDArray[np.bool_]], land: NDArray[np.bool_]) -> None:
    partial = {name: np.count_nonzero(mask & ~land) for name, mask in missing.items()}
    if any(partial.values()):
        counts = ", ".join(f"{name} at {n}" for name, n in partial.items() if n)
        whole = [name for name, n in partial.items() if not n]
        other = (
            f" while {', '.join(whole)} {'are' if len(whole) > 1 else 'is'} not" if whole else ""
        )
        raise SchemaError(
            f"NaN in only some of the parameters ({counts} grid points{other}); land is NaN in "
            "kappa2, rho and theta together, and every other point needs all three; fill them, or "
            "mask with params.where(params.kappa2.notnull() & params.rho.notnull() & "
            "params.theta.notnull())"
        )


def _refuse(
    bad: NDArray[np.bool_], name: str, array: NDArray[np.floating], what: str, advice: str
) -> None:
    count = int(np.count_nonzero(bad))
    if count:
        first = tuple(int(k) for k in np.argwhere(bad)[0])
        raise SchemaError(
            f"{name} is {what} at {count} of {array.size} grid points, first at index {first} "
            f"({array[first]:g}); {advice}"
        )


def _quantity_attrs(source: xr.DataArray) -> dict[Hashable, object]:
    """Attributes of the fields, with a long name in any case where they have a name."""
    named = {} if source.name is None else {"long_name": str(source.name)}
    standard = source.attrs.get("standard_name")
    return {**named, **({"long_name": standard} if standard else {}), **source.attrs}


def _require(variables: Mapping[str, object] | Mapping[Hashable, object]) -> None:
    missing = [name for name in PARAMETERS if name not in variables]
    if missing:
        raise SchemaError(
            f"the parameter Dataset lacks {listed(missing)}; found {listed(variables)}; variables"
            f" {', '.join(PARAMETERS)} are expected; pass the result of estimate() or build them"
        )


def _check_identity(params: xr.Dataset) -> None:
    what = "the parameter Dataset"
    check_schema(params.attrs, PARAMETER_SCHEMA, PARAMETER_SCHEMA_VERSION, what=what)
    units = str(params["theta"].attrs.get("units", "radian")).lower()
    if units.startswith("deg"):
        raise SchemaError(
            f"theta has units {units!r}; radian are expected; convert with "
            "params.assign(theta=np.deg2rad(params.theta).assign_attrs(units='radian'))"
        )

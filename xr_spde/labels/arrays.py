"""From whatever the user holds to one floating DataArray."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xr_spde._core.errors import AxisNotFoundError, DTypeError, GridError
from xr_spde.labels.axes import find_spatial


def as_float(da: xr.DataArray) -> xr.DataArray:
    """Floating data: integers and booleans become float64, float32 and float64 stay.

    Parameters
    ----------
    da : DataArray
        Any dtype; lazy data stay lazy.

    Returns
    -------
    DataArray
        float32 or float64 (half precision becomes float32, extended precision float64).

    Raises
    ------
    DTypeError
        Complex, object, string or date values.

    Examples
    --------
    >>> import xarray as xr
    >>> from xr_spde.labels.arrays import as_float
    >>> as_float(xr.DataArray([1, 2], dims="x")).dtype
    dtype('float64')
    """
    kind, name = da.dtype.kind, repr(str(da.name)) if da.name is not None else "the data"
    if kind == "f":
        target = {2: np.float32, 16: np.float64}.get(da.dtype.itemsize)
        return da if target is None else da.astype(target)
    if kind in "iub":
        return da.astype(np.float64)
    advice = {
        "c": "pass .real, .imag or abs()",
        "O": "convert with .astype(float)",
        "M": "subtract a date and divide by a numpy.timedelta64",
        "m": "divide by a numpy.timedelta64",
    }.get(kind, "convert it to numbers")
    raise DTypeError(f"{name} has dtype {da.dtype}; real numbers are expected; {advice}")


def array_of(
    obj: xr.DataArray | xr.Dataset, *, x: str | None = None, y: str | None = None
) -> xr.DataArray:
    """One DataArray from a DataArray or Dataset.

    Parameters
    ----------
    obj : DataArray or Dataset
        A DataArray is returned as it is. Of a Dataset, the floating variables on the grid are
        taken (integers only where there is no floating one); others, such as time bounds, are
        passed over.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray
        The variable where there is one; several are joined along a new leading dimension
        ``variable``.

    Raises
    ------
    AxisNotFoundError
        No variable has the horizontal axes.
    GridError
        Variables on different grids or with different dimensions.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.labels.arrays import array_of
    >>> field = (("time", "lat", "lon"), np.zeros((2, 3, 4)))
    >>> array_of(xr.Dataset({"t": field, "crs": 0})).name
    't'
    >>> array_of(xr.Dataset({"t": field, "u": field})).dims
    ('variable', 'time', 'lat', 'lon')
    """
    if isinstance(obj, xr.DataArray):
        return obj
    found: dict[str, tuple[str, str]] = {}
    reasons: dict[str, Exception] = {}
    for key, da in obj.data_vars.items():
        if da.ndim < 2 or da.dtype.kind not in "fiub":
            continue
        try:
            found[str(key)] = find_spatial(da, x=x, y=y)
        except (AxisNotFoundError, GridError) as error:
            reasons[str(key)] = error
    floating = {name: dims for name, dims in found.items() if obj[name].dtype.kind == "f"}
    chosen = floating or found
    if not chosen:
        raise _no_variable(obj, reasons)
    if len(chosen) == 1:
        return _with_projection(obj[next(iter(chosen))], obj)
    _check_alike(obj, chosen)
    first = obj[next(iter(chosen))]
    joined = obj[list(chosen)].to_dataarray("variable").transpose("variable", *first.dims)
    common = {k: v for k, v in first.attrs.items() if all(obj[n].attrs.get(k) == v for n in chosen)}
    return _with_projection(joined.drop_attrs(deep=False).assign_attrs(common).rename(None), obj)


def _with_projection(da: xr.DataArray, obj: xr.Dataset) -> xr.DataArray:
    """Add the map projection that the attribute ``grid_mapping`` names as a scalar coordinate."""
    name = str(da.attrs.get("grid_mapping", ""))
    if name in obj.data_vars and obj[name].ndim == 0:
        return da.assign_coords({name: obj[name].variable})
    return da


def _no_variable(obj: xr.Dataset, reasons: dict[str, Exception]) -> Exception:
    if len(set(map(str, reasons.values()))) == 1:
        return next(iter(reasons.values()))
    variables = ", ".join(f"{n}{tuple(map(str, v.dims))}" for n, v in obj.data_vars.items())
    return AxisNotFoundError(
        f"no variable of the Dataset lies on a grid: {variables or 'it has none'}; a numeric "
        'variable with two horizontal axes is expected; pass x="..." and y="...", or one variable '
        'such as ds["name"]'
    )


def _check_alike(obj: xr.Dataset, chosen: dict[str, tuple[str, str]]) -> None:
    if len(set(chosen.values())) > 1:
        listed = "; ".join(f"{name} on {dims}" for name, dims in chosen.items())
        raise GridError(
            f"the variables lie on different grids: {listed}; choose those of one grid, such as "
            f"ds[[{next(iter(chosen))!r}]]"
        )
    if len({frozenset(obj[name].dims) for name in chosen}) > 1:
        listed = "; ".join(f"{name}{tuple(map(str, obj[name].dims))}" for name in chosen)
        raise GridError(
            f"the variables have different dimensions: {listed}; choose those that belong "
            f"together, such as ds[[{next(iter(chosen))!r}]]"
        )

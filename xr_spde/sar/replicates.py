"""What is done with replicates of a field: standardise them, and weigh them against a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import AxisNotFoundError, ParameterError, SchemaError
from xr_spde._core.memory import memory_budget
from xr_spde._core.options import carry_options
from xr_spde._core.provenance import provenance
from xr_spde.fields.moments import DETERMINANTS, DIRECT, check_method
from xr_spde.labels.arrays import array_of, as_float
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.axes import check_replicates, find_replicates, find_spatial
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.lazy import is_lazy, single_core_chunk
from xr_spde.labels.schema import MODE, MOMENTS, NUGGET, PARAMETERS, PATTERNS
from xr_spde.models import Buffer, ModelRecipe, model_variables, read_model, remaining_std
from xr_spde.sar.density import log_density
from xr_spde.sar.moments import variance_method

__all__ = ["log_likelihood", "standardize"]

Obj = TypeVar("Obj", xr.DataArray, xr.Dataset)
Array = NDArray[np.floating]

_SLAB = 32
"""Replicates taken together, at least."""

_SHARE, _COPIES = 0.1, 8
"""Of memory for those that windows take together, and copies of each that are held at a time."""


def standardize(
    fields: Obj, dim: str | None = None, *, x: str | None = None, y: str | None = None
) -> Obj:
    """Subtract the mean over replicates and divide by their standard deviation, cell by cell.

    What is left has mean 0 and sum of squares M - 1 at every cell, so that only correlations
    remain. It is meant for looking at data and for networks: a likelihood wants the anomalies
    themselves, since the sample standard deviation brings its own noise into every cell.

    Parameters
    ----------
    fields : DataArray or Dataset
        (realization, ..., Y, X) in any order. Of a Dataset, the variables with the three dimensions
        are standardised; the others pass through untouched.
    dim : str, optional
        Dimension of the replicates; found by itself where it is clear.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray or Dataset
        Same dimensions and floating dtype, without units; lazy for lazy data. Missing values stay
        missing and are left out of the moments. A cell that never varies, or is present in fewer
        than two replicates, is NaN: it has no standard deviation to be measured in.

    Raises
    ------
    ParameterError
        Fewer than two replicates; when computed: infinite values.
    AxisNotFoundError
        No horizontal axes or replicate dimension, or ambiguous ones.
    DTypeError
        Complex, object or date values.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.sar import standardize
    >>> z = np.random.default_rng(0).standard_normal((5, 3, 4))
    >>> s = standardize(xr.DataArray(z, dims=("realization", "lat", "lon")))
    >>> float((s**2).sum("realization").mean().round(6))
    4.0
    """
    if isinstance(fields, xr.DataArray):
        return _standardize(fields, dim, find_spatial(fields, x=x, y=y))
    spatial = find_spatial(fields, x=x, y=y)
    on_grid = [
        name
        for name, da in fields.data_vars.items()
        if set(spatial) <= set(da.dims) and (da.ndim > 2 if dim is None else dim in da.dims)
    ]
    if not on_grid:
        listed = ", ".join(f"{name}{da.dims}" for name, da in fields.data_vars.items())
        raise AxisNotFoundError(
            f"no variable has the axes {spatial} and replicates; found {listed or 'no variable'}; "
            "pass a DataArray, or dim= with the dimension of the replicates"
        )
    return fields.assign({name: _standardize(fields[name], dim, spatial) for name in on_grid})


def _standardize(da: xr.DataArray, dim: str | None, spatial: tuple[str, str]) -> xr.DataArray:
    fields = as_float(da)
    replicates = find_replicates(fields, dim, spatial=spatial)
    check_replicates(fields.sizes[replicates], dim=replicates)
    # Single precision would lose the anomalies of a field with a large mean.
    wide = xr.apply_ufunc(
        _finite, fields.astype(np.float64), dask="parallelized", output_dtypes=[np.float64]
    )
    count = wide.notnull().sum(replicates)
    mean = wide.sum(replicates) / count.where(count > 0)
    anomalies = wide - mean
    variance = (anomalies**2).sum(replicates) / (count - 1).where(count > 1)
    # The mean of equal values is off by rounding, and their variance by its square.
    varies = variance > (8.0 * np.finfo(np.float64).eps * mean) ** 2
    result = (anomalies / np.sqrt(variance.where(varies))).astype(fields.dtype)
    what = str(da.attrs.get("long_name", da.name if da.name is not None else "field"))
    attrs = derived_attrs({}, long_name=f"standardized {what}", units="1")
    attrs |= provenance("standardize", dim=replicates)
    return result.transpose(*da.dims).rename(da.name).drop_attrs(deep=False).assign_attrs(attrs)


def log_likelihood(
    fields: xr.DataArray | xr.Dataset,
    params: xr.Dataset,
    dim: str | None = None,
    *,
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = 0,
    method: str = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Log-likelihood of the fields under the Gaussian model of a parameter Dataset.

    The sum over replicates of ``log|det B| - n/2 log(2 pi) - |B y|^2 / 2`` with
    ``y = (field - mean) sqrt(var y) / std``, minus the sum of ``log(std / sqrt(var y))``: the
    density of the law that `emulate` draws from, with the same buffer. Cells without data (land,
    gaps, buffer), the amplitudes of large-scale patterns and, with ``nugget``, the noise of the
    observations are integrated out exactly; a replicate without any data contributes nothing.

    With parameters of ``estimate(method="mle")`` it is not the attained maximum that the variable
    ``log_likelihood`` of theirs is: that one has maps of the variance of its own in place of
    ``std``, a mean that is integrated out, and a buffer.

    It is exact wherever a factor of B fits in memory. On larger grids ``log|det B|``, and whatever
    is integrated out, comes from overlapping windows (`xr_spde.fields.windows`), and the coordinate
    ``log_likelihood_error`` bounds what that may be off (for data in memory the attribute
    ``xr_spde_error`` as well); most of it is the same for parameters that are close. A probed
    variance (see `variance`), by which fields are scaled where there is ``std``, brings an error of
    its own that is not in it.

    It is the likelihood of neighbouring cells whatever the ``dilation`` of the parameters. Above 1
    they were fitted to differences of cells further apart and are not where this likelihood is
    largest: others may score higher here and have worse correlations at a distance. Compare
    parameters of the same dilation.

    Parameters
    ----------
    fields : DataArray or Dataset
        (realization, ..., Y, X) in any order, in the units of ``mean`` and ``std``.
    params : Dataset
        Parameters on the same grid, in whatever storage order. Without ``mean`` the fields are
        taken as anomalies, without ``std`` as the bare ``y``; with ``nugget`` they are observations
        of that field with independent noise of this variance.
    dim : str, optional
        Dimension of the replicates. Leading dimensions of fields and parameters are matched.
    solver, boundary
        As in `emulate`.
    buffer : int or "auto", default 0
        As in `emulate`. Integrating a wide buffer out costs a second, larger factorisation.
    method : {"auto", "exact", "windows"}, default "auto"
        Of ``log|det B|`` and of gaps. "auto" is "exact" if the solver is a direct one, as it is on
        all grids that fit. The attribute ``xr_spde_determinant`` says which was taken.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray
        Natural logarithm, one number per leading index; lazy if an input is.

    Raises
    ------
    GridError
        Fields and parameters on different grids.
    MemoryGuardError
        ``method="exact"``, and a factor, of B or of the cells without data, would not fit.
    UnknownNameError
        Unknown method, solver or boundary.
    ParameterError
        When computed: infinite data, or ``std`` = 0 at a cell with data and no ``nugget``.
    SchemaError
        Parameters missing or impossible.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.sar import emulate, log_likelihood
    >>> maps = {"kappa2": 0.5, "rho": 3.0, "theta": 0.3}
    >>> params = xr.Dataset({k: (("lat", "lon"), np.full((8, 9), v)) for k, v in maps.items()})
    >>> data = emulate(params, 50, seed=1, buffer=0)
    >>> wrong = params.assign(theta=params.theta + 0.8)
    >>> bool(log_likelihood(data, params) > log_likelihood(data, wrong))
    True
    """
    da = as_float(array_of(fields, x=x, y=y))
    grid = Grid.from_object(da, x=x, y=y)
    spatial = (grid.y_dim, grid.x_dim)
    replicates = find_replicates(da, dim, spatial=spatial)
    dataset, recipe = read_model(params, solver=solver, boundary=boundary, buffer=buffer, x=x, y=y)
    same_grid(grid, recipe.grid, names=("the data", "the parameter Dataset"))
    names = (*PARAMETERS, *(name for name in (*MOMENTS, PATTERNS, NUGGET) if name in dataset))
    cores = [(MODE, *spatial) if name == PATTERNS else spatial for name in names]
    maps = [
        _plain(v, (recipe.grid.y_dim, recipe.grid.x_dim), core)
        for v, core in zip(model_variables(dataset, names), cores, strict=True)
    ]
    extra = [d for d in maps[0].dims if d not in da.dims]
    lead = [d for d in da.dims if d not in (replicates, *spatial)]
    wide = _plain(da, spatial, spatial)
    wide = wide.expand_dims({d: maps[0].sizes[d] for d in extra})
    wide = wide.assign_coords({d: maps[0].coords[d] for d in extra if d in maps[0].coords})
    check_method(method, DETERMINANTS, "log-determinant")
    if method == "auto":
        method = "exact" if recipe.solver in DIRECT else "windows"
    how = {"determinant": method, "boundary": recipe.boundary, "buffer": recipe.buffer}
    if "std" in dataset:
        how["variance"] = variance_method("auto", recipe)
    density = partial(_densities, names=names, recipe=recipe, grid=grid, how=how)
    found, error = xr.apply_ufunc(
        carry_options(density),
        wide.transpose(*extra, *lead, replicates, *spatial),
        *maps,
        input_core_dims=[spatial, *cores],
        output_core_dims=[[], []],
        dask="parallelized",
        output_dtypes=[np.float64, np.float64],
        keep_attrs=False,
    )
    attrs = derived_attrs({}, long_name="log-likelihood", units="1")
    total = found.sum(replicates).rename("log_likelihood")
    if method == "windows":
        # one determinant for all replicates: its errors add up
        error = error.sum(replicates)
        total = total.assign_coords(log_likelihood_error=error.variable)
        attrs |= {} if is_lazy(error) else {"xr_spde_error": float(error.max())}
    return total.assign_attrs(attrs | provenance("log_likelihood", **how))


def _plain(da: xr.DataArray, spatial: tuple[str, str], core: tuple[str, ...]) -> xr.DataArray:
    """Without horizontal coordinates, which storage order may tell apart, in whole maps."""
    along = [name for name, coord in da.coords.items() if set(coord.dims) & {*spatial, *core}]
    renamed = da.drop_vars(along).rename(
        {old: new for old, new in zip(spatial, core[-2:], strict=True) if old != new}
    )
    return single_core_chunk(renamed, core)


def _densities(
    fields: Array,
    *maps: Array,
    names: tuple[str, ...],
    recipe: ModelRecipe,
    grid: Grid,
    how: Mapping[str, Any],
) -> tuple[Array, Array]:
    """Log-density of each replicate and its error: (lead..., M, ny, nx) to (lead..., M)."""
    lead = fields.shape[:-3]
    wide = [
        _without_replicates(m, lead, 3 if name == PATTERNS else 2)
        for name, m in zip(names, maps, strict=True)
    ]
    result, error = np.empty(fields.shape[:-2]), np.empty(fields.shape[:-2])
    for index in np.ndindex(lead):
        given = dict(zip(names, (m[index] for m in wide), strict=True))
        result[index], error[index] = _density(fields[index], given, recipe, grid, how)
    return result, error


def _without_replicates(values: Array, lead: tuple[int, ...], core: int) -> Array:
    """Broadcast (lead..., 1, core...) to the leading shape; apply_ufunc may leave the 1 out."""
    if values.ndim == len(lead) + 1 + core:
        values = np.squeeze(values, axis=-1 - core)
    return np.broadcast_to(values, lead + values.shape[values.ndim - core :])


def _density(
    fields: Array,
    maps: dict[str, Array],
    recipe: ModelRecipe,
    grid: Grid,
    how: Mapping[str, Any],
) -> tuple[Array, Array]:
    patterns = np.nan_to_num(maps.pop(PATTERNS, np.zeros((0, *fields.shape[1:]))))
    noise = _noise(maps)
    model, land = recipe.build(**maps)
    if model is None:
        return np.zeros(fields.shape[0]), np.zeros(fields.shape[0])
    home = {name: recipe.grid.to_canonical(values) for name, values in maps.items()}
    hidden = recipe.grid.to_canonical(land)
    modes, scale = recipe.grid.to_canonical(patterns), None
    if "std" in home:
        scale = remaining_std(home["std"], modes) / np.sqrt(model.variance(how["variance"]))
    # Cells without data play no part; what stands there must only be a number.
    safe = scale if scale is None or noise > 0.0 else np.where(scale > 0, scale, 1.0)
    result, error = np.empty(fields.shape[0]), np.empty(fields.shape[0])
    slab = _SLAB
    if how["determinant"] == "windows":  # their factors are not kept, and made anew for each slab
        held = _COPIES * hidden.size * np.dtype(np.float64).itemsize
        slab = max(slab, int(_SHARE * memory_budget()) // held)
    for low in range(0, fields.shape[0], slab):
        anomalies = _anomalies(fields[low : low + slab], grid, hidden, home.get("mean"))
        if scale is not None and noise == 0.0:
            _check_scale(scale, anomalies)
        part = slice(low, low + slab)
        result[part], error[part] = log_density(
            model, anomalies, safe, modes, how["determinant"], noise
        )
    return result, error


def _noise(maps: dict[str, Array]) -> float:
    """Take the nugget, the same everywhere, out of the maps."""
    noise = float(maps.pop(NUGGET, np.zeros(1)).flat[0])
    if not 0.0 <= noise < np.inf:
        raise SchemaError(
            f"nugget is {noise:g}; a variance >= 0 is expected; for fields without noise type "
            'params.drop_vars("nugget")'
        )
    return noise


def _anomalies(
    fields: Array, grid: Grid, hidden: NDArray[np.bool_], mean: Array | None
) -> NDArray[np.float64]:
    """Canonical replicates without their mean; NaN where the model has no cell."""
    values = np.array(grid.to_canonical(fields), dtype=np.float64)
    _finite(values)
    values[:, hidden] = np.nan
    return values if mean is None else values - mean


def _finite(values: Array) -> Array:
    """Return the values; raise if one is infinite."""
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ParameterError(
            f"the fields have {infinite} infinite values; expected finite numbers, or NaN for "
            "missing: mask them first, `fields.where(np.isfinite(fields))`"
        )
    return values


def _check_scale(scale: Array, anomalies: Array) -> None:
    still = (scale == 0) & np.isfinite(anomalies).any(axis=0)
    if still.any():
        raise ParameterError(
            f"std is 0, or taken up by patterns, at {int(still.sum())} cells with data, where the "
            "density is not defined; mask them in the fields, or give std a lower bound"
        )

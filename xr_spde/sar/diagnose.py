"""What fields and parameters say: correlation, variance, range, likelihood, the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.options import carry_options
from xr_spde._core.provenance import provenance
from xr_spde.fields.sar import operator as sar_operator
from xr_spde.labels.arrays import array_of, as_float
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.axes import check_replicates, find_replicates
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core, fold_replicates
from xr_spde.labels.schema import (
    MODE,
    PARAMETERS,
    PATTERNS,
    check_parameter_values,
    is_parameters,
)
from xr_spde.sar import pairs
from xr_spde.sar.model import Buffer, ModelRecipe, model_variables, read_model, remaining_std
from xr_spde.sar.positions import POINT, At, Points, find_points
from xr_spde.sar.ranges import range
from xr_spde.sar.replicates import log_likelihood, standardize

if TYPE_CHECKING:
    import scipy.sparse as sp

__all__ = ["correlation", "log_likelihood", "operator", "range", "standardize", "variance"]

Array = NDArray[np.floating]


def correlation(
    obj: xr.DataArray | xr.Dataset,
    at: At,
    dim: str | None = None,
    *,
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Correlation of every cell with given points: of the data, or of the model, exactly.

    Of fields, the sample correlation over the replicates in which both the cell and the point are
    present, in one pass with constant memory. Of a parameter Dataset, the exact correlation
    ``C_ps / sqrt(C_pp C_ss)`` with ``C = (B'B)^-1``.

    Parameters
    ----------
    obj : DataArray or Dataset
        Fields (realization, ..., Y, X), or parameters ``kappa2``, ``rho``, ``theta``. Several
        variables of fields give a ``variable`` dimension.
    at : (y, x) tuple, {dim: value} mapping, or list of them
        Positions in coordinate units, of which the nearest cells are taken; longitudes count
        modulo 360. Several give a ``point`` dimension.
    dim : str, optional
        Dimension of the replicates, for fields only.
    solver, boundary, buffer
        Of the model, as in `emulate`; for parameters only.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray (..., [point], Y, X)
        In [-1, 1], lazy for lazy data. NaN on land, everywhere for a point on land, and in data
        where fewer than two replicates have both or one of them never varies. The coordinates
        ``point_<y>`` and ``point_<x>`` say which cells were taken.

    Raises
    ------
    ParameterError
        A position outside the grid, one replicate, or an argument meant for the other kind.
    AxisNotFoundError
        No replicate dimension, or an ambiguous one.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.sar import correlation
    >>> maps = {"kappa2": 0.5, "rho": 1.0, "theta": 0.0}
    >>> params = xr.Dataset({k: (("y", "x"), np.full((9, 9), v)) for k, v in maps.items()})
    >>> float(correlation(params, at=(4, 4), buffer=20).sel(y=4, x=5).round(2))
    0.68
    """
    if isinstance(obj, xr.Dataset) and is_parameters(obj):
        if dim is not None:
            raise ParameterError(
                f"dim={dim!r} was given with a parameter Dataset, which has no replicates; leave "
                "it out, or pass the fields themselves"
            )
        return _exact_correlation(
            obj, at, solver=solver, boundary=boundary, buffer=buffer, x=x, y=y
        )
    if (solver, boundary, buffer) != ("auto", None, "auto"):
        raise ParameterError(
            "solver, boundary and buffer belong to the model of a parameter Dataset; fields were "
            "given, whose correlation is empirical; leave them out, or pass the parameters"
        )
    return _empirical_correlation(array_of(obj, x=x, y=y), at, dim, x=x, y=y)


def _empirical_correlation(
    da: xr.DataArray, at: At, dim: str | None, *, x: str | None, y: str | None
) -> xr.DataArray:
    fields = as_float(da)
    grid = Grid.from_object(fields, x=x, y=y)
    core = (grid.y_dim, grid.x_dim)
    replicates = find_replicates(fields, dim, spatial=core)
    check_replicates(fields.sizes[replicates], dim=replicates)
    points = find_points(at, grid, fields)
    spec = Output((POINT, *core), sizes={POINT: len(points.stored)})
    found = fold_replicates(
        fields,
        replicates,
        core,
        init=partial(pairs.start, points.stored),
        step=pairs.step,
        finish=_named_correlation,
        output={"correlation": spec},
    )["correlation"]
    return _describe_correlation(points.label(found, grid), "empirical", {"dim": replicates})


def _named_correlation(state: pairs.PairSums) -> Mapping[str, Array]:
    return {"correlation": pairs.finish(state)}


def _exact_correlation(
    params: xr.Dataset, at: At, *, x: str | None, y: str | None, **settings: Any
) -> xr.DataArray:
    dataset, recipe = read_model(params, x=x, y=y, **settings)
    core = (recipe.grid.y_dim, recipe.grid.x_dim)
    points = find_points(at, recipe.grid, dataset)
    names = (*PARAMETERS, "std", PATTERNS) if PATTERNS in dataset else PARAMETERS
    found = apply_core(
        carry_options(partial(_model_correlation, recipe=recipe, points=points)),
        *model_variables(dataset, names),
        core_dims=[(MODE, *core) if name == PATTERNS else core for name in names],
        output={"correlation": Output((POINT, *core), sizes={POINT: len(points.stored)})},
    )["correlation"]
    how = {"boundary": recipe.boundary, "buffer": recipe.buffer, "solver": recipe.solver}
    return _describe_correlation(points.label(found, recipe.grid), "exact", how)


def _model_correlation(
    kappa2: Array,
    rho: Array,
    theta: Array,
    std: Array | None = None,
    patterns: Array | None = None,
    *,
    recipe: ModelRecipe,
    points: Points,
) -> Array:
    """Correlation with each point (points, ny, nx), as stored."""
    model, land = recipe.build(kappa2, rho, theta)
    result = np.full((len(points.stored), *land.shape), np.nan)
    if model is None:
        return result
    rows, columns = (np.array(index) for index in zip(*points.canonical, strict=True))
    own = model.variance()
    covariance = model.covariance_with(rows, columns)
    exact = covariance / np.sqrt(own * own[rows, columns][:, None, None])
    exact = recipe.grid.from_canonical(exact)
    if std is not None and patterns is not None:
        exact = _with_patterns(exact, std, np.nan_to_num(patterns), points.stored)
    result[:] = np.clip(exact, -1.0, 1.0)
    result[:, land] = np.nan
    result[[bool(land[cell]) for cell in points.stored]] = np.nan
    return result


def _with_patterns(
    local: Array, std: Array, patterns: Array, cells: Sequence[tuple[int, int]]
) -> Array:
    """Correlation of patterns and remainder together, from that of the remainder."""
    # the sum of both variances, which is std squared unless patterns take more
    left = remaining_std(std, patterns)
    whole = np.sqrt(left**2 + np.sum(patterns**2, axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        share, parts = left / whole, patterns / whole
    at = tuple(np.array(index) for index in zip(*cells, strict=True))
    shared = np.einsum("kp,kji->pji", parts[:, *at], parts)
    return np.asarray(shared + local * share[at][:, None, None] * share)


def _describe_correlation(da: xr.DataArray, kind: str, settings: dict[str, Any]) -> xr.DataArray:
    attrs = derived_attrs({}, long_name=f"{kind} correlation with the point", units="1")
    da = da.rename("correlation").drop_attrs(deep=False)
    return da.assign_attrs(attrs | provenance(f"{kind} correlation", **settings))


def variance(
    params: xr.Dataset,
    *,
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Exact marginal variance of the fields that `emulate` draws from the parameters.

    Where ``std`` is among them, fields are scaled to it and the variance is its square. Without
    it, the variance of the bare field, the diagonal of ``(B'B)^-1`` by the selected inverse; to
    get that one from a Dataset with ``std``, use ``params.drop_vars("std").sar.variance()``.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` and optionally ``std`` on (..., Y, X).
    solver, boundary, buffer
        As in `emulate`.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray (..., Y, X)
        In squared units of ``std``; NaN on land; lazy for lazy parameters.

    Raises
    ------
    SchemaError
        Parameters or values missing or impossible.
    MemoryGuardError
        The factorisation would not fit in memory.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.sar import variance
    >>> maps = {"kappa2": 0.5, "rho": 3.0, "theta": np.pi / 4}
    >>> params = xr.Dataset({k: (("y", "x"), np.full((9, 9), v)) for k, v in maps.items()})
    >>> float(variance(params, buffer=20).mean().round(3))
    0.134
    """
    dataset, recipe = read_model(params, solver=solver, boundary=boundary, buffer=buffer, x=x, y=y)
    core = (recipe.grid.y_dim, recipe.grid.x_dim)
    names = (*PARAMETERS, "std") if "std" in dataset else PARAMETERS
    found = apply_core(
        carry_options(partial(_model_variance, recipe=recipe)),
        *model_variables(dataset, names),
        core_dims=[core] * len(names),
        output={"variance": Output(core)},
    )["variance"]
    units = str(dataset["std"].attrs.get("units", "")) if "std" in dataset else "1"
    squared = units if units in ("", "1") else f"({units})^2"
    attrs = derived_attrs({}, long_name="marginal variance", units=squared or None)
    how = {"boundary": recipe.boundary, "buffer": recipe.buffer, "solver": recipe.solver}
    return found.drop_attrs(deep=False).assign_attrs(attrs | provenance("exact variance", **how))


def _model_variance(
    kappa2: Array, rho: Array, theta: Array, std: Array | None = None, *, recipe: ModelRecipe
) -> Array:
    if std is not None:
        land = check_parameter_values(kappa2, rho, theta, std=std)
        return np.where(land, np.nan, np.asarray(std, dtype=np.float64) ** 2)
    model, land = recipe.build(kappa2, rho, theta)
    if model is None:
        return np.full(land.shape, np.nan)
    return np.where(land, np.nan, recipe.grid.from_canonical(model.variance()))


def operator(
    params: xr.Dataset,
    *,
    boundary: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> sp.csc_array:
    """Sparse matrix B of the model ``B y = e``, for people who build on it.

    The node in row ``j`` and column ``i`` of a *canonical* array, in which both coordinates
    increase (and a longitude that closes the circle starts at its smallest value modulo 360), has
    the number ``j * nx + i``. Fields go there and back with the grid of the same Dataset, as the
    example shows. There is no buffer; land has the parameters of the nearest cell that is not.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` on (Y, X); leading dimensions must have been selected.
    boundary : {"cylinder", "plane", "torus", "paper"}, optional
        As in `emulate`.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    scipy.sparse.csc_array, shape (ny * nx, ny * nx)
        Computed at once.

    Raises
    ------
    ParameterError
        Leading dimensions of more than one index.
    SchemaError
        Parameters missing or impossible; nothing but land.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.labels.grid import Grid
    >>> from xr_spde.sar import operator
    >>> maps = {"kappa2": 0.5, "rho": 3.0, "theta": 0.3}
    >>> params = xr.Dataset({k: (("lat", "lon"), np.full((4, 5), v)) for k, v in maps.items()})
    >>> B, grid = operator(params), Grid.from_object(params)
    >>> field = np.ones(grid.shape)
    >>> noise = grid.from_canonical((B @ grid.to_canonical(field).ravel()).reshape(grid.shape))
    >>> float(noise[1, 2].round(6))
    0.5
    """
    dataset, recipe = read_model(params, boundary=boundary, buffer=0, x=x, y=y)
    leading = {str(d): n for d, n in dataset["kappa2"].sizes.items() if n > 1}
    core = (recipe.grid.y_dim, recipe.grid.x_dim)
    extra = [name for name in leading if name not in core]
    if extra:
        raise ParameterError(
            f"the parameters have the dimension{'s' if len(extra) > 1 else ''} {', '.join(extra)} "
            f"beside {core}; one operator belongs to one set of maps; select it, for instance "
            f"params.isel({extra[0]}=0)"
        )
    maps = (v.to_numpy().reshape(recipe.grid.shape) for v in model_variables(dataset, PARAMETERS))
    model, land = recipe.build(*maps)
    if model is None:
        raise ParameterError(
            f"all {land.size} cells are land; expected at least one with parameters"
        )
    return sar_operator(model.kappa2, model.rho, model.theta, boundary=recipe.boundary)

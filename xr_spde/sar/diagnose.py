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
from xr_spde.fields import moments
from xr_spde.fields.moments import PROBES
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
    is_parameters,
)
from xr_spde.models import Buffer, ModelRecipe, model_variables, read_model, remaining_std
from xr_spde.sar import pairs
from xr_spde.sar.moments import ERROR, variance, variance_method, with_error
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
    method: str = "auto",
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Correlation of every cell with given points: of the data, or of the model.

    Of fields, the sample correlation over the replicates in which both the cell and the point are
    present, in one pass with constant memory. Of a parameter Dataset, the correlation
    ``C_ps / sqrt(C_pp C_ss)`` with ``C = (B'B)^-1``: exact, but for a variance ``C_ss`` that had to
    be probed, see `variance`.

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
    method : {"auto", "selected", "probing"}, default "auto"
        Of the variance, as in `variance`; for parameters only.
    solver, boundary, buffer
        Of the model, as in `emulate`; for parameters only.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray (..., [point], Y, X)
        In [-1, 1], lazy for lazy data. NaN on land, everywhere for a point on land, and in data
        where fewer than two replicates have both or one of them never varies. The coordinates
        ``point_<y>`` and ``point_<x>`` say which cells were taken; ``correlation_stderr`` is the
        standard error where variances were probed.

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
            obj, at, method, solver=solver, boundary=boundary, buffer=buffer, x=x, y=y
        )
    if (method, solver, boundary, buffer) != ("auto", "auto", None, "auto"):
        raise ParameterError(
            "method, solver, boundary and buffer belong to the model of a parameter Dataset; "
            "fields were given, whose correlation is empirical; leave them out, or pass the "
            "parameters"
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
    params: xr.Dataset, at: At, method: str, *, x: str | None, y: str | None, **settings: Any
) -> xr.DataArray:
    dataset, recipe = read_model(params, x=x, y=y, **settings)
    method = variance_method(method, recipe)
    core = (recipe.grid.y_dim, recipe.grid.x_dim)
    points = find_points(at, recipe.grid, dataset)
    names = (*PARAMETERS, "std", PATTERNS) if PATTERNS in dataset else PARAMETERS
    spec = Output((POINT, *core), sizes={POINT: len(points.stored)})
    found = apply_core(
        carry_options(partial(_model_correlation, recipe=recipe, points=points, method=method)),
        *model_variables(dataset, names),
        core_dims=[(MODE, *core) if name == PATTERNS else core for name in names],
        output={"correlation": spec} | ({ERROR: spec} if method == "probing" else {}),
    )
    how = {"boundary": recipe.boundary, "buffer": recipe.buffer, "solver": recipe.solver}
    named = points.label(found["correlation"], recipe.grid)
    if method == "selected":
        return _describe_correlation(named, "exact", how)
    how |= {"variance": method, "probes": PROBES}
    described = _describe_correlation(named, "model", how)
    return with_error(described, points.label(found[ERROR], recipe.grid))


def _model_correlation(
    kappa2: Array,
    rho: Array,
    theta: Array,
    std: Array | None = None,
    patterns: Array | None = None,
    *,
    recipe: ModelRecipe,
    points: Points,
    method: str,
) -> dict[str, Array]:
    """Correlation with each point (points, ny, nx) and its standard error, as stored."""
    model, land = recipe.build(kappa2, rho, theta)
    if model is None:
        nothing = np.full((len(points.stored), *land.shape), np.nan)
        return {"correlation": nothing, ERROR: nothing}
    rows, columns = (np.array(index) for index in zip(*points.canonical, strict=True))
    own = moments.variance(model, method)
    covariance = model.covariance_with(rows, columns)
    # at the points themselves the columns are exact
    there = covariance[np.arange(len(rows)), rows, columns]
    known = own.value.copy()
    known[rows, columns] = there
    whole = recipe.grid.from_canonical(covariance / np.sqrt(known * there[:, None, None]))
    found = {}
    if own.error is not None:
        off = own.error / own.value
        off[rows, columns] = 0.0
        found[ERROR] = 0.5 * np.abs(whole) * recipe.grid.from_canonical(off)
    if std is not None and patterns is not None:
        shared, taken = _with_patterns(std, np.nan_to_num(patterns), points.stored)
        whole = shared + whole * taken
        found = {name: error * taken for name, error in found.items()}
    found["correlation"] = np.clip(whole, -1.0, 1.0)
    for values in found.values():
        values[:, land] = np.nan
        values[[bool(land[cell]) for cell in points.stored]] = np.nan
    return found


def _with_patterns(
    std: Array, patterns: Array, cells: Sequence[tuple[int, int]]
) -> tuple[Array, Array]:
    """Correlation by patterns alone, and the factor that remains for that of the remainder."""
    # the sum of both variances, which is std squared unless patterns take more
    left = remaining_std(std, patterns)
    whole = np.sqrt(left**2 + np.sum(patterns**2, axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        share, parts = left / whole, patterns / whole
    at = tuple(np.array(index) for index in zip(*cells, strict=True))
    shared = np.einsum("kp,kji->pji", parts[:, *at], parts)
    return np.asarray(shared), np.asarray(share[at][:, None, None] * share)


def _describe_correlation(da: xr.DataArray, kind: str, settings: dict[str, Any]) -> xr.DataArray:
    attrs = derived_attrs({}, long_name=f"{kind} correlation with the point", units="1")
    da = da.rename("correlation").drop_attrs(deep=False)
    return da.assign_attrs(attrs | provenance(f"{kind} correlation", **settings))


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

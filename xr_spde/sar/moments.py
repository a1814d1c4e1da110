"""Variance of the fields of a parameter Dataset, and how it is found."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.options import carry_options
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import resolve_seed
from xr_spde.fields import moments
from xr_spde.fields.moments import PROBES
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.labels.schema import PARAMETERS, check_parameter_values
from xr_spde.models import Buffer, ModelRecipe, model_variables, read_model

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed

__all__ = ["ERROR", "variance", "variance_method", "with_error"]

Array = NDArray[np.floating]

ERROR = "stderr"
"""Name of the second output of functions that give a result and its standard error."""


def variance(
    params: xr.Dataset,
    *,
    method: str = "auto",
    probes: int = PROBES,
    seed: Seed = 0,
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Marginal variance of the fields that `emulate` draws from the parameters.

    Where ``std`` is among them, fields are scaled to it and the variance is its square. Without
    it, the variance of the bare field, the diagonal of ``(B'B)^-1``; to get that one from a Dataset
    with ``std``, use ``params.drop_vars("std").sar.variance()``.

    It is exact, by the selected inverse, wherever that fits in memory. On larger grids the variance
    of each cell given all cells beyond a window is exact, and the rest is a mean over draws of the
    field (Siden et al. 2018): with windows of a practical range, some per mille off in all.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` and optionally ``std`` on (..., Y, X).
    method : {"auto", "selected", "probing"}, default "auto"
        Exact, or by windows and draws. "auto" is the first if it is predicted to fit in memory and
        the solver is a direct one; the attribute ``xr_spde_method`` says which was taken.
    probes : int, default 16
        Number of draws.
    seed : int, SeedSequence, Generator or None, default 0
        Of the draws; the same seed gives the same numbers.
    solver, boundary, buffer
        As in `emulate`.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray (..., Y, X)
        In squared units of ``std``; NaN on land; lazy for lazy parameters. Probed, it has the
        coordinate ``variance_stderr``, the standard error of every cell, and for parameters in
        memory the attribute ``xr_spde_relative_stderr``, its root mean square relative to the
        variance. Errors of cells within a range of one another are alike.

    Raises
    ------
    ParameterError
        Fewer than two probes, or no seed.
    UnknownNameError
        Unknown method, solver or boundary.
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
    drawn = _check_probes(probes, seed)
    dataset, recipe = read_model(params, solver=solver, boundary=boundary, buffer=buffer, x=x, y=y)
    method = variance_method(method, recipe)
    exact = "std" in dataset or method == "selected"
    core = (recipe.grid.y_dim, recipe.grid.x_dim)
    names = (*PARAMETERS, "std") if "std" in dataset else PARAMETERS
    found = apply_core(
        carry_options(partial(_model_variance, recipe=recipe, method=method, drawn=drawn)),
        *model_variables(dataset, names),
        core_dims=[core] * len(names),
        output={name: Output(core) for name in (("variance",) if exact else ("variance", ERROR))},
    )
    units = str(dataset["std"].attrs.get("units", "")) if "std" in dataset else "1"
    squared = units if units in ("", "1") else f"({units})^2"
    attrs = derived_attrs({}, long_name="marginal variance", units=squared or None)
    how = {"boundary": recipe.boundary, "buffer": recipe.buffer, "solver": recipe.solver}
    result = found["variance"].drop_attrs(deep=False)
    if exact:
        return result.assign_attrs(attrs | provenance("exact variance", **how))
    result = result.assign_attrs(attrs | provenance("probed variance", **drawn, **how))
    return with_error(result, found[ERROR], relative=True)


def _model_variance(
    kappa2: Array,
    rho: Array,
    theta: Array,
    std: Array | None = None,
    *,
    recipe: ModelRecipe,
    method: str,
    drawn: Mapping[str, int],
) -> dict[str, Array]:
    if std is not None:
        land = check_parameter_values(kappa2, rho, theta, std=std)
        return {"variance": np.where(land, np.nan, np.asarray(std, dtype=np.float64) ** 2)}
    model, land = recipe.build(kappa2, rho, theta)
    if model is None:
        return dict.fromkeys(("variance", ERROR), np.full(land.shape, np.nan))
    own = moments.variance(model, method, **drawn)
    found = {"variance": own.value} | ({} if own.error is None else {ERROR: own.error})
    return {
        name: np.where(land, np.nan, recipe.grid.from_canonical(values))
        for name, values in found.items()
    }


def variance_method(method: str, recipe: ModelRecipe) -> str:
    """Settle the method of the variance, the same for every block and every worker.

    Parameters
    ----------
    method : {"auto", "selected", "probing"}
        As it was given.
    recipe : ModelRecipe
        With its solver chosen.

    Returns
    -------
    {"selected", "probing"}

    Raises
    ------
    UnknownNameError
        Another method.
    """
    if moments.check_method(method, moments.VARIANCES, "variance") != "auto":
        return method
    # what an automatic buffer adds depends on values not yet read
    known = 0 if isinstance(recipe.buffer, str) else 2 * recipe.buffer
    rows = 0 if recipe.boundary in ("torus", "paper") else known
    columns = known if recipe.boundary == "plane" else 0
    return moments.variance_method(
        (recipe.grid.ny + rows, recipe.grid.nx + columns),
        recipe.boundary,
        recipe.solver,
        margin=1.5 if recipe.buffer == "auto" else 1.0,
    )


def _check_probes(probes: Any, seed: Seed) -> dict[str, int]:
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 2:
        raise ParameterError(
            f"probes={probes!r} was given; expected a whole number of draws >= 2; type for "
            "instance probes=32"
        )
    return {"probes": probes, "seed": resolve_seed(seed)}


def with_error(da: xr.DataArray, error: xr.DataArray, *, relative: bool = False) -> xr.DataArray:
    """Attach standard errors as a coordinate.

    Parameters
    ----------
    da : DataArray
        Result, named.
    error : DataArray
        Same dimensions.
    relative : bool, default False
        Whether they are summed up relative to the result.

    Returns
    -------
    DataArray
        With the coordinate ``<name>_stderr`` and, for data in memory, its root mean square in the
        attribute ``xr_spde_stderr`` or ``xr_spde_relative_stderr``.
    """
    attrs = {"long_name": f"standard error of the {da.name}", "units": da.attrs.get("units", "1")}
    if not is_lazy(da):
        size = (error**2).mean() / ((da**2).mean() if relative else 1.0)
        name = "xr_spde_relative_stderr" if relative else "xr_spde_stderr"
        da = da.assign_attrs({name: float(np.sqrt(size))})
    return da.assign_coords({f"{da.name}_stderr": (da.dims, error.data, attrs)})

"""Covariates of the mean: maps on the grid of the fields, an intercept first."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid, same_grid

COVARIATE = "covariate"
INTERCEPT = "intercept"

Float = NDArray[np.float64]


def read_covariates(
    covariates: Any, grid: Grid, *, x: str | None = None, y: str | None = None
) -> tuple[tuple[str, ...], Float | None]:
    """Names and values of the maps that the mean is a linear combination of; read at once.

    Parameters
    ----------
    covariates : Dataset or None
        Maps (Y, X) on the cells of the grid, stored in whatever order.
    grid : Grid
        Of the fields.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    names : tuple of str
        "intercept", then the variables.
    design : ndarray (P, ny, nx) or None
        Canonical; NaN where a covariate is missing.

    Raises
    ------
    ParameterError
        Not a Dataset with variables, or one that depends on more than the position.
    GridError
        Other cells than those of the fields.
    """
    if covariates is None:
        return (), None
    if not isinstance(covariates, xr.Dataset) or not covariates.data_vars:
        raise ParameterError(
            f"covariates is a {type(covariates).__name__}"
            f"{' without variables' if isinstance(covariates, xr.Dataset) else ''}; expected a "
            "Dataset of maps on the grid of the fields, for instance "
            'xr.Dataset({"elevation": elevation})'
        )
    if INTERCEPT in covariates:
        raise ParameterError(
            f"covariates has a variable {INTERCEPT!r}, which is added by itself; drop or rename it"
        )
    names, maps = [INTERCEPT], [np.ones(grid.shape)]
    for name, one in covariates.data_vars.items():
        if one.ndim != 2:
            raise ParameterError(
                f"covariate {name!r} has the dimensions {one.dims}; expected a map on the two "
                "horizontal ones: its coefficient is common to all replicates. Select or average"
            )
        values = as_float(one)
        own = Grid.from_object(values, x=x, y=y)
        same_grid(grid, own, names=("the fields", f"covariate {name!r}"))
        stored = values.transpose(own.y_dim, own.x_dim).to_numpy().astype(np.float64)
        names.append(str(name))
        maps.append(own.to_canonical(stored))
    return tuple(names), np.stack(maps)


def least_squares(members: Float, design: Float) -> Float:
    """Coefficients of maps by ordinary least squares over all observations.

    Parameters
    ----------
    members : ndarray (M, ny, nx)
        NaN is missing.
    design : ndarray (P, ny, nx)

    Returns
    -------
    ndarray (P,)
    """
    seen = np.isfinite(members)
    counts = seen.sum(0).astype(np.float64).ravel()
    flat = design.reshape(len(design), -1)
    right = flat @ np.where(seen, members, 0.0).sum(0).ravel()
    return np.asarray(np.linalg.lstsq((flat * counts) @ flat.T, right, rcond=None)[0])

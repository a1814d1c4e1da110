"""Where labels meet fields: from a parameter Dataset to Gaussian field models, map by map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde._core.warn import warn
from xr_spde.fields.field import GaussianField, fill_missing
from xr_spde.fields.stencil import check_boundary
from xr_spde.labels.grid import Grid
from xr_spde.labels.schema import (
    PARAMETERS,
    PATTERNS,
    check_parameter_values,
    validate_parameters,
)
from xr_spde.solvers.choose import LOGGER, Choice, check_solver, choose

__all__ = ["Buffer", "ModelRecipe", "model_variables", "read_model", "remaining_std"]

Buffer = int | Literal["auto"]
Array = NDArray[np.floating]

_PERIODIC_X = ("cylinder", "torus", "paper")


@dataclass(frozen=True)
class ModelRecipe:
    """How parameter maps, as they are stored, become a model on canonical arrays.

    It is small and pickles, so that it can travel in a lazy graph instead of any factor.

    Attributes
    ----------
    grid : Grid
        The grid of the maps.
    boundary : str
        Neighbours across the edges.
    buffer : int or "auto"
        Cells added on every side that is not periodic.
    solver : str
        Name of the solver.
    """

    grid: Grid
    boundary: str
    buffer: Buffer
    solver: str

    def choose(self, dtype: DTypeLike = np.float64) -> Choice:
        """Choose the solver and the device without reading any value.

        Parameters
        ----------
        dtype : {float64, float32}
            Of the factor.

        Returns
        -------
        Choice

        Raises
        ------
        MemoryGuardError
            Nothing that was asked for would fit.
        """
        # what "auto" adds depends on values not yet read: leave room for half as much again
        known = 0 if isinstance(self.buffer, str) else self.buffer
        rows = 0 if self.boundary in ("torus", "paper") else 2 * known
        columns = 2 * known if self.boundary == "plane" else 0
        return choose(
            (self.grid.ny + rows, self.grid.nx + columns),
            boundary=self.boundary,
            solver=self.solver,
            dtype=dtype,
            margin=1.5 if self.buffer == "auto" and self.solver == "auto" else 1.0,
        )

    def build(
        self,
        kappa2: Array,
        rho: Array,
        theta: Array,
        mean: Array | None = None,
        std: Array | None = None,
    ) -> tuple[GaussianField | None, NDArray[np.bool_]]:
        """Check the values of one set of maps and build its model.

        Parameters
        ----------
        kappa2, rho, theta : ndarray (ny, nx)
            As stored; NaN in all three is land.
        mean, std : ndarray (ny, nx) or None
            Moments of the field, checked only.

        Returns
        -------
        model : GaussianField or None
            On canonical arrays; None where there is nothing but land.
        land : ndarray (ny, nx) of bool
            As stored.

        Raises
        ------
        SchemaError
            Values that no model can have.
        """
        land = check_parameter_values(kappa2, rho, theta, mean=mean, std=std)
        if land.all():
            return None, land
        maps = self.grid.to_canonical(np.stack([kappa2, rho, theta]).astype(np.float64))
        filled = fill_missing(maps, periodic_x=self.boundary in _PERIODIC_X)
        model = GaussianField(
            filled[0], filled[1], filled[2], self.boundary, self.buffer, self.solver
        )
        return model, land


def read_model(
    params: xr.Dataset,
    *,
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    x: str | None = None,
    y: str | None = None,
    dtype: DTypeLike = np.float64,
) -> tuple[xr.Dataset, ModelRecipe]:
    """Check a parameter Dataset and the settings of its model, without reading any value.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` and optionally ``mean`` and ``std`` on (..., Y, X).
    solver : str, default "auto"
        Name of the solver.
    boundary : str, optional
        By default ``params.attrs["boundary"]``, else what the coordinates say.
    buffer : int or "auto", default "auto"
        Cells added on every side that is not periodic.
    x, y : str, optional
        Names of the horizontal axes.
    dtype : {float64, float32}
        In which systems are solved.

    Returns
    -------
    Dataset
        The variables of the schema, (..., Y, X).
    ModelRecipe
        With the solver that was chosen.

    Raises
    ------
    SchemaError
        The variables of a parameter Dataset are missing.
    UnknownNameError
        No such solver or boundary.
    ParameterError
        A buffer that is neither "auto" nor a whole number >= 0.
    MemoryGuardError
        The factor of such a grid would not fit.
    """
    dataset = validate_parameters(params, x=x, y=y)
    if PATTERNS in dataset and "std" not in dataset:
        raise SchemaError(
            "the parameters have patterns but no std; patterns are a part of the variance of the "
            'field, so std is needed: add it, or drop them with params.drop_vars("patterns")'
        )
    grid = Grid.from_object(dataset, x=x, y=y)
    check_solver(solver)
    chosen = _resolve_boundary(dataset, grid, boundary)
    recipe = ModelRecipe(grid, chosen, check_buffer(buffer), solver)
    choice = recipe.choose(dtype)
    LOGGER.info("%d x %d cells, solver=%r: %s", grid.ny, grid.nx, solver, choice)
    return dataset, replace(recipe, solver=choice.solver)


def check_buffer(buffer: Any) -> Buffer:
    """Return the buffer if it is "auto" or a number of cells."""
    if isinstance(buffer, str) and buffer == "auto":
        return "auto"
    whole = isinstance(buffer, int | np.integer) and not isinstance(buffer, bool)
    if not whole or buffer < 0:
        raise ParameterError(
            f'buffer={buffer!r} was given; expected "auto" or a whole number of cells >= 0; '
            "type for instance buffer=10"
        )
    return int(buffer)


def _resolve_boundary(params: xr.Dataset, grid: Grid, boundary: str | None) -> str:
    recorded = params.attrs.get("boundary")
    chosen = boundary if boundary is not None else recorded if recorded else grid.boundary
    check_boundary(chosen)
    cropped = grid.kind == "geographic" and not grid.periodic_x and chosen in _PERIODIC_X
    if boundary is None and cropped:
        span = abs(grid.dx) * grid.nx
        warn(
            f"the parameters record the boundary {chosen!r}, which joins the first and the last "
            f"longitude, but their longitudes span {span:g} of 360 degrees; pass "
            f'boundary="plane" if they were cut from a global map, or boundary={chosen!r} to '
            "keep it without this warning"
        )
    return str(chosen)


def remaining_std(std: Array, patterns: Array) -> NDArray[np.float64]:
    """Return the standard deviation that large-scale patterns leave to the local model.

    Parameters
    ----------
    std : ndarray (ny, nx)
        Of the whole field.
    patterns : ndarray (mode, ny, nx)
        With amplitudes of unit variance, in the same units.

    Returns
    -------
    ndarray (ny, nx)
    """
    taken = np.sum(np.asarray(patterns, dtype=np.float64) ** 2, axis=0)
    return np.sqrt(np.maximum(np.asarray(std, dtype=np.float64) ** 2 - taken, 0.0))


def model_variables(dataset: xr.Dataset, names: tuple[str, ...]) -> list[xr.DataArray]:
    """Broadcast variables of a checked Dataset over the leading dimensions of the parameters.

    Parameters
    ----------
    dataset : Dataset
        From `read_model`.
    names : tuple of str
        ``kappa2``, ``rho``, ``theta`` and whichever moments are wanted.

    Returns
    -------
    list of DataArray (..., Y, X)
        With the dimensions, and their order, of ``kappa2``; ``patterns`` with one more before
        the last two.
    """
    template = dataset[PARAMETERS[0]]
    return [
        dataset[name]
        .broadcast_like(template)
        .transpose(*template.dims[:-2], ..., *template.dims[-2:])
        for name in names
    ]

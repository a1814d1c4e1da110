"""Scores cell by cell: predictions beside a truth on their grid, before anything is averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import DTypeError, ParameterError
from xr_spde.assim.verification import gaussian_crps
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.lazy import single_core_chunk

__all__ = ["Cells", "aligned", "crps", "map_cells", "of_gaussian", "of_members", "truth_of"]

Float = NDArray[np.float64]


def crps(members: NDArray[Any], truth: NDArray[Any]) -> Float:
    """Continuous ranked probability score of an ensemble, fair to the number of its members.

    ``mean |E_i - y| - sum |E_i - E_j| / (2 N (N - 1))`` (Ferro, 2014, Q. J. R. Meteorol. Soc. 140),
    whose mean does not depend on N.

    Parameters
    ----------
    members : ndarray (N, ...)
        Members first.
    truth : ndarray (...)
        What was true.

    Returns
    -------
    ndarray (...)
        In units of the members; NaN where one of them is.
    """
    # Own code, with scoringrules as the peer of the tests: it would be a requirement of all users
    # for these lines, and this one sorts once, spreads NaN and has its last bits fixed.
    size = len(members)
    ordered = np.sort(np.asarray(members, dtype=np.float64) - truth, axis=0)
    # sorted values stand for the double sum; NaN come last in a sort, and spread from there
    weights = 2.0 * np.arange(1, size + 1) - size - 1.0
    apart = np.tensordot(weights, ordered, axes=1) / (size * (size - 1))
    return np.asarray(np.abs(ordered).mean(axis=0) - apart)


def truth_of(truth: xr.DataArray | xr.Dataset, name: str) -> xr.DataArray:
    """Choose the variable of a truth.

    Parameters
    ----------
    truth : DataArray or Dataset
        As it was given.
    name : str
        What is scored; a Dataset of one variable may have another name.

    Returns
    -------
    DataArray

    Raises
    ------
    DTypeError, ParameterError
        Something else, or a Dataset without it.
    """
    if isinstance(truth, xr.DataArray):
        return truth
    if not isinstance(truth, xr.Dataset):
        raise DTypeError(
            f"a truth of type {type(truth).__name__} was given; expected a DataArray or a Dataset"
        )
    names = list(truth.data_vars)
    if name not in names and len(names) != 1:
        raise ParameterError(
            f"the truth has the variables {', '.join(map(repr, names))}, and {name!r} is scored; "
            f"pass one of them, such as truth[{names[0]!r}]"
            if names
            else "the truth is empty"
        )
    return truth[name if name in names else names[0]]


def aligned(
    truth: xr.DataArray, like: xr.DataArray, grid: Grid, x: str | None, y: str | None
) -> xr.DataArray:
    """Turn a truth into the order in which maps are stored, with their labels.

    Parameters
    ----------
    truth : DataArray (..., Y, X)
        On the same grid.
    like : DataArray
        The maps, or members.
    grid : Grid
        Of `like`.
    x, y : str or None
        Names of the horizontal axes.

    Returns
    -------
    DataArray

    Raises
    ------
    GridError, ParameterError
        Another grid, other labels, or dimensions that the maps lack.
    """
    own = same_grid(grid, Grid.from_object(truth, x=x, y=y), names=("the ensemble", "the truth"))
    extra = [str(d) for d in truth.dims if d not in (own.y_dim, own.x_dim, *like.dims)]
    if extra:
        raise ParameterError(
            f"the truth has the dimension {extra[0]!r}, which the ensemble lacks; select along it"
        )
    stored = own.to_canonical(np.arange(own.ny * own.nx).reshape(own.shape))
    order = grid.from_canonical(stored)
    turned = as_float(truth).isel({own.y_dim: order[:, 0] // own.nx, own.x_dim: order[0] % own.nx})
    space = {own.y_dim, own.x_dim}
    lost = [n for n, c in turned.coords.items() if not c.ndim or space & set(c.dims)]
    turned = turned.drop_vars(lost).rename({own.y_dim: grid.y_dim, own.x_dim: grid.x_dim})
    for dim in turned.dims:
        both = dim in turned.indexes and dim in like.indexes
        if both and not turned.indexes[dim].equals(like.indexes[dim]):
            raise ParameterError(
                f"the truth and the ensemble have other labels along {dim!r}; select the same "
                f"ones, such as truth.sel({dim}=ens.{dim})"
            )
    here = {d: like[d] for d in (grid.y_dim, grid.x_dim) if d in like.coords}
    return turned.assign_coords(here)


def map_cells(
    func: Any, arrays: list[xr.DataArray], core: list[list[str]], names: tuple[str, ...]
) -> dict[str, xr.DataArray]:
    """Map a function of all members of a cell over the cells.

    Parameters
    ----------
    func : callable
        Returns one array for each name.
    arrays : list of DataArray
        Its arguments.
    core : list of list of str
        Dimensions of each that it takes whole.
    names : tuple of str
        Of what it returns.

    Returns
    -------
    dict of str to DataArray
        Lazy where an argument is.
    """
    ready = [single_core_chunk(a, dims) for a, dims in zip(arrays, core, strict=True)]
    found = xr.apply_ufunc(
        func,
        *ready,
        input_core_dims=core,
        output_core_dims=[[] for _ in names],
        dask="parallelized",
        output_dtypes=[np.float64] * len(names),
    )
    return dict(zip(names, found, strict=True))


def of_members(members: NDArray[Any], truth: NDArray[Any]) -> tuple[Float, ...]:
    """Compare members with the truth; NaN where one of them is.

    Parameters
    ----------
    members : ndarray (..., N)
        Members last.
    truth : ndarray (...)
        What was true.

    Returns
    -------
    tuple of ndarray (...)
        Mean minus truth, variance, fair CRPS, numbers of members below the truth and equal to it.
    """
    first = np.moveaxis(members, -1, 0)
    truth = np.broadcast_to(truth, first.shape[1:])
    departures = first.astype(np.float64) - truth
    missing = np.isnan(departures).any(axis=0)
    below, equal = ((test(departures, 0.0)).sum(axis=0) for test in (np.less, np.equal))
    maps = (
        departures.mean(axis=0),
        departures.var(axis=0, ddof=1),
        crps(first, truth),
        below,
        equal,
    )
    return tuple(np.where(missing, np.nan, values) for values in maps)


def of_gaussian(mean: NDArray[Any], std: NDArray[Any], truth: NDArray[Any]) -> tuple[Float, ...]:
    """Compare Gaussian predictions with the truth.

    Parameters
    ----------
    mean, std, truth : ndarray (...)
        Predicted, and what was true.

    Returns
    -------
    tuple of ndarray (...)
        Mean minus truth, variance and CRPS.
    """
    error = np.asarray(mean, dtype=np.float64) - truth
    variance = np.square(std, dtype=np.float64) + 0.0 * error
    return error, variance, gaussian_crps(error, std)


@dataclass(frozen=True, eq=False)
class Cells:
    """What is averaged over.

    Attributes
    ----------
    dims : tuple of str
        Dimensions.
    weight : ndarray
        Of each place.
    """

    dims: tuple[str, ...]
    weight: Float

    @classmethod
    def of(cls, grid: Grid, weights: str | None) -> Cells:
        """Cells of a grid, weighted by area or alike."""
        area = np.ones(grid.ny)
        if weights == "area" and grid.kind == "geographic":
            area = np.cos(np.radians(np.clip(grid.canonical_y(), -90.0, 90.0)))
        whole = grid.from_canonical(np.broadcast_to(area[:, None], grid.shape))
        return cls((grid.y_dim, grid.x_dim), whole)

    @classmethod
    def alike(cls, points: xr.DataArray) -> Cells:
        """Points, all alike."""
        return cls(tuple(map(str, points.dims)), np.ones(points.shape))

"""Fields with labels to arrays of snapshots and back, block by block where they are lazy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import AxisNotFoundError, ParameterError
from xr_spde.assim.latent.channels import CHANNEL, Labelled, as_channels
from xr_spde.assim.latent.clock import months_of
from xr_spde.assim.latent.layout import Layout, is_same_grid
from xr_spde.assim.latent.scaling import Scaling
from xr_spde.assim.rows import Positions
from xr_spde.labels.axes import is_time
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import single_core_chunk
from xr_spde.labels.points import as_points, calendar_of, find_points, positions_on

__all__ = ["CODE", "Places", "find_time_dim", "places_of", "per_snapshot", "take_apart"]

Float = NDArray[np.float64]

CODE = "code"
"""Dimension of codes."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where fields are decoded or encoded other than at the points of the training.

    Attributes
    ----------
    points : ndarray (M, 2)
        As the state map takes them.
    rows : csr_array (M, P)
        Weights of the points of the training, for the climatology.
    known : ndarray (M,) of bool
        False on land and outside, as the training has it.
    dims : tuple of str
        Dimensions of the places, ``(y, x)`` or one.
    shape : tuple of int
        Their sizes.
    coords : dict
        Their coordinates.
    """

    points: Float
    rows: sp.csr_array
    known: NDArray[np.bool_]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[Any, Any]


def places_of(obj: Labelled, layout: Layout, *, x: str | None, y: str | None) -> Places | None:
    """Read where to decode.

    Parameters
    ----------
    obj : DataArray or Dataset
        On a grid, or points along one dimension.
    layout : Layout
        Of a model.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Places or None
        None for the grid of the layout.

    Raises
    ------
    GridError, AxisNotFoundError
        If no positions are found, or of another kind.
    """
    points = as_points(obj)
    try:
        grid = Grid.from_object(obj, x=x, y=y)
    except (AxisNotFoundError, ValueError):
        names = find_points(points, layout.grid, x=x, y=y)
        at_y, at_x = positions_on(points, (names.y, names.x), layout.grid)
        coords = {k: v.variable for k, v in points.coords.items() if v.dims == (names.dim,)}
        return _places(layout, at_y, at_x, (names.dim,), (at_y.size,), coords)
    along = ((grid.y_dim,), (grid.x_dim,))
    coords = {k: v.variable for k, v in obj.coords.items() if v.dims in along}
    if is_same_grid(layout, grid) and (grid.y_dim, grid.x_dim) == _dims(layout.grid):
        return None
    row, column = (
        grid.from_canonical(np.broadcast_to(v, grid.shape))
        for v in (grid.canonical_y()[:, None], grid.canonical_x())
    )
    return _places(layout, row.ravel(), column.ravel(), _dims(grid), grid.shape, coords)


def _dims(grid: Grid) -> tuple[str, str]:
    return grid.y_dim, grid.x_dim


def _places(
    layout: Layout, y: Float, x: Float, dims: tuple[str, ...], shape: tuple[int, ...],
    coords: dict[Any, Any],
) -> Places:  # fmt: skip
    at = Positions.of(layout.grid, y, x)
    j, i = at.cells()
    wet = np.zeros(layout.grid.ny * layout.grid.nx, dtype=bool)
    wet[layout.cells] = True
    known = at.inside & wet[j * layout.grid.nx + i]
    return Places(layout.place(y, x), layout.rows(y, x), known, dims, shape, coords)


def find_time_dim(obj: xr.DataArray) -> str | None:
    """Dimension or scalar coordinate of the time of fields; None where there is none.

    Parameters
    ----------
    obj : DataArray
        Fields, or codes.

    Returns
    -------
    str or None
    """
    dims = [str(d) for d in obj.dims if d in obj.coords and is_time(obj, str(d))]
    if dims:
        return dims[0]
    dated = [str(k) for k, v in obj.coords.items() if v.ndim == 0 and _is_date(v)]
    return dated[0] if len(dated) == 1 else None


def _is_date(coordinate: xr.DataArray) -> bool:
    return calendar_of(coordinate.expand_dims("t")) is not None


def _months(obj: xr.DataArray) -> xr.DataArray | None:
    """Months of fields, along their dimension of time or alone; -1 where there is no date."""
    name = find_time_dim(obj)
    if name is None:
        return None
    times = obj[name] if obj[name].ndim else obj[name].expand_dims("one_time")
    found = months_of(times)
    if found is None:
        return None
    if not obj[name].ndim:
        return xr.DataArray(found[0])
    return xr.DataArray(found, dims=name)


def per_snapshot(
    function: Callable[..., NDArray[Any]],
    fields: xr.DataArray,
    core: Sequence[str],
    output: Mapping[str, int],
) -> xr.DataArray:
    """Apply a function to each snapshot, lazily where they are lazy.

    Parameters
    ----------
    function : callable
        Of snapshots (B, ...) and their months (B,), or None for these.
    fields : DataArray (..., core)
        Snapshots.
    core : sequence of str
        Dimensions of one.
    output : mapping of str to int
        Dimensions of a result, and their sizes.

    Returns
    -------
    DataArray (..., output)
    """
    fields = single_core_chunk(fields.transpose(..., *core), list(core))
    months = _months(fields)

    def flat(block: NDArray[Any], *when: NDArray[Any]) -> NDArray[Any]:
        lead = block.shape[: block.ndim - len(core)]
        flattened = block.reshape(-1, *block.shape[block.ndim - len(core) :])
        month = np.broadcast_to(when[0], lead).reshape(-1) if when else None
        if not len(flattened):  # what dask asks for the type of
            return np.empty((*lead, *output.values()), block.dtype)
        return function(flattened, month).reshape(*lead, *output.values())

    arguments = [fields] if months is None else [fields, months]
    found: xr.DataArray = xr.apply_ufunc(
        flat, *arguments,
        input_core_dims=[list(core), *([[]] if months is not None else [])],
        output_core_dims=[list(output)], exclude_dims=set(core) & set(output),
        dask="parallelized", output_dtypes=[fields.dtype],
        dask_gufunc_kwargs={"output_sizes": dict(output)}, keep_attrs=False,
    )  # fmt: skip
    return found.drop_vars([k for k, v in fields.coords.items()
                            if k in found.coords and set(v.dims) & set(core)])  # fmt: skip


def take_apart(
    joined: xr.DataArray, layout: Layout, attrs: Mapping[str, Mapping[str, Any]]
) -> Labelled:
    """Give channels back their variables and levels.

    Parameters
    ----------
    joined : DataArray (..., channel, ...)
        Fields.
    layout : Layout
        What the channels are.
    attrs : mapping of str to mapping
        Attributes of the variables.

    Returns
    -------
    DataArray or Dataset
        As the series was.
    """
    names = list(dict.fromkeys(one.variable for one in layout.channels))
    found = {}
    for name in names:
        which = [k for k, one in enumerate(layout.channels) if one.variable == name]
        part = joined.isel({CHANNEL: which})
        if layout.channels[which[0]].level is None:
            part = part.isel({CHANNEL: 0})
        else:
            part = part.rename({CHANNEL: str(layout.level_dim)}).assign_coords(
                {str(layout.level_dim): [layout.channels[k].level for k in which]}
            )
        found[name] = part.assign_attrs(dict(attrs.get(name, {}))).rename(name or None)
    return xr.Dataset(found) if layout.dataset else found[names[0]]


@dataclass(frozen=True, eq=False)
class Reader:
    """Normalised snapshots at points of blocks of fields; what tasks call.

    Attributes
    ----------
    layout, scaling
        Of a model.
    places : Places or None
        Where the fields are; None for the grid of the layout.
    grid : Grid
        Of the fields.
    """

    layout: Layout
    scaling: Scaling
    places: Places | None
    grid: Grid

    @classmethod
    def of(
        cls, obj: Labelled, layout: Layout, scaling: Scaling, *, x: str | None, y: str | None
    ) -> tuple[Reader, xr.DataArray]:
        """Make one for fields, and give these with their channels."""
        fields, grid = as_channels(obj, layout, x=x, y=y)
        one = fields.isel(dict.fromkeys(fields.dims[:-2], 0))
        same = is_same_grid(layout, grid)
        places = None if same else places_of(one, layout, x=grid.x_dim, y=grid.y_dim)
        return cls(layout, scaling, places, grid), fields

    @property
    def points(self) -> Float | None:
        """Where, for the state map."""
        return None if self.places is None else self.places.points[self.places.known]

    def __call__(self, block: NDArray[Any], months: NDArray[np.intp] | None) -> NDArray[Any]:
        """Snapshots (B, c, ny, nx) as values (B, P, c)."""
        if self.places is None:
            # the fields may be stored in another order than the training
            flat = self.grid.to_canonical(block).reshape(*block.shape[:-2], -1)
            values = np.moveaxis(flat[..., self.layout.cells], -2, -1)
            return self.scaling.normalise(values, months)
        known = self.places.known
        flat = block.reshape(*block.shape[:-2], -1)[..., known]
        rows = sp.csr_array(self.places.rows[known])
        return self.scaling.normalise(np.moveaxis(flat, -2, -1), months, rows)


def check_code_dim(codes: xr.DataArray, n: int) -> xr.DataArray:
    """Check that an array holds codes of a model.

    Parameters
    ----------
    codes : DataArray (..., code)
        Codes.
    n : int
        Size of a code.

    Returns
    -------
    DataArray (..., code)

    Raises
    ------
    ParameterError
        For anything else.
    """
    if not isinstance(codes, xr.DataArray) or codes.sizes.get(CODE) != n:
        found = dict(codes.sizes) if isinstance(codes, xr.DataArray) else type(codes).__name__
        raise ParameterError(
            f"{found} was given; expected codes, a DataArray with the dimension {CODE!r} of size "
            f"{n}, such as model.encode returns them"
        )
    return codes.transpose(..., CODE)

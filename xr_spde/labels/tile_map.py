"""Tiles of large images: cut with a halo, computed one by one, lazily where the data are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from operator import getitem
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, is_lazy

__all__ = [
    "Tile",
    "assembled",
    "deferred",
    "map_tiles",
    "number",
    "plan_tiles",
    "window_grid",
    "windows_of",
]


@dataclass(frozen=True)
class Tile:
    """A part of a grid in canonical order, and what is computed with it.

    Attributes
    ----------
    top, bottom, left, right : int
        Rows and columns that are kept; the last of each is not one of them.
    halo : tuple of int
        Rows above and below, columns to the left and right that are computed too. Columns may
        leave a grid that closes.
    """

    top: int
    bottom: int
    left: int
    right: int
    halo: tuple[int, int, int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that are kept."""
        return self.bottom - self.top, self.right - self.left

    @property
    def outer(self) -> tuple[int, int, int, int]:
        """Rows and columns that are computed, as `top` to `right`."""
        above, below, before, after = self.halo
        return self.top - above, self.bottom + below, self.left - before, self.right + after

    @property
    def inner(self) -> tuple[slice, slice]:
        """The part that is kept in what is computed."""
        ny, nx = self.shape
        return slice(self.halo[0], self.halo[0] + ny), slice(self.halo[2], self.halo[2] + nx)


def plan_tiles(
    shape: tuple[int, int], tile: int, halo: int, *, periodic_x: bool = False
) -> list[list[Tile]]:
    """Cut a grid into tiles of nearly one size.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    tile : int
        Rows and columns kept of a tile, at most.
    halo : int
        Rows and columns around them; fewer at a border.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    list of list of Tile
        By rows.

    Examples
    --------
    >>> from xr_spde.labels.tile_map import plan_tiles
    >>> [[(t.left, t.right, t.outer[2:]) for t in row] for row in plan_tiles((4, 9), 5, 2)]
    [[(0, 4, (0, 6)), (4, 9, (2, 9))]]
    """
    rows, columns = ([*_bounds(n, tile)] for n in shape)
    found = []
    for top, bottom in rows:
        line = []
        for left, right in columns:
            sides = (halo, halo)
            if not periodic_x:
                sides = (min(halo, left), min(halo, shape[1] - right))
            around = (min(halo, top), min(halo, shape[0] - bottom), *sides)
            line.append(Tile(top, bottom, left, right, around))
        found.append(line)
    return found


def _bounds(n: int, tile: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, n, math.ceil(n / tile) + 1).astype(int).tolist()
    return list(pairwise(edges))


def windows_of(array: Any) -> Callable[[Tile], Any]:
    """Return a function that gives the part of an array that is computed for a tile.

    Parameters
    ----------
    array : array (..., ny, nx)
        In canonical order; numpy or dask.

    Returns
    -------
    callable
        Of a tile; an array, or a task that puts it together from the chunks.
    """
    if isinstance(array, np.ndarray):
        return partial(_cut, array)
    front = dict.fromkeys(range(array.ndim - 2), -1)
    array = array.rechunk(front)
    # the chunks by their own names: a dask array as an argument would be optimised first, which
    # renames tasks, so that what many windows need would be computed for each of them
    chunks = array.to_delayed(optimize_graph=False)[(0,) * (array.ndim - 2)]
    rows, columns = (np.cumsum([0, *sizes]) for sizes in array.chunks[-2:])

    def read(tile: Tile) -> Any:
        first, last, left, right = tile.outer
        down, taken = _pieces(rows, first, last)
        across = [_pieces(columns, a, b) for a, b in _segments(left, right, int(columns[-1]))]
        parts = [[[chunks[i, j] for j in picked] for i in down] for picked, _ in across]
        return deferred(_gathered, True)(parts, taken, [wanted for _, wanted in across])

    return read


def _cut(array: NDArray[Any], tile: Tile) -> NDArray[Any]:
    first, last, left, right = tile.outer
    parts = [array[..., first:last, a:b] for a, b in _segments(left, right, array.shape[-1])]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _segments(left: int, right: int, nx: int) -> list[tuple[int, int]]:
    """Ranges of columns on the grid for a range that may leave it."""
    turns = range(math.floor(left / nx), math.ceil(right / nx))
    return [(max(left - k * nx, 0), min(right - k * nx, nx)) for k in turns]


def _pieces(edges: NDArray[np.intp], start: int, stop: int) -> tuple[list[int], slice]:
    """Numbers of the chunks that hold a range, and the range within them."""
    first = int(np.searchsorted(edges, start, side="right")) - 1
    last = int(np.searchsorted(edges, stop, side="left"))
    offset = int(edges[first])
    return list(range(first, last)), slice(start - offset, stop - offset)


def _gathered(
    parts: Sequence[Sequence[Sequence[NDArray[Any]]]], rows: slice, columns: Sequence[slice]
) -> NDArray[Any]:
    taken = [
        np.block([list(line) for line in part])[..., rows, wanted]
        for part, wanted in zip(parts, columns, strict=True)
    ]
    return np.ascontiguousarray(np.concatenate(taken, axis=-1))


def deferred(function: Callable[..., Any], lazy: bool) -> Callable[..., Any]:
    """Return a function that is called now, or a task of it.

    Parameters
    ----------
    function : callable
        Any.
    lazy : bool
        Whether calls become tasks.

    Returns
    -------
    callable
    """
    if not lazy:
        return function
    import dask

    return dask.delayed(function, pure=False)  # type: ignore[no-any-return]


def assembled(
    blocks: Sequence[Sequence[Any]],
    shapes: Sequence[Sequence[tuple[int, ...]]],
    dtype: DTypeLike,
    lazy: bool,
) -> Any:
    """Join what tiles keep.

    Parameters
    ----------
    blocks : sequence of sequence of array or task
        By rows of tiles.
    shapes : sequence of sequence of tuple
        Of the blocks.
    dtype : dtype
        Of the result.
    lazy : bool
        Whether the blocks are tasks.

    Returns
    -------
    array (..., ny, nx)
    """
    if not lazy:
        return np.block([list(row) for row in blocks]).astype(dtype, copy=False)
    import dask.array as da

    parts = [
        [da.from_delayed(block, shape, dtype=dtype) for block, shape in zip(row, line, strict=True)]
        for row, line in zip(blocks, shapes, strict=True)
    ]
    return da.block(parts)


def number(value: Any, dtype: DTypeLike, lazy: bool) -> Any:
    """Make an array without dimensions.

    Parameters
    ----------
    value : number or task
        Of one number.
    dtype : dtype
        Of the array.
    lazy : bool
        Whether it is a task.

    Returns
    -------
    array
    """
    if not lazy:
        return np.asarray(value, dtype=dtype)
    import dask
    import dask.array as da

    # what is computed must be an array, for dask takes parts of it
    return da.from_delayed(dask.delayed(np.asarray)(value), (), dtype=dtype)


def window_grid(grid: Grid, tile: Tile) -> Grid:
    """Grid of what is computed for a tile, in canonical order.

    Parameters
    ----------
    grid : Grid
        The whole grid.
    tile : Tile
        Which.

    Returns
    -------
    Grid
    """
    first, last, left, right = tile.outer
    return replace(
        grid,
        ny=last - first,
        nx=right - left,
        y0=float(grid.canonical_y()[first]),
        x0=0.0,
        dy=abs(grid.dy),
        dx=abs(grid.dx),
        periodic_x=False,
        roll=0,
    )


def map_tiles(
    func: Callable[..., Mapping[str, Any]],
    *args: xr.DataArray,
    core_dims: Sequence[Sequence[str]],
    output: Mapping[str, Output],
    tiles: Sequence[Sequence[Tile]],
    grid: Grid,
    local: Callable[[Tile], Mapping[str, Any]],
) -> dict[str, xr.DataArray]:
    """Map a function over tiles, as `xr_spde.labels.lazy.apply_core` does over whole images.

    Parameters
    ----------
    func : callable
        Called with one array per argument, windows of those that have horizontal dimensions, in
        canonical order; returns arrays by name.
    *args : DataArray
        Inputs; leading dimensions are matched by name.
    core_dims : sequence of sequences of str
        Core dimensions of each argument; the horizontal ones last, y first.
    output : mapping of str to Output
        Outputs by name; those without core dimensions are summed over the tiles.
    tiles : sequence of sequence of Tile
        By rows.
    grid : Grid
        Of the horizontal dimensions.
    local : callable
        Keyword arguments of the function for a tile.

    Returns
    -------
    dict of str to DataArray (leading..., core...)
        A task for each tile where an input is lazy.
    """
    space = (grid.y_dim, grid.x_dim)
    lazy = any(is_lazy(a) for a in args)
    lead = list(dict.fromkeys(d for a, c in zip(args, core_dims, strict=True) for d in a.dims
                              if d not in c))  # fmt: skip
    sizes = {d: n for a in args for d, n in a.sizes.items()}
    call = deferred(partial(_one_tile, func=func, names=tuple(output)), lazy)
    columns: dict[str, list[Any]] = {name: [] for name in output}
    for index in np.ndindex(*(sizes[d] for d in lead)):
        at = dict(zip(lead, index, strict=True))
        whole = []
        for a, core in zip(args, core_dims, strict=True):
            one = a.isel({d: k for d, k in at.items() if d in a.dims}).transpose(*core)
            flat = tuple(core[-2:]) == space
            whole.append(windows_of(grid.to_canonical(one.data)) if flat else _same(one.data))
        done = [
            [call(*(read(t) for read in whole), tile=t, kwargs=local(t)) for t in row]
            for row in tiles
        ]
        take = deferred(getitem, lazy)
        for name, spec in output.items():
            front = tuple(spec.sizes[d] for d in spec.dims[:-2])
            parts = [[take(one, name) for one in row] for row in done]
            if spec.dims:
                shapes = [[(*front, *t.shape) for t in row] for row in tiles]
                field = assembled(parts, shapes, spec.dtype, lazy)
                columns[name].append(grid.from_canonical(field))
            else:
                total = deferred(_sum, lazy)([one for row in parts for one in row])
                columns[name].append(number(total, spec.dtype, lazy))
    return {name: _stacked(columns[name], spec, lead, sizes, args) for name, spec in output.items()}


def _same(value: Any) -> Callable[[Tile], Any]:
    return lambda tile: value


def _one_tile(
    *arrays: Any,
    func: Callable[..., Mapping[str, Any]],
    names: tuple[str, ...],
    tile: Tile,
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    made = func(*arrays, tile=tile, **kwargs)
    rows, columns = tile.inner
    return {
        name: np.asarray(made[name])[..., rows, columns] if np.ndim(made[name]) else made[name]
        for name in names
    }


def _sum(values: Sequence[Any]) -> Any:
    return np.asarray(math.fsum(float(v) for v in values))


def _stacked(
    fields: Sequence[Any],
    spec: Output,
    lead: Sequence[Any],
    sizes: Mapping[Any, int],
    args: Sequence[xr.DataArray],
) -> xr.DataArray:
    """One array over the leading dimensions, with the coordinates of the inputs."""
    stack = np.stack(list(fields)).reshape(*(sizes[d] for d in lead), *np.shape(fields[0]))
    dims = (*lead, *spec.dims)
    coords = {k: c for a in args for k, c in a.coords.items() if set(c.dims) <= set(dims)}
    made = xr.DataArray(stack.astype(spec.dtype), dims=dims)
    return made.assign_coords(coords)

"""Work that needs a little of everything and then every block: two steps of a lazy graph.

A summary is made of small arrays picked from the whole (values at the observed points); blocks of
the horizontal then each need the summary and themselves. Nothing large travels, and no block waits
for its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import getitem
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from xr_spde._core.memory import memory_budget
from xr_spde._core.options import carry_options
from xr_spde.labels.lazy import is_lazy, single_core_chunk

__all__ = ["Summary", "map_blocks", "pick_points", "summarise"]

BLOCK_BYTES = 32 * 2**20
"""Size of the pieces in which arrays in memory are worked through."""

_SHARED = 1 / 8  # of the memory budget: a larger ensemble is read twice rather than held

Bounds = Mapping[str, tuple[int, int]]


def pick_points(da: xr.DataArray, dims: tuple[str, str], nodes: NDArray[np.intp]) -> xr.DataArray:
    """Values at some points of a grid.

    Parameters
    ----------
    da : DataArray (..., y, x)
        Lazy or not.
    dims : tuple of str
        Dimensions (y, x).
    nodes : ndarray of int (q,)
        Points, numbered ``row * columns + column`` as stored.

    Returns
    -------
    DataArray (..., node)
        In one chunk. Data larger than an eighth of the memory budget are read for it by tasks of
        their own: were they shared with later steps, all blocks would be held until the last one
        has been read.
    """
    bare = da.variable
    if is_lazy(da) and da.nbytes > _SHARED * memory_budget():
        from dask.graph_manipulation import clone

        bare = bare.copy(data=clone(da.data, seed="points"))
    j, i = np.divmod(nodes, da.sizes[dims[1]])
    at = {dims[0]: xr.Variable("node", j), dims[1]: xr.Variable("node", i)}
    found = bare.isel(at)
    found = found.transpose(*(d for d in da.dims if d not in dims), "node")
    return xr.DataArray(found.chunk(-1) if is_lazy(found) else found)


@dataclass(frozen=True, eq=False)
class Summary:
    """A mapping computed from small arrays, now or later.

    Attributes
    ----------
    value : mapping or dask Delayed
        The mapping, or what computes it.
    lazy : bool
        Which of the two.
    """

    value: Any
    lazy: bool

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """One of its arrays, of a shape that is known beforehand; NaN for one that it lacks."""
        if not self.lazy:
            return _as_array(self.value, name, shape, np.dtype(dtype))
        import dask.array
        from dask.delayed import delayed

        picked = delayed(_as_array, pure=True)(self.value, name, shape, np.dtype(dtype))
        return dask.array.from_delayed(picked, shape, np.dtype(dtype))


def summarise(func: Callable[..., Mapping[str, Any]], *arrays: xr.DataArray) -> Summary:
    """Compute a mapping from arrays: at once, or in one task where one of them is lazy.

    Parameters
    ----------
    func : callable
        Takes the arrays as ndarrays, and returns a mapping.
    *arrays : DataArray
        Small.

    Returns
    -------
    Summary
    """
    if not any(map(is_lazy, arrays)):
        return Summary(func(*(a.values for a in arrays)), lazy=False)
    from dask.delayed import delayed

    task = delayed(carry_options(func), pure=True, traverse=False)
    return Summary(task(*(a.data for a in arrays)), lazy=True)


def map_blocks(
    func: Callable[[Any, Bounds, Sequence[NDArray[Any]]], Sequence[Mapping[str, NDArray[Any]]]],
    summary: Summary,
    arrays: Sequence[xr.DataArray],
    *,
    core: Sequence[str],
    space: tuple[str, str],
    outputs: Mapping[str, Sequence[str]],
) -> list[dict[str, xr.DataArray]]:
    """Map a function over blocks of the horizontal.

    Parameters
    ----------
    func : callable
        ``func(summary, bounds, blocks)`` with the summary's mapping, the first and the last index
        (exclusive) of the block along each dimension that is cut, and one ndarray per array, in
        stored order. Returns a mapping of outputs for each of them.
    summary : Summary
        What every block needs.
    arrays : sequence of DataArray
        With the same dimensions beside those of `core`.
    core : sequence of str
        Dimensions that every block has whole.
    space : tuple of str
        Dimensions (y, x), which are never whole.
    outputs : mapping of str to sequence of str
        Outputs, with the dimensions that they lack.

    Returns
    -------
    list of dict of str to DataArray
        Per array. Lazy where one of the arrays is, or the summary.
    """
    ready = [single_core_chunk(a, [d for d in core if d in a.dims]) for a in arrays]
    if summary.lazy or any(map(is_lazy, ready)):
        ready = [a if is_lazy(a) else a.chunk(dict.fromkeys(a.dims, -1)) for a in ready]
        unified: list[Any] = list(xr.unify_chunks(*ready))
        return _lay_out(func, summary, unified, core, outputs)
    return _run(func, summary.value, ready, space, outputs)


def _run(
    func: Callable[..., Any],
    value: Any,
    arrays: Sequence[xr.DataArray],
    space: tuple[str, str],
    outputs: Mapping[str, Sequence[str]],
) -> list[dict[str, xr.DataArray]]:
    """Work through arrays in memory, some rows at a time."""
    rows, columns = (arrays[0].sizes[d] for d in space)
    step = max(1, BLOCK_BYTES * rows // max(1, sum(a.nbytes for a in arrays)))
    found = [{name: _empty(a, lacking) for name, lacking in outputs.items()} for a in arrays]
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        bounds = {space[0]: (part.start, part.stop), space[1]: (0, columns)}
        blocks = [a.isel({space[0]: part}).values for a in arrays]
        for target, result in zip(found, func(value, bounds, blocks), strict=True):
            for name, values in result.items():
                target[name][{space[0]: part}] = values
    return found


def _empty(like: xr.DataArray, lacking: Sequence[str]) -> xr.DataArray:
    first = like.isel({d: 0 for d in lacking if d in like.dims}, drop=True)
    return xr.DataArray(np.empty(first.shape, like.dtype), first.coords, first.dims)


def _lay_out(
    func: Callable[..., Any],
    summary: Summary,
    arrays: Sequence[xr.DataArray],
    core: Sequence[str],
    outputs: Mapping[str, Sequence[str]],
) -> list[dict[str, xr.DataArray]]:
    """Lay out one task per block, and one that picks each of its outputs."""
    import dask.array
    from dask.base import tokenize
    from dask.delayed import delayed
    from dask.highlevelgraph import HighLevelGraph

    shared = summary.value if summary.lazy else delayed(summary.value, traverse=False)
    cut = [d for d in arrays[0].dims if d not in core]
    token = tokenize(func, shared.key, *(a.data.name for a in arrays))
    name, work = f"blocks-{token}", carry_options(func)
    tasks: dict[Any, Any] = {}
    edges = {d: np.cumsum([0, *arrays[0].chunksizes[d]]).tolist() for d in cut}
    for index in product(*(range(len(arrays[0].chunksizes[d])) for d in cut)):
        where = dict(zip(cut, index, strict=True))
        bounds = {str(d): (edges[d][k], edges[d][k + 1]) for d, k in where.items()}
        keys = [(a.data.name, *(where.get(d, 0) for d in a.dims)) for a in arrays]
        tasks[(name, *index)] = (partial(_call, work, bounds), shared.key, *keys)
    sources = [a.data for a in arrays]
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[*sources, shared])
    results: list[dict[str, xr.DataArray]] = []
    for number, a in enumerate(arrays):
        results.append({})
        for output, lacking in outputs.items():
            dims = [d for d in a.dims if d not in lacking]
            key = f"{output}-{number}-{token}"
            chunks = [a.chunksizes[d] for d in dims]
            picks: dict[Any, Any] = {}
            for index in product(*(range(len(c)) for c in chunks)):
                where = dict(zip(dims, index, strict=True))
                block = (name, *(where[d] for d in cut))
                picks[(key, *index)] = (partial(_pick, number, output), block)
            high = HighLevelGraph({**graph.layers, key: picks}, {**graph.dependencies, key: {name}})
            data = dask.array.Array(high, key, chunks=chunks, dtype=a.dtype)
            like = a.isel({d: 0 for d in lacking if d in a.dims}, drop=True)
            results[number][output] = xr.DataArray(data, like.coords, dims)
    return results


def _call(func: Callable[..., Any], bounds: Bounds, summary: Any, *blocks: NDArray[Any]) -> Any:
    return func(summary, bounds, blocks)


def _pick(number: int, name: str, results: Any) -> NDArray[Any]:
    return np.asarray(getitem(results[number], name))


def _as_array(
    value: Mapping[str, Any], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    return np.asarray(value.get(name, np.nan), dtype=dtype).reshape(shape)

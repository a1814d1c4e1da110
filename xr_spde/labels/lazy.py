"""The lazy engine: the only place that knows how dask cuts, maps and chains work.

Two shapes of work are enough. `apply_core` maps a function over the leading dimensions, with whole
core dimensions in each call. `fold_replicates` walks once through the replicates, in storage order
and one by one, so that sums come out bit for bit the same however the replicates are chunked.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from xr_spde._core.errors import MemoryGuardError, ParameterError
from xr_spde._core.memory import format_bytes, memory_budget
from xr_spde.labels.chain import Fold, fold_array

__all__ = ["Output", "apply_core", "fold_replicates", "is_lazy", "single_core_chunk"]

BLOCK_BYTES = 128 * 2**20
"""Size above which a block that grew by merging its core chunks is split along other dimensions."""

State = TypeVar("State")


@dataclass(frozen=True)
class Output:
    """What one output of a mapped function looks like.

    Attributes
    ----------
    dims : tuple of str
        Core dimensions, in order; leading dimensions come in front by themselves.
    dtype : dtype
        Of the values.
    sizes : mapping of str to int
        Sizes of those core dimensions that the input does not have.
    """

    dims: tuple[str, ...]
    dtype: DTypeLike = np.float64
    sizes: Mapping[str, int] = field(default_factory=dict)


def is_lazy(obj: object) -> bool:
    """Whether an object holds dask arrays.

    Parameters
    ----------
    obj : object
        DataArray, Dataset or array.

    Returns
    -------
    bool
    """
    if "dask" not in sys.modules:
        return False
    from dask.base import is_dask_collection

    return bool(is_dask_collection(obj))


def single_core_chunk(
    obj: xr.DataArray, dims: Sequence[str], limit: int | None = None
) -> xr.DataArray:
    """Merge the core dimensions into one chunk each.

    Where merging makes blocks larger than 128 MiB, they are split along the other dimensions.

    Parameters
    ----------
    obj : DataArray
        Lazy or not; data in memory are returned as they are.
    dims : sequence of str
        Core dimensions.
    limit : int, optional
        Bytes that the core dimensions may take; the memory budget where not given.

    Returns
    -------
    DataArray

    Raises
    ------
    MemoryGuardError
        The core dimensions alone exceed the limit.
    """
    if not is_lazy(obj):
        return obj
    needed = obj.dtype.itemsize * math.prod(obj.sizes[dim] for dim in dims)
    limit = memory_budget() if limit is None else limit
    if needed > limit:
        raise MemoryGuardError(
            f"one block over {', '.join(map(repr, dims))} takes {format_bytes(needed)}, and "
            f"{format_bytes(limit)} are allowed; coarsen or select a region first, or raise the "
            "limit with xr_spde.set_options(memory_limit=...)"
        )
    chunks = obj.chunksizes
    merged: dict[Hashable, Any] = {dim: -1 for dim in dims if len(chunks[dim]) > 1}
    if not merged:
        return obj
    block = needed
    for dim in reversed([name for name in obj.dims if name not in dims]):
        largest = max(chunks[dim])
        allowed = max(1, min(largest, BLOCK_BYTES // max(block, 1)))
        if allowed < largest:
            merged[dim] = _split(chunks[dim], allowed)
        block *= allowed
    return obj.chunk(merged)


def apply_core(
    func: Callable[..., Any],
    *args: xr.DataArray,
    core_dims: Sequence[Sequence[str]],
    output: Mapping[str, Output],
    kwargs: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> dict[str, xr.DataArray]:
    """Map a function of whole core arrays over all other dimensions.

    Parameters
    ----------
    func : callable
        Called once for every leading index with one array per argument, of that argument's core
        dimensions only, in the order given. Returns an array, or a mapping of output names to
        arrays.
    *args : DataArray
        Inputs; leading dimensions are matched by name.
    core_dims : sequence of sequences of str
        Core dimensions of each argument, in the order the function wants them.
    output : mapping of str to Output
        Outputs by name.
    kwargs : mapping, optional
        Keyword arguments of the function.
    limit : int, optional
        See `single_core_chunk`.

    Returns
    -------
    dict of str to DataArray (leading..., core...)
        Lazy where an input is; attributes and coordinates follow from the inputs.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.labels.lazy import Output, apply_core
    >>> fields = xr.DataArray(np.ones((4, 2, 3)), dims=("time", "lat", "lon"))
    >>> total = {"total": Output(())}
    >>> apply_core(np.sum, fields, core_dims=[("lat", "lon")], output=total)["total"].values
    array([6., 6., 6., 6.])
    """
    _check_new_names(output, [name for a in args for name in (*a.dims, *a.coords)], core_dims)
    ready = [single_core_chunk(a, d, limit) for a, d in zip(args, core_dims, strict=True)]
    known = {dim for dims in core_dims for dim in dims}
    sizes = {d: n for spec in output.values() for d, n in spec.sizes.items() if d not in known}
    mapped = partial(
        _each_leading,
        func=partial(func, **(kwargs or {})),
        core_ndims=tuple(len(dims) for dims in core_dims),
        output=dict(output),
    )
    results = xr.apply_ufunc(
        mapped,
        *ready,
        input_core_dims=[list(dims) for dims in core_dims],
        output_core_dims=[list(spec.dims) for spec in output.values()],
        dask="parallelized",
        output_dtypes=[np.dtype(spec.dtype) for spec in output.values()],
        dask_gufunc_kwargs={"output_sizes": sizes},
        keep_attrs=True,
    )
    results = results if len(output) > 1 else (results,)
    return {name: da.rename(name) for name, da in zip(output, results, strict=True)}


def fold_replicates(
    da: xr.DataArray,
    dim: str,
    spatial: tuple[str, str],
    *,
    init: Callable[[], State],
    step: Callable[[State, NDArray[Any]], State],
    finish: Callable[[State], Mapping[str, NDArray[Any]]],
    output: Mapping[str, Output],
    limit: int | None = None,
) -> dict[str, xr.DataArray]:
    """Walk once through the replicates, in storage order, carrying a state.

    Every leading index has its own walk. On lazy data the state passes from one chunk of replicates
    to the next, each task taking in its own chunk, so that memory does not grow with the number of
    replicates and the result does not depend on chunks or scheduler: the function sees the same
    single members in the same order.

    Parameters
    ----------
    da : DataArray
        Fields, with the dimensions in any order.
    dim : str
        Replicate dimension.
    spatial : tuple of str
        ``(y_dim, x_dim)``.
    init : callable
        Returns a new state.
    step : callable
        ``step(state, member)`` with ``member`` an ndarray (1, ny, nx), C-contiguous and its own,
        in stored order; returns the new state, and may change the old one in place: each task works
        on a copy of what it received. States must survive `copy.deepcopy` and pickling.
    finish : callable
        Turns the last state into a mapping of output names to arrays, and leaves it as it is.
    output : mapping of str to Output
        Outputs by name.
    limit : int, optional
        See `single_core_chunk`.

    Returns
    -------
    dict of str to DataArray (leading..., core...)
        Lazy where ``da`` is. Coordinates of the dimensions that are left and the attributes of
        ``da`` are kept.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.labels.lazy import Output, fold_replicates
    >>> fields = xr.DataArray(np.ones((4, 2, 3)), dims=("time", "lat", "lon"))
    >>> fold_replicates(
    ...     fields.chunk({"time": 1}), "time", ("lat", "lon"),
    ...     init=lambda: np.zeros((2, 3)),
    ...     step=lambda total, member: total + member[0],
    ...     finish=lambda total: {"sum": total},
    ...     output={"sum": Output(("lat", "lon"))},
    ... )["sum"].values[0]
    array([4., 4., 4.])
    """
    _check_new_names(output, [*da.dims, *da.coords], [(dim, *spatial)])
    leading = [str(name) for name in da.dims if name not in (dim, *spatial)]
    ordered = single_core_chunk(da, spatial, limit).transpose(*leading, dim, *spatial)
    shapes = {name: _core_shape(spec, da) for name, spec in output.items()}
    dtypes = {name: np.dtype(spec.dtype) for name, spec in output.items()}
    fold = Fold(init=init, step=step, finish=finish, shapes=shapes, dtypes=dtypes)
    arrays = fold_array(ordered.data, fold) if is_lazy(ordered) else fold.run(ordered.data)
    results = {}
    for name, spec in output.items():
        dims = (*leading, *spec.dims)
        coords = {
            key: coord
            for key, coord in da.coords.items()
            if set(coord.dims) <= set(dims)
            and all(spec.sizes.get(str(d), n) == n for d, n in coord.sizes.items())
        }
        results[name] = xr.DataArray(arrays[name], coords, dims, name=name, attrs=da.attrs)
    return results


def _check_new_names(
    output: Mapping[str, Output], taken: Sequence[Hashable], core_dims: Sequence[Sequence[str]]
) -> None:
    """Refuse data that have a leading dimension or coordinate named like a new one."""
    new = {name for spec in output.values() for name in spec.sizes}
    for name in new.intersection(map(str, taken)).difference(*core_dims):
        raise ParameterError(
            f"the data already have a dimension or coordinate {name!r}, which the result needs; "
            f'rename it, for instance .rename({name}="{name}_of_data")'
        )


def _core_shape(spec: Output, da: xr.DataArray) -> tuple[int, ...]:
    return tuple(spec.sizes[dim] if dim in spec.sizes else da.sizes[dim] for dim in spec.dims)


def _split(chunks: tuple[int, ...], allowed: int) -> tuple[int, ...]:
    """Pieces of at most ``allowed``, none across an existing border."""
    pieces: list[int] = []
    for chunk in chunks:
        count = math.ceil(chunk / allowed)
        pieces += [min(allowed, chunk - k * allowed) for k in range(count)]
    return tuple(pieces)


def _each_leading(
    *blocks: NDArray[Any],
    func: Callable[..., Any],
    core_ndims: tuple[int, ...],
    output: dict[str, Output],
) -> NDArray[Any] | tuple[NDArray[Any], ...]:
    leads = [block.shape[: block.ndim - n] for block, n in zip(blocks, core_ndims, strict=True)]
    lead = np.broadcast_shapes(*leads)
    wide = [
        np.broadcast_to(block, lead + block.shape[block.ndim - n :])
        for block, n in zip(blocks, core_ndims, strict=True)
    ]
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in output}
    for index in np.ndindex(lead):
        result = func(*(block[index] for block in wide))
        named = result if isinstance(result, Mapping) else {next(iter(output)): result}
        for name, column in columns.items():
            column.append(np.asanyarray(named[name]).astype(output[name].dtype, copy=False))
    stacked = tuple(np.stack(column).reshape(lead + column[0].shape) for column in columns.values())
    return stacked if len(stacked) > 1 else stacked[0]

"""Overlapping windows of time, mapped one by one, lazily where the data are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xr_spde.labels.tile_map import deferred

__all__ = ["Window", "joined", "map_windows", "plan_windows", "shared", "steps_of"]


@dataclass(frozen=True)
class Window:
    """Steps that are computed together, and those of them that are kept.

    Attributes
    ----------
    index : int
        Number of the window.
    start, stop : int
        Steps that are kept.
    first, last : int
        First and last step that is computed, both included.
    until : int
        Last step that may be observed; below `first` where none may.
    """

    index: int
    start: int
    stop: int
    first: int
    last: int
    until: int


def plan_windows(steps: int, *, block: int, halo: int, lead: int | None = None) -> list[Window]:
    """Cut a series into windows, from its length alone.

    Parameters
    ----------
    steps : int
        Of the series.
    block : int
        Steps kept of a window, at most.
    halo : int
        Steps before and after these that are computed too.
    lead : int, optional
        For what is known at the time or before: every step has a window of its own that ends with
        it and of which the last `lead` steps are not observed.

    Returns
    -------
    list of Window

    Examples
    --------
    >>> from xr_spde.labels.window_map import plan_windows
    >>> [(w.start, w.stop, w.first, w.last) for w in plan_windows(10, block=5, halo=2)]
    [(0, 5, 0, 6), (5, 10, 3, 9)]
    """
    if lead is not None:
        return [Window(k, k, k + 1, max(0, k - lead - halo), k, k - lead) for k in range(steps)]
    count = max(1, -(-steps // block))
    bounds = np.linspace(0, steps, count + 1).round().astype(int).tolist()
    found = []
    for k in range(count):
        first, last = max(0, bounds[k] - halo), min(steps, bounds[k + 1] + halo) - 1
        found.append(Window(k, bounds[k], bounds[k + 1], first, last, last))
    return found


def map_windows(
    tasks: Sequence[Callable[..., Mapping[str, NDArray[Any]]]],
    arrays: Sequence[Mapping[str, Any]],
    output: Mapping[str, tuple[Callable[[int], tuple[int, ...]], int, DTypeLike]],
    *,
    sizes: Sequence[int],
    lazy: bool,
) -> dict[str, Any]:
    """Compute windows one by one and join what they keep.

    Parameters
    ----------
    tasks : sequence of callable
        One per window; called with its arrays by name, returns outputs by name.
    arrays : sequence of mapping
        Of each window, dask arrays or not.
    output : mapping of str to (callable, int, dtype)
        Of every output its shape for so many steps, the axis along which windows are joined, and
        the dtype.
    sizes : sequence of int
        Steps that each window keeps.
    lazy : bool
        Whether to return dask arrays, a task for each window.

    Returns
    -------
    dict of str to array
    """
    if not lazy:
        done = [task(**given) for task, given in zip(tasks, arrays, strict=True)]
        return {
            name: np.concatenate([one[name] for one in done], axis=axis).astype(dtype, copy=False)
            for name, (_, axis, dtype) in output.items()
        }
    import dask
    import dask.array as da

    pieces: dict[str, list[Any]] = {name: [] for name in output}
    for task, given, size in zip(tasks, arrays, sizes, strict=True):
        made = dask.delayed(task, pure=False)(**given)
        for name, (shape, _, dtype) in output.items():
            part = dask.delayed(getitem)(made, name)
            piece = da.from_delayed(part, shape(size), dtype=np.float64)
            pieces[name].append(piece.astype(dtype))
    return {name: da.concatenate(pieces[name], axis=axis) for name, (_, axis, _) in output.items()}


def steps_of(array: Any) -> Callable[[int, int], Any]:
    """Return a function that gives some steps of a series.

    Parameters
    ----------
    array : array (steps, ny, nx)
        Numpy or dask.

    Returns
    -------
    callable
        Of the first step and the one after the last; an array, or a task that puts it together
        from the chunks, so that several readers of a chunk compute it once.
    """
    if isinstance(array, np.ndarray):
        return lambda start, stop: array[start:stop]
    whole = array.rechunk(dict.fromkeys(range(1, array.ndim), -1))
    chunks = whole.to_delayed(optimize_graph=False).ravel()
    edges = np.cumsum([0, *whole.chunks[0]])

    def read(start: int, stop: int) -> Any:
        first = int(np.searchsorted(edges, start, side="right")) - 1
        last = max(first + 1, int(np.searchsorted(edges, stop)))
        parts, offset = list(chunks[first:last]), int(edges[first])
        return deferred(_steps, True)(parts, slice(start - offset, stop - offset))

    return read


def _steps(parts: Sequence[NDArray[Any]], wanted: slice) -> NDArray[Any]:
    return np.ascontiguousarray(np.concatenate(list(parts))[wanted])


def joined(
    pieces: Sequence[Any],
    shapes: Sequence[tuple[int, ...]],
    axis: int,
    dtype: DTypeLike,
    lazy: bool,
) -> Any:
    """Join pieces along an axis.

    Parameters
    ----------
    pieces : sequence of array or task
        One after the other.
    shapes : sequence of tuple
        Of the pieces.
    axis : int
        Along which.
    dtype : dtype
        Of the result.
    lazy : bool
        Whether the pieces are tasks.

    Returns
    -------
    array
    """
    if not lazy:
        return np.concatenate(list(pieces), axis=axis).astype(dtype, copy=False)
    import dask.array as da

    parts = [
        da.from_delayed(piece, shape, dtype=np.float64).astype(dtype)
        for piece, shape in zip(pieces, shapes, strict=True)
    ]
    return da.concatenate(parts, axis=axis)


def shared(obj: Any, lazy: bool) -> Any:
    """Return an object that many tasks use and that a graph holds once.

    Parameters
    ----------
    obj : object
        Any; not looked into.
    lazy : bool
        Whether there is a graph.

    Returns
    -------
    object or task
    """
    if not lazy:
        return obj
    import dask

    return dask.delayed(obj, pure=False, traverse=False)

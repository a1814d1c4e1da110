"""A strictly sequential walk through the chunks of one dask axis, as a graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from operator import getitem
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import dask.array

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Fold:
    """How to walk: the functions of `xr_spde.labels.lazy.fold_replicates` and what they return.

    Attributes
    ----------
    init, step, finish : callable
        Start, advance and close a state.
    shapes : mapping of str to tuple of int
        Core shape of each output.
    dtypes : mapping of str to dtype
        Type of each output.
    """

    init: Callable[[], Any]
    step: Callable[[Any, NDArray[Any]], Any]
    finish: Callable[[Any], Mapping[str, NDArray[Any]]]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[Any]]

    def advance(self, states: list[Any] | None, block: NDArray[Any]) -> list[Any]:
        """Take in the members of one block.

        Parameters
        ----------
        states : list or None
            One state per leading index, in row-major order; left untouched. None to start.
        block : ndarray (leading..., m, ny, nx)
            Members.

        Returns
        -------
        list
            New states.
        """
        lead = block.shape[:-3]
        if states is None:
            current = [self.init() for _ in np.ndindex(lead)]
        else:
            # The scheduler may keep, send or reuse what it handed in: steps act on a copy.
            current = copy.deepcopy(states)
        for position, index in enumerate(np.ndindex(lead)):
            for member in range(block.shape[-3]):
                field = block[index][member : member + 1].copy()
                current[position] = self.step(current[position], field)
        return current

    def close(self, states: list[Any], lead: tuple[int, ...]) -> Arrays:
        """Turn the last states into outputs.

        Parameters
        ----------
        states : list
            One state per leading index.
        lead : tuple of int
            Shape of the leading dimensions of the block.

        Returns
        -------
        dict of str to ndarray (leading..., core...)

        Raises
        ------
        ValueError
            ``finish`` returned an array of another shape than was declared.
        """
        results = [self.finish(state) for state in states]
        closed: Arrays = {}
        for name, shape in self.shapes.items():
            parts = [np.asanyarray(result[name]) for result in results]
            wrong = [part.shape for part in parts if part.shape != shape]
            if wrong:
                raise ValueError(f"output {name!r} has shape {wrong[0]}; {shape} was declared")
            if not parts:
                closed[name] = np.empty(lead + shape, self.dtypes[name])
                continue
            stacked = np.stack(parts).reshape(lead + shape)
            closed[name] = stacked.astype(self.dtypes[name], copy=False)
        return closed

    def run(self, fields: NDArray[Any]) -> Arrays:
        """Walk through an array in memory.

        Parameters
        ----------
        fields : ndarray (leading..., m, ny, nx)
            All members.

        Returns
        -------
        dict of str to ndarray (leading..., core...)
        """
        return self.close(self.advance(None, fields), fields.shape[:-3])


def fold_array(data: dask.array.Array, fold: Fold) -> dict[str, dask.array.Array]:
    """Lay out the walk as a dask graph.

    Parameters
    ----------
    data : dask array (leading..., m, ny, nx)
        One chunk along y and x.
    fold : Fold
        The walk.

    Returns
    -------
    dict of str to dask array (leading..., core...)
        Chunked along the leading dimensions like ``data``.
    """
    import dask
    import dask.array
    from dask.array.utils import meta_from_array
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    token = tokenize(
        data, fold.init, fold.step, fold.finish, sorted(fold.shapes.items()),
        [str(fold.dtypes[name]) for name in sorted(fold.dtypes)],
    )  # fmt: skip
    lead_chunks = data.chunks[:-3]
    (data,) = dask.optimize(data)
    source: dict[Any, Any] = dict(data.__dask_graph__())
    walk, close, functions = f"fold-{token}", f"fold-close-{token}", f"fold-functions-{token}"
    steps: dict[Any, Any] = {}
    closes: dict[Any, Any] = {functions: fold}
    last = len(data.chunks[-3]) - 1
    for block in product(*(range(len(chunks)) for chunks in lead_chunks)):
        for k in range(last + 1):
            before = (walk, *block, k - 1) if k else None
            steps[(walk, *block, k)] = (
                Fold.advance,
                functions,
                before,
                (data.name, *block, k, 0, 0),
            )
        lead = tuple(chunks[i] for chunks, i in zip(lead_chunks, block, strict=True))
        closes[(close, *block)] = (Fold.close, functions, (walk, *block, last), lead)
    graph = _absorb(source, steps, closes)
    results = {}
    for name, shape in fold.shapes.items():
        key = f"fold-{name}-{token}"
        layer = {
            (key, *block, *(0 for _ in shape)): (getitem, (close, *block), name)
            for block in product(*(range(len(chunks)) for chunks in lead_chunks))
        }
        layers = {close: graph, key: layer}
        high = HighLevelGraph(layers, {close: set(), key: {close}})
        meta = meta_from_array(
            data._meta, ndim=len(lead_chunks) + len(shape), dtype=fold.dtypes[name]
        )
        chunks = (*lead_chunks, *((size,) for size in shape))
        results[name] = dask.array.Array(high, key, chunks=chunks, meta=meta)
    return results


def _absorb(source: dict[Any, Any], steps: dict[Any, Any], rest: dict[Any, Any]) -> dict[Any, Any]:
    """Join the graphs, each step taking in the tasks that only it needs.

    A scheduler runs whatever is ready, so free threads would read all the chunks while the walk is
    still at the first ones. A read that is part of its step happens when the walk gets there.
    """
    try:
        from dask._task_spec import Alias, DependenciesMapping, Task, convert_legacy_graph
        from dask.core import reverse_dict
    except ImportError:  # an older dask reads ahead: more memory, same numbers
        return {**source, **steps, **rest}
    graph = convert_legacy_graph({**source, **steps, **rest})
    needs = DependenciesMapping(graph)
    needed_by = reverse_dict(needs)
    for key in steps:
        inside = {key}
        queue = [key]
        while queue:
            for dep in needs[queue.pop()]:
                private = dep in source and needed_by[dep] <= inside
                if private and isinstance(graph[dep], Task | Alias):
                    inside.add(dep)
                    queue.append(dep)
        if len(inside) > 1:
            ordered = sorted(inside, key=lambda k: k != key)
            fused = Task.fuse(*(graph[k] for k in ordered), key=key)
            for k in inside:
                del graph[k]
            graph[key] = fused
    return graph

"""Lazy ensembles: one task per block of members and leading index.

The graph is laid out by hand because its two properties are the point: the parameters enter
once, however many members there are, and a slice of the ensemble asks for its own blocks only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xr_spde._core.options import carry_options

if TYPE_CHECKING:
    import dask.array
    from numpy.typing import DTypeLike, NDArray

__all__ = ["BLOCK_BYTES", "MemberBlock", "lazy_members", "members_per_block"]

BLOCK_BYTES = 64 * 10**6
"""Size of an automatically chosen block of members."""

_FEWEST_BLOCKS = 8


class MemberBlock(Protocol):
    """What computes one block: members ``start`` to ``stop - 1`` of one leading index."""

    def prepare(self, *parameters: NDArray[Any]) -> Any:
        """Return what all blocks of a leading index have in common.

        Parameters
        ----------
        *parameters : ndarray, shape (ny, nx)
            One map per parameter.

        Returns
        -------
        object
            Travels between processes.
        """
        ...

    def __call__(self, start: int, stop: int, path: tuple[int, ...], shared: Any) -> NDArray[Any]:
        """Return members of shape ``(stop - start, ny, nx)``.

        Parameters
        ----------
        start, stop : int
            Range of member numbers.
        path : tuple of int
            The flat leading index, or nothing where there are no leading dimensions.
        shared : object
            What `prepare` returned.

        Returns
        -------
        ndarray, shape (stop - start, ny, nx)
        """
        ...


def members_per_block(n: int, member_bytes: int, group: int) -> int:
    """Choose how many members a block holds.

    About 64 MB, in multiples of what the solver takes at a time, and few enough to give small
    ensembles eight blocks to work on at a time. The choice never changes the numbers of a member.

    Parameters
    ----------
    n : int
        Number of members.
    member_bytes : int
        Bytes of one member.
    group : int
        Members that are solved for at a time; fewer take as long.

    Returns
    -------
    int
        Between 1 and ``n``.

    Examples
    --------
    >>> from xr_spde.labels.members import members_per_block
    >>> members_per_block(1000, 192 * 288 * 8, 64), members_per_block(10, 100, 64)
    (128, 10)
    """
    by_size = BLOCK_BYTES // member_bytes // group
    by_count = -(-n // (_FEWEST_BLOCKS * group))
    return min(n, group * max(1, min(by_size, by_count)))


def _gather(
    block: MemberBlock, path: tuple[int, ...], leading: int, *parameters: NDArray[Any]
) -> tuple[Any, ...]:
    """Collect what all blocks of one leading index share: its number, and what its maps give."""
    maps = [np.asarray(values).reshape(values.shape[leading:]) for values in parameters]
    return path, leading, block.prepare(*maps)


def _evaluate(block: MemberBlock, start: int, stop: int, shared: tuple[Any, ...]) -> NDArray[Any]:
    path, leading, prepared = shared
    members = block(start, stop, path, prepared)
    return members.reshape(stop - start, *(1,) * leading, *members.shape[1:])


def lazy_members(
    block: MemberBlock,
    parameters: Sequence[Any],
    *,
    n: int,
    per_block: int,
    dtype: DTypeLike,
    token: object,
) -> dask.array.Array:
    """Return ``(n, ...leading, ny, nx)`` members as a dask array that computes nothing yet.

    Parameters
    ----------
    block : MemberBlock
        Picklable; computes one block.
    parameters : sequence of array, shape (...leading, ny, nx)
        numpy or dask arrays, the first of this shape; others may have more dimensions between
        the leading and the last two. dask arrays stay lazy.
    n : int
        Number of members.
    per_block : int
        Members per block.
    dtype : dtype
        Of the members.
    token : object
        What, beside the parameters, determines the numbers; names the graph.

    Returns
    -------
    dask.array.Array, shape (n, ...leading, ny, nx)
        One task per (block of members) x (leading index), and one per leading index that gathers
        and prepares its parameters.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    *lead, ny, nx = parameters[0].shape
    lazy = []
    for p in parameters:
        pieces = (*(1 for _ in lead), *(-1 for _ in p.shape[len(lead) :]))
        whole = isinstance(p, da.Array)
        lazy.append(p.rechunk(pieces) if whole else da.from_array(np.asarray(p), pieces))
    digest = tokenize(token, per_block, n, [p.name for p in lazy])
    name, gathered = f"sar-members-{digest}", f"sar-shared-{digest}"
    starts = range(0, n, per_block)
    sizes = tuple(min(per_block, n - start) for start in starts)
    compute, gather = (carry_options(partial(work, block)) for work in (_evaluate, _gather))
    tasks: dict[Any, tuple[Any, ...]] = {}
    for flat, index in enumerate(product(*map(range, lead))):
        inputs = [(p.name, *index, *(0,) * (p.ndim - len(lead))) for p in lazy]
        # One task gathers them for all blocks: references from each would double the graph.
        shared = (gathered, *index)
        tasks[shared] = (gather, (flat,) if lead else (), len(lead), *inputs)
        for b, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            tasks[(name, b, *index, 0, 0)] = (compute, start, start + size, shared)
    # A materialised layer keeps dask from fusing, and so repeating, what makes the parameters.
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=lazy)
    chunks = (sizes, *((1,) * length for length in lead), (ny,), (nx,))
    return da.Array(graph, name, chunks=chunks, dtype=np.dtype(dtype))

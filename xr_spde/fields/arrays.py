"""Arrays of two kinds: what numpy and torch code on a grid share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "as_kind", "is_tensor", "neighbour", "to_numpy"]

Array = Any
"""A numpy array or a torch tensor; a function returns the kind that it was given."""


def is_tensor(array: object) -> bool:
    """Say whether an array is a torch tensor, without importing torch.

    Parameters
    ----------
    array : object
        Anything.

    Returns
    -------
    bool
    """
    return type(array).__module__.split(".")[0] == "torch"


def to_numpy(array: Array) -> NDArray[Any]:
    """Values of either kind in numpy, cut off from any gradient.

    Parameters
    ----------
    array : array or tensor
        Values.

    Returns
    -------
    ndarray
    """
    return np.asarray(array.detach().cpu() if is_tensor(array) else array)


def as_kind(values: NDArray[np.floating], like: Array) -> Array:
    """Constant array in the kind, dtype and device of another.

    Parameters
    ----------
    values : ndarray
        Constants.
    like : array or tensor
        What they will meet.

    Returns
    -------
    array or tensor
    """
    if is_tensor(like):
        import torch

        return torch.as_tensor(np.ascontiguousarray(values), dtype=like.dtype, device=like.device)
    return np.asarray(values, dtype=like.dtype if like.dtype.kind == "f" else np.float64)


def neighbour(field: Array, step: int, axis: int, *, periodic: bool = False) -> Array:
    """Value of the node a number of steps ahead; at a border the last one goes on.

    Parameters
    ----------
    field : array or tensor (..., ny, nx)
        Any field.
    step : int
        How far, in index.
    axis : {-2, -1}
        y or x.
    periodic : bool
        Whether the axis closes.

    Returns
    -------
    array or tensor (..., ny, nx)
    """
    n = field.shape[axis]
    index = np.arange(n) + step
    index = index % n if periodic else np.clip(index, 0, n - 1)
    if is_tensor(field):
        import torch

        return field.index_select(axis, torch.as_tensor(index, device=field.device))
    return np.take(field, index, axis=axis)

"""Values of gridded fields between the nodes, in numpy and differentiable in torch.

Positions count cells from the centre of the first one. Beyond a border the field goes on with the
value at the border; a periodic x closes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.arrays import Array, is_tensor

__all__ = ["KERNELS", "sample", "sample_missing"]

KERNELS = ("linear", "cubic", "monotone")
"""Bilinear; the cubic convolution of Keys (1981), of third order; the same, clipped to the range of
the four nodes around, which keeps bounds."""

Index = NDArray[np.intp]


def sample(
    field: Array, y: Array, x: Array, *, kernel: str = "cubic", periodic_x: bool = False
) -> Array:
    """Field at given positions.

    Parameters
    ----------
    field : array or tensor (..., ny, nx)
        Finite values; see :func:`sample_missing` for gaps.
    y, x : array or tensor (my, mx) or (b, my, mx)
        Positions in cells. With a leading b, the first dimension of `field` has the length b too
        and each of its items is sampled at positions of its own.
    kernel : {"linear", "cubic", "monotone"}
        See :data:`KERNELS`.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    array or tensor (..., my, mx)
        Of the kind and dtype of `field`. In torch differentiable in the field and the positions.

    Raises
    ------
    UnknownNameError
        For another kernel.
    ParameterError
        If the shapes do not fit.

    References
    ----------
    Keys, R. (1981): Cubic convolution interpolation for digital image processing. IEEE Trans. ASSP
    29, 1153-1160 (a = -1/2).

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.fields.sampling import sample
    >>> j, i = np.mgrid[0:5, 0:6].astype(float)
    >>> round(float(sample(i + 10 * j, j[1:3, 2:4] + 0.5, i[1:3, 2:4] - 0.25)[0, 0]), 9)
    16.75
    """
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)
    if y.shape != x.shape or y.ndim not in (2, 3) or field.ndim < y.ndim:
        raise ParameterError(
            f"positions y {tuple(y.shape)} and x {tuple(x.shape)} for a field "
            f"{tuple(field.shape)}; expected (my, mx) both, or (b, my, mx) for a field (b, ..., "
            "ny, nx)"
        )
    if y.ndim == 3 and field.shape[0] != y.shape[0]:
        raise ParameterError(
            f"{y.shape[0]} sets of positions for {field.shape[0]} fields; expected one for each"
        )
    if is_tensor(field):
        from xr_spde.fields.sampling_torch import sample_tensor

        return sample_tensor(field, y, x, kernel=kernel, periodic_x=periodic_x)
    if y.ndim == 3:
        items = zip(field, y, x, strict=True)
        return np.stack([_sample(one, b, a, kernel, periodic_x) for one, b, a in items])
    return _sample(np.asarray(field), y, x, kernel, periodic_x)


def sample_missing(
    field: Array,
    y: Array,
    x: Array,
    *,
    kernel: str = "cubic",
    periodic_x: bool = False,
    least: float = 0.5,
) -> Array:
    """Field with gaps (NaN) at given positions; numpy only.

    Gaps are filled with the nearest value so that the kernel has something to stand on, and what
    would be taken from them is missing again: where the bilinear weight of nodes with data is less
    than `least`, or the position lies more than half a cell outside the grid.

    Parameters
    ----------
    field : ndarray (ny, nx)
        NaN is missing.
    y, x : ndarray (my, mx)
        Positions in cells.
    kernel, periodic_x
        As in :func:`sample`.
    least : float
        Least share of the value that must come from data, between 0 and 1.

    Returns
    -------
    ndarray (my, mx)
        NaN where nothing is known.
    """
    values = np.asarray(field)
    missing = np.isnan(values)
    ny, nx = values.shape
    outside = (y < -0.5) | (y > ny - 0.5)
    if not periodic_x:
        outside |= (x < -0.5) | (x > nx - 0.5)
    if not missing.any():
        out = np.asarray(sample(values, y, x, kernel=kernel, periodic_x=periodic_x))
        return np.where(outside, np.nan, out).astype(values.dtype)
    filled = fill_nearest(values)
    out = np.asarray(sample(filled, y, x, kernel=kernel, periodic_x=periodic_x))
    known = sample((~missing).astype(values.dtype), y, x, kernel="linear", periodic_x=periodic_x)
    return np.where(outside | (known < least), np.nan, out).astype(values.dtype)


def fill_nearest(field: Array) -> NDArray[np.floating]:
    """Fill gaps with the nearest value.

    Parameters
    ----------
    field : ndarray (ny, nx)
        NaN is missing.

    Returns
    -------
    ndarray (ny, nx)
        Without NaN, unless all are missing: then zeros.
    """
    from scipy.ndimage import distance_transform_edt

    values = np.asarray(field)
    missing = np.isnan(values)
    if missing.all():
        return np.zeros_like(values)
    if not missing.any():
        return values
    near = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(near)])


def _sample(
    field: NDArray[np.floating], y: Array, x: Array, kernel: str, periodic_x: bool
) -> NDArray[np.floating]:
    """Sample numpy fields (..., ny, nx) at one set of positions."""
    dtype = field.dtype if field.dtype.kind == "f" else np.dtype(np.float64)
    ny, nx = field.shape[-2:]
    flat = np.ascontiguousarray(field, dtype=dtype).reshape(-1, ny * nx)
    j, fy = _split(np.asarray(y), ny, False, dtype)
    i, fx = _split(np.asarray(x), nx, periodic_x, dtype)
    reach = (0, 1) if kernel == "linear" else (-1, 0, 1, 2)
    wy, wx = (_linear(f) if kernel == "linear" else _keys(f) for f in (fy, fx))
    columns = [_node(i + step, nx, periodic_x) for step in reach]
    out = np.zeros((len(flat), *j.shape), dtype=dtype)
    low = np.full(out.shape, np.inf, dtype=dtype) if kernel == "monotone" else None
    high = None if low is None else -low
    for dj, weight_y in zip(reach, wy, strict=True):
        row = np.clip(j + dj, 0, ny - 1) * nx
        line = np.zeros_like(out)
        for di, column, weight_x in zip(reach, columns, wx, strict=True):
            value = flat.take(row + column, axis=1)
            line += weight_x * value
            if low is not None and high is not None and dj in (0, 1) and di in (0, 1):
                np.minimum(low, value, out=low)
                np.maximum(high, value, out=high)
        out += weight_y * line
    if low is not None:
        out = np.clip(out, low, high)
    return out.reshape(*field.shape[:-2], *j.shape)


def _split(
    position: NDArray[np.floating], n: int, periodic: bool, dtype: np.dtype[np.floating]
) -> tuple[Index, NDArray[np.floating]]:
    """Index of the node before, and the fraction of a cell beyond it."""
    inside = position if periodic else np.clip(position, 0, n - 1)
    whole = np.floor(inside)
    return whole.astype(np.intp), (inside - whole).astype(dtype)


def _node(index: Index, n: int, periodic: bool) -> Index:
    return index % n if periodic else np.clip(index, 0, n - 1)


def _linear(f: Array) -> tuple[Array, Array]:
    return 1 - f, f


def _keys(f: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the nodes -1, 0, 1 and 2; of numpy arrays and tensors alike."""
    return (
        f * (-0.5 + f * (1.0 - 0.5 * f)),
        1.0 + f * f * (1.5 * f - 2.5),
        f * (0.5 + f * (2.0 - 1.5 * f)),
        f * f * (0.5 * f - 0.5),
    )

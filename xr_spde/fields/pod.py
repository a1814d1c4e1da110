"""Fit a proper orthogonal decomposition to a series, as a state map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.point_rows import check_points
from xr_spde._core.rng import Seed, resolve_seed
from xr_spde.fields.pod_map import PodMap
from xr_spde.fields.pod_modes import Series, find_modes
from xr_spde.solvers.threads import single_blas_thread

__all__ = ["PodMap", "fit_pod"]

Float = NDArray[np.float64]

METHODS = ("auto", "gram", "randomised")


def fit_pod(
    values: Any,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    modes: float = 400,
    sphere: bool = True,
    method: str = "auto",
    fills: int = 50,
    tol: float = 1e-4,
    memory: int = 2**30,
    seed: Seed = 0,
) -> tuple[PodMap, Float]:
    """Fit modes to a series.

    Parameters
    ----------
    values : array-like (N, P, c)
        Snapshots: an array, or anything that ``[start:stop]`` cuts and numpy can read (dask, Zarr,
        netCDF, a memory map). NaN is missing: values never seen are left out, others are filled.
    points : array_like (P, 2)
        Longitude and latitude in radians, or x and y.
    weights : array_like (P,) or (P, c), optional
        Of the squared misfits, such as areas, zero where values do not count; by default equal.
    modes : int or float, default 400
        Size of a code; or, below one, the share of the variance that the modes are to carry.
    sphere : bool, default True
        Whether `points` are longitude and latitude.
    method : {"auto", "gram", "randomised"}, default "auto"
        Eigenvectors of the smaller matrix of inner products, or subspace iteration; ``"auto"``
        takes the former up to a size of 8192.
    fills : int, default 50
        Most rounds of filling values that are missing here and there; 0 leaves them at the mean.
    tol : float, default 1e-4
        Change of the variances, relative to the first, at which filling ends.
    memory : int, default 2**30
        Bytes up to which a series is kept; a longer one is read in blocks, several times.
    seed : int, SeedSequence or Generator, default 0
        Of the start of the subspace iteration.

    Returns
    -------
    PodMap
        The map, its modes of the dtype of the values.
    ndarray (N, n)
        Codes of the snapshots.

    Raises
    ------
    ParameterError
        For shapes that do not fit, variables without values, values that do not vary, fewer
        snapshots than modes.
    UnknownNameError
        For another method.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    places = check_points(points, sphere=sphere)
    shape = tuple(values.shape)
    if len(shape) != 3 or shape[1] != len(places) or shape[0] < 2:
        raise ParameterError(f"values have shape {shape}; expected (N, {len(places)}, c), N > 1")
    whole = modes >= 1
    if not modes > 0 or (whole and modes != int(modes)):
        raise ParameterError(f"modes={modes}: give a number of modes, or a share between 0 and 1")
    w = np.ones(shape[1:]) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape not in (shape[1:], shape[1:2]) or not (np.isfinite(w) & (w >= 0.0)).all():
        raise ParameterError(
            f"weights have shape {w.shape}; expected numbers >= 0 of shape ({shape[1]},) or "
            f"{shape[1:]}"
        )
    w = np.ascontiguousarray(np.broadcast_to(w[:, None] if w.ndim == 1 else w, shape[1:]))
    with single_blas_thread():
        series = Series(values, w.ravel(), memory)
        used = series.used.reshape(shape[1:])
        if not used.any(axis=0).all():
            empty = np.flatnonzero(~used.any(axis=0)).tolist()
            raise ParameterError(
                f"values of variables {empty} are missing, or have no weight, everywhere; leave "
                "these variables out"
            )
        w = np.where(used, w, 0.0)
        w /= shape[2] * w.sum(axis=0)
        series.weigh(w.ravel())
        found = find_modes(
            series, int(modes) if whole else float(modes),
            method=method, fills=fills, tol=tol, seed=resolve_seed(seed),
        )  # fmt: skip
    dtype = np.result_type(values.dtype, np.float32)
    left = np.maximum(found.total - found.modes**2 @ found.variances, 0.0)
    residual = np.full(series.size, np.nan)
    full = np.full((series.size, len(found.variances)), np.nan)
    residual[series.used], full[series.used] = left, found.modes
    fitted = PodMap(
        places, series.mean.reshape(shape[1:]).astype(dtype),
        full.reshape(*shape[1:], -1).astype(dtype), w, found.variances,
        residual.reshape(shape[1:]), sphere=sphere,
    )  # fmt: skip
    return fitted, found.codes

"""Residuals of held-out time: steps of a propagator, reconstructions of a state map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.assim.latent.protocols import Propagator

__all__ = ["cross_residuals", "representativeness", "step_residuals"]

Float = NDArray[np.float64]


def step_residuals(
    propagator: Propagator,
    windows: ArrayLike,
    *,
    dts: ArrayLike | None = None,
    times: ArrayLike | None = None,
) -> Float:
    """Compute errors of single steps, over the square root of their length.

    Parameters
    ----------
    propagator : Propagator
        Of codes.
    windows : array_like (W, S, n)
        Codes at S times in a row, not those of the training. Steps with NaN are left out.
    dts : array_like (W, S - 1), optional
        Lengths of the steps; by default one.
    times : array_like (W, S), optional
        Days since 1970-01-01.

    Returns
    -------
    ndarray (K, n)

    Raises
    ------
    ParameterError
        For shapes that do not fit, or if no step is left.
    """
    codes = np.asarray(windows, dtype=np.float64)
    if codes.ndim != 3 or codes.shape[1] < 2:
        raise ParameterError(f"windows have shape {codes.shape}; expected (W, S, n), S at least 2")
    shape = (codes.shape[0], codes.shape[1] - 1)
    dt = np.ones(shape) if dts is None else np.asarray(dts, dtype=np.float64)
    if dt.shape != shape:
        raise ParameterError(f"dts have shape {dt.shape}; expected {shape}")
    start, end = codes[:, :-1].reshape(-1, codes.shape[2]), codes[:, 1:].reshape(-1, codes.shape[2])
    length = np.round(dt.ravel(), 3)
    when = None if times is None else np.asarray(times, dtype=np.float64)[:, :-1].ravel()
    kept = np.isfinite(start).all(1) & np.isfinite(end).all(1) & (length > 0.0)
    if not kept.any():
        raise ParameterError("no step of the windows is complete")
    residual = np.empty_like(start)
    keys = length[:, None] if when is None else np.stack([length, when], 1)
    for key in np.unique(keys[kept], axis=0):
        part = kept & (keys == key).all(1)
        time = None if when is None else float(key[1])
        residual[part] = end[part] - propagator.step(start[part], float(key[0]), time)
    return np.asarray(residual[kept] / np.sqrt(length[kept])[:, None])


def cross_residuals(
    fit: Callable[[NDArray[np.int64]], Propagator],
    windows: ArrayLike,
    *,
    folds: int = 5,
    dts: ArrayLike | None = None,
    times: ArrayLike | None = None,
) -> Float:
    """Compute errors of single steps, each by a propagator that was fitted without its window.

    Parameters
    ----------
    fit : callable
        From the numbers of windows to a propagator fitted to them.
    windows, dts, times
        As in :func:`step_residuals`.
    folds : int, default 5
        Groups of windows in a row that are left out in turn.

    Returns
    -------
    ndarray (K, n)

    Raises
    ------
    ParameterError
        For fewer than two windows or folds.
    """
    codes = np.asarray(windows, dtype=np.float64)
    folds = min(folds, len(codes))
    if folds < 2:
        raise ParameterError(f"{len(codes)} windows, {folds} folds: expected two of each at least")
    parts = []
    for out in np.array_split(np.arange(len(codes)), folds):
        found = fit(np.setdiff1d(np.arange(len(codes)), out))
        given = {
            name: None if value is None else np.asarray(value)[out]
            for name, value in (("dts", dts), ("times", times))
        }
        parts.append(step_residuals(found, codes[out], dts=given["dts"], times=given["times"]))
    return np.concatenate(parts)


def representativeness(
    errors: ArrayLike, weights: ArrayLike | None = None, *, per: str = "variable"
) -> Float:
    """Variance of what a state map cannot represent, from held-out reconstructions.

    Parameters
    ----------
    errors : array_like (N, P, c)
        Reconstructions minus fields; NaN is missing.
    weights : array_like (P,) or (P, c), optional
        Of the points, for one variance of each variable.
    per : {"variable", "point"}
        What has a variance of its own.

    Returns
    -------
    ndarray (c,) or (P, c)
        Mean squares: a constant error is part of them. NaN at points that are never known.

    Raises
    ------
    ParameterError
        For other shapes.
    UnknownNameError
        For another `per`.
    """
    e = np.asarray(errors, dtype=np.float64)
    if per not in ("variable", "point"):
        raise unknown("per", per, ("variable", "point"))
    if e.ndim != 3:
        raise ParameterError(f"errors have shape {e.shape}; expected (N, P, c)")
    known = np.isfinite(e)
    squares = np.where(known, e, 0.0) ** 2
    if per == "point":
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(squares.sum(0) / known.sum(0))
    w = np.ones(e.shape[1:]) if weights is None else np.asarray(weights, dtype=np.float64)
    w = np.broadcast_to(w[:, None] if w.ndim == 1 else w, e.shape[1:])
    return np.asarray((squares * w).sum((0, 1)) / (known * w).sum((0, 1)))

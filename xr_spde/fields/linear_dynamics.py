r"""Linear dynamics of codes: ``z(t + 1) = A z(t) + B f(t) + b``, by ridge regression.

The penalty draws A to the identity or to zero, and how strongly, as cross-validation says.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.codes import Forcing, metric_root
from xr_spde._core.errors import ParameterError
from xr_spde.fields.linear_propagator import LinearPropagator, PersistencePropagator
from xr_spde.solvers.threads import single_blas_thread

__all__ = ["LinearPropagator", "PersistencePropagator", "fit_linear", "window_index"]

LOGGER = logging.getLogger(__name__)

Float = NDArray[np.float64]

_RIDGES = tuple(10.0**k for k in range(-10, 1))
_PASSES, _LONGEST = 4, 2.0


def window_index(
    count: int, length: int, *, stride: int | None = None, breaks: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Give the numbers of the snapshots of windows of a series.

    Parameters
    ----------
    count : int
        Snapshots in the series.
    length : int
        Of a window, 2 or more.
    stride : int, optional
        From the start of one window to that of the next; by default ``length - 1``, so that every
        pair of neighbours is in one window.
    breaks : sequence of int, optional
        Where further trajectories begin; no window reaches across.

    Returns
    -------
    ndarray (W, length)
        ``codes[index]`` and ``times[index]`` are the windows.

    Raises
    ------
    ParameterError
        If there is not one window, or for lengths below 2.

    Examples
    --------
    >>> from xr_spde.fields.linear_dynamics import window_index
    >>> window_index(6, 2, breaks=[3]).tolist()
    [[0, 1], [1, 2], [3, 4], [4, 5]]
    """
    stride = max(length - 1, 1) if stride is None else stride
    if length < 2 or stride < 1:
        raise ParameterError(f"length={length}, stride={stride}: expected at least 2 and 1")
    edges = [0, *sorted(breaks), count]
    starts = np.concatenate(
        [np.arange(low, high - length + 1, stride) for low, high in pairwise(edges)]
    ).astype(np.int64)
    if not starts.size:
        raise ParameterError(
            f"no trajectory of the {count} snapshots has the {length} of a window; give a shorter "
            "one"
        )
    return np.asarray(starts[:, None] + np.arange(length))


def fit_linear(
    windows: ArrayLike,
    *,
    dts: ArrayLike | None = None,
    times: ArrayLike | None = None,
    forcing: Forcing | None = None,
    ridge: float | None = None,
    folds: int = 5,
    metric: ArrayLike | None = None,
) -> LinearPropagator:
    """Fit a linear propagator to windows of codes.

    Parameters
    ----------
    windows : array_like (W, S, n) or (S, n)
        Codes at S times in a row. Pairs with NaN are left out.
    dts : array_like (W, S - 1), optional
        Lengths of the steps; by default one. Steps longer than two are left out.
    times : array_like (W, S), optional
        Days since 1970-01-01; needed with forcing.
    forcing : Forcing, optional
        By the calendar.
    ridge : float, optional
        Penalty over the mean variance of the codes, drawing A to the identity; by default,
        cross-validation over groups of windows in a row chooses it, and the identity or zero.
    folds : int, default 5
        Of the cross-validation.
    metric : array_like (n,) or (n, n), optional
        What errors of codes mean in fields: ``J' W J`` of the Jacobian and the weights. The penalty
        and the errors are measured in it; by default, and for orthogonal modes, the identity.

    Returns
    -------
    LinearPropagator

    Raises
    ------
    ParameterError
        For shapes that do not fit, or fewer than two pairs.

    Notes
    -----
    Steps of length dt are regressed on through ``z(t + dt) - (M ** dt - M) z(t)``, M from the
    former pass, with weights ``1 / dt``.
    """
    start, end, dt, time = _pairs(windows, dts, times, forcing)
    n = start.shape[1]
    if len(start) <= n:
        LOGGER.warning(
            "%d pairs of snapshots for codes of size %d: much of the linear propagator is what "
            "the penalty makes it; give more snapshots, or shorter codes", len(start), n,
        )  # fmt: skip
    fixed = np.ones((len(start), 1))
    if forcing is not None:
        fixed = np.concatenate([forcing.features(time), fixed], axis=1)
    plain = np.abs(dt - 1.0) < 1e-9
    with single_blas_thread():
        root = metric_root(metric, n)
        start, end = start @ root, end @ root
        target = end
        found = _regress(start, target, fixed, 1.0 / dt, ridge, folds, forcing)
        for _ in range(0 if plain.all() else _PASSES):
            target = end.copy()
            for length in np.unique(dt[~plain]):
                part = dt == length
                more = found._power(length) - found.rows
                target[part] -= start[part] @ more[:, :n].T + fixed[part] @ more[:, n:].T
            found = _regress(start, target, fixed, 1.0 / dt, ridge, folds, forcing)
        rows = np.concatenate([found.matrix() @ root.T, found.rows[:, n:]], axis=1)
        rows = scipy.linalg.solve_triangular(root.T, rows, lower=False)
    found = LinearPropagator(
        rows[:, :n], rows[:, -1], forced=rows[:, n:-1], forcing=forcing, ridge=found.ridge
    )
    LOGGER.info(
        "linear propagator of %d pairs: penalty %.0e, spectral radius %.4f",
        len(start), found.ridge, found.radius,
    )  # fmt: skip
    return found


def _pairs(
    windows: ArrayLike, dts: ArrayLike | None, times: ArrayLike | None, forcing: Forcing | None
) -> tuple[Float, Float, Float, Float]:
    """Give starts, ends, lengths and times of all steps that are complete."""
    codes = np.asarray(windows, dtype=np.float64)
    codes = codes[None] if codes.ndim == 2 else codes
    if codes.ndim != 3 or codes.shape[1] < 2:
        raise ParameterError(f"windows have shape {codes.shape}; expected (W, S, n), S at least 2")
    count, steps, n = codes.shape
    dt = np.ones((count, steps - 1)) if dts is None else np.asarray(dts, dtype=np.float64)
    time = np.zeros((count, steps)) if times is None else np.asarray(times, dtype=np.float64)
    dt, time = dt.reshape(-1, dt.shape[-1]), time.reshape(-1, time.shape[-1])
    if dt.shape != (count, steps - 1) or time.shape != (count, steps):
        raise ParameterError(
            f"dts {dt.shape}, times {time.shape}: expected {(count, steps - 1)}, {(count, steps)}"
        )
    if forcing is not None and times is None:
        raise ParameterError("times= is missing: forcing by the calendar needs them")
    start, end = codes[:, :-1].reshape(-1, n), codes[:, 1:].reshape(-1, n)
    length, at = np.round(dt, 3).ravel(), time[:, :-1].ravel()
    kept = np.isfinite(start).all(1) & np.isfinite(end).all(1) & (length > 0.0)
    kept &= length <= _LONGEST
    if kept.sum() < 2:
        raise ParameterError(
            f"{int(kept.sum())} pairs of complete snapshots at most {_LONGEST:g} steps apart; "
            "expected two or more"
        )
    if not kept.all():
        LOGGER.info("%d of %d pairs of snapshots are left out", (~kept).sum(), kept.size)
    return start[kept], end[kept], length[kept], at[kept]


def _regress(
    start: Float, end: Float, fixed: Float, weight: Float, ridge: float | None, folds: int,
    forcing: Forcing | None,
) -> LinearPropagator:  # fmt: skip
    """Ridge regression, with columns that bear no penalty."""
    root = np.sqrt(weight)[:, None]
    both = np.concatenate([start, end], axis=1)
    coefficients = np.linalg.lstsq(fixed * root, both * root, rcond=None)[0]
    n = start.shape[1]
    x, y = np.split((both - fixed @ coefficients) * root, [n], axis=1)
    gram, cross = x.T @ x, x.T @ y
    size = np.trace(gram) / n
    if size <= 0.0:
        raise ParameterError("the codes do not change: there are no dynamics to fit")
    chosen, towards = (ridge, 1.0) if ridge is not None else _validated(x, y, gram, cross, folds)
    A = _solve(gram, cross, chosen * size, towards)
    rest = coefficients[:, n:] - coefficients[:, :n] @ A
    return LinearPropagator(A.T, rest[-1], forced=rest[:-1].T, forcing=forcing, ridge=float(chosen))


def _solve(gram: Float, cross: Float, penalty: float, towards: float) -> Float:
    eye = np.eye(len(gram))
    # a relative floor: codes that are combinations of others, without a penalty
    system = gram + (penalty + 1e-14 * np.trace(gram) / len(gram)) * eye
    return np.asarray(scipy.linalg.solve(system, cross + penalty * towards * eye, assume_a="pos"))


def _validated(x: Float, y: Float, gram: Float, cross: Float, folds: int) -> tuple[float, float]:
    """Penalty, and what it draws to, of the least error of one step in folds left out."""
    edges = np.linspace(0, len(x), min(folds, len(x)) + 1).astype(int)
    choices = [(ridge, towards) for ridge in _RIDGES for towards in (1.0, 0.0)]
    errors = np.zeros(len(choices))
    for low, high in pairwise(edges):
        xf, yf = x[low:high], y[low:high]
        g, c = gram - xf.T @ xf, cross - xf.T @ yf
        size = max(np.trace(g) / len(g), 1e-300)
        for k, (ridge, towards) in enumerate(choices):
            errors[k] += np.sum((yf - xf @ _solve(g, c, ridge * size, towards)) ** 2)
    return choices[int(np.argmin(errors))]

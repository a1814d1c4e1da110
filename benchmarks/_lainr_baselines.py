"""Linear baselines of the table of `lainr.py`: what a learned representation has to beat.

All on the protocol of Li, Dong and Zhang (2024): the series of one trajectory, some of its values
observed every hour with errors of 0.1 standard deviations, a first guess with errors of as much at
every value. Fields are normalised, scores are root mean squares weighed by area, averaged over
times and variables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from xr_spde.assim.filters import analyse
from xr_spde.assim.model_noise import add_noise
from xr_spde.fields.latent_kalman import KalmanFilter, kalman_filter
from xr_spde.fields.linear_dynamics import LinearPropagator, fit_linear
from xr_spde.fields.pod import PodMap, fit_pod

Array = NDArray[Any]
Float = NDArray[np.float64]

ERROR = 0.1
SEED = 2357
HOURS = 199  # analyses, the hour of the first guess left out
# Next to no penalty: from 1e-8 to 1e-4 free runs differ by 2 %. The 1e-2 that cross-validation over
# trajectories takes draws trailing codes to persistence, and free runs are twice as far off.
RIDGE = 1e-5


@dataclass(frozen=True, eq=False)
class Runs:
    """Trajectories, normalised.

    Attributes
    ----------
    values : ndarray (S, T, P, c)
        Fields.
    points : ndarray (P, 2)
        Longitude and latitude in radians.
    weights : ndarray (P,)
        Areas, with sum one.
    speeds : ndarray (S,)
        Of the jet at the start, m/s.
    scale : ndarray (2, c)
        Mean and standard deviation of the training.
    """

    values: Array
    points: Float
    weights: Float
    speeds: Float
    scale: Float


@dataclass(frozen=True, eq=False)
class Network:
    """Fixed sites of one trajectory and what they report.

    Attributes
    ----------
    site, variable : ndarray (p,)
        Number of the point, and of the variable, of each observation.
    points : ndarray (p, 2)
        Where they are.
    y : ndarray (T, p)
        Observations.
    truth : ndarray (T, P, c)
        What was observed, on the grid that scores are for.
    first : ndarray (P, c)
        First guess an hour before.
    """

    site: NDArray[np.int64]
    variable: NDArray[np.int64]
    points: Float
    y: Float
    truth: Array
    first: Array


def read_runs(folder: str | Path, train: Any, *, which: str = "even") -> Runs:
    """Read trajectories that `xr_spde.synthetic` made, normalised by those of the training."""
    folder = Path(folder)
    values = np.load(folder / f"{which}.npy", mmap_mode="r")
    known = np.load(folder / f"{which}_coords.npz")
    fitted = np.load(folder / "even.npy", mmap_mode="r")[train]
    scale = np.array([[fitted[..., k].mean(dtype=np.float64) for k in range(2)],
                      [fitted[..., k].std(dtype=np.float64) for k in range(2)]])  # fmt: skip
    found = ((values - scale[0]) / scale[1]).astype(np.float32)
    places = np.broadcast_arrays(np.radians(known["lon"]), np.radians(known["lat"])[:, None])
    points = np.stack(places, axis=-1).reshape(-1, 2)
    weights = np.cos(points[:, 1])
    shape = (*found.shape[:2], len(points), found.shape[-1])
    return Runs(found.reshape(shape), points, weights / weights.sum(), known["speed"], scale)


def rmse(found: Array, truth: Array, weights: Float) -> float:
    """Root mean square error of fields (T, P, c), averaged over times and variables."""
    square = np.einsum("p,tpc->tc", weights, (np.asarray(found, np.float64) - truth) ** 2)
    return float(np.sqrt(square).mean())


def observe(
    runs: Runs, number: int, *, count: int = 1024, seen: Runs | None = None, seed: int = SEED
) -> Network:
    """Observe a trajectory at fixed random values, on its own grid or that of `seen`."""
    source, rng = runs if seen is None else seen, np.random.default_rng(seed)
    series = source.values[number]
    entries = np.sort(rng.choice(series[0].size, count, replace=False))
    site, variable = np.divmod(entries, series.shape[2])
    y = series[1 : HOURS + 1].reshape(HOURS, -1)[:, entries].astype(np.float64)
    y = y + ERROR * rng.standard_normal(y.shape)
    own = runs.values[number]
    first = own[0] + ERROR * rng.standard_normal(own[0].shape)
    return Network(site, variable, source.points[site], y, own[1 : HOURS + 1], first)


@dataclass(frozen=True, eq=False)
class Linear:
    """POD with linear dynamics.

    Attributes
    ----------
    pod : PodMap
        State map.
    steps : LinearPropagator
        One hour.
    noise : ndarray (n, n)
        Covariance of the residuals of steps.
    """

    pod: PodMap
    steps: LinearPropagator
    noise: Float


def fit_linear_model(
    runs: Runs, train: Any, modes: int, *, every: int = 1, ridge: float | None = RIDGE
) -> tuple[Linear, Float]:
    """Fit POD and linear dynamics to some trajectories; also gives their codes (S, T, n).

    Modes of every third hour (``every=3``) take a tenth of the time, and their floors are within
    2 % of those of all.
    """
    values = runs.values[train]
    some = values[:, ::every]
    pod, _ = fit_pod(some.reshape(-1, *some.shape[2:]), runs.points, runs.weights, modes=modes)
    codes = np.stack([pod.encode(run, prior=False) for run in values]).astype(np.float64)
    return with_steps(pod, codes, ridge=ridge), codes


def cut(model: Linear, codes: Float, modes: int, *, ridge: float | None = RIDGE) -> Linear:
    """Keep the leading modes only; `codes` (S, T, n) are those of the training."""
    pod, left = model.pod, model.pod.modes[..., modes:].astype(np.float64) ** 2
    residual = pod.residual + left @ pod.variances[modes:]
    fewer = PodMap(pod.points, pod.mean_field, pod.modes[..., :modes], pod.weights,
                   pod.variances[:modes], residual)  # fmt: skip
    return with_steps(fewer, codes[..., :modes], ridge=ridge)


def with_steps(pod: PodMap, codes: Float, *, ridge: float | None = RIDGE) -> Linear:
    """Add linear dynamics to modes, of codes (S, T, n)."""
    steps = fit_linear(codes, ridge=ridge)
    before, after = (a.reshape(-1, pod.n) for a in (codes[:, :-1], codes[:, 1:]))
    left = after - steps.step(before)
    return Linear(pod, steps, left.T @ left / len(left))


def _rows(model: Linear, net: Network, *, off_grid: bool) -> tuple[Float, Float, Float]:
    """Rows (p, n), offset and error variance of the observations."""
    mean, modes, residual = model.pod.at(net.points if off_grid else None)
    site = np.arange(len(net.site)) if off_grid else net.site
    rows, offset = modes[site, net.variable], mean[site, net.variable]
    variance = ERROR**2 + residual[site, net.variable]
    return rows.astype(np.float64), offset.astype(np.float64), variance


def _start(model: Linear, net: Network) -> KalmanFilter:
    """First guess and its errors, as codes."""
    mean = model.pod.encode(net.first[None].astype(np.float64), noise=ERROR**2)[0]
    basis = model.pod.modes.reshape(-1, model.pod.n).astype(np.float64)
    variance = (ERROR**2 + model.pod.residual).reshape(-1)
    information = basis.T @ (basis / variance[:, None]) + np.diag(1.0 / model.pod.variances)
    return KalmanFilter(mean, np.linalg.inv(information))


def persistence(model: Linear, net: Network) -> Array:
    """First guess of all times."""
    return np.broadcast_to(model.pod.decode(_start(model, net).mean[None]), net.truth.shape)


def free_run(model: Linear, net: Network, *, prior: bool = False) -> Array:
    """Forecast from the first guess, no observations.

    The first guess is projected on the modes, as in the audit of the published protocol; with
    `prior` its errors are weighed against the spread of the codes, which is better.
    """
    first = net.first[None].astype(np.float64)
    code = (
        model.pod.encode(first, noise=ERROR**2) if prior else model.pod.encode(first, prior=False)
    )
    found = []
    for _ in range(len(net.y)):
        code = model.steps.step(code)
        found.append(code[0])
    return model.pod.decode(np.array(found))


def static_oi(model: Linear, net: Network, *, off_grid: bool = False) -> Array:
    """Each time by itself, with the covariance of the training; no dynamics."""
    rows, offset, variance = _rows(model, net, off_grid=off_grid)
    prior = model.pod.variances
    gram = rows.T @ (rows / variance[:, None]) + np.diag(1.0 / prior)
    pull = rows.T @ ((net.y - offset) / variance).T
    return model.pod.decode(np.linalg.solve(gram, pull).T)


def exact_filter(
    model: Linear, net: Network, *, off_grid: bool = False
) -> tuple[Array, dict[str, float]]:
    """Kalman filter, and how its spread compares with its errors."""
    rows, offset, variance = _rows(model, net, off_grid=off_grid)
    run = kalman_filter(
        _start(model, net), model.steps, model.noise, net.y, rows, offset=offset, variance=variance
    )
    return model.pod.decode(run.means), {"log_density": float(run.log_densities.mean())}


def ensemble_filter(
    model: Linear,
    net: Network,
    *,
    method: str = "etkf-q",
    members: int = 64,
    inflation: float = 1.02,
    off_grid: bool = False,
    seed: int = SEED,
) -> Array:
    """Ensemble filter of codes; noise into the square root for ETKF-Q, sampled for the others."""
    rows, offset, variance = _rows(model, net, off_grid=off_grid)
    start, rng = _start(model, net), np.random.default_rng(seed)
    root = np.linalg.cholesky(start.covariance)
    drawn = rng.standard_normal((members, model.pod.n))
    codes = start.mean + (drawn - drawn.mean(axis=0)) @ root.T
    values, vectors = np.linalg.eigh(model.noise)
    noise = vectors * np.sqrt(np.maximum(values, 0.0))
    how, means = "deterministic" if method == "etkf-q" else "sampled", []
    for k, y in enumerate(net.y):
        codes = add_noise(model.steps.step(codes), noise, how=how, seed=seed + k)
        codes = analyse(
            codes, codes @ rows.T + offset, y, variance,
            method=method, inflation=inflation, seed=seed + k,
        )  # fmt: skip
        means.append(codes.mean(axis=0))
    return model.pod.decode(np.array(means))


def spread_observations(runs: Runs, net: Network, *, smoothing: float = 0.0) -> Array:
    """Interpolate the observations of each time over the sphere by cubic splines."""
    x, y = runs.points.T
    grid = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=1)
    x, y = net.points.T
    sites = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=1)
    found = np.empty(net.truth.shape)
    for k in range(found.shape[2]):
        own = net.variable == k
        spline = RBFInterpolator(sites[own], net.y[:, own].T, kernel="cubic", smoothing=smoothing)
        found[:, :, k] = spline(grid).T
    return found


def floor(model: Linear, net: Network) -> Array:
    """Projections of the truth on the modes."""
    return model.pod.decode(model.pod.encode(net.truth, prior=False))


ROWS: Mapping[str, Callable[[Linear, Network], Array]] = {
    "projection floor": floor,
    "persistence": persistence,
    "static OI": static_oi,
    "free run": free_run,
    "free run, weighed start": lambda model, net: free_run(model, net, prior=True),
    "exact Kalman filter": lambda model, net: exact_filter(model, net)[0],
    "ETKF-Q, 64 members": ensemble_filter,
    "ETKF, 64 members": lambda model, net: ensemble_filter(model, net, method="etkf"),
}
"""Rows of the table, by name; one more knows nothing of the training."""

SPREAD = "interpolated observations"


def table(
    runs: Runs, model: Linear, numbers: Sequence[int], *, rows: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Score the baselines, or those of `rows`, on trajectories, one after the other."""
    for number in numbers:
        net = observe(runs, number)
        about = {"run": number + 1, "speed": round(float(runs.speeds[number]), 2)}
        for name in (*ROWS, SPREAD) if rows is None else rows:
            started = time.process_time()
            found = spread_observations(runs, net) if name == SPREAD else ROWS[name](model, net)
            error = rmse(found, net.truth, runs.weights)
            yield {**about, "method": name, "rmse": error, "s": time.process_time() - started}

"""Runs of shallow water as the tables of latent assimilation use them: splits, windows, scores.

Values are normalised by the mean and the standard deviation of each variable over the runs that are
learned from; points are those of the grid, south to north and west to east, in radians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from xr_spde.synthetic import shallow_water

VARIABLES = ("height", "vorticity")
WINDOW = 10
OBSERVED, NOISE = 1024, 0.1
"""Observed values of a field, of both variables, and their error in normalised units."""

# Windows of ten hours of the runs 19 and 20 behind the published curves: only one of the three
# processes that shared them wrote its mean down
LOGGED = (0, 3, 6, 8, 11, 13, 14, 15, 17, 18, 19, 21, 36, 39, 44, 46)

SPLITS = {
    "published": ("runs 1 to 18 against 19 and 20", lambda seed, speed: (seed <= 18, seed >= 19)),
    "faster": ("speeds up to 72 m/s against 74 and more",
               lambda seed, speed: (speed <= 72.0, speed >= 74.0)),
}  # fmt: skip
"""What is learned from and what is tested on; the second asks for more than the training shows."""


@dataclass(frozen=True)
class Runs:
    """Runs to learn from and to test on, in normalised units.

    Attributes
    ----------
    train, test : ndarray (runs, hours, points, 2)
        float32.
    points : ndarray (points, 2)
        Longitude and latitude in radians.
    weights : ndarray (points,)
        Shares of the area.
    mean, std : ndarray (2,)
        Of height in m and vorticity in 1/s over the runs to learn from.
    train_seeds, test_seeds : list of int
        Which they are.
    """

    train: np.ndarray
    test: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    train_seeds: list[int]
    test_seeds: list[int]


def read(
    cache: str | Path, split: str = "published", *, interleaved: bool = False, test: bool = True
) -> Runs:
    """Read the twenty runs from a cache, or compute them into it (two CPU minutes).

    Parameters
    ----------
    cache : path
        Folder; 16 MB per run.
    split : {"published", "faster"}
        Key of `SPLITS`.
    interleaved : bool
        Test on the points between those of the training. Normalised as on these.
    test : bool
        False: leave the runs to test on out.
    """
    runs = shallow_water(cache=cache)
    learn, held = SPLITS[split][1](runs.trajectory.values, runs.speed.values)
    train = values(runs.isel(trajectory=learn))
    mean = train.mean(axis=(0, 1, 2), dtype=np.float64)
    std = train.std(axis=(0, 1, 2), dtype=np.float64)
    train -= mean.astype(np.float32)
    train /= std.astype(np.float32)
    chosen = shallow_water(cache=cache, interleaved=True) if interleaved else runs
    tested = values(chosen.isel(trajectory=held if test else []))
    tested = ((tested - mean) / std).astype(np.float32)
    seeds = runs.trajectory.values
    points, weights = positions(chosen)
    return Runs(
        train, tested, points, weights, mean, std, seeds[learn].tolist(), seeds[held].tolist()
    )


def values(runs: xr.Dataset) -> np.ndarray:
    """Values (runs, hours, points, 2) of height and vorticity."""
    shape = runs.height.shape
    parts = [runs[name].transpose("trajectory", "time", "lat", "lon").values for name in VARIABLES]
    return np.stack(parts, axis=-1).reshape(*shape[:2], -1, len(VARIABLES))


def positions(runs: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) in radians, longitude first, and their shares of the area (n,)."""
    lat, lon = np.radians(runs.lat.values), np.radians(runs.lon.values)
    points = np.stack([np.tile(lon, lat.size), np.repeat(lat, lon.size)], axis=-1)
    weights = np.cos(points[:, 1])
    return points, weights / weights.sum()


def windows(runs: np.ndarray) -> np.ndarray:
    """Windows (n, 10, points, 2) of runs (runs, hours, points, 2), one after the other."""
    return runs.reshape(-1, WINDOW, *runs.shape[2:])


def rmse(error: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root of the mean square over the area (..., 2) of errors (..., points, 2)."""
    square = np.einsum("...pc,...pc,p->...c", error, error, weights, optimize=True)
    return np.sqrt(square)


def persistence(
    test: np.ndarray, weights: np.ndarray, which: Sequence[int] | None = None
) -> np.ndarray:
    """Errors of the first field of windows for the next nine hours (9, 2), by variable."""
    chosen = windows(test)
    chosen = chosen if which is None else chosen[np.asarray(which)]
    return np.stack(
        [rmse(chosen[:, k] - chosen[:, 0], weights).mean(axis=0) for k in range(1, WINDOW)]
    )


def observations(run: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Places and noisy values of the protocol: the same random entries in all hours.

    Parameters
    ----------
    run : ndarray (hours, points, 2)
        Normalised truth; the first hour is the start, of which nothing is observed.
    seed : int
        Of places and noise.

    Returns
    -------
    where : ndarray (1024,)
        Indices into a field that is flattened (points, 2).
    values : ndarray (hours - 1, 1024)
    """
    rng = np.random.default_rng(seed)
    hours, points, count = run.shape
    where = np.sort(rng.choice(points * count, OBSERVED, replace=False))
    seen = run[1:].reshape(hours - 1, -1)[:, where].astype(np.float64)
    return where, seen + NOISE * rng.standard_normal(seen.shape)


def background(run: np.ndarray, seed: int = 0) -> np.ndarray:
    """First field (points, 2) with noise on every value, from which assimilation starts."""
    rng = np.random.default_rng([seed, 1])
    return run[0] + NOISE * rng.standard_normal(run[0].shape)

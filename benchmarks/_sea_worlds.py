"""Worlds on which the solver of `med_neural.py` is trained: a sea, its altimeters, their errors.

Truths are draws of a Matern field in space (an SPDE whose barrier is the coast) that forgets
exponentially in time, over wide ranges of lengths and times, one or two of them added; and, in some
worlds, real daily maps of the spring of 2005 about their mean with small scales added. They are
seen along ground tracks of orbits like those of three missions with random nodes, two at a time,
with gaps, with independent errors and with errors that are correlated along each pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import Dataset

from xr_spde.assim.observing import Mission, ground_track
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.nets.variational_window import Window
from xr_spde.solvers.grid_factor import GridFactor

SCALE = 0.045
"""Metres: what fields and observations are divided by."""

STEPS, STEP_DAYS = 11, 2.0
CELL = 0.25
"""Degrees: cells over which passes are averaged."""

ORBITS = {
    "SARAL/AltiKa": Mission(98.55, 35.0, 35, 501),
    "CryoSat-2": Mission(92.0, 368.24, 369, 5344),
    "HY-2A": Mission(99.34, 13.7745, 14, 193),
}
LENGTHS = np.geomspace(22.0, 66.0, 8)
"""Inverse kappa in km: a Matern field of smoothness one, correlation 0.4 at twice that."""

WIDE = 160.0
"""Another, of what covers a basin."""

_EVERY = 2.0  # seconds between observations, as in the real data
_PASSES = 12  # realisations of the tracks of each mission
_REAL = 0.15  # share of worlds from real maps


@dataclass(frozen=True)
class Points:
    """Observations along passes: places, days since the first step, numbers of the passes."""

    lat: np.ndarray
    lon: np.ndarray
    day: np.ndarray
    track: np.ndarray


class Sea:
    """A grid of degrees with land, draws on it, and tracks over it.

    Parameters
    ----------
    template : DataArray (latitude, longitude)
        NaN on land.
    seed : int
        Of the nodes of the orbits.
    maps : ndarray (days, ny, nx), optional
        Real daily anomalies in metres on the same grid, zero on land.
    boundary : str or tuple of str
        In y and in x, see `xr_spde.fields.mesh.BOUNDARIES`.
    """

    def __init__(
        self, template: xr.DataArray, *, seed: int = 0, maps: np.ndarray | None = None,
        boundary: str | tuple[str, str] = "neumann",
    ) -> None:  # fmt: skip
        self.lat = template.latitude.values.astype(float)
        self.lon = template.longitude.values.astype(float)
        self.land, self.seed, self.maps = np.isnan(template.values), seed, maps
        self.boundary, self._factors = boundary, {}
        self.degrees = float(self.lat[1] - self.lat[0])

    @cached_property
    def _operator(self) -> SpdeOperator:
        metres = 111.2e3 * self.degrees
        dx = metres * np.cos(np.radians(self.lat))[:, None]
        mesh = Mesh.of(self.land.shape, dx=dx, dy=metres, land=self.land, boundary=self.boundary)
        return SpdeOperator(mesh)

    def factor(self, length: float) -> tuple[GridFactor, np.ndarray]:
        """Factor of a length in km, and weights that make the variance one everywhere; kept."""
        if length not in self._factors:
            mesh = self._operator.mesh
            p = SpdeParameters.of(mesh.shape, kappa=1e-3 / length, tau=1.0, m1=0.0, m2=0.0,
                                  v1=0.0, v2=0.0, gamma=1.0, beta=0.0, land=self.land)  # fmt: skip
            matrix = self._operator.matrix(p.coefficients(0))
            dry = sp.diags_array(self.land.ravel().astype(float))
            matrix = (matrix / matrix.diagonal().max() + dry).tocsc()
            factor = GridFactor(matrix, shape=mesh.shape, boundary=mesh.topology, reach=1)
            weight = mesh.sea / np.sqrt(factor.gram_inverse_diagonal())
            self._factors[length] = factor, weight
        return self._factors[length]

    def field(self, rng: np.random.Generator, length: float, days: float) -> np.ndarray:
        """Draw unit fields (STEPS, ny, nx) of a length in km that forget in so many days."""
        factor, weight = self.factor(length)
        white = factor.solve(rng.standard_normal((weight.size, STEPS))) * weight[:, None]
        keep = np.exp(-STEP_DAYS / days)
        found = [white[:, 0]]
        for step in range(1, STEPS):
            found.append(keep * found[-1] + np.sqrt(1.0 - keep**2) * white[:, step])
        return np.stack(found).reshape(STEPS, *self.land.shape)

    def truth(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a sea level (STEPS, ny, nx) in metres, zero on land."""
        k = int(rng.integers(LENGTHS.size))
        std, days = rng.uniform(0.034, 0.056), np.exp(rng.uniform(np.log(8.0), np.log(50.0)))
        if self.maps is not None and rng.random() < _REAL:
            first = int(rng.integers(len(self.maps) - int((STEPS - 1) * STEP_DAYS)))
            real = self.maps[first :: int(STEP_DAYS)][:STEPS] * rng.uniform(0.8, 1.6)
            return real + 0.03 * rng.uniform(0.5, 1.2) * self.field(rng, LENGTHS[k // 2], days)
        share = rng.uniform(0.0, 0.5) if rng.random() < 0.5 else 0.0
        found = std * np.sqrt(1.0 - share) * self.field(rng, LENGTHS[k], days)
        if share:
            other = WIDE if rng.random() < 0.5 else LENGTHS[int(rng.integers(LENGTHS.size))]
            found += std * np.sqrt(share) * self.field(rng, other, rng.uniform(10.0, 90.0))
        return found

    @cached_property
    def passes(self) -> list[list[Points]]:
        """Tracks of each mission, several times with another node and another start."""
        rng, found = np.random.default_rng(self.seed), []
        south, north, west, east = self.lat[0], self.lat[-1], self.lon[0], self.lon[-1]
        for orbit in ORBITS.values():
            found.append([])
            for _ in range(_PASSES):
                start, turn = rng.uniform(0.0, orbit.repeat) * 86400.0, rng.uniform(0.0, 360.0)
                elapsed = np.arange(0.0, (STEPS - 1) * STEP_DAYS * 86400.0, _EVERY)
                lat, lon = ground_track(orbit, start + elapsed)
                lon = west + (lon + turn - west) % 360.0
                near = (lat > south) & (lat < north) & (lon < east)
                lat, lon, elapsed = lat[near], lon[near], elapsed[near]
                track = np.cumsum(np.diff(elapsed, prepend=0.0) > 600.0)
                wet = ~self.land[self._cell(lat, self.lat), self._cell(lon, self.lon)]
                found[-1].append(Points(lat[wet], lon[wet], elapsed[wet] / 86400.0, track[wet]))
        return found

    def _cell(self, place: np.ndarray, axis: np.ndarray) -> np.ndarray:
        return np.clip(np.rint((place - axis[0]) / self.degrees), 0, axis.size - 1).astype(int)

    def at(self, field: np.ndarray, points: Points) -> np.ndarray:
        """Interpolate fields, linear in space and time, from the sea alone."""
        y, x = (points.lat - self.lat[0]) / self.degrees, (points.lon - self.lon[0]) / self.degrees
        t = np.clip(points.day / STEP_DAYS, 0.0, STEPS - 1 - 1e-9)
        low = [np.clip(np.floor(a).astype(int), 0, n - 2) for a, n in zip((t, y, x), field.shape,
                                                                         strict=True)]  # fmt: skip
        part = [np.clip(a - b, 0.0, 1.0) for a, b in zip((t, y, x), low, strict=True)]
        total, weights = np.zeros(y.size), np.zeros(y.size)
        for corner in np.ndindex(2, 2, 2):
            w = np.prod([p if c else 1.0 - p for p, c in zip(part, corner, strict=True)], axis=0)
            k, j, i = (a + c for a, c in zip(low, corner, strict=True))
            w = w * ~self.land[j, i]
            total, weights = total + w * field[k, j, i], weights + w
        return total / np.maximum(weights, 1e-9)

    def observe(
        self, truth: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Observe a truth: means and variances of cells (STEPS, ny, nx), mask, and their mean."""
        missions = rng.permutation(len(ORBITS))[:2]
        along, reach = rng.uniform(0.004, 0.020), np.exp(rng.uniform(np.log(30.0), np.log(300.0)))
        white = rng.uniform(0.004, 0.010)
        cells = []
        for mission in missions:
            points = _kept(self.passes[mission][int(rng.integers(_PASSES))], rng)
            value = self.at(truth, points) + white * rng.standard_normal(points.day.size)
            value = value + along * _correlated(points, reach, rng)
            cells.append(self.averaged(points, value))
        step, cell, value = (np.concatenate(a) for a in zip(*cells, strict=True))
        mean = float(value.mean())
        # what a user knows: the size of the error of a mean along a pass
        error = (along**2 + white**2 / 2.0) * np.exp(rng.normal(0.0, 0.2))
        shape = (STEPS, *self.land.shape)
        key = step * self.land.size + cell
        count = np.bincount(key, minlength=int(np.prod(shape))).reshape(shape)
        total = np.bincount(key, value - mean, minlength=count.size).reshape(shape)
        seen = count > 0
        least = np.maximum(count, 1)
        return total / least, seen, np.where(seen, error / least, 1.0), mean

    def averaged(self, points: Points, value: np.ndarray) -> tuple[np.ndarray, ...]:
        """Average passes over cells; step, cell and value of each mean."""
        places = [np.floor(a / CELL) for a in (points.lat, points.lon)]
        _, group = np.unique(np.stack([points.track, *places]), axis=1, return_inverse=True)
        count = np.bincount(group)
        lat, lon, day, mean = (
            np.bincount(group, a) / count for a in (points.lat, points.lon, points.day, value)
        )
        row, column = self._cell(lat, self.lat), self._cell(lon, self.lon)
        step = np.clip(np.floor(day / STEP_DAYS + 0.5).astype(int), 0, STEPS - 1)
        wet = ~self.land[row, column]
        return step[wet], (row * self.lon.size + column)[wet], mean[wet]


class Worlds(Dataset):  # type: ignore[type-arg]
    """Batches by step: a window, and the truth in units of :data:`SCALE`.

    Parameters
    ----------
    sea : Sea
        Where.
    batch : int
        Worlds of a batch.
    seed : int
        Of all of it; a batch depends on it and on its number alone.
    """

    def __init__(self, sea: Sea, *, batch: int, seed: int) -> None:
        self.sea, self.batch, self.seed = sea, batch, seed

    def __getitem__(self, step: int) -> tuple[Window, Tensor]:
        """Draw the batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        truths, seen = [], []
        for _ in range(self.batch):
            truth = self.sea.truth(rng)
            value, mask, variance, mean = self.sea.observe(truth, rng)
            truths.append(np.where(self.sea.land, 0.0, truth - mean) / SCALE)
            seen.append((value / SCALE, mask, variance / SCALE**2))
        value, mask, variance = (torch.from_numpy(np.stack(a)) for a in zip(*seen, strict=True))
        wet = torch.from_numpy(~self.sea.land).expand(self.batch, -1, -1)
        truth = torch.from_numpy(np.stack(truths))
        # coasts the other way round, and time: nothing is learned by heart
        axes = [axis for axis in (-3, -2, -1) if rng.random() < 0.5]
        value, mask, variance, truth = (a.flip(axes) for a in (value, mask, variance, truth))
        wet = wet.flip([axis for axis in axes if axis != -3])
        return Window(value.float(), mask, variance.float(), wet), truth.float()


def _kept(points: Points, rng: np.random.Generator) -> Points:
    """Leave out whole passes and stretches of others, as editing does."""
    keep = np.ones(points.day.size, dtype=bool)
    for one in np.unique(points.track):
        own = np.flatnonzero(points.track == one)
        if rng.random() < 0.06:
            keep[own] = False
        elif rng.random() < 0.3:
            first = int(rng.integers(own.size))
            keep[own[first : first + int(rng.integers(2, 20))]] = False
    return Points(points.lat[keep], points.lon[keep], points.day[keep], points.track[keep])


def _correlated(points: Points, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Draw unit errors that forget exponentially along each pass, over `reach` km."""
    apart = 6.8 * 86400.0 * np.diff(points.day, prepend=-1e9)
    keep = np.where(np.diff(points.track, prepend=-1) == 0, np.exp(-np.abs(apart) / reach), 0.0)
    white, found = rng.standard_normal(keep.size), np.empty(keep.size)
    last = 0.0
    for k in range(keep.size):
        last = found[k] = keep[k] * last + np.sqrt(1.0 - keep[k] ** 2) * white[k]
    return found

"""A radius of localisation found from the ensemble and the observations.

How far an observation may act is bounded by noise: the squared correlation of N members is on
average that of the truth and noise, about ``E[r^2] = E[rho^2] + (1 - E[rho^2]) / (N - 1)``, and the
factor that brings sampled covariances nearest to the true ones is ``E[rho^2] / E[r^2]`` at each
distance (Menetrier et al., 2015, Mon. Weather Rev. 143). The bound is the radius of the taper that
falls to its half width where this factor does.

Below the bound, N members have too few degrees of freedom to fit many observations at once, and
the radius is the one with which the others predict left-out observations best: with the largest
mean log density, five parts of the observations being left out in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.letkf import LocalFilter
from xr_spde.assim.localization import Neighbours, Places, gaspari_cohn, grid_step
from xr_spde.assim.projection import Projection
from xr_spde.labels.grid import EARTH_RADIUS, Grid

Float = NDArray[np.float64]
Index = NDArray[np.intp]

_CENTRES = 150
_FEWEST = 30  # observations below which leaving some out says too little
_LEFT_OUT = 400
_PARTS = 5
_RATIO = 1.4
_HALF = float(gaspari_cohn(0.5, 1.0))  # the taper at half its radius


@dataclass(frozen=True, eq=False)
class RadiusSample:
    """Pairs of grid points at growing distances, about centres all over the grid.

    Attributes
    ----------
    nodes : ndarray of int (q,)
        Points, as stored.
    first, second : ndarray of int (k,)
        Pairs, as places in `nodes`.
    distance : ndarray (k,)
        Of the pairs, in metres (units of the coordinates where these have no length).
    """

    nodes: Index
    first: Index
    second: Index
    distance: Float

    @classmethod
    def on(cls, grid: Grid) -> RadiusSample:
        """Choose pairs on a grid.

        Parameters
        ----------
        grid : Grid
            Of the ensemble.

        Returns
        -------
        RadiusSample
            The same one for the same grid, in whatever order it is stored.
        """
        rng = np.random.default_rng(0)
        weight = np.ones(grid.ny)
        if grid.kind == "geographic":
            weight = np.maximum(np.cos(np.radians(grid.canonical_y())), 1e-6)
        j = rng.choice(grid.ny, _CENTRES, p=weight / weight.sum())
        i = rng.integers(grid.nx, size=_CENTRES)
        starts, ends = [], []
        for dj, di in _offsets(grid):
            row, column = j + dj, i + di
            inside = (row >= 0) & (row < grid.ny)
            if grid.periodic_x:
                column = column % grid.nx
            else:
                inside &= (column >= 0) & (column < grid.nx)
            starts.append(np.stack([j, i])[:, inside])
            ends.append(np.stack([row, column])[:, inside])
        pairs = np.concatenate([np.concatenate(starts, axis=1), np.concatenate(ends, axis=1)], 1)
        stored = grid.to_canonical(np.arange(grid.ny * grid.nx).reshape(grid.shape))
        nodes, place = np.unique(stored[pairs[0], pairs[1]], return_inverse=True)
        first, second = np.split(place, 2)
        y, x = grid.canonical_y()[pairs[0]], grid.canonical_x()[pairs[1]]
        distance = _distance(grid, y, x)
        return cls(nodes, first, second, distance)

    def bound(self, values: NDArray[Any]) -> float:
        """Radius beyond which correlations of the members are mostly noise.

        Parameters
        ----------
        values : ndarray (N, q)
            Members at `nodes`; NaN on land.

        Returns
        -------
        float
            Infinite where correlations are clear at all distances.

        Raises
        ------
        ParameterError
            Fewer than four members, or nothing but land in the sample.
        """
        size = len(values)
        usable = np.isfinite(values).all(axis=0)
        anomalies = values - np.where(usable, values.mean(axis=0, dtype=np.float64), 0.0)
        norm = np.sqrt((anomalies * anomalies).sum(axis=0))
        usable &= norm > 0.0
        kept = usable[self.first] & usable[self.second]
        if size < 4 or kept.sum() < 100:
            raise ParameterError(
                f"a radius of localisation cannot be estimated from {size} members at "
                f"{int(usable.sum())} grid points with values; give one in metres, such as "
                "localization=500e3"
            )
        a, b, distance = self.first[kept], self.second[kept], self.distance[kept]
        scaled = anomalies[:, usable] / norm[usable]
        place = np.cumsum(usable) - 1
        squared = np.einsum("kp,kp->p", scaled[:, place[a]], scaled[:, place[b]]) ** 2
        order = np.argsort(distance, kind="stable")
        bins = np.array_split(order, min(30, max(4, order.size // 40)))
        middle = np.array([distance[one].mean() for one in bins])
        seen = np.array([squared[one].mean() for one in bins])
        # r^2 of pure noise has the mean 1 / (N - 1)
        true = np.maximum((size - 1) * seen - 1.0, 0.0) / (size - 2)
        factor = np.minimum.accumulate(true / np.maximum(seen, 1e-300))
        below = np.flatnonzero(factor < _HALF)
        if not below.size:
            return float("inf")
        k = int(below[0])
        if k == 0:
            return float(2.0 * middle[0])
        share = (factor[k - 1] - _HALF) / (factor[k - 1] - factor[k])
        return float(2.0 * (middle[k - 1] + share * (middle[k] - middle[k - 1])))


def best_radius(
    projection: Projection, sites: Places, bound: float, step: float, *, taper: str
) -> float:
    """Radius with which observations predict one another best.

    Parameters
    ----------
    projection : Projection
        Observations and observed members.
    sites : Places (p)
        Where the observations are.
    bound : float
        Largest radius; infinite for none.
    step : float
        Of the grid; twice this is the smallest one.
    taper : {"gaspari-cohn", "boxcar"}
        Weight by distance.

    Returns
    -------
    float
        One of a series that grows by a factor of 1.4; `bound` where observations are fewer than
        30.
    """
    count, size = projection.count, projection.size
    if count < _FEWEST:
        return bound
    extent = float(np.linalg.norm(np.ptp(sites.xyz, axis=0)))
    radius = max(2.0 * step, grid_step(sites) or 0.0)
    order = np.random.default_rng(0).permutation(count)
    parts = np.array_split(order[: max(_LEFT_OUT, _FEWEST)], _PARTS)
    best, found, worse = -np.inf, radius, 0
    # once it is too large, it is so ever more
    while radius < min(bound, 2.0 * extent) and worse < 3:
        score = 0.0
        for left in parts:
            rest = np.setdiff1d(np.arange(count), left)
            near = Neighbours(sites[rest], radius, taper=taper)
            local = LocalFilter(projection.select(rest), near)
            prior = np.asarray(projection.anomalies[:, left]) * np.sqrt(size - 1)
            members = local(prior, sites[left])
            variance = members.var(axis=0, ddof=1) + 1.0
            missed = np.asarray(projection.innovation[left]) - members.mean(axis=0)
            score -= float((np.log(variance) + missed**2 / variance).sum())
        worse = 0 if score > best else worse + 1
        if score > best:
            best, found = score, radius
        radius *= _RATIO
    return found


def _offsets(grid: Grid) -> list[tuple[int, int]]:
    """List steps along rows and columns, each about a quarter longer than the one before."""
    longest = max(grid.ny - 1, grid.nx // 2 if grid.periodic_x else grid.nx - 1)
    steps = np.unique(np.rint(1.25 ** np.arange(np.log(max(longest, 1)) / np.log(1.25) + 1)))
    along = [int(s) for s in steps if s <= longest]
    return [(s, 0) for s in along] + [(0, s) for s in along] + [(-s, 0) for s in along]


def _distance(grid: Grid, y: Float, x: Float) -> Float:
    (y0, y1), (x0, x1) = np.split(y, 2), np.split(x, 2)
    if grid.kind != "geographic":
        return np.hypot(y1 - y0, x1 - x0) * (grid.metres or 1.0)
    a, b, turn = np.radians(y0), np.radians(y1), np.radians(x1 - x0)
    half = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(turn / 2) ** 2
    return 2.0 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))

"""Local ensemble transform Kalman filter: an analysis of its own at every point.

Point by point, with the observations near it and their weights ``rho_k`` by distance,

    G = sum_k rho_k s_k s_k',   w = (I + G)^-1 sum_k rho_k d_k s_k,   T = (I + G)^-1/2,
    E_a = mean + sum_j w_j X_j + sqrt(N - 1) T X,

with ``s_k``, ``d_k`` from :mod:`xr_spde.assim.projection` and X the normalised anomalies. Points
are taken together in stacks. What a point gets depends on its own observations alone, not on the
points that it is computed with: results are the same bits for any chunks (on a processor).

References
----------
Hunt, Kostelich, Szunyogh (2007), Physica D 230; Greybush et al. (2011), Mon. Weather Rev. 139,
for localisation through the errors of observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import Seed
from xr_spde.assim.arrays import as_members, namespace, refuse_broken, to_host
from xr_spde.assim.inflation import check_inflation, check_share
from xr_spde.assim.localization import Neighbours, Places, check_radius, grid_step
from xr_spde.assim.noise import ErrorModel
from xr_spde.assim.projection import STEEP, Projection, project
from xr_spde.assim.roots import inverse_roots
from xr_spde.assim.transforms import mean_preserving_rotation
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]

_POINTS = 1024  # points whose N x N matrices are held at once
_PAIRS = 2**22  # points times observations near them, held at once
_STACK = 16  # points whose observations are gathered at once, to stay in cache


def padded(count: NDArray[np.intp]) -> NDArray[np.intp]:
    """Numbers of observations rounded up, so that points can be stacked.

    Parameters
    ----------
    count : ndarray of int
        Observations near each point.

    Returns
    -------
    ndarray of int
        At most an eighth, or seven, larger. A function of each count alone: were it of the
        largest one in a stack, sums would round differently in other chunks.
    """
    octave = np.floor(np.log2(np.maximum(count, 64))).astype(np.intp)
    step = 2 ** (octave - 3)
    return -(-count // step) * step


class LocalFilter:
    """An LETKF made ready with its observations, to be applied to any points.

    Parameters
    ----------
    projection : Projection
        Whitened observations and observed members.
    neighbours : Neighbours
        Which observations act on a point, and how much; `sites` in the order of the observations.
    inflation : float, default 1
        Factor >= 1 on analysed anomalies, everywhere.
    rtpp, rtps : float, default 0
        Shares of relaxation to prior perturbations and to prior spread, in [0, 1]; see
        :mod:`xr_spde.assim.inflation`.
    rotation : ndarray (N, N), optional
        Orthogonal, with rows that sum to one; the same one at all points.

    Raises
    ------
    ParameterError
        If places and observations differ in number, or a setting is out of its range.
    """

    def __init__(
        self,
        projection: Projection,
        neighbours: Neighbours,
        *,
        inflation: float = 1.0,
        rtpp: float = 0.0,
        rtps: float = 0.0,
        rotation: Float | None = None,
    ) -> None:
        if len(neighbours.sites) != projection.count:
            raise ParameterError(
                f"{len(neighbours.sites)} places are given for {projection.count} observations "
                "that have a value; leave out missing observations from both"
            )
        self.size, self._neighbours = projection.size, neighbours
        self._inflation = check_inflation(inflation)
        self._rtpp, self._rtps = check_share("rtpp", rtpp), check_share("rtps", rtps)
        xp = namespace(projection.anomalies)
        # One observation per row, and a row of zeros for those that are not there.
        self._rows = xp.zeros((projection.count + 1, self.size))
        self._rows[:-1] = projection.anomalies.T
        self._innovation = xp.zeros(projection.count + 1)
        self._innovation[:-1] = projection.innovation
        self._rotation = None if rotation is None else xp.asarray(rotation)

    def __call__(self, ensemble: Any, points: Places) -> Any:
        """Analyse an ensemble at points.

        Parameters
        ----------
        ensemble : array (N, ..., n)
            Members first, points last; what lies between (variables, levels) shares the weights
            of its point. Values that are NaN in every member are land, and stay so.
        points : Places (n)
            In the geometry of the observations.

        Returns
        -------
        array (N, ..., n)
            Of the dtype of `ensemble`.

        Raises
        ------
        ParameterError
            For shapes that do not fit, or members that are NaN where others are not.
        """
        members = as_members("ensemble", ensemble)
        if members.shape[0] != self.size or members.shape[-1] != len(points):
            raise ParameterError(
                f"ensemble has shape {members.shape}; expected {self.size} members first and "
                f"{len(points)} points last"
            )
        xp = namespace(self._rows)
        prior = xp.asarray(members).reshape(self.size, -1, len(points))
        result = xp.empty_like(prior)
        with single_blas_thread():
            start = 0
            while start < len(points):
                crowd = self._neighbours.crowd(points[start : start + _POINTS])
                part = slice(start, start + min(_POINTS, max(1, _PAIRS // crowd)))
                start = part.stop
                block = prior[:, :, part]
                if not bool(xp.isfinite(block).all()):
                    refuse_broken("ensemble", block, what="value")
                columns = xp.ascontiguousarray(block.transpose(2, 0, 1), dtype=np.float64)
                analysed = self._analyse(columns, points[part], prior.dtype)
                result[:, :, part] = analysed.transpose(1, 2, 0)
        return result.reshape(members.shape)

    def innovations(self, points: Places) -> tuple[Float, Float, Float]:
        """Statistics of the observations around points, as adaptive inflation takes them.

        Parameters
        ----------
        points : Places (n)
            In the geometry of the observations.

        Returns
        -------
        misfit, spread, count : ndarray (n,)
            Sums, weighted by distance, of squared innovations in units of the errors, of the
            variances of observed members in these units, and of ones; see
            :meth:`xr_spde.assim.inflation.Adaptive.update`.
        """
        rows, departures = to_host(self._rows), to_host(self._innovation)
        first, near, weight = self._neighbours.of(points)
        sums = np.zeros((3, len(points)))
        some = np.flatnonzero(np.diff(first))
        if some.size:
            spread = (rows * rows).sum(axis=1)[near]
            values = np.stack([departures[near] ** 2, spread, np.ones(near.size)])
            sums[:, some] = np.add.reduceat(weight * values, first[some], axis=1)
        return sums[0], sums[1], sums[2]

    def _analyse(self, columns: Any, points: Places, dtype: Any) -> Any:
        """Analysis (n, N, v) of prior values (n, N, v), as accurate as `dtype` asks for."""
        xp = namespace(self._rows)
        mean = columns.mean(axis=1, keepdims=True)
        prior = columns - mean
        posterior, shrink = prior.copy(), (self.size - 1) ** -0.5
        few = 4 * columns.shape[2] <= self.size
        local = _Local(self._neighbours.of(points), self._rows, self._innovation)
        gram, pull, steep = local.matrices()
        calm = np.flatnonzero(~steep)
        if steep.any():
            for some, root, weights in local.decomposed(np.flatnonzero(steep)):
                chosen = xp.asarray(local.which[some])
                mean[chosen] += shrink * xp.matmul(weights.transpose(0, 2, 1), prior[chosen])
                posterior[chosen] = xp.matmul(root, prior[chosen])
            gram, pull = gram[xp.asarray(calm)], pull[xp.asarray(calm)]
        for some, roots in inverse_roots(gram, dtype=dtype, few=few):
            turn = roots if few else roots.formed()
            chosen = xp.asarray(local.which[calm[some]])
            anomalies = prior[chosen]
            turned = turn(xp.concatenate([anomalies, pull[xp.asarray(some)]], axis=2))
            posterior[chosen] = turned[:, :, :-1]
            weights = turn(turned[:, :, -1:])
            mean[chosen] += shrink * xp.matmul(weights.transpose(0, 2, 1), anomalies)
        if self._rtpp:
            posterior += self._rtpp * (prior - posterior)
        if self._inflation != 1.0:
            posterior *= self._inflation
        if self._rotation is not None:
            posterior = xp.matmul(self._rotation, posterior)
        if self._rtps:
            before, after = (
                xp.sqrt((a * a).sum(axis=1, keepdims=True)) for a in (prior, posterior)
            )
            # A spread of zero stays zero.
            posterior *= 1.0 + self._rtps * (before - after) / xp.where(after > 0, after, 1.0)
        return posterior + mean


class _Local:
    """Observations around points, gathered in stacks of points that have about as many.

    Attributes
    ----------
    which : ndarray of int (m,)
        Points with any observation, in the order of the stacks.
    """

    def __init__(self, near: tuple[Any, Any, Any], rows: Any, innovation: Any) -> None:
        first, index, weight = near
        self._rows, self._innovation = rows, innovation
        self._first, self._count = first, np.diff(first)
        self._widths = padded(self._count)
        # The last row stands for observations that are not there.
        self._near, self._weight = np.append(index, len(rows) - 1), np.append(weight, 0.0)
        order = np.argsort(self._widths, kind="stable")
        self.which = order[self._widths[order] > 0]

    def _stacks(self, places: NDArray[np.intp]) -> Iterator[tuple[slice, Any, Any, Any]]:
        """Parts of `places` in `which`, with rows (m, k, N), their weights, and innovations."""
        xp, size = namespace(self._rows), self._rows.shape[1]
        which, start = self.which[places], 0
        while start < which.size:
            width = int(self._widths[which[start]])
            some = which[start : start + max(1, min(_STACK, _PAIRS // (width * size)))]
            some = some[self._widths[some] == width]
            part = slice(start, start + some.size)
            start = part.stop
            steps = np.arange(width)
            at = np.where(
                steps < self._count[some][:, None],
                self._first[some][:, None] + steps,
                self._near.size - 1,
            )
            index = xp.asarray(self._near[at])
            scale = xp.asarray(self._weight[at])[:, :, None]
            yield part, self._rows.take(index, axis=0), scale, self._innovation[index][:, :, None]

    def matrices(self) -> tuple[Any, Any, NDArray[np.bool_]]:
        """``G`` (m, N, N), ``S d`` (m, N, 1), and where G is too large to be the square of S."""
        xp, size, count = namespace(self._rows), self._rows.shape[1], self.which.size
        gram, pull = xp.empty((count, size, size)), xp.empty((count, size, 1))
        for part, rows, scale, innovation in self._stacks(np.arange(count)):
            weighted = (rows * scale).transpose(0, 2, 1)
            xp.matmul(weighted, rows, out=gram[part])
            xp.matmul(weighted, innovation, out=pull[part])
        traces = gram.reshape(count, size * size)[:, :: size + 1].sum(axis=1)
        return gram, pull, to_host(traces) > STEEP

    def decomposed(self, places: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], Any, Any]]:
        """Places, roots (m, N, N) and weights (m, N, 1) by singular values, without the square."""
        xp, size = namespace(self._rows), self._rows.shape[1]
        for part, rows, scale, innovation in self._stacks(places):
            tall = rows * xp.sqrt(scale)
            left, seen, right = xp.linalg.svd(tall.transpose(0, 2, 1), full_matrices=False)
            limit = np.finfo(float).eps * max(tall.shape[1:])
            seen = xp.where(seen > limit * seen[:, :1], seen, 0.0)[:, None, :]
            along = xp.matmul(right, xp.sqrt(scale) * innovation).transpose(0, 2, 1)
            seen2 = 1.0 + seen * seen
            weights = (left * (seen * along / seen2)).sum(axis=2, keepdims=True)
            shrunk = left * (1.0 - 1.0 / xp.sqrt(seen2))
            roots = xp.eye(size) - xp.matmul(shrunk, left.transpose(0, 2, 1))
            yield places[part], roots, weights


def letkf(
    ensemble: Any,
    observed: Any,
    y: Any,
    errors: ErrorModel | ArrayLike,
    *,
    points: Places,
    sites: Places,
    radius: float,
    taper: str = "gaspari-cohn",
    inflation: float = 1.0,
    rtpp: float = 0.0,
    rtps: float = 0.0,
    rotate: bool = False,
    seed: Seed = None,
) -> Any:
    """Analyse an ensemble with the local ensemble transform Kalman filter.

    Parameters
    ----------
    ensemble : array (N, ..., n)
        Members first, points last; what lies between shares the weights of its point.
    observed : array (N, p)
        Members as the observations would see them.
    y : array (p,)
        Observations; NaN where missing.
    errors : ErrorModel, float or array (p,)
        Errors of observation; numbers are variances.
    points : Places (n)
        Where the state is: see :func:`xr_spde.assim.localization.on_sphere`.
    sites : Places (p)
        Where the observations are, in the same geometry.
    radius : float
        Metres, from a point to where observations lose their last influence; infinite for none,
        which gives the ETKF.
    taper : {"gaspari-cohn", "boxcar"}, default "gaspari-cohn"
        Weight by distance; see :class:`xr_spde.assim.localization.Neighbours`.
    inflation : float, default 1
        Factor >= 1 on analysed anomalies, everywhere.
    rtpp, rtps : float, default 0
        Relaxation to prior perturbations or to prior spread, in [0, 1]. Where observations are
        uneven prefer ``rtps`` (0.5 to 0.95 in practice) to `inflation`: it acts only where an
        analysis took spread away.
    rotate : bool, default False
        Rotate anomalies at random, mean and covariance kept, by the same rotation everywhere.
    seed : int, SeedSequence or Generator, optional
        Of the rotation.

    Returns
    -------
    array (N, ..., n)
        Analysed ensemble, of the dtype of `ensemble`.

    Raises
    ------
    ParameterError
        For shapes that do not fit, an ensemble of one, broken members, errors or settings out of
        their range.

    Warns
    -----
    UserWarning
        If the radius is shorter than the step of the grid.
    """
    projection = project(observed, y, errors)
    present = np.isfinite(to_host(y))
    if len(sites) == present.size:
        sites = sites[present]
    if np.isfinite(check_radius(radius)):
        check_radius(radius, grid_step(points))
    rotation = mean_preserving_rotation(projection.size, seed) if rotate else None
    local = LocalFilter(
        projection,
        Neighbours(sites, radius, taper=taper),
        inflation=inflation,
        rtpp=rtpp,
        rtps=rtps,
        rotation=rotation,
    )
    return local(ensemble, points)

"""Values at any point from values at given points of a sphere or a plane, as sparse rows.

Where the points are a grid (a product of two axes, whatever their spacing), cubic Lagrange weights
along both; the longitudes wrap, and beyond the last row before a pole lies the same row half a
circle away. Where some of the sixteen points cannot be used, the usable ones of the four around.
Points that are no grid: local polyharmonic splines with quadratic polynomials through the nearest
ones, in the tangent plane (Flyer et al., 2016, J. Comput. Phys. 321). Given points are reproduced.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from xr_spde._core.errors import ParameterError

__all__ = ["PointRows", "check_points"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Flag = NDArray[np.bool_]

_TURN = 2.0 * np.pi
_NEIGHBOURS = 16
_FAR = 3.0  # spacings beyond which a point is outside of scattered ones


def check_points(points: ArrayLike, *, sphere: bool, name: str = "points") -> Float:
    """Read positions.

    Parameters
    ----------
    points : array_like (P, 2)
        Longitude and latitude in radians, or x and y.
    sphere : bool
        Whether they are the former.
    name : str, default "points"
        Of the argument.

    Returns
    -------
    ndarray (P, 2)

    Raises
    ------
    ParameterError
        For another shape, positions that are not finite, or latitudes beyond the poles.
    """
    given = np.asarray(points, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 2 or not len(given):
        raise ParameterError(f"{name} has shape {given.shape}; expected (P, 2) with P > 0")
    if not np.isfinite(given).all():
        raise ParameterError(f"{name} has positions that are not finite; leave them out")
    if sphere and np.abs(given[:, 1]).max() > 0.5 * np.pi + 1e-6:
        raise ParameterError(
            f"{name} has a latitude of {np.abs(given[:, 1]).max():.6g} on a sphere; expected "
            "radians between -pi/2 and pi/2 (degrees: numpy.radians)"
        )
    return given


def _lagrange(nodes: Float, targets: Float, order: int) -> tuple[Index, Float]:
    """First of `order` consecutive nodes about each target, and their weights (M, order)."""
    order = min(order, len(nodes))
    first = np.searchsorted(nodes, targets, side="right") - 1 - (order - 1) // 2
    first = np.clip(first, 0, len(nodes) - order)
    near = nodes[first[:, None] + np.arange(order)]
    weights = np.ones_like(near)
    for i in range(order):
        for j in range(order):
            if i != j:
                weights[:, i] *= (targets - near[:, j]) / (near[:, i] - near[:, j])
    return first, weights


class PointRows:
    """Interpolation from fixed points.

    Parameters
    ----------
    points : array_like (P, 2)
        Longitude and latitude in radians, or x and y.
    usable : array_like (P,) of bool, optional
        Points with values; all, when left out.
    sphere : bool, default True
        Whether `points` are longitude and latitude.

    Attributes
    ----------
    grid : bool
        Whether the points are a grid, some of which may be missing.

    Raises
    ------
    ParameterError
        As for :func:`check_points`; or if no point is usable.
    """

    def __init__(
        self, points: ArrayLike, usable: ArrayLike | None = None, *, sphere: bool = True
    ) -> None:
        self.points, self.sphere = check_points(points, sphere=sphere), sphere
        count = len(self.points)
        flags = np.ones(count, bool) if usable is None else np.asarray(usable, dtype=bool)
        if flags.shape != (count,) or not flags.any():
            raise ParameterError(
                f"usable has shape {flags.shape} with {int(flags.sum())} points; expected "
                f"({count},), and at least one"
            )
        self.usable = flags
        self._x, column = np.unique(self.points[:, 0], return_inverse=True)
        self._y, row = np.unique(self.points[:, 1], return_inverse=True)
        cells = len(self._x) * len(self._y)
        self.grid = bool(min(len(self._x), len(self._y)) > 1 and 4 * count >= cells)
        if self.grid:
            self._where = np.full((len(self._y), len(self._x)), -1, dtype=np.intp)
            self._where[row[flags], column[flags]] = np.flatnonzero(flags)
            self._periodic = sphere and self._closes()

    def _closes(self) -> bool:
        """Whether the longitudes go round."""
        steps = np.diff(self._x)
        return bool(_TURN - (self._x[-1] - self._x[0]) <= 1.5 * steps.max())

    def rows(self, targets: ArrayLike) -> tuple[sp.csr_array, Flag]:
        """Weights of the given points at others.

        Parameters
        ----------
        targets : array_like (M, 2)
            Where values are wanted.

        Returns
        -------
        csr_array (M, P)
            Each row sums to one; rows of points outside are empty.
        ndarray (M,) of bool
            Whether each target lies inside: at most half a step beyond a grid, or near scattered
            points, and not where no point about it is usable.

        Raises
        ------
        ParameterError
            As for :func:`check_points`.
        """
        wanted = check_points(targets, sphere=self.sphere, name="targets")
        found, weights, inside = self._on_grid(wanted) if self.grid else self._scattered(wanted)
        weights = np.where(inside[:, None], weights, 0.0)
        number = np.broadcast_to(np.arange(len(wanted))[:, None], found.shape)
        shape = (len(wanted), len(self.points))
        entries = (weights.ravel(), (number.ravel(), found.ravel()))
        rows = sp.csr_array(sp.coo_array(entries, shape=shape))
        rows.eliminate_zeros()
        return rows, inside

    def _on_grid(self, wanted: Float) -> tuple[Index, Float, Flag]:
        targets, inside = self._clipped(wanted)
        found, weights = self._stencil(targets, 4)
        few, rough = self._stencil(targets, 2)
        rough = np.where(few >= 0, rough, 0.0)
        left = rough.sum(axis=1)
        inside &= left > 1e-6
        rough /= np.where(left > 1e-6, left, 1.0)[:, None]
        # of sixteen, those without weight do not matter (a target on a grid line)
        broken = ((found < 0) & (np.abs(weights) > 1e-12)).any(axis=1)
        weights[broken] = 0.0
        found[broken] = 0
        weights[broken, : rough.shape[1]] = rough[broken]
        found[broken, : few.shape[1]] = few[broken]
        return np.maximum(found, 0), weights, inside

    def _clipped(self, wanted: Float) -> tuple[Float, Flag]:
        """Targets on the grid, and which were at most half a step beyond it."""
        targets, inside = wanted.copy(), np.ones(len(wanted), dtype=bool)
        for axis, nodes in enumerate((self._x, self._y)):
            if self.sphere and axis == 0:
                before = 0.5 * (_TURN - nodes[-1] + nodes[0])
                targets[:, 0] = (targets[:, 0] - nodes[0] + before) % _TURN + nodes[0] - before
                if self._periodic:
                    continue
            low, high = nodes[0], nodes[-1]
            first, last = 0.5 * (nodes[1] - low), 0.5 * (high - nodes[-2])
            if axis == 1 and self.sphere and self._periodic:
                low, first = (-0.5 * np.pi, 0.0) if self._pole(-1.0) else (low, first)
                high, last = (0.5 * np.pi, 0.0) if self._pole(1.0) else (high, last)
            slack = 1e-6 * (nodes[-1] - nodes[0])
            inside &= (targets[:, axis] >= low - first - slack) & (
                targets[:, axis] <= high + last + slack
            )
            targets[:, axis] = np.clip(targets[:, axis], low, high)
        return targets, inside

    def _pole(self, sign: float) -> bool:
        """Whether a pole lies within a step and a half of the last row."""
        last = self._y[-1] if sign > 0 else -self._y[0]
        step = self._y[-1] - self._y[-2] if sign > 0 else self._y[1] - self._y[0]
        return bool(0.5 * np.pi - last <= 1.5 * step)

    def _latitudes(self) -> tuple[Float, Index, Flag]:
        """Rows with their images beyond the poles: position, number, and whether turned."""
        y, number = self._y, np.arange(len(self._y))
        parts = [(y, number, np.zeros(len(y), dtype=bool))]
        if self._periodic:
            for sign in (1.0, -1.0):
                if self._pole(sign):
                    order = number[::-1] if sign > 0 else number
                    order = order[np.abs(y[order]) < 0.5 * np.pi - 1e-9][:3]
                    beyond = sign * np.pi - y[order], order, np.ones(len(order), dtype=bool)
                    parts = [*parts, beyond] if sign > 0 else [_reversed(beyond), *parts]
        places, rows, turned = (np.concatenate(one) for one in zip(*parts, strict=True))
        return places, rows, turned

    def _longitudes(self, targets: Float, order: int) -> tuple[Index, Float]:
        """Columns and weights (M, order) about longitudes."""
        n = len(self._x)
        if not self._periodic:
            first, weights = _lagrange(self._x, targets, order)
            return first[:, None] + np.arange(weights.shape[1]), weights
        wide = np.arange(-3, n + 3)
        nodes = self._x[wide % n] + _TURN * (wide // n)
        shifted = (targets - self._x[0]) % _TURN + self._x[0]
        first, weights = _lagrange(nodes, shifted, order)
        return wide[first[:, None] + np.arange(weights.shape[1])] % n, weights

    def _stencil(self, targets: Float, order: int) -> tuple[Index, Float]:
        """Points (M, order ** 2), -1 where there is none, and their weights."""
        places, rows, turned = self._latitudes()
        first, along = _lagrange(places, targets[:, 1], order)
        near = first[:, None] + np.arange(along.shape[1])
        here, w_here = self._longitudes(targets[:, 0], order)
        there, w_there = self._longitudes(targets[:, 0] + 0.5 * _TURN, order)
        over = turned[near][:, :, None]
        column = np.where(over, there[:, None, :], here[:, None, :])
        across = np.where(over, w_there[:, None, :], w_here[:, None, :])
        found = self._where[rows[near][:, :, None], column]
        weights = along[:, :, None] * across
        return found.reshape(len(targets), -1), weights.reshape(len(targets), -1)

    def _xyz(self, points: Float) -> Float:
        if not self.sphere:
            return points
        x, y = points.T
        return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=1)

    def _scattered(self, wanted: Float) -> tuple[Index, Float, Flag]:
        usable = np.flatnonzero(self.usable)
        places, targets = self._xyz(self.points[usable]), self._xyz(wanted)
        tree, count = cKDTree(places), min(_NEIGHBOURS, len(usable))
        found = tree.query(targets, k=count)
        away, near = (np.asarray(one).reshape(len(targets), count) for one in found)
        own = np.asarray(tree.query(places, k=2)[0])
        apart = np.median(own[:, 1]) if count > 1 else np.inf
        local = places[near] - targets[:, None]
        if self.sphere:
            x, y = wanted.T
            zero = np.zeros_like(x)
            east = np.stack([-np.sin(x), np.cos(x), zero], axis=1)
            north = np.stack([-np.sin(y) * np.cos(x), -np.sin(y) * np.sin(x), np.cos(y)], axis=1)
            local = np.stack([(local * axis[:, None]).sum(-1) for axis in (east, north)], axis=-1)
        scale = np.maximum(away.max(axis=1), 1e-300)
        weights = _spline_weights(local / scale[:, None, None])
        return usable[near], weights, away[:, 0] <= _FAR * apart


def _reversed(part: tuple[Float, Index, Flag]) -> tuple[Float, Index, Flag]:
    places, rows, turned = part
    return places[::-1], rows[::-1], turned[::-1]


def _spline_weights(local: Float) -> Float:
    """Weights (M, k) at the origin of values at points (M, k, 2): ``r^3`` and quadratics."""
    count, x, y = local.shape[1], local[..., 0], local[..., 1]
    terms = [np.ones_like(x), x, y, x * x, x * y, y * y]
    terms = terms[: 6 if count >= 12 else 3 if count >= 6 else 1]
    far = np.linalg.norm(local[:, :, None] - local[:, None], axis=-1) ** 3
    size = count + len(terms)
    matrix = np.zeros((len(local), size, size))
    matrix[:, :count, :count] = far
    matrix[:, :count, count:] = np.stack(terms, axis=-1)
    matrix[:, count:, :count] = np.stack(terms, axis=1)
    right = np.zeros((len(local), size))
    right[:, :count] = np.linalg.norm(local, axis=-1) ** 3
    right[:, count] = 1.0
    # neighbours on a line leave polynomials undetermined: the smallest weights are taken
    inverse = np.linalg.pinv(matrix, rcond=1e-12, hermitian=True)
    weights = np.asarray((inverse @ right[:, :, None])[:, :count, 0])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))

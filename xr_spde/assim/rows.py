"""Rows of weights of observations at given positions: nearest cell, bilinear, area mean.

Positions are fractions of rows and columns of a canonical grid, so that the seam of the longitudes
and the poles are dealt with here, once. Beyond the last row before a pole lies the same row half a
circle away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde.labels.grid import EARTH_RADIUS, Grid

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Flag = NDArray[np.bool_]

_SLACK = 1e-6


@dataclass(frozen=True)
class Positions:
    """Where observations lie on a grid.

    Attributes
    ----------
    grid : Grid
        The grid.
    y, x : ndarray (p,)
        Coordinates, in the units of the grid.
    row, column : ndarray (p,)
        The same as fractions of rows and columns in canonical order.
    """

    grid: Grid
    y: Float
    x: Float
    row: Float
    column: Float

    @classmethod
    def of(cls, grid: Grid, y: Float, x: Float) -> Positions:
        """Find fractions of rows and columns.

        Parameters
        ----------
        grid : Grid
            The grid.
        y, x : ndarray (p,)
            Coordinates in its units; longitudes count modulo 360.

        Returns
        -------
        Positions
        """
        row = (y - grid.canonical_y()[0]) / abs(grid.dy)
        offset = x - grid.canonical_x()[0]
        if grid.longitude:
            before = (0.5 + _SLACK) * abs(grid.dx)
            offset = (offset + before) % 360.0 - before
        return cls(grid, y, x, row, offset / abs(grid.dx))

    def select(self, keep: Flag | Index) -> Positions:
        """Return some of the positions."""
        return Positions(self.grid, self.y[keep], self.x[keep], self.row[keep], self.column[keep])

    @property
    def inside(self) -> Flag:
        """Whether each lies in a cell of the grid: at most half a cell beyond the last centre."""
        grid = self.grid
        within = (self.row >= -0.5 - _SLACK) & (self.row <= grid.ny - 0.5 + _SLACK)
        if grid.kind == "geographic":
            within &= np.abs(self.y) <= 90.0 + 1e-6
        if grid.periodic_x:
            return np.asarray(within & np.isfinite(self.column))
        return np.asarray(
            within & (self.column >= -0.5 - _SLACK) & (self.column <= grid.nx - 0.5 + _SLACK)
        )

    def cells(self) -> tuple[Index, Index]:
        """Row and column of the nearest cell of each, by the great circle where on the sphere."""
        grid, row, column = self.grid, self.row, np.rint(self.column)
        if grid.kind == "geographic":
            # on the nearest meridian, the nearest row is the one nearest the foot of the
            # perpendicular, which lies poleward of the latitude
            apart = np.radians((self.column - column) * abs(grid.dx))
            latitude = np.radians(np.clip(self.y, -90.0, 90.0))
            foot = np.degrees(np.arctan2(np.sin(latitude), np.cos(latitude) * np.cos(apart)))
            row = (foot - grid.canonical_y()[0]) / abs(grid.dy)
        j = np.clip(np.rint(row), 0, grid.ny - 1).astype(np.intp)
        i = column.astype(np.intp)
        return j, i % grid.nx if grid.periodic_x else np.clip(i, 0, grid.nx - 1)


def nearest_rows(at: Positions) -> sp.csr_array:
    """Weights of the nearest cell.

    Parameters
    ----------
    at : Positions
        Inside the grid.

    Returns
    -------
    csr_array (p, ny * nx)
        In canonical order.
    """
    j, i = at.cells()
    return _matrix(at, np.arange(j.size), j, i, np.ones(j.size))


def bilinear_rows(at: Positions) -> sp.csr_array:
    """Weights of the four cells around, linear in both coordinates.

    Across the seam the first column is the neighbour of the last one; between the last row and a
    pole within its cell, the same row on the other side of the pole is. Beyond the last centres of
    a regional grid the value of the edge is taken.

    Parameters
    ----------
    at : Positions
        Inside the grid.

    Returns
    -------
    csr_array (p, ny * nx)
        In canonical order; each row sums to one.
    """
    grid = at.grid
    south = np.clip(np.floor(at.row), 0, grid.ny - 2)
    up = np.clip(at.row - south, 0.0, 1.0)
    rows = [(south, 1.0 - up, 0.0), (south + 1, up, 0.0)]
    if grid.periodic_x:
        rows = [
            part
            for last, sign in ((grid.ny - 1, 1.0), (0, -1.0))
            for part in _over_pole(at, last, sign)
        ] + [(j, weight * _before_poles(at), turn) for j, weight, turn in rows]
    entries = []
    for j, weight, turn in rows:
        column = at.column + turn
        if not grid.periodic_x:
            column = np.clip(column, 0.0, grid.nx - 1.0)
        west = np.floor(column)
        right = column - west
        entries += [(j, west, weight * (1.0 - right)), (j, west + 1, weight * right)]
    number = np.arange(at.y.size)
    parts = [
        (number[kept], j[kept], i[kept], w[kept]) for j, i, w in entries if (kept := w != 0.0).any()
    ]
    k, j, i, weight = (np.concatenate(one) for one in zip(*parts, strict=True))
    return _matrix(at, k, j.astype(np.intp), i.astype(np.intp) % grid.nx, weight)


def _gap(grid: Grid, last: int, sign: float) -> float:
    """Degrees between the last row and the pole, if the pole lies in its cell; else 0."""
    gap = 90.0 - sign * float(grid.canonical_y()[last])
    pole = grid.north_pole if sign > 0 else grid.south_pole
    return gap if pole and gap > 1e-6 else 0.0


def _before_poles(at: Positions) -> Float:
    """One, but zero for positions between a last row and its pole."""
    out = np.ones(at.y.size)
    for last, sign in ((at.grid.ny - 1, 1.0), (0, -1.0)):
        if _gap(at.grid, last, sign):
            out[sign * (at.row - last) > 0.0] = 0.0
    return out


def _over_pole(at: Positions, last: int, sign: float) -> list[tuple[Float, Float, float]]:
    """Row, weight and turn of the last row, on this side of the pole and on the other."""
    gap = _gap(at.grid, last, sign)
    if not gap:
        return []
    beyond = sign * (at.y - at.grid.canonical_y()[last])
    share = np.clip(beyond / (2.0 * gap), 0.0, 0.5)
    there = (sign * (at.row - last) > 0.0).astype(np.float64)
    row = np.full(at.y.size, float(last))
    return [(row, there * (1.0 - share), 0.0), (row, there * share, at.grid.nx / 2.0)]


def area_rows(at: Positions, radius: float) -> sp.csr_array:
    """Mean over the cells whose centres lie within a distance, weighed by their area.

    Parameters
    ----------
    at : Positions
        Inside the grid.
    radius : float
        In metres; in units of the coordinates where these have no length. Where no centre is so
        near, the nearest cell is taken.

    Returns
    -------
    csr_array (p, ny * nx)
        In canonical order; each row sums to one. What lies beyond the grid is left out.
    """
    grid = at.grid
    sphere = grid.kind == "geographic"
    unit = np.degrees(1.0 / EARTH_RADIUS) if sphere else 1.0 / (grid.metres or 1.0)
    reach, middle = radius * unit, np.rint(at.row).astype(np.intp)
    number, y, areas = np.arange(at.y.size), grid.canonical_y(), _areas(grid)
    parts = []
    span = int(np.ceil(reach / abs(grid.dy))) + 1
    for j in (middle + step for step in range(-span, span + 1)):
        kept = (j >= 0) & (j < grid.ny)
        half = _half_width(at.y[kept], y[j[kept]], reach, sphere=sphere) / abs(grid.dx)
        k, i = _ranges(number[kept], at.column[kept], half, grid)
        parts.append((k, j[k], i, areas[j[k]]))
    k, row, i, weight = (np.concatenate(one) for one in zip(*parts, strict=True))
    found = _matrix(at, k, row, i, weight)
    lonely = np.flatnonzero(np.diff(found.indptr) == 0)
    if lonely.size:
        j, i = at.select(lonely).cells()
        found = sp.csr_array(found + _matrix(at, lonely, j, i, np.ones(lonely.size)))
    return _normalised(found)


def _areas(grid: Grid) -> Float:
    """Area of a cell of each row, up to a factor; a row at a pole holds the half before it."""
    if grid.kind != "geographic":
        return np.ones(grid.ny)
    y, half = grid.canonical_y(), 0.5 * abs(grid.dy)
    south, north = (np.sin(np.radians(np.clip(y + side, -90.0, 90.0))) for side in (-half, half))
    return north - south


def _half_width(y0: Float, y: Float, reach: float, *, sphere: bool) -> Float:
    """Half the extent in x of a disc on a line of constant y; negative where it is not met."""
    if not sphere:
        inner = reach**2 - (y - y0) ** 2
        return np.where(inner >= 0.0, np.sqrt(np.maximum(inner, 0.0)), -1.0)
    first, second, angle = np.radians(y0), np.radians(y), np.radians(min(reach, 180.0))
    across = np.cos(first) * np.cos(second)
    cosine = np.cos(angle) - np.sin(first) * np.sin(second)
    # From a pole all of a row is equally far: rounding is not to decide on a part of it.
    at_pole = np.where(cosine <= 1e-12, -1.0, 2.0)
    ratio = np.where(across > 1e-12, cosine / np.maximum(across, 1e-12), at_pole)
    return np.where(ratio <= 1.0, np.degrees(np.arccos(np.clip(ratio, -1.0, 1.0))), -1.0)


def _ranges(number: Index, column: Float, half: Float, grid: Grid) -> tuple[Index, Index]:
    """Observations and columns within half widths of the positions, one pair per cell."""
    low, high = np.ceil(column - half - 1e-9), np.floor(column + half + 1e-9)
    if grid.periodic_x:
        high = np.minimum(high, low + grid.nx - 1)
    else:
        low, high = np.maximum(low, 0), np.minimum(high, grid.nx - 1)
    count = np.where(half >= 0.0, np.maximum(high - low + 1, 0), 0).astype(np.intp)
    first = np.repeat(np.cumsum(count) - count, count)
    i = np.repeat(low.astype(np.intp), count) + np.arange(count.sum()) - first
    return np.repeat(number, count), i % grid.nx


def window_rows(at: Positions, cells: tuple[int, int]) -> sp.csr_array:
    """Mean over a window of cells about the nearest one, weighed by their area.

    Parameters
    ----------
    at : Positions
        Inside the grid.
    cells : tuple of int
        Rows and columns, odd.

    Returns
    -------
    csr_array (p, ny * nx)
        In canonical order; each row sums to one. What lies beyond the grid is left out.
    """
    grid = at.grid
    j0, i0 = at.cells()
    number, area = np.arange(j0.size), _areas(grid)
    across = min(cells[1], grid.nx) if grid.periodic_x else cells[1]
    parts = []
    for dj in range(-(cells[0] // 2), cells[0] // 2 + 1):
        for di in range(-(across // 2), across - across // 2):
            j, i = j0 + dj, i0 + di
            kept = (j >= 0) & (j < grid.ny)
            if not grid.periodic_x:
                kept &= (i >= 0) & (i < grid.nx)
            parts.append((number[kept], j[kept], i[kept] % grid.nx, area[j[kept]]))
    return _normalised(_matrix(at, *(np.concatenate(one) for one in zip(*parts, strict=True))))


def without_land(rows: sp.csr_array, land: Flag, nearest: Index) -> tuple[sp.csr_array, Flag]:
    """Take cells on land out of the rows, and share their weight among the others.

    Parameters
    ----------
    rows : csr_array (p, ny * nx)
        Weights.
    land : ndarray (ny * nx,) of bool
        True on land.
    nearest : ndarray of int (p,)
        Nearest cell of every observation.

    Returns
    -------
    csr_array (p, ny * nx)
        With the sums they had.
    ndarray (p,) of bool
        Whether an observation is on land: its nearest cell is, or nothing is left of its row.
    """
    wet = sp.csr_array(rows, copy=True)
    wet.data = np.where(land[wet.indices], 0.0, wet.data)
    before, left = np.asarray(rows.sum(axis=1)), np.asarray(wet.sum(axis=1))
    lost = land[nearest] | (left <= 1e-9 * np.abs(before))
    scale = np.where(lost, 1.0, before / np.where(lost, 1.0, left))
    return sp.csr_array(sp.diags_array(scale) @ wet), lost


def _matrix(at: Positions, k: Index, j: Index, i: Index, weight: Float) -> sp.csr_array:
    """Sparse matrix from observation, row, column and weight."""
    shape = (at.y.size, at.grid.ny * at.grid.nx)
    return sp.csr_array(sp.coo_array((weight, (k, j * at.grid.nx + i)), shape=shape))


def _normalised(rows: sp.csr_array) -> sp.csr_array:
    """Rows divided by their sums."""
    return sp.csr_array(sp.diags_array(1.0 / np.asarray(rows.sum(axis=1))) @ rows)

"""Where the numbers of a snapshot belong: variables, levels and points, with labels and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import GridError
from xr_spde.assim.rows import Positions, bilinear_rows, without_land
from xr_spde.labels.grid import Grid, same_grid

__all__ = ["DOMAINS", "Channel", "Layout", "is_same_grid"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

DOMAINS = ("auto", "sphere", "plane")
"""What points are: longitude and latitude in radians, or x and y in [-1, 1]."""


@dataclass(frozen=True)
class Channel:
    """One variable at one level.

    Attributes
    ----------
    variable : str
        Name; empty for an array without one.
    level : float or None
        Along `level_dim`; None where there is none.
    units : str
        As in the attributes; empty where there are none.
    """

    variable: str
    level: float | None
    units: str

    def __str__(self) -> str:
        name = self.variable or "the field"
        return name if self.level is None else f"{name} at {self.level:g}"


@dataclass(frozen=True, eq=False)
class Layout:
    """The snapshots of a series, as points and channels.

    Attributes
    ----------
    grid : Grid
        Of the series.
    channels : tuple of Channel
        Variables, and levels within them.
    level_dim : str or None
        Dimension of the levels.
    cells : ndarray of int (P,)
        Flat canonical indices of the points: cells where some channel ever has a value.
    domain : {"sphere", "plane"}
        What the points are.
    dataset : bool
        Whether the series was a Dataset.
    """

    grid: Grid
    channels: tuple[Channel, ...]
    level_dim: str | None
    cells: Index
    domain: str
    dataset: bool

    @property
    def points(self) -> Float:
        """Points (P, 2) of the series."""
        y, x = np.meshgrid(self.grid.canonical_y(), self.grid.canonical_x(), indexing="ij")
        return self.place(y.ravel()[self.cells], x.ravel()[self.cells])

    @property
    def area(self) -> Float:
        """Area (P,) of the cells, as shares of the whole."""
        height, width = self.grid.cell_size()
        rows = height * width if np.isfinite(width).all() else np.ones(self.grid.ny)
        area = np.repeat(rows, self.grid.nx)[self.cells]
        return area / area.sum()

    def place(self, y: NDArray[Any], x: NDArray[Any]) -> Float:
        """Points of positions in the units of the grid.

        Parameters
        ----------
        y, x : ndarray (M,)
            Positions.

        Returns
        -------
        ndarray (M, 2)
            Longitude in [0, 2 pi) and latitude in radians; or x and y, -1 and 1 at the outermost
            centres of the grid.
        """
        if self.domain == "sphere":
            return np.stack([np.radians(np.mod(x, 360.0)), np.radians(y)], axis=1)
        ends = [(c[0], c[-1]) for c in (self.grid.canonical_x(), self.grid.canonical_y())]
        if self.grid.longitude:  # the turn of a regional grid
            x = ends[0][0] + np.mod(x - ends[0][0] + 0.5 * (360.0 - np.ptp(ends[0])), 360.0)
            x = x - 0.5 * (360.0 - np.ptp(ends[0]))
        scaled = [2.0 * (v - a) / (b - a) - 1.0 for v, (a, b) in zip((x, y), ends, strict=True)]
        return np.stack(scaled, axis=1)

    def rows(self, y: Float, x: Float) -> sp.csr_array:
        """Bilinear weights of the points of the series at positions; nearest where all is land.

        Parameters
        ----------
        y, x : ndarray (M,)
            Positions in the units of the grid.

        Returns
        -------
        csr_array (M, P)
        """
        at = Positions.of(self.grid, y, x)
        land = np.ones(self.grid.ny * self.grid.nx, dtype=bool)
        land[self.cells] = False
        j, i = at.cells()
        rows, lost = without_land(bilinear_rows(at), land, j * self.grid.nx + i)
        found = sp.csr_array(rows[:, self.cells])
        if lost.any():
            mine, sought = self.points, self.place(y[lost], x[lost])
            nearest = _nearest(mine, sought, sphere=self.domain == "sphere")
            where = (np.flatnonzero(lost), nearest)
            whole = sp.coo_array((np.ones(nearest.size), where), shape=found.shape)
            found = sp.csr_array(sp.diags_array(np.where(lost, 0.0, 1.0)) @ found + whole)
        return found

    def take(self, fields: NDArray[Any]) -> NDArray[Any]:
        """Values at the points of the series.

        Parameters
        ----------
        fields : ndarray (..., c, ny, nx)
            As stored on its grid.

        Returns
        -------
        ndarray (..., P, c)
        """
        flat = self.grid.to_canonical(fields).reshape(*fields.shape[:-2], -1)[..., self.cells]
        return np.moveaxis(flat, -2, -1)

    def put(self, values: NDArray[Any]) -> NDArray[Any]:
        """Fields of values at the points of the series; NaN elsewhere.

        Parameters
        ----------
        values : ndarray (..., P, c)
            Values.

        Returns
        -------
        ndarray (..., c, ny, nx)
            As stored on its grid.
        """
        moved = np.moveaxis(values, -1, -2)
        flat = np.full((*moved.shape[:-1], self.grid.ny * self.grid.nx), np.nan, values.dtype)
        flat[..., self.cells] = moved
        return self.grid.from_canonical(flat.reshape(*moved.shape[:-1], *self.grid.shape))

    def describe(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and options that make the layout again.

        Returns
        -------
        tuple of dict
        """
        options = {
            "grid": asdict(self.grid), "channels": [asdict(one) for one in self.channels],
            "level_dim": self.level_dim, "domain": self.domain, "dataset": self.dataset,
        }  # fmt: skip
        return {"cells": self.cells.astype(np.int64)}, options

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], options: Mapping[str, Any]) -> Layout:
        """Make the layout of what `describe` returned.

        Parameters
        ----------
        arrays, options : mapping
            As there.

        Returns
        -------
        Layout
        """
        rest = {name: options[name] for name in ("level_dim", "domain", "dataset")}
        channels = tuple(Channel(**one) for one in options["channels"])
        cells = np.asarray(arrays["cells"], dtype=np.intp)
        return cls(Grid(**options["grid"]), channels, cells=cells, **rest)


def _nearest(points: Float, sought: Float, *, sphere: bool) -> Index:
    """Find the nearest points."""
    from scipy.spatial import cKDTree

    def unit(p: Float) -> Float:
        if not sphere:
            return p
        flat = np.cos(p[:, 1])
        return np.stack([flat * np.cos(p[:, 0]), flat * np.sin(p[:, 0]), np.sin(p[:, 1])], axis=1)

    return np.asarray(cKDTree(unit(points)).query(unit(sought))[1], dtype=np.intp)


def is_same_grid(layout: Layout, grid: Grid) -> bool:
    """Whether fields lie on the grid of a layout.

    Parameters
    ----------
    layout : Layout
        Of a model.
    grid : Grid
        Of fields.

    Returns
    -------
    bool
    """
    try:
        same_grid(layout.grid, grid)
    except GridError:
        return False
    return True

"""Points of a grid as images, and values between them, for networks that know grids only."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xr_spde._core.errors import ParameterError
from xr_spde._core.point_rows import PointRows, check_points

__all__ = ["GridOrder", "Neighbours"]

Array = NDArray[Any]

_POINT_SETS = 4  # whose neighbours are kept


class GridOrder:
    """Where the points of a grid stand in an image of it.

    Parameters
    ----------
    points : array_like (P, 2)
        Longitude and latitude in radians, or x and y, in any order.
    sphere : bool, default True
        Whether they are the former.

    Attributes
    ----------
    ny, nx : int
        Rows and columns.
    periodic : bool
        Whether columns go round the sphere.
    order : ndarray (ny * nx,)
        Number of the point of each cell, rows slow.
    place : ndarray (P,)
        Cell of each point.

    Raises
    ------
    ParameterError
        If the points are no complete grid.
    """

    def __init__(self, points: ArrayLike, *, sphere: bool = True) -> None:
        places = check_points(points, sphere=sphere)
        x, column = np.unique(places[:, 0], return_inverse=True)
        y, row = np.unique(places[:, 1], return_inverse=True)
        self.ny, self.nx = len(y), len(x)
        self.place = row * self.nx + column
        if self.ny * self.nx != len(places) or len(np.unique(self.place)) != len(places):
            raise ParameterError(
                f"{len(places)} points with {self.nx} different first and {self.ny} different "
                "second coordinates are no grid, which an auto-encoder needs; use method="
                '"lainr" or "pod"'
            )
        self.order = np.argsort(self.place)
        self.periodic = False
        if sphere and self.nx > 1:
            left = 2.0 * np.pi - (x[-1] - x[0])
            self.periodic = bool(left <= 1.5 * np.diff(x).max())

    def images(self, values: Array) -> Tensor:
        """Fields (B, c, ny, nx) of values (B, P, c)."""
        ordered = np.asarray(values, dtype=np.float32)[:, self.order]
        image = ordered.transpose(0, 2, 1).reshape(*ordered.shape[::2], self.ny, self.nx)
        return torch.from_numpy(np.ascontiguousarray(image))

    def values(self, fields: Tensor) -> Tensor:
        """Values (B, P, c) of fields (B, c, ny, nx)."""
        return fields.flatten(2).movedim(1, 2)[:, torch.from_numpy(self.place)]


class Neighbours:
    """Interpolation between points, of tensors and differentiable.

    Parameters
    ----------
    points : ndarray (P, 2)
        Longitude and latitude in radians, or x and y.
    used : ndarray (P, c) of bool
        Which values there are.
    sphere : bool, default True
        Whether `points` are longitude and latitude.
    """

    def __init__(self, points: Array, used: NDArray[np.bool_], *, sphere: bool = True) -> None:
        self._rows = [PointRows(points, flags, sphere=sphere) for flags in used.T]
        self._known: OrderedDict[bytes, list[tuple[Tensor, Tensor]]] = OrderedDict()

    def gather(self, values: Tensor, points: Array) -> Tensor:
        """Interpolate.

        Parameters
        ----------
        values : Tensor (B, P, c)
            At the points of the grid.
        points : ndarray (M, 2)
            Where values are wanted.

        Returns
        -------
        Tensor (B, M, c)
            NaN outside.
        """
        each = [
            (values[:, number, k] * weight).sum(-1)
            for k, (number, weight) in enumerate(self._at(points))
        ]
        return torch.stack(each, dim=-1)

    def _at(self, points: Array) -> list[tuple[Tensor, Tensor]]:
        """Neighbours (M, k) and their weights, of each variable."""
        wanted = np.ascontiguousarray(points, dtype=np.float64)
        key = hashlib.blake2b(wanted.tobytes()).digest()
        if key not in self._known:
            self._known[key] = [_listed(source, wanted) for source in self._rows]
            while len(self._known) > _POINT_SETS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def _listed(source: PointRows, wanted: Array) -> tuple[Tensor, Tensor]:
    """Rows of interpolation as lists of equal length."""
    rows, inside = source.rows(wanted)
    count = np.diff(rows.indptr)
    filled = np.arange(max(int(count.max()), 1)) < count[:, None]
    number, weight = np.zeros(filled.shape, np.int64), np.zeros(filled.shape, np.float32)
    number[filled], weight[filled] = rows.indices, rows.data
    weight[~inside] = np.nan
    return torch.from_numpy(number), torch.from_numpy(weight)

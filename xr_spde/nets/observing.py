r"""What a field at nodes and steps says about observations between them.

A field is known at nodes, the middles of squares of so many cells, and at steps. Cells get it by
cubic convolution along both axes, and an observation that was made a share f of a step after (or
before) its step gets ``(1 - |f|) x_t + |f| x_{t+1}`` (or ``x_{t-1}``). That operator is linear;
with its adjoint the cost of interpolation is that of fewer unknowns, and what was seen in the
morning is not taken for what is there at noon.

References
----------
Keys (1981), Cubic convolution interpolation for digital image processing, IEEE Trans. Acoust.
Speech Signal Process. 29.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from xr_spde.nets.variational_window import Window

__all__ = ["Observing", "between"]

_LEAST = 0.25
"""Least share of what a cell next to land takes from nodes at sea."""


@lru_cache(maxsize=64)
def between(cells: int, size: int, periodic: bool = False) -> Tensor:
    """Weights of nodes for cells along an axis.

    Parameters
    ----------
    cells : int
        Cells of the axis.
    size : int
        Cells to a node, which stands in their middle; the last may stand for fewer.
    periodic : bool, default False
        Whether the axis is closed. Else the field is mirrored at its edges.

    Returns
    -------
    Tensor (cells, nodes) of float64
        Rows sum to one.
    """
    nodes = -(-cells // size)
    place = (np.arange(cells) + 0.5) / size - 0.5
    low = np.floor(place).astype(int)
    f = place - low
    weights = (
        0.5 * (-(f**3) + 2 * f**2 - f), 0.5 * (3 * f**3 - 5 * f**2 + 2),
        0.5 * (-3 * f**3 + 4 * f**2 + f), 0.5 * (f**3 - f**2),
    )  # fmt: skip
    found = np.zeros((cells, nodes))
    for k, weight in enumerate(weights):
        node = low + k - 1
        if periodic:
            node = node % nodes
        else:
            node = np.where(node < 0, -1 - node, node)
            node = np.clip(np.where(node >= nodes, 2 * nodes - 1 - node, node), 0, nodes - 1)
        np.add.at(found, (np.arange(cells), node), weight)
    return torch.from_numpy(found)


class Observing:
    """Takes fields at nodes and steps to the cells and times of observations.

    Parameters
    ----------
    window : Window
        Observations, with the time within a step where that is known.
    size : int
        Cells of a side of the squares in whose middles nodes stand.
    sea : Tensor (B, 1, rows, columns)
        One at sea nodes and zero on land.
    boundary : str
        Of the domain.
    """

    def __init__(self, window: Window, size: int, sea: Tensor, boundary: str) -> None:
        ny, nx = window.sea.shape[-2:]
        self._size, self._sea, self._share = size, sea, None
        if size > 1:
            # closed axes whose cells are no multiple of the squares have a seam
            closed = boundary == "periodic"
            self._rows, self._columns = (
                between(n, size, closed and n % size == 0).to(sea) for n in (ny, nx)
            )
            self._share = window.sea[:, None] / self._raw(sea).clamp_min(_LEAST)
        self._offset = None if window.offset is None else window.offset.to(sea.dtype)

    def _raw(self, x: Tensor) -> Tensor:
        return self._rows @ x @ self._columns.T

    def cells(self, x: Tensor) -> Tensor:
        """Fields at cells (B, T, ny, nx) from those at nodes (B, T, rows, columns), zero on land.

        Parameters
        ----------
        x : Tensor (B, T, rows, columns)
            Fields; what stands on land does not matter.

        Returns
        -------
        Tensor (B, T, ny, nx)
        """
        x = self._sea * x
        return x if self._share is None else self._share * self._raw(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Values at the cells and times of observations.

        Parameters
        ----------
        x : Tensor (B, T, rows, columns)
            Fields at nodes.

        Returns
        -------
        Tensor (B, T, ny, nx)
        """
        found, f = self.cells(x), self._offset
        if f is None:
            return found
        after = torch.cat([found[:, 1:], found[:, -1:]], 1)
        before = torch.cat([found[:, :1], found[:, :-1]], 1)
        return found + f.clamp_min(0.0) * (after - found) + f.clamp_max(0.0) * (found - before)

    def adjoint(self, y: Tensor) -> Tensor:
        """Product of the transpose with values at cells.

        Parameters
        ----------
        y : Tensor (B, T, ny, nx)
            Values.

        Returns
        -------
        Tensor (B, T, rows, columns)
        """
        if self._offset is not None:
            late, early = self._offset.clamp_min(0.0) * y, -self._offset.clamp_max(0.0) * y
            own = y - late - early
            later = torch.cat([torch.zeros_like(y[:, :1]), late[:, :-1]], 1)
            earlier = torch.cat([early[:, 1:], torch.zeros_like(y[:, :1])], 1)
            y = own + later + earlier
            # at the edges of the window nothing is known beyond
            y = torch.cat([y[:, :1] + early[:, :1], y[:, 1:]], 1)
            y = torch.cat([y[:, :-1], y[:, -1:] + late[:, -1:]], 1)
        if self._share is None:
            return self._sea * y
        return self._sea * (self._rows.T @ (self._share * y) @ self._columns)

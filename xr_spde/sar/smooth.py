"""Smooth maps on a grid: bilinear interpolation from nodes, and the roughness of node values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NodeGrid:
    """Bilinear hats on a coarse lattice of nodes that covers the grid.

    Attributes
    ----------
    shape : tuple of int
        Numbers of nodes (ky, kx).
    grid_shape : tuple of int
        Grid size (ny, nx).
    periodic : bool
        Whether columns wrap around.
    membrane, plate : csr_array (k, k)
        First-order (squared gradient) and second-order (squared Laplacian) roughness.
    spectrum : ndarray (k - 1,)
        Non-zero eigenvalues of `membrane`; those of `plate` are their squares.
    """

    shape: tuple[int, int]
    grid_shape: tuple[int, int]
    periodic: bool
    membrane: sp.csr_array
    plate: sp.csr_array
    spectrum: Float

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.shape[0] * self.shape[1]

    @classmethod
    def cover(cls, shape: tuple[int, int], *, spacing: float, periodic: bool) -> NodeGrid:
        """Lay nodes about `spacing` cells apart over a grid.

        Parameters
        ----------
        shape : tuple of int
            Grid size (ny, nx).
        spacing : float
            Distance of nodes in cells; the nearest that fits is taken.
        periodic : bool
            Whether columns wrap around.

        Returns
        -------
        NodeGrid
        """
        ny, nx = shape
        ky = max(2, round((ny - 1) / spacing) + 1)
        kx = max(4, round(nx / spacing)) if periodic else max(2, round((nx - 1) / spacing) + 1)
        rough_y, rough_x = _roughness(ky, False), _roughness(kx, periodic)
        membrane = sp.csr_array(
            sp.kron(rough_y, sp.eye_array(kx)) + sp.kron(sp.eye_array(ky), rough_x)
        )
        spectrum = (_spectrum(ky, False)[:, None] + _spectrum(kx, periodic)).ravel()[1:]
        return cls((ky, kx), shape, periodic, membrane, sp.csr_array(membrane @ membrane), spectrum)

    def basis(self, rows: Float | None = None, columns: Float | None = None) -> sp.csr_array:
        """Interpolation from node values to positions, four entries each.

        Parameters
        ----------
        rows, columns : ndarray, optional
            Positions in cells; every cell of the grid by default.

        Returns
        -------
        csr_array (rows * columns, k)
        """
        (ny, nx), (ky, kx) = self.grid_shape, self.shape
        y = np.arange(ny, dtype=np.float64) if rows is None else rows
        x = np.arange(nx, dtype=np.float64) if columns is None else columns
        vertical = _hats(y * (ky - 1) / (ny - 1), ky)
        horizontal = _hats(x * (kx / nx if self.periodic else (kx - 1) / (nx - 1)), kx)
        return sp.csr_array(sp.kron(vertical, horizontal, format="csr"))


@dataclass(frozen=True, eq=False)
class NodePairs:
    """Sums of cell weights over the pairs of nodes that share a cell: basis' diag(w) basis.

    The pattern is worked out once; each call is one sparse product for any number of weights.

    Attributes
    ----------
    rows, columns : ndarray (pairs,)
        Node indices of each pair.
    matrix : csr_array (pairs, cells)
        Products of the two hats.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    matrix: sp.csr_array

    @classmethod
    def of(cls, basis: sp.csr_array) -> NodePairs:
        """Find the pairs of a basis with four entries per row (zeros included).

        Parameters
        ----------
        basis : csr_array (cells, k)
            Bilinear interpolation.

        Returns
        -------
        NodePairs
        """
        cells, size = basis.shape
        nodes = basis.indices.reshape(cells, 4).astype(np.int64)
        hats = basis.data.reshape(cells, 4)
        keys = (nodes[:, :, None] * size + nodes[:, None, :]).ravel()
        values = (hats[:, :, None] * hats[:, None, :]).ravel()
        unique, inverse = np.unique(keys, return_inverse=True)
        owners = np.repeat(np.arange(cells), 16)
        matrix = sp.csr_array((values, (inverse, owners)), shape=(unique.size, cells))
        return cls(unique // size, unique % size, matrix)


class SparseSum:
    """Sums of sparse matrices whose patterns stay the same, in one pass over their values.

    Parameters
    ----------
    rows, columns : ndarray of int
        Places of the values of one matrix after the other.
    size : int
        Rows of the sum.
    """

    def __init__(self, rows: NDArray[Any], columns: NDArray[Any], size: int) -> None:
        keys = columns.astype(np.int64) * size + rows
        found, self._places = np.unique(keys, return_inverse=True)
        self._indices = found % size
        self._starts = np.searchsorted(found, np.arange(size + 1) * size)

    def __call__(self, values: list[Float]) -> sp.csc_array:
        """Add up the matrices that have these values, in the order of their places."""
        flat = np.concatenate([part.ravel() for part in values])
        data = np.bincount(self._places, flat, minlength=self._indices.size)
        size = self._starts.size - 1
        return sp.csc_array((data, self._indices, self._starts), shape=(size, size))


def _hats(position: Float, nodes: int) -> sp.csr_array:
    """Linear interpolation (cells, nodes), two entries per row even where one is zero."""
    left = np.clip(np.floor(position).astype(np.int64), 0, nodes - 1)
    part = position - left
    right = np.where(part > 0, left + 1, left - 1) % nodes
    columns = np.stack([left, right], axis=1).ravel()
    data = np.stack([1.0 - part, part], axis=1).ravel()
    pointers = np.arange(0, 2 * position.size + 1, 2)
    return sp.csr_array((data, columns, pointers), shape=(position.size, nodes))


def _roughness(nodes: int, periodic: bool) -> sp.csr_array:
    """Sum of squared differences of neighbours, as a matrix."""
    difference = sp.lil_array((nodes, nodes))
    difference.setdiag(-1.0)
    difference.setdiag(1.0, 1)
    difference[nodes - 1, 0 if periodic else nodes - 1] = 1.0 if periodic else 0.0
    operator = sp.csr_array(difference)
    return sp.csr_array(operator.T @ operator)


def _spectrum(nodes: int, periodic: bool) -> Float:
    """Eigenvalues of `_roughness`."""
    turns = 2.0 if periodic else 1.0
    return 2.0 - 2.0 * np.cos(turns * np.pi * np.arange(nodes) / nodes)


def pool(
    gram: Float, weight: Float, spacing: float, dilation: int
) -> tuple[Float, Float, Float, Float]:
    """Average moments over small squares of cells, well inside the distance of two nodes.

    The maps hardly change inside such a square, so that nothing is lost but work.

    Parameters
    ----------
    gram : ndarray (4, 4, ny, nx)
        Second moments of the features.
    weight : ndarray (ny, nx)
        Degrees of freedom behind each cell.
    spacing : float
        Cells between nodes.
    dilation : int
        Cells between the neighbours of the stencil.

    Returns
    -------
    gram, weight : ndarray
        Weighted mean and total of each square.
    rows, columns : ndarray
        Centres of the squares.
    """
    side = max(1, int(spacing / 2.5), dilation // 2)
    if side == 1:
        ny, nx = weight.shape
        return gram, weight, np.arange(ny, dtype=np.float64), np.arange(nx, dtype=np.float64)
    starts = [np.arange(0, size, side) for size in weight.shape]
    ends = [np.append(s[1:], size) for s, size in zip(starts, weight.shape, strict=True)]
    rows, columns = (0.5 * (s + e - 1.0) for s, e in zip(starts, ends, strict=True))

    def summed(values: Float) -> Float:
        partial = np.add.reduceat(values, starts[0], axis=-2)
        return np.asarray(np.add.reduceat(partial, starts[1], axis=-1))

    total = summed(weight)
    mean = summed(gram * weight) / np.maximum(total, 1e-300)
    return mean, total, rows, columns

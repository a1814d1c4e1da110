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
    differences : csr_array (edges, k)
        Differences of neighbours; rows, then columns.
    membrane : csr_array (k, k)
        Sum of their squares as a matrix; also minus the Laplacian.
    spectrum : ndarray (k - 1,)
        Non-zero eigenvalues of `membrane`.
    """

    shape: tuple[int, int]
    grid_shape: tuple[int, int]
    periodic: bool
    differences: sp.csr_array
    membrane: sp.csr_array
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
        # without format= a small factor is filled up with stored zeros
        along = (
            sp.kron(_differences(ky, False), sp.eye_array(kx), format="csr"),
            sp.kron(sp.eye_array(ky), _differences(kx, periodic), format="csr"),
        )
        differences = sp.csr_array(sp.vstack(along))
        membrane = sp.csr_array(differences.T @ differences)
        membrane.sort_indices()
        spectrum = (_spectrum(ky, False)[:, None] + _spectrum(kx, periodic)).ravel()[1:]
        return cls((ky, kx), shape, periodic, differences, membrane, spectrum)

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
    """Weighted sums of squares of a sparse matrix, A' diag(w) A, for any weights.

    The pattern is worked out once; each call is one sparse product for any number of weights.

    Attributes
    ----------
    rows, columns : ndarray (pairs,)
        Pairs of columns of A that share a row.
    matrix : csr_array (pairs, rows of A)
        Products of their entries.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    matrix: sp.csr_array

    @classmethod
    def of(cls, matrix: sp.csr_array) -> NodePairs:
        """Find the pairs of a matrix; stored zeros count.

        Parameters
        ----------
        matrix : csr_array (rows, k)
            For instance a bilinear interpolation from nodes.

        Returns
        -------
        NodePairs
        """
        size = matrix.shape[1]
        lengths = np.diff(matrix.indptr)
        own = np.repeat(lengths, lengths)
        owners = np.repeat(np.arange(matrix.shape[0]), lengths**2)
        first = np.repeat(np.arange(matrix.nnz), own)
        place = np.arange(owners.size) - np.repeat(np.cumsum(own) - own, own)
        second = matrix.indptr[owners] + place
        nodes = matrix.indices.astype(np.int64)
        keys = nodes[first] * size + nodes[second]
        values = matrix.data[first] * matrix.data[second]
        unique, inverse = np.unique(keys, return_inverse=True)
        products = sp.csr_array((values, (inverse, owners)), shape=(unique.size, matrix.shape[0]))
        return cls(unique // size, unique % size, products)


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


def _differences(nodes: int, periodic: bool) -> sp.csr_array:
    """Differences of neighbours on a line or a ring."""
    left = np.arange(nodes if periodic else nodes - 1)
    columns = np.stack([left, (left + 1) % nodes], axis=1).ravel()
    shape = (left.size, nodes)
    pointers = np.arange(0, 2 * left.size + 1, 2)
    return sp.csr_array((np.tile([-1.0, 1.0], left.size), columns, pointers), shape=shape)


def _spectrum(nodes: int, periodic: bool) -> Float:
    """Eigenvalues of the sum of squares of `_differences`."""
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

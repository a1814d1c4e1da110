"""Observation operators on arrays: from fields on a grid to the values that are observed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.arrays import as_real, namespace

Index = NDArray[np.intp]


@runtime_checkable
class ObservationOperator(Protocol):
    """What filters ask of H: the values that p observations would have of given fields."""

    @property
    def size(self) -> int:
        """Number of observations p."""

    def apply(self, fields: Any) -> Any:
        """Return H(x), shape (..., p), of fields (..., ny, nx)."""

    def select(self, keep: Any) -> ObservationOperator:
        """Return the operator of some observations, given by a mask (p,) or indices."""


class LinearOperator:
    """A linear operator H with few entries in each row.

    It is applied without ever touching a grid point that nobody observes.

    Parameters
    ----------
    matrix : sparse matrix (p, ny * nx)
        Rows of weights; node ``(j, i)`` is column ``j * nx + i``.
    shape : tuple of int
        ``(ny, nx)``.

    Raises
    ------
    ParameterError
        If matrix and shape do not fit, or a weight is not finite.
    """

    def __init__(self, matrix: Any, shape: tuple[int, int]) -> None:
        rows = sp.csr_array(matrix, dtype=np.float64, copy=True)
        if rows.shape[1] != shape[0] * shape[1]:
            raise ParameterError(
                f"the matrix has shape {rows.shape}; expected (p, {shape[0] * shape[1]}) for a "
                f"grid of {shape[0]} x {shape[1]}"
            )
        if not np.isfinite(rows.data).all():
            raise ParameterError("the matrix holds NaN or infinite weights; expected numbers")
        rows.sum_duplicates()
        rows.eliminate_zeros()  # a weight of zero would spread the NaN of land
        self.matrix, self.shape = rows, shape

    @property
    def size(self) -> int:
        """Number of observations p."""
        return int(self.matrix.shape[0])

    @cached_property
    def _touched(self) -> tuple[Index, sp.csr_array]:
        """Nodes that are observed, and the matrix on these alone."""
        nodes, places = np.unique(self.matrix.indices, return_inverse=True)
        parts = (self.matrix.data, places, self.matrix.indptr)
        return nodes.astype(np.intp), sp.csr_array(parts, shape=(self.size, nodes.size))

    def apply(self, fields: Any) -> Any:
        """Values that would be observed of given fields.

        Parameters
        ----------
        fields : array (..., ny, nx)
            Any number of fields; float32 stays, and NaN reaches the observations that touch it.

        Returns
        -------
        array (..., p)
            ``H x``. That of a field does not depend on the others, bit for bit.

        Raises
        ------
        ParameterError
            For another grid.
        """
        values = as_real("fields", fields)
        if tuple(values.shape[-2:]) != self.shape:
            raise ParameterError(
                f"fields have shape {tuple(values.shape)}; expected (..., {self.shape[0]}, "
                f"{self.shape[1]})"
            )
        nodes, weights = self._touched
        touched = namespace(values).asarray(nodes)
        picked = values.reshape(-1, self.matrix.shape[1])[:, touched]
        found = self._product(weights, picked)
        return found.reshape(*values.shape[:-2], self.size)

    def adjoint(self, values: Any) -> Any:
        """Adjoint of `apply`: ``<H x, y> = <x, H' y>``.

        Parameters
        ----------
        values : array (..., p)
            One number per observation.

        Returns
        -------
        array (..., ny, nx)
            ``H' y``, zero where nothing is observed.

        Raises
        ------
        ParameterError
            For another number of observations.
        """
        given = as_real("values", values)
        if given.ndim == 0 or given.shape[-1] != self.size:
            raise ParameterError(
                f"values have shape {tuple(given.shape)}; expected (..., {self.size})"
            )
        nodes, weights = self._touched
        spread = self._product(weights.T.tocsr(), given.reshape(-1, self.size))
        xp = namespace(given)
        out = xp.zeros((len(spread), self.matrix.shape[1]), dtype=given.dtype)
        out[:, xp.asarray(nodes)] = spread
        return out.reshape(*given.shape[:-1], *self.shape)

    def _product(self, weights: sp.csr_array, rows: Any) -> Any:
        """Product of a matrix with rows of numbers, where these are and in their dtype."""
        if namespace(rows) is np:
            return np.ascontiguousarray((weights.astype(rows.dtype) @ rows.T).T)
        xp = namespace(rows)
        counts = np.diff(weights.indptr)
        out = xp.zeros((rows.shape[0], weights.shape[0]), dtype=rows.dtype)
        for k in range(int(counts.max(initial=0))):  # one entry of every row at a time
            row = np.flatnonzero(counts > k)
            entry = weights.indptr[row] + k
            weight = xp.asarray(weights.data[entry], dtype=rows.dtype)
            out[:, xp.asarray(row)] += rows[:, xp.asarray(weights.indices[entry])] * weight
        return out

    def select(self, keep: Any) -> LinearOperator:
        """Return the operator of some observations, given by a mask (p,) or indices."""
        return LinearOperator(self.matrix[np.asarray(keep)], self.shape)

    def combine(self, weights: Any) -> LinearOperator:
        """Operator of sums of observations.

        Parameters
        ----------
        weights : sparse matrix (q, p)
            One row per sum.

        Returns
        -------
        LinearOperator
            ``weights @ H``.
        """
        return LinearOperator(sp.csr_array(weights) @ self.matrix, self.shape)

    def reorder(self, order: Index) -> LinearOperator:
        """Operator on the same fields in another order of the nodes.

        Parameters
        ----------
        order : ndarray of int (ny, nx)
            Where each node stands in the fields that this operator takes.

        Returns
        -------
        LinearOperator
            On fields ``z`` with ``z[k] = x[order[k]]``.
        """
        return LinearOperator(self.matrix[:, np.asarray(order).ravel()], self.shape)

    def window(self, rows: slice, columns: slice) -> LinearOperator:
        """Operator on a part of the grid, for fields that come in blocks.

        Parameters
        ----------
        rows, columns : slice
            The part, of step 1.

        Returns
        -------
        LinearOperator
            With all p observations: summed over parts that make up the grid, ``apply`` gives that
            of the whole (where no field is NaN).
        """
        numbers = np.arange(self.matrix.shape[1]).reshape(self.shape)[rows, columns]
        return LinearOperator(self.matrix[:, numbers.ravel()], (numbers.shape[0], numbers.shape[1]))


@dataclass(frozen=True, eq=False)
class FunctionOperator:
    """Any function as an observation operator; it need not be linear.

    Parameters
    ----------
    function : callable
        Takes fields (..., ny, nx) and returns (..., p) values.
    count : int
        Number p of values it returns.
    kept : ndarray of int, optional
        Which of them are observed; all by default.
    """

    function: Callable[[Any], Any]
    count: int
    kept: Index | None = None

    @property
    def size(self) -> int:
        """Number of observations."""
        return self.count if self.kept is None else len(self.kept)

    def apply(self, fields: Any) -> Any:
        """Values that would be observed of given fields.

        Parameters
        ----------
        fields : array (..., ny, nx)
            Any number of fields.

        Returns
        -------
        array (..., p)

        Raises
        ------
        ParameterError
            If the function returns another shape.
        """
        values = as_real("fields", fields)
        found = as_real("what the operator returns", self.function(values))
        expected = (*values.shape[:-2], self.count)
        if tuple(found.shape) != expected:
            raise ParameterError(
                f"the observation operator returned shape {tuple(found.shape)} for fields of shape "
                f"{tuple(values.shape)}; expected {expected}, one number per observation last"
            )
        return found if self.kept is None else found[..., namespace(found).asarray(self.kept)]

    def select(self, keep: Any) -> FunctionOperator:
        """Return the operator of some observations, given by a mask (p,) or indices."""
        before = np.arange(self.count) if self.kept is None else self.kept
        return FunctionOperator(self.function, self.count, before[np.asarray(keep)])


def as_operator(
    operator: ObservationOperator | Callable[[Any], Any] | ArrayLike,
    *,
    shape: tuple[int, int],
    count: int,
) -> ObservationOperator:
    """Turn what a user gives as H into an operator.

    Parameters
    ----------
    operator : ObservationOperator, callable or matrix (p, ny * nx)
        A callable takes fields (..., ny, nx) and returns (..., p).
    shape : tuple of int
        ``(ny, nx)``.
    count : int
        Number of observations p.

    Returns
    -------
    ObservationOperator

    Raises
    ------
    ParameterError
        If it is none of these, or for another number of observations.
    """
    found: ObservationOperator
    if isinstance(operator, ObservationOperator):
        found = operator
    elif callable(operator):
        found = FunctionOperator(operator, count)
    elif sp.issparse(operator) or (isinstance(operator, np.ndarray) and operator.ndim == 2):
        found = LinearOperator(operator, shape)
    else:
        raise ParameterError(
            f"an operator of type {type(operator).__name__} was given; expected a callable H(x), a "
            "matrix (observations, grid points) or an object with apply(), size and select()"
        )
    if found.size != count:
        raise ParameterError(
            f"the operator has {found.size} rows and there are {count} observations; expected one "
            "row per observation, in their order, missing ones included"
        )
    return found

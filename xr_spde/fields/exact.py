"""Exact Gaussian likelihood of SAR fields on a grid, and its slope in every parameter.

``B y = e`` with innovations of variance d(s) gives y the precision ``Q = B' D^-1 B``. Nodes without
an observation (a rim beyond the grid, gaps) are integrated out: with ``P = Q_uu``,

    log p(y_o) = log|det B| - sum log d / 2 - log|P| / 2 - |D^-1/2 B y|^2 / 2 - n_o log(2 pi) / 2 ,

where y is filled with its conditional mean. Observations ``z = y_o + noise`` of variance t take
``P = Q + 1_o / t`` over all nodes and ``-|z - y_o|^2 / (2 t) - n_o log(t) / 2`` more, y being the
posterior mean. In both cases the slope needs entries of ``B^-1`` and ``P^-1`` on the patterns of
the matrices alone, which selected inversion gives (Takahashi et al. 1973; Rue and Held 2005,
section 2.4; model: LatticeVision, arXiv 2505.09803).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.device import resolve_device
from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields.sar import tensor_weights
from xr_spde.fields.stencil import OFFSETS, periodicity
from xr_spde.solvers.card import array_module
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.scaled import ScaledFactor

Float = NDArray[np.float64]
Index = NDArray[np.int64]

_LOG = logging.getLogger(__name__)
_LOG_2PI = math.log(2.0 * math.pi)

_NEAR = list(product((-1, 0, 1), (-1, 0, 1)))
# weights of the nine neighbours for kappa2, hxx, hyy and hxy of one (4, 9)
_FEATURES = tensor_weights(*np.eye(4))[[OFFSETS.index(offset) for offset in _NEAR]].T


class Lattice:
    """Neighbours of every node up to a distance, and sparse matrices that couple them.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    boundary : {"cylinder", "plane", "torus"}
        Which of them wrap around.
    reach : int
        Largest distance in rows or columns.

    Attributes
    ----------
    offsets : list of (int, int)
        Rows and columns to each neighbour.
    neighbours : ndarray (offsets, n)
        Their numbers; n where there is none.

    Raises
    ------
    ParameterError
        If a periodic side is so short that neighbours coincide.
    """

    def __init__(self, shape: tuple[int, int], boundary: str, reach: int) -> None:
        ny, nx = shape
        around = periodicity(boundary, (0, 0))
        for size, wraps, what in zip(shape, around, ("rows", "columns"), strict=True):
            if wraps and size <= 2 * reach:
                raise ParameterError(
                    f"the grid has {size} {what} around a circle; expected more than {2 * reach}"
                )
        side = range(-reach, reach + 1)
        self.offsets = list(product(side, side))
        self.n = ny * nx
        j, i = np.divmod(np.arange(self.n), nx)
        found = []
        for rows, columns in self.offsets:
            there_j, there_i = j + rows, i + columns
            inside = np.ones(self.n, dtype=bool)
            if not around[0]:
                inside &= (there_j >= 0) & (there_j < ny)
            if not around[1]:
                inside &= (there_i >= 0) & (there_i < nx)
            found.append(np.where(inside, (there_j % ny) * nx + there_i % nx, self.n))
        self.neighbours: Index = np.array(found)
        self._valid = self.neighbours < self.n
        rows_of = np.broadcast_to(np.arange(self.n), self.neighbours.shape)[self._valid]
        columns_of = self.neighbours[self._valid]
        self._order = np.lexsort((rows_of, columns_of))
        self._indices = rows_of[self._order]
        self._starts = np.searchsorted(columns_of[self._order], np.arange(self.n + 1))

    def matrix(self, values: Float) -> sp.csc_array:
        """Sparse matrix (n, n) from the weights (offsets, n) of each node's neighbours."""
        data = values[self._valid][self._order]
        return sp.csc_array((data, self._indices.copy(), self._starts.copy()), shape=(self.n,) * 2)

    def values(self, data: Float) -> Float:
        """Weights (offsets, n) from the entries of such a matrix; zero where there is none."""
        kept = np.empty(self._order.size)
        kept[self._order] = data
        out = np.zeros(self.neighbours.shape)
        out[self._valid] = kept
        return out


@dataclass(frozen=True)
class Group:
    """Replicates that are observed in the same cells.

    Attributes
    ----------
    seen : ndarray (n,) of bool
        Observed nodes.
    values : ndarray (n, K)
        Observations; zero where there is none.
    share : float
        Replicates that the determinants count for: K, or less where a mean has been taken out.
    """

    seen: NDArray[np.bool_]
    values: Float
    share: float


class ExactLikelihood:
    """Likelihood of replicates of a field, as a function of four parameters in every cell.

    Parameters
    ----------
    fields : array_like (M, ny, nx)
        Anomalies in canonical order; NaN is missing, in other cells for each replicate if need be.
    boundary : {"cylinder", "plane", "torus"}
        Of the domain.
    rim : int
        Nodes between the grid and the boundary on sides that are not periodic; their parameters
        are those of the nearest cell.
    lost : int
        Degrees of freedom that a mean over the replicates has taken: determinants count
        ``M - lost`` times.

    Raises
    ------
    ParameterError
        For other shapes or boundaries, or without any observation.
    """

    def __init__(self, fields: ArrayLike, boundary: str, *, rim: int = 0, lost: int = 0) -> None:
        values = np.asarray(fields, dtype=np.float64)
        if values.ndim != 3 or np.isinf(values).any() or not np.isfinite(values).any():
            raise ParameterError(
                f"fields have shape {values.shape}; expected (M, ny, nx) with finite values or NaN"
            )
        if boundary not in ("cylinder", "plane", "torus"):
            raise ParameterError(
                f'boundary is {boundary!r}; expected "cylinder", "plane" or "torus"'
            )
        self.boundary, self.rim = boundary, rim
        (top, left), (ny, nx) = self.margins, values.shape[1:]
        self.shape = (ny + 2 * top, nx + 2 * left)
        self.near, self.far = (Lattice(self.shape, boundary, reach) for reach in (1, 2))
        padded = np.full((len(values), *self.shape), np.nan)
        padded[:, top : top + ny, left : left + nx] = values
        flat = padded.reshape(len(values), -1)
        masks, which = np.unique(np.isfinite(flat), axis=0, return_inverse=True)
        counts = 1.0 - lost / len(values)
        self.groups = [
            Group(mask, np.ascontiguousarray(members.T), counts * len(members))
            for k, mask in enumerate(masks)
            if mask.any() and len(members := np.nan_to_num(flat[which.ravel() == k]))
        ]

    @property
    def margins(self) -> tuple[int, int]:
        """Rows and columns added on each side."""
        periodic = periodicity(self.boundary, (0, 0))
        return 0 if periodic[0] else self.rim, 0 if periodic[1] else self.rim

    def value_and_slope(
        self, q: ArrayLike, log_d: ArrayLike, noise: float = 0.0
    ) -> tuple[float, Float, Float, float]:
        """Log-likelihood and its derivatives.

        Parameters
        ----------
        q : array_like (4, ny, nx)
            kappa2, hxx, hyy and hxy of every cell, in grid-cell units.
        log_d : array_like (ny, nx)
            Log variance of the innovations.
        noise : float, optional
            Variance of the observations' noise.

        Returns
        -------
        value : float
            Log-likelihood, with all constants.
        by_q : ndarray (4, ny, nx)
        by_log_d : ndarray (ny, nx)
        by_log_noise : float
            Zero without noise.

        Raises
        ------
        SolverError
            If B is singular.
        """
        near = self.near
        wide = self._pad(np.concatenate([np.asarray(q), np.asarray(log_d)[None]]))
        stencil = _FEATURES.T @ wide[:4]
        precision = np.exp(-wide[4])
        operator = near.matrix(stencil)
        factor = self._factor(operator, reach=1)
        inverse = near.values(factor.inverse_on_pattern(transposed=True).data)
        gram = self._gram(stencil, precision)
        value, by_noise = 0.0, 0.0
        by_stencil, by_log_d = np.zeros_like(stencil), np.zeros(near.n)
        for group in self.groups:
            mean, spread, part, extra = self._complete(group, gram, noise)
            innovations = operator @ mean
            quadratic = precision * np.einsum("nk,nk->n", innovations, innovations)
            value += part + group.share * (factor.logdet() - 0.5 * float(wide[4].sum()))
            value -= 0.5 * float(quadratic.sum())
            by_stencil += group.share * inverse
            by_stencil -= precision * self._with_neighbours(innovations, mean)
            by_log_d += 0.5 * (quadratic - group.share)
            if spread is not None:
                # B times the covariance of what is not known, on the pattern of B
                reached = self._times(stencil, spread)
                by_stencil -= group.share * precision * reached
                by_log_d += 0.5 * group.share * precision * (stencil * reached).sum(0)
            by_noise += extra
        by_q = self._fold(_FEATURES @ by_stencil)
        return value, by_q, self._fold(by_log_d[None])[0], by_noise

    def regression(
        self, q: ArrayLike, log_d: ArrayLike, design: ArrayLike, noise: float = 0.0
    ) -> tuple[Float, Float]:
        """Regress the fields on maps by generalised least squares.

        Parameters
        ----------
        q, log_d, noise
            As for `value_and_slope`.
        design : array_like (P, ny, nx)
            Finite maps; their coefficients are common to all cells and replicates.

        Returns
        -------
        coefficients : ndarray (P,)
        covariance : ndarray (P, P)
            Inverse of ``X' S^-1 X`` with S the covariance of all that is observed.

        Raises
        ------
        SolverError
            If B or P is singular.
        ParameterError
            If the maps are linearly dependent where there are observations.
        """
        maps = np.asarray(design, dtype=np.float64)
        (top, left), (ny, nx) = self.margins, maps.shape[1:]
        padded = np.zeros((len(maps), *self.shape))
        padded[:, top : top + ny, left : left + nx] = maps
        wide = self._pad(np.concatenate([np.asarray(q), np.asarray(log_d)[None]]))
        stencil, precision = _FEATURES.T @ wide[:4], np.exp(-wide[4])
        operator, gram = self.near.matrix(stencil), self._gram(stencil, precision)
        normal, right = np.zeros((len(maps), len(maps))), np.zeros(len(maps))
        for group in self.groups:
            columns = np.where(group.seen, padded.reshape(len(maps), -1), 0.0).T
            total = group.values.sum(axis=1)
            both = Group(group.seen, np.column_stack([columns, total]), 1.0)
            mean = self._complete(both, gram, noise)[0]
            if noise > 0.0:
                weighed = np.where(group.seen[:, None], both.values - mean, 0.0) / noise
                products = both.values.T @ weighed
            else:
                innovations = operator @ mean
                products = innovations.T @ (precision[:, None] * innovations)
            normal += group.values.shape[1] * products[:-1, :-1]
            right += products[:-1, -1]
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        if np.linalg.cond(normal / np.outer(scale, scale)) > 1e10:
            raise ParameterError(
                "the covariates are linearly dependent where there are observations, the intercept "
                "among them; leave one out"
            )
        inverse = np.asarray(np.linalg.inv(normal), dtype=np.float64)
        return inverse @ right, inverse

    def _complete(
        self, group: Group, gram: Float, noise: float
    ) -> tuple[Float, Float | None, float, float]:
        """Fill what is not observed with its mean.

        Returns the mean (n, K), the entries (25, n) of P^-1 (None if all is known), the part of
        the log-likelihood that belongs to P and the noise, and its derivative by log noise.
        """
        observed = float(np.count_nonzero(group.seen))
        constant = -0.5 * observed * _LOG_2PI * group.share
        if noise == 0.0 and group.seen.all():
            return group.values, None, constant, 0.0
        own = self.far.offsets.index((0, 0))
        if noise == 0.0:
            hidden = ~group.seen
            there = np.append(hidden, False)[self.far.neighbours]
            within = np.where(hidden & there, gram, 0.0)
            # what is observed drops out, its own precision kept for a scale the factor can bear
            within[own, group.seen] = gram[own, group.seen]
            factor = self._factor(self.far.matrix(within), reach=2)
            right = self.far.matrix(gram) @ group.values
            mean = group.values - factor.solve(np.where(hidden[:, None], right, 0.0))
            spread = self.far.values(factor.inverse_on_pattern().data) * (hidden & there)
            logdet = factor.logdet() - float(np.log(gram[own, group.seen]).sum())
            return mean, spread, constant - 0.5 * group.share * logdet, 0.0
        posterior = gram.copy()
        posterior[own] += group.seen / noise
        factor = self._factor(self.far.matrix(posterior), reach=2)
        mean = factor.solve(group.values / noise)
        spread = self.far.values(factor.inverse_on_pattern().data)
        left = np.where(group.seen[:, None], group.values - mean, 0.0)
        misfit = float(np.vdot(left, left)) / noise
        value = constant - 0.5 * group.share * (factor.logdet() + observed * math.log(noise))
        unknown = group.share * (float(spread[own, group.seen].sum()) / noise - observed)
        return mean, spread, value - 0.5 * misfit, 0.5 * (unknown + misfit)

    def _factor(self, matrix: sp.csc_array, *, reach: int) -> GridFactor | ScaledFactor:
        settings: dict[str, Any] = {
            "shape": self.shape,
            "boundary": self.boundary,
            "reach": reach,
            "xp": array_module(resolve_device()),
        }
        try:
            return GridFactor(matrix, symmetric=reach == 2, **settings)
        except SolverError as error:
            if reach == 1:
                raise
            _LOG.info("factorised again with its rows and columns scaled: %s", error)
            return ScaledFactor(matrix, **settings)

    def _gram(self, stencil: Float, precision: Float) -> Float:
        """Weights (25, n) of Q = B' D^-1 B."""
        near, far = self.near, self.far
        out = np.zeros((len(far.offsets), near.n + 1))
        for (a, first), (b, second) in self._pairs():
            place = far.offsets.index((second[0] - first[0], second[1] - first[1]))
            inside = near.neighbours[b] < near.n
            part = np.where(inside, stencil[a] * stencil[b] * precision, 0.0)
            # each node is the neighbour a of one node at most, or lies beyond the edge
            out[place, near.neighbours[a]] += part
        return out[:, :-1]

    def _times(self, stencil: Float, spread: Float) -> Float:
        """B times a symmetric matrix given on the wide pattern, on the pattern of B (9, n)."""
        near, far = self.near, self.far
        wide = np.concatenate([spread, np.zeros((len(far.offsets), 1))], axis=1)
        out = np.zeros_like(stencil)
        for (a, first), (b, second) in self._pairs():
            place = far.offsets.index((second[0] - first[0], second[1] - first[1]))
            out[b] += stencil[a] * wide[place, near.neighbours[a]]
        return out * (near.neighbours < near.n)

    def _pairs(self) -> list[tuple[tuple[int, tuple[int, int]], tuple[int, tuple[int, int]]]]:
        numbered = list(enumerate(self.near.offsets))
        return list(product(numbered, numbered))

    def _with_neighbours(self, innovations: Float, mean: Float) -> Float:
        """Sum innovation times value at each neighbour over the replicates (9, n)."""
        wide = np.concatenate([mean, np.zeros((1, mean.shape[1]))])
        return np.array([np.einsum("nk,nk->n", innovations, wide[i]) for i in self.near.neighbours])

    def _pad(self, maps: Float) -> Float:
        """Repeat edge values into the rim; (k, n)."""
        top, left = self.margins
        padded = np.pad(maps, ((0, 0), (top, top), (left, left)), mode="edge")
        return padded.reshape(len(maps), -1)

    def _fold(self, slopes: Float) -> Float:
        """Add the slopes of the rim to the cells they were copied from: adjoint of `_pad`."""
        out = slopes.reshape(-1, *self.shape)
        for axis, width in zip((1, 2), self.margins, strict=True):
            if width:
                out = np.moveaxis(out, axis, 0)
                inner = out[width:-width].copy()
                inner[0] += out[:width].sum(0)
                inner[-1] += out[-width:].sum(0)
                out = np.moveaxis(inner, 0, axis)
        return np.ascontiguousarray(out)

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
from xr_spde.fields.lattice import Rim, lattice
from xr_spde.fields.sar import tensor_weights
from xr_spde.fields.stencil import OFFSETS, periodicity
from xr_spde.solvers.card import array_module
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.scaled import ScaledFactor

Float = NDArray[np.float64]

_LOG = logging.getLogger(__name__)
_LOG_2PI = math.log(2.0 * math.pi)

_NEAR = list(product((-1, 0, 1), (-1, 0, 1)))
# weights of the nine neighbours for kappa2, hxx, hyy and hxy of one (4, 9)
_FEATURES = tensor_weights(*np.eye(4))[[OFFSETS.index(offset) for offset in _NEAR]].T


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
    open_x : bool
        Whether a torus is cut open along a column.

    Raises
    ------
    ParameterError
        For other shapes or boundaries, or without any observation.
    """

    def __init__(
        self,
        fields: ArrayLike,
        boundary: str,
        *,
        rim: int = 0,
        lost: int = 0,
        open_x: bool = False,
    ) -> None:
        values = checked_fields(fields, boundary)
        self.boundary, self.rim = boundary, rim
        self._rim = Rim.of(rim, boundary)
        around = periodicity(boundary, (0, 0))
        around = (around[0], around[1] and not open_x)
        padded = self._rim.pad(values, fill=np.nan)
        self.shape: tuple[int, int] = (padded.shape[1], padded.shape[2])
        self.near, self.far = (lattice(self.shape, around, reach) for reach in (1, 2))
        flat = padded.reshape(len(values), -1)
        masks, which = np.unique(np.isfinite(flat), axis=0, return_inverse=True)
        counts = 1.0 - lost / len(values)
        self.groups = [
            Group(mask, np.ascontiguousarray(members.T), counts * len(members))
            for k, mask in enumerate(masks)
            if mask.any() and len(members := np.nan_to_num(flat[which.ravel() == k]))
        ]

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
        stencil, precision = self._weights(q, log_d)
        operator, gram = near.matrix(stencil), self._gram(stencil, precision)
        factor = self._factor(operator, reach=1)
        inverse = near.values(factor.inverse_on_pattern(transposed=True).data)
        determinant = factor.logdet() + 0.5 * float(np.log(precision).sum())
        value, by_noise = 0.0, 0.0
        by_stencil, by_log_d = np.zeros_like(stencil), np.zeros(near.n)
        for group in self.groups:
            mean, spread, part, extra = self._complete(group, gram, noise)
            innovations = operator @ mean
            quadratic = precision * np.einsum("nk,nk->n", innovations, innovations)
            value += part + group.share * determinant - 0.5 * float(quadratic.sum())
            by_stencil += group.share * inverse
            by_stencil -= precision * self._with_neighbours(innovations, mean)
            by_log_d += 0.5 * (quadratic - group.share)
            if spread is not None:
                # B times the covariance of what is not known, on the pattern of B
                reached = self._times(stencil, spread)
                by_stencil -= group.share * precision * reached
                by_log_d += 0.5 * group.share * precision * (stencil * reached).sum(0)
            by_noise += extra
        slopes = np.concatenate([_FEATURES @ by_stencil, by_log_d[None]])
        folded = self._rim.fold(slopes.reshape(5, *self.shape))
        return value, folded[:4], folded[4], by_noise

    def value(self, q: ArrayLike, log_d: ArrayLike, noise: float = 0.0) -> float:
        """Log-likelihood alone, for which nothing is inverted; see `value_and_slope`."""
        stencil, precision = self._weights(q, log_d)
        operator, gram = self.near.matrix(stencil), self._gram(stencil, precision)
        determinant = self._factor(operator, reach=1).logdet()
        determinant += 0.5 * float(np.log(precision).sum())
        value = 0.0
        for group in self.groups:
            mean, _, part, _ = self._complete(group, gram, noise, spread=False)
            innovations = operator @ mean
            quadratic = precision @ np.einsum("nk,nk->n", innovations, innovations)
            value += part + group.share * determinant - 0.5 * float(quadratic)
        return value

    def normal_equations(
        self, q: ArrayLike, log_d: ArrayLike, design: ArrayLike, noise: float = 0.0
    ) -> tuple[Float, Float]:
        """Form the normal equations of the fields on maps, by generalised least squares.

        Parameters
        ----------
        q, log_d, noise
            As for `value_and_slope`.
        design : array_like (P, ny, nx)
            Finite maps; their coefficients are common to all cells and replicates.

        Returns
        -------
        normal : ndarray (P, P)
            ``X' S^-1 X`` with S the covariance of all that is observed.
        right : ndarray (P,)
            ``X' S^-1 z``.

        Raises
        ------
        SolverError
            If P is singular.
        """
        maps = self._rim.pad(np.asarray(design, dtype=np.float64), fill=0.0)
        stencil, precision = self._weights(q, log_d)
        operator, gram = self.near.matrix(stencil), self._gram(stencil, precision)
        normal, right = np.zeros((len(maps), len(maps))), np.zeros(len(maps))
        for group in self.groups:
            columns = np.where(group.seen, maps.reshape(len(maps), -1), 0.0).T
            total = group.values.sum(axis=1)
            both = Group(group.seen, np.column_stack([columns, total]), 1.0)
            mean = self._complete(both, gram, noise, spread=False)[0]
            if noise > 0.0:
                weighed = np.where(group.seen[:, None], both.values - mean, 0.0) / noise
                products = both.values.T @ weighed
            else:
                innovations = operator @ mean
                products = innovations.T @ (precision[:, None] * innovations)
            normal += group.values.shape[1] * products[:-1, :-1]
            right += products[:-1, -1]
        return normal, right

    def _weights(self, q: ArrayLike, log_d: ArrayLike) -> tuple[Float, Float]:
        """Weights of the neighbours (9, n) and precision of the innovations (n,), rim included."""
        maps = self._rim.pad(np.concatenate([np.asarray(q), np.asarray(log_d)[None]]))
        wide = maps.reshape(5, -1)
        return _FEATURES.T @ wide[:4], np.exp(-wide[4])

    def _complete(
        self, group: Group, gram: Float, noise: float, *, spread: bool = True
    ) -> tuple[Float, Float | None, float, float]:
        """Fill what is not observed with its mean.

        Returns the mean (n, K), the entries (25, n) of P^-1 (None if all is known, or nobody asks),
        the part of the log-likelihood that belongs to P and the noise, and its derivative by log
        noise (0 where nobody asks).
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
            logdet = factor.logdet() - float(np.log(gram[own, group.seen]).sum())
            value = constant - 0.5 * group.share * logdet
            if not spread:
                return mean, None, value, 0.0
            entries = self.far.values(factor.inverse_on_pattern().data) * (hidden & there)
            return mean, entries, value, 0.0
        posterior = gram.copy()
        posterior[own] += group.seen / noise
        factor = self._factor(self.far.matrix(posterior), reach=2)
        mean = factor.solve(group.values / noise)
        left = np.where(group.seen[:, None], group.values - mean, 0.0)
        misfit = float(np.vdot(left, left)) / noise
        value = constant - 0.5 * group.share * (factor.logdet() + observed * math.log(noise))
        value -= 0.5 * misfit
        if not spread:
            return mean, None, value, 0.0
        entries = self.far.values(factor.inverse_on_pattern().data)
        unknown = group.share * (float(entries[own, group.seen].sum()) / noise - observed)
        return mean, entries, value, 0.5 * (unknown + misfit)

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


def checked_fields(fields: ArrayLike, boundary: str) -> Float:
    """Return fields that a likelihood can be given, in float64.

    Parameters
    ----------
    fields : array_like (M, ny, nx)
        NaN is missing.
    boundary : {"cylinder", "plane", "torus"}
        Of the domain.

    Returns
    -------
    ndarray (M, ny, nx)

    Raises
    ------
    ParameterError
        For other shapes or boundaries, or without any observation.
    """
    values = np.asarray(fields, dtype=np.float64)
    if values.ndim != 3 or np.isinf(values).any() or not np.isfinite(values).any():
        raise ParameterError(
            f"fields have shape {values.shape}; expected (M, ny, nx) with finite values or NaN"
        )
    if boundary not in ("cylinder", "plane", "torus"):
        raise ParameterError(f'boundary is {boundary!r}; expected "cylinder", "plane" or "torus"')
    return values


def regression(normal: Float, right: Float) -> tuple[Float, Float]:
    """Coefficients of a regression from its normal equations.

    Parameters
    ----------
    normal : ndarray (P, P)
    right : ndarray (P,)
        See `ExactLikelihood.normal_equations`.

    Returns
    -------
    coefficients : ndarray (P,)
    covariance : ndarray (P, P)

    Raises
    ------
    ParameterError
        If the maps are linearly dependent where there are observations.
    """
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    if np.linalg.cond(normal / np.outer(scale, scale)) > 1e10:
        raise ParameterError(
            "the covariates are linearly dependent where there are observations, the intercept "
            "among them; leave one out"
        )
    inverse = np.asarray(np.linalg.inv(normal), dtype=np.float64)
    return inverse @ right, inverse

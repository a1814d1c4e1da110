"""Likelihood of SAR fields on grids whose factor does not fit in memory: exact within windows.

The likelihood of a grid is a product over its tiles, of each given those before it. Here the past
is cut to an overlap, as for determinants (:mod:`xr_spde.fields.windows`): along both axes that
gives a signed sum of likelihoods of windows. A sum of squares, of innovations of complete fields,
comes out without error; determinants and what is integrated out (gaps, a rim, noise) forget the
past as fast as correlations fall. The slope is that of the same sum, so that it belongs to the
value to the last digit, and nothing in it is random: windows give the entries of the inverse
exactly, where probes of the whole grid would leave noise in every cell.

References
----------
Vecchia (1988), J. R. Stat. Soc. B 50 (conditioning on some neighbours); Stein, Chi, Welty (2004),
J. R. Stat. Soc. B 66 (on blocks of them). The signed sum in two dimensions is our own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.memory import check_memory, memory_budget
from xr_spde.fields.exact import ExactLikelihood, checked_fields
from xr_spde.fields.lattice import Rim
from xr_spde.fields.sar import from_tensor
from xr_spde.fields.stencil import periodicity
from xr_spde.fields.windows import TILE, Index, remainder, seam, signed_windows, tiled_windows

Float = NDArray[np.float64]

NODE_BYTES = 12_000
"""Memory of a likelihood with its slope per node of a window, with gaps; 30 replicates."""

_REPLICATE_BYTES, _USUAL = 60, 256
_LOG = logging.getLogger(__name__)


def width_of_tiles(overlap: int, replicates: int) -> int:
    """Choose a width of tiles: wide ones repeat less of the grid, narrow ones take less memory.

    Parameters
    ----------
    overlap : int
        Of the windows.
    replicates : int
        How many there are.

    Returns
    -------
    int
        Four overlaps up to 256 cells, beyond that two; less if that would not fit, down to one.

    Raises
    ------
    MemoryGuardError
        If windows of the smallest would not fit.
    """
    least = max(TILE, overlap)
    usual = min(4 * overlap, max(2 * overlap, _USUAL))
    for tile in (max(usual, least), max(2 * overlap, least), least):
        needed = (NODE_BYTES + _REPLICATE_BYTES * replicates) * (1.5 * tile + overlap) ** 2
        if needed <= memory_budget():
            return tile
    check_memory(
        needed,
        what=f"the likelihood of windows of {tile + overlap} cells across",
        remedy="Coarsen the fields: their range is many cells.",
    )
    return least


class WindowedLikelihood:
    """Likelihood of replicates of a field from overlapping windows; as `ExactLikelihood`.

    Parameters
    ----------
    fields : array_like (M, ny, nx)
        Anomalies in canonical order; NaN is missing.
    boundary : {"cylinder", "plane", "torus"}
        Of the domain.
    rim : int
        Nodes between the grid and the boundary on sides that are not periodic.
    lost : int
        Degrees of freedom that a mean over the replicates has taken.
    overlap, tile : int
        See `xr_spde.fields.windows.windowed_logdet`.

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
        overlap: int,
        tile: int,
    ) -> None:
        values = checked_fields(fields, boundary)
        self.boundary, self.rim = boundary, rim
        self.overlap, self.tile, self._lost = overlap, tile, lost
        self._rim = Rim.of(rim, boundary)
        self._fields = self._rim.pad(values, fill=np.nan)
        self.shape: tuple[int, int] = (self._fields.shape[1], self._fields.shape[2])
        self._wraps = periodicity(boundary, (0, 0))
        self._counts = dict[tuple[int, int], int]()

    def _windows(self) -> Iterator[tuple[ExactLikelihood, tuple[Index, Index], int]]:
        """Likelihood, place and sign of each window that has data."""
        found = signed_windows(self.shape, self._wraps, overlap=self.overlap, tile=self.tile)
        for rows, columns, sign in found:
            part = self._part(rows, columns)
            if part is not None:
                yield part, (rows[:, None], columns), sign

    def _part(self, rows: Index, columns: Index) -> ExactLikelihood | None:
        """Likelihood of a window; None where nothing was seen: its density is one."""
        values = self._fields[:, rows[:, None], columns]
        if not np.isfinite(values).any():
            return None
        closed = [
            wraps and index.size == size
            for wraps, index, size in zip(self._wraps, (rows, columns), self.shape, strict=True)
        ]
        boundary = "torus" if closed[0] else "cylinder" if closed[1] else "plane"
        open_x = closed == [True, False]
        return ExactLikelihood(values, boundary, lost=self._lost, open_x=open_x)

    def value_and_slope(
        self, q: ArrayLike, log_d: ArrayLike, noise: float = 0.0
    ) -> tuple[float, Float, Float, float]:
        """Log-likelihood and its derivatives, as `ExactLikelihood.value_and_slope`.

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
        by_q : ndarray (4, ny, nx)
        by_log_d : ndarray (ny, nx)
        by_log_noise : float

        Raises
        ------
        SolverError
            If B is singular.
        """
        maps = self._rim.pad(np.concatenate([np.asarray(q), np.asarray(log_d)[None]]))
        slopes, value, by_noise = np.zeros_like(maps), 0.0, 0.0
        for part, (rows, columns), sign in self._windows():
            here = maps[:, rows, columns]
            one, by_q, by_log_d, extra = part.value_and_slope(here[:4], here[4], noise)
            value += sign * one
            by_noise += sign * extra
            slopes[:4, rows, columns] += sign * by_q
            slopes[4, rows, columns] += sign * by_log_d
        folded = self._rim.fold(slopes)
        return value, folded[:4], folded[4], by_noise

    def value(self, q: ArrayLike, log_d: ArrayLike, noise: float = 0.0) -> float:
        """Log-likelihood alone; see `value_and_slope`."""
        maps = self._rim.pad(np.concatenate([np.asarray(q), np.asarray(log_d)[None]]))
        total = 0.0
        for part, at, sign in self._windows():
            here = maps[:, at[0], at[1]]
            total += sign * part.value(here[:4], here[4], noise)
        return total

    def _tiles(self, maps: Float, noise: float, overlap: int) -> Float:
        """Log-likelihood of each tile given its past (T,)."""
        windows, tiles = tiled_windows(
            self.shape, self._wraps, overlap=overlap, tile=self.tile, widest=self.overlap
        )
        values = np.zeros(len(windows))
        for number, (rows, columns) in enumerate(windows):
            part = self._part(rows, columns)
            if part is not None:
                here = maps[:, rows[:, None], columns]
                values[number] = part.value(here[:4], here[4], noise)
        return np.array([sum(sign * values[n] for n, sign in terms) for terms in tiles])

    def error(self, q: ArrayLike, log_d: ArrayLike, noise: float = 0.0) -> float:
        """Bound of the error of the value.

        What the last doubling of the overlap has changed, tile by tile, or more if the one before
        did not change much more: as a rule far above the error itself. On a torus, the smoothest
        modes add what they do to the determinants of all replicates.

        Parameters
        ----------
        q, log_d, noise
            As for `value_and_slope`.

        Returns
        -------
        float
            Zero where a single window holds the grid.
        """
        maps = self._rim.pad(np.concatenate([np.asarray(q), np.asarray(log_d)[None]]))
        fine = self._tiles(maps, noise, self.overlap)
        if fine.size == 1:
            return 0.0
        middle, coarse = (self._tiles(maps, noise, self.overlap // k) for k in (2, 4))
        rho, theta = from_tensor(*maps[1:4])
        closing = seam(maps[0], rho, theta, self._wraps) * (len(self._fields) - self._lost)
        found = float(remainder(fine, middle, coarse, least=1.0)) + closing
        _LOG.info(
            "log-likelihood %.6f from windows with an overlap of %d cells, error at most %.1e",
            *(fine.sum(), self.overlap, found),
        )
        return found

    def normal_equations(
        self, q: ArrayLike, log_d: ArrayLike, design: ArrayLike, noise: float = 0.0
    ) -> tuple[Float, Float]:
        """Form the normal equations of a regression, as `ExactLikelihood.normal_equations`.

        Parameters
        ----------
        q, log_d, noise
            As for `value_and_slope`.
        design : array_like (P, ny, nx)
            Finite maps.

        Returns
        -------
        normal : ndarray (P, P)
        right : ndarray (P,)
        """
        wide = self._rim.pad(np.concatenate([np.asarray(q), np.asarray(log_d)[None]]))
        maps = self._rim.pad(np.asarray(design, dtype=np.float64), fill=0.0)
        normal, right = np.zeros((len(maps), len(maps))), np.zeros(len(maps))
        for part, (rows, columns), sign in self._windows():
            here = wide[:, rows, columns]
            one, other = part.normal_equations(here[:4], here[4], maps[:, rows, columns], noise)
            normal += sign * one
            right += sign * other
        return normal, right

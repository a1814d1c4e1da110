"""Quality control of points in space and time against the prior, before anything is solved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde.assim.observations import Observations
from xr_spde.assim.screening import check_innovations
from xr_spde.labels.grid import Grid

__all__ = ["BackgroundCheck"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BackgroundCheck:
    """Rejects observations that are too far from the prior.

    The variance of the prior at an observation is taken as that of cells that vary together, an
    upper bound which is near the truth where cells are small against correlations.

    Attributes
    ----------
    threshold : float
        Expected standard deviations that are allowed.
    grid : Grid
        Of the fields.
    land : ndarray (ny, nx) of bool
        Canonical.
    mean, std : ndarray (ny, nx)
        Of the prior, canonical.
    guess : DataArray (time, y, x) or None
        First guess in the place of the mean; read part by part where it is lazy.
    """

    threshold: float
    grid: Grid
    land: NDArray[np.bool_]
    mean: Float
    std: Float
    guess: xr.DataArray | None

    def __call__(self, found: Observations, position: Float) -> Observations:
        """Check observations.

        Parameters
        ----------
        found : Observations
            Points.
        position : ndarray (p,)
            Their times in steps of the series.

        Returns
        -------
        Observations
            Those that are left; their report says which are rejected and how far off all are.

        Raises
        ------
        ParameterError
            If all are rejected, for a threshold that is not positive, or a first guess without a
            value at observations.
        """
        rows = found.canonical().matrix
        deviation = rows @ np.where(self.land, 0.0, self.std).ravel()
        innovation = self.innovation(found, position)
        return check_innovations(found, innovation, deviation**2, threshold=self.threshold)

    def innovation(self, found: Observations, position: Float) -> Float:
        """Observed less expected values.

        Parameters
        ----------
        found : Observations
            Points.
        position : ndarray (p,)
            Their times in steps of the series.

        Returns
        -------
        ndarray (p,)
        """
        rows = found.canonical().matrix
        expected = rows @ np.where(self.land, 0.0, self.mean).ravel()
        for here, fields in self._guesses(position):
            ahead = position[here] - np.floor(position[here])
            near, far = ((rows[here] @ one.ravel()) for one in fields)
            expected[here] = near + np.where(ahead > 0.0, ahead * (far - near), 0.0)
        return found.values - np.asarray(expected)

    def _guesses(self, position: Float) -> Iterator[tuple[Any, tuple[Float, Float]]]:
        """Observations between two steps and the first guesses of both, without land."""
        if self.guess is None:
            return
        last = self.guess.shape[0] - 1
        chunks = (self.guess.chunks or ((last + 1,),))[0]
        step = np.clip(np.floor(position), 0, last).astype(np.intp)
        for start, stop in pairwise([0, *np.cumsum(chunks).tolist()]):
            used = np.unique(step[(step >= start) & (step < stop)])
            if not used.size:
                continue
            part = np.asarray(self.guess[start : stop + 1].values, dtype=np.float64)
            part = np.where(self.land, 0.0, self.grid.to_canonical(part))
            for k in used:
                pair = part[k - start], part[min(k + 1, last) - start]
                yield np.flatnonzero(step == k), pair

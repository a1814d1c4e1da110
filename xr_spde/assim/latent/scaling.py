"""Normalised numbers: what state maps see instead of values in units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.latent.layout import Layout

__all__ = ["CLIMATOLOGIES", "Scaling", "fit_scaling"]

Float = NDArray[np.float64]

CLIMATOLOGIES = ("auto", "monthly", "none")
"""What is taken off before all else: nothing, or the mean of each point in each calendar month."""

_FLAT = 1e-9
_YEARS = 3


@dataclass(frozen=True, eq=False)
class Scaling:
    """From values in units to normalised ones and back.

    Attributes
    ----------
    mean, std : ndarray (c,)
        Of the values less the climatology.
    climatology : ndarray (12, P, c) or None
        By calendar month, at the points of the training.
    """

    mean: Float
    std: Float
    climatology: Float | None = None

    def offset(
        self,
        months: NDArray[np.intp] | None,
        rows: sp.csr_array | None = None,
    ) -> Float:
        """Say what a normalised value of zero stands for.

        Parameters
        ----------
        months : ndarray of int (B,) or None
            Months, 0 to 11, of the snapshots.
        rows : csr_array (M, P), optional
            Weights of the points of the training at other ones.

        Returns
        -------
        ndarray (B or 1, M or 1, c)

        Raises
        ------
        ParameterError
            If there is a climatology and no dates.
        """
        if self.climatology is None:
            return self.mean[None, None, :]
        if months is None:
            raise ParameterError(
                "the model has a climatology by calendar month, and fields or observations "
                "without dates were given; give them a coordinate of dates along time"
            )
        used, which = np.unique(months, return_inverse=True)
        maps = self.climatology[used]
        if rows is not None:
            maps = np.stack([rows @ one for one in maps])
        return np.asarray(maps[which] + self.mean)

    def normalise(
        self,
        values: NDArray[Any],
        months: NDArray[np.intp] | None,
        rows: sp.csr_array | None = None,
    ) -> NDArray[Any]:
        """Values (B, M, c) in units to normalised ones.

        Parameters
        ----------
        values : ndarray (B, M, c)
            In units.
        months, rows
            As in `offset`.

        Returns
        -------
        ndarray (B, M, c)
            Of the same dtype.
        """
        return np.asarray((values - self.offset(months, rows)) / self.std, dtype=values.dtype)

    def restore(
        self,
        values: NDArray[Any],
        months: NDArray[np.intp] | None,
        rows: sp.csr_array | None = None,
    ) -> NDArray[Any]:
        """Normalised values (B, M, c) to values in units.

        Parameters
        ----------
        values : ndarray (B, M, c)
            Normalised.
        months, rows
            As in `offset`.

        Returns
        -------
        ndarray (B, M, c)
            Of the same dtype.
        """
        return np.asarray(values * self.std + self.offset(months, rows), dtype=values.dtype)

    def describe(self) -> dict[str, NDArray[Any]]:
        """Arrays that make it again."""
        found = {"mean": self.mean, "std": self.std}
        return found if self.climatology is None else {**found, "climatology": self.climatology}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Scaling:
        """Make it of what `describe` returned.

        Parameters
        ----------
        arrays : mapping
            As there.

        Returns
        -------
        Scaling
        """
        known = {name: np.asarray(arrays[name], np.float64) for name in arrays}
        return cls(known["mean"], known["std"], known.get("climatology"))


def fit_scaling(
    values: NDArray[Any],
    months: NDArray[np.intp] | None,
    layout: Layout,
    climatology: str,
) -> Scaling:
    """Find the climatology, means and standard deviations of a training.

    Parameters
    ----------
    values : ndarray (N, P, c)
        In units; NaN is missing.
    months : ndarray of int (N,) or None
        Months of the snapshots.
    layout : Layout
        With points that have been selected.
    climatology : {"auto", "monthly", "none"}
        "auto" is monthly where every month of the year occurs at least three times.

    Returns
    -------
    Scaling

    Raises
    ------
    ParameterError
        Variables without a value, that do not vary, or months that do not occur.
    """
    by_month = np.zeros(12, dtype=int) if months is None else np.bincount(months, minlength=12)
    if climatology == "monthly" and not by_month.all():
        raise ParameterError(
            'climatology="monthly" needs every calendar month in the training, and '
            f"{int(np.count_nonzero(by_month == 0))} of 12 do not occur; give more times, or "
            'type climatology="none"'
        )
    maps = None
    work = values
    if climatology == "monthly" or (climatology == "auto" and by_month.min() >= _YEARS):
        maps = np.stack([_mean(values[months == k], axis=0) for k in range(12)])
        work = values - maps[months]
    area = layout.area[:, None]
    mean, std = np.zeros(values.shape[2]), np.zeros(values.shape[2])
    for k, channel in enumerate(layout.channels):
        one = work[..., k].astype(np.float64)
        weight = np.where(np.isfinite(one), area[:, 0], 0.0)
        if not weight.any():
            raise ParameterError(
                f"{channel} has no value at all in the training (all are NaN, as on land); leave "
                "it out"
            )
        filled = np.where(weight > 0.0, one, 0.0)
        mean[k] = np.average(filled, weights=weight)
        std[k] = np.sqrt(np.average((filled - mean[k]) ** 2, weights=weight))
        largest = float(np.abs(filled).max()) if maps is None else float(np.nanmax(np.abs(values)))
        if std[k] <= _FLAT * max(largest, np.finfo(float).tiny):
            raise ParameterError(
                f"{channel} does not vary in the training (it is {mean[k]:g} throughout"
                f"{', once the climatology is taken off' if maps is not None else ''}); leave it "
                "out"
            )
    return Scaling(mean, std, maps)


def _mean(values: NDArray[Any], axis: int) -> Float:
    """Mean over what is not missing; NaN where nothing is."""
    seen = np.isfinite(values)
    total = np.where(seen, values, 0.0).sum(axis=axis, dtype=np.float64)
    count = seen.sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

r"""What a prediction of errors is worth, from maps of errors, spreads and scores: plain arrays.

Everything is pooled over the times and cells in which all maps have numbers, weighted by area where
that is asked for, and given day by day besides.

References
----------
Fortin, Abaza, Anctil, Turcotte (2014), J. Hydrometeorol. 15 (spread and skill); Hamill (2001), Mon.
Weather Rev. 129 (rank histograms); Delle Monache et al. (2006), J. Geophys. Res. 111 (their
flatness); Dawid (1984), J. R. Stat. Soc. A 147 (PIT); Gneiting, Raftery (2007), J. Am. Stat. Assoc.
102 (skill scores).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from xr_spde._core.errors import ParameterError
from xr_spde.assim.verification import binned_spread, gaussian_crps

__all__ = ["DAILY", "PIT_CLASSES", "SpreadSummary", "expected_correlation", "rank_test"]

Float = NDArray[np.float64]

PIT_CLASSES = 20


def rank_test(counts: Float) -> tuple[float, float, float]:
    """Test whether all ranks are alike.

    Parameters
    ----------
    counts : ndarray (N + 1,)
        Number of independent truths of every rank among N members; ties shared out.

    Returns
    -------
    chi2, p : float
        Pearson's statistic with N degrees of freedom, and the probability of a larger one.
    flatness : float
        Sum of the distances of the shares from 1 / (N + 1): 0 for a flat histogram.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.spread_summary import rank_test
    >>> rank_test(np.array([10.0, 10.0]))
    (0.0, 1.0, 0.0)
    """
    total, size = float(counts.sum()), counts.size
    if total == 0.0:
        return float("nan"), float("nan"), float("nan")
    chi2 = float(np.sum((counts - total / size) ** 2) * size / total)
    flatness = float(np.abs(counts / total - 1.0 / size).sum())
    return chi2, float(stats.chi2.sf(chi2, size - 1)), flatness


@dataclass(frozen=True)
class SpreadSummary:
    """Settings of the summary of one prediction; a callable for each leading index.

    Attributes
    ----------
    area : ndarray (ny, nx)
        Weights of the cells.
    members : int or None
        Of the ensemble, where there is one.
    estimated : bool
        Whether mean and deviation were estimated from the members; predictions then have the wider
        tails of Student's distribution, and spread the factor ``sqrt((N + 1) / N)``.
    references : tuple of str
        Of skill scores, besides "climatology" and "constant".
    climate : tuple of float or None
        Mean and deviation of the climatology; by default those of the truth.
    bins : int
        Of the spread-error curve.
    levels : tuple of float
        Of the central intervals.
    thin : tuple of int
        Every so-manyth step and cell is taken for independent, in the test of the ranks.
    """

    area: Float
    members: int | None
    estimated: bool
    references: tuple[str, ...]
    climate: tuple[float, float] | None
    bins: int
    levels: tuple[float, ...]
    thin: tuple[int, int]

    def __call__(self, *maps: Float, names: tuple[str, ...]) -> dict[str, Any]:
        """Summarise maps (nt, ny, nx).

        Parameters
        ----------
        *maps : ndarray (nt, ny, nx)
            Those of `names`.
        names : tuple of str
            "error" (mean minus truth), "variance", "crps", "truth"; with members "below" and
            "equal"; "crps_of_" and the name of each reference.

        Returns
        -------
        dict of str to float or ndarray

        Raises
        ------
        ParameterError
            If nothing can be compared.
        """
        given = dict(zip(names, maps, strict=True))
        there = np.logical_and.reduce([np.isfinite(one) for one in maps])
        if not there.any():
            raise ParameterError(
                "there is no time and cell in which the prediction, its references and the truth "
                "all have numbers"
            )
        share = np.where(there, self.area, 0.0)
        found = self._pooled(given, there, share[there] / share[there].sum())
        found |= self._days(given, there, share)
        if self.members is not None:
            found |= self._ranks(given, there, share[there] / share[there].sum())
        return found

    @property
    def _widening(self) -> float:
        if not self.estimated or self.members is None:
            return 1.0
        return float(np.sqrt((self.members + 1) / self.members))

    def _probability(self, z: Float) -> Float:
        """Distribution function of the scaled errors of a right prediction."""
        if not self.estimated or self.members is None:
            return np.asarray(special.ndtr(z))
        return np.asarray(special.stdtr(self.members - 1, z))

    def _pooled(self, given: Mapping[str, Float], there: NDArray[np.bool_], share: Float) -> Any:
        values = {name: one[there] for name, one in given.items()}
        error, spread = values["error"], np.sqrt(values["variance"]) * self._widening
        rmse, mean = float(np.sqrt(share @ error**2)), float(np.sqrt(share @ spread**2))
        with np.errstate(divide="ignore", invalid="ignore"):
            place = self._probability(np.where(error == 0.0, 0.0, -error / spread))
        kind = np.minimum((place * PIT_CLASSES).astype(np.intp), PIT_CLASSES - 1)
        curve = binned_spread(spread, error, bins=self.bins)
        return {
            "rmse": rmse,
            "bias": share @ error,
            "spread": np.sqrt(share @ values["variance"]),
            "spread_skill": mean / rmse if rmse > 0.0 else np.nan,
            "crps": share @ values["crps"],
            "crps_skill": self._skill(values, share, rmse),
            "coverage": np.array([share @ (np.abs(place - 0.5) <= 0.5 * p) for p in self.levels]),
            "pit_histogram": np.bincount(kind, share, PIT_CLASSES),
            "bin_spread": curve[0],
            "bin_rmse": curve[1],
            "bin_count": curve[2].astype(np.float64),
            "slope": _slope(curve[0], curve[1]),
        }

    def _skill(self, values: Mapping[str, Float], share: Float, rmse: float) -> Float:
        """``1 - CRPS / CRPS of a reference``."""
        truth = values["truth"]
        mean, std = self.climate or (float(share @ truth), np.nan)
        if self.climate is None:
            std = float(np.sqrt(share @ (truth - mean) ** 2))
        others = [
            gaussian_crps(truth - mean, std),
            gaussian_crps(values["error"], rmse),
            *(values[f"crps_of_{name}"] for name in self.references),
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (share @ values["crps"]) / np.array([share @ other for other in others])
        return np.asarray(1.0 - ratio)

    def _days(self, given: Mapping[str, Float], there: NDArray[np.bool_], share: Float) -> Any:
        """Scores and correlations of each step."""
        steps = len(there)
        found = {name: np.full(steps, np.nan) for name in DAILY}
        for k in range(steps):
            here = there[k]
            if not here.any():
                continue
            weight = share[k][here] / share[k][here].sum()
            error, variance = given["error"][k][here], given["variance"][k][here]
            found["day_rmse"][k] = np.sqrt(weight @ error**2)
            found["day_spread"][k] = self._widening * np.sqrt(weight @ variance)
            found["day_crps"][k] = weight @ given["crps"][k][here]
            size, spread = np.abs(error), np.sqrt(variance)
            found["correlation_pearson"][k] = _correlation(size, spread, weight)
            found["correlation_expected"][k] = expected_correlation(spread, weight)
            ranks = stats.rankdata(size), stats.rankdata(spread)
            found["correlation_spearman"][k] = _correlation(*ranks, weight)
        return found

    def _ranks(self, given: Mapping[str, Float], there: NDArray[np.bool_], share: Float) -> Any:
        steps, cells = self.thin
        few = np.zeros_like(there)
        few[::steps, ::cells, ::cells] = there[::steps, ::cells, ::cells]
        size = (self.members or 0) + 1
        chi2, p, _ = rank_test(_counts(given, few, np.ones(int(few.sum())), size))
        shares = _counts(given, there, share, size)
        return {
            "rank_histogram": shares,
            "rank_chi2": chi2,
            "rank_p": p,
            "rank_flatness": rank_test(shares)[2],
        }


def expected_correlation(spread: Float, weight: Float) -> float:
    r"""Correlation of the size of the error with the spread where the spread is right.

    Errors are Gaussian, :math:`E|e| = s \sqrt{2 / \pi}`; a spread that varies little cannot have a
    high one.

    Parameters
    ----------
    spread : ndarray (n,)
        Standard deviations.
    weight : ndarray (n,)
        Of each, with a sum of one.

    Returns
    -------
    float
        NaN of a constant spread.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.spread_summary import expected_correlation
    >>> expected_correlation(np.array([0.5, 1.5]), np.array([0.5, 0.5]))
    0.51
    """
    mean, square = weight @ spread, weight @ spread**2
    variance, size = square - mean**2, square - 2.0 / np.pi * mean**2
    if variance <= 1e-12 * square:
        return float("nan")
    return float(np.sqrt(2.0 / np.pi) * np.sqrt(variance / size))


DAILY = (
    "day_rmse",
    "day_spread",
    "day_crps",
    "correlation_pearson",
    "correlation_spearman",
    "correlation_expected",
)
"""Scores of each time."""


def _counts(
    given: Mapping[str, Float], there: NDArray[np.bool_], weight: Float, size: int
) -> Float:
    """Weights by rank, ties shared out."""
    below = given["below"][there].astype(np.intp)
    above = below + given["equal"][there].astype(np.intp) + 1
    found = np.zeros(size + 1)
    np.add.at(found, below, weight / (above - below))
    np.add.at(found, above, -weight / (above - below))
    return np.maximum(np.cumsum(found)[:-1], 0.0)


def _correlation(a: Float, b: Float, weight: Float) -> float:
    """Weighted correlation; NaN where one of them is constant."""
    a, b = a - weight @ a, b - weight @ b
    size = float(np.sqrt((weight @ a**2) * (weight @ b**2)))
    return float(weight @ (a * b)) / size if size > 0.0 else float("nan")


def _slope(spread: Float, error: Float) -> float:
    """Slope of the error by the spread over the classes: 1 where it is right."""
    known = np.isfinite(spread) & np.isfinite(error)
    x, y = spread[known], error[known]
    if x.size < 2 or np.ptp(x) <= 1e-9 * np.abs(x).max():
        return float("nan")
    return float(np.polyfit(x, y, 1)[0])

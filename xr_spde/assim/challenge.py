"""Scores of sea-surface mapping: the challenge's mu, sigma and resolved scales, and intervals.

References
----------
SSH mapping data challenge 2020a (ocean-data-challenges); Gneiting, Raftery (2007), J. Am. Stat.
Assoc. 102.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from xr_spde._core.errors import MissingDependencyError, ParameterError
from xr_spde._core.lazyimport import has_module
from xr_spde._core.provenance import provenance
from xr_spde.assim.verification import gaussian_crps
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.points import find_time

__all__ = ["challenge_scores", "interval_scores", "resolved_scales"]

Float = NDArray[np.float64]

_SCALES = ("lambda_x", "lambda_t", "least_lambda_x", "least_lambda_t")


def challenge_scores(
    reconstruction: xr.DataArray,
    reference: xr.DataArray,
    *,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Score a mapped series of fields as the SSH mapping challenge does.

    Parameters
    ----------
    reconstruction, reference : DataArray (time, Y, X)
        Maps and truth at the same times on the same grid, the mean not removed. Cells where either
        is missing do not count for mu and sigma; rows with one are left out of the spectra.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset
        ``score`` (time), one minus the ratio of the root mean square error to that of the truth;
        ``mu``, the same over all times; ``sigma``, the standard deviation of ``score``;
        ``lambda_x`` and ``lambda_t``, the resolved scales in units of x and in days, and
        ``least_lambda_x`` and ``least_lambda_t``, see `resolved_scales`.

    Raises
    ------
    ParameterError
        Other times or shapes, irregular times, or no cell in common.
    GridError, AxisNotFoundError
        Other grids, or no time.
    MissingDependencyError
        If contourpy is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim.challenge import challenge_scores
    >>> z = np.random.default_rng(0).standard_normal((12, 5, 16))
    >>> days = np.datetime64("2012-10-22", "ns") + np.arange(12) * np.timedelta64(1, "D")
    >>> coords = {"time": days, "lat": np.arange(5.0), "lon": np.arange(16.0)}
    >>> truth = xr.DataArray(z, coords, ("time", "lat", "lon"))
    >>> challenge_scores(0.9 * truth, truth).mu.item()
    0.9
    """
    grid = Grid.from_object(reference, x=x, y=y)
    own = same_grid(grid, Grid.from_object(reconstruction, x=x, y=y),
                    names=("the reference", "the reconstruction"))  # fmt: skip
    times = find_time(reference)
    dim = str(times.dims[0])
    if dim not in reconstruction.dims or not find_time(reconstruction).equals(times):
        raise ParameterError(
            f"the reconstruction and the reference have other times along {dim!r}; select the "
            "same ones"
        )
    found, truth = (
        kind.to_canonical(
            np.asarray(da.transpose(dim, kind.y_dim, kind.x_dim).values, dtype=np.float64)
        )
        for da, kind in ((reconstruction, own), (reference, grid))
    )
    error = found - truth
    there = np.isfinite(error)
    if not there.any():
        raise ParameterError("there is no cell in which both have numbers")
    square, size = (np.where(there, a, 0.0) ** 2 for a in (error, truth))
    counts = np.maximum(there.sum(axis=(1, 2)), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(square.sum(axis=(1, 2)) / counts) / np.sqrt(size.sum(axis=(1, 2)) / counts)
        mu = 1.0 - np.sqrt(square.sum() / size.sum())
    score = np.where(there.any(axis=(1, 2)), 1.0 - ratio, np.nan)
    complete = there.all(axis=(0, 2))
    scales = resolved_scales(
        found[:, complete], truth[:, complete], dt=_days(times), dx=abs(grid.dx)
    )
    result = xr.Dataset(
        {
            "score": (dim, score),
            "mu": mu,
            "sigma": float(np.nanstd(score)),
            **dict(zip(_SCALES, scales, strict=True)),
        },
        {dim: times},
    )
    _describe(result, "degrees" if grid.longitude else "1")
    return result.assign_attrs(provenance("challenge_scores"))


def _describe(result: xr.Dataset, units_x: str) -> None:
    words = {
        "score": ("one minus the relative error of a map", "1"),
        "mu": ("one minus the relative error of all maps", "1"),
        "sigma": ("standard deviation of the score over time", "1"),
        "lambda_x": ("smallest resolved wavelength in x", units_x),
        "lambda_t": ("smallest resolved period", "days"),
        "least_lambda_x": ("smallest wavelength in x on any of the contours", units_x),
        "least_lambda_t": ("smallest period on any of the contours", "days"),
    }
    for name, (text, units) in words.items():
        result[name].attrs = {"long_name": text, "units": units}


def _days(times: xr.DataArray) -> float:
    """Step of regular times in days."""
    values = times.values
    if values.dtype.kind == "M":
        numbers = (values - values[0]) / np.timedelta64(1, "D")
    else:
        numbers = np.array([(one - values[0]).total_seconds() / 86400.0 for one in values])
    steps = np.diff(numbers)
    if steps.size == 0 or not (steps > 0).all() or np.ptp(steps) > 1e-6 * steps[0]:
        raise ParameterError("the times are not regular and increasing; expected equal steps")
    return float(steps[0])


def resolved_scales(
    reconstruction: Float, reference: Float, *, dt: float, dx: float
) -> tuple[float, float, float, float]:
    """Wavelength and period at which the spectrum of the error is half that of the truth.

    Of every row the mean over time and x is removed and a Hann window applied; power spectra in
    (frequency, wave number) are averaged over rows. ``1 - P(error) / P(reference)`` is one half
    along contours in the plane of wavelengths and periods. The challenge takes the smallest of each
    on the first of them; where there are several, others may reach further.

    Parameters
    ----------
    reconstruction, reference : ndarray (nt, ny, nx)
        Without missing values.
    dt, dx : float
        Steps in time and x.

    Returns
    -------
    lambda_x, lambda_t : float
        Of the first contour. NaN where there is none, or no row.
    least_lambda_x, least_lambda_t : float
        Of all contours.

    Raises
    ------
    MissingDependencyError
        If contourpy is not installed.
    """
    if not has_module("contourpy"):
        raise MissingDependencyError(
            "resolved scales need contourpy, which is not installed; type: pip install "
            "'xr-spde[plot]'"
        )
    import contourpy

    nt, ny, nx = reference.shape
    unknown = (float("nan"),) * 4
    if ny == 0:
        return unknown
    window = np.outer(_hann(nt), _hann(nx))[:, None]

    def power(field: Float) -> Float:
        anomaly = field - field.mean(axis=(0, 2), keepdims=True)
        transformed = np.fft.fft2(anomaly * window, axes=(0, 2))
        return np.asarray((np.abs(transformed) ** 2).mean(axis=1))

    rows, columns = slice(1, (nt + 1) // 2), slice(1, (nx + 1) // 2)
    truth, error = power(reference)[rows, columns], power(reconstruction - reference)[rows, columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = 1.0 - error / truth
    wavelength = 1.0 / np.fft.fftfreq(nx, dx)[columns]
    period = 1.0 / np.fft.fftfreq(nt, dt)[rows]
    if min(score.shape) < 2:
        return unknown
    # the algorithm and the order of the paths of matplotlib's contours
    contours: Any = contourpy.contour_generator(wavelength, period, score, name="mpl2014")
    paths, _ = contours.lines(0.5)
    if not len(paths):
        return unknown
    first, whole = np.asarray(paths[0]), np.concatenate([np.asarray(path) for path in paths])
    return tuple(float(end) for part in (first, whole) for end in part.min(axis=0))  # type: ignore[return-value]


def _hann(size: int) -> Float:
    """Periodic Hann window."""
    return np.asarray(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size))


def interval_scores(
    mean: Float, std: Float, truth: Float, *, levels: tuple[float, ...] = (0.5, 0.9, 0.95)
) -> dict[str, float]:
    """Score Gaussian predictions, such as those of a withheld mission along its track.

    Parameters
    ----------
    mean, std : ndarray
        Predicted; where the truth has errors of its own, with their variance.
    truth : ndarray
        Of the same shape; entries with NaN in any of the three do not count.
    levels : tuple of float
        Of the central intervals.

    Returns
    -------
    dict of str to float
        ``count``, ``rmse``, ``bias``, ``spread_skill``, ``crps`` and ``coverage_50``, ..., the
        share of truths within each interval.

    Raises
    ------
    ParameterError
        If nothing can be compared, a std is not positive, or a level is outside (0, 1).
    """
    there = np.isfinite(mean) & np.isfinite(std) & np.isfinite(truth)
    if not there.any() or not (std[there] > 0.0).all() or not all(0 < p < 1 for p in levels):
        raise ParameterError(
            f"{int(there.sum())} predictions can be compared, std is positive for "
            f"{int((std[there] > 0.0).sum())} of them, levels={levels}; expected some, all, and "
            "levels within (0, 1)"
        )
    z = (truth[there] - mean[there]) / std[there]
    error, spread = truth[there] - mean[there], std[there]
    rmse = float(np.sqrt(np.mean(error**2)))
    found = {
        "count": float(there.sum()),
        "rmse": rmse,
        "bias": -float(error.mean()),
        "spread_skill": float(np.sqrt(np.mean(spread**2))) / rmse if rmse > 0.0 else float("nan"),
        "crps": float(gaussian_crps(error, spread).mean()),
    }
    for level in levels:
        share = np.mean(np.abs(z) <= ndtri(0.5 + 0.5 * level))
        found[f"coverage_{round(100 * level)}"] = float(share)
    return found

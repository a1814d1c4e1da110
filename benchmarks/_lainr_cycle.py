"""Optimal interpolation about a forecast: what a model knows of time, and no truncation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from _lainr_real import RADIUS, Prior, Series, variances

from xr_spde.assim.localization import gaspari_cohn

Forecast = Callable[[xr.Dataset, int], xr.Dataset]
"""From an analysis (one time) and the number of the time to forecast, to fields of that time."""

FACTORS = np.geomspace(0.05, 3.0, 60)


def cycle(
    series: Series, observed: xr.Dataset, forecast: Forecast | None = None
) -> tuple[xr.Dataset, xr.Dataset]:
    """Analyses of all times, each about the forecast from the one before.

    Errors of forecasts have the tapered covariance of the training times a factor, the likeliest
    for the observations of the time itself. Nothing else is chosen, and no truth is used.

    Parameters
    ----------
    series, observed
        As `interpolation` takes them.
    forecast : callable, optional
        By default the climatology.
    """
    reach, prior = series.reach, Prior(series)
    places = prior.vectors().astype(np.float32)
    noise = np.repeat([series.noise[str(k)] ** 2 for k in series.held], len(places))
    means, stds = [], []
    latest = series.train.isel(time=[-1])
    for k, values in enumerate(prior.columns(observed.transpose("time", "lat", "lon"))):
        mean, anomalies = prior.at(k)
        if forecast is not None:
            mean = prior.columns(forecast(latest, k).transpose("time", "lat", "lon"))[0]
        fields = anomalies.astype(np.float32)
        seen = np.flatnonzero(np.isfinite(values))
        cosine = places @ places[seen % len(places)].T
        taper = gaspari_cohn(RADIUS * np.arccos(np.clip(cosine, -1.0, 1.0)), reach).astype(
            np.float32
        )
        cross = fields.T @ (fields[:, seen] / np.float32(len(fields)))
        cross *= np.tile(taper, (len(cross) // len(places), 1))
        root = np.sqrt(noise[seen])
        size, basis = np.linalg.eigh(cross[seen].astype(np.float64) / root[:, None] / root)
        size, basis = np.maximum(size, 0.0), basis / root[:, None]
        innovation = basis.T @ (values - mean)[seen]
        factor = likeliest(size, innovation)
        gain = np.float32(factor) * (cross @ basis.astype(np.float32))
        total = 1.0 + factor * size
        means.append(mean + gain @ (innovation / total))
        least = 1e-4 * variances(anomalies)
        left = factor * 1e4 * least - (gain**2 / total).sum(axis=1)
        stds.append(np.sqrt(np.maximum(left, least)))
        latest = prior.labelled(means[-1][None].repeat(observed.sizes["time"], axis=0))
        latest = latest.isel(time=[k])
    return prior.labelled(np.stack(means)), prior.labelled(np.stack(stds))


def likeliest(size: np.ndarray, innovation: np.ndarray) -> float:
    """Factor on a covariance with eigenvalues `size`, in units of the noise."""
    total = 1.0 + FACTORS[:, None] * size
    return float(FACTORS[np.argmin((np.log(total) + innovation**2 / total).sum(axis=1))])


def damped(series: Series) -> Forecast:
    """Anomalies that persist as far as they did in the training, all cells alike."""
    prior = Prior(series)
    before, after = prior.anomalies[:-1], prior.anomalies[1:]
    share = float((before * after).sum() / (before**2).sum())

    def forecast(latest: xr.Dataset, k: int) -> xr.Dataset:
        month = int(latest.time.dt.month[0])
        row = prior.columns(latest.transpose("time", "lat", "lon"))[0] - prior.means[month]
        return prior.labelled((prior.at(k)[0] + share * row)[None].repeat(
            series.held.sizes["time"], axis=0)).isel(time=[k])  # fmt: skip

    return forecast

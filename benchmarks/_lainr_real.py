"""Real series to fit latent models to and to score them on: sea surface, winds, an ensemble.

Each set is split by years; of the held-out fields a share of the cells is observed with noise,
drawn by area and anew for every time. `climatology` and `interpolation` are what a model has to
beat, on the same observations; `compare` scores any others beside them. A method takes the series
and the observations and returns two Datasets laid out as `series.held`: mean and standard
deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scoringrules
import xarray as xr
from scipy.linalg import cholesky, solve_triangular

import xr_spde
from xr_spde.assim.localization import gaspari_cohn
from xr_spde.datasets import local_path

Method = Callable[["Series", xr.Dataset], tuple[xr.Dataset, xr.Dataset]]

RADIUS = 6371.0
REACHES = (500.0, 1000.0, 2000.0, 4000.0, 8000.0)
"""Distances in km beyond which sample covariances are taken as chance; the choice is made on the
last quarter of the training."""


@dataclass(frozen=True)
class Series:
    """A series to learn from and one to score on, (time, lat, lon) or for an ensemble as well.

    Attributes
    ----------
    name : str
        What it is.
    train, held : Dataset
        Missing: land. An ensemble is learned from by its dimension "number" instead of by time.
    noise : mapping
        Standard deviation of the errors of observation, by variable, in its units.
    """

    name: str
    train: xr.Dataset
    held: xr.Dataset
    noise: Mapping[str, float]

    @property
    def replicates(self) -> str:
        """Dimension along which fields are learned from."""
        return "number" if "number" in self.train.dims else "time"

    @property
    def usable(self) -> xr.DataArray:
        """Cells (lat, lon) that are never missing in the training."""
        dims = [dim for dim in self.train.dims if dim not in ("lat", "lon")]
        return self.train.notnull().to_array().all(["variable", *dims])

    @cached_property
    def reach(self) -> float:
        """Distance of the taper in km, as `best_reach` chooses it."""
        return best_reach(self)

    @property
    def weights(self) -> xr.DataArray:
        """Shares of the area (lat, lon), zero on land; they sum to one."""
        area = np.cos(np.radians(self.train.lat)).clip(0.0) * self.usable
        return area / area.sum()


def sst() -> Series:
    """Monthly sea surface temperature: 2010 to 2017 against 2018 to August 2020."""
    ds = xr_spde.open_dataset("ersstv5_monthly")[["sst"]].load().sortby("lat")
    split = (ds.sel(time=part) for part in (slice("2010", "2017"), slice("2018", "2020")))
    return Series("ERSSTv5, monthly, 2 degrees", *split, {"sst": 0.3})


def winds() -> Series:
    """Monthly surface winds: 1982 to 1987 against 1988 and 1989."""
    ds = xr_spde.open_dataset("navy_winds")[["u", "v"]].load()
    split = (ds.sel(time=part) for part in (slice("1982", "1987"), slice("1988", "1989")))
    return Series("FNMOC surface winds, monthly, 2.5 degrees", *split, {"u": 0.5, "v": 0.5})


def long_sst() -> Series:
    """Sixty years of monthly sea surface temperature: 1950 to 1999 against 2000 to 2009."""
    ds = xr.open_dataset(local_path("cobe_sst_monthly_1950_2009_2deg.nc"))[["sst"]].load()
    split = (ds.sel(time=part) for part in (slice("1950", "1999"), slice("2000", "2009")))
    return Series("COBE-SST2, monthly, 2 degrees", *split, {"sst": 0.3})


def members(truth: int = 9) -> Series:
    """ERA5 z500 and t850: nine members, of which the tenth is taken as the truth.

    The errors of observation are half the spread of the members, which agree closely.
    """
    ds = xr.open_dataset(local_path("era5_eda_z_t_500_850_201701.nc")).load()
    ds = xr.Dataset(
        {"z500": ds.z.sel(level=500, drop=True), "t850": ds.t.sel(level=850, drop=True)}
    )
    ds = ds.rename(latitude="lat", longitude="lon")
    train, held = ds.sel(number=ds.number != truth), ds.sel(number=truth, drop=True)
    area = np.cos(np.radians(ds.lat)).clip(0.0)
    spread = np.sqrt(train.var("number", ddof=1).weighted(area).mean())
    return Series("ERA5 members", train, held, {str(k): 0.5 * float(v) for k, v in spread.items()})


def observe(series: Series, share: float = 0.05, seed: int = 0) -> xr.Dataset:
    """Observations as fields: missing where nothing is observed, else truth plus noise."""
    rng = np.random.default_rng(seed)
    held = series.held.transpose("time", "lat", "lon")
    chance = series.weights.transpose("lat", "lon").values.ravel()
    count = round(share * int((chance > 0.0).sum()))
    seen = np.zeros((held.sizes["time"], chance.size), dtype=bool)
    for row in seen:
        row[rng.choice(chance.size, count, replace=False, p=chance)] = True
    result = held.where(xr.DataArray(seen.reshape(*held.sizes.values()), dims=held.dims))
    for name, std in series.noise.items():
        result[name] = result[name] + std * rng.standard_normal(result[name].shape)
    return result


class Prior:
    """What the training says of a field before it is observed: a mean and anomalies about it.

    In a series the mean is that of the calendar month and the anomalies of all months are alike; in
    an ensemble both are of the same time. Variances are those of a new field about an estimated
    mean, and nowhere below a ten-thousandth of their mean (under ice nothing varies).
    """

    def __init__(self, series: Series) -> None:
        self.series = series
        self.cells = np.flatnonzero(series.weights.transpose("lat", "lon").values)
        if series.replicates == "time":
            fields, months = self.columns(series.train), series.train.time.dt.month.values
            self.means = {m: fields[months == m].mean(axis=0) for m in np.unique(months)}
            self.anomalies = fields - np.stack([self.means[m] for m in months])
            years = len(fields) / len(self.means)
            self.anomalies *= np.sqrt((1.0 + 1.0 / years) / (1.0 - 1.0 / years))

    def columns(self, ds: xr.Dataset) -> np.ndarray:
        """Values (fields, variables x cells) that are not land."""
        stacked = ds.to_array().transpose(..., "variable", "lat", "lon").values
        flat = stacked.reshape(*stacked.shape[:-2], -1)[..., self.cells]
        return flat.reshape(*flat.shape[:-2], -1).astype(np.float64)

    def at(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n,) and anomalies (count, n) for a time of the held-out fields."""
        if self.series.replicates == "time":
            return self.means[int(self.series.held.time.dt.month[time])], self.anomalies
        fields = self.columns(self.series.train.isel(time=time).transpose("number", ...))
        mean, count = fields.mean(axis=0), len(fields)
        return mean, (fields - mean) * np.sqrt((1.0 + 1.0 / count) / (1.0 - 1.0 / count))

    def labelled(self, rows: np.ndarray) -> xr.Dataset:
        """Give rows (times, variables x cells) the labels of the held-out fields."""
        held = self.series.held.transpose("time", "lat", "lon")
        names = list(held.data_vars)
        full = np.full((len(rows), len(names), held.sizes["lat"] * held.sizes["lon"]), np.nan)
        full[..., self.cells] = rows.reshape(len(rows), len(names), -1)
        shape = (len(rows), held.sizes["lat"], held.sizes["lon"])
        return xr.Dataset(
            {name: (held.dims, full[:, k].reshape(shape)) for k, name in enumerate(names)},
            held.coords,
        )

    def vectors(self) -> np.ndarray:
        """Points of the unit sphere (cells, 3)."""
        held = self.series.held
        lat, lon = np.meshgrid(np.radians(held.lat), np.radians(held.lon), indexing="ij")
        flat = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
        return np.stack([part.ravel()[self.cells] for part in flat], axis=-1)


def variances(anomalies: np.ndarray) -> np.ndarray:
    """Variances (n,) of anomalies (count, n), above their floor."""
    found = (anomalies**2).mean(axis=0)
    return np.maximum(found, 1e-4 * found.mean())


def climatology(series: Series, observed: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Mean and spread of the training; observations are not used."""
    del observed
    prior = Prior(series)
    found = [prior.at(k) for k in range(series.held.sizes["time"])]
    std = np.stack([np.sqrt(variances(anomalies)) for _, anomalies in found])
    return prior.labelled(np.stack([mean for mean, _ in found])), prior.labelled(std)


def interpolation(
    series: Series, observed: xr.Dataset, reach: float | None = None
) -> tuple[xr.Dataset, xr.Dataset]:
    """Optimal interpolation with the tapered covariance of the training; no dynamics.

    Parameters
    ----------
    series, observed
        As `observe` gives them.
    reach : float, optional
        Where the taper ends, in km; by default the best of `REACHES` on the training.
    """
    reach = series.reach if reach is None else reach
    prior = Prior(series)
    places = prior.vectors()
    noise = np.repeat([series.noise[str(k)] ** 2 for k in series.held], len(places))
    means, stds = [], []
    for k, values in enumerate(prior.columns(observed.transpose("time", "lat", "lon"))):
        mean, anomalies = prior.at(k)
        seen = np.flatnonzero(np.isfinite(values))
        cosine = places @ places[seen % len(places)].T
        taper = gaspari_cohn(RADIUS * np.arccos(np.clip(cosine, -1.0, 1.0)), reach)
        cross = anomalies.T @ (anomalies[:, seen] / len(anomalies))
        cross *= np.tile(taper, (len(cross) // len(places), 1))
        root = cholesky(cross[seen] + np.diag(noise[seen]), lower=True)
        innovation = solve_triangular(root, (values - mean)[seen], lower=True)
        gain = solve_triangular(root, cross.T, lower=True, overwrite_b=True)
        means.append(mean + innovation @ gain)
        least = 1e-4 * variances(anomalies)
        stds.append(np.sqrt(np.maximum(1e4 * least - (gain**2).sum(axis=0), least)))
    return prior.labelled(np.stack(means)), prior.labelled(np.stack(stds))


def best_reach(series: Series) -> float:
    """Distance of the taper with the least error on what is left out of the training."""
    if series.replicates == "time":
        start = 12 * (series.train.sizes["time"] * 3 // 48)
        inner = (
            series.train.isel(time=slice(start)),
            series.train.isel(time=slice(start, None, 5)),
        )
    else:
        inner = (series.train.isel(number=slice(1, None)), series.train.isel(number=0, drop=True))
    part = Series(series.name, *inner, series.noise)
    observed = observe(part, seed=1)
    errors = []
    for reach in REACHES:
        mean, std = interpolation(part, observed, reach)
        errors.append(
            sum(one["crps"] / series.noise[k] for k, one in scores(part, mean, std).items())
        )
    return REACHES[int(np.argmin(errors))]


def scores(series: Series, mean: xr.Dataset, std: xr.Dataset) -> dict[str, dict[str, float]]:
    """Errors over area and time by variable: RMSE, CRPS, and spread over error.

    Fields that are given as normal distributions; the truth is free of noise.
    """
    weights = series.weights
    found = {}
    for name, truth in series.held.items():
        m, s = (part[name].transpose(*truth.dims) for part in (mean, std))
        crps = xr.zeros_like(truth).copy(data=scoringrules.crps_normal(truth.values, m, s))
        rmse = float(np.sqrt(((m - truth) ** 2).weighted(weights).mean()))
        spread = float(np.sqrt((s**2).weighted(weights).mean()))
        found[str(name)] = {"rmse": rmse, "crps": float(crps.weighted(weights).mean()),
                            "spread_skill": spread / rmse}  # fmt: skip
    return found


BASELINES: Mapping[str, Method] = {"climatology": climatology, "OI": interpolation}


def compare(
    series: Series, methods: Mapping[str, Method] | None = None, share: float = 0.05, seed: int = 0
) -> list[list[object]]:
    """Rows of a table: method, variable, RMSE, CRPS, spread over error; the baselines first."""
    observed = observe(series, share, seed)
    rows: list[list[object]] = []
    for label, method in {**BASELINES, **(methods or {})}.items():
        for name, one in scores(series, *method(series, observed)).items():
            rows.append([label, name, one["rmse"], one["crps"], one["spread_skill"]])
    return rows

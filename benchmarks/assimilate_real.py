"""Observations into real ensembles, scored on what was withheld.

    OMP_NUM_THREADS=1 python benchmarks/assimilate_real.py [--quick]

Weather: of 51 members of an ECMWF ensemble one plays the truth. It is seen at 2000 places with
errors, the other 50 are analysed, and scored on it everywhere. Sea level: an ensemble is emulated
from maps of the Mediterranean in spring 2005, analysed with the tracks of two altimeters in May
2014, and scored on those of the third. Needs the files of tracks and maps in
``XR_SPDE_DATA_DIR``; the weather is in the package. Of the sea level the script also draws
``docs/_static/sea_level.png``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import xarray as xr

import xr_spde
from xr_spde.assim import score
from xr_spde.datasets import local_path
from xr_spde.errors import DataUnavailableError

PICTURE = Path(__file__).parents[1] / "docs" / "_static" / "sea_level.png"
HEADER = ["RMSE", "spread", "spread over error", "CRPS", "CPU s"]
WEATHER_ERROR = 80.0  # m2 s-2, some 8 m of height
LEVEL_ERROR = 0.03  # m: the altimeter's, and what 20 days and cells of 12 km blur

WEATHER: dict[str, dict[str, Any]] = {
    "letkf": {"method": "letkf"},
    "etkf": {"method": "etkf"},
    "denkf": {"method": "denkf"},
    "enkf": {"method": "enkf", "seed": 0},
    "serial": {"method": "serial"},
}


def timed(work: Callable[..., Any], *given: Any, **settings: Any) -> tuple[Any, float]:
    """Return a result and the CPU seconds that it took."""
    begun = time.process_time()
    found = work(*given, **settings)
    return found, time.process_time() - begun


def figures(scored: xr.Dataset, seconds: float) -> list[float]:
    """Figures of one row."""
    names = ("rmse", "spread", "spread_skill", "crps")
    return [*(float(scored[name]) for name in names), seconds]


def pseudo_observations(truth: xr.DataArray, count: int, seed: int) -> xr.DataArray:
    """Bilinear values of a field at random places, with errors."""
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform(20, 65, count), rng.uniform(-50, 20, count)
    at = {"latitude": xr.DataArray(lat, dims="obs"), "longitude": xr.DataArray(lon, dims="obs")}
    values = truth.interp(at).values + WEATHER_ERROR * rng.standard_normal(count)
    return xr.DataArray(values, {k: ("obs", v.values) for k, v in at.items()}, "obs", name="z")


def weather(hidden: list[int], count: int) -> str:
    """Table of the weather: means over the members that play the truth."""
    z = xr_spde.open_dataset("ecmwf_ensemble").z.load()
    rows: dict[str, list[list[float]]] = {}
    for number in hidden:
        truth, ensemble = z.isel(number=number), z.drop_isel(number=[number])
        obs = pseudo_observations(truth, count, number)
        rows.setdefault("before", []).append(figures(score(ensemble, truth), np.nan))
        for name, settings in WEATHER.items():
            post, seconds = timed(
                ensemble.assim.assimilate, obs, obs_error=WEATHER_ERROR, **settings
            )
            rows.setdefault(name, []).append(figures(score(post, truth), seconds))
        params, first = timed(ensemble.sar.estimate, dim="number")
        post, seconds = timed(params.assim.assimilate, obs, obs_error=WEATHER_ERROR)
        rows.setdefault("parameters, exact", []).append(
            figures(score(post, truth), first + seconds)
        )
    means = {name: np.mean(values, axis=0) for name, values in rows.items()}
    cells = [[n, *(None if np.isnan(v) else float(v) for v in row)] for n, row in means.items()]
    return (
        f"## A hidden member of a weather ensemble\n\n{count} observations with errors of "
        f"{WEATHER_ERROR:g} m2 s-2, 50 members, means over {len(hidden)} members that play the "
        "truth in turn. Localisation is that which the LETKF finds. Exact conditioning of the "
        "field of estimated parameters includes the estimate in its time.\n\n"
        f"{_machine.table(['500 hPa geopotential, m2 s-2', *HEADER], cells)}"
    )


def prior() -> xr.Dataset:
    """Parameters of sea level from 61 daily maps, about the mean dynamic topography."""
    maps = xr_spde.open_dataset("mediterranean_adt").adt.load()
    params = maps.sar.estimate(dim="time")
    day = xr_spde.open_dataset("mediterranean_adt_sla").isel(time=0).load()
    return params.assign(mean=(day.adt - day.sla).where(params["mean"].notnull()))


def widened(params: xr.Dataset, tracks: xr.DataArray) -> tuple[xr.Dataset, float]:
    """Shift the mean to the tracks, and widen the spread to what their innovations say."""
    first = params.sar.emulate(20, seed=0).assim.assimilate(
        tracks, obs_error=LEVEL_ERROR, method="etkf", unusable="drop"
    )
    shift = float(first.innovation_mean)
    spread = float(first.innovation_expected_rms) ** 2 - LEVEL_ERROR**2
    seen = float(first.innovation_rms) ** 2 - shift**2 - LEVEL_ERROR**2
    factor = max(1.0, (seen / spread) ** 0.5)
    wider = {name: params[name] * factor for name in ("std", "patterns")}
    return params.assign(mean=params["mean"] + shift, **wider), factor


def draws(params: xr.Dataset, size: int) -> xr.DataArray:
    """Draw members."""
    return params.sar.emulate(size, seed=1).compute()


def sea_level(size: int, missions: list[str]) -> str:
    """Table of the sea level, one altimeter withheld after the other."""
    tracks = xr.open_dataset(local_path("med_adt_alongtrack_20140515_20140603.nc")).load()
    names = tracks.mission.attrs["flag_meanings"].split()
    known, cells = prior(), []
    for mission in missions:
        held = tracks.mission == names.index(mission)
        seen, withheld = tracks.adt[~held], tracks.adt[held]
        params, factor = widened(known, seen)
        ensemble, emulating = timed(draws, params, size)
        rows = {"before": (score(ensemble, withheld), emulating)}
        settings = {"obs_error": LEVEL_ERROR, "unusable": "drop"}
        post, seconds = timed(ensemble.assim.assimilate, seen, **settings)
        rows[f"letkf, {float(post.localization) / 1e3:.0f} km"] = score(post, withheld), seconds
        exact, seconds = timed(params.assim.assimilate, seen, **settings)
        rows["parameters, exact"] = score(exact, withheld), seconds
        cells += [
            [mission, name, factor, *(100 * v for v in row[:2]), row[2], 100 * row[3], row[4]]
            for name, row in ((n, figures(s, t)) for n, (s, t) in rows.items())
        ]
        if mission == missions[0]:
            draw(post)
    header = ["withheld", "analysis", "prior widened by", *HEADER]
    header = [f"{h}, cm" if h in ("RMSE", "spread", "CRPS") else h for h in header]
    return (
        f"## Sea level along withheld tracks\n\n{size} members emulated from the parameters of 61 "
        "daily maps of 2005, about the mean dynamic topography; the mean is shifted and the "
        "spread widened by what the innovations of the other two altimeters say. All of 15 May to "
        f"3 June 2014 is one time, and the errors are {100 * LEVEL_ERROR:g} cm. RMSE and CRPS "
        "include errors of the withheld altimeter, the spread does not.\n\n"
        f"{_machine.table(header, cells)}"
    )


def draw(post: xr.Dataset) -> None:
    """Draw mean, increment and spread of the sea level."""
    figure = post.assim.plot.increments(figsize=(11.0, 2.6))
    figure.savefig(PICTURE, dpi=110, bbox_inches="tight")


def main() -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the weather once, printed only")
    quick = parser.parse_args().quick
    keep = not quick
    parts = [_machine.machine(), weather([0] if quick else [0, 12, 25, 38, 50], 2000)]
    if not quick:
        try:
            parts.append(sea_level(100, ["cryosat2", "saral_altika", "hy2a"]))
        except DataUnavailableError as error:  # half a table would replace the whole one
            keep = False
            parts.append(f"Sea level is left out: {error}")
    _machine.write(
        "assimilate_real",
        "Observations into real ensembles",
        "OMP_NUM_THREADS=1 python benchmarks/assimilate_real.py",
        "\n\n".join(parts),
        keep=keep,
    )


if __name__ == "__main__":
    main()

"""What the experiments with simulated altimeters share."""

from __future__ import annotations

import numpy as np
import xarray as xr

NADIRS = ("topex", "jason", "gfo", "envisat")
NOISE = {**dict.fromkeys(NADIRS, 0.025), "swot": 0.01}
DATA = {"four nadirs": NADIRS, "four nadirs + swath": (*NADIRS, "swot")}


def averaged(tracks: xr.Dataset, cell: float) -> xr.Dataset:
    """Average every pass over cells; the error is that of the mean of independent ones.

    Parameters
    ----------
    tracks : Dataset (obs)
        As `simulate_tracks` returns it.
    cell : float
        Degrees.

    Returns
    -------
    Dataset (obs)
        The variable and its ``*_error`` at mean times and places.
    """
    name = next(str(k) for k in tracks.data_vars if f"{k}_error" in tracks)
    cells = np.stack([tracks.mission, tracks.track, np.floor(tracks.latitude / cell),
                      np.floor(tracks.longitude / cell)])  # fmt: skip
    _, group, count = np.unique(cells, axis=1, return_inverse=True, return_counts=True)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, weights=values) / count

    start = tracks.time.values.min()
    seconds = mean((tracks.time.values - start) / np.timedelta64(1, "s"))
    when = start + np.round(1e9 * seconds).astype("timedelta64[ns]")
    places = {"time": ("obs", when), "latitude": ("obs", mean(tracks.latitude.values)),
              "longitude": ("obs", mean(tracks.longitude.values))}  # fmt: skip
    error = mean(tracks[f"{name}_error"].values) / np.sqrt(count)
    return xr.Dataset(
        {name: ("obs", mean(tracks[name].values)), f"{name}_error": ("obs", error)}, places
    )

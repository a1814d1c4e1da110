"""Files of the SSH mapping challenge 2020a (NATL60, Gulf Stream), as truth and tracks.

References
----------
SSH mapping data challenge 2020a, doi 10.24400/527896/a01-2020.002; Ajayi et al. (2020), J. Geophys.
Res. Oceans 125, doi 10.1029/2019JC015827.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xr_spde._core.errors import DataUnavailableError, ParameterError, SchemaError, unknown
from xr_spde.datasets.samples import netcdf_engine

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["CHALLENGE_BOX", "CHALLENGE_MISSIONS", "CHALLENGE_PERIODS", "open_ssh_challenge"]

CHALLENGE_MISSIONS: Final[Mapping[str, str]] = {
    "topex": "2020a_SSH_mapping_NATL60_topex-poseidon_interleaved.nc",
    "jason": "2020a_SSH_mapping_NATL60_jason1.nc",
    "gfo": "2020a_SSH_mapping_NATL60_geosat2.nc",
    "envisat": "2020a_SSH_mapping_NATL60_envisat.nc",
    "swot_nadir": "2020a_SSH_mapping_NATL60_nadir_swot.nc",
    "swot": "2020a_SSH_mapping_NATL60_karin_swot.nc",
}
"""Files of observations by mission; "swot" is the swath. The first four are "4 nadirs"."""

CHALLENGE_PERIODS: Final[Mapping[str, tuple[str, str]]] = {
    "spin_up": ("2012-10-01", "2012-10-21"),
    "evaluation": ("2012-10-22", "2012-12-02"),
    "training": ("2013-01-02", "2013-09-30"),
}
"""First and last days: of observations that may be used in front, of the scores (42 days), and of
the truth that may be learned from. What lies between the last two must not be used at all."""

CHALLENGE_BOX: Final[Mapping[str, tuple[float, float]]] = {
    "lat": (33.0, 43.0), "lon": (-65.0, -55.0)
}  # fmt: skip
"""Degrees within which maps are scored; scores are those of `xr_spde.assim.challenge`."""

_REFERENCE = re.compile(r"NATL60-CJM165_GULFSTREAM_y(\d{4})m(\d{2})d(\d{2})\.1h_SSH\.nc")
_WHERE = (
    "the data come, after registration, from the AVISO+ pages of the ocean data challenges "
    "(doi 10.24400/527896/a01-2020.002), as dc_obs.tar.gz and dc_ref.tar.gz; unpack both there"
)
_PASS_SECONDS = 60.0
"""A longer silence of a satellite begins a new pass."""


def open_ssh_challenge(
    folder: str | os.PathLike[str],
    *,
    missions: Sequence[str] = ("topex", "jason", "gfo", "envisat"),
    period: tuple[str, str] | None = None,
    truth: bool = True,
    daily: bool = True,
    variable: str = "ssh_model",
    obs_error: float = 0.02,
) -> xr.DataTree:
    """Open the files of the SSH mapping challenge 2020a, lazily.

    The folder is the one into which the two archives were unpacked::

        dc_obs/2020a_SSH_mapping_NATL60_jason1.nc     and the others of CHALLENGE_MISSIONS
        dc_ref/NATL60-CJM165_GULFSTREAM_y2012m10d01.1h_SSH.nc          and so on, a file a day

    Parameters
    ----------
    folder : path
        Holds ``dc_obs`` and ``dc_ref``.
    missions : sequence of str
        Names of :data:`CHALLENGE_MISSIONS`; the four nadirs by default, with ``"swot"`` (and
        ``"swot_nadir"``) for the second part of the challenge.
    period : (str, str), optional
        First and last day, such as ``CHALLENGE_PERIODS["evaluation"]``; all there is otherwise.
        Other files of the reference are not opened.
    truth : bool, default True
        Whether the reference is wanted.
    daily : bool, default True
        Means over days, stamped at noon, which is what the challenge scores; else every hour.
    variable : str, default "ssh_model"
        Of the observations: the one without errors that the challenge uses, or ``"ssh_obs"``.
    obs_error : float, default 0.02
        Standard deviation in m that is attached as that of the errors, for the analysis.

    Returns
    -------
    DataTree
        ``truth/ssh`` (time, lat, lon) in m, and ``tracks``, a Dataset (obs) with ``ssh``,
        ``ssh_error``, ``mission``, ``track``, times, latitudes and longitudes, as
        `simulate_tracks` makes them; swaths are flattened and NaN is missing. Longitudes are
        within [-180, 180). Values are dask arrays.

    Raises
    ------
    DataUnavailableError
        Files are missing; the message says which, and where the data are to be had.
    SchemaError
        A file is laid out otherwise.
    UnknownNameError
        An unknown mission.
    ParameterError
        No mission, an obs_error that is not positive, or an impossible period.

    Notes
    -----
    No package registry hosts the data, and nothing is downloaded. The analysis at noons wants
    ``unusable="drop"`` for the observations of the first and the last half day.

    Examples
    --------
    >>> import xr_spde
    >>> xr_spde.datasets.open_ssh_challenge("/no/such/folder")
    Traceback (most recent call last):
      ...
    xr_spde._core.errors.DataUnavailableError: /no/such/folder is no folder; ...
    """
    import xarray as xr

    base = Path(folder).expanduser()
    if not base.is_dir():
        raise DataUnavailableError(f"{base} is no folder; {_WHERE}")
    names = [missions] if isinstance(missions, str) else list(missions)
    for name in names:
        if name not in CHALLENGE_MISSIONS:
            raise unknown("mission", name, CHALLENGE_MISSIONS)
    if not names or not (math.isfinite(obs_error) and obs_error > 0.0):
        raise ParameterError(
            f"missions={missions!r}, obs_error={obs_error!r}; expected one mission at least, and a "
            "standard deviation > 0"
        )
    days = None if period is None else _days(period)
    parts = {"tracks": _tracks(base, names, days, variable, obs_error)}
    if truth:
        parts["truth"] = _truth(base, days, daily)
    tree: xr.DataTree = xr.DataTree.from_dict(parts)
    return tree


def _days(period: tuple[str, str]) -> NDArray[np.datetime64]:
    import numpy as np

    try:
        found = np.array(period, dtype="datetime64[D]")
    except ValueError as error:
        raise ParameterError(f"period={period!r}; expected two days such as 2012-10-22") from error
    if found.shape != (2,) or not found[0] <= found[1]:
        raise ParameterError(f"period={period!r}; expected a first and a last day in that order")
    return found


def _truth(base: Path, days: NDArray[np.datetime64] | None, daily: bool) -> xr.Dataset:
    import numpy as np
    import xarray as xr

    inside = base / "dc_ref"
    there = {path.name: path for path in sorted(inside.glob("*.nc"))} if inside.is_dir() else {}
    files = []
    for name, path in there.items():
        match = _REFERENCE.fullmatch(name)
        if match is None:
            continue
        day = np.datetime64("-".join(match.groups()), "D")
        if days is None or days[0] <= day <= days[1]:
            files.append(path)
    if not files:
        raise DataUnavailableError(
            f"no file NATL60-CJM165_GULFSTREAM_y****m**d**.1h_SSH.nc"
            f"{'' if days is None else f' of {days[0]} to {days[1]}'} in {inside} (there: "
            f"{_some(there)}); {_WHERE}; or ask with truth=False for the tracks alone"
        )
    for path in files[:1]:
        with xr.open_dataset(path, engine=netcdf_engine(path)) as first:
            _check_layout(first, path, {"sossheig": ("time", "lat", "lon")})
    joined = xr.open_mfdataset(
        [str(path) for path in files], engine=netcdf_engine(files[0]), combine="nested",
        concat_dim="time", preprocess=_day_mean if daily else None, data_vars="minimal",
        coords="minimal", compat="override", join="override",
    )  # fmt: skip
    ssh = joined["sossheig"].reset_coords(drop=True)
    ssh = ssh.assign_coords(lon=(ssh["lon"] + 180.0) % 360.0 - 180.0)
    ssh.attrs = {"units": "m", "standard_name": "sea_surface_height_above_geoid",
                 "long_name": "sea surface height of NATL60-CJM165"}  # fmt: skip
    _name_axes(ssh)
    return xr.Dataset({"ssh": ssh})


def _day_mean(hours: xr.Dataset) -> xr.Dataset:
    """Mean of the hours of a file, stamped at noon."""
    import numpy as np

    noon = hours["time"].values[:1].astype("datetime64[D]") + np.timedelta64(12, "h")
    mean = hours[["sossheig"]].mean("time", keep_attrs=True)
    return mean.expand_dims(time=noon.astype("datetime64[ns]"))


def _name_axes(ssh: xr.DataArray) -> None:
    for name, standard, units in (("lat", "latitude", "degrees_north"),
                                  ("lon", "longitude", "degrees_east")):  # fmt: skip
        ssh[name].attrs = {"standard_name": standard, "units": units}
    ssh["time"].attrs = {"standard_name": "time"}


def _tracks(
    base: Path, names: Sequence[str], days: NDArray[np.datetime64] | None, variable: str,
    obs_error: float,
) -> xr.Dataset:  # fmt: skip
    import numpy as np
    import xarray as xr

    inside = base / "dc_obs"
    missing = [name for name in names if not (inside / CHALLENGE_MISSIONS[name]).is_file()]
    if missing:
        there = [path.name for path in sorted(inside.glob("*.nc"))] if inside.is_dir() else []
        raise DataUnavailableError(
            f"{', '.join(CHALLENGE_MISSIONS[name] for name in missing)} missing in {inside} "
            f"(there: {_some(there)}); {_WHERE}"
        )
    parts = [_mission(inside / CHALLENGE_MISSIONS[name], name, days, variable) for name in names]
    joined = xr.concat(parts, "obs")
    # one number per pass over all missions
    begins = np.cumsum([0, *(int(part["track"].max()) + 1 if part.sizes["obs"] else 0
                             for part in parts[:-1])])  # fmt: skip
    offsets = np.repeat(begins, [part.sizes["obs"] for part in parts])
    joined["track"] = ("obs", (joined["track"].values + offsets).astype(np.int32))
    joined["ssh_error"] = xr.full_like(joined["ssh"], obs_error)
    meanings = " ".join(CHALLENGE_MISSIONS)
    flags = np.arange(len(CHALLENGE_MISSIONS), dtype=np.int8)
    joined["ssh"].attrs = {"units": "m", "standard_name": "sea_surface_height_above_geoid",
                           "long_name": "sea surface height along tracks"}  # fmt: skip
    joined["ssh_error"].attrs = {"units": "m", "long_name": "standard error that was attached"}
    joined["mission"].attrs = {"long_name": "mission", "flag_values": flags,
                               "flag_meanings": meanings}  # fmt: skip
    joined["track"].attrs = {"long_name": "number of the pass"}
    joined["time"].attrs = {"standard_name": "time"}
    joined["latitude"].attrs = {"standard_name": "latitude", "units": "degrees_north"}
    joined["longitude"].attrs = {"standard_name": "longitude", "units": "degrees_east"}
    return joined


def _mission(
    path: Path, name: str, days: NDArray[np.datetime64] | None, variable: str
) -> xr.Dataset:
    """Observations of one file along one dimension."""
    import numpy as np
    import xarray as xr

    raw = xr.open_dataset(path, engine=netcdf_engine(path), chunks={})
    dims = ("time", "nC") if name == "swot" else ("time",)
    _check_layout(raw, path, dict.fromkeys((variable, "lon", "lat"), dims))
    if days is not None:
        when = raw["time"].values.astype("datetime64[D]")
        raw = raw.isel(time=(when >= days[0]) & (when <= days[1]))
    times = raw["time"].values
    across = math.prod(raw.sizes[dim] for dim in dims[1:])
    gaps = np.diff(times) / np.timedelta64(1, "s") > _PASS_SECONDS
    track = np.concatenate([[0], np.cumsum(gaps)])[: times.size]

    def flat(which: str) -> xr.Variable:
        return xr.Variable("obs", raw[which].transpose(*dims).data.reshape(-1))

    number = np.full(times.size * across, list(CHALLENGE_MISSIONS).index(name), dtype=np.int8)
    return xr.Dataset(
        {"ssh": flat(variable), "mission": ("obs", number),
         "track": ("obs", np.repeat(track, across))},
        {"time": ("obs", np.repeat(times, across)), "latitude": flat("lat"),
         "longitude": (flat("lon") + 180.0) % 360.0 - 180.0},
    )  # fmt: skip


def _check_layout(ds: xr.Dataset, path: Path, expected: Mapping[str, tuple[str, ...]]) -> None:
    for name, dims in expected.items():
        if name not in ds.variables or set(ds[name].dims) != set(dims):
            given = {str(key): ds[key].dims for key in ds.variables}
            raise SchemaError(
                f"{path} has {given}; expected {name} along {', '.join(dims)}: it is laid out "
                "otherwise than the files of the challenge 2020a"
            )
    if ds["time"].dtype.kind != "M":
        raise SchemaError(
            f"the times of {path} are of type {ds['time'].dtype}; expected dates, coded as CF says"
        )


def _some(names: Sequence[str] | Mapping[str, Path]) -> str:
    found = list(names)
    more = "" if len(found) <= 3 else f" and {len(found) - 3} more"
    return ", ".join(found[:3]) + more if found else "nothing"

"""Sample data: what exists, where it is looked for, and what is done to the public files.

Order of search for a set that is not embedded: the folder named by the environment variable
``XR_SPDE_DATA_DIR``, then the download cache, then its public address (through pooch, with a
checksum).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xr_spde._core.errors import DataUnavailableError, ParameterError, unknown
from xr_spde._core.lazyimport import has_module, require
from xr_spde.datasets.prepare import (
    cut_mediterranean_adt,
    cut_navy_winds,
    make_shallow_water_jets,
    tidy_alboran_sst,
)

if TYPE_CHECKING:
    import pooch
    import xarray as xr

__all__ = [
    "CATALOGUE",
    "DATA_DIR_VARIABLE",
    "Sample",
    "fetch",
    "local_path",
    "netcdf_engine",
    "open_sample",
]

_LOG = logging.getLogger(__name__)

DATA_DIR_VARIABLE: Final = "XR_SPDE_DATA_DIR"

_REGISTRY = "datasets_registry.txt"


@dataclass(frozen=True)
class Sample:
    """One data set of the catalogue.

    Attributes
    ----------
    filename : str
        Name of the ready file in a local data folder.
    summary : str
        What it is, in a line.
    attribution : str
        The sentence to carry with results made from it.
    public_name : str
        Name of the public file in the registry; empty for an embedded set.
    prepare : callable or None
        Leads from the public Dataset to the ready one; None where the file is used as it is.
    make : callable or None
        Computes a synthetic set, which is written to the download cache once.
    """

    filename: str
    summary: str
    attribution: str
    public_name: str = ""
    prepare: Callable[[xr.Dataset], xr.Dataset] | None = None
    make: Callable[[], xr.Dataset] | None = None


_COPERNICUS_MARINE = "Generated using E.U. Copernicus Marine Service Information"

CATALOGUE: Final[Mapping[str, Sample]] = {
    "ecmwf_ensemble": Sample(
        "ecmwf_ens_z500_20120920.nc",
        "51-member ECMWF ensemble forecast of 500 hPa geopotential, +96 h, North Atlantic and "
        "Europe at 1 degree (embedded)",
        "Contains ECMWF data, CC BY 4.0 (ECMWF ensemble forecast of 2012-09-20)",
    ),
    "a1b_north_america": Sample(
        "A1B_north_america.nc",
        "Annual mean 1.5 m temperature 1860-2099, Met Office Unified Model, scenario A1B",
        "Contains public sector information licensed under the Open Government Licence",
        "A1B_north_america.nc",
    ),
    "conus_annual": Sample(
        "conus_annual_meantemp_totalpr_1950_1999.nc",
        "Observed annual mean temperature and precipitation 1950-1999, contiguous US, half degree",
        "Gridded observations of the University of Washington (Maurer et al. 2002)",
        "conus_annual_meantemp_totalpr_1950_1999.nc",
    ),
    "ersstv5_monthly": Sample(
        "ersstv5_monthly_201001_202008.nc",
        "NOAA ERSSTv5 monthly sea surface temperature 2010-2020, global 2 degrees",
        "NOAA Extended Reconstructed SST V5 (Huang et al. 2017)",
        "ersstv5_monthly_201001_202008.nc",
    ),
    "mediterranean_adt": Sample(
        "med_adt_20050401_20050531.nc",
        "Daily maps of absolute dynamic topography, Mediterranean, April and May 2005",
        _COPERNICUS_MARINE,
        "dt_med_allsat_phy_l4_2005T2.nc",
        cut_mediterranean_adt,
    ),
    "mediterranean_adt_sla": Sample(
        "med_adt_sla_20160515.nc",
        "One map of absolute dynamic topography and sea level anomaly, Mediterranean, 2016-05-15",
        _COPERNICUS_MARINE,
        "med_adt_sla_20160515.nc",
    ),
    "alboran_sst": Sample(
        "alboran_avhrr_sst_201705.nc",
        "Sea surface temperature with cloud gaps, Alboran Sea, ten days of May 2017",
        _COPERNICUS_MARINE,
        "alboranSST_small.nc",
        tidy_alboran_sst,
    ),
    "navy_winds": Sample(
        "navy_winds_198201_198912.nc",
        "Monthly surface winds 1982-1989, global 2.5 degrees (FNMOC)",
        "FNMOC surface winds, NOAA PMEL Ferret data sets, public domain",
        "monthly_navy_winds.cdf",
        cut_navy_winds,
    ),
    "shallow_water_jets": Sample(
        "shallow_water_jets.nc",
        "Unstable jets in shallow water on the sphere, seven runs of 240 hours: five to learn "
        "from, one between and one beyond their speeds (synthetic, computed at the first call)",
        "Computed by xr_spde; the flow is that of Galewsky et al. (2004)",
        make=make_shallow_water_jets,
    ),
}


def _data_folder() -> Path | None:
    named = os.environ.get(DATA_DIR_VARIABLE)
    return Path(named).expanduser() if named else None


def local_path(filename: str) -> Path:
    """Return a file of the local data folder.

    For files that are neither embedded nor registered: tests and benchmarks open them by name
    from the folder that ``XR_SPDE_DATA_DIR`` names, where there is one.

    Parameters
    ----------
    filename : str
        Plain file name, without folders.

    Returns
    -------
    Path
        An existing file.

    Raises
    ------
    ParameterError
        The name contains a folder.
    DataUnavailableError
        No folder is named, or the file is not in it.
    """
    if Path(filename).name != filename:
        raise ParameterError(f"filename={filename!r}: expected a plain file name without folders")
    folder = _data_folder()
    if folder is None:
        raise DataUnavailableError(
            f"{filename} is looked for in a local data folder and none is named; "
            f"type: export {DATA_DIR_VARIABLE}=/folder/with/{filename}"
        )
    path = folder / filename
    if not path.is_file():
        raise DataUnavailableError(
            f"{filename} is not in {folder} (from {DATA_DIR_VARIABLE}); put it there"
        )
    return path


def _registry_path() -> Path:
    packaged = Path(str(files("xr_spde") / _REGISTRY))
    # A wheel carries the registry inside the package; an editable install has it beside.
    return packaged if packaged.is_file() else Path(__file__).resolve().parents[2] / _REGISTRY


def _cache() -> pooch.Pooch:
    library = require("pooch", "all")
    cache: pooch.Pooch = library.create(path=library.os_cache("xr_spde"), base_url="")
    cache.load_registry(_registry_path())
    return cache


def fetch(name: str) -> Path:
    """Return the public file of a registered set, from the cache or from its address.

    Parameters
    ----------
    name : str
        Key of `CATALOGUE` that is not embedded.

    Returns
    -------
    Path
        A file whose sha256 is the registered one.

    Raises
    ------
    UnknownNameError
        No registered set has that name.
    DataUnavailableError
        It is not in the cache and could not be fetched, or is not the registered file.
    """
    registered = {key: sample for key, sample in CATALOGUE.items() if sample.public_name}
    if name not in registered:
        raise unknown("registered data set", name, registered)
    sample = registered[name]
    cache = _cache()
    try:
        return Path(cache.fetch(sample.public_name))
    except (OSError, ValueError) as error:
        raise DataUnavailableError(
            f"{name} ({sample.summary}) is not on this machine and could not be fetched "
            f"({type(error).__name__}: {error}). It comes from {cache.urls[sample.public_name]}. "
            f"To put it by hand, save that file as {Path(cache.path) / sample.public_name}"
            f"{_ready_file_hint(sample)}"
        ) from error


def _ready_file_hint(sample: Sample) -> str:
    folder = _data_folder()
    now = "" if folder is None else f" (now {folder}, which does not)"
    return f", or name a folder that holds {sample.filename} in {DATA_DIR_VARIABLE}{now}"


def netcdf_engine(path: Path) -> str:
    """Choose the xarray engine for a netCDF file from its first bytes.

    Parameters
    ----------
    path : Path
        An existing file.

    Returns
    -------
    str
        ``"scipy"`` for netCDF-3 (gzipped or not), else ``"netcdf4"`` or ``"h5netcdf"``.

    Raises
    ------
    MissingDependencyError
        The file is netCDF-4 and neither library is installed.
    ParameterError
        The file is not netCDF.
    """
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic[:3] == b"CDF" or magic[:2] == b"\x1f\x8b":
        return "scipy"
    if magic != b"\x89HDF":
        raise ParameterError(f"{path} starts with {magic!r}; expected a netCDF file")
    for module, engine in (("netCDF4", "netcdf4"), ("h5netcdf", "h5netcdf")):
        if has_module(module):
            return engine
    require("netCDF4", "io")
    return "netcdf4"


def _locate(name: str, sample: Sample) -> tuple[Path, bool]:
    """Path of a set, and whether it still has to be prepared."""
    if sample.make is not None:
        return _made(sample, sample.make), False
    if not sample.public_name:
        return Path(str(files("xr_spde") / "data" / f"{sample.filename}.gz")), False
    folder = _data_folder()
    if folder is not None and (folder / sample.filename).is_file():
        return folder / sample.filename, False
    return fetch(name), sample.prepare is not None


def _made(sample: Sample, make: Callable[[], xr.Dataset]) -> Path:
    """Path of a synthetic set, in the local data folder or in the cache; computed if in neither."""
    folder = _data_folder()
    if folder is not None and (folder / sample.filename).is_file():
        return folder / sample.filename
    path = Path(_cache().path) / sample.filename
    if not path.is_file():
        _LOG.info("%s is computed once and kept as %s", sample.filename, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")  # whole files only, if two write
        make().to_netcdf(part, engine="scipy")
        part.replace(path)
    return path


def open_sample(name: str, *, chunks: int | str | Mapping[str, int] | None = None) -> xr.Dataset:
    """Open a set of the catalogue; see `xr_spde.tutorial.open_dataset`."""
    import xarray as xr

    if name not in CATALOGUE:
        raise unknown("data set", name, CATALOGUE)
    sample = CATALOGUE[name]
    path, raw = _locate(name, sample)
    ds = xr.open_dataset(path, engine=netcdf_engine(path), chunks=chunks)
    if raw and sample.prepare is not None:
        ds = sample.prepare(ds)
    ds.attrs["attribution"] = sample.attribution
    return ds

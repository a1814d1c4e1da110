"""Real data to try things on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xr_spde.datasets import CATALOGUE, open_sample

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["list_datasets", "open_dataset"]


def open_dataset(name: str, *, chunks: int | str | Mapping[str, int] | None = None) -> xr.Dataset:
    """Open a sample data set, lazily.

    ``"ecmwf_ensemble"`` comes with the package. The others are taken from the folder that the
    environment variable ``XR_SPDE_DATA_DIR`` names, else downloaded once and checked; the synthetic
    ``"shallow_water_jets"`` is computed once, in about half a minute.

    Parameters
    ----------
    name : str
        One of `list_datasets`.
    chunks : int, "auto" or mapping, optional
        Handed to `xarray.open_dataset`; default: xarray's own lazy arrays, without dask.

    Returns
    -------
    Dataset
        With the attribute ``attribution``: the sentence to carry with results.

    Raises
    ------
    UnknownNameError
        No set has that name.
    DataUnavailableError
        It is neither on this machine nor reachable; the message says how to put it by hand.
    MissingDependencyError
        The file is netCDF-4 and no library for it is installed.

    Examples
    --------
    >>> import xr_spde
    >>> ds = xr_spde.tutorial.open_dataset("ecmwf_ensemble")
    >>> dict(ds.z.sizes)
    {'number': 51, 'latitude': 46, 'longitude': 71}
    """
    return open_sample(name, chunks=chunks)


def list_datasets() -> dict[str, str]:
    """List the sample data sets.

    Returns
    -------
    dict
        Name to one line of description.

    Examples
    --------
    >>> import xr_spde
    >>> "ecmwf_ensemble" in xr_spde.tutorial.list_datasets()
    True
    """
    return {name: sample.summary for name, sample in CATALOGUE.items()}

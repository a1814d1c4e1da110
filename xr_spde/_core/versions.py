"""What is installed, for bug reports."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Final, TextIO

from xr_spde._core.lazyimport import has_module
from xr_spde._core.memory import available_memory, format_bytes
from xr_spde._core.options import get_options
from xr_spde._core.version import __version__

__all__ = ["show_versions", "versions"]

_CORE: Final = ("numpy", "scipy", "xarray", "dask", "cf-xarray", "pooch", "threadpoolctl")
_STORAGE: Final = ("h5netcdf", "netCDF4", "zarr", "distributed", "matplotlib", "cmocean")
_EXTRA: Final = ("torch", "safetensors", "cupy-cuda12x", "cupy-cuda13x", "scikit-sparse", "pyamg")


def versions() -> dict[str, str]:
    """Return the versions of the package and of the libraries it can use.

    Nothing is imported to find them.

    Returns
    -------
    dict
        Distribution name to version, "-" where it is not installed.
    """
    found = {"xr_spde": __version__}
    for name in (*_CORE, *_STORAGE, *_EXTRA):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def _blas() -> str:
    if not has_module("threadpoolctl"):
        return "unknown (threadpoolctl is not installed)"
    import numpy  # noqa: F401 - loads the library to be described
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(
        f"{pool['internal_api']} {pool['version']} ({pool['num_threads']} threads)"
        for pool in pools
    )


def show_versions(file: TextIO | None = None) -> None:
    """Print Python, system, libraries and options, to paste into a bug report.

    Parameters
    ----------
    file : text stream, optional
        Default: standard output.

    Examples
    --------
    >>> import xr_spde
    >>> xr_spde.show_versions()  # doctest: +ELLIPSIS
    xr_spde...
    """
    rows = versions()
    rows["python"] = platform.python_version()
    rows["platform"] = platform.platform()
    rows["processors"] = str(os.cpu_count())
    rows["memory"] = f"{format_bytes(available_memory())} available"
    rows["blas"] = _blas() or "none found"
    rows["options"] = ", ".join(f"{name}={value}" for name, value in get_options().items())
    out = sys.stdout if file is None else file
    for name, value in rows.items():
        print(f"{name:14s} {value}", file=out)

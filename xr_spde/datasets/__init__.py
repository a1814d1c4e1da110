"""Data: samples of the tutorial, where they are looked for, and layouts of public challenges."""

from __future__ import annotations

from xr_spde.datasets.prepare import (
    cut_mediterranean_adt,
    cut_navy_winds,
    make_shallow_water_jets,
    tidy_alboran_sst,
)
from xr_spde.datasets.samples import (
    CATALOGUE,
    DATA_DIR_VARIABLE,
    Sample,
    fetch,
    local_path,
    netcdf_engine,
    open_sample,
)
from xr_spde.datasets.ssh_challenge import (
    CHALLENGE_BOX,
    CHALLENGE_MISSIONS,
    CHALLENGE_PERIODS,
    open_ssh_challenge,
)

__all__ = [
    "CATALOGUE",
    "CHALLENGE_BOX",
    "CHALLENGE_MISSIONS",
    "CHALLENGE_PERIODS",
    "DATA_DIR_VARIABLE",
    "Sample",
    "cut_mediterranean_adt",
    "cut_navy_winds",
    "fetch",
    "local_path",
    "make_shallow_water_jets",
    "netcdf_engine",
    "open_sample",
    "open_ssh_challenge",
    "tidy_alboran_sst",
]

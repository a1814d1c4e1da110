"""Accessors: what is typed on a DataArray or Dataset; each method delegates to a function."""

from xr_spde.accessors.assim import AssimDataArrayAccessor, AssimDatasetAccessor
from xr_spde.accessors.latent import LatentDataArrayAccessor, LatentDatasetAccessor
from xr_spde.accessors.sar import SarDataArrayAccessor, SarDatasetAccessor

__all__ = [
    "AssimDataArrayAccessor",
    "AssimDatasetAccessor",
    "LatentDataArrayAccessor",
    "LatentDatasetAccessor",
    "SarDataArrayAccessor",
    "SarDatasetAccessor",
]

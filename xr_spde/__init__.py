"""Non-stationary Gaussian fields, latent dynamics and assimilation on xarray.

Importing the package registers the accessors ``.sar``, ``.latent`` and ``.assim`` on DataArray and
Dataset.
Everything heavier than xarray itself is imported at the moment of use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xr_spde import accessors as accessors
from xr_spde._core.options import get_options, set_options
from xr_spde._core.version import __version__

if TYPE_CHECKING:
    from xr_spde import (
        assim,
        datasets,
        fields,
        labels,
        latent,
        metrics,
        plot,
        sar,
        solvers,
        synthetic,
        tutorial,
    )
    from xr_spde._core.versions import show_versions
    from xr_spde.tutorial import open_dataset

__all__ = [
    "__version__",
    "assim",
    "datasets",
    "fields",
    "get_options",
    "labels",
    "latent",
    "metrics",
    "open_dataset",
    "plot",
    "sar",
    "set_options",
    "show_versions",
    "solvers",
    "synthetic",
    "tutorial",
]

_SUBMODULES = frozenset(
    (
        "assim",
        "datasets",
        "errors",
        "fields",
        "labels",
        "latent",
        "metrics",
        "plot",
        "sar",
        "solvers",
        "synthetic",
        "tutorial",
    )
)
_FUNCTIONS = {
    "open_dataset": "xr_spde.tutorial",
    "show_versions": "xr_spde._core.versions",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"xr_spde.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'xr_spde' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Which device linear algebra runs on."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from xr_spde._core.errors import MissingDependencyError, ParameterError
from xr_spde._core.lazyimport import has_module, require
from xr_spde._core.options import get_option

__all__ = ["card_count", "resolve_device"]


@lru_cache(maxsize=1)
def card_count() -> int:
    """Return the number of graphics cards that cupy reports; 0 without cupy or a driver."""
    if not has_module("cupy"):
        return 0
    try:
        return int(require("cupy", "gpu").cuda.runtime.getDeviceCount())
    except (MissingDependencyError, RuntimeError):  # the runtime's own error is of the last kind
        return 0


def resolve_device() -> Literal["cpu", "cuda"]:
    """Turn the option ``device`` into the device to use.

    Returns
    -------
    {"cpu", "cuda"}
        ``"auto"`` stands for a graphics card where cupy reports one, else for the processor.

    Raises
    ------
    MissingDependencyError
        ``device="cuda"`` and cupy is not installed.
    ParameterError
        ``device="cuda"`` and cupy reports no graphics card.
    """
    asked = get_option("device")
    if asked == "cuda" and not card_count():
        require("cupy", "gpu")
        raise ParameterError(
            "device='cuda' was asked for and cupy reports no graphics card; check the driver, or "
            'type xr_spde.set_options(device="cpu")'
        )
    return "cuda" if asked != "cpu" and card_count() else "cpu"

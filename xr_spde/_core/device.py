"""Which device linear algebra runs on."""

from __future__ import annotations

from typing import Literal

from xr_spde._core.lazyimport import require
from xr_spde._core.options import get_option

__all__ = ["resolve_device"]


def resolve_device() -> Literal["cpu", "cuda"]:
    """Turn the option ``device`` into the device to use.

    Returns
    -------
    {"cpu", "cuda"}
        ``"auto"`` stands for the CPU: a graphics card is used when it is asked for.

    Raises
    ------
    MissingDependencyError
        ``device="cuda"`` and cupy is not installed.
    """
    if get_option("device") == "cuda":
        require("cupy", "gpu")
        return "cuda"
    return "cpu"

"""Where files of weights are: a path, or a name of what comes with the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from xr_spde._core.errors import DataUnavailableError, listed

__all__ = ["weights_file"]


def weights_file(path: str | os.PathLike[str], shipped: Mapping[str, str], what: str) -> Path:
    """Find a file of weights.

    Parameters
    ----------
    path : path or str
        File, or a name of `shipped`.
    shipped : mapping of str to str
        Files of the package by name.
    what : str
        What they hold, for the error.

    Returns
    -------
    Path

    Raises
    ------
    DataUnavailableError
        If there is no such file, and nothing of that name.
    """
    if str(path) in shipped:
        return Path(str(resources.files("xr_spde") / "data" / shipped[str(path)]))
    if not Path(path).is_file():
        raise DataUnavailableError(
            f"there is no file {str(path)!r}, and no {what} of that name comes with the package; "
            f"known: {listed(shipped)}"
        )
    return Path(path)

"""What becomes of observations, as flags."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STATUS", "status_attrs", "status_counts", "summarised"]

STATUS = ("used", "missing", "outside_grid", "on_land", "rejected", "thinned", "outside_times")
"""What becomes of an observation; the place in this list is its flag."""


def summarised(status: NDArray[np.int8]) -> str:
    """Say in words what became of observations.

    Parameters
    ----------
    status : ndarray of int
        Places in :data:`STATUS`.

    Returns
    -------
    str
    """
    parts = [f"{n} {name.replace('_', ' ')}" for name, n in status_counts(status).items()]
    return f"{status.size} observations: {', '.join(parts)}"


def status_attrs() -> dict[str, Any]:
    """Return the CF attributes of a variable of flags in :data:`STATUS`."""
    return {
        "long_name": "what became of the observation",
        "flag_values": np.arange(len(STATUS), dtype=np.int8),
        "flag_meanings": " ".join(STATUS),
    }


def status_counts(status: NDArray[np.int8]) -> dict[str, int]:
    """Count observations by status; one that does not occur is left out.

    Parameters
    ----------
    status : ndarray of int
        Places in :data:`STATUS`.

    Returns
    -------
    dict of str to int
    """
    found = np.bincount(status.ravel(), minlength=len(STATUS))
    return {name: int(n) for name, n in zip(STATUS, found, strict=True) if n}

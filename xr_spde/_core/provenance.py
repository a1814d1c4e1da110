"""Where a result comes from, as attributes that netCDF and Zarr can hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from xr_spde._core.version import __version__

__all__ = ["PREFIX", "provenance"]

PREFIX = "xr_spde_"

_INT64 = np.iinfo(np.int64)


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def _attribute(value: object) -> str | int | float:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # netCDF integers end at 64 bits; a 128-bit seed survives as decimal digits.
        return value if _INT64.min <= value <= _INT64.max else str(value)
    if isinstance(value, float | str):
        return value
    return json.dumps(value, sort_keys=True, default=_plain)


def provenance(method: str, **settings: object) -> dict[str, str | int | float]:
    """Return attributes that say how a result was made.

    The same call gives the same attributes: there is no clock and no host name in them.

    Parameters
    ----------
    method : str
        Name of the method or function.
    **settings : object
        Its settings. None is left out; bool becomes "true" or "false"; what is not a
        scalar becomes JSON.

    Returns
    -------
    dict
        Names prefixed ``xr_spde_``: ``version``, ``method`` and the settings.

    Examples
    --------
    >>> from xr_spde._core.provenance import provenance
    >>> attrs = provenance("whittle", penalty=0.5, window=(3, 5), mask=None)
    >>> attrs["xr_spde_window"], "xr_spde_mask" in attrs
    ('[3, 5]', False)
    """
    given = {"version": __version__, "method": method, **settings}
    return {PREFIX + name: _attribute(value) for name, value in given.items() if value is not None}

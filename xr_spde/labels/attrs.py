"""Attributes of results: keep what still holds, replace what no longer does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

KEPT = ("units", "grid_mapping", "comment", "institution", "source", "references")
"""Attributes that stay true of a quantity derived from another in the same units."""


def derived_attrs(
    source: Mapping[Hashable, object],
    *,
    long_name: str,
    units: str | None = None,
    **provenance: object,
) -> dict[str, object]:
    """Attributes of a quantity derived from another one.

    Names that no longer hold (``standard_name``, ``cell_methods``, ``valid_range``, encodings, ...)
    are left out; nothing is appended to ``history``, so equal results have equal attributes.

    Parameters
    ----------
    source : mapping
        Attributes of the quantity it derives from.
    long_name : str
        What the result is.
    units : str, optional
        Units of the result; those of the source where not given.
    **provenance
        Further attributes, such as those of ``xr_spde._core.provenance.provenance``; None is left
        out.

    Returns
    -------
    dict

    Examples
    --------
    >>> from xr_spde.labels.attrs import derived_attrs
    >>> derived_attrs({"units": "K", "standard_name": "air_temperature"}, long_name="spread")
    {'long_name': 'spread', 'units': 'K'}
    """
    attrs: dict[str, object] = {"long_name": long_name}
    attrs.update({name: source[name] for name in KEPT if name in source})
    if units is not None:
        attrs["units"] = units
    attrs.update({name: value for name, value in provenance.items() if value is not None})
    return attrs

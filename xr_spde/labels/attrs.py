"""Attributes of results: keep what still holds, replace what no longer does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from xr_spde._core.errors import SchemaError

__all__ = ["KEPT", "check_schema", "derived_attrs"]

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


def check_schema(attrs: Mapping[Hashable, object], schema: str, version: int, *, what: str) -> None:
    """Refuse what a later release wrote.

    Parameters
    ----------
    attrs : mapping
        Of a Dataset; without ``schema_version``, or with another ``schema``, nothing is refused.
    schema : str
        Name of the schema.
    version : int
        The last one that is known.
    what : str
        What the Dataset is, for the message.

    Raises
    ------
    SchemaError
        For a later version.
    """
    given = attrs.get("schema_version", version)
    if attrs.get("schema", schema) == schema and int(given) > version:  # type: ignore[call-overload]
        raise SchemaError(
            f"{what} follows version {given} of the schema {schema}; this xr_spde knows up to "
            f"{version}; upgrade with 'pip install -U xr_spde'"
        )

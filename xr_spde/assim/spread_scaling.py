"""A spread that is scaled, with the members, and by what: factors that were found on other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde._core.warn import warn
from xr_spde.assim.times import step_of
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import single_core_chunk
from xr_spde.labels.points import calendar_of

__all__ = ["Recalibration", "lead_key", "local_change", "recalibrated"]

REACH = 4.0
"""Cells over which `local_change` is averaged."""


def lead_key(lead: int | None) -> str:
    """Name of a lead: "mapping" for none, else its number of steps.

    Parameters
    ----------
    lead : int or None
        As in `assimilate`.

    Returns
    -------
    str

    Examples
    --------
    >>> from xr_spde.assim.spread_scaling import lead_key
    >>> lead_key(None), lead_key(2)
    ('mapping', '2')
    """
    return "mapping" if lead is None else str(int(lead))


@dataclass(frozen=True)
class Recalibration:
    """Factors on the spread, and how they were found.

    Attributes
    ----------
    factors : mapping of str to float
        By `lead_key`.
    floors : mapping of str to float
        Standard deviations in the units of the field that are added in square; zero where missing.
    tendencies : mapping of str to float
        Days: with these times the local change of the mean in a day, see `local_change`, that is
        added in square; zero where missing.
    method : {"likelihood", "coverage"}
        How.
    level : float
        Of the interval, for "coverage".
    members : int
        Of the ensembles whose spread it was; fewer members have a larger factor by "coverage".
    period : tuple of str
        First and last date of the truth it was found with; empty where it has none.
    count : int
        Of the errors.
    """

    factors: Mapping[str, float]
    floors: Mapping[str, float] = field(default_factory=dict)
    tendencies: Mapping[str, float] = field(default_factory=dict)
    method: str = "likelihood"
    level: float = 0.9
    members: int = 0
    period: tuple[str, ...] = ()
    count: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**asdict(self), "period": list(self.period)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Recalibration:
        """Read what `as_dict` wrote.

        Parameters
        ----------
        given : mapping
            Such as the attribute ``recalibration`` of a `NeuralSolver`.

        Returns
        -------
        Recalibration

        Raises
        ------
        SchemaError
            If it is something else.
        """
        names = set(cls.__dataclass_fields__)
        if "factors" not in given or not set(given) <= names:
            raise SchemaError(
                f"a recalibration has the entries {', '.join(sorted(map(str, given)))}; expected "
                f"factors, and of the others {', '.join(sorted(names - {'factors'}))}"
            )
        return cls(**{**given, "period": tuple(given.get("period", ()))})


def local_change(mean: xr.DataArray, *, x: str | None = None, y: str | None = None) -> xr.DataArray:
    """How much maps change in a day, around every cell.

    Where a field changes fast, what was not observed today is known less well from yesterday: the
    errors of maps are larger there, whatever the tracks.

    Parameters
    ----------
    mean : DataArray (time, Y, X)
        Maps at regular times, or at steps that are counted as days where they have no dates.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    DataArray (time, Y, X)
        Root mean square of the differences to the map before and the map after per day, averaged
        with a Gaussian of :data:`REACH` cells. Lazy where maps are.

    Raises
    ------
    ParameterError
        Fewer than two times, or no dimension of times.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim.spread_scaling import local_change
    >>> rising = np.arange(3.0)[:, None, None] * np.ones((4, 5))
    >>> maps = xr.DataArray(rising, dims=("time", "y", "x"))
    >>> bool(np.allclose(local_change(maps), 1.0))
    True
    """
    grid = Grid.from_object(mean, x=x, y=y)
    rest = [str(d) for d in mean.dims if d not in (grid.y_dim, grid.x_dim)]
    dated = [d for d in rest if d in mean.coords and calendar_of(mean[d]) is not None]
    found = dated if len(dated) == 1 else [d for d in rest if d == "time"]
    if len(found) != 1 or mean.sizes[found[0]] < 2:
        raise ParameterError(
            f"the maps have the dimensions {', '.join(map(repr, rest)) or 'of space alone'}; the "
            "change of maps needs one of times, at least two of them"
        )
    (dim,) = found
    days = step_of(mean[dim], "the maps") if dated else 1.0
    after = (mean.shift({dim: -1}) - mean) / days
    before = (mean - mean.shift({dim: 1})) / days
    square = xr.concat([after**2, before**2], "_side").mean("_side", skipna=True)
    plane = (grid.y_dim, grid.x_dim)
    smoothed = xr.apply_ufunc(
        partial(_smoothed, closed=grid.periodic_x),
        single_core_chunk(square, plane),
        input_core_dims=[plane],
        output_core_dims=[plane],
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    return (smoothed**0.5).transpose(*mean.dims)


def _smoothed(values: NDArray[Any], *, closed: bool) -> NDArray[np.float64]:
    """Gaussian means of (..., ny, nx) over the cells that are known."""
    there = np.isfinite(values)
    width = (0.0,) * (values.ndim - 2) + (REACH, REACH)
    mode: Any = ["constant"] * (values.ndim - 1) + ["wrap" if closed else "constant"]
    total, weight = (
        gaussian_filter(np.asarray(a, dtype=np.float64), width, mode=mode)
        for a in (np.where(there, values, 0.0), there)
    )
    return np.where(there, total / np.where(there, weight, 1.0), np.nan)


def recalibrated(
    result: xr.Dataset,
    recalibration: Recalibration | Mapping[str, Any],
    lead: int | None,
    *,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Scale the standard deviation, and the members about the mean.

    Parameters
    ----------
    result : Dataset
        ``mean``, and ``std`` and ``ensemble`` where there are any.
    recalibration : Recalibration or mapping
        Of that solver.
    lead : int or None
        Of the result. Numbers are linear between the leads that they were found for; beyond
        these a warning says so, and nothing is done.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset
        Lazy where the result is; with the numbers in the attributes ``xr_spde_recalibrated``
        (the factor), ``xr_spde_floor`` and ``xr_spde_tendency``.

    Examples
    --------
    >>> import xarray as xr
    >>> from xr_spde.assim.spread_scaling import Recalibration, recalibrated
    >>> result = xr.Dataset({"mean": 1.0, "std": 0.5, "ensemble": ("realization", [0.5, 2.0])})
    >>> found = recalibrated(result, Recalibration({"mapping": 2.0}), None)
    >>> found["std"].item(), found["ensemble"].values.tolist()
    (1.0, [0.0, 3.0])
    """
    if not isinstance(recalibration, Recalibration):
        recalibration = Recalibration.from_dict(recalibration)
    if (number := _between(recalibration.factors, lead)) is None:
        warn(
            f"the spread was recalibrated for {', '.join(recalibration.factors)} and not for lead "
            f"{lead_key(lead)!r}: it stays as it is"
        )
        return result
    numbers = {"recalibrated": number}
    for name, told in (("floor", recalibration.floors), ("tendency", recalibration.tendencies)):
        if added := _between(told, lead):
            numbers[name] = added
    found, ratio = result.copy(), xr.DataArray(numbers["recalibrated"])
    if len(numbers) > 1:
        if "std" not in result:
            raise SchemaError("a recalibration with more than a factor needs std with the ensemble")
        std = result["std"]
        wider = _wider(result, numbers, x=x, y=y)
        ratio = xr.where(std > 0.0, wider / std.where(std > 0.0, 1.0), numbers["recalibrated"])
        found["std"] = wider.astype(std.dtype).assign_attrs(std.attrs)
    elif "std" in result:
        std = result["std"]
        found["std"] = (ratio * std).astype(std.dtype).assign_attrs(std.attrs)
    if "ensemble" in result:
        members, mean = result["ensemble"], result["mean"]
        moved = mean + ratio * (members - mean)
        moved = moved.transpose(*members.dims).astype(members.dtype)
        found["ensemble"] = moved.assign_attrs(members.attrs)
    return found.assign_attrs({f"xr_spde_{name}": value for name, value in numbers.items()})


def _between(numbers: Mapping[str, float], lead: int | None) -> float | None:
    """Return the number of a lead, linear between those that are known; None beyond them."""
    if (key := lead_key(lead)) in numbers:
        return float(numbers[key])
    known = sorted(int(name) for name in numbers if name != lead_key(None))
    if lead is None or not known or not known[0] < lead < known[-1]:
        return None
    return float(np.interp(lead, known, [numbers[str(k)] for k in known]))


def _wider(
    result: xr.Dataset, numbers: Mapping[str, float], *, x: str | None, y: str | None
) -> xr.DataArray:
    """Make the standard deviation with all that is added to it."""
    square = (numbers["recalibrated"] * result["std"]) ** 2 + numbers.get("floor", 0.0) ** 2
    if "tendency" in numbers:
        square = square + (numbers["tendency"] * local_change(result["mean"], x=x, y=y)) ** 2
    return square**0.5

r"""Spread that is brought to the size of the errors, on data kept for that: one factor per lead.

The standard deviation :math:`\sigma` of an ensemble by a trained solver is wrong where its prior,
its errors of observation or its linearity are. With errors e on a validation split, factor f and
floor g are those of

.. math::

    s^2 = f^2 \sigma^2 + g^2

with the largest Gaussian likelihood, or, g = 0, with the right share of truths in an interval. The
pattern of the spread stays as it is; only its size is told by the truth, and the truth of the test
must not be that one.

References
----------
Gneiting, Raftery, Westveld, Goldman (2005), Mon. Weather Rev. 133 (ensemble model output
statistics); Guo, Pleiss, Sun, Weinberger (2017), ICML (one number is enough).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SchemaError, unknown
from xr_spde._core.warn import warn
from xr_spde.assim.cell_scores import aligned, truth_of
from xr_spde.assim.spread_factor import by_coverage, by_likelihood
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import find_time

if TYPE_CHECKING:
    from xr_spde.assim.neural_solver import NeuralSolver

__all__ = ["Recalibration", "fit_recalibration", "lead_key", "recalibrate", "recalibrated"]

Float = NDArray[np.float64]

METHODS = ("likelihood", "coverage")
"""Of the factor: the largest likelihood of the errors, or the right share within an interval."""

_FEWEST = 30


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
    >>> from xr_spde.assim.recalibration import lead_key
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
    method: str = "likelihood"
    level: float = 0.9
    members: int = 0
    period: tuple[str, ...] = ()
    count: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**asdict(self), "factors": dict(self.factors), "floors": dict(self.floors),
                "period": list(self.period)}  # fmt: skip

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


def recalibrated(
    result: xr.Dataset, recalibration: Recalibration | Mapping[str, Any], lead: int | None
) -> xr.Dataset:
    """Scale the standard deviation, and the members about the mean.

    Parameters
    ----------
    result : Dataset
        ``mean``, and ``std`` and ``ensemble`` where there are any.
    recalibration : Recalibration or mapping
        Of that solver.
    lead : int or None
        Of the result. For one that was not recalibrated a warning says so, and nothing is done.

    Returns
    -------
    Dataset
        Lazy where the result is; with the factor in the attribute ``xr_spde_recalibrated``.

    Examples
    --------
    >>> import xarray as xr
    >>> from xr_spde.assim.recalibration import Recalibration, recalibrated
    >>> result = xr.Dataset({"mean": 1.0, "std": 0.5, "ensemble": ("realization", [0.5, 2.0])})
    >>> found = recalibrated(result, Recalibration({"mapping": 2.0}), None)
    >>> found["std"].item(), found["ensemble"].values.tolist()
    (1.0, [0.0, 3.0])
    """
    if not isinstance(recalibration, Recalibration):
        recalibration = Recalibration.from_dict(recalibration)
    key = lead_key(lead)
    if key not in recalibration.factors:
        warn(
            f"the spread was recalibrated for {', '.join(recalibration.factors)} and not for lead "
            f"{key!r}: it stays as it is"
        )
        return result
    factor, floor = float(recalibration.factors[key]), float(recalibration.floors.get(key, 0.0))
    found, ratio = result.copy(), xr.DataArray(factor)
    if "std" in result:
        std = result["std"]
        if floor > 0.0:
            wider = ((factor * std) ** 2 + floor**2) ** 0.5
            ratio = xr.where(std > 0.0, wider / std.where(std > 0.0, 1.0), factor)
            found["std"] = wider.astype(std.dtype).assign_attrs(std.attrs)
        else:
            found["std"] = (factor * std).astype(std.dtype).assign_attrs(std.attrs)
    elif floor > 0.0:
        raise SchemaError("a recalibration with a floor needs std beside the ensemble")
    if "ensemble" in result:
        members, mean = result["ensemble"], result["mean"]
        moved = mean + ratio * (members - mean)
        moved = moved.transpose(*members.dims).astype(members.dtype)
        found["ensemble"] = moved.assign_attrs(members.attrs)
    attrs = {"xr_spde_recalibrated": factor} | ({"xr_spde_floor": floor} if floor else {})
    return found.assign_attrs(attrs)


def fit_recalibration(
    results: xr.Dataset | Mapping[int | None, xr.Dataset],
    truth: xr.DataArray | xr.Dataset,
    *,
    method: str = "likelihood",
    level: float = 0.9,
    floor: bool = False,
    truth_error: float = 0.0,
    border: int = 0,
    x: str | None = None,
    y: str | None = None,
) -> Recalibration:
    """Find the factors of results whose truth is known.

    Parameters
    ----------
    results : Dataset or mapping of lead to Dataset
        ``mean`` and ``std`` (time, Y, X), not recalibrated; one alone is of lead None.
    truth : DataArray or Dataset
        On the same grid at the same times; or points with positions and times, such as withheld
        tracks.
    method : {"likelihood", "coverage"}
        See :data:`METHODS`. "coverage" makes the share right that lies within the interval of
        `level`, whatever the tails of the errors.
    level : float, default 0.9
        Of that interval.
    floor : bool, default False
        Whether to fit a floor too, of "likelihood".
    truth_error : float, default 0
        Standard deviation of the errors of the truth.
    border : int, default 0
        Cells at each edge that are left out, of a truth on the grid.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Recalibration

    Raises
    ------
    ParameterError
        Too few values to compare, or impossible settings.
    UnknownNameError
        For another method.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if not 0.0 < level < 1.0 or (floor and method == "coverage") or not truth_error >= 0.0:
        raise ParameterError(
            f"level={level}, floor={floor}, truth_error={truth_error} were given; expected a level "
            'within (0, 1), an error >= 0, and a floor with method="likelihood" alone'
        )
    given = {None: results} if isinstance(results, xr.Dataset) else dict(results)
    factors, floors, count = {}, {}, 0
    for lead, result in given.items():
        error, variance = _pairs(result, truth, border, x, y)
        if error.size < _FEWEST:
            raise ParameterError(
                f"{error.size} values of lead {lead_key(lead)!r} have a truth and a spread > 0; "
                f"expected at least {_FEWEST}"
            )
        if method == "coverage":
            found = by_coverage(error, variance, truth_error**2, level), 0.0
        else:
            found = by_likelihood(error, variance, truth_error**2, floor)
        factors[lead_key(lead)] = found[0]
        if floor:
            floors[lead_key(lead)] = found[1]
        count += error.size
    members = {int(one.attrs.get("xr_spde_members", 0)) for one in given.values()}
    return Recalibration(factors, floors, method, level, max(members), _period(truth), count)


def recalibrate(
    model: NeuralSolver,
    truth: xr.DataArray | xr.Dataset,
    observations: xr.DataArray | xr.Dataset,
    *,
    leads: Sequence[int | None] = (None,),
    first_guess: xr.DataArray | None = None,
    members: int = 40,
    method: str = "likelihood",
    level: float = 0.9,
    floor: bool = False,
    truth_error: float = 0.0,
    test_period: tuple[Any, Any] | None = None,
    border: int = 0,
    seed: int = 0,
    **settings: Any,
) -> NeuralSolver:
    """Return the solver with factors on its spread, found on a validation split.

    Parameters
    ----------
    model : NeuralSolver
        Trained; it is left as it is.
    truth : DataArray or Dataset
        Of the validation split: maps (time, Y, X), or withheld points with times. Not that of the
        test, nor of the training, whose errors are too small.
    observations : DataArray or Dataset
        What is assimilated at that time.
    leads : sequence of int or None, default (None,)
        Each has a factor of its own; None is mapping, with observations on both sides.
    first_guess : DataArray, optional
        As in `assimilate`.
    members : int, default 40
        Behind the spread; use as many later.
    method, level, floor, truth_error, border
        See `fit_recalibration`; ``truth_error`` is that of a truth at points.
    test_period : (date, date), optional
        First and last date of the test; by default ``card["test_period"]`` of the model, one or
        several of these, where it has them. A truth that overlaps it is refused.
    seed : int, default 0
        Of the ensembles.
    **settings
        Of `assimilate`, such as ``obs_error``, ``like`` or ``patch``.

    Returns
    -------
    NeuralSolver
        Its ``recalibration`` is then applied by `assimilate` unless that is given
        ``recalibrate=False``.

    Raises
    ------
    ParameterError
        A truth within the period of the test, or too few values.
    """
    _refuse_test(model, truth, test_period)
    from xr_spde.assim.assimilate import assimilate

    gridded = isinstance(truth, xr.DataArray) and truth.ndim >= 3
    if gridded and first_guess is None:
        times = find_time(truth)
        settings = {"like": truth.isel({times.dims[0]: 0}, drop=True), "times": times, **settings}
    sources = (observations, None) if first_guess is None else (first_guess, observations)
    results = {
        lead: assimilate(*sources, model=model, lead=lead, draws=members, seed=seed,
                         recalibrate=False, **settings)
        for lead in leads
    }  # fmt: skip
    found = fit_recalibration(results, truth, method=method, level=level, floor=floor,
                              truth_error=truth_error, border=border)  # fmt: skip
    return replace(model, recalibration=replace(found, members=members).as_dict())


def _refuse_test(model: NeuralSolver, truth: Any, test_period: tuple[Any, Any] | None) -> None:
    own = _period(truth)
    tests = test_period or model.card.get("test_period")
    for first, last in _overlaps(own, tests):
        raise ParameterError(
            f"the truth is of {own[0]} to {own[1]} and the test of {first} to {last}; recalibrate "
            "on other dates, else the scores of the test are those of numbers fitted to it"
        )
    for first, last in _overlaps(own, model.card.get("train_period")):
        warn(
            f"the truth is of {own[0]} to {own[1]}, and the solver was trained on {first} to "
            f"{last}: where it is the same sea its errors are too small there, and so is the spread"
        )


def _overlaps(own: tuple[str, ...], given: Any) -> list[tuple[str, str]]:
    """Periods, one or a list of them, that share days with the truth."""
    if not own or not given:
        return []
    several = given if isinstance(given[0], list | tuple) else [given]
    days = [(_day(first), _day(last)) for first, last in several]
    return [(first, last) for first, last in days if own[0] <= last and first <= own[1]]


def _day(date: Any) -> str:
    return str(date)[:10]


def _period(truth: Any) -> tuple[str, ...]:
    """First and last day of a truth; nothing where it has no dates."""
    try:
        times = np.sort(find_time(truth).values.ravel())
    except ParameterError:
        return ()
    return (_day(times[0]), _day(times[-1])) if times.size else ()


def _pairs(
    result: xr.Dataset, truth: Any, border: int, x: str | None, y: str | None
) -> tuple[Float, Float]:
    """Errors, and variances > 0 that were predicted for them."""
    if not {"mean", "std"} <= set(result.data_vars):
        raise SchemaError("results without mean and std have no spread to recalibrate; give draws=")
    from xr_spde.assim.track_score import at_tracks, has_times

    if has_times(result, truth):
        error, std = at_tracks(result, truth, x=x, y=y)
    else:
        grid = Grid.from_object(result["mean"], x=x, y=y)
        true = aligned(truth_of(truth, "mean"), result["mean"], grid, x, y)
        inner = slice(border, -border or None)
        cut = {grid.y_dim: inner, grid.x_dim: inner}
        mean, spread, true = xr.broadcast(*(as_float(one).isel(cut) for one in
                                            (result["mean"], result["std"], true)))  # fmt: skip
        error, std = (np.asarray(a.values, dtype=np.float64).ravel() for a in (mean - true, spread))
    there = np.isfinite(error) & (std > 0.0)
    return error[there], std[there] ** 2

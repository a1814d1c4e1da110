r"""Spread that is brought to the size of the errors, on data kept for that: one factor per lead.

The standard deviation :math:`\sigma` of an ensemble by a trained solver is wrong where its prior,
its errors of observation or its linearity are. With errors e on a validation split, numbers are
found for

.. math::

    s^2 = f^2 \sigma^2 + g^2 + h^2 q^2

with the largest Gaussian likelihood; all together may then be scaled to the right share of truths
in an interval. The floor g, and h for the local change q of the mean in a day
(:func:`xr_spde.assim.spread_scaling.local_change`), are zero unless asked for; q tells where errors
are large in fields whose energy varies from place to place, which a prior of constant parameters
does not know. The truth tells three numbers at most, and must not be that of the test.

References
----------
Gneiting, Raftery, Westveld, Goldman (2005), Mon. Weather Rev. 133 (ensemble model output
statistics); Guo, Pleiss, Sun, Weinberger (2017), ICML (one number is enough).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SchemaError, unknown
from xr_spde._core.warn import warn
from xr_spde.assim.cell_scores import aligned, truth_of
from xr_spde.assim.spread_factor import by_coverage, by_likelihood
from xr_spde.assim.spread_scaling import Recalibration, lead_key, local_change, recalibrated
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import find_time

if TYPE_CHECKING:
    from xr_spde.assim.neural_solver import NeuralSolver

__all__ = ["Recalibration", "fit_recalibration", "lead_key", "recalibrate", "recalibrated"]

Float = NDArray[np.float64]
Truth = xr.DataArray | xr.Dataset

METHODS = ("likelihood", "coverage")
"""Of the factor: the largest likelihood of the errors, or the right share within an interval."""

_FEWEST = 30


def fit_recalibration(
    results: xr.Dataset | Mapping[int | None, xr.Dataset | Sequence[xr.Dataset]],
    truth: Truth | Sequence[Truth],
    *,
    method: str = "likelihood",
    level: float = 0.9,
    floor: bool = False,
    tendency: bool = False,
    truth_error: float = 0.0,
    border: int = 0,
    x: str | None = None,
    y: str | None = None,
) -> Recalibration:
    """Find the factors of results whose truth is known.

    Parameters
    ----------
    results : Dataset, or mapping of lead to Dataset or sequence of these
        ``mean`` and ``std`` (time, Y, X), not recalibrated; one alone is of lead None.
    truth : DataArray, Dataset or sequence of these
        On the same grid at the same times; or points with positions and times, such as withheld
        tracks. Of a sequence one for each of the results of a lead, such as several regions.
    method : {"likelihood", "coverage"}
        See :data:`METHODS`. "coverage" makes the share right that lies within the interval of
        `level`, whatever the tails of the errors.
    level : float, default 0.9
        Of that interval.
    floor : bool, default False
        Whether to find a floor too.
    tendency : bool, default False
        Whether to find a factor on the local change of the mean too, which needs times.
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
    if not 0.0 < level < 1.0 or not truth_error >= 0.0:
        raise ParameterError(
            f"level={level}, truth_error={truth_error} were given; expected a level within (0, 1) "
            "and an error >= 0"
        )
    given = {None: results} if isinstance(results, xr.Dataset) else dict(results)
    names = ["factors", *(["floors"] if floor else []), *(["tendencies"] if tendency else [])]
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    count = 0
    truths = _several(truth)
    for lead, result in given.items():
        each = _paired(_several(result), truths)
        pairs = [_pairs(one, true, names, border, x, y) for one, true in each]
        error, parts = (np.concatenate(a, axis=-1) for a in zip(*pairs, strict=True))
        if error.size < _FEWEST:
            raise ParameterError(
                f"{error.size} values of lead {lead_key(lead)!r} have a truth and a spread > 0; "
                f"expected at least {_FEWEST}"
            )
        numbers = by_likelihood(error, list(parts), truth_error**2)
        if method == "coverage":
            numbers = numbers * by_coverage(error, numbers**2 @ parts, truth_error**2, level)
        for name, number in zip(names, numbers, strict=True):
            found[name][lead_key(lead)] = float(number)
        count += error.size
    every = [one for result in given.values() for one in _several(result)]
    members = max(int(one.attrs.get("xr_spde_members", 0)) for one in every)
    days = sorted(day for true in truths for day in _period(true))
    period = (days[0], days[-1]) if days else ()
    return Recalibration(**found, method=method, level=level, members=members, period=period,
                         count=count)  # fmt: skip


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _paired(first: list[Any], second: list[Any]) -> list[tuple[Any, Any]]:
    if len(first) != len(second):
        raise ParameterError(
            f"{len(first)} and {len(second)} of truths and of what belongs to them were given; "
            "expected as many"
        )
    return list(zip(first, second, strict=True))


def recalibrate(
    model: NeuralSolver,
    truth: Truth | Sequence[Truth],
    observations: Truth | Sequence[Truth],
    *,
    leads: Sequence[int | None] = (None,),
    first_guess: xr.DataArray | None = None,
    members: int = 40,
    method: str = "likelihood",
    level: float = 0.9,
    floor: bool = False,
    tendency: bool = False,
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
    truth : DataArray, Dataset or sequence of these
        Of the validation split: maps (time, Y, X), or withheld points with times. Not that of the
        test, nor of the training, whose errors are too small.
    observations : DataArray, Dataset or sequence of these
        What is assimilated at that time, of each truth.
    leads : sequence of int or None, default (None,)
        Each has a factor of its own; None is mapping, with observations on both sides.
    first_guess : DataArray, optional
        As in `assimilate`.
    members : int, default 40
        Behind the spread; use as many later. A solver that has learned the deviation of its errors
        needs none, and its factors are on that.
    method, level, floor, tendency, truth_error, border
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
    from xr_spde.assim.assimilate import assimilate

    truths, members = _several(truth), 0 if getattr(model, "deviates", False) else members
    results: dict[int | None, list[xr.Dataset]] = {lead: [] for lead in leads}
    for true, seen in _paired(truths, _several(observations)):
        _refuse_test(model, true, test_period)
        own = dict(settings)
        if isinstance(true, xr.DataArray) and true.ndim >= 3 and first_guess is None:
            times = find_time(true)
            own = {"like": true.isel({times.dims[0]: 0}, drop=True), "times": times, **own}
        sources = (seen, None) if first_guess is None else (first_guess, seen)
        for lead in leads:
            maps = assimilate(*sources, model=model, lead=lead, draws=members, seed=seed,
                              recalibrate=False, **own)  # fmt: skip
            results[lead].append(maps)
    found = fit_recalibration(
        results, truths, method=method, level=level, floor=floor, tendency=tendency,
        truth_error=truth_error, border=border,
    )  # fmt: skip
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
    result: xr.Dataset, truth: Any, names: list[str], border: int, x: str | None, y: str | None
) -> tuple[Float, Float]:
    """Errors (n,) and variances (parts, n) of what they may be due to."""
    if not {"mean", "std"} <= set(result.data_vars):
        raise SchemaError("results without mean and std have no spread to recalibrate; give draws=")
    from xr_spde.assim.track_score import at_tracks, has_times

    spreads = {"factors": as_float(result["std"])}
    if "floors" in names:
        spreads["floors"] = xr.ones_like(spreads["factors"]).where(spreads["factors"].notnull())
    if "tendencies" in names:
        spreads["tendencies"] = local_change(as_float(result["mean"]), x=x, y=y)
    found = []
    if has_times(result, truth):
        for one in spreads.values():
            error, std = at_tracks(result[["mean"]].assign(std=one), truth, x=x, y=y)
            found.append(std)
    else:
        grid = Grid.from_object(result["mean"], x=x, y=y)
        true = aligned(truth_of(truth, "mean"), result["mean"], grid, x, y)
        inner = slice(border, -border or None)
        cut = {grid.y_dim: inner, grid.x_dim: inner}
        error_map = as_float(result["mean"]) - true
        maps = xr.broadcast(*(one.isel(cut) for one in (error_map, *spreads.values())))
        error, *found = (np.asarray(a.values, dtype=np.float64).ravel() for a in maps)
    stds = np.stack(found)
    there = np.isfinite(error) & np.isfinite(stds).all(axis=0) & (stds[0] > 0.0)
    return error[there], stds[:, there] ** 2

"""Maps of a field in space and time from sparse observations: a trained variational solver."""

from __future__ import annotations

import math
import os
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.memory import check_memory
from xr_spde._core.rng import Seed
from xr_spde.assim.neural_input import read_neural_problem
from xr_spde.assim.neural_members import TOGETHER, spread_maps, with_deviation
from xr_spde.assim.neural_result import labelled
from xr_spde.assim.neural_run import Run
from xr_spde.assim.neural_solver import load_solver
from xr_spde.assim.neural_task import Context
from xr_spde.assim.neural_theta import MAPS
from xr_spde.assim.problem import Problem
from xr_spde.assim.recalibration import recalibrated
from xr_spde.labels.lazy import is_lazy
from xr_spde.labels.patch_map import PatchPlan, plan_axis
from xr_spde.labels.window_blend import plan_blocks, plan_spans
from xr_spde.labels.window_map import joined

__all__ = ["NEURAL", "apply_solver"]

NEURAL = "4dvarnet"
"""Name of the method."""

PATCH, OVERLAP = 384, 48
"""Cells of a side of a patch, and of what neighbours share, where nothing else is asked for."""

STRIDE = 5
"""Steps from one window to the next at most, where nothing else is asked for."""

LEAST = 16
"""Least side of what a solver is given."""

_TOGETHER = 2**21
"""Cells and steps that a task gives to the solver at once."""


def apply_solver(
    obj: xr.DataArray | xr.Dataset,
    obs: xr.DataArray | xr.Dataset | None = None,
    *,
    model: Any,
    times: Any = None,
    like: xr.DataArray | None = None,
    obs_error: Any = None,
    threshold: float | None = None,
    lead: int | None = None,
    stride: int | Literal["auto"] = "auto",
    patch: int | Literal["auto"] = "auto",
    overlap: int | Literal["auto"] = "auto",
    n: int = 0,
    draws: int = 0,
    parameters: bool = False,
    recalibrate: bool = True,
    seed: Seed = None,
    unusable: str = "raise",
    value: str | None = None,
    obs_x: str | None = None,
    obs_y: str | None = None,
    dtype: DTypeLike | None = None,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Map observations with a trained solver, of any region and over any series.

    Parameters
    ----------
    obj : DataArray or Dataset
        A first guess (time, Y, X) at regular times, about which anomalies are mapped; or the
        observations, where `obs` is left out, which then are anomalies about zero.
    obs : DataArray or Dataset, optional
        Points along one dimension with positions and times, or gridded (time, Y, X) with NaN.
        Points are read at once. The solver sees them as means of the cells and of the nearest
        steps, weighted by the inverse variances of their errors.
    model : NeuralSolver, str or path
        What `xr_spde.assim.fit` or `xr_spde.assim.load_solver` returned, or what the latter takes.
    times : DataArray or array_like of dates, optional
        Output times, regular; by default those of the first guess or of gridded observations, or
        from the day of the first point to that of the last by the step of the solver.
    like : DataArray (Y, X), optional
        Grid of the maps, NaN on land. By default that of the first guess, which is NaN on land at
        its first time; or of gridded observations, or the least box that holds the points, with the
        steps of the solver, both without land.
    obs_error : float, array_like, DataArray or AlongTrack, optional
        Standard deviation in the units of the observations; by default from a variable of theirs.
        ``AlongTrack(std, length, share, track)``: the part that is correlated along each track
        stays in the variance of the mean of a cell however many points it has. Errors of different
        cells are independent for the solver.
    threshold : float, optional
        Reject points whose innovation exceeds so many expected standard deviations, of the
        anomalies and the error together; by default none. A lazy first guess is read for it.
    lead : int, optional
        By default every time is estimated from observations before and after it. 0, near real time:
        from those up to and including it. Above, a forecast: without those of its last `lead` steps
        either.
    stride : int or "auto"
        Steps from one window of the solver to the next. Each day is joined from the windows that
        hold it, by weights that prefer their middle; 1 takes most time and is smoothest. "auto":
        half a window, at most five steps.
    patch, overlap : int or "auto"
        Cells of a side of the patches of a large plane, at most, and cells that neighbours share:
        the outer third of these is left out, and over the middle third one passes into the other.
        "auto": 384 and 48.
    n : int, default 0
        Number of members, by conditional simulation: draws of the prior of the solver, or with the
        parameters that it estimates, are observed as the field was, with errors, and mapped like
        it; what is lost in that is added to the mean.
    draws : int, default 0
        Draws behind the standard deviation, at the cost of a mean each; at least `n`. 0 for no
        deviation, but of a solver that has learned it, which asks for none: draws are then those
        of members and of the defect, and the deviation is theirs with ``recalibrate=False`` alone.
    parameters : bool, default False
        Whether to return the parameters of the prior, of a solver that estimates them.
    recalibrate : bool, default True
        Whether to bring the spread of members to the standard deviation that the solver has
        learned, where it has, and to scale it by the solver's factors, where it has any.
    seed : int, SeedSequence, Generator or None
        Of all that is random.
    unusable, value, obs_x, obs_y
        As in `read_observations`; "drop" also leaves out what is outside the times.
    dtype : float32 or float64, optional
        Of the maps; by default that of the first guess or of `like`. The network computes in
        float32.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset
        ``mean`` (time, Y, X), NaN on land; ``std`` of a solver that has learned it, and in any case
        with `n` or `draws`; with these ``linearity_defect`` (time)
        of the solver, on which the spread rests, and with `n` ``ensemble`` (realization, time, Y,
        X); with `parameters` ``theta_length`` and ``theta_length_across`` (km), ``theta_angle``,
        ``theta_decay_time`` (days), ``theta_u``, ``theta_v`` (m s-1) and ``theta_tau``; for points
        ``status``, with `threshold` also ``departure``. Lazy where first guess or gridded
        observations are: a task for each window and group of patches, and the solver once in the
        graph.

    Raises
    ------
    ParameterError
        Observations outside the grid or the times (counted; an error if all), repeated, without
        place or time, with other units than the solver, with errors that are not positive, or some
        eight million times as large as these (at `compute` where the result is lazy); times that do
        not increase or are not regular; a lead or a task that the solver was not trained for.
    GridError, AxisNotFoundError, UnknownNameError, MemoryGuardError
        As for `read_observations`; coordinates without lengths.

    Warns
    -----
    UserWarning
        For cells or steps that differ by more than a factor 1.5 from those of the training. The
        solver counts in cells and steps: where meridians converge, a column is fewer kilometres
        wide, and what it takes for one length is shorter in km; maps of parameters take this into
        account.

    Notes
    -----
    A series that is shorter than a window lies in the middle of one, with days around it that are
    not observed. Longitudes that close are one circle. The result depends neither on the chunks of
    the input nor on scheduler or threads, bit for bit.

    Examples
    --------
    >>> from xr_spde.assim import assimilate, load_solver  # doctest: +SKIP
    >>> maps = assimilate(tracks, model="sea-level", like=depth)  # doctest: +SKIP
    """
    given = locals()
    if isinstance(model, str | os.PathLike):
        given["model"] = load_solver(model)
    _check_numbers(given)
    _check_task(given["model"], lead, parameters)
    problem = read_neural_problem(given)
    run = _plan(given, problem)
    found, members = run.maps(), max(n, draws)
    learned = found.pop("deviation", None)
    used: dict[str, Any] = {
        "windows": len(run.spans),
        "patches": run.context.plan.count,
        "step": problem.step,
    }
    if members:
        found |= spread_maps(run, found.get("theta"), members=members, kept=n,
                             entropy=problem.entropy)  # fmt: skip
        used |= {"members": members, "seed": problem.entropy}
    if learned is not None and (recalibrate or not members):
        found = with_deviation(found, learned, run.lazy)
        used["spread"] = "learned"
    result = labelled(_joined(found, run, n, parameters), given, problem, used)
    told = getattr(given["model"], "recalibration", None)
    if "std" in result and recalibrate and told is not None:
        return recalibrated(result, told, lead)
    return result


def _joined(found: dict[str, list[Any]], run: Run, n: int, parameters: bool) -> dict[str, Any]:
    """Arrays of the whole series from those of the blocks."""
    sizes = [block.stop - block.start for block in run.blocks]
    shapes = [(k, *run.problem.grid.shape) for k in sizes]
    out = {}
    for name, pieces in found.items():
        if name == "theta" or (name in MAPS and not parameters):
            continue
        if name == "ensemble":
            parts = [joined(one, [(k, *shape) for k in _parts(n)], 0, np.float64, run.lazy)
                     for one, shape in zip(pieces, shapes, strict=True)]  # fmt: skip
            out[name] = np.concatenate(parts, axis=1)
        else:
            flat = name == "linearity_defect"
            own = [(k,) for k in sizes] if flat else shapes
            out[name] = joined(pieces, own, 0, np.float64, run.lazy)
    return out


def _parts(n: int) -> list[int]:
    """Members of each task."""
    return [min(TOGETHER, n - k) for k in range(0, n, TOGETHER)]


def _plan(given: dict[str, Any], problem: Problem) -> Run:
    """Cut series and plane, from sizes alone."""
    model, steps, lead = given["model"], problem.times.size, given["lead"]
    window, (ny, nx) = int(model.steps), problem.grid.shape
    stride = max(1, min(window // 2, STRIDE)) if given["stride"] == "auto" else given["stride"]
    patch, overlap = given["patch"], given["overlap"]
    if patch == "auto":
        patch = PATCH
    if overlap == "auto":
        overlap = min(OVERLAP, patch // 2)
    if stride > window or overlap >= patch:
        raise ParameterError(
            f"stride={stride}, patch={patch} and overlap={overlap} were given; windows have "
            f"{window} steps, which a stride cannot exceed, and an overlap is less than a patch"
        )
    plan = PatchPlan(
        plan_axis(ny, patch, overlap),
        plan_axis(nx, patch, overlap, periodic=problem.grid.periodic_x),
    )
    context = Context(model, problem.grid, plan, ~problem.land, LEAST)
    spans = plan_spans(steps, window, stride, lead=lead)
    lazy = any(is_lazy(source) for source in problem.sources)
    blocks = plan_blocks(steps, spans)
    at_once = max(block.stop - block.start for block in blocks) if lazy else steps
    members = max(given["n"], given["draws"])
    fields = 2 + 8 * given["parameters"] + 2 * min(members, TOGETHER) + given["n"]
    check_memory(
        8.0 * fields * at_once * math.prod(plan.shape),
        what=f"maps of {at_once} times of {plan.shape[0]} x {plan.shape[1]} cells at once",
        remedy="Ask for fewer draws or times, or chunk the first guess or gridded observations.",
    )
    # draws are those of the parameters that the network finds, where it does
    wanted = given["parameters"] or (members > 0 and getattr(model, "theta_solver", None))
    return Run(problem, context, spans, blocks, _groups(plan, window, ~problem.land), bool(wanted),
               lazy)  # fmt: skip


def _groups(plan: PatchPlan, window: int, sea: NDArray[np.bool_]) -> list[list[int]]:
    """Patches with some sea, in groups for one task each."""
    wet = [k for k in range(plan.count) if plan.cut(sea, k).any()]
    together = max(1, _TOGETHER // (window * plan.side[0] * plan.side[1]))
    return [wet[k : k + together] for k in range(0, len(wet), together)]


def _check_numbers(given: dict[str, Any]) -> None:
    """Check numbers that need no data."""
    for name, least in (("lead", 0), ("stride", 1), ("patch", 8), ("overlap", 0), ("n", 0),
                        ("draws", 0)):  # fmt: skip
        number = given[name]
        if number == "auto" or (name == "lead" and number is None):
            continue
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not whole or number < least:
            raise ParameterError(f"{name}={number!r} was given; expected a whole number >= {least}")
    if given["dtype"] is not None and np.dtype(given["dtype"]) not in (np.float32, np.float64):
        raise ParameterError(f"dtype={given['dtype']!r} was given; expected float32 or float64")
    if isinstance(given["threshold"], str | bytes | complex | list | tuple | dict):
        raise ParameterError(f"threshold={given['threshold']!r} was given; expected one number")


def _check_task(model: Any, lead: int | None, parameters: bool) -> None:
    """Refuse what the solver was not trained for."""
    if not hasattr(model, "solve") or not hasattr(model, "spacing"):
        raise ParameterError(
            f"model={type(model).__name__} was given; expected a NeuralSolver, as xr_spde.assim.fit"
            ' and load_solver return it, or the name of one, such as "sea-level"'
        )
    if getattr(model, "oracle", False):
        raise ParameterError(
            "the SPDE parameters of this model come from the truth (oracle_theta=True), which "
            "observations do not have; take a model without, or model.solve(..., oracle=truth)"
        )
    task = "mapping" if lead is None else "forecast" if lead else "nrt"
    if task not in model.tasks:
        raise ParameterError(
            f"lead={lead!r} is the task {task!r}, and the solver was trained for "
            f"{', '.join(map(repr, model.tasks))}; take another solver or lead"
        )
    if lead and lead > int(np.max(model.leads)):
        raise ParameterError(
            f"lead={lead} was given, and the solver was trained for leads up to {model.leads}; "
            "train one with more last days without observations"
        )
    if parameters and getattr(model, "theta_solver", None) is None:
        raise ParameterError(
            "parameters=True needs a solver of parameters, and this one has none; train it with "
            'theta="two-stage" or "joint", or leave parameters out'
        )

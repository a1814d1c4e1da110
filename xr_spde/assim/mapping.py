"""Maps of a field in space and time from sparse observations: optimal interpolation."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.memory import check_memory
from xr_spde._core.options import carry_options
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import Seed
from xr_spde.assim.mapping_input import PriorProblem, read_problem
from xr_spde.assim.window_task import GaussianTask, SpdeTask
from xr_spde.fields.gaussian import GaussianCovariance
from xr_spde.fields.window_blocks import SOLVERS
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.lazy import is_lazy
from xr_spde.labels.window_map import Window, map_windows, plan_windows

__all__ = ["MAPPINGS", "interpolate"]

MAPPINGS = ("oi", "oi-gaussian")
"""Methods: with the prior of an SPDE, or with a Gaussian covariance."""

_HALO = {(2, 1): 2.0, (4, 1): 1.5, (2, 2): 3.5, (4, 2): 3.7}
"""Decay times by alpha and order in time, after which wide fields correlate by 0.05 or less."""

_LEAST_BLOCK = 10


def interpolate(
    obj: xr.DataArray | xr.Dataset,
    obs: xr.DataArray | xr.Dataset | None = None,
    *,
    prior: xr.Dataset | None = None,
    method: str = "oi",
    times: Any = None,
    obs_error: Any = None,
    threshold: float | None = None,
    n: int = 0,
    seed: Seed = None,
    lead: int | None = None,
    block: int | Literal["auto"] = "auto",
    halo: int | Literal["auto"] = "auto",
    draws: int = 100,
    solver: str = "auto",
    tol: float = 1e-6,
    lx: float | None = None,
    ly: float | None = None,
    lt: float | None = None,
    std: float | None = None,
    operator: Any = "auto",
    footprint: float | tuple[int, int] | None = None,
    unusable: str = "raise",
    value: str | None = None,
    obs_x: str | None = None,
    obs_y: str | None = None,
    dtype: DTypeLike | None = None,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Interpolate observations in space and time, with the uncertainty of the result.

    Parameters
    ----------
    obj : Dataset or DataArray
        A prior as `spde_prior` returns it; or a first guess (time, Y, X) at regular times, about
        which the prior holds; or the observations, where `obs` is left out and `prior` given.
    obs : DataArray or Dataset, optional
        Points along one dimension with positions and times, anywhere between the output times; or
        gridded (time, Y, X) with NaN. Points are read at once.
    prior : Dataset, optional
        Of "oi", where `obj` is a first guess or the observations.
    method : {"oi", "oi-gaussian"}, default "oi"
        With the space-time prior of an SPDE, or the baseline of the mapping challenges,
        ``std^2 exp(-(dt/lt)^2 - (dy/ly)^2 - (dx/lx)^2)`` with observations within ``2 lt``.
    times : DataArray or array_like of dates, optional
        Output times, regular; by default those of the first guess, or from the day of the first
        observation to that of the last by the ``time_step`` of the prior.
    obs_error : float, array_like, DataArray or AlongTrack, optional
        Standard deviation in the units of the observations; by default from a variable of theirs.
        ``AlongTrack(std, length, share, track)``: errors that are correlated along each track,
        exactly, of "oi".
    threshold : float, optional
        Reject points whose innovation exceeds so many expected standard deviations, of the prior
        and the error together; by default none. A lazy first guess is read for it.
    n : int, default 0
        Number of draws; of "oi".
    seed : int, SeedSequence, Generator or None
        Of all that is random. A member does not depend on `n`, nor on how the series is cut beyond
        the reach of the halo.
    lead : int, optional
        By default every time is estimated from observations before and after it. 0, near real time:
        from those up to and including it. Above, a forecast: without those of its last `lead` steps
        either.
    block, halo : int or "auto"
        Long series are cut into windows: steps that are kept of a window, and steps before and
        after that are computed too. "auto": a halo of two decay times (alpha = 2) or one and a half
        (alpha = 4), of second order in time 3.5 or 3.7, after which the field has forgotten 95 %
        (``2 lt`` for "oi-gaussian"), a block as long but of ten steps at least, and one window
        where a series is not much longer than that.
    draws : int, default 100
        Draws behind the standard deviation where the exact one would not fit; 0 for no deviation.
    solver : {"auto", "direct", "pcg"}, default "auto"
        Of "oi"; the logger ``xr_spde.solvers`` says which was taken.
    tol : float, default 1e-6
        Of conjugate gradients.
    lx, ly, lt, std : float, optional
        Of "oi-gaussian", which needs them: scales in units of the coordinates and in days, and the
        standard deviation of the field. The challenge has 1, 1, 7 and 1 with an error of 0.05.
    operator, footprint, unusable, value, obs_x, obs_y
        As in `read_observations`; "drop" also leaves out what is outside the times.
    dtype : float32 or float64, optional
        Of the maps; by default that of the first guess or of the prior. All is computed in float64.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset
        ``mean`` and ``std`` (time, Y, X), ``ensemble`` (realization, time, Y, X) where ``n`` > 0,
        ``residual`` (time) of the solver, and for points ``status``, with ``threshold`` also
        ``departure``. NaN on land, which is where the prior is NaN (or the first guess at its first
        time). Lazy, a task for each window, where first guess, observations or prior are; the prior
        itself is read at once.

    Raises
    ------
    ParameterError
        Observations outside the grid or the times (counted; an error if all), repeated, without
        place or time, or with errors that are not positive; times that do not increase or are not
        regular; impossible numbers of the prior.
    SchemaError, GridError, AxisNotFoundError, UnknownNameError, MemoryGuardError, SolverError
        A prior that is none or on another grid; as for `read_observations`.

    Notes
    -----
    ``std`` is that of the field; a withheld observation adds its error variance. Windows agree with
    the whole series up to what observations beyond the halo say; a longer halo says how much that
    is. The result does not depend on the chunks of the input, bit for bit.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim.mapping import interpolate
    >>> maps = {"length": 300.0, "decay_time": 20.0, "std": 0.1}
    >>> prior = xr.Dataset({k: (("lat", "lon"), np.full((6, 8), v)) for k, v in maps.items()},
    ...                    {"lat": np.arange(6.0), "lon": np.arange(8.0)}, {"time_step": 1.0})
    >>> days = np.array(["2014-05-15T06", "2014-05-17T18"], "datetime64[ns]")
    >>> track = {"lat": ("obs", [2.0, 3.5]), "lon": ("obs", [3.0, 5.2]), "time": ("obs", days)}
    >>> post = interpolate(prior, xr.DataArray([0.1, -0.1], track, "obs"), obs_error=0.02)
    >>> dict(post.sizes)["time"], bool(post["std"].min() < 0.05)
    (4, True)
    """
    given = locals()
    if method not in MAPPINGS:
        raise unknown("method", method, MAPPINGS)
    _check_numbers(given)
    problem = read_problem(given)
    plan = _plan(given, problem)
    tasks = [_task(given, problem, window) for window in plan]
    arrays = [_arrays(problem, window) for window in plan]
    lazy = any(is_lazy(a) for a in problem.sources)
    plane = problem.grid.shape
    target = _dtype(given, problem)
    output: dict[str, Any] = {"mean": (lambda k: (k, *plane), 0, target)}
    if draws:
        output["std"] = output["mean"]
    if method == "oi":
        output["residual"] = (lambda k: (k,), 0, np.float64)
        if n:
            output["ensemble"] = (lambda k: (n, k, *plane), 1, target)
    sizes = [window.stop - window.start for window in plan]
    check_memory(
        n * math.prod(plane) * target.itemsize * (max(sizes) if lazy else sum(sizes)),
        what=f"{n} draws of {max(sizes) if lazy else sum(sizes)} steps at once",
        remedy="Ask for fewer, or for lazy ones by windows: chunk the input and give block=.",
    )
    found = map_windows([carry_options(t) for t in tasks], arrays, output, sizes=sizes, lazy=lazy)
    return _labelled(found, given, problem, plan)


def _plan(given: dict[str, Any], problem: PriorProblem) -> list[Window]:
    """Cut the series, from sizes and the prior alone."""
    steps, halo, block = problem.times.size, given["halo"], given["block"]
    if halo == "auto" and problem.recipe is not None and given["method"] == "oi":
        told = problem.recipe.settings
        kind = int(told["alpha"]), int(told["time_order"])
        days = float(problem.maps["decay_time"][..., ~problem.land].mean())
        halo = int(np.ceil(_HALO[kind] * days / problem.step))
    elif halo == "auto":
        halo = int(np.ceil(2.0 * given["lt"] / problem.step))
    if block == "auto":
        block = max(halo, _LEAST_BLOCK)
        block = steps if steps <= 2 * halo + block else block
    return plan_windows(steps, block=block, halo=halo, lead=given["lead"])


def _task(given: dict[str, Any], problem: PriorProblem, window: Window) -> SpdeTask | GaussianTask:
    """Make what computes one window."""
    part = slice(window.first, window.last + 1)
    maps = {k: v[part] if v.ndim == 3 else v for k, v in problem.maps.items()}
    mean = maps.get("mean", np.zeros(problem.grid.shape))
    common: dict[str, Any] = {
        "window": window, "grid": problem.grid, "land": problem.land, "mean": mean,
        "observed": problem.observed.select(window),
    }  # fmt: skip
    if given["method"] == "oi-gaussian":
        if getattr(problem.observed, "tracks", None) is not None:
            raise ParameterError(
                'errors along tracks were given, which method="oi-gaussian" does not know; use '
                '"oi", or give standard deviations'
            )
        circle = 360.0 if problem.grid.longitude else None
        covariance = GaussianCovariance(
            time=given["lt"], y=given["ly"], x=given["lx"], std=given["std"], circle=circle
        )
        return GaussianTask(**common, covariance=covariance, step=problem.step,
                            deviation=given["draws"] > 0)  # fmt: skip
    if problem.recipe is None:
        raise ParameterError('method="oi" needs prior=')
    return SpdeTask(
        **common, recipe=problem.recipe, maps=maps, members=given["n"],
        entropy=problem.entropy, draws=given["draws"], solver=given["solver"], tol=given["tol"],
    )  # fmt: skip


def _arrays(problem: PriorProblem, window: Window) -> dict[str, Any]:
    """Arrays that a window reads."""
    found = problem.observed.arrays(window)
    if problem.guess is not None:
        found["guess"] = problem.guess[window.first : window.last + 1].data
    return found


def _check_numbers(given: dict[str, Any]) -> None:
    """Check numbers that need no data."""
    for name, least in (("n", 0), ("lead", 0), ("draws", 0), ("halo", 0), ("block", 1)):
        number = given[name]
        if (name in ("halo", "block") and number == "auto") or (name == "lead" and number is None):
            continue
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not whole or number < least or (name == "draws" and number == 1):
            raise ParameterError(f"{name}={number!r} was given; expected a whole number >= {least}")
    if isinstance(given["threshold"], str | bytes | complex | list | tuple | dict):
        raise ParameterError(f"threshold={given['threshold']!r} was given; expected one number")
    if not (isinstance(given["tol"], float | np.floating) and 0.0 < given["tol"] < 1.0):
        raise ParameterError(f"tol={given['tol']!r} was given; expected a number in (0, 1)")
    if given["solver"] not in SOLVERS:
        raise unknown("solver", given["solver"], SOLVERS)
    scales = {name: given[name] for name in ("lx", "ly", "lt", "std")}
    if given["method"] == "oi":
        wrong = [name for name, number in scales.items() if number is not None]
        if wrong:
            raise ParameterError(f'{", ".join(wrong)} belong to method="oi-gaussian"')
        return
    lacking = [name for name, number in scales.items() if number is None]
    if lacking or given["n"]:
        raise ParameterError(
            f'method="oi-gaussian" lacks {", ".join(lacking) or "nothing"} and has n={given["n"]};'
            " it needs lx, ly (units of the coordinates), lt (days) and std, and has no draws"
        )


def _dtype(given: dict[str, Any], problem: PriorProblem) -> np.dtype[Any]:
    found = np.dtype(given["dtype"] or problem.template.dtype)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ParameterError(f"dtype={found} was given; expected float32 or float64")
    return found


def _labelled(
    found: dict[str, Any], given: dict[str, Any], problem: PriorProblem, plan: list[Window]
) -> xr.Dataset:
    """Attach labels and attributes."""
    grid, times = problem.grid, problem.times
    dim = str(times.dims[0])
    coords = {dim: times, **problem.template.coords}
    result, words = xr.Dataset(), {
        "mean": "mean of the field given the observations",
        "std": "standard deviation of the field given the observations",
        "ensemble": "draw of the field given the observations",
    }  # fmt: skip
    for name, text in words.items():
        if name in found:
            lead = ("realization",) if name == "ensemble" else ()
            da = xr.DataArray(found[name], coords, (*lead, dim, grid.y_dim, grid.x_dim))
            result[name] = da.assign_attrs(derived_attrs(problem.template.attrs, long_name=text))
    if "ensemble" in found:
        attrs = {"standard_name": "realization", "long_name": "member", "units": "1"}
        result = result.assign_coords(realization=("realization", np.arange(given["n"]), attrs))
    used = {name: given[name] for name in ("lead", "threshold", "lx", "ly", "lt", "std", "tol")}
    if given["method"] == "oi":
        attrs = {"long_name": "relative residual of the solver", "units": "1"}
        result["residual"] = (dim, found["residual"], attrs)
        used |= {"solver": given["solver"], "draws": given["draws"], "seed": problem.entropy}
        if not is_lazy(result["residual"]):
            used["residual"] = float(np.max(found["residual"]))
    if problem.points is not None:
        report = problem.points.report()
        names = {d: f"obs_{d}" for d in report.dims if not str(d).startswith("obs")}
        report = report.rename(names)
        own = {c: f"obs_{c}" for c in report.coords if not str(c).startswith("obs")}
        result = result.merge(report.rename(own).drop_attrs(deep=False))
        used["observations"] = problem.points.summary()
    used |= {"windows": len(plan), "step": problem.step}
    halo = max(w.start - w.first for w in plan)
    return result.assign_attrs(
        Conventions="CF-1.11", **provenance(given["method"], halo=halo, **used)
    )

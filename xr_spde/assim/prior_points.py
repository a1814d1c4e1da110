"""The prior of a field in space and time, fitted to observations along tracks or at points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.provenance import provenance
from xr_spde.assim.prior import fitted_errors, maps_of, warn_beyond
from xr_spde.assim.prior_points_input import (
    TRACK_LENGTH,
    PointProblem,
    read_point_problem,
    thinned,
)
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_fit_points import PointFit, fit_points
from xr_spde.labels.prior_schema import STEP, describe_prior

__all__ = ["spde_prior_from_points"]

Float = NDArray[np.float64]


def spde_prior_from_points(
    obs: xr.DataArray | xr.Dataset,
    *,
    grid: xr.DataArray,
    thin: tuple[int, int] | None = None,
    time_step: float = 2.0,
    times: Any = None,
    region: Mapping[str, slice] | None = None,
    window: int | Literal["auto"] = "auto",
    alpha: int = 4,
    mean: str | float | xr.DataArray = "observations",
    obs_error: Any = 0.0,
    nugget: bool | str = True,
    track: str | None = None,
    objective: str = "likelihood",
    mission: str = "mission",
    knots: tuple[int, int] = (1, 1),
    anisotropic: bool = False,
    flow: bool = False,
    smoothness: float = 0.3,
    boundary: str = "neumann",
    coast: str = "neumann",
    advection: str = "centred",
    max_iterations: int = 60,
    stderr: bool = True,
    unusable: str = "raise",
    value: str | None = None,
    obs_x: str | None = None,
    obs_y: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Fit the prior of a space-time field to scattered observations of it, by maximum likelihood.

    The likelihood of the observations, the field integrated out, is exact, and so is its gradient.
    The errors of the observations are fitted together with the prior.

    Parameters
    ----------
    obs : DataArray or Dataset (obs,), or DataArray (time, Y, X)
        Points along one dimension with positions and times; or maps of a product, with `thin`.
    grid : DataArray (Y, X)
        Any field on the grid of the prior, NaN on land; that of maps may be finer.
    thin : (int, int), optional
        Of maps: every so many times and cells are taken as observations. Neighbours in maps of a
        product tell how it was smoothed; those apart, so far that their correlation has fallen to
        one half or so, tell of the field.
    time_step : float, default 2
        Step of the prior in days.
    times : DataArray or array_like of dates, optional
        Regular times instead of those by `time_step` from the day of the first observation.
    region : mapping of str to slice, optional
        Part of the grid, by its coordinates, whose observations are used; constant parameters hold
        on the whole grid all the same. The cost grows fast with the area.
    window : int or "auto", default "auto"
        Steps between the ends of windows that count as independent; "auto" cuts as little as a
        few seconds per evaluation of the likelihood allow.
    alpha : {4, 2}
        Power; see `spde_prior`.
    mean : "observations", float or DataArray (Y, X), default "observations"
        Prior mean; by default the average of the observations.
    obs_error : float, array_like or DataArray, default 0
        Standard deviation of errors as far as it is known.
    nugget : bool or str, default True
        Whether to fit the standard deviation of independent errors, which adds to `obs_error`: of
        the instrument, and of what the grid does not resolve. A name of a variable of the
        observations, such as "mission", fits one for each of its values.
    track : str, optional
        Variable that numbers the tracks: errors along them with a correlation ``exp(-s / length)``
        are fitted too.
    objective : {"likelihood", "missions"}, default "likelihood"
        Density of all observations, or of each mission given the others (cross-validation).
    mission : str, default "mission"
        Variable that numbers the missions, of "missions".
    knots, anisotropic, flow, smoothness, boundary, coast, advection, max_iterations, stderr
        As for `spde_prior`; `knots` other than (1, 1) need the whole grid.
    unusable, value, obs_x, obs_y
        As in `read_observations`; observations outside a `region` or the `times` are left out.
    x, y : str, optional
        Names of the horizontal axes of the grid.

    Returns
    -------
    Dataset (Y, X)
        As `spde_prior`; and ``obs_error`` (of the nugget; with the dimension of its name where
        there are several), ``track_error`` and ``track_length`` (km), with standard errors.

    Raises
    ------
    ParameterError, GridError, UnknownNameError
        For observations or options that make no sense, as for `assimilate`.
    MemoryGuardError
        If a window of one step would not fit.

    Notes
    -----
    Errors that are constant along a track are nearly those of the largest scales of the field, and
    need many crossings to be told from them. "missions" looks at differences between missions
    alone: it says little of the variance of scales that all of them resolve, and may run to
    lengths and times without end, about which a warning says so.

    Warns
    -----
    UserWarning
        If the climb did not end, or lengths or times exceed those of the observations.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim.prior_points import spde_prior_from_points
    >>> rng = np.random.default_rng(0)
    >>> grid = xr.DataArray(np.zeros((5, 6)), {"lat": np.arange(5.0), "lon": np.arange(6.0)})
    >>> day = np.datetime64("2014-05-15", "ns") + rng.integers(0, 96, 60) * np.timedelta64(1, "h")
    >>> where = {"lat": ("obs", rng.uniform(0, 4, 60)), "lon": ("obs", rng.uniform(0, 5, 60))}
    >>> z = np.sin(where["lat"][1]) + 0.1 * rng.standard_normal(60)
    >>> tracks = xr.DataArray(z, {**where, "time": ("obs", day)}, "obs")
    >>> prior = spde_prior_from_points(tracks, grid=grid, alpha=2, max_iterations=5, stderr=False)
    >>> prior.length.dims, prior.obs_error.dims
    (('lat', 'lon'), ())
    """
    given = locals() | {"obs": thinned(obs, thin, x, y)}
    problem = read_point_problem(given)
    windows, steps, operator = problem.windows(given["window"])
    start, scales = problem.start(operator)
    names = maps_of(anisotropic, flow)
    fitted = nugget is not False
    found = fit_points(
        operator, windows, steps=steps, start=start, dt=problem.recipe.step, alpha=alpha,
        errors=np.full(len(problem.groups) if fitted else 0, 0.2 * scales["std"]),
        track=None if track is None else (0.2 * scales["std"], TRACK_LENGTH), names=names,
        knots=knots,
        smoothness=smoothness, objective=objective, max_iterations=max_iterations, stderr=stderr,
    )  # fmt: skip
    return _labelled(problem, found, operator, given)


def _labelled(
    problem: PointProblem, found: PointFit, operator: SpdeOperator, given: Mapping[str, Any]
) -> xr.Dataset:
    """Dataset of the fitted prior."""
    recipe, land, fitted = problem.recipe, problem.land, found.field
    maps = recipe.physical(fitted.parameters, operator.mesh)
    fast = maps["decay_time"] / 2 ** (int(recipe.settings["alpha"]) // 2)
    days = float(np.ptp(problem.series.position)) * recipe.step
    warn_beyond({**maps, "decay_time": fast}, operator.mesh, days, "observations")
    errors: dict[str, Float] = {}
    if given["stderr"]:
        errors = fitted_errors(fitted, recipe, operator, given["knots"])
    if given["region"] is not None:
        recipe, land = problem.whole, problem.whole_land
        maps = recipe.physical(_constant(fitted.parameters, land.shape), recipe.mesh(land))
        errors = {name: np.full(land.shape, np.median(value[~problem.land]))
                  for name, value in errors.items()}  # fmt: skip
    maps |= {f"{name}_stderr": value for name, value in errors.items()}
    plane, dtype = (recipe.grid.y_dim, recipe.grid.x_dim), problem.mean.dtype
    variables = {}
    for name, values in maps.items():
        stored = np.where(recipe.grid.from_canonical(land), np.nan,
                          recipe.grid.from_canonical(values))  # fmt: skip
        variables[name] = xr.DataArray(stored.astype(dtype), problem.mean.coords, plane)
    variables["mean"] = problem.mean
    variables |= _numbers(problem, found, given)
    variables["log_likelihood"] = xr.DataArray(fitted.log_likelihood)
    variables["converged"] = xr.DataArray(fitted.converged)
    options = {
        name: given[name]
        for name in ("objective", "nugget", "track", "knots", "anisotropic", "flow", "stderr")
    }
    attrs = {**recipe.settings, STEP: recipe.step, "observations": problem.series.value.size,
             **provenance("spde_prior_from_points", **options)}  # fmt: skip
    source = problem.mean.rename("field") if problem.mean.name is None else problem.mean
    result = describe_prior(variables, source=source, attrs=attrs)
    result["log_likelihood"].attrs = {"long_name": "log-likelihood of the observations",
                                      "units": "1"}  # fmt: skip
    result["converged"].attrs = {"long_name": "whether the climb came to its end"}
    return result


def _numbers(
    problem: PointProblem, found: PointFit, given: Mapping[str, Any]
) -> dict[str, xr.DataArray]:
    """Return the fitted errors of the observations."""
    numbers: dict[str, xr.DataArray] = {}
    nugget = given["nugget"]
    if isinstance(nugget, str):
        where = {nugget: problem.groups}
        numbers["obs_error"] = xr.DataArray(found.errors, where, (nugget,))
        numbers["obs_error_stderr"] = xr.DataArray(found.errors_stderr, where, (nugget,))
    elif nugget:
        numbers["obs_error"] = xr.DataArray(found.errors[0])
        numbers["obs_error_stderr"] = xr.DataArray(found.errors_stderr[0])
    if found.track is not None and found.track_stderr is not None:
        for k, (name, unit) in enumerate((("track_error", 1.0), ("track_length", 1e-3))):
            numbers[name] = xr.DataArray(unit * found.track[k])
            numbers[f"{name}_stderr"] = xr.DataArray(unit * found.track_stderr[k])
    return {k: v for k, v in numbers.items() if given["stderr"] or not k.endswith("_stderr")}


def _constant(p: SpdeParameters, shape: tuple[int, int]) -> SpdeParameters:
    """Spread constant parameters over another grid."""
    numbers = {name: float(getattr(p, name).flat[0]) for name in p.__dataclass_fields__}
    return SpdeParameters.of(shape, **numbers)  # type: ignore[arg-type]

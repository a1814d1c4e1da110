"""Assimilate observations into a first guess with a latent model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.rng import Seed, resolve_seed
from xr_spde.assim.filters import FILTERS
from xr_spde.assim.inflation import Adaptive, check_inflation, check_share
from xr_spde.assim.latent.channels import Labelled, variables_of
from xr_spde.assim.latent.filtering import FilterSettings
from xr_spde.assim.latent.forecasts import future_times
from xr_spde.assim.latent.labelled import CODE, find_time_dim
from xr_spde.assim.latent.model import LatentModel
from xr_spde.assim.latent.observe import by_variable, times_of
from xr_spde.assim.latent.results import labelled
from xr_spde.assim.latent.running import KEPT, Problem
from xr_spde.assim.localization import TAPERS, check_radius
from xr_spde.assim.times import as_times
from xr_spde.labels.axes import find_spatial
from xr_spde.labels.lazy import is_lazy
from xr_spde.labels.points import find_time
from xr_spde.labels.tile_map import deferred

__all__ = ["FILTER_METHODS", "assimilate_latent", "dispatch"]

Float = NDArray[np.float64]

FILTER_METHODS = ("auto", "kalman", *FILTERS)
"""Methods of an analysis in the space of codes."""

_LOCAL = ("etkf", "etkf-q")
_MEMBERS = 64
_LARGEST = 2000


_OF_CODES = (
    "method", "n", "obs_error", "localization", "taper", "inflation", "rtps", "rtpp", "rotate",
    "threshold", "window", "unusable", "value", "obs_x", "obs_y", "dim", "seed", "x", "y",
)  # fmt: skip


def dispatch(
    obj: Labelled, obs: Any, given: Mapping[str, Any], usual: Mapping[str, Any]
) -> xr.Dataset:
    """Call `assimilate_latent` with those arguments of `xr_spde.assim.assimilate` that it has.

    Parameters
    ----------
    obj, obs
        First guess and observations.
    given : mapping
        Arguments there.
    usual : mapping
        Defaults of those that belong to other kinds of data.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        For arguments that a latent model does not have.
    """
    own = {name: given[name] for name in _OF_CODES}
    if given["model_noise"] is not None:
        own["model_noise"] = given["model_noise"]
    other = [k for k, one in usual.items() if k not in (*_OF_CODES, "model_noise")
             and given[k] is not one and given[k] != one]  # fmt: skip
    known = inspect.signature(assimilate_latent).parameters
    other += [name for name in given["mapping"] if name not in known]
    if other or obs is None:
        raise ParameterError(
            "a latent model needs obs=" if obs is None else
            f"{', '.join(other)}: no argument of a latent model, which brings its own prior and "
            "decodes at the observations themselves; leave out"
        )  # fmt: skip
    return assimilate_latent(obj, obs, given["model"], **own, **given["mapping"])


def assimilate_latent(
    first_guess: Labelled,
    obs: Any,
    model: LatentModel,
    *,
    method: str = "auto",
    times: Any = None,
    n: int = 0,
    obs_error: Any = None,
    background_error: float | Mapping[str, float] | None = None,
    representativeness: bool = True,
    localization: float | None = None,
    taper: str = "gaspari-cohn",
    inflation: float | Adaptive = 1.0,
    rtps: float = 0.0,
    rtpp: float = 0.0,
    rotate: bool = False,
    threshold: float | None = None,
    model_noise: float = 1.0,
    limit: float = 10.0,
    window: np.timedelta64 | timedelta | None = None,
    unusable: str = "raise",
    value: str | None = None,
    obs_x: str | None = None,
    obs_y: str | None = None,
    dim: str | None = None,
    seed: Seed = None,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Alternate forecasts and analyses of codes.

    Parameters
    ----------
    first_guess : DataArray or Dataset
        Fields (Y, X) of one time, of the variables of the model; with a dimension of members an
        ensemble of these; or codes (..., code).
    obs : DataArray, Dataset or mapping of str to these
        Of the variables of the model, by name where there are several: gridded with NaN, or points
        along one dimension, with times. Points are read where they are, by the decoder.
    model : LatentModel
        As `xr_spde.assim.fit` returns it.
    method : {"auto", "kalman", "etkf", "etkf-q", "denkf", "enkf", "senkf", "serial"}
        "kalman" is exact, for models that are linear: decoder and dynamics. "auto" takes it where
        it can, and "etkf-q" elsewhere.
    times : array_like of dates, optional
        Of the analyses, in any intervals; those without observations are forecasts. By default the
        times of the observations or, where points have times of their own, steps of the model.
    n : int, optional
        Number of members, drawn about a first guess of one; 64 by default.
    obs_error : float, array_like, or mapping of str to these, optional
        Standard deviation in the units of the observations; by default a variable of theirs.
    background_error : float or mapping of str to float, optional
        Standard deviation of the error of a first guess of one, in its units, which the Jacobian of
        the decoder brings to codes. By default the spread of the training, as if nothing was known.
    representativeness : bool, default True
        Add to the errors of the observations what decoding misses.
    localization : float, optional
        Metres from a point to where observations lose their last influence: increments are
        localised where codes are decoded. For "etkf" and "etkf-q".
    taper, inflation, rtps, rtpp, rotate, threshold
        As in `xr_spde.assim.assimilate`; inflation is of the analysed codes. Not of "kalman",
        which takes `threshold` and an `inflation`, of its covariance by the square.
    model_noise : float, default 1
        Factor on the variance of the model error.
    limit : float, default 10
        Codes so many times as far from the mean of the training as its own have run away.
    window : timedelta, optional
        How far observations may be from an analysis; by default half a step of the model.
    unusable : {"raise", "drop"}, default "raise"
        What to do with observations outside the grid, on land, or far from every analysis.
    value, obs_x, obs_y : str, optional
        Names of the value and of the coordinates of the observations.
    dim : str, optional
        Dimension of members of the first guess.
    seed : int, SeedSequence, Generator or None
        Of all that is random.
    x, y : str, optional
        Names of the horizontal axes of the first guess.

    Returns
    -------
    Dataset
        ``mean`` and ``std`` (time, Y, X) of the analysis and ``increment`` of the mean, on the grid
        of the model, ``std`` without what decoding misses; ``codes`` (time, realization, code), of
        "kalman" (time, code); ``observations_used``, ``innovation_mean``, ``innovation_rms``,
        ``innovation_expected_rms`` and ``chi_square`` (time), the innovations in standard
        deviations of the training. Several variables have theirs in front (``z_mean``). Lazy where
        first guess or observations are, and then computed all at once.

    Raises
    ------
    ParameterError
        Methods that do not fit the model, other variables or units, times before the first guess,
        observations far from every analysis, or settings out of their range.
    DivergenceError
        If codes run away; names step, time and members.
    UnknownNameError
        For an unknown method or taper.

    Notes
    -----
    Observations are read at the analysis that is nearest in time. The same seed gives the same
    numbers whatever the chunks and the scheduler.
    """
    given = dict(locals())
    given["obs"] = by_variable(obs, model.layout, value)
    problem = _problem(given)
    lazy = is_lazy(first_guess) or _any_lazy(obs)
    found = deferred(problem, lazy)(first_guess, given["obs"])
    return labelled(problem, found, lazy)


def _any_lazy(obs: Any) -> bool:
    if isinstance(obs, Mapping) and not isinstance(obs, xr.Dataset):
        return any(map(is_lazy, obs.values()))
    return is_lazy(obs)


def _problem(given: dict[str, Any]) -> Problem:
    """Check the arguments, and find the times."""
    model, guess = given["model"], given["first_guess"]
    if isinstance(guess, xr.Dataset):
        guess = next(iter(variables_of(guess).values()))
    members = _members(guess, given)
    method = _method(given, members[0])
    settings = _settings(given, method)
    start, times, gaps, days = _times(model, guess, given)
    plain = {name: given[name] for name in KEPT}
    return Problem(model, method, times, gaps, days, start, members, plain, settings,
                   _dtype(given["first_guess"]))  # fmt: skip


def _dtype(first_guess: Labelled) -> Any:
    """Type of the result: single where the first guess is."""
    parts = [first_guess] if isinstance(first_guess, xr.DataArray) else list(
        variables_of(first_guess).values()
    )  # fmt: skip
    return np.result_type(np.float32, *(one.dtype for one in parts))


def _members(guess: Any, given: Mapping[str, Any]) -> tuple[str | None, int]:
    """Dimension of members of the first guess and their number, or the number to draw."""
    count = int(given["n"]) or _MEMBERS
    dims = [str(d) for d in guess.dims]
    time = find_time_dim(guess)
    rest = [d for d in dims if d not in (CODE, time)]
    if CODE in dims:
        own = rest
    else:
        space = find_spatial(guess, x=given["x"], y=given["y"])
        level = given["model"].layout.level_dim
        own = [d for d in rest if d not in (*space, level)]
    if given["dim"] is not None or own:
        name = given["dim"] or own[0]
        if len(own) != 1 or name != own[0]:
            raise ParameterError(
                f"the first guess has the dimensions {dims}; expected one of members at most"
            )
        if guess.sizes[name] < 2:
            raise ParameterError(f"an ensemble of one along {name!r}; select it, or give more")
        return name, int(guess.sizes[name])
    if count < 2:
        raise ParameterError(f"n={given['n']} was given; expected at least 2 members")
    return None, count


def _method(given: Mapping[str, Any], members: str | None) -> str:
    """Resolve and check the method."""
    method, model = given["method"], given["model"]
    if method not in FILTER_METHODS:
        raise unknown("method", method, FILTER_METHODS)
    linear = model.map.affine and model.propagator.affine
    if method == "auto":
        plain = given["localization"] is None and members is None and not given["n"]
        ok = linear and plain and model.map.n <= _LARGEST and given["rotate"] is False
        ok = (
            ok
            and not given["rtps"]
            and not given["rtpp"]
            and isinstance(given["inflation"], int | float)
        )
        return "kalman" if ok else "etkf-q"
    if method == "kalman" and not linear:
        raise ParameterError(
            f'method="kalman" is exact for linear models, and here the {model.map.name} decoder is '
            f"{'' if model.map.affine else 'not '}linear and the {model.propagator.name} dynamics "
            f'{"are" if model.propagator.affine else "are not"}; type method="etkf-q"'
        )
    if method == "kalman" and members is not None:
        raise ParameterError(
            'method="kalman" starts from a first guess of one and an ensemble was given; take its '
            'mean, with background_error=, or type method="etkf-q"'
        )
    if given["localization"] is not None and method not in _LOCAL:
        raise ParameterError(
            f"localization= was given with method={method!r}; known is it for "
            f"{' and '.join(map(repr, _LOCAL))}"
        )
    return str(method)


def _settings(given: Mapping[str, Any], method: str) -> FilterSettings:
    if given["taper"] not in TAPERS:
        raise unknown("taper", given["taper"], TAPERS)
    if given["localization"] is not None:
        check_radius(given["localization"])
    if not isinstance(given["inflation"], Adaptive):
        check_inflation(given["inflation"])
    check_share("rtps", given["rtps"])
    check_share("rtpp", given["rtpp"])
    if not given["model_noise"] >= 0.0 or not given["limit"] > 0.0:
        raise ParameterError(
            f"model_noise={given['model_noise']!r} and limit={given['limit']!r} were given; "
            "expected a factor >= 0 and a number > 0"
        )
    names = ("localization", "taper", "inflation", "rtps", "rtpp", "rotate", "threshold", "limit")
    plain = {name: given[name] for name in names}
    return FilterSettings(method=method, noise=float(given["model_noise"]),
                          entropy=resolve_seed(given["seed"]), **plain)  # fmt: skip


def _times(
    model: LatentModel, guess: xr.DataArray, given: Mapping[str, Any]
) -> tuple[xr.DataArray, xr.DataArray, Float, Float]:
    """Time of the first guess, those of the analyses, and the intervals between."""
    start = model.time_of(guess)
    if start is None:
        raise ParameterError(
            "the first guess has no time, so that it is not known how long the first forecast is; "
            'give it one, such as with first_guess.assign_coords(time=np.datetime64("2020-01-01"))'
        )
    name = find_time_dim(guess) or model.time_name
    times = given["times"]
    if times is None:
        times = times_of(given["obs"], given["value"])
    if times is None:
        ends = [find_time(one).max() for one in given["obs"].values()]
        last = max(float(model.clock.positions(one.expand_dims("t"), start)[0]) for one in ends)
        found, gaps, days = future_times(
            model.clock, start, max(1, int(np.ceil(last - 0.5))), None, name
        )
        return start, found, gaps, days
    when = as_times(times, start.expand_dims(name))
    when = xr.DataArray(when.values, dims=name)
    at = model.clock.positions(when, start)
    if at.size and abs(at[0]) < 1e-6:  # an analysis of the first guess itself
        rest = (when[1:], np.empty(0), np.empty(0))
        if at.size > 1:
            rest = future_times(model.clock, start, None, when[1:], name)
        gaps = np.concatenate([[0.0], rest[1]])
        return (
            start,
            when,
            gaps,
            np.concatenate([model.clock.days(start.expand_dims("t")), rest[2]]),
        )
    return start, *future_times(model.clock, start, None, when, name)

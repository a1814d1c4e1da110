"""The face of assimilation: labelled ensembles or parameters, and labelled observations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import Seed, resolve_seed
from xr_spde.assim.analysis import analyse
from xr_spde.assim.disturb import disturb
from xr_spde.assim.ensembles import pair, read_ensemble
from xr_spde.assim.filters import FILTERS
from xr_spde.assim.inflation import Adaptive, check_inflation, check_share
from xr_spde.assim.kriging import condition
from xr_spde.assim.latent.apply import dispatch
from xr_spde.assim.latent.model import LatentModel
from xr_spde.assim.localization import TAPERS, check_radius
from xr_spde.assim.mapping import MAPPINGS, interpolate
from xr_spde.assim.neural_apply import NEURAL, apply_solver
from xr_spde.assim.observations import Observations
from xr_spde.assim.update import Settings, smallest_step
from xr_spde.labels.grid import Grid
from xr_spde.labels.prior_schema import is_prior
from xr_spde.labels.schema import is_parameters
from xr_spde.models import Buffer

__all__ = ["METHODS", "assimilate"]

METHODS = ("auto", "letkf", *FILTERS, "kalman", "oi", "oi-gaussian", NEURAL)
"""Methods by name."""

Given = xr.DataArray | xr.Dataset | Observations
_ENSEMBLE = {
    "dim": None, "localization": None, "taper": "gaspari-cohn", "inflation": 1.0, "rtps": 0.0,
    "rtpp": 0.0, "rotate": False, "window": None, "model_noise": None,
}  # fmt: skip
_EXACT = {
    "n": 0, "route": "auto", "solver": "auto", "boundary": None, "buffer": "auto",
    "chunks": "auto", "dtype": None,
}  # fmt: skip


def assimilate(
    obj: xr.DataArray | xr.Dataset,
    obs: Given | Mapping[str, Given] | None = None,
    *,
    method: str = "auto",
    prior: xr.Dataset | None = None,
    model: Any = None,
    dim: str | None = None,
    obs_error: Any = None,
    localization: float | None = None,
    taper: str = "gaspari-cohn",
    inflation: float | Adaptive = 1.0,
    rtps: float = 0.0,
    rtpp: float = 0.0,
    rotate: bool = False,
    threshold: float | None = None,
    operator: str | Callable[[Any], Any] | Any = "auto",
    footprint: float | tuple[int, int] | None = None,
    unusable: str = "raise",
    window: np.timedelta64 | timedelta | None = None,
    model_noise: Any = None,
    seed: Seed = None,
    value: str | None = None,
    obs_x: str | None = None,
    obs_y: str | None = None,
    n: int = 0,
    route: str = "auto",
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    chunks: int | Literal["auto"] = "auto",
    dtype: DTypeLike | None = None,
    x: str | None = None,
    y: str | None = None,
    **mapping: Any,
) -> xr.Dataset:
    """Bring observations into an ensemble, or into the Gaussian field of parameters or of a prior.

    Parameters
    ----------
    obj : DataArray or Dataset
        An ensemble (realization, ..., Y, X), of one variable or, as a Dataset, of several, of which
        those that are not observed change as the members say they do together. Or parameters as
        `xr_spde.sar.estimate` returns them, which are conditioned exactly. Or the prior of a field
        in space and time, as `xr_spde.assim.spde_prior` returns it; a first guess of such a field,
        with ``prior=``; or the observations themselves, with ``prior=`` and without `obs`.
    obs : DataArray, Dataset, Observations, or mapping of str to these
        Gridded with NaN, or points along one dimension; see
        `xr_spde.assim.observations.read_observations`. For an ensemble of several variables, named
        like the one that was observed, or a mapping by name. Read at once.
    method : {"auto", "letkf", "etkf", "denkf", "enkf", "serial", "senkf", "etkf-q", "oi", \
            "oi-gaussian", "4dvarnet", "kalman"}
        "auto" is "letkf" for ensembles, the only one that is localised; the others are global
        (:mod:`xr_spde.assim.filters`) and belong to ensembles with more members than the fields
        have degrees of freedom. Parameters and priors know "oi"; "oi-gaussian" is the baseline of
        the mapping challenges; "4dvarnet" and "kalman" are of a ``model=``.
    prior : Dataset, optional
        Of a field in space and time.
    model : NeuralSolver, LatentModel, str or path, optional
        A trained solver, such as `xr_spde.assim.load_solver` returns it, or its name; see
        `xr_spde.assim.neural_apply.apply_solver` for its arguments and what is returned. Or a
        latent model, which takes `obj` for a first guess of one time; see
        `xr_spde.assim.latent.apply.assimilate_latent`.
    dim : str, optional
        Dimension of the members.
    obs_error : float, array_like, AlongTrack, ErrorModel or mapping, optional
        Standard deviation in the units of the observations; by default from a variable of theirs.
        This and the five below may be mappings by variable.
    localization : float, optional
        Of "letkf": metres, from a point to where observations lose their last influence. By
        default the one with which observations predict one another best
        (:mod:`xr_spde.assim.radius`); the result says it. In units of the coordinates where these
        have no length.
    taper : {"gaspari-cohn", "boxcar"}, default "gaspari-cohn"
        Of "letkf": weight by distance.
    inflation : float or Adaptive, default 1
        Factor >= 1 on analysed anomalies; an `Adaptive` inflates the forecast instead, by what the
        innovations say.
    rtps, rtpp : float, default 0
        Relaxation to prior spread or to prior perturbations, in [0, 1].
    rotate : bool, default False
        Rotate anomalies at random, mean and covariance kept.
    threshold : float, optional
        Reject observations whose innovation exceeds so many expected standard deviations; by
        default none.
    operator, footprint, unusable, value, obs_x, obs_y
        As in `read_observations`. Land is where all members are NaN.
    window : timedelta, optional
        Use observations up to so much before and after the time of the fields.
    model_noise : float, DataArray (Y, X), or mapping of str to these, optional
        Variance of noise that is added to the forecast first: into its square root for "etkf-q",
        which needs it, drawn for the others. For ensembles in memory.
    seed : int, SeedSequence, Generator or None
        Of all that is random.
    n, route, solver, boundary, buffer, chunks, dtype
        For parameters only: number of draws and how to compute; see
        `xr_spde.assim.kriging.condition`.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.
    **mapping
        Of maps in space and time: ``times``, ``lead``, ``block``, ``halo``, ``draws``, ``tol``,
        ``lx``, ``ly``, ``lt``, ``std``; see `xr_spde.assim.mapping.interpolate`, which also says
        what is returned then. Of a solver: ``times``, ``like``, ``lead``, ``stride``, ``patch``,
        ``overlap``, ``draws``, ``parameters``, ``recalibrate``.

    Returns
    -------
    Dataset
        The analysed ensemble under its own name (``ensemble`` where it has none), ``mean``, ``std``
        and ``increment`` of the mean (..., Y, X); ``innovation`` (observed minus forecast mean) and
        ``status`` (what became of it) of each observation; ``observations_used``,
        ``innovation_mean``, ``innovation_rms``, ``innovation_expected_rms`` and ``chi_square``,
        which is near the number of observations where ensemble and errors are right. For a Dataset
        of several variables all but the last have the name of the variable in front (``z_mean``).
        ``localization`` says the radius, ``inflation`` the variance factor of an `Adaptive`. Lazy
        where the ensemble is. For parameters see `xr_spde.assim.kriging.condition`.

    Raises
    ------
    ParameterError
        An ensemble of one, members with NaN where others have numbers, no observation that can be
        used, all rejected, errors that are not positive, an inflation below 1, other calendars, or
        an argument that belongs to another kind of data.
    UnknownNameError, AxisNotFoundError, GridError, DTypeError
        As for `read_observations`.

    Warns
    -----
    UserWarning
        If the radius of localisation is shorter than the step of the grid.

    Notes
    -----
    Leading dimensions (time, level) that the observations have too are mapped over, each index by
    itself; an index without observations stays as it is. Of those that they lack, a scalar
    coordinate of the observations says which was observed, and all are updated together, as
    further variables are. Points with times are shared out among the times of the fields by
    ``window``. With a forecast between the times, use `cycle`.

    On dask, what the observations touch is gathered first, and horizontal blocks are analysed one
    by one, each with all its members: best chunked in the horizontal only. An ensemble larger than
    an eighth of the memory budget is read twice for it. The numbers of "letkf" do not depend on the
    chunks, bit for bit; those of the others to rounding.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim import assimilate
    >>> coords = {"lat": np.arange(4.0), "lon": np.arange(5.0)}
    >>> z = np.random.default_rng(0).standard_normal((10, 4, 5))
    >>> ens = xr.DataArray(z, coords, ("realization", "lat", "lon"), name="z")
    >>> place = {"lat": ("obs", [2.0]), "lon": ("obs", [3.0])}
    >>> obs = xr.DataArray([1.5], place, "obs")
    >>> post = assimilate(ens, obs, method="etkf", obs_error=0.01)
    >>> post["mean"].sel(lat=2, lon=3).item()
    1.5
    """
    reading = {"obs_error": obs_error, "operator": operator, "footprint": footprint}
    reading |= {"unusable": unusable, "value": value, "obs_x": obs_x, "obs_y": obs_y}
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    given = locals()
    if isinstance(model, LatentModel):
        return dispatch(obj, obs, given, {**_ENSEMBLE, **_EXACT, **_OF_READING, "prior": None})
    if model is not None or method == NEURAL:
        return _solved(obj, obs, given)
    if prior is not None or method == "oi-gaussian" or is_prior(obj):
        return _mapped(obj, obs, given)
    if mapping:
        raise ParameterError(
            f"{', '.join(mapping)}: no argument for ensembles and parameters; maps in space and "
            "time need prior= or model="
        )
    if obs is None:
        raise ParameterError("obs is missing; expected observations, or prior= beside them")
    exact = isinstance(obj, xr.Dataset) and is_parameters(obj)
    if method == "kalman":
        raise ParameterError('method="kalman" needs model=, a latent model of linear dynamics')
    _refuse(given, _ENSEMBLE if exact else _EXACT, exact=exact)
    if exact:
        if method not in ("auto", "oi"):
            raise ParameterError(
                f"method={method!r} needs an ensemble, and parameters were given; draw one with "
                "params.sar.emulate(100), or leave the method out: parameters are conditioned "
                "exactly"
            )
        own = {name: given[name] for name in _EXACT}
        one: Any = obs
        params: Any = obj
        return condition(params, one, seed=seed, threshold=threshold, x=x, y=y, **own, **reading)
    ensemble = read_ensemble(obj, dim, x=x, y=y)
    settings = _settings(given, ensemble.grid)
    observed = pair(ensemble, obs, reading)
    if model_noise is not None:
        how = "deterministic" if settings.method == "etkf-q" else "sampled"
        ensemble = disturb(ensemble, model_noise, how=how, seed=settings.entropy)
    elif settings.method == "etkf-q":
        raise ParameterError(
            'method="etkf-q" is the ETKF with model noise in its square root, and model_noise= was '
            'not given; type for instance model_noise=0.01, a variance, or method="etkf"'
        )
    result = analyse(ensemble, observed, settings, window=window)
    return result.assign_attrs(Conventions="CF-1.11", **_provenance(settings))


def _mapped(obj: Any, obs: Any, given: dict[str, Any]) -> xr.Dataset:
    """Interpolate in space and time."""
    method = "oi" if given["method"] == "auto" else given["method"]
    if method not in MAPPINGS:
        raise ParameterError(
            f"method={method!r} needs an ensemble, and a prior in space and time was given; its "
            f"methods are {', '.join(map(repr, MAPPINGS))}"
        )
    foreign = {**_ENSEMBLE, **_EXACT}
    names = ("n", "solver", "dtype")
    _refuse(given, {k: v for k, v in foreign.items() if k not in names}, exact=True)
    own = {name: given[name] for name in (*names, "prior", "seed", "threshold", "x", "y")}
    settings = {**given["reading"], **own, **given["mapping"]}
    _refuse_unknown(interpolate, settings)
    return interpolate(obj, obs, method=method, **settings)


_OF_READING = {"operator": "auto", "footprint": None}


def _solved(obj: Any, obs: Any, given: dict[str, Any]) -> xr.Dataset:
    """Map with a trained solver."""
    model, method = given["model"], given["method"]
    if model is None:
        raise ParameterError(
            f'method="{NEURAL}" needs model=, a trained solver; fit one with truth.assim.fit(), or '
            'type model="sea-level" for the one that comes with the package'
        )
    if method not in ("auto", NEURAL):
        raise ParameterError(
            f'method={method!r} and model= were given; a trained solver is method="{NEURAL}": '
            "leave one of the two out"
        )
    if given["prior"] is not None or is_prior(obj):
        raise ParameterError(
            "a prior and a trained solver were given, which brings its own; leave prior= or model= "
            "out"
        )
    foreign = {**_ENSEMBLE, **_EXACT, **_OF_READING}
    kept = ("n", "dtype")
    found = [k for k, usual in foreign.items() if k not in kept and given[k] is not usual]
    found = [k for k in found if given[k] != foreign[k]]
    if found:
        raise ParameterError(
            f"{', '.join(found)}: no argument of a trained solver, which maps means of cells; "
            "leave out"
        )
    reading = {k: v for k, v in given["reading"].items() if k not in _OF_READING}
    own = {name: given[name] for name in (*kept, "model", "seed", "threshold", "x", "y")}
    settings = {**reading, **own, **given["mapping"]}
    _refuse_unknown(apply_solver, settings)
    return apply_solver(obj, obs, **settings)


def _refuse_unknown(function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Refuse arguments that a function does not have."""
    known = set(inspect.signature(function).parameters)
    wrong = sorted(set(settings) - known)
    if wrong:
        raise unknown("argument", wrong[0], sorted(known))


def _refuse(given: Mapping[str, Any], foreign: Mapping[str, Any], *, exact: bool) -> None:
    """Refuse arguments that belong to the other kind of data."""
    found = [name for name, usual in foreign.items() if given[name] is not usual]
    found = [name for name in found if given[name] != foreign[name]]
    if found:
        kind, other = ("parameters", "an ensemble") if exact else ("an ensemble", "parameters")
        raise ParameterError(
            f"{', '.join(found)} belong{'s' if len(found) == 1 else ''} to {other}, and {kind} "
            f"{'were' if exact else 'was'} given; leave {'it' if len(found) == 1 else 'them'} out"
        )


def _settings(given: Mapping[str, Any], grid: Grid) -> Settings:
    """Check what can be checked before anything is computed."""
    for name in ("inflation", "rtps", "rtpp", "threshold"):
        _refuse_words(name, given[name])
    method, localization, inflation = given["method"], given["localization"], given["inflation"]
    method = "letkf" if method == "auto" else method
    if method == "oi":
        raise ParameterError(
            'method="oi" needs the covariance of a Gaussian field, and an ensemble was given; '
            "estimate its parameters with .sar.estimate(), and assimilate into these; for maps in "
            "space and time give prior="
        )
    if method != "letkf" and (localization is not None or given["taper"] != "gaspari-cohn"):
        raise ParameterError(
            f"localization= and taper= belong to letkf, and method={method!r} is global; leave "
            'them out, or type method="letkf"'
        )
    if given["taper"] not in TAPERS:
        raise unknown("taper", given["taper"], TAPERS)
    if localization is not None and np.isfinite(check_radius(localization)):
        check_radius(localization, smallest_step(grid))
    if not isinstance(inflation, Adaptive):
        check_inflation(inflation)
    threshold = given["threshold"]
    if threshold is not None and not threshold > 0.0:
        raise ParameterError(
            f"threshold={threshold!r} was given; expected standard deviations > 0, such as 4"
        )
    return Settings(
        method=method,
        localization=localization,
        taper=given["taper"],
        inflation=inflation,
        rtps=check_share("rtps", given["rtps"]),
        rtpp=check_share("rtpp", given["rtpp"]),
        rotate=bool(given["rotate"]),
        entropy=resolve_seed(given["seed"]),
        threshold=threshold,
    )


def _refuse_words(name: str, value: Any) -> None:
    """Refuse what no number can be compared with."""
    if isinstance(value, str | bytes | complex | list | tuple | dict):
        raise ParameterError(f"{name}={value!r} was given; expected one number")


def _provenance(settings: Settings) -> dict[str, Any]:
    adaptive = isinstance(settings.inflation, Adaptive)
    random = settings.rotate or settings.method in ("enkf", "senkf")
    return provenance(
        settings.method,
        localization=settings.localization,
        taper=settings.taper if settings.method == "letkf" else None,
        inflation="adaptive" if adaptive else settings.inflation,
        rtps=settings.rtps,
        rtpp=settings.rtpp,
        rotate=settings.rotate,
        threshold=settings.threshold,
        seed=settings.entropy if random else None,
    )

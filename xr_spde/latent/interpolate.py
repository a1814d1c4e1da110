"""Images at times between those that were taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import resolve_seed
from xr_spde.fields.evolution import Operator
from xr_spde.fields.transport import operator as known_operator
from xr_spde.labels.arrays import array_of
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.latent.baselines import BASELINES, baseline
from xr_spde.latent.carrying import carried_frames, described, follows_values
from xr_spde.latent.intervals import check_calibration, frame_errors, uncertain_frames
from xr_spde.latent.labelled_model import latent_frames
from xr_spde.latent.paths import check_path
from xr_spde.latent.reading import ImageSequence

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = ["METHODS", "interpolate"]

METHODS = ("field", "latent", "linear", "flow", "transport")

_SLACK = 1e-9


def interpolate(
    obj: xr.DataArray | xr.Dataset,
    time: Any,
    *,
    method: str = "field",
    motion: xr.Dataset | None = None,
    model: LatentDynamics | None = None,
    extrapolate: bool = False,
    kernel: str = "cubic",
    blend: str = "auto",
    path: str = "smooth",
    operator: str | Operator | Callable[..., Any] = "advection",
    parameters: Mapping[str, Any] | None = None,
    brightness: str = "auto",
    search: float = 0.25,
    smoothness: float | None = None,
    tile: int | str = "auto",
    halo: int | str = "auto",
    uncertainty: bool = False,
    calibration: xr.Dataset | None = None,
    level: float = 0.9,
    seed: Seed = 0,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> Any:
    """Images at any times between the frames of a sequence.

    Parameters
    ----------
    obj : DataArray or Dataset
        Two or more images (time, y, x); further dimensions are mapped over, variables of a Dataset
        one by one. NaN is missing and travels with the motion. Speckled radar images should be in
        dB.
    time : str, date, number, or array_like of these
        One time, or several along the time axis; dates of every CF calendar as ISO strings too.
    method : {"field", "latent", "linear", "flow", "transport"}
        "field" follows the motion from either neighbour (`xr_spde.latent.motion`); "latent"
        fits encoder, motion and decoder to all frames (needs torch); the others are what people use
        today, for comparison (`xr_spde.latent.baselines`, "flow" and "transport" need the extra
        ``frames``; so do "farneback", "dis", "dis-splat" and "transport-exact").
    motion : Dataset, optional
        Of "field": what `velocity` returned for these frames, instead of a new fit.
    model : LatentDynamics, optional
        Of "latent": what `fit` returned for these frames, instead of a new fit.
    extrapolate : bool, default False
        Whether times before the first or after the last frame are allowed ("field", "latent").
    kernel, blend
        Of "field"; see `xr_spde.latent.frames.frame_between`. ``blend="expected"`` is for images
        that change as they move, such as rain.
    path : {"smooth", "steady"}
        Of "field": whether velocities change smoothly from pair to pair, or each pair has a steady
        one of its own; see `xr_spde.latent.sequence`.
    operator : str, Operator or callable
        What happens on the way, between the frames and beyond them. Of "field": a name of
        `xr_spde.fields.transport.OPERATORS` ("conservation" keeps amounts, "advection-source" lets
        them grow or fade, "advection-diffusion" smooths ...), an object with its interface, or a
        function (state, params, tau, cells); see `xr_spde.latent.operators`. Where values do not
        stay as they are, the fit follows patterns (brightness "varying"). Of "latent": a setting.
    parameters : mapping, optional
        What the operator needs besides the velocity, numbers or DataArrays (y, x) in m and s, such
        as ``{"diffusivity": 50.0}`` (m2 s-1).
    brightness, search, smoothness
        Of "field"; see `xr_spde.latent.motion.fit_motion`.
    tile, halo : int or "auto"
        Of "field": cells of a tile and around it, see `xr_spde.latent.scenes.tile_plan`; by default
        scenes of up to 4 million cells are taken whole. ``blend="expected"`` takes all whole, and
        tiles are searched for neither layers nor change.
    uncertainty : bool, default False
        Of "field" and "latent": whether to add what tells how far the frames can be trusted.
    calibration : Dataset, optional
        What `calibrate` returned for images of this kind: with it ``uncertainty`` adds errors.
    level : float, default 0.9
        Of the calibration: probability with which the truth is to lie in the interval.
    seed : int, SeedSequence, Generator or None
        Of "latent"; the other methods draw nothing.
    dim : str, optional
        Name of the time axis.
    x, y : str, optional
        Names of the horizontal axes.
    **settings
        Of "latent"; see `xr_spde.latent.fit.fit_latent_dynamics`.

    Returns
    -------
    DataArray or Dataset
        Like ``obj`` at the new times, with its attributes; lazy where it is, with one task per fit
        and one per frame. Variables without times come along unchanged. With ``uncertainty`` a
        Dataset: the images, ``disagreement`` (what the second image says less what the first one
        says, NaN where one alone speaks) and ``seen`` (how many of the two show the place); with a
        ``calibration`` also the standard deviation of the ``error`` and the interval from ``lower``
        to ``upper``, NaN where the calibration knows nothing or the time is extrapolated.

    Raises
    ------
    ParameterError
        Fewer than two frames, times that do not increase or lie outside without ``extrapolate``,
        frames without data or constant, or a motion of other frames.
    GridError
        No regular grid, or latitudes beyond 85 degrees.
    UnknownNameError
        For another method.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.latent import interpolate
    >>> from xr_spde.latent.cases import make_case
    >>> case = make_case("tex_rot", 32)
    >>> pair = xr.DataArray([case.u0, case.u1], {"time": [0.0, 6.0]}, ("time", "y", "x"))
    >>> interpolate(pair, [2.0, 3.0, 4.0]).sizes["time"]
    3
    """
    if method not in METHODS and method not in BASELINES:
        raise unknown("method", method, dict.fromkeys((*METHODS, *BASELINES)))
    other = operator != "advection"
    if method == "latent" and other:
        settings = {"operator": operator, **settings}
    chosen = {
        "path": path != "smooth",
        "operator": other and method != "latent",
        "parameters": parameters is not None,
    }
    _check_arguments(method, motion, model, chosen, extrapolate, uncertainty, settings)
    check_path(path, motion=motion)
    if calibration is not None:
        if not uncertainty:
            raise ParameterError("calibration= means nothing without uncertainty=True; add it")
        check_calibration(calibration, level, method)
    sizes = {"tile": tile, "halo": halo}
    fit = {"brightness": brightness, "search": search, "smoothness": smoothness, **sizes}
    how = {"kernel": kernel, "blend": blend}
    one = partial(
        _interpolated,
        time=time,
        method=method,
        given=motion if method == "field" else model,
        extrapolate=extrapolate,
        plan=_field_plan(fit, path, how, operator, parameters)
        if method == "field"
        else {"seed": resolve_seed(seed), **settings},
        uncertainty=uncertainty,
        calibration=None if calibration is None else (calibration, level),
        axes={"dim": dim, "x": x, "y": y},
    )
    if isinstance(obj, xr.DataArray):
        return one(obj)
    return _each_variable(obj, one, uncertainty, model, dim=dim, x=x, y=y)


def _field_plan(
    fit: Mapping[str, Any],
    path: str,
    how: Mapping[str, str],
    operator: str | Operator | Callable[..., Any],
    parameters: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Collect the settings of `carried_frames`."""
    which = known_operator(operator)
    settings = dict(fit)
    if settings["brightness"] == "auto" and not follows_values(which):
        settings["brightness"] = "varying"
    fitting = {"settings": settings, "path": path}
    given = dict(parameters or {})
    return {"fitting": fitting, "how": how, "operator": which, "parameters": given}


def _each_variable(
    ds: xr.Dataset,
    one: Callable[[xr.DataArray], Any],
    uncertainty: bool,
    model: Any,
    **axes: str | None,
) -> xr.Dataset:
    """Variables with times one by one, the others as they are."""
    if uncertainty:
        raise ParameterError("uncertainty=True takes one variable; select it, such as ds['name']")
    frames = ImageSequence.of(array_of(ds, x=axes["x"], y=axes["y"]), **axes)
    dim = frames.time.dim
    space = {frames.grid.y_dim, frames.grid.x_dim}
    moving = [
        name
        for name, da in ds.data_vars.items()
        if {dim, *space} <= set(da.dims) and da.dtype.kind in "fiub"
    ]
    if model is not None and len(moving) > 1:
        raise ParameterError(
            f"a model holds the images of one variable, and there are {moving}; select one of them"
        )
    still = {name: da for name, da in ds.data_vars.items() if dim not in da.dims}
    made = {name: one(ds[name]) for name in moving}
    return xr.Dataset(
        {name: {**made, **still}[name] for name in ds if name in {**made, **still}}, attrs=ds.attrs
    )


def _interpolated(
    da: xr.DataArray,
    *,
    time: Any,
    method: str,
    given: Any,
    extrapolate: bool,
    plan: Mapping[str, Any],
    uncertainty: bool,
    calibration: tuple[xr.Dataset, float] | None,
    axes: Mapping[str, str | None],
) -> Any:
    """Frames of one variable."""
    frames = ImageSequence.of(da, **axes)
    when, numbers = frames.time.read(time)
    which, tau = _places(frames, numbers, when, extrapolate)
    if method == "field":
        made = carried_frames(frames, which, tau, motion=given, **plan)
    elif method == "latent":
        made = latent_frames(frames, np.atleast_1d(numbers), given, **plan)
    else:
        made = _blended(frames, which, tau, method)
    if calibration is not None:
        made = {**made, **frame_errors(frames, which, tau, made, *calibration)}
    told = {} if method != "field" else {"operator": described(plan["operator"])}
    how = provenance("interpolate", interpolation=method, **told)
    results = {name: _labelled(part, da, when, frames.time.dim) for name, part in made.items()}
    image = results["image"].assign_attrs({**da.attrs, **how}).rename(da.name)
    if not uncertainty:
        return image
    return uncertain_frames(image, results).assign_attrs(how)


def _check_arguments(
    method: str,
    motion: xr.Dataset | None,
    model: Any,
    chosen: Mapping[str, bool],
    extrapolate: bool,
    uncertainty: bool,
    settings: Mapping[str, Any],
) -> None:
    """Refuse what the method would ignore."""
    wrong = {
        "motion": motion is not None and method != "field",
        "model": model is not None and method != "latent",
        **{name: told and method != "field" for name, told in chosen.items()},
        "extrapolate": extrapolate and method not in ("field", "latent"),
        "uncertainty": uncertainty and method not in ("field", "latent"),
        **dict.fromkeys(settings, method != "latent"),
    }
    for name, bad in wrong.items():
        if bad:
            raise ParameterError(
                f'{name}= means nothing to method={method!r}; leave it away, or choose method="'
                f'{"latent" if name == "model" or name in settings else "field"}"'
            )


def _places(
    frames: ImageSequence, numbers: NDArray[np.float64], when: xr.DataArray, extrapolate: bool
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Interval of each time and its share of that."""
    known, asked = frames.time.numbers, np.atleast_1d(numbers)
    slack = _SLACK * (known[-1] - known[0])
    outside = (asked < known[0] - slack) | (asked > known[-1] + slack)
    if outside.any() and not extrapolate:
        first, last = (frames.time.coordinate.values[k] for k in (0, -1))
        raise ParameterError(
            f"time={np.atleast_1d(when.values)[outside][0]} is outside the frames, which reach "
            f"from {first} to {last}; give times between, or extrapolate=True"
        )
    which = np.clip(np.searchsorted(known, asked, side="right") - 1, 0, known.size - 2)
    tau = (asked - known[which]) / frames.lengths[which]
    return which, tau if extrapolate else np.clip(tau, 0.0, 1.0)


def _blended(
    frames: ImageSequence, which: NDArray[np.intp], tau: NDArray[np.float64], method: str
) -> dict[str, xr.DataArray]:
    """Frames by what people use today."""
    dim = frames.time.dim
    first, second = frames.ends(which, dim)
    space = (frames.grid.y_dim, frames.grid.x_dim)
    return apply_core(
        _baseline_frame,
        first,
        second,
        xr.DataArray(tau, dims=dim),
        core_dims=[space, space, ()],
        output={"image": Output(space, frames.data.dtype)},
        kwargs={"grid": frames.grid, "method": method},
    )


def _baseline_frame(
    u0: NDArray[Any], u1: NDArray[Any], tau: NDArray[np.float64], *, grid: Grid, method: str
) -> NDArray[Any]:
    first, second = (grid.to_canonical(u) for u in (u0, u1))
    frame, _ = baseline(first, second, float(tau), method=method)
    return grid.from_canonical(frame)


def _labelled(part: xr.DataArray, da: xr.DataArray, when: xr.DataArray, dim: str) -> xr.DataArray:
    """Dimensions in the order of the data; the new times."""
    found = part.drop_attrs()
    if not when.ndim:
        found = found.isel({dim: 0})
    order = [d for d in da.dims if d != dim or when.ndim]
    return found.transpose(*order).assign_coords({dim: when.variable})

"""Methods scored on withheld frames of labelled images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import GridError, ParameterError, unknown
from xr_spde._core.lazyimport import has_module
from xr_spde._core.provenance import provenance
from xr_spde._core.warn import warn
from xr_spde.labels.arrays import array_of, as_float
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.latent.baselines import BASELINES
from xr_spde.latent.compare import score_of
from xr_spde.latent.frames import BLENDS
from xr_spde.latent.interpolate import interpolate
from xr_spde.latent.reading import ImageSequence

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = ["compare_methods", "known_frames", "places_between"]

_SCORES = {
    "rmse": "root mean square error",
    "ssim": "structural similarity",
    "sharpness": "mean squared gradient over that of the truth",
    "seconds": "CPU time of all frames",
    "missing": "share of the cells of the truth that the frame leaves missing",
}
_NEEDS = {
    "cv2": ("flow", "farneback", "dis", "dis-splat"),
    "ot": ("transport", "transport-exact"),
    "torch": ("latent",),
}


def compare_methods(
    obj: xr.DataArray | xr.Dataset,
    truth: xr.DataArray | xr.Dataset,
    *,
    methods: Sequence[str] | None = None,
    blend: str = "auto",
    model: LatentDynamics | None = None,
    seed: Seed = 0,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Score methods on frames that were taken and withheld.

    Parameters
    ----------
    obj : DataArray or Dataset
        Two or more images (time, y, x); further dimensions are mapped over.
    truth : DataArray or Dataset
        Images on the same grid at one or several times between, which are not in ``obj``; cells
        count where they are known.
    methods : sequence of str, optional
        Of `interpolate`: ``"field"``, ``"latent"`` (fitted once to all frames, which takes minutes)
        and names of `xr_spde.latent.baselines.BASELINES`; by default all but "latent". Those whose
        library is not installed are passed over with a warning.
    blend : {"auto", "area", "expected"}
        Of "field"; see `xr_spde.latent.frames.frame_between`.
    model : LatentDynamics, optional
        Of "latent": what `fit` returned for these frames, instead of a new fit.
    seed : int, SeedSequence, Generator or None
        Of "latent".
    dim : str, optional
        Name of the time axis.
    x, y : str, optional
        Names of the horizontal axes.
    **settings
        Of "latent"; see `xr_spde.latent.fit.fit_latent_dynamics`.

    Returns
    -------
    Dataset (time, ..., approach)
        ``rmse``, ``ssim`` (1 at best), ``sharpness`` (below 1 is blurred), ``missing`` and CPU
        ``seconds`` of all frames with the fit; ``.to_dataframe()`` prints the table. Lazy where
        ``obj`` is; seconds are then NaN, as steps overlap.

    Raises
    ------
    ParameterError
        A truth without a time, at the time of a frame, or outside the frames.
    GridError
        A truth on another grid.
    UnknownNameError
        An unknown method.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.latent import compare_methods
    >>> from xr_spde.latent.cases import make_case
    >>> case = make_case("tex_rot", 32)
    >>> stack = np.array([case.u0, case.frame(0.5), case.u1])
    >>> frames = xr.DataArray(stack, {"time": [0, 1, 2]}, ("time", "y", "x"))
    >>> scores = compare_methods(
    ...     frames.sel(time=[0, 2]), frames.sel(time=1), methods=["field", "linear"]
    ... )
    >>> bool(scores.rmse.sel(approach="field") < scores.rmse.sel(approach="linear"))
    True
    """
    methods = ("field", *BASELINES) if methods is None else methods
    _check(methods, blend, model, settings)
    da = array_of(obj, x=x, y=y)
    frames = ImageSequence.of(da, dim=dim, x=x, y=y)
    grid, axis = frames.grid, frames.time
    known = known_frames(as_float(array_of(truth, x=x, y=y)), frames)
    when, numbers = axis.read(known[axis.dim])
    places_between(frames, np.atleast_1d(numbers), np.atleast_1d(when.values))
    able = _able(methods)
    if not able:
        raise ParameterError("no method is left to compare; name some that need no library")
    scalar = axis.dim not in known.dims
    stack = known.expand_dims(axis.dim) if scalar else known
    lazy = is_lazy(da) or is_lazy(known)
    rows = []
    for name in able:
        given = {"model": model, "seed": seed, **settings} if name == "latent" else {}
        begun = time.process_time()
        found = interpolate(
            da, np.atleast_1d(when.values), method=name, blend=blend, dim=dim, x=x, y=y, **given
        )
        spent = float("nan") if lazy else time.process_time() - begun
        rows.append(_row(found, stack, grid, axis.dim).assign(seconds=spent))
    made = xr.concat(rows, "approach").transpose(..., "approach")
    made = made.isel({axis.dim: 0}) if scalar else made
    made = made.assign_coords({axis.dim: when.variable, "approach": list(able)})
    for name, text in _SCORES.items():
        units = {"rmse": da.attrs.get("units"), "seconds": "s"}.get(name, "1")
        made[name].attrs = {"long_name": text, **({"units": units} if units else {})}
    return made.assign_attrs(provenance("compare", blend=blend))


def _row(found: xr.DataArray, truth: xr.DataArray, grid: Grid, dim: str) -> xr.Dataset:
    """Scores of one method; lazy where the frames are."""
    space = (grid.y_dim, grid.x_dim)
    bare = []
    for da in (found, truth):
        names = [k for k, c in da.coords.items() if {dim, *space} & set(c.dims)]
        part = da.drop_vars(names).drop_attrs().transpose(dim, ..., *space)
        if is_lazy(part):
            part = part.chunk({d: -1 if d in space else 1 for d in part.dims})
        bare.append(part)
    scores = apply_core(
        _scored,
        *bare,
        core_dims=[space, space],
        output={name: Output(()) for name in _SCORES if name != "seconds"},
        kwargs={"grid": grid},
    )
    return xr.Dataset(scores).drop_attrs()


def _check(methods: Sequence[str], blend: str, model: Any, settings: Mapping[str, Any]) -> None:
    """Refuse unknown names, and what no method would use."""
    for name in methods:
        if name not in ("field", "latent", "flow", *BASELINES):
            raise unknown("method", name, ("field", "latent", "flow", *BASELINES))
    if blend not in BLENDS:
        raise unknown("blend", blend, BLENDS)
    if "latent" not in methods and (model is not None or settings):
        given = ["model"] if model is not None else list(settings)
        raise ParameterError(
            f'{given[0]}= is of "latent", which is not among methods={list(methods)}; add it, or '
            "leave this away"
        )


def known_frames(truth: xr.DataArray, frames: ImageSequence) -> xr.DataArray:
    """Check that withheld images lie on the grid of the frames.

    Parameters
    ----------
    truth : DataArray (..., y, x)
        With a coordinate of time.
    frames : ImageSequence
        From which they were withheld.

    Returns
    -------
    DataArray
        What came in.

    Raises
    ------
    ParameterError
        Without a time.
    GridError
        On another grid, or stored in another order.
    """
    grid, dim = frames.grid, frames.time.dim
    if dim not in truth.coords:
        raise ParameterError(
            f"truth has no coordinate {dim!r}, so its time is not known; add it with "
            f".assign_coords({dim}=...)"
        )
    missing = [d for d in (grid.y_dim, grid.x_dim) if d not in truth.dims]
    if missing:
        raise GridError(
            f"truth lacks the dimensions {missing} of the frames; give it on their grid"
        )
    own = Grid.from_object(truth, x=grid.x_dim, y=grid.y_dim)
    same_grid(grid, own, names=("the sequence of frames", "truth"))
    if (own.y_descending, own.x_descending, own.roll) != (
        grid.y_descending,
        grid.x_descending,
        grid.roll,
    ):
        raise GridError(
            "truth is stored in another order of cells than the frames; sort one of them"
        )
    return truth


def places_between(
    frames: ImageSequence, asked: NDArray[np.float64], labels: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Place times strictly between frames.

    Parameters
    ----------
    frames : ImageSequence
        The frames.
    asked : ndarray
        Times in the units of their axis.
    labels : ndarray
        The same for people.

    Returns
    -------
    which : ndarray of int
        Numbers of the intervals.
    tau : ndarray
        Share of the interval that has passed.

    Raises
    ------
    ParameterError
        A time of a frame, or outside.
    """
    known = frames.time.numbers
    bad = (asked < known[0]) | (asked > known[-1]) | np.isin(asked, known)
    if bad.any():
        raise ParameterError(
            f"truth at {labels[bad][0]} is not between the frames, or is one of them; withhold it "
            "from the frames first, for instance with .drop_sel()"
        )
    which = np.searchsorted(known, asked, side="right") - 1
    return which, (asked - known[which]) / frames.lengths[which]


def _able(methods: Sequence[str]) -> list[str]:
    """Methods whose library is installed; says which are passed over."""
    lacking = {k: [m for m in methods if m in v] for k, v in _NEEDS.items() if not has_module(k)}
    for library, names in lacking.items():
        if names:
            extra = "torch" if library == "torch" else "frames"
            warn(
                f"{library} is not installed, so {', '.join(map(repr, names))} are passed over; "
                f"type: pip install 'xr_spde[{extra}]'"
            )
    return [name for name in methods if not any(name in names for names in lacking.values())]


def _scored(
    frame: NDArray[Any], truth: NDArray[Any], *, grid: Grid
) -> Mapping[str, NDArray[np.float64]]:
    found, known = (grid.to_canonical(u).astype(np.float64) for u in (frame, truth))
    score = score_of("", found, known)
    return {name: np.array(getattr(score, name)) for name in _SCORES if name != "seconds"}

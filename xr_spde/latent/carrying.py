"""Frames of labelled sequences along the motion of each interval."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.cells import Cells
from xr_spde.fields.evolution import Operator
from xr_spde.fields.transport import OPERATORS, Advection, AdvectionSource, Conservation
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.lazy import Output, is_lazy
from xr_spde.labels.tile_map import Tile
from xr_spde.latent.frames import frame_between
from xr_spde.latent.layers import Layers, find_layers
from xr_spde.latent.operators import check_parameters, frame_by
from xr_spde.latent.paths import BOUND, fits_along, given_motion
from xr_spde.latent.reading import COMPONENT, INTERVAL, ImageSequence
from xr_spde.latent.sequence import ChangingMotion, settled
from xr_spde.latent.tiled import apply_to_scene
from xr_spde.solvers.cache import FACTORS

__all__ = ["carried_frames", "described", "fields_of", "follows_values", "same_order"]


def follows_values(which: Operator) -> bool:
    """Whether values stay as they are along the path, so that a fit may follow them.

    Parameters
    ----------
    which : Operator
        What happens on the way.

    Returns
    -------
    bool
        False of amounts that thin out as they spread, and of growth.
    """
    return not isinstance(which, AdvectionSource | Conservation)


def described(which: Operator) -> str:
    """Name of an operator: that of `xr_spde.fields.transport.OPERATORS`, or of its class.

    Parameters
    ----------
    which : Operator
        Any operator.

    Returns
    -------
    str
    """
    for name, make in OPERATORS.items():
        if type(make()) is type(which):
            return name
    return type(which).__name__


def fields_of(
    which: Operator, given: Mapping[str, Any], grid: Grid
) -> tuple[dict[str, float], dict[str, xr.DataArray]]:
    """Sort the parameters of an operator into numbers and fields.

    Parameters
    ----------
    which : Operator
        Whose parameters.
    given : mapping
        Numbers, and DataArrays on the grid of the images.
    grid : Grid
        That grid.

    Returns
    -------
    numbers : dict of float
    fields : dict of DataArray (..., y, x)
        One chunk over space where lazy.

    Raises
    ------
    ParameterError
        Missing or strange parameters, or values that are neither.
    GridError
        Fields on another grid.
    """
    check_parameters(which, given)
    numbers, fields = {}, {}
    for name, value in given.items():
        if isinstance(value, xr.DataArray) and value.ndim:
            own = Grid.from_object(value, x=grid.x_dim, y=grid.y_dim)
            same_grid(grid, own, names=("the images", f"parameter {name!r}"))
            same_order(own, grid, f"parameter {name!r}")
            space = {grid.y_dim: -1, grid.x_dim: -1}
            # labels of the images come back with the result
            bare = value.drop_vars(list(value.coords))
            fields[name] = bare.chunk(space) if is_lazy(bare) else bare
        elif np.ndim(value) == 0 and np.isreal(value) and np.isfinite(value):
            numbers[name] = float(value)
        else:
            raise ParameterError(
                f"parameter {name!r} is {type(value).__name__}; expected a number, or a DataArray "
                f"({grid.y_dim}, {grid.x_dim}) on the grid of the images"
            )
    return numbers, fields


def same_order(own: Grid, grid: Grid, what: str) -> None:
    """Refuse cells that are stored in another order than those of the images.

    Parameters
    ----------
    own : Grid
        Of what is given.
    grid : Grid
        Of the images.
    what : str
        Its name, for the message.

    Raises
    ------
    ParameterError
        Rows or columns run the other way, or begin elsewhere.
    """
    if (own.y_descending, own.x_descending, own.roll) != (
        grid.y_descending,
        grid.x_descending,
        grid.roll,
    ):
        raise ParameterError(f"{what} is stored in another direction than the images; sort one")


def carried_frames(
    frames: ImageSequence,
    which: NDArray[np.intp],
    tau: NDArray[np.float64],
    *,
    motion: xr.Dataset | None,
    fitting: Mapping[str, Any],
    how: Mapping[str, Any],
    operator: Operator,
    parameters: Mapping[str, Any],
) -> dict[str, xr.DataArray]:
    """Make frames along the motion of each interval.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    which : ndarray of int
        Interval of each frame.
    tau : ndarray
        Its time as a share of the interval.
    motion : Dataset, optional
        What `velocity` returned; fitted here where not given.
    fitting : mapping
        ``settings`` and ``path`` of `xr_spde.latent.paths.fits_along`.
    how : mapping
        ``kernel`` and ``blend`` of `xr_spde.latent.frames.frame_between`, for plain advection.
    operator : Operator
        What happens on the way.
    parameters : mapping
        Of the operator, see `fields_of`; in seconds where the time axis has a unit.

    Returns
    -------
    dict of DataArray (time, ...)
        ``image``, ``disagreement`` and ``seen``.
    """
    numbers, fields = fields_of(operator, parameters, frames.grid)
    needed, place = np.unique(which, return_inverse=True)
    if motion is None:
        fitted = fits_along(frames, needed, **fitting)
    else:
        fitted = {k: q.isel({INTERVAL: needed}) for k, q in given_motion(frames, motion).items()}
    dim = frames.time.dim
    # scales are blended over the whole image, and an operator may look anywhere
    local = operator == Advection() and how["blend"] != "expected"
    settings = fitting["settings"] if local else None
    whole = frames.plan(settings) is None
    first, second = frames.ends(which, dim, whole=whole)
    space = (frames.grid.y_dim, frames.grid.x_dim)
    core = {"q": (COMPONENT, *space), "ends": (BOUND, COMPONENT, *space)}
    core = {name: dims for name, dims in core.items() if name in fitted}
    moved = []
    for name, dims in core.items():
        q = fitted[name].isel({INTERVAL: xr.DataArray(place, dims=dim)})
        one = {d: -1 if d in dims else 1 for d in q.dims}
        moved.append(q.chunk(one) if whole and is_lazy(q) else q)
    names = (*core, *fields)
    return apply_to_scene(
        frames,
        settings,
        partial(_frame, names=names, how=dict(how), operator=operator, numbers=numbers),
        first,
        second,
        xr.DataArray(tau, dims=dim),
        xr.DataArray(frames.lengths[which], dims=dim),
        *moved,
        *fields.values(),
        core_dims=[space, space, (), (), *core.values(), *[space] * len(fields)],
        output={
            "image": Output(space, frames.data.dtype),
            "disagreement": Output(space, frames.data.dtype),
            "seen": Output(space, np.int8),
        },
    )


def _frame(
    u0: NDArray[Any],
    u1: NDArray[Any],
    tau: NDArray[np.float64],
    length: NDArray[np.float64],
    *moved: NDArray[Any],
    grid: Grid,
    cells: Cells,
    names: Sequence[str],
    how: Mapping[str, str],
    operator: Operator,
    numbers: Mapping[str, float],
    tile: Tile | None = None,
) -> dict[str, Any]:
    """One frame; ``moved`` are the velocity, its ends if any, and fields of the operator."""
    given = {
        name: np.ascontiguousarray(grid.to_canonical(part))
        for name, part in zip(names, moved, strict=True)
    }
    q, ends = given.pop("q"), given.pop("ends", None)
    first, second = (grid.to_canonical(u) for u in (u0, u1))
    layers = None
    # a tile does not show how a layer goes on outside, nor what changes in the scene, and its
    # neighbours could decide otherwise
    if tile is not None:
        how = {**how, "blend": "area"}
    else:
        ends = None if ends is None or settled(q, ends) else ends
        if operator == Advection() and how.get("blend") == "auto" and ends is None:
            layers = _layers(first, second, q, cells)
    motion = ChangingMotion(q, cells, float("nan"), ends=ends, layers=layers)
    if operator == Advection():
        made = frame_between(first, second, motion, float(tau), extrapolate=True, **how)
    else:
        made = frame_by(
            first,
            second,
            motion,
            float(tau),
            operator,
            {**numbers, **given},
            length=float(length),
        )
    parts = {"image": made.image, "disagreement": made.disagreement, "seen": made.seen}
    return {name: grid.from_canonical(part) for name, part in parts.items()}


@dataclass(frozen=True)
class _Found:
    """Layers or none, as the cache keeps them."""

    layers: Layers | None

    @property
    def nbytes(self) -> int:
        return 0 if self.layers is None else self.layers.nbytes


def _layers(u0: NDArray[Any], u1: NDArray[Any], q: NDArray[Any], cells: Cells) -> Layers | None:
    """Layers of one interval, looked for once for all its frames."""
    content = hashlib.blake2b(digest_size=20)
    for part in (u0, u1, q):
        content.update(f"{part.shape} {part.dtype}".encode())
        content.update(part.tobytes())
    wrap = cells.periodic_x
    key = ("layers", wrap, content.hexdigest())
    return FACTORS.get(key, lambda: _Found(find_layers(u0, u1, q, periodic_x=wrap))).layers

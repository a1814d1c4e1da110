"""The latent model on labelled images: fit, states, and frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.cells import Cells
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.latent.fit import fit_latent_dynamics
from xr_spde.latent.reading import COMPONENT, INTERVAL, ImageSequence

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = [
    "check_model",
    "decode",
    "encode",
    "fit",
    "fitted_models",
    "latent_frames",
    "latent_motion",
]

_MOMENT, _BOX = "_moment", "_box"


def fit(
    da: xr.DataArray,
    *,
    seed: Seed = 0,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> LatentDynamics:
    """Fit encoder, motion and decoder to a sequence of images (needs torch).

    Parameters
    ----------
    da : DataArray
        Two or more images (time, y, x), without further dimensions; computed if lazy.
    seed : int, SeedSequence, Generator or None
        Of the networks and windows.
    dim : str, optional
        Name of the time axis.
    x, y : str, optional
        Names of the horizontal axes.
    **settings
        See `xr_spde.latent.fit.fit_latent_dynamics`.

    Returns
    -------
    LatentDynamics
        With times in seconds since the first frame (in units of the axis where it has none) and
        rows and columns in increasing order; give it to `interpolate` as ``model=``.

    Raises
    ------
    ParameterError
        Frames, times or settings that cannot be used, or further dimensions.
    MissingDependencyError
        Without torch.
    """
    frames = ImageSequence.of(da, dim=dim, x=x, y=y)
    return fit_latent_dynamics(
        _stack(frames), frames.time.numbers, frames.cells, seed=seed, **settings
    )


def encode(
    da: xr.DataArray,
    model: LatentDynamics,
    *,
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Latent states of images.

    Parameters
    ----------
    da : DataArray (..., y, x)
        Images on the grid of the model.
    model : LatentDynamics
        What `fit` returned.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    DataArray (..., channel, y, x)
        Lazy where ``da`` is.

    Raises
    ------
    ParameterError
        Images of another size.
    """
    grid = _grid_of(da, model, x, y)
    space = (grid.y_dim, grid.x_dim)
    sizes = {"channel": int(model.latent.shape[1])}
    made = apply_core(
        _through,
        da,
        core_dims=[space],
        output={"latent": Output(("channel", *space), model.frames.dtype, sizes)},
        kwargs={"grid": grid, "function": model.encode},
    )["latent"]
    return made.drop_attrs().assign_attrs(long_name="latent state", units="1")


def decode(
    states: xr.DataArray,
    model: LatentDynamics,
    *,
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Images of latent states; the other half of `encode`.

    Parameters
    ----------
    states : DataArray (..., channel, y, x)
        On the grid of the model.
    model : LatentDynamics
        What `fit` returned.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    DataArray (..., y, x)
        Lazy where the states are.

    Raises
    ------
    ParameterError
        States of another size, or without the dimension ``channel``.
    """
    if "channel" not in states.dims:
        raise ParameterError(
            f"states have the dimensions {states.dims} and lack 'channel'; pass what .latent."
            "encode() returned"
        )
    grid = _grid_of(states, model, x, y)
    space = (grid.y_dim, grid.x_dim)
    made = apply_core(
        _through,
        states,
        core_dims=[("channel", *space)],
        output={"image": Output(space, model.frames.dtype)},
        kwargs={"grid": grid, "function": model.decode},
    )["image"]
    return made.drop_attrs().assign_attrs(derived_attrs({}, long_name="decoded image"))


def _grid_of(da: xr.DataArray, model: LatentDynamics, x: str | None, y: str | None) -> Grid:
    grid = Grid.from_object(da, x=x, y=y)
    if grid.shape != model.cells.shape:
        raise ParameterError(
            f"images of {grid.shape} cells for a model fitted on {model.cells.shape}; pass images "
            "on the grid of the fit"
        )
    return grid


def _through(array: NDArray[Any], *, grid: Grid, function: Any) -> NDArray[Any]:
    return grid.from_canonical(np.asarray(function(grid.to_canonical(array))))


def _stack(frames: ImageSequence) -> NDArray[np.floating]:
    """Images (time, y, x) in canonical order."""
    wanted = (frames.time.dim, frames.grid.y_dim, frames.grid.x_dim)
    _check_one_sequence(frames)
    return np.ascontiguousarray(frames.grid.to_canonical(frames.data.transpose(*wanted).to_numpy()))


def _check_one_sequence(frames: ImageSequence) -> None:
    wanted = (frames.time.dim, frames.grid.y_dim, frames.grid.x_dim)
    others = [str(d) for d in frames.data.dims if d not in wanted]
    if others:
        choice = ", ".join(f"{d}=0" for d in others)
        raise ParameterError(
            f"a model is fitted to one sequence of images, and there are the dimensions {others}; "
            f"select, for instance .isel({choice})"
        )


def check_model(frames: ImageSequence, model: LatentDynamics) -> None:
    """Check that a model can belong to a sequence.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    model : LatentDynamics
        What `fit` returned.

    Raises
    ------
    ParameterError
        A model of other times or another size, or further dimensions.
    """
    _check_one_sequence(frames)
    same = model.cells.shape == frames.grid.shape
    if not (same and np.array_equal(model.times, frames.time.numbers)):
        raise ParameterError(
            f"model was fitted to {len(model.times)} frames of {model.cells.shape} cells at other "
            "times or on another grid than these frames; fit it to them"
        )


def latent_motion(frames: ImageSequence, model: LatentDynamics) -> dict[str, xr.DataArray]:
    """Motion of a latent model in the middle of each interval.

    Parameters
    ----------
    frames : ImageSequence
        The images it was fitted to.
    model : LatentDynamics
        What `fit` returned.

    Returns
    -------
    dict of DataArray
        ``q`` (interval, component, y, x) in cells per interval, and ``u_spread``, ``v_spread``
        (y, x) in metres per unit of time, the disagreement of windows and restarts.
    """
    check_model(frames, model)
    grid, numbers = frames.grid, frames.time.numbers
    space = (grid.y_dim, grid.x_dim)
    middle = 0.5 * (numbers[1:] + numbers[:-1])
    q = np.stack([model.motion_at(t) * d for t, d in zip(middle, frames.lengths, strict=True)])
    spread = frames.cells.to_metres(model.uncertainty, seconds=model.span)
    labels = {d: frames.data.coords[d] for d in space if d in frames.data.coords}
    parts = {
        f"{name}_spread": xr.DataArray(grid.from_canonical(part), labels, space)
        for name, part in zip("uv", spread, strict=True)
    }
    dims = (INTERVAL, COMPONENT, *space)
    return {"q": xr.DataArray(grid.from_canonical(q), labels, dims), **parts}


def latent_frames(
    frames: ImageSequence,
    numbers: NDArray[np.float64],
    model: LatentDynamics | None,
    *,
    seed: int,
    **settings: Any,
) -> dict[str, xr.DataArray]:
    """Frames of a latent model; one task per fit and one per frame where lazy.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    numbers : ndarray (m,)
        Times in the units of the time axis.
    model : LatentDynamics or None
        Fitted before to these frames.
    seed : int
        Of new fits.
    **settings
        Of new fits.

    Returns
    -------
    dict of DataArray (..., time, y, x)
        ``image``, ``disagreement`` and ``seen``.

    Raises
    ------
    ParameterError
        A model of other frames.
    """
    dim, space = frames.time.dim, (frames.grid.y_dim, frames.grid.x_dim)
    if model is None:
        models = fitted_models(frames, seed=seed, **settings)
    else:
        check_model(frames, model)
        models = xr.DataArray(_boxed(model), dims=_BOX)
    moments = xr.DataArray(numbers, dims=_MOMENT)
    if is_lazy(frames.data):
        moments = moments.chunk(1)
    sizes = {d: frames.data.sizes[d] for d in space}
    made = apply_core(
        _frame_of,
        models,
        moments,
        core_dims=[(_BOX,), ()],
        output={
            "image": Output(space, frames.data.dtype, sizes),
            "disagreement": Output(space, frames.data.dtype, sizes),
            "seen": Output(space, np.int8, sizes),
        },
        kwargs={"grid": frames.grid},
    )
    coords = {k: c for k, c in frames.data.coords.items() if c.dims and set(c.dims) <= set(space)}
    return {name: part.rename({_MOMENT: dim}).assign_coords(coords) for name, part in made.items()}


def fitted_models(frames: ImageSequence, *, seed: int, **settings: Any) -> xr.DataArray:
    """Fit a model to each sequence; one task each where lazy.

    The task depends on the images and the settings alone: whatever is made of one model in one
    ``compute`` shares its fit.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    seed : int
        Of the fits.
    **settings
        Of the fits.

    Returns
    -------
    DataArray (..., 1) of LatentDynamics
    """
    dim, space = frames.time.dim, (frames.grid.y_dim, frames.grid.x_dim)
    data = frames.data.drop_vars([k for k, c in frames.data.coords.items() if dim in c.dims])
    return apply_core(
        _fitted,
        data,
        core_dims=[(dim, *space)],
        output={"model": Output((_BOX,), np.object_, {_BOX: 1})},
        kwargs={
            "grid": frames.grid,
            "cells": frames.cells,
            "times": frames.time.numbers,
            "seed": seed,
            "settings": settings,
        },
    )["model"].drop_attrs()


def _fitted(
    images: NDArray[Any],
    *,
    grid: Grid,
    cells: Cells,
    times: NDArray[np.float64],
    seed: int,
    settings: Mapping[str, Any],
) -> NDArray[np.object_]:
    stack = np.ascontiguousarray(grid.to_canonical(images))
    return _boxed(fit_latent_dynamics(stack, times, cells, seed=seed, **settings))


def _boxed(model: LatentDynamics) -> NDArray[np.object_]:
    """Array of one element, as one without dimensions would be taken for what it holds."""
    box = np.empty(1, dtype=np.object_)
    box[0] = model
    return box


def _frame_of(
    model: NDArray[np.object_], number: NDArray[np.float64], *, grid: Grid
) -> dict[str, NDArray[Any]]:
    dynamics: LatentDynamics = model.item()
    made = dynamics.frame(float(number), extrapolate=True)
    return {
        name: grid.from_canonical(getattr(made, name)) for name in ("image", "disagreement", "seen")
    }

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
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.latent.fit import fit_latent_dynamics
from xr_spde.latent.reading import COMPONENT, INTERVAL, ImageSequence

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = ["check_model", "decode", "encode", "fit", "latent_frames", "latent_motion"]


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
    """Frames of a latent model; one task per fit where lazy.

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
    if model is not None:
        check_model(frames, model)
    dim, space = frames.time.dim, (frames.grid.y_dim, frames.grid.x_dim)
    moment = "_moment"
    sizes = {moment: len(numbers)}
    data = frames.data.drop_vars([k for k, c in frames.data.coords.items() if dim in c.dims])
    made = apply_core(
        _fitted_frames,
        data,
        core_dims=[(dim, *space)],
        output={
            "image": Output((moment, *space), data.dtype, sizes),
            "disagreement": Output((moment, *space), data.dtype, sizes),
            "seen": Output((moment, *space), np.int8, sizes),
        },
        kwargs={
            "grid": frames.grid,
            "cells": frames.cells,
            "times": frames.time.numbers,
            "numbers": numbers,
            "model": model,
            "seed": seed,
            "settings": settings,
        },
    )
    return {name: part.rename({moment: dim}) for name, part in made.items()}


def _fitted_frames(
    images: NDArray[Any],
    *,
    grid: Grid,
    cells: Cells,
    times: NDArray[np.float64],
    numbers: NDArray[np.float64],
    model: LatentDynamics | None,
    seed: int,
    settings: Mapping[str, Any],
) -> dict[str, NDArray[Any]]:
    if model is None:
        stack = np.ascontiguousarray(grid.to_canonical(images))
        model = fit_latent_dynamics(stack, times, cells, seed=seed, **settings)
    made = [model.frame(float(t), extrapolate=True) for t in numbers]
    return {
        name: np.stack([grid.from_canonical(getattr(frame, name)) for frame in made])
        for name in ("image", "disagreement", "seen")
    }

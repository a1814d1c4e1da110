"""Figures of moving images: arrows on an image, strips and animations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter
from matplotlib.colors import Normalize

from xr_spde._core.errors import MissingDependencyError, ParameterError, SchemaError
from xr_spde.labels.arrays import array_of
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.times import TimeAxis
from xr_spde.latent.reading import cells_of
from xr_spde.latent.velocity import velocity
from xr_spde.plot import style
from xr_spde.plot.layers import flat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["frames", "motion"]

_MOST = 24  # panels of a strip


def motion(
    images: xr.DataArray | xr.Dataset,
    motion: xr.Dataset | None = None,
    *,
    variable: str | None = None,
    interval: int = 0,
    across: int = 22,
    scale: float | None = None,
    colour: str = "#19d27c",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Axes:
    """Draw the velocity as arrows on the image at the beginning of an interval.

    Parameters
    ----------
    images : DataArray or Dataset
        The frames.
    motion : Dataset, optional
        What `xr_spde.latent.velocity` returned; found here by default.
    variable : str, optional
        Which variable of a Dataset; not needed where there is one.
    interval : int, default 0
        Number of the interval.
    across : int, default 22
        Number of arrows along the longer side.
    scale : float, optional
        Length of an arrow over the true displacement within the interval; by default the longest
        spans a little more than the gap between arrows.
    colour : str
        Of the arrows.
    ax, figsize
        Where to draw, or the size of a new figure in inches.
    dim, x, y : str, optional
        Names of the axes.

    Returns
    -------
    Axes
        Its title tells the interval and the scale.

    Raises
    ------
    SchemaError
        ``motion`` lacks u and v.
    ParameterError
        No such interval, or further dimensions.
    GridError
        A motion on another grid.
    """
    da, grid, time = _sequence(images, variable, dim, x, y)
    if not -(time.numbers.size - 1) <= interval < time.numbers.size - 1:
        raise ParameterError(
            f"interval={interval}; there are {time.numbers.size - 1} between the frames"
        )
    if across < 2 or (scale is not None and not scale > 0):
        raise ParameterError(
            f"across={across}, scale={scale}; expected at least 2 arrows and a factor above 0"
        )
    interval %= time.numbers.size - 1
    if motion is None:
        ends = da.isel({time.dim: slice(interval, interval + 2)})
        found = velocity(ends, dim=time.dim, x=x, y=y).isel({time.dim: 0})
    else:
        found = _chosen(motion, time, interval)
        own = Grid.from_object(found["u"], x=grid.x_dim, y=grid.y_dim)
        same_grid(grid, own, names=("the images", "motion"))
    moved = [flat_map(found[n], Grid.from_object(found[n], x=x, y=y), n) for n in "uv"]
    seconds = float(np.diff(time.numbers)[interval])
    with style.house_style():
        if ax is None:
            _, panels = style.map_figure(grid, 1, 1, figsize=figsize, width=5.0, bars=1)
            ax = panels[0, 0]
        values = flat_map(da.isel({time.dim: interval}), grid, "the image")
        mesh = style.draw_map(ax, values, grid, cmap=plt.get_cmap("gray"), norm=_norm(values))
        label = str(da.name or "image") + style.units_text(da.attrs.get("units"))
        style.colour_bar(mesh, ax, label, extend="both")
        factor = _arrows(ax, moved, grid, seconds, across, scale, colour)
        first, last = (_text(time.coordinate.values[interval + k]) for k in (0, 1))
        ax.set_title(f"{first} to {last}, displacement x {factor:.2g}")
    return ax


def _sequence(
    images: xr.DataArray | xr.Dataset,
    variable: str | None,
    dim: str | None,
    x: str | None,
    y: str | None,
) -> tuple[xr.DataArray, Grid, TimeAxis]:
    if isinstance(images, xr.Dataset) and variable is not None:
        if variable not in images:
            raise SchemaError(f"the dataset has {list(images.data_vars)} and lacks {variable!r}")
        images = images[variable]
    da = array_of(images, x=x, y=y)
    grid = Grid.from_object(da, x=x, y=y)
    return da, grid, TimeAxis.from_object(da, dim, spatial=(grid.y_dim, grid.x_dim))


def _chosen(motion: xr.Dataset, time: TimeAxis, interval: int) -> xr.Dataset:
    """Motion of one interval."""
    if not isinstance(motion, xr.Dataset) or not {"u", "v"} <= set(motion.data_vars):
        raise SchemaError("motion lacks u and v; pass what .latent.velocity() returned")
    if time.dim not in motion.dims:
        return motion
    if motion.sizes[time.dim] != time.numbers.size - 1:
        raise ParameterError(
            f"motion has {motion.sizes[time.dim]} intervals, and the images "
            f"{time.numbers.size - 1}; pass what .latent.velocity() returned for them"
        )
    return motion.isel({time.dim: interval})


def _arrows(
    ax: Axes,
    moved: Sequence[NDArray[Any]],
    grid: Grid,
    seconds: float,
    across: int,
    scale: float | None,
    colour: str,
) -> float:
    """Arrows in units of the axes; returns displacement drawn over true displacement."""
    cells = cells_of(grid)
    step = max(1, round(max(grid.shape) / across))
    part = np.s_[step // 2 :: step, step // 2 :: step]
    off = cells.to_cells(*moved, seconds=seconds)
    columns, rows = off[0][part], off[1][part]
    longest = float(np.nanmax(np.hypot(columns, rows), initial=0.0))
    factor = scale if scale is not None else 1.2 * step / longest if longest > 0 else 1.0
    ax.quiver(
        grid.canonical_x()[part[1]],
        grid.canonical_y()[part[0]],
        columns * abs(grid.dx) * factor,
        rows * abs(grid.dy) * factor,
        color=colour,
        angles="xy",
        scale_units="xy",
        scale=1.0,
        width=0.003,
    )
    return factor


def _norm(values: NDArray[Any]) -> Normalize:
    """Scale that leaves out the hundredth part at either end."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0.0, 1.0)
    low, high = np.quantile(finite, [0.01, 0.99])
    return Normalize(float(low), float(high) if high > low else float(low) + 1.0)


def _text(value: Any) -> str:
    """Time to the minute, or the number."""
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[m]")).replace("T", " ")
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def frames(
    images: xr.DataArray | xr.Dataset,
    *,
    variable: str | None = None,
    save: str | os.PathLike[str] | None = None,
    fps: float = 6.0,
    axes: Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Figure:
    """Draw images side by side on one scale, or write them as an animation.

    Parameters
    ----------
    images : DataArray or Dataset
        Two or more, such as what `xr_spde.latent.interpolate` returned.
    variable : str, optional
        Which variable of a Dataset; not needed where there is one.
    save : path, optional
        File ending in ``.gif`` or ``.mp4`` (which needs ffmpeg): an animation instead of a strip.
    fps : float, default 6
        Images per second of the animation.
    axes : sequence of Axes, optional
        One per image, one for an animation; a new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    dim, x, y : str, optional
        Names of the axes.

    Returns
    -------
    Figure

    Raises
    ------
    ParameterError
        Another number of axes, more images than a strip holds, or another kind of file.
    MissingDependencyError
        MP4 without ffmpeg.
    """
    da, grid, time = _sequence(images, variable, dim, x, y)
    maps = [flat_map(da.isel({time.dim: k}), grid, "the image") for k in range(time.numbers.size)]
    titles = [_text(value) for value in time.coordinate.values]
    writer = None if save is None else _writer(Path(save), fps)
    shown = len(maps) if writer is None else 1
    if axes is None and shown > _MOST:
        raise ParameterError(
            f"{shown} images are too many side by side; select some, or give save= for an animation"
        )
    norm = _norm(np.stack(maps))
    label = str(da.name or "image") + style.units_text(da.attrs.get("units"))
    with style.house_style():
        if axes is None:
            columns = min(shown, 6)
            rows = -(-shown // columns)
            _, panels = style.map_figure(grid, rows, columns, figsize=figsize, titled=True, bars=1)
            axes = list(panels.flat)
            for spare in axes[shown:]:
                spare.set_axis_off()
            axes = axes[:shown]
        if len(axes) != shown:
            raise ParameterError(f"got {len(axes)} axes; {shown} are expected")
        meshes = []
        for ax, values, title in zip(axes, maps, titles, strict=False):
            meshes.append(style.draw_map(ax, values, grid, cmap=plt.get_cmap("gray"), norm=norm))
            ax.set_title(title)
        style.colour_bar(meshes[0], list(axes), label, extend="both")
        figure: Figure = axes[0].figure  # type: ignore[assignment]
        if writer is not None and save is not None:

            def turn(k: int) -> list[Any]:
                meshes[0].set_array(np.ma.masked_invalid(maps[k]))
                axes[0].set_title(titles[k])
                return [meshes[0]]

            FuncAnimation(figure, turn, frames=len(maps)).save(os.fspath(save), writer=writer)
    return figure


def _writer(path: Path, fps: float) -> Any:
    if not fps > 0:
        raise ParameterError(f"fps={fps}; expected a number above 0")
    if path.suffix == ".gif":
        return PillowWriter(fps=fps)  # type: ignore[arg-type]
    if path.suffix != ".mp4":
        raise ParameterError(f"save={str(path)!r}; expected a name that ends in .gif or .mp4")
    if not FFMpegWriter.isAvailable():
        raise MissingDependencyError(
            "an MP4 file needs the program ffmpeg, which is not found; install it, or save a .gif"
        )
    return FFMpegWriter(fps=fps)  # type: ignore[arg-type]

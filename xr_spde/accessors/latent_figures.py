"""Figures of images and their motion: the namespace ``.latent.plot``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LatentFigures"]

Obj = TypeVar("Obj", xr.DataArray, xr.Dataset)


class LatentFigures(Generic[Obj]):
    """Figures of images and their motion: the namespace ``.latent.plot``."""

    def __init__(self, obj: Obj) -> None:
        self._obj: Obj = obj

    def motion(
        self,
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
        """Draw the velocity as arrows on an image.

        Parameters
        ----------
        motion : Dataset, optional
            What `velocity` returned; found here by default.
        variable : str, optional
            Which variable of a Dataset; not needed where there is one.
        interval : int, default 0
            Which interval: the image is the frame at its beginning.
        across : int, default 22
            Number of arrows along the longer side.
        scale : float, optional
            Length of an arrow over the true displacement; by default the longest spans
            a little more than the gap between arrows.
        colour : str
            Of the arrows.
        ax, figsize
            Where to draw, or the size of a new figure in inches.
        dim, x, y : str, optional
            Names of the axes.

        Returns
        -------
        Axes
        """
        from xr_spde import plot

        return plot.motion(
            self._obj,
            motion,
            variable=variable,
            interval=interval,
            across=across,
            scale=scale,
            colour=colour,
            ax=ax,
            figsize=figsize,
            dim=dim,
            x=x,
            y=y,
        )

    def frames(
        self,
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
        """Draw images side by side, or write them as an animation.

        Parameters
        ----------
        variable : str, optional
            Which variable of a Dataset; not needed where there is one.
        save : path, optional
            File ending in ``.gif`` or ``.mp4`` (needs ffmpeg): an animation instead of a strip.
        fps : float, default 6
            Images per second of the animation.
        axes : sequence of Axes, optional
            One per image; a new figure by default.
        figsize : (float, float), optional
            Of the new figure, inches.
        dim, x, y : str, optional
            Names of the axes.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.frames(
            self._obj,
            variable=variable,
            save=save,
            fps=fps,
            axes=axes,
            figsize=figsize,
            dim=dim,
            x=x,
            y=y,
        )

"""Figures of analyses and scores: the namespace ``.assim.plot``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["AssimFigures"]


class AssimFigures:
    """Figures of analyses and scores: the namespace ``.assim.plot``."""

    def __init__(self, obj: xr.Dataset) -> None:
        self._obj = obj

    def increments(
        self,
        *,
        variable: str | None = None,
        observations: bool = True,
        axes: Sequence[Axes] | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Figure:
        """Draw mean, increment and standard deviation of an analysis.

        Parameters
        ----------
        variable : str, optional
            Which of several variables; not needed where there is one.
        observations : bool
            Whether to mark them, on the increment.
        axes : sequence of Axes, optional
            Three; a new figure by default.
        figsize : (float, float), optional
            Of the new figure, inches.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.increments(
            self._obj,
            variable=variable,
            observations=observations,
            axes=axes,
            figsize=figsize,
            x=x,
            y=y,
        )

    def snapshot(
        self,
        obs: xr.DataArray | xr.Dataset | None = None,
        *,
        time: Any = None,
        days: float = 5.0,
        value: str | None = None,
        limits: tuple[float, float] | None = None,
        axes: Sequence[Axes] | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Figure:
        """Draw mean and standard deviation of one time, with the observations about it.

        Parameters
        ----------
        obs : DataArray or Dataset, optional
            Points, coloured on the scale of the mean.
        time : date or str, optional
            Which time; not needed where there is one.
        days : float, default 5
            Observations so many days before or after are drawn.
        value : str, optional
            Variable of the observations.
        limits : (float, float), optional
            Of the colours of the mean.
        axes : sequence of Axes, optional
            One for each panel; a new figure by default.
        figsize : (float, float), optional
            Of the new figure, inches.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.snapshot(
            self._obj,
            obs,
            time=time,
            days=days,
            value=value,
            limits=limits,
            axes=axes,
            figsize=figsize,
            x=x,
            y=y,
        )

    def spread(
        self,
        truth: xr.DataArray,
        *,
        time: Any = None,
        axes: Sequence[Axes] | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
        **settings: Any,
    ) -> Figure:
        """Draw the error beside the spread, the error by classes of it, and the ranks of the truth.

        Parameters
        ----------
        truth : DataArray (time, Y, X)
            On the grid of the maps, at their times.
        time : date or str, optional
            Of the maps; by default the one in the middle.
        axes : sequence of Axes, optional
            Four; a new figure by default.
        figsize : (float, float), optional
            Of the new figure, inches.
        x, y : str, optional
            Names of the horizontal axes.
        **settings
            Of the scores, such as ``border``; see `xr_spde.plot.spread`.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.spread(
            self._obj, truth, time=time, axes=axes, figsize=figsize, x=x, y=y, **settings
        )

    def spread_skill(
        self, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
    ) -> Axes:
        """Draw the error found against the error expected, of scores along withheld tracks.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw; a new figure by default.
        figsize : (float, float), optional
            Of the new figure, inches.

        Returns
        -------
        Axes
        """
        from xr_spde import plot

        return plot.spread_skill(self._obj, ax=ax, figsize=figsize)

    def rank_histogram(
        self, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
    ) -> Axes:
        """Draw the rank histogram of a score.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw; a new figure by default.
        figsize : (float, float), optional
            Of the new figure, inches.

        Returns
        -------
        Axes
        """
        from xr_spde import plot

        return plot.rank_histogram(self._obj, ax=ax, figsize=figsize)

    def series(
        self,
        *,
        dim: str | None = None,
        axes: Sequence[Axes] | None = None,
        figsize: tuple[float, float] | None = None,
    ) -> Figure:
        """Draw spread beside error, step by step, of scores or of a cycle's innovations.

        Scores of withheld tracks and of the mapping challenge have their own panels.

        Parameters
        ----------
        dim : str, optional
            Dimension of the steps; not needed where there is one.
        axes : sequence of Axes, optional
            One per panel; a new figure by default.
        figsize : (float, float), optional
            Of the new figure, inches.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.series(self._obj, dim=dim, axes=axes, figsize=figsize)

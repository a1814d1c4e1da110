"""The namespace ``.sar.plot``: each method calls the function of that name in `xr_spde.plot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["SarFieldFigures", "SarParameterFigures"]

Obj = TypeVar("Obj", xr.DataArray, xr.Dataset)
Position = tuple[float, float] | Mapping[str, float]


class _MemberFigures(Generic[Obj]):
    """Figures that DataArrays and Datasets have in common."""

    def __init__(self, obj: Obj) -> None:
        self._obj: Obj = obj

    def members(
        self,
        ensemble: xr.DataArray | xr.Dataset | None = None,
        *,
        variable: str | None = None,
        k: int = 3,
        dim: str | None = None,
        which: Sequence[int] | None = None,
        anomalies: bool = True,
        labels: tuple[str, str] = ("real", "synthetic"),
        axes: NDArray[Any] | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Figure:
        """Draw a few members, and those of another ensemble below, on one colour scale.

        Parameters
        ----------
        ensemble : DataArray or Dataset, optional
            Other members on the same grid: the lower row.
        variable : str, optional
            Which variable of a Dataset; not needed where there is one.
        k : int
            Members per row.
        dim : str, optional
            Dimension of the replicates.
        which : sequence of int, optional
            Positions of the members instead of the first ``k``.
        anomalies : bool
            Whether the mean of the upper ensemble is taken off.
        labels : (str, str)
            Titles of the rows.
        axes, figsize
            Where to draw, or the size of a new figure in inches.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.members(
            self._obj,
            ensemble,
            variable=variable,
            k=k,
            dim=dim,
            which=which,
            anomalies=anomalies,
            labels=labels,
            axes=axes,
            figsize=figsize,
            x=x,
            y=y,
        )


class SarFieldFigures(_MemberFigures[xr.DataArray]):
    """Figures of fields (needs matplotlib)."""

    def correlation(
        self,
        at: Position | Sequence[Position],
        other: xr.DataArray | xr.Dataset | None = None,
        *,
        dim: str | None = None,
        labels: tuple[str, str] = ("real", "synthetic"),
        difference: bool = True,
        axes: NDArray[Any] | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Figure:
        """Draw correlation maps with given points, and those of another object beside them.

        Parameters
        ----------
        at : (y, x) tuple, {dim: value} mapping, or list of them
            One row of maps each.
        other : DataArray or Dataset, optional
            Fields or parameters on the same grid, drawn in a second column.
        dim : str, optional
            Dimension of the replicates.
        labels : (str, str)
            Titles of the columns.
        difference : bool
            Whether a third column shows the difference.
        axes, figsize
            Where to draw, or the size of a new figure in inches.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.correlation(
            self._obj,
            at,
            other,
            dim=dim,
            labels=labels,
            difference=difference,
            axes=axes,
            figsize=figsize,
            x=x,
            y=y,
        )


class SarParameterFigures(_MemberFigures[xr.Dataset]):
    """Figures of parameter datasets, and of members in a Dataset (needs matplotlib)."""

    def parameters(
        self,
        *,
        variables: Sequence[str] | None = None,
        axes: Sequence[Axes] | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Figure:
        """Draw the maps of range, anisotropy and direction.

        Parameters
        ----------
        variables : sequence of str, optional
            Among ``range``, ``kappa2``, ``rho``, ``theta``, ``mean``, ``std``.
        axes, figsize
            Where to draw, or the size of a new figure in inches.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.parameters(self._obj, variables=variables, axes=axes, figsize=figsize, x=x, y=y)

    def ellipses(
        self,
        *,
        background: str | None = "range",
        across: int = 13,
        scale: float | None = None,
        colour: str = "0.1",
        ax: Axes | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Axes:
        """Draw the local correlation ellipses on the map.

        Parameters
        ----------
        background : str or None
            Variable drawn under the ellipses.
        across : int
            Number of ellipses along the longer side.
        scale : float, optional
            Size drawn over true size.
        colour : str
            Of the outlines.
        ax, figsize
            Where to draw, or the size of a new figure in inches.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Axes
        """
        from xr_spde import plot

        return plot.ellipses(
            self._obj,
            background=background,
            across=across,
            scale=scale,
            colour=colour,
            ax=ax,
            figsize=figsize,
            x=x,
            y=y,
        )

    def correlation(
        self,
        at: Position | Sequence[Position],
        other: xr.DataArray | xr.Dataset | None = None,
        *,
        dim: str | None = None,
        labels: tuple[str, str] = ("model", "other"),
        difference: bool = True,
        axes: NDArray[Any] | None = None,
        figsize: tuple[float, float] | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Figure:
        """Draw the exact correlation maps with given points, and those of another object.

        Parameters
        ----------
        at : (y, x) tuple, {dim: value} mapping, or list of them
            One row of maps each.
        other : DataArray or Dataset, optional
            Fields or parameters on the same grid, drawn in a second column.
        dim : str, optional
            Dimension of the replicates of ``other``.
        labels : (str, str)
            Titles of the columns.
        difference : bool
            Whether a third column shows the difference.
        axes, figsize
            Where to draw, or the size of a new figure in inches.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Figure
        """
        from xr_spde import plot

        return plot.correlation(
            self._obj,
            at,
            other,
            dim=dim,
            labels=labels,
            difference=difference,
            axes=axes,
            figsize=figsize,
            x=x,
            y=y,
        )

"""One figure for a whole result: the score beside its noise floor, and an overview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from xr_spde._core.errors import SchemaError
from xr_spde.labels.grid import Grid
from xr_spde.plot import style
from xr_spde.plot.compare import correlation, members
from xr_spde.sar.positions import At

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["overview", "score"]

_NEEDED = ("raw", "floor", "ratio", "point_raw", "point_floor")


def score(
    result: xr.Dataset, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
) -> Axes:
    """Draw a correlation score, point by point, against its noise floor.

    A perfect emulator scatters about the diagonal; a dot above it has missed some correlation
    that the members do show.

    Parameters
    ----------
    result : Dataset
        What `xr_spde.metrics.correlation_score` returned, without leading dimensions.
    ax : Axes, optional
        Where to draw; a new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.

    Returns
    -------
    Axes

    Raises
    ------
    SchemaError
        ``result`` is no such Dataset.
    """
    missing = [name for name in _NEEDED if name not in result]
    if missing:
        raise SchemaError(
            f"the dataset has {sorted(map(str, result.data_vars))} and lacks {missing}; pass what "
            "xr_spde.metrics.correlation_score returned"
        )
    numbers = {name: np.asarray(result[name], dtype=float) for name in _NEEDED}
    top = 1.08 * float(np.nanmax([np.nanmax(numbers["point_raw"]), np.nanmax(numbers["floor"])]))
    with style.house_style():
        if ax is None:
            _, ax = plt.subplots(figsize=figsize or (4.2, 4.0), layout="constrained")
        line = np.array([0.0, 2.0 * top])
        ax.fill_between(line, line, 1.2 * line, color="0.9", lw=0, label="within 1.2 × the floor")
        ax.plot(line, line, color=style.INK, lw=0.8, label="noise floor")
        dots = {"s": 14, "color": "#2f6f9f", "alpha": 0.75, "linewidths": 0}
        ax.scatter(numbers["point_floor"], numbers["point_raw"], label="one point", **dots)
        mean = f"all points: {numbers['raw']:.3f} / {numbers['floor']:.3f} = {numbers['ratio']:.2f}"
        star = {"marker": "*", "s": 150, "color": "#c8452d", "edgecolor": "white", "zorder": 4}
        ax.scatter(numbers["floor"], numbers["raw"], label=mean, **star)
        ax.set(
            xlim=(0.0, top),
            ylim=(0.0, top),
            aspect="equal",
            xlabel="RMSE that sampling noise alone would give",
            ylabel="RMSE of the correlation map",
        )
        ax.legend(frameon=False, fontsize=7.5, loc="lower right")
        ax.spines[["top", "right"]].set_visible(False)
    return ax


def overview(
    fields: xr.DataArray,
    ensemble: xr.DataArray,
    at: At,
    *,
    which: int = 0,
    dim: str | None = None,
    figsize: tuple[float, float] | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Figure:
    """Draw one real member over a synthetic one, and their ensembles' correlation maps beside.

    Parameters
    ----------
    fields, ensemble : DataArray
        Real and synthetic members on the same grid.
    at : (y, x) tuple or {dim: value} mapping
        The point of the correlation maps, in coordinate values.
    which : int
        Position of the member drawn.
    dim : str, optional
        Replicate dimension of ``fields``; found by default.
    figsize : (float, float), optional
        Inches.
    x, y : str, optional
        Spatial dimensions; found by CF conventions by default.

    Returns
    -------
    Figure
    """
    grid = Grid.from_object(fields, x=x, y=y)
    names: dict[str, Any] = {"dim": dim, "x": x, "y": y}
    with style.house_style():
        figure, axes = style.map_figure(grid, 2, 2, figsize=figsize, width=3.6, titled=True)
        members(fields, ensemble, which=[which], axes=axes[:, :1], **names)
        correlation(fields, at, ensemble, difference=False, axes=axes[:, 1:], **names)
        for ax, title in zip(axes[:, 0], ("real member", "synthetic member"), strict=True):
            ax.set_title(title)
        for ax, title in zip(axes[:, 1], ("real members", "synthetic members"), strict=True):
            ax.set(ylabel="", yticklabels=[])
            ax.set_title(f"correlation with +, {title}", fontweight="normal")
    return figure

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

_DOT = "#2f6f9f"
_NEEDED = ("raw", "floor", "ratio", "point_raw", "point_floor")


def score(
    result: xr.Dataset, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
) -> Axes:
    """Draw a correlation score, point by point, against its noise floor.

    Points stand in the order of their distance; a perfect emulator scatters about the floor, and
    a dot above it has missed some correlation that the members show. The dashed line is the root
    mean square over all points.

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
    usable = np.isfinite(numbers["point_raw"]) & np.isfinite(numbers["point_floor"])
    order = np.flatnonzero(usable)[np.argsort(numbers["point_raw"][usable])]
    raw, floor = numbers["point_raw"][order], numbers["point_floor"][order]
    rank = np.arange(1, raw.size + 1)
    total = f"{numbers['raw']:.3f} / {numbers['floor']:.3f} = {numbers['ratio']:.2f}"
    with style.house_style():
        if ax is None:
            _, ax = plt.subplots(figsize=figsize or (5.4, 3.2), layout="constrained")
        ax.fill_between(rank, floor, 1.2 * floor, color="0.88", lw=0, label="floor to 1.2 × floor")
        ax.plot(rank, floor, color=style.INK, lw=1.0, label="noise alone (floor)")
        ax.vlines(rank, floor, raw, color=_DOT, lw=0.7, alpha=0.35)
        ax.scatter(rank, raw, s=13, color=_DOT, linewidths=0, zorder=3, label="found")
        ax.axhline(float(numbers["raw"]), color=_DOT, lw=0.9, ls=(0, (4, 3)))
        ax.set(
            xlim=(0.0, raw.size + 1.0),
            ylim=(0.0, None),
            xlabel="random points, in order",
            ylabel="RMSE of the correlation map",
        )
        ax.set_title(f"all points: found / floor = {total}")
        ax.legend(frameon=False, fontsize=7.5, loc="best")
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

"""Figures of analyses and of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde.labels.grid import Grid
from xr_spde.plot import style
from xr_spde.plot.layers import flat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["increments", "rank_histogram"]


def increments(
    result: xr.Dataset,
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
    result : Dataset
        What `xr_spde.assim.assimilate` returned, of one time.
    variable : str, optional
        Which of several variables; not needed where there is one.
    observations : bool
        Whether to mark where observations were used, on the increment.
    axes : sequence of Axes, optional
        Three; a new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        ``result`` is no such Dataset.
    ParameterError
        Leading dimensions, or another number of axes than three.
    """
    prefix = "" if variable is None else f"{variable}_"
    names = [prefix + name for name in ("mean", "increment", "std")]
    missing = [name for name in names if name not in result]
    if missing:
        raise SchemaError(
            f"the dataset has {sorted(map(str, result.data_vars))} and lacks {missing}; pass what "
            ".assim.assimilate() returned, and variable= where there are several"
        )
    grid = Grid.from_object(result[names[0]], x=x, y=y)
    maps = [flat_map(result[name], grid, name) for name in names]
    limit = style.symmetric_limit(maps[1])
    looks = [("value", None), ("difference", Normalize(-limit, limit)), ("spread", None)]
    with style.house_style():
        if axes is None:
            _, panels = style.map_figure(grid, 1, 3, figsize=figsize, bars=3)
            axes = list(panels.flat)
        if len(axes) != 3:
            raise ParameterError(f"got {len(axes)} axes; three are expected")
        for ax, name, values, (role, norm) in zip(axes, names, maps, looks, strict=True):
            mesh = style.draw_map(ax, values, grid, cmap=style.colour_map(role), norm=norm)
            style.colour_bar(mesh, ax, name + style.units_text(result[name].attrs.get("units")))
        if observations:
            _mark(axes[1], result, prefix, grid)
    return axes[0].figure  # type: ignore[return-value]


def _mark(ax: Axes, result: xr.Dataset, prefix: str, grid: Grid) -> None:
    """Mark the observations that were used, where they are points."""
    status = result.get(f"{prefix}status")
    if status is None or status.ndim != 1:
        return
    known = {n: c for n, c in status.coords.items() if c.ndim == 1 and c.dtype.kind == "f"}
    letters = [[n for n in known if str(n).startswith(f"{prefix}obs_{k}")] for k in ("lat", "lon")]
    if grid.kind != "geographic" or not all(letters):
        return
    used = status.values == 0
    lat, lon = (np.asarray(known[found[0]])[used] for found in letters)
    start = grid.canonical_x()[0] - abs(grid.dx) / 2
    ax.scatter((lon - start) % 360.0 + start, lat, s=2, c=style.INK, alpha=0.5, linewidths=0)


def rank_histogram(
    result: xr.Dataset, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
) -> Axes:
    """Draw the rank histogram of a score; the dashed line is where truth is like a member.

    Parameters
    ----------
    result : Dataset
        What `xr_spde.assim.score` returned, without leading dimensions.
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
    ParameterError
        Leading dimensions longer than one.
    """
    if "rank_histogram" not in result:
        raise SchemaError(
            f"the dataset has {sorted(map(str, result.data_vars))} and no 'rank_histogram'; pass "
            "what .assim.score() returned"
        )
    shares = result["rank_histogram"].squeeze()
    if shares.dims != ("rank",):
        raise ParameterError(
            f"the rank histogram has the dimensions {shares.dims}; select one, such as "
            "with .isel(time=0)"
        )
    with style.house_style():
        if ax is None:
            _, ax = plt.subplots(figsize=figsize or (4.6, 2.8), layout="constrained")
        ax.bar(shares["rank"], shares, width=1.0, color="#2f6f9f", edgecolor="white", linewidth=0.4)
        ax.axhline(1.0 / shares.size, color=style.INK, lw=0.9, ls=(0, (4, 3)))
        ax.set(xlabel="members below the truth", ylabel="share of cells")
        ax.set(xlim=(-0.5, shares.size - 0.5))
        ax.spines[["top", "right"]].set_visible(False)
    return ax

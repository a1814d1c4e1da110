"""Figure of an uncertainty beside the errors that were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde.assim.cell_scores import aligned
from xr_spde.assim.ensemble_score import uncertainty_scores
from xr_spde.labels.grid import Grid
from xr_spde.plot import style
from xr_spde.plot.analysis import rank_histogram
from xr_spde.plot.layers import flat_map
from xr_spde.plot.mapped import at_time, coast, date_text, spread_skill

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["spread"]

_PANELS = 4
_TOP = 0.99


def spread(
    result: xr.Dataset,
    truth: xr.DataArray,
    *,
    time: Any = None,
    axes: Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> Figure:
    """Draw the error beside the spread, the error by classes of spread, and the ranks of the truth.

    The maps are of one time and on one scale; the other panels are of all times and cells.

    Parameters
    ----------
    result : Dataset
        ``mean`` and ``std`` (time, Y, X), and ``ensemble`` where there is one, such as what
        `assimilate` returned for maps in time. Without an ensemble the last panel has the shares of
        truths by their probability (PIT).
    truth : DataArray (time, Y, X)
        On the same grid at the same times.
    time : date or str, optional
        Of the maps, the nearest one; by default the one in the middle.
    axes : sequence of Axes, optional
        Four; a new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    x, y : str, optional
        Names of the horizontal axes.
    **settings
        Of `xr_spde.assim.ensemble_score.uncertainty_scores`, such as ``border``.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        ``result`` has no ``mean`` and ``std``.
    ParameterError
        Another number of axes, leading dimensions, or no values in common.
    """
    if not isinstance(result, xr.Dataset) or not {"mean", "std"} <= set(result):
        raise SchemaError(
            'a Dataset with "mean" and "std" is expected; pass what .assim.assimilate() returned'
        )
    scores = uncertainty_scores(result, truth, x=x, y=y, **settings)
    if scores["rmse"].ndim:
        raise ParameterError(
            f"the maps have the dimensions {', '.join(map(repr, scores['rmse'].dims))} besides "
            "time; select along them, such as with .sel(lead=2)"
        )
    scores = scores.compute()
    grid = Grid.from_object(result["mean"], x=x, y=y)
    error = abs(result["mean"] - aligned(truth, result["mean"], grid, x, y))
    pair = xr.Dataset({"error": error, "mean": result["mean"], "std": result["std"]})
    (dim,) = (str(d) for d in error.dims if d not in (grid.y_dim, grid.x_dim))
    middle = pair.isel({dim: [pair.sizes[dim] // 2]})
    one, when = at_time(middle if time is None else pair, time, grid)
    maps = [flat_map(one[name].compute(), grid, name) for name in ("error", "std")]
    known = np.concatenate([values[np.isfinite(values)] for values in maps])
    scale = Normalize(0.0, float(np.quantile(known, _TOP)) if known.size else 1.0)
    with style.house_style():
        if axes is None:
            _, panels = plt.subplots(2, 2, figsize=figsize or (7.6, 6.4), layout="constrained")
            axes = list(panels.flat)
        if len(axes) != _PANELS:
            raise ParameterError(f"got {len(axes)} axes; {_PANELS} are expected")
        day = "" if when is None else f", {date_text(when)}"
        units = style.units_text(result["mean"].attrs.get("units"))
        for ax, values, words in zip(axes, maps, ("size of the error", "spread"), strict=False):
            mesh = style.draw_map(ax, values, grid, cmap=style.colour_map("spread"), norm=scale)
            coast(ax, values, grid)
            ax.set_title(words + day)
            style.colour_bar(mesh, ax, words + units, extend="max")
        spread_skill(scores, ax=axes[2])
        if "rank_histogram" in scores:
            rank_histogram(scores, ax=axes[3])
        else:
            _pit(scores, axes[3])
    return axes[0].figure  # type: ignore[return-value]


def _pit(scores: xr.Dataset, ax: Axes) -> None:
    """Draw shares of truths by the probability of less."""
    shares = scores["pit_histogram"]
    ax.bar(shares["pit"], shares, width=1.0 / shares.size, color="#b5542d", edgecolor="white",
           linewidth=0.4)  # fmt: skip
    ax.axhline(1.0 / shares.size, color=style.INK, lw=0.9, ls=(0, (4, 3)))
    ax.set(xlabel="probability of less than the truth", ylabel="share of cells", xlim=(0.0, 1.0))
    ax.spines[["top", "right"]].set_visible(False)

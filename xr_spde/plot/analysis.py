"""Figures of analyses and of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from xr_spde._core.errors import AxisNotFoundError, GridError, ParameterError, SchemaError
from xr_spde.assim.status import STATUS
from xr_spde.labels.axes import find_spatial
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import find_points, positions_on
from xr_spde.plot import style
from xr_spde.plot.layers import flat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["increments", "rank_histogram", "series"]

_ERROR, _SPREAD = "#2f6f9f", "#c8602f"
_COUNT, _SCORE = "observations", "score"
_MARKED = 20_000  # more marks than this are thinned out


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
        Whether to mark observations on the increment: dots where they were used, crosses where
        quality control rejected them.
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
    """Mark observations that were used by dots, and rejected ones by crosses."""
    status = result.get(f"{prefix}status")
    if status is None:
        return
    leading = [d for d in status.dims if not str(d).startswith(f"{prefix}obs")]
    status = status.squeeze(leading, drop=True)
    place = _positions(status, prefix, grid)
    if place is None:
        return
    y, x = (np.broadcast_to(values, status.shape).ravel() for values in place)
    if grid.kind == "geographic":
        start = grid.canonical_x()[0] - abs(grid.dx) / 2
        x = (x - start) % 360.0 + start
    flags = status.values.ravel()
    for name, size, marker in (("used", 2.0, "."), ("rejected", 9.0, "x")):
        chosen = np.flatnonzero(flags == STATUS.index(name))
        chosen = chosen[:: 1 + chosen.size // _MARKED]
        if chosen.size:
            ax.scatter(x[chosen], y[chosen], s=size, c=style.INK, alpha=0.6, lw=0.5, marker=marker)


def _positions(
    status: xr.DataArray, prefix: str, grid: Grid
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Positions (y, x) of observations, which broadcast to the shape of their flags."""
    names = {n: str(n).removeprefix(f"{prefix}obs_") for n in (*status.dims, *status.coords)}
    own = status.rename(names)
    try:
        if own.ndim == 2:
            y, x = positions_on(own, find_spatial(own), grid)
            along_y = own.dims[0] == find_spatial(own)[0]
            return (y[:, None], x) if along_y else (y, x[:, None])
        found = find_points(own, grid)
        y, x = positions_on(own, (found.y, found.x), grid)
    except (AxisNotFoundError, GridError):
        return None  # a function or a matrix observed: no place to mark
    return y, x


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
    of_tracks = "step_count" in result
    words = ("draws or quantiles below the observation", "share of observations")
    with style.house_style():
        if ax is None:
            _, ax = plt.subplots(figsize=figsize or (4.6, 2.8), layout="constrained")
        ax.bar(shares["rank"], shares, width=1.0, color=_ERROR, edgecolor="white", linewidth=0.4)
        ax.axhline(1.0 / shares.size, color=style.INK, lw=0.9, ls=(0, (4, 3)))
        xlabel, ylabel = words if of_tracks else ("members below the truth", "share of cells")
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.set(xlim=(-0.5, shares.size - 0.5))
        ax.spines[["top", "right"]].set_visible(False)
    return ax


def series(
    result: xr.Dataset,
    *,
    dim: str | None = None,
    axes: Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw spread beside error, step by step.

    Of scores: root mean square error and spread, the latter times ``sqrt((N + 1) / N)``, so that
    the lines fall together where members and truth are alike, and the CRPS below. Of withheld
    tracks: error and what was expected, at the observations nearest to each map, and their number.
    Of the mapping challenge: one minus the relative error of each map. Of analyses, where nobody
    knows the truth: the root mean square of observed minus forecast, and what spread and errors of
    observation let expect.

    Parameters
    ----------
    result : Dataset
        What `xr_spde.assim.score` or `xr_spde.assim.cycle` returned, along one dimension.
    dim : str, optional
        That dimension; not needed where there is one.
    axes : sequence of Axes, optional
        One per panel, two for scores and one for each observed variable of analyses; a new figure
        by default.
    figsize : (float, float), optional
        Of the new figure, inches.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        ``result`` is no such Dataset.
    ParameterError
        No dimension, or several, or another number of axes than panels.
    """
    panels = _panels(result)
    if not panels:
        raise SchemaError(
            f"the dataset has {sorted(map(str, result.data_vars))}, and neither 'rmse' and "
            "'spread' nor 'step_rmse', 'score' or 'innovation_rms'; pass what .assim.score() or "
            ".assim.cycle() returned"
        )
    lines = {name: result[name] for names, *_ in panels for name in names}
    if "spread" in lines and "spread_skill" in result:  # which counts the members
        lines["spread"] = result["spread_skill"] * result["rmse"]
    along = list(dict.fromkeys(d for da in lines.values() for d in da.dims if da.sizes[d] > 1))
    dim = str(along[0]) if dim is None and len(along) == 1 else dim
    if dim is None or along != [dim]:
        raise ParameterError(
            f"the scores have the dimensions {along}, and a series runs along one"
            f"{'' if dim is None else f', {dim!r}'}; select of the others, such as with "
            ".isel(variable=0), or score several times"
        )
    with style.house_style():
        if axes is None:
            size = figsize or (5.4, 0.6 + 2.2 * len(panels))
            _, grid = plt.subplots(len(panels), figsize=size, sharex=True, squeeze=False)
            axes = list(grid.flat)
            axes[0].figure.set_layout_engine("constrained")  # type: ignore[union-attr]
        if len(axes) != len(panels):
            raise ParameterError(f"got {len(axes)} axes; {len(panels)} are expected")
        for ax, (names, words, title) in zip(axes, panels, strict=True):
            _lines(ax, [lines[n].squeeze(drop=True) for n in names], words, dim)
            ax.set(ylabel=title + style.units_text(lines[names[0]].attrs.get("units")))
    return axes[0].figure  # type: ignore[return-value]


Panel = tuple[tuple[str, ...], tuple[str, ...], str]


def _panels(result: xr.Dataset) -> list[Panel]:
    """Names of the lines of each panel, their words, and its title."""
    if {"rmse", "spread", "crps"} <= set(result.data_vars):
        pair = ("error of the mean", "spread")
        return [(("rmse", "spread"), pair, "error, spread"), (("crps",), ("CRPS",), "CRPS")]
    if {"step_rmse", "step_spread"} <= set(result.data_vars):
        pair = ("error of the mean", "expected")
        return [(("step_rmse", "step_spread"), pair, "error, spread"),
                (("step_count",), (_COUNT,), "observations")]  # fmt: skip
    if {"score", "mu"} <= set(result.data_vars):
        return [(("score",), (_SCORE,), "1 - relative error")]
    ends, panels = ("innovation_rms", "innovation_expected_rms"), list[Panel]()
    for name in map(str, result.data_vars):
        prefix = name.removesuffix(ends[0])
        if name.endswith(ends[0]) and prefix + ends[1] in result:
            pair = ("observed minus forecast", "expected")
            title = f"innovation{' of ' + prefix[:-1] if prefix else ''}"
            panels.append(((name, prefix + ends[1]), pair, title))
    return panels


def _lines(ax: Axes, values: list[xr.DataArray], words: tuple[str, ...], dim: str) -> None:
    """Draw one line each, the first one full and the second dashed."""
    steps, label = values[0][dim].values, dim
    if steps.dtype == object:  # dates that matplotlib does not know, such as of 360 days
        steps, label = np.arange(steps.size), f"{dim} (number)"
    looks: tuple[tuple[str, Any], ...] = ((_ERROR, "-"), (_SPREAD, (0, (4, 2))))
    for line, word, (colour, dash) in zip(values, words, looks, strict=False):
        if word == _COUNT:
            ax.bar(steps, line.values, width=_width(steps), color=colour, lw=0)
            continue
        ax.plot(steps, line.values, color=colour, ls=dash, lw=1.4, marker=".", ms=4, label=word)
    if steps.dtype.kind == "M":
        locator = AutoDateLocator(maxticks=7)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    drawn = np.concatenate([np.asarray(line.values, dtype=float).ravel() for line in values])
    drawn = drawn[np.isfinite(drawn)]
    if words[0] == _SCORE:
        ax.set_ylim(0.1 * np.floor(10.0 * drawn.min(initial=0.9)), 1.0)
    else:
        ax.set_ylim(0.0, 1.06 * drawn.max(initial=0.0) or 1.0)
    ax.set(xlabel=label)
    ax.label_outer()
    ax.spines[["top", "right"]].set_visible(False)
    if len(values) > 1:
        ax.legend(frameon=False, fontsize=7.5, loc="best")


def _width(steps: NDArray[Any]) -> Any:
    """Width of the bars of a series."""
    return np.diff(steps).min() * 0.8 if steps.size > 1 else 0.8

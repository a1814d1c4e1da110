"""Figures of maps in space and time: a map with its tracks, and its uncertainty against error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde.assim.reading import value_of
from xr_spde.assim.times import as_times, days_since
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import as_points, calendar_of, find_points, find_time, positions_on
from xr_spde.plot import style
from xr_spde.plot.layers import flat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["at_time", "coast", "date_text", "snapshot", "spread_skill"]

_DOT = "#2f6f9f"
_TOP = 0.998
_ZERO_INSIDE = 0.35


def snapshot(
    result: xr.Dataset,
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
    """Draw the mean of one time and its standard deviation, with the observations about it.

    On the mean, observations have the colours of their values on the same scale: where they vanish,
    map and data agree. On the standard deviation they are dots.

    Parameters
    ----------
    result : Dataset
        ``mean`` and, for the second panel, ``std`` (time, Y, X), such as maps of `assimilate`.
    obs : DataArray or Dataset, optional
        Points in the units of the map.
    time : date or str, optional
        Which time, the nearest is taken; not needed where there is one.
    days : float, default 5
        Observations so many days before or after are drawn; all where they have no times.
    value : str, optional
        Variable of the observations, where there are several.
    limits : (float, float), optional
        Of the colours of the mean; by default nearly all values are within, about zero where both
        signs matter.
    axes : sequence of Axes, optional
        One for each panel; a new figure by default.
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
        ``result`` has no ``mean``.
    ParameterError
        Several times and no `time`, further dimensions, or another number of axes than panels.
    """
    if not isinstance(result, xr.Dataset) or "mean" not in result:
        raise SchemaError(
            'a Dataset with "mean" and "std" is expected; pass what .assim.assimilate() returned'
        )
    names = [name for name in ("mean", "std") if name in result]
    grid = Grid.from_object(result["mean"], x=x, y=y)
    one, when = at_time(result[names], time, grid)
    maps = {name: flat_map(one[name], grid, name) for name in names}
    seen = None if obs is None else _seen(obs, grid, when, days, value)
    cmap, norm = _colours(maps["mean"], None if seen is None else seen[2], limits)
    with style.house_style():
        if axes is None:
            wide = style.display_aspect(grid) * grid.ny * abs(grid.dy) < 0.65 * grid.nx * abs(
                grid.dx
            )
            rows, columns = (len(names), 1) if wide else (1, len(names))
            _, panels = style.map_figure(grid, rows, columns, figsize=figsize, bars=columns,
                                         titled=True, width=4.4 if wide else 3.6)  # fmt: skip
            axes = list(panels.flat)
        if len(axes) != len(names):
            raise ParameterError(f"got {len(axes)} axes; {len(names)} are expected")
        looks = {"mean": (cmap, norm), "std": (style.colour_map("spread"), _spread(maps))}
        words = {"mean": "mean" if when is None else f"mean, {date_text(when)}",
                 "std": "standard deviation"}  # fmt: skip
        for ax, name in zip(axes, names, strict=True):
            look, scale = looks[name]
            mesh = style.draw_map(ax, maps[name], grid, cmap=look, norm=scale)
            coast(ax, maps[name], grid)
            label = name + style.units_text(one[name].attrs.get("units"))
            beyond = "both" if name == "mean" else "max"
            style.colour_bar(mesh, ax, label, extend=beyond)
            ax.set_title(words[name])
        if seen is not None:
            _tracks(axes, seen, {"cmap": cmap, "norm": norm})
    return axes[0].figure  # type: ignore[return-value]


def at_time(result: xr.Dataset, time: Any, grid: Grid) -> tuple[xr.Dataset, xr.DataArray | None]:
    """Select the maps of one time; return that time too, where it is known."""
    maps = result["mean"]
    dated = [d for d in maps.dims if d in maps.coords and calendar_of(maps[d]) is not None]
    if time is not None:
        if len(dated) != 1:
            raise ParameterError(
                f"time={time!r} was given, and the maps have no dimension of dates"
            )
        wanted = as_times(time, maps[dated[0]]).squeeze()
        away = np.abs(days_since(maps[dated[0]], wanted))
        result = result.isel({dated[0]: int(np.argmin(away))})
    elif any(maps.sizes[d] > 1 for d in dated):
        raise ParameterError(
            f"the maps have {maps.sizes[dated[0]]} times along {dated[0]!r}; give one of them, "
            f'such as time="{maps[dated[0]].values[0]}"'
        )
    one = result.squeeze([d for d in dated if d in result.dims])
    known = [c for c in one.coords if one[c].ndim == 0 and calendar_of(one[c]) is not None]
    return one, one[known[0]] if known else None


def date_text(when: xr.DataArray) -> str:
    """Date, with the time of day where it is not midnight."""
    text = str(when.values.astype("M8[m]")) if when.dtype.kind == "M" else when.item().isoformat()
    return text.removesuffix("T00:00:00").removesuffix("T00:00").replace("T", " ")


def _seen(
    obs: xr.DataArray | xr.Dataset,
    grid: Grid,
    when: xr.DataArray | None,
    days: float,
    value: str | None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Positions (y, x) and values of the observations near in time and on the map."""
    points = as_points(obs)
    given = value_of(points, value)
    names = find_points(points, grid)
    y, x = positions_on(points, (names.y, names.x), grid)
    values = np.asarray(given.values, dtype=np.float64)
    if grid.kind == "geographic":
        start = grid.canonical_x()[0] - abs(grid.dx) / 2
        x = (x - start) % 360.0 + start
    keep = np.isfinite(values)
    for place, along in ((y, grid.canonical_y()), (x, grid.canonical_x())):
        half = abs(along[1] - along[0]) / 2 if along.size > 1 else np.inf
        keep &= (place >= along[0] - half) & (place <= along[-1] + half)
    if when is not None and names.time is not None:
        keep &= np.abs(days_since(find_time(points), when)) <= days
    return y[keep], x[keep], values[keep]


def _colours(
    mean: NDArray[Any], seen: NDArray[Any] | None, limits: tuple[float, float] | None
) -> tuple[Any, Normalize]:
    """Colours about zero where both signs matter, else along the values."""
    known = mean[np.isfinite(mean)]
    if seen is not None:
        known = np.concatenate([known, seen])
    if limits is None and known.size:
        limits = tuple(np.quantile(known, [1.0 - _TOP, _TOP]))  # type: ignore[assignment]
    low, high = limits or (0.0, 1.0)
    if low < 0.0 < high and min(-low, high) > _ZERO_INSIDE * max(-low, high):
        top = max(-low, high)
        return style.colour_map("anomaly"), Normalize(-top, top)
    return style.colour_map("value"), Normalize(low, high if high > low else low + 1.0)


def _spread(maps: dict[str, NDArray[Any]]) -> Normalize:
    """Colours of the standard deviation, which is largest at a few corners of the coast."""
    known = maps.get("std", np.empty(0))
    known = known[np.isfinite(known)]
    low, high = np.quantile(known, [0.0, 0.99]) if known.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1.0)


def coast(ax: Axes, values: NDArray[Any], grid: Grid) -> None:
    """Draw a line along the cells that are missing."""
    land = np.isnan(values)
    if land.any() and not land.all() and min(land.shape) > 1:
        levels: list[float] = [0.5]
        ax.contour(grid.canonical_x(), grid.canonical_y(), land.astype(np.float64), levels,
                   colors=style.INK, linewidths=0.5)  # fmt: skip


def _tracks(axes: Sequence[Axes], seen: tuple[Any, Any, Any], look: dict[str, Any]) -> None:
    """Draw observations: on the mean in its colours with a dark rim, else as dots."""
    y, x, values = seen
    axes[0].scatter(x, y, s=9.0, c=style.INK, linewidths=0, rasterized=True)
    axes[0].scatter(x, y, s=6.0, c=values, linewidths=0, rasterized=True, **look)
    for ax in axes[1:]:
        ax.scatter(x, y, s=0.7, c=style.INK, linewidths=0, alpha=0.7, rasterized=True)


def spread_skill(
    result: xr.Dataset, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
) -> Axes:
    """Draw the error that was found where a certain error was expected.

    On the dashed line the standard deviation is right; above it, it is too small. The title says
    how many observations were within the interval of 90 %.

    Parameters
    ----------
    result : Dataset
        What `xr_spde.assim.score` returned for withheld tracks.
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
    missing = [name for name in ("bin_spread", "bin_rmse", "coverage") if name not in result]
    if missing:
        raise SchemaError(
            f"the dataset has {sorted(map(str, result.data_vars))} and lacks {missing}; pass what "
            ".assim.score(tracks) returned for maps of mean and std at several times"
        )
    spread, error = (np.asarray(result[name], dtype=float) for name in ("bin_spread", "bin_rmse"))
    units = style.units_text(result["bin_spread"].attrs.get("units"))
    top = 1.08 * np.nanmax([spread, error])
    with style.house_style():
        if ax is None:
            _, ax = plt.subplots(figsize=figsize or (3.6, 3.4), layout="constrained")
        ax.plot([0.0, top], [0.0, top], color=style.INK, lw=0.9, ls=(0, (4, 3)))
        ax.plot(spread, error, color=_DOT, lw=1.0, marker="o", ms=4)
        ax.set(xlim=(0.0, top), ylim=(0.0, top), aspect="equal")
        ax.set(xlabel=f"expected error{units}", ylabel=f"error of the mean{units}")
        held = float(result["coverage"].sel(level=0.9))
        ax.set_title(f"{100 * held:.0f} % within the interval of 90 %")
        ax.spines[["top", "right"]].set_visible(False)
    return ax

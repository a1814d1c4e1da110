"""Real beside synthetic: correlation maps and members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.labels.arrays import array_of
from xr_spde.labels.axes import find_replicates
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.schema import is_parameters
from xr_spde.plot import style
from xr_spde.plot.layers import flat_map
from xr_spde.sar.positions import At, find_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["correlation", "members"]

_MARK = [withStroke(linewidth=2.6, foreground="white")]


def correlation(
    obj: xr.DataArray | xr.Dataset,
    at: At,
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
    """Draw correlation maps with one or more points, and those of another object beside them.

    Parameters
    ----------
    obj : DataArray or Dataset
        Members (empirical correlation over ``dim``) or SAR parameters (the model's exact one).
    at : (y, x) tuple, {dim: value} mapping, or list of them
        The points, in coordinate values: one row each.
    other : DataArray or Dataset, optional
        The same on the same grid. Columns are ``obj``, ``other`` and their difference.
    dim : str, optional
        Replicate dimension of ``obj``, and of ``other`` if it has it; found by default.
    labels : (str, str)
        Column titles.
    difference : bool
        Whether ``other - obj`` is drawn too.
    axes : array of Axes, shape (points, columns), optional
        A new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    x, y : str, optional
        Spatial dimensions; found by CF conventions by default.

    Returns
    -------
    Figure

    Raises
    ------
    ParameterError
        A point outside the grid, leading dimensions left, or axes of another shape.
    GridError
        The grids differ.
    """
    grid = Grid.from_object(obj, x=x, y=y)
    points: list[Any] = [at] if find_points(at, grid, obj).single else list(at)
    cells = find_points(points, grid, obj).canonical
    places = [(float(grid.canonical_y()[j]), float(grid.canonical_x()[i])) for j, i in cells]
    # beside parameters, dim names the replicates of the fields they are compared with
    mine = dim if other is None or dim in obj.dims else None
    columns = [_correlation_maps(obj, points, mine, grid)]
    if other is not None:
        own = dim if dim in other.dims else None
        own_grid = same_grid(grid, Grid.from_object(other, x=x, y=y))
        columns.append(_correlation_maps(other, points, own, own_grid))
        if difference:
            columns.append(columns[1] - columns[0])
    width = min(max(style.symmetric_limit(columns[-1], quantile=0.98), 0.2), 1.0)
    titles = (labels[0], labels[1], f"{labels[1]} − {labels[0]}")
    with style.house_style():
        axes = _panels(grid, axes, len(points), len(columns), figsize)
        for row, place in enumerate(places):
            for column, maps in enumerate(columns):
                last = column == 2
                limit = width if last else 1.0
                _correlation_panel(
                    axes[row, column], maps[row], grid, limit=limit, is_difference=last
                )
                _mark(axes[row, column], place)
            axes[row, 0].set_ylabel(_point_text(place, grid))
        for column, title in zip(range(len(columns)), titles, strict=False):
            axes[0, column].set_title(title, fontweight="bold")
        own_scale = [list(axes[:, : min(2, len(columns))].flat), list(axes[:, 2:].flat)]
        for group, label in zip(own_scale, ("correlation", "difference"), strict=True):
            if group:
                style.colour_bar(
                    group[0].collections[0],
                    group,
                    label,
                    location="bottom",
                    extend="both" if label == "difference" else "neither",
                    aspect=18 * (len(group) // len(points)),
                )
    return axes[0, 0].figure


def members(
    fields: xr.DataArray | xr.Dataset,
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
    """Draw a few members of one or two ensembles with one colour scale.

    Parameters
    ----------
    fields : DataArray or Dataset
        Members on (..., Y, X): the upper row.
    ensemble : DataArray or Dataset, optional
        Other members on the same grid: the lower row. Only the members drawn are computed.
    variable : str, optional
        Which variable of a Dataset; not needed where there is one.
    k : int
        Members per row.
    dim : str, optional
        Replicate dimension of ``fields``, and of ``ensemble`` if it has it; found by default.
    which : sequence of int, optional
        Positions of the members drawn in both rows instead of the first ``k``.
    anomalies : bool
        Whether the mean over all of ``fields`` is taken off both rows; without it the members are
        drawn as they are.
    labels : (str, str)
        Row titles.
    axes : array of Axes, shape (rows, k), optional
        A new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    x, y : str, optional
        Spatial dimensions; found by CF conventions by default.

    Returns
    -------
    Figure

    Raises
    ------
    ParameterError
        ``k`` < 1, fewer members than are to be drawn, leading dimensions left, axes of another
        shape, parameters instead of members, or several variables of which none is named.
    UnknownNameError
        No variable of that name.
    GridError
        The grids differ.
    """
    fields = _one_variable(fields, variable, x=x, y=y)
    grid = Grid.from_object(fields, x=x, y=y)
    chosen = list(range(k)) if which is None else list(which)
    if not chosen:
        raise ParameterError("no member to draw; pass k=3, or which=[0, 4, 7]")
    rows = [_pick(fields, chosen, dim, grid)]
    if ensemble is not None:
        ensemble = _one_variable(ensemble, variable, x=x, y=y)
        own = dim if dim in ensemble.dims else None
        own_grid = same_grid(grid, Grid.from_object(ensemble, x=x, y=y))
        rows.append(_pick(ensemble, chosen, own, own_grid))
    if anomalies:
        replicates = find_replicates(fields, dim, spatial=(grid.y_dim, grid.x_dim))
        centre = flat_map(fields.mean(replicates, skipna=True), grid, "fields")
        rows = [[(number, values - centre) for number, values in row] for row in rows]
    scale = _member_scale(rows, anomalies)
    with style.house_style():
        axes = _panels(grid, axes, len(rows), len(chosen), figsize, titled=True)
        for row, (label, drawn) in enumerate(zip(labels, rows, strict=False)):
            for column, (number, values) in enumerate(drawn):
                style.draw_map(axes[row, column], values, grid, **scale)
                axes[row, column].set_title(f"{label}, {number}")
        what = "anomaly" if anomalies else str(fields.attrs.get("long_name", fields.name or ""))
        style.colour_bar(
            axes[0, 0].collections[0],
            list(axes.flat),
            what + style.units_text(fields.attrs.get("units")),
            location="bottom",
            extend="both",
            shrink=0.6 if len(chosen) > 1 else 1.0,
            aspect=12 * len(chosen) + 6,
        )
    return axes[0, 0].figure


def _one_variable(
    obj: xr.DataArray | xr.Dataset, variable: str | None, *, x: str | None, y: str | None
) -> xr.DataArray:
    """Members of one variable of a Dataset."""
    if isinstance(obj, xr.DataArray):
        if variable not in (None, obj.name):
            raise ParameterError(
                f"variable={variable!r} was given with a DataArray, named {obj.name!r}; it names a "
                "variable of a Dataset: leave it out"
            )
        return obj
    if is_parameters(obj):
        raise ParameterError(
            "a parameter Dataset has no members to draw; draw some from it first: "
            "params.sar.emulate(100).sar.plot.members()"
        )
    if variable is not None:
        if variable not in obj.data_vars:
            raise unknown("variable", variable, [str(name) for name in obj.data_vars])
        return obj[variable]
    joined = array_of(obj, x=x, y=y)
    if "variable" in joined.dims and "variable" not in obj.dims:
        names = [str(name) for name in joined["variable"].values]
        raise ParameterError(
            f"the Dataset has the variables {', '.join(names)}; name the one to draw, for "
            f"instance variable={names[0]!r}"
        )
    return joined


def _correlation_maps(
    obj: xr.DataArray | xr.Dataset, points: list[Any], dim: str | None, grid: Grid
) -> NDArray[np.floating[Any]]:
    """Canonical correlation maps, one per point: (points, ny, nx)."""
    from xr_spde.sar.diagnose import correlation as correlation_with

    found = correlation_with(obj, points, dim=dim, x=grid.x_dim, y=grid.y_dim)
    maps = (found.isel(point=n) for n in range(len(points)))
    return np.stack([flat_map(one, grid, "the correlation map") for one in maps])


def _point_text(point: tuple[float, float], grid: Grid) -> str:
    if grid.kind != "geographic":
        return f"({point[0]:g}, {point[1]:g})"
    return f"{style.degrees('N', 'S')(point[0])} {style.degrees('E', 'W')(point[1])}"


def _correlation_panel(
    ax: Axes, values: NDArray[np.floating[Any]], grid: Grid, *, limit: float, is_difference: bool
) -> None:
    role = "difference" if is_difference else "correlation"
    style.draw_map(ax, values, grid, cmap=style.colour_map(role), norm=Normalize(-limit, limit))
    if not is_difference and np.nanmax(values) > 0.5 > np.nanmin(values):
        ax.contour(
            grid.canonical_x(),
            grid.canonical_y(),
            np.ma.masked_invalid(values),
            levels=[0.5],
            colors=style.INK,
            linewidths=0.7,
        )


def _mark(ax: Axes, place: tuple[float, float]) -> None:
    ax.plot([place[1]], [place[0]], "+", color="black", ms=7, mew=1.2, path_effects=_MARK, zorder=5)


def _pick(
    array: xr.DataArray, chosen: Sequence[int], dim: str | None, grid: Grid
) -> list[tuple[str, NDArray[np.floating[Any]]]]:
    """Label and canonical map of the chosen members."""
    dim = find_replicates(array, dim, spatial=(grid.y_dim, grid.x_dim))
    if max(chosen) >= array.sizes[dim]:
        raise ParameterError(
            f"member {max(chosen)} is to be drawn and {dim!r} has {array.sizes[dim]}; "
            f"pass which= with positions below {array.sizes[dim]}, or a smaller k"
        )
    drawn = array.isel({dim: list(chosen)}).compute()
    names = _member_names(drawn[dim]) if dim in drawn.coords else [f"member {n}" for n in chosen]
    maps = (flat_map(drawn.isel({dim: n}), grid, "the ensemble") for n in range(len(chosen)))
    return list(zip(names, maps, strict=True))


def _member_names(labels: xr.DataArray) -> list[str]:
    """Dates where members are times, as short as they differ; else their numbers."""
    values = labels.values
    if values.dtype.kind == "M":
        texts = np.datetime_as_string(values, unit="m").tolist()
    elif hasattr(values.flat[0], "isoformat"):  # calendars other than the Gregorian
        texts = [value.isoformat()[:16] for value in values.flat]
    else:
        return [f"member {value}" for value in values]
    midnight = all(text.endswith("T00:00") for text in texts)
    return [text[:10] if midnight else text.replace("T", " ") for text in texts]


def _member_scale(
    rows: list[list[tuple[str, NDArray[np.floating[Any]]]]], anomalies: bool
) -> dict[str, Any]:
    values = [drawn for row in rows for _, drawn in row]
    if anomalies:
        limit = style.symmetric_limit(*values, quantile=0.99)
        return {"cmap": style.colour_map("anomaly"), "norm": Normalize(-limit, limit)}
    finite = np.concatenate([one[np.isfinite(one)] for one in values])
    low, high = np.quantile(finite, [0.002, 0.998]) if finite.size else (0.0, 1.0)
    return {"cmap": style.colour_map("value"), "norm": Normalize(float(low), float(high))}


def _panels(
    grid: Grid,
    axes: NDArray[Any] | None,
    rows: int,
    columns: int,
    figsize: tuple[float, float] | None,
    *,
    titled: bool = False,
) -> NDArray[Any]:
    if axes is None:
        return style.map_figure(grid, rows, columns, figsize=figsize, titled=titled)[1]
    given = np.asarray(axes, dtype=object)
    if given.shape != (rows, columns) and given.size == rows * columns:
        given = given.reshape(rows, columns)
    if given.shape != (rows, columns):
        raise ParameterError(
            f"got axes of shape {given.shape} for {rows} x {columns} panels; pass an array of "
            f"axes of shape ({rows}, {columns}), or none"
        )
    return given

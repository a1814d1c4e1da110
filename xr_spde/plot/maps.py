"""Maps of SAR parameters, and anisotropy as ellipses on the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke

from xr_spde._core.errors import ParameterError
from xr_spde.labels.grid import Grid
from xr_spde.plot import style
from xr_spde.plot.layers import default_variables, draw_layer, flat_map, layer, needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["ellipses", "parameters", "patterns"]

_NICE_SCALES = (1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 8, 1 / 10, 1 / 15, 1 / 20, 1 / 50, 0.01)


def parameters(
    params: xr.Dataset,
    *,
    variables: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Figure:
    """Draw maps of SAR parameters.

    Range (or kappa2) has a logarithmic scale, the direction a cyclic one that fades where
    ``rho`` is near 1 and a direction means nothing.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` and optionally ``mean``, ``std`` on (Y, X).
    variables : sequence of str, optional
        Among ``range`` (practical range in km, geometric mean of along and across), ``kappa2``,
        ``rho``, ``theta``, ``mean``, ``std``. By default range (kappa2 on grids without
        physical coordinates), rho, theta, and std if it is there.
    axes : sequence of Axes, optional
        One per variable; a new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    x, y : str, optional
        Spatial dimensions; found by CF conventions by default.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        ``params`` lacks a variable.
    UnknownNameError
        A variable that cannot be drawn.
    ParameterError
        More than one map per variable, or another number of axes than of variables.
    """
    needed(params, ("kappa2", "rho", "theta") if variables is None else ())
    grid = Grid.from_object(params, x=x, y=y)
    names = default_variables(params, grid) if variables is None else tuple(variables)
    with style.house_style():
        if axes is None:
            columns = len(names) if len(names) <= 3 else 2
            rows = -(-len(names) // columns)
            _, panels = style.map_figure(grid, rows, columns, figsize=figsize, bars=columns)
            for spare in panels.flat[len(names) :]:
                spare.set_visible(False)
            axes = list(panels.flat)[: len(names)]
        if len(axes) != len(names):
            raise ParameterError(
                f"got {len(axes)} axes for {len(names)} variables {names}; pass one axes each"
            )
        for ax, name in zip(axes, names, strict=True):
            draw_layer(ax, layer(params, grid, name), grid)
    return axes[0].figure  # type: ignore[return-value]


def ellipses(
    params: xr.Dataset,
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
    """Draw the local correlation ellipses of a SAR model on the map.

    The ellipse at a node is where the correlation of the stationary field with that node's
    parameters has fallen to 0.14: semi-axes ``sqrt(8 rho / kappa2)`` along ``theta`` and
    ``sqrt(8 / (rho kappa2))`` across, in cells, turned into coordinate units; all drawn smaller
    by one factor that the title states.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` on (Y, X).
    background : str, optional
        Variable drawn under the ellipses (see :func:`parameters`); None for none. On grids
        without physical coordinates ``range`` becomes ``kappa2``.
    across : int
        Number of ellipses along the longer side of the map.
    scale : float, optional
        Size drawn over true size. By default the largest of 1, 1/2, 1/3, ... that keeps most
        neighbours apart.
    colour : str
        Of the outlines.
    ax : Axes, optional
        Where to draw; a new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    x, y : str, optional
        Spatial dimensions; found by CF conventions by default.

    Returns
    -------
    Axes

    Raises
    ------
    SchemaError
        ``params`` lacks a variable.
    ParameterError
        More than one map per variable, or a number out of its domain.
    """
    needed(params, ("kappa2", "rho", "theta"))
    if across < 1 or (scale is not None and not scale > 0):
        raise ParameterError(f"across={across}, scale={scale}: expected positive numbers")
    grid = Grid.from_object(params, x=x, y=y)
    with style.house_style():
        if ax is None:
            _, panels = style.map_figure(grid, 1, 1, figsize=figsize, width=5.2, bars=1)
            ax = panels[0, 0]
        if background is not None:
            name = "kappa2" if background == "range" and grid.kind == "index" else background
            draw_layer(ax, layer(params, grid, name), grid)
        else:
            style.dress(ax, grid)
        outlines, spacing, extent = _outlines(params, grid, across)
        factor = _readable_scale(extent, spacing) if scale is None else scale
        _add_ellipses(ax, outlines, factor, colour)
        ax.set_title(f"correlation ellipses, {_as_text(factor)} practical range")
    return ax


def patterns(
    params: xr.Dataset,
    *,
    k: int = 6,
    axes: Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Figure:
    """Draw the large-scale patterns of an estimate, on one colour scale.

    Parameters
    ----------
    params : Dataset
        With ``patterns`` on (mode, Y, X), each with a standard normal amplitude; those that are
        zero everywhere are not drawn.
    k : int
        Largest number of them.
    axes : sequence of Axes, optional
        One per pattern drawn; a new figure by default.
    figsize : (float, float), optional
        Of the new figure, inches.
    x, y : str, optional
        Spatial dimensions; found by CF conventions by default.

    Returns
    -------
    Figure

    Raises
    ------
    SchemaError
        ``params`` has no ``patterns``.
    ParameterError
        All patterns are zero, leading dimensions are left, or there are fewer axes than patterns.
    """
    needed(params, ("patterns",))
    grid = Grid.from_object(params, x=x, y=y)
    count = params.sizes["mode"]
    modes = (params["patterns"].isel(mode=n) for n in range(count))
    maps = [values for one in modes if np.nanmax(np.abs(values := flat_map(one, grid, "patterns")))]
    if not maps[:k]:
        raise ParameterError(
            f"k={k} of {len(maps)} patterns that are not zero: there is none to draw; the estimate "
            "found no large-scale pattern that the data bear out, or k must be at least 1"
        )
    maps = maps[:k]
    limit = style.symmetric_limit(*maps)
    with style.house_style():
        if axes is None:
            columns = min(3, len(maps))
            rows = -(-len(maps) // columns)
            _, panels = style.map_figure(grid, rows, columns, figsize=figsize, titled=True)
            for spare in panels.flat[len(maps) :]:
                spare.set_visible(False)
            axes = list(panels.flat)[: len(maps)]
        if len(axes) < len(maps):
            raise ParameterError(
                f"got {len(axes)} axes for {len(maps)} patterns; pass one each, or a smaller k"
            )
        for number, (ax, values) in enumerate(zip(axes, maps, strict=False), start=1):
            norm = Normalize(-limit, limit)
            mesh = style.draw_map(ax, values, grid, cmap=style.colour_map("anomaly"), norm=norm)
            ax.set_title(f"pattern {number}")
        label = "one standard deviation" + style.units_text(params["patterns"].attrs.get("units"))
        style.colour_bar(mesh, list(axes), label, location="bottom", extend="both", shrink=0.6)
    return axes[0].figure  # type: ignore[return-value]


def _outlines(
    params: xr.Dataset, grid: Grid, across: int
) -> tuple[NDArray[np.floating[Any]], float, NDArray[np.floating[Any]]]:
    """Centred unit-scale outlines (count, 2, 1 + vertices), spacing and half-widths as displayed.

    Column 0 along the last axis is the centre itself.
    """
    kappa2, rho, theta = (flat_map(params[n], grid, n) for n in ("kappa2", "rho", "theta"))
    aspect = style.display_aspect(grid)
    step_x, step_y = abs(grid.dx), abs(grid.dy)
    spacing = max(grid.nx * step_x, grid.ny * step_y * aspect) / across
    columns = _thinned(grid.nx, spacing / step_x)
    rows = _thinned(grid.ny, spacing / (step_y * aspect))
    j, i = (index.ravel() for index in np.meshgrid(rows, columns, indexing="ij"))
    j, i = (index[np.isfinite(kappa2[j, i])] for index in (j, i))
    size = np.sqrt(8.0 / kappa2[j, i])[:, None]
    root, angle = np.sqrt(rho[j, i])[:, None], theta[j, i][:, None]
    turn = np.linspace(0.0, 2.0 * np.pi, 61)[None, :]
    along, aside = size * root * np.cos(turn), size / root * np.sin(turn)
    dx = (along * np.cos(angle) - aside * np.sin(angle)) * step_x
    dy = (along * np.sin(angle) + aside * np.cos(angle)) * step_y
    centre = np.stack([grid.canonical_x()[i], grid.canonical_y()[j]], axis=1)
    displayed = np.hypot(dx, dy * aspect).max(axis=1, initial=0.0)
    return np.concatenate([centre[:, :, None], np.stack([dx, dy], axis=1)], 2), spacing, displayed


def _thinned(n: int, step: float) -> NDArray[np.intp]:
    stride = max(1, round(step))
    count = max(1, n // stride)
    first = (n - 1 - (count - 1) * stride) // 2
    return first + stride * np.arange(count)


def _readable_scale(extent: NDArray[np.floating[Any]], spacing: float) -> float:
    if not extent.size:
        return 1.0
    wanted = 0.56 * spacing / float(np.quantile(extent, 0.8))
    return next((nice for nice in _NICE_SCALES if nice <= wanted), _NICE_SCALES[-1])


def _as_text(factor: float) -> str:
    if factor == 1.0:
        return "at their"
    inverse = 1.0 / factor
    return f"1/{inverse:.0f} of the" if abs(inverse - round(inverse)) < 1e-9 else f"{factor:g} ×"


def _add_ellipses(
    ax: Axes, outlines: NDArray[np.floating[Any]], factor: float, colour: str
) -> None:
    centre, shape = outlines[:, :, :1], outlines[:, :, 1:]
    halo = [withStroke(linewidth=2.2, foreground=(1.0, 1.0, 1.0, 0.75))]
    patches = PolyCollection(
        list((centre + factor * shape).transpose(0, 2, 1)),
        facecolors="none",
        edgecolors=colour,
        linewidths=0.9,
        path_effects=halo,
        zorder=3,
    )
    ax.add_collection(patches, autolim=False)
    ax.scatter(centre[:, 0, 0], centre[:, 1, 0], s=2.0, c=colour, linewidths=0.0, zorder=4)

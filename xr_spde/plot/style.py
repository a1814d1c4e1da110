"""What all figures share: colour maps, map axes, colour bars, a rounded symmetric scale."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FuncFormatter, MaxNLocator

from xr_spde._core.lazyimport import has_module
from xr_spde.labels.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import QuadMesh
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MISSING_COLOUR = "0.88"
INK = "0.15"

# cmocean's name first, then the nearest perceptual map of matplotlib
COLOUR_MAPS = {
    "correlation": ("balance", "RdBu_r"),
    "difference": ("", "PuOr_r"),
    "anomaly": ("balance", "RdBu_r"),
    "range": ("haline", "viridis"),
    "ratio": ("matter", "magma_r"),
    "angle": ("phase", "twilight"),
    "spread": ("tempo", "YlGnBu"),
    "value": ("thermal", "inferno"),
}

_DEGREE_NAMES = {"degC": "°C", "degrees_C": "°C", "degree_Celsius": "°C", "Celsius": "°C"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "figure.dpi": 110,
    "savefig.dpi": 200,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Context in which figures are drawn; the user's own settings come back after it."""
    # Not rc_context: a notebook's backend is set up at the first figure, and whether figures
    # show by themselves would be put back to what it was before.
    before = {name: mpl.rcParams[name] for name in _RC}
    mpl.rcParams.update(_RC)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def colour_map(role: str) -> Colormap:
    """Perceptual colour map for a role (a key of ``COLOUR_MAPS``): cmocean's, else matplotlib's."""
    preferred, fallback = COLOUR_MAPS[role]
    if preferred and has_module("cmocean"):
        from cmocean import cm

        return getattr(cm, preferred)  # type: ignore[no-any-return]
    return plt.get_cmap(fallback)


def units_text(units: object) -> str:
    """Units with raised exponents, in parentheses after a space: ``" (m² s⁻²)"``; "" for none."""
    if units in (None, "", "1"):
        return ""
    raised = re.sub(
        r"(?<=[A-Za-z])(\^|\*\*)?(-?\d+)", lambda m: m.group(2).translate(_RAISED), str(units)
    )
    return f" ({_DEGREE_NAMES.get(raised, raised)})"


def degrees(positive: str, negative: str) -> Callable[..., str]:
    """Formatter of degrees with a hemisphere letter, such as ``40°N``; 0 and 180 carry none."""

    def text(value: float, _position: int | None = None) -> str:
        wrapped = (value + 180.0) % 360.0 - 180.0 if positive == "E" else value
        letter = "" if wrapped in (0.0, -180.0) else (positive if wrapped > 0 else negative)
        return f"{abs(wrapped):g}°{letter}"

    return text


def display_aspect(grid: Grid) -> float:
    """Height of one unit of y over the width of one unit of x, as drawn.

    A regional latitude-longitude map is stretched by 1 / cos(middle latitude), a global one is
    drawn as plate carrée; grids without physical coordinates get square cells.
    """
    if grid.kind == "projected":
        return 1.0
    if grid.kind == "index":
        return float(abs(grid.dx) / abs(grid.dy))
    y = grid.canonical_y()
    middle = 0.5 * float(y[0] + y[-1])
    if grid.periodic_x or float(np.abs(y).max()) > 84.0:
        return 1.0
    return float(1.0 / np.cos(np.deg2rad(middle)))


def dress(ax: Axes, grid: Grid) -> None:
    """Extent, aspect, ticks and missing-value colour of a map of ``grid``."""
    x, y = grid.canonical_x(), grid.canonical_y()
    half_x, half_y = 0.5 * abs(grid.dx), 0.5 * abs(grid.dy)
    ax.set(
        xlim=(x[0] - half_x, x[-1] + half_x),
        ylim=(y[0] - half_y, y[-1] + half_y),
        facecolor=MISSING_COLOUR,
    )
    ax.set_aspect(display_aspect(grid))
    steps = [1, 1.5, 2, 3, 4.5, 5, 6, 9, 10] if grid.kind == "geographic" else [1, 2, 2.5, 5, 10]
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=steps))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=steps))
    if grid.kind == "geographic":
        ax.xaxis.set_major_formatter(FuncFormatter(degrees("E", "W")))
        ax.yaxis.set_major_formatter(FuncFormatter(degrees("N", "S")))
    else:
        ax.set(xlabel=grid.x_dim, ylabel=grid.y_dim)


def draw_map(
    ax: Axes,
    values: NDArray[np.floating[Any]],
    grid: Grid,
    *,
    cmap: Colormap,
    norm: Normalize | None = None,
    alpha: NDArray[np.floating[Any]] | None = None,
) -> QuadMesh:
    """Draw a canonical (ny, nx) map with its axes and return the mesh for a colour bar."""
    x, y, shown = grid.canonical_x(), grid.canonical_y(), np.ma.masked_invalid(values)
    if alpha is not None:
        # Faded cells turn white, and so stay apart from missing ones.
        white = ListedColormap(["white"])
        ax.pcolormesh(x, y, 0.0 * shown, cmap=white, shading="nearest", rasterized=True)
    mesh = ax.pcolormesh(
        x,
        y,
        shown,
        cmap=cmap,
        norm=norm,
        alpha=alpha,  # type: ignore[arg-type]
        shading="nearest",
        rasterized=True,
    )
    dress(ax, grid)
    return mesh


def colour_bar(
    mappable: ScalarMappable, axes: Axes | list[Axes], label: str, **keywords: Any
) -> Colorbar:
    """Add a slim colour bar beside ``axes``; ``keywords`` go to ``Figure.colorbar``."""
    figure = (axes[0] if isinstance(axes, list) else axes).figure
    settings: dict[str, Any] = {"fraction": 0.04, "pad": 0.02, "aspect": 24} | keywords
    bar = figure.colorbar(mappable, ax=axes, **settings)
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    bar.set_label(label)
    return bar


def map_figure(
    grid: Grid,
    rows: int,
    columns: int,
    *,
    figsize: tuple[float, float] | None,
    width: float = 2.9,
    bars: int = 0,
    titled: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """Lay out a figure of ``rows`` x ``columns`` maps whose panels have the shape of ``grid``.

    ``bars`` counts the vertical colour bars side by side; without them, one below is assumed.
    ``titled`` leaves room for a title over each row, not over the first alone.
    """
    if figsize is None:
        shape = display_aspect(grid) * grid.ny * abs(grid.dy) / (grid.nx * abs(grid.dx))
        width *= 1.3 if shape < 0.65 else 1.0
        height = min(max(width * shape, 0.9), 2.2 * width)
        below = 0.0 if bars else 0.6
        gap = 0.3 if titled else 0.12
        figsize = (columns * width + 0.45 + 0.75 * bars, rows * (height + gap) + 0.4 + below)
    figure, axes = plt.subplots(rows, columns, figsize=figsize, squeeze=False, layout="compressed")
    for panel in axes.flat:
        panel.label_outer()
    return figure, axes


def symmetric_limit(*values: NDArray[np.floating[Any]], quantile: float = 0.995) -> float:
    """Find a limit for a scale symmetric about 0: few values pass it, and it is round.

    Returns 1.0 when nothing is finite or all is zero.
    """
    finite = np.concatenate([np.abs(v[np.isfinite(v)]).ravel() for v in values])
    top = float(np.quantile(finite, quantile)) if finite.size else 0.0
    if top == 0.0:
        return 1.0
    unit = 10.0 ** np.floor(np.log10(top))
    return float(np.ceil(2.0 * top / unit) * unit / 2.0)

"""What a map shows: the values, label, colour map and scale of each SAR variable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from xr_spde._core.errors import ParameterError, SchemaError, unknown
from xr_spde.labels.grid import Grid
from xr_spde.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from numpy.typing import NDArray

__all__ = ["VARIABLES", "Layer", "default_variables", "draw_layer", "flat_map", "layer", "needed"]

VARIABLES = ("range", "kappa2", "rho", "theta", "mean", "std")
"""What can be drawn: ``range`` is the practical range, geometric mean of along and across."""

_TICKS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (*range(10, 100),))
_ISOTROPIC = 1.5


@dataclass(frozen=True, eq=False)
class Layer:
    """One variable ready to be drawn.

    Attributes
    ----------
    values : ndarray, shape (ny, nx)
        Canonical map.
    label : str
        Name and units.
    cmap, norm
        Colour map and scale.
    alpha : ndarray, shape (ny, nx), optional
        Opacity.
    """

    values: NDArray[np.floating[Any]]
    label: str
    cmap: Colormap
    norm: Normalize
    alpha: NDArray[np.floating[Any]] | None = None


def flat_map(array: xr.DataArray, grid: Grid, what: str) -> NDArray[np.floating[Any]]:
    """Canonical float map of a DataArray on (Y, X), leading dimensions of length one dropped.

    Parameters
    ----------
    array : DataArray
        On the dimensions of ``grid``.
    grid : Grid
        Its grid.
    what : str
        Name for the error.

    Returns
    -------
    ndarray, shape (ny, nx)

    Raises
    ------
    ParameterError
        Leading dimensions longer than one: the message says what to select.
    """
    leading = [dim for dim in array.dims if dim not in (grid.y_dim, grid.x_dim)]
    array = array.squeeze([dim for dim in leading if array.sizes[dim] == 1], drop=True)
    if array.ndim > 2:
        choice = ", ".join(f"{dim}=0" for dim in array.dims if dim in leading)
        raise ParameterError(
            f"{what} has the dimensions {array.dims} and a map has only "
            f"({grid.y_dim!r}, {grid.x_dim!r}); select one map, for example .isel({choice})"
        )
    values = array.transpose(grid.y_dim, grid.x_dim).to_numpy()
    return grid.to_canonical(values.astype(np.float64, copy=False))


def needed(params: xr.Dataset, names: Iterable[str]) -> None:
    """Raise SchemaError unless ``params`` is a Dataset with the variables ``names``."""
    if not isinstance(params, xr.Dataset):
        raise SchemaError(
            f"got {type(params).__name__}, expected a parameter Dataset; "
            "plot what .sar.estimate() returned"
        )
    missing = [name for name in names if name not in params]
    if missing:
        raise SchemaError(
            f"the dataset has the variables {sorted(map(str, params.data_vars))} and lacks "
            f"{missing}; plot what .sar.estimate() returned, or add them by hand"
        )


def default_variables(params: xr.Dataset, grid: Grid) -> tuple[str, ...]:
    """Range in km where the grid has a length (else kappa2), rho, theta, and std if it is there."""
    first = "kappa2" if grid.kind == "index" else "range"
    return (first, "rho", "theta", *(("std",) if "std" in params else ()))


def layer(params: xr.Dataset, grid: Grid, name: str) -> Layer:
    """Values and appearance of one variable.

    Parameters
    ----------
    params : Dataset
        SAR parameters.
    grid : Grid
        Their grid.
    name : str
        One of ``VARIABLES``.

    Returns
    -------
    Layer

    Raises
    ------
    UnknownNameError
        Another name.
    SchemaError
        The variable is not in ``params``.
    """
    if name not in VARIABLES:
        raise unknown("variable", name, VARIABLES)
    needed(params, ("kappa2", "rho", "theta") if name == "range" else (name,))
    if name == "range":
        values = _mean_range(params, grid)
        return Layer(values, "practical range (km)", style.colour_map("range"), _log_norm(values))
    values = flat_map(params[name], grid, name)
    if name == "kappa2":
        return Layer(values, "κ² (per cell²)", style.colour_map("range"), _log_norm(values))
    if name == "rho":
        top = max(_quantile(values, 0.995), 1.2)
        return Layer(values, "anisotropy ρ", style.colour_map("ratio"), Normalize(1.0, top))
    if name == "theta":
        return _direction(params, grid, values)
    title = {"mean": "mean", "std": "standard deviation"}[name]
    low, high = _quantile(values, 0.002), _quantile(values, 0.998)
    return Layer(
        values,
        title + style.units_text(params[name].attrs.get("units")),
        style.colour_map("value" if name == "mean" else "spread"),
        Normalize(low, high if high > low else low + 1.0),
    )


def draw_layer(ax: Axes, drawn: Layer, grid: Grid) -> Colorbar:
    """Draw a layer with its colour bar on ``ax``."""
    style.draw_map(ax, drawn.values, grid, cmap=drawn.cmap, norm=drawn.norm, alpha=drawn.alpha)
    low, high = float(drawn.norm.vmin or 0.0), float(drawn.norm.vmax or 0.0)
    slack = 1e-6 * (high - low)
    finite = drawn.values[np.isfinite(drawn.values)]
    below, above = bool((finite < low - slack).any()), bool((finite > high + slack).any())
    extend = ("both" if above else "min") if below else ("max" if above else "neither")
    bar = style.colour_bar(ScalarMappable(drawn.norm, drawn.cmap), ax, drawn.label, extend=extend)
    if isinstance(drawn.norm, LogNorm):
        bar.ax.yaxis.set_major_locator(FixedLocator(_log_ticks(low, high)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    elif drawn.alpha is not None:
        bar.ax.yaxis.set_major_locator(FixedLocator([-90, -45, 0, 45, 90]))
    return bar


def _mean_range(params: xr.Dataset, grid: Grid) -> NDArray[np.floating[Any]]:
    from xr_spde.sar.diagnose import range as practical_range

    ranges = practical_range(params, x=grid.x_dim, y=grid.y_dim)
    return flat_map(np.sqrt(ranges.range_along * ranges.range_across), grid, "params")


def _direction(params: xr.Dataset, grid: Grid, theta: NDArray[np.floating[Any]]) -> Layer:
    """Direction in degrees, faded where the field is nearly isotropic and it means nothing."""
    needed(params, ("rho",))
    degrees = (np.rad2deg(theta) + 90.0) % 180.0 - 90.0
    strength = np.log(flat_map(params["rho"], grid, "rho")) / np.log(_ISOTROPIC)
    alpha = np.where(np.isfinite(strength), np.clip(strength, 0.1, 1.0), 0.0)
    label = "direction θ (°)"
    return Layer(degrees, label, style.colour_map("angle"), Normalize(-90.0, 90.0), alpha)


def _quantile(values: NDArray[np.floating[Any]], q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if finite.size else 1.0


def _log_norm(values: NDArray[np.floating[Any]]) -> LogNorm:
    low, high = _quantile(values, 0.01), _quantile(values, 0.99)
    middle = (low * high) ** 0.5
    # A map that hardly varies gets a scale wide enough for it to look flat.
    return LogNorm(min(low, middle / 1.2), max(high, middle * 1.2))


def _log_ticks(low: float, high: float) -> list[float]:
    """At most about seven round numbers between ``low`` and ``high``, at least two."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in _TICKS:
        mantissas = np.asarray(steps, dtype=float)
        mantissas /= 10.0 ** np.floor(np.log10(mantissas[0]))
        ticks = [t for t in np.multiply.outer(decades, mantissas).ravel() if low <= t <= high]
        if len(ticks) >= 4:
            return ticks[:: -(-len(ticks) // 8)]
    return ticks

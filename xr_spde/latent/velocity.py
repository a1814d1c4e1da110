"""Velocity of what images show, in metres per second, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import resolve_seed
from xr_spde._core.warn import warn
from xr_spde.labels.arrays import array_of
from xr_spde.latent.directions import to_east_north
from xr_spde.latent.labelled_model import latent_motion
from xr_spde.latent.paths import BOUND, at_bounds, check_path, fits_along
from xr_spde.latent.rates import MAPS, spread_maps, velocity_maps
from xr_spde.latent.reading import INTERVAL, ImageSequence

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = ["COMPONENTS", "MEDIA", "velocity"]

MEDIA: dict[str, dict[str, tuple[str, str]]] = {
    "sea_ice": {
        "u": ("eastward_sea_ice_velocity", "sea_ice_x_velocity"),
        "v": ("northward_sea_ice_velocity", "sea_ice_y_velocity"),
        "divergence": ("divergence_of_sea_ice_velocity", "divergence_of_sea_ice_velocity"),
    },
    "sea_water": {
        "u": ("eastward_sea_water_velocity", "sea_water_x_velocity"),
        "v": ("northward_sea_water_velocity", "sea_water_y_velocity"),
        "vorticity": ("ocean_relative_vorticity", "ocean_relative_vorticity"),
    },
    "air": {
        "u": ("eastward_wind", "x_wind"),
        "v": ("northward_wind", "y_wind"),
        "divergence": ("divergence_of_wind", "divergence_of_wind"),
        "vorticity": ("atmosphere_relative_vorticity", "atmosphere_relative_vorticity"),
    },
}
"""CF standard names by what moves, on geographic and on other grids."""

COMPONENTS = ("grid", "east_north")
"""Along the axes of the grid only, or to east and north as well."""


def velocity(
    obj: xr.DataArray | xr.Dataset,
    *,
    medium: str | None = None,
    model: LatentDynamics | None = None,
    path: str = "smooth",
    brightness: str = "auto",
    search: float = 0.25,
    smoothness: float | None = None,
    components: str = "grid",
    restarts: int = 0,
    tile: int | str = "auto",
    halo: int | str = "auto",
    seed: Seed = 0,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    r"""Velocity between each frame and the next.

    Parameters
    ----------
    obj : DataArray or Dataset
        Two or more images (time, y, x); further dimensions are mapped over. NaN is missing.
        Several variables give a dimension ``variable``.
    medium : {"sea_ice", "sea_water", "air"}, optional
        What moves: gives the variables their CF standard names.
    model : LatentDynamics, optional
        What `fit` returned for these frames, instead of a new fit: its velocity in the middle of
        each interval.
    path : {"smooth", "steady"}
        Whether velocities change smoothly from pair to pair, which needs three frames, or each pair
        has a steady one of its own; see `xr_spde.latent.sequence`.
    brightness, search, smoothness
        See `xr_spde.latent.motion.fit_motion`.
    components : {"grid", "east_north"}
        Whether to add ``eastward`` and ``northward``; on a projected grid this needs
        two-dimensional coordinates of latitude and longitude.
    restarts : int, default 0
        Number of refits from disturbed starts, 2 or more, each about as long as half a fit; see
        `xr_spde.latent.uncertainty.refit_spread`.
    tile, halo : int or "auto"
        Cells of a tile and around it that are fitted together, see
        `xr_spde.latent.scenes.tile_plan`; by default scenes of up to 4 million cells are fitted
        whole.
    seed : int, SeedSequence, Generator or None
        Of the refits.
    dim : str, optional
        Name of the time axis.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset (time, ..., y, x)
        One entry per interval, its mean, with its ends in ``time_bounds``; lazy where ``obj`` is.
        ``u`` and ``v`` along increasing x and y (eastward and northward on a
        latitude-longitude grid, along the axes of a projected one), m s-1; ``divergence``,
        ``vorticity`` and ``shear`` :math:`\sqrt{(u_x - v_y)^2 + (u_y + v_x)^2}` with the metric of
        the grid, s-1; ``opening_rate``, the integral of positive divergence, m2 s-1; NaN where
        neither image has data. Of each fit: ``mismatch`` of the images along the motion and
        ``noise`` in standard deviations, ``folded`` (share of cells where paths cross) and
        ``beyond_search`` (the motion is about as long as was searched for). ``determined`` tells
        in how many directions the images around a place fix the motion there: 2, 1 where they
        vary one way only (the aperture problem), 0 where they do not; ``u_error`` and ``v_error``
        are standard errors from these images alone, NaN where ``determined`` is below 2; see
        `xr_spde.latent.uncertainty.local_information`. ``u_spread`` and ``v_spread``: by how much
        the windows of a ``model`` disagree, or ``restarts``.
        Of a smooth path ``u_at_bounds`` and ``v_at_bounds`` (time, bounds, ..., y, x), the velocity
        at both ends.

    Raises
    ------
    ParameterError
        Fewer than two frames, times that do not increase, frames without data or constant.
    GridError
        No regular grid, or latitudes beyond 85 degrees.
    UnknownNameError
        For another medium or other components.

    Warns
    -----
    UserWarning
        Where coordinates have no length or no unit of time, so that m s-1 is out of reach.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.latent import velocity
    >>> from xr_spde.latent.textures import texture
    >>> j, i = np.mgrid[0:32, 0:32]
    >>> pair = [texture(1, j, i), texture(1, j, i - 2.0)]  # two cells along x
    >>> km = 1e3 * np.arange(32)
    >>> x, y = ("x", km, {"units": "m"}), ("y", km, {"units": "m"})
    >>> time = np.array(["2020-03-01T00", "2020-03-01T01"], "datetime64[ns]")
    >>> found = velocity(xr.DataArray(pair, {"time": time, "y": y, "x": x}, ("time", "y", "x")))
    >>> print(f"{float(found.u.median()):.2f} m/s, expected {2 * 1000 / 3600:.2f}")
    0.56 m/s, expected 0.56
    """
    if medium is not None and medium not in MEDIA:
        raise unknown("medium", medium, MEDIA)
    _check_extras(components, restarts, model)
    check_path(path, model=model)
    da = array_of(obj, x=x, y=y)
    frames = ImageSequence.of(da, dim=dim, x=x, y=y)
    _warn_units(frames)
    settings = {"brightness": brightness, "search": search, "smoothness": smoothness}
    sizes = {"tile": tile, "halo": halo}
    again = {"restarts": restarts, "seed": resolve_seed(seed)} if restarts else {}
    every = np.arange(frames.lengths.size)
    if model is None:
        fitted = fits_along(frames, every, {**settings, **sizes, **again}, path)
    else:
        fitted = latent_motion(frames, model)
    maps = velocity_maps(frames, every, fitted.pop("q"), {**settings, **sizes})
    if "spread" in fitted:
        maps.update(spread_maps(frames, every, fitted.pop("spread")))
    if "ends" in fitted:
        maps.update(at_bounds(frames, every, fitted.pop("ends"), maps["u"].notnull()))
    if components == "east_north":
        maps.update(to_east_north(frames, maps["u"], maps["v"]))
    named = {**maps, **fitted}
    time = frames.time.dim
    order = [d for d in da.dims if d not in (frames.grid.y_dim, frames.grid.x_dim)]
    bounds = np.stack([frames.time.coordinate.values[k:][: every.size] for k in (0, 1)], axis=1)
    middle = xr.Variable(time, frames.time.middle(), frames.time.coordinate.attrs)
    middle.encoding = frames.time.encoding
    result = xr.Dataset(named).rename({INTERVAL: time})
    order += [BOUND, frames.grid.y_dim, frames.grid.x_dim]
    result = result.transpose(*order, missing_dims="ignore")
    middle.attrs["bounds"] = f"{time}_bounds"
    result = result.assign_coords({time: middle, f"{time}_bounds": ((time, BOUND), bounds)})
    for name in result.data_vars:
        result[name].attrs = _attrs(str(name), frames, medium, da)
    how = {**settings, "path": path} if model is None else {"model": "latent"}
    return result.assign_attrs(provenance("velocity", **how))


def _check_extras(components: str, restarts: int, model: LatentDynamics | None) -> None:
    if components not in COMPONENTS:
        raise unknown("components", components, dict.fromkeys(COMPONENTS))
    if restarts and model is not None:
        raise ParameterError("restarts= means nothing to a model; leave one of them away")
    if not isinstance(restarts, int) or restarts < 0 or restarts == 1:
        raise ParameterError(f"restarts={restarts!r}; expected 0, or an integer of 2 or more")


def _warn_units(frames: ImageSequence) -> None:
    timed = np.isfinite(frames.time.unit)
    if frames.metric and timed:
        return
    lacking = [] if frames.metric else [f"{frames.grid.y_dim!r} and {frames.grid.x_dim!r}"]
    lacking += [] if timed else [repr(frames.time.dim)]
    length, duration = _units(frames)
    warn(
        f"the coordinates {' and '.join(lacking)} have no units, so the velocity is in {length} "
        f"per {duration}; give them the attribute units (m, km, degrees_north, s, h, days ...) to "
        "have m s-1"
    )


def _units(frames: ImageSequence) -> tuple[str, str]:
    length = "m" if frames.metric else "cell"
    return length, "s" if np.isfinite(frames.time.unit) else "unit of time"


def _attrs(
    name: str, frames: ImageSequence, medium: str | None, da: xr.DataArray
) -> dict[str, object]:
    length, duration = _units(frames)
    rate = f"{duration}-1" if duration == "s" else f"({duration})-1"
    geographic = frames.grid.kind == "geographic"
    along = ("eastward", "northward") if geographic else ("along x", "along y")
    known = {
        "u": (f"velocity {along[0]}", f"{length} {rate}"),
        "v": (f"velocity {along[1]}", f"{length} {rate}"),
        "divergence": ("divergence of the velocity", rate),
        "vorticity": ("relative vorticity", rate),
        "shear": ("shear rate", rate),
        "opening_rate": ("integral of positive divergence", f"{length}2 {rate}"),
        "eastward": ("velocity eastward", f"{length} {rate}"),
        "northward": ("velocity northward", f"{length} {rate}"),
        "u_error": (f"standard error of the velocity {along[0]}", f"{length} {rate}"),
        "v_error": (f"standard error of the velocity {along[1]}", f"{length} {rate}"),
        "u_spread": (f"spread of fits of the velocity {along[0]}", f"{length} {rate}"),
        "v_spread": (f"spread of fits of the velocity {along[1]}", f"{length} {rate}"),
        "determined": ("directions in which the images around determine the velocity", "1"),
        "mismatch": ("mean absolute difference of images carried into each other", "1"),
        "noise": ("noise over standard deviation of the images", "1"),
        "folded": ("share of cells where paths cross", "1"),
        "u_at_bounds": (f"velocity {along[0]} at the ends of the interval", f"{length} {rate}"),
        "v_at_bounds": (f"velocity {along[1]} at the ends of the interval", f"{length} {rate}"),
        "beyond_search": ("motion about as long as was searched for", "1"),
    }
    text, units = known[name]
    attrs: dict[str, object] = {"long_name": text, "units": units}
    turned = {"eastward": "u", "northward": "v"}.get(name)
    standard = MEDIA.get(medium or "", {}).get(turned or name)
    if standard is not None and units.startswith(("m s", "s-1")):
        attrs["standard_name"] = standard[0 if geographic or turned else 1]
    if name == "determined":
        attrs["flag_values"] = np.array([0, 1, 2], np.int8)
        attrs["flag_meanings"] = "none one_direction_only both_directions"
    if (name in MAPS or turned or name == "determined") and "grid_mapping" in da.attrs:
        attrs["grid_mapping"] = da.attrs["grid_mapping"]
    return attrs

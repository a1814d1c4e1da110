"""Parameter maps of spatial autoregressive fields, to emulate from and to estimate again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde.labels.schema import check_parameter_values, parameters_dataset
from xr_spde.sar.priors import draw_parameters

__all__ = ["constant_parameters", "random_parameters"]

Domain = Literal["global", "plane"]

_DOMAINS = ("global", "plane")
_BOUNDARY = {"global": "cylinder", "plane": "plane"}
_CELL_METRES = 1000.0


def _coordinates(shape: tuple[int, int], domain: str) -> dict[str, xr.DataArray]:
    if len(shape) != 2 or min(shape) < 2:
        raise ParameterError(f"shape={shape!r}; expected (ny, nx), each at least 2")
    ny, nx = shape
    values: tuple[NDArray[np.floating], NDArray[np.floating]]
    if domain == "global":
        values = (-90 + (np.arange(ny) + 0.5) * 180 / ny, np.arange(nx) * 360 / nx)
        names, units = ("lat", "lon"), ("degrees_north", "degrees_east")
        standard = ("latitude", "longitude")
    elif domain == "plane":
        names, units = ("y", "x"), ("m", "m")
        values = (_CELL_METRES * np.arange(ny), _CELL_METRES * np.arange(nx))
        standard = ("projection_y_coordinate", "projection_x_coordinate")
    else:
        raise unknown("domain", domain, _DOMAINS)
    return {
        name: xr.DataArray(value, dims=name, attrs={"units": unit, "standard_name": meaning})
        for name, value, unit, meaning in zip(names, values, units, standard, strict=True)
    }


def _labelled(
    maps: Mapping[str, NDArray[np.float64]],
    coords: Mapping[str, xr.DataArray],
    *,
    domain: str,
    method: str,
    **settings: object,
) -> xr.Dataset:
    arrays = {
        name: xr.DataArray(values, dims=tuple(coords), coords=coords)
        for name, values in maps.items()
    }
    return parameters_dataset(arrays, method=method, boundary=_BOUNDARY[domain], settings=settings)


def constant_parameters(
    shape: tuple[int, int],
    *,
    kappa2: float,
    rho: float = 1.0,
    theta: float = 0.0,
    domain: Domain = "plane",
) -> xr.Dataset:
    """Parameters of a stationary field.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    kappa2 : float
        Inverse squared range, per squared grid cell, > 0.
    rho : float
        Anisotropy ratio, >= 1.
    theta : float
        Direction of longest correlation, radian, counter-clockwise from increasing x.
    domain : {"plane", "global"}
        Cells of 1 km in metres, or latitude and longitude around the globe.

    Returns
    -------
    Dataset
        ``kappa2``, ``rho``, ``theta`` on (y, x) or (lat, lon); takes ``.sar.emulate``.

    Raises
    ------
    SchemaError
        A value outside its range.
    ParameterError
        A shape that cannot be used.
    UnknownNameError
        Another domain.

    Examples
    --------
    >>> import xr_spde
    >>> params = xr_spde.synthetic.constant_parameters((20, 30), kappa2=0.1, rho=3)
    >>> params.sar.emulate(4, seed=0).dims
    ('realization', 'y', 'x')
    """
    coords = _coordinates(shape, domain)
    values = {"kappa2": kappa2, "rho": rho, "theta": theta}
    maps = {name: np.full(shape, float(value)) for name, value in values.items()}
    check_parameter_values(**maps)
    return _labelled(maps, coords, domain=domain, method="constant")


def random_parameters(
    shape: tuple[int, int],
    *,
    seed: Seed = None,
    domain: Domain = "plane",
    preset: str = "release",
) -> xr.Dataset:
    """Parameters that vary over the map, drawn from the prior of `xr_spde.sar.priors`.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    seed : int, SeedSequence, Generator or None
        The same integer gives the same maps.
    domain : {"plane", "global"}
        Cells of 1 km in metres, or latitude and longitude around the globe.
    preset : str
        Preset of the prior.

    Returns
    -------
    Dataset
        ``kappa2``, ``rho``, ``theta`` on (y, x) or (lat, lon); the seed is in the attributes.

    Raises
    ------
    ParameterError
        A shape or a seed that cannot be used.
    UnknownNameError
        Another domain or preset.

    Examples
    --------
    >>> import xr_spde
    >>> params = xr_spde.synthetic.random_parameters((16, 24), seed=3, domain="global")
    >>> bool((params.kappa2 > 0).all() and (params.rho >= 1).all())
    True
    """
    coords = _coordinates(shape, domain)
    entropy = resolve_seed(seed)
    drawn = draw_parameters(shape, rng=member_generator(entropy, 0), preset=preset)
    maps = dict(zip(("kappa2", "rho", "theta"), drawn, strict=True))
    return _labelled(maps, coords, domain=domain, method="prior", seed=entropy, preset=preset)

"""How far correlation reaches, in kilometres, and in which direction."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.provenance import provenance
from xr_spde.fields.sar import tensor
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid
from xr_spde.labels.schema import PARAMETERS, check_parameter_values, validate_parameters
from xr_spde.models import model_variables

__all__ = ["range"]

Array = NDArray[np.floating]


def range(params: xr.Dataset, *, x: str | None = None, y: str | None = None) -> xr.Dataset:
    """Practical range along and across the longest correlation, and its bearing.

    The correlation depends on ``r^2 = kappa2 d' H^-1 d`` with the separation ``d`` in grid cells;
    the practical range is where it has fallen to 0.14, at ``r = sqrt(8)``. With cells of
    ``dy`` by ``dx`` metres the ranges are ``sqrt(8)`` times the square roots of the eigenvalues of
    ``D H D / kappa2``, ``D = diag(dx, dy)``: shorter cells near a pole turn and stretch them.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` on (..., Y, X).
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    Dataset (..., Y, X)
        ``range_along`` and ``range_across`` in km (in grid cells where the coordinates have no
        units of degrees or length) and ``bearing``, degrees in [0, 180) clockwise from increasing
        y (north); 0 where the correlation is isotropic. NaN on land. Lazy for lazy parameters.

    Raises
    ------
    SchemaError
        Parameters missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.sar import range as practical_range
    >>> maps = {"kappa2": 0.5, "rho": 4.0, "theta": np.pi / 6}
    >>> params = xr.Dataset({k: (("y", "x"), np.full((3, 3), v)) for k, v in maps.items()})
    >>> {k: round(float(v.mean()), 2) for k, v in practical_range(params).items()}
    {'range_along': 8.0, 'range_across': 2.0, 'bearing': 60.0}
    """
    dataset = validate_parameters(params, x=x, y=y)
    grid = Grid.from_object(dataset, x=x, y=y)
    cells = grid.kind == "index"
    sizes = [np.ones(grid.ny)] * 2 if cells else [size / 1e3 for size in grid.cell_size()]
    rows = [
        xr.DataArray(size[:: -1 if grid.y_descending else 1], dims=grid.y_dim) for size in sizes
    ]
    arrays = xr.apply_ufunc(
        _practical_range,
        *model_variables(dataset, PARAMETERS),
        *rows,
        output_core_dims=[[], [], []],
        dask="parallelized",
        output_dtypes=[np.float64] * 3,
        keep_attrs=False,
    )
    units = "1" if cells else "km"
    long_names = {
        "range_along": ("practical range along the longest correlation", units),
        "range_across": ("practical range across the longest correlation", units),
        "bearing": ("bearing of the longest correlation, clockwise from north", "degree"),
    }
    described = {
        name: array.assign_attrs(derived_attrs({}, long_name=what, units=unit))
        for (name, (what, unit)), array in zip(long_names.items(), arrays, strict=True)
    }
    return xr.Dataset(described, attrs=provenance("practical range"))


def _practical_range(
    kappa2: Array, rho: Array, theta: Array, dy: Array, dx: Array
) -> tuple[Array, Array, Array]:
    land = check_parameter_values(kappa2, rho, theta)
    hxx, hyy, hxy = tensor(rho, theta)
    txx, tyy, txy = dx * dx * hxx / kappa2, dy * dy * hyy / kappa2, dx * dy * hxy / kappa2
    middle, radius = (txx + tyy) / 2.0, np.hypot((txx - tyy) / 2.0, txy)
    largest = middle + radius
    # The determinant is known, and does not cancel as middle - radius would.
    smallest = (dx * dy / kappa2) ** 2 / largest
    bearing = (90.0 - np.degrees(0.5 * np.arctan2(2.0 * txy, txx - tyy))) % 180.0
    bearing = np.where((radius <= 1e-9 * middle) | (bearing >= 180.0), 0.0, bearing)
    bearing = np.where(land, np.nan, bearing)
    return np.sqrt(8.0 * largest), np.sqrt(8.0 * smallest), bearing

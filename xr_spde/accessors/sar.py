"""The accessor ``.sar``: spatial autoregressive fields, typed on xarray objects.

Nothing is computed here: each method calls the function of the same name in `xr_spde.sar` or
`xr_spde.plot`, and the functions take the same arguments after the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import xarray as xr

from xr_spde.accessors.figures import SarFieldFigures, SarParameterFigures
from xr_spde.accessors.sar_common import SarAccessor

if TYPE_CHECKING:
    import scipy.sparse as sp
    from numpy.typing import DTypeLike

    from xr_spde._core.rng import Seed

__all__ = ["SarDataArrayAccessor", "SarDatasetAccessor"]


@xr.register_dataarray_accessor("sar")
class SarDataArrayAccessor(SarAccessor[xr.DataArray]):
    """Spatial autoregressive (SAR) Gaussian fields, not synthetic aperture radar.

    On replicates of a field: `estimate` the parameters, `standardize`, empirical `correlation`,
    `log_likelihood` under given parameters, and figures under `plot`. A variable called "sar" is
    still reached by ``ds["sar"]``.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xr_spde
    >>> z = np.random.default_rng(0).standard_normal((5, 3, 4))
    >>> da = xr.DataArray(z, dims=("realization", "lat", "lon"))
    >>> da.sar.standardize().dims
    ('realization', 'lat', 'lon')
    """

    @property
    def plot(self) -> SarFieldFigures:
        """Figures: ``.sar.plot.members()`` and ``.sar.plot.correlation(at)``."""
        return SarFieldFigures(self._obj)


@xr.register_dataset_accessor("sar")
class SarDatasetAccessor(SarAccessor[xr.Dataset]):
    """Spatial autoregressive (SAR) Gaussian fields, not synthetic aperture radar.

    On a Dataset of fields: as on a DataArray, for each variable. On a Dataset of parameters
    (``kappa2``, ``rho``, ``theta``, as `estimate` returns it): `emulate` new members, exact
    `correlation` and `variance`, `range` in km, the sparse `operator`, and figures under `plot`.
    A variable called "sar" is still reached by ``ds["sar"]``.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xr_spde
    >>> maps = {"kappa2": 0.5, "rho": 3.0, "theta": 0.5}
    >>> params = xr.Dataset({k: (("lat", "lon"), np.full((6, 8), v)) for k, v in maps.items()})
    >>> params.sar.emulate(100, seed=1).sizes["realization"]
    100
    """

    @property
    def plot(self) -> SarParameterFigures:
        """Figures: ``.sar.plot.parameters()``, ``ellipses()``, ``correlation(at)``, ``members``."""
        return SarParameterFigures(self._obj)

    def emulate(
        self,
        n: int,
        *,
        seed: Seed = None,
        chunks: int | Literal["auto"] = "auto",
        dtype: DTypeLike | None = None,
        solver: str = "auto",
        boundary: str | None = None,
        buffer: int | Literal["auto"] = "auto",
        x: str | None = None,
        y: str | None = None,
    ) -> xr.DataArray:
        """Draw an ensemble with the statistics of the parameters, lazily.

        Parameters
        ----------
        n : int
            Number of members.
        seed : int, SeedSequence, Generator or None
            The same seed gives the same members, whatever the chunks and the scheduler.
        chunks : int or "auto"
            Members per block.
        dtype : float32 or float64, optional
            Of the result; by default that of ``mean`` or ``std``, else float64.
        solver, boundary, buffer
            See `xr_spde.sar.emulate`.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray
            (realization, ..., Y, X), a dask array.
        """
        from xr_spde import sar

        return sar.emulate(
            self._obj,
            n,
            seed=seed,
            chunks=chunks,
            dtype=dtype,
            solver=solver,
            boundary=boundary,
            buffer=buffer,
            x=x,
            y=y,
        )

    def variance(
        self,
        *,
        method: str = "auto",
        probes: int = 16,
        seed: Seed = 0,
        solver: str = "auto",
        boundary: str | None = None,
        buffer: int | Literal["auto"] = "auto",
        x: str | None = None,
        y: str | None = None,
    ) -> xr.DataArray:
        """Marginal variance of the fields that `emulate` draws.

        Parameters
        ----------
        method : {"auto", "selected", "probing"}, default "auto"
            Exact, or with error bars where that would not fit in memory.
        probes : int, default 16
            Number of draws for the second.
        seed : int, SeedSequence, Generator or None, default 0
            Of those draws.
        solver, boundary, buffer
            See `xr_spde.sar.variance`.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray
            On (..., Y, X).
        """
        from xr_spde import sar

        return sar.variance(
            self._obj,
            method=method,
            probes=probes,
            seed=seed,
            solver=solver,
            boundary=boundary,
            buffer=buffer,
            x=x,
            y=y,
        )

    def range(self, *, x: str | None = None, y: str | None = None) -> xr.Dataset:
        """Practical range along and across in km, and the bearing of the longer one.

        Parameters
        ----------
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Dataset
            ``range_along``, ``range_across``, ``bearing`` (degrees clockwise from north).
        """
        from xr_spde import sar

        return sar.range(self._obj, x=x, y=y)

    def operator(
        self, *, boundary: str | None = None, x: str | None = None, y: str | None = None
    ) -> sp.csc_array:
        """Build the sparse matrix B of the model ``B y = e``, for people who build on it.

        Parameters
        ----------
        boundary : {"cylinder", "plane", "torus", "paper"}, optional
            Neighbours across the edges.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        scipy.sparse.csc_array, shape (ny * nx, ny * nx)
            In the canonical order described in `xr_spde.sar.operator`.
        """
        from xr_spde import sar

        return sar.operator(self._obj, boundary=boundary, x=x, y=y)

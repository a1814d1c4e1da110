"""What the accessor ``.sar`` offers on fields and parameters alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import xarray as xr

from xr_spde.accessors.figures import Position

Obj = TypeVar("Obj", xr.DataArray, xr.Dataset)

# as in `xr_spde.sar.settings`, which is not loaded before it is needed
STRUCTURES = ("nonstationary", "isotropic", "stationary", "stationary isotropic")


class SarAccessor(Generic[Obj]):
    """What fields and parameter datasets have in common."""

    def __init__(self, obj: Obj) -> None:
        self._obj: Obj = obj

    def estimate(
        self,
        dim: str | None = None,
        *,
        method: str = "auto",
        uncertainty: bool = False,
        modes: int | Literal["auto"] = "auto",
        dilation: int | Literal["auto"] = "auto",
        penalty: float | None = None,
        weights: str | os.PathLike[str] | None = None,
        refine: int = 0,
        structure: str = "nonstationary",
        nugget: bool = False,
        covariates: xr.Dataset | None = None,
        likelihood: str = "auto",
        boundary: str | None = None,
        buffer: int | Literal["auto"] = "auto",
        x: str | None = None,
        y: str | None = None,
    ) -> xr.Dataset:
        """Estimate the maps of range and anisotropy from replicates of a field.

        Parameters
        ----------
        dim : str, optional
            Dimension of the replicates (members, years, ...); found by itself where it is clear.
        method : str, default "auto"
            "whittle" (local likelihood, no training), "mle" (exact likelihood), "net" (the
            trained network on lag statistics), or "unet", "vit", "stun", "cnn" with ``weights``;
            "auto" is "net" for one replicate if torch is installed, else "whittle".
        uncertainty : bool, default False
            Whether to add standard errors.
        modes : int or "auto", default "auto"
            Number of large-scale patterns described apart; 0 is the pure SAR model.
        dilation : {"auto", 1, 2, 4, 8}, default "auto"
            Distance between the neighbours of the fitted stencil, in cells.
        penalty : float, optional
            Fixed weight of roughness; by default chosen from the data.
        weights : path-like, optional
            Weights of a network; "net" has its own.
        refine : int, default 0
            Steps of the likelihood after a network.
        structure : str, default "nonstationary"
            For "mle": also "isotropic", "stationary" or "stationary isotropic".
        nugget : bool, default False
            For "mle": whether the observations have noise, whose variance is then estimated.
        covariates : Dataset, optional
            For "mle": maps that the mean is a linear combination of.
        likelihood : {"auto", "exact", "windows"}, default "auto"
            For "mle": of the grid at once, or from windows where that does not fit in memory.
        boundary : {"cylinder", "plane", "torus", "paper"}, optional
            Neighbours across the edges; by default read from the coordinates.
        buffer : int or "auto", default "auto"
            Cells between the edge of the grid and the boundary of the model.
        x, y : str, optional
            Names of the horizontal axes where they should not be searched for.

        Returns
        -------
        Dataset
            ``kappa2``, ``rho``, ``theta``, ``mean``, ``std``, ``patterns`` and, if asked for,
            ``*_stderr``; see `xr_spde.sar.estimate`.
        """
        from xr_spde import sar

        return sar.estimate(
            self._obj,
            dim,
            method=method,
            uncertainty=uncertainty,
            modes=modes,
            dilation=dilation,
            penalty=penalty,
            weights=weights,
            refine=refine,
            structure=structure,
            nugget=nugget,
            covariates=covariates,
            likelihood=likelihood,
            boundary=boundary,
            buffer=buffer,
            x=x,
            y=y,
        )

    def compare_structures(
        self,
        dim: str | None = None,
        *,
        structures: Sequence[str] = STRUCTURES,
        x: str | None = None,
        y: str | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Compare stationary, isotropic and non-stationary models by their exact likelihood.

        Parameters
        ----------
        dim : str, optional
            Dimension of the replicates.
        structures : sequence of str
            Two or more of "nonstationary", "isotropic", "stationary", "stationary isotropic".
        x, y : str, optional
            Names of the horizontal axes.
        **settings
            Of `estimate`, such as ``nugget`` or ``covariates``.

        Returns
        -------
        Dataset
            Log-likelihood, effective parameters, AIC, BIC and tests on ``structure``; see
            `xr_spde.sar.compare_structures`.
        """
        from xr_spde import sar

        return sar.compare_structures(self._obj, dim, structures=structures, x=x, y=y, **settings)

    def standardize(
        self, dim: str | None = None, *, x: str | None = None, y: str | None = None
    ) -> Obj:
        """Subtract the mean over replicates and divide by their standard deviation, cell by cell.

        Parameters
        ----------
        dim : str, optional
            Dimension of the replicates.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray or Dataset
            Like the data; see `xr_spde.sar.standardize`.
        """
        from xr_spde import sar

        return sar.standardize(self._obj, dim, x=x, y=y)

    def correlation(
        self,
        at: Position | Sequence[Position],
        dim: str | None = None,
        *,
        method: str = "auto",
        solver: str = "auto",
        boundary: str | None = None,
        buffer: int | Literal["auto"] = "auto",
        x: str | None = None,
        y: str | None = None,
    ) -> xr.DataArray:
        """Correlation of every cell with one point: of the data, or of the model.

        Parameters
        ----------
        at : (y, x) tuple, {dim: value} mapping, or list of them
            Positions in coordinate units; several give a ``point`` dimension.
        dim : str, optional
            Dimension of the replicates, for fields.
        method : {"auto", "selected", "probing"}, default "auto"
            Of the model's variance: exact, or with error bars where that would not fit.
        solver, boundary, buffer
            Of the model, for parameter datasets; see `xr_spde.sar.correlation`.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray
            Between -1 and 1 on (..., Y, X), lazy for lazy data.
        """
        from xr_spde import sar

        return sar.correlation(
            self._obj,
            at,
            dim,
            method=method,
            solver=solver,
            boundary=boundary,
            buffer=buffer,
            x=x,
            y=y,
        )

    def log_likelihood(
        self,
        params: xr.Dataset,
        dim: str | None = None,
        *,
        solver: str = "auto",
        boundary: str | None = None,
        buffer: int | Literal["auto"] = 0,
        method: str = "auto",
        x: str | None = None,
        y: str | None = None,
    ) -> xr.DataArray:
        """Log-density of the fields under the Gaussian model of a parameter dataset.

        Parameters
        ----------
        params : Dataset
            Parameters on the same grid.
        dim : str, optional
            Dimension of the replicates, over which the log-densities are summed.
        solver, boundary, buffer
            See `xr_spde.sar.log_likelihood`.
        method : {"auto", "exact", "windows"}, default "auto"
            Of the determinant: exact, or within a stated error where no factor would fit.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray
            One number per leading index.
        """
        from xr_spde import sar

        return sar.log_likelihood(
            self._obj,
            params,
            dim,
            solver=solver,
            boundary=boundary,
            buffer=buffer,
            method=method,
            x=x,
            y=y,
        )

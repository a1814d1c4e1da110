"""Methods of ``.latent`` about the latent model: fitted to one variable, used, and varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = ["LatentModelMethods"]


class LatentModelMethods:
    """Fit of the latent model, its states, and how it depends on its settings."""

    _obj: xr.DataArray

    def fit(
        self,
        *,
        seed: Seed = 0,
        dim: str | None = None,
        x: str | None = None,
        y: str | None = None,
        **settings: Any,
    ) -> LatentDynamics:
        """Fit encoder, motion and decoder to the frames (needs torch).

        Parameters
        ----------
        seed : int, SeedSequence, Generator or None
            Of the networks and windows.
        dim, x, y : str, optional
            Names of the axes.
        **settings
            See `xr_spde.latent.fit.fit_latent_dynamics`.

        Returns
        -------
        LatentDynamics
            With ``save``, ``diagnose`` and a repr; goes into `interpolate` as ``model=``.
        """
        from xr_spde import latent

        return latent.fit(self._obj, seed=seed, dim=dim, x=x, y=y, **settings)

    def sensitivity(
        self,
        truth: xr.DataArray | None = None,
        *,
        vary: Mapping[str, Sequence[Any]] | None = None,
        design: str = "one-at-a-time",
        samples: int = 16,
        **settings: Any,
    ) -> xr.Dataset:
        """Fit the latent model again and again with other settings (needs torch).

        Parameters
        ----------
        truth : DataArray, optional
            Frames between that were withheld.
        vary : mapping of str to sequence, optional
            Values of settings; see `xr_spde.latent.sensitivity`.
        design : {"one-at-a-time", "latin", "sobol"}
            Each setting by itself, or all at once.
        samples : int
            Number of runs of "latin" and "sobol".
        **settings
            Further arguments of `xr_spde.latent.sensitivity`, such as ``store``, and of all fits.

        Returns
        -------
        Dataset (run)
            Residuals, speed, errors and warnings; `xr_spde.latent.sensitivity_effects` sums them
            up.
        """
        from xr_spde import latent

        return latent.sensitivity(
            self._obj, truth, vary=vary, design=design, samples=samples, **settings
        )

    def encode(
        self, model: LatentDynamics, *, x: str | None = None, y: str | None = None
    ) -> xr.DataArray:
        """Latent states of images.

        Parameters
        ----------
        model : LatentDynamics
            What `fit` returned.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray (..., channel, y, x)
        """
        from xr_spde import latent

        return latent.encode(self._obj, model, x=x, y=y)

    def decode(
        self, model: LatentDynamics, *, x: str | None = None, y: str | None = None
    ) -> xr.DataArray:
        """Images of latent states, which this DataArray holds.

        Parameters
        ----------
        model : LatentDynamics
            What `fit` returned.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray (..., y, x)
        """
        from xr_spde import latent

        return latent.decode(self._obj, model, x=x, y=y)

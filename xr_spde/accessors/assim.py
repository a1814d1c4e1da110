"""The accessor ``.assim``: observations into ensembles and Gaussian fields, on xarray objects.

Nothing is computed here: each method calls the function of the same name in `xr_spde.assim` or
`xr_spde.plot`, and the functions take the same arguments after the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import xarray as xr

from xr_spde.accessors.assim_figures import AssimFigures

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from xr_spde._core.rng import Seed
    from xr_spde.assim import Adaptive

__all__ = ["AssimDataArrayAccessor", "AssimDatasetAccessor", "AssimFigures"]

Obj = TypeVar("Obj", xr.DataArray, xr.Dataset)


class AssimAccessor(Generic[Obj]):
    """What ensembles in a DataArray and in a Dataset have in common."""

    def __init__(self, obj: Obj) -> None:
        self._obj: Obj = obj

    def assimilate(
        self,
        obs: Any = None,
        *,
        method: str = "auto",
        prior: xr.Dataset | None = None,
        model: Any = None,
        dim: str | None = None,
        obs_error: Any = None,
        localization: float | None = None,
        taper: str = "gaspari-cohn",
        inflation: float | Adaptive = 1.0,
        rtps: float = 0.0,
        rtpp: float = 0.0,
        rotate: bool = False,
        threshold: float | None = None,
        operator: str | Callable[[Any], Any] | Any = "auto",
        footprint: float | tuple[int, int] | None = None,
        unusable: str = "raise",
        window: np.timedelta64 | timedelta | None = None,
        model_noise: Any = None,
        seed: Seed = None,
        value: str | None = None,
        obs_x: str | None = None,
        obs_y: str | None = None,
        n: int = 0,
        route: str = "auto",
        solver: str = "auto",
        boundary: str | None = None,
        buffer: int | Literal["auto"] = "auto",
        chunks: int | Literal["auto"] = "auto",
        dtype: DTypeLike | None = None,
        x: str | None = None,
        y: str | None = None,
        **mapping: Any,
    ) -> xr.Dataset:
        """Bring observations into an ensemble, the field of parameters, or a space-time prior.

        Parameters
        ----------
        obs : DataArray, Dataset, Observations, or mapping of str to these
            Gridded with NaN, or points along one dimension; by variable where there are several.
            With ``prior=`` or ``model=`` it may be left out: the object then is the observations.
        method : {"auto", "letkf", "etkf", ..., "oi", "oi-gaussian"}
            "auto" is "letkf" for ensembles and "oi", exact conditioning, for parameters and
            priors; "oi-gaussian" is the baseline of the mapping challenges, and "4dvarnet" and
            "kalman" need ``model=``.
        prior : Dataset, optional
            Of a field in space and time, as `spde_prior` returns it.
        model : NeuralSolver, LatentModel, str or path, optional
            A trained solver of maps in space and time, such as "sea-level"; or a latent model,
            with this object as its first guess of one time.
        dim : str, optional
            Dimension of the members.
        obs_error : float, array_like, AlongTrack, ErrorModel or mapping, optional
            Standard deviation in the units of the observations.
        localization : float, optional
            Of "letkf": metres from a point to where observations lose their last influence; found
            from the data by default.
        taper : {"gaspari-cohn", "boxcar"}, default "gaspari-cohn"
            Of "letkf": weight by distance.
        inflation : float or Adaptive, default 1
            Factor >= 1 on the anomalies.
        rtps, rtpp : float, default 0
            Relaxation to prior spread or to prior perturbations.
        rotate : bool, default False
            Rotate anomalies at random.
        threshold : float, optional
            Reject innovations beyond so many expected standard deviations.
        operator, footprint, unusable, value, obs_x, obs_y
            How observations are read; see `xr_spde.assim.read_observations`.
        window : timedelta, optional
            Half the width about the time of the fields.
        model_noise : float, DataArray or mapping, optional
            Variance of noise that is added to the forecast first.
        seed : int, SeedSequence, Generator or None
            Of all that is random.
        n, route, solver, boundary, buffer, chunks, dtype
            For parameters only; see `xr_spde.assim.kriging.condition`.
        x, y : str, optional
            Names of the horizontal axes.
        **mapping
            Of maps in space and time (``times``, ``lead``, ``block``, ``halo``, ``draws``, ``tol``,
            ``lx``, ``ly``, ``lt``, ``std``); see `xr_spde.assim.mapping.interpolate`. Of a solver:
            ``times``, ``like``, ``lead``, ``stride``, ``patch``, ``overlap``, ``draws``,
            ``parameters``, ``recalibrate``; see `xr_spde.assim.neural_apply.apply_solver`.

        Returns
        -------
        Dataset
            The analysed ensemble, ``mean``, ``std``, ``increment`` and innovation statistics; see
            `xr_spde.assim.assimilate`.
        """
        from xr_spde import assim

        return assim.assimilate(
            self._obj, obs, method=method, prior=prior, model=model, dim=dim, obs_error=obs_error,
            localization=localization, taper=taper, inflation=inflation, rtps=rtps, rtpp=rtpp,
            rotate=rotate, threshold=threshold, operator=operator, footprint=footprint,
            unusable=unusable, window=window, model_noise=model_noise, seed=seed, value=value,
            obs_x=obs_x, obs_y=obs_y, n=n, route=route, solver=solver, boundary=boundary,
            buffer=buffer, chunks=chunks, dtype=dtype, x=x, y=y, **mapping,
        )  # fmt: skip

    def cycle(
        self,
        obs: Any,
        *,
        forecast: Callable[[Any, Any, Any], Any],
        times: Sequence[Any] | None = None,
        start: Any = None,
        store: str | Path | None = None,
        seed: Seed = None,
        time_dim: str = "time",
        **settings: Any,
    ) -> xr.Dataset:
        """Alternate a forecast model and analyses, and keep all analyses.

        Parameters
        ----------
        obs : DataArray, Dataset or mapping of str to these
            Of all times.
        forecast : callable
            ``forecast(ensemble, start, stop)``.
        times : sequence, optional
            Of the analyses.
        start : datetime64, number or cftime date, optional
            Time of the first ensemble.
        store : path, optional
            Folder of Zarr stores, from which an interrupted cycle goes on.
        seed : int, SeedSequence, Generator or None
            Of all that is random.
        time_dim : str, default "time"
            Name of the dimension of the result.
        **settings
            Of `assimilate`.

        Returns
        -------
        Dataset
            What `assimilate` returned at each time; see `xr_spde.assim.cycle`.
        """
        from xr_spde import assim

        return assim.cycle(
            self._obj,
            obs,
            forecast=forecast,
            times=times,
            start=start,
            store=store,
            seed=seed,
            time_dim=time_dim,
            **settings,
        )

    def steps(
        self,
        obs: Any,
        *,
        forecast: Callable[[Any, Any, Any], Any],
        times: Sequence[Any] | None = None,
        start: Any = None,
        store: str | Path | None = None,
        seed: Seed = None,
        time_dim: str = "time",
        **settings: Any,
    ) -> Iterator[xr.Dataset]:
        """Alternate a forecast model and analyses, one time after the other.

        Parameters
        ----------
        obs, forecast, times, start, store, seed, time_dim, **settings
            As in `cycle`.

        Returns
        -------
        iterator of Dataset
            What `assimilate` returns, time by time; see `xr_spde.assim.steps`.
        """
        from xr_spde import assim

        return assim.steps(
            self._obj,
            obs,
            forecast=forecast,
            times=times,
            start=start,
            store=store,
            seed=seed,
            time_dim=time_dim,
            **settings,
        )

    def fit(self, observations: Any = None, *, method: str = "4dvarnet", **settings: Any) -> Any:
        """Fit a network that interpolates in space and time, or a latent model.

        Parameters
        ----------
        observations : DataArray, Dataset or sequence of these, optional
            Of this truth; by default simulated along the tracks of missions. Left out too where
            this object is the observations, with ``loss="unsupervised"``.
        method : {"4dvarnet", "lainr", "pod", "cae", "aeflow", "auto"}, default "4dvarnet"
            A variational solver of learned steps and prior, or a latent model of this series.
        **settings
            See `xr_spde.assim.neural_settings.FitSettings` and, of latent models,
            `xr_spde.assim.latent.settings.LatentSettings`.

        Returns
        -------
        NeuralSolver or LatentModel
            For ``model=`` of `assimilate`; see `xr_spde.assim.fit`.
        """
        from xr_spde import assim

        return assim.fit(self._obj, observations, method=method, **settings)

    def score(
        self,
        truth: xr.DataArray | xr.Dataset,
        dim: str | None = None,
        *,
        weights: str | None = "area",
        challenge: bool = False,
        obs_error: float | None = None,
        uncertainty: bool = False,
        x: str | None = None,
        y: str | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Score an ensemble, or mean and std of a Gaussian, against the truth.

        Parameters
        ----------
        truth : DataArray or Dataset
            On the same grid, or at points and along tracks.
        dim : str, optional
            Dimension of the members.
        weights : {"area"} or None
            Of the cells.
        challenge : bool, default False
            Give mu, sigma, lambda_x and lambda_t of the SSH mapping challenge instead.
        obs_error : float, optional
            Of a truth along tracks with times, against maps at several times.
        uncertainty : bool, default False
            Give coverage, PIT, skill scores, the curve of error by spread, a test of the ranks and
            daily correlations besides, for maps in time.
        x, y : str, optional
            Names of the horizontal axes.
        **settings
            Of `uncertainty`: ``climatology``, ``reference``, ``bins``, ``levels``, ``thin``,
            ``border``; see `xr_spde.assim.ensemble_score.uncertainty_scores`.

        Returns
        -------
        Dataset
            ``rmse``, ``bias``, ``spread``, ``spread_skill``, fair ``crps``, ``rank_histogram``; see
            `xr_spde.assim.score`.
        """
        from xr_spde import assim

        return assim.score(
            self._obj,
            truth,
            dim,
            weights=weights,
            challenge=challenge,
            obs_error=obs_error,
            uncertainty=uncertainty,
            x=x,
            y=y,
            **settings,
        )

    def spde_prior(self, **settings: Any) -> xr.Dataset:
        """Fit the prior of a field in space and time, by maximum likelihood.

        To maps (..., time, Y, X), or with ``grid=`` to observations along tracks or at points.

        Parameters
        ----------
        **settings
            To maps: see `xr_spde.assim.spde_prior`. To observations: ``grid``, a DataArray (Y, X)
            on the grid of the prior, and more; see `xr_spde.assim.spde_prior_from_points`.

        Returns
        -------
        Dataset (..., Y, X)
            ``length``, ``length_across`` (km), ``angle``, ``decay_time`` (days), ``u``, ``v``
            (m s-1), ``std`` and ``mean``, with standard errors.
        """
        from xr_spde import assim

        obj: Any = self._obj
        return (assim.spde_prior_from_points if "grid" in settings else assim.spde_prior)(
            obj, **settings
        )


@xr.register_dataarray_accessor("assim")
class AssimDataArrayAccessor(AssimAccessor[xr.DataArray]):
    """Assimilation into an ensemble of one variable: `assimilate`, `cycle`, `score`.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xr_spde
    >>> coords = {"lat": np.arange(4.0), "lon": np.arange(5.0)}
    >>> z = np.random.default_rng(0).standard_normal((10, 4, 5))
    >>> ens = xr.DataArray(z, coords, ("realization", "lat", "lon"), name="z")
    >>> obs = xr.DataArray([1.5], {"lat": ("obs", [2.0]), "lon": ("obs", [3.0])}, "obs")
    >>> post = ens.assim.assimilate(obs, obs_error=0.01, localization=500e3)
    >>> post["mean"].sel(lat=2, lon=3).item()
    1.5
    """

    def simulate_tracks(self, *args: Any, **settings: Any) -> xr.Dataset:
        """Observe this truth (time, Y, X) along the tracks of satellites, with errors.

        Parameters
        ----------
        *args, **settings
            ``missions``, ``noise``, ``seed``, ``every``, ``across``, ``x``, ``y``; see
            `xr_spde.assim.simulate_tracks`.

        Returns
        -------
        Dataset (obs)
            Points with times, their errors, missions and passes.
        """
        from xr_spde import assim

        return assim.simulate_tracks(self._obj, *args, **settings)


@xr.register_dataset_accessor("assim")
class AssimDatasetAccessor(AssimAccessor[xr.Dataset]):
    """Assimilation into an ensemble of several variables, or into the Gaussian field of parameters.

    `assimilate`, `cycle`, `score`, and figures of what these return under `plot`.
    """

    @property
    def plot(self) -> AssimFigures:
        """Figures: ``.assim.plot.snapshot()``, ``increments()``, ``series()`` and of scores."""
        return AssimFigures(self._obj)

"""The accessor ``.latent``: what happens between two images, typed on xarray objects.

Nothing is computed here: each method calls a function of `xr_spde.latent` or `xr_spde.plot`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import xarray as xr

from xr_spde.accessors.latent_figures import LatentFigures
from xr_spde.accessors.latent_model import LatentModelMethods

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed
    from xr_spde.fields.evolution import Operator
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = ["LatentDataArrayAccessor", "LatentDatasetAccessor", "LatentFigures"]

Obj = TypeVar("Obj", xr.DataArray, xr.Dataset)


class LatentAccessor(Generic[Obj]):
    """What images in a DataArray and in a Dataset have in common."""

    def __init__(self, obj: Obj) -> None:
        self._obj: Obj = obj

    @property
    def plot(self) -> LatentFigures[Obj]:
        """Figures: ``.latent.plot.motion()`` and ``.latent.plot.frames()``."""
        return LatentFigures(self._obj)

    def interpolate(
        self,
        time: Any,
        *,
        method: str = "field",
        motion: xr.Dataset | None = None,
        model: LatentDynamics | None = None,
        extrapolate: bool = False,
        kernel: str = "cubic",
        blend: str = "auto",
        path: str = "smooth",
        operator: str | Operator | Callable[..., Any] = "advection",
        parameters: Mapping[str, Any] | None = None,
        brightness: str = "auto",
        search: float = 0.25,
        smoothness: float | None = None,
        tile: int | str = "auto",
        halo: int | str = "auto",
        uncertainty: bool = False,
        calibration: xr.Dataset | None = None,
        level: float = 0.9,
        seed: Seed = 0,
        dim: str | None = None,
        x: str | None = None,
        y: str | None = None,
        **settings: Any,
    ) -> Obj:
        """Images at any times between the frames of a sequence.

        Parameters
        ----------
        time : str, date, number, or array_like of these
            One time, or several along the time axis.
        method : {"field", "latent", "linear", "flow", "transport"}
            "field" follows the motion, "latent" fits encoder, motion and decoder (needs
            torch); the others are for comparison.
        motion : Dataset, optional
            What `velocity` returned, instead of a new fit.
        model : LatentDynamics, optional
            What `fit` returned, instead of a new fit.
        extrapolate : bool, default False
            Whether times outside the frames are allowed.
        kernel, blend, path, brightness, search, smoothness
            Of "field".
        operator : str, Operator or callable
            What happens on the way: "advection", "conservation", "advection-source" ...
        parameters : mapping, optional
            What the operator needs besides the velocity, in m and s.
        tile, halo : int or "auto"
            Of "field": cells of a tile and around it, for scenes that are not fitted whole.
        uncertainty : bool, default False
            Whether to add ``disagreement`` and ``seen``.
        calibration : Dataset, optional
            What `calibrate` returned: ``error``, ``lower`` and ``upper`` are added.
        level : float, default 0.9
            Probability of the interval.
        seed : int, SeedSequence, Generator or None
            Of "latent".
        dim, x, y : str, optional
            Names of the axes.
        **settings
            Of "latent".

        Returns
        -------
        DataArray or Dataset
            Like the frames, at the new times; see `xr_spde.latent.interpolate`. Variables of a
            Dataset without times come along unchanged, the others have a fit each.
        """
        from xr_spde import latent

        return latent.interpolate(
            self._obj,
            time,
            method=method,
            motion=motion,
            model=model,
            extrapolate=extrapolate,
            kernel=kernel,
            blend=blend,
            path=path,
            operator=operator,
            parameters=parameters,
            brightness=brightness,
            search=search,
            smoothness=smoothness,
            tile=tile,
            halo=halo,
            uncertainty=uncertainty,
            calibration=calibration,
            level=level,
            seed=seed,
            dim=dim,
            x=x,
            y=y,
            **settings,
        )

    def velocity(
        self,
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
        """Velocity between each frame and the next.

        Parameters
        ----------
        medium : {"sea_ice", "sea_water", "air"}, optional
            What moves: gives the variables their CF standard names.
        model : LatentDynamics, optional
            What `fit` returned for these frames, instead of a new fit.
        path : {"smooth", "steady"}
            Whether velocities change smoothly from pair to pair, or each pair has a steady one of
            its own.
        brightness, search, smoothness
            See `xr_spde.latent.motion.fit_motion`.
        components : {"grid", "east_north"}
            Whether to add ``eastward`` and ``northward``.
        restarts : int, default 0
            Number of refits from disturbed starts, for ``u_spread`` and ``v_spread``.
        tile, halo : int or "auto"
            Cells of a tile and around it, for scenes that are not fitted whole.
        seed : int, SeedSequence, Generator or None
            Of the refits.
        dim, x, y : str, optional
            Names of the axes.

        Returns
        -------
        Dataset
            ``u``, ``v`` (m s-1), ``divergence``, ``vorticity``, ``shear``, ``opening_rate``, how
            far the images determine it (``determined``, ``u_error``, ``v_error``), and how the fit
            went; see `xr_spde.latent.velocity`. Several variables of a Dataset give a
            dimension ``variable``.
        """
        from xr_spde import latent

        return latent.velocity(
            self._obj,
            medium=medium,
            model=model,
            path=path,
            brightness=brightness,
            search=search,
            smoothness=smoothness,
            components=components,
            restarts=restarts,
            tile=tile,
            halo=halo,
            seed=seed,
            dim=dim,
            x=x,
            y=y,
        )

    def evolve(
        self,
        time: Any,
        *,
        velocity: xr.Dataset | None = None,
        operator: str | Operator | Callable[..., Any] = "advection",
        parameters: Mapping[str, Any] | None = None,
        dim: str | None = None,
        x: str | None = None,
        y: str | None = None,
    ) -> Obj:
        """Evolve one image with a velocity, to any times after it (or before).

        Parameters
        ----------
        time : str, date, number, or array_like of these
            One time, or several along the time axis.
        velocity : Dataset, optional
            ``u`` and ``v`` in m s-1: what `velocity` returned, or any other on the same grid,
            steady or along a time axis.
        operator : str, Operator or callable
            What happens: "advection", "conservation", "advection-diffusion" ...
        parameters : mapping, optional
            What the operator needs besides the velocity, in m and s.
        dim : str, optional
            Name of the coordinate of time.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray or Dataset (time, ..., y, x)
            Like the image; see `xr_spde.latent.evolve`.
        """
        from xr_spde import latent

        return latent.evolve(
            self._obj,
            time,
            velocity=velocity,
            operator=operator,
            parameters=parameters,
            dim=dim,
            x=x,
            y=y,
        )

    def compare(
        self,
        truth: xr.DataArray | xr.Dataset,
        *,
        methods: Sequence[str] | None = None,
        blend: str = "auto",
        model: LatentDynamics | None = None,
        seed: Seed = 0,
        dim: str | None = None,
        x: str | None = None,
        y: str | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Score methods on frames that were taken and withheld.

        Parameters
        ----------
        truth : DataArray or Dataset
            Images at times between, which are not among the frames.
        methods : sequence of str, optional
            "field", "latent" and names of `xr_spde.latent.baselines.BASELINES`; by default all but
            "latent".
        blend : {"auto", "area", "expected"}
            Of "field".
        model : LatentDynamics, optional
            Of "latent": what `fit` returned for these frames, instead of a new fit.
        seed : int, SeedSequence, Generator or None
            Of "latent".
        dim, x, y : str, optional
            Names of the axes.
        **settings
            Of "latent".

        Returns
        -------
        Dataset
            ``rmse``, ``ssim``, ``sharpness``, ``seconds``, ``missing`` by method; see
            `xr_spde.latent.compare_methods`.
        """
        from xr_spde import latent

        return latent.compare_methods(
            self._obj,
            truth,
            methods=methods,
            blend=blend,
            model=model,
            seed=seed,
            dim=dim,
            x=x,
            y=y,
            **settings,
        )


@xr.register_dataarray_accessor("latent")
class LatentDataArrayAccessor(LatentAccessor[xr.DataArray], LatentModelMethods):
    """Images of one variable: `interpolate`, `velocity`, `evolve`, `compare`, and models of them.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xr_spde
    >>> from xr_spde.latent.cases import make_case
    >>> case = make_case("tex_rot", 32)
    >>> time = np.array(["2020-03-01T00", "2020-03-01T06"], "datetime64[ns]")
    >>> pair = xr.DataArray([case.u0, case.u1], {"time": time}, ("time", "y", "x"))
    >>> pair.latent.interpolate("2020-03-01T02").dims
    ('y', 'x')
    """

    def calibrate(
        self,
        truth: xr.DataArray | None = None,
        *,
        method: str = "field",
        dim: str | None = None,
        x: str | None = None,
        y: str | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Learn how far frames are off from frames that were known.

        Parameters
        ----------
        truth : DataArray, optional
            Images at times between, which are not among the frames. Without it every image but the
            first and the last is withheld and found from its neighbours.
        method : {"field", "latent"}
            That makes the frames.
        dim, x, y : str, optional
            Names of the axes.
        **settings
            Of `interpolate`.

        Returns
        -------
        Dataset
            For ``calibration=`` of `interpolate`; see `xr_spde.latent.calibrate`.
        """
        from xr_spde import latent

        return latent.calibrate(self._obj, truth, method=method, dim=dim, x=x, y=y, **settings)


@xr.register_dataset_accessor("latent")
class LatentDatasetAccessor(LatentAccessor[xr.Dataset]):
    """Images of several variables: `interpolate`, `velocity`, `evolve`, `compare`."""

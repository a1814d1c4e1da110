"""Latent dynamics of a sequence of images: fitted networks, the motion, frames at any time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.cells import Cells
from xr_spde.fields.sampling import sample
from xr_spde.fields.unsteady import grown, levelled, trace, turned_back, velocity_at
from xr_spde.latent.blending import Carried, Frame, two_sided, visibility
from xr_spde.latent.windows import in_windows, prepared, standardisation

if TYPE_CHECKING:
    from xr_spde.latent.diagnosis import Diagnosis
    from xr_spde.nets.latent_settings import LatentSettings
    from xr_spde.nets.latent_unet import LatentNets

__all__ = ["LatentDynamics"]

Float = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class LatentDynamics:
    r"""What :func:`xr_spde.latent.fit.fit_latent_dynamics` found in a sequence of images.

    A frame at a time t of the interval k, at the share :math:`\tau` of it, is

    .. math::

        u_t = \frac{\sum_j w_j \big(D \Psi_j E u_j + (u_j - D E u_j) \circ X_j\big)}{\sum_j w_j},
        \qquad w_0 = (1 - \tau) c_0, \quad w_1 = \tau c_1,

    with :math:`\Psi_j` the transport from either end along paths :math:`X_j`, and :math:`c_j` the
    square of the area that a cell comes from, at most 1, and 0 where the image does not show it.
    The second part makes the given images exact.

    Attributes
    ----------
    frames : ndarray (n, ny, nx)
        The images; NaN is missing.
    times : ndarray (n,)
        When they were taken, increasing.
    velocity : ndarray (d + 1, 2, ny, nx)
        Coefficients of the motion in cells per span, x first; see `xr_spde.fields.unsteady`.
    spread : ndarray (2, ny, nx)
        Disagreement of the windows on the velocity (its mean in time), in cells per span.
    networks : LatentNets
        E, F and D.
    settings : LatentSettings
        Of the fit.
    seed : int
        Of the fit.
    cells : Cells
        The grid.
    initial : ndarray like `velocity`, or None
        The motion that the fit began with.
    classical : ndarray (2, ny, nx), or None
        Motion from the images alone, in cells per span, as a yardstick; see :meth:`diagnose`.
    log : dict of ndarray (iterations,)
        Terms of the loss, without their weights, and "total".
    source : ndarray (channels, ny, nx), or None
        What the latent state of a parcel gains per span, laid where the parcel is in the middle of
        the span.
    diffusivity : float
        Of the latent state, in squares of a cell per span; negative if it sharpens with time.
    noise : float
        Noise of the images over their standard deviation.
    residuals : dict of int to float
        Of each restart, by its seed: mismatch at the images over their standard deviation.
    operators : dict of str to float
        Of each operator that was tried: mismatch at the images over their standard deviation.
    ensemble : ndarray (2, ny, nx), or None
        Standard deviation of the velocity (its mean in time) between restarts, in cells per span.
    """

    frames: Float
    times: NDArray[np.float64]
    velocity: Float
    spread: Float
    networks: LatentNets
    settings: LatentSettings
    seed: int
    cells: Cells
    initial: Float | None = None
    classical: Float | None = None
    log: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    source: Float | None = None
    diffusivity: float = 0.0
    noise: float = 0.0
    residuals: Mapping[int, float] = field(default_factory=dict)
    operators: Mapping[str, float] = field(default_factory=dict)
    ensemble: Float | None = None

    def __repr__(self) -> str:
        """Say what was fitted to what, and how well."""
        n, ny, nx = self.frames.shape
        mean = float(np.hypot(*velocity_at(self.velocity, 0.5)).mean())
        gaps = 100 * float(np.isnan(self.frames).mean())
        count = sum(p.numel() for p in self.networks.parameters())
        lines = [
            f"<LatentDynamics> {n} frames of {ny} x {nx}, times {self.times[0]:g} to "
            f"{self.times[-1]:g}" + (f", {gaps:.1f} % missing" if gaps else ""),
            f"  motion     {mean:.2f} cells per span on average, degree {len(self.velocity) - 1} "
            f"in time, windows disagree by {float(np.hypot(*self.spread).mean()):.2f}",
            f"  networks   {count} parameters, {self.settings.iterations} steps on windows of "
            f"{self.settings.patch}, seed {self.seed}",
        ]
        if self.settings.operator != "advection":
            lines.append(f"  operator   {self.settings.operator}{self._strength()}")
        if self.residuals:
            marks = ", ".join(f"{mark:.3g}" for mark in self.residuals.values())
            lines.append(f"  restarts   {len(self.residuals)}, mismatch at the images {marks}")
        if "total" in self.log:
            tail = max(len(self.log["total"]) // 10, 1)
            terms = ", ".join(f"{k} {float(v[-tail:].mean()):.3g}" for k, v in self.log.items())
            lines.append(f"  loss       {terms}")
        return "\n".join(lines)

    def _strength(self) -> str:
        """How much the operator does beside advection, in words."""
        if self.source is not None:
            return f", source {float(np.sqrt(np.mean(self.source**2))):.2f} of the latent state"
        return f", {self.diffusivity:.2f} squares of a cell per span"

    @property
    def uncertainty(self) -> Float:
        """Disagreement of windows and restarts (2, ny, nx) on the velocity, in cells per span."""
        return self.spread if self.ensemble is None else np.hypot(self.spread, self.ensemble)

    @property
    def span(self) -> float:
        """Time from the first image to the last."""
        return float(self.times[-1] - self.times[0])

    def _mapped(self, part: str, *fields: Float) -> Float:
        """Apply one of the networks in windows."""
        from xr_spde.nets.latent_training import apply_nets

        return in_windows(
            lambda *stacks: apply_nets(self.networks, part, *stacks),
            fields,
            self.settings,
            self.cells.periodic_x,
        )[0]

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of all images together."""
        return standardisation(self.frames)

    @cached_property
    def latent(self) -> Float:
        """Latent states (n, channels, ny, nx) of the images."""
        return np.stack([self.encode(image) for image in self.frames])

    @cached_property
    def _left(self) -> Float:
        """What D E leaves of each image (n, ny, nx), zero in gaps."""
        decoded = np.stack([self.decode(state) for state in self.latent])
        return np.where(np.isnan(self.frames), 0.0, self.frames - decoded)

    def encode(self, image: ArrayLike) -> Float:
        """Latent state of an image.

        Parameters
        ----------
        image : array_like (ny, nx)
            In the units of the frames; NaN is missing.

        Returns
        -------
        ndarray (channels, ny, nx)
            Without a unit. With residual networks its first channel is the standardised image and
            a correction.
        """
        values = np.asarray(image, dtype=np.float64)
        if values.shape != self.cells.shape:
            raise ParameterError(
                f"an image of shape {values.shape} for a model on {self.cells.shape}"
            )
        mean, std = self.scale
        filled, known = prepared((values - mean) / std)
        return self._mapped("encode", filled[None], known[None])

    def decode(self, state: ArrayLike) -> Float:
        """Image of a latent state; the inverse of `encode` as far as it was learnt.

        Parameters
        ----------
        state : array_like (channels, ny, nx)
            Latent.

        Returns
        -------
        ndarray (ny, nx)
            In the units of the frames.
        """
        given = np.asarray(state, dtype=np.float64)
        expected = (self.networks.options["latent"], *self.cells.shape)
        if given.shape != expected:
            raise ParameterError(f"a latent state of shape {given.shape}; expected {expected}")
        mean, std = self.scale
        return np.asarray(mean + std * self._mapped("decode", given)[0])

    def share(self, time: float, *, extrapolate: bool = False) -> float:
        """Time as a share of the span.

        Parameters
        ----------
        time : float
            In the units of `times`.
        extrapolate : bool
            Whether it may lie outside.

        Returns
        -------
        float
            0 at the first image, 1 at the last.

        Raises
        ------
        ParameterError
            For a time outside the span without `extrapolate`.
        """
        s = (float(time) - float(self.times[0])) / self.span
        if not (extrapolate or 0 <= s <= 1):
            raise ParameterError(
                f"time {time:g} is outside {self.times[0]:g} to {self.times[-1]:g}; give a time "
                "between the images, or extrapolate=True"
            )
        return s

    def motion_at(self, time: float) -> Float:
        """Velocity at a time.

        Parameters
        ----------
        time : float
            In the units of `times`.

        Returns
        -------
        ndarray (2, ny, nx)
            In cells per unit of `times`, x first.
        """
        s = min(max(self.share(time, extrapolate=True), 0.0), 1.0)
        return np.asarray(velocity_at(self.velocity, s) / self.span)

    def carried(self, k: int, s: float) -> tuple[Float, NDArray[np.bool_], Float, Float]:
        """Image k at another time: value, where it is known, weight of its area, latent state.

        Parameters
        ----------
        k : int
            Number of the image.
        s : float
            Time as a share of the span.

        Returns
        -------
        image : ndarray (ny, nx)
            In the units of the frames.
        known : ndarray (ny, nx) of bool
            Whether image k shows what is there.
        cover : ndarray (ny, nx)
            Square of the area that a cell comes from, at most 1.
        state : ndarray (channels, ny, nx)
            Latent.
        """
        wrap = self.cells.periodic_x
        own = (float(self.times[k]) - float(self.times[0])) / self.span
        y, x = trace(self.velocity, s, own, periodic_x=wrap)
        known, cover = visibility(np.isnan(self.frames[k]), y, x, periodic_x=wrap)
        state = self._evolved(k, s, own, (y, x))
        left = np.asarray(sample(self._left[k], y, x, kernel="monotone", periodic_x=wrap))
        return self.decode(state) + left, known, cover, state

    def _evolved(self, k: int, s: float, own: float, positions: tuple[Float, Float]) -> Float:
        """Latent state of image k, which was taken at `own`, at the time s."""
        wrap = self.cells.periodic_x
        state = np.asarray(sample(self.latent[k], *positions, kernel="monotone", periodic_x=wrap))
        if self.source is not None:
            state = grown(state, self.source, self.velocity, s, own, periodic_x=wrap)
        if not self.diffusivity:
            return np.asarray(state)
        j = k - 1 if s < own else k + 1
        if self.diffusivity * (s - own) >= 0 or not 0 <= j < len(self.times):
            return np.asarray(levelled(state, self.diffusivity, own, s, periodic_x=wrap))
        # what diffusion has taken away is known from the image on the other side alone
        other = (float(self.times[j]) - float(self.times[0])) / self.span
        y, x = trace(self.velocity, s, other, periodic_x=wrap)
        sharp = np.asarray(sample(self.latent[j], y, x, kernel="monotone", periodic_x=wrap))
        sharp = levelled(sharp, self.diffusivity, other, s, periodic_x=wrap)
        lost = sharp - levelled(sharp, self.diffusivity, s, own, periodic_x=wrap)
        seen = np.isfinite(self.frames[j]).astype(float)
        return np.asarray(state + lost * sample(seen, y, x, kernel="linear", periodic_x=wrap))

    def frame(self, time: float, *, extrapolate: bool = False) -> Frame:
        """Image at any time.

        Parameters
        ----------
        time : float
            In the units of `times`.
        extrapolate : bool
            Whether times outside the span are allowed; the nearest image alone is carried there.

        Returns
        -------
        Frame
            At the times of the images these themselves, wherever they have data.

        Raises
        ------
        ParameterError
            For a time outside the span without `extrapolate`.
        """
        s = self.share(time, extrapolate=extrapolate)
        shares = (self.times - self.times[0]) / self.span
        k = int(np.clip(np.searchsorted(shares, s, side="right") - 1, 0, len(shares) - 2))
        tau = float(np.clip((s - shares[k]) / (shares[k + 1] - shares[k]), 0.0, 1.0))
        sides = []
        for j in (k, k + 1):
            value, known, cover, _ = self.carried(j, s)
            gappy = bool(np.isnan(self.frames[j]).any())
            sides.append(Carried(value.astype(self.frames.dtype), known, cover, gappy))
        return two_sided(sides[0], sides[1], tau)

    def reversed(self) -> LatentDynamics:
        """Return the same dynamics with time running backwards, over the same span."""
        times = self.times[0] + (self.times[-1] - self.times[::-1])
        return replace(
            self,
            frames=self.frames[::-1],
            times=times,
            velocity=turned_back(self.velocity),
            initial=None if self.initial is None else turned_back(self.initial),
            classical=None if self.classical is None else -self.classical,
            source=None if self.source is None else -self.source,
            diffusivity=-self.diffusivity,
        )

    def diagnose(self) -> Diagnosis:
        """Look for degenerate solutions: see :func:`xr_spde.latent.diagnosis.diagnose`."""
        from xr_spde.latent.diagnosis import diagnose

        return diagnose(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file: see :func:`xr_spde.latent.storage.save_dynamics`."""
        from xr_spde.latent.storage import save_dynamics

        save_dynamics(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> LatentDynamics:
        """Read what `save` wrote: see :func:`xr_spde.latent.storage.load_dynamics`."""
        from xr_spde.latent.storage import load_dynamics

        return load_dynamics(path)

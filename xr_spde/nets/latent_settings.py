"""Sizes, weights and optimisation of latent dynamics."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.latent_losses import SMOOTHNESS, TERMS

__all__ = ["OPERATORS", "WEIGHTS", "LatentSettings"]

SCHEDULES = ("one-cycle", "geometric")

OPERATORS = ("advection", "advection-source", "advection-diffusion")
"""What happens to a latent state: it is carried; it also grows or fades, at a rate that each parcel
keeps; it is also smoothed, or sharpened, alike everywhere."""


WEIGHTS = ("lam_ae", "lam_mag", "lam_sm", "lam_c", "lam_h", "lam_r", "lam_s")
"""Weights of the terms beside the first, in their order."""


@dataclass(frozen=True)
class LatentSettings:
    """Sizes, weights and optimisation of latent dynamics.

    Attributes
    ----------
    operator : {"advection", "advection-source", "advection-diffusion"}
        See :data:`OPERATORS`.
    width, depth, latent, residual
        Of the networks; see `xr_spde.nets.latent_unet`.
    patch : int
        Rows and columns of a window, a multiple of ``2**depth``.
    stride : int, optional
        Cells from one window to the next where the networks are applied; by default a quarter of
        `patch`.
    batch : int
        Windows of a step, at random places.
    iterations : int
        Steps of Adam.
    rate : float
        Largest learning rate.
    schedule : {"one-cycle", "geometric"}
        The rate rises over the first 0.3 of the steps and falls to zero, both as a half cosine; or
        it is multiplied by `decay` at each step.
    decay : float
        Of the geometric schedule.
    lam_ae, lam_mag, lam_sm, lam_c, lam_h, lam_r, lam_s : float
        Weights of the terms of the loss beside the first; see `xr_spde.nets.latent_losses`. For
        images standardised together and motion in cells.
    kernel : {"cubic", "monotone", "linear"}
        With which latent states are sampled in the fit.
    robust : float, optional
        Mismatch in standard deviations from which it counts linearly.
    smoothness : {"gradient", "hessian", "tv"}
        Which roughness of the motion `lam_sm` weighs.
    reach : float, optional
        Largest change of a component of the motion from the given one, in cells per interval; by
        default a quarter of `patch`, or 3 where a motion was given.
    sees : {"first", "all"}
        Images from which the motion is extracted.
    clip : float
        Largest norm of the gradient.

    Raises
    ------
    ParameterError
        For values that cannot be used.
    UnknownNameError
        For another name of a schedule, smoothness or what is seen.
    """

    operator: str = "advection"
    width: int = 8
    depth: int = 3
    latent: int = 1
    residual: bool = True
    patch: int = 64
    stride: int | None = None
    batch: int = 4
    iterations: int = 250
    rate: float = 2e-3
    schedule: Literal["one-cycle", "geometric"] = "one-cycle"
    decay: float = 0.99
    lam_ae: float = 1.0
    lam_mag: float = 1e-4
    lam_sm: float = 1e-2
    lam_c: float = 1.0
    lam_h: float = 0.5
    lam_r: float = 0.3
    lam_s: float = 1e-2
    kernel: str = "cubic"
    robust: float | None = None
    smoothness: str = "gradient"
    reach: float | None = None
    sees: Literal["first", "all"] = "first"
    clip: float = 1.0

    def __post_init__(self) -> None:
        names = (
            ("operator", OPERATORS),
            ("schedule", SCHEDULES),
            ("smoothness", SMOOTHNESS),
            ("sees", ("first", "all")),
        )
        for name, known in names:
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        for name in ("patch", "batch", "iterations", "stride"):
            count = getattr(self, name)
            if count is not None and (not isinstance(count, int) or count < 1):
                raise ParameterError(f"{name}={count!r}; expected a whole number of at least 1")
        if self.patch % 2**self.depth or self.patch < 2 ** (self.depth + 1):
            raise ParameterError(
                f"patch={self.patch} with depth={self.depth}; expected a multiple of "
                f"{2**self.depth}, at least {2 ** (self.depth + 1)}"
            )
        if (self.stride or 1) > self.patch:
            raise ParameterError(
                f"stride={self.stride} is above patch={self.patch}; gaps would stay"
            )
        for name in WEIGHTS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(
                    f"{name}={getattr(self, name)!r}; expected a weight of 0 or more"
                )
        for name in ("rate", "decay", "clip", "reach", "robust"):
            size = getattr(self, name)
            if size is not None and not 0 < size < math.inf:
                raise ParameterError(f"{name}={size!r}; expected a number above 0")

    @property
    def step(self) -> int:
        """Cells from one window to the next."""
        return self.stride or max(self.patch // 4, 1)

    def factor(self, iteration: int) -> float:
        """Learning rate at a step over the largest."""
        if self.schedule == "geometric":
            return self.decay**iteration
        peak = 0.3 * self.iterations
        if iteration < peak:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * iteration / peak))
        done = (iteration - peak) / max(self.iterations - peak, 1)
        return 0.5 * (1 + math.cos(math.pi * done))

    def weights(self) -> dict[str, float]:
        """Weights of the terms by name."""
        return dict(zip(TERMS, (1.0, *(getattr(self, name) for name in WEIGHTS)), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)

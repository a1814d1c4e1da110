"""Fitting the networks of latent dynamics to one sequence of images, and applying them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xr_spde._core.errors import ParameterError, SolverError, unknown
from xr_spde._core.progress import track
from xr_spde.nets.inference import single_thread
from xr_spde.nets.latent_losses import SMOOTHNESS, TERMS, Transport, Windows, loss_terms
from xr_spde.nets.latent_unet import LatentNets

__all__ = ["LatentSettings", "apply_nets", "build_latent", "fit_latent"]

Real = NDArray[np.float32]

SCHEDULES = ("one-cycle", "geometric")


@dataclass(frozen=True)
class LatentSettings:
    """Sizes, weights and optimisation of latent dynamics.

    Attributes
    ----------
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
    lam_ae, lam_mag, lam_sm, lam_c, lam_h, lam_r : float
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
    kernel: str = "cubic"
    robust: float | None = None
    smoothness: str = "gradient"
    reach: float | None = None
    sees: Literal["first", "all"] = "first"
    clip: float = 1.0

    def __post_init__(self) -> None:
        names = (
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
        for name in ("lam_ae", "lam_mag", "lam_sm", "lam_c", "lam_h", "lam_r"):
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
        values = (1.0, self.lam_ae, self.lam_mag, self.lam_sm, self.lam_c, self.lam_h, self.lam_r)
        return dict(zip(TERMS, values, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)


def build_latent(options: Mapping[str, Any]) -> LatentNets:
    """Build untrained networks; random numbers drawn later do not depend on it.

    Parameters
    ----------
    options : mapping
        ``options`` of the networks.

    Returns
    -------
    LatentNets
    """
    with torch.random.fork_rng(devices=[]):
        return _laid_out(LatentNets(**options))


def _laid_out(nets: LatentNets) -> LatentNets:
    """Put channels last in memory: a third faster, and sums are in one order everywhere."""
    nets.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return nets


def fit_latent(
    frames: Real,
    known: Real,
    times: NDArray[np.float64],
    settings: LatentSettings,
    transport: Transport,
    *,
    degree: int = 0,
    initial: Real | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool | None = None,
) -> tuple[LatentNets, dict[str, Real]]:
    """Fit E, F and D to a sequence of images.

    Every step draws windows at random places and one interval. One thread on the processor: the
    same seed gives the same networks.

    Parameters
    ----------
    frames : ndarray (n, channels, ny, nx)
        Standardised images, gaps filled; no side shorter than a window.
    known : ndarray (n, 1, ny, nx)
        1 where there are data, 0 in gaps.
    times : ndarray (n,)
        Shares of the span, from 0 to 1.
    settings : LatentSettings
        See there.
    transport : Transport
        How latent states are carried.
    degree : int
        Of the motion in time.
    initial : ndarray (degree + 1, 2, ny, nx), optional
        Motion to start from, in cells per span.
    seed : int
        Of the first weights and of the places of windows.
    device : str
        Torch device.
    progress : bool, optional
        Draw a bar; by default the option ``progress``.

    Returns
    -------
    LatentNets
        In evaluation mode, on the processor.
    dict of ndarray (iterations,)
        Each term of the loss, unweighted, and "total".

    Raises
    ------
    SolverError
        If the loss stops being finite.
    """
    weights = settings.weights()
    log: dict[str, list[float]] = {name: [] for name in (*TERMS, "total")}
    rng = np.random.default_rng(seed)
    with single_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        nets = _laid_out(LatentNets(**_options(frames, known, settings, degree)).to(device))
        data = _Data(frames, known, times, initial, settings, degree, device)
        optimizer = torch.optim.Adam(nets.parameters(), lr=settings.rate)
        for iteration in track(range(settings.iterations), label="fit", enabled=progress):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * settings.factor(iteration)
            windows = data.draw(nets, rng)
            terms = loss_terms(
                nets,
                windows,
                transport,
                robust=settings.robust,
                smoothness=settings.smoothness,
                kernel=settings.kernel,
            )
            total = torch.stack([weights[n] * v for n, v in terms.items() if weights[n]]).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(nets.parameters(), settings.clip)
            optimizer.step()
            for name, value in (*terms.items(), ("total", total)):
                log[name].append(float(value.detach()))
            if not math.isfinite(log["total"][-1]):
                raise SolverError(
                    f"the loss is {log['total'][-1]} at step {iteration}; a smaller rate than "
                    f"{settings.rate:g} may help"
                )
    return nets.cpu().eval(), {n: np.array(v, np.float32) for n, v in log.items()}


def _options(frames: Real, known: Real, settings: LatentSettings, degree: int) -> dict[str, Any]:
    return {
        "channels": frames.shape[1],
        "latent": max(settings.latent, frames.shape[1] if settings.residual else 1),
        "fields": 2 * (degree + 1),
        "seen": 1 if settings.sees == "first" else len(frames),
        "gaps": bool((known < 1).any()),
        "width": settings.width,
        "depth": settings.depth,
        "residual": settings.residual,
    }


def reach_of(settings: LatentSettings, intervals: int, *, given: bool) -> float:
    """Largest change of the motion by the networks, in cells per span.

    Parameters
    ----------
    settings : LatentSettings
        See there.
    intervals : int
        In the span.
    given : bool
        Whether a motion was given to start from.

    Returns
    -------
    float
    """
    default = 3.0 if given else settings.patch / 4
    return intervals * (settings.reach or default)


class _Data:
    """Images on the device, and windows of them."""

    def __init__(
        self,
        frames: Real,
        known: Real,
        times: NDArray[np.float64],
        initial: Real | None,
        settings: LatentSettings,
        degree: int,
        device: str,
    ) -> None:
        def put(array: Real) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32), device=device)

        ny, nx = frames.shape[-2:]
        self.frames, self.known = put(frames), put(known)
        start = np.zeros((degree + 1, 2, ny, nx), np.float32) if initial is None else initial
        self.initial = put(start)
        self.times = [float(t) for t in times]
        self.patch, self.batch = settings.patch, settings.batch
        self.seen = slice(0, 1) if settings.sees == "first" else slice(None)
        self.reach = reach_of(settings, len(times) - 1, given=initial is not None)

    def draw(self, nets: LatentNets, rng: np.random.Generator) -> Windows:
        """Windows at random places of a random interval, with the motion that F sees there."""
        ny, nx = self.frames.shape[-2:]
        k = int(rng.integers(len(self.times) - 1))
        corners = rng.integers([0, 0], [ny - self.patch + 1, nx - self.patch + 1], (self.batch, 2))

        def cut(fields: Tensor) -> Tensor:
            size = self.patch
            return torch.stack([fields[..., r : r + size, c : c + size] for r, c in corners])

        images, masks, initial = cut(self.frames), cut(self.known), cut(self.initial)
        fields = nets.extract(images[:, self.seen], masks[:, self.seen])
        change = self.reach * torch.tanh(fields).unflatten(1, initial.shape[1:3])
        return Windows(
            images[:, k],
            images[:, k + 1],
            masks[:, k],
            masks[:, k + 1],
            initial + change,
            initial,
            (self.times[k], self.times[k + 1]),
        )


@torch.no_grad()
def apply_nets(nets: LatentNets, part: str, fields: Real, known: Real | None = None) -> Real:
    """Apply one of the networks to a stack of windows.

    Parameters
    ----------
    nets : LatentNets
        Fitted.
    part : {"encode", "extract", "decode"}
        Which one.
    fields : ndarray (b, ...)
        Images (b, channels, ny, nx), for "extract" (b, seen, channels, ny, nx), or latent states.
    known : ndarray, optional
        Masks of the images, of the same shape with one channel.

    Returns
    -------
    ndarray (b, ..., ny, nx)
        Of "extract" the tangent is taken: between -1 and 1.
    """
    device = next(nets.parameters()).device

    def put(array: Real) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32), device=device)

    with single_thread():
        if part == "decode":
            return np.asarray(nets.decode(put(fields)).cpu())
        mask = put(np.ones_like(fields) if known is None else known)
        if part == "encode":
            return np.asarray(nets.encode(put(fields), mask).cpu())
        return np.asarray(torch.tanh(nets.extract(put(fields), mask)).cpu())

"""Fitting the networks of latent dynamics to one sequence of images, and applying them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xr_spde._core.errors import SolverError
from xr_spde._core.progress import track
from xr_spde.nets.inference import single_thread
from xr_spde.nets.latent_losses import TERMS, Transport, Windows, loss_terms
from xr_spde.nets.latent_settings import LatentSettings
from xr_spde.nets.latent_unet import LatentNets

__all__ = ["LatentSettings", "apply_nets", "build_latent", "fit_latent"]

Real = NDArray[np.float32]


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
    source: Real | None = None,
    diffusivity: float = 0.0,
    begin: LatentNets | None = None,
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
    source : ndarray (latent, ny, nx), optional
        Source to start from, per span; with it the latent state has one.
    diffusivity : float
        To start from, in squares of a cell per span; 0 for none.
    begin : LatentNets, optional
        Networks to start from, such as of the same images on a coarser grid; networks of other
        sizes are passed over.
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
        options = _options(frames, known, settings, degree)
        if source is not None:
            options |= {"sources": len(source), "fields": options["fields"] + len(source)}
        nets = LatentNets(**options, diffusivity=diffusivity)
        if begin is not None:
            _continued(nets, begin)
        nets = _laid_out(nets.to(device))
        data = _Data(frames, known, times, initial, source, settings, degree, device)
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


def _continued(nets: LatentNets, begin: LatentNets) -> None:
    """Take the weights of other networks, where they have the same sizes."""
    differ = {"diffusivity"}
    if any(nets.options[k] != v for k, v in begin.options.items() if k not in differ):
        return  # gaps may be too small for a coarser grid
    weights = begin.state_dict()
    weights.pop("log_diffusion", None)  # it is in squares of other cells
    nets.load_state_dict(weights, strict=False)
    nets.extractor.begin_at_zero()  # what it found is in the motion to start from


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
        source: Real | None,
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
        self.source = None if source is None else put(source)
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
        fields, added = nets.parts(images[:, self.seen], masks[:, self.seen])
        change = self.reach * fields.unflatten(1, initial.shape[1:3])
        return Windows(
            images[:, k],
            images[:, k + 1],
            masks[:, k],
            masks[:, k + 1],
            initial + change,
            initial,
            (self.times[k], self.times[k + 1]),
            None if self.source is None else cut(self.source) + added,
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
        Of "extract" the motion is between -1 and 1, and sources follow it.
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
        return np.asarray(torch.cat(nets.parts(put(fields), mask), dim=1).cpu())

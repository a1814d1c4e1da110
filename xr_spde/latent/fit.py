"""Fit of latent dynamics: checks, the motion to start from, networks, the assembled motion."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.lazyimport import require
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde._core.warn import warn
from xr_spde.fields.cells import Cells
from xr_spde.fields.sampling import sample
from xr_spde.fields.unsteady import grown, levelled, trace, turned_back
from xr_spde.latent.arguments import (
    check_frames,
    chosen_degree,
    chosen_settings,
    given_start,
)
from xr_spde.latent.diagnosis import end_residual
from xr_spde.latent.dynamics import LatentDynamics
from xr_spde.latent.pyramid import noise_ratio
from xr_spde.latent.starts import (
    classical_motion,
    coarser_images,
    first_diffusivity,
    first_source,
    rescaled,
    smoothed,
)
from xr_spde.latent.windows import (
    closed,
    in_windows,
    prepared,
    seam_rim,
    standardisation,
)

if TYPE_CHECKING:
    from xr_spde.nets.latent_settings import LatentSettings
    from xr_spde.nets.latent_unet import LatentNets

__all__ = ["fit_latent_dynamics"]

LOGGER = logging.getLogger(__name__)

_CLOSER = 0.5

Float = NDArray[np.floating]


def fit_latent_dynamics(
    frames: ArrayLike,
    times: ArrayLike | None = None,
    cells: Cells | None = None,
    *,
    initial: str | Float = "classical",
    blur: float = 1.0,
    degree: int | None = None,
    levels: int = 1,
    restarts: int = 1,
    noise: float | None = None,
    seed: Seed = 0,
    device: str = "cpu",
    progress: bool | None = None,
    **settings: Any,
) -> LatentDynamics:
    r"""Fit an encoder, a motion and a decoder to two or more images.

    Networks E, F and D are fitted to these images alone, so that
    :math:`D \Psi_\tau(E u_0; F u_0)`, with the transport :math:`\Psi` of a latent state by the
    motion :math:`q = F u_0`, passes through all of them.

    Parameters
    ----------
    frames : array_like (n, ny, nx)
        Two or more images; NaN is missing. Radar images in decibels, where speckle is alike in
        bright and dark places.
    times : array_like (n,), optional
        When they were taken, increasing; by default 0, 1, 2 ...
    cells : Cells, optional
        The grid; by default all cells are alike.
    initial : {"classical", "none"} or ndarray
        Motion to start from, see :data:`xr_spde.latent.arguments.INITIAL`; an array (2, ny, nx) or
        (d + 1, 2, ny, nx) is in cells per span. Motions beyond about a tenth of a window need one.
    blur : float
        Standard deviation in cells of a Gaussian that smooths the motion to start from.
    degree : int, optional
        Of the motion as a polynomial in time, at most n - 2; by default that, up to 2.
    levels : int
        Grids from coarse to fine, each with half as many rows and columns as the next, so that the
        same windows see twice as far; networks and motion are handed on. For long motions without
        a motion to start from.
    restarts : int
        Fits with other seeds; the one that reaches the end images best is kept, and how much they
        differ comes along as an uncertainty.
    noise : float, optional
        Noise of the images over their standard deviation; by default as estimated. Above 0.1 the
        weights ``lam_sm``, ``lam_mag`` and ``lam_r`` grow with its square, up to 50 times.
    seed : int, SeedSequence or Generator, optional
        Of the networks and of the places of windows: the same seed gives the same result.
    device : str
        Torch device.
    progress : bool, optional
        Draw a bar; by default the option ``progress``.
    **settings
        Of :class:`xr_spde.nets.latent_settings.LatentSettings`: ``operator``, ``iterations``,
        ``patch``, ``lam_sm`` ... With ``operator="auto"`` a source is kept only if it halves the
        mismatch at the images; that takes two fits.

    Returns
    -------
    LatentDynamics

    Raises
    ------
    ParameterError
        Images, times or settings that cannot be used.
    UnknownNameError
        Another name of an initial motion.
    MissingDependencyError
        Without torch.

    Warns
    -----
    UserWarning
        If the motion is longer than half a window.

    Notes
    -----
    Images and their reversed sequence are the same problem, and are fitted the same way round: the
    one whose images grow brighter. Frames of the reversed sequence are therefore the same frames.

    A window wider than the images shrinks to what fits.

    References
    ----------
    Han, J., Lee, S. and Gelb, A. (2023): Learning in-between imagery dynamics via physical latent
    spaces. arXiv 2310.09495.
    """
    require("torch", "torch")
    images, when = check_frames(frames, times)
    grid = Cells(*images.shape[1:]) if cells is None else cells
    if grid.shape != images.shape[1:]:
        raise ParameterError(f"cells of shape {grid.shape} for images of {images.shape[1:]}")
    for name, count in (("levels", levels), ("restarts", restarts)):
        if not isinstance(count, int) or count < 1:
            raise ParameterError(f"{name}={count!r}; expected a whole number of at least 1")
    chosen = chosen_degree(degree, len(images))
    start = given_start(initial, chosen, grid)
    means = [float(np.nanmean(u)) for u in images]
    backwards = means > means[::-1]
    if backwards:
        images, when = images[::-1], when[0] + (when[-1] - when[::-1])
        start = None if start is None else turned_back(start)
    if noise is None:
        noise = max(noise_ratio(u0, u1) for u0, u1 in pairwise(images))
    classical = isinstance(initial, str) and initial == "classical"
    kinds = [settings.get("operator", "advection")]
    if kinds == ["auto"]:
        kinds = ["advection", "advection-source"]
    fits: dict[str, LatentDynamics] = {}
    for kind in kinds:
        sizes = chosen_settings({**settings, "operator": kind}, grid, noise)
        problem = _Problem(
            images, when, grid, chosen, sizes, start, None, noise, device, progress
        ).begun(blur, classical=classical)
        fits[kind] = _best(problem, levels, resolve_seed(seed), restarts)
    best = _simplest(fits)
    return best.reversed() if backwards else best


def _simplest(fits: dict[str, LatentDynamics]) -> LatentDynamics:
    """Keep the first fit, unless another one comes much closer to the images."""
    if len(fits) == 1:
        return next(iter(fits.values()))
    marks = {kind: end_residual(model) for kind, model in fits.items()}
    first, best = next(iter(marks)), min(marks, key=marks.__getitem__)
    kept = best if marks[best] < _CLOSER * marks[first] else first
    LOGGER.info("operator %s, of the mismatches at the images %s", kept, marks)
    return replace(fits[kept], operators=marks)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Images of one grid and what a fit of them begins with."""

    images: Float
    times: NDArray[np.float64]
    grid: Cells
    degree: int
    settings: LatentSettings
    start: Float | None
    yardstick: Float | None
    noise: float
    device: str
    progress: bool | None

    @property
    def shares(self) -> NDArray[np.float64]:
        """Times as shares of the span."""
        return np.asarray((self.times - self.times[0]) / (self.times[-1] - self.times[0]))

    def begun(self, blur: float, *, classical: bool) -> _Problem:
        """Return the same with the motion to start from."""
        start, yardstick = self.start, None
        if classical:
            # what grows is followed by its pattern
            kind = "varying" if self.settings.operator == "advection-source" else "auto"
            start = classical_motion(
                self.images, self.shares, self.grid, self.degree, brightness=kind
            )
            yardstick = start[0]
        if start is not None:
            start = smoothed(start, blur, self.grid.periodic_x)
            longest = float(np.abs(start[0]).max() * np.diff(self.shares).max())
            if longest > self.settings.patch / 2:
                warn(
                    f"the motion reaches {longest:.0f} cells between images, and windows of "
                    f"{self.settings.patch} learn only from what stays inside them; give a patch "
                    f"of at least {2 * longest:.0f}, or coarser images"
                )
        return replace(self, start=start, yardstick=yardstick)

    def coarser(self) -> _Problem | None:
        """Return the same on half as many rows and columns, or nothing where windows do not fit."""
        ny, nx = self.grid.shape
        shape = (ny + 1) // 2, (nx + 1) // 2
        most, unit = min(shape) // 2**self.settings.depth, 2**self.settings.depth
        if most < 2 or min(shape) < 16:
            return None
        patch = min(self.settings.patch, most * unit)
        settings = replace(
            self.settings,
            patch=patch,
            stride=None if self.settings.stride is None else min(self.settings.stride, patch),
        )
        return replace(
            self,
            images=coarser_images(self.images, shape, periodic_x=self.grid.periodic_x),
            grid=self.grid.coarser(shape),
            settings=settings,
            start=None if self.start is None else rescaled(self.start, shape),
        )


def _fitted(problem: _Problem, levels: int, seed: int) -> LatentDynamics:
    """Fit, from coarse to fine; each level finds what the one before has left of the motion."""
    below = problem.coarser() if levels > 1 else None
    if below is None:
        if levels > 1:
            LOGGER.info("no level coarser than %s: windows do not fit", problem.grid.shape)
        return _fit(problem, seed)
    coarse = _fitted(below, levels - 1, seed)
    gain = coarse.velocity if below.start is None else coarse.velocity - below.start
    up = rescaled(gain, problem.grid.shape)
    start = up if problem.start is None else problem.start + up
    return _fit(replace(problem, start=start), seed, begin=coarse.networks)


def _fit(problem: _Problem, seed: int, begin: LatentNets | None = None) -> LatentDynamics:
    from xr_spde.nets.latent_losses import Transport
    from xr_spde.nets.latent_training import apply_nets, fit_latent, reach_of

    images, grid, sizes, start = problem.images, problem.grid, problem.settings, problem.start
    wrap, count = grid.periodic_x, problem.degree + 1
    mean, std = standardisation(images)
    standard = (images - mean) / std
    source, diffusivity = _extras(problem, standard)
    filled, known = (np.stack(part)[:, None] for part in zip(*map(prepared, standard), strict=True))
    rim = seam_rim(sizes, wrap)

    def wide(fields: Float | None) -> NDArray[np.float32] | None:
        return None if fields is None else closed(fields.astype(np.float32), rim)

    nets, log = fit_latent(
        closed(filled, rim),
        closed(known, rim),
        problem.shares,
        sizes,
        Transport(trace, sample, grown, levelled),
        degree=problem.degree,
        initial=wide(start),
        source=wide(source),
        diffusivity=diffusivity,
        begin=begin,
        seed=seed,
        device=problem.device,
        progress=problem.progress,
    )
    seen = slice(0, nets.options["seen"])
    found, spread = in_windows(
        lambda u, m: apply_nets(nets, "extract", u, m), (filled[seen], known[seen]), sizes, wrap
    )
    reach = reach_of(sizes, len(images) - 1, given=start is not None)
    moved = reach * found[: 2 * count].astype(np.float64).reshape(count, 2, *grid.shape)
    return LatentDynamics(
        images,
        problem.times,
        moved if start is None else moved + start,
        (reach * spread[:2]).astype(np.float64),
        nets,
        sizes,
        seed,
        grid,
        start,
        problem.yardstick,
        log,
        source=None if source is None else source + found[2 * count :],
        diffusivity=0.0 if nets.diffusivity is None else float(nets.diffusivity.detach()),
        noise=problem.noise,
    )


def _extras(problem: _Problem, standard: Float) -> tuple[Float | None, float]:
    """Source (latent, ny, nx) and diffusivity to begin with, as the operator has them."""
    kind = problem.settings.operator
    shape = (problem.degree + 1, 2, *problem.grid.shape)
    motion = np.zeros(shape) if problem.start is None else problem.start
    wrap = problem.grid.periodic_x
    if kind == "advection-diffusion":
        return None, first_diffusivity(standard, problem.shares, motion, periodic_x=wrap)
    if kind == "advection":
        return None, 0.0
    source = np.zeros((max(problem.settings.latent, 1), *problem.grid.shape))
    if problem.settings.residual:  # else the latent state is in no known units
        source[0] = first_source(standard, problem.shares, motion, periodic_x=wrap)
    return source, 0.0


def _best(problem: _Problem, levels: int, seed: int, restarts: int) -> LatentDynamics:
    """Fit with several seeds and keep what reaches the end images best."""
    seeds = [int(member_generator(seed, k).integers(2**63)) for k in range(1, restarts)]
    best = _fitted(problem, levels, seed)
    if restarts == 1:
        return best
    found, velocities = {seed: end_residual(best)}, [best.velocity[0]]
    for one in seeds:
        model = _fitted(problem, levels, one)
        found[one] = end_residual(model)
        velocities.append(model.velocity[0])
        if found[one] == min(found.values()):
            best = model
    LOGGER.info("end residuals of %d restarts: %s", restarts, found)
    return replace(best, residuals=found, ensemble=np.std(velocities, axis=0, ddof=1))

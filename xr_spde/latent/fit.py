"""Fit of latent dynamics: checks, the motion to start from, networks, the assembled motion."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.lazyimport import require
from xr_spde._core.rng import Seed, resolve_seed
from xr_spde.fields.cells import Cells
from xr_spde.fields.sampling import sample
from xr_spde.fields.unsteady import trace, turned_back
from xr_spde.latent.dynamics import LatentDynamics
from xr_spde.latent.motion import check_pair, fit_motion
from xr_spde.latent.windows import (
    closed,
    in_windows,
    prepared,
    seam_rim,
    settings_from,
    standardisation,
)

__all__ = ["INITIAL", "fit_latent_dynamics"]

LOGGER = logging.getLogger(__name__)

INITIAL = ("classical", "none")
"""Motion to start from: that of :func:`xr_spde.latent.motion.fit_motion`, or rest."""

Float = NDArray[np.floating]


def fit_latent_dynamics(
    frames: ArrayLike,
    times: ArrayLike | None = None,
    cells: Cells | None = None,
    *,
    initial: str | Float = "classical",
    blur: float = 1.0,
    degree: int | None = None,
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
        Two or more images; NaN is missing. Speckled images should be in dB.
    times : array_like (n,), optional
        When they were taken, increasing; by default 0, 1, 2 ...
    cells : Cells, optional
        The grid; by default all cells are alike.
    initial : {"classical", "none"} or ndarray
        Motion to start from, see :data:`INITIAL`; an array (2, ny, nx) or (d + 1, 2, ny, nx) is in
        cells per span. Motions beyond about a tenth of a window need one.
    blur : float
        Standard deviation in cells of a Gaussian that smooths the motion to start from.
    degree : int, optional
        Of the motion as a polynomial in time, at most n - 2; by default that, up to 2.
    seed : int, SeedSequence or Generator, optional
        Of the networks and of the places of windows: the same seed gives the same result.
    device : str
        Torch device.
    progress : bool, optional
        Draw a bar; by default the option ``progress``.
    **settings
        Of :class:`xr_spde.nets.latent_training.LatentSettings`: ``iterations``, ``patch``,
        ``lam_sm`` ...

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
    chosen = _degree(degree, len(images))
    start = _given(initial, chosen, grid)
    means = [float(np.nanmean(u)) for u in images]
    backwards = means > means[::-1]
    if backwards:
        images, when = images[::-1], when[0] + (when[-1] - when[::-1])
        start = None if start is None else turned_back(start)
    fitted = _fit(
        images,
        when,
        grid,
        classical=isinstance(initial, str) and initial == "classical",
        start=start,
        blur=blur,
        degree=chosen,
        seed=resolve_seed(seed),
        device=device,
        progress=progress,
        settings=settings,
    )
    return fitted.reversed() if backwards else fitted


def _fit(
    images: Float,
    times: NDArray[np.float64],
    grid: Cells,
    *,
    classical: bool,
    start: Float | None,
    blur: float,
    degree: int,
    seed: int,
    device: str,
    progress: bool | None,
    settings: dict[str, Any],
) -> LatentDynamics:
    from xr_spde.nets.latent_losses import Transport
    from xr_spde.nets.latent_training import apply_nets, fit_latent, reach_of

    shares = (times - times[0]) / (times[-1] - times[0])
    sizes = settings_from(_fitting(settings, grid))
    yardstick = None
    if classical:
        start = _classical(images, shares, grid, degree)
        yardstick = start[0]
    if start is not None and blur > 0:
        start = _smoothed(start, blur, grid.periodic_x)
    mean, std = standardisation(images)
    ready = [prepared((u - mean) / std) for u in images]
    filled, known = (np.stack(part)[:, None] for part in zip(*ready, strict=True))
    rim = seam_rim(sizes, grid.periodic_x)
    nets, log = fit_latent(
        closed(filled, rim),
        closed(known, rim),
        shares,
        sizes,
        Transport(trace, sample),
        degree=degree,
        initial=None if start is None else closed(start.astype(np.float32), rim),
        seed=seed,
        device=device,
        progress=progress,
    )
    seen = slice(0, nets.options["seen"])
    change, spread = in_windows(
        lambda u, m: apply_nets(nets, "extract", u, m),
        (filled[seen], known[seen]),
        sizes,
        grid.periodic_x,
    )
    reach = reach_of(sizes, len(images) - 1, given=start is not None)
    moved = reach * change.astype(np.float64).reshape(degree + 1, 2, *grid.shape)
    spread = reach * spread.reshape(degree + 1, 2, *grid.shape)[0]
    return LatentDynamics(
        images,
        times,
        moved if start is None else moved + start,
        spread.astype(np.float64),
        nets,
        sizes,
        seed,
        grid,
        start,
        yardstick,
        log,
    )


def _smoothed(motion: Float, blur: float, periodic_x: bool) -> NDArray[np.float64]:
    along_x: Literal["wrap", "nearest"] = "wrap" if periodic_x else "nearest"
    rows = gaussian_filter1d(motion.astype(np.float64), blur, axis=-2, mode="nearest")
    return np.asarray(gaussian_filter1d(rows, blur, axis=-1, mode=along_x))


def _fitting(settings: dict[str, Any], grid: Cells) -> dict[str, Any]:
    """Choose a window that fits the grid; what was asked for is not changed."""
    from xr_spde.nets.latent_training import LatentSettings

    depth = settings.get("depth", LatentSettings.depth)
    unit = 2**depth if isinstance(depth, int) and 0 < depth < 16 else 1
    most = min(grid.shape) // unit * unit
    if "patch" in settings or most >= LatentSettings.patch:
        if settings.get("patch", 0) > min(grid.shape):
            raise ParameterError(
                f"patch={settings['patch']} on a grid of {grid.shape}; give at most {most}"
            )
        return settings
    if most < 2 * unit:
        raise ParameterError(
            f"images of {grid.shape} with depth={depth}; give a smaller depth or larger images"
        )
    LOGGER.info("windows of %d cells, as the images are small", most)
    return {**settings, "patch": most}


def check_frames(frames: ArrayLike, times: ArrayLike | None) -> tuple[Float, NDArray[np.float64]]:
    """Images and times that can be used.

    Parameters
    ----------
    frames : array_like (n, ny, nx)
        Images.
    times : array_like (n,), optional
        By default 0, 1, 2 ...

    Returns
    -------
    frames : ndarray (n, ny, nx)
        Floating.
    times : ndarray (n,)

    Raises
    ------
    ParameterError
        One image, other shapes, images without data or constant, times that do not increase.
    """
    images = np.asarray(frames)
    if images.ndim != 3 or len(images) < 2:
        raise ParameterError(
            f"frames of shape {images.shape}; expected two or more images (n, ny, nx)"
        )
    for u0, u1 in pairwise(images):
        check_pair(u0, u1)
    if images.dtype.kind != "f":
        images = images.astype(np.float64)
    when = np.arange(len(images), dtype=np.float64)
    if times is not None:
        when = np.asarray(times, dtype=np.float64)
    if when.shape != (len(images),) or not np.isfinite(when).all() or (np.diff(when) <= 0).any():
        raise ParameterError(
            f"times {when.tolist()} for {len(images)} images; expected one each, increasing, none "
            "twice; sort the images, or drop those at the same time"
        )
    return images, when


def _degree(degree: int | None, n: int) -> int:
    if degree is None:
        return min(n - 2, 2)
    if not isinstance(degree, int) or not 0 <= degree <= n - 2:
        raise ParameterError(
            f"degree={degree!r} with {n} images; expected 0 to {n - 2}: two images tell a steady "
            "motion only"
        )
    return degree


def _given(initial: str | Float, degree: int, grid: Cells) -> Float | None:
    if isinstance(initial, str):
        if initial not in INITIAL:
            raise unknown("initial motion", initial, INITIAL)
        return None
    start = np.asarray(initial, dtype=np.float64)
    shape = (degree + 1, 2, *grid.shape)
    if start.shape == shape[1:]:
        start = np.concatenate([start[None], np.zeros((degree, *shape[1:]))])
    if start.shape != shape or not np.isfinite(start).all():
        raise ParameterError(
            f"initial of shape {start.shape}; expected finite values {shape[1:]} or {shape}"
        )
    return start


def _classical(
    images: Float, shares: NDArray[np.float64], grid: Cells, degree: int
) -> NDArray[np.float64]:
    """Coefficients in time of the motions between neighbouring images, by least squares."""
    lengths = np.diff(shares)
    motions = [
        fit_motion(u0, u1, grid).velocity / length
        for u0, u1, length in zip(images[:-1], images[1:], lengths, strict=True)
    ]
    middles = 0.5 * (shares[:-1] + shares[1:])
    basis = np.polynomial.legendre.legvander(2 * middles - 1, degree)
    stacked = np.stack(motions).astype(np.float64)
    found = np.linalg.lstsq(basis, stacked.reshape(len(stacked), -1), rcond=None)[0]
    return np.asarray(found).reshape(degree + 1, *stacked.shape[1:])

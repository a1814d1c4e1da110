r"""Motion between two images from the images alone: a steady velocity and its characteristics.

The velocity q is sought so that both images, carried to the middle of the interval, agree there:

.. math::

    r(x) = u_1(\phi_{1/2}(x)) - u_0(\phi_{-1/2}(x)), \qquad
    \min_q \sum \lambda |r| + \mathrm{TGV}(q),

with :math:`\phi` the flow of q (:mod:`xr_spde.fields.characteristics`). r is linearised again and
again, coarse to fine, and a median filter follows each time. Several first motions are followed to
the end, and the one that best carries each image into the other is kept.

References
----------
Sun, D., Roth, S. and Black, M. J. (2010): Secrets of optical flow estimation and their principles.
CVPR (the median). Vercauteren, T. et al. (2008): Symmetric log-domain diffeomorphic registration.
MICCAI (steady velocities).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import FlowReport, departure, flow_report
from xr_spde.fields.sampling import sample
from xr_spde.latent.matching import match
from xr_spde.latent.pyramid import (
    QUIET,
    Pair,
    brightness_of,
    check_pair,
    default_smoothness,
    gradient,
    noise_ratio,
    resize,
    shapes,
)
from xr_spde.latent.tgv import Regulariser

__all__ = ["STARTS", "Motion", "fit_motion", "score"]

Float = NDArray[np.float64]
Real = NDArray[np.float32]

STARTS = ("zero", "match")
"""Nothing moves, on the coarsest grid; or the motion of :mod:`xr_spde.latent.matching`."""

BRIGHTNESS = ("auto", "constant", "varying")

_MATCH_CELLS = 130**2
_RACE_CELLS = 200**2  # starts are compared on no more cells than this
_FINEST = ((3.0, 7, 12), (4.0, 5, 8))
_COARSER = ((3.0, 7, 20),)
_ITERATIONS = 40


@dataclass(frozen=True, eq=False)
class Motion:
    """A steady velocity between two images, and how it was found.

    Attributes
    ----------
    velocity : ndarray (2, ny, nx)
        In cells per interval, x first, of the dtype of the images (float64 for integers).
    cells : Cells
        The grid.
    mismatch : float
        Mean absolute difference after each image was carried into the other, in standard
        deviations of the pair.
    starts : dict
        The same of each start where they were compared, on a coarser grid if this one is large.
    report : FlowReport
        Courant and Lipschitz numbers, folds and inflow over the interval.
    noise : float
        Noise of the images over their standard deviation, as it was estimated.
    beyond_search : bool
        Whether the motion is about as long as the longest that was searched for.
    brightness : {"constant", "varying"}
        What was followed: values, or patterns alone.
    """

    velocity: NDArray[np.floating]
    cells: Cells
    mismatch: float
    starts: dict[str, float] = field(default_factory=dict)
    report: FlowReport | None = None
    noise: float = 0.0
    beyond_search: bool = False
    brightness: str = "constant"

    def reversed(self) -> Motion:
        """Return the motion from the second image to the first."""
        return Motion(
            -self.velocity,
            self.cells,
            self.mismatch,
            self.starts,
            self.report,
            self.noise,
            self.beyond_search,
            self.brightness,
        )

    def positions(
        self, at: float, since: float
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Positions (y, x) in cells, at one time, of the parcels that are at the nodes at another.

        Parameters
        ----------
        at : float
            Time, as a share of the interval, at which parcels are at the nodes.
        since : float
            Time at which their positions are asked.

        Returns
        -------
        y, x : ndarray (ny, nx)
        """
        y, x = departure(self.velocity, at - since, periodic_x=self.cells.periodic_x)
        return y, x


def fit_motion(
    u0: ArrayLike,
    u1: ArrayLike,
    cells: Cells | None = None,
    *,
    starts: Sequence[str | NDArray[np.floating]] = STARTS,
    brightness: str = "auto",
    search: float = 0.25,
    smoothness: float | None = None,
) -> Motion:
    """Estimate the steady velocity between two images.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images at the beginning and the end; NaN is missing. Speckled images should be in dB.
    cells : Cells, optional
        Sizes of the cells, so that smoothness is per length, and whether x closes; by default all
        are alike.
    starts : sequence of str or ndarray (2, ny, nx)
        First motions to follow, see :data:`STARTS`; arrays are velocities in cells per interval.
    brightness : {"auto", "constant", "varying"}
        Whether values are carried as they are, or may grow and fade on the way, so that only
        patterns are followed. "auto" takes "varying" where the medians of the images differ by more
        than 0.3 of their standard deviation, as of two passes of a radar; the motion tells which.
    search : float
        Longest displacement that "match" tries, as a share of the sides of the image.
    smoothness : float, optional
        Factor on the weight of the regularisation. By default 1, and more in noise.

    Returns
    -------
    Motion

    Raises
    ------
    ParameterError
        Images, starts or settings that cannot be used.
    UnknownNameError
        Another start or brightness.

    Warns
    -----
    UserWarning
        If the motion is about as long as the search, which may have cut it off.

    Notes
    -----
    Computed in float32. Exchanging the images reverses the motion.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.latent.textures import texture
    >>> from xr_spde.latent.motion import fit_motion
    >>> y, x = np.mgrid[0:32, 0:32]
    >>> motion = fit_motion(texture(1, y, x), texture(1, y, x - 2.0), starts=["zero"])
    >>> bool(np.abs(np.median(motion.velocity, axis=(1, 2)) - [2.0, 0.0]).max() < 0.05)
    True
    """
    first, second = check_pair(u0, u1)
    grid = Cells(*first.shape) if cells is None else cells
    _check_settings(first.shape, grid, starts, brightness, search, smoothness)
    rim = first.shape[1] // 4 if grid.periodic_x else 0
    wide0, wide1 = (_closed(u, rim) for u in (first, second))
    flat = Cells(wide0.shape[0], wide0.shape[1], grid.height, grid.width)
    noise = noise_ratio(wide0, wide1)
    noisy = noise > QUIET
    kind = brightness_of(first, second) if brightness == "auto" else brightness
    pair = Pair.of(wide0, wide1, brightness=kind, smooth=1.5 if noisy else 0.0)
    weight = 1.0 / (default_smoothness(noise) if smoothness is None else smoothness)
    levels = shapes(pair.shape)
    cut = _last_within(levels, _RACE_CELLS)
    found, marks = [], []
    for number, start in enumerate(starts):
        level, motion = _first_motion(pair, start, search, rim)
        found.append(_followed(pair, flat, motion, None, levels[min(level, cut) : cut + 1], weight))
        name = start if isinstance(start, str) else f"given {number}"
        marks.append((name, score(pair.coarser(levels[cut]), found[-1][0])))
    best = int(np.argmin([mark for _, mark in marks]))
    wide, _ = _followed(pair, flat, *found[best], levels[cut + 1 :], weight)
    mismatch = score(pair, wide)
    velocity = wide[..., rim : rim + first.shape[1]].astype(first.dtype)
    beyond = bool((np.abs(velocity).max(axis=(1, 2)) > 0.95 * search * _sides(first.shape)).any())
    if beyond:
        warnings.warn(
            f"the motion reaches {np.abs(velocity).max():.1f} cells, about as far as was searched; "
            f"give search above {search:g} to try longer ones",
            UserWarning,
            stacklevel=2,
        )
    report = flow_report(velocity, 1.0, grid)
    return Motion(velocity, grid, mismatch, dict(marks), report, noise, beyond, kind)


def _sides(shape: tuple[int, ...]) -> Float:
    return np.array([shape[1], shape[0]], dtype=np.float64)


def _check_settings(
    shape: tuple[int, ...],
    cells: Cells,
    starts: Sequence[str | NDArray[np.floating]],
    brightness: str,
    search: float,
    smoothness: float | None,
) -> None:
    if cells.shape != shape:
        raise ParameterError(f"cells of shape {cells.shape} for images of shape {shape}")
    if brightness not in BRIGHTNESS:
        raise unknown("brightness", brightness, BRIGHTNESS)
    if not len(starts):
        raise ParameterError(f"starts is empty; give some of {STARTS} or velocities")
    for start in starts:
        if isinstance(start, str) and start not in STARTS:
            raise unknown("start", start, STARTS)
        if not isinstance(start, str) and np.shape(start) != (2, *shape):
            raise ParameterError(
                f"a start has shape {np.shape(start)}; expected {(2, *shape)}, x component first"
            )
    if not 0 < search <= 1:
        raise ParameterError(f"search={search!r}; expected a share above 0 and up to 1")
    if smoothness is not None and not smoothness > 0:
        raise ParameterError(f"smoothness={smoothness!r}; expected a factor above 0")


def _closed(image: NDArray[np.floating], rim: int) -> NDArray[np.floating]:
    """Image with columns of the other side on each side."""
    return np.pad(image, ((0, 0), (rim, rim)), mode="wrap") if rim else image


def _first_motion(
    pair: Pair, start: str | NDArray[np.floating], search: float, rim: int
) -> tuple[int, Real]:
    """Level at which a start begins, and its motion there."""
    levels = shapes(pair.shape)
    if not isinstance(start, str):
        given = np.pad(np.asarray(start, np.float32), ((0, 0), (0, 0), (rim, rim)), mode="wrap")
        level = max(len(levels) - 2, 0)
        factor = (_sides(levels[level]) / _sides(pair.shape)).astype(np.float32)
        return level, resize(given, levels[level]) * factor[:, None, None]
    if start == "zero":
        return 0, np.zeros((2, *levels[0]), np.float32)
    # windows need room, so small images are matched as they are, large ones on a coarser grid
    level = max(_last_within(levels, 72**2), _last_within(levels[:-1] or levels, _MATCH_CELLS))
    return level, match(pair.coarser(levels[level]), int(np.ceil(search * max(levels[level]))))


def _last_within(levels: list[tuple[int, int]], most: int) -> int:
    """Finest level of not more than a number of cells, or the coarsest."""
    return max([k for k, (ny, nx) in enumerate(levels) if ny * nx <= most], default=0)


def _followed(
    pair: Pair,
    cells: Cells,
    motion: Real,
    slope: Real | None,
    levels: Sequence[tuple[int, int]],
    weight: float,
) -> tuple[Real, Real | None]:
    """Follow a motion through levels; its gradient comes along."""
    for shape in levels:
        here, grid = pair.coarser(shape), cells.coarser(shape)
        factor = (_sides(shape) / _sides(motion.shape[-2:])).astype(np.float32)
        motion = resize(motion, shape) * factor[:, None, None]
        stages = _FINEST if shape == pair.shape else _COARSER
        motion, slope = _level(here, grid, motion, slope, stages, weight)
    return motion, slope


def _level(
    pair: Pair,
    cells: Cells,
    motion: Real,
    slope: Real | None,
    stages: Sequence[tuple[float, int, int]],
    weight: float,
) -> tuple[Real, Real]:
    """Linearise and minimise again and again on one grid; the field is in smallest cell sizes."""
    size = min(cells.width.min(), cells.height.min())
    scale = np.stack([cells.width, cells.height])[..., None] / size
    scale = scale.astype(np.float32)
    slopes = (
        None if cells.uniform and np.ptp(scale) == 0 else (1 / scale[0, :, 0], 1 / scale[1, :, 0])
    )
    regulariser = Regulariser(
        pair.shape,
        slope_x=None if slopes is None else slopes[0],
        slope_y=None if slopes is None else slopes[1],
    )
    if slope is not None:
        regulariser.w = resize(slope, pair.shape)
    slopes0, slopes1 = (np.stack(gradient(u)) for u in (pair.u0, pair.u1))
    field_ = motion * scale
    for data, window, count in stages:
        for _ in range(count):
            velocity = field_ / scale
            residual, derivative, known = _linearised(pair, slopes0, slopes1, velocity)
            field_ = regulariser.step(
                field_,
                residual,
                derivative / scale,
                np.float32(data * weight) * known,
                iterations=_ITERATIONS,
                reach=1.0,
            )
            field_ = np.stack([median_filter(part, window, mode="nearest") for part in field_])
    return field_ / scale, regulariser.w


def _linearised(
    pair: Pair, slopes0: Real, slopes1: Real, velocity: Real
) -> tuple[Real, Real, Real]:
    """Mismatch in the middle, its derivative in the velocity, and 1 where it is known.

    The derivative of a flow in its velocity is an integral along the path; its two ends, the
    gradient of the carried image and the carried gradient of the image, are averaged.
    """
    ny, nx = pair.shape
    carried, derivative = [], np.zeros_like(velocity)
    known = np.ones(pair.shape, np.float32)
    parts = ((pair.u0, pair.m0, slopes0, 0.5), (pair.u1, pair.m1, slopes1, -0.5))
    for image, mask, slopes, tau in parts:
        y, x = departure(velocity, tau)
        there = np.asarray(sample(image, y, x))
        derivative += 0.25 * (np.stack(gradient(there)) + sample(slopes, y, x, kernel="linear"))
        known *= (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)
        if not mask.all():
            known *= sample(mask, y, x, kernel="linear") > 0.99
        carried.append(there)
    return carried[1] - carried[0], derivative, known


def score(pair: Pair, velocity: NDArray[np.floating]) -> float:
    """Mean absolute difference after each image was carried into the other.

    Where a path leaves the image or meets a gap, the mean difference without motion counts, so that
    moving everything out of sight does not pay.

    Parameters
    ----------
    pair : Pair
        Standardised images.
    velocity : ndarray (2, ny, nx)
        In cells per interval.

    Returns
    -------
    float
        In standard deviations of the pair.
    """
    ny, nx = pair.shape
    both = pair.m0 * pair.m1 > 0
    still = float(np.abs(pair.u0 - pair.u1)[both].mean()) if both.any() else 1.0
    total = []
    ends = ((1.0, pair.u0, pair.m0, pair.u1, pair.m1), (-1.0, pair.u1, pair.m1, pair.u0, pair.m0))
    for tau, image, mask, goal, goal_mask in ends:
        y, x = departure(velocity, tau)
        off = np.abs(sample(image, y, x) - goal)
        known = (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)
        known &= sample(mask, y, x, kernel="linear") > 0.5
        total.append(np.where(known, off, still)[goal_mask > 0].mean())
    return float(np.mean(total))

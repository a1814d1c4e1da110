r"""How far a motion and the frames made from it can be trusted.

Three measures, from what they ask:

- the *local information*: would the images around a place alone tell the motion there?
  (:func:`local_information`; the aperture problem where they tell one direction only),
- *refits*: does the motion change with the start, the smoothness and the part of the data?
  (:func:`refit_spread`),
- the *scale of the error* of a frame, from what the two images disagree on
  (:func:`error_scale`), which a calibration on known frames turns into intervals
  (:func:`conformal_table`).

References
----------
Shi, J. and Tomasi, C. (1994): Good features to track. CVPR (eigenvalues of the structure tensor).
Lei, J. et al. (2018): Distribution-free predictive inference for regression. J. Am. Stat. Assoc.
113, 1094-1111 (split conformal intervals, scaled by a local measure).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde.fields.characteristics import departure
from xr_spde.fields.sampling import sample
from xr_spde.latent.motion import Motion, fit_motion
from xr_spde.latent.pyramid import Pair, default_smoothness, gradient

__all__ = [
    "LEVELS",
    "LocalInformation",
    "conformal_table",
    "error_scale",
    "local_information",
    "refit_spread",
]

Float = NDArray[np.floating]

LEVELS = (0.5, 0.6827, 0.8, 0.9, 0.95, 0.99)
"""Probabilities of the intervals that a calibration holds."""

_SMOOTH = 1.0  # cells; noise then makes fewer gradients
_WINDOW = 3.0  # cells; standard deviation of the neighbourhood of a place
_RIM = round(4 * _WINDOW)
_LAGS = 6
_FLOOR = 0.03  # cells; sampling and linearisation err by this much without any noise
_QUIET = 1e-3  # least mismatch in standard deviations of the images, so that 0 / 0 is told apart
_ONE_WAY = 0.01  # ratio of eigenvalues below which gradients point one way, within 6 degrees
_DETERMINED = 1.0  # cells; larger standard errors mean that a direction is not determined
_BLUR = 1.5  # cells; neighbours say how large a disagreement is typical
_LEAST_SCALE = 0.01  # of the standard deviation of the images


@dataclass(frozen=True, eq=False)
class LocalInformation:
    """What the images around each place tell of the motion there.

    Attributes
    ----------
    covariance : ndarray (3, ny, nx)
        Of the error of the velocity in cells: xx, xy and yy; NaN where nothing is determined.
    determined : ndarray (ny, nx)
        Number of directions in which the velocity is determined, 0, 1 or 2.
    """

    covariance: NDArray[np.float32]
    determined: NDArray[np.int8]


def local_information(
    u0: ArrayLike, u1: ArrayLike, velocity: ArrayLike, *, brightness: str, periodic_x: bool = False
) -> LocalInformation:
    r"""Covariance of the velocity from the images in a neighbourhood alone.

    Both images are carried to the middle. With :math:`g_0, g_1` their gradients there, r their
    difference, w a Gaussian window of three cells, and a the area over which r is correlated,

    .. math::

        M = \sum w\, \tfrac{1}{2} (g_0 g_1^T + g_1 g_0^T), \qquad
        C = M^{-1} \frac{a \sum w r^2}{n}, \qquad n = 4 \pi \cdot 3^2 .

    Noise, which the two images do not share, leaves the expectation of M alone. To C a variance of
    0.03 squared cells is added. A direction is determined where the standard error along it is
    below one cell; where M is a hundred times larger one way than across, only that one is.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; NaN is missing.
    velocity : array_like (2, ny, nx)
        In cells per interval, x first.
    brightness : {"constant", "varying"}
        What was followed: values, or patterns alone.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    LocalInformation

    Notes
    -----
    In white noise the standard error comes out about a quarter too large. The regularisation of
    :func:`xr_spde.latent.motion.fit_motion` also brings in what lies farther away: the error is
    then smaller than told here, and where two bodies slide past each other it is larger.
    """
    rim = _RIM + 4 if periodic_x else 0
    first, second = (np.pad(np.asarray(u), ((0, 0), (rim, rim)), mode="wrap") for u in (u0, u1))
    q = np.pad(np.asarray(velocity, np.float32), ((0, 0), (0, 0), (rim, rim)), mode="wrap")
    pair = Pair.of(first, second, brightness=brightness)
    known, carried = _midway(pair, q)
    (x0, y0), (x1, y1) = (gradient(image) for image in carried)
    off = (carried[1] - carried[0]) * known

    def mean(field: Float) -> Float:
        return np.asarray(gaussian_filter(field * known, _WINDOW, mode="constant"))

    xx, yy, xy = mean(x0 * x1), mean(y0 * y1), mean(0.5 * (x0 * y1 + x1 * y0))
    square = mean(off * off) / np.maximum(mean(np.ones_like(off)), 1e-3) + _QUIET**2
    variance = square * _correlated_area(off) / (4 * np.pi * _WINDOW**2)
    middle, root = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    most, least = middle + root, middle - root
    enough = variance / _DETERMINED**2
    along = most > enough
    both = along & (least > enough) & (least > _ONE_WAY * most)
    determinant = np.where(both, xx * yy - xy * xy, np.nan)
    cut = slice(rim, rim + np.shape(u0)[1])
    covariance = np.stack(
        [yy * variance / determinant, -xy * variance / determinant, xx * variance / determinant]
    )
    covariance[[0, 2]] += _FLOOR**2
    determined = along.astype(np.int8) + both
    return LocalInformation(covariance[..., cut].astype(np.float32), determined[..., cut])


def _midway(pair: Pair, q: Float) -> tuple[Float, list[Float]]:
    """Both images in the middle of the interval, smoothed, and 1 where both are known."""
    ny, nx = pair.shape
    known, carried = np.ones(pair.shape, np.float32), []
    for image, mask, tau in ((pair.u0, pair.m0, 0.5), (pair.u1, pair.m1, -0.5)):
        y, x = departure(q, tau)
        # smoothed after, not before: what is carried differently would no longer agree
        carried.append(np.asarray(gaussian_filter(sample(image, y, x), _SMOOTH, mode="nearest")))
        known *= (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)
        if not mask.all():
            known *= sample(mask, y, x, kernel="linear") > 0.99
    return known, carried


def _correlated_area(field: Float) -> float:
    """Sum of the positive autocorrelations up to a lag, in cells; at least 1."""
    ny, nx = field.shape
    total = float((field * field).sum(dtype=np.float64))
    if total == 0:
        return 1.0
    area = 1.0
    for i in range(_LAGS + 1):
        for j in range(-_LAGS, _LAGS + 1):
            if (i, j) <= (0, 0):
                continue  # each pair of opposite lags once
            ahead = field[i:, max(j, 0) : nx + min(j, 0)]
            behind = field[: ny - i, max(-j, 0) : nx + min(-j, 0)]
            area += 2 * max(float((ahead * behind).sum(dtype=np.float64)) / total, 0.0)
    return area


def refit_spread(
    u0: ArrayLike,
    u1: ArrayLike,
    motion: Motion,
    *,
    count: int,
    seed: Seed = 0,
    search: float = 0.25,
    smoothness: float | None = None,
) -> NDArray[np.floating]:
    """Root mean square change of the velocity over refits.

    Every refit starts from the motion with a smooth disturbance of a cell and a quarter of its
    speed, weighs smoothness anew (a factor with a logarithmic standard deviation of 0.5), and
    leaves out a fifth of the data, in blocks of 8 x 8 cells.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; NaN is missing.
    motion : Motion
        Fitted to all of them.
    count : int
        Number of refits, 2 or more.
    seed : int, SeedSequence, Generator or None
        Of the disturbances and blocks.
    search, smoothness
        As the motion was fitted; see :func:`xr_spde.latent.motion.fit_motion`.

    Returns
    -------
    ndarray (2, ny, nx)
        In cells per interval, x first.

    Raises
    ------
    ParameterError
        Fewer than two refits.
    """
    if not isinstance(count, int) or count < 2:
        raise ParameterError(f"restarts={count!r}; expected an integer of 2 or more")
    entropy = resolve_seed(seed)
    shape = motion.cells.shape
    own = max(default_smoothness(motion.noise), motion.smoothness)
    base = own if smoothness is None else smoothness
    speed = float(np.sqrt(np.mean(motion.velocity.astype(np.float64) ** 2)))
    total = np.zeros((2, *shape))
    for number in range(count):
        rng = member_generator(entropy, number)
        start = motion.velocity + (1.0 + 0.25 * speed) * _smooth_noise(rng, shape)
        parts = [np.where(_left_out(rng, shape), np.nan, u) for u in (u0, u1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of long motions; the fit has told
            again = fit_motion(
                parts[0],
                parts[1],
                motion.cells,
                starts=[start],
                brightness=motion.brightness,
                search=search,
                smoothness=base * float(np.exp(0.5 * rng.standard_normal())),
            )
        total += (again.velocity - motion.velocity) ** 2
    return np.sqrt(total / count).astype(motion.velocity.dtype)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Two smooth fields of unit variance, over an eighth of the grid."""
    fields = rng.standard_normal((2, *shape))
    smooth = np.stack([gaussian_filter(f, min(shape) / 8, mode="reflect") for f in fields])
    return smooth / np.maximum(smooth.std(axis=(1, 2), keepdims=True), 1e-12)


def _left_out(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    blocks = rng.random([-(-n // 8) for n in shape]) < 0.2
    return np.repeat(np.repeat(blocks, 8, axis=0), 8, axis=1)[: shape[0], : shape[1]]


def error_scale(
    disagreement: ArrayLike, seen: ArrayLike, tau: float, spread: float
) -> NDArray[np.floating]:
    r"""Typical size of the error of a frame, up to a factor that is calibrated.

    Where both images speak, the local root mean square of their disagreement d and a hundredth of
    the standard deviation s of the images; elsewhere s alone:

    .. math::

        2 \sqrt{\tau (1 - \tau)}\, \sqrt{\overline{d^2} + (0.01 s)^2}
        \quad\text{or}\quad s .

    Parameters
    ----------
    disagreement : array_like (ny, nx)
        Second image less the first, both carried to the time; NaN where one alone speaks.
    seen : array_like (ny, nx)
        Number of images that show the place.
    tau : float
        Time as a share of the interval; outside [0, 1] nothing is told: NaN.
    spread : float
        Standard deviation of the two images.

    Returns
    -------
    ndarray (ny, nx)
    """
    d = np.asarray(disagreement)
    both = (np.asarray(seen) == 2) & np.isfinite(d)
    square = gaussian_filter(np.where(both, d, 0.0) ** 2, _BLUR, mode="nearest")
    share = gaussian_filter(both.astype(d.dtype), _BLUR, mode="nearest")
    typical = np.sqrt(square / np.maximum(share, 1e-3) + (_LEAST_SCALE * spread) ** 2)
    if not 0 <= tau <= 1:
        return np.full_like(d, np.nan)
    bridge = 2 * np.sqrt(tau * (1 - tau))
    return np.where(both, bridge * typical, spread).astype(d.dtype)


def conformal_table(
    scores: ArrayLike, seen: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    r"""Quantiles of scores :math:`|error| / scale`, apart for each number of images that see.

    The quantile of level p is the :math:`\lceil p (n + 1) \rceil`-th smallest of n scores, so that
    for exchangeable cells an interval of that many scales holds the truth with probability p or
    more; NaN where n is too small for the level.

    Parameters
    ----------
    scores, seen : array_like
        Of the cells of the calibration; of one shape, NaN is passed over.

    Returns
    -------
    quantiles : ndarray (3, n_levels)
        By number of images and :data:`LEVELS`.
    rms : ndarray (3,)
        Root mean square score: the factor from the scale to a standard deviation.
    count : ndarray (3,)
        Number of cells.
    """
    values, classes = (np.asarray(a).ravel() for a in (scores, seen))
    known = np.isfinite(values)
    quantiles, rms = np.full((3, len(LEVELS)), np.nan), np.full(3, np.nan)
    count = np.zeros(3, np.int64)
    for k in range(3):
        own = np.sort(values[known & (classes == k)].astype(np.float64))
        count[k] = own.size
        if not own.size:
            continue
        rms[k] = np.sqrt(np.mean(own**2))
        for j, level in enumerate(LEVELS):
            rank = int(np.ceil(level * (own.size + 1)))
            if rank <= own.size:
                quantiles[k, j] = own[rank - 1]
    return quantiles, rms, count

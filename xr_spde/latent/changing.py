"""Images that change as they move, or are noisy: the blend of least square error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from xr_spde.fields.sampling import fill_nearest
from xr_spde.latent.blending import Carried, Frame
from xr_spde.latent.evidence import CHANGING

__all__ = ["changes", "completed", "expected_blend", "expected_frame"]

Float = NDArray[np.floating]

_SOURCE = 6.0  # cells over which growth and fading are averaged
_FAR = 1e-3  # weight of the mean of all
_CHANCE = 0.07  # coherence of unrelated details of images after one was fitted to the other


def changes(u0: Float, u1: Float, first: Carried, second: Carried) -> bool:
    """Whether a motion leaves much of the difference of two images unexplained.

    Parameters
    ----------
    u0, u1 : ndarray (ny, nx)
        The images; NaN is missing.
    first, second : Carried
        The images in the middle of the interval.

    Returns
    -------
    bool
        Whether more than :data:`xr_spde.latent.evidence.CHANGING` is left.
    """
    still = np.abs(u1 - u0)
    left = np.abs(second.value - first.value)[first.known & second.known]
    if not left.size or np.isnan(still).all():
        return False
    return bool(left.mean() > CHANGING * np.nanmean(still))


def completed(first: Carried, second: Carried, tau: float) -> tuple[Float, Float]:
    """Give each of two carried images what the other one shows, with growth or fading.

    The smooth part of their difference is taken for a source that is constant along the paths. It
    is known where both see, and is continued from there.

    Parameters
    ----------
    first, second : Carried
        Images at times 0 and 1, carried to a time.
    tau : float
        That time; where neither sees, the nearest values are blended by it.

    Returns
    -------
    first, second : ndarray (ny, nx)
        Without gaps.
    """
    both = first.known & second.known
    a, b = first.value, second.value
    if both.all():
        return a, b
    off = np.where(both, b - a, 0.0)
    mean = off.sum() / max(both.sum(), 1)
    weight = gaussian_filter(both.astype(np.float64), _SOURCE, mode="nearest")
    source = gaussian_filter(off.astype(np.float64), _SOURCE, mode="nearest")
    source = (source + _FAR * mean) / (weight + _FAR)
    one = np.where(first.known, a, np.where(second.known, b - source, np.nan))
    other = np.where(second.known, b, np.where(first.known, a + source, np.nan))
    if np.isnan(one).all():
        return (1 - tau) * a + tau * b, (1 - tau) * a + tau * b
    return fill_nearest(one), fill_nearest(other)


def expected_frame(
    u0: Float, u1: Float, first: Carried, second: Carried, tau: float, plain: Frame, noise: float
) -> Frame:
    """Frame of least square error, see :func:`expected_blend`.

    Parameters
    ----------
    u0, u1 : ndarray (ny, nx)
        The images, whose range the frame keeps to.
    first, second : Carried
        The images, carried to the time.
    tau : float
        Time, between 0 and 1.
    plain : Frame
        What the frame shares with the plain blend: where it is known, and the disagreement.
    noise : float
        Standard deviation of noise that belongs to no scene.

    Returns
    -------
    Frame
    """
    one, other = completed(first, second, tau)
    both = first.known & second.known
    if not both.all() and both.any():
        # what an image does not show is expected from the other one, scale by scale
        waves = _Waves.of(one, other, 0.0, both)
        ahead, back = waves.second_expected(one, other), waves.second_expected(other, one)
        one, other = np.where(first.known, one, back), np.where(second.known, other, ahead)
    mixed = expected_blend(one, other, tau, noise=noise, both=both)
    low, high = min(np.nanmin(u0), np.nanmin(u1)), max(np.nanmax(u0), np.nanmax(u1))
    image = np.where(np.isnan(plain.image), np.nan, np.clip(mixed, low, high))
    return Frame(image.astype(plain.image.dtype), plain.disagreement, plain.seen)


def expected_blend(
    first: Float,
    second: Float,
    tau: float,
    *,
    noise: float = 0.0,
    both: NDArray[np.bool_] | None = None,
) -> Float:
    r"""Mix two carried images by the least square error at each scale.

    What is carried along is taken to change as a process of the first order in time, apart for each
    band of half an octave, and to be seen through white noise. With g the coherence of the two
    images in a band, less what a fitted motion brings about by chance, and s the share of its power
    that is no noise, the coherence of the scene is
    :math:`h = g / s`, and the best weights of the first and the second are

    .. math::

        s \frac{h^\tau - g h^{1-\tau}}{1 - g^2}, \qquad s \frac{h^{1-\tau} - g h^\tau}{1 - g^2},

    which are :math:`1-\tau` and :math:`\tau` where g is 1, and leave nothing of what is incoherent.
    Of noise alone (h = 1) they are the Wiener filter of the mean of both.

    Parameters
    ----------
    first, second : ndarray (ny, nx)
        Images at times 0 and 1, carried to the time; without gaps.
    tau : float
        Time, between 0 and 1.
    noise : float
        Standard deviation of the noise of each image.
    both : ndarray (ny, nx) of bool, optional
        Cells in which both are images of their own, and not one in place of the other; coherence is
        told from these.

    Returns
    -------
    ndarray (ny, nx)

    References
    ----------
    Seed, A. W. (2003): A dynamic and spatial scaling approach to advection forecasting. J. Appl.
    Meteorol. 42, 381-388 (coherence by scale along the flow).
    """
    known = np.ones(first.shape, np.bool_) if both is None or not both.any() else both
    waves = _Waves.of(first, second, noise, known)
    g, s = waves.coherence, waves.clean
    h = g / s
    rest = 1 - g**2
    share0 = s * (h**tau - g * h ** (1 - tau)) / rest
    share1 = s * (h ** (1 - tau) - g * h**tau) / rest
    # the means are certain, and go from one to the other
    mean = (1 - tau) * first.mean() + tau * second.mean()
    return np.asarray(mean + _filtered(first, share0) + _filtered(second, share1))


@dataclass(frozen=True)
class _Waves:
    """Coherence of two images, and share of their power that is no noise, at every wave."""

    coherence: NDArray[np.float64]
    clean: NDArray[np.float64]

    @classmethod
    def of(cls, first: Float, second: Float, noise: float, both: NDArray[np.bool_]) -> _Waves:
        ny, nx = first.shape
        a, b = (
            dctn(np.where(both, u - u[both].mean(), 0.0).astype(np.float64), norm="ortho")
            for u in (first, second)
        )
        wave = np.hypot(np.arange(ny)[:, None] / ny, np.arange(nx) / nx)
        # the longest waves are too few to tell their coherence one by one
        band = np.rint(2 * np.log2(np.maximum(wave * max(ny, nx) / 8.0, 1.0))).astype(np.intp)
        number = band.ravel()
        together = np.bincount(number, (a * b).ravel())
        powers = [np.bincount(number, (u * u).ravel()) for u in (a, b)]
        power = np.maximum(np.sqrt(powers[0] * powers[1]), 1e-300)
        coherence = np.clip((together / power - _CHANCE) / (1 - _CHANCE), 1e-3, 1 - 1e-6)
        # smaller scales are forgotten first; a chance coherence of the smallest is not believed
        coherence = np.minimum.accumulate(coherence)
        # noise cannot leave less than what is coherent
        own = noise**2 * both.mean() * np.bincount(number)
        clean = np.clip(1 - own / power, coherence, 1.0)
        return cls(coherence[band], clean[band])

    def second_expected(self, first: Float, second: Float) -> Float:
        """Second image as it is expected from the first; alike the other way round."""
        return np.asarray(second.mean() + _filtered(first, self.coherence))


def _filtered(image: Float, gain: NDArray[np.float64]) -> Float:
    """Image without its mean, every wave times a gain."""
    waves = dctn(np.asarray(image - image.mean(), np.float64), norm="ortho")
    return np.asarray(idctn(gain * waves, norm="ortho"))

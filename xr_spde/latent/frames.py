"""Images at any time between two, carried from both along one motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.sampling import fill_nearest, sample
from xr_spde.latent.blending import Carried, Frame, two_sided, visibility
from xr_spde.latent.motion import Motion
from xr_spde.latent.occlusion import layered

__all__ = ["BLENDS", "Frame", "expected_blend", "frame_between"]

BLENDS = ("auto", "area", "expected")
"""Ways to mix what the two images say."""


def frame_between(
    u0: ArrayLike,
    u1: ArrayLike,
    motion: Motion,
    tau: float,
    *,
    kernel: str = "cubic",
    blend: str = "auto",
    extrapolate: bool = False,
) -> Frame:
    r"""Carry both images to a time and blend them.

    .. math::

        u_\tau = \frac{(1-\tau) c_0 u_0(\phi_{-\tau}) + \tau c_1 u_1(\phi_{1-\tau})}
                      {(1-\tau) c_0 + \tau c_1},

    with :math:`c_k` the square of the area that a cell comes from, at most 1: where a lead opens,
    the image in which it is wide tells what is in it. Where the motion has layers, what covers what
    is followed around their edges instead (:mod:`xr_spde.latent.occlusion`); ``blend="area"`` stays
    with the steady velocity. With ``blend="expected"`` the shares of time give way, scale by scale,
    to those of least square error; see :func:`expected_blend`.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images at times 0 and 1; NaN is missing and travels along.
    motion : Motion
        Between them; see :func:`xr_spde.latent.motion.fit_motion`.
    tau : float
        Time, 0 to 1.
    kernel : {"cubic", "monotone", "linear"}
        Of the samples; "monotone" keeps to the range of the values around.
    blend : {"auto", "area", "expected"}
        As above. "expected" is for images that change as they move, such as rain: it loses the
        small scales that cannot be known, and with them most of their error.
    extrapolate : bool
        Whether times outside the interval are allowed; the nearer image alone is carried there.

    Returns
    -------
    Frame
        At 0 and 1 the images themselves, wherever they have data.

    Raises
    ------
    ParameterError
        For images of another shape, or a time outside the interval without `extrapolate`.
    UnknownNameError
        For another blend.
    """
    if blend not in BLENDS:
        raise unknown("blend", blend, BLENDS)
    images = [np.asarray(u, dtype=motion.velocity.dtype) for u in (u0, u1)]
    if any(u.shape != motion.cells.shape for u in images):
        raise ParameterError(
            f"images of shapes {images[0].shape} and {images[1].shape} for a motion on "
            f"{motion.cells.shape}"
        )
    if not (extrapolate or 0 <= tau <= 1):
        raise ParameterError(
            f"tau={tau:g} is outside [0, 1]; give a time between the images, or extrapolate=True"
        )
    inside = float(np.clip(tau, 0, 1))
    sides = [
        _carried(image, motion, tau, end, kernel)
        for image, end in zip(images, (0.0, 1.0), strict=True)
    ]
    frame = two_sided(sides[0], sides[1], inside)
    if blend == "auto" and motion.layers is not None:
        frame = layered(frame, images[0], images[1], motion.layers, tau, kernel=kernel)
    if blend == "expected" and 0 < tau < 1:
        # where one image does not see, the other stands for both
        first, second = (fill_nearest(np.where(s.known, s.value, frame.image)) for s in sides)
        mixed = expected_blend(first, second, tau).astype(frame.image.dtype)
        frame = replace(frame, image=np.where(np.isnan(frame.image), np.nan, mixed))
    return frame


def expected_blend(
    first: NDArray[np.floating], second: NDArray[np.floating], tau: float
) -> NDArray[np.floating]:
    r"""Mix two carried images by the least square error at each scale.

    What is carried along is taken to change as a process of the first order in time, apart for each
    band of half an octave. With g the coherence of the two images in a band, the best weights of
    the first and the second are

    .. math::

        \frac{g^\tau (1 - g^{2(1-\tau)})}{1 - g^2}, \qquad
        \frac{g^{1-\tau} (1 - g^{2\tau})}{1 - g^2},

    which are :math:`1-\tau` and :math:`\tau` where g is 1, and leave nothing of what is incoherent.

    Parameters
    ----------
    first, second : ndarray (ny, nx)
        Images at times 0 and 1, carried to the time; without gaps.
    tau : float
        Time, between 0 and 1.

    Returns
    -------
    ndarray (ny, nx)

    References
    ----------
    Seed, A. W. (2003): A dynamic and spatial scaling approach to advection forecasting. J. Appl.
    Meteorol. 42, 381-388 (coherence by scale along the flow).
    """
    from scipy.fft import dctn, idctn

    ny, nx = first.shape
    # the means are certain, and go from one to the other
    mean = (1 - tau) * first.mean() + tau * second.mean()
    a, b = (dctn(np.asarray(u - u.mean(), dtype=np.float64), norm="ortho") for u in (first, second))
    wave = np.hypot(np.arange(ny)[:, None] / ny, np.arange(nx) / nx)
    # the longest waves are too few to tell their coherence one by one
    band = np.rint(2 * np.log2(np.maximum(wave * max(ny, nx) / 8.0, 1.0))).astype(np.intp).ravel()
    together = np.bincount(band, (a * b).ravel())
    power = np.sqrt(np.bincount(band, (a * a).ravel()) * np.bincount(band, (b * b).ravel()))
    coherence = np.clip(together / np.maximum(power, 1e-300), 1e-3, 1 - 1e-6)
    # smaller scales are forgotten first; a chance coherence of the smallest is not believed
    g = np.minimum.accumulate(coherence)[band].reshape(ny, nx)
    rest = 1 - g**2
    share0 = g**tau * (1 - g ** (2 - 2 * tau)) / rest
    share1 = g ** (1 - tau) * (1 - g ** (2 * tau)) / rest
    return np.asarray(mean + idctn(share0 * a + share1 * b, norm="ortho"))


def _carried(
    image: NDArray[np.floating], motion: Motion, tau: float, end: float, kernel: str
) -> Carried:
    """Values of an image at one end carried to a time, where known, and weight of their area."""
    wrap = motion.cells.periodic_x
    y, x = motion.positions(tau, end)
    missing = np.isnan(image)
    known, cover = visibility(missing, y, x, periodic_x=wrap)
    filled = fill_nearest(image)
    value = np.asarray(sample(filled, y, x, kernel=kernel, periodic_x=wrap))
    return Carried(value, known, cover, bool(missing.any()))

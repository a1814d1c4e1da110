"""Images at any time between two, carried from both along one motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.sampling import fill_nearest, sample
from xr_spde.latent.blending import Carried, Frame, two_sided, visibility
from xr_spde.latent.changing import changes, expected_blend, expected_frame
from xr_spde.latent.motion import Motion
from xr_spde.latent.occlusion import layered
from xr_spde.latent.pyramid import noise_ratio

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
    to those of least square error, and growth or fading is continued to where one image alone sees;
    see :mod:`xr_spde.latent.changing`.

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
        As above. "expected" is for images that change as they move, such as rain, or are noisy: it
        loses the small scales that cannot be known, and with them most of their error. "auto" takes
        it where the motion leaves more than 0.3 of the difference of the images unexplained in the
        middle of the interval.
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
    if blend == "expected" or (blend == "auto" and _change(images, motion)):
        if not 0 < tau < 1:
            return frame
        noise = noise_ratio(images[0], images[1]) * float(np.nanstd(np.stack(images)))
        return expected_frame(images[0], images[1], sides[0], sides[1], tau, frame, noise)
    if blend == "auto" and motion.layers is not None:
        frame = layered(frame, images[0], images[1], motion.layers, tau, kernel=kernel)
    return frame


def _change(images: list[NDArray[np.floating]], motion: Motion) -> bool:
    """Whether the images change on the way; the same at every time between them."""
    ends = zip(images, (0.0, 1.0), strict=True)
    first, second = (_carried(image, motion, 0.5, end, "linear") for image, end in ends)
    return changes(images[0], images[1], first, second)


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

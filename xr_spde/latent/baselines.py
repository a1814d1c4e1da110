"""What people use today between two images: linear blends, optical flow, optimal transport.

Each method takes two images (ny, nx) and a time, and gives the frame and, where it has one, the
displacement of the first image until the second. OpenCV and POT are optional:
``pip install 'xr_spde[frames]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.lazyimport import require
from xr_spde.fields.characteristics import nodes
from xr_spde.fields.flux import spread
from xr_spde.fields.sampling import fill_nearest, sample
from xr_spde.latent.pyramid import resize

__all__ = ["BASELINES", "baseline", "linear", "optical_flow", "transport"]

Float = NDArray[np.float64]
Result = tuple[Float, Float | None]


def linear(u0: ArrayLike, u1: ArrayLike, tau: float) -> Result:
    """Blend in place; where one image is missing the other stands alone.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; NaN is missing.
    tau : float
        Time, 0 to 1.

    Returns
    -------
    frame : ndarray (ny, nx)
    displacement : None
    """
    first, second = (np.asarray(u, dtype=np.float64) for u in (u0, u1))
    mixed = (1 - tau) * first + tau * second
    alone = np.where(np.isnan(first), second, first)
    return np.where(np.isnan(mixed), alone, mixed), None


def _filled(image: ArrayLike) -> Float:
    """Image with gaps filled by the nearest value, as these methods know none."""
    return np.asarray(fill_nearest(np.asarray(image, dtype=np.float64)), dtype=np.float64)


def _bytes(u0: Float, u1: Float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images scaled together to 0 ... 255, which is what OpenCV reads."""
    low, high = min(u0.min(), u1.min()), max(u0.max(), u1.max())
    first, second = (np.rint((u - low) * (255 / (high - low or 1.0))) for u in (u0, u1))
    return first.astype(np.uint8), second.astype(np.uint8)


def _farneback(cv2: Any, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Float:
    settings = {
        "pyr_scale": 0.5,
        "levels": 4,
        "winsize": 21,
        "iterations": 5,
        "poly_n": 7,
        "poly_sigma": 1.5,
        "flags": 0,
    }
    flow = cv2.calcOpticalFlowFarneback(first, second, None, **settings)
    return np.asarray(np.moveaxis(flow, -1, 0), dtype=np.float64)


def _dis(
    cv2: Any, first: NDArray[np.uint8], second: NDArray[np.uint8], *, fine: bool = False
) -> Float:
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if fine:
        solver.setFinestScale(0)
        solver.setPatchSize(8)
        solver.setPatchStride(4)
        solver.setGradientDescentIterations(25)
        solver.setVariationalRefinementIterations(10)
    flow = solver.calc(first, second, None)
    return np.asarray(np.moveaxis(flow, -1, 0), dtype=np.float64)


FLOWS = ("dis", "farneback", "dis-splat")


def optical_flow(u0: ArrayLike, u1: ArrayLike, tau: float, *, flow: str = "dis") -> Result:
    r"""Warp both images along optical flow.

    .. math:: u_\tau = (1-\tau)\, u_0(x - \tau F) + \tau\, u_1(x - (1-\tau) B)

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; gaps are filled with the nearest value first, as flow methods know none.
    tau : float
        Time, 0 to 1.
    flow : {"dis", "farneback", "dis-splat"}
        Dense inverse search (medium preset), Farneback, or finest dense inverse search whose flows
        are laid where they go, those that match best in front, and weighted by their cover.

    Returns
    -------
    frame : ndarray (ny, nx)
    displacement : ndarray (2, ny, nx)
        x first, in cells.

    Raises
    ------
    MissingDependencyError
        Without OpenCV.
    UnknownNameError
        For another flow.
    """
    if flow not in FLOWS:
        raise unknown("flow", flow, FLOWS)
    cv2 = require("cv2", "frames")
    images = [_filled(u) for u in (u0, u1)]
    first, second = _bytes(images[0], images[1])
    estimate = _farneback if flow == "farneback" else partial(_dis, fine=flow == "dis-splat")
    there, back = estimate(cv2, first, second), estimate(cv2, second, first)
    y, x = nodes(images[0], images[0].shape)
    total, weights = np.zeros_like(y), np.zeros_like(y)
    parts = ((images, there, tau, 1 - tau), (images[::-1], back, 1 - tau, tau))
    for (image, other), motion, span, share in parts:
        cover: Float | float = 1.0
        if flow == "dis-splat":
            motion, cover = _laid(image, other, motion, span)
        total += share * cover * sample(image, y - span * motion[1], x - span * motion[0])
        weights += share * cover
    return total / weights, there


def _laid(image: Float, other: Float, motion: Float, span: float) -> tuple[Float, Float]:
    """Flow where it has gone after a time, and how much of a cell it covers there."""
    y, x = nodes(image, image.shape)
    off = np.abs(sample(other, y + motion[1], x + motion[0]) - image)
    front = np.exp(-off / (0.02 * np.ptp(image) or 1.0)) + 1e-6
    to = y + span * motion[1], x + span * motion[0]
    mass, weight = spread(np.ones_like(y), *to), spread(front, *to)
    moved = spread(motion * front, *to) / np.maximum(weight, 1e-12)
    return np.where(mass > 0.05, moved, motion), np.clip(mass, 0.01, 1.0)


def transport(
    u0: ArrayLike, u1: ArrayLike, tau: float, *, kind: str = "entropic", size: int = 48
) -> Result:
    """Move brightness as mass by optimal transport.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; gaps are filled with the nearest value first.
    tau : float
        Time, 0 to 1.
    kind : {"entropic", "exact"}
        Barycentre with an entropy of 5e-4, or displacement interpolation of the exact plan on a
        coarser grid.
    size : int
        Largest side of that grid.

    Returns
    -------
    frame : ndarray (ny, nx)
    displacement : None

    Raises
    ------
    MissingDependencyError
        Without POT.
    UnknownNameError
        For another kind.
    """
    if kind not in ("entropic", "exact"):
        raise unknown("kind of transport", kind, ("entropic", "exact"))
    ot = require("ot", "frames")
    images = [_filled(u) for u in (u0, u1)]
    low = min(u.min() for u in images)
    spread_ = max(u.max() for u in images) - low or 1.0
    positive = [u - low + 1e-3 * spread_ for u in images]
    mass = [u.sum() for u in positive]
    shares = [u / m for u, m in zip(positive, mass, strict=True)]
    if kind == "entropic":
        mixed = ot.bregman.convolutional_barycenter2d(
            np.stack(shares), 5e-4, weights=np.array([1 - tau, tau])
        )
    else:
        mixed = _displaced(ot, shares, tau, size)
    total = (1 - tau) * mass[0] + tau * mass[1]
    return np.asarray(mixed / mixed.sum() * total + low - 1e-3 * spread_), None


def _displaced(ot: Any, shares: list[Float], tau: float, size: int) -> Float:
    """Displacement interpolation of the exact plan on a coarse grid, brought back."""
    ny, nx = shares[0].shape
    factor = min(1.0, size / max(ny, nx))
    shape = max(2, round(ny * factor)), max(2, round(nx * factor))
    coarse = [resize(u, shape).astype(np.float64).ravel() for u in shares]
    coarse = [u / u.sum() for u in coarse]
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    places = np.stack([y.ravel(), x.ravel()], axis=1)
    plan = ot.emd(*coarse, ot.dist(places, places), numItermax=1_000_000)
    origin, goal = np.nonzero(plan)
    at = (1 - tau) * places[origin] + tau * places[goal]
    out = np.zeros(shape)
    j, i = np.minimum(np.floor(at).astype(int), np.array(shape) - 1).T
    fy, fx = at[:, 0] - j, at[:, 1] - i
    for dj, wy in ((0, 1 - fy), (1, fy)):
        for di, wx in ((0, 1 - fx), (1, fx)):
            index = np.minimum(j + dj, shape[0] - 1), np.minimum(i + di, shape[1] - 1)
            np.add.at(out, index, plan[origin, goal] * wy * wx)
    return resize(out, (ny, nx)).astype(np.float64)


BASELINES: dict[str, Callable[[ArrayLike, ArrayLike, float], Result]] = {
    "linear": linear,
    "farneback": partial(optical_flow, flow="farneback"),
    "dis": partial(optical_flow, flow="dis"),
    "dis-splat": partial(optical_flow, flow="dis-splat"),
    "transport": partial(transport, kind="entropic"),
    "transport-exact": partial(transport, kind="exact"),
}
"""Methods by name; "flow" stands for "dis"."""


def baseline(u0: ArrayLike, u1: ArrayLike, tau: float, *, method: str) -> Result:
    """Frame between two images by a method of :data:`BASELINES`.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; NaN is missing.
    tau : float
        Time, 0 to 1.
    method : str
        Name.

    Returns
    -------
    frame : ndarray (ny, nx)
        Missing where both images are.
    displacement : ndarray (2, ny, nx) or None

    Raises
    ------
    UnknownNameError
        For another method.
    ParameterError
        For images of different shapes, without data, or a time outside the interval.
    MissingDependencyError
        Without the library of the method.
    """
    name = {"flow": "dis"}.get(method, method)
    if name not in BASELINES:
        raise unknown("method", method, BASELINES)
    images = [np.asarray(u, dtype=np.float64) for u in (u0, u1)]
    if images[0].shape != images[1].shape or images[0].ndim != 2 or not 0 <= tau <= 1:
        raise ParameterError(
            f"images of shapes {images[0].shape} and {images[1].shape} at tau={tau:g}; expected "
            "the same (ny, nx) and a time between 0 and 1"
        )
    if any(np.isnan(u).all() for u in images):
        raise ParameterError("an image has no data")
    frame, displacement = BASELINES[name](images[0], images[1], tau)
    nowhere = np.isnan(images[0]) & np.isnan(images[1])
    return np.where(nowhere, np.nan, frame), displacement

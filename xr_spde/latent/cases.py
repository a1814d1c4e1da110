"""Image pairs whose motion and middle are known, to develop and to score on.

Each case gives the frame at any time between 0 and 1 by a formula. Textures are sums of 80 cosines,
drawn from a seed; ``seed`` shifts the seeds of all textures of a case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import unknown
from xr_spde.latent.textures import centres, soft, texture, turn

__all__ = ["CASES", "Case", "make_case"]

Float = NDArray[np.float64]
Frame = Callable[[float], Float]

SIZE = 128
"""Rows and columns of the published cases."""


@dataclass(frozen=True, eq=False)
class Case:
    """A pair of images between which everything is known.

    Attributes
    ----------
    name : str
        What it is called.
    u0, u1 : ndarray (n, n)
        The two images; NaN is missing.
    frame : callable
        ``frame(tau)`` is the true image at a time in [0, 1], without noise or gaps.
    displacement : ndarray (2, n, n)
        True motion of what is seen in u0 until u1, x first, in pixels; NaN where nothing that moves
        is seen or where it leaves the image.
    """

    name: str
    u0: Float
    u1: Float
    frame: Frame
    displacement: Float


def _made(
    name: str, n: int, frame: Frame, displacement: tuple[Float, Float], seen: Float | None = None
) -> Case:
    """Put a case together from its frames and the motion (y, x) of what u0 shows."""
    y, x = centres(n)
    ty, tx = y + displacement[0], x + displacement[1]
    lost = (ty < 0) | (ty > n) | (tx < 0) | (tx > n)
    if seen is not None:
        lost |= seen < 0.5
    motion = np.where(lost, np.nan, np.stack([displacement[1], displacement[0]]))
    return Case(name, frame(0.0), frame(1.0), frame, motion)


def tex_rot(n: int = SIZE, seed: int = 0, *, degrees: float = 20.0) -> Case:
    """Texture that turns about the centre; corners come from outside.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds.
    degrees : float
        Angle.

    Returns
    -------
    Case
    """
    y, x = centres(n)

    def frame(tau: float) -> Float:
        return texture(1 + seed, *turn(y, x, -degrees * tau, n))

    ty, tx = turn(y, x, degrees, n)
    return _made("tex_rot", n, frame, (ty - y, tx - x))


def bell_rot(n: int = SIZE, seed: int = 0) -> Case:
    """Bell on an arc of 45 degrees, which two images cannot tell from its chord; no one solves it.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Not used; all cases take one.

    Returns
    -------
    Case
    """
    y, x = centres(n)

    def frame(tau: float) -> Float:
        a, b = turn(y, x, -45.0 * tau, n)
        r = np.hypot(a - 0.75 * n, b - n / 2) / (0.15 * n)
        return np.where(r < 1, (1 + np.cos(np.pi * np.minimum(r, 1))) / 2, 0.0)

    ty, tx = turn(y, x, 45.0, n)
    return _made("bell_rot", n, frame, (ty - y, tx - x), frame(0.0) * 10)


def in_cell(y: Float, x: Float, duration: float) -> tuple[Float, Float]:
    """Follow the steady cell of LeVeque (1996), by 64 steps of fourth order.

    Parameters
    ----------
    y, x : ndarray
        Places in the unit square.
    duration : float
        Time in units of the velocity; negative for back in time.

    Returns
    -------
    y, x : ndarray
        Where they have gone.
    """
    h = duration / 64

    def q(py: Float, px: Float) -> tuple[Float, Float]:
        return (
            -(np.sin(np.pi * py) ** 2) * np.sin(2 * np.pi * px),
            np.sin(np.pi * px) ** 2 * np.sin(2 * np.pi * py),
        )

    for _ in range(64):
        k1 = q(y, x)
        k2 = q(y + h / 2 * k1[0], x + h / 2 * k1[1])
        k3 = q(y + h / 2 * k2[0], x + h / 2 * k2[1])
        k4 = q(y + h * k3[0], x + h * k3[1])
        y = y + h / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
        x = x + h / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
    return y, x


def swirl(n: int = SIZE, seed: int = 0, *, duration: float = 0.2) -> Case:
    """Texture in the steady cell of LeVeque (1996); up to 25 pixels, nothing flows in.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds.
    duration : float
        Time in units of the velocity, of which one would cross the image.

    Returns
    -------
    Case
    """
    y, x = centres(n)

    def flow(tau: float) -> tuple[Float, Float]:
        a, b = in_cell(y / n, x / n, tau * duration)
        return a * n, b * n

    ty, tx = flow(1.0)
    return _made("swirl", n, lambda tau: texture(2 + seed, *flow(-tau)), (ty - y, tx - x))


def lead_open(n: int = SIZE, seed: int = 0, *, closing: bool = False) -> Case:
    """Two floes drift apart along a wavy edge and open water; or the same backwards.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds.
    closing : bool
        Whether time runs backwards.

    Returns
    -------
    Case
    """
    y, x = centres(n)
    drifts = (np.array([-2.0, -4.0]), np.array([3.0, 6.0]))

    def layers(tau: float) -> list[tuple[Float, Float]]:
        """Cover and brightness of the two floes."""
        out = []
        for side, (drift, mean, k) in enumerate(((drifts[0], 0.62, 3), (drifts[1], 0.70, 4))):
            py, px = y - tau * drift[0], x - tau * drift[1]
            edge = n / 2 + 9 * np.sin(3 * np.pi * py / n) + 4 * np.sin(8 * np.pi * py / n)
            inside = edge - 0.75 - px if side == 0 else px - edge - 0.75
            out.append((soft(inside), texture(k + seed, py, px, amplitude=0.12, mean=mean)))
        return out

    def opening(tau: float) -> Float:
        image = texture(7 + seed, y, x, amplitude=0.02, mean=0.12)
        for cover, bright in layers(tau):
            image = image * (1 - cover) + bright * cover
        return image

    (left, _), (right, _) = layers(1.0 if closing else 0.0)
    sign = -1.0 if closing else 1.0
    motion = tuple(sign * np.where(left > 0.5, a, b) for a, b in zip(*drifts, strict=True))
    seen = np.maximum(left, right)
    name = "lead_close" if closing else "lead_open"
    frame = (lambda tau: opening(1.0 - tau)) if closing else opening
    return _made(name, n, frame, (motion[0], motion[1]), seen)


def lead_close(n: int = SIZE, seed: int = 0) -> Case:
    """Run :func:`lead_open` backwards.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds.

    Returns
    -------
    Case
    """
    return lead_open(n, seed, closing=True)


def floe_rot(n: int = SIZE, seed: int = 0) -> Case:
    """Floe that turns by 25 degrees and drifts over a background at rest.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds.

    Returns
    -------
    Case
    """
    y, x = centres(n)

    def layer(tau: float) -> tuple[Float, Float]:
        py, px = turn(y + 3.0 * tau, x - 6.0 * tau, -25.0 * tau, n)
        theta = np.arctan2(py - n / 2, px - n / 2)
        edge = 34 * (1 + 0.15 * np.cos(3 * theta + 0.4) + 0.08 * np.sin(5 * theta))
        cover = soft(edge - np.hypot(py - n / 2, px - n / 2))
        return cover, texture(11 + seed, py, px, amplitude=0.12, mean=0.7)

    def frame(tau: float) -> Float:
        cover, bright = layer(tau)
        sea = texture(12 + seed, y, x, amplitude=0.05, mean=0.25, waves=(8.0, 24.0))
        return sea * (1 - cover) + bright * cover

    ty, tx = turn(y, x, 25.0, n)
    on = layer(0.0)[0] > 0.5
    motion = np.where(on, ty - 3.0 - y, 0.0), np.where(on, tx + 6.0 - x, 0.0)
    return _made("floe_rot", n, frame, motion)


def speckle(n: int = SIZE, seed: int = 0) -> Case:
    """Texture that drifts, seen through speckle of eight looks.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds.

    Returns
    -------
    Case
    """
    y, x = centres(n)
    case = _made(
        "speckle",
        n,
        lambda tau: texture(21 + seed, y + 5.6 * tau, x - 9.3 * tau),
        (np.full((n, n), -5.6), np.full((n, n), 9.3)),
    )
    rng = np.random.default_rng(seed)
    u0, u1 = (image * rng.gamma(8.0, 1 / 8, image.shape) for image in (case.u0, case.u1))
    return Case(case.name, u0, u1, case.frame, case.displacement)


def growth(n: int = SIZE, seed: int = 0) -> Case:
    """Bell that drifts and brightens.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Not used; all cases take one.

    Returns
    -------
    Case
    """
    y, x = centres(n)

    def frame(tau: float) -> Float:
        r = np.hypot(x - 48 - 16 * tau, y - 56 - 8 * tau) / 22
        return (0.6 + 0.4 * tau) * np.where(r < 1, (1 + np.cos(np.pi * np.minimum(r, 1))) / 2, 0.0)

    motion = np.full((n, n), 8.0), np.full((n, n), 16.0)
    return _made("growth", n, frame, motion, frame(0.0) * 10)


def swath_gaps(n: int = SIZE, seed: int = 0) -> Case:
    """Swirl of half the length with a swath missing in each image.

    Parameters
    ----------
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds.

    Returns
    -------
    Case
    """
    case = swirl(n, seed, duration=0.1)
    y, x = np.mgrid[0:n, 0:n] * (SIZE / n)
    u0 = np.where(np.abs(x - y - 30) < 10, np.nan, case.u0)
    u1 = np.where(np.abs(x + y - 150) < 10, np.nan, case.u1)
    return Case("swath_gaps", u0, u1, case.frame, case.displacement)


CASES: dict[str, Callable[..., Case]] = {
    maker.__name__: maker
    for maker in (
        tex_rot,
        swirl,
        lead_open,
        lead_close,
        floe_rot,
        speckle,
        growth,
        swath_gaps,
        bell_rot,
    )
}
"""Cases by name."""


def make_case(name: str, n: int = SIZE, seed: int = 0) -> Case:
    """Make a case by its name.

    Parameters
    ----------
    name : str
        One of :data:`CASES`.
    n : int
        Rows and columns.
    seed : int
        Shift of the seeds of its textures.

    Returns
    -------
    Case

    Raises
    ------
    UnknownNameError
        For another name.

    Examples
    --------
    >>> from xr_spde.latent.cases import make_case
    >>> case = make_case("swirl", 32)
    >>> case.frame(0.5).shape
    (32, 32)
    """
    if name not in CASES:
        raise unknown("case", name, CASES)
    return CASES[name](n, seed)

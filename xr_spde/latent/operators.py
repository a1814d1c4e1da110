r"""Frames between and beyond two images by evolution operators other than plain advection.

An operator (:mod:`xr_spde.fields.transport`) runs forward from the first image. Between the images
what it leaves unexplained at the second is carried back along the motion and added in proportion to
time,

.. math::

    u_\tau = E_\tau(u_0) + \tau\, \big(u_1 - E_1(u_0)\big) \circ \phi_{1-\tau},

so that both images are met: the rest acts as a source along the path. For advection with a source
that is all there is to it. What conserves amounts runs from both images, and the two are mixed in
proportion to time alone, so that the sum over the grid goes linearly from that of one image to that
of the other. Beyond the images the nearer one evolves alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.evolution import Operator
from xr_spde.fields.sampling import fill_nearest, sample
from xr_spde.fields.transport import AdvectionSource, Conservation
from xr_spde.latent.blending import Frame, visibility
from xr_spde.latent.motion import Motion
from xr_spde.latent.sequence import held_velocities

__all__ = ["check_parameters", "frame_by"]

Float = NDArray[np.floating]


def check_parameters(which: Operator, given: Mapping[str, object]) -> None:
    """Refuse parameters that are missing or not of the operator.

    Parameters
    ----------
    which : Operator
        The operator.
    given : mapping
        Parameters by name, without the velocity.

    Raises
    ------
    ParameterError
        Some are missing, or strange to it.
    """
    wanted = [name for name, _ in which.params if name != "velocity"]
    free = ["source"] if isinstance(which, AdvectionSource) else []
    lacking = [name for name in wanted if name not in given and name not in free]
    strange = [name for name in given if name not in wanted]
    if lacking or strange:
        what = f"lack {lacking}" if lacking else f"hold {strange}"
        raise ParameterError(
            f"the parameters {what}; {type(which).__name__} takes "
            f"{', '.join(map(repr, wanted)) or 'none besides the velocity'}: parameters={{...}}"
        )


def frame_by(
    u0: ArrayLike,
    u1: ArrayLike,
    motion: Motion,
    tau: float,
    which: Operator,
    parameters: Mapping[str, float | Float] | None = None,
    *,
    length: float = 1.0,
) -> Frame:
    """Image at a time by an operator, between two images or beyond them.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images at times 0 and 1; NaN is missing and travels along.
    motion : Motion
        Between them.
    tau : float
        Time as a share of the interval; below 0 and above 1 beyond the images.
    which : Operator
        See :mod:`xr_spde.fields.transport`.
    parameters : mapping, optional
        What it needs besides the velocity, numbers or fields (ny, nx), per unit of `length`.
        Without ``source`` an `AdvectionSource` takes that which leads from one image to the other.
    length : float
        Of the interval, in the unit of time of the parameters.

    Returns
    -------
    Frame

    Raises
    ------
    ParameterError
        Images of another shape, or parameters that are missing or strange.
    """
    given = {} if parameters is None else dict(parameters)
    check_parameters(which, given)
    images = [np.asarray(u, dtype=motion.velocity.dtype) for u in (u0, u1)]
    if any(u.shape != motion.cells.shape for u in images):
        raise ParameterError(
            f"images of shapes {images[0].shape} and {images[1].shape} for a motion on "
            f"{motion.cells.shape}"
        )
    sides = [
        _Side.of(image, motion, tau, end, closed=isinstance(which, Conservation))
        for image, end in zip(images, (0.0, 1.0), strict=True)
    ]

    def run(state: Float, begin: float, end: float) -> Float:
        for q, share in held_velocities(motion, begin, end):
            now = {**given, "velocity": q / length}
            state = np.asarray(which.evolve(state, now, share * length, motion.cells))
        return state

    if isinstance(which, AdvectionSource) and "source" not in given:
        a, b = (side.carried() for side in sides)
        return _frame(sides, (a, b), (1 - tau) * a + tau * b, b - a)
    if not 0 <= tau <= 1:
        near = sides[int(tau > 1)]
        alone = run(near.filled, near.end, tau)
        far = replace(sides[int(tau < 0)], known=np.zeros_like(near.known))
        return _frame([near, far], (alone, alone), alone, np.full_like(alone, np.nan))
    if isinstance(which, Conservation):
        a, b = (run(side.filled, side.end, tau) for side in sides)
        return _frame(sides, (a, b), (1 - tau) * a + tau * b, b - a)
    a = run(sides[0].filled, 0.0, tau)
    rest = replace(sides[1], filled=fill_nearest(images[1] - run(a, tau, 1.0))).carried()
    return _frame(sides, (a, sides[1].carried()), a + tau * rest, rest)


@dataclass(frozen=True, eq=False)
class _Side:
    """One of two images, and where a time sees it."""

    filled: Float
    gappy: bool
    end: float
    places: tuple[Float, Float]
    known: NDArray[np.bool_]
    periodic_x: bool

    @classmethod
    def of(cls, image: Float, motion: Motion, tau: float, end: float, *, closed: bool) -> _Side:
        """Read an image; nothing comes from outside of a closed grid."""
        wrap, (ny, nx) = motion.cells.periodic_x, image.shape
        y, x = motion.positions(tau, end)
        if closed:
            y, x = np.clip(y, 0, ny - 1), x if wrap else np.clip(x, 0, nx - 1)
        missing = np.isnan(image)
        known, _ = visibility(missing, y, x, periodic_x=wrap)
        return cls(fill_nearest(image), bool(missing.any()), end, (y, x), known, wrap)

    def carried(self) -> Float:
        """Values along the motion."""
        return np.asarray(sample(self.filled, *self.places, periodic_x=self.periodic_x))


def _frame(sides: Sequence[_Side], values: tuple[Float, Float], mixed: Float, off: Float) -> Frame:
    """Mixture where both images are seen, the one that is seen elsewhere."""
    first, second = sides[0].known, sides[1].known
    seen = first.astype(np.int8) + second.astype(np.int8)
    image = np.where(first & ~second, values[0], np.where(second & ~first, values[1], mixed))
    if any(side.gappy for side in sides):  # otherwise what is unseen comes from the border
        image = np.where(seen > 0, image, np.nan)
    dtype = values[0].dtype
    return Frame(image.astype(dtype), np.where(seen == 2, off, np.nan).astype(dtype), seen)

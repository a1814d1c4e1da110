r"""Frames of pieces that cover each other: each carried along its own motion, the front ones first.

A piece is present at a cell at the time :math:`\tau` as far as the images show it that could, that
is, in which nothing in front hides it:

.. math::

    a_k = \frac{\sum_i s_i\, p^i_k(X^i_k)}{\sum_i s_i\, (1 - h^i_k(X^i_k))}, \qquad
    u_\tau = \sum_k a_k \prod_{j \succ k} (1 - a_j)\,
             \frac{\sum_i s_i\, p^i_k(X^i_k)\, u_i(X^i_k)}{\sum_i s_i\, p^i_k(X^i_k)},

with the shares of time :math:`s = (1-\tau, \tau)`, the path :math:`X^i_k` of piece k from image i,
its share p of the cells there, and the share h of pieces in front of it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, grey_dilation

from xr_spde.fields.characteristics import departure, nodes
from xr_spde.fields.sampling import fill_nearest, sample
from xr_spde.latent.blending import Frame, visibility
from xr_spde.latent.layers import Layers, Rim

__all__ = ["layered", "layered_displacement"]

Float = NDArray[np.floating]

_LEAST = 1e-3


def layered(
    frame: Frame, u0: Float, u1: Float, layers: Layers, tau: float, *, kernel: str = "cubic"
) -> Frame:
    """Frame with its rims made anew from layers.

    Parameters
    ----------
    frame : Frame
        At the time, of a single motion.
    u0, u1 : ndarray (ny, nx)
        Images at times 0 and 1; NaN is missing.
    layers : Layers
        Pieces of motion.
    tau : float
        Time.
    kernel : {"cubic", "monotone", "linear"}
        Of the samples.

    Returns
    -------
    Frame
        The same outside the rims, and where no image shows the piece that should be there.
    """
    inside = float(np.clip(tau, 0, 1))
    image, disagreement, seen = frame.image.copy(), frame.disagreement.copy(), frame.seen.copy()
    sides = [
        _Side.of(u, layers.velocities, span, share, kernel)
        for u, span, share in zip((u0, u1), (tau, tau - 1), (1 - inside, inside), strict=True)
    ]
    for rim in layers.rims:
        value, both, shown = _composed(sides, layers, rim)
        here = rim.where & np.isfinite(value)
        image[here], disagreement[here], seen[here] = value[here], both[here], shown[here]
    return replace(frame, image=image, disagreement=disagreement, seen=seen)


def layered_displacement(moved: Float, layers: Layers) -> Float:
    """Displacement with that of the piece that each cell of the first image shows, in the rims.

    Parameters
    ----------
    moved : ndarray (2, ny, nx)
        Displacement of what the first image shows until the second, of a single motion, in cells.
    layers : Layers
        Pieces of motion.

    Returns
    -------
    ndarray (2, ny, nx)
    """
    y, x = departure(layers.velocities.astype(np.float64), -1.0)
    rows, columns = nodes(moved, moved.shape[-2:])
    shown = layers.shares[0].argmax(axis=0)[None]
    own = [np.take_along_axis(p, shown, axis=0)[0] for p in (x - columns, y - rows)]
    where = np.any([rim.where for rim in layers.rims], axis=0)
    return np.where(where, np.stack(own), moved)


class _Side:
    """One image, carried along the motion of each piece."""

    def __init__(self, at: tuple[Float, Float], value: Float, known: Float, share: float) -> None:
        self.at, self.value, self.known, self.share = at, value, known, share

    @classmethod
    def of(cls, image: Float, velocities: Float, span: float, share: float, kernel: str) -> _Side:
        y, x = departure(velocities, span)
        missing = np.isnan(image)
        known = np.stack([visibility(missing, *at)[0] for at in zip(y, x, strict=True)])
        filled = np.broadcast_to(fill_nearest(image), y.shape)
        value = np.asarray(sample(filled, y, x, kernel=kernel))
        return cls((y, x), value, known.astype(value.dtype), share)

    def there(self, shares: Float) -> Float:
        """Shares of this image where the cells of each piece come from."""
        return np.asarray(sample(shares, *self.at, kernel="linear")) * self.known


def _composed(
    sides: list[_Side], layers: Layers, rim: Rim
) -> tuple[Float, Float, NDArray[np.int8]]:
    """Image, difference of the two images and number of images, from layers in one order."""
    front = rim.front.astype(np.float32)
    grown = [_grown(p, rim.front) for p in layers.shares]
    present = [side.there(p) for side, p in zip(sides, grown, strict=True)]
    hidden = [
        side.there(np.einsum("jk,j...->k...", front, p))
        for side, p in zip(sides, grown, strict=True)
    ]
    shown = sum(s.share * p for s, p in zip(sides, present, strict=True))
    could = sum(s.share * (s.known - h) for s, h in zip(sides, hidden, strict=True))
    alpha = np.clip(np.where(could > 1e-6, shown / np.maximum(could, 1e-6), 0), 0, 1)
    over = np.stack(
        [np.prod(1 - front[:, k, None, None] * alpha, axis=0) for k in range(len(alpha))]
    )
    weight = alpha * over
    value = sum(s.share * p * s.value for s, p in zip(sides, present, strict=True))
    value = value / np.maximum(shown, 1e-12)
    total = weight.sum(axis=0)
    weight = weight / np.maximum(total, _LEAST)
    image = np.where(total > _LEAST, (weight * value).sum(axis=0), np.nan)
    # an image speaks if most of what is there is seen in it at least as well as in the other
    better = np.maximum(np.maximum(*present), 1e-12)
    first, second = ((weight * p / better).sum(axis=0) > 0.5 - 1e-4 for p in present)
    difference = (weight * (sides[1].value - sides[0].value)).sum(axis=0)
    return (
        image,
        np.where(first & second, difference, np.nan),
        first.astype(np.int8) + second.astype(np.int8),
    )


def _grown(shares: Float, front: NDArray[np.bool_]) -> Float:
    """Shares with the pieces in front one cell larger: a cell at an edge is a mixture of both."""
    cross = generate_binary_structure(2, 1)
    near = np.stack([grey_dilation(p, footprint=cross) for p in shares])
    out = shares.copy()
    for a, b in np.argwhere(front):
        taken = shares[b] * near[a]
        out[a] += taken
        out[b] -= taken
    return np.asarray(np.clip(out, 0, 1))

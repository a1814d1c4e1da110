r"""Increment of a motion under a linearised robust data term and total generalised variation.

Minimises over the field v and an auxiliary gradient w

.. math::

    \sum \lambda\, |r + g \cdot (v - v_0)| + \alpha_1 |\nabla v - w| + \alpha_0 |\nabla w|

by the primal-dual steps of Chambolle and Pock. The second-order term is blind to translations,
rotations and every other affine motion, and lets the motion jump where floes part.

References
----------
Bredies, K., Kunisch, K. and Pock, T. (2010): Total generalized variation. SIAM J. Imaging Sci. 3,
492-526. Chambolle, A. and Pock, T. (2011): A first-order primal-dual algorithm for convex problems.
J. Math. Imaging Vis. 40, 120-145.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Regulariser"]

Real = NDArray[np.float32]

_STEP = np.float32(1.0 / np.sqrt(12.0))


class Regulariser:
    """The state of the minimisation, kept from one linearisation to the next.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    jump : float
        Weight alpha_1 of a jump of the motion.
    bend : float
        Weight alpha_0 of a change of its gradient.
    slope_x, slope_y : ndarray (ny,), optional
        Factors of differences along x and y, at most 1: the smallest size of a cell over the size
        of those of a row, so that gradients are per length.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        jump: float = 1.0,
        bend: float = 2.0,
        slope_x: NDArray[np.floating] | None = None,
        slope_y: NDArray[np.floating] | None = None,
    ) -> None:
        self.jump, self.bend = np.float32(jump), np.float32(bend)
        self.w = np.zeros((2, 2, *shape), np.float32)
        self._p = np.zeros((2, 2, *shape), np.float32)
        self._s = np.zeros((2, 2, 2, *shape), np.float32)
        self._slopes: tuple[Real, Real] | None = None
        if slope_x is not None and slope_y is not None:
            self._slopes = (
                slope_x.astype(np.float32)[:, None],
                slope_y.astype(np.float32)[:, None],
            )

    def step(
        self, v: Real, residual: Real, slope: Real, weight: Real, *, iterations: int, reach: float
    ) -> Real:
        """Minimise around one linearisation.

        Parameters
        ----------
        v : ndarray (2, ny, nx)
            Field v_0 at which the data term was linearised.
        residual : ndarray (ny, nx)
            r, the mismatch there.
        slope : ndarray (2, ny, nx)
            g, its derivative in v.
        weight : ndarray (ny, nx)
            lambda, 0 where nothing is known.
        iterations : int
            Of the primal-dual method.
        reach : float
            Largest change of a component, within which the linearisation is trusted.

        Returns
        -------
        ndarray (2, ny, nx)
            The new field.
        """
        square = np.maximum((slope * slope).sum(axis=0), np.float32(1e-6))
        limit = _STEP * weight
        new, ahead, ahead_w = v, v, self.w
        for _ in range(iterations):
            rise = self._forward(ahead)
            # there is no difference across a border for the gradient to explain
            rise[0][..., :-1] -= ahead_w[0][..., :-1]
            rise[1][..., :-1, :] -= ahead_w[1][..., :-1, :]
            self._p += _STEP * rise
            self._p /= np.maximum(_norm(self._p, (0, 1)) / self.jump, 1)
            self._s += _STEP * self._forward(ahead_w)
            self._s /= np.maximum(_norm(self._s, (0, 1, 2)) / self.bend, 1)
            old, old_w = new, self.w
            new = new + _STEP * self._divergence(self._p)
            self.w = self.w + _STEP * (self._p + self._divergence(self._s))
            mismatch = residual + (slope * (new - v)).sum(axis=0)
            new += np.clip(-mismatch / square, -limit, limit) * slope
            np.clip(new, v - reach, v + reach, out=new)
            ahead, ahead_w = 2 * new - old, 2 * self.w - old_w
        return new

    def _forward(self, field: Real) -> Real:
        """Forward differences (2, ...) along x and y; zero across a border."""
        out = np.zeros((2, *field.shape), np.float32)
        np.subtract(field[..., 1:], field[..., :-1], out=out[0][..., :-1])
        np.subtract(field[..., 1:, :], field[..., :-1, :], out=out[1][..., :-1, :])
        if self._slopes is not None:
            out[0] *= self._slopes[0]
            out[1] *= self._slopes[1]
        return out

    def _divergence(self, dual: Real) -> Real:
        """Return minus the adjoint of the forward differences."""
        along_x, along_y = dual[0], dual[1]
        if self._slopes is not None:
            along_x, along_y = along_x * self._slopes[0], along_y * self._slopes[1]
        out = np.zeros(dual.shape[1:], np.float32)
        out[..., :-1] += along_x[..., :-1]
        out[..., 1:] -= along_x[..., :-1]
        out[..., :-1, :] += along_y[..., :-1, :]
        out[..., 1:, :] -= along_y[..., :-1, :]
        return out


def _norm(field: Real, axes: tuple[int, ...]) -> Real:
    return np.asarray(np.sqrt((field * field).sum(axis=axes)))

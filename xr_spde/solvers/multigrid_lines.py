"""Tridiagonal systems along the lines of a grid, all lines at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_DOMINANCE = 1.001


class Lines:
    """Factorised tridiagonal matrices of many lines, coupled ring-wise on request.

    Axis 0 runs along the lines and axis 1 over them, so that the recursion of elimination takes
    whole rows. A diagonal below 1.001 times the sum of its neighbours is raised to that: no
    pivot comes near zero, and a smoother need not be exact.

    Parameters
    ----------
    lower, diagonal, upper : ndarray (L, m)
        Coupling with the node before, with itself and with the node after.
    ring : bool
        Whether the first and the last node of a line are neighbours (rings of one or two nodes
        are left open).

    References
    ----------
    Golub, van Loan (2013), Matrix Computations, 4th ed., sections 4.3 and 2.1.4 (the formula of
    Sherman and Morrison, for rings).
    """

    def __init__(self, lower: Array, diagonal: Array, upper: Array, *, ring: bool) -> None:
        ring = ring and lower.shape[0] > 2
        pivot = np.maximum(diagonal, _DOMINANCE * (np.abs(lower) + np.abs(upper)))
        first = pivot[0].copy()
        if ring:
            # the matrix is an open line plus (-first, 0, .., upper)' (1, 0, .., -lower / first)
            self._last = -lower[0] / first
            pivot[0] += first
            pivot[-1] -= self._last * upper[-1]
        self._lower, self._upper = lower.copy(), upper.copy()
        self._scale = pivot
        for before, after, up, low in zip(
            pivot[:-1], pivot[1:], upper[:-1], self._lower[1:], strict=True
        ):
            low /= before
            after -= low * up
        np.reciprocal(pivot, out=self._scale)
        self._upper *= self._scale
        self._ring: Array | None = None
        if ring:
            spike = np.zeros_like(lower)
            spike[0], spike[-1] = -first, upper[-1]
            self._eliminate(spike)
            spike /= 1.0 + spike[0] + self._last * spike[-1]
            self._ring = spike

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        held = (self._lower, self._upper, self._scale)
        ring = 0 if self._ring is None else int(self._ring.nbytes)
        return ring + sum(int(array.nbytes) for array in held)

    def _eliminate(self, x: Array) -> None:
        """Solve for open lines in place."""
        product = np.empty_like(x[0])
        for low, before, after in zip(self._lower[1:], x[:-1], x[1:], strict=True):
            np.multiply(low, before, out=product)
            after -= product
        x *= self._scale
        for up, before, after in zip(self._upper[-2::-1], x[-2::-1], x[:0:-1], strict=True):
            np.multiply(up, after, out=product)
            before -= product

    def solve(self, x: Array) -> None:
        """Overwrite right-hand sides (L, m) with the solutions."""
        if not x.size:
            return
        self._eliminate(x)
        if self._ring is not None:
            around = x[0] + self._last * x[-1]
            for row, spike in zip(x, self._ring, strict=True):
                row -= spike * around

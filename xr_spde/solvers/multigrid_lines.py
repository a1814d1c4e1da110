"""Tridiagonal systems along the lines of a grid, all lines at once: on the host, and on a card."""

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
        pivot, first, self._last = _opened(lower, diagonal, upper, ring=ring)
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


class CyclicLines:
    """The same systems by cyclic reduction, for a card: few steps, each over all lines at once.

    Every second node is eliminated, then every second of those left, and so on: about
    ``2 log2(L)`` steps on whole arrays in place of ``2 L`` on single rows.

    Parameters
    ----------
    lower, diagonal, upper : ndarray (L, m)
        On the host, as for :class:`Lines`.
    ring : bool
        Whether the first and the last node of a line are neighbours.
    xp : module, default numpy
        cupy; the factors are on the card.

    References
    ----------
    Hockney (1965), A fast direct solution of Poisson's equation using Fourier analysis, J. ACM 12;
    Golub, van Loan (2013), section 4.5.4.
    """

    def __init__(
        self, lower: Array, diagonal: Array, upper: Array, *, ring: bool, xp: Any = np
    ) -> None:
        ring = ring and lower.shape[0] > 2
        pivot, first, last = _opened(lower, diagonal, upper, ring=ring)
        low, up = lower.copy(), upper.copy()
        low[:1] = up[-1:] = 0.0
        self._steps: list[tuple[Array, ...]] = []
        while pivot.shape[0] > 1:
            reciprocal = 1.0 / pivot[0::2]
            below, above = low[0::2] * reciprocal, up[0::2] * reciprocal
            # of the nodes that stay: one always follows one that goes, the last may be the end
            left, right = low[1::2], up[1::2]
            count = reciprocal[1:].shape[0]
            kept = pivot[1::2] - left * above[: left.shape[0]]
            kept[:count] -= right[:count] * below[1:]
            farther = np.zeros_like(right)
            farther[:count] = -right[:count] * above[1:]
            low = -left * below[: left.shape[0]]
            factors = (
                left * reciprocal[: left.shape[0]],
                right[:count] * reciprocal[1:],
                reciprocal,
                below,
                above,
            )
            self._steps.append(tuple(xp.asarray(np.ascontiguousarray(one)) for one in factors))
            pivot, up = kept, farther
        self._scale = xp.asarray(1.0 / pivot)
        self._ring: Array | None = None
        if ring:
            spike = np.zeros_like(lower)
            spike[0], spike[-1] = -first, upper[-1]
            self._last, there = xp.asarray(last), xp.asarray(spike)
            self._reduce(there)
            self._ring = there / (1.0 + there[0] + self._last * there[-1])

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        ring = 0 if self._ring is None else int(self._ring.nbytes)
        return ring + sum(int(one.nbytes) for step in self._steps for one in step)

    def _reduce(self, x: Array) -> None:
        """Solve for open lines in place."""
        views = [x]
        for left, right, *_ in self._steps:
            goes, stays = views[-1][0::2], views[-1][1::2]
            count = right.shape[0]
            stays -= left * goes[: stays.shape[0]]
            stays[:count] -= right * goes[1:]
            views.append(stays)
        last = views[-1]
        last *= self._scale
        for view, (_, _, reciprocal, below, above) in zip(
            views[-2::-1], self._steps[::-1], strict=True
        ):
            goes, stays = view[0::2], view[1::2]
            goes *= reciprocal
            goes[1:] -= below[1:] * stays[: goes.shape[0] - 1]
            goes[: stays.shape[0]] -= above[: stays.shape[0]] * stays

    def solve(self, x: Array) -> None:
        """Overwrite right-hand sides (L, m) with the solutions."""
        if not x.size:
            return
        self._reduce(x)
        if self._ring is not None:
            x -= self._ring * (x[0] + self._last * x[-1])


def _opened(
    lower: Array, diagonal: Array, upper: Array, *, ring: bool
) -> tuple[Array, Array, Array]:
    """Return the pivots of open lines, and what the ring adds as a matrix of rank one.

    A ring is an open line plus ``(-first, 0, .., upper)' (1, 0, .., last)``.
    """
    pivot = np.maximum(diagonal, _DOMINANCE * (np.abs(lower) + np.abs(upper)))
    first = pivot[0].copy()
    last = -lower[0] / first
    if ring:
        pivot[0] += first
        pivot[-1] -= last * upper[-1]
    return pivot, first, last

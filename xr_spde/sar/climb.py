"""Quasi-Newton ascent from a good guess of the curvature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

_MEMORY = 5


def climb(
    x: Float,
    objective: Callable[[Float], tuple[float, Float]],
    precondition: Callable[[Float], Float],
    *,
    steps: int,
) -> tuple[Float, float]:
    """Minimise by quasi-Newton steps that start from a given inverse Hessian.

    Parameters
    ----------
    x : ndarray (n,)
        Start.
    objective : callable
        Value and slope.
    precondition : callable
        Inverse Hessian times a vector.
    steps : int
        Largest number of steps.

    Returns
    -------
    x : ndarray (n,)
    left : float
        Twice the decrease that the curvature promises of one step more.
    """
    value, slope = objective(x)
    pairs: list[tuple[Float, Float]] = []
    for taken in range(steps + 1):
        step = -_two_loops(slope, pairs, precondition)
        # the information per unit of decrease: a thousandth of a log unit matters to nobody
        decrease = -float(step @ slope)
        if decrease < 0.05 or taken == steps:
            break
        length = min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
        for _ in range(8):
            trial = x + length * step
            there, slope_there = objective(trial)
            if there <= value - 1e-4 * length * decrease:
                break
            length *= 0.4
        else:
            break
        pairs.append((trial - x, slope_there - slope))
        pairs = [p for p in pairs if p[0] @ p[1] > 0.0][-_MEMORY:]
        x, value, slope = trial, there, slope_there
    return x, decrease


def _two_loops(
    slope: Float, pairs: list[tuple[Float, Float]], precondition: Callable[[Float], Float]
) -> Float:
    """Inverse Hessian times slope, by recent changes of both (Nocedal 1980)."""
    direction = slope.copy()
    shares = []
    for step, change in reversed(pairs):
        share = float(step @ direction) / float(step @ change)
        shares.append(share)
        direction -= share * change
    direction = precondition(direction)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        direction += (share - float(change @ direction) / float(step @ change)) * step
    return direction

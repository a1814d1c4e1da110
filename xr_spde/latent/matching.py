r"""A first motion by trying displacements: coupled matching on a coarse grid.

Every displacement d of a list is tried at every cell, midway between the images: the cost is the
mean of :math:`|u_1(x + d/2) - u_0(x - d/2)|` over a window. Costs are then coupled by turns: the
field is smoothed, and the best displacement is taken anew with a growing penalty for leaving the
smooth field.

References
----------
Steinbruecker, F., Pock, T. and Cremers, D. (2009): Large displacement optical flow computation
without warping. ICCV. Heinrich, M. P., Papiez, B. W., Schnabel, J. A. and Handels, H. (2014):
Non-parametric discrete registration with convex optimisation. WBIR.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from xr_spde._core.memory import check_memory
from xr_spde.latent.pyramid import Pair

__all__ = ["match"]

Real = NDArray[np.float32]

_COUPLING = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_WINDOW = 9
_SMOOTH = 1.5


def match(pair: Pair, search: int) -> Real:
    """Motion of a coarse pair from all displacements up to a limit.

    Parameters
    ----------
    pair : Pair
        Coarse images; memory is about 4 ny nx (search + 1)**2 bytes.
    search : int
        Largest displacement of a component in cells; even displacements are tried.

    Returns
    -------
    ndarray (2, ny, nx)
        In cells, x first.

    Raises
    ------
    MemoryGuardError
        If the costs would not fit in memory.
    """
    half = max(search // 2, 1)
    check_memory(
        12.0 * pair.u0.size * (2 * half + 1) ** 2,
        what=f"matching {pair.shape[0]} x {pair.shape[1]} cells up to {2 * half} cells away",
        remedy="Give a smaller search, or starts=['zero'].",
    )
    steps = range(-half, half + 1)
    # shortest first, so that nothing moves where nothing tells
    halves = sorted(((dy, dx) for dy in steps for dx in steps), key=lambda d: d[0] ** 2 + d[1] ** 2)
    cost = np.stack([_cost(pair, dy, dx, half) for dy, dx in halves])
    tried = 2 * np.array(halves, np.float32)[:, ::-1]
    cost += 1e-4 * (tried**2).sum(axis=1)[:, None, None]
    best = tried[cost.argmin(axis=0)].transpose(2, 0, 1)
    for weight in _COUPLING:
        smooth = _smoothed(best)
        away = sum((tried[:, k, None, None] - smooth[k]) ** 2 for k in range(2))
        best = tried[(cost + np.float32(weight) * away).argmin(axis=0)].transpose(2, 0, 1)
    return _smoothed(best)


def _smoothed(motion: Real) -> Real:
    return np.stack([gaussian_filter(part, _SMOOTH, mode="nearest") for part in motion])


def _cost(pair: Pair, dy: int, dx: int, rim: int) -> Real:
    """Mean mismatch over a window for one half displacement."""

    def moved(field: Real, step: int, mode: str) -> Real:
        wide = np.pad(field, rim, mode=mode)  # type: ignore[call-overload]
        ny, nx = field.shape
        top, left = rim + step * dy, rim + step * dx
        return np.asarray(wide[top : top + ny, left : left + nx])

    known = moved(pair.m0, -1, "constant") * moved(pair.m1, 1, "constant")
    off = np.abs(moved(pair.u1, 1, "edge") - moved(pair.u0, -1, "edge")) * known
    share = uniform_filter(known, _WINDOW, mode="nearest")
    mean = uniform_filter(off, _WINDOW, mode="nearest") / np.maximum(share, 0.1)
    # one and a bit: what unrelated standardised images differ by
    return np.where(share > 0.1, mean, np.float32(1.2))

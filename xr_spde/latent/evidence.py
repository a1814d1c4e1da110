r"""What a pair of images says about itself: whether its values are carried, or change on the way.

Both images are averaged on a coarse grid and registered there. What then remains of their
difference, over their difference in place, is the share of the change that motion leaves
unexplained:

.. math:: c = \sum |u_1(\phi_{1/2}) - u_0(\phi_{-1/2})| \, / \sum |u_1 - u_0|

Noise is averaged out on the coarse grid. Where c is large, rain has grown or the sea has warmed:
then patterns are followed instead of values, and the data term counts less, by the variance of
what it cannot explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.cells import Cells
from xr_spde.latent.descent import STARTS, last_within, linearised, race, sides
from xr_spde.latent.pyramid import (
    QUIET,
    Pair,
    brightness_of,
    default_smoothness,
    gradient,
    resize,
    shapes,
)

__all__ = ["CHANGING", "Evidence", "evidence_of"]

CHANGING = 0.3
"""Share left unexplained above which the images change as they move."""

_CLEAR = 0.22
"""The same share for images without noise, half way (of logarithms) between the made cases, which
leave up to 0.17, and rain of 10 to 110 minutes apart, which leaves 0.29 and more; speckle leaves
0.26 by its noise alone."""

_CELLS = 72**2
_CARRIED = 0.05  # below this nothing is left to explain
_MOST_SMOOTH = 50.0
# share at which the data would keep their weight, of values and of patterns
_KEPT_VALUES, _KEPT_PATTERNS = 0.12, 0.2
_CHANGING_PATTERNS = 0.6  # of patterns: share from which on they change as they move
_GROWING = 5.0  # patterns have their contrast everywhere, where values have it only at edges


@dataclass(frozen=True)
class Evidence:
    """What was found, and what follows from it.

    Attributes
    ----------
    brightness : {"constant", "varying"}
        What to follow: values, or patterns.
    smoothness : float
        Factor on the weight of the regularisation.
    change : float
        Share of the difference of the images that motion alone leaves unexplained; of their
        patterns where the medians told that their brightness differs.
    changing : bool
        Whether that is so much that details are not worth following.
    """

    brightness: str
    smoothness: float
    change: float
    changing: bool = False


def evidence_of(
    u0: NDArray[np.floating],
    u1: NDArray[np.floating],
    cells: Cells,
    *,
    noise: float,
    smooth: float = 0.0,
    starts: Sequence[str | NDArray[np.floating]] = STARTS,
    search: float = 0.25,
) -> Evidence:
    """Choose between values and patterns, and the weight of the data, from a pair of images.

    Patterns are followed where the medians differ by more than 0.3 standard deviations; where
    values leave more than 0.22 of the difference unexplained (:data:`CHANGING` in noise); and where
    patterns
    leave less than half of what values leave, as of a thing that brightens while it moves.

    Parameters
    ----------
    u0, u1 : ndarray (ny, nx)
        Images; NaN is missing.
    cells : Cells
        Their grid, not closed.
    noise : float
        Of the images, over their standard deviation.
    smooth : float
        Standard deviation in cells of a Gaussian that is applied first.
    starts, search
        As in :func:`xr_spde.latent.motion.fit_motion`.

    Returns
    -------
    Evidence
        Alike for exchanged images.
    """
    base = default_smoothness(noise)

    def left(brightness: str) -> float:
        pair = Pair.of(u0, u1, brightness=brightness, smooth=smooth)
        return _unexplained(pair, cells, starts, search, 1.0 / base)

    if brightness_of(u0, u1) == "varying":
        change = left("varying")
        changing = change > _CHANGING_PATTERNS
        smoothness = _smoothness(base, change, _KEPT_PATTERNS) if changing else base
        return Evidence("varying", smoothness, change, changing)
    change = left("constant")
    if change > (CHANGING if noise > QUIET else _CLEAR):
        return Evidence("varying", _smoothness(base, change, _KEPT_VALUES), change, True)
    if change > _CARRIED and left("varying") < 0.5 * change:
        return Evidence("varying", max(base, _GROWING), change)
    return Evidence("constant", base, change)


def _smoothness(base: float, change: float, keep: float) -> float:
    """Weight of the regularisation by the variance that motion cannot explain."""
    return min(max(base, (change / keep) ** 2), _MOST_SMOOTH)


def _unexplained(
    whole: Pair,
    cells: Cells,
    starts: Sequence[str | NDArray[np.floating]],
    search: float,
    weight: float,
) -> float:
    """Difference that is left after registration on a coarse grid, over that in place."""
    levels = shapes(whole.shape)
    shape = levels[last_within(levels, _CELLS)]
    pair = whole.coarser(shape)
    factor = (sides(shape) / sides(whole.shape)).astype(np.float32)[:, None, None]
    given = [s if isinstance(s, str) else _padded(s, whole, shape) * factor for s in starts]
    velocity, _, _ = race(pair, cells.coarser(shape), given, search, 0, weight)
    slopes = [np.stack(gradient(u)) for u in (pair.u0, pair.u1)]
    off, _, known = linearised(pair, slopes[0], slopes[1], velocity)
    both = pair.m0 * pair.m1 > 0
    still = float(np.abs(pair.u1 - pair.u0)[both].mean()) if both.any() else 0.0
    if not known.any() or still < 1e-6:
        return 0.0
    return float(np.abs(off[known > 0]).mean()) / still


def _padded(
    start: NDArray[np.floating], whole: Pair, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Given start on coarse cells, with the columns that close the circle."""
    rim = (whole.shape[1] - start.shape[-1]) // 2
    wide = np.pad(np.asarray(start, np.float32), ((0, 0), (0, 0), (rim, rim)), mode="wrap")
    return resize(wide, shape)

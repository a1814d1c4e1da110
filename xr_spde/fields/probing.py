"""Variances where the selected inverse would not fit in memory: exact nearby, sampled far away.

A tile of the grid sits in a window with an overlap on all sides. With ``Q = B'B`` and x a field
drawn from the model, the law of total variance splits the variance of a cell of the tile into

    var x_i = (Q_WW^-1)_ii + E[m_i^2],      m = -Q_WW^-1 Q_W. x  (outside the window),

its variance given everything outside, which selected inversion on the window gives exactly, and
that of its conditional mean. The second is a mean over probes: draws of the whole field, of which
only the rings of cells around the windows are kept. With an overlap of a practical range it is a
few per cent of the whole, and its sampling error a few per mille.

References
----------
Siden, Lindgren, Bolin, Villani (2018), Efficient covariance approximations for large sparse
precision matrices, J. Comput. Graph. Stat. 27(4) (Rao-Blackwellised Monte Carlo with blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.memory import check_memory
from xr_spde._core.rng import member_generator
from xr_spde.fields.stencil import assemble
from xr_spde.fields.windows import Domain, Index, spans
from xr_spde.solvers.grid_factor import GridFactor

Float = NDArray[np.float64]

_REACH = 2
_BLOCK_BYTES = 2**28
# streams of its own, apart from those of the members of an ensemble
_STREAM = 0x70726F62
# what rounding leaves of a window's inverse, whose precision is squared
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Side:
    """One axis of a window; numbers along the whole axis.

    Attributes
    ----------
    around : ndarray of int
        Window and ring.
    window : slice
        The window within `around`.
    tile : slice
        The tile within the window.
    target : slice
        The tile within the part of the axis that is asked for.
    """

    around: Index
    window: slice
    tile: slice
    target: slice


def sides(size: int, wraps: bool, margin: int, overlap: int, tile: int) -> Iterator[Side]:
    """Windows along one axis over all but a margin at both ends.

    Parameters
    ----------
    size : int
        Cells of the axis.
    wraps : bool
        Whether it is closed.
    margin : int
        Cells at both ends whose variance is not asked for.
    overlap, tile : int
        Cells of a window on each side of its tile, and cells of a tile.
    """
    inner = size - 2 * margin
    # a closed axis must hold the window and its ring without meeting itself
    if size <= 1.5 * tile + 2 * (overlap + _REACH):
        yield Side(np.arange(size), slice(0, size), slice(margin, size - margin), slice(0, inner))
        return
    for start, stop in spans(inner, tile):
        first, last = start + margin, stop + margin
        low, high = first - overlap, last + overlap
        ring = (low - _REACH, high + _REACH)
        if not wraps:
            low, high = max(low, 0), min(high, size)
            ring = (max(ring[0], 0), min(ring[1], size))
        yield Side(
            np.arange(*ring) % size,
            slice(low - ring[0], high - ring[0]),
            slice(first - low, last - low),
            slice(start, stop),
        )


class Window:
    """A window, the ring around it and the precision of both.

    Parameters
    ----------
    domain : Domain
        The whole grid.
    y, x : Side
        Its axes.
    """

    def __init__(self, domain: Domain, y: Side, x: Side) -> None:
        self._domain, self._y, self._x = domain, y, x
        inside = np.zeros((y.around.size, x.around.size), dtype=bool)
        inside[y.window, x.window] = True
        self._inside = inside
        self.ring: Index = (y.around[:, None] * domain.shape[1] + x.around)[~inside]
        self.target = (y.target, x.target)
        self.size = (y.around.size, x.around.size)

    def moments(self, beyond: Float) -> tuple[Float, Float]:
        """Variance of the tile given the ring, and its conditional means.

        Parameters
        ----------
        beyond : ndarray (ring, K)
            Draws on the ring.

        Returns
        -------
        variance : ndarray (rows, columns)
        means : ndarray (rows, columns, K)
        """
        weights, boundary = self._domain.part(self._y.around, self._x.around)
        # rows at the edge of the ring are cut off, and do not reach the window
        matrix = assemble(weights, boundary=boundary)
        own = matrix[:, self._inside.ravel()]
        shape = tuple(len(range(*s.indices(10**9))) for s in (self._y.window, self._x.window))
        factor = GridFactor(
            sp.csc_array(own.T @ own),
            shape=(shape[0], shape[1]),
            boundary=boundary,
            reach=_REACH,
            symmetric=True,
        )
        tile = (self._y.tile, self._x.tile)
        variance = factor.inverse_diagonal().reshape(shape)[tile]
        if not self.ring.size:
            return variance, np.zeros((*variance.shape, beyond.shape[1]))
        across = own.T @ (matrix[:, ~self._inside.ravel()] @ beyond)
        return variance, -factor.solve(across).reshape(*shape, -1)[tile]


def probed_variance(
    domain: Domain,
    solve: Callable[[Float], Float],
    *,
    margins: tuple[int, int],
    overlap: int,
    tile: int,
    probes: int,
    seed: int,
) -> tuple[Float, Float]:
    """Diagonal of ``(B'B)^-1`` and its standard error.

    Parameters
    ----------
    domain : Domain
        Weights and boundary of the grid on which fields are drawn.
    solve : callable
        ``B^-1`` times (n, K).
    margins : tuple of int
        Rows and columns at the edges whose variance is not asked for.
    overlap, tile : int
        See `sides`.
    probes : int
        Number of draws.
    seed : int
        Of the draws.

    Returns
    -------
    variance, error : ndarray (ny - 2 margin, nx - 2 margin)
        The error is that of the mean over the probes: cells within a range of one another share
        theirs.

    Raises
    ------
    MemoryGuardError
        If the draws on the rings, or a window, would not fit in memory.
    """
    axes = zip(domain.shape, domain.wraps, margins, strict=True)
    windows = [Window(domain, y, x) for y, x in product(*(
        list(sides(size, wraps, margin, overlap, tile)) for size, wraps, margin in axes
    ))]  # fmt: skip
    # those of one shape share the symbolic work
    windows.sort(key=lambda one: one.size)
    beyond = _draw(windows, solve, domain.shape[0] * domain.shape[1], probes, seed)
    shape = tuple(size - 2 * margin for size, margin in zip(domain.shape, margins, strict=True))
    variance, error = np.empty(shape), np.empty(shape)
    for window, draws in zip(windows, beyond, strict=True):
        near, means = window.moments(draws)
        far = np.einsum("jik,jik->ji", means, means) / probes
        variance[window.target] = near + far
        # squares of normals: their variance is twice the square of their mean
        error[window.target] = far * np.sqrt(2.0 / probes) + _ROUNDING * near
    return variance, error


def _draw(
    windows: list[Window], solve: Callable[[Float], Float], n: int, probes: int, seed: int
) -> list[Float]:
    """Fields of the model on the ring of each window."""
    rings = np.cumsum([0, *(window.ring.size for window in windows)])
    check_memory(
        8 * int(rings[-1]) * (probes + 3),
        what=f"{probes} probes on the rings of {len(windows)} windows",
        remedy="Use fewer probes.",
    )
    kept = np.empty((int(rings[-1]), probes))
    width = int(np.clip(_BLOCK_BYTES // (8 * n), 1, probes))
    # nothing to draw where one window holds the whole grid
    for start in range(0, probes if kept.size else 0, width):
        numbers = range(start, min(start + width, probes))
        noise = np.empty((len(numbers), n))
        for row, number in zip(noise, numbers, strict=True):
            member_generator(seed, number, _STREAM).standard_normal(out=row)
        fields = solve(noise.T)
        for window, (low, high) in zip(windows, pairwise(rings), strict=True):
            kept[low:high, numbers.start : numbers.stop] = fields[window.ring]
    return [kept[low:high] for low, high in pairwise(rings)]

r"""Draws of the SPDE prior over a whole domain and series, one block of steps after the other.

What makes an ensemble continuous across windows and patches is that these cut their draws from one
field. The recursion ``A_t x_t = x_{t-1} + tau_t z_t`` (:mod:`xr_spde.fields.spacetime`) needs the
last state only: blocks of steps are chained by it, exactly, whatever their lengths. White noise
belongs to (member, step, node) of the whole plane; planes too large for one factor are drawn in
tiles whose halo sees the same noise, so that they differ at their seams by what a boundary a halo
away changes.

References
----------
Rue and Held (2005), Gaussian Markov Random Fields, section 2.4; Lindgren, Rue, Lindstrom (2011),
J. R. Stat. Soc. B 73.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde._core.rng import member_generator
from xr_spde._core.warn import warn
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.solvers.grid_factor import GridFactor

__all__ = ["CHANNELS", "MOST_NODES", "draw_prior", "observation_noise"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

CHANNELS = ("kappa", "tau", "m1", "m2", "v1", "v2", "gamma", "beta")
"""Order of the parameters."""

MOST_NODES = 160_000
"""Nodes of a plane that is drawn whole; a number, not the memory, so that draws are alike
everywhere."""

_FIELDS, _ERRORS, _SPIN_UP = 0, 1, 3
"""Last but one part of the identity of a random stream, as in the interpolation by windows."""

_FIRST, _LATER = 6, 4
"""Steps of the first and of each later length of a spin-up."""


@dataclass(frozen=True)
class _Tile:
    """Rows and columns that are drawn together, and which of them are kept."""

    rows: Index
    columns: Index
    inner: tuple[slice, slice]
    kept: tuple[slice, slice]

    @property
    def nodes(self) -> int:
        return self.rows.size * self.columns.size

    def cut(self, planes: NDArray) -> NDArray:  # type: ignore[type-arg]
        return planes[..., self.rows[:, None], self.columns]


def draw_prior(
    theta: Float,
    state: Float | None = None,
    *,
    sea: NDArray[np.bool_],
    members: Sequence[int],
    first: int,
    entropy: int,
    steps: int | None = None,
    alpha: int = 4,
    boundary: tuple[str, str] = ("neumann", "neumann"),
    halo: int = 64,
) -> tuple[NDArray[np.float32], Float]:
    """Draw the anomalies of one block of steps, with the state that the next block goes on from.

    Parameters
    ----------
    theta : ndarray (8, S, ny, nx)
        kappa, tau, m1, m2, v1, v2, gamma, beta on a grid of unit steps, of every step of the block
        or, S = 1, of all; numbers on land do not count.
    state : ndarray (K, n), optional
        What the block before returned. By default the first step is of the stationary distribution,
        exactly for constant parameters, where the plane is one tile; else, and with a warning where
        the flow converges too sharply for that, spun up from rest by steps that get shorter, to
        about 2 % of the variance.
    sea : ndarray (ny, nx) of bool
        Nodes of the field.
    members : sequence of int
        Their numbers.
    first : int
        Number of the first step of the block in the series.
    entropy : int
        Of all that is random, see :func:`xr_spde._core.rng.resolve_seed`.
    steps : int, optional
        Of the block, where S = 1 does not tell.
    alpha : {4, 2}
        Power of the prior.
    boundary : (str, str), default ("neumann", "neumann")
        In y and x; "periodic" x closes.
    halo : int, default 64
        Cells around the tiles of a plane of more than :data:`MOST_NODES` nodes.

    Returns
    -------
    fields : ndarray (K, steps, ny, nx) of float32
        Zero on land. A member depends on `entropy` and its number, not on the others, on how the
        series is cut into blocks or (bit for bit) on who else is drawn.
    state : ndarray (K, n)
        For the next block.

    Raises
    ------
    ParameterError
        Shapes that do not fit, or parameters that are not positive.
    SolverError
        If a step cannot be factorised.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.fields.prior_draws import draw_prior
    >>> theta = np.zeros((8, 1, 12, 10)) + np.array([0.5, 1, 0, 0, 0, 0, 1, 0])[:, None, None, None]
    >>> settings = {"sea": np.ones((12, 10), bool), "members": [0, 1], "entropy": 1}
    >>> whole, _ = draw_prior(theta, first=0, steps=5, **settings)
    >>> start, state = draw_prior(theta, first=0, steps=2, **settings)
    >>> rest, _ = draw_prior(theta, state, first=2, steps=3, **settings)
    >>> bool(np.allclose(whole, np.concatenate([start, rest], axis=1), atol=1e-6))
    True
    """
    steps = _checked(theta, sea, steps)
    tiles = _tiles(sea.shape, halo, boundary[1] == "periodic")
    parts = _parted(state, tiles, len(members))
    out = np.zeros((len(members), steps, *sea.shape), dtype=np.float32)
    longest = _longest(theta, sea, alpha)
    for i, (tile, now) in enumerate(zip(tiles, parts, strict=True)):
        wet = tile.cut(sea)
        if not wet.any():
            parts[i] = np.zeros((len(members), tile.nodes))
            continue
        closed = boundary[1] if len(tiles) == 1 else "neumann"
        mesh = Mesh.of(wet.shape, boundary=(boundary[0], closed), land=~wet)
        values = dict(zip(CHANNELS, tile.cut(theta), strict=True))
        parameters = SpdeParameters.of(mesh.shape, **values, land=~wet)
        prior = SpaceTime(SpdeOperator(mesh), parameters, steps=steps, alpha=alpha)
        source = _Noise(entropy, tuple(members), tile, sea.shape)
        held = None if now is None else now.T
        for k in range(steps):
            white = source.of(first + k)
            if held is None:
                held = _start(prior, white, source, longest, whole=len(tiles) == 1)
            else:
                held = _next(prior, k, held, white)
            planes = held.T.reshape(len(members), *mesh.shape)
            out[:, k, *tile.kept] = planes[:, *tile.inner]
        parts[i] = np.ascontiguousarray(held.T)  # type: ignore[union-attr]
    return out, np.concatenate(parts, axis=1)  # type: ignore[arg-type]


def observation_noise(
    entropy: int, members: Sequence[int], first: int, stop: int, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """White noise of the errors of simulated observations, one number for each cell and step.

    Windows and patches that overlap cut theirs from the same planes.

    Parameters
    ----------
    entropy : int
        Of all that is random.
    members : sequence of int
        Their numbers.
    first, stop : int
        Steps of the series.
    shape : (int, int)
        Rows and columns of the whole plane.

    Returns
    -------
    ndarray (K, stop - first, ny, nx) of float32
        Standard normal.

    Examples
    --------
    >>> from xr_spde.fields.prior_draws import observation_noise
    >>> a, b = (observation_noise(1, [3], k, 4, (2, 2)) for k in (0, 2))
    >>> bool((a[:, 2:] == b).all())
    True
    """
    planes = [
        [member_generator(entropy, m, _ERRORS, step).standard_normal(shape, dtype=np.float32)
         for step in range(first, stop)]
        for m in members
    ]  # fmt: skip
    return np.array(planes, dtype=np.float32).reshape(len(members), stop - first, *shape)


def _checked(theta: Float, sea: NDArray[np.bool_], steps: int | None) -> int:
    """Return the number of steps."""
    if theta.ndim != 4 or theta.shape[0] != len(CHANNELS) or theta.shape[2:] != sea.shape:
        raise ParameterError(
            f"theta has shape {theta.shape} and sea {sea.shape}; expected (8, S, ny, nx) and "
            "(ny, nx)"
        )
    given = theta.shape[1]
    steps = given if steps is None else int(steps)
    if given not in (1, steps) or steps < 1:
        raise ParameterError(
            f"theta has {given} steps for a block of {steps}; expected 1 or as many"
        )
    return steps


@dataclass(frozen=True)
class _Noise:
    """White noise of the whole plane, cut for one tile."""

    entropy: int
    members: tuple[int, ...]
    tile: _Tile
    shape: tuple[int, int]

    def of(self, step: int, kind: int = _FIELDS) -> Float:
        """Noise of a step (n, K)."""
        planes = [
            self.tile.cut(member_generator(self.entropy, m, kind, step).standard_normal(self.shape))
            for m in self.members
        ]
        return np.ascontiguousarray(np.reshape(planes, (len(planes), -1)).T)


def _start(prior: SpaceTime, white: Float, source: _Noise, longest: int, *, whole: bool) -> Float:
    """First state (n, K)."""
    if whole:
        try:
            return np.asarray(prior.sea[:, None] * _first_factor(prior).sample(white))
        except SolverError as error:
            warn(f"{error}; the draws are spun up from rest instead")
    # not by a factor of the first precision, whose draws depend on the order of its nodes
    state, number = np.zeros_like(white), 0
    for power in range(longest, -1, -1):
        # long steps have the variance of slow waves right, and shorter ones that of the others
        coarse = SpaceTime(prior.operator, prior.parameters, steps=prior.steps, dt=2.0**power,
                           alpha=prior.alpha)  # fmt: skip
        for _ in range(_FIRST if power == longest else _LATER):
            state = _next(coarse, 0, state, source.of(number, _SPIN_UP))
            number += 1
    return _next(prior, 0, state, white)


def _first_factor(prior: SpaceTime) -> GridFactor:
    """Factor of ``W^1/2 (A'A - I) W^1/2``.

    That is the stationary precision of constant tau, and unlike ``A'W A - W`` exists however tau
    varies; the likelihood by which parameters are found has the same first state.
    """
    root, matrix = sp.diags_array(np.sqrt(prior.weight(0))), prior.transition(0)
    first = sp.csc_array(root @ (matrix.T @ matrix - sp.diags_array(prior.sea)) @ root)
    return prior.factorise(first, prior.coupling, symmetric=True)


def _longest(theta: Float, sea: NDArray[np.bool_], alpha: int) -> int:
    """Power of two of the longest step of a spin-up, about the decay time of the slowest waves."""
    slow = float(np.quantile(theta[0, 0][sea], 0.1)) ** alpha
    return max(math.ceil(-math.log2(slow)), 0)


def _next(prior: SpaceTime, step: int, state: Float, white: Float) -> Float:
    """State (n, K) after one step; white noise drives it."""
    forced = state + white / np.sqrt(prior.weight(step))[:, None]
    return np.asarray(prior.sea[:, None] * prior.factor(step).solve(forced))


def _tiles(shape: tuple[int, int], halo: int, periodic: bool) -> list[_Tile]:
    """Cut a plane from its shape alone: one tile where it is small enough."""
    ny, nx = shape
    if ny * nx <= MOST_NODES:
        whole = (slice(0, ny), slice(0, nx))
        return [_Tile(np.arange(ny), np.arange(nx), whole, whole)]
    side = max(math.isqrt(MOST_NODES) - 2 * halo, 1)
    found = []
    for top, bottom in _edges(ny, side):
        rows = np.arange(max(top - halo, 0), min(bottom + halo, ny))
        for left, right in _edges(nx, side):
            columns = np.arange(left - halo, right + halo)
            if not periodic:
                columns = columns[(columns >= 0) & (columns < nx)]
            inner = tuple(
                slice(start - own[0], stop - own[0])
                for start, stop, own in ((top, bottom, rows), (left, right, columns))
            )
            kept = (slice(top, bottom), slice(left, right))
            found.append(_Tile(rows, columns % nx, inner, kept))  # type: ignore[arg-type]
    return found


def _edges(n: int, side: int) -> list[tuple[int, int]]:
    return list(pairwise(np.linspace(0, n, math.ceil(n / side) + 1).astype(int).tolist()))


def _parted(state: Float | None, tiles: list[_Tile], members: int) -> list[Float | None]:
    """Cut the state of all tiles."""
    if state is None:
        return [None] * len(tiles)
    bounds = np.cumsum([0, *(tile.nodes for tile in tiles)])
    if state.shape != (members, bounds[-1]):
        raise ParameterError(
            f"state has shape {state.shape}; expected ({members}, {bounds[-1]}), as the block "
            "before returned it"
        )
    return [state[:, a:b] for a, b in pairwise(bounds.tolist())]

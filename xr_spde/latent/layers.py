r"""Layers of motion: pieces that move for themselves, and which of them covers which.

A steady velocity bends what lies along the edge of a floe that moves over something else. Where the
motion breaks, the pieces on either side are followed beyond the break instead, each with its own
motion, and both images are divided among them:

.. math::

    \min_p \sum_{i, k, x} p^i_k(x)\, c^i_k(x) + \mu \sum_i \int w(\nabla u_i)\, |\nabla p^i_k|,
    \qquad p \ge 0, \quad \sum_k p_k = 1,

where the cost c of piece k at x is small if both images agree along its motion, and that of being
hidden if the other image shows another piece where it arrives. Boundaries prefer edges of the
image. A piece that is hidden tells which one lies in front, provided that it looks like the piece
it is said to belong to; where that is not so, as in a lead that opens, there are no layers.

References
----------
Wang, J. Y. A. and Adelson, E. H. (1994): Representing moving images with layers. IEEE Trans. Image
Process. 3, 625-638. Chambolle, A. and Pock, T. (2011): A first-order primal-dual algorithm for
convex problems. J. Math. Imaging Vis. 40, 120-145.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    distance_transform_edt,
    gaussian_filter,
    label,
)

from xr_spde.fields.characteristics import departure
from xr_spde.fields.sampling import sample
from xr_spde.latent.pyramid import Pair

__all__ = ["Layers", "Rim", "find_layers"]

Real = NDArray[np.float32]
Mask = NDArray[np.bool_]

_LOG = logging.getLogger(__name__)

_BREAK = 0.15  # departure of the motion from affine within a few cells, in cells
_SCALE = 1.5  # of these few cells
_SHRUNK = 1  # cells that a core keeps from a break
_LEAST = 0.005  # share of the image that a core has, at least
_STIFF = 0.5  # departure from the affine motion of a core that parts it, in cells
_MOST = 6  # cores
_REACH = 6.0  # cells over which departures of a core from affine are continued
_AGREE = 0.1  # difference in standard deviations that counts half as a mismatch, at least
_HIDDEN = 0.5  # cost of a cell that the other image hides
_UNKNOWN = 0.25  # cost of a cell that arrives in a gap or outside, or in the core of another piece
_FAR = 0.003  # cost of each cell that a core is farther away than the nearest one
_LENGTH = 0.6  # cost of a cell of boundary where the image is flat
_SHARP = np.float32(0.2)  # the same across an edge of the image, over that
_BLUR = 0.8  # cells over which costs are averaged
_EDGE = 0.3  # difference of neighbours that is an edge, in standard deviations
_LOOKS = 6.0  # cells over which pieces are compared by their looks
_CLEAR = 0.4  # share of the hidden cells that must tell the order
_BETTER = 0.8  # share of the mismatch of a single motion that layers may leave


@dataclass(frozen=True, eq=False)
class Rim:
    """Cells around one break of the motion.

    Attributes
    ----------
    where : ndarray (ny, nx) of bool
        The cells.
    front : ndarray (k, k) of bool
        ``front[a, b]``: piece a covers piece b there.
    """

    where: Mask
    front: Mask


@dataclass(frozen=True, eq=False)
class Layers:
    """Pieces that two images show.

    Attributes
    ----------
    velocities : ndarray (k, 2, ny, nx)
        Steady velocity of each piece, continued over the whole grid, cells per interval, x first.
    shares : tuple of two ndarray (k, ny, nx)
        How much of a cell each piece has, in either image.
    rims : tuple of Rim
        Where the order of the pieces is clear; there may be no piece elsewhere.
    """

    velocities: Real
    shares: tuple[Real, Real]
    rims: tuple[Rim, ...]

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        parts = (self.velocities, *self.shares, *(rim.where for rim in self.rims))
        return sum(part.nbytes for part in parts)

    def reversed(self) -> Layers:
        """Return the layers from the second image to the first."""
        return replace(self, velocities=-self.velocities, shares=self.shares[::-1])


def find_layers(
    u0: NDArray[np.floating],
    u1: NDArray[np.floating],
    velocity: NDArray[np.floating],
    *,
    periodic_x: bool = False,
) -> Layers | None:
    """Look for pieces that cover each other as they move.

    Parameters
    ----------
    u0, u1 : ndarray (ny, nx)
        Images at the beginning and the end; NaN is missing.
    velocity : ndarray (2, ny, nx)
        Steady velocity between them, in cells per interval, x first.
    periodic_x : bool
        Whether the columns close; layers are then not looked for.

    Returns
    -------
    Layers or None
        None where the motion is in one piece, or the images do not tell what covers what.
    """
    cores = _cores(velocity)
    if len(cores) < 2:
        return None
    if periodic_x:
        _LOG.info("%d pieces of motion; no layers are looked for where x closes", len(cores))
        return None
    pair = Pair.of(u0, u1)
    velocities = np.stack([_continued(velocity, core) for core in cores])
    views = _views(pair, velocities, cores)
    shares = _divided(views, cores)
    broken, count = label(~np.any(cores, axis=0))
    single = _single_mismatch(pair, velocity, views[0].agree)
    evidence = _Evidence.of(views, shares, single)
    rims = []
    for number in range(1, count + 1):
        where = broken == number
        front = evidence.order(where)
        if front is not None:
            rims.append(Rim(where, front))
    _LOG.info("%d pieces of motion; %d of %d breaks in layers", len(cores), len(rims), count)
    return Layers(velocities, shares, tuple(rims)) if rims else None


def _cores(velocity: NDArray[np.floating]) -> list[Mask]:
    """Find connected cells in which the motion is locally affine, off from where it is not."""
    square = np.zeros(velocity.shape[-2:])
    for part in velocity.astype(np.float64):
        mean, along_y, along_x = (
            gaussian_filter(part, _SCALE, order=order, mode="nearest")
            for order in ((0, 0), (1, 0), (0, 1))
        )
        square += gaussian_filter(part**2, _SCALE, mode="nearest") - mean**2
        # of a Gaussian window the best slope is the mean slope
        square -= _SCALE**2 * (along_x**2 + along_y**2)
    calm = binary_erosion(square < _BREAK**2, iterations=_SHRUNK, border_value=1)
    pieces = [part for core in _connected(calm) for part in _parted(velocity, core)]
    return sorted(pieces, key=lambda core: -int(core.sum()))[:_MOST]


def _connected(mask: Mask) -> list[Mask]:
    """Split a mask into connected parts of some size."""
    parts, count = label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    return [parts == k for k in range(1, count + 1) if sizes[k] >= _LEAST * mask.size]


def _parted(velocity: NDArray[np.floating], core: Mask) -> list[Mask]:
    """Part a core that hangs together only where both motions are alike, as at a pivot."""

    def stiff(part: Mask) -> Mask:
        off = np.hypot(*(velocity - _affine(velocity, part)))
        return np.asarray(part & (off < _STIFF))

    rest = binary_erosion(core & ~stiff(core), iterations=_SHRUNK)
    others = [part for part in _connected(rest) if stiff(part).sum() > 0.8 * part.sum()]
    if not others:
        return [core]
    gap = binary_dilation(np.any(others, axis=0), iterations=2 * _SHRUNK)
    return [*_connected(core & ~gap), *others]


def _affine(velocity: NDArray[np.floating], core: Mask) -> NDArray[np.float64]:
    """Affine motion of most of a core, everywhere."""
    ny, nx = core.shape
    y, x = np.mgrid[0:ny, 0:nx] / max(ny, nx)
    basis = np.stack([np.ones(core.shape), x, y]).reshape(3, -1)
    inside = core.ravel().astype(np.float64)
    parts = velocity.reshape(2, -1).astype(np.float64)
    weight = inside
    # cells in one line tell no slope across it: take the smallest
    least = 1e-9 * inside.sum() * np.eye(3)
    for _ in range(10):  # few cells of other motions do not count
        weighted = basis * weight
        found = np.linalg.solve(weighted @ basis.T + least, weighted @ parts.T).T @ basis
        weight = inside / (1 + ((parts - found) ** 2).sum(axis=0) / _STIFF**2)
    return np.asarray(found.reshape(2, ny, nx))


def _continued(velocity: NDArray[np.floating], core: Mask) -> Real:
    """Motion of a core, continued as an affine motion and what is left near it."""
    affine = _affine(velocity, core)
    share = gaussian_filter(core.astype(np.float64), _REACH, mode="nearest")
    near = [gaussian_filter(core * p, _REACH, mode="nearest") for p in velocity - affine]
    return np.asarray(affine + np.stack(near) / (share + 0.05), np.float32)


@dataclass(frozen=True, eq=False)
class _View:
    """What one image says of each piece: where its cells arrive in the other, and how they agree.

    ``agree`` is the difference that counts half.
    """

    image: Real
    to: tuple[Real, Real]
    inside: Mask
    cost: Real
    agree: float

    def arriving(self, shares: Real) -> Real:
        """Shares of the other image where the cells of each piece arrive."""
        return np.asarray(sample(shares, *self.to, kernel="linear"))


def _views(pair: Pair, velocities: Real, cores: list[Mask]) -> list[_View]:
    count, (ny, nx) = len(cores), pair.shape
    images, masks = (pair.u0, pair.u1), (pair.m0, pair.m1)
    found, own = [], []
    for i, span in enumerate((-1.0, 1.0)):
        y, x = departure(velocities, span)
        other, known = (
            np.asarray(sample(np.broadcast_to(f, (count, ny, nx)), y, x, kernel=kernel))
            for f, kernel in ((images[1 - i], "cubic"), (masks[1 - i], "linear"))
        )
        inside = (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)
        inside &= (known > 0.5) & (masks[i] > 0.5)
        off = np.abs(other - images[i])
        own += [off[k][core & inside[k]] for k, core in enumerate(cores)]
        found.append(((y, x), inside, off))
    agree = max(_AGREE, 3 * float(np.median(np.concatenate(own))))
    return [
        _View(images[i], to, inside, np.asarray(_mismatch(off, agree), np.float32), agree)
        for i, (to, inside, off) in enumerate(found)
    ]


def _mismatch(off: Real, agree: float) -> Real:
    """Bounded cost of a difference, of the neighbours too: a cell at an edge is a mixture."""
    cost = off**2 / (off**2 + agree**2)
    return np.asarray(gaussian_filter(cost, _BLUR, mode="nearest", axes=(-2, -1)))


def _single_mismatch(pair: Pair, velocity: NDArray[np.floating], agree: float) -> tuple[Real, Real]:
    """Bounded cost in either image without layers."""
    images, out = (pair.u0, pair.u1), []
    for i, span in enumerate((-1.0, 1.0)):
        there = sample(images[1 - i], *departure(velocity, span))
        out.append(_mismatch(np.abs(there - images[i]), agree))
    return out[0], out[1]


def _divided(views: list[_View], cores: list[Mask]) -> tuple[Real, Real]:
    """Divide both images among the pieces."""
    away = np.stack([distance_transform_edt(~core) for core in cores]).astype(np.float32)
    elsewhere = _UNKNOWN * (np.any(cores, axis=0) & (away > 0)) + _FAR * (away - away.min(axis=0))
    parts = [_Division(view.image, len(cores)) for view in views]
    costs = [np.minimum(view.cost, _HIDDEN) for view in views]
    for count in (100, 40, 40, 40):
        for view, part, cost in zip(views, parts, costs, strict=True):
            part.minimise(np.where(view.inside, cost, _UNKNOWN) + elsewhere, count)
        met = [views[i].arriving(parts[1 - i].shares) for i in range(2)]
        costs = [m * view.cost + (1 - m) * _HIDDEN for m, view in zip(met, views, strict=True)]
    return parts[0].shares, parts[1].shares


class _Division:
    """Primal-dual minimisation of the division of one image, kept between costs."""

    def __init__(self, image: Real, count: int) -> None:
        self.shares = np.full((count, *image.shape), 1 / count, np.float32)
        self._dual = np.zeros((2, *self.shares.shape), np.float32)
        edge = (_forward(image) ** 2).sum(axis=0)
        self._limit = np.float32(_LENGTH / 2) * (np.exp(-edge / (2 * _EDGE**2)) + _SHARP)

    def minimise(self, cost: Real, count: int) -> None:
        """Take steps towards the least cost."""
        step = np.float32(1 / np.sqrt(8))
        ahead = self.shares
        for _ in range(count):
            self._dual += step * _forward(ahead)
            norm = np.sqrt((self._dual**2).sum(axis=0))
            self._dual /= np.maximum(norm / self._limit, 1)
            new = _on_simplex(self.shares + step * (_divergence(self._dual) - cost))
            ahead, self.shares = 2 * new - self.shares, new


def _forward(field: Real) -> Real:
    """Forward differences along x and y (2, ...), zero across a border."""
    out = np.zeros((2, *field.shape), np.float32)
    out[0][..., :-1] = np.diff(field, axis=-1)
    out[1][..., :-1, :] = np.diff(field, axis=-2)
    return out


def _divergence(dual: Real) -> Real:
    """Minus the adjoint of the forward differences."""
    out = np.zeros(dual.shape[1:], np.float32)
    out[..., :-1] += dual[0][..., :-1]
    out[..., 1:] -= dual[0][..., :-1]
    out[..., :-1, :] += dual[1][..., :-1, :]
    out[..., 1:, :] -= dual[1][..., :-1, :]
    return out


def _on_simplex(values: Real) -> Real:
    """Nearest shares that are not negative and sum to one along the first axis.

    Michelot, C. (1986): A finite algorithm for finding the projection of a point onto the canonical
    simplex. J. Optim. Theory Appl. 50, 195-200.
    """
    excess = (values.sum(axis=0) - 1) / np.float32(len(values))
    for _ in range(len(values) - 1):
        above = values > excess
        excess = (np.where(above, values, 0).sum(axis=0) - 1) / above.sum(axis=0, dtype=np.float32)
    return np.asarray(np.maximum(values - excess, 0))


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What both images say about the order, cell by cell.

    ``votes[a][b]`` counts cells of b that a hides, with the sign of their looks; ``hidden`` all
    that are hidden; ``gain`` the mismatch of layers and of one motion.
    """

    votes: NDArray[np.float64]
    hidden: NDArray[np.float64]
    gain: NDArray[np.float64]

    @classmethod
    def of(
        cls, views: list[_View], shares: tuple[Real, Real], single: tuple[Real, Real]
    ) -> _Evidence:
        count, ny, nx = shares[0].shape
        votes, hidden = np.zeros((count, count, ny, nx)), np.zeros((ny, nx))
        gain = np.zeros((2, ny, nx))
        for i, view in enumerate(views):
            own = shares[i] * view.inside
            met = view.arriving(shares[1 - i])
            off = _unlike(view.image, own * met)
            for b in range(count):
                there = sample(shares[1 - i], view.to[0][b], view.to[1][b], kernel="linear")
                for a in range(count):
                    if a != b:
                        lost = own[b] * there[a]
                        looks = (off[a] - off[b]) / np.maximum(off[a] + off[b], 1e-6)
                        votes[a, b] += lost * looks
                        hidden += lost
            covered = own.sum(axis=0)
            gain[0] += (own * (met * view.cost + (1 - met) * _HIDDEN)).sum(axis=0)
            gain[1] += covered * single[i]
        return cls(votes, hidden, gain)

    def order(self, where: Mask) -> Mask | None:
        """Which piece covers which around one break, or None where that is not told."""
        votes, hidden = self.votes[..., where].sum(axis=-1), float(self.hidden[where].sum())
        layered, single = self.gain[:, where].sum(axis=-1)
        net = votes - votes.T
        clear = float(np.maximum(net, 0).sum())
        _LOG.debug("order %.2f of %.0f hidden; mismatch %.1f for %.1f", clear / max(hidden, 1e-9),
                   hidden, layered, single)  # fmt: skip
        if clear < _CLEAR * hidden or layered > _BETTER * single or hidden == 0:
            return None
        return np.asarray(net > 0)


def _unlike(image: Real, members: Real) -> Real:
    """Difference of an image from the members of each piece around."""
    share = np.stack([gaussian_filter(m, _LOOKS, mode="nearest") for m in members])
    mean = np.stack([gaussian_filter(m * image, _LOOKS, mode="nearest") for m in members])
    return np.asarray(np.abs(image - mean / np.maximum(share, 1e-6)))

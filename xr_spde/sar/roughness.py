"""Roughness of maps: weights that the data choose, the same everywhere or lower across jumps.

A map x on the nodes of a lattice has the prior precision ``a D'WD + b L'L``, with D the differences
of neighbours and ``L = D'D``. W is the identity, and both weights move to a fixed point of the
marginal likelihood (MacKay 1992), with traces by random probes. Where maps may jump, b is next to
nothing and W weighs every edge: under a Student prior of nu degrees of freedom for its difference

    w = (nu + 1) / (nu + E[a (Dx)^2]) ,

the mean being over the posterior, so that coasts and fronts keep their jump and what lies between
is smoothed all the more (Lange, Little and Taylor 1989; Bishop 2006, section 10.1).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde.sar.smooth import NodeGrid, NodePairs
from xr_spde.solvers.strips import BandedFactor, strips

Float = NDArray[np.float64]

# nearly without scale: whatever its height, a jump costs about the same
_NU = 0.1
_LEAST, _MOST = 1e-3, 1e5  # bounds of the weights
_RIGID = 1e9


class Roughness:
    """Penalty of the maps of several parameters on the nodes of one lattice.

    Parameters
    ----------
    grid : NodeGrid
        The lattice.
    penalty : ndarray (P, 2)
        Weights of first- and second-order roughness of every map, to begin with.
    jumps : bool
        Whether maps may jump.
    constant : int
        The first so many maps are kept constant.

    Attributes
    ----------
    penalty : ndarray (P, 2)
        The weights at present.
    edges : ndarray (P, edges)
        Further weights of the differences; ones until `adapt` finds others.
    """

    def __init__(
        self, grid: NodeGrid, penalty: Float, *, jumps: bool = False, constant: int = 0
    ) -> None:
        self.grid, self.penalty, self.jumps, self.constant = grid, penalty, jumps, constant
        penalty[:constant] = _RIGID, _LEAST
        self.edges = np.ones((len(penalty), len(grid.differences.indptr) - 1))
        self.pairs = NodePairs.of(grid.differences), NodePairs.of(grid.membrane)
        self._ends = grid.differences.indices.reshape(-1, 2)
        self._order, _ = strips(grid.shape, periodic=(False, grid.periodic), reach=2)

    def weights(self, p: int) -> tuple[Float, Float]:
        """Weights of every difference (edges,) and every Laplacian (k,)."""
        first, second = self.penalty[p]
        return first * self.edges[p], np.full(self.grid.size, second)

    def value(self, nodes: Float) -> float:
        """Half the weighted sum of squares of node values (P, k)."""
        total = 0.0
        for p, values in enumerate(nodes):
            first, second = self.weights(p)
            total += 0.5 * float(first @ (self.grid.differences @ values) ** 2)
            total += 0.5 * float(second @ (self.grid.membrane @ values) ** 2)
        return total

    def slope(self, nodes: Float) -> Float:
        """Gradient of `value` (P, k)."""
        d, m = self.grid.differences, self.grid.membrane
        out = np.empty_like(nodes)
        for p, values in enumerate(nodes):
            first, second = self.weights(p)
            out[p] = d.T @ (first * (d @ values)) + m @ (second * (m @ values))
        return out

    def entries(self) -> list[Float]:
        """Entries (P, pairs) of the precision, of first and second order, in `pairs`' places."""
        weights = [self.weights(p) for p in range(len(self.penalty))]
        return [
            np.stack([pairs.matrix @ one[order] for one in weights])
            for order, pairs in enumerate(self.pairs)
        ]

    def renew(self, nodes: Float, solved: Float, probes: Float) -> Float:
        """Weights one step nearer to a maximum of the marginal likelihood.

        Parameters
        ----------
        nodes : ndarray (P, k)
            Node values.
        solved, probes : ndarray (P, k, probes)
            Random signs, and the posterior covariance times them.

        Returns
        -------
        ndarray (P, 2)
            The caller decides whether to take them.
        """
        new = self.penalty.copy()
        for p in range(self.constant, len(nodes)):
            free = self._free(p, probes[p])
            bound, found = self._mean_energy(p, solved[p], probes[p]), self._energy(p, nodes[p])
            for order in (0, 1):
                old = self.penalty[p, order]
                share = max(free[order] - bound[order], 1e-3 * free[order])
                pace = np.clip(np.log(share / max(found[order], 1e-9 * old)), -1.5, 1.5)
                new[p, order] = np.clip(old * np.exp(pace), _LEAST, _MOST)
        if self.jumps:
            new[self.constant :, 1] = _LEAST
        return new

    def adapt(self, nodes: Float, solved: Float, probes: Float) -> None:
        """Weigh every edge by the difference that is expected there.

        Parameters
        ----------
        nodes, solved, probes
            As for `renew`.
        """
        from scipy.ndimage import uniform_filter1d

        d, shape = self.grid.differences, self.grid.shape
        ends = self._ends.ravel()
        for p in range(self.constant, len(nodes)):
            first = self.penalty[p, 0]
            left = first * ((d @ solved[p]) * (d @ probes[p])).mean(-1)
            # few probes are noisy, and what is left to chance varies slowly
            around = np.bincount(ends, np.repeat(left, 2)) / np.bincount(ends)
            around = uniform_filter1d(around.reshape(shape), 5, axis=0, mode="nearest")
            around = uniform_filter1d(
                around, 5, axis=1, mode="wrap" if self.grid.periodic else "nearest"
            ).ravel()
            spread = np.clip(around, 0.0, 1.0)[self._ends].mean(axis=1)
            expected = first * (d @ nodes[p]) ** 2 + spread
            self.edges[p] = (_NU + 1.0) / (_NU + expected)

    def degrees(self, p: int, solved: Float, probes: Float) -> float:
        """Effective number of node values of one map that the data determine.

        Parameters
        ----------
        p : int
            Number of the map.
        solved, probes : ndarray (k, probes)
            Random vectors of mean zero over the nodes and unit variance, and the covariance of this
            map times them.

        Returns
        -------
        float
            Trace of the identity less the covariance times the prior precision. Constants, which
            cost nothing, count as one exactly.
        """
        first, second = self._mean_energy(p, solved, probes)
        return 1.0 + float((probes**2).sum(axis=0).mean()) - first - second

    def _energy(self, p: int, values: Float) -> tuple[float, float]:
        """Weighted roughness of both orders."""
        first, second = self.weights(p)
        d, m = self.grid.differences, self.grid.membrane
        return float(first @ (d @ values) ** 2), float(second @ (m @ values) ** 2)

    def _mean_energy(self, p: int, solved: Float, probes: Float) -> tuple[float, float]:
        """Trace of the covariance times the precision of either order."""
        first, second = self.weights(p)
        d, m = self.grid.differences, self.grid.membrane
        return (
            float((first @ ((d @ solved) * (d @ probes))).mean()),
            float((second @ ((m @ solved) * (m @ probes))).mean()),
        )

    def _free(self, p: int, probes: Float) -> tuple[float, float]:
        """Trace of the prior covariance times the precision of either order; k - 1 in sum."""
        first, second = self.penalty[p]
        if not self.jumps:
            modes = self.grid.spectrum
            share = first / (first + second * modes)
            return float(share.sum()), float((1.0 - share).sum())
        size = self.grid.size
        rows, columns = np.concatenate([[q.rows, q.columns] for q in self.pairs], axis=1)
        data = np.concatenate(
            [q.matrix @ w for q, w in zip(self.pairs, self.weights(p), strict=True)]
        )
        # constants cost nothing: without a floor the matrix is singular
        floor = sp.eye_array(size) * (1e-6 * (first + second))
        prior = sp.csc_array(sp.coo_array((data, (rows, columns)), shape=(size, size)) + floor)
        return self._mean_energy(p, BandedFactor(prior, self._order).solve(probes), probes)

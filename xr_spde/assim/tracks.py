"""Errors that are correlated along tracks, at a cost that grows with their number alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cholesky_banded, solve_banded

from xr_spde._core.errors import ParameterError
from xr_spde.assim.arrays import namespace, to_host
from xr_spde.assim.noise import SparseForm

__all__ = ["TrackErrors"]

Float = NDArray[np.float64]


class TrackErrors:
    """Errors along tracks, part of which is correlated; work and memory grow with p alone.

    The covariance of two observations of one track, a distance s apart along it, is
    ``std_i std_j (share exp(-s / length) + (1 - share) [i = j])``; tracks are independent. In the
    order of the tracks, differences ``u_k - rho_k u_{k-1}`` of what is left of errors over their
    std have a tridiagonal covariance, whose Cholesky factor is bidiagonal.

    Parameters
    ----------
    std : array_like (p,)
        Standard deviations, > 0.
    steps : array_like (p,)
        Distance along the track from anywhere on it.
    track : array_like (p,)
        Number or name of the track of each observation.
    length : float
        Distance at which the correlation has fallen to 1 / e.
    share : float, default 1
        Share of the variance that is correlated, in (0, 1].

    Attributes
    ----------
    std, steps, track, length, share
        As given; tracks are numbered.

    Raises
    ------
    ParameterError
        If R is not positive definite.
    """

    def __init__(
        self,
        std: ArrayLike,
        steps: ArrayLike,
        track: ArrayLike,
        *,
        length: float,
        share: float = 1.0,
    ) -> None:
        self.std, self.steps = (np.asarray(a, dtype=np.float64) for a in (std, steps))
        _, self.track = np.unique(np.asarray(track), return_inverse=True)
        self.length, self.share = length, share
        order = np.lexsort((self.steps, self.track))
        self._order, scale = order, self.std[order]
        self.variance = self.std**2
        apart = np.diff(self.steps[order], prepend=0.0) / length
        same = np.diff(self.track[order], prepend=-1) == 0
        self._rho = np.where(same, np.exp(-np.abs(apart)), 0.0)
        self._rho[self._rho < np.finfo(float).eps ** 2] = 0.0  # lost in rounding, and sparse
        fresh = np.where(same, -np.expm1(-2.0 * np.abs(apart)), 1.0)
        self._band = np.zeros((2, order.size))
        self._band[0] = share * fresh + (1.0 - share) * (1.0 + self._rho**2)
        self._band[1, :-1] = -(1.0 - share) * self._rho[1:]
        try:
            self._root = cholesky_banded(self._band, lower=True)
        except np.linalg.LinAlgError as error:
            raise ParameterError(
                f"the error covariance along {self.track.max() + 1} tracks of {order.size} "
                "observations is not positive definite; where two observations of a track share "
                "one place, part of their errors must be independent, such as share=0.9"
            ) from error
        self._logdet = 2.0 * float(np.log(self._root[0]).sum() + np.log(scale).sum())

    def whiten(self, x: Any) -> Any:
        """Return ``L^-1 x`` for x (..., p), L the Cholesky factor in the order of the tracks.

        An observation is whitened with those before it on its track. Found on the host, wherever x
        is.
        """
        xp, given = namespace(x), to_host(x)
        scaled = (given[..., self._order] / self.std[self._order]).reshape(-1, self._rho.size).T
        turned = scaled.astype(np.float64)
        turned[1:] -= self._rho[1:, None] * scaled[:-1]
        out = np.empty(given.shape, dtype=given.dtype)
        solved = solve_banded((1, 0), self._root, turned)
        out[..., self._order] = solved.T.reshape(given.shape)
        return out if xp is np else xp.asarray(out)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> Float:
        """Draw errors, shape ``(*shape, p)``."""
        return self.colour(rng.standard_normal((*shape, self._rho.size)))

    def colour(self, white: Float) -> Float:
        """Turn white noise (..., p) into errors."""
        columns = white[..., self._order].reshape(-1, self._rho.size).T
        fresh = self._root[0][:, None] * columns
        fresh[1:] += self._root[1, :-1, None] * columns[:-1]
        unit = np.stack([np.ones_like(self._rho), -np.append(self._rho[1:], 0.0)])
        out = np.empty(white.shape)
        errors = solve_banded((1, 0), unit, fresh) * self.std[self._order][:, None]
        out[..., self._order] = errors.T.reshape(white.shape)
        return out

    def logdet(self) -> float:
        """Natural logarithm of ``|R|``."""
        return self._logdet

    def sparse_form(self) -> SparseForm:
        """Return R as sparse matrices; see :class:`SparseForm`."""
        count, scale = self._rho.size, self.std[self._order]
        unit = sp.csr_array((1.0 / scale, (np.arange(count), self._order)), shape=(count, count))
        before: Any = sp.diags_array([-self._rho[1:]], offsets=[-1], shape=(count, count))
        turn = sp.csr_array(unit + before @ unit)
        off: Any = sp.diags_array([self._band[1, :-1]], offsets=[-1], shape=(count, count))
        rest = sp.csr_array(sp.diags_array(self._band[0]) + off + off.T)
        turn.eliminate_zeros()
        rest.eliminate_zeros()
        return SparseForm(turn, rest, -float(np.log(scale).sum()))

    def select(self, keep: Any) -> TrackErrors:
        """Return the errors of some observations, given by a mask (p,) or indices."""
        kept = np.arange(self._rho.size)[np.asarray(keep)]
        return TrackErrors(
            self.std[kept],
            self.steps[kept],
            self.track[kept],
            length=self.length,
            share=self.share,
        )

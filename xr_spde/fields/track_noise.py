"""Errors along tracks that are correlated over a length: their sparse precision."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.spde_evidence import CorrelatedErrors

__all__ = ["TrackNoise"]

Float = NDArray[np.float64]


class TrackNoise:
    """Errors of covariance ``std_i std_j exp(-s / length)`` at the distance s along one track.

    Tracks are independent. Along a track the errors are a Markov chain, whose precision is
    tridiagonal: ``U' F^-1 U`` with the differences ``U e = e_k - rho_k e_{k-1}`` and their
    variances F.

    Parameters
    ----------
    distance : ndarray (p,)
        Metres along the track from anywhere on it.
    track : array_like (p,)
        Number or name of the track of each observation.

    Raises
    ------
    ParameterError
        If two observations of a track share one place.
    """

    def __init__(self, distance: Float, track: ArrayLike) -> None:
        _, number = np.unique(np.asarray(track), return_inverse=True)
        order = np.lexsort((distance, number))
        self.apart = np.diff(distance[order], prepend=0.0)
        self.same = np.diff(number[order], prepend=-1) == 0
        twins = int((self.same & ~(self.apart > 0.0)).sum())
        if twins:
            raise ParameterError(
                f"{twins} of {order.size} observations share their place with another of the same "
                "track; errors that are correlated along tracks need places that differ: average "
                "the observations, or give the tracks other names"
            )
        self.order = order

    def errors(self, std: ArrayLike, length: float) -> CorrelatedErrors:
        """Precision for a standard deviation and a length.

        Parameters
        ----------
        std : float or ndarray (p,)
            In units of the observations.
        length : float
            Metres.

        Returns
        -------
        CorrelatedErrors
            With the derivatives by the logarithms of `std` (of all) and `length`.
        """
        p = self.order.size
        scale = np.broadcast_to(np.asarray(std, dtype=np.float64), (p,))[self.order]
        rho = np.where(self.same, np.exp(-self.apart / length), 0.0)
        fresh = np.where(self.same, -np.expm1(-2.0 * self.apart / length), 1.0)
        by_rho = np.where(self.same, rho * self.apart / length, 0.0)  # by the log of the length
        by_fresh = -2.0 * rho * by_rho
        before = sp.csr_array(sp.diags_array(np.ones(p - 1), offsets=-1, shape=(p, p)))
        unit = sp.eye_array(p) - sp.diags_array(rho) @ before
        turned = -sp.diags_array(by_rho) @ before
        weighed = sp.diags_array(1.0 / fresh) @ unit
        bent = turned.T @ weighed
        bent = bent + bent.T - weighed.T @ sp.diags_array(by_fresh) @ weighed
        # from the order of the tracks to that of the observations
        place = sp.csr_array((1.0 / scale, (np.arange(p), self.order)), shape=(p, p))
        precision, slope = (
            sp.csr_array(place.T @ inner @ place) for inner in (unit.T @ weighed, bent)
        )
        logdet = -float(np.log(fresh).sum() + 2.0 * np.log(scale).sum())
        slopes = (-2.0 * precision, -2.0 * p), (slope, -float(np.sum(by_fresh / fresh)))
        root = sp.csr_array(sp.diags_array(fresh**-0.5) @ unit @ place)
        return CorrelatedErrors(precision, logdet, slopes, root)

"""The local likelihood of every cell; what its fits are told and what they give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.green import tensor_of_log
from xr_spde.fields.symbol import log_symbol_mean

Float = NDArray[np.float64]


@dataclass(frozen=True)
class LocalModel:
    """What the likelihood is told about the domain.

    Attributes
    ----------
    boundary : str
        Boundary rule of the domain.
    buffer : int or "auto"
        Cells between the grid and that boundary on sides that are not periodic.
    dilation : int
        Cells between the neighbours of the stencil that the moments belong to.
    penalty : float or None
        Fixed weight of the second-order roughness of every map; None chooses from the data.
    corrections : int
        Rounds in which the log-determinant is corrected for boundaries and transitions.
    jumps : bool
        Whether the maps may jump, see `xr_spde.sar.roughness`.
    structure : str
        Of range and anisotropy; "stationary" in it keeps their maps constant, "isotropic" the
        anisotropy away. The innovations' variance varies in any case.
    """

    boundary: str = "plane"
    buffer: int | str = "auto"
    dilation: int = 1
    penalty: float | None = None
    corrections: int = 3
    jumps: bool = False
    structure: str = "nonstationary"

    @property
    def periodic(self) -> bool:
        """Whether columns wrap around."""
        return self.boundary != "plane"


@dataclass(frozen=True)
class LocalFit:
    """Maps of the fitted parameters, in grid-cell units of the full grid.

    Attributes
    ----------
    log_kappa2, h1, h2, log_innovation : ndarray (ny, nx)
        The four maps; log kappa2 already freed of the dilation.
    penalty : ndarray (4, 2)
        Weights of first- and second-order roughness.
    covariance : ndarray (3, 3, ny, nx) or None
        Posterior covariance of the first three.
    """

    log_kappa2: Float
    h1: Float
    h2: Float
    log_innovation: Float
    penalty: Float
    covariance: Float | None = None


@dataclass(frozen=True)
class ExactFit(LocalFit):
    """Maps of the fitted parameters, and what else the exact likelihood says.

    Attributes
    ----------
    log_likelihood : float
        Exact log-likelihood at the fit, without penalty.
    error : float or None
        Bound of what windows leave out of it; None without any.
    degrees : float
        Effective number of parameters that have been fitted.
    nugget : float
        Variance of the observations' noise; 0 if none was asked for.
    coefficients, coefficients_stderr : ndarray (P,)
        Of the covariates.
    """

    log_likelihood: float = np.nan
    error: float | None = None
    degrees: float = np.nan
    nugget: float = 0.0
    coefficients: Float | None = None
    coefficients_stderr: Float | None = None


class Local:
    """Likelihood of every cell at given values of its four parameters.

    Parameters
    ----------
    u : ndarray (4, cells)
        log kappa2, log rho cos 2 theta, log rho sin 2 theta, log d.
    gram : ndarray (4, 4, cells)
        Second moments of the stencil's features.
    """

    def __init__(self, u: Float, gram: Float) -> None:
        self.q, self.jacobian = q_of(u[:3]), jacobian_of(u[:3])
        # a trial step may go far beyond; it must be a number to be refused
        self.precision = np.exp(np.minimum(-u[3], 600.0))
        self.log_d = u[3]
        self.moments = np.einsum("abn,bn->an", gram, self.q)
        self.gram = gram
        self.quadratic = self.precision * np.einsum("an,an->n", self.q, self.moments)

    def value_and_slope(self, response: Float) -> tuple[Float, Float]:
        """Return the negative log-likelihood per cell and its gradient.

        Parameters
        ----------
        response : ndarray (cells,)
            Correction of the derivative of the log-determinant with respect to kappa2
            (`xr_spde.fields.green.excess_response`).

        Returns
        -------
        value : ndarray (cells,)
        slope : ndarray (4, cells)
        """
        mean, slopes = log_symbol_mean(*self.q)
        slope_q = self.precision * self.moments - np.stack(slopes)
        slope_q[0] -= response
        value = -mean - response * self.q[0] + 0.5 * self.log_d + 0.5 * self.quadratic
        slope = np.empty((4, value.size))
        slope[:3] = np.einsum("pan,an->pn", self.jacobian, slope_q)
        slope[3] = 0.5 - 0.5 * self.quadratic
        return value, slope

    def information(self) -> Float:
        """Return the expected information, with the data's own moments.

        Returns
        -------
        ndarray (4, 4, cells)
        """
        out = np.empty((4, 4, self.log_d.size))
        half = np.einsum("abn,pbn->pan", self.gram, self.jacobian)
        out[:3, :3] = 2.0 * self.precision * np.einsum("pan,qan->pqn", self.jacobian, half)
        cross = -self.precision * np.einsum("pan,an->pn", self.jacobian, self.moments)
        out[:3, 3] = out[3, :3] = cross
        out[3, 3] = 0.5 * np.maximum(self.quadratic, 0.1)
        return out


def q_of(u: Float) -> Float:
    """Compute (kappa2, hxx, hyy, hxy) from (log kappa2, h1, h2).

    Parameters
    ----------
    u : ndarray (3, cells)

    Returns
    -------
    ndarray (4, cells)
    """
    return np.stack([np.exp(u[0]), *tensor_of_log(u[1], u[2])])


def jacobian_of(u: Float) -> Float:
    """Differentiate `q_of`.

    Parameters
    ----------
    u : ndarray (3, cells)

    Returns
    -------
    ndarray (3, 4, cells)
    """
    h1, h2 = u[1], u[2]
    log_rho = np.maximum(np.hypot(h1, h2), 1e-4)
    ratio = np.sinh(log_rho) / log_rho
    bend = (np.cosh(log_rho) - ratio) / log_rho**2
    zero = np.zeros_like(h1)
    by_kappa2 = [np.exp(u[0]), zero, zero, zero]
    by_h1 = [zero, ratio * h1 + ratio + bend * h1**2, ratio * h1 - ratio - bend * h1**2]
    by_h1.append(bend * h1 * h2)
    by_h2 = [zero, ratio * h2 + bend * h1 * h2, ratio * h2 - bend * h1 * h2]
    by_h2.append(ratio + bend * h2**2)
    return np.stack([np.stack(by_kappa2), np.stack(by_h1), np.stack(by_h2)])

r"""Covariance and precision of the stationary space-time prior, mode by mode.

With constant kappa, tau and diagonal H on cells of unit size, the second differences of each axis
have known eigenvectors: cosines where nothing flows across the edges (the mirrored domain), sines
where the field is zero beyond them, and sines and cosines around a closed axis. In their basis

.. math::

    b = (\kappa^2 + H_{11} \lambda_x + H_{22} \lambda_y)^{\alpha/2}, \qquad \phi = 1 / (1 + b),

every mode is an autoregression in time with the factor :math:`\phi` and the variance
:math:`\tau^2 \phi^2 / (1 - \phi^2)`, so that products with its covariance take one sweep forward
and one back, and those with its precision touch neighbouring steps alone. The transforms are
products with dense matrices: as fast as a fast transform at the sizes of patches, for any number of
rows and columns.

References
----------
Rue and Held (2005), Gaussian Markov Random Fields, section 2.6; Strang (1999), The discrete cosine
transform, SIAM Rev. 41.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from xr_spde._core.errors import ParameterError, unknown

__all__ = ["CHANNELS", "DEFAULTS", "StationaryPrior", "constant_theta"]

CHANNELS = ("kappa", "tau", "m1", "m2", "v1", "v2", "gamma", "beta")
"""Order of the SPDE parameters in a tensor theta (B, 8, S, ny, nx)."""

DEFAULTS: Mapping[str, float] = {"kappa": 0.33, "tau": 1.0, "gamma": 1.0}
"""In cells and steps; what is not named is zero."""

BOUNDARIES = ("neumann", "dirichlet", "periodic")


def constant_theta(given: Mapping[str, float] | Sequence[float] | None) -> dict[str, float]:
    """Complete constant parameters of the SPDE, in cells and steps.

    Parameters
    ----------
    given : mapping or sequence of eight numbers, optional
        By name, the others as :data:`DEFAULTS`; or all in the order of :data:`CHANNELS`.

    Returns
    -------
    dict of str to float

    Raises
    ------
    ParameterError
        For other names or numbers, or values with which the operator is not elliptic.
    """
    if given is not None and not isinstance(given, Mapping):
        if len(given) != len(CHANNELS):
            raise ParameterError(f"theta has {len(given)} numbers; expected {CHANNELS}")
        given = dict(zip(CHANNELS, given, strict=True))
    if strange := sorted(set(given or ()) - set(CHANNELS)):
        raise ParameterError(f"theta has {strange}; known are {CHANNELS}")
    found = dict.fromkeys(CHANNELS, 0.0) | dict(DEFAULTS)
    found |= {name: float(value) for name, value in (given or {}).items()}
    least = found["gamma"] + min(found["beta"] * (found["v1"] ** 2 + found["v2"] ** 2), 0.0)
    good = min(found["kappa"], found["tau"], found["gamma"], least) > 0.0
    if not (good and all(math.isfinite(value) for value in found.values())):
        raise ParameterError(
            f"theta={found}; expected finite numbers with positive kappa, tau and "
            "H = gamma I + beta v v'"
        )
    return found


@lru_cache(maxsize=64)
def _basis(
    n: int, boundary: str, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Orthonormal columns (n, n) and eigenvalues (n,) of minus the second difference."""
    matrix = 2.0 * torch.eye(n, dtype=torch.float64)
    matrix -= torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1)
    if boundary == "neumann":
        matrix[0, 0] -= 1.0
        matrix[-1, -1] -= 1.0
    elif boundary == "periodic":
        matrix[0, -1] -= 1.0
        matrix[-1, 0] -= 1.0
    # what is cached must serve graphs of gradients too
    with torch.inference_mode(False):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors.to(device, dtype), values.clamp_min(0.0).to(device, dtype)


class StationaryPrior:
    """The prior of constant parameters on one domain, the mixed term and the advection left out.

    Parameters
    ----------
    kappa, tau, h11, h22 : Tensor (B,) or ()
        Constants of each window, in cells and steps.
    shape : tuple of int
        ``(ny, nx)``.
    alpha : {2, 4}
        Power of the operator.
    boundary : {"neumann", "dirichlet", "periodic"}
        On all edges.

    Attributes
    ----------
    factor, variance : Tensor (B, ny, nx) or (ny, nx)
        Of the autoregression of each mode.

    Raises
    ------
    UnknownNameError
        For another boundary.

    Examples
    --------
    >>> import torch
    >>> from xr_spde.nets.stationary import StationaryPrior
    >>> one, kappa = torch.tensor(1.0), torch.tensor(0.33)
    >>> prior = StationaryPrior(kappa, one, one, one, (64, 64), alpha=4, boundary="periodic")
    >>> print(f"{prior.variance.mean():.4f}")  # of the field, at every cell
    0.3332
    """

    def __init__(
        self,
        kappa: Tensor,
        tau: Tensor,
        h11: Tensor,
        h22: Tensor,
        shape: tuple[int, int],
        *,
        alpha: int,
        boundary: str = "neumann",
    ) -> None:
        if boundary not in BOUNDARIES:
            raise unknown("boundary", boundary, BOUNDARIES)
        device, dtype = kappa.device, kappa.dtype
        self._rows, values_y = _basis(shape[0], boundary, device, dtype)
        self._columns, values_x = _basis(shape[1], boundary, device, dtype)
        kappa, tau, h11, h22 = (value[..., None, None] for value in (kappa, tau, h11, h22))
        symbol = kappa**2 + h11 * values_x + h22 * values_y[:, None]
        drift = symbol ** (alpha // 2)
        self.factor = 1.0 / (1.0 + drift)
        # 1 - factor^2 without the cancellation of slow modes
        self.variance = tau**2 * self.factor**2 / (drift * self.factor * (1.0 + self.factor))
        self._powers: dict[float, Tensor] = {1.0: self.variance}

    def _to_modes(self, x: Tensor) -> Tensor:
        return self._rows.T @ x @ self._columns

    def _from_modes(self, modes: Tensor) -> Tensor:
        return self._rows @ modes @ self._columns.T

    def covariance(self, x: Tensor, power: float = 1.0) -> Tensor:
        """Product of the covariance with fields.

        Parameters
        ----------
        x : Tensor (B, T, ny, nx)
            Any.
        power : float, default 1.0
            Of the variances of the modes: below one, small scales are kept more.

        Returns
        -------
        Tensor (B, T, ny, nx)
        """
        modes = self._to_modes(x).unbind(1)
        later, earlier = [modes[0]], [modes[-1]]
        for step in modes[1:]:
            later.append(step + self.factor * later[-1])
        for step in modes[-2::-1]:
            earlier.append(step + self.factor * earlier[-1])
        both = [a + b - c for a, b, c in zip(later, earlier[::-1], modes, strict=True)]
        if power not in self._powers:
            self._powers[power] = self.variance**power
        return self._from_modes(self._powers[power][..., None, :, :] * torch.stack(both, 1))

    def precision(self, x: Tensor) -> Tensor:
        """Product of the precision with fields, the inverse of :meth:`covariance`.

        Parameters
        ----------
        x : Tensor (B, T, ny, nx)
            Any.

        Returns
        -------
        Tensor (B, T, ny, nx)
        """
        modes = self._to_modes(x)
        phi = self.factor[..., None, :, :]
        share = (1.0 - phi**2).sqrt()
        noise = torch.cat([share * modes[:, :1], modes[:, 1:] - phi * modes[:, :-1]], 1)
        noise = noise / (self.variance[..., None, :, :] * share**2)
        own = torch.cat([share * noise[:, :1], noise[:, 1:]], 1)
        back = torch.cat([phi * noise[:, 1:], torch.zeros_like(noise[:, :1])], 1)
        return self._from_modes(own - back)

    def gain(self, steps: int, power: float = 1.0) -> Tensor:
        """Root mean square of the covariance's product with white noise of unit variance.

        Parameters
        ----------
        steps : int
            Of the window.
        power : float, default 1.0
            Of the variances of the modes.

        Returns
        -------
        Tensor (B,) or ()
        """
        lags = [(steps - k) * (1 if k == 0 else 2) * self.factor ** (2 * k) for k in range(steps)]
        squared = self.variance ** (2.0 * power) * torch.stack(lags).sum(0) / steps
        return squared.mean((-2, -1)).sqrt()

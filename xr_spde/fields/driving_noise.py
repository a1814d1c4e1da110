r"""Driving noise that is white in time and smooth in space.

The noise of a step is ``S^-1`` times white noise, with :math:`S = (1 - l^2 \Delta)^{a/2}` and
:math:`a` = 2 or 4: a Matern field of length l, which tends to white noise as l tends to zero. Its
precision is as sparse as S, so that nothing is approximated.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855; Clarotto et al. (2024), Spat. Stat. 62.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.solvers.grid_factor import GridFactor

__all__ = ["NOISE_ALPHAS", "ColouredNoise"]

Float = NDArray[np.float64]

NOISE_ALPHAS = (2, 4)
"""Powers of the smoothing."""


class ColouredNoise:
    """Smoothing of white noise on a mesh.

    Parameters
    ----------
    mesh : Mesh
        Boundaries and coasts are those of the field.
    length : float
        Of the smoothing, in metres, > 0.
    alpha : {2, 4}, default 2
        Power.

    Attributes
    ----------
    matrix : csr_array (n, n)
        S, the identity on land.
    reach : int
        Largest distance of nodes that it couples.

    Raises
    ------
    ParameterError
        For a length that is not positive.
    UnknownNameError
        For another power.
    """

    def __init__(self, mesh: Mesh, length: float, alpha: int = 2) -> None:
        if not (math.isfinite(length) and length > 0.0):
            raise ParameterError(f"length={length!r} of the noise; expected metres > 0")
        if alpha not in NOISE_ALPHAS:
            raise unknown("noise_alpha", alpha, map(str, NOISE_ALPHAS))
        self.mesh, self.length, self.alpha = mesh, float(length), int(alpha)
        self.reach = self._power = self.alpha // 2
        plain = SpdeParameters.of(mesh.shape, kappa=1.0, gamma=self.length**2)
        once = SpdeOperator(mesh).matrix(plain.coefficients())
        self._once = sp.csc_array(once + sp.diags_array(1.0 - mesh.sea))
        self.matrix = sp.csr_array(self._once if self._power == 1 else self._once @ self._once)

    @cached_property
    def _factor(self) -> GridFactor:
        mesh = self.mesh
        return GridFactor(self._once, shape=mesh.shape, boundary=mesh.topology, reach=1)

    def solve(self, white: Float) -> Float:
        """Smooth white noise.

        Parameters
        ----------
        white : ndarray (n, K)
            Columns do not depend on one another.

        Returns
        -------
        ndarray (n, K)
        """
        for _ in range(self._power):
            white = self._factor.solve(np.ascontiguousarray(white))
        return white

    def log_determinant(self) -> float:
        """Logarithm of the determinant of S."""
        return self._power * self._factor.slogdet()[1]

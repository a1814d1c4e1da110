"""Powers of an affine map that the calendar forces: linear dynamics over times of any length."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.codes import Forcing
from xr_spde._core.errors import ParameterError

__all__ = ["LinearFlow"]

LOGGER = logging.getLogger(__name__)

_KEPT = 128


class LinearFlow:
    """The map ``z -> A z + B f + b`` of one step, and of steps of any other length.

    Code, features of forcing and the number one together, y, are carried by a matrix M: features
    turn at a constant rate. Powers of M that are not whole are ``expm(dt logm(M))``.

    Parameters
    ----------
    rows : array_like (n, n + forcing.size + 1)
        A, B and b side by side.
    forcing : Forcing, optional
        By the calendar.

    Raises
    ------
    ParameterError
        For shapes that do not fit, or numbers that are not finite.
    """

    def __init__(self, rows: ArrayLike, forcing: Forcing | None = None) -> None:
        self.rows = np.array(rows, dtype=np.float64, order="C")
        self.n, self.forcing = len(self.rows), forcing
        size = self.n + 1 + (0 if forcing is None else forcing.size)
        if self.rows.shape != (self.n, size):
            raise ParameterError(
                f"rows of a linear map have shape {self.rows.shape}; expected ({self.n}, {size})"
            )
        if not np.isfinite(self.rows).all():
            raise ParameterError("the linear map has numbers that are not finite")
        self._logarithm: NDArray[Any] | None = None
        self._powers: dict[float, NDArray[np.float64]] = {}

    def matrix(self) -> NDArray[np.float64]:
        """Give the matrix M of one step."""
        import scipy.linalg

        M = np.eye(self.rows.shape[1])
        M[: self.n] = self.rows
        if self.forcing is not None:
            part = slice(self.n, -1)
            M[part, part] = scipy.linalg.expm(self.forcing.generator())
        return M

    def power(self, dt: float) -> NDArray[np.float64]:
        """Give the map of a step of another length.

        Parameters
        ----------
        dt : float
            Any positive number.

        Returns
        -------
        ndarray (n, n + forcing.size + 1)

        Raises
        ------
        ParameterError
            If `dt` is not a positive number.
        """
        dt = round(float(dt), 12)
        if not (np.isfinite(dt) and dt > 0.0):
            raise ParameterError(f"dt={dt}: expected a positive number of steps")
        if dt == 1.0:
            return self.rows
        found = self._powers.get(dt)
        if found is None:
            import scipy.linalg

            if dt.is_integer():
                whole = np.linalg.matrix_power(self.matrix(), int(dt))
            else:
                whole = np.asarray(scipy.linalg.expm(dt * self._log())).real
            if len(self._powers) >= _KEPT:
                self._powers.clear()
            found = self._powers[dt] = np.ascontiguousarray(whole[: self.n])
        return found

    def _log(self) -> NDArray[Any]:
        if self._logarithm is None:
            import scipy.linalg

            self._logarithm = np.asarray(scipy.linalg.logm(self.matrix()))
            if np.iscomplexobj(self._logarithm):
                values = np.linalg.eigvals(self.rows[:, : self.n])
                negative = -values[(values.imag == 0.0) & (values.real < 0.0)].real
                LOGGER.warning(
                    "%d of the %d modes of the linear propagator change sign in a step (the "
                    "largest by a factor of %.2g) and have no real power: for steps that are not "
                    "whole, the real part is taken, and two halves do not make one for them",
                    negative.size, self.n, negative.max(initial=0.0),
                )  # fmt: skip
        return self._logarithm

"""Propagators of codes without a network: persistence, and an affine map.

Forcing by the calendar is cosines and sines, which turn at a constant rate, so that steps of any
length are powers of one matrix: see `xr_spde._core.linear_flow`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.codes import Forcing
from xr_spde._core.errors import ParameterError
from xr_spde._core.linear_flow import LinearFlow
from xr_spde.solvers.threads import single_blas_thread

__all__ = ["LinearPropagator", "PersistencePropagator"]

Float = NDArray[np.float64]
Array = NDArray[Any]


class PersistencePropagator:
    """Codes stay as they are: the forecast that others have to beat."""

    name: ClassVar[str] = "persistence"
    affine = True

    def step(self, codes: Array, dt: float = 1.0, time: float | None = None) -> Array:
        """Return a copy of the codes, whatever the step."""
        return np.array(codes)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Give what the propagator is saved as: nothing."""
        return {}, {}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the propagator of what `state` returned."""
        return cls()


class LinearPropagator:
    """Affine map of codes, for steps of any length.

    Parameters
    ----------
    matrix : array_like (n, n)
        A of a step of length one.
    offset : array_like (n,), optional
        b; by default zero.
    forced : array_like (n, forcing.size), optional
        B.
    forcing : Forcing, optional
        By the calendar; with `forced`.
    ridge : float, optional
        Penalty of the fit, for the record.

    Raises
    ------
    ParameterError
        For shapes that do not fit, or numbers that are not finite.
    """

    name: ClassVar[str] = "linear"
    affine = True

    def __init__(
        self,
        matrix: ArrayLike,
        offset: ArrayLike | None = None,
        *,
        forced: ArrayLike | None = None,
        forcing: Forcing | None = None,
        ridge: float | None = None,
    ) -> None:
        A = np.asarray(matrix, dtype=np.float64)
        n = A.shape[0]
        b = np.zeros(n) if offset is None else np.asarray(offset, dtype=np.float64)
        size = 0 if forcing is None else forcing.size
        B = np.zeros((n, size)) if forced is None else np.asarray(forced, dtype=np.float64)
        if A.shape != (n, n) or b.shape != (n,) or B.shape != (n, size):
            raise ParameterError(
                f"matrix {A.shape}, offset {b.shape}, forced {B.shape}: expected (n, n), (n,) and "
                f"(n, {size})"
            )
        self._flow = LinearFlow(np.concatenate([A, B, b[:, None]], axis=1), forcing)
        self.n, self.forcing, self.ridge = n, forcing, ridge

    @property
    def rows(self) -> Float:
        """A, B and b side by side ``(n, n + forcing.size + 1)``."""
        return self._flow.rows

    @property
    def radius(self) -> float:
        """Largest modulus of the eigenvalues of A; above one, long forecasts grow."""
        return float(np.abs(np.linalg.eigvals(self.rows[:, : self.n])).max())

    def _power(self, dt: float) -> Float:
        with single_blas_thread():
            return self._flow.power(dt)

    def matrix(self, dt: float = 1.0) -> Float:
        """Matrix of a step.

        Parameters
        ----------
        dt : float, default 1
            Its length.

        Returns
        -------
        ndarray (n, n)
        """
        return self._power(dt)[:, : self.n]

    def offset(self, dt: float = 1.0, time: float | None = None) -> Float:
        """Give what a step adds to ``matrix @ code``.

        Parameters
        ----------
        dt : float, default 1
            Its length.
        time : float, optional
            Days since 1970-01-01 at its start; needed with forcing.

        Returns
        -------
        ndarray (n,)

        Raises
        ------
        ParameterError
            If there is forcing and no time.
        """
        rest = self._power(dt)[:, self.n :]
        if self.forcing is None:
            return rest[:, -1]
        if time is None:
            raise ParameterError("time= is missing: this propagator is forced by the calendar")
        return np.asarray(rest[:, :-1] @ self.forcing.features(time) + rest[:, -1])

    def step(self, codes: Array, dt: float = 1.0, time: float | None = None) -> Array:
        """Forecast codes.

        Parameters
        ----------
        codes : ndarray (B, n)
            Codes.
        dt : float, default 1
            Length of the step; any positive number.
        time : float, optional
            Days since 1970-01-01 at its start; needed with forcing.

        Returns
        -------
        ndarray (B, n)
            Of the dtype of `codes`.

        Raises
        ------
        ParameterError
            For codes of another size, or if there is forcing and no time.
        """
        if codes.ndim != 2 or codes.shape[1] != self.n:
            raise ParameterError(f"codes have shape {codes.shape}; expected (B, {self.n})")
        moved = codes @ self.matrix(dt).T + self.offset(dt, time)
        return np.asarray(moved, dtype=codes.dtype)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Give what the propagator is saved as."""
        forcing = None if self.forcing is None else self.forcing.options()
        return {"rows": self.rows.copy()}, {"forcing": forcing, "ridge": self.ridge}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the propagator of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        LinearPropagator
        """
        rows, given = arrays["rows"], options["forcing"]
        n = rows.shape[0]
        return cls(
            rows[:, :n],
            rows[:, -1],
            forced=rows[:, n:-1],
            forcing=None if given is None else Forcing(**given),
            ridge=options["ridge"],
        )

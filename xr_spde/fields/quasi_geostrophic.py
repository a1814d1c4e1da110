r"""Two-layer quasi-geostrophic turbulence on a doubly periodic beta plane, pseudo-spectral.

Layers 1 (upper) and 2 of depths :math:`h_1, h_2` carry the potential vorticity of their departures
from a uniform zonal flow :math:`U_1, U_2`,

.. math::

    q_j = \nabla^2 \psi_j + F_j (\psi_{3-j} - \psi_j), \qquad
    F_1 + F_2 = 1 / L_d^2, \quad F_2 / F_1 = h_1 / h_2 = \delta,

    \partial_t q_j + U_j \partial_x q_j + J(\psi_j, q_j) + \beta_j \partial_x \psi_j
    = - r \nabla^2 \psi_2 [j = 2] + \text{filter}, \qquad
    \beta_j = \beta \mp_j F_j (U_2 - U_1),

the minus for the upper layer. Where :math:`F_2 (U_1 - U_2) > \beta` the flow is baroclinically
unstable (Phillips) and turns, from any small disturbance, into statistically stationary eddies.
Products are dealiased by the two-thirds rule, so that without drag and filter the truncated
equations conserve energy and, without mean flow, potential enstrophy. The filter damps the waves
next to the truncation.

References
----------
Vallis (2017), Atmospheric and Oceanic Fluid Dynamics, chapters 5, 6 and 9; Phillips (1954),
Tellus 6; Orszag (1971), J. Atmos. Sci. 28; Arbic and Flierl (2004), J. Phys. Oceanogr. 34.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError

__all__ = ["TwoLayer"]

Real = NDArray[np.floating[Any]]
Spectrum = NDArray[np.complexfloating[Any, Any]]

_ORDER = 8
"""Power of the wave number in the filter."""

_COURANT = 2.0
"""Longest step by the fastest advection of the shortest wave; RK4 is stable up to 2.8."""


@dataclass(frozen=True, eq=False)
class TwoLayer:
    """The model: a grid, a stratification and what forces and damps the flow. SI units.

    States are spectra of potential vorticity, (..., 2, ny, nx // 2 + 1) complex, upper layer first,
    as `to_spectrum` makes them; leading dimensions are independent runs.

    Attributes
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the grid, even numbers.
    spacing : tuple of float
        Cells ``(dy, dx)`` in m.
    radius : float, default 30e3
        Deformation radius in m.
    ratio : float, default 0.25
        Depth of the upper layer over that of the lower.
    shear : float, default 0.12
        Zonal flow of the upper layer in m/s; that of the lower is zero.
    beta : float, default 1.8e-11
        Northward gradient of the Coriolis parameter in 1/(m s).
    drag : float, default 4e-7
        Rate in 1/s at which friction at the bottom damps the lower layer.
    filter : float, default 1e-4
        Rate in 1/s at which the shortest waves are damped; it falls with the eighth power of the
        wave number.
    dtype : str, default "float64"
        Or "float32", in half the time.

    Raises
    ------
    ParameterError
        Odd or small shapes, numbers that are not finite or have an impossible sign.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    radius: float = 30e3
    ratio: float = 0.25
    shear: float = 0.12
    beta: float = 1.8e-11
    drag: float = 4e-7
    filter: float = 1e-4
    dtype: str = "float64"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if len(self.shape) != 2 or min(self.shape) < 8 or any(n % 2 for n in self.shape):
            raise ParameterError(f"shape={self.shape!r}; expected (ny, nx), even and at least 8")
        if self.dtype not in ("float32", "float64"):
            raise ParameterError(f"dtype={self.dtype!r}; expected 'float32' or 'float64'")
        positive = {"dy": self.spacing[0], "dx": self.spacing[1]}
        positive |= {"radius": self.radius, "ratio": self.ratio}
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0.0):
                raise ParameterError(f"{name}={value!r}; expected a number > 0")
        for name in ("drag", "filter"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ParameterError(f"{name}={value!r}; expected a number >= 0")
        if not (math.isfinite(self.beta) and math.isfinite(self.shear)):
            raise ParameterError(
                f"beta={self.beta!r}, shear={self.shear!r}; expected finite numbers"
            )

    @cached_property
    def waves(self) -> tuple[Real, Real]:
        """Wave numbers in rad/m: (ny, 1) northward, (1, nx // 2 + 1) eastward."""
        (ny, nx), (dy, dx) = self.shape, self.spacing
        north = 2.0 * np.pi * scipy.fft.fftfreq(ny, dy)[:, None]
        east = 2.0 * np.pi * scipy.fft.rfftfreq(nx, dx)[None, :]
        return north.astype(self.dtype), east.astype(self.dtype)

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Waves that are not truncated (ny, nx // 2 + 1); the mean is not among them."""
        (ny, nx) = self.shape
        rows = np.abs(scipy.fft.fftfreq(ny, 1.0 / ny))[:, None]
        columns = np.arange(nx // 2 + 1)[None, :]
        inside: NDArray[np.bool_] = (3 * rows < ny) & (3 * columns < nx)
        inside[0, 0] = False
        return inside

    @cached_property
    def coupling(self) -> tuple[float, float]:
        """F of the layers, in 1/m2."""
        return 1.0 / (self.radius**2 * (1.0 + self.ratio)), self.ratio / (
            self.radius**2 * (1.0 + self.ratio)
        )

    @cached_property
    def gradients(self) -> tuple[float, float]:
        """Northward gradients of the potential vorticity of the mean flow, in 1/(m s)."""
        f1, f2 = self.coupling
        return self.beta + f1 * self.shear, self.beta - f2 * self.shear

    @cached_property
    def _square(self) -> Real:
        """Squared wave number, one at the mean."""
        north, east = (a.astype(np.float64) for a in self.waves)
        square: Real = north**2 + east**2
        square[0, 0] = 1.0
        return square

    @cached_property
    def _inverse(self) -> Real:
        """Stream functions from potential vorticities (2, 2, ny, nx // 2 + 1)."""
        k2, (f1, f2) = self._square, self.coupling
        below = self.kept / (-k2 * (k2 + f1 + f2))
        return np.array([[(k2 + f2) * below, f1 * below], [f2 * below, (k2 + f1) * below]]).astype(
            self.dtype
        )

    @cached_property
    def _linear(self) -> Spectrum:
        """Tendency by unit stream functions of the layers (2, ny, nx // 2 + 1)."""
        east = 1j * self.waves[1].astype(np.float64)
        upper, lower = (-east * gradient * self.kept for gradient in self.gradients)
        return np.array([upper, lower + self.drag * self._square * self.kept]).astype(self._complex)

    @cached_property
    def _complex(self) -> type[np.complexfloating[Any, Any]]:
        return np.complex64 if self.dtype == "float32" else np.complex128

    @cached_property
    def _damping(self) -> Real:
        """Rate of the filter (ny, nx // 2 + 1)."""
        edges = [np.abs(a[(a != 0.0)]).max() * 2.0 / 3.0 for a in self.waves]
        north, east = (a / edge for a, edge in zip(self.waves, edges, strict=True))
        return np.asarray(self.filter * (north**2 + east**2) ** (_ORDER / 2))

    def to_spectrum(self, vorticity: Real) -> Spectrum:
        """Spectrum of potential vorticity, truncated and without its mean.

        Parameters
        ----------
        vorticity : ndarray (..., 2, ny, nx)
            In 1/s.

        Returns
        -------
        ndarray (..., 2, ny, nx // 2 + 1)
        """
        return np.asarray(scipy.fft.rfft2(vorticity.astype(self.dtype)) * self.kept)

    def to_grid(self, spectrum: Spectrum) -> Real:
        """Values (..., ny, nx) of any spectrum."""
        return np.asarray(scipy.fft.irfft2(spectrum, s=self.shape))

    def stream(self, state: Spectrum) -> Spectrum:
        """Spectra of the stream functions of a state.

        Parameters
        ----------
        state : ndarray (..., 2, ny, nx // 2 + 1)
            Potential vorticity.

        Returns
        -------
        ndarray, as the state
            In m2/s on the grid.
        """
        upper, lower = state[..., 0, :, :], state[..., 1, :, :]
        to = self._inverse
        return np.stack([to[0, 0] * upper + to[0, 1] * lower,
                         to[1, 0] * upper + to[1, 1] * lower], axis=-3)  # fmt: skip

    def tendency(self, state: Spectrum) -> Spectrum:
        """Change of a state per second, without the filter.

        Parameters
        ----------
        state : ndarray (..., 2, ny, nx // 2 + 1)
            Potential vorticity.

        Returns
        -------
        ndarray, as the state
        """
        north, east = (1j * a for a in self.waves)
        psi = self.stream(state)
        u, v, q = self.to_grid(np.stack([-north * psi, east * psi, state]))
        u[..., 0, :, :] += u.dtype.type(self.shear)
        along, across = scipy.fft.rfft2(np.stack([u * q, v * q]))
        change: Spectrum = self._linear * psi
        change -= (east * along + north * across) * self.kept
        return change

    def step(self, state: Spectrum, seconds: float) -> Spectrum:
        """State one step later: Runge-Kutta of fourth order, then the filter.

        Parameters
        ----------
        state : ndarray (..., 2, ny, nx // 2 + 1)
            Potential vorticity.
        seconds : float
            Length of the step.

        Returns
        -------
        ndarray, as the state
        """
        first = self.tendency(state)
        second = self.tendency(state + 0.5 * seconds * first)
        third = self.tendency(state + 0.5 * seconds * second)
        fourth = self.tendency(state + seconds * third)
        moved = state + (seconds / 6.0) * (first + 2.0 * (second + third) + fourth)
        if self.filter > 0.0:
            moved *= np.exp(-seconds * self._damping).astype(self.dtype)
        return np.asarray(moved)

    def steps_for(self, state: Spectrum, seconds: float) -> int:
        """Return how many steps a time takes, with the fastest flow of a state (of all its runs).

        Parameters
        ----------
        state : ndarray (..., 2, ny, nx // 2 + 1)
            Potential vorticity.
        seconds : float
            Time to go.

        Returns
        -------
        int

        Raises
        ------
        SolverError
            The state has blown up.
        """
        north, east = (1j * a for a in self.waves)
        psi = self.stream(state)
        u, v = self.to_grid(np.stack([-north * psi, east * psi]))
        (dy, dx) = self.spacing
        rate = (np.abs(u) + abs(self.shear)) / dx + np.abs(v) / dy
        fastest = 2.0 / 3.0 * np.pi * float(rate.max())
        if not math.isfinite(fastest):
            raise SolverError(
                "the quasi-geostrophic flow has blown up; give a larger drag or filter, or a "
                "smaller shear"
            )
        return max(1, math.ceil(seconds * fastest / _COURANT))

    def advance(self, state: Spectrum, seconds: float) -> Spectrum:
        """State after a time, in as many equal steps as the flow at its start needs.

        Parameters
        ----------
        state : ndarray (..., 2, ny, nx // 2 + 1)
            Potential vorticity.
        seconds : float
            Time to go; about a day at most, since the flow changes on the way.

        Returns
        -------
        ndarray, as the state

        Raises
        ------
        SolverError
            The flow has blown up.
        """
        count = self.steps_for(state, seconds)
        for _ in range(count):
            state = self.step(state, seconds / count)
        return state

    def random_state(self, rng: np.random.Generator, speed: float = 0.1) -> Spectrum:
        """Random eddies of a few deformation radii, the same in both layers, to spin up from.

        Parameters
        ----------
        rng : Generator
            Of the phases.
        speed : float, default 0.1
            Root mean square of the velocity in m/s.

        Returns
        -------
        ndarray (2, ny, nx // 2 + 1)
        """
        k2 = self._square
        spectrum = scipy.fft.rfft2(rng.standard_normal(self.shape)) * self.kept
        spectrum *= np.exp(-((np.sqrt(k2) * self.radius - 0.5) ** 2) / (2.0 * 0.15**2))
        size = float(np.sqrt(_mean(k2 * np.abs(spectrum) ** 2, self.shape)))
        if size == 0.0:
            raise ParameterError(
                "the domain is too small for eddies of a few deformation radii; give a larger one"
            )
        psi = spectrum * (speed / size)
        return np.stack([-k2 * psi, -k2 * psi]).astype(self._complex)

    def energy(self, state: Spectrum) -> NDArray[np.float64]:
        """Energy per unit mass, kinetic and available potential, in m2/s2.

        Parameters
        ----------
        state : ndarray (..., 2, ny, nx // 2 + 1)
            Potential vorticity.

        Returns
        -------
        ndarray (...)
        """
        psi, share = self.stream(state.astype(np.complex128)), self._shares
        kinetic = self._square * np.sum(share[:, None, None] * np.abs(psi) ** 2, axis=-3)
        bent = np.abs(psi[..., 0, :, :] - psi[..., 1, :, :]) ** 2
        potential = share[0] * self.coupling[0] * bent
        return np.asarray(0.5 * _mean(kinetic + potential, self.shape))

    def enstrophy(self, state: Spectrum) -> NDArray[np.float64]:
        """Potential enstrophy of the layers, weighed by their depths, in 1/s2.

        Parameters
        ----------
        state : ndarray (..., 2, ny, nx // 2 + 1)
            Potential vorticity.

        Returns
        -------
        ndarray (...)
        """
        square = np.abs(state.astype(np.complex128)) ** 2
        weighed = np.sum(self._shares[:, None, None] * square, axis=-3)
        return np.asarray(0.5 * _mean(weighed, self.shape))

    @property
    def _shares(self) -> NDArray[np.float64]:
        """Shares of the layers in the depth."""
        return np.array([self.ratio, 1.0]) / (1.0 + self.ratio)


def _mean(square: Real, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Mean over the grid of a squared field from the squared moduli of its half spectrum."""
    twice = np.full(square.shape[-1], 2.0)
    twice[0] = twice[-1] = 1.0
    found = np.sum(square * twice, axis=(-2, -1)) / float(shape[0] * shape[1]) ** 2
    return np.asarray(found, dtype=np.float64)

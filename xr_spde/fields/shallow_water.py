r"""Shallow water on the rotating sphere: spectral, many runs at once.

Vorticity :math:`\zeta`, divergence :math:`\delta` and the height :math:`h` above the mean depth H
of a layer of water on a sphere of radius a that rotates,

.. math::

    \partial_t \zeta = - \nabla \cdot ((\zeta + f) v) - K \nabla^4 \zeta, \qquad
    \partial_t h = - \nabla \cdot ((H + h) v) - K \nabla^4 h,

    \partial_t \delta = k \cdot \nabla \times ((\zeta + f) v) - \nabla^2 (g h + |v|^2 / 2)
    - K \nabla^4 \delta,

in real spherical harmonics of triangular truncation. Products are formed on a Gauss grid that
resolves them exactly; time runs in steps of Runge-Kutta of fourth order, each followed by the
exact decay under :math:`K \nabla^4`. All transforms are products with dense tables, those along
longitude too: for some hundred columns and a batch of runs this is faster than Fourier transforms,
and no axis is ever moved.

References
----------
Williamson et al. (1992), J. Comput. Phys. 102; Galewsky, Scott and Polvani (2004), Tellus A 56
(the unstable jet); Hack and Jakob (1992), NCAR Technical Note 343 (the spectral form); Li, Dong and
Zhang (2024), J. Comput. Phys. (the family of jets in both hemispheres).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields.legendre import gauss_latitudes, legendre

__all__ = ["ShallowWater"]

Float = NDArray[np.float64]
Real = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class ShallowWater:
    """The model: a sphere, a layer of water and a truncation. SI units.

    States are coefficients (3, 2, T + 1, k, runs): vorticity, divergence and height; those of
    cosines and of sines of longitude; order m; degree (`degrees`); independent runs.

    Attributes
    ----------
    truncation : int, default 63
        Highest degree T.
    symmetric : bool, default True
        The hemispheres mirror each other: only flows with height even and vorticity odd about the
        equator, at a quarter of the cost. Such flows stay so exactly, whatever rounding does.
    dtype : {"float32", "float64"}, default "float64"
        Of the computation.
    radius, rotation, gravity, depth : float
        a in m, the angular velocity in 1/s, g in m/s2, H in m; those of the earth and 10 km.
    diffusion : float, default 1e5
        K in units of (a / 32)^2: diffusivity in m2/s that damps degree 32 as much.

    Raises
    ------
    ParameterError
        Numbers that are not finite or have an impossible sign.
    """

    truncation: int = 63
    symmetric: bool = True
    dtype: str = "float64"
    radius: float = 6.37122e6
    rotation: float = 7.292e-5
    gravity: float = 9.80616
    depth: float = 1e4
    diffusion: float = 1e5

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.truncation < 7:
            raise ParameterError(f"truncation={self.truncation!r}; expected a degree of at least 7")
        if self.dtype not in ("float32", "float64"):
            raise ParameterError(f"dtype={self.dtype!r}; expected 'float32' or 'float64'")
        for name in ("radius", "gravity", "depth", "diffusion", "rotation"):
            value = getattr(self, name)
            if not (math.isfinite(value) and (value > 0.0 or name in ("diffusion", "rotation"))):
                raise ParameterError(f"{name}={value!r}; expected a finite number > 0")

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid of products, both hemispheres."""
        half = math.ceil((3 * self.truncation + 1) / 4)
        return 2 * half, 4 * half

    @cached_property
    def degrees(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Degrees l (T + 1, k) of vorticity, and of divergence and height; beyond T: unused."""
        order = np.arange(self.truncation + 1)
        if not self.symmetric:
            return (order[:, None] + order,) * 2
        even = order[:, None] + 2 * order[: self.truncation // 2 + 1]
        return even + 1, even

    def functions(self, sines: Float) -> list[tuple[Float, Float]]:
        """Legendre functions of vorticity, and of divergence and height, with their slopes.

        Parameters
        ----------
        sines : ndarray (n,)
            Sines of latitude.

        Returns
        -------
        list of two tuples of two ndarrays (T + 1, n, k)
            Zero where the degree is beyond T.
        """
        values, slopes = legendre(sines, self.truncation)
        order = np.arange(self.truncation + 1)[:, None]
        picked = []
        for degree in self.degrees:
            used = degree <= self.truncation
            inside = np.where(used, degree, 0)
            p, h = (np.where(used[..., None], a[order, inside], 0.0) for a in (values, slopes))
            picked.append((np.swapaxes(p, 1, 2), np.swapaxes(h, 1, 2)))
        return picked

    def _square(self, which: int) -> Float:
        """l(l + 1) (T + 1, k) of vorticity (0) or of divergence and height (1)."""
        degree = self.degrees[which].astype(np.float64)
        return np.where(degree <= self.truncation, degree * (degree + 1.0), 0.0)

    @cached_property
    def _turn(self) -> Float:
        """Factor of the exchanged coefficients in the derivative along longitude (2, T + 1, 1, 1).

        That of ``a cos + b sin`` has the coefficients ``m b`` and ``-m a``.
        """
        order = np.arange(self.truncation + 1.0)
        return np.stack([order, -order])[:, :, None, None]

    @cached_property
    def _rows(self) -> tuple[Float, Float]:
        """Sines and weights of the rows of the grid of products; the northern half if symmetric."""
        sines, weights = gauss_latitudes(self.shape[0])
        if not self.symmetric:
            return sines, weights
        half = self.shape[0] // 2
        return sines[half:], 2.0 * weights[half:]

    @cached_property
    def _up(self) -> dict[str, Real]:
        return self._tables_up(self._rows[0])

    def _tables_up(self, sines: Float) -> dict[str, Real]:
        """Tables from coefficients (`_source`) to orders along rows (2, T + 1, rows, k or 2 k)."""
        (p1, h1), (p0, h0) = self.functions(sines)
        inverse1, inverse0 = (
            -self.radius / np.where(s > 0.0, s, np.inf)[:, None, :]
            for s in (self._square(0), self._square(1))
        )
        both = np.ones((2, 1, 1, 1))
        tables = {
            "u": [self._turn * p0 * inverse0, -both * h1 * inverse1],
            "v": [self._turn * p1 * inverse1, both * h0 * inverse0],
            "vorticity": [both * p1],
            "divergence": [both * p0],
            "height": [both * p0],
        }
        return {name: self._table(parts) for name, parts in tables.items()}

    @cached_property
    def _down(self) -> dict[str, Real]:
        """Tables from orders of products along rows to tendencies (2, T + 1, k, 2 or 3 rows)."""
        sines, weights = self._rows
        (p1, h1), (p0, h0) = self.functions(sines)
        area = (2.0 * math.pi / self.shape[1] * weights / (1.0 - sines**2))[:, None] / self.radius
        both = np.ones((2, 1, 1, 1))
        energy = both * p0 * area * self._square(1)[:, None, :] / (2.0 * self.radius)
        tables = {
            "vorticity": [-self._turn * p1 * area, both * h1 * area],
            "divergence": [self._turn * p0 * area, both * h0 * area, energy],
            "height": [-self._turn * p0 * area, both * h0 * area],
        }
        return {
            name: self._table([np.swapaxes(part, 2, 3) for part in parts])
            for name, parts in tables.items()
        }

    def _table(self, parts: list[Float]) -> Real:
        # near the poles high orders are so small that products with them would be denormal: slow
        rounding = np.finfo(self.dtype).eps ** 2
        cut = [np.where(np.abs(part) < rounding * np.abs(part).max(), 0.0, part) for part in parts]
        return np.ascontiguousarray(np.concatenate(cut, axis=-1), dtype=self.dtype)

    @cached_property
    def _waves(self) -> tuple[Real, Real]:
        """Cosines (n / 2 + 1, T + 1) and sines (n / 2 - 1, T + 1) along the first half circle."""
        columns = self.shape[1]
        angle = 2.0 * np.pi / columns * np.arange(columns // 2 + 1)[:, None]
        phase = angle * np.arange(self.truncation + 1)
        return np.cos(phase).astype(self.dtype), np.sin(phase[1:-1]).astype(self.dtype)

    @cached_property
    def _coriolis(self) -> Real:
        return (2.0 * self.rotation * self._rows[0]).astype(self.dtype)[None, :, None]

    @cached_property
    def _restoring(self) -> Real:
        """Divergence that height sets off: g l(l + 1) / a^2 (T + 1, k, 1)."""
        return (self.gravity / self.radius**2 * self._square(1)[..., None]).astype(self.dtype)

    def _synthesis(self, table: Real, coefficients: Real) -> Real:
        """Values on the grid of products (columns, rows, runs)."""
        orders = np.matmul(table, coefficients)
        _, count, rows, runs = orders.shape
        cosines, sines = self._waves
        half = self.shape[1] // 2
        values = np.empty((self.shape[1], rows, runs), dtype=self.dtype)
        flat = values.reshape(self.shape[1], rows * runs)
        np.matmul(cosines, orders[0].reshape(count, -1), out=flat[: half + 1])
        odd = sines @ orders[1].reshape(count, -1)
        np.subtract(flat[1:half], odd, out=flat[:half:-1])
        flat[1:half] += odd
        return values

    def _orders(self, values: Real) -> Real:
        """Sum against cosines and sines along longitude (2, T + 1, rows, runs)."""
        columns, rows, runs = values.shape
        cosines, sines = self._waves
        half = columns // 2
        flat = values.reshape(columns, rows * runs)
        even = np.empty((half + 1, rows * runs), dtype=self.dtype)
        even[0], even[half] = flat[0], flat[half]
        np.add(flat[1:half], flat[:half:-1], out=even[1:half])
        orders = np.empty((2, self.truncation + 1, rows * runs), dtype=self.dtype)
        np.matmul(cosines.T, even, out=orders[0])
        odd = np.subtract(flat[1:half], flat[:half:-1], out=even[1:half])
        np.matmul(sines.T, odd, out=orders[1])
        return orders.reshape(2, -1, rows, runs)

    def tendency(self, state: Real) -> Real:
        """Change of a state per second, without diffusion.

        Parameters
        ----------
        state : ndarray (3, 2, T + 1, k, runs)

        Returns
        -------
        ndarray, as the state
        """
        names = ("u", "v", "vorticity", "height")
        u, v, total, h = (self._synthesis(self._up[k], self._source(state, k)) for k in names)
        total += self._coriolis
        down = self._down
        along, across = self._orders(total * u), self._orders(total * v)
        flow_u, flow_v = self._orders(h * u), self._orders(h * v)
        u *= u
        v *= v
        u += v
        energy = self._orders(u)
        change = np.empty_like(state)
        np.matmul(down["vorticity"], np.concatenate([along[::-1], across], axis=2), out=change[0])
        np.matmul(
            down["divergence"], np.concatenate([across[::-1], along, energy], axis=2), out=change[1]
        )
        np.matmul(down["height"], np.concatenate([flow_u[::-1], flow_v], axis=2), out=change[2])
        change[1] += self._restoring * state[2]
        change[2] -= np.asarray(self.depth, self.dtype) * state[1]
        return change

    def decay(self, seconds: float) -> Real:
        """Factor of diffusion after a time (3, 1, T + 1, k, 1)."""
        rate = self.diffusion / 1024.0 / self.radius**2
        factors = [np.exp(-rate * seconds * self._square(k) ** 2) for k in (0, 1, 1)]
        return np.stack(factors)[:, None, ..., None].astype(self.dtype)

    def step(self, state: Real, seconds: float, decay: Real | None = None) -> Real:
        """State one step later: Runge-Kutta of fourth order, then diffusion.

        Parameters
        ----------
        state : ndarray (3, 2, T + 1, k, runs)
        seconds : float
            Length of the step.
        decay : ndarray, optional
            That of these seconds, if at hand.

        Returns
        -------
        ndarray, as the state
        """
        slope = self.tendency(state)
        total = slope.copy()
        for weight, part in ((2.0, 0.5), (2.0, 0.5), (1.0, 1.0)):
            slope *= part * seconds
            slope += state
            slope = self.tendency(slope)
            total += weight * slope if weight != 1.0 else slope
        total *= seconds / 6.0
        total += state
        total *= self.decay(seconds) if decay is None else decay
        return total

    def advance(self, state: Real, seconds: float, longest: float = 720.0) -> Real:
        """State after a time, in equal steps.

        Parameters
        ----------
        state : ndarray (3, 2, T + 1, k, runs)
        seconds : float
            Time to go.
        longest : float, default 720
            Longest step in s. Gravity waves of degree 63 become unstable near 800.

        Returns
        -------
        ndarray, as the state

        Raises
        ------
        SolverError
            The flow has blown up.
        """
        count = math.ceil(seconds / longest - 1e-9)
        decay = self.decay(seconds / count)
        for _ in range(count):
            state = self.step(state, seconds / count, decay)
        if not np.isfinite(state).all():
            raise SolverError(
                f"the flow has blown up in steps of {seconds / count:g} s; give a shorter step"
            )
        return state

    def balance(self, state: Real) -> Real:
        """State with the same vorticity and divergence and the height that keeps divergence.

        Parameters
        ----------
        state : ndarray (3, 2, T + 1, k, runs)

        Returns
        -------
        ndarray, as the state
            The mean height is zero.
        """
        balanced = state.copy()
        balanced[2] = 0.0
        change = self.tendency(balanced)[1]
        scale = self._restoring
        np.divide(-change, scale, out=balanced[2], where=np.broadcast_to(scale > 0.0, change.shape))
        return balanced

    def sampler(
        self, sines: Float, longitudes: Float
    ) -> Callable[[Real, Sequence[str]], dict[str, Real]]:
        """Give the function that reads states on a grid of latitudes and longitudes.

        Parameters
        ----------
        sines : ndarray (rows,)
            Sines of latitude.
        longitudes : ndarray (columns,)
            In radians.

        Returns
        -------
        callable
            From a state and names to arrays (runs, rows, columns): "vorticity" and "divergence" in
            1/s, "height" in m, "u" and "v": velocities to the east and the north, times the cosine
            of latitude, in m/s.
        """
        tables = self._tables_up(sines)
        phase = np.arange(self.truncation + 1)[:, None] * longitudes
        waves = np.stack([np.cos(phase), np.sin(phase)]).astype(self.dtype)

        def read(state: Real, names: Sequence[str]) -> dict[str, Real]:
            orders = {name: np.matmul(tables[name], self._source(state, name)) for name in names}
            return {
                name: np.einsum("cmjr,cmk->rjk", part, waves, optimize=True)
                for name, part in orders.items()
            }

        return read

    def _source(self, state: Real, name: str) -> Real:
        """Coefficients that a table is multiplied with; sines and cosines of some swapped."""
        which = ("vorticity", "divergence", "height")
        if name in which:
            return np.asarray(state[which.index(name)])
        first, second = (1, 0) if name == "u" else (0, 1)
        return np.concatenate([state[first][::-1], state[second]], axis=2)

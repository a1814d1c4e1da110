r"""The operator ``kappa^2 + m.grad - div H grad`` of the space-time SPDE, discretised on a mesh.

Eight parameters make the field evolve as

.. math::

    \partial_t x + (\kappa^2 + m \cdot \nabla - \nabla \cdot H \nabla)^{\alpha/2} x = \tau z,
    \qquad H = \gamma I + \beta v v',

with white noise z. The matrix of the operator is linear in the coefficients
``kappa^2, H11, H22, H12`` and the positive and negative parts of m, on a pattern that depends on
the mesh and the scheme alone: one sparse product gives its entries, and the transposed product the
gradient of anything by the coefficients.

The flux scheme takes H at faces and differences of fluxes: second order where H varies, and with
m = 0 self-adjoint and elliptic on any domain, since its energy

    sum_faces H11 (dx u)^2 + H22 (dy u)^2 + 2 sum_nodes H12 Dx u Dy u

is node by node at least that of the tensor of the node.

References
----------
Clarotto, Allard, Romary, Desassis (2024), Spat. Stat. 62; Beauchamp et al. (2025), AIES,
arXiv 2402.01855; Lindgren, Rue, Lindstrom (2011), J. R. Stat. Soc. B 73.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.mesh import Mesh, expand

__all__ = ["ADVECTIONS", "COEFFICIENTS", "SCHEMES", "SpdeOperator", "SpdeParameters"]

Float = NDArray[np.float64]

SCHEMES = ("flux", "frozen")
"""Diffusion by fluxes across faces, or with the tensor held constant around each node."""

ADVECTIONS = ("centred", "upwind-1", "upwind-3")
"""Differences in the direction of the flow; their order of accuracy is 2, 1 and 3."""

COEFFICIENTS = ("kappa2", "h11", "h22", "h12", "m1_plus", "m1_minus", "m2_plus", "m2_minus")
"""What the matrix is linear in; m is split into its positive and negative part."""

Entries = tuple[int, NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], Float]
"""Number of a coefficient, and what :func:`xr_spde.fields.mesh.expand` returns."""

_SECOND = ((1, 1), (-1, -1), (1, -1), (-1, 1))


@dataclass(frozen=True, eq=False)
class SpdeParameters:
    """The eight parameters, each (steps, ny, nx) with one step or all of the window.

    With lengths in metres and time in the unit of the time step, for alpha = 2: `kappa` in
    time^-1/2, `m1`, `m2` in metres per time eastward and northward, H in square metres per time;
    for alpha = 4 time enters with half these exponents. `tau` is the standard deviation that the
    noise adds per square root of time, over one square metre.

    Attributes
    ----------
    kappa, tau : ndarray
        Positive.
    m1, m2 : ndarray
        Advection.
    v1, v2, gamma, beta : ndarray
        ``H = gamma I + beta v v'``, positive definite.
    """

    kappa: Float
    tau: Float
    m1: Float
    m2: Float
    v1: Float
    v2: Float
    gamma: Float
    beta: Float

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        *,
        kappa: ArrayLike,
        tau: ArrayLike = 1.0,
        m1: ArrayLike = 0.0,
        m2: ArrayLike = 0.0,
        v1: ArrayLike = 0.0,
        v2: ArrayLike = 0.0,
        gamma: ArrayLike = 1.0,
        beta: ArrayLike = 0.0,
        land: ArrayLike | None = None,
    ) -> SpdeParameters:
        """Check the parameters and give each the dimensions (steps, ny, nx).

        Parameters
        ----------
        shape : tuple of int
            ``(ny, nx)``.
        kappa, tau, m1, m2, v1, v2, gamma, beta : array_like
            Scalars, (ny, nx) or (steps, ny, nx).
        land : array_like (ny, nx) of bool, optional
            Where values do not matter and may be NaN.

        Returns
        -------
        SpdeParameters

        Raises
        ------
        ParameterError
            For shapes that do not fit, values that are not finite, kappa or tau that is not
            positive, or H that is not positive definite: the operator would not be elliptic.
        """
        given = {"kappa": kappa, "tau": tau, "m1": m1, "m2": m2}
        given |= {"v1": v1, "v2": v2, "gamma": gamma, "beta": beta}
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in given.items()}
        steps = {value.shape[0] for value in arrays.values() if value.ndim == 3} - {1}
        if len(steps) > 1:
            raise ParameterError(f"parameters have {sorted(steps)} steps; expected one number")
        full = (max(steps, default=1), *shape)
        for name, value in arrays.items():
            try:
                spread = np.broadcast_to(value, full)
            except ValueError as error:
                raise ParameterError(
                    f"{name} has shape {value.shape}; expected a number, {tuple(shape)} or {full}"
                ) from error
            filled = 1.0 if name in ("kappa", "tau", "gamma") else 0.0
            arrays[name] = np.array(spread if land is None else np.where(land, filled, spread))
        found = cls(**arrays)
        found._check()
        return found

    def _check(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not np.isfinite(value).all():
                count = int((~np.isfinite(value)).sum())
                raise ParameterError(f"{one.name} has {count} non-finite values off land")
        least = np.minimum(self.gamma, self.gamma + self.beta * (self.v1**2 + self.v2**2))
        for name, value in (("kappa", self.kappa), ("tau", self.tau), ("H", least)):
            if not (value > 0.0).all():
                what = "an eigenvalue of H = gamma I + beta v v'" if name == "H" else name
                raise ParameterError(
                    f"{what} has a minimum of {value.min():g}; expected > 0"
                    + (": the operator is not elliptic" if name == "H" else "")
                )

    @property
    def steps(self) -> int:
        """Number of steps that differ."""
        return int(self.kappa.shape[0])

    def tensor(self, step: int = 0) -> tuple[Float, Float, Float]:
        """Return H11, H22 and H12 (ny, nx) of one step."""
        v1, v2, gamma, beta = (a[step] for a in (self.v1, self.v2, self.gamma, self.beta))
        return gamma + beta * v1**2, gamma + beta * v2**2, beta * v1 * v2

    def coefficients(self, step: int = 0) -> Float:
        """Return what the matrix is linear in.

        Parameters
        ----------
        step : int
            Which one.

        Returns
        -------
        ndarray (8, n)
            In the order of :data:`COEFFICIENTS`.
        """
        m1, m2 = self.m1[step], self.m2[step]
        parts = [np.maximum(m1, 0.0), np.minimum(m1, 0.0), np.maximum(m2, 0.0), np.minimum(m2, 0.0)]
        found = np.stack([self.kappa[step] ** 2, *self.tensor(step), *parts])
        return found.reshape(len(COEFFICIENTS), -1)

    def pull_back(self, gradient: Float, step: int = 0) -> dict[str, Float]:
        """Gradient by the parameters from that by the coefficients.

        Parameters
        ----------
        gradient : ndarray (8, n)
            By :meth:`coefficients`.
        step : int
            Of which step.

        Returns
        -------
        dict of str to ndarray (ny, nx)
            By every parameter but tau.
        """
        by = gradient.reshape(len(COEFFICIENTS), *self.kappa.shape[1:])
        kappa, v1, v2, beta = (a[step] for a in (self.kappa, self.v1, self.v2, self.beta))
        return {
            "kappa": 2.0 * kappa * by[0],
            "m1": np.where(self.m1[step] >= 0.0, by[4], by[5]),
            "m2": np.where(self.m2[step] >= 0.0, by[6], by[7]),
            "v1": beta * (2.0 * v1 * by[1] + v2 * by[3]),
            "v2": beta * (2.0 * v2 * by[2] + v1 * by[3]),
            "gamma": by[1] + by[2],
            "beta": v1**2 * by[1] + v2**2 * by[2] + v1 * v2 * by[3],
        }


class SpdeOperator:
    """Discretisation of ``kappa^2 + m.grad - div H grad`` on a mesh, for any parameters.

    Parameters
    ----------
    mesh : Mesh
        Grid, boundaries and land. Rows and columns of land are empty.
    scheme : {"flux", "frozen"}, default "flux"
        See :data:`SCHEMES`; "frozen" is inconsistent where H varies and kept for comparison.
    advection : {"centred", "upwind-1", "upwind-3"}, default "centred"
        See :data:`ADVECTIONS`.

    Attributes
    ----------
    mesh : Mesh
    scheme, advection : str
    reach : int
        Largest distance of coupled nodes, in rows or columns.

    Raises
    ------
    UnknownNameError
        For an unknown scheme or advection.
    """

    def __init__(self, mesh: Mesh, *, scheme: str = "flux", advection: str = "centred") -> None:
        if scheme not in SCHEMES:
            raise unknown("scheme", scheme, SCHEMES)
        if advection not in ADVECTIONS:
            raise unknown("advection", advection, ADVECTIONS)
        self.mesh, self.scheme, self.advection = mesh, scheme, advection
        self.reach = 2 if advection == "upwind-3" else 1
        n = mesh.size
        water = sp.csr_array(sp.diags_array(mesh.sea))
        water.eliminate_zeros()
        self._at_nodes = water
        parts = [(0, *expand(water, water, water))]
        parts += self._flux() if scheme == "flux" else self._frozen()
        for axis, (plus, minus) in ((1, (4, 5)), (0, (6, 7))):
            for k, differences in zip((plus, minus), self._advective(axis), strict=True):
                parts.append((k, *expand(water, differences, water)))
        row = np.concatenate([part[1] for part in parts])
        column = np.concatenate([part[2] for part in parts])
        place = np.concatenate([k * n + node for k, _, _, node, _ in parts])
        value = np.concatenate([part[4] for part in parts])
        # the diagonal belongs to the pattern everywhere: the time step adds the identity
        diagonal = np.arange(n) * (n + 1)
        keys, where = np.unique(np.concatenate([column * n + row, diagonal]), return_inverse=True)
        self._indices = (keys % n).astype(np.int32)
        self._indptr = np.searchsorted(keys, np.arange(n + 1) * n).astype(np.int32)
        entries = sp.coo_array(
            (value, (where[: row.size], place)), shape=(keys.size, len(COEFFICIENTS) * n)
        )
        self._map = sp.csr_array(entries)

    @cached_property
    def _turned(self) -> sp.csr_array:
        return sp.csr_array(self._map.T)

    def _flux(self) -> list[Entries]:
        """Diffusion from fluxes through faces, and cross fluxes at nodes."""
        mesh, area = self.mesh, self.mesh.area
        dx, dy = mesh.dx.ravel(), mesh.dy.ravel()
        parts = []
        for k, axis, spacing in ((1, 1, dx), (2, 0, dy)):
            differences, means = mesh.faces(axis)
            parts.append(self._divergence(k, differences, differences, means, area / spacing**2))
        across, along = (mesh.shift(a, 1) - mesh.shift(a, -1) for a in (1, 0))
        for left, right in ((across, along), (along, across)):
            weight = area / (4.0 * dx * dy)
            parts.append(self._divergence(3, left, right, self._at_nodes, weight))
        return parts

    def _divergence(
        self, k: int, left: sp.csr_array, right: sp.csr_array, means: sp.csr_array, weight: Float
    ) -> Entries:
        """Entries of ``area^-1 left' diag(means weight c) right``."""
        row, column, node, value = expand(left, right, means)
        return k, row, column, node, value * weight[node] / self.mesh.area[row]

    def _frozen(self) -> list[Entries]:
        """Diffusion as if H were constant around each node."""
        mesh, water = self.mesh, self._at_nodes
        shift = {(a, s): mesh.shift(a, s) for a in (0, 1) for s in (1, -1)}
        dx, dy = mesh.dx.ravel(), mesh.dy.ravel()
        crossed = sum(
            (shift[1, s] @ shift[0, t]) * float(s * t) for s, t in _SECOND
        )  # the four corners
        parts = []
        for k, matrix, weight in (
            (1, shift[1, 1] + shift[1, -1] - 2.0 * water, dx**-2.0),
            (2, shift[0, 1] + shift[0, -1] - 2.0 * water, dy**-2.0),
            (3, crossed, 0.5 / (dx * dy)),
        ):
            row, column, node, value = expand(water, sp.csr_array(matrix), water)
            parts.append((k, row, column, node, -value * weight[node]))
        return parts

    def _advective(self, axis: int) -> tuple[sp.csr_array, sp.csr_array]:
        """Take derivatives along an axis, for flow in its direction and against it."""
        spacing = (self.mesh.dy, self.mesh.dx)[axis].ravel()
        ahead, behind = self.mesh.shift(axis, 1), self.mesh.shift(axis, -1)
        here = self._at_nodes
        scale = sp.diags_array(1.0 / spacing)
        if self.advection == "centred":
            plus = minus = 0.5 * (ahead - behind)
        elif self.advection == "upwind-1":
            plus, minus = here - behind, ahead - here
        else:
            # steps of two pass through the neighbour, and so never across land
            plus = (2.0 * ahead + 3.0 * here - 6.0 * behind + behind @ behind) / 6.0
            minus = (6.0 * ahead - 3.0 * here - 2.0 * behind - ahead @ ahead) / 6.0
        return sp.csr_array(scale @ plus), sp.csr_array(scale @ minus)

    def matrix(self, coefficients: Float) -> sp.csc_array:
        """Matrix for given coefficients.

        Parameters
        ----------
        coefficients : ndarray (8, n)
            As from :meth:`SpdeParameters.coefficients`.

        Returns
        -------
        csc_array (n, n)
            With sorted indices and a stored diagonal.
        """
        return self.on_pattern(np.asarray(self._map @ coefficients.ravel()))

    def on_pattern(self, data: Float) -> sp.csc_array:
        """Matrix of the operator's pattern with given entries (nnz,)."""
        n = self.mesh.size
        found = sp.csc_array((data, self._indices.copy(), self._indptr.copy()), shape=(n, n))
        found.has_sorted_indices = True
        return found

    def pull_back(self, gradient: sp.csc_array | sp.csr_array) -> Float:
        """Gradient by the coefficients from that by the entries of the matrix.

        Parameters
        ----------
        gradient : sparse matrix (n, n)
            Entries that the pattern does not have are left out.

        Returns
        -------
        ndarray (8, n)
        """
        given = sp.coo_array(gradient)
        n = self.mesh.size
        wanted = np.repeat(np.arange(n), np.diff(self._indptr)) * n + self._indices
        keys = given.col.astype(np.intp) * n + given.row
        spot = np.minimum(np.searchsorted(wanted, keys), wanted.size - 1)
        held = wanted[spot] == keys
        data = np.bincount(spot[held], weights=given.data[held], minlength=wanted.size)
        return self.pull_back_entries(data.astype(np.float64))

    def pull_back_entries(self, data: Float) -> Float:
        """As :meth:`pull_back`, from the gradient by the stored entries (nnz,)."""
        return np.asarray(self._turned @ data).reshape(len(COEFFICIENTS), -1)

    def pull_back_outer(self, left: Float, right: Float) -> Float:
        """As :meth:`pull_back`, for the gradient ``left right'``.

        Parameters
        ----------
        left, right : ndarray (n,) or (n, K)
            Of several columns the sum is taken.

        Returns
        -------
        ndarray (8, n)
        """
        columns = np.repeat(np.arange(self.mesh.size), np.diff(self._indptr))
        data = np.zeros(self._indices.size)
        pairs = left.reshape(len(left), -1).T, right.reshape(len(right), -1).T
        for one, other in zip(*pairs, strict=True):
            data += one[self._indices] * other[columns]
        return self.pull_back_entries(data)

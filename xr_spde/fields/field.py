"""One Gaussian field model on arrays: its parameters, its draws and its exact moments."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, DTypeLike, NDArray

from xr_spde._core.device import resolve_device
from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields import moments
from xr_spde.fields.moments import PROBES
from xr_spde.fields.sar import operator, weights
from xr_spde.fields.stencil import apply, check_boundary
from xr_spde.solvers.cache import FACTORS
from xr_spde.solvers.choose import LOGGER, SOLVERS, check_solver, choose, factor
from xr_spde.solvers.factor import Factor

Float = NDArray[np.float64]


def automatic_buffer(kappa2: ArrayLike, rho: ArrayLike, *, boundary: str) -> int:
    """Width of the rim that keeps a boundary's effect out of the grid.

    The practical range along the direction of longest correlation, ``sqrt(8 rho / kappa2)`` cells
    (correlation 0.14), its 90th percentile over the map rounded up, but at most half the longer
    side of a plane, and a quarter of the rows of a cylinder: beyond the poles there is nothing to
    keep away but the edge itself. Dropped neighbours lower the variance near a boundary: by 85 to
    98 % in the last cell, 10 % half a range away, 1 % one range away (constant parameters), where
    correlations change by less than 0.01.

    Parameters
    ----------
    kappa2, rho : array_like (ny, nx)
        Parameters in grid-cell units.
    boundary : {"cylinder", "plane", "torus", "paper"}
        ``"torus"`` and ``"paper"`` take no buffer.

    Returns
    -------
    int
        Cells on each side that is not periodic.
    """
    if check_boundary(boundary) in ("torus", "paper"):
        return 0
    ranges = np.sqrt(8.0 * np.asarray(rho) / np.asarray(kappa2))
    most = max(ranges.shape) // 2 if boundary == "plane" else ranges.shape[0] // 4
    return int(min(math.ceil(np.quantile(ranges, 0.9)), most))


def fill_missing(values: ArrayLike, *, periodic_x: bool) -> Float:
    """Replace missing values by those of the nearest valid cell.

    Parameters
    ----------
    values : array_like (..., ny, nx)
        Leading dimensions share one mask: a cell missing in any of them is replaced in all.
    periodic_x : bool
        Whether the first and last columns are neighbours.

    Returns
    -------
    ndarray (..., ny, nx)
        Without NaN.

    Raises
    ------
    ParameterError
        If no cell is valid.
    """
    from scipy.ndimage import distance_transform_edt

    array = np.array(values, dtype=np.float64)
    if array.ndim < 2:
        raise ParameterError(f"values have shape {array.shape}; expected (..., ny, nx)")
    ny, nx = array.shape[-2:]
    missing = np.asarray(np.isnan(array).reshape(-1, ny, nx).any(axis=0))
    if not missing.any():
        return array
    if missing.all():
        raise ParameterError("every cell is missing; expected at least one with all parameters")
    wide = np.tile(missing, (1, 3)) if periodic_x else missing
    j, i = distance_transform_edt(wide, return_distances=False, return_indices=True)
    centre = np.s_[:, nx : 2 * nx] if periodic_x else np.s_[:, :]
    return np.asarray(array[..., j[centre], i[centre] % nx])


@dataclass(frozen=True, eq=False)
class GaussianField:
    """A Gaussian field ``y = B^-1 e`` with the SAR operator B and white noise e.

    Parameters are canonical arrays (row 0 south, column 0 west) without NaN. Instances are
    recipes: they pickle as parameters, and each process factorises once (see
    :class:`xr_spde.solvers.cache.FactorCache`).

    Parameters
    ----------
    kappa2, rho, theta : array_like (ny, nx)
        As in :func:`xr_spde.fields.sar.weights`.
    boundary : {"cylinder", "plane", "torus", "paper"}, default "cylinder"
        See :func:`xr_spde.fields.stencil.periodicity`.
    buffer : int or "auto", default 0
        Cells added on every side that is not periodic (all four for ``"plane"``, south and north
        for ``"cylinder"``, none otherwise), with the parameters of the nearest edge cell, and cut
        off again. ``"auto"``: :func:`automatic_buffer`.
    solver : str, default "auto"
        A name in :data:`xr_spde.solvers.choose.SOLVERS`.

    Raises
    ------
    ParameterError
        For parameters or a buffer that are not usable.
    UnknownNameError
        For an unknown boundary or solver.
    """

    kappa2: Float
    rho: Float
    theta: Float
    boundary: str = "cylinder"
    buffer: int | str = 0
    solver: str = "auto"

    def __post_init__(self) -> None:
        """Check the arguments and freeze copies of the arrays."""
        check_boundary(self.boundary)
        check_solver(self.solver)
        given = (self.kappa2, self.rho, self.theta)
        shapes = {np.shape(value) for value in given}
        if len(shapes) != 1:
            raise ParameterError(f"kappa2, rho, theta have shapes {shapes}; expected one (ny, nx)")
        for name, value in zip(("kappa2", "rho", "theta"), given, strict=True):
            array = np.array(value, dtype=np.float64, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        weights(self.kappa2, self.rho, self.theta)
        buffer = self.buffer
        if buffer == "auto":
            buffer = automatic_buffer(self.kappa2, self.rho, boundary=self.boundary)
        integer = isinstance(buffer, (int, np.integer)) and not isinstance(buffer, bool)
        if not integer or int(buffer) < 0:
            raise ParameterError(f"buffer is {buffer!r}; expected a whole number >= 0 or 'auto'")
        object.__setattr__(self, "buffer", int(buffer))

    def __getstate__(self) -> dict[str, Any]:
        """Return the recipe alone: parameters and settings."""
        names = ("kappa2", "rho", "theta", "boundary", "buffer", "solver")
        return {name: self.__dict__[name] for name in names}

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        ny, nx = self.kappa2.shape
        return ny, nx

    @property
    def rim(self) -> tuple[int, int]:
        """Cells added on each side in y and in x."""
        width = int(self.buffer)
        return (
            width if self.boundary in ("plane", "cylinder") else 0,
            width if self.boundary == "plane" else 0,
        )

    @property
    def padded_shape(self) -> tuple[int, int]:
        """``(ny, nx)`` with the buffer: the grid on which systems are solved."""
        (ny, nx), (dy, dx) = self.shape, self.rim
        return ny + 2 * dy, nx + 2 * dx

    @property
    def size(self) -> int:
        """Number of nodes of the padded grid: white noise per field."""
        ny, nx = self.padded_shape
        return ny * nx

    @cached_property
    def chosen(self) -> str:
        """Name of the solver, once and for all: the memory that is left may change."""
        if self.solver != "auto":
            return self.solver
        return choose(self.padded_shape, boundary=self.boundary).solver

    @property
    def key(self) -> str:
        """Hash of the matrix, with the solver and the device."""
        return f"{self._digest}-{self.chosen}-{resolve_device()}"

    @cached_property
    def _digest(self) -> str:
        """Hash of everything that decides the matrix."""
        digest = hashlib.blake2b(digest_size=20)
        digest.update(repr((self.shape, self.boundary, self.rim)).encode())
        for array in (self.kappa2, self.rho, self.theta):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _pad(self, array: Float) -> Float:
        """Repeat edge values into the buffer."""
        dy, dx = self.rim
        return np.pad(array, ((dy, dy), (dx, dx)), mode="edge")

    def weights(self) -> Float:
        """Return the nine weights of every node of the padded grid, (9, ny, nx)."""
        return weights(*map(self._pad, (self.kappa2, self.rho, self.theta)))

    def matrix(self) -> sp.csc_array:
        """Return the sparse matrix B of the padded grid."""
        maps = map(self._pad, (self.kappa2, self.rho, self.theta))
        return operator(*maps, boundary=self.boundary)

    def factor(self, dtype: DTypeLike = np.float64) -> Factor:
        """Return the factor of the padded matrix, from this process's cache.

        Parameters
        ----------
        dtype : {float64, float32}, default float64
            Of the factor. One in float32 that would lose more than
            :data:`~xr_spde.solvers.choose.SINGLE_ERROR`, or for a solver that knows float64 only,
            is in float64; the logger ``xr_spde.solvers`` says so.

        Raises
        ------
        MemoryGuardError
            If it would not fit; nothing has been allocated then.
        SolverError
            If the matrix is singular.
        """
        wanted = np.dtype(dtype)

        def build() -> Factor:
            grid: dict[str, Any] = {"shape": self.padded_shape, "boundary": self.boundary}
            choose(**grid, solver=self.chosen, dtype=wanted)  # refuses before anything is made
            stencil = SOLVERS[self.chosen].stencil
            try:
                matrix = self.weights() if stencil else self.matrix()
                return factor(matrix, **grid, solver=self.chosen, dtype=wanted)
            except SolverError as error:
                if wanted == np.float64:
                    raise
                LOGGER.info("float64 instead of %s: %s", wanted, error)
            return self.factor()

        return FACTORS.get(("factor", self.key, wanted.name), build)

    def sample(self, noise: ArrayLike, dtype: DTypeLike = np.float64) -> Float:
        """Turn white noise into fields.

        Parameters
        ----------
        noise : array_like (K, size)
            Independent standard normals, one row per field over the padded grid.
        dtype : {float64, float32}, default float64
            Of the factor, see :meth:`factor`.

        Returns
        -------
        ndarray (K, ny, nx)
            Fields of mean zero and covariance ``(B'B)^-1``, in the dtype of the factor; a view of
            what was solved for. A field depends on its own row of noise alone, bit for bit.

        Raises
        ------
        ParameterError
            For another shape.
        MemoryGuardError
            If a graphics card runs out of memory; says how many fields would fit.
        """
        rows = np.asarray(noise, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.size:
            raise ParameterError(f"noise has shape {rows.shape}; expected (K, {self.size})")
        (ny, nx), (dy, dx) = self.shape, self.rim
        drawn = self.factor(dtype).solve(rows.T).T.reshape(-1, *self.padded_shape)
        return np.asarray(drawn[:, dy : dy + ny, dx : dx + nx])

    def variance(self, method: str = "auto", *, probes: int = PROBES, seed: int = 0) -> Float:
        """Variance of every node, the diagonal of ``(B'B)^-1``.

        Parameters
        ----------
        method : {"auto", "selected", "probing"}, default "auto"
            Exact, or with the error that :func:`xr_spde.fields.moments.variance` gives.
        probes : int, default 16
            Number of draws for the second.
        seed : int, default 0
            Of those draws.

        Returns
        -------
        ndarray (ny, nx)
            Read only.

        Raises
        ------
        MemoryGuardError
            If what was asked for would not fit in memory.
        ParameterError, UnknownNameError
            For arguments that make no sense.
        """
        return moments.variance(self, method, probes=probes, seed=seed).value

    def covariance_with(self, j: ArrayLike, i: ArrayLike) -> Float:
        """Covariance of every node with one node or several, to the accuracy of the solver.

        Parameters
        ----------
        j, i : int or array_like of int (P,)
            Row and column (canonical) of the node.

        Returns
        -------
        ndarray (ny, nx), or (P, ny, nx) for arrays
            Columns of ``(B'B)^-1``.

        Raises
        ------
        ParameterError
            If a node is outside the grid.
        """
        rows, columns = np.broadcast_arrays(np.asarray(j), np.asarray(i))
        (ny, nx), (dy, dx) = self.shape, self.rim
        if rows.dtype.kind not in "iu" or columns.dtype.kind not in "iu" or rows.ndim > 1:
            raise ParameterError(f"node is ({j!r}, {i!r}); expected whole numbers (row, column)")
        if ((rows < 0) | (rows >= ny) | (columns < 0) | (columns >= nx)).any():
            raise ParameterError(
                f"node ({j!r}, {i!r}) is outside the grid of {ny} rows and {nx} columns"
            )
        nodes = np.atleast_1d((rows + dy) * self.padded_shape[1] + columns + dx)
        covariance = moments.covariance_columns(self, nodes)
        return covariance if rows.ndim else np.asarray(covariance[0])

    def log_likelihood(
        self, fields: ArrayLike, scale: ArrayLike | None = None, method: str = "auto"
    ) -> float:
        """Gaussian log-likelihood of independent replicates of mean zero.

        Per replicate ``log|det B| - n/2 log(2 pi) - ||B y||^2 / 2`` with ``y = field / scale``,
        minus the sum of ``log scale``; the sum over replicates is returned. B is that of the grid
        itself: the buffer plays no part here, since a field is not observed there.

        Parameters
        ----------
        fields : array_like (M, ny, nx) or (ny, nx)
            Complete fields.
        scale : array_like, optional
            Positive factor between y and the field, a scalar or (ny, nx).
        method : {"auto", "exact", "windows"}, default "auto"
            Of the determinant, see :func:`xr_spde.fields.moments.log_determinant`.

        Returns
        -------
        float

        Raises
        ------
        ParameterError
            For another shape, missing values or a scale that is not positive.
        """
        values = np.asarray(fields, dtype=np.float64)
        if values.ndim == 2:
            values = values[None]
        ny, nx = self.shape
        if values.ndim != 3 or values.shape[1:] != (ny, nx):
            raise ParameterError(f"fields have shape {values.shape}; expected (M, {ny}, {nx})")
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise ParameterError(f"fields hold {count} missing or infinite values; expected none")
        log_scale = 0.0
        if scale is not None:
            factors = np.broadcast_to(np.asarray(scale, dtype=np.float64), self.shape)
            if not ((factors > 0.0) & np.isfinite(factors)).all():
                raise ParameterError("scale holds values that are not positive and finite")
            values = values / factors
            log_scale = float(np.log(factors).sum())
        bare = self if self.rim == (0, 0) else replace(self, buffer=0)
        residual = apply(weights(self.kappa2, self.rho, self.theta), values, boundary=self.boundary)
        constant = float(moments.log_determinant(bare, method).value) - log_scale
        constant -= 0.5 * math.log(2.0 * math.pi) * self.kappa2.size
        return float(values.shape[0] * constant - 0.5 * np.vdot(residual, residual))

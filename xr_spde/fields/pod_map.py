r"""Proper orthogonal decomposition as a state map: fields as codes of their leading modes.

A field is :math:`m + \Phi z`, with the mean m over times and modes :math:`\Phi` of a series
(:mod:`xr_spde.fields.pod_modes`). Codes of the series have zero mean and variances
:math:`\lambda`, and what the modes leave out has a variance :math:`\rho` of its own at each value.
So a field d seen at any points, with error variances r, has the code

.. math::

    z = (\Lambda^{-1} + \Phi' R^{-1} \Phi)^{-1} \Phi' R^{-1} (d - m),
    \qquad R = \mathrm{diag}((r + \rho) / w),

which is optimal interpolation with the covariance of the series. Between the points of the series,
modes are interpolated (:mod:`xr_spde._core.point_rows`).

References
----------
Everson and Sirovich (1995), J. Opt. Soc. Am. A 12 (codes of fields with gaps); Kaplan et al.
(1997), J. Geophys. Res. 102 (with the prior).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

from xr_spde._core.errors import ParameterError
from xr_spde._core.point_rows import PointRows, check_points
from xr_spde._core.warn import warn
from xr_spde.solvers.threads import single_blas_thread

__all__ = ["PodMap"]

Array = NDArray[Any]
Float = NDArray[np.float64]

_POINT_SETS = 4  # whose modes are kept
_LEAST = 1e-8  # of the variance of the series, that an error has at least


class PodMap:
    """Codes of fields by their leading modes; satisfies ``StateMap``.

    Parameters
    ----------
    points : ndarray (P, 2)
        Longitude and latitude in radians, or x and y.
    mean_field : ndarray (P, c)
        Mean over times; NaN where a value is not used.
    modes : ndarray (P, c, n)
        Modes; NaN likewise.
    weights : ndarray (P, c)
        With sum one; zero where a value is not used.
    variances : ndarray (n,)
        Of the codes.
    residual : ndarray (P, c)
        Variance that the modes leave out.
    sphere : bool, default True
        Whether `points` are longitude and latitude.

    Attributes
    ----------
    n, variables : int
        Size of a code, and number of variables.
    mean, spread : ndarray (n,)
        Of the codes of the series.
    """

    name: ClassVar[str] = "pod"
    affine = True

    def __init__(
        self,
        points: Array,
        mean_field: Array,
        modes: Array,
        weights: Array,
        variances: Array,
        residual: Array,
        *,
        sphere: bool = True,
    ) -> None:
        self.points = check_points(points, sphere=sphere)
        self.sphere, self.mean_field, self.modes = sphere, mean_field, modes
        self.weights = np.asarray(weights, dtype=np.float64)
        self.variances = np.asarray(variances, dtype=np.float64)
        self.residual = np.asarray(residual, dtype=np.float64)
        shape = (len(self.points), modes.shape[1])
        if modes.ndim != 3 or {shape, mean_field.shape, self.weights.shape, residual.shape} != {
            modes.shape[:2]
        }:
            raise ParameterError(
                f"points {self.points.shape}, mean_field {mean_field.shape}, modes {modes.shape}, "
                f"weights {self.weights.shape} and residual {residual.shape} do not fit; expected "
                "(P, 2), (P, c), (P, c, n), (P, c), (P, c)"
            )
        self.variables, self.n = int(modes.shape[1]), int(modes.shape[2])
        self.mean, self.spread = np.zeros(self.n), np.sqrt(self.variances)
        self._rows: list[PointRows] | None = None
        self._known: OrderedDict[bytes, tuple[Array, Array, Float]] = OrderedDict()

    def at(self, points: ArrayLike | None = None) -> tuple[Array, Array, Float]:
        """Mean, modes and residual variances at points.

        Parameters
        ----------
        points : array_like (M, 2), optional
            By default those of the series.

        Returns
        -------
        tuple of ndarray (M, c), (M, c, n), (M, c)
            NaN outside, and where no value about a point is used.

        Raises
        ------
        ParameterError
            For points that are none.
        """
        if points is None:
            return self.mean_field, self.modes, self.residual
        wanted = check_points(points, sphere=self.sphere)
        key = hashlib.blake2b(wanted.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._interpolated(wanted)
            while len(self._known) > _POINT_SETS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _interpolated(self, wanted: Float) -> tuple[Array, Array, Float]:
        used = self.weights > 0.0
        if self._rows is None:
            self._rows = [PointRows(self.points, flags, sphere=self.sphere) for flags in used.T]
        count, dtype = len(wanted), self.modes.dtype
        mean = np.full((count, self.variables), np.nan, dtype)
        modes = np.full((count, self.variables, self.n), np.nan, dtype)
        residual = np.full((count, self.variables), np.nan)
        for k, (source, flags) in enumerate(zip(self._rows, used.T, strict=True)):
            rows, inside = source.rows(wanted)
            rows = rows[inside][:, flags]
            mean[inside, k] = rows @ self.mean_field[flags, k]
            modes[inside, k] = rows @ self.modes[flags, k]
            # weights of either sign are right for fields, not for variances
            share = abs(rows)
            residual[inside, k] = (share @ self.residual[flags, k]) / share.sum(axis=1)
        return mean, modes, residual

    def encode(
        self,
        values: Array,
        points: Array | None = None,
        weights: Array | None = None,
        *,
        start: Array | None = None,
        prior: bool = True,
        noise: ArrayLike | None = None,
    ) -> Array:
        """Find the codes of fields, exactly.

        Parameters
        ----------
        values : ndarray (B, P, c)
            NaN is missing.
        points : ndarray (P, 2), optional
            By default those of the series.
        weights : ndarray (P,) or (P, c), optional
            Of the squared misfits, up to a factor. By default those of the series at its own
            points, equal ones elsewhere.
        start : ndarray, optional
            Not needed: the solution is in closed form.
        prior : bool, default True
            Whether codes are likely to be those of the series, and fields to differ from the modes
            by what these leave out. Without it this is weighted least squares, which is the
            projection for a field without gaps; fewer values than codes leave codes undetermined,
            the smallest ones are taken, with a warning.
        noise : float, array (c,) or (P, c), optional
            Error variance of the values themselves; none by default.

        Returns
        -------
        ndarray (B, n)
            Of the dtype of `values`.

        Raises
        ------
        ParameterError
            For shapes that do not fit, or a negative `noise`.
        """
        mean, modes, residual = self.at(points)
        given = np.asarray(values)
        if given.ndim != 3 or given.shape[1:] != mean.shape:
            raise ParameterError(
                f"values have shape {given.shape}; expected (B, {mean.shape[0]}, {mean.shape[1]})"
            )
        if not prior:
            residual = np.zeros_like(residual)
        precision = self._precision(mean, residual, weights, noise, own=points is None)
        flat = (given.astype(np.float64) - mean).reshape(len(given), -1)
        seen = np.isfinite(flat) & (precision > 0.0)
        codes, basis = np.zeros((len(given), self.n)), modes.reshape(-1, self.n)
        groups: dict[bytes, list[int]] = {}
        for k, flags in enumerate(seen):
            groups.setdefault(np.packbits(flags).tobytes(), []).append(k)
        with single_blas_thread():
            for members in groups.values():
                kept = seen[members[0]]
                if kept.any():
                    own, given_here = basis[kept].astype(np.float64), flat[members][:, kept]
                    codes[members] = self._solve(own, precision[kept], given_here, prior)
        return codes.astype(np.result_type(given.dtype, np.float32))

    def _precision(
        self, mean: Array, residual: Float, weights: Any, noise: Any, *, own: bool
    ) -> Float:
        """Inverse error variances (P * c,), zero where a value does not count."""
        shape = mean.shape
        w = self.weights if weights is None and own else weights
        w = np.ones(shape) if w is None else np.asarray(w, dtype=np.float64)
        errors = np.zeros(shape) if noise is None else np.asarray(noise, dtype=np.float64)
        if w.shape not in (shape, shape[:1]) or not (np.isfinite(w) & (w >= 0.0)).all():
            raise ParameterError(
                f"weights have shape {w.shape}; expected numbers >= 0 of shape ({shape[0]},) or "
                f"{shape}"
            )
        if errors.shape not in ((), shape, shape[1:]) or not (errors >= 0.0).all():
            raise ParameterError(
                f"noise has shape {errors.shape}; expected variances >= 0: one number, "
                f"({shape[1]},) or {shape}"
            )
        w = np.broadcast_to(w[:, None] if w.ndim == 1 else w, shape)
        w = np.where(np.isfinite(mean), w, 0.0)
        least = _LEAST * float(self.variances.sum())
        variance = np.maximum(np.nan_to_num(residual) + errors, least)
        counted = w[w > 0.0]
        return np.asarray((w / (counted.mean() if counted.size else 1.0) / variance).ravel())

    def _solve(self, basis: Float, precision: Float, fields: Float, prior: bool) -> Float:
        """Codes (B, n) of fields (B, M) that share their gaps."""
        weighted = basis * precision[:, None]
        # in units of the spread, the prior is the identity and the system well conditioned
        gram = self.spread[:, None] * (basis.T @ weighted) * self.spread
        pull = self.spread[:, None] * (weighted.T @ fields.T)
        if prior:
            np.fill_diagonal(gram, gram.diagonal() + 1.0)
            return np.asarray((self.spread[:, None] * cho_solve(cho_factor(gram), pull)).T)
        values, vectors = eigh(gram)
        held = values > 1e-12 * values[-1]
        if not held.all():
            warn(
                f"{len(precision)} values determine {int(held.sum())} of {self.n} codes; the "
                "smallest of those that fit are taken (prior=True takes the likeliest)"
            )
        inverse = np.where(held, 1.0 / np.where(held, values, 1.0), 0.0)
        solved = vectors @ (inverse[:, None] * (vectors.T @ pull))
        return np.asarray((self.spread[:, None] * solved).T)

    def decode(self, codes: Array, points: Array | None = None) -> Array:
        """Evaluate fields.

        Parameters
        ----------
        codes : ndarray (B, n)
            Codes.
        points : ndarray (P, 2), optional
            By default those of the series.

        Returns
        -------
        ndarray (B, P, c)
            NaN where the series has no values, and outside.

        Raises
        ------
        ParameterError
            For codes of another size.
        """
        mean, modes, _ = self.at(points)
        given = np.asarray(codes)
        if given.ndim != 2 or given.shape[1] != self.n:
            raise ParameterError(f"codes have shape {given.shape}; expected (B, {self.n})")
        with single_blas_thread():
            fields = given @ modes.reshape(-1, self.n).T
        return np.asarray(fields.reshape(len(given), *mean.shape) + mean)

    def jvp(self, codes: Array, tangents: Array, points: Array | None = None) -> Array:
        """Differentiate `decode` along directions.

        Parameters
        ----------
        codes : ndarray (B, n)
            Where; the same everywhere.
        tangents : ndarray (B, n, K)
            Directions.
        points : ndarray (P, 2), optional
            By default those of the series.

        Returns
        -------
        ndarray (B, P, c, K)
        """
        modes = self.at(points)[1]
        with single_blas_thread():
            moved = modes.reshape(-1, self.n) @ np.asarray(tangents)
        return np.asarray(moved.reshape(len(moved), *modes.shape[:2], -1))

    def jacobian(self, code: Array, points: Array | None = None) -> Array:
        """Differentiate `decode` at one code.

        Parameters
        ----------
        code : ndarray (n,)
            Where; the same everywhere.
        points : ndarray (P, 2), optional
            By default those of the series.

        Returns
        -------
        ndarray (P * c, n)
        """
        return self.at(points)[1].reshape(-1, self.n)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Give what the map is saved as.

        Returns
        -------
        tuple of dict
            Arrays by name, and options that JSON can hold.
        """
        names = ("points", "mean_field", "modes", "weights", "variances", "residual")
        return {name: getattr(self, name) for name in names}, {"sphere": self.sphere}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the map of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        PodMap
        """
        return cls(**arrays, sphere=bool(options["sphere"]))

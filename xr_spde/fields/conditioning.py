"""What is conditioned on what: a Gaussian field, and how it is observed; arrays only.

The field is ``u = D y + P a`` with ``B y = e``: D a diagonal scale, P patterns with standard normal
amplitudes a. Observations are ``d = H u + errors``. How they are used is up to
:mod:`xr_spde.fields.posterior`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.field import GaussianField
from xr_spde.solvers.grid_cut import PERIODIC

__all__ = ["PRECISION_FROM", "REACH", "ROUTES", "Conditioning", "Errors"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

ROUTES = ("auto", "precision", "augmented", "covariance")
"""Ways to the posterior."""

PRECISION_FROM = 200
"""Observations from which the sparse precision is faster than one column for each of them."""

AUGMENTED_FROM = 400
"""Observations that cannot enter the precision from which "auto" augments it by them."""

STRONGEST = 1e6
"""Squared weights over error variance above which an observation would drown the precision."""

STRONG = 1e4
"""The same where others augment the precision anyway."""

EXACT = 1e8
"""The same above which "auto" augments it by however few, because columns lose digits too."""

REACH = 2
"""Rows or columns that the nodes of an observation may be apart to enter the precision."""


class Errors(Protocol):
    """What is asked of the errors of p observations."""

    @property
    def variance(self) -> Any:
        """Diagonal of R (p,)."""

    def whiten(self, x: Any) -> Any:
        """Return ``R^-1/2 x`` for x (..., p)."""

    def select(self, keep: Any) -> Errors:
        """Return the errors of some observations."""

    # and where the precision is to be augmented, sparse_form() -> (turn, rest, log_turn) with
    # sparse matrices turn R turn' = rest, or None


@dataclass(frozen=True, eq=False)
class Conditioning:
    """A field model and how it is observed; a recipe that pickles without any factor.

    Parameters
    ----------
    model : GaussianField
        Of y.
    rows : csr_array (p, ny * nx)
        The operator H on canonical fields.
    errors : Errors
        Of the observations.
    independent : bool
        Whether R is diagonal.
    log_r : float
        ``log|R|``.
    scale : ndarray (ny, nx), optional
        The diagonal of D; one by default.
    patterns : ndarray (m, ny, nx), optional
        The columns of P; none by default.
    route : {"auto", "precision", "augmented", "covariance"}, default "auto"
        Whether observations enter the sparse precision where they can, and whether others take
        a column each or augment it. "auto": they enter from :data:`PRECISION_FROM` of them on, and
        the others augment from :data:`AUGMENTED_FROM` of them on, or where errors are tiny.

    Raises
    ------
    ParameterError
        If shapes do not fit.
    UnknownNameError
        For an unknown route.
    """

    model: GaussianField
    rows: sp.csr_array
    errors: Errors
    independent: bool
    log_r: float
    scale: Float | None = None
    patterns: Float | None = None
    route: str = "auto"

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.route not in ROUTES:
            raise unknown("route", self.route, ROUTES)
        ny, nx = self.model.shape
        p = len(self.errors.variance)
        if self.rows.shape != (p, ny * nx):
            raise ParameterError(f"rows have shape {self.rows.shape}; expected {(p, ny * nx)}")
        if self.scale is not None and self.scale.shape != (ny, nx):
            raise ParameterError(f"scale has shape {self.scale.shape}; expected {(ny, nx)}")
        if self.patterns is not None and self.patterns.shape[1:] != (ny, nx):
            raise ParameterError(
                f"patterns have shape {self.patterns.shape}; expected (m, {ny}, {nx})"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the recipe alone."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    @property
    def size(self) -> int:
        """Number of observations p."""
        return int(self.rows.shape[0])

    @cached_property
    def loads(self) -> Float:
        """Patterns as they are observed, H P (p, m)."""
        flat = self.flat_patterns
        return np.asarray(self.rows @ flat.T) if len(flat) else np.zeros((self.size, 0))

    @property
    def flat_patterns(self) -> Float:
        """Columns of P (m, ny * nx)."""
        ny, nx = self.model.shape
        given = np.zeros((0, ny, nx)) if self.patterns is None else self.patterns
        return np.asarray(given, dtype=np.float64).reshape(-1, ny * nx)

    @cached_property
    def padded_rows(self) -> sp.csr_array:
        """``G = H D`` on the nodes of the padded grid (p, size)."""
        nx, (dy, dx) = self.model.shape[1], self.model.rim
        width = self.model.padded_shape[1]
        rows = self.rows
        j, i = np.divmod(rows.indices, nx)
        weights = rows.data.astype(np.float64)
        if self.scale is not None:
            weights = weights * self.scale.ravel()[rows.indices]
        parts = (weights, (j + dy) * width + i + dx, rows.indptr)
        return sp.csr_array(parts, shape=(self.size, self.model.size))

    @cached_property
    def near(self) -> NDArray[np.bool_]:
        """Which observations enter the precision (p,)."""
        if self.augmented:
            return self._within & (self.strength <= STRONG)
        usable = self._within & (self.strength <= STRONGEST)
        few = self.route == "auto" and np.count_nonzero(usable) < PRECISION_FROM
        if self.route == "covariance" or few:
            usable[:] = False
        return usable

    @cached_property
    def _within(self) -> NDArray[np.bool_]:
        """Which observations have the form to enter the precision (p,)."""
        return self._within_stencil() if self.independent else np.zeros(self.size, dtype=bool)

    @cached_property
    def strength(self) -> Float:
        """Squared weights over error variance (p,)."""
        squares = self.padded_rows.power(2).sum(axis=1)
        return np.asarray(squares / np.asarray(self.errors.variance))

    @cached_property
    def augmented(self) -> bool:
        """Whether observations that cannot enter the precision augment it.

        Raises
        ------
        ParameterError
            If they are to and the model of their errors does not give them as sparse matrices.
        """
        asked = self.route == "augmented"
        wide = ~self._within | (self.strength > STRONGEST)
        needed = np.count_nonzero(wide) >= AUGMENTED_FROM or bool((self.strength > EXACT).any())
        if not asked and not (self.route == "auto" and needed):
            return False
        known = getattr(self.errors, "sparse_form", None)
        able = callable(known) and known() is not None
        if asked and not able:
            raise ParameterError(
                f"route='augmented' was given, and errors of type {type(self.errors).__name__} "
                'have no sparse_form(); take route="covariance", or errors that are independent, '
                "AlongTrack or in blocks"
            )
        return able

    def _within_stencil(self) -> NDArray[np.bool_]:
        """Whether all nodes of a row are neighbours in the stencil of Q."""
        rows, shape = self.padded_rows, self.model.padded_shape
        counts = np.diff(rows.indptr)
        inside = counts > 0
        first = np.repeat(rows.indices[rows.indptr[:-1][inside]], counts[inside])
        number = np.repeat(np.arange(self.size), counts)
        places = zip(np.divmod(rows.indices, shape[1]), np.divmod(first, shape[1]), strict=True)
        for (place, start), n, around in zip(
            places, shape, PERIODIC[self.model.boundary], strict=True
        ):
            step = place - start
            if around:
                step = (step + n // 2) % n - n // 2
            low, high = np.zeros(self.size, dtype=np.intp), np.zeros(self.size, dtype=np.intp)
            np.minimum.at(low, number, step)
            np.maximum.at(high, number, step)
            inside &= high - low <= REACH
        return inside

    @cached_property
    def key(self) -> str:
        """Hash of all that decides the factor."""
        digest = hashlib.blake2b(digest_size=20)
        rows = self.padded_rows
        marks = np.append(self.near, self.augmented)
        parts = (rows.indptr, rows.indices, rows.data, self.loads, marks)
        for array in (*parts, np.asarray(self.errors.variance)):
            digest.update(np.ascontiguousarray(array).tobytes())
        probe = np.sin(np.arange(self.size) + 1.0)  # correlated errors differ by their root
        digest.update(np.ascontiguousarray(self.errors.whiten(probe)).tobytes())
        return f"{self.model.key}-{digest.hexdigest()}"

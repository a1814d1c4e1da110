r"""Gaussian error of a step of a propagator, in code space.

It is ``r ~ N(0, Q)``, with residuals ``r = z(t + dt) - G(z(t))`` of times that the propagator was
not trained on, and grows as a random walk, ``Q dt``. Its maximum likelihood is a closed form; the
minimisation is there for the penalised Cholesky factor, and as a check.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Self

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, SolverError, unknown

__all__ = ["KINDS", "GaussianError", "fit_error"]

LOGGER = logging.getLogger(__name__)

Float = NDArray[np.float64]
Array = NDArray[Any]

KINDS = ("scalar", "diagonal", "full")
"""One variance, one for each number of the code, or a covariance."""

_SWEEPS = 5000


class GaussianError:
    """Gaussian error of one step, and variance of what the state map cannot represent.

    Parameters
    ----------
    kind : {"scalar", "diagonal", "full"}
        See :data:`KINDS`.
    noise : array_like (n,) or (n, k)
        Variances, or a square root F of the covariance ``Q = F F'`` of a full one.
    representativeness : array_like (c,) or (P, c), optional
        Variance in normalised units.

    Raises
    ------
    UnknownNameError
        For another kind.
    ParameterError
        For variances that are not positive, or a root of another shape.
    """

    name: ClassVar[str] = "gaussian"

    def __init__(
        self, kind: str, noise: ArrayLike, representativeness: ArrayLike | None = None
    ) -> None:
        if kind not in KINDS:
            raise unknown("kind of model error", kind, KINDS)
        self.kind, self.noise = kind, np.array(noise, dtype=np.float64)
        if self.noise.ndim != (2 if kind == "full" else 1) or not np.isfinite(self.noise).all():
            raise ParameterError(
                f"noise has shape {self.noise.shape}; expected finite numbers, (n, k) for "
                '"full" and (n,) else'
            )
        if kind != "full" and not (self.noise > 0.0).all():
            raise ParameterError(f"a variance is {self.noise.min():g}; expected numbers > 0")
        self.representativeness = (
            None if representativeness is None else np.array(representativeness, dtype=np.float64)
        )

    @property
    def n(self) -> int:
        """Size of a code."""
        return len(self.noise)

    def over(self, dt: float = 1.0) -> Float:
        """Give what `xr_spde.assim.model_noise.add_noise` takes for a step.

        Parameters
        ----------
        dt : float, default 1
            Length of the step.

        Returns
        -------
        ndarray (n,) or (n, k)
            Variances, or a square root.
        """
        return self.noise * (np.sqrt(dt) if self.kind == "full" else dt)

    @property
    def covariance(self) -> Float:
        """Covariance Q (n, n) of one step."""
        return self.noise @ self.noise.T if self.kind == "full" else np.diag(self.noise)

    @property
    def factor(self) -> Float:
        """Square root (n, k) of the covariance."""
        return self.noise if self.kind == "full" else np.diag(np.sqrt(self.noise))

    def sample(self, rng: np.random.Generator, count: int) -> Float:
        """Draw errors of one step.

        Parameters
        ----------
        rng : Generator
            Source of random numbers.
        count : int
            How many.

        Returns
        -------
        ndarray (count, n)
        """
        if self.kind == "full":
            return np.asarray(rng.standard_normal((count, self.noise.shape[1])) @ self.noise.T)
        return np.asarray(rng.standard_normal((count, self.n)) * np.sqrt(self.noise))

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Give what the error is saved as."""
        arrays = {"noise": self.noise}
        if self.representativeness is not None:
            arrays["representativeness"] = self.representativeness
        return arrays, {"kind": self.kind}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the error of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        GaussianError
        """
        return cls(options["kind"], arrays["noise"], arrays.get("representativeness"))


def fit_error(
    residuals: ArrayLike,
    kind: str = "scalar",
    *,
    method: str = "closed",
    penalty: float = 0.0,
    representativeness: ArrayLike | None = None,
) -> GaussianError:
    r"""Fit a model error to residuals of held-out time.

    Parameters
    ----------
    residuals : array_like (K, n)
        As `xr_spde.assim.latent.residuals.step_residuals` returns them.
    kind : {"scalar", "diagonal", "full"}
        See :data:`KINDS`.
    method : {"closed", "likelihood"}
        Closed form of the maximum likelihood, or its minimisation.
    penalty : float, default 0
        :math:`\lambda` on the absolute values below the diagonal of the inverse Cholesky factor, of
        residuals over their standard deviations; with "full" and "likelihood". It sets weak partial
        regressions to zero, which fewer residuals than n call for.
    representativeness : array_like, optional
        Kept with the error.

    Returns
    -------
    GaussianError

    Raises
    ------
    UnknownNameError
        For another kind or method.
    ParameterError
        For shapes that do not fit, or residuals that are all zero.
    SolverError
        If the minimisation did not converge.
    """
    r = np.asarray(residuals, dtype=np.float64)
    if kind not in KINDS:
        raise unknown("kind of model error", kind, KINDS)
    if method not in ("closed", "likelihood"):
        raise unknown("method", method, ("closed", "likelihood"))
    if r.ndim != 2 or not r.size or not np.isfinite(r).all() or penalty < 0.0:
        raise ParameterError(
            f"residuals have shape {r.shape} and penalty={penalty}: expected finite numbers (K, n) "
            "and a penalty that is not negative"
        )
    if penalty and (kind, method) != ("full", "likelihood"):
        raise ParameterError('penalty= is for kind="full" and method="likelihood"')
    variances = np.mean(r**2, axis=0)
    if not variances.max() > 0.0:
        raise ParameterError("all residuals are zero: there is no model error to fit")
    variances = np.maximum(variances, 1e-12 * variances.max())
    n = r.shape[1]
    if kind == "full":
        if len(r) < n and not penalty:
            LOGGER.warning(
                "%d residuals for a full covariance of %d numbers: it has no error in %d directions"
                "; give a penalty, or a diagonal one", len(r), n, n - len(r),
            )  # fmt: skip
        noise = _full(r, variances, method, penalty)
    elif method == "closed":
        noise = np.full(n, variances.mean()) if kind == "scalar" else variances
    else:
        noise = _likely_variances(variances, scalar=kind == "scalar")
    return GaussianError(kind, noise, representativeness)


def _likely_variances(moments: Float, *, scalar: bool) -> Float:
    """Minimise half of ``moment / variance + log variance``, over logarithms."""
    given = np.atleast_1d(moments.mean()) if scalar else moments
    size = given.mean()

    def cost(s: Float) -> tuple[float, Float]:
        ratio = given / size * np.exp(-s)
        return float(0.5 * np.sum(ratio + s)), 0.5 * (1.0 - ratio)

    found = scipy.optimize.minimize(
        cost, np.zeros(len(given)), jac=True, method="L-BFGS-B",
        options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-8},
    )  # fmt: skip
    return np.asarray(np.broadcast_to(size * np.exp(found.x), moments.shape).copy())


def _full(r: Float, variances: Float, method: str, penalty: float) -> Float:
    """Square root of the second moments, or of what a penalised likelihood makes of them."""
    scale = np.sqrt(variances)
    moments = (r / scale).T @ (r / scale) / len(r)
    if method == "closed":
        values, vectors = np.linalg.eigh(moments)
        kept = values > 1e-12 * values[-1]
        root = vectors[:, kept] * np.sqrt(values[kept])
    else:
        inverse = _likely_inverse(moments, penalty)
        root = scipy.linalg.solve_triangular(inverse, np.eye(len(inverse)), lower=True)
    return np.asarray(scale[:, None] * root)


def _likely_inverse(S: Float, penalty: float) -> Float:
    """Minimise ``tr(W S W') / 2 - log det W + penalty |lower W|`` over lower triangles W.

    It is convex, and every row a problem of its own.
    """
    n = len(S)
    W = np.zeros((n, n))
    for i in range(n):
        W[i, : i + 1] = _row(S[: i + 1, : i + 1], penalty)
    return W


def _row(S: Float, penalty: float) -> Float:
    """Row of the factor: w = (v, d), of ``w S w' / 2 - log d + penalty |v|``, by coordinates."""
    i = len(S) - 1
    # stationary without a penalty: S w = e_i / d, one solve
    floor = 1e-12 * np.trace(S) / len(S) * np.eye(i + 1)
    column = scipy.linalg.solve(S + floor, np.eye(i + 1)[i], assume_a="pos")
    joined = np.asarray(column / np.sqrt(column[i]))
    if penalty == 0.0:
        return joined

    def cost(w: Float, product: Float) -> float:
        return float(0.5 * w @ product - np.log(w[i]) + penalty * np.abs(w[:i]).sum())

    alone = np.zeros(i + 1)
    alone[i] = 1.0 / np.sqrt(S[i, i])
    w = min((alone, joined), key=lambda start: cost(start, S @ start))
    product = S @ w
    former = cost(w, product)
    for _ in range(_SWEEPS):
        for k in range(i):
            before = w[k]
            slope = product[k] - S[k, k] * before
            w[k] = -np.sign(slope) * max(abs(slope) - penalty, 0.0) / S[k, k]
            if w[k] != before:
                product += S[:, k] * (w[k] - before)
        rest = product[i] - S[i, i] * w[i]
        d = (-rest + np.sqrt(rest**2 + 4.0 * S[i, i])) / (2.0 * S[i, i])
        product += S[:, i] * (d - w[i])
        w[i] = d
        now = cost(w, product)
        if former - now < 1e-10:
            return w
        former = now
    raise SolverError(
        f"the penalised likelihood of number {i} of the code did not converge; give a larger "
        f"penalty than {penalty:g}"
    )

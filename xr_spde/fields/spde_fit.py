"""Maximum likelihood of the space-time prior: constant parameters, or smooth maps of them.

The maps of :mod:`xr_spde.fields.spde_maps` are fitted by climbing the exact likelihood with its
exact gradient. Smooth maps are linear between knots of a coarse grid, with a Gaussian prior on the
differences of neighbouring knots.

References
----------
Lindgren, Rue, Lindstrom (2011), J. R. Stat. Soc. B 73; Fuglstad, Lindgren, Simpson, Rue (2015),
Statistica Sinica 25 (smoothly varying tensors).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde._core.warn import warn
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_likelihood import Likelihood, negative_log_likelihood
from xr_spde.fields.spde_maps import MAPS, by_maps, from_maps, knot_basis, to_maps

__all__ = ["Problem", "SpdeFit", "fit"]

Float = NDArray[np.float64]

_WORST = 1e6


@dataclass(frozen=True, eq=False)
class SpdeFit:
    """Fitted parameters of the space-time prior.

    Attributes
    ----------
    parameters : SpdeParameters
        Of one step.
    maps, stderr : dict of str to ndarray (ny, nx)
        The maps of :data:`xr_spde.fields.spde_maps.MAPS` and their standard errors (NaN where the
        likelihood is not curved downward at the end, which a warning says).
    covariance : ndarray (q, q)
        Of the unknowns: the values of every fitted map at the knots, map by map.
    names : tuple of str
        The maps that were fitted.
    log_likelihood : float
        At the end, without the penalty.
    iterations : int
        Of the climb.
    converged : bool
        Whether it came to its end.
    """

    parameters: SpdeParameters
    maps: dict[str, Float]
    stderr: dict[str, Float]
    covariance: Float
    names: tuple[str, ...]
    log_likelihood: float
    iterations: int
    converged: bool


def starting_values(
    operator: SpdeOperator, fields: Float, *, dt: float, alpha: int
) -> dict[str, float]:
    """Guess constant parameters from variances of differences in space and time.

    Parameters
    ----------
    operator : SpdeOperator
        Mesh and scheme.
    fields : ndarray (K, steps, ny, nx)
        Anomalies.
    dt : float
        Length of a step.
    alpha : {2, 4}
        Power.

    Returns
    -------
    dict of str to float
        ``kappa``, ``gamma`` and ``tau``.

    Raises
    ------
    ParameterError
        If the fields do not vary.
    """
    mesh = operator.mesh
    water = np.where(mesh.land, np.nan, 1.0)
    x = fields * water
    variance = float(np.nanmean(x**2))
    slopes = [
        float(np.nanmean((np.diff(x, axis=axis) / spacing) ** 2))
        for axis, spacing in ((-1, mesh.dx[:, 1:]), (-2, mesh.dy[1:]))
    ]
    if not (variance > 0.0 and np.mean(slopes) > 0.0):
        raise ParameterError("the fields do not vary; expected anomalies of several nodes")
    length2 = variance / np.mean(slopes)
    lagged = float(np.nanmean(x[:, 1:] * x[:, :-1])) / variance if x.shape[1] > 1 else 0.5
    rate = (1.0 / min(max(lagged, 0.05), 0.99) - 1.0) / dt
    # the typical wave has kappa^2 + |k|^2 H near twice kappa^2
    kappa = (rate ** (2.0 / alpha) / 2.0) ** 0.5
    parameters = SpdeParameters.of(mesh.shape, kappa=kappa, gamma=kappa**2 * length2)
    prior = SpaceTime(operator, parameters, steps=x.shape[1], dt=dt, alpha=alpha)
    states = np.nan_to_num(x).reshape(len(x), -1).T
    count = x.shape[1] * float(prior.sea.sum())
    tau = float(np.sqrt(prior.mahalanobis(states).mean() / count))
    return {"kappa": kappa, "gamma": kappa**2 * length2, "tau": tau}


def fit(
    operator: SpdeOperator,
    fields: Float,
    *,
    dt: float = 1.0,
    alpha: int = 4,
    knots: tuple[int, int] = (1, 1),
    names: tuple[str, ...] = MAPS,
    start: SpdeParameters | None = None,
    smoothness: float = 0.3,
    initial: str = "stationary",
    max_iterations: int = 200,
    stderr: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> SpdeFit:
    """Fit the prior to windows of complete fields by maximum likelihood.

    Parameters
    ----------
    operator : SpdeOperator
        Mesh and scheme.
    fields : ndarray (K, steps, ny, nx)
        Anomalies of K independent windows; land may be NaN.
    dt : float, default 1
        Length of a step.
    alpha : {4, 2}
        Power.
    knots : tuple of int, default (1, 1)
        Knots of the maps in y and x: constants by default.
    names : tuple of str
        Maps that are fitted; the others keep their start (no flow, isotropic).
    start : SpdeParameters, optional
        By default guessed from variances of differences.
    smoothness : float, default 0.3
        Standard deviation of the difference of two neighbouring knots; no matter for constants.
    initial : {"stationary", "rest"}, default "stationary"
        First state of a window.
    max_iterations : int, default 200
        Of the climb.
    stderr : bool, default True
        Whether to compute standard errors, by differences of the gradient: two evaluations for
        each unknown.
    progress : callable, optional
        Called with the number of evaluations and the negative log-likelihood.

    Returns
    -------
    SpdeFit

    Raises
    ------
    ParameterError
        For shapes that do not fit, missing values off land, or unknown maps.
    """
    shape = operator.mesh.shape
    if fields.ndim != 4 or fields.shape[2:] != shape or not set(names) <= set(MAPS) or not names:
        raise ParameterError(
            f"fields have shape {fields.shape} and names={names}; expected (windows, steps, "
            f"*{shape}) and some of {MAPS}"
        )
    if start is None:
        guess = starting_values(operator, fields, dt=dt, alpha=alpha)
        start = SpdeParameters.of(shape, **guess)
    problem = _FieldProblem(
        operator, fields, dt=dt, alpha=alpha, knots=knots, names=tuple(names), start=start,
        smoothness=smoothness, initial=initial,
    )  # fmt: skip
    return problem.solve(max_iterations, stderr, progress)[0]


class Problem(ABC):
    """A likelihood as a function of the unknowns: maps at knots, then numbers of another kind.

    Parameters
    ----------
    operator : SpdeOperator
        Mesh and scheme.
    steps, dt, alpha, initial
        Of the prior.
    knots, names, start, smoothness
        As for :func:`fit`.
    count : float
        Number of data, which scales the climb.
    further : ndarray (q,)
        Start of the numbers of another kind.
    """

    def __init__(
        self, operator: SpdeOperator, *, steps: int, dt: float, alpha: int, initial: str,
        knots: tuple[int, int], names: tuple[str, ...], start: SpdeParameters, smoothness: float,
        count: float, further: Float,
    ) -> None:  # fmt: skip
        self.operator, self.steps, self.dt, self.alpha = operator, steps, dt, alpha
        self.names, self.initial, self.further = names, initial, further
        self.basis = knot_basis(operator.mesh.shape, knots)
        self.base = to_maps(start, operator, dt)
        self.scale = max(float(count), 1.0)
        self.roughness = _roughness(knots) / smoothness**2
        self.evaluations = 0
        self.mapped = len(names) * len(self.basis)

    @abstractmethod
    def likelihood(self, prior: SpaceTime, further: Float) -> tuple[Likelihood, Float]:
        """Return the likelihood, and its gradient by the further numbers."""

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.mapped + self.further.size

    def maps(self, unknowns: Float) -> dict[str, Float]:
        """Start plus what the knots add."""
        added = unknowns[: self.mapped].reshape(len(self.names), -1) @ self.basis
        shape = self.operator.mesh.shape
        moved = dict(zip(self.names, added.reshape(-1, *shape), strict=True))
        return {name: self.base[name] + moved.get(name, 0.0) for name in MAPS}

    def evaluate(self, unknowns: Float) -> tuple[float, Float, float]:
        """Penalised negative log-likelihood, its gradient, and the likelihood's share."""
        maps = self.maps(unknowns)
        parameters = from_maps(maps, self.operator, self.dt)
        prior = SpaceTime(self.operator, parameters, steps=self.steps, dt=self.dt,
                          alpha=self.alpha, initial=self.initial)  # fmt: skip
        found, further = self.likelihood(prior, self.further + unknowns[self.mapped :])
        by = by_maps(found, maps)
        gradient = np.stack([self.basis @ by[name].ravel() for name in self.names])
        rows = unknowns[: self.mapped].reshape(len(self.names), -1)
        bent = rows @ self.roughness
        value = found.value + 0.5 * float(np.sum(rows * bent))
        self.evaluations += 1
        return value, np.concatenate([(gradient + bent).ravel(), further]), found.value

    def solve(
        self, max_iterations: int, stderr: bool, progress: Callable[[int, float], None] | None
    ) -> tuple[SpdeFit, Float, Float]:
        """Climb, and look how sharp the summit is.

        Returns
        -------
        found : SpdeFit
        further : ndarray (q,)
            The numbers of another kind at the summit.
        errors : ndarray (q,)
            Their standard errors.
        """
        from scipy.optimize import minimize

        def goal(unknowns: Float) -> tuple[float, Float]:
            try:
                value, gradient, _ = self.evaluate(unknowns)
            except (SolverError, ParameterError):
                # no prior there: the step was too long; infinity would end the line search
                return _WORST, np.zeros(unknowns.size)
            if progress is not None:
                progress(self.evaluations, value)
            return value / self.scale, gradient / self.scale

        start = np.zeros(self.size)
        self.evaluate(start)  # what the start itself cannot do is an error, said by its cause
        limits: dict[str, Any] = {"maxiter": max_iterations, **self.tolerances}
        bounds = [(-6.0, 6.0)] * self.size
        found = minimize(goal, start, jac=True, method="L-BFGS-B", bounds=bounds,
                         options=limits)  # type: ignore[call-overload]  # fmt: skip
        if not found.success:
            warn(f"the likelihood was still rising after {found.nit} iterations: {found.message}")
        value = self.evaluate(found.x)[2]
        covariance = self._covariance(found.x) if stderr else np.full((self.size,) * 2, np.nan)
        maps, own = self.maps(found.x), covariance[: self.mapped, : self.mapped]
        fitted = SpdeFit(
            from_maps(maps, self.operator, self.dt), maps, self._deviations(own), own,
            self.names, -value, int(found.nit), bool(found.success),
        )  # fmt: skip
        errors = np.sqrt(np.diagonal(covariance)[self.mapped :])
        return fitted, self.further + found.x[self.mapped :], errors

    tolerances: Mapping[str, float] = {"ftol": 1e-12, "gtol": 1e-7}
    """When the climb is at its end."""

    def _covariance(self, unknowns: Float) -> Float:
        """Inverse of the observed information."""
        step, curvature = 1e-3, np.empty((self.size, self.size))
        for k in range(self.size):
            ends = []
            for sign in (1.0, -1.0):
                moved = unknowns.copy()
                moved[k] += sign * step
                ends.append(self.evaluate(moved)[1])
            curvature[k] = (ends[0] - ends[1]) / (2.0 * step)
        curvature = 0.5 * (curvature + curvature.T)
        if not np.linalg.eigvalsh(curvature)[0] > 0.0:
            warn("the likelihood is not curved downward in all unknowns; no standard errors")
            return np.full(curvature.shape, np.nan)
        return np.asarray(np.linalg.inv(curvature))

    def _deviations(self, covariance: Float) -> dict[str, Float]:
        """Return standard errors of the maps; zero for those that were not fitted."""
        shape, count = self.operator.mesh.shape, len(self.basis)
        found = {name: np.zeros(shape) for name in MAPS}
        for k, name in enumerate(self.names):
            own = covariance[k * count : (k + 1) * count, k * count : (k + 1) * count]
            variance = np.einsum("kn,kl,ln->n", self.basis, own, self.basis)
            found[name] = np.sqrt(variance).reshape(shape)
        return found


class _FieldProblem(Problem):
    """Likelihood of complete fields."""

    def __init__(self, operator: SpdeOperator, fields: Float, **how: Any) -> None:
        count = operator.mesh.sea.sum() * fields.shape[0] * fields.shape[1]
        super().__init__(operator, steps=fields.shape[1], count=count, further=np.zeros(0), **how)
        self.fields = fields

    def likelihood(self, prior: SpaceTime, further: Float) -> tuple[Likelihood, Float]:
        """Return that of the fields."""
        return negative_log_likelihood(prior, self.fields), further


def _roughness(knots: tuple[int, int]) -> Float:
    """Sum of squared differences of neighbouring knots, as a matrix."""
    parts = []
    for count in knots:
        differences = np.diff(np.eye(count), axis=0)
        parts.append(differences.T @ differences)
    return np.kron(parts[0], np.eye(knots[1])) + np.kron(np.eye(knots[0]), parts[1])

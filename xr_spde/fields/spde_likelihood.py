r"""Likelihood of fields under the space-time prior, with its exact gradient by all parameters.

.. math::

    -\log p(x) = \tfrac12 ( x' Q x - \log |Q| + N \log 2 \pi ).

The gradient of ``log|A|`` by an entry is an entry of the inverse, which selected inversion gives
wherever A has entries; that of ``log|Q_0|`` with ``Q_0 = A' W A - W`` needs ``Q_0^-1`` where
``A' W A`` has entries. Neither probes nor dense matrices are needed.

References
----------
Rue and Held (2005), Gaussian Markov Random Fields; Takahashi, Fagan, Chin (1973).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import COEFFICIENTS
from xr_spde.solvers.pattern import on_pattern

__all__ = [
    "Likelihood",
    "ParameterGradient",
    "add_determinant",
    "add_distances",
    "negative_log_likelihood",
]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Negative log-likelihood of fields and its gradient.

    Attributes
    ----------
    value : float
        Sum over the windows.
    by_coefficients : ndarray (sets, 8, n)
        Gradient by :data:`xr_spde.fields.spde.COEFFICIENTS` of every set of parameters.
    by_tau : ndarray (sets, ny, nx)
        Gradient by tau.
    prior : SpaceTime
        Whose parameters they are.
    """

    value: float
    by_coefficients: Float
    by_tau: Float
    prior: SpaceTime

    def by_parameters(self) -> dict[str, Float]:
        """Return the gradient by each of the eight parameters (sets, ny, nx)."""
        found = [
            self.prior.parameters.pull_back(gradient, k)
            for k, gradient in enumerate(self.by_coefficients)
        ]
        stacked = {name: np.stack([one[name] for one in found]) for name in found[0]}
        return stacked | {"tau": self.by_tau}


class ParameterGradient:
    """Gradient by the entries of A and by W, gathered over steps and windows."""

    def __init__(self, prior: SpaceTime) -> None:
        if prior.noise is not None or prior.order != 1:
            raise ParameterError(
                "the likelihood knows white noise only, and the first order in time; expected a "
                "prior without noise="
            )
        sets, n = prior.parameters.steps, prior.nodes
        self.prior = prior
        self.coefficients = np.zeros((sets, len(COEFFICIENTS), n))
        self.weights = np.zeros((sets, n))
        ones = prior.operator.on_pattern(np.ones(prior.spatial(0).nnz))
        self.pattern = ones if prior.power == 1 else sp.csc_array(ones @ ones)

    def outer(self, step: int, left: Float, right: Float) -> None:
        """Add ``left right'`` (n, K) to the gradient by A."""
        prior, which = self.prior, self.prior.set_of(step)
        if prior.power == 1:
            found = prior.operator.pull_back_outer(left, right)
        else:
            spatial = prior.spatial(step)
            found = prior.operator.pull_back_outer(
                np.concatenate([left, spatial.T @ left], axis=1),
                np.concatenate([spatial @ right, right], axis=1),
            )
        self.coefficients[which] += prior.dt * found

    def entries(self, step: int, gradient: sp.csc_array) -> None:
        """Add a sparse gradient by A, known where A has entries."""
        prior, which = self.prior, self.prior.set_of(step)
        if prior.power == 2:
            turned = prior.spatial(step).T
            gradient = sp.csc_array(gradient @ turned + turned @ gradient)
        self.coefficients[which] += prior.dt * prior.operator.pull_back(gradient)

    def weight(self, step: int, gradient: Float) -> None:
        """Add a gradient by W (n,)."""
        self.weights[self.prior.set_of(step)] += gradient

    def by_tau(self) -> Float:
        """Gradient by tau (sets, ny, nx), from that by W."""
        prior = self.prior
        tau = prior.parameters.tau
        area = prior.operator.mesh.area.reshape(tau.shape[1:])
        slope = -2.0 * area / (prior.dt * tau**3) * prior.sea.reshape(tau.shape[1:])
        return np.asarray(self.weights.reshape(tau.shape) * slope)


def negative_log_likelihood(prior: SpaceTime, fields: Float) -> Likelihood:
    """Negative log-likelihood of windows of complete fields, with its gradient.

    Parameters
    ----------
    prior : SpaceTime
        Of a window, without burn-in, the first state "stationary" or "rest".
    fields : ndarray (K, steps, ny, nx) or (K, steps * n)
        Anomalies of K independent windows; what stands on land does not count.

    Returns
    -------
    Likelihood

    Raises
    ------
    ParameterError
        For another shape, missing values off land, a burn-in or a given first state.
    SolverError
        If the first state has no positive definite precision.

    Notes
    -----
    One factor and one selected inverse for every set of parameters, and one more for the first
    state.
    """
    if prior.burn_in or not isinstance(prior.initial, str):
        raise ParameterError(
            f"the prior has burn_in={prior.burn_in} and "
            f"{'a given' if not isinstance(prior.initial, str) else 'a modelled'} first state; "
            'expected no burn-in and initial="stationary" or "rest"'
        )
    total = prior.total * prior.nodes
    if fields.ndim < 2 or fields.size != len(fields) * total:
        raise ParameterError(
            f"fields have shape {fields.shape}; expected (windows, {prior.steps}, "
            f"*{prior.operator.mesh.shape})"
        )
    water = prior.sea > 0.0
    states = fields.reshape(len(fields), prior.total, -1).transpose(1, 2, 0)
    states = np.where(water[:, None], states, 0.0)
    if not np.isfinite(states).all():
        raise ParameterError(
            f"fields have {int((~np.isfinite(states)).sum())} missing values off land; expected "
            "complete windows (fill them, or mask the nodes as land)"
        )
    gathered = ParameterGradient(prior)
    distance = add_distances(prior, states, gathered)
    logdet = add_determinant(prior, len(fields), gathered)
    count = len(fields) * prior.total * int(water.sum())
    value = 0.5 * (distance - len(fields) * logdet + count * math.log(2.0 * math.pi))
    return Likelihood(value, 0.5 * gathered.coefficients, 0.5 * gathered.by_tau(), prior)


def add_distances(prior: SpaceTime, states: Float, gathered: ParameterGradient) -> float:
    """Sum of ``x' Q x`` over the windows, with its gradient."""
    found = 0.0
    for step in range(prior.total):
        moved = np.asarray(prior.transition(step) @ states[step])
        weight = prior.weight(step)
        noise = moved - prior.sea[:, None] * states[step - 1] if step else moved
        squares = np.sum(noise**2, axis=1)
        if step == 0 and prior.initial == "stationary":
            squares -= np.sum(states[0] ** 2, axis=1)
        found += float(weight @ squares)
        gathered.weight(step, squares)
        gathered.outer(step, 2.0 * weight[:, None] * noise, states[step])
    return found


def add_determinant(prior: SpaceTime, windows: float, gathered: ParameterGradient) -> float:
    """Logarithm of ``|Q|``; minus its gradient, times the windows, is added to what is gathered."""
    total = _first_determinant(prior, windows, gathered)
    sets: dict[int, list[int]] = {}
    for step in range(1, prior.total):
        sets.setdefault(prior.set_of(step), []).append(step)
    for steps in sets.values():
        step, many = steps[0], len(steps)
        matrix = on_pattern(gathered.pattern, prior.transition(step))
        held = prior.factorise(matrix, prior.reach)
        weight = prior.weight(step)
        total += many * (2.0 * held.logdet() + float(np.log(weight) @ prior.sea))
        gathered.weight(step, -windows * many / weight * prior.sea)
        gathered.entries(step, -2.0 * windows * many * held.inverse_on_pattern(transposed=True))
    return total


def _first_determinant(prior: SpaceTime, windows: float, gathered: ParameterGradient) -> float:
    """As :func:`add_determinant`, of the first state."""
    matrix, weight = prior.transition(0), prior.weight(0)
    wide = sp.csc_array(gathered.pattern.T @ gathered.pattern)
    held = prior.factorise(on_pattern(wide, prior.first()), 2 * prior.reach, symmetric=True)
    inverse = held.inverse_on_pattern()
    half = sp.csr_array(matrix @ inverse)
    spread = np.asarray(half.multiply(matrix).sum(axis=1)).ravel()
    if prior.initial == "stationary":
        spread = spread - inverse.diagonal()
    gathered.weight(0, -windows * spread * prior.sea)
    gathered.entries(0, -2.0 * windows * sp.csc_array(sp.diags_array(weight) @ half))
    return held.logdet()

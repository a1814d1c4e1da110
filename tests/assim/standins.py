"""Stand-ins for a trained solver: linear in the observations, and local."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import convolve1d

from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters


@dataclass(frozen=True)
class LocalSolver:
    """Weighted mean of the observations within a few cells and steps, shrunk toward zero."""

    steps: int = 5
    scale: float = 0.1
    reach: int = 3
    spacing: tuple = (11.0, 9.0)
    time_step: float = 1.0
    tasks: tuple = ("mapping", "nrt", "forecast")
    leads: int = 2
    units: str = "m"
    alpha: int = 4
    parameters: bool = False
    theta_solver: object = None
    prior_theta: tuple = (0.6, 0.4, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    recalibration: object = None
    card: dict = field(default_factory=lambda: {"data": "none", "scores": {"mu": 1.0}})

    def scale_for(self, anomalies, variance):
        return self.scale

    def solve(self, obs, mask, variance, sea, theta=None, *, parameters=True):
        assert obs.dtype == variance.dtype == np.float32
        assert mask.dtype == sea.dtype == bool
        assert not (mask & ~sea[:, None]).any()
        weight = np.where(mask, 1.0 / np.where(mask, variance, 1.0), 0.0)
        value = self.spread(weight * np.where(mask, obs, 0.0))
        mean = value / (self.spread(weight) + 5.0) * sea[:, None]
        if not (self.parameters and parameters):
            return mean.astype(np.float32), None
        ones = np.ones((len(obs), 1, *sea.shape[1:]))
        numbers = np.array([0.5, 1.0, 0.1, 0.0, 1.0, 0.5, 2.0, 1.0])
        found = (
            numbers[:, None, None, None] * ones[:, None] + 0.1 * np.abs(mean.mean(1))[:, None, None]
        )
        return mean.astype(np.float32), found.astype(np.float32)

    def spread(self, values):
        kernel = np.exp(-0.5 * (np.arange(-self.reach, self.reach + 1) / 2.0) ** 2)
        for axis in (2, 3):
            values = convolve1d(values, kernel, axis=axis, mode="constant")
        return convolve1d(values, [0.5, 1.0, 0.5], axis=1, mode="constant")


_GAINS: dict = {}


@dataclass(frozen=True)
class ExactSolver(LocalSolver):
    """Optimal interpolation with the prior of constant parameters, by dense matrices."""

    def solve(self, obs, mask, variance, sea, theta=None, *, parameters=True):
        assert (mask == mask[:1]).all()  # one window, whoever observes it
        key = (mask[0].tobytes(), variance[0].tobytes(), self.prior_theta)
        if key not in _GAINS:
            _GAINS[key] = self.gain(mask[0], variance[0], sea[0])
        gain, seen = _GAINS[key]
        found = np.zeros((len(obs), mask[0].size))
        found[:, np.tile(sea[0].ravel(), self.steps)] = obs.reshape(len(obs), -1)[:, seen] @ gain.T
        return found.reshape(obs.shape).astype(np.float32), None

    def prior_covariance(self, sea):
        """Of the nodes of the sea at all steps."""
        mesh = Mesh.of(sea.shape, boundary=("neumann", "neumann"), land=~sea)
        names = ("kappa", "tau", "m1", "m2", "v1", "v2", "gamma", "beta")
        numbers = dict(zip(names, self.prior_theta, strict=True))
        parameters = SpdeParameters.of(sea.shape, **numbers, land=~sea)
        prior = SpaceTime(SpdeOperator(mesh), parameters, steps=self.steps, alpha=4)
        wet = np.flatnonzero(np.tile(sea.ravel(), self.steps))
        return np.linalg.inv(prior.precision().toarray()[np.ix_(wet, wet)]), wet

    def gain(self, mask, variance, sea):
        seen = np.flatnonzero(mask.ravel())
        cov, wet = self.prior_covariance(sea)
        at = np.searchsorted(wet, seen)
        middle = cov[np.ix_(at, at)] + np.diag(variance.ravel()[seen])
        return np.linalg.solve(middle, cov[at]).T, seen

"""A linear-Gaussian problem small enough for dense matrices, and a stand-in for a card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass
class Linear:
    """Ensemble E (N, n), linear H (p, n), observations y, variances r."""

    E: np.ndarray
    H: np.ndarray
    y: np.ndarray
    r: np.ndarray

    @property
    def HE(self):
        return self.E @ self.H.T

    def posterior(self, mean=None, cov=None):
        """Mean and covariance of the Kalman filter, from those of the ensemble by default."""
        mean = self.E.mean(axis=0) if mean is None else mean
        cov = np.cov(self.E.T) if cov is None else cov
        gain = cov @ self.H.T @ np.linalg.inv(self.H @ cov @ self.H.T + np.diag(self.r))
        return mean + gain @ (self.y - self.H @ mean), cov - gain @ self.H @ cov


def problem(n=12, p=7, size=20, seed=0, *, shift=3.0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((n, n)) / np.sqrt(n)
    return Linear(
        E=rng.standard_normal((size, n)) @ mixing.T + shift,
        H=rng.standard_normal((p, n)) / np.sqrt(n),
        y=rng.standard_normal(p) + shift,
        r=rng.uniform(0.2, 2.0, p),
    )


@pytest.fixture
def linear():
    return problem()


@pytest.fixture(scope="session")
def make():
    return problem

"""A linear-Gaussian problem small enough for dense matrices, and a stand-in for a card."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

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


class CardArray(np.ndarray):
    """Array of a card: numpy's figures, but no mixing with arrays of the host."""

    def get(self):
        return np.array(self.view(np.ndarray))

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        out = kwargs.pop("out", ())
        if out:
            kwargs["out"] = tuple(map(bare, out))
        done = getattr(ufunc, method)(*map(bare, inputs), **kwargs)
        return out[0] if out else on_card(done)

    def __array_function__(self, func, types, args, kwargs):
        raise TypeError(f"numpy.{func.__name__} was called with an array of the card")

    def __getitem__(self, key):
        return on_card(super().__getitem__(bare(key)))

    def __setitem__(self, key, value):
        self.view(np.ndarray)[bare(key)] = bare(value)


def bare(value):
    if isinstance(value, CardArray):
        return value.view(np.ndarray)
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("an array of the host where one of the card is needed")
    if isinstance(value, tuple | list):
        return type(value)(map(bare, value))
    return value


def on_card(value):
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, CardArray):
        return np.asarray(value).view(CardArray)
    if isinstance(value, tuple):
        return tuple(map(on_card, value))
    return value


def over(function):
    def called(*args, **kwargs):
        kwargs = {name: bare(value) for name, value in kwargs.items()}
        return on_card(function(*map(bare, args), **kwargs))

    return called


class Card(ModuleType):
    """Module of such arrays, as cupy is one."""

    def __init__(self, name, source=np):
        super().__init__(name)
        self.source = source

    def asarray(self, value, dtype=None):
        return np.asarray(value.get() if isinstance(value, CardArray) else value, dtype).view(
            CardArray
        )

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.source, name)
        return Card(name, found) if isinstance(found, ModuleType) else over(found)


@pytest.fixture
def card(monkeypatch):
    """Return a module that stands for cupy."""
    module = Card("card_stand_in")
    monkeypatch.setattr(CardArray, "__module__", "card_stand_in")
    monkeypatch.setitem(sys.modules, "card_stand_in", module)
    return module

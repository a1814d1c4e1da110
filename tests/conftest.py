"""Shared fixtures: local real data, reproducible property tests, a stand-in for a graphics card.

The stand-in is numpy behind the habits of cupy, counting transfers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from xr_spde._core import device
from xr_spde._core.device import resolve_device
from xr_spde._core.errors import DataUnavailableError
from xr_spde.datasets import local_path
from xr_spde.solvers import card
from xr_spde.solvers.cache import FACTORS

settings.register_profile(
    "default",
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a file in the local data folder; skips, with the reason, where it is absent."""

    def find(filename: str) -> Path:
        try:
            return local_path(filename)
        except DataUnavailableError as error:
            pytest.skip(str(error))

    return find


TRANSFERS: Counter[str] = Counter()


class DeviceArray:
    """Array with the habits of cupy's: no way into numpy but `get`, no indices from the host."""

    def __init__(self, values):
        self.values = values

    def __array__(self, *args, **kwargs):
        raise TypeError("no implicit conversion to a numpy array; use get()")

    __array_ufunc__ = None

    def get(self):
        TRANSFERS["to host"] += 1
        return self.values.copy()

    def __getitem__(self, key):
        return wrap(self.values[unwrap(key)])

    def __setitem__(self, key, value):
        self.values[unwrap(key)] = unwrap(value)

    def __iadd__(self, other):
        self.values += unwrap(other)
        return self

    def __isub__(self, other):
        self.values -= unwrap(other)
        return self

    def __imul__(self, other):
        self.values *= unwrap(other)
        return self

    def __itruediv__(self, other):
        self.values /= unwrap(other)
        return self

    def __neg__(self):
        return wrap(-self.values)

    def __add__(self, other):
        return wrap(self.values + unwrap(other))

    def __sub__(self, other):
        return wrap(self.values - unwrap(other))

    def __mul__(self, other):
        return wrap(self.values * unwrap(other))

    def __truediv__(self, other):
        return wrap(self.values / unwrap(other))

    def __rsub__(self, other):
        return wrap(other - self.values)

    def __pow__(self, power):
        return wrap(self.values**power)

    def __invert__(self):
        return wrap(~self.values)

    def __and__(self, other):
        return wrap(self.values & unwrap(other))

    def __eq__(self, other):
        return wrap(self.values == unwrap(other))

    def __lt__(self, other):
        return wrap(self.values < unwrap(other))

    __hash__ = None
    __radd__, __rmul__ = __add__, __mul__

    def __bool__(self):
        return bool(self.values)

    def __int__(self):
        return int(self.values)

    def __deepcopy__(self, memo):
        return DeviceArray(self.values.copy())

    def __reduce__(self):
        return DeviceArray, (self.values,)

    @property
    def T(self):
        return wrap(self.values.T)

    def __float__(self):
        return float(self.values)

    def __getattr__(self, name):
        found = getattr(self.values, name)
        return over(found) if callable(found) else wrap(found)


def wrap(value):
    if isinstance(value, tuple) and any(isinstance(one, np.ndarray) for one in value):
        return tuple(map(wrap, value))
    return DeviceArray(value) if isinstance(value, np.ndarray | np.generic) else value


def unwrap(value):
    if isinstance(value, tuple):
        return tuple(map(unwrap, value))
    if isinstance(value, np.ndarray):
        raise TypeError("a numpy array where one of the device is needed")
    return value.values if isinstance(value, DeviceArray) else value


def over(function):
    """Let a function of numpy take and return arrays of the device."""

    def called(*args, **kwargs):
        kwargs = {name: unwrap(value) for name, value in kwargs.items()}
        return wrap(function(*map(unwrap, args), **kwargs))

    return called


def asarray(value):
    if isinstance(value, DeviceArray):
        return value
    TRANSFERS["to card"] += 1
    return DeviceArray(value)


class Memory:
    """What the card says of its memory: free and total bytes."""

    mem_info = (2**34, 2**35)


class OutOfMemoryError(MemoryError):
    """What cupy raises."""


NAMES = """abs ascontiguousarray concatenate diagonal empty empty_like full_like isfinite isinf log
matmul max multiply negative ones_like prod roll subtract sum take vdot where zeros
zeros_like""".split()
STAND_IN = SimpleNamespace(
    **{name: over(getattr(np, name)) for name in NAMES},
    linalg=SimpleNamespace(
        **{name: over(getattr(np.linalg, name)) for name in ("cholesky", "inv", "slogdet")}
    ),
    asarray=asarray,
    cuda=SimpleNamespace(Device=Memory, memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError)),
    get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 0),
)


@pytest.fixture
def stand_in() -> SimpleNamespace:
    """Return the module of arrays, with `transfers` to and from it."""
    TRANSFERS.clear()
    STAND_IN.transfers = TRANSFERS
    return STAND_IN


@pytest.fixture
def carded(stand_in, monkeypatch) -> SimpleNamespace:
    """Let the package find a graphics card, which is the stand-in."""
    monkeypatch.setattr(device, "card_count", lambda: 1)
    monkeypatch.setattr(card, "require", lambda *_: stand_in)
    assert resolve_device() == "cuda"
    FACTORS.clear()
    return stand_in

"""A stand-in for a graphics card: numpy behind the habits of cupy, counting transfers."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from xr_spde._core import device
from xr_spde._core.device import resolve_device
from xr_spde.solvers import card
from xr_spde.solvers.cache import FACTORS

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

    def __neg__(self):
        return wrap(-self.values)

    def __mul__(self, other):
        return wrap(self.values * unwrap(other))

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


NAMES = "abs diagonal empty log matmul max negative prod subtract sum take zeros".split()
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

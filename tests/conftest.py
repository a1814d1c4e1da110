"""Shared fixtures: local real data, and reproducible property tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from xr_spde._core.errors import DataUnavailableError
from xr_spde.datasets import local_path

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

"""The recipe of the guide for a write that is interrupted, killed at every kind of moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor

pytest.importorskip("zarr")

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "scaling.md"
pytestmark = pytest.mark.skipif(not GUIDE.is_file(), reason="needs a checkout")

COUNT, CHUNKS, STEP = 98, 4, 32  # the recipe takes eight blocks at a time

SCRIPT = """
import os, signal, sys
import xarray as xr
from zarr.storage import LocalStore
import xr_spde
from xr_spde.fields.field import GaussianField

def fatal(owner, name, number):
    original, calls = getattr(owner, name), []

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, call)
    return calls

draws, writes = int(sys.argv[1]), int(sys.argv[2])
drawn = fatal(GaussianField, "sample", draws)
fatal(LocalStore, "set", writes)
params = xr.open_zarr("params.zarr", consolidated=False)
ensemble = params.sar.emulate({count}, seed=1, chunks={chunks})
{recipe}
print(len(drawn))
"""


def recipe() -> str:
    """Return the block of code under the heading of the guide, as it stands there."""
    _, after = GUIDE.read_text().split("### A write that may be interrupted\n")
    found = re.search(r"```python\n(.*?)```", after, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def folder(tmp_path, params) -> Path:
    params.to_zarr(tmp_path / "params.zarr", consolidated=False)
    script = SCRIPT.format(count=COUNT, chunks=CHUNKS, recipe=recipe())
    (tmp_path / "script.py").write_text(script)
    return tmp_path


def run(folder: Path, draws: int = 0, writes: int = 0) -> int | None:
    """Run the script; returns the blocks it drew, or None where it was killed at a call."""
    command = [sys.executable, "-W", "ignore", "script.py", str(draws), str(writes)]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def check(folder: Path, params: xr.Dataset) -> None:
    """The store holds what an undisturbed write would have put there, and nothing else."""
    reference = params.sar.emulate(COUNT, seed=1).compute(scheduler="sync")
    with xr.open_zarr(folder / "ensemble.zarr") as found:
        assert found["written"].values.all()
        xr.testing.assert_identical(found["field"][found.written.values].compute(), reference)


def finished(folder: Path) -> np.ndarray:
    with xr.open_zarr(folder / "ensemble.zarr") as found:
        return found["written"].values


def test_a_killed_write_is_taken_up_where_it_was(folder, params):
    assert run(folder, draws=12) is None  # in the second region: eight blocks are drawn before
    np.testing.assert_array_equal(np.flatnonzero(finished(folder)), np.arange(STEP))
    blocks = -(-COUNT // CHUNKS)
    assert run(folder) == blocks - STEP // CHUNKS
    check(folder, params)
    assert run(folder) == 0


@pytest.mark.slow
def test_no_moment_of_death_loses_or_doubles_anything(folder, params):
    for writes in (1, 6, 12):
        assert run(folder, writes=writes) is None
        assert not (folder / "ensemble.zarr").exists()
    assert run(folder, draws=1) is None
    # A full region is eight chunks and then its mark; a write that kills is not carried out.
    deaths = [(8, 0), (9, 0), (10, STEP), (9, STEP), (14, 2 * STEP), (9, 2 * STEP)]
    for writes, marked in [*deaths, (10, 3 * STEP), (2, 3 * STEP)]:
        assert run(folder, writes=writes) is None
        marks = finished(folder)
        assert marks.sum() == marked
        with xr.open_zarr(folder / "ensemble.zarr") as found:
            assert found["field"].notnull().any(("lat", "lon")).values[marks].all()
    assert run(folder) == 1  # the last block was stored but not marked
    check(folder, params)

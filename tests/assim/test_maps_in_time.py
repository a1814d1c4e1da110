"""The guide to maps in space and time does what it says, on simulated and on real tracks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xr_spde.datasets import local_path
from xr_spde.errors import DataUnavailableError

pytest.importorskip("matplotlib").use("Agg")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "maps_in_time.md"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PAGE.is_file(), reason="needs a checkout, not an installed package"),
]


def cells(kind: str, after: str = "") -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{kind}\n(.*?)```", text[text.index(after) :], re.DOTALL)


def needed(*names: str) -> None:
    for name in names:
        try:
            local_path(name)
        except DataUnavailableError as error:
            pytest.skip(str(error))


def test_simulated_tracks():
    needed("med_adt_20050401_20050531.nc", "med_adt_sla_20160515.nc")
    names: dict = {}
    for cell in cells(r"\{code-cell\} ipython3"):
        exec(cell, names)
    assert float(names["prior"].obs_error) == pytest.approx(0.025, rel=0.05)
    scores = names["scores"]
    assert float(scores.rmse) < 0.032
    assert 0.88 < float(scores.coverage.sel(level=0.9)) < 0.98


def test_real_tracks():
    needed("med_adt_alongtrack_20140515_20140603.nc", "med_adt_20050401_20050531.nc",
           "med_adt_sla_20160515.nc")  # fmt: skip
    names: dict = {}
    first, second, third, *_ = cells(r"\{code-cell\} ipython3")
    for cell in (first, second, third.split("prior =")[0], *cells("python", "## Real tracks")):
        exec(cell, names)
    scores = names["scores"]
    assert float(scores.rmse) < 0.037
    assert 0.8 < float(scores.coverage.sel(level=0.9)) < 0.98

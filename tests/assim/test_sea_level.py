"""The page about sea level, which the documentation cannot execute, does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xr_spde.datasets import local_path
from xr_spde.errors import DataUnavailableError

pytest.importorskip("matplotlib").use("Agg")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "sea_level.md"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not PAGE.is_file(), reason="needs a checkout, not an installed package")
def test_the_page_does_what_it_says():
    try:
        local_path("med_adt_alongtrack_20140515_20140603.nc")
    except DataUnavailableError as error:
        pytest.skip(str(error))
    found: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, found)
    before, after, limit = (float(found[name].rmse) for name in ("before", "after", "limit"))
    assert 0.04 < before < 0.06
    assert after < 0.75 * before
    assert limit < 0.8 * before
    assert 20 < float(found["post"].localization) / 1e3 < 300

"""The guide page does what it says: its executed cells, and its parts on real data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from xr_spde._core.errors import DataUnavailableError
from xr_spde.datasets import local_path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "in_between.md"


pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs a checkout")


def code(kind: str, after: str = "", before: str | None = None) -> str:
    text = PAGE.read_text(encoding="utf-8")
    text = text[text.index(after) : None if before is None else text.index(before)]
    return "\n".join(re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL))


@pytest.mark.slow
def test_made_pair():
    pytest.importorskip("matplotlib").use("Agg")
    names: dict = {}
    exec(code(r"\{code-cell\} ipython3"), names)
    rmse = names["scores"]["rmse"]
    assert float(rmse.sel(approach="field")) < 0.6 * float(rmse.sel(approach="linear"))
    assert float(names["motion"]["opening_rate"].max()) > 0


@pytest.mark.long
def test_real_images():
    try:
        local_path("s1_seaice_hh_20200301_20200302.nc")
        local_path("s1_seaice_20200123_20200125.nc")
        local_path("fmi_radar_20160928.nc")
    except DataUnavailableError as error:
        pytest.skip(str(error))
    pytest.importorskip("matplotlib").use("Agg")
    names: dict = {}
    exec(
        "import xarray as xr\nimport xr_spde\n"
        + code("python", "## Real images", "## Large scenes"),
        names,
    )
    drift = names["drift"].isel(time=0)
    seconds = 82972  # from 08:32:37 to 07:35:29 of the next day
    # the peak of the cross-correlation of the whole images: 28 columns and 36 rows of 100 m
    assert float(drift.u.median()) * seconds == pytest.approx(-2800, abs=100)
    assert float(drift.v.median()) * seconds == pytest.approx(-3600, abs=100)
    assert np.isfinite(names["noon"]).all()
    # off Greenland: about +2.5 rows in the north, nothing on the fast ice (cells of 80 m)
    lead = names["lead"].isel(time=0)
    rows = (
        lead.v * (names["lead"].time_bounds.diff("bounds").squeeze() / np.timedelta64(1, "s")) / 80
    )
    assert float(rows.isel(y=slice(470, None)).median()) == pytest.approx(2.5, abs=0.5)
    assert float(rows.isel(y=slice(120, 230)).median()) == pytest.approx(0.0, abs=0.3)
    assert float(np.isfinite(lead.v).mean()) == pytest.approx(0.5, abs=0.1)
    rmse = names["card"]["rmse"]
    assert float(rmse.sel(approach="field")) < 0.8 * float(rmse.sel(approach="linear"))

"""The demonstration: its chain from end to end, and a page that stands alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

import xr_spde
from xr_spde._core.errors import ParameterError
from xr_spde.demo.__main__ import main
from xr_spde.demo.chain import Chain, Clock, negative_part, stationary
from xr_spde.demo.report import write_report
from xr_spde.metrics import correlation_score

pytest.importorskip("zarr")
matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _no_window():
    with matplotlib.rc_context({"backend": "Agg"}):
        yield


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """A chain with parameters written by hand: the page without an estimator."""
    fields = xr_spde.open_dataset("ecmwf_ensemble").z
    flat = xr.zeros_like(fields[0], dtype=float)
    params = xr.Dataset({"kappa2": flat + 0.05, "rho": flat + 2.0, "theta": flat + 0.4})
    params["std"] = fields.std("number", keep_attrs=True)
    params["mean"] = fields.mean("number", keep_attrs=True)
    ensemble = params.sar.emulate(12, seed=0)
    score = correlation_score(fields, ensemble, dim="number", n_points=5).compute()
    clock = Clock()
    with clock("a <step>"):
        pass
    store = tmp_path_factory.mktemp("demo") / "ensemble.zarr"
    return Chain(fields, params, ensemble, {"synthetic members": score}, 0.25, clock, store)


def test_page_stands_alone(by_hand, tmp_path):
    page = write_report(by_hand, tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<img src='data:image/png;base64,", page)) == 5
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    assert f"{float(by_hand.scores['synthetic members'].ratio):.2f}" in page
    assert "a &lt;step&gt;" in page
    assert "fields.sar.estimate(" in page
    assert "ECMWF" in page
    for tag in ("figure", "table", "div", "pre"):
        assert page.count(f"<{tag}") == page.count(f"</{tag}>")


def test_stationary_keeps_the_typical_range_and_land(by_hand):
    params = by_hand.params.copy()
    params["kappa2"] = (
        params.kappa2.where(params.longitude > -49)
        * np.array([1.0, 4.0])[np.arange(params.sizes["longitude"]) % 2]
    )
    flat = stationary(params)
    np.testing.assert_allclose(flat.kappa2.max(), 0.05 * 4.0 ** (34 / 69), rtol=1e-12)
    assert float(flat.rho.max()) == 1.0
    assert bool((flat.kappa2.isnull() == params.kappa2.isnull()).all())


def test_negative_part_against_numpy(by_hand):
    score = by_hand.scores["synthetic members"]
    values = by_hand.fields.values.astype(float).reshape(51, -1)
    columns = [
        int(np.argmin(abs(by_hand.fields.latitude.values - y))) * 71
        + int(np.argmin(abs(by_hand.fields.longitude.values - x)))
        for y, x in zip(
            score.point_latitude.values,
            (score.point_longitude.values + 180) % 360 - 180,
            strict=True,
        )
    ]
    r = np.corrcoef(values.T)[columns]
    area = np.repeat(np.cos(np.deg2rad(by_hand.fields.latitude.values)), 71)
    expected = np.sqrt((np.minimum(r, 0.0) ** 2 @ (area / area.sum())).mean())
    np.testing.assert_allclose(negative_part(by_hand.fields, score), expected, rtol=1e-5)


@pytest.mark.slow
def test_command_runs_the_whole_chain(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    code = main(["--members", "64", "--out", str(tmp_path / "out"), "--picture", str(picture)])
    printed = capsys.readouterr().out
    assert code == 0
    assert printed.count("noise floor") == 5
    assert printed.count("held out") == 2
    assert picture.stat().st_size > 50_000
    store = xr.open_dataset(tmp_path / "out" / "ensemble.zarr", engine="zarr", consolidated=False)
    assert store.z.dims == ("realization", "latitude", "longitude")
    real = xr_spde.open_dataset("ecmwf_ensemble").z
    # 64 members around the mean and with the spread of the real ones
    spread = store.z.std("realization") / real.std("number")
    assert abs(float(spread.mean()) - 1.0) < 0.1
    shift = (store.z.mean("realization") - real.mean("number")) / real.std("number")
    assert float(abs(shift).mean()) < 0.3
    assert (tmp_path / "out" / "report.html").stat().st_size > 300_000


def test_errors_are_told_not_thrown(tmp_path, capsys, monkeypatch):
    def broken(*_, **__):
        raise ParameterError("explained")

    monkeypatch.setattr("xr_spde.demo.run_chain", broken)
    assert main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "ParameterError: explained\n"


@pytest.mark.parametrize("members", ["0", "-5", "many"])
def test_bad_number_of_members_stops_at_once(members, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([f"--members={members}", "--out", str(tmp_path / "never")])
    assert stop.value.code == 2
    assert "number of members" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()

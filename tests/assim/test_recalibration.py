"""Factors on the spread: known ones are found again, and the period of the test is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import score
from xr_spde.assim.recalibration import (
    Recalibration,
    fit_recalibration,
    recalibrate,
    recalibrated,
)
from xr_spde.assim.spread_scaling import local_change
from xr_spde.errors import ParameterError, SchemaError, UnknownNameError

SIZE = (12, 60, 60)


def world(factor, floor=0.0, *, seed=0, size=SIZE, noise="gaussian"):
    """A result whose spread is too small by a factor and a floor, and its truth."""
    rng = np.random.default_rng(seed)
    days = np.datetime64("2013-01-05", "ns") + np.arange(size[0]) * np.timedelta64(1, "D")
    coords = {"time": days, "lat": np.linspace(30, 36, size[1]), "lon": np.linspace(0, 6, size[2])}
    std = rng.uniform(0.05, 0.3, size).astype(np.float32)
    mean = rng.standard_normal(size).astype(np.float32)
    drawn = rng.standard_normal(size) if noise == "gaussian" else rng.standard_t(3, size)
    truth = mean + np.sqrt((factor * std) ** 2 + floor**2) * drawn
    dims = ("time", "lat", "lon")
    made = {"mean": (dims, mean, {"units": "m"}), "std": (dims, std, {"units": "m"})}
    return xr.Dataset(made, coords, {"xr_spde_members": 40}), xr.DataArray(truth, coords, dims)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("method", ["likelihood", "coverage"])
def test_a_known_factor_is_found(factor, method):
    result, truth = world(factor)
    found = fit_recalibration(result, truth, method=method)
    np.testing.assert_allclose(found.factors["mapping"], factor, rtol=0.01)
    better = recalibrated(result, found, None)
    scores = score(better, truth, uncertainty=True)
    np.testing.assert_allclose(scores.coverage.sel(level=0.9), 0.9, atol=0.005)
    np.testing.assert_allclose(scores.spread_skill, 1.0, atol=0.01)
    assert found.members == 40
    assert found.period == ("2013-01-05", "2013-01-16")
    assert found.count == truth.size


def test_a_known_floor_is_found():
    result, truth = world(1.4, 0.1)
    found = fit_recalibration(result, truth, floor=True)
    np.testing.assert_allclose(found.factors["mapping"], 1.4, rtol=0.03)
    np.testing.assert_allclose(found.floors["mapping"], 0.1, rtol=0.05)
    better = recalibrated(result, found, None)
    expected = np.sqrt((1.4 * result["std"]) ** 2 + 0.01)
    np.testing.assert_allclose(better["std"], expected, rtol=0.03)
    plain = recalibrated(result, fit_recalibration(result, truth), None)
    slopes = [float(score(one, truth, uncertainty=True).slope) for one in (better, plain)]
    assert abs(slopes[0] - 1.0) < 0.05 < abs(slopes[1] - 1.0)


def moving():
    """Errors that are large where the field moves, of a spread that does not know it."""
    rng = np.random.default_rng(5)
    result, _ = world(1.0, size=(40, 48, 40))
    place = np.hypot(*np.meshgrid(np.linspace(-1, 1, 48), np.linspace(-1, 1, 40), indexing="ij"))
    change = np.exp(-0.7 * place**2)
    steps = change * rng.standard_normal((40, 48, 40))
    mean = result["mean"].copy(data=steps.cumsum(axis=0))
    square = (result["std"].values) ** 2 + (0.2 * change) ** 2
    truth = mean + np.sqrt(square) * rng.standard_normal(mean.shape)
    return result.assign(mean=mean), truth, change


@pytest.mark.parametrize("method", ["likelihood", "coverage"])
def test_the_change_of_maps_tells_where_errors_are_large(method):
    result, truth, change = moving()
    told = local_change(result["mean"]).mean("time")
    np.testing.assert_allclose(told[8:-8, 8:-8], change[8:-8, 8:-8], rtol=0.08)
    found = fit_recalibration(result, truth, tendency=True, method=method)
    np.testing.assert_allclose(found.factors["mapping"], 1.0, rtol=0.05)
    np.testing.assert_allclose(found.tendencies["mapping"], 0.2, rtol=0.05)
    assert Recalibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    plain = fit_recalibration(result, truth, method=method)
    scores = {name: score(recalibrated(result, one, None), truth, uncertainty=True)
              for name, one in (("plain", plain), ("told", found))}  # fmt: skip
    gained = scores["told"].correlation_pearson - scores["plain"].correlation_pearson
    assert (gained > 0.0).all()
    expected = scores["told"].correlation_expected.mean()
    np.testing.assert_allclose(scores["told"].correlation_pearson.mean(), expected, atol=0.03)
    np.testing.assert_allclose(scores["told"].slope, 1.0, atol=0.1)
    assert scores["told"].crps < scores["plain"].crps
    lazy = recalibrated(result.chunk(time=7, lat=11), found, None)
    assert lazy["std"].chunks is not None
    xr.testing.assert_allclose(lazy.compute(), recalibrated(result, found, None), rtol=1e-12)


def test_change_of_maps_beside_land_and_around_the_globe():
    result, _, _ = moving()
    sea = result["mean"].where(result["mean"].lon > 2.0)
    told = local_change(sea)
    assert (told.isnull() == sea.isnull()).all()
    # what is on land does not leak into the sea: far from the coast nothing changes
    far = {"lon": slice(5.5, 6.0)}
    np.testing.assert_allclose(told.sel(far), local_change(result["mean"]).sel(far), rtol=0.02)
    lon = np.arange(0.0, 360.0, 10.0)
    globe = xr.DataArray(
        np.random.default_rng(0).standard_normal((3, 8, 36)),
        {"lat": np.arange(8.0), "lon": lon}, ("time", "lat", "lon"),
    )  # fmt: skip
    turned = globe.roll(lon=10)
    np.testing.assert_allclose(local_change(globe).roll(lon=10), local_change(turned), rtol=1e-12)


def test_what_the_errors_do_not_ask_for_is_zero():
    result, truth = world(1.2)
    found = fit_recalibration(result, truth, floor=True)
    assert found.floors["mapping"] < 0.02
    np.testing.assert_allclose(found.factors["mapping"], 1.2, rtol=0.02)


def test_coverage_holds_for_heavy_tails():
    result, truth = world(1.0, noise="student")
    by = {m: fit_recalibration(result, truth, method=m) for m in ("likelihood", "coverage")}
    held = {m: float(score(recalibrated(result, one, None), truth, uncertainty=True)
                     .coverage.sel(level=0.9)) for m, one in by.items()}  # fmt: skip
    assert held["likelihood"] > 0.93
    np.testing.assert_allclose(held["coverage"], 0.9, atol=0.003)


def test_errors_of_the_truth_are_not_those_of_the_field():
    result, truth = world(1.5)
    rng = np.random.default_rng(1)
    seen = truth + 0.2 * rng.standard_normal(truth.shape)
    for method in ("likelihood", "coverage"):
        found = fit_recalibration(result, seen, method=method, truth_error=0.2)
        np.testing.assert_allclose(found.factors["mapping"], 1.5, rtol=0.03)
    both = fit_recalibration(result, seen, floor=True, truth_error=0.2)
    np.testing.assert_allclose(both.factors["mapping"], 1.5, rtol=0.05)


def test_withheld_tracks_will_do():
    result, _ = world(1.0, size=(6, 40, 40))
    smooth = result.assign(mean=0.0 * result["mean"], std=0.0 * result["std"] + 0.1)
    rng = np.random.default_rng(0)
    count = 4000
    points = xr.Dataset(
        {"ssh": ("obs", 0.3 * rng.standard_normal(count))},
        {"time": ("obs", np.datetime64("2013-01-05", "ns")
                  + (rng.uniform(0, 5, count) * 86400e9).astype("m8[ns]")),
         "lat": ("obs", rng.uniform(30, 36, count)), "lon": ("obs", rng.uniform(0, 6, count))},
    )  # fmt: skip
    found = fit_recalibration(smooth, points, truth_error=0.1)
    np.testing.assert_allclose(found.factors["mapping"], np.sqrt(8.0), rtol=0.03)


def test_each_lead_has_its_own_and_members_follow():
    result, truth = world(1.0)
    twice = result.assign(std=2.0 * result["std"])
    found = fit_recalibration({None: result, 0: twice}, truth)
    np.testing.assert_allclose(found.factors["0"], 0.5, rtol=0.01)
    rng = np.random.default_rng(2)
    noise = xr.DataArray(rng.standard_normal((30, *SIZE)), dims=("realization", *truth.dims))
    twice["ensemble"] = (twice["mean"] + twice["std"] * noise).astype(np.float32)
    for one in (twice, twice.chunk(time=3)):
        better = recalibrated(one, found.as_dict(), 0)
        assert (better["std"].chunks is None) == (one["std"].chunks is None)
        spread = better["ensemble"].std("realization")
        np.testing.assert_allclose((spread / better["std"]).mean(), 1.0, atol=0.03)
        assert better["ensemble"].dtype == better["std"].dtype == np.float32
        assert better["ensemble"].dims == one["ensemble"].dims
        assert better["std"].attrs == {"units": "m"}
    floor = recalibrated(twice, Recalibration({"0": 1.0}, {"0": 1.0}), 0)
    np.testing.assert_allclose(
        floor["ensemble"] - floor["mean"],
        (twice["ensemble"] - twice["mean"]) * (floor["std"] / twice["std"]), rtol=1e-3, atol=1e-5,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="not for lead .3."):
        xr.testing.assert_identical(recalibrated(result, found, 3), result)


def test_leads_in_between_and_several_regions():
    result, truth = world(1.0)
    told = Recalibration({"mapping": 1.0, "0": 1.0, "4": 3.0}, tendencies={"0": 0.0, "4": 2.0})
    found = recalibrated(result, told, 2)
    assert found.attrs["xr_spde_recalibrated"] == 2.0
    assert found.attrs["xr_spde_tendency"] == 1.0
    other, truth_there = world(2.0, seed=9)
    both = fit_recalibration({None: [result, other]}, [truth, truth_there])
    np.testing.assert_allclose(both.factors["mapping"], np.sqrt((1.0 + 4.0) / 2.0), rtol=0.01)
    assert both.count == 2 * truth.size
    with pytest.raises(ParameterError, match="expected as many"):
        fit_recalibration({None: [result]}, [truth, truth_there])


def test_it_survives_json():
    found = Recalibration(
        {"mapping": 1.2}, {"mapping": 0.1}, {}, "likelihood", 0.9, 40, ("a", "b"), 3
    )
    assert Recalibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    with pytest.raises(SchemaError, match="expected factors"):
        Recalibration.from_dict({"factor": 2.0})


@dataclass(frozen=True)
class Model:
    """What recalibration needs of a solver."""

    card: dict[str, Any] = field(default_factory=dict)
    recalibration: Any = None


def test_a_model_gets_its_factors_and_the_test_is_refused(monkeypatch):
    result, truth = world(1.3)
    asked = []

    def assimilate(obj, obs=None, **settings):
        asked.append(settings)
        return result

    module = import_module("xr_spde.assim.assimilate")
    monkeypatch.setattr(module, "assimilate", assimilate)
    model = Model({"test_period": ["2013-02-01", "2013-03-01"]})
    found = recalibrate(model, truth, truth, leads=(None, 2), members=30)
    np.testing.assert_allclose(found.recalibration["factors"]["2"], 1.3, rtol=0.01)
    assert found.recalibration["members"] == 30
    assert [one["lead"] for one in asked] == [None, 2]
    assert {one["recalibrate"] for one in asked} == {False}
    assert model.recalibration is None
    with pytest.raises(ParameterError, match="recalibrate on other dates"):
        recalibrate(model, truth, truth, test_period=("2013-01-16", "2013-02-01"))
    with pytest.raises(ParameterError, match="recalibrate on other dates"):
        recalibrate(Model({"test_period": ["2012-10-01", "2013-01-05"]}), truth, truth)
    several = [["2012-10-01", "2012-11-01"], ["2013-01-10", "2013-01-11"]]
    with pytest.raises(ParameterError, match="2013-01-10 to 2013-01-11"):
        recalibrate(Model({"test_period": several}), truth, truth)
    with pytest.warns(UserWarning, match="trained on"):
        recalibrate(Model({"train_period": ["2013-01-01", "2013-09-30"]}), truth, truth)


def test_bad_input_is_named():
    result, truth = world(1.0, size=(2, 6, 6))
    with pytest.raises(UnknownNameError, match="method"):
        fit_recalibration(result, truth, method="moments")
    with pytest.raises(ParameterError, match="level=2"):
        fit_recalibration(result, truth, method="coverage", level=2)
    one = result.isel(time=[0])
    with pytest.raises(ParameterError, match="at least two"):
        fit_recalibration(one, truth.isel(time=[0]), tendency=True)
    with pytest.raises(ParameterError, match="at least 30"):
        fit_recalibration(result, truth.where(truth.lon < 1.0))
    with pytest.raises(SchemaError, match="no spread"):
        fit_recalibration(result[["mean"]], truth)

"""Scores against brute force, a peer and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import assimilate, score
from xr_spde.assim.score import crps
from xr_spde.errors import AxisNotFoundError, GridError, ParameterError, UnknownNameError


@pytest.fixture
def fields():
    rng = np.random.default_rng(0)
    coords = {
        "lat": ("lat", np.linspace(80.0, 10.0, 8), {"units": "degrees_north"}),
        "lon": ("lon", 36.0 * np.arange(10), {"units": "degrees_east"}),
    }
    z = rng.standard_normal((13, 8, 10)).round(1)
    return xr.DataArray(z, coords, ("number", "lat", "lon"), "z", {"units": "K"})


def brute(members, truth, area):
    size = len(members)
    each = np.abs(members - truth).mean(axis=0)
    pairs = np.abs(members[:, None] - members[None]).sum(axis=(0, 1)) / (2 * size * (size - 1))
    below, equal = (members < truth).sum(axis=0), (members == truth).sum(axis=0)
    ranks = np.zeros(size + 1)
    for b, e, a in zip(below.ravel(), equal.ravel(), area.ravel(), strict=True):
        ranks[b : b + e + 1] += a / (e + 1)
    mean = members.mean(axis=0)
    rmse = np.sqrt(np.average((mean - truth) ** 2, weights=area))
    spread = np.sqrt(np.average(members.var(axis=0, ddof=1), weights=area))
    return {
        "rmse": rmse,
        "bias": np.average(mean - truth, weights=area),
        "spread": spread,
        "spread_skill": np.sqrt((size + 1) / size) * spread / rmse,
        "crps": np.average(each - pairs, weights=area),
        "rank_histogram": ranks / area.sum(),
    }


def test_scores_are_those_of_brute_force(fields):
    ens, truth = fields[1:], fields[0]
    area = np.broadcast_to(np.cos(np.radians(fields.lat.values))[:, None], truth.shape)
    expected = brute(ens.values, truth.values, area)
    for data in (ens, ens.chunk(lat=3, number=5), ens.chunk(lon=4)):
        found = score(data, truth)
        assert (found.rmse.chunks is not None) == (data.chunks is not None)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)
    first, second = (score(ens.chunk(lat=k), truth).compute() for k in (3, 5))
    xr.testing.assert_identical(first, second)
    assert found.crps.attrs["units"] == "K"
    plain = score(ens, truth, weights=None)
    np.testing.assert_allclose(plain.bias, (ens.mean("number") - truth).mean())


def test_crps_is_that_of_a_peer():
    peer = pytest.importorskip("scoringrules")
    rng = np.random.default_rng(0)
    members, truth = rng.standard_normal((9, 50)), rng.standard_normal(50)
    expected = peer.crps_ensemble(truth, members.T, estimator="fair")
    np.testing.assert_allclose(crps(members, truth), expected, rtol=1e-12)


def test_gaussian_results_have_the_closed_form(fields):
    peer = pytest.importorskip("scoringrules")
    truth = fields[0]
    result = xr.Dataset({"mean": fields[1], "std": abs(fields[2]) + 0.1})
    found = score(result, truth, weights=None)
    expected = peer.crps_normal(truth.values, fields[1].values, abs(fields[2].values) + 0.1).mean()
    np.testing.assert_allclose(found.crps, expected, rtol=1e-12)
    assert "rank_histogram" not in found


def test_storage_land_and_leading_dimensions(fields):
    ens, truth = fields[1:], fields[0]
    turned = truth.assign_coords(lon=(truth.lon + 180) % 360 - 180).sortby(["lat", "lon"])
    one, two = score(ens, truth), score(ens, turned)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-12)
    land = fields.lat > 60
    sea = score(ens.where(~land), truth)
    np.testing.assert_allclose(sea.rmse, score(ens.where(~land), truth.where(~land)).rmse)
    many = xr.concat([ens, ens + 1], "time")
    both = score(many, xr.concat([truth, truth + 1], "time"))
    np.testing.assert_allclose(both.rmse, [one.rmse, one.rmse])
    assert both.rank_histogram.dims == ("time", "rank")
    named = score(xr.Dataset({"a": ens, "b": 2 * ens}), xr.Dataset({"a": truth, "b": 2 * truth}))
    np.testing.assert_allclose(named.crps, [one.crps, 2 * one.crps])


def test_results_of_an_analysis_are_scored(fields):
    obs = fields[0].where(np.random.default_rng(0).random(fields[0].shape) < 0.5)
    found = assimilate(fields[1:], obs, obs_error=0.1, method="etkf")
    assert float(score(found, fields[0]).rmse) < float(score(fields[1:], fields[0]).rmse)


def test_bad_input_is_named(fields):
    ens, truth = fields[1:], fields[0]
    with pytest.raises(GridError, match="the truth"):
        score(ens, truth[1:])
    with pytest.raises(ParameterError, match="no cell"):
        score(ens, truth * np.nan)
    with pytest.raises(ParameterError, match="'level', which the ensemble lacks"):
        score(ens, truth.expand_dims(level=2))
    with pytest.raises(AxisNotFoundError):
        score(ens[0], truth)
    with pytest.raises(UnknownNameError, match="weights"):
        score(ens, truth, weights="volume")


def test_maps_of_a_mapping_are_scored_at_each_time(fields):
    truth = fields[:3].rename({fields.dims[0]: "time"})
    maps = xr.Dataset(
        {"mean": truth + 1.0, "std": 0.0 * truth + 2.0, "residual": ("time", [0.0] * 3)}
    )
    found = score(maps, truth)
    assert found.rmse.dims == ("time",)  # which are no members
    np.testing.assert_allclose(found.rmse, 1.0)
    np.testing.assert_allclose(found.spread, 2.0)
    draws = xr.concat([maps["mean"] + k for k in (-1.0, 0.0, 1.0)], "realization")
    drawn = score(maps.assign(ensemble=draws), truth)
    assert drawn.rank_histogram.dims == ("time", "rank")
    np.testing.assert_allclose(drawn.spread, 1.0)

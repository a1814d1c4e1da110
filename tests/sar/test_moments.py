"""Methods and errors of variance, correlation and likelihood, as labelled results state them."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import MemoryGuardError, ParameterError, UnknownNameError
from xr_spde._core.options import set_options
from xr_spde.fields import moments, windows
from xr_spde.sar import correlation, emulate, log_likelihood, variance
from xr_spde.solvers.cache import FACTORS

SHAPE = (40, 44)
AT = [(10.0, 12.0), (30.0, 3.0)]


@pytest.fixture
def large(monkeypatch) -> xr.Dataset:
    """Parameters of a grid that is cut into windows."""
    monkeypatch.setattr(windows, "HALO", (4, 6))
    monkeypatch.setattr(windows, "TILE", 8)
    monkeypatch.setattr(moments, "TILE", 8)
    FACTORS.clear()
    rng = np.random.default_rng(0)
    maps = {
        "kappa2": np.exp(rng.uniform(np.log(0.02), np.log(1.0), SHAPE)),
        "rho": rng.uniform(1, 7, SHAPE),
        "theta": rng.uniform(-1.5, 1.5, SHAPE),
    }
    coords = {"y": np.arange(40.0), "x": np.arange(44.0)}
    return xr.Dataset({k: (("y", "x"), v) for k, v in maps.items()}, coords)


def fits(z: xr.DataArray) -> bool:
    """Whether errors are as large as stated, on one draw of some tens of independent cells.

    The root mean square is 1.14 for 32 to 40 probes, with a standard deviation of 0.18 over seeds.
    """
    return 0.6 < float(np.sqrt((z**2).mean())) < 1.7


def test_exact_results_have_no_error(large):
    found = variance(large)
    assert found.attrs["xr_spde_method"] == "exact variance"
    assert "variance_stderr" not in found.coords
    assert "correlation_stderr" not in correlation(large, at=AT).coords
    likely = log_likelihood(emulate(large, 3, seed=1), large)
    assert likely.attrs["xr_spde_determinant"] == "exact"
    assert "log_likelihood_error" not in likely.coords


def test_probed_variance_states_its_error(large):
    exact, found = variance(large), variance(large, method="probing", probes=40, seed=3)
    assert found.attrs["xr_spde_method"] == "probed variance"
    assert (found.attrs["xr_spde_probes"], found.attrs["xr_spde_seed"]) == (40, 3)
    error = found["variance_stderr"]
    z = (found - exact) / error
    assert fits(z)
    assert found.attrs["xr_spde_relative_stderr"] == pytest.approx(
        float(np.sqrt((error**2).mean() / (exact**2).mean())), rel=0.05
    )
    land = (large.y > 5) & (large.y < 9) & (large.x < 7)
    masked = variance(large.where(~land), method="probing")
    assert bool((masked.isnull() == land).all())
    assert bool((masked["variance_stderr"].isnull() == land).all())
    turned = large.isel(y=slice(None, None, -1)).transpose("x", "y")
    again = variance(turned, method="probing", probes=40, seed=3)
    xr.testing.assert_identical(again.transpose("y", "x").sortby("y"), found)


def test_lazy_parameters_give_the_same(large):
    both = xr.concat([large, large.assign(kappa2=2 * large["kappa2"])], "model")
    eager = variance(both, method="probing")
    lazy = variance(both.chunk(model=1, x=20), method="probing")
    assert isinstance(lazy.data, da.Array)
    np.testing.assert_array_equal(lazy, eager)
    np.testing.assert_array_equal(lazy["variance_stderr"], eager["variance_stderr"])
    assert "xr_spde_relative_stderr" not in lazy.attrs


def test_std_is_the_variance_whatever_the_method(large):
    given = large.assign(std=xr.ones_like(large["rho"]) * 2.0)
    found = variance(given, method="probing")
    np.testing.assert_array_equal(found, 4.0)
    assert found.attrs["xr_spde_method"] == "exact variance"


def test_members_are_scaled_by_one_variance_everywhere(large, monkeypatch):
    given = large.assign(std=xr.ones_like(large["rho"]))
    exact = emulate(given, 2, seed=1).compute()
    assert "xr_spde_variance" not in exact.attrs
    monkeypatch.setattr(moments, "predict", lambda *_, **__: 10**15)
    probed = emulate(given, 2, seed=1)
    assert probed.attrs["xr_spde_variance"] == "probing"
    monkeypatch.undo()  # a worker with more memory
    monkeypatch.setattr(moments, "TILE", 8)
    monkeypatch.setattr(windows, "HALO", (4, 6))
    factor = np.sqrt(variance(large) / variance(large, method="probing"))
    assert float(abs(factor - 1).max()) > 1e-3
    np.testing.assert_allclose(probed, exact * factor, rtol=1e-12)


def test_correlation_with_probed_variances(large):
    exact, found = correlation(large, at=AT), correlation(large, at=AT, method="probing")
    error = found["correlation_stderr"]
    assert found.attrs["xr_spde_variance"] == "probing"
    for k, (row, column) in enumerate(AT):
        assert float(found[k].sel(y=row, x=column)) == pytest.approx(1.0, abs=1e-12)
        assert float(error[k].sel(y=row, x=column)) == 0.0
    assert found.attrs["xr_spde_stderr"] == pytest.approx(float(np.sqrt((error**2).mean())))
    away = error > 1e-8
    z = ((found - exact) / error).where(away)
    assert fits(z)
    patterns = ("mode", "y", "x"), 0.5 * np.ones((1, *SHAPE))
    both = large.assign(std=xr.ones_like(large["rho"]), patterns=patterns)
    apart = correlation(both, at=AT, method="probing")
    np.testing.assert_allclose(apart["correlation_stderr"], 0.75 * error, rtol=1e-12)
    np.testing.assert_allclose(apart, 0.25 + 0.75 * found, rtol=1e-12)


def test_likelihood_from_windows_states_its_error(large):
    fields = emulate(large, 4, seed=1, buffer=0).compute()
    fields[2] = np.nan
    exact, found = (log_likelihood(fields, large, method=method) for method in ("exact", "windows"))
    assert found.attrs["xr_spde_determinant"] == "windows"
    bound = float(found["log_likelihood_error"])
    assert 0.0 < abs(float(found - exact)) < bound == found.attrs["xr_spde_error"]
    # three replicates have data, and share one determinant
    alone = log_likelihood(fields[:1], large, method="windows")
    assert bound == pytest.approx(3 * float(alone["log_likelihood_error"]), rel=1e-12)
    lazy = log_likelihood(fields.chunk(realization=2), large, method="windows")
    assert float(lazy) == pytest.approx(float(found), rel=1e-14)
    assert float(lazy["log_likelihood_error"]) == pytest.approx(bound, rel=1e-12)


def test_a_replicate_without_data_contributes_nothing(large):
    fields = emulate(large, 3, seed=1, buffer=0).compute()
    nothing = xr.full_like(fields[:1], np.nan).assign_coords(realization=[9])
    more = xr.concat([fields, nothing], "realization")
    assert float(log_likelihood(more, large)) == float(log_likelihood(fields, large))
    assert float(log_likelihood(nothing, large)) == 0.0


def test_without_a_factor_everything_comes_with_its_error(large):
    """As on a grid too large for any direct solver."""
    given = {"solver": "multigrid", "buffer": 0}
    exact = {"variance": variance(large, buffer=0), "correlation": correlation(large, AT, buffer=0)}
    fields = emulate(large, 2, seed=1, buffer=0).compute()
    likely = log_likelihood(fields, large)
    FACTORS.clear()
    found = {"variance": variance(large, **given), "correlation": correlation(large, AT, **given)}
    for name, result in found.items():
        error = result[f"{name}_stderr"]
        z = ((result - exact[name]) / error).where(error > 1e-6)
        assert fits(z)
    windowed = log_likelihood(fields, large, solver="multigrid")
    assert abs(float(windowed - likely)) < float(windowed["log_likelihood_error"])
    forced = log_likelihood(fields, large, solver="multigrid", method="exact")
    assert float(forced) == pytest.approx(float(likely), rel=1e-12)
    exactly = variance(large, method="selected", **given)
    np.testing.assert_allclose(exactly, exact["variance"], rtol=1e-9)


def test_what_was_asked_for_is_not_replaced(large):
    with (
        set_options(memory_limit=1_000_000, factor_cache=0),
        pytest.raises(MemoryGuardError, match="nodes"),
    ):
        variance(large, method="selected", solver="dissection").compute()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "exact"}, UnknownNameError, "unknown method of the variance 'exact'"),
        ({"probes": 1}, ParameterError, "probes=1 was given"),
        ({"probes": 2.5}, ParameterError, "probes=2.5 was given"),
        ({"probes": True}, ParameterError, "probes=True was given"),
        ({"seed": -3}, ParameterError, "negative"),
    ],
)
def test_bad_arguments(large, arguments, error, message):
    with pytest.raises(error, match=message):
        variance(large, **arguments)


def test_other_bad_arguments(large):
    fields = emulate(large, 3, seed=1)
    with pytest.raises(UnknownNameError, match="unknown method of the log-determinant 'probing'"):
        log_likelihood(fields, large, method="probing")
    with pytest.raises(UnknownNameError, match="unknown method of the variance 'windows'"):
        correlation(large, at=AT, method="windows")
    with pytest.raises(ParameterError, match="method, solver, boundary and buffer belong"):
        correlation(fields, at=AT, method="probing")

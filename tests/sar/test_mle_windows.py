"""Maximum of the likelihood on grids whose factor does not fit in memory."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.options import set_options
from xr_spde.errors import MemoryGuardError, ParameterError, UnknownNameError
from xr_spde.sar import compare_structures, estimate, mle
from xr_spde.sar.priors import draw_test_case

SHAPE = (44, 52)


@pytest.fixture(scope="module")
def members():
    fields = draw_test_case(SHAPE, 10, seed=4)[0].astype(float)
    fields[:3, 10:16, 20:30] = np.nan
    return xr.DataArray(fields, dims=("member", "y", "x"))


@pytest.fixture
def small_windows(monkeypatch):
    """Windows that cut grids which both ways can do."""
    monkeypatch.setattr(mle, "overlap_of", lambda *_: 16)
    monkeypatch.setattr(mle, "width_of_tiles", lambda *_: 14)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"nugget": True}], ids=str)
def test_maps_are_those_of_the_whole_grid(members, small_windows, options):
    settings = {"method": "mle", "buffer": 5, "penalty": 30.0, "boundary": "plane", **options}
    exact, cut = (
        estimate(members, "member", likelihood=k, **settings) for k in ("exact", "windows")
    )
    assert cut.attrs["xr_spde_likelihood"] == "windows"
    assert exact.attrs["xr_spde_likelihood"] == "exact"
    assert "log_likelihood_error" not in exact
    off = abs(float(cut.log_likelihood - exact.log_likelihood))
    # besides what windows leave out, the climbs stop a hundredth of a unit apart
    assert off < float(cut.log_likelihood_error) + 0.05
    assert float(cut.log_likelihood_error) < 0.5
    for name in ("kappa2", "rho"):
        np.testing.assert_allclose(np.log(cut[name]), np.log(exact[name]), atol=0.02)
    if options:
        assert float(cut.nugget) == pytest.approx(float(exact.nugget), rel=0.02, abs=1e-4)


def test_memory_decides_and_the_log_says_so(members, caplog):
    with (
        set_options(memory_limit=20_000_000),
        caplog.at_level(logging.INFO, "xr_spde"),
    ):
        lazy = estimate(members.chunk(member=2), "member", method="mle", buffer=0)
        assert "log_likelihood_error" in lazy
        with pytest.raises(MemoryGuardError, match=r"Leave likelihood=\"exact\" out"):
            estimate(members, "member", method="mle", likelihood="exact")
    assert "likelihood from windows: at once it would take about" in caplog.text
    with set_options(memory_limit=2_000_000), pytest.raises(MemoryGuardError, match="Coarsen"):
        estimate(members, "member", method="mle")


def test_a_rim_that_does_not_fit_is_told_of(members):
    with (
        set_options(memory_limit=60_000_000),
        pytest.raises(MemoryGuardError, match=r"30 cells around.*likelihood=\"windows\""),
    ):
        estimate(members, "member", method="mle", buffer=30, boundary="plane")


def test_covariates_and_chunks(members, small_windows):
    """The same numbers whatever the chunks, and coefficients of the whole grid."""
    height = xr.DataArray(np.hypot(*np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]))
    height = height.rename(dim_0="y", dim_1="x")
    settings = {
        "method": "mle",
        "structure": "stationary isotropic",
        "covariates": height.to_dataset(name="height"),
        "buffer": 0,
    }
    fields = members[:4] + 3.0 * height
    exact = estimate(fields, "member", **settings)
    cut = estimate(fields, "member", likelihood="windows", **settings)
    again = estimate(fields.chunk(member=1), "member", likelihood="windows", **settings).compute()
    xr.testing.assert_identical(again, cut)
    for name in ("coefficients", "coefficients_stderr"):
        np.testing.assert_allclose(cut[name], exact[name], rtol=0.01)


def test_structures_are_compared_by_windows(members, small_windows):
    table = compare_structures(
        members[:4],
        "member",
        structures=["stationary", "stationary isotropic"],
        likelihood="windows",
        buffer=0,
    )
    assert table.attrs["xr_spde_likelihood"] == "windows"
    assert np.isfinite(table.p_value.sel(structure="stationary isotropic"))


def test_what_makes_no_sense(members):
    with pytest.raises(UnknownNameError, match="likelihood"):
        estimate(members, "member", method="mle", likelihood="probes")
    with pytest.raises(ParameterError, match=r"method=\"mle\""):
        estimate(members, "member", likelihood="windows")

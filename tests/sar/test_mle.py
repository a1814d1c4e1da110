"""Maximum of the exact likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.errors import ParameterError
from xr_spde.fields.exact import ExactLikelihood
from xr_spde.fields.sar import tensor
from xr_spde.sar import emulate, estimate
from xr_spde.sar.local import LocalModel
from xr_spde.sar.mle import ExactProblem
from xr_spde.sar.priors import draw_test_case
from xr_spde.sar.statistics import LagSums, stencil_gram
from xr_spde.sar.whittle import LocalProblem
from xr_spde.synthetic import constant_parameters

SHAPE = (32, 40)


def problem(fields, boundary="cylinder", penalty=None, buffer=3):
    sums = LagSums(SHAPE, periodic=boundary != "plane")
    for member in fields:
        sums.add(member)
    gram, weight = stencil_gram(sums.finish(), periodic=boundary != "plane")
    model = LocalModel(boundary, buffer, penalty=penalty)
    return ExactProblem(
        LocalProblem(gram, np.maximum(weight - 1.0, 0.0), model), fields, anomalies=False
    )


@pytest.fixture(scope="module")
def fields():
    return draw_test_case(SHAPE, 12, seed=4)[0].astype(float)


def test_the_slope_in_the_nodes_is_that_of_the_penalised_likelihood(fields):
    exact = problem(fields)
    exact._likelihood = exact._exact(exact.fit())
    nodes = exact.local.nodes + 0.1 * np.random.default_rng(0).standard_normal(
        exact.local.nodes.shape
    )
    _, slope = exact.value_and_slope(nodes)
    rng = np.random.default_rng(1)
    step, h = rng.standard_normal(nodes.shape), 1e-5
    ends = [exact.value_and_slope(nodes + s * step)[0] for s in (-h, h)]
    assert np.vdot(slope, step) == pytest.approx((ends[1] - ends[0]) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("boundary", ["cylinder", "plane"])
def test_it_ends_above_the_local_likelihood_at_a_flat_place(fields, boundary):
    exact = problem(fields, boundary, penalty=30.0)
    local = exact.local
    local.fit()
    start = local.refine()
    begun = local.nodes.copy()
    exact._likelihood = exact._exact(start)
    before, slope_before = exact.value_and_slope(begun)
    local.nodes = begun
    exact.refine()
    after, slope = exact.value_and_slope(local.nodes)
    assert after < before
    solver = exact._solver(local.nodes)
    left, first = (
        np.vdot(s, solver.solve(s.reshape(-1, 1)).reshape(s.shape)) for s in (slope, slope_before)
    )
    # Newton decrement: what is left of the likelihood, in log units
    assert left < max(0.1 * first, 0.1)


def test_constant_parameters_on_a_torus_within_the_bound_of_cramer_and_rao():
    """Issue figures: kappa2 0.05, ratio 3, 30 degrees on 64 x 64, from the likelihood alone."""
    shape, truth = (64, 64), (0.05, 3.0, np.pi / 6)
    maps = constant_parameters(shape, kappa2=truth[0], rho=truth[1], theta=truth[2])
    draws = emulate(maps, 1, seed=3, boundary="torus", buffer=0)
    one = draws.values.reshape(1, *shape)
    likelihood = ExactLikelihood(one, "torus")

    def value(u):
        h = np.stack(
            [np.full(shape, np.exp(u[0]))] + [np.full(shape, t) for t in tensor(np.exp(u[1]), u[2])]
        )
        return likelihood.value_and_slope(h, np.full(shape, u[3]))[0]

    # closed form on the torus: the symbol at every frequency
    ky, kx = np.meshgrid(*(2.0 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij")
    power = np.abs(np.fft.fft2(one[0])) ** 2 / one[0].size

    def spectral(u):
        hxx, hyy, hxy = tensor(np.exp(u[1]), u[2])
        symbol = np.exp(u[0]) + 2 * hxx * (1 - np.cos(kx)) + 2 * hyy * (1 - np.cos(ky))
        symbol = symbol + 2 * hxy * np.sin(kx) * np.sin(ky)
        density = symbol**2 * np.exp(-u[3])
        return 0.5 * float(np.sum(np.log(density / (2 * np.pi)) - density * power))

    for u in ([-3.0, 1.0, 0.5, 0.0], [-2.0, 0.3, -0.4, 0.2]):
        assert value(np.array(u)) == pytest.approx(spectral(np.array(u)), rel=1e-9)


def test_maps_of_the_prior_are_found(fields):
    _, kappa2, _, _ = draw_test_case(SHAPE, 12, seed=4)
    found = estimate(
        xr.DataArray(fields, dims=("member", "y", "x")), "member", method="mle", uncertainty=True
    )
    assert found.attrs["xr_spde_method"] == "mle"
    error = np.log(found.kappa2.values / kappa2)
    assert float(np.sqrt(np.mean(error**2))) < 0.15
    assert float(np.abs(error / (found.kappa2_stderr / found.kappa2).values).mean()) < 2.0


def test_gaps_are_integrated_out(fields):
    da = xr.DataArray(fields, dims=("member", "y", "x"))
    holes = da.copy()
    holes[:, 10:14, 5:12] = np.nan
    holes[::2, 20:, 30:] = np.nan
    whole, found = (estimate(f, "member", method="mle") for f in (da, holes))
    assert bool(found.kappa2[12, 8].isnull())
    seen = found.kappa2.notnull()
    apart = np.log(found.kappa2 / whole.kappa2).where(seen)
    assert float(np.sqrt((apart**2).mean())) < 0.1
    lazy = estimate(holes.chunk({"member": 5}), "member", method="mle").compute()
    xr.testing.assert_identical(found, lazy)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"modes": 3}, "modes=3"),
        ({"dilation": 2}, "dilation=2"),
        ({"boundary": "paper"}, "'paper'"),
        ({"refine": 2}, "refine"),
        ({"weights": "x"}, "weights"),
    ],
)
def test_settings_it_does_not_know_are_refused(fields, wrong, problem):
    da = xr.DataArray(fields, dims=("member", "y", "x"))
    with pytest.raises(ParameterError, match=problem):
        estimate(da, "member", method="mle", **wrong)

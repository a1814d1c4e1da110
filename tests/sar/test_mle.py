"""Maximum of the exact likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import multivariate_normal

from xr_spde.errors import ParameterError, SchemaError, SolverError
from xr_spde.fields.exact import ExactLikelihood
from xr_spde.fields.sar import tensor
from xr_spde.labels.schema import is_parameters
from xr_spde.sar import compare_structures, emulate, estimate, log_likelihood
from xr_spde.sar.compare import _criteria
from xr_spde.sar.local import LocalModel
from xr_spde.sar.mle import ExactProblem
from xr_spde.sar.priors import draw_test_case
from xr_spde.sar.settings import STRUCTURES
from xr_spde.sar.statistics import LagSums, stencil_gram
from xr_spde.synthetic import constant_parameters

SHAPE = (32, 40)


def moments(fields, boundary="cylinder"):
    sums = LagSums(SHAPE, periodic=boundary != "plane")
    for member in fields:
        sums.add(member)
    gram, weight = stencil_gram(sums.finish(), periodic=boundary != "plane")
    return gram, np.maximum(weight - 1.0, 0.0)


def problem(fields, boundary="cylinder", penalty=None, buffer=3):
    model = LocalModel(boundary, buffer, penalty=penalty)
    return ExactProblem(*moments(fields, boundary), model, fields, anomalies=False)


@pytest.fixture(scope="module")
def fields():
    return draw_test_case(SHAPE, 12, seed=4)[0].astype(float)


def test_the_slope_in_the_nodes_is_that_of_the_penalised_likelihood(fields):
    exact = problem(fields)
    exact._set_up(exact.fit())
    nodes = exact.local.nodes + 0.1 * np.random.default_rng(0).standard_normal(
        exact.local.nodes.shape
    )
    _, slope = exact.value_and_slope(nodes)
    slope = slope.reshape(nodes.shape)
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
    exact._set_up(start)
    before, slope_before = exact.value_and_slope(begun)
    local.nodes = begun
    exact.refine()
    after, slope = exact.value_and_slope(local.nodes)
    assert after < before
    solver = exact._solver()
    left, first = (float(s @ solver.solve(s[:, None])[:, 0]) for s in (slope, slope_before))
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


@pytest.fixture(scope="module")
def stationary():
    truth = constant_parameters((40, 40), kappa2=0.1, rho=3.0, theta=0.5)
    return emulate(truth, 12, seed=3, boundary="torus", buffer=0).compute()


ON_TORUS = {"method": "mle", "boundary": "torus", "buffer": 0}


def test_the_slope_in_the_nugget_is_that_of_the_likelihood(fields):
    noisy = problem(fields)
    noisy = ExactProblem(*moments(fields), noisy.local.model, fields, anomalies=False, nugget=True)
    noisy._set_up(noisy.fit())
    nodes, log_noise, h = noisy.local.nodes, np.log(0.05), 1e-4
    slope = noisy.value_and_slope(nodes, log_noise)[1]
    ends = [noisy.value_and_slope(nodes, log_noise + s)[0] for s in (-h, h)]
    assert slope.size == nodes.size + 1
    assert slope[-1] == pytest.approx((ends[1] - ends[0]) / (2 * h), rel=1e-5)


def test_stationary_structures_keep_their_maps_constant(stationary):
    found = estimate(stationary, structure="stationary", uncertainty=True, **ON_TORUS)
    for name, truth in (("kappa2", 0.1), ("rho", 3.0), ("theta", 0.5)):
        values, stderr = found[name].values, found[f"{name}_stderr"].values
        assert np.ptp(values) < 1e-5 * abs(values).max()
        assert abs(values.mean() - truth) < 3.0 * stderr.mean()
    isotropic = estimate(stationary, structure="isotropic", **ON_TORUS)
    assert float(isotropic.rho.max()) < 1.0 + 1e-6
    assert float(isotropic.log_likelihood) < float(found.log_likelihood) - 100.0


def test_standard_errors_of_constants_are_those_of_the_spectral_likelihood(stationary):
    """Closed form on the torus: Fisher information of the spectral density."""
    found = estimate(stationary, structure="stationary", uncertainty=True, **ON_TORUS)
    ny, nx = stationary.shape[-2:]
    ky, kx = np.meshgrid(*(2.0 * np.pi * np.fft.fftfreq(n) for n in (ny, nx)), indexing="ij")

    def log_density(u):
        hxx, hyy, hxy = tensor(np.exp(u[1]), u[2])
        symbol = np.exp(u[0]) + 2 * hxx * (1 - np.cos(kx)) + 2 * hyy * (1 - np.cos(ky))
        return u[3] - 2.0 * np.log(symbol + 2 * hxy * np.sin(kx) * np.sin(ky))

    at = np.array([np.log(0.1), np.log(3.0), 0.5, 0.0])
    steps = 1e-5 * np.eye(4)
    slopes = [(log_density(at + s) - log_density(at - s)).ravel() / 2e-5 for s in steps]
    information = 0.5 * 11 * np.array(slopes) @ np.array(slopes).T
    bound = np.sqrt(np.diag(np.linalg.inv(information)))
    relative = [
        float((found.kappa2_stderr / found.kappa2).mean()),
        float((found.rho_stderr / found.rho).mean()),
        float(found.theta_stderr.mean()),
    ]
    np.testing.assert_allclose(relative, bound[:3], rtol=0.1)


def test_a_nugget_is_told_from_the_field(stationary):
    noise = 0.3 * float(stationary.std())
    rng = np.random.default_rng(5)
    noisy = stationary + noise * rng.standard_normal(stationary.shape)
    found = estimate(noisy, structure="stationary", nugget=True, **ON_TORUS)
    assert float(found.nugget) == pytest.approx(noise**2, rel=0.1)
    assert float(found.kappa2.mean()) == pytest.approx(0.1, rel=0.25)
    clean = float(stationary.std("realization").mean())
    assert float(found["std"].mean()) == pytest.approx(clean, rel=0.05)
    without = estimate(noisy, structure="stationary", **ON_TORUS)
    assert float(found.log_likelihood) > float(without.log_likelihood) + 100.0
    none = estimate(stationary, structure="stationary", nugget=True, **ON_TORUS)
    assert float(none.nugget) < 1e-3 * noise**2


def with_nothing_left(problem):
    """Maps at which noise is all there is in a corner: no double precision holds both."""
    nodes = problem.local.nodes.copy()
    nodes[3, :20] = -60.0
    return nodes


def test_a_start_without_a_likelihood_is_left_for_the_one_before(fields, monkeypatch, caplog):
    exact = ExactProblem(
        *moments(fields), LocalModel("cylinder", 3, penalty=30.0), fields, anomalies=False,
        nugget=True,
    )  # fmt: skip
    exact.fit()
    begun = exact._log_likelihood()
    ruined = with_nothing_left(exact)
    kept = exact.local.result()

    def refine():
        exact.local.nodes = ruined
        return kept

    monkeypatch.setattr(exact.local, "refine", refine)
    with caplog.at_level("INFO", logger="xr_spde.sar.mle"):
        found = exact.refine()
    assert "before the last step" in caplog.text
    assert found.log_likelihood > begun - 1.0
    exact.local.nodes = ruined
    np.testing.assert_array_equal(exact._information_ratio(), 1.0)
    with pytest.raises(SolverError, match=r'method="mle" came to maps .* nugget=False'):
        exact._log_likelihood()


def test_a_trend_does_not_carry_the_variance_off_where_there_are_no_cells(fields):
    sea = fields.copy()
    sea[:, :12, :12] = np.nan
    exact = ExactProblem(*moments(sea), LocalModel("plane", 3), sea, anomalies=False)
    exact.fit()
    before = exact.local.nodes
    exact._hold_back()
    np.testing.assert_array_equal(exact.local.nodes, before)  # nothing to hold back
    known = exact.local.cells(before)[3]
    carried = before.copy()
    carried[3, 0] = -40.0  # the corner
    exact.local.nodes = carried
    np.testing.assert_array_equal(exact.local.cells(carried)[3], known)
    exact._hold_back()
    assert exact.local.nodes[3, 0] == known.min() - 3.0
    np.testing.assert_array_equal(exact.local.nodes[3, 1:], before[3, 1:])


def test_a_climb_that_is_not_over_is_told_of(fields, monkeypatch):
    monkeypatch.setattr("xr_spde.sar.mle._STEPS", 0)
    jump = fields.copy()
    jump[:, :, 20:] *= 30.0
    with pytest.warns(UserWarning, match="log units left"):
        estimate(xr.DataArray(jump, dims=("member", "y", "x")), "member", method="mle")


@pytest.mark.parametrize(("boundary", "shape"), [("plane", (6, 7)), ("cylinder", (8, 14))])
def test_regions_of_a_few_nodes(stationary, boundary, shape):
    small = stationary[:, : shape[0], : shape[1]]
    found = estimate(small, method="mle", boundary=boundary, buffer=2)
    assert bool(found.kappa2.notnull().all())


def test_a_likelihood_counts_the_nugget_of_the_parameters(dense_covariance):
    rng = np.random.default_rng(7)
    shape, dims = (7, 8), ("y", "x")
    maps = np.exp(rng.uniform(-2, 0, shape)), rng.uniform(1, 3, shape), rng.uniform(-1, 1, shape)
    full = dense_covariance(*maps, "plane")
    std = rng.uniform(0.5, 2.0, shape)
    std[3, 3] = 0.0  # nothing but noise
    scale = (std / np.sqrt(full.diagonal().reshape(shape))).ravel()
    law = multivariate_normal(cov=scale[:, None] * full * scale + 0.3 * np.eye(full.shape[0]))
    params = xr.Dataset(
        dict(zip(("kappa2", "rho", "theta"), ((dims, m) for m in maps), strict=True))
    )
    params = params.assign(std=(dims, std), nugget=0.3, mean=(dims, np.full(shape, 5.0)))
    fields = xr.DataArray(5.0 + law.rvs(4, random_state=8).reshape(4, *shape), dims=("t", *dims))
    expected = float(law.logpdf(fields.values.reshape(4, -1) - 5.0).sum())
    assert float(log_likelihood(fields, params, "t")) == pytest.approx(expected, rel=1e-10)
    # two levels, with a nugget each, lazily
    both = xr.concat([params, params.assign(nugget=0.9)], "level")
    found = log_likelihood(fields.chunk(t=1), both.chunk(level=1), "t")
    assert float(found[0]) == pytest.approx(expected, rel=1e-10)
    assert float(found[1]) < expected
    for wrong, problem in (
        (params.assign(nugget=-1.0), "nugget is -1"),
        (params.assign(nugget=np.nan), "nugget is nan"),
        (params.assign(nugget=(dims, std)), "'nugget' has the dimensions 'y', 'x'"),
    ):
        with pytest.raises(SchemaError, match=problem):
            log_likelihood(fields, wrong, "t")


def test_covariates_explain_the_mean(stationary):
    rng = np.random.default_rng(6)
    height = stationary[0].copy(data=np.cumsum(rng.standard_normal((40, 40)), axis=0))
    height = height.drop_vars("realization")
    covariates = height[::-1].to_dataset(name="height") * 100.0  # stored from north to south
    found = estimate(
        stationary + 2.0 + 0.3 * height, structure="stationary", covariates=covariates, **ON_TORUS
    )
    assert found.covariate.values.tolist() == ["intercept", "height"]
    assert found.covariate.dtype == object  # as read back from a file
    off = (found.coefficients - np.array([2.0, 0.003])) / found.coefficients_stderr
    assert float(abs(off).max()) < 3.0
    np.testing.assert_allclose(found["mean"], 2.0 + 0.3 * height, atol=0.5)
    assert found["std"].attrs.get("units") == stationary.attrs.get("units")
    lazy = estimate(
        (stationary + 2.0 + 0.3 * height).chunk({"realization": 5}),
        structure="stationary",
        covariates=covariates,
        **ON_TORUS,
    ).compute()
    xr.testing.assert_identical(found, lazy)


def test_structures_are_compared(stationary):
    table = compare_structures(stationary, boundary="torus", buffer=0)
    assert table.structure.values.tolist() == list(STRUCTURES)
    assert table.attrs["xr_spde_method"] == "compare_structures"
    assert not is_parameters(table)
    narrow = table.sel(structure="stationary")
    assert float(table.bic.min()) >= float(narrow.bic) - 1.0
    assert 0.0 <= float(narrow.degrees_of_freedom) < 5.0
    assert float(narrow.p_value) > 0.01
    assert float(table.p_value.sel(structure="isotropic")) < 1e-6
    assert bool(table.p_value.sel(structure="nonstationary").isnull())
    # neither is a special case of the other
    pair = table[["log_likelihood", "effective_parameters"]].sel(
        structure=["isotropic", "stationary"]
    )
    assert bool(_criteria(pair, xr.DataArray(100.0)).p_value.isnull().all())


def covariate(values, dims=("y", "x"), name="h"):
    return {"covariates": xr.Dataset({name: (dims, values)})}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"method": "whittle", "nugget": True}, "nugget=True"),
        ({"structure": "round"}, "structure"),
        ({"nugget": 0.1}, "nugget=0.1"),
        ({"covariates": [1, 2]}, "covariates is a list"),
        (covariate(np.ones((12, 40, 40)), ("realization", "y", "x")), "covariate 'h'"),
        (covariate(np.ones((40, 39))), "covariate 'h'"),
        (covariate(np.ones((40, 40)), name="intercept"), "intercept"),
        (covariate(np.full((40, 40), np.nan)), "missing in 1600"),
        (covariate(np.ones((40, 40))), "linearly dependent"),
    ],
)
def test_settings_of_the_likelihood_that_make_no_sense(stationary, settings, problem):
    bare = stationary.drop_vars(list(stationary.coords))
    with pytest.raises(ValueError, match=problem):
        estimate(bare, **{**ON_TORUS, **settings})


@pytest.mark.parametrize(
    "structures", [["stationary"], ["stationary", "stationary"], ["no", "stationary"]]
)
def test_comparisons_that_make_no_sense(stationary, structures):
    with pytest.raises(ValueError, match="structure"):
        compare_structures(stationary, structures=structures)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"method": "whittle"}, "method='whittle' was given"),
        ({"structure": "stationary"}, "structure='stationary' was given"),
        ({"structures": "stationary"}, r"structures=\['stationary'\] was given"),
    ],
)
def test_settings_that_belong_to_the_comparison(stationary, settings, problem):
    with pytest.raises(ParameterError, match=problem):
        compare_structures(stationary, **settings)


def test_data_with_a_dimension_of_the_comparison(stationary):
    with pytest.raises(ParameterError, match="'structure', which the result needs"):
        compare_structures(stationary.expand_dims(structure=2))


def test_fields_smoother_than_the_model_are_told_of():
    y, x = np.mgrid[0.0:1.0:24j, 0.0:1.0:24j]
    rng = np.random.default_rng(0)
    waves = [np.cos(np.pi * (i * y + j * x) + k) for i, j, k in rng.uniform(0, 1.5, (30, 3))]
    smooth = np.tensordot(rng.standard_normal((8, 30)), np.array(waves), 1)
    with pytest.warns(UserWarning, match="lower bound"):
        estimate(xr.DataArray(smooth, dims=("realization", "y", "x")), method="mle")

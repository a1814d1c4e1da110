"""Steps of the likelihood from given maps, as far as held-out replicates bear them out."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.errors import ParameterError
from xr_spde.sar import estimate
from xr_spde.sar.local import LocalFit, LocalModel
from xr_spde.sar.priors import draw_test_case
from xr_spde.sar.refine import refined
from xr_spde.sar.statistics import LagSums, stencil_gram
from xr_spde.sar.whittle import LocalProblem

SHAPE = (48, 64)


def fit_of(log_kappa2, rho, theta) -> LocalFit:
    h1, h2 = np.log(rho) * np.cos(2.0 * theta), np.log(rho) * np.sin(2.0 * theta)
    return LocalFit(log_kappa2, h1, h2, np.zeros_like(h1), np.zeros((4, 2)))


def problems(fields, prior, *, model=None):
    """Likelihoods of all replicates, and of both halves."""
    out = []
    for part in (fields, fields[::2], fields[1::2]):
        sums = LagSums(SHAPE, periodic=False)
        for member in part:
            sums.add(member)
        gram, weight = stencil_gram(sums.finish(), periodic=False)
        out.append(LocalProblem(gram, weight - (weight > 0), model or LocalModel(), prior=prior))
    return out


def error(fit: LocalFit, truth: LocalFit) -> float:
    pairs = ((fit.log_kappa2, truth.log_kappa2), (fit.h1, truth.h1), (fit.h2, truth.h2))
    return float(np.sqrt(np.mean([(a - b) ** 2 for a, b in pairs])))


@pytest.fixture(scope="module")
def cases():
    out = []
    for seed in range(4):
        fields, kappa2, rho, theta = draw_test_case(SHAPE, 24, seed=seed)
        out.append((fields, fit_of(np.log(kappa2), rho, theta)))
    return out


def test_wrong_maps_are_left(cases):
    for fields, truth in cases:
        wrong = LocalFit(
            truth.log_kappa2 + 1.0, truth.h1 + 0.5, truth.h2, truth.log_innovation, truth.penalty
        )
        assert error(refined(wrong, *problems(fields, wrong), steps=15), truth) < 0.5 * error(
            wrong, truth
        )


def test_true_maps_are_left_less_far_than_the_likelihood_would(cases):
    for fields, truth in cases:
        few = fields[:6]
        whole, *halves = problems(few, truth)
        kept = refined(truth, whole, *halves, steps=15)
        alone = problems(few, truth)[0].adjust(steps=15)
        assert error(kept, truth) <= error(alone, truth)
        assert error(kept, truth) < 0.12


def test_maps_that_no_step_improves_are_returned_as_they_are(cases):
    fields, truth = cases[0]
    # so stiff that the likelihood may only shift what is already its optimum
    model = LocalModel(penalty=1e5)
    best = problems(fields, truth, model=model)[0].adjust(steps=60)
    assert refined(best, *problems(fields, best, model=model), steps=15) is best


def test_the_covariance_is_that_of_the_likelihood_where_maps_move(cases):
    fields, truth = cases[1]
    wrong = LocalFit(truth.log_kappa2 + 1.0, truth.h1, truth.h2, truth.h1, truth.penalty)
    found = refined(wrong, *problems(fields, wrong), steps=5, uncertainty=True)
    assert found.covariance is not None
    assert found.covariance.shape == (3, 3, *SHAPE)
    assert bool((found.covariance[0, 0] > 0).all())


@pytest.fixture(scope="module")
def members():
    pytest.importorskip("torch")
    fields, *_ = draw_test_case(SHAPE, 12, seed=3)
    axes = {"y": 1e3 * np.arange(SHAPE[0]), "x": 1e3 * np.arange(SHAPE[1])}
    return xr.DataArray(fields, dims=("member", "y", "x"), coords=axes, name="z")


def test_networks_are_refined_lazily_and_with_gaps(members):
    holes = members.where(np.random.default_rng(0).random(members.shape) > 0.05)
    eager = estimate(holes, "member", method="net", refine=4, uncertainty=True)
    lazy = estimate(holes.chunk({"member": 5}), "member", method="net", refine=4, uncertainty=True)
    xr.testing.assert_identical(eager, lazy.compute())
    for name in ("kappa2", "rho", "kappa2_stderr"):
        assert bool((eager[name] > 0).all())


def test_few_replicates_cannot_judge(members):
    with pytest.raises(ParameterError, match="refine=2 was asked of 3 replicates"):
        estimate(members[:3], "member", method="net", refine=2)


def test_too_few_cells_leave_the_network_alone(members):
    # neighbours with data in both halves on a few cells only
    holes = members.copy()
    holes[1::2, 3:, :] = np.nan
    plain, kept = (estimate(holes, "member", method="net", refine=k, modes=0) for k in (0, 3))
    np.testing.assert_array_equal(plain.kappa2, kept.kappa2)


def test_flat_maps_as_prior_change_nothing(cases):
    """Roughness does not see a constant, so the optimum is that of the likelihood alone."""
    sums = LagSums(SHAPE, periodic=False)
    for member in cases[0][0][:12]:
        sums.add(member)
    gram, weight = stencil_gram(sums.finish(), periodic=False)
    model = LocalModel(penalty=50.0)
    alone = LocalProblem(gram, weight, model).fit(steps=60)
    flat = np.zeros((48, 64))
    prior = LocalFit(flat - 2.0, flat + 0.3, flat - 0.2, flat, np.zeros((4, 2)))
    near = LocalProblem(gram, weight, model, prior=prior).fit(steps=60)
    for name in ("log_kappa2", "h1", "h2"):
        np.testing.assert_allclose(getattr(near, name), getattr(alone, name), atol=0.02)


def test_maps_known_for_sure_stay(cases):
    fields, truth = cases[1]
    sure = np.zeros((3, 3, *SHAPE))
    for k in range(3):
        sure[k, k] = 1e-8
    wrong = LocalFit(truth.log_kappa2 + 1.0, truth.h1, truth.h2, truth.h1, truth.penalty, sure)
    kept = refined(wrong, *problems(fields, wrong), steps=5, uncertainty=True)
    assert error(kept, wrong) < 0.01
    assert kept.covariance is sure

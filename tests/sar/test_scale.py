"""The spacing at which fields are read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from xr_spde.fields.closed_form import symbol
from xr_spde.fields.sar import tensor
from xr_spde.sar import emulate, estimate
from xr_spde.sar.local import LocalFit, LocalModel
from xr_spde.sar.patterns import BlockSums, make_positive
from xr_spde.sar.scale import best_scale, local_problems, pool_gaps, remove_patterns
from xr_spde.sar.statistics import LagSums, stencil_features, stencil_gram


def fields_of(kappa2, *, shape=(40, 40), count=24, seed=3) -> xr.DataArray:
    maps = {"kappa2": kappa2, "rho": 2.0, "theta": 0.5}
    truth = xr.Dataset({k: (("y", "x"), np.full(shape, v)) for k, v in maps.items()})
    return emulate(truth, count, seed=seed).compute()


def test_fields_of_the_model_are_read_cell_by_cell():
    found = estimate(fields_of(0.02), modes=0)
    assert int(found.dilation) == 1
    assert abs(float(np.log(found.kappa2 / 0.02).mean())) < 0.3


def test_smoothed_fields_are_read_at_a_larger_spacing():
    """Smoothing within a cell: cell by cell the range is overrated, at a distance it is right."""
    fields = fields_of(0.02)
    smooth = fields.copy(data=gaussian_filter(fields.values, (0, 0.7, 0.7)))
    found, cells = estimate(smooth, modes=0), estimate(smooth, modes=0, dilation=1)
    assert int(found.dilation) > 1
    errors = [abs(float(np.log(p.kappa2 / 0.02).mean())) for p in (found, cells)]
    assert errors[0] < 0.5 * errors[1]


def test_noisy_fields_are_read_at_a_larger_spacing():
    fields = fields_of(0.02)
    noise = np.random.default_rng(0).normal(size=fields.shape) * 0.5 * float(fields.std())
    assert int(estimate(fields + noise, modes=0).dilation) > 1


@pytest.mark.parametrize("dilation", [2, 4])
def test_a_fixed_spacing_gives_parameters_of_single_cells(dilation):
    """kappa2 per squared cell, whatever the spacing: Matern fields of a range of many cells."""
    n, kappa2 = 64, 0.02
    rng = np.random.default_rng(1)
    k = 2.0 * np.pi * np.fft.fftfreq(n)
    b = symbol(kappa2, *tensor(2.0, 0.5), k[None, :], k[:, None])
    white = np.fft.fft2(rng.normal(size=(30, n, n)))
    fields = xr.DataArray(np.fft.ifft2(white / b).real, dims=("member", "y", "x"))
    found = estimate(fields, modes=0, dilation=dilation, boundary="torus")
    assert int(found.dilation) == dilation
    # the lattice at twice the spacing is not quite the same model
    assert abs(float(np.log(found.kappa2 / kappa2).mean())) < 0.5
    assert float(found.theta.mean()) == pytest.approx(0.5, abs=0.1)
    assert 1.5 < float(found.rho.mean()) < 3.0


class Told:
    """An estimator whose maps are flat, and whose standard error of log kappa2 is declared."""

    def __init__(self, dilation, log_kappa2, stderr, shape):
        self.dilation, zero = dilation, np.zeros(shape)
        covariance = np.zeros((3, 3, *shape))
        covariance[0, 0] = stderr**2
        maps = np.full(shape, log_kappa2), zero, zero, zero
        self.found = LocalFit(*maps, np.zeros((4, 2)), covariance)

    def fit(self):
        return self.found

    def refine(self, *, uncertainty=False):
        return self.found


@pytest.mark.parametrize(
    ("stderrs", "chosen"),
    [((0.4, 0.4), 1), ((1.2, 0.4), 1), ((1.4, 0.4), 2), ((1.8, 1.8), 1)],
)
def test_a_spacing_at_which_an_estimator_knows_little_is_left_out(stderrs, chosen):
    """Where the better half of the variance is the prior's, blocks are not asked."""
    fields = fields_of(0.05).values
    shape, blocks = fields.shape[1:], BlockSums(fields.shape[1:])
    for field in fields:
        blocks.add(field)
    problems = [
        Told(d, np.log(k), s, shape) for d, k, s in zip((1, 2), (0.05, 2.0), stderrs, strict=True)
    ]
    variance, none = fields.var(0, ddof=1), np.zeros((0, *shape))
    assert best_scale(problems, "plane", blocks, none, variance, uncertainty=False)[0] == chosen


def test_remove_patterns_takes_their_moments_away():
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(30, 9, 10))
    sums = LagSums((9, 10), periodic=True)
    for member in fields:
        sums.add(member)
    gram, weight = stencil_gram(sums.finish(), periodic=True)
    patterns = 0.05 * rng.normal(size=(2, 9, 10))
    left = remove_patterns(gram, patterns, 1, periodic=True)
    features = stencil_features(patterns, dilation=1, periodic=True)
    inner = weight > 0
    truth = gram - np.einsum("aknm,bknm->abnm", features, features)
    np.testing.assert_allclose(left[:, :, inner], truth[:, :, inner], rtol=1e-12, atol=1e-14)
    none = np.zeros((0, 9, 10))
    assert remove_patterns(gram, none, 1, periodic=True) is gram
    # a pattern larger than the field leaves moments that can be repaired
    rest = make_positive(remove_patterns(gram, 100.0 * patterns, 1, periodic=True))
    assert np.linalg.eigvalsh(np.moveaxis(rest[:, :, inner], -1, 0)).min() > 0


def test_pool_gaps_is_the_weighted_mean_of_nine_cells():
    rng = np.random.default_rng(1)
    gram, weight = rng.normal(size=(4, 4, 6, 7)), rng.integers(0, 5, size=(6, 7)).astype(float)
    pooled = pool_gaps(gram, weight, periodic=True)
    for row, column in ((2, 3), (4, 0), (0, 6)):
        near = [
            (j, i % 7) for j in (row - 1, row, row + 1) for i in (column - 1, column, column + 1)
        ]
        near = [(j, i) for j, i in near if 0 <= j < 6]
        shares = np.array([weight[cell] for cell in near])
        mean = sum(w * gram[:, :, j, i] for w, (j, i) in zip(shares, near, strict=True))
        expected = mean / shares.sum() * (weight[row, column] > 0)
        np.testing.assert_allclose(pooled[:, :, row, column], expected, rtol=1e-12, atol=1e-15)
    assert (pooled[:, :, weight == 0] == 0).all()


def test_spacings_without_enough_cells_are_passed_over():
    fields = fields_of(0.3, shape=(12, 12), count=10).values
    scales = []
    for dilation in (1, 4):
        sums = LagSums((12, 12), periodic=False, dilation=dilation)
        for member in fields:
            sums.add(member)
        gram, weight = stencil_gram(sums.finish(), periodic=False)
        scales.append((dilation, gram, weight))
    scales[1][2][...] = 0.0
    scales[1][2][5, 5] = 9.0
    none, variance = np.zeros((0, 12, 12)), fields.var(axis=0)
    problems = local_problems(scales, LocalModel())
    dilation, fit = best_scale(problems, "plane", None, none, variance, uncertainty=False)
    assert dilation == 1
    assert fit.log_kappa2.shape == (12, 12)
    assert fit.covariance is None

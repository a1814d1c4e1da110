"""The Gaussian field model: draws, exact moments, buffer, likelihood, pickling."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from xr_spde._core.errors import MemoryGuardError, ParameterError, UnknownNameError
from xr_spde._core.options import set_options
from xr_spde.fields import field as module
from xr_spde.fields.closed_form import matern_correlation, torus_covariance
from xr_spde.fields.field import GaussianField, automatic_buffer, fill_missing
from xr_spde.fields.sar import operator
from xr_spde.solvers.cache import FACTORS


def varied(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(0.01), np.log(2.0), shape))
    return kappa2, rng.uniform(1, 5, shape), rng.uniform(-1.5, 1.5, shape)


def covariance(model: GaussianField) -> np.ndarray:
    """Dense covariance of the kept nodes, by padding index maps instead of parameters."""
    ny, nx = model.shape
    rows, columns = np.mgrid[:ny, :nx]
    dy, dx = (
        model.buffer * (model.boundary in ("plane", "cylinder")),
        model.buffer * (model.boundary == "plane"),
    )
    j = np.clip(np.arange(-dy, ny + dy), 0, ny - 1)
    i = np.clip(np.arange(-dx, nx + dx), 0, nx - 1)
    maps = (value[np.ix_(j, i)] for value in (model.kappa2, model.rho, model.theta))
    inverse = np.linalg.inv(operator(*maps, boundary=model.boundary).toarray())
    keep = ((rows + dy) * i.size + columns + dx).ravel()
    return (inverse @ inverse.T)[np.ix_(keep, keep)]


@pytest.mark.parametrize("boundary", ["cylinder", "plane", "torus", "paper"])
@pytest.mark.parametrize("buffer", [0, 4])
def test_exact_moments(boundary, buffer):
    model = GaussianField(*varied((9, 12)), boundary=boundary, buffer=buffer)
    expected = covariance(model)
    np.testing.assert_allclose(model.variance().ravel(), np.diag(expected), rtol=1e-10)
    node = 5 * 12 + 7
    np.testing.assert_allclose(model.covariance_with(5, 7).ravel(), expected[node], atol=1e-12)
    several = model.covariance_with([0, 5], [11, 7])
    assert several.shape == (2, 9, 12)
    np.testing.assert_allclose(several[0].ravel(), expected[11], atol=1e-12)
    np.testing.assert_array_equal(several[1], model.covariance_with(5, 7))


def test_padded_shape_follows_the_boundary():
    maps = varied((9, 12))
    shapes = {
        boundary: GaussianField(*maps, boundary=boundary, buffer=4).padded_shape
        for boundary in ("plane", "cylinder", "torus", "paper")
    }
    assert shapes == {
        "plane": (17, 20), "cylinder": (17, 12), "torus": (9, 12), "paper": (9, 12)
    }  # fmt: skip


def test_a5_sampling():
    model = GaussianField(
        np.full((16, 24), 0.5),
        np.full((16, 24), 3.0),
        np.full((16, 24), -np.deg2rad(60)),
        boundary="paper",
    )
    noise = np.random.default_rng(5).standard_normal((2000, model.size))
    draws = model.sample(noise).reshape(2000, -1)
    empirical, expected = draws.T @ draws / 2000, covariance(model)
    error = np.linalg.norm(empirical - expected) / np.linalg.norm(expected)
    assert error < 0.2
    assert np.mean(np.diag(empirical) / np.diag(expected)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("degrees", [30.0, -50.0])
def test_a6_direction_of_longest_correlation(degrees):
    size = 64
    model = GaussianField(
        np.full((size, size), 0.02),
        np.full((size, size), 6.0),
        np.full((size, size), np.deg2rad(degrees)),
        boundary="plane",
        buffer=20,
    )
    draws = model.sample(np.random.default_rng(6).standard_normal((600, model.size)))
    draws = draws / draws.std(axis=0)
    region = np.tensordot(draws[:, 32, 32], draws, axes=(0, 0)) / 600 > 0.5
    y, x = (axis[region] - 32 for axis in np.mgrid[:size, :size])
    major = 0.5 * np.arctan2(2 * (x * y).mean(), (x * x).mean() - (y * y).mean())
    assert np.rad2deg(major) == pytest.approx(degrees, abs=3.0)


@given(positions=st.lists(st.integers(0, 39), min_size=1, max_size=40))
def test_a_member_does_not_depend_on_its_neighbours(positions):
    model = GaussianField(*varied((11, 13)), boundary="plane", buffer=3)
    noise = np.random.default_rng(7).standard_normal((40, model.size))
    np.testing.assert_array_equal(model.sample(noise[positions]), model.sample(noise)[positions])


def test_pickles_as_a_recipe_and_shares_the_factor():
    model = GaussianField(*varied((30, 40)), buffer="auto")
    FACTORS.clear()
    factor = model.factor()
    model.variance()
    text = pickle.dumps(model)
    assert len(text) < 3 * 8 * 30 * 40 + 2000
    copy = pickle.loads(text)
    assert copy.factor() is factor
    assert copy.variance() is model.variance()
    assert copy.buffer == model.buffer
    assert len(FACTORS) == 2


def test_key_tells_models_apart():
    maps = varied((6, 7))
    base = GaussianField(*maps)
    other = maps[0].copy()
    other[3, 3] *= 1.0 + 1e-15
    assert base.key == GaussianField(*maps, solver="dissection").key
    assert base.key == GaussianField(*(np.asfortranarray(value) for value in maps)).key
    different = {
        GaussianField(other, *maps[1:]).key,
        GaussianField(*maps, boundary="plane").key,
        GaussianField(*maps, buffer=2).key,
        GaussianField(*(value.reshape(7, 6) for value in maps)).key,
        GaussianField(maps[1], maps[0] + 1.0, maps[2]).key,
    }
    assert len(different | {base.key}) == 6


def test_arrays_are_copied_and_frozen():
    kappa2, rho, theta = varied((5, 6))
    model = GaussianField(kappa2, rho, theta)
    kappa2[:] = 1.0
    assert model.kappa2[0, 0] != 1.0
    with pytest.raises(ValueError, match="read-only"):
        model.kappa2[0, 0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        model.variance()[0, 0] = 2.0


@pytest.mark.parametrize("buffer", [0, 3])
def test_log_likelihood_is_the_gaussian_density(buffer):
    maps = varied((5, 7))
    fields = np.random.default_rng(8).standard_normal((4, 5, 7))
    scale = np.random.default_rng(9).uniform(0.5, 2.0, (5, 7))
    cov = covariance(GaussianField(*maps, boundary="plane"))
    model = GaussianField(*maps, boundary="plane", buffer=buffer)
    expected = multivariate_normal(cov=cov).logpdf(fields.reshape(4, -1)).sum()
    assert model.log_likelihood(fields) == pytest.approx(expected, rel=1e-9)
    one = multivariate_normal(cov=cov).logpdf(fields[2].ravel())
    assert model.log_likelihood(fields[2]) == pytest.approx(one, rel=1e-9)
    scaled = cov * np.outer(scale, scale)
    expected = multivariate_normal(cov=scaled).logpdf(fields.reshape(4, -1)).sum()
    assert model.log_likelihood(fields, scale) == pytest.approx(expected, rel=1e-9)


def test_log_likelihood_prefers_the_truth():
    shape = (40, 50)
    truth = [np.full(shape, value) for value in (0.1, 3.0, 0.5)]
    model = GaussianField(*truth, boundary="plane")
    draws = model.sample(np.random.default_rng(10).standard_normal((5, model.size)))
    best = model.log_likelihood(draws)
    for k, factor in ((0, 1.3), (1, 1.3), (2, 0.5)):
        wrong = list(truth)
        wrong[k] = wrong[k] * factor
        assert GaussianField(*wrong, boundary="plane").log_likelihood(draws) < best - 2.0


class TestBuffer:
    """Automatic width, and what it buys."""

    def test_width_is_the_range_capped_by_the_size_of_the_grid(self):
        kappa2, rho = np.full((40, 60), 0.1), np.full((40, 60), 2.0)
        assert automatic_buffer(kappa2, rho, boundary="plane") == 13
        assert automatic_buffer(kappa2 / 100, rho, boundary="plane") == 30
        assert automatic_buffer(kappa2 / 100, rho, boundary="cylinder") == 10
        assert automatic_buffer(kappa2, rho, boundary="torus") == 0
        assert automatic_buffer(kappa2, rho, boundary="paper") == 0

    def test_a_few_cells_of_long_range_do_not_decide(self):
        kappa2 = np.full((40, 60), 0.1)
        kappa2[:2] = 1e-4
        assert automatic_buffer(kappa2, np.ones((40, 60)), boundary="plane") == 9

    @pytest.mark.parametrize("theta", [0.0, np.pi / 4, -np.pi / 2])
    def test_boundary_effect_is_small_everywhere_with_it_and_not_without(self, theta):
        shape, kappa2, rho = (40, 50), 0.05, 2.0
        maps = [np.full(shape, value) for value in (kappa2, rho, theta)]
        exact = torus_covariance((256, 256), kappa2=kappa2, rho=rho, theta=theta)
        j, i = np.mgrid[: shape[0], : shape[1]]

        def errors(buffer):
            model = GaussianField(*maps, boundary="plane", buffer=buffer)
            sd = np.sqrt(model.variance())
            relative = abs(model.variance() / exact[0, 0] - 1).max()
            gaps = []
            for row, column in ((0, 0), (20, 25), (0, 25)):
                here = model.covariance_with(row, column) / sd / sd[row, column]
                gaps.append(abs(here - exact[j - row, i - column] / exact[0, 0]).max())
            return relative, max(gaps)

        variance_error, correlation_error = errors("auto")
        assert variance_error < 0.015
        assert correlation_error < 0.01
        bare_variance, bare_correlation = errors(0)
        assert bare_variance > 0.5
        assert bare_correlation > 0.1

    def test_error_falls_like_the_correlation_with_the_image(self):
        shape, kappa2 = (30, 30), 0.05
        maps = [np.full(shape, value) for value in (kappa2, 1.0, 0.0)]
        width = automatic_buffer(*maps[:2], boundary="plane")
        exact = torus_covariance((256, 256), kappa2=kappa2, rho=1.0, theta=0.0)[0, 0]
        error = [
            abs(GaussianField(*maps, boundary="plane", buffer=b).variance() / exact - 1).max()
            for b in (0, width // 2, width)
        ]
        # a node and its image behind the boundary are two buffers apart
        image = matern_correlation(2 * width, 0, kappa2=kappa2, rho=1.0, theta=0.0)
        assert error[0] > 0.9
        assert error[0] > 4 * error[1] > 16 * error[2]
        assert image / 2 < error[2] < 2 * image


class TestFillMissing:
    """Nearest valid value, across the seam where there is one."""

    def test_against_a_search_over_all_cells(self):
        rng = np.random.default_rng(11)
        values = rng.standard_normal((2, 12, 15))
        values[0][rng.random((12, 15)) < 0.7] = np.nan
        valid = ~np.isnan(values).any(axis=0)
        for periodic in (True, False):
            filled = fill_missing(values, periodic_x=periodic)
            np.testing.assert_array_equal(filled[:, valid], values[:, valid])
            jv, iv = np.nonzero(valid)
            for j, i in zip(*np.nonzero(~valid), strict=True):
                step = abs(iv - i)
                step = np.minimum(step, 15 - step) if periodic else step
                distance = (jv - j) ** 2 + step**2
                nearest = distance == distance.min()
                allowed = values[:, jv[nearest], iv[nearest]]
                assert (filled[:, j, i][:, None] == allowed).all(axis=0).any()

    def test_seam(self):
        values = np.full((1, 10), np.nan)
        values[0, 1], values[0, 6] = 1.0, 6.0
        np.testing.assert_array_equal(fill_missing(values, periodic_x=True)[0, [9, 0]], 1.0)
        assert fill_missing(values, periodic_x=False)[0, 9] == 6.0

    def test_complete_and_empty(self):
        values = np.arange(6.0).reshape(2, 3)
        filled = fill_missing(values, periodic_x=True)
        np.testing.assert_array_equal(filled, values)
        assert filled is not values
        with pytest.raises(ParameterError, match="every cell is missing"):
            fill_missing(values * np.nan, periodic_x=True)


def test_bad_arguments():
    maps = varied((5, 6))
    with pytest.raises(UnknownNameError, match="unknown solver 'mumps'"):
        GaussianField(*maps, solver="mumps")
    with pytest.raises(UnknownNameError, match="unknown boundary 'globe'"):
        GaussianField(*maps, boundary="globe")
    for buffer in (-1, 2.5, "much", True):
        with pytest.raises(ParameterError, match="buffer"):
            GaussianField(*maps, buffer=buffer)
    with pytest.raises(ParameterError, match="kappa2 has 1 non-finite"):
        GaussianField(np.where(np.arange(30).reshape(5, 6) == 4, np.nan, maps[0]), *maps[1:])
    with pytest.raises(ParameterError, match="shapes"):
        GaussianField(maps[0][:4], *maps[1:])
    model = GaussianField(*maps)
    with pytest.raises(ParameterError, match=r"\(3, 29\).*\(K, 30\)"):
        model.sample(np.ones((3, 29)))
    with pytest.raises(ParameterError, match="outside the grid of 5 rows and 6 columns"):
        model.covariance_with(5, 0)
    with pytest.raises(ParameterError, match="outside"):
        model.covariance_with(-1, 0)
    with pytest.raises(ParameterError, match="whole numbers"):
        model.covariance_with(1.5, 0)
    with pytest.raises(ParameterError, match=r"\(M, 5, 6\)"):
        model.log_likelihood(np.ones((3, 6, 5)))
    with pytest.raises(ParameterError, match="2 missing"):
        model.log_likelihood(np.where(np.arange(30).reshape(5, 6) < 2, np.nan, 1.0))
    with pytest.raises(ParameterError, match="not positive"):
        model.log_likelihood(np.ones((5, 6)), scale=0.0)


def test_memory_guard_comes_before_the_matrix(monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "operator", never)
    model = GaussianField(*varied((20, 21), seed=99), buffer=5)
    with (
        set_options(memory_limit=10_000),
        pytest.raises(MemoryGuardError, match=r"30 x 21 nodes.*smaller buffer"),
    ):
        model.factor()

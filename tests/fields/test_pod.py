"""POD: modes against a dense SVD, codes against the Gaussian formula, whatever the storage."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde.errors import ParameterError, UnknownNameError
from xr_spde.fields.pod import PodMap, fit_pod


def places(count, rng):
    return np.stack([rng.uniform(0, 2 * np.pi, count), np.arcsin(rng.uniform(-1, 1, count))], 1)


def series(rng, times=60, count=40, c=2, rank=8, noise=0.0):
    codes = rng.standard_normal((times, rank)) * 2.0 ** -np.arange(rank)
    fields = codes @ rng.standard_normal((rank, count * c)) + rng.standard_normal(count * c)
    fields += noise * rng.standard_normal(fields.shape)
    return fields.reshape(times, count, c)


@given(
    seed=st.integers(0, 2**31),
    times=st.sampled_from([12, 30, 90]),
    method=st.sampled_from(["gram", "randomised"]),
)
@settings(max_examples=15, deadline=None)
def test_modes_are_those_of_the_weighted_svd(seed, times, method):
    rng = np.random.default_rng(seed)
    x = series(rng, times, count=20, noise=0.01)
    w = rng.uniform(0.1, 1, 20)
    fitted, codes = fit_pod(x, places(20, rng), w, modes=5, method=method)
    flat = (x - x.mean(axis=0)).reshape(times, -1)
    root = np.sqrt(np.repeat(w / w.sum() / 2, 2))
    u, s, vt = np.linalg.svd(flat * root, full_matrices=False)
    tol = 1e-9 if method == "gram" else 1e-3
    np.testing.assert_allclose(fitted.variances, s[:5] ** 2 / times, rtol=max(tol, 1e-8))
    best = (u[:, :5] * s[:5]) @ vt[:5] / root
    found = fitted.decode(codes).reshape(times, -1) - fitted.mean_field.ravel()
    np.testing.assert_allclose(found, best, atol=tol * np.abs(best).max() + 1e-10)
    np.testing.assert_allclose(fitted.encode(x, prior=False), codes, atol=1e-8)
    np.testing.assert_allclose(codes.mean(axis=0), 0.0, atol=1e-8)
    left = ((flat - best) ** 2).mean(axis=0).reshape(20, 2)
    np.testing.assert_allclose(fitted.residual, left, rtol=1e-2 if method != "gram" else 1e-6)
    modes = fitted.modes.reshape(-1, 5)
    np.testing.assert_allclose(modes.T @ (root[:, None] ** 2 * modes), np.eye(5), atol=1e-8)


def test_numbers_do_not_depend_on_storage_and_nearly_none_on_memory():
    rng = np.random.default_rng(0)
    x, points = series(rng, 70, 50, noise=0.1), places(50, rng)
    x[rng.random(x.shape) < 0.05] = np.nan
    first, codes = fit_pod(x, points, modes=4)
    for chunks in ((7, 50, 2), (70, 13, 1), (31, 20, 2)):
        other, same = fit_pod(da.from_array(x, chunks=chunks), points, modes=4)
        np.testing.assert_array_equal(other.modes, first.modes)
        np.testing.assert_array_equal(codes, same)
    for method in ("gram", "randomised"):
        whole = fit_pod(x, points, modes=4, method=method)[1]
        blocks = fit_pod(x, points, modes=4, memory=40_000, method=method)[1]
        np.testing.assert_allclose(blocks, whole, atol=1e-6)
    single, _ = fit_pod(x.astype(np.float32), points, modes=4)
    assert single.modes.dtype == np.float32
    np.testing.assert_allclose(single.modes, first.modes, atol=2e-3)


def test_a_series_is_read_in_blocks_of_times():
    class Stored:
        def __init__(self, x):
            self.x, self.shape, self.dtype, self.largest = x, x.shape, x.dtype, 0

        def __getitem__(self, part):
            self.largest = max(self.largest, part.stop - part.start)
            return self.x[part]

    rng = np.random.default_rng(1)
    stored = Stored(series(rng, 400, 30))
    fit_pod(stored, places(30, rng), modes=3, memory=8 * 60 * 100)
    assert stored.largest == 25


def test_missing_values_are_filled_by_the_modes():
    rng = np.random.default_rng(2)
    x, points = series(rng, 80, 60, rank=4), places(60, rng)
    holes = x.copy()
    holes[rng.random(x.shape) < 0.2] = np.nan
    holes[:, :5] = np.nan  # land
    fitted, codes = fit_pod(holes, points, modes=4, fills=500, tol=1e-10)
    found = fitted.decode(codes)
    assert np.isnan(found[:, :5]).all()
    error = np.sqrt(np.mean((found - x)[:, 5:] ** 2)) / x.std()
    assert error < 1e-3
    with pytest.warns(UserWarning, match="still move"):
        fit_pod(holes, points, modes=4, fills=2, tol=1e-10)
    plain = fit_pod(holes, points, modes=4, fills=0)
    assert np.sqrt(np.nanmean((plain[0].decode(plain[1]) - x) ** 2)) / x.std() > 10 * error


def test_share_of_the_variance():
    rng = np.random.default_rng(3)
    x, points = series(rng, noise=0.01), places(40, rng)
    for method_times in (60, 200):
        fitted, codes = fit_pod(series(rng, method_times), points, modes=0.95)
        share = fitted.variances.sum() / (fitted.variances.sum() + fitted.residual.mean())
        assert share >= 0.95
        assert codes.shape[1] < 8
    assert fit_pod(x, points, modes=0.5)[0].n < fit_pod(x, points, modes=0.999)[0].n


@given(seed=st.integers(0, 2**31), prior=st.booleans(), weighted=st.booleans())
@settings(max_examples=20, deadline=None)
def test_codes_of_fields_with_gaps_against_the_dense_formula(seed, prior, weighted):
    rng = np.random.default_rng(seed)
    x, points = series(rng, noise=0.3), places(40, rng)
    fitted, _ = fit_pod(x[:50], points, modes=6)
    held = x[50:].copy()
    held[rng.random(held.shape) < 0.5] = np.nan
    w = rng.uniform(0.2, 2.0, 40) if weighted else np.ones(40)
    noise = np.array([0.01, 0.04])
    found = fitted.encode(held, weights=w, prior=prior, noise=noise)
    basis, mean = fitted.modes.reshape(-1, 6), fitted.mean_field.ravel()
    variance = ((fitted.residual * prior + noise) / (w / w.mean())[:, None]).ravel()
    for one, code in zip(held, found, strict=True):
        kept = np.isfinite(one).ravel()
        a, r = basis[kept], variance[kept]
        information = a.T @ (a / r[:, None]) + prior * np.diag(1 / fitted.variances)
        wanted = np.linalg.solve(information, a.T @ ((one.ravel()[kept] - mean[kept]) / r))
        np.testing.assert_allclose(code, wanted, rtol=1e-7, atol=1e-9)


def test_few_values():
    rng = np.random.default_rng(4)
    fitted, _ = fit_pod(series(rng), places(40, rng), modes=6)
    one = np.full((1, 40, 2), np.nan)
    np.testing.assert_array_equal(fitted.encode(one), np.zeros((1, 6)))
    one[0, 3, 0] = fitted.mean_field[3, 0] + 1.0
    with pytest.warns(UserWarning, match="1 values determine 1 of 6 codes"):
        code = fitted.encode(one, prior=False)
    np.testing.assert_allclose(fitted.decode(code)[0, 3, 0], one[0, 3, 0])
    assert 0 < fitted.decode(fitted.encode(one, noise=1.0))[0, 3, 0] - fitted.mean_field[3, 0] < 1


def test_other_points():
    ny, nx = 20, 36
    lon, lat = np.arange(nx) * 2 * np.pi / nx, np.arcsin((np.arange(ny) + 0.5) / ny * 2 - 1)
    points = np.stack(np.broadcast_arrays(lon, lat[:, None]), -1).reshape(-1, 2)

    def fields(at, codes):
        x, y = at.T
        waves = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=1)
        return np.stack([codes @ waves.T, 2 + codes @ (waves * [1, -1, 2]).T], axis=-1)

    rng = np.random.default_rng(5)
    train = fields(points, rng.standard_normal((30, 3)))
    fitted, _ = fit_pod(train, points, np.cos(points[:, 1]), modes=3)
    codes = rng.standard_normal((4, 3))
    truth, others = fields(points, codes), places(200, rng)
    found = fitted.encode(fields(others, codes), others)
    np.testing.assert_allclose(fitted.decode(found), truth, atol=0.02)
    np.testing.assert_allclose(fitted.decode(found, others), fields(others, codes), atol=0.02)
    np.testing.assert_allclose(fitted.decode(found, points), fitted.decode(found), atol=1e-12)
    step = rng.standard_normal((4, 3, 2))
    moved = fitted.decode(found + step[..., 1], others) - fitted.decode(found, others)
    np.testing.assert_allclose(fitted.jvp(found, step, others)[..., 1], moved, atol=1e-12)
    jacobian = fitted.jacobian(found[0], others)
    np.testing.assert_allclose(
        jacobian @ step[0, :, 0], fitted.jvp(found, step, others)[0, :, :, 0].ravel()
    )


def test_kept_and_restored():
    rng = np.random.default_rng(6)
    fitted, codes = fit_pod(series(rng).astype(np.float32), places(40, rng), modes=3)
    again = PodMap.from_state(*fitted.state())
    np.testing.assert_array_equal(again.decode(codes), fitted.decode(codes))
    assert (again.n, again.variables, again.sphere) == (3, 2, True)


def test_refused():
    rng = np.random.default_rng(7)
    x, points = series(rng), places(40, rng)
    for match, change in {
        "values have shape": {"values": x[:, :-1]},
        "weights have shape": {"weights": -np.ones(40)},
        "modes=400": {"modes": 400},
        "modes=60": {"modes": 60},
        "modes=20: the series has only 8": {"modes": 20},
        "modes=-1": {"modes": -1},
        "modes=0.9: ": {"modes": 0.9, "method": "randomised"},
        "do not vary": {"values": np.ones((60, 40, 2))},
        r"variables \[1\] are missing": {"values": np.where([True, False], x, np.nan)},
        "latitude": {"points": 60 * points},
    }.items():
        options = {"values": x, "points": points, "modes": 3} | change
        with pytest.raises(ParameterError, match=match):
            fit_pod(options.pop("values"), options.pop("points"), **options)
    with pytest.raises(UnknownNameError):
        fit_pod(x, points, modes=3, method="svd")
    fitted, codes = fit_pod(x, points, modes=3)
    with pytest.raises(ParameterError, match="codes have shape"):
        fitted.decode(codes[:, :2])
    with pytest.raises(ParameterError, match="values have shape"):
        fitted.encode(x[0])
    with pytest.raises(ParameterError, match="noise has shape"):
        fitted.encode(x, noise=-1.0)

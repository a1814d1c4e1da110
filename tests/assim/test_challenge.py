"""Challenge scores, intervals and ensembles against closed forms (checks D1 to D3)."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chisquare, norm

from xr_spde.assim import score
from xr_spde.assim.challenge import challenge_scores, interval_scores
from xr_spde.assim.published import GAUSSIAN_RUNS, LEADERBOARD, NEURAL_SPDE, OCEANBENCH
from xr_spde.assim.score import crps
from xr_spde.errors import ParameterError


def series(values, dx=0.05):
    nt, ny, nx = values.shape
    coords = {
        "time": np.datetime64("2012-10-22") + np.arange(nt) * np.timedelta64(1, "D"),
        "lat": ("lat", 33 + dx * np.arange(ny), {"units": "degrees_north"}),
        "lon": ("lon", -65 + dx * np.arange(nx), {"units": "degrees_east"}),
    }
    return xr.DataArray(values, coords, ("time", "lat", "lon"), attrs={"units": "m"})


def red(shape=(42, 20, 200), seed=0):
    """Field with a red spectrum in time and x."""
    rng = np.random.default_rng(seed)
    ft, fx = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[2], 0.05)
    amplitude = 1 / (0.02 + np.abs(ft))[:, None, None] / (0.1 + np.abs(fx))
    spectrum = np.fft.fft2(rng.standard_normal(shape), axes=(0, 2)) * amplitude
    return np.fft.ifft2(spectrum, axes=(0, 2)).real


def test_extreme_reconstructions():
    truth = series(red((12, 4, 20)) + 3.0)
    perfect, nothing = challenge_scores(truth, truth), challenge_scores(0.0 * truth, truth)
    assert (perfect.mu, perfect.sigma) == (1.0, 0.0)
    assert (nothing.mu, nothing.sigma) == (0.0, 0.0)
    for found in (perfect, nothing):
        assert np.isnan([found.lambda_x, found.lambda_t]).all()
    # reconstruction and reference do not commute: swapping them is a fault that showed
    assert challenge_scores(0.5 * truth, truth).mu == pytest.approx(0.5)
    assert challenge_scores(truth, 0.5 * truth).mu == pytest.approx(0.0)


def test_definitions():
    rng = np.random.default_rng(0)
    truth = red((12, 4, 20))
    found = truth + 0.3 * rng.standard_normal(truth.shape)
    result = challenge_scores(series(found), series(truth))
    daily = 1 - np.sqrt(((found - truth) ** 2).mean((1, 2)) / (truth**2).mean((1, 2)))
    np.testing.assert_allclose(result.score, daily)
    assert result.sigma == pytest.approx(daily.std())
    assert result.mu == pytest.approx(
        1 - np.sqrt(((found - truth) ** 2).mean() / (truth**2).mean())
    )
    turned = challenge_scores(series(found)[:, ::-1], series(truth))
    xr.testing.assert_allclose(turned, result)
    found[3, 1, 4] = np.nan
    assert np.isfinite(challenge_scores(series(found), series(truth)).mu)


@pytest.mark.parametrize(("cut_x", "cut_t"), [(1.0, 8.0), (0.6, 6.0), (2.0, 14.0)])
def test_sharp_cut_off(cut_x, cut_t):
    """Between the last frequency that is kept and the first that is not, on either axis."""
    truth = red((42, 200, 200))
    spectrum = np.fft.fft2(truth, axes=(0, 2))
    ft, fx = np.fft.fftfreq(42), np.fft.fftfreq(200, 0.05)
    kept = (np.abs(ft) <= 1 / cut_t)[:, None, None] & (np.abs(fx) <= 1 / cut_x)
    found = np.fft.ifft2(spectrum * kept, axes=(0, 2)).real
    result = challenge_scores(series(found), series(truth))
    assert float(result.lambda_x) == pytest.approx(cut_x, rel=0.12)
    assert float(result.lambda_t) == pytest.approx(cut_t, rel=0.25)
    for length, frequency, cut in (
        (result.lambda_x, fx, cut_x),
        (result.lambda_t, ft, cut_t),
    ):
        inside = np.abs(frequency) <= 1 / cut
        assert np.abs(frequency[inside]).max() < 1 / float(length)
        assert 1 / float(length) < np.abs(frequency[~inside]).min()


def test_other_times_are_refused():
    truth = series(red((12, 4, 20)))
    with pytest.raises(ParameterError, match="other times"):
        challenge_scores(truth.assign_coords(time=truth.time + np.timedelta64(1, "D")), truth)
    with pytest.raises(ParameterError, match="not regular"):
        challenge_scores(truth[[0, 1, 5]], truth[[0, 1, 5]])


def test_intervals_against_the_gaussian():
    """With every deviation at 2000 quantiles, so that sampling does not blur the numbers."""
    rng = np.random.default_rng(1)
    z = norm.ppf((np.arange(2000) + 0.5) / 2000)
    std = np.repeat(rng.uniform(0.5, 2.0, 200), z.size)
    mean = rng.standard_normal(std.size)
    truth = mean + std * np.tile(z, 200)
    found = interval_scores(mean, std, truth)
    for level in (50, 90, 95):
        assert found[f"coverage_{level}"] == pytest.approx(level / 100, abs=1e-3)
    assert found["spread_skill"] == pytest.approx(1.0, abs=1e-3)
    # the score of a perfect Gaussian is std / sqrt(pi)
    assert found["crps"] == pytest.approx(std.mean() / np.sqrt(np.pi), rel=1e-3)
    truth[0] = np.nan
    assert interval_scores(mean, std, truth)["count"] == std.size - 1
    with pytest.raises(ParameterError, match="std is positive"):
        interval_scores(mean, 0.0 * std, truth)


def test_crps_and_ranks_of_a_gaussian_ensemble():
    rng = np.random.default_rng(2)
    members = rng.standard_normal((20, 200, 300))
    truth = rng.permutation(norm.ppf((np.arange(60_000) + 0.5) / 60_000)).reshape(200, 300)
    # the fair score does not depend on the number of members: 1 / sqrt(pi)
    assert crps(members, truth).mean() == pytest.approx(np.pi**-0.5, abs=1e-3)
    closed = interval_scores(np.zeros(1), np.ones(1), np.array([0.7]))["crps"]
    many = rng.standard_normal(1_000_000)[:, None]
    assert crps(many, np.array([0.7]))[0] == pytest.approx(closed, abs=1e-3)
    fields = xr.DataArray(members, dims=("realization", "y", "x"))
    ranks = score(fields, xr.DataArray(truth, dims=("y", "x"))).rank_histogram.values
    assert chisquare(ranks * truth.size).pvalue > 0.01


def test_published_scores_are_kept():
    """Check D4: what was printed, and the orders that the sources speak of."""
    assert {name: len(rows) for name, rows in LEADERBOARD.items()} == {
        "1 nadir": 1, "4 nadirs": 8, "SWOT + 4 nadirs": 8}  # fmt: skip
    for rows in (*LEADERBOARD.values(), NEURAL_SPDE):
        for mu, sigma, length, period in rows.values():
            assert all(np.array([0.6, 0, 0.5, 4]) < (mu, sigma, length, period))
            assert all(np.array([1, 0.1, 4, 40]) > (mu, sigma, length, period))
    assert LEADERBOARD["4 nadirs"]["DUACS"] == (0.92, 0.01, 1.42, 12.13)
    for name in LEADERBOARD["4 nadirs"].keys() & LEADERBOARD["SWOT + 4 nadirs"].keys():
        few, many = LEADERBOARD["4 nadirs"][name], LEADERBOARD["SWOT + 4 nadirs"][name]
        assert many[0] >= few[0]
        assert all(np.less_equal(many[2:], few[2:]))
    tasks = [NEURAL_SPDE[name][0] for name in list(NEURAL_SPDE)[1:]]
    assert tasks == sorted(tasks, reverse=True) == [0.94, 0.89, 0.88, 0.81]
    assert all(iso < along for _, iso, along, _ in OCEANBENCH.values())
    for rows in GAUSSIAN_RUNS.values():
        assert min(mse for mse, _ in rows.values() if mse is not None) == rows["OI"][0]
        assert min(cost for _, cost in rows.values() if cost is not None) == rows["OI"][1]
        assert rows["LSTM + SPDE, MSE"][0] / rows["OI"][0] == pytest.approx(1.19, abs=0.005)

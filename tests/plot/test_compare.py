"""Correlation maps, members, score and overview: the numbers on the canvas."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import GridError, ParameterError, SchemaError, UnknownNameError
from xr_spde.metrics import correlation_score

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

from xr_spde import plot  # noqa: E402

LAT, LON = np.linspace(60.0, 30.0, 7), np.linspace(-20.0, 15.0, 8)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def ensemble(count, seed, dim):
    values = np.random.default_rng(seed).standard_normal((count, 7, 8)).cumsum(axis=1) + 280.0
    coords = {dim: np.arange(count) + 100, "lat": LAT, "lon": LON}
    return xr.DataArray(values, dims=(dim, "lat", "lon"), coords=coords, attrs={"units": "K"})


@pytest.fixture(scope="module")
def pair():
    return ensemble(15, 0, "member"), ensemble(30, 1, "realization").chunk(realization=10)


def drawn(ax):
    found = next(c for c in ax.collections if isinstance(c, matplotlib.collections.QuadMesh))
    return np.asarray(found.get_array()).reshape(7, 8), found.norm


def by_hand(members, row, column):
    """Correlation with a stored (row, column), south row first."""
    flat = members.values.reshape(members.shape[0], -1)
    return np.corrcoef(flat.T)[row * 8 + column].reshape(7, 8)[::-1]


def test_correlation_panels_hold_both_maps_and_the_difference(pair):
    real, synthetic = pair
    points = [(60.0, -20.0), (45.0, 5.0)]
    figure = plot.correlation(real, points, synthetic)
    panels = np.array(figure.axes[:6]).reshape(2, 3)
    for row, (j, i) in enumerate([(0, 0), (3, 5)]):
        expected = by_hand(real, j, i), by_hand(synthetic, j, i)
        np.testing.assert_allclose(drawn(panels[row, 0])[0], expected[0], atol=1e-12)
        np.testing.assert_allclose(drawn(panels[row, 1])[0], expected[1], atol=1e-12)
        difference = expected[1] - expected[0]
        np.testing.assert_allclose(drawn(panels[row, 2])[0], difference, atol=1e-12)
        assert (drawn(panels[row, 0])[1].vmin, drawn(panels[row, 1])[1].vmax) == (-1.0, 1.0)
    assert [ax.get_title("left") for ax in panels[0]] == ["real", "synthetic", "synthetic − real"]
    assert [ax.get_ylabel() for ax in panels[:, 0]] == ["60°N 20°W", "45°N 5°E"]


def test_correlation_marks_the_point(pair):
    figure = plot.correlation(pair[0], {"lat": 45.0, "lon": 365.0})
    marker = figure.axes[0].lines[0]
    assert marker.get_ydata()[0] == pytest.approx(45.0)
    assert marker.get_xdata()[0] % 360 == pytest.approx(5.0)
    assert len(figure.axes) == 2


def test_correlation_of_a_model_beside_members(pair):
    flat = xr.zeros_like(pair[0][0], dtype=float).drop_vars("member")
    params = xr.Dataset({"kappa2": flat + 0.3, "rho": flat + 1.0, "theta": flat})
    figure = plot.correlation(params, (45.0, 5.0), pair[0], labels=("model", "members"))
    model = drawn(figure.axes[0])[0]
    assert model[3, 5] == pytest.approx(1.0)
    assert model.min() > 0
    np.testing.assert_allclose(drawn(figure.axes[1])[0], by_hand(pair[0], 3, 5), atol=1e-12)


def test_members_share_a_scale_and_the_real_mean(pair):
    real, synthetic = pair
    figure = plot.members(real, synthetic, which=[2, 7])
    panels = np.array(figure.axes[:4]).reshape(2, 2)
    mean = real.mean("member").values
    for row, members in enumerate((real, synthetic)):
        for column, index in enumerate((2, 7)):
            values, norm = drawn(panels[row, column])
            np.testing.assert_allclose(values, (members.values[index] - mean)[::-1], atol=1e-9)
            assert norm.vmin == -norm.vmax
            assert norm.vmax == drawn(panels[0, 0])[1].vmax
    assert [ax.get_title("left") for ax in panels[0]] == ["real, member 102", "real, member 107"]
    assert figure.axes[-1].get_xlabel() == "anomaly (K)"


@pytest.mark.parametrize(
    ("times", "titles"),
    [
        (xr.date_range("2000-01-01", periods=3, freq="YS"), ["2000-01-01", "2001-01-01"]),
        (
            xr.date_range("2000-01-01", periods=3, freq="6h"),
            ["2000-01-01 00:00", "2000-01-01 06:00"],
        ),
        (
            xr.date_range("2000-02-30", periods=3, freq="D", calendar="360_day", use_cftime=True),
            ["2000-02-30", "2000-03-01"],
        ),
    ],
)
def test_times_are_written_short(times, titles):
    fields = ensemble(3, 0, "time").assign_coords(time=times)
    figure = plot.members(fields, k=2)
    assert [ax.get_title("left") for ax in figure.axes[:2]] == [f"real, {t}" for t in titles]


def test_members_as_they_are(pair):
    figure = plot.members(pair[0], k=1, anomalies=False)
    np.testing.assert_array_equal(drawn(figure.axes[0])[0], pair[0].values[0][::-1])


def test_members_of_a_dataset(pair):
    real, synthetic = (one.rename("t") for one in pair)
    both = xr.Dataset({"t": real, "u": 2.0 * real})
    truth = plot.members(real, synthetic, k=2)
    for figure in (
        real.to_dataset().sar.plot.members(synthetic.to_dataset(), k=2),
        both.sar.plot.members(synthetic, variable="t", k=2),
    ):
        for ours, theirs in zip(figure.axes[:4], truth.axes[:4], strict=True):
            np.testing.assert_array_equal(drawn(ours)[0], drawn(theirs)[0])


def test_members_of_a_dataset_are_refused_by_name(pair):
    both = xr.Dataset({"t": pair[0], "u": 2.0 * pair[0]})
    with pytest.raises(ParameterError, match="has the variables t, u; name the one to draw"):
        both.sar.plot.members()
    with pytest.raises(UnknownNameError, match="unknown variable 'T'; known: 't', 'u'"):
        both.sar.plot.members(variable="T")
    with pytest.raises(ParameterError, match="variable='u' was given with a DataArray"):
        both.t.sar.plot.members(variable="u")
    flat = xr.zeros_like(pair[0][0])
    params = xr.Dataset({"kappa2": flat + 0.5, "rho": flat + 1.0, "theta": flat})
    with pytest.raises(ParameterError, match=r"no members to draw.*params\.sar\.emulate\(100\)"):
        params.sar.plot.members()


def test_only_drawn_members_are_computed():
    import dask.array as da

    seen = []

    def block(block_info=None):
        seen.append(block_info[None]["chunk-location"][0])
        return np.random.default_rng(0).standard_normal((5, 7, 8))

    lazy = da.map_blocks(block, chunks=((5,) * 6, (7,), (8,)), dtype=float)
    members = xr.DataArray(
        lazy, dims=("realization", "lat", "lon"), coords={"lat": LAT, "lon": LON}
    )
    plot.members(ensemble(6, 0, "member"), members, k=2)
    assert set(seen) == {0}


def test_score_shows_points_in_order(pair):
    score = correlation_score(*pair, n_points=9)
    ax = plot.score(score)
    offsets = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(offsets[:, 1], np.sort(score.point_raw.values))
    assert f"{float(score.ratio):.2f}" in ax.get_title("left")
    _, given = plt.subplots()
    assert plot.score(score, ax=given) is given


def test_overview_has_two_members_and_two_correlation_maps(pair):
    real, synthetic = pair
    figure = plot.overview(real, synthetic, (45.0, 5.0), which=3)
    panels = np.array(figure.axes[:4]).reshape(2, 2)
    np.testing.assert_allclose(drawn(panels[0, 1])[0], by_hand(real, 3, 5), atol=1e-12)
    np.testing.assert_allclose(drawn(panels[1, 1])[0], by_hand(synthetic, 3, 5), atol=1e-12)
    mean = real.mean("member").values
    np.testing.assert_allclose(
        drawn(panels[1, 0])[0], (synthetic.values[3] - mean)[::-1], atol=1e-9
    )


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda r, s: plot.members(r, s, k=16), ParameterError, "'member' has 15"),
        (lambda r, s: plot.members(r, s, k=0), ParameterError, "no member"),
        (lambda r, s: plot.correlation(r, (0.0, 0.0), s), ParameterError, "outside the grid"),
        (
            lambda r, s: plot.correlation(r, (45.0, 5.0), s, axes=plt.subplots(2, 2)[1]),
            ParameterError,
            r"got axes of shape \(2, 2\) for 1 x 3 panels",
        ),
        (lambda r, s: plot.score(xr.Dataset()), SchemaError, "correlation_score"),
        (
            lambda r, s: plot.members(r.expand_dims(season=2), dim="member"),
            ParameterError,
            r"\.isel\(season=0\)",
        ),
    ],
)
def test_bad_input(pair, call, error, match):
    with pytest.raises(error, match=match):
        call(*pair)


def test_other_grid_is_refused(pair):
    with pytest.raises(GridError, match="the same cells are expected"):
        plot.correlation(pair[0], (45.0, 5.0), pair[1][:, 1:])
    with pytest.raises(GridError, match="the same cells are expected"):
        plot.members(pair[0], pair[1][:, :, 1:])

"""Estimates by networks: the shipped one, others from files, and steps of the likelihood after."""

from __future__ import annotations

import itertools
import threading

import dask
import numpy as np
import pytest
import xarray as xr

import xr_spde
from xr_spde.errors import DataUnavailableError, ParameterError, UnknownNameError
from xr_spde.sar import emulate, estimate
from xr_spde.sar.network import (
    SPACINGS,
    NetworkModel,
    NetworkProblem,
    _continued,
    _mirrored,
    _moments,
)
from xr_spde.sar.priors import draw_test_case
from xr_spde.sar.statistics import LagSums

torch = pytest.importorskip("torch")
PLAIN = {"method": "net", "modes": 0, "dilation": 1}


def case(shape=(96, 144), count=30, seed=11):
    fields, kappa2, rho, theta = draw_test_case(shape, count, seed=seed)
    axes = {"y": 1e3 * np.arange(shape[0]), "x": 1e3 * np.arange(shape[1])}
    members = xr.DataArray(fields, dims=("member", "y", "x"), coords=axes, name="z")
    truth = {"log_kappa2": np.log(kappa2), "rho": rho, "theta": theta}
    return members, truth


def rmse(found: xr.Dataset, truth: dict) -> tuple[float, float, float]:
    turn = np.mod(found.theta.values - truth["theta"] + np.pi / 2, np.pi) - np.pi / 2
    weight = np.log(truth["rho"])
    errors = (np.log(found.kappa2.values) - truth["log_kappa2"], found.rho.values - truth["rho"])
    angle = np.sqrt(np.sum(weight * turn**2) / np.sum(weight))
    return *(float(np.sqrt(np.mean(e**2))) for e in errors), float(angle)


@pytest.fixture(scope="module")
def small():
    return case((48, 64), 12, seed=3)[0]


def test_four_fifths_of_the_variance_of_the_prior_are_explained():
    scores = []
    for seed in range(6):
        members, truth = case(seed=100 + seed)
        scores.append(rmse(estimate(members, "member", **PLAIN), truth))
    log_kappa2, rho, angle = np.sqrt(np.mean(np.square(scores), axis=0))
    left = np.sqrt(1.0 - 0.8)
    assert log_kappa2 < left * 1.83
    assert rho < left * 1.48
    assert angle < left * 0.735


def test_round_trip_keeps_the_map_of_ranges():
    """Specification check B5: estimate, emulate 200 members, estimate again."""
    members, _ = case(seed=21)
    first = estimate(members, "member", **PLAIN)
    again = estimate(emulate(first, 200, seed=1).compute(), **PLAIN)
    ours, theirs = (np.log(e.kappa2.values).ravel() for e in (first, again))
    assert np.corrcoef(ours, theirs)[0, 1] >= 0.9


def test_order_of_replicates_does_not_matter(small):
    first = estimate(small, "member", **PLAIN)
    second = estimate(small.isel(member=np.arange(12)[::-1]), "member", **PLAIN)
    for name in ("kappa2", "rho"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-3)


@pytest.mark.parametrize(("factor", "offset"), [(1e6, 3e3), (1e-20, 0.0), (1e22, 0.0)])
def test_units_do_not_matter(small, factor, offset):
    first = estimate(small, "member", **PLAIN)
    second = estimate(factor * small.astype(float) + offset, "member", **PLAIN)
    np.testing.assert_allclose(first.kappa2, second.kappa2, rtol=2e-3)


@pytest.mark.parametrize("chunks", [{"member": 5}, {"y": 20, "x": 31}, {"member": 1, "x": 64}])
def test_chunks_give_the_same_bits(small, chunks):
    eager = estimate(small, "member", uncertainty=True, **PLAIN)
    lazy = estimate(small.chunk(chunks), "member", uncertainty=True, **PLAIN)
    assert dask.is_dask_collection(lazy)
    for scheduler in ("synchronous", "threads"):
        xr.testing.assert_identical(eager, lazy.compute(scheduler=scheduler))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_replicates(small, count):
    found = estimate(small.isel(member=slice(count)), "member", uncertainty=True, **PLAIN)
    for name in ("kappa2", "rho", "kappa2_stderr", "rho_stderr", "theta_stderr"):
        assert bool((found[name] > 0).all())
        assert bool(np.isfinite(found[name]).all())


@pytest.mark.parametrize(("kappa2", "rho"), [(0.1, 1.3), (0.02, 1.3)])
def test_wide_spacings_leave_few_cells_and_no_bias(kappa2, rho):
    """Eight cells apart there are 5 x 7, far fewer than the network was trained on."""
    maps = {"kappa2": kappa2, "rho": rho, "theta": 0.5}
    truth = xr.Dataset({k: (("y", "x"), np.full((37, 49), v)) for k, v in maps.items()})
    errors = []
    for seed in range(3):
        found = estimate(emulate(truth, 40, seed=seed).compute(), method="net", modes=0, dilation=8)
        errors.append([np.log(found[k] / maps[k]).mean() for k in ("kappa2", "rho")])
    assert np.abs(np.mean(errors, axis=0)).max() < 0.4, errors


def test_short_grids_go_on_without_a_jump():
    """Places are mirrored and pairs keep their direction, at their own middle."""
    from xr_spde.nets.lag_features import LAGS

    rows, columns = 6, 20
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    middle = [y + 0.5 * lag[0] + 1e3 * k for k, lag in enumerate(LAGS)]
    inside = [(y + j < rows) & (x + i >= 0) & (x + i < columns) for j, i in LAGS]
    half = np.where(inside, middle, 0.0)
    moments = {"half": half, "level": half, "weight": np.array(inside) * 1.0}
    moments |= {"variance": y * 1.0, "seen": np.ones(y.shape), "replicates": 9}
    longer, place = _continued(moments)
    assert longer["variance"].shape[0] >= 32
    assert longer["variance"].shape[1] == columns
    for name in ("half", "weight", "variance"):
        np.testing.assert_array_equal(longer[name][..., *place], moments[name])
        np.testing.assert_array_equal(_mirrored(_mirrored(half, -2), -2), half)
    below = slice(place[0].start - rows, place[0].start)
    np.testing.assert_array_equal(longer["weight"][:, below], moments["weight"])
    for k, (j, _) in enumerate(LAGS):
        # the mirror image of the middle of each pair that lies in the copy
        pairs = longer["weight"][k, below] > 0
        seen = longer["half"][k, below][pairs] - 1e3 * k
        np.testing.assert_array_equal(seen, (rows - 1 - (y + 0.5 * j))[pairs])
    # a long grid stays as it is
    wide = {name: np.zeros((36, 20, 20)) for name in ("half", "level", "weight")}
    wide |= {"variance": np.zeros((20, 20)), "seen": np.zeros((20, 20))}
    assert _continued(wide)[0]["half"].shape == (36, 20, 20)


def test_fewer_replicates_are_less_certain():
    members, _ = case(seed=31)
    many, few = (
        estimate(members.isel(member=slice(n)), "member", uncertainty=True, **PLAIN)
        for n in (30, 3)
    )
    assert float((few.kappa2_stderr / few.kappa2).mean()) > float(
        (many.kappa2_stderr / many.kappa2).mean()
    )


def test_missing_cells_and_land(small):
    holes = small.where(np.random.default_rng(0).random(small.shape) > 0.1)
    holes[:, 10:20, 10:20] = np.nan
    found = estimate(holes, "member", **PLAIN)
    assert bool(np.isnan(found.kappa2[10:20, 10:20]).all())
    rest = np.log(found.kappa2).where(found.kappa2.notnull())
    whole = np.log(estimate(small, "member", **PLAIN).kappa2)
    assert float(np.abs(rest - whole).mean()) < 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_of_the_input_is_kept(small, dtype):
    assert estimate(small.astype(dtype), "member", **PLAIN).kappa2.dtype == dtype


def test_longitudes_may_start_anywhere():
    """Rolling a periodic grid rolls the result, up to the squares of the coarsest level."""
    lat, lon = np.linspace(-70.0, 70.0, 32), np.arange(64) * 5.625
    truth = xr.Dataset(
        {
            "kappa2": (("lat", "lon"), 0.1 + 0.05 * np.cos(np.deg2rad(lon)) * np.ones((32, 1))),
            "rho": (("lat", "lon"), np.full((32, 64), 2.0)),
            "theta": (("lat", "lon"), np.full((32, 64), 0.4)),
        },
        coords={"lat": ("lat", lat, {"units": "degrees_north"}),
                "lon": ("lon", lon, {"units": "degrees_east"})},
    )  # fmt: skip
    members = emulate(truth, 20, seed=5).compute()
    first = estimate(members, **PLAIN)
    rolled = estimate(members.roll(lon=16, roll_coords=True), **PLAIN)
    back = rolled.roll(lon=-16, roll_coords=True)
    np.testing.assert_allclose(np.log(first.kappa2), np.log(back.kappa2), atol=0.02)


def test_moments_are_those_of_the_replicates(small):
    """The sums over replicates and the training's own moments are the same numbers."""
    from xr_spde.nets.lag_features import lag_moments

    sums = {d: LagSums((48, 64), periodic=False, dilation=d) for d in SPACINGS}
    for member in small.values:
        for one in sums.values():
            one.add(member)
    statistics = {d: one.finish() for d, one in sums.items()}
    none, all_cells = np.zeros((0, 48, 64)), np.ones((48, 64), dtype=bool)
    model = NetworkModel("net", None, periodic=False)
    ours = _moments(statistics, 1, none, all_cells, periodic=False)
    single = NetworkProblem(statistics, 1, none, all_cells, model).moments
    unit = single["variance"].max() / ours["variance"].max()
    assert np.log2(unit) == pytest.approx(round(np.log2(unit)), abs=1e-6)
    for name in ("half", "level", "variance"):
        assert single[name].dtype == np.float32
        np.testing.assert_allclose(single[name], unit * ours[name], rtol=1e-6)
    theirs = lag_moments(torch.from_numpy(small.values.astype(np.float64)))
    for name in ("weight", "variance", "seen"):
        np.testing.assert_allclose(ours[name], getattr(theirs, name)[0].squeeze(), rtol=1e-8)
    known = ours["weight"] > 0
    for name in ("half", "level"):
        expected = getattr(theirs, name)[0].numpy()
        np.testing.assert_allclose(ours[name][known], expected[known], rtol=1e-8)


def test_coarser_spacings_and_patterns(small):
    found = estimate(small, "member", method="net", dilation=4, modes=2)
    assert int(found.dilation) == 4
    assert found.sizes["mode"] == 2
    assert bool(np.isfinite(found.kappa2).all())


def test_large_grids_are_worked_off_in_tiles():
    from xr_spde.nets.inference import HALO, TILE, _spans

    for size in (TILE, TILE + 1, 1000, 1440, 2000):
        spans = _spans(size)
        assert spans[0][2] == 0
        assert spans[-1][3] == size
        assert all(a[3] == b[2] for a, b in itertools.pairwise(spans))
        for first, last, low, high in spans:
            assert last - first <= TILE
            assert first == max(low - HALO, 0) or len(spans) == 1
            assert last == min(high + HALO, size)


def test_threads_of_torch_are_left_as_they_were():
    from xr_spde.nets.inference import single_thread

    before, inside, after = torch.get_num_threads(), [], []
    torch.set_num_threads(2)
    entered, left = threading.Event(), threading.Event()

    def second():
        with single_thread():
            entered.set()
            left.wait(10)
            inside.append(torch.get_num_threads())
        after.append(torch.get_num_threads())

    thread = threading.Thread(target=second)
    try:
        with single_thread():
            thread.start()
            assert entered.wait(10)
            inside.append(torch.get_num_threads())
        after.append(torch.get_num_threads())
        left.set()
        thread.join()
        after.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert (inside, after) == ([1, 1], [2, 2, 2])


def test_raw_networks_from_files(tmp_path, small):
    from xr_spde.nets.registry import build_network
    from xr_spde.nets.weights import save_weights

    options = {"replicates": 12, "widths": [8, 16], "bottleneck": 32}
    path = tmp_path / "unet.safetensors"
    save_weights(path, build_network("unet", options), card={})
    found = estimate(small.chunk({"member": 4}), "member", method="unet", weights=path)
    assert found.attrs["xr_spde_method"] == "unet"
    xr.testing.assert_identical(
        found.compute(), estimate(small, "member", method="unet", weights=path)
    )
    with pytest.raises(ParameterError, match="12"):
        estimate(small.isel(member=slice(5)), "member", method="unet", weights=path)
    with pytest.raises(ParameterError, match="architecture 'unet'"):
        estimate(small, "member", method="net", weights=path)
    for count in (12, 1):  # units whose squares single precision does not hold
        options = {"replicates": count, "widths": [8], "bottleneck": 16}
        save_weights(path, build_network("unet", options), card={})
        few = small.isel(member=slice(count)).astype(float)
        ours, theirs = (
            estimate(factor * few, "member", method="unet", weights=path) for factor in (1.0, 1e22)
        )
        np.testing.assert_allclose(ours.kappa2, theirs.kappa2, rtol=1e-3)
    with pytest.raises(ParameterError, match="missing or constant"):
        estimate(small.where(small > 0), "member", method="unet", weights=path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"method": "unet"}, "weights"),
        ({"method": "net", "penalty": 3.0}, "penalty"),
        ({"method": "net", "refine": -1}, "refine"),
        ({"method": "net", "weights": 3}, "weights"),
        ({"method": "whittle", "refine": 2}, "refine"),
        ({"method": "stun", "weights": "x", "modes": 3}, "modes"),
        ({"method": "stun", "weights": "x", "uncertainty": True}, "standard errors"),
    ],
)
def test_settings_without_sense_are_refused(small, settings, problem):
    with pytest.raises(ParameterError, match=problem):
        estimate(small, "member", **settings)


def test_absent_files_and_names(small, tmp_path):
    with pytest.raises(DataUnavailableError, match="nothing"):
        estimate(small, "member", method="net", weights=tmp_path / "nothing.safetensors")
    with pytest.raises(UnknownNameError, match="netz"):
        estimate(small, "member", method="netz")


def test_accessor(small):
    xr.testing.assert_identical(
        small.sar.estimate("member", **PLAIN), xr_spde.sar.estimate(small, "member", **PLAIN)
    )

"""Fits of neural solvers: they resume, repeat, are lazy, refuse what makes no sense, and learn."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from xr_spde.assim import fit, load_solver  # noqa: E402
from xr_spde.assim.neural_priors import draw_field, matched_theta  # noqa: E402
from xr_spde.errors import GridError, ParameterError, UnknownNameError  # noqa: E402

NET = {"iterations": 2, "hidden": 4, "width": 4, "coarsen": 2}
TINY = {"window": 5, "leads": 2, "steps": 6, "batch": 2, "every": 2, "network": NET,
        "patch": 12, "validation_windows": 4}  # fmt: skip


def truth(times=60, ny=16, nx=18, seed=0, *, length=3.0, decay=8.0, land=True):
    kappa = decay**-0.25
    theta = {"kappa": kappa, "gamma": (length * kappa) ** 2, "u": 0.0, "v": 0.0, "v1": 1.0,
             "v2": 0.0, "beta": 0.0}  # fmt: skip
    field = 0.1 * draw_field(theta, times, (ny, nx), np.random.default_rng(seed)) + 0.3
    days = np.datetime64("2020-01-01", "ns") + np.arange(times) * np.timedelta64(1, "D")
    coords = {"time": days, "lat": 35.0 + 0.1 * np.arange(ny), "lon": 5.0 + 0.1 * np.arange(nx)}
    da = xr.DataArray(field, coords, ("time", "lat", "lon"), "adt", {"units": "m"})
    return da.where(~((da.lat > 36.2) & (da.lon < 5.3))) if land else da


def seen_of(da, share=0.15, error=0.01, seed=1):
    rng = np.random.default_rng(seed)
    noisy = da + error * rng.standard_normal(da.shape)
    return noisy.where(rng.random(da.shape) < share)


def weights(model):
    return torch.cat([w.flatten() for w in model.solver.state_dict().values()])


def small(da=None, seen=None, **changes):
    da = truth() if da is None else da
    seen = seen_of(da) if seen is None else seen
    return fit(da, seen, obs_error=0.01, **{**TINY, **changes})


def test_same_seed_same_weights_and_other_seed_others():
    one, two, other = small(seed=1), small(seed=1), small(seed=2)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))
    assert one.card["scores"] == two.card["scores"]


def test_an_interrupted_fit_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole = small(seed=3, folder=tmp_path / "whole")
    from xr_spde.nets import variational_windows

    drawn = variational_windows.WindowBatches.__getitem__

    def killed(self, step):
        if step == 5:
            raise KeyboardInterrupt
        return drawn(self, step)

    monkeypatch.setattr(variational_windows.WindowBatches, "__getitem__", killed)
    with pytest.raises(KeyboardInterrupt):
        small(seed=3, folder=tmp_path / "parts")
    monkeypatch.undo()
    torch.rand(7)  # what happens in between does not matter
    resumed = small(seed=3, folder=tmp_path / "parts")
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.card["scores"] == resumed.card["scores"]


AFTER = {"prior": "spde", "hidden": 0, "iterations": 4, "nodes": 2, "times": True, "refine": 4,
         "depth": 1, "deviation": True}  # fmt: skip


def test_a_fit_on_windows_searched_once_goes_on_bit_for_bit(tmp_path):
    settings = {"seed": 3, "network": AFTER, "searched": 10, "steps": 6, "every": 3}
    whole = small(**settings)
    small(**settings, folder=tmp_path, until=3)
    resumed = small(**settings, folder=tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.card["scores"] == resumed.card["scores"]
    assert whole.deviates
    assert whole.reads_times
    # the search was cut off before the first checkpoint, and the next fit is another one
    (tmp_path / "state" / "state.pt").unlink()
    with pytest.raises(ParameterError, match="other data, settings or weights"):
        small(**settings | {"seed": 4}, folder=tmp_path)


def test_what_would_not_be_trained_is_refused():
    with pytest.raises(ParameterError, match='"refine": 64'):
        small(searched=4)
    with pytest.raises(ParameterError, match='theta="joint"'):
        small(searched=4, theta="joint", network=AFTER)
    with pytest.raises(ParameterError, match="against a truth"):
        small(network=AFTER, deviation=0.0)
    seen = seen_of(truth(land=False))
    maps = {"length": 33.0, "decay_time": 8.0, "std": 0.1, "mean": 0.0}
    prior = xr.Dataset({k: xr.full_like(seen[0], v).drop_attrs() for k, v in maps.items()})
    prior = prior.drop_vars("time").assign_attrs(time_step=1.0)
    with pytest.raises(ParameterError, match="against a truth"):
        fit(seen, obs_error=0.01, **TINY | {"network": AFTER, "loss": "unsupervised",
                                            "spde_prior": prior})  # fmt: skip


def test_a_fit_that_is_left_early_goes_on_bit_for_bit(tmp_path):
    whole = small(seed=3)
    left = small(seed=3, folder=tmp_path, until=4)
    assert not torch.equal(weights(whole), weights(left))
    assert torch.equal(weights(whole), weights(small(seed=3, folder=tmp_path)))


def test_a_folder_of_another_fit_is_refused(tmp_path):
    small(folder=tmp_path)
    with pytest.raises(ParameterError, match="other settings"):
        small(folder=tmp_path, rate=1e-3)


def test_stored_order_chunks_and_files_make_no_difference(tmp_path):
    da = truth()
    seen = seen_of(da)
    plain = small(da, seen)
    lazy = small(da.chunk(time=7, lat=5), seen.chunk(time=9))
    xr.Dataset({"adt": da, "seen": seen}).to_zarr(tmp_path / "z.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "z.zarr", chunks=None, consolidated=False)
    turned = small(da[:, ::-1], seen[:, ::-1])
    for other in (lazy, small(stored.adt, stored.seen), turned):
        assert torch.equal(weights(plain), weights(other))


def test_random_numbers_and_threads_of_the_user_are_left_alone():
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    small()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_save_and_load(tmp_path):
    model = small(card={"region": "nowhere"})
    model.save(tmp_path / "m.safetensors")
    read = load_solver(tmp_path / "m.safetensors")
    assert torch.equal(weights(model), weights(read))
    assert read.card == model.card
    assert read.card["region"] == "nowhere"
    assert read.units == "m"
    assert read.spacing == pytest.approx((11.12, 9.0), rel=0.02)
    assert read.scale == pytest.approx(0.1, rel=0.35)


def test_held_out_times_are_apart_and_told():
    model = small(validation=0.2, gap=3)
    assert model.card["train_period"] == ["2020-01-01T00:00", "2020-02-14T00:00"]
    assert model.card["validation_period"] == ["2020-02-18T00:00", "2020-02-29T00:00"]


def test_series_runs_and_missions():
    first, second = truth(seed=4, ny=40, nx=40), truth(seed=5, ny=40, nx=10)
    model = fit([first, second], missions=["jason", "swot"], validation=[1], random_priors=0.3,
                augment=["mirror", "amplitude"], **{**TINY, "patch": 40})  # fmt: skip
    assert model.card["validation_period"][0] == "2020-01-01T00:00"
    runs = xr.concat([truth(seed=6, ny=40, nx=40), truth(seed=7, ny=40, nx=40)], "run")
    model = fit(runs, missions=[("jason", "swot"), ("swot",)], **{**TINY, "patch": 40})
    assert len(model.card["train_period"]) == 2


def test_weights_to_start_from():
    one = small(seed=1)
    two = fit(truth(seed=8), seen_of(truth(seed=8)), obs_error=0.01, start=one,
              **{**TINY, "steps": 1, "rate": 1e-9, "network": {}})  # fmt: skip
    torch.testing.assert_close(weights(one), weights(two), rtol=1e-3, atol=1e-5)
    with pytest.raises(ParameterError, match="hidden"):
        small(start=one, network={"hidden": 9})


def test_parameters_that_fit_samples():
    rng, kappa = np.random.default_rng(0), 12.0**-0.25
    theta = {"kappa": kappa, "gamma": (4.0 * kappa) ** 2, "u": 0.0, "v": 0.0, "v1": 1.0,
             "v2": 0.0, "beta": 0.0}  # fmt: skip
    fields = [draw_field(theta, 9, (64, 64), rng) for _ in range(20)]
    assert np.var(fields) == pytest.approx(1.0, rel=0.1)
    found = matched_theta(fields)
    assert found["gamma"] ** 0.5 / found["kappa"] == pytest.approx(4.0, rel=0.25)
    assert found["kappa"] ** -4 == pytest.approx(12.0, rel=0.4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"tasks": ("mapping", "hindcast")}, UnknownNameError, "hindcast"),
        ({"method": "5dvar"}, UnknownNameError, "5dvar"),
        ({"stepz": 3}, UnknownNameError, "steps"),
        ({"leads": 5}, ParameterError, "leads=5"),
        ({"validation": 0.9}, ParameterError, "validation=0.9"),
        ({"validation": [0]}, ParameterError, "validation"),
        ({"window": 40}, ParameterError, "too few"),
        ({"augment": ["shear"]}, UnknownNameError, "shear"),
        ({"obs_error": -1.0}, ParameterError, "obs_error"),
        ({"loss": "unsupervised"}, ParameterError, "spde_prior"),
        ({"theta": "three-stage"}, UnknownNameError, "three-stage"),
        ({"steps": 0}, ParameterError, "steps=0"),
        ({"device": "tpu"}, UnknownNameError, "tpu"),
        ({"first_guess": np.inf}, ParameterError, "first_guess"),
        ({"rate": 1e9, "every": 6}, Exception, "diverged|finite"),
    ],
)
def test_impossible_settings_are_refused(changes, error, words):
    settings = {**TINY, "obs_error": 0.01, **changes}
    da = truth()
    with pytest.raises(error, match=words):
        fit(da, seen_of(da), **settings)


def test_impossible_data_are_refused():
    da = truth()
    seen = seen_of(da)
    irregular = da.isel(time=[0, 1, 3, *range(4, 60)])
    with pytest.raises(ParameterError, match="equal steps"):
        small(irregular, seen_of(irregular))
    with pytest.raises(ParameterError, match="are NaN in all"):
        small(da.where(False), seen)
    with pytest.raises(ParameterError, match="nothing varies"):
        small(da * 0.0 + 1.0, seen)
    with pytest.raises(ParameterError, match="same"):
        small(da, seen.isel(time=slice(0, 50)))
    with pytest.raises(ParameterError, match="units"):
        fit([da, da.assign_attrs(units="cm")], missions=["swot"], **TINY)
    plain = da.drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    with pytest.raises(GridError, match="lengths"):
        small(plain, plain)
    with pytest.raises(ParameterError, match="one variable"):
        fit(da.to_dataset(), **TINY)
    with pytest.raises(ParameterError, match="missions"):
        fit(da, missions=["swot"], noise=0.0, **TINY)
    with pytest.raises(ParameterError, match="observations"):
        small(da, da.where(False))


@pytest.mark.slow
def test_it_learns_to_beat_its_first_guess_and_forecasts_are_harder():
    da = truth(160, 32, 32, seed=9, land=False)
    settings = {**TINY, "steps": 120, "every": 40, "batch": 4, "patch": 32, "rate": 4e-3,
                "network": {"iterations": 4, "hidden": 8, "coarsen": 2, "width": 8}}  # fmt: skip
    scores = fit(da, seen_of(da, 0.1), obs_error=0.01, **settings).card["scores"]
    # the errors are in units of the standard deviation about the first guess
    assert scores["mapping"] < 0.85
    assert scores["mapping"] < scores["nrt"] < scores["lead1"] < scores["lead2"] < 1.1


@pytest.mark.slow
def test_without_a_truth_the_cost_of_interpolation_falls():
    da = truth(80, 24, 24, seed=10, land=False) - 0.3
    maps = {"length": 33.0, "decay_time": 8.0, "std": 0.1, "mean": 0.0}
    coords = {"lat": da.lat, "lon": da.lon}
    prior = xr.Dataset({k: (("lat", "lon"), np.full((24, 24), v)) for k, v in maps.items()},
                       coords, {"time_step": 1.0})  # fmt: skip
    tracks = da.assim.simulate_tracks(["jason", "swot"], noise=0.01, seed=0)
    settings = {**TINY, "loss": "unsupervised", "spde_prior": prior, "patch": 24}
    first = fit(tracks, **{**settings, "steps": 1, "every": 1})
    last = fit(tracks, **{**settings, "steps": 60, "every": 20})
    assert last.card["scores"]["score"] < first.card["scores"]["score"]
    assert last.scale == pytest.approx(0.1)
    gridded = fit(seen_of(da), obs_error=0.01, **settings)
    assert dataclasses.replace(gridded, leads=0).leads == 0


def test_errors_may_differ_from_window_to_window():
    from xr_spde.assim.neural_fit import held_windows

    settings = {**TINY, "patch": 40, "missions": ["swot"]}
    da = truth(ny=40, nx=40)
    sizes = {}
    for noise in (0.01, (0.01, 0.04)):
        windows = held_windows(da, None, 6, noise=noise, **settings)
        # the variance of a cell falls with its points: the largest is that of one point
        sizes[noise] = [np.sqrt(w.variance[w.mask].max()) for w in windows]
    one = np.asarray(sizes[0.01])
    many = np.asarray(sizes[(0.01, 0.04)])
    np.testing.assert_allclose(one, one[0], rtol=1e-12)
    assert (many > one).all()
    assert (many < 4.0 * one).all()
    assert np.ptp(many) > 0.2 * one[0]

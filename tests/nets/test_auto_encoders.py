"""Auto-encoders of fields: sizes of the source, seams, training that resumes, codes of anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde.errors import ParameterError, UnknownNameError
from xr_spde.nets.auto_encoder_map import AeflowMap, AutoEncoderMap
from xr_spde.nets.auto_encoder_training import AutoEncoderSettings, fit_auto_encoder
from xr_spde.nets.auto_encoders import build_auto_encoder
from xr_spde.nets.training import Schedule

NY, NX = 8, 24


def lattice(ny=NY, nx=NX):
    lon, lat = np.arange(nx) * 2 * np.pi / nx, np.arcsin((np.arange(ny) + 0.5) / ny * 2 - 1)
    return np.stack(np.broadcast_arrays(lon, lat[:, None]), -1).reshape(-1, 2)


def waves(points, rng, count):
    """Turning waves: two variables, four amplitudes."""
    x, y = points.T
    turn, size = rng.uniform(0, 2 * np.pi, (count, 1)), rng.uniform(0.5, 1.5, (count, 1))
    first = size * np.cos(y) * np.cos(x - turn)
    return np.stack([first, np.sin(y) + 0.5 * np.cos(y) ** 2 * np.sin(2 * (x - turn))], axis=-1)


@pytest.mark.parametrize(("kind", "count"), [("cae", 170_070), ("aeflow", 57_838)])
def test_sizes_of_the_source(kind, count):
    net = build_auto_encoder({"kind": kind, "variables": 2, "ny": 64, "nx": 128})
    assert sum(p.numel() for p in net.parameters()) == count
    assert net.settings.code == 1024


@given(
    kind=st.sampled_from(["cae", "aeflow"]),
    ny=st.integers(1, 20),
    nx=st.integers(1, 20),
    periodic=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_any_grid(kind, ny, nx, periodic):
    options = {"kind": kind, "variables": 1, "ny": ny, "nx": nx, "periodic": periodic, "width": 4}
    net = build_auto_encoder(options)
    fields = torch.randn(2, 1, ny, nx)
    assert net(fields).shape == fields.shape
    assert net.encode(fields).shape == (2, net.settings.code)
    if periodic and nx % 8 == 0:
        torch.testing.assert_close(net(fields.roll(8, -1)), net(fields).roll(8, -1))


@pytest.fixture(scope="module", params=["cae", "aeflow"])
def trained(request, tmp_path_factory):
    rng = np.random.default_rng(0)
    points = lattice()
    order = rng.permutation(len(points))
    values = waves(points[order], rng, 400).astype(np.float32)
    schedule = Schedule(steps=200, rate=4e-3, warmup=20, decay=0.0, every=100, mixed=False)
    plan = AutoEncoderSettings(request.param, width=8, latent=4, blocks=1, schedule=schedule)
    folder = tmp_path_factory.mktemp("run")
    fitted, codes = fit_auto_encoder(
        values, points[order], np.cos(points[order, 1]), settings=plan, folder=folder
    )
    return request.param, fitted, codes, values


def test_fields_come_back(trained):
    kind, fitted, codes, values = trained
    assert isinstance(fitted, AeflowMap if kind == "aeflow" else AutoEncoderMap)
    assert (fitted.name, fitted.n, fitted.variables, fitted.affine) == (kind, 12, 2, False)
    rng = np.random.default_rng(1)
    held = waves(fitted.points, rng, 20)
    found = fitted.decode(fitted.encode(held))
    assert found.dtype == np.float64
    assert np.sqrt(np.mean((found - held) ** 2)) < 0.5 * held.std()
    np.testing.assert_allclose(fitted.encode(values[:3]), codes[:3], atol=1e-5)
    left = np.einsum("pc,bpc->c", fitted.weights, (found - held) ** 2) / 10
    assert (np.abs(np.log(fitted.residual / left)) < np.log(5)).all()


def test_scattered_observations(trained):
    _, fitted, _, _ = trained
    rng = np.random.default_rng(2)
    points = np.stack([rng.uniform(0, 2 * np.pi, 60), np.arcsin(rng.uniform(-0.9, 0.9, 60))], 1)
    both, state = np.concatenate([points, fitted.points]), rng.bit_generator.state
    truth = waves(both, rng, 4)
    rng.bit_generator.state = state
    seen = truth[:, :60] + 0.05 * rng.standard_normal((4, 60, 2))
    seen[:, :10, 0] = np.nan
    codes = fitted.encode(seen, points, noise=0.05**2)
    error = np.sqrt(np.mean((fitted.decode(codes) - truth[:, 60:]) ** 2))
    nothing = np.sqrt(np.mean((fitted.decode(fitted.mean[None]) - truth[:, 60:]) ** 2))
    direct = fitted.decode(fitted.encode(truth[:, 60:]))
    floor = np.sqrt(np.mean((direct - truth[:, 60:]) ** 2))
    assert error < min(0.7 * nothing, 2.5 * floor)
    again = fitted.encode(seen[1:2], points, noise=0.05**2)
    np.testing.assert_allclose(again, codes[1:2], atol=1e-3)
    empty = fitted.encode(np.full((1, 60, 2), np.nan), points)
    np.testing.assert_allclose(empty[0], fitted.mean)


def test_derivatives(trained):
    _, fitted, codes, _ = trained
    rng = np.random.default_rng(3)
    at, along = codes[:2], fitted.spread[:, None] * rng.standard_normal((2, 12, 3))
    points = lattice(9, 7)
    moved = fitted.jvp(at, along, points)
    assert moved.shape == (2, 63, 2, 3)
    for k in range(3):
        step = 1e-2 * along[..., k]
        difference = fitted.decode(at + step, points) - fitted.decode(at - step, points)
        size = np.abs(moved[..., k]).max()
        assert np.median(np.abs(difference / 2e-2 - moved[..., k])) < 2e-2 * size
    jacobian = fitted.jacobian(at[0], points)
    found = (jacobian @ along[0]).reshape(63, 2, 3)
    np.testing.assert_allclose(found, moved[0], atol=1e-4 * np.abs(moved).max())


def test_kept_and_restored(trained):
    _, fitted, codes, _ = trained
    arrays, options = fitted.state()
    again = AutoEncoderMap.from_state(arrays, options)
    assert type(again) is type(fitted)
    np.testing.assert_array_equal(again.decode(codes[:2]), fitted.decode(codes[:2]))


def test_missing_values_never_count_and_a_stopped_run_goes_on(tmp_path):
    rng = np.random.default_rng(4)
    points = lattice()
    values = waves(points, rng, 40)
    land = (points[:, 0] > 5.0) & (points[:, 1] > 0.0)
    values[:, land] = np.nan
    values[rng.random(values.shape) < 0.05] = np.nan

    def plan(steps):
        schedule = Schedule(steps=steps, warmup=5, every=10, decay=0.0, mixed=False)
        return AutoEncoderSettings("cae", width=4, latent=2, batch=4, schedule=schedule)

    class Stopping:
        shape, dtype, left = values.shape, values.dtype, 100

        def __getitem__(self, part):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return values[part]

    whole, codes = fit_auto_encoder(values, points, settings=plan(30), folder=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fit_auto_encoder(Stopping(), points, settings=plan(30), folder=tmp_path / "b")
    _, same = fit_auto_encoder(values, points, settings=plan(30), folder=tmp_path / "b")
    np.testing.assert_array_equal(codes, same)
    assert np.isfinite(codes).all()
    assert np.isnan(whole.decode(codes[:1])[0, land]).all()
    assert np.isfinite(whole.decode(codes[:1])[0, ~land]).all()
    assert np.isfinite(whole.residual).all()


def test_refused(tmp_path):
    rng = np.random.default_rng(5)
    points = lattice()
    values = waves(points, rng, 4)
    with pytest.raises(UnknownNameError):
        build_auto_encoder({"kind": "vae", "variables": 1, "ny": 8, "nx": 8})
    with pytest.raises(ParameterError, match="are no grid"):
        fit_auto_encoder(values[:, 1:], points[1:], folder=tmp_path)
    with pytest.raises(ParameterError, match="values have shape"):
        fit_auto_encoder(values[0], points, folder=tmp_path)
    with pytest.raises(ParameterError, match="no value"):
        fit_auto_encoder(values * [1.0, np.nan], points, folder=tmp_path)
    with pytest.raises(ParameterError, match="held=2"):
        AutoEncoderSettings(held=2)

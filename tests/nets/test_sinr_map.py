"""The SINR state map: what it gives is what the network gives, at any points, saved or not."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde._core.errors import MemoryGuardError, ParameterError, SchemaError  # noqa: E402
from xr_spde._core.options import set_options  # noqa: E402
from xr_spde.nets import sinr_sites  # noqa: E402
from xr_spde.nets.sinr import Sinr, SinrSettings  # noqa: E402
from xr_spde.nets.sinr_map import SinrMap  # noqa: E402

LON, LAT = np.meshgrid(np.arange(24) * np.pi / 12, np.linspace(-1.4, 1.4, 12), indexing="ij")
GRID = np.stack([LON, LAT], -1).reshape(-1, 2)
AREA = np.cos(GRID[:, 1]) / np.cos(GRID[:, 1]).sum()


def build(seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    given = {"variables": 2, "code": 6, "depth": 3, "order": 3, "width": 12}
    net = Sinr(SinrSettings(**given | options)).to(dtype)
    if not net.affine:
        net.gain_weight.data.normal_(std=0.02)
    net.shift_weight.data.mul_(8.0)
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(net.n, net.n))
    return SinrMap(
        net,
        GRID,
        AREA,
        mean=rng.normal(size=net.n),
        covariance=np.eye(net.n) + 0.1 * half @ half.T,
        residual=[1e-4, 4e-4],
    )


def codes_of(model, count, seed=5):
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(model.covariance)
    return model.mean + rng.normal(size=(count, model.n)) @ root.T


OPTIONS = [{}, {"common": 2}, {"modulation": "product"}, {"modulation": "product", "common": 2}]
any_kind = pytest.mark.parametrize("options", OPTIONS, ids=str)


@any_kind
def test_decode_is_the_network_at_any_points(options):
    model = build(**options)
    codes = codes_of(model, 4)
    off = GRID[::7] + 0.01
    for points in (None, off):
        functions = model.net.functions(GRID if points is None else points)
        expected = model.net(torch.from_numpy(codes), functions).numpy()
        for _ in range(2):  # the second time from what is kept
            np.testing.assert_allclose(model.decode(codes, points), expected, atol=1e-13)


@any_kind
def test_derivatives_are_finite_differences(options):
    model = build(**options)
    codes, points = codes_of(model, 2), GRID[::11]
    ways = np.random.default_rng(1).normal(size=(2, model.n, 3))
    step = 1e-5
    moved = model.jvp(codes, ways, points)
    for j in range(3):
        ahead = model.decode(codes + step * ways[:, :, j], points)
        back = model.decode(codes - step * ways[:, :, j], points)
        np.testing.assert_allclose(moved[..., j], (ahead - back) / (2 * step), atol=1e-7)
    matrix = model.jacobian(codes[1], points)
    assert matrix.shape == (2 * len(points), model.n)
    np.testing.assert_allclose(matrix @ ways[1], moved[1].reshape(-1, 3), atol=1e-12)


@any_kind
def test_codes_come_back_from_decoded_fields(options):
    model = build(**options)
    codes = codes_of(model, 3)
    fields = model.decode(codes)
    fields[0, ::2] = np.nan
    fields[1, :, 1] = np.nan
    found = model.encode(fields[[0, 2]], prior=False)
    again = model.decode(found)
    np.testing.assert_allclose(again, model.decode(codes[[0, 2]]), atol=1e-4)
    # the variable without a value keeps to the prior, given the other one
    assert np.isfinite(model.encode(fields[1:2])).all()


def test_encoding_is_the_conditional_mean_of_a_gaussian():
    """With values of weight 1/P each and errors of variance noise + residual, the posterior."""
    model = build()
    rng = np.random.default_rng(3)
    points = GRID[rng.choice(len(GRID), 20, replace=False)]
    noise = np.array([0.01, 0.04])
    values = model.decode(codes_of(model, 2), points) + rng.normal(size=(2, 20, 2)) * 0.1
    values[:, :4, 0] = np.nan
    h = model.jacobian(model.mean, points)
    offset = model.decode(np.zeros((1, model.n)), points).ravel()
    known = np.isfinite(values[0]).ravel()
    errors = np.tile(noise + model.residual, 20)[known]
    h, y = h[known], values.reshape(2, -1)[:, known] - offset[known]
    gain = model.covariance @ h.T @ np.linalg.inv(h @ model.covariance @ h.T + np.diag(errors))
    expected = model.mean + (y - h @ model.mean) @ gain.T
    np.testing.assert_allclose(model.encode(values, points, noise=noise), expected, atol=1e-6)


@pytest.mark.parametrize("modulation", ["shift", "product"])
def test_blocks_of_points_do_not_change_anything(monkeypatch, modulation):
    model = build(modulation=modulation)
    codes = codes_of(model, 3)
    way = np.ones((3, model.n, 1))
    fields = model.decode(codes)
    expected = fields, model.jvp(codes, way), model.jacobian(codes[0]), model.encode(fields)
    monkeypatch.setattr(sinr_sites, "BLOCK", 100)
    monkeypatch.setattr(sinr_sites, "_KEPT", 1)
    found = model.decode(codes), model.jvp(codes, way), model.jacobian(codes[0])
    for one, other in zip((*found, model.encode(fields)), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    assert len(model._sites._kept) == 1


@pytest.mark.parametrize("modulation", ["shift", "product"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_saved_is_the_same_map(modulation, dtype):
    model = build(dtype=dtype, modulation=modulation, bank="spherical", common=1)
    arrays, options = model.state()
    again = SinrMap.from_state(arrays, json.loads(json.dumps(options)))
    codes = codes_of(model, 2)
    np.testing.assert_array_equal(again.decode(codes), model.decode(codes))
    np.testing.assert_array_equal(
        again.encode(model.decode(codes)), model.encode(model.decode(codes))
    )
    np.testing.assert_array_equal(again.spread, model.spread)
    assert again.net.read_bias.dtype == dtype


def test_precision_is_that_of_the_input():
    model = build(dtype=torch.float32)
    codes = codes_of(model, 2)
    fields = model.decode(codes.astype(np.float32))
    assert fields.dtype == np.float32
    assert model.decode(codes).dtype == np.float64
    assert model.encode(fields).dtype == np.float32
    assert model.jacobian(codes[0].astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(build().decode(codes), fields, atol=2e-4)


def test_a_damaged_state_is_refused():
    arrays, options = build().state()
    with pytest.raises(SchemaError, match="trunk_bias"):
        SinrMap.from_state({k: v for k, v in arrays.items() if k != "net.trunk_bias"}, options)
    with pytest.raises(SchemaError, match="mean"):
        SinrMap.from_state(arrays | {"mean": np.zeros(3)}, options)
    with pytest.raises(SchemaError, match="settings"):
        SinrMap.from_state(arrays, {})


def test_inputs_that_do_not_fit():
    model = build()
    codes = codes_of(model, 2)
    with pytest.raises(ParameterError, match=r"give \(fields, 12\)"):
        model.decode(codes[:, :5])
    with pytest.raises(ParameterError, match="radians"):
        model.decode(codes, np.array([[180.0, 45.0]]))
    with pytest.raises(ParameterError, match=r"give \(fields, 288, 2\)"):
        model.encode(np.zeros((1, 7, 2)))
    with pytest.raises(ParameterError, match="noise"):
        model.encode(model.decode(codes), noise=-1.0)
    with pytest.raises(ParameterError, match="tangents"):
        model.jvp(codes, np.zeros((2, 5, 1)))
    with pytest.raises(ParameterError, match="covariance of shape"):
        SinrMap(model.net, GRID, covariance=np.eye(3))
    with pytest.raises(ParameterError, match="must not be negative"):
        SinrMap(model.net, GRID, -AREA)
    with set_options(memory_limit=1000), pytest.raises(MemoryGuardError, match="Jacobian"):
        model.jacobian(codes[0])

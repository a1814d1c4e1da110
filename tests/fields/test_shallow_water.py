"""Shallow water on the sphere: against differences, steady flows, the general form and itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields.legendre import gauss_latitudes, legendre
from xr_spde.fields.shallow_water import ShallowWater
from xr_spde.fields.unstable_jets import jet_speed, jets


def a_state(model, runs=1, seed=0, degree=6):
    """Smooth flow: winds of some 20 m/s and 100 m of height."""
    rng = np.random.default_rng(seed)
    shape = (3, 2, model.truncation + 1, model.degrees[0].shape[1], runs)
    scale = np.array([2e-5, 5e-6, 100.0]).reshape(3, 1, 1, 1, 1)
    state = scale * rng.standard_normal(shape)
    for which, degrees in zip((0, 1, 2), (model.degrees[0], *[model.degrees[1]] * 2), strict=True):
        state[which] *= ((degrees <= degree) & (degrees > 0))[None, :, :, None]
    state[:, 1, 0] = 0.0  # no sine of order zero
    return state.astype(model.dtype)


def test_legendre_functions_are_orthonormal_and_those_of_scipy():
    sines, weights = gauss_latitudes(100)
    values, slopes = legendre(sines, 63)
    gram = np.einsum("mlj,mkj,j->mlk", values, values, weights)
    circle = np.where(np.arange(64) > 0, np.pi, 2 * np.pi)[:, None, None]
    inside = np.arange(64)[None, :] >= np.arange(64)[:, None]
    assert np.abs(circle * gram - np.eye(64) * inside[:, :, None]).max() < 1e-12
    some = sines[[3, 40, 77]]
    for m, degree in ((0, 0), (0, 5), (3, 3), (7, 20), (16, 16)):
        plain = scipy.special.lpmv(m, degree, some) * (-1) ** m
        log = scipy.special.gammaln(degree - m + 1) - scipy.special.gammaln(degree + m + 1)
        norm = np.sqrt((2 * degree + 1) / (4 * np.pi) * np.exp(log) * (2 if m else 1))
        np.testing.assert_allclose(values[m, degree][[3, 40, 77]], norm * plain, rtol=1e-10)
    ends = [legendre(some + d, 63)[0] for d in (-1e-6, 1e-6)]
    expected = (1 - some**2) * (ends[1] - ends[0]) / 2e-6
    np.testing.assert_allclose(slopes[..., [3, 40, 77]], expected, atol=1e-5)


def differences(model, state, latitudes, longitudes):
    """Tendencies by the equations in velocities, with central differences on the sphere."""
    e, a = 3e-4, model.radius

    def at(dy, dx):
        values = model.sampler(np.sin(latitudes + dy), longitudes + dx)(
            state, ["u", "v", "vorticity", "height"]
        )
        cosine = np.cos(latitudes + dy)[:, None]
        u, v, h = values["u"][0] / cosine, values["v"][0] / cosine, values["height"][0]
        total = values["vorticity"][0] + 2 * model.rotation * np.sin(latitudes + dy)[:, None]
        return {"u": u, "v": v, "U": u * cosine, "V": v * cosine, "ku": total * u,
                "kv": total * v * cosine, "kv0": total * v, "kU": total * u * cosine,
                "hu": h * u, "hV": h * v * cosine,
                "B": model.gravity * h + (u**2 + v**2) / 2}  # fmt: skip

    c, n, s, w, o = at(0, 0), at(e, 0), at(-e, 0), at(0, -e), at(0, e)
    cosine = np.cos(latitudes)[:, None]

    def east(key):
        return (o[key] - w[key]) / (2 * e) / (a * cosine)

    def north(key):
        return (n[key] - s[key]) / (2 * e) / (a * cosine)

    half = [np.cos(latitudes + d)[:, None] for d in (e / 2, -e / 2)]
    flux = half[0] * (n["B"] - c["B"]) - half[1] * (c["B"] - s["B"])
    laplacian = (o["B"] - 2 * c["B"] + w["B"]) / (e * a * cosine) ** 2 + flux / e**2 / (
        a**2 * cosine
    )
    divergence = east("u") + north("V")
    return {
        "rotation": east("v") - north("U"),
        "outflow": divergence,
        "vorticity": -(east("ku") + north("kv")),
        "divergence": east("kv0") - north("kU") - laplacian,
        "height": -(model.depth * divergence + east("hu") + north("hV")),
    }


@pytest.mark.parametrize("symmetric", [True, False])
def test_tendencies_are_those_of_the_equations(symmetric):
    model = ShallowWater(15, symmetric=symmetric)
    state = a_state(model)
    latitudes, longitudes = np.radians([-65.0, -20.0, 3.0, 50.0]), np.array([0.1, 1.5, 4.0])
    expected = differences(model, state, latitudes, longitudes)
    read = model.sampler(np.sin(latitudes), longitudes)
    names = ["vorticity", "divergence", "height"]
    change, value = read(model.tendency(state), names), read(state, names)
    for name in names:
        size = np.abs(expected[name]).max()
        np.testing.assert_allclose(change[name][0], expected[name], atol=1e-5 * size)
    size = np.abs(value["vorticity"]).max()
    np.testing.assert_allclose(value["vorticity"][0], expected["rotation"], atol=1e-5 * size)
    np.testing.assert_allclose(value["divergence"][0], expected["outflow"], atol=1e-5 * size)


def test_one_hemisphere_is_both():
    half, whole = ShallowWater(15), ShallowWater(15, symmetric=False)
    start = a_state(half)
    full = np.zeros((3, 2, 16, 16, 1))
    order = np.arange(16)[:, None]
    for which, degrees in zip((0, 1, 2), (half.degrees[0], *[half.degrees[1]] * 2), strict=True):
        used = degrees <= 15
        rows, places = np.broadcast_to(order, degrees.shape)[used], (degrees - order)[used]
        full[which][:, rows, places] = start[which][:, used]
    sines, longitudes = np.sin(np.radians([-70.0, -10.0, 35.0])), np.linspace(0, 6, 5)
    results = []
    for model, state in ((half, start), (whole, full)):
        moved = model.advance(state, 7200.0, 600.0)
        results.append(model.sampler(sines, longitudes)(moved, ["vorticity", "height"]))
    for name, size in (("vorticity", 1e-5), ("height", 100.0)):
        np.testing.assert_allclose(results[0][name], results[1][name], atol=1e-11 * size)


def test_a_balanced_jet_is_steady_and_a_disturbed_one_is_not():
    model = ShallowWater(63, diffusion=0.0)
    state = jets(model, [70.0, 80.0], bump=0.0)
    change = model.tendency(state)
    for which, size in ((0, 1e-10), (1, 1e-9), (2, 1e-2)):  # sizes of the terms that cancel
        assert np.abs(change[which]).max() < 1e-6 * size
    assert np.abs(model.tendency(jets(model, [70.0]))[1]).max() > 1e-10
    read = model.sampler(np.sin(np.pi / 4) * np.ones(1), np.zeros(1))
    speed = read(state, ["u"])["u"][:, 0, 0] / np.cos(np.pi / 4)
    np.testing.assert_allclose(speed, [70.0, 80.0], rtol=2e-3)
    assert jet_speed([np.pi / 4, -np.pi / 4, 0.1, 1.5]) == pytest.approx([1, 1, 0, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mean_height_never_changes_and_winds_stay_bounded(dtype):
    model = ShallowWater(31, dtype=dtype)
    state = jets(model, [60.0, 80.0])
    mean, read = (
        state[2, 0, 0, 0].copy(),
        model.sampler(gauss_latitudes(48)[0], np.arange(0, 6, 0.1)),
    )
    first = np.abs(read(state, ["u"])["u"]).max()
    for _ in range(3):
        state = model.advance(state, 86_400.0, 1200.0)
        assert np.array_equal(state[2, 0, 0, 0], mean)
        assert np.abs(read(state, ["u"])["u"]).max() < 1.2 * first
    assert state.dtype == dtype


def test_steps_are_of_fourth_order():
    model = ShallowWater(10, diffusion=0.0)
    start = a_state(model)
    exact = model.advance(start, 14_400.0, 75.0)
    errors = [np.abs(model.advance(start, 14_400.0, step) - exact)[2].max() for step in (600, 300)]
    assert errors[0] / errors[1] == pytest.approx(16.0, rel=0.1)


def test_diffusion_damps_degree_32_as_much_as_the_plain_one():
    model = ShallowWater(42, diffusion=1e5, symmetric=False)
    rate = -np.log(model.decay(3600.0)) / 3600.0
    expected = 1e5 / 32**2 / model.radius**2 * (32 * 33) ** 2
    assert rate[0, 0, 0, 32, 0] == pytest.approx(expected)
    assert rate[2, 0, 2, 30, 0] == pytest.approx(expected)


def test_runs_are_independent():
    model = ShallowWater(21)
    both, one = (model.advance(jets(model, s), 3600.0) for s in ([62.0, 75.0], [75.0]))
    np.testing.assert_allclose(both[..., 1:], one, rtol=1e-9, atol=1e-16)


def test_impossible_models_and_flows_are_refused():
    for options in ({"truncation": 3}, {"dtype": "float16"}, {"depth": 0.0}, {"diffusion": np.nan},
                    {"radius": np.inf}):  # fmt: skip
        with pytest.raises(ParameterError, match=next(iter(options))):
            ShallowWater(**options)
    with pytest.raises(ParameterError, match="speeds"):
        jets(ShallowWater(15), [np.nan])
    model = ShallowWater(31)
    with np.errstate(all="ignore"), pytest.raises(SolverError, match="shorter step"):
        model.advance(jets(model, [70.0]), 3e6, 10_000.0)

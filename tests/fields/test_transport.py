"""Evolution operators against closed forms, and torch against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure, flow_report, steps_for
from xr_spde.fields.flux import upwind
from xr_spde.fields.sampling import sample, sample_missing
from xr_spde.fields.transport import (
    OPERATORS,
    Advection,
    AdvectionDiffusion,
    AdvectionSource,
    Composed,
    Conservation,
    Diffusion,
    Logistic,
    ReactionDiffusion,
    UserOperator,
    Wave,
    operator,
    split_params,
)

N = 128
CELLS = Cells(N, N)


def centres(n=N):
    return np.mgrid[0:n, 0:n] + 0.5


def rotation(angle, n=N):
    y, x = centres(n) - n / 2
    return angle * np.stack([-y, x])


def bell(y, x, n=N, at=(0.75, 0.5), radius=0.15):
    r = np.hypot(y - at[0] * n, x - at[1] * n) / (radius * n)
    return np.where(r < 1, (1 + np.cos(np.pi * np.minimum(r, 1))) / 2, 0.0)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    "scheme", [Advection(steps=32, order=4), Advection("sl", steps=32, order=4)]
)
def test_a_bell_returns_after_one_revolution(scheme):
    p = bell(*centres())
    after = scheme.evolve(p, {"velocity": rotation(2 * np.pi)}, 1.0, CELLS)
    assert relative(after, p) <= 0.002


def test_monotone_kernel_keeps_bounds_and_constants_stay():
    y, x = centres()
    disc = (bell(y, x) > 0).astype(float)
    params = {"velocity": rotation(2 * np.pi)}
    after = Advection("sl", kernel="monotone", steps=32).evolve(disc, params, 1.0, CELLS)
    assert after.min() >= 0
    assert after.max() <= 1
    for scheme in ("characteristic", "sl", "upwind"):
        ones = Advection(scheme).evolve(np.ones((N, N)), {"velocity": rotation(0.5)}, 1.0, CELLS)
        np.testing.assert_allclose(ones, 1.0, atol=1e-12)


@pytest.mark.slow
def test_upwind_is_as_diffusive_as_it_is_known_to_be():
    p = bell(*centres())
    assert abs(relative(upwind(p, rotation(2 * np.pi), 1.0, CELLS), p) - 0.6) <= 0.05


def swirl_velocity(y, x, speed, n=N):
    a, b = np.pi * x / n, np.pi * y / n
    return speed * n * np.stack([np.sin(a) ** 2 * np.sin(2 * b), -(np.sin(b) ** 2) * np.sin(2 * a)])


def smooth_image(y, x):
    return np.sin(0.21 * x + 0.1 * y) * np.cos(0.17 * y - 0.05 * x)


def exact_swirl(image, speed, tau, n=N, steps=400):
    """Values carried by the swirl, by fine steps on the formula itself."""
    y, x = centres(n)
    h = -tau / steps
    for _ in range(steps):
        a = swirl_velocity(y, x, speed, n)
        b = swirl_velocity(y + h / 2 * a[1], x + h / 2 * a[0], speed, n)
        x, y = x + h * b[0], y + h * b[1]
    return image(y, x)


def test_characteristics_are_of_second_order_and_swirl_back():
    y, x = centres()
    p, q = smooth_image(y, x), swirl_velocity(y, x, 0.2)
    truth = exact_swirl(smooth_image, 0.2, 1.0)
    errors = []
    for steps in (4, 8):
        out = Advection(steps=steps).evolve(p, {"velocity": q}, 1.0, CELLS)
        errors.append(np.sqrt(np.mean((out - truth) ** 2)))
    assert errors[1] <= 0.002
    assert errors[0] / errors[1] >= 3.3
    back = Advection().evolve(out, {"velocity": q}, -1.0, CELLS)
    assert np.abs(back - p)[8:-8, 8:-8].max() < 0.01


def test_translation_moves_and_its_reports_are_exact():
    p = np.random.default_rng(0).random((20, 30))
    q = np.broadcast_to(np.array([3.0, -2.0])[:, None, None], (2, 20, 30))
    cells = Cells(20, 30)
    out = Advection().evolve(p, {"velocity": q}, 2.0, cells)
    np.testing.assert_allclose(out[:-4, 6:], p[4:, :-6])
    report = flow_report(q, 2.0, cells)
    assert report.steps == steps_for(q, 2.0) == 4
    assert report.courant == pytest.approx(np.hypot(3, 2) / 2)
    assert report.lipschitz == 0
    assert report.min_jacobian == pytest.approx(1)
    assert report.outside == pytest.approx(1 - 24 * 16 / 600)
    assert report.trusted


def test_folding_is_told():
    y, x = centres(16)
    report = flow_report(np.stack([-40.0 * (x > 8), 0 * y]), 1.0, Cells(16, 16), steps=4)
    assert report.lipschitz > 1
    assert not report.trusted


@pytest.mark.parametrize("scheme", ["weno5", "splat"])
@pytest.mark.parametrize("periodic", [True, False])
def test_amounts_are_kept_to_rounding_on_the_sphere(scheme, periodic):
    rng = np.random.default_rng(1)
    cells = Cells(24, 40, 1.0, np.cos(np.radians(np.linspace(20, 80, 24))), periodic)
    p = rng.random((24, 40))
    q = 2 * np.stack([np.sin(np.arange(40) / 40 * 2 * np.pi) * np.ones((24, 1)), np.ones((24, 40))])
    out = Conservation(scheme).evolve(p, {"velocity": q}, 1.0, cells)
    before, after = ((cells.area[:, None] * field).sum() for field in (p, out))
    assert abs(after / before - 1) <= 1e-10
    assert np.abs(out - p).max() > 0.05


def test_divergence_tells_the_two_forms_apart():
    y, x = centres() - N / 2
    a, width = 0.25, 12.0
    p = np.exp(-(x**2 + y**2) / 2 / width**2)
    params = {"velocity": a * np.stack([x, y])}
    spread = np.exp(-(x**2 + y**2) * np.exp(-2 * a) / 2 / width**2)
    carried = Advection().evolve(p, params, 1.0, CELLS)
    assert np.sqrt(np.mean((carried - spread) ** 2)) <= 0.005
    for scheme in ("weno5", "jacobian"):
        kept = Conservation(scheme).evolve(p, params, 1.0, CELLS)
        assert np.sqrt(np.mean((kept - spread * np.exp(-2 * a)) ** 2)) <= 0.002


def test_seam_of_a_periodic_grid_is_nowhere():
    rng = np.random.default_rng(2)
    cells = Cells(16, 24, 1.0, 1.0, True)
    p, q = rng.random((16, 24)), 3 * rng.standard_normal((2, 16, 24))
    for which in (Advection(), Advection("upwind"), Conservation(), Conservation("splat")):
        one = which.evolve(p, {"velocity": q}, 0.4, cells)
        rolled = {"velocity": np.roll(q, 7, -1)}
        two = which.evolve(np.roll(p, 7, -1), rolled, 0.4, cells)
        np.testing.assert_allclose(np.roll(one, 7, -1), two, atol=1e-10)


def test_constant_wind_crosses_the_sphere_on_its_loxodrome():
    latitude, step = np.arange(65.125, 80, 0.25), 0.25
    radius, seconds, u, v = 6_371_000.0, 172_800.0, 0.25, 0.08
    metre = radius * np.radians(step)
    cells = Cells(latitude.size, 240, metre, metre * np.cos(np.radians(latitude)))
    ones = np.ones(cells.shape)
    y, x = departure(cells.to_cells(u * ones, v * ones, seconds=seconds), 1.0)
    phi = np.radians(latitude)
    below = phi - v * seconds / radius
    mercator = np.log(np.tan(np.pi / 4 + phi / 2)) - np.log(np.tan(np.pi / 4 + below / 2))
    expected = np.degrees(u / v * mercator) / step
    np.testing.assert_allclose((np.arange(240) - x)[3:, 100], expected[3:], atol=2e-3)
    np.testing.assert_allclose((latitude - 65.125)[3:] / step - y[3:, 0], v * seconds / metre)
    u2, v2 = cells.to_metres(cells.to_cells(u * ones, v * ones, seconds=seconds), seconds=seconds)
    np.testing.assert_allclose([u2, v2], [u * ones, v * ones])


def test_kinematics_of_a_solid_sphere():
    latitude = np.radians(np.linspace(-60, 60, 121))
    cells = Cells(121, 36, np.radians(1.0), np.radians(10.0) * np.cos(latitude), True)
    eastward = np.cos(latitude)[:, None] * np.ones((121, 36))
    found = cells.kinematics(cells.to_cells(eastward, 0 * eastward, seconds=1.0))
    inner = slice(2, -2)
    expected = np.broadcast_to(2 * np.sin(latitude)[:, None], (121, 36))
    np.testing.assert_allclose(found["vorticity"][inner], expected[inner], atol=1e-3)
    for name in ("divergence", "deformation"):
        np.testing.assert_allclose(found[name][inner], 0, atol=1e-3)


def test_diffusion_decays_modes_and_keeps_amounts():
    cells = Cells(20, 30, 2.0, 0.5)
    y, x = np.mgrid[0:20, 0:30] + 0.5
    mode = np.cos(np.pi * 3 * y / 20) * np.cos(np.pi * 2 * x / 30)
    rate = (2 - 2 * np.cos(np.pi * 3 / 20)) / 4 + (2 - 2 * np.cos(np.pi * 2 / 30)) / 0.25
    out = Diffusion().evolve(mode, {"diffusivity": 0.7}, 1.5, cells)
    np.testing.assert_allclose(out, mode * np.exp(-0.7 * 1.5 * rate), atol=1e-12)
    field = Diffusion().evolve(mode, {"diffusivity": np.full((20, 30), 0.01)}, 1.5, cells)
    np.testing.assert_allclose(field, mode * np.exp(-0.01 * 1.5 * rate), atol=2e-5)
    sphere = Cells(20, 30, 1.0, np.linspace(1, 0.3, 20), True)
    p = np.random.default_rng(3).random((20, 30))
    for kappa in (0.3, np.full((20, 30), 0.3)):
        after = Diffusion().evolve(p, {"diffusivity": kappa}, 1.0, sphere)
        assert (sphere.area[:, None] * (after - p)).sum() == pytest.approx(0, abs=1e-10)
    with pytest.raises(ParameterError, match="backwards"):
        Diffusion().evolve(p, {"diffusivity": 0.3}, -1.0, sphere)


def test_waves_stand_run_back_and_keep_their_energy():
    cells = Cells(20, 30)
    y, x = np.mgrid[0:20, 0:30] + 0.5
    mode = np.cos(np.pi * 3 * y / 20) * np.cos(np.pi * 2 * x / 30)
    omega = np.sqrt(4 - 2 * np.cos(np.pi * 3 / 20) - 2 * np.cos(np.pi * 2 / 30))
    state = np.stack([mode, 0 * mode])
    out = Wave().evolve(state, {"speed": 2.0}, 3.0, cells)
    np.testing.assert_allclose(out[0], mode * np.cos(6 * omega), atol=1e-12)
    np.testing.assert_allclose(out[1], -2 * omega * mode * np.sin(6 * omega), atol=1e-12)
    varying = {"speed": 1 + 0.3 * np.sin(x / 5)}
    there = Wave().evolve(state, varying, 5.0, cells)
    np.testing.assert_allclose(Wave().evolve(there, varying, -5.0, cells), state, atol=1e-10)
    with pytest.raises(ParameterError, match="rate of change"):
        Wave().evolve(mode, {"speed": 2.0}, 3.0, cells)


def test_growth_sources_and_reactions():
    cells = Cells(4, 5)
    p = np.full((4, 5), 0.2)
    grown = Logistic().evolve(p, {"growth": 0.8, "capacity": 2.0}, 3.0, cells)
    np.testing.assert_allclose(grown, 2 / (1 + 9 * np.exp(-2.4)))
    still = {"velocity": np.zeros((2, 4, 5)), "source": np.full((4, 5), 0.5)}
    np.testing.assert_allclose(AdvectionSource().evolve(p, still, 2.0, cells), 1.2)
    np.testing.assert_allclose(AdvectionSource().evolve(p + 1.0, still, -2.0, cells), 0.2)
    both = {"growth": 0.8, "capacity": 2.0, "diffusivity": 1.0}
    np.testing.assert_allclose(ReactionDiffusion().evolve(p, both, 3.0, cells), grown)


def test_splitting_is_of_second_order_and_exact_where_parts_commute():
    y, x = np.mgrid[0:32, 0:32] + 0.5
    p = np.exp(-((x - 16) ** 2 + (y - 16) ** 2) / 15)
    uniform = {"velocity": np.ones((2, 32, 32)), "diffusivity": 0.5}
    both = AdvectionDiffusion().evolve(p, uniform, 3.0, Cells(32, 32))
    alone = Diffusion().evolve(np.roll(p, (3, 3), (0, 1)), uniform, 3.0, Cells(32, 32))
    inner = (slice(8, -6), slice(8, -6))
    np.testing.assert_allclose(both[inner], alone[inner], atol=1e-5)
    params = {"growth": 1.0 + x / 32, "capacity": 1.0, "diffusivity": 2.0}
    fine, *coarse = (
        ReactionDiffusion(k).evolve(p, params, 2.0, Cells(32, 32)) for k in (128, 4, 8)
    )
    errors = [np.abs(one - fine).max() for one in coarse]
    assert 3.3 < errors[0] / errors[1] < 4.7


BATCH = {
    "velocity": (2,),
    "diffusivity": (),
    "source": (),
    "growth": (),
    "capacity": (),
    "speed": (),
}


@pytest.mark.parametrize("name", [*OPERATORS, "sl", "upwind", "monotone", "splat", "jacobian"])
def test_torch_gives_the_same_numbers_and_gradients(name):
    torch = pytest.importorskip("torch")
    special = {
        "sl": Advection("sl"),
        "upwind": Advection("upwind"),
        "monotone": Advection(kernel="monotone"),
        "splat": Conservation("splat"),
        "jacobian": Conservation("jacobian"),
    }
    which = special.get(name) or operator(name)
    rng = np.random.default_rng(4)
    cells = Cells(4, 5, 1.0, np.linspace(1, 1.4, 4), True)
    channels = (2,) if name == "wave" else ()
    state = rng.random((*channels, 4, 5))
    params = {k: 0.1 + 0.4 * rng.random((*BATCH[k], 4, 5)) for k, _ in which.params}
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    given_state = torch.tensor(state, requires_grad=True)

    def evolve(first, *rest):
        return which.evolve(first, dict(zip(tensors, rest, strict=True)), 0.6, cells)

    expected = which.evolve(state, params, 0.6, cells)
    found = evolve(given_state, *tensors.values())
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    assert torch.autograd.gradcheck(evolve, (given_state, *tensors.values()), atol=1e-5)


@pytest.mark.parametrize("which", [Advection(), Conservation(), Conservation("jacobian")])
def test_a_batch_has_a_velocity_each(which):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    state, q = rng.random((3, 2, 8, 9)), rng.standard_normal((3, 2, 8, 9))
    cells = Cells(8, 9)
    together = which.evolve(state, {"velocity": q}, 0.7, cells)
    for k in range(3):
        alone = which.evolve(state[k], {"velocity": q[k]}, 0.7, cells)
        np.testing.assert_allclose(together[k], alone, atol=1e-2)  # steps are chosen for the batch
    tensor = which.evolve(torch.tensor(state), {"velocity": torch.tensor(q)}, 0.7, cells)
    np.testing.assert_allclose(tensor.numpy(), together, atol=1e-12)


@given(st.floats(0.0, 8.0), st.floats(0.0, 9.0), st.booleans())
@settings(max_examples=40, deadline=None)
def test_sampling_reproduces_planes_and_ignores_far_gaps(y, x, gap):
    j, i = np.mgrid[0:9, 0:10].astype(float)
    plane = 2 + 0.3 * j - 0.7 * i
    at = np.full((1, 1), y), np.full((1, 1), x)
    assert sample(plane, *at, kernel="linear")[0, 0] == pytest.approx(2 + 0.3 * y - 0.7 * x)
    if gap:
        plane[:, 0] = np.nan
        found = sample_missing(plane, *at)[0, 0]
        assert np.isnan(found) == (x < 0.5)


def test_float32_stays_and_what_does_not_fit_is_refused():
    q = np.ones((2, 5, 6), dtype=np.float32)
    p = np.ones((5, 6), dtype=np.float32)
    cells = Cells(5, 6)
    for which in (Advection(), Advection("upwind"), Conservation(), Conservation("splat")):
        assert which.evolve(p, {"velocity": q}, 1.0, cells).dtype == np.float32
    with pytest.raises(ParameterError, match="needs the parameter 'velocity'"):
        Advection().evolve(p, {}, 1.0, cells)
    with pytest.raises(UnknownNameError, match="upwind"):
        Advection("upwnd")
    with pytest.raises(UnknownNameError, match="did you mean 'wave'"):
        operator("waves")
    with pytest.raises(ParameterError, match="must keep the shape"):
        operator(lambda state, params, tau, cells: state[1:]).evolve(p, {}, 1.0, cells)
    with pytest.raises(ParameterError, match="expected a name"):
        operator(3)
    with pytest.raises(ParameterError, match="fill gaps"):
        Advection().evolve(p, {"velocity": q * np.nan}, 1.0, cells)
    with pytest.raises(ParameterError, match="at least one each"):
        Composed(())
    with pytest.raises(ParameterError, match="one positive size"):
        Cells(3, 3, dx=[1.0, 0.0, 1.0])


def test_a_users_operator_is_one_among_others():
    def fade(state, params, tau, cells):
        return state * np.exp(-tau * params["rate"])

    which = Composed((UserOperator(fade, params=(("rate", 1),)), Advection()))
    assert which.params == (("rate", 1), ("velocity", 2))
    fields = np.ones((3, 6, 6))
    params = split_params(which, fields)
    assert params["rate"].shape == (6, 6)
    np.testing.assert_allclose(
        which.evolve(np.ones((6, 6)), params, 2.0, Cells(6, 6)), np.exp(-2.0)
    )
    with pytest.raises(ParameterError, match=r"rate \(1\), velocity \(2\)"):
        split_params(which, fields[:2])

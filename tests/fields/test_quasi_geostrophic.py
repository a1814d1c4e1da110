"""Two-layer quasi-geostrophic flow against closed forms, invariants and symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields.quasi_geostrophic import TwoLayer

DAY = 86_400.0


def free(shape=(32, 48), **options):
    """Without drag and filter, by default without mean flow."""
    defaults = {"radius": 30e3, "ratio": 0.4, "shear": 0.0, "drag": 0.0, "filter": 0.0}
    return TwoLayer(shape, (14e3, 11e3), **(defaults | options))


def noise(model, seed=0, speed=0.3):
    """Eddies that differ between the layers."""
    rng = np.random.default_rng(seed)
    first, second = (model.random_state(rng, speed) for _ in range(2))
    return np.stack([first[0], second[1]])


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_potential_vorticity_is_that_of_the_stream_function(ratio):
    model = free(ratio=ratio)
    (ny, nx), (dy, dx) = model.shape, model.spacing
    y, x = np.arange(ny)[:, None] * dy, np.arange(nx) * dx
    k, m = 2 * np.pi * 3 / (nx * dx), 2 * np.pi * 2 / (ny * dy)
    psi = np.stack([2e4 * np.sin(k * x + m * y), 1e4 * np.cos(k * x - m * y)])
    # depths h1 : h2 = ratio : 1 with F1 h1 = F2 h2 and F1 + F2 = radius^-2
    depth = np.array([ratio, 1.0])
    f = (1 / depth) / (1 / depth).sum() / model.radius**2
    q = -(k**2 + m**2) * psi + f[:, None, None] * (psi[::-1] - psi)
    np.testing.assert_allclose(model.to_grid(model.stream(model.to_spectrum(q))), psi, atol=1e-6)


def test_growth_of_the_phillips_problem_with_equal_layers():
    # Vallis (2017), section 9.6: with u = (U1 - U2) / 2, without beta, the growth rate of a wave of
    # number k eastward is  u k sqrt((kd^2 - k^2) / (kd^2 + k^2)),  kd the inverse radius
    model = free(ratio=1.0, shear=0.2, beta=0.0)
    k = 2 * np.pi * 2 / (model.shape[1] * model.spacing[1])
    kd = 1 / model.radius
    rate = 0.1 * k * np.sqrt((kd**2 - k**2) / (kd**2 + k**2))
    state = np.zeros((2, *model.kept.shape), complex)
    state[0, 0, 2], state[1, 0, 2] = 1e-9, 2e-10j
    state = model.advance(state, 10 / rate)  # the other wave decays at the same rate
    before = state[:, 0, 2].copy()
    for _ in range(50):
        state = model.step(state, 0.02 / rate)
    measured = np.log(np.abs(state[:, 0, 2] / before)) * rate
    np.testing.assert_allclose(measured, rate, rtol=1e-6)


@pytest.mark.parametrize(("east", "north"), [(1, 0), (2, 1), (3, 2), (4, 0)])
def test_growth_with_beta_drag_and_unequal_layers(east, north):
    # the matrix of the linear problem q' = -i k (U q + beta_j psi) - r nabla^2 psi_2, by hand
    model = free(ratio=0.25, shear=0.3, drag=3e-7)
    k = 2 * np.pi * east / (model.shape[1] * model.spacing[1])
    m = 2 * np.pi * north / (model.shape[0] * model.spacing[0])
    f1, f2 = 0.8 / model.radius**2, 0.2 / model.radius**2
    k2 = k**2 + m**2
    from_psi = np.array([[-k2 - f1, f1], [f2, -k2 - f2]])
    gradients = model.beta + f1 * 0.3, model.beta - f2 * 0.3
    linear = -1j * k * (np.diag([0.3, 0.0]) @ from_psi + np.diag(gradients))
    linear += np.diag([0.0, model.drag * k2])
    values, vectors = np.linalg.eig(linear @ np.linalg.inv(from_psi))
    fastest = np.argmax(values.real)
    state = np.zeros((2, *model.kept.shape), complex)
    state[:, north, east] = 1e-9 * vectors[:, fastest]
    later = state
    for _ in range(20):
        later = model.step(later, 1800.0)
    factor = later[:, north, east] / state[:, north, east]
    np.testing.assert_allclose(factor, np.exp(values[fastest] * 36_000.0), rtol=1e-6)


def test_a_barotropic_rossby_wave_of_any_size_moves_at_its_phase_speed():
    model = free(beta=2e-11)
    k = 2 * np.pi * 2 / (model.shape[1] * model.spacing[1])
    m = 2 * np.pi * 1 / (model.shape[0] * model.spacing[0])
    y = np.arange(model.shape[0])[:, None] * model.spacing[0]
    x = np.arange(model.shape[1]) * model.spacing[1]
    speed = -2e-11 / (k**2 + m**2)  # an exact solution: a plane wave does not act on itself

    def wave(t):
        return 3e4 * np.sin(k * (x - speed * t) + m * y) * np.ones((2, 1, 1))

    state = model.to_spectrum(-(k**2 + m**2) * wave(0.0))
    for _ in range(5):
        state = model.advance(state, DAY)
    np.testing.assert_allclose(model.to_grid(model.stream(state)), wave(5 * DAY), atol=3e-3 * 3e4)


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_energy_and_enstrophy_are_conserved_to_the_fourth_power_of_the_step(ratio):
    model = free(ratio=ratio, beta=2e-11)
    drifts = []
    for count in (16, 32):
        state = noise(model, speed=0.15)
        energy, enstrophy = model.energy(state), model.enstrophy(state)
        for _ in range(count):
            state = model.step(state, 4 * DAY / count)
        drifts.append([model.energy(state) / energy - 1, model.enstrophy(state) / enstrophy - 1])
    coarse, fine = np.abs(drifts)
    assert (fine < 1e-7).all()
    assert (fine < coarse / 14).all()  # a step twice as short: 2^4 times less, or better


def test_the_steps_it_chooses_keep_energy_to_a_millionth():
    model = free(beta=2e-11)
    state = noise(model)
    energy, enstrophy = model.energy(state), model.enstrophy(state)
    for _ in range(5):
        state = model.advance(state, DAY)
    assert abs(model.energy(state) / energy - 1) < 1e-6
    assert abs(model.enstrophy(state) / enstrophy - 1) < 1e-6


def test_the_tendency_conserves_exactly():
    model = free(beta=2e-11)
    state = noise(model)
    small = 1e-3 * np.abs(state).max() / np.abs(model.tendency(state)).max()
    for invariant in (model.energy, model.enstrophy):
        ahead, behind = (invariant(state + s * small * model.tendency(state)) for s in (1, -1))
        assert abs(ahead - behind) < 1e-12 * invariant(state)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 31), st.integers(0, 47), st.integers(0, 99))
def test_a_shifted_start_gives_the_shifted_flow(rows, columns, seed):
    model = free(shear=0.15, drag=1e-6, filter=1e-4)
    state = noise(model, seed)
    q = np.roll(model.to_grid(state), (rows, columns), axis=(-2, -1))
    shifted, plain = model.to_spectrum(q), state
    for _ in range(5):
        shifted, plain = model.step(shifted, 1800.0), model.step(plain, 1800.0)
    expected = np.roll(model.to_grid(plain), (rows, columns), axis=(-2, -1))
    np.testing.assert_allclose(model.to_grid(shifted), expected, atol=1e-9 * np.abs(expected).max())


def test_a_mirrored_flow_goes_the_other_way_round():
    # y -> -y turns vorticity about and keeps beta and the zonal flow
    model = free(shear=0.15, drag=1e-6, filter=1e-4)
    state = noise(model)
    mirrored = model.to_spectrum(-np.roll(model.to_grid(state)[:, ::-1], 1, axis=-2))
    for _ in range(5):
        state, mirrored = model.step(state, 1800.0), model.step(mirrored, 1800.0)
    expected = -np.roll(model.to_grid(state)[:, ::-1], 1, axis=-2)
    np.testing.assert_allclose(
        model.to_grid(mirrored), expected, atol=1e-9 * np.abs(expected).max()
    )


def test_runs_of_a_batch_are_independent():
    model = free(shear=0.15)
    states = [noise(model, seed) for seed in (1, 2)]
    both = model.step(np.stack(states), 1800.0)
    for one, state in zip(both, states, strict=True):
        np.testing.assert_allclose(one, model.step(state, 1800.0), rtol=1e-12, atol=1e-20)


def test_drag_and_filter_take_energy_and_single_precision_is_near_double():
    lossy = free(drag=1e-6, filter=1e-4)
    state = noise(lossy)
    later = lossy.advance(state, DAY)
    assert lossy.energy(later) < lossy.energy(state)
    single = free(drag=1e-6, filter=1e-4, dtype="float32")
    near = single.advance(state.astype(np.complex64), DAY)
    assert near.dtype == np.complex64
    assert np.abs(near - later).max() < 1e-4 * np.abs(later).max()


@pytest.mark.parametrize(
    "wrong",
    [{"shape": (31, 32)}, {"shape": (4, 32)}, {"radius": 0.0}, {"ratio": -1.0}, {"drag": -1.0},
     {"filter": np.nan}, {"shear": np.inf}, {"dtype": "float16"}],
)  # fmt: skip
def test_refused(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        free(**wrong)


def test_what_has_blown_up_says_so():
    model = free()
    with pytest.raises(SolverError, match="blown up"):
        model.advance(np.full_like(noise(model), np.nan), DAY)

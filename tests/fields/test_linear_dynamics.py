"""Linear propagators: recovery of known maps, steps of any length, forcing, what is refused."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.codes import CodeGuard, Forcing
from xr_spde.errors import DivergenceError, ParameterError, SolverError
from xr_spde.fields.linear_dynamics import (
    LinearPropagator,
    PersistencePropagator,
    fit_linear,
    window_index,
)

N = 6
FORCING = Forcing((365.2425, 30.0), step=5.0)


def stable(seed=0, n=N):
    L = np.random.default_rng(seed).standard_normal((n, n))
    return scipy.linalg.expm(0.3 * (L - L.T) - 0.05 * np.eye(n))


def forced(seed=0):
    rng = np.random.default_rng(seed)
    return LinearPropagator(
        stable(seed), rng.standard_normal(N), forced=rng.standard_normal((N, 4)), forcing=FORCING
    )


def series(propagator, seed, windows=40, steps=5, noise=0.0, irregular=False):
    rng = np.random.default_rng(seed)
    codes, dts, times = [], [], []
    for _ in range(windows):
        z, t = rng.standard_normal(N), rng.uniform(0, 1000)
        row, at, lengths = [z], [t], []
        for _ in range(steps):
            dt = round(rng.uniform(0.7, 1.4), 1) if irregular else 1.0
            z = propagator.step(z[None], dt, t)[0] + noise * rng.standard_normal(N)
            t += dt * FORCING.step
            row.append(z), at.append(t), lengths.append(dt)
        codes.append(row), dts.append(lengths), times.append(at)
    return np.array(codes), np.array(dts), np.array(times)


@given(st.floats(0.05, 2.5), st.floats(0.05, 2.5), st.floats(-1e4, 2e4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_step_is_the_same_in_any_parts(first, second, time, calendar):
    propagator = forced() if calendar else LinearPropagator(stable(), np.ones(N))
    z = np.random.default_rng(1).standard_normal((3, N))
    whole = propagator.step(z, first + second, time)
    parts = propagator.step(propagator.step(z, first, time), second, time + 5.0 * first)
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-9)


def test_a_map_without_noise_is_found_again():
    known = forced()
    codes, _, times = series(known, 3)
    found = fit_linear(codes, times=times, forcing=FORCING)
    np.testing.assert_allclose(found.rows, known.rows, atol=1e-5)
    # irregular steps: the fixed point is reached to the width of a few passes
    codes, dts, times = series(known, 3, irregular=True)
    found = fit_linear(codes, dts=dts, times=times, forcing=FORCING)
    np.testing.assert_allclose(found.rows, known.rows, atol=1e-3)


def test_with_no_penalty_it_is_least_squares():
    codes, _, _ = series(LinearPropagator(stable(), np.ones(N)), 5, noise=0.3)
    found = fit_linear(codes, ridge=0.0)
    x = codes[:, :-1].reshape(-1, N)
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    expected = np.linalg.lstsq(design, codes[:, 1:].reshape(-1, N), rcond=None)[0].T
    np.testing.assert_allclose(found.rows, expected, rtol=1e-8, atol=1e-9)
    assert found.rows.flags.c_contiguous
    # and a strong one gives persistence
    rigid = fit_linear(codes, ridge=1e12)
    np.testing.assert_allclose(rigid.matrix(), np.eye(N), atol=1e-6)


def test_the_penalty_is_chosen_for_the_error_of_steps_left_out():
    rng = np.random.default_rng(0)
    n = 30
    persistent = np.cumsum(0.1 * rng.standard_normal((60, n)), 0)
    white = rng.standard_normal((60, n))
    near = fit_linear(persistent)
    assert np.abs(near.matrix() - np.eye(n)).max() < 0.3
    assert np.abs(fit_linear(white).matrix()).max() < 0.3


def test_in_the_metric_of_fields_units_of_codes_do_not_matter():
    rng = np.random.default_rng(0)
    codes, _, _ = series(LinearPropagator(stable(), np.ones(N)), 5, noise=0.3)
    mixing = np.diag(np.logspace(-1, 1, N)) @ np.linalg.qr(rng.standard_normal((N, N)))[0]
    plain = fit_linear(codes)
    # fields = mixing^-1 @ other codes
    back = np.linalg.inv(mixing)
    other = fit_linear(codes @ mixing.T, metric=back.T @ back)
    np.testing.assert_allclose(back @ other.matrix() @ mixing, plain.matrix(), atol=1e-5)
    np.testing.assert_allclose(back @ other.offset(), plain.offset(), atol=1e-5)
    scaled = fit_linear(codes * 3.0, metric=np.full(N, 1 / 9))
    np.testing.assert_allclose(scaled.matrix(), plain.matrix(), atol=1e-9)
    for wrong in (np.ones(3), -np.ones(N)):
        with pytest.raises(ParameterError, match="metric"):
            fit_linear(codes, metric=wrong)


def test_codes_that_are_combinations_of_others_and_few_pairs(caplog):
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((5, 4, 3)) @ rng.standard_normal((3, 20))
    with caplog.at_level(logging.WARNING):
        found = fit_linear(codes)
    assert "15 pairs of snapshots for codes of size 20" in caplog.text
    assert np.isfinite(found.rows).all()


def test_pairs_with_gaps_and_long_steps_are_left_out():
    known = LinearPropagator(stable(), np.ones(N))
    codes, dts, _ = series(known, 3)
    expected = fit_linear(codes[2:], ridge=1e-9)
    codes[0, 2] = np.nan
    codes[1] = 1e3
    dts[1] = 5.0
    found = fit_linear(codes[2:], dts=dts[2:], ridge=1e-9)
    np.testing.assert_allclose(found.rows, expected.rows)
    np.testing.assert_allclose(fit_linear(codes, dts=dts, ridge=1e-9).rows, known.rows, atol=1e-4)


def test_modes_that_change_sign_are_told_of(caplog):
    propagator = LinearPropagator(np.diag([-0.2, 0.9]))
    with caplog.at_level(logging.WARNING):
        half = propagator.matrix(0.5)
    assert "1 of the 2 modes" in caplog.text
    assert np.isrealobj(half)
    np.testing.assert_allclose(np.diag(half), [0.0, np.sqrt(0.9)], atol=1e-12)
    np.testing.assert_allclose(propagator.matrix(2.0), np.diag([0.04, 0.81]))


@pytest.mark.parametrize("propagator", [forced(), LinearPropagator(stable())])
def test_it_is_saved_and_keeps_dtypes(propagator):
    arrays, options = propagator.state()
    again = LinearPropagator.from_state(arrays, json.loads(json.dumps(options)))
    z = np.random.default_rng(0).standard_normal((2, N))
    np.testing.assert_array_equal(again.step(z, 1.5, 3.0), propagator.step(z, 1.5, 3.0))
    assert propagator.step(z.astype(np.float32), 1.0, 0.0).dtype == np.float32
    assert PersistencePropagator.from_state(*PersistencePropagator().state()).step(z) is not z


def test_windows_do_not_reach_across_breaks():
    index = window_index(20, 4, breaks=[7])
    assert index.tolist()[:3] == [[0, 1, 2, 3], [3, 4, 5, 6], [7, 8, 9, 10]]
    assert len(window_index(20, 10, stride=10)) == 2
    with pytest.raises(ParameterError, match="no trajectory of the 5"):
        window_index(5, 4, breaks=[2])
    with pytest.raises(ParameterError, match="length=1"):
        window_index(5, 1)


def test_bad_input_is_refused():
    codes, dts, _ = series(LinearPropagator(stable()), 0, windows=3)
    with pytest.raises(ParameterError, match="expected \\(W, S, n\\)"):
        fit_linear(codes[0, 0])
    with pytest.raises(ParameterError, match="dts"):
        fit_linear(codes, dts=dts[:, :2])
    with pytest.raises(ParameterError, match="times= is missing"):
        fit_linear(codes, forcing=FORCING)
    with pytest.raises(ParameterError, match="0 pairs"):
        fit_linear(codes * np.nan)
    with pytest.raises(ParameterError, match="do not change"):
        fit_linear(np.ones((3, 4, 2)))
    propagator = forced()
    with pytest.raises(ParameterError, match="time= is missing"):
        propagator.step(codes[0])
    with pytest.raises(ParameterError, match="dt=-1"):
        propagator.step(codes[0], -1.0, 0.0)
    with pytest.raises(ParameterError, match="expected \\(B, 6\\)"):
        propagator.step(codes[0, :, :2], 1.0, 0.0)
    with pytest.raises(ParameterError, match="expected \\(n, n\\)"):
        LinearPropagator(np.eye(2), np.zeros(3))
    with pytest.raises(ParameterError, match="not finite"):
        LinearPropagator(np.eye(2) * np.nan)
    with pytest.raises(ParameterError, match="do not resolve"):
        Forcing((365.0, 1.0), step=0.5)
    with pytest.raises(ParameterError, match="positive periods"):
        Forcing((0.0,))


def test_features_turn_as_their_generator_says():
    turned = scipy.linalg.expm(1.7 * FORCING.generator()) @ FORCING.features(11.0)
    np.testing.assert_allclose(turned, FORCING.features(11.0 + 1.7 * 5.0), atol=1e-12)
    assert FORCING.size == 4


def test_the_guard_names_step_and_members():
    guard = CodeGuard(np.zeros(3), np.ones(3), limit=5.0)
    codes = np.ones((4, 3))
    guard.check(codes)
    assert guard.limited(codes) is codes
    codes[1], codes[3, 0] = 20.0, np.nan
    with pytest.raises(DivergenceError, match="at step 7: 2 of 4 \\(members 1, 3\\)"):
        guard.check(codes, 7)
    assert issubclass(DivergenceError, SolverError)
    drawn = guard.limited(codes[:3])
    np.testing.assert_allclose(guard.distance(drawn), [1.0, 5.0, 1.0])
    with pytest.raises(ParameterError, match="positive"):
        CodeGuard(np.zeros(3), np.zeros(3))

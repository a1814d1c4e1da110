"""Correlated errors against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest

import xr_spde
from xr_spde.assim.correlated import AlongTrack, BlockErrors, JoinedErrors, log_determinant
from xr_spde.assim.noise import ErrorModel, IndependentErrors
from xr_spde.errors import MemoryGuardError, ParameterError

TRACK = np.array(["b", "a", "b", "b", "a"])
STEPS = np.array([0.0, 3.0, 1.0, 4.0, 5.0])
STD = np.array([1.0, 2.0, 0.5, 1.5, 1.0])


def dense_track(length, share):
    same = TRACK[:, None] == TRACK
    apart = np.abs(np.subtract.outer(STEPS, STEPS))
    full = same * share * np.exp(-apart / length) + (1.0 - share) * np.eye(5)
    return full * np.outer(STD, STD)


def models():
    track = AlongTrack(1.0, length=2.0, share=0.8).errors(STD, STEPS, TRACK)
    full = dense_track(2.0, 0.8)
    parts = [np.flatnonzero(name == TRACK) for name in "ba"]
    blocks = BlockErrors([(index, full[np.ix_(index, index)]) for index in parts])
    alone = AlongTrack(1.0, length=2.0).errors(STD, STEPS, TRACK)
    joined = np.zeros((13, 13))
    joined[:3, :3], joined[3:8, 3:8], joined[8:, 8:] = np.diag([0.2, 0.3, 0.4]), full, full
    return [
        (track, full),
        (blocks, full),
        (alone, dense_track(2.0, 1.0)),
        (JoinedErrors([IndependentErrors([0.2, 0.3, 0.4]), track, blocks]), joined),
    ]


@pytest.mark.parametrize(
    ("model", "dense"), models(), ids=["track", "blocks", "wholly correlated", "joined"]
)
def test_root_determinant_noise_and_selection_are_those_of_r(model, dense):
    assert isinstance(model, ErrorModel)
    p = len(dense)
    np.testing.assert_allclose(model.variance, np.diagonal(dense))
    x, y = np.random.default_rng(0).standard_normal((2, 4, p))
    expected = np.sum(x * np.linalg.solve(dense, y.T).T, axis=-1)
    np.testing.assert_allclose(np.sum(model.whiten(x) * model.whiten(y), -1), expected)
    assert model.whiten(x.astype(np.float32)).dtype == np.float32
    assert log_determinant(model) == pytest.approx(np.linalg.slogdet(dense)[1])
    turn, rest, log_turn = model.sparse_form()
    np.testing.assert_allclose((turn @ dense @ turn.T), rest.toarray(), atol=1e-14)
    assert log_turn == pytest.approx(np.linalg.slogdet(turn.toarray())[1])
    drawn = model.noise(np.random.default_rng(1), (50_000,))
    assert drawn.shape == (50_000, p)
    np.testing.assert_allclose(np.cov(drawn.T), dense, atol=0.06)
    for keep in (np.array([0, 2, p - 1]), np.arange(p) % 2 == 1):
        part = model.select(keep)
        index = np.arange(p)[keep]
        white = part.whiten(np.eye(index.size))
        np.testing.assert_allclose(
            np.linalg.inv(white @ white.T), dense[np.ix_(index, index)], atol=1e-12
        )


def test_a_model_without_determinant_is_asked_for_its_root():
    class Bare:
        variance = np.array([1.0, 4.0])

        def whiten(self, x):
            return x / np.array([1.0, 2.0])

    assert log_determinant(Bare()) == pytest.approx(np.log(4.0))


def test_errors_that_make_no_sense():
    with pytest.raises(ParameterError, match="not each of 0 to 1 once"):
        BlockErrors([(np.array([0, 0]), np.eye(2))])
    with pytest.raises(ParameterError, match=r"shape \(3, 3\); expected \(2, 2\)"):
        BlockErrors([(np.array([0, 1]), np.eye(3))])
    with pytest.raises(ParameterError, match=r"not positive definite.*share=0\.9"):
        AlongTrack(1.0, length=2.0).errors(np.ones(2), np.zeros(2), np.zeros(2))
    with pytest.raises(ParameterError, match="length=0"):
        AlongTrack(1.0, length=0)
    with pytest.raises(ParameterError, match="share=1"):
        AlongTrack(1.0, length=1.0, share=1.5)
    with pytest.raises(ParameterError, match="do not increase"):
        models()[-1][0].select(np.array([2, 1]))
    with xr_spde.set_options(memory_limit=100), pytest.raises(MemoryGuardError, match="1 blocks"):
        BlockErrors([(np.arange(9), np.eye(9))])


def test_long_tracks_cost_little():
    """Whitened noise is white, and neighbours alone are coupled."""
    rng, p = np.random.default_rng(0), 30_000
    steps = np.cumsum(rng.uniform(0.0, 5.0, p))
    for share in (0.7, 1.0):
        errors = AlongTrack(1.0, length=20.0, share=share).errors(
            rng.uniform(0.5, 2.0, p), steps, np.arange(p) // 10_000
        )
        white = errors.whiten(errors.noise(rng, (3,)))
        assert white.std() == pytest.approx(1.0, abs=0.02)
        for lag in (1, 2, 50):
            assert abs(np.mean(white[:, lag:] * white[:, :-lag])) < 0.02
        assert errors.sparse_form().rest.nnz <= 3 * p


def test_a_part_that_does_not_know_its_sparse_form():
    class Bare:
        variance = np.array([1.0])

    assert JoinedErrors([IndependentErrors([1.0]), Bare()]).sparse_form() is None

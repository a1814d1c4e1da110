"""Log-determinants from windows, against whole factors and dense algebra."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.fields import windows
from xr_spde.fields.sar import weights
from xr_spde.fields.stencil import OFFSETS, assemble
from xr_spde.fields.windows import Domain, halo, logdet_with_error, spans, windowed_logdet
from xr_spde.solvers.grid_factor import GridFactor

BOUNDARIES = ["plane", "cylinder", "torus", "paper"]


def waves(shape: tuple[int, int], low: float, high: float) -> tuple[np.ndarray, ...]:
    """Maps that vary smoothly, closed in both directions."""
    y, x = (2.0 * np.pi * np.arange(size) / size for size in shape)
    one = 0.5 + 0.5 * np.sin(y[:, None]) * np.cos(2 * x)
    two = 0.5 + 0.5 * np.cos(2 * y[:, None] + 1.0) * np.sin(x)
    return low * (high / low) ** one, 1.0 + 6.0 * two, np.pi * one - two


def whole(maps: tuple[np.ndarray, ...], boundary: str) -> float:
    matrix = assemble(weights(*maps), boundary=boundary)
    return GridFactor(matrix, shape=maps[0].shape, boundary=boundary).logdet()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(90, 23), (25, 90), (61, 58)])
def test_every_node_counts_once(boundary, shape):
    """A diagonal matrix has no reach: windows of any overlap give its determinant."""
    table = np.zeros((9, *shape))
    table[OFFSETS.index((0, 0))] = np.random.default_rng(0).uniform(0.5, 3.0, shape)
    for overlap, tile in ((3, 10), (10, 10), (17, 5)):
        found = windowed_logdet(Domain.of(table, boundary), overlap=overlap, tile=tile)
        expected = np.log(table[OFFSETS.index((0, 0))]).sum()
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_grid_of_one_window_is_exact(boundary):
    maps = waves((17, 21), 0.01, 1.0)
    value, error = logdet_with_error(*maps, weights(*maps), boundary)
    dense = assemble(weights(*maps), boundary=boundary).toarray()
    assert value == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    assert error == 0.0


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(96, 128), (20, 200), (160, 24)])
@pytest.mark.parametrize("low", [1e-5, 1e-2])
def test_the_error_is_within_its_bound(monkeypatch, boundary, shape, low):
    """Far shorter overlaps than the range as well, where the bound has to be large."""
    monkeypatch.setattr(windows, "HALO", (8, 16))
    monkeypatch.setattr(windows, "TILE", 16)
    maps = waves(shape, low, 10.0 * low)
    value, error = logdet_with_error(*maps, weights(*maps), boundary)
    assert abs(value - whole(maps, boundary)) < error


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_error_falls_like_the_correlation(boundary):
    maps = waves((96, 128), 0.03, 0.3)
    domain, exact = Domain.of(weights(*maps), boundary), whole(maps, boundary)
    errors = [
        abs(windowed_logdet(domain, overlap=overlap, tile=12) - exact) for overlap in (6, 12, 24)
    ]
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.02 * errors[1]
    assert errors[2] < 2e-6 * exact


def test_differences_between_near_parameters_are_better_than_each():
    """What a comparison of parameters needs: most of the error is common to both."""
    maps = waves((96, 128), 0.01, 0.1)
    near = (1.02 * maps[0], *maps[1:])
    cut = [
        windowed_logdet(Domain.of(weights(*m), "cylinder"), overlap=16, tile=16)
        for m in (maps, near)
    ]
    exact = [whole(m, "cylinder") for m in (maps, near)]
    assert abs(cut[0] - exact[0]) > 1e-2
    assert abs((cut[1] - cut[0]) - (exact[1] - exact[0])) < 0.1 * abs(cut[0] - exact[0])


def test_smooth_modes_of_a_torus_are_in_the_bound(monkeypatch):
    """kappa2 so small that the mean over the torus has a determinant of its own."""
    monkeypatch.setattr(windows, "HALO", (8, 16))
    maps = tuple(np.full((96, 128), value) for value in (1e-7, 1.0, 0.0))
    monkeypatch.setattr(windows, "TILE", 16)
    value, error = logdet_with_error(*maps, weights(*maps), "torus")
    off = abs(value - whole(maps, "torus"))
    assert off > 5.0
    assert off < error < 100.0


def test_widths():
    kappa2, rho = np.full((4, 5), 0.02), np.full((4, 5), 4.0)
    assert halo(kappa2, rho) == 40
    assert halo(kappa2 * 100, rho) == 16
    assert halo(kappa2 / 1e4, rho) == 256
    assert list(spans(100, 30)) == [(0, 30), (30, 60), (60, 100)]
    assert list(spans(20, 30)) == [(0, 20)]

"""Every filter bank learns a small family of known fields on its kind of domain."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.nets.harmonics import spherical_harmonics, triangle  # noqa: E402
from xr_spde.nets.sinr import Sinr, SinrSettings  # noqa: E402


def sphere(rng, count):
    return np.stack([rng.uniform(0, 2 * np.pi, count), np.arcsin(rng.uniform(-1, 1, count))], 1)


def smooth_on_sphere(points, amplitudes):
    """Four harmonics of degree up to 3, and a product of two of them."""
    y = spherical_harmonics(points[:, :2], triangle(3)[[2, 5, 8, 12]])
    return amplitudes @ np.concatenate([y, 3.0 * y[:1] * y[3:]])


def waves(points, amplitudes):
    x, y = points[:, 0], points[:, 1]
    rows = [np.sin(np.pi * x), np.cos(np.pi * x) * y, np.exp(-4 * (x**2 + y**2)), x * y, y**2]
    return amplitudes @ np.stack(rows)


def closed_waves(points, amplitudes):
    x, y = np.pi * points[:, 0], points[:, 1]
    rows = [np.sin(x), np.cos(x) * y, np.exp(np.cos(x)) * y**2, np.sin(2 * x) * y, np.cos(x - y)]
    return amplitudes @ np.stack(rows)


def with_height(points, amplitudes):
    height = points[:, 2]
    return (
        smooth_on_sphere(points, amplitudes) * (1.0 - 0.5 * height) + height**2 * amplitudes[:, :1]
    )


def least_squares(net, functions, fields):
    """Codes with a small ridge: a mode that no field needs is left alone."""
    offset, modes = net.modes(functions)
    matrix = torch.zeros(len(offset), net.settings.variables, net.n)
    for k in range(net.settings.variables):
        matrix[:, k, net.columns(k)] = modes[k]
    matrix = matrix.reshape(-1, net.n)
    gram = matrix.T @ matrix + 1e-6 * len(matrix) * torch.eye(net.n)
    return torch.linalg.solve(gram, matrix.T @ (fields - offset).flatten(1).T).T


def train(net, functions, fields, steps=300):
    """Codes are the least-squares ones in every step, so that only the network is learned."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        found = net(least_squares(net, functions, fields), functions)
        optimizer.zero_grad()
        (fields - found).square().mean().backward()
        optimizer.step()
        schedule.step()
    net.requires_grad_(False)


def sea(rng, count):
    """Points of a sphere outside a continent, which no value ever comes from."""
    points = sphere(rng, 3 * count)
    land = (np.abs(points[:, 0] - 2.0) < 1.2) & (points[:, 1] > -0.4)
    return points[~land][:count]


def plane(rng, count):
    return rng.uniform(-1, 1, (count, 2))


def volume(rng, count):
    count = max(count, 1500) if count == 300 else count
    return np.c_[sphere(rng, count), rng.uniform(-1, 1, count)]


def many(points, amplitudes):
    """Six variables that five amplitudes drive together."""
    mixing = np.random.default_rng(7).normal(size=(6, 5, 5)) / 5**0.5
    return np.stack([smooth_on_sphere(points, amplitudes @ m) for m in mixing], -1)


CASES = {
    "source": ({}, sphere, smooth_on_sphere),
    "rotation": ({"bank": "rotational", "order": 2}, sphere, smooth_on_sphere),
    "ocean": ({}, sea, smooth_on_sphere),
    "region": ({"bank": "fourier"}, plane, waves),
    "channel": ({"bank": "fourier", "periodic": (True, False)}, plane, closed_waves),
    "splines": ({"bank": "spline", "order": 4}, plane, waves),
    "closed splines": (
        {"bank": "spline", "order": 6, "periodic": (True, False)},
        plane,
        closed_waves,
    ),
    "variables": ({"variables": 6, "code": 0, "common": 8}, sphere, many),
    "levels": ({"levels": 2}, volume, with_height),
}


LONGER = ("ocean", "variables", "levels")


@pytest.mark.parametrize("case", CASES)
def test_a_family_of_fields_is_learned_and_read_between_the_points(case):
    options, draw, family = CASES[case]
    rng = np.random.default_rng(1)
    points, elsewhere = draw(rng, 300), draw(rng, 400)

    def fields(count, *places):
        amplitudes = rng.normal(size=(count, 5))
        values = [torch.from_numpy(family(p, amplitudes)).float() for p in places]
        return [v.reshape(*v.shape[:2], -1) for v in values]

    (known,) = fields(24, points)
    scale = known.std()
    torch.manual_seed(0)
    net = Sinr(SinrSettings(**{"code": 8, "depth": 3, "order": 3, "width": 24} | options))
    functions = net.functions(points)
    train(net, functions, known / scale, steps=600 if case in LONGER else 300)
    here, there = fields(6, points, elsewhere)
    codes = least_squares(net, functions, here / scale)
    error = (net(codes, net.functions(elsewhere)) - there / scale).square().mean().sqrt()
    assert error < 0.05

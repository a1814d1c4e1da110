"""Prior of parameter maps: eight spatial patterns for kappa2, rho and theta, and test cases.

The patterns, their probabilities and ranges are those of the data generator released with
LatticeVision (arXiv 2505.09803), written anew. Maps are canonical (ny, nx) arrays: row 0 is the
southern row. Inside, the angle is the generator's ``theta_R`` in [0, 3]; callers get the direction
of longest correlation ``theta = theta_R - pi/2``, counter-clockwise from increasing x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.sar import operator, wrap_angle
from xr_spde.solvers.superlu import SuperLUFactor

Float = NDArray[np.float64]
Rng = np.random.Generator

# centre weight of the stencil, kappa2 + 4: 600 logarithmic and then 400 linear steps
_CENTRE = 4.0 + np.concatenate([np.geomspace(1e-4, 2.0, 600), np.linspace(1e-4, 2.0, 400)])


@dataclass(frozen=True)
class _Domain:
    """Range of one parameter and of the shapes drawn for it, as in the release."""

    lower: float
    upper: float
    bump: float
    bump_low: float
    perturb: float
    mid_is_low: bool
    choices: bool = False

    @property
    def mid(self) -> float:
        return 0.5 * (self.lower + self.upper)

    def constant(self, rng: Rng) -> float:
        if self.choices:
            return float(rng.choice(_CENTRE))
        return float(rng.uniform(self.lower, self.upper))

    def pair(self, rng: Rng) -> tuple[float, float]:
        """Draw a low and a high value around a common constant."""
        if self.choices:
            return float(rng.choice(_CENTRE[:500])), float(rng.choice(_CENTRE[-500:]))
        centre = self.constant(rng)
        return float(rng.uniform(self.lower, centre)), float(rng.uniform(centre, self.upper))

    def bumps(self, rng: Rng, count: int) -> tuple[float, Float]:
        """Draw a constant and the signed heights of bumps that point away from the nearer end."""
        centre = self.constant(rng)
        upward = centre < self.mid or (self.mid_is_low and centre == self.mid)
        heights = rng.uniform(self.bump_low, self.bump, count)
        return centre, heights if upward else -heights


_DOMAINS = {
    "kappa2": _Domain(4.0001, 6.0, 0.5, 0.1, 0.1998, True, choices=True),
    "theta": _Domain(0.0, 3.0, np.pi / 4, 0.1, 0.9998, False),
    "rho": _Domain(1.0, 7.0, 1.5, 0.1, 0.7498, True),
}


def _constant(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    return np.full(x.shape, domain.constant(rng))


def _taper(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    low, high = domain.pair(rng)
    t = ndtr(2.0 * x / rng.uniform(0.05, 1.0))
    return low * t + high * (1.0 - t)


def _bump(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    centre, (height,) = domain.bumps(rng, 1)
    return centre + height * np.exp(-(x**2 + y**2) / rng.uniform(0.2, 0.5))


def _double_bump(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    out, heights = domain.bumps(rng, 2)
    x0, y0, x1, y1 = rng.uniform(-1.0, 1.0, 4)
    first, second = rng.uniform(0.2, 0.5, 2)
    near = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / first)
    return out + heights[0] * near + heights[1] * np.exp(-((x + x1) ** 2 + (y + y1) ** 2) / second)


def _coast(x: Float, y: Float, rng: Rng) -> Float:
    """Draw a sigmoid across a wavy coastline, with one independent jitter per pixel."""
    steepness, slope = rng.uniform(3.0, 50.0), rng.uniform(-2.0, 2.0)
    height, frequency = rng.uniform(0.1, 0.5), rng.uniform(0.4, 3.0)
    line = slope * x + height * np.sin(2.0 * np.pi * frequency * x)
    line += 0.01 * rng.standard_normal(x.shape)
    return 1.0 / (1.0 + np.exp(-steepness * (y - line)))


def _coastline(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    low, high = domain.pair(rng)
    return low + (high - low) * _coast(x, y, rng)


def _double_coastline(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    low, high = domain.pair(rng)
    first = rng.uniform(0.1, 0.9)
    second = rng.uniform(0.1, 1.0 - first)
    return low + (high - low) * (first * _coast(x, y, rng) + second * _coast(x, y, rng))


def _sine(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    centre = domain.constant(rng)
    room = domain.upper - centre if centre > domain.mid else centre - domain.lower
    height, frequency = rng.uniform(0.0, room), rng.uniform(1.5, 5.0)
    if rng.random() < 0.5:
        return centre + height * np.sin(np.pi * frequency * x)
    return centre + height * np.cos(np.pi * frequency * y)


def _surface(x: Float, y: Float, rng: Rng) -> Float:
    """Isotropic LatticeKrig surface on [-1, 1]^2, scaled to [0, 1].

    Wendland functions of radius 2.5 lattice cells with SAR coefficients on a lattice that
    reaches five nodes beyond the domain and is periodic in x, as in the release.
    """
    count = int(rng.integers(6, 33))
    kappa2 = float(rng.choice(_CENTRE)) - 4.0
    size, step = count + 10, 2.0 / (count - 1)
    factor = SuperLUFactor(operator(np.full((size, size), kappa2), 1.0, 0.0, boundary="cylinder"))
    nodes = factor.solve(rng.standard_normal(size * size)).reshape(size, size)
    column, row = ((axis + 1.0) / step + 5.0 for axis in (x[0], y[:, 0]))
    left, below = np.floor(column).astype(int), np.floor(row).astype(int)
    out = np.zeros(x.shape)
    for dj in range(-2, 4):
        for di in range(-2, 4):
            d2 = (row - below - dj)[:, None] ** 2 + (column - left - di)[None, :] ** 2
            d = np.minimum(np.sqrt(d2) / 2.5, 1.0)
            basis = (1.0 - d) ** 6 * (35.0 * d**2 + 18.0 * d + 3.0) / 3.0
            out += basis * nodes[np.ix_(below + dj, left + di)]
    low, high = out.min(), out.max()
    return (out - low) / (high - low)


def _gaussian(domain: _Domain, x: Float, y: Float, rng: Rng) -> Float:
    surface = _surface(x, y, rng)
    if rng.random() < 0.5:
        return domain.lower + (domain.upper - domain.lower) * surface
    centre = domain.constant(rng)
    strength = rng.uniform(0.001, domain.perturb)
    sign = 1.0 if centre < domain.mid else -1.0
    return centre * (1.0 + sign * strength * surface)


PATTERNS: Mapping[str, Callable[[_Domain, Float, Float, Rng], Float]] = {
    "constant": _constant,
    "taper": _taper,
    "bump": _bump,
    "double_bump": _double_bump,
    "coastline": _coastline,
    "double_coastline": _double_coastline,
    "sine": _sine,
    "gaussian": _gaussian,
}
"""The eight patterns; each maps (domain, x, y, rng) to a map of one parameter."""

PRESETS: Mapping[str, Mapping[str, float]] = {
    "release": dict(zip(PATTERNS, (1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 4.0), strict=True)),
    "rotated": dict(zip(PATTERNS, (1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 4.0), strict=True)),
    "stationary": {"constant": 1.0},
}
"""Relative probabilities of the patterns.

``"release"`` is LatticeVision's generator, whose angle keeps off a gap of 0.14 rad near pi/2.
``"rotated"`` adds one uniform rotation per case, so that every direction is equally likely.
``"stationary"`` draws constants only.
"""


def _probabilities(preset: str, pattern_weights: Mapping[str, float] | None) -> Float:
    """Probability of each pattern in the order of PATTERNS."""
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    chosen = PRESETS[preset] if pattern_weights is None else pattern_weights
    for name in chosen:
        if name not in PATTERNS:
            raise unknown("pattern", name, PATTERNS)
    relative = np.array([float(chosen.get(name, 0.0)) for name in PATTERNS])
    if not (np.isfinite(relative).all() and (relative >= 0.0).all() and relative.sum() > 0.0):
        raise ParameterError(
            f"pattern_weights is {dict(chosen)}; expected non-negative numbers with a positive sum"
        )
    return relative / relative.sum()


def _draw_release(
    shape: tuple[int, int], rng: Rng, probabilities: Float, stack_probability: float
) -> dict[str, Float]:
    """Draw maps of kappa2, theta_R and rho in the generator's own convention."""
    ny, nx = shape
    y, x = np.meshgrid(np.linspace(-1.0, 1.0, ny), np.linspace(-1.0, 1.0, nx), indexing="ij")
    patterns = tuple(PATTERNS.values())

    def single(domain: _Domain) -> Float:
        return patterns[rng.choice(len(patterns), p=probabilities)](domain, x, y, rng)

    maps = {}
    for name, domain in _DOMAINS.items():
        value = single(domain)
        if rng.random() < stack_probability:
            share = rng.uniform(0.1, 1.0)
            value = share * value + (1.0 - share) * single(domain)
        maps[name] = value
    maps["kappa2"] = maps["kappa2"] - 4.0
    return maps


def draw_parameters(
    shape: tuple[int, int],
    *,
    rng: Rng,
    preset: str = "release",
    pattern_weights: Mapping[str, float] | None = None,
    stack_probability: float = 0.5,
) -> tuple[Float, Float, Float]:
    """One draw of the three parameter maps.

    Each parameter takes one of the eight :data:`PATTERNS`, or with `stack_probability` a convex
    mixture of two, independently of the other parameters.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``, each at least 2.
    rng : numpy.random.Generator
        Source of randomness.
    preset : {"release", "rotated", "stationary"}, default "release"
        See :data:`PRESETS`.
    pattern_weights : mapping of str to float, optional
        Relative probability per pattern, instead of those of the preset; names left out get 0.
    stack_probability : float, default 0.5
        Probability of a mixture of two patterns.

    Returns
    -------
    kappa2 : ndarray (ny, nx)
        Squared inverse range per squared grid cell, in about [5e-5, 2].
    rho : ndarray (ny, nx)
        Ratio of ranges, in [1, 7].
    theta : ndarray (ny, nx)
        Direction of longest correlation in radians, in [-pi/2, pi/2).

    Raises
    ------
    ParameterError
        For a shape below (2, 2), unusable weights or a probability outside [0, 1].
    UnknownNameError
        For an unknown preset or pattern.

    References
    ----------
    LatticeVision, arXiv 2505.09803, section on training data and released generator.
    """
    if len(shape) != 2 or min(shape) < 2:
        raise ParameterError(f"shape is {shape}; expected (ny, nx) of at least (2, 2)")
    if not 0.0 <= stack_probability <= 1.0:
        raise ParameterError(f"stack_probability is {stack_probability}; expected 0 to 1")
    maps = _draw_release(shape, rng, _probabilities(preset, pattern_weights), stack_probability)
    theta = maps["theta"] - np.pi / 2
    if preset == "rotated":
        theta = theta + rng.uniform(0.0, np.pi)
    # rounding may leave a convex mixture of ones a hair below one
    return maps["kappa2"], np.maximum(maps["rho"], 1.0), wrap_angle(theta)


def draw_test_case(
    shape: tuple[int, int],
    replicates: int,
    *,
    seed: int,
    buffer: int = 10,
    boundary: str = "cylinder",
    preset: str = "release",
    pattern_weights: Mapping[str, float] | None = None,
    stack_probability: float = 0.5,
) -> tuple[Float, Float, Float, Float]:
    """Replicate fields with known parameters, as LatticeVision trains and tests on.

    Parameter maps are drawn and fields simulated on a grid that is `buffer` cells larger on all
    four sides, then cropped. The boundary rule acts on the larger grid, so the kept fields are
    periodic nowhere.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` of what is kept.
    replicates : int
        Number of fields.
    seed : int
        Seeds parameters and noise (two independent streams).
    buffer : int, default 10
        Cells added on each side before cropping.
    boundary : {"cylinder", "plane", "torus", "paper"}, default "cylinder"
        Rule on the larger grid; ``"paper"`` is the release's.
    preset, pattern_weights, stack_probability
        As in :func:`draw_parameters`.

    Returns
    -------
    fields : ndarray (replicates, ny, nx)
        Draws of ``B^-1 e``, neither centred nor standardised.
    kappa2, rho, theta : ndarray (ny, nx)
        As :func:`draw_parameters` returns them.

    Raises
    ------
    ParameterError
        For a number of replicates or a buffer that is not usable, and as in
        :func:`draw_parameters`.
    """
    maps, noise = draw_test_inputs(
        shape,
        replicates,
        seed=seed,
        buffer=buffer,
        preset=preset,
        pattern_weights=pattern_weights,
        stack_probability=stack_probability,
    )
    factor = SuperLUFactor(operator(*maps, boundary=boundary))
    fields = factor.solve(noise.reshape(replicates, -1).T).T.reshape(noise.shape)
    ny, nx = shape
    kept = np.s_[buffer : buffer + ny, buffer : buffer + nx]
    kappa2, rho, theta = (value[kept].copy() for value in maps)
    return fields[(slice(None), *kept)].copy(), kappa2, rho, theta


def draw_test_inputs(
    shape: tuple[int, int],
    replicates: int,
    *,
    seed: int,
    buffer: int = 10,
    preset: str = "release",
    pattern_weights: Mapping[str, float] | None = None,
    stack_probability: float = 0.5,
) -> tuple[tuple[Float, Float, Float], Float]:
    """Parameter maps and white noise of a test case, on the grid that is simulated.

    Parameters
    ----------
    shape, replicates, seed, buffer, preset, pattern_weights, stack_probability
        As in :func:`draw_test_case`.

    Returns
    -------
    maps : tuple of ndarray (ny + 2 buffer, nx + 2 buffer)
        kappa2, rho and theta.
    noise : ndarray (replicates, ny + 2 buffer, nx + 2 buffer)

    Raises
    ------
    ParameterError
        As in :func:`draw_test_case`.
    """
    if replicates < 1 or buffer < 0:
        raise ParameterError(
            f"replicates is {replicates} and buffer is {buffer}; expected at least 1 and 0"
        )
    for_maps, for_noise = (
        np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(k,))))
        for k in range(2)
    )
    ny, nx = shape
    larger = (ny + 2 * buffer, nx + 2 * buffer)
    maps = draw_parameters(
        larger,
        rng=for_maps,
        preset=preset,
        pattern_weights=pattern_weights,
        stack_probability=stack_probability,
    )
    noise = for_noise.standard_normal((replicates, larger[0] * larger[1]))
    return maps, noise.reshape(replicates, *larger)

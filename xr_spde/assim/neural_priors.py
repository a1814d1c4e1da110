r"""Stationary SPDE priors for training: numbers that fit samples, and fields of random ranges.

On a torus of unit cells the space-time prior is diagonal: with
:math:`b(k) = (\kappa^2 + k' H k)^{2}` (alpha = 4, second differences for :math:`k' H k`), every
mode is an autoregression with the factor :math:`\exp(-i k \cdot c) / (1 + b)`, carried along with
the velocity c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.assim.neural_cells import between_steps

if TYPE_CHECKING:
    from xr_spde.nets.variational_windows import Place, Sample

__all__ = ["RandomPriorSource", "draw_field", "matched_theta", "random_theta"]

Float = NDArray[np.float64]

_SPACE_LAGS, _TIME_LAGS = (1, 2, 4, 8, 12, 16), (1, 2, 4)
_LENGTHS = np.geomspace(1.0, 14.0, 15)
_DECAYS = np.geomspace(2.0, 80.0, 13)
_TORUS = 64


def _modes(theta: Mapping[str, float], ny: int, nx: int) -> tuple[NDArray[Any], Float]:
    """Factor and stationary variance of every mode (ny, nx // 2 + 1), for a tau of one."""
    ky, kx = 2 * np.pi * np.fft.fftfreq(ny)[:, None], 2 * np.pi * np.fft.rfftfreq(nx)[None]
    h11 = theta["gamma"] + theta["beta"] * theta["v1"] ** 2
    h22 = theta["gamma"] + theta["beta"] * theta["v2"] ** 2
    h12 = theta["beta"] * theta["v1"] * theta["v2"]
    symbol = theta["kappa"] ** 2 + 2 * h11 * (1 - np.cos(kx)) + 2 * h22 * (1 - np.cos(ky))
    symbol = symbol + 2 * h12 * np.sin(kx) * np.sin(ky)
    size = 1.0 / (1.0 + symbol**2)
    carried = np.exp(-1j * (theta["u"] * kx + theta["v"] * ky))
    return size * carried, size**2 / (1.0 - size**2)


def draw_field(
    theta: Mapping[str, float],
    steps: int,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Float:
    """Draw a stationary field of unit variance.

    Parameters
    ----------
    theta : mapping of str to float
        In cells and steps: ``kappa``, ``gamma``, ``beta``, ``v1``, ``v2`` of the operator, and the
        velocity ``u``, ``v``.
    steps : int
        Steps T.
    shape : tuple of int
        Rows and columns, periodic.
    rng : Generator
        Of the draw.

    Returns
    -------
    ndarray (T, ny, nx)
    """
    factor, variance = _modes(theta, *shape)
    total = _mean_over_torus(variance, shape[1]).real
    root, kick = np.sqrt(variance / total), np.abs(factor) / math.sqrt(total)
    state = root * np.fft.rfft2(rng.standard_normal(shape))
    out = [np.fft.irfft2(state, s=shape)]
    for _ in range(steps - 1):
        state = factor * state + kick * np.fft.rfft2(rng.standard_normal(shape))
        out.append(np.fft.irfft2(state, s=shape))
    return np.stack(out)


def _mean_over_torus(values: NDArray[Any], nx: int) -> Any:
    """Mean over all modes of what is known for the half of them."""
    weight = np.full(values.shape[1], 2.0)
    weight[0] = 1.0
    if nx % 2 == 0:
        weight[-1] = 1.0
    return (values * weight).sum() / (values.shape[0] * nx)


def random_theta(
    rng: np.random.Generator,
    *,
    length: tuple[float, float] = (2.0, 9.0),
    decay: tuple[float, float] = (4.0, 40.0),
    drift: float = 0.4,
) -> dict[str, float]:
    """Draw parameters of a prior.

    Parameters
    ----------
    rng : Generator
        Of the draw.
    length : (float, float)
        Least and largest square root of the diffusion over kappa in cells.
    decay : (float, float)
        Least and largest decay time of the longest waves in steps.
    drift : float
        Standard deviation of the velocity in cells per step.

    Returns
    -------
    dict of str to float
    """
    far = math.exp(rng.uniform(*np.log(length)))
    time = math.exp(rng.uniform(*np.log(decay)))
    stretch, angle = math.exp(rng.uniform(0.0, math.log(4.0))), rng.uniform(0.0, math.pi)
    kappa = time**-0.25
    gamma = (far * kappa) ** 2 / math.sqrt(stretch)
    beta = gamma * (stretch - 1.0)
    u, v = drift * rng.standard_normal(2)
    return {
        "kappa": kappa, "u": float(u), "v": float(v), "v1": math.cos(angle),
        "v2": math.sin(angle), "gamma": gamma, "beta": beta,
    }  # fmt: skip


def matched_theta(samples: Sequence[Float]) -> dict[str, float]:
    """Constant isotropic parameters whose correlations are nearest to those of samples.

    Parameters
    ----------
    samples : sequence of ndarray (T, ny, nx)
        Anomalies in units of their scale; NaN where not known.

    Returns
    -------
    dict of str to float
        kappa, tau and gamma in cells and steps, with a variance of one.
    """
    space = [_correlation(samples, lag, time=False) for lag in _SPACE_LAGS]
    time = [_correlation(samples, lag, time=True) for lag in _TIME_LAGS]
    wanted = np.array([*space, *time])
    known = np.isfinite(wanted)
    best, found = math.inf, (4.0, 10.0, 1.0)
    lags = np.exp(1j * np.outer(_SPACE_LAGS, 2 * np.pi * np.fft.rfftfreq(_TORUS)))
    for length in _LENGTHS:
        for decay in _DECAYS:
            kappa = decay**-0.25
            theta = {"kappa": kappa, "gamma": (length * kappa) ** 2, **_ROUND}
            factor, variance = _modes(theta, _TORUS, _TORUS)
            total = _mean_over_torus(variance, _TORUS).real
            ahead = [_mean_over_torus(variance * wave.real, _TORUS) for wave in lags]
            later = [_mean_over_torus(variance * factor**lag, _TORUS) for lag in _TIME_LAGS]
            told = np.real(np.array([*ahead, *later])) / total
            misfit = float(np.square(told - wanted)[known].sum())
            if misfit < best:
                best, found = misfit, (length, decay, float(total))
    length, decay, total = found
    kappa = float(decay**-0.25)
    return {"kappa": kappa, "tau": total**-0.5, "gamma": float(length * kappa) ** 2}


_ROUND = {"u": 0.0, "v": 0.0, "v1": 1.0, "v2": 0.0, "beta": 0.0}


def _correlation(samples: Sequence[Float], lag: int, *, time: bool) -> float:
    """Correlation of values so many cells or steps apart; NaN where none are."""
    pairs = []
    for x in samples:
        if time:
            pairs.append((x[lag:], x[:-lag]))
        else:
            pairs += [(x[:, lag:], x[:, :-lag]), (x[:, :, lag:], x[:, :, :-lag])]
    first, second = (np.concatenate([p[k].ravel() for p in pairs]) for k in (0, 1))
    known = np.isfinite(first) & np.isfinite(second)
    size = math.sqrt(np.square(first[known]).sum() * np.square(second[known]).sum())
    return float((first[known] * second[known]).sum() / size) if size > 0.0 else math.nan


@dataclass(frozen=True, eq=False)
class RandomPriorSource:
    """Fields of random SPDE priors, observed where and as well as a series is.

    Two draws of different parameters share a window, one growing into the other over it, so that
    ranges and drift vary in space.

    Attributes
    ----------
    base : Source
        Whose masks, coasts and errors are taken.
    ranges : mapping
        Arguments of :func:`random_theta`.
    """

    base: Any
    ranges: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        shape: tuple[int, int] = self.base.shape
        return shape

    def cut(self, place: Place, rng: np.random.Generator) -> Sample:
        """Draw a window; whatever is drawn comes from `rng`."""
        sample: Sample = self.base.cut(place, rng)
        steps, ny, nx = sample.obs.shape
        # a torus that is wider than the window, so that opposite edges are apart
        torus = ny + ny // 2, nx + nx // 2
        one, two = (
            draw_field(random_theta(rng, **self.ranges), steps, torus, rng)[:, :ny, :nx]
            for _ in range(2)
        )
        angle = rng.uniform(0.0, 2 * np.pi)
        across = np.cos(angle) * np.linspace(-1, 1, ny)[:, None]
        across = across + np.sin(angle) * np.linspace(-1, 1, nx)[None]
        share = 0.5 * np.pi / (1.0 + np.exp(-4.0 * (across + rng.uniform(-0.7, 0.7))))
        truth = np.cos(share) * one + np.sin(share) * two
        noise = np.sqrt(sample.variance) * rng.standard_normal(truth.shape)
        obs = np.where(sample.mask, between_steps(truth, sample.offset) + noise, 0.0)
        return replace(sample, obs=obs, truth=truth)

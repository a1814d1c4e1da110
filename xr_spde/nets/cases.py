"""Batches for training: cases of known parameters, chosen, varied and reduced to what a net eats.

Every batch depends on (seed, step) alone, so that a run killed and resumed sees the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from xr_spde._core.errors import ParameterError
from xr_spde.nets.lag_features import LagMoments, lag_moments

Rng = np.random.Generator
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Variation:
    """How cases are varied from one visit to the next.

    Attributes
    ----------
    replicates : int
        The number of replicates M that matters most.
    fixed : bool
        Always take `replicates`; else half of the visits draw M log-uniformly from 1 to all.
    symmetries : bool
        Reflect and transpose grids (8 ways).
    rolls : bool
        Shift grids circularly on half of the visits, across the seams too, as LatticeVision does.
    scales : bool
        Multiply fields by a smooth random scale, or divide them by their sample standard
        deviation: the parameters are to be read from correlations, whatever the variances.
    standardize : bool
        Always divide by the sample standard deviation of all replicates instead, as networks on
        replicates want it.
    gaps : float
        Share of the visits with missing cells (a third each: coasts, clouds, single cells).

    Raises
    ------
    ParameterError
        For fewer than one replicate, or no such share.
    """

    replicates: int = 30
    fixed: bool = False
    symmetries: bool = True
    rolls: bool = False
    scales: bool = True
    standardize: bool = False
    gaps: float = 0.2

    def __post_init__(self) -> None:
        if self.replicates < 1 or not 0.0 <= self.gaps <= 1.0:
            raise ParameterError(
                f"replicates is {self.replicates} and gaps {self.gaps}; expected at least 1, and "
                "a share in [0, 1]"
            )


def _smooth(shape: tuple[int, int], rng: Rng) -> Array:
    """Sum of a few long waves, of unit variance or so."""
    y, x = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")
    out = np.zeros(shape)
    for _ in range(4):
        ky, kx = rng.uniform(-6.0, 6.0, 2)
        out += np.cos(2.0 * np.pi * (ky * y + kx * x) + rng.uniform(0.0, 2.0 * np.pi))
    return np.asarray(out / np.sqrt(2.0), dtype=np.float32)


def _standardized(fields: Array, known: Array) -> Array:
    """Subtract the mean of some replicates and divide by their deviation, cell by cell."""
    return np.asarray((fields - known.mean(0)) / np.maximum(known.std(0, ddof=1), 1e-20))


def _rescale(fields: Array, count: int, kappa2: Array, rng: Rng) -> Array:
    """Take what the variances tell of kappa2 away."""
    if len(fields) >= 5 and rng.random() < 0.5:
        # the sample's own standard deviation, or that of more replicates than are shown
        return _standardized(fields, fields if rng.random() < 0.5 else fields[: max(count, 5)])
    fields = fields * np.sqrt(4.0 * np.pi * kappa2)  # near unit variance
    if rng.random() < 0.7:
        fields = fields * np.exp(rng.uniform(0.0, 1.0) * _smooth(fields.shape[1:], rng))
    return fields


def _punch(fields: Array, rng: Rng) -> Array:
    """Set cells to NaN: one coast for all replicates, clouds for each, or single cells."""
    kind, share = rng.integers(3), rng.uniform(0.05, 0.6)
    fields = fields.copy()
    if kind == 0:
        wave = _smooth(fields.shape[1:], rng)
        fields[:, wave > np.quantile(wave, 1.0 - share)] = np.nan
    elif kind == 1:
        for field in fields:
            wave = _smooth(field.shape, rng)
            field[wave > np.quantile(wave, 1.0 - share)] = np.nan
    else:
        fields[rng.random(fields.shape, dtype=np.float32) < share] = np.nan
    return fields


def _wrapped(theta: Array) -> Array:
    """Bring angles to [-pi/2, pi/2), where networks without doubled angles learn them."""
    return np.asarray(np.remainder(theta + np.pi / 2, np.pi) - np.pi / 2, dtype=np.float32)


def _reflect(fields: Array, maps: list[Array], rng: Rng) -> tuple[Array, list[Array]]:
    """Reverse rows, columns or both; the angle follows."""
    stack = [fields, *maps]
    for axis in (-1, -2):
        if rng.random() < 0.5:
            stack = [np.flip(a, axis) for a in stack]
            stack[3] = -stack[3]
    return stack[0], stack[1:]


def vary(
    fields: Array, maps: Sequence[Array], variation: Variation, rng: Rng, count: int
) -> tuple[Array, Array]:
    """One visit to a case.

    Parameters
    ----------
    fields : ndarray (R, H, W)
        Replicates.
    maps : sequence of ndarray (H, W)
        kappa2, rho and theta.
    variation : Variation
        What may change.
    rng : numpy.random.Generator
        Source of randomness.
    count : int
        Replicates to keep.

    Returns
    -------
    fields : ndarray (count, H, W)
        Chosen replicates; NaN is missing.
    truth : ndarray (3, H, W)
        log kappa2, log rho and theta in [-pi/2, pi/2).
    """
    fields = fields[rng.permutation(len(fields))].astype(np.float32)
    maps = [np.asarray(m, dtype=np.float32) for m in maps]
    if variation.standardize:
        fields = _standardized(fields, fields)
    elif variation.scales:
        fields = _rescale(fields, count, maps[0], rng)
    fields = fields[:count]
    if rng.random() < variation.gaps:
        fields = _punch(fields, rng)
    if variation.rolls and rng.random() < 0.5:
        shift = tuple(int(rng.integers(-n, n + 1)) for n in fields.shape[1:])
        fields = np.roll(fields, shift, (-2, -1))
        maps = [np.roll(m, shift, (-2, -1)) for m in maps]
    if variation.symmetries:
        fields, maps = _reflect(fields, maps, rng)
    truth = np.stack([np.log(maps[0]), np.log(np.maximum(maps[1], 1.0)), _wrapped(maps[2])])
    return np.ascontiguousarray(fields), truth


class Source(Protocol):
    """Cases that are made when asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cases, replicates, rows and columns."""

    def fetch(self, indices: Sequence[int]) -> list[dict[str, NDArray[Any]]]:
        """Arrays of some cases, by name."""


def _shape(group: Mapping[str, Any] | Source) -> tuple[int, ...]:
    return tuple(group["fields"].shape if isinstance(group, Mapping) else group.shape)


def _fetch(group: Mapping[str, Any] | Source, indices: list[int]) -> list[dict[str, Any]]:
    if isinstance(group, Mapping):
        names = ("fields", "kappa2", "rho", "theta")
        return [{name: np.asarray(group[name][i]) for name in names} for i in indices]
    return group.fetch(indices)


class CaseBatches(Dataset[tuple[Any, Tensor]]):
    """Batch number i of a run.

    Parameters
    ----------
    groups : sequence of mapping or Source
        Arrays "fields" (cases, R, H, W), "kappa2", "rho", "theta" (cases, H, W) for each grid
        size, anything that numpy can index and that pickles; or what makes them.
    shares : sequence of float
        Probability of each group.
    cells : int
        Grid cells of a batch: each has as many cases as make up this number, at least one.
    variation : Variation
        See there.
    seed : int
        Seed of the run.
    moments : bool
        Whether batches are `LagMoments` or raw replicates.
    window : int
        Side of the square windows cut at random; 0 takes whole fields.

    Raises
    ------
    ParameterError
        If a window does not fit into the grids.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any] | Source],
        shares: Sequence[float],
        *,
        cells: int,
        variation: Variation,
        seed: int,
        moments: bool = True,
        window: int = 0,
    ) -> None:
        self.groups, self.cells, self.variation = list(groups), cells, variation
        self.shares = np.asarray(shares, dtype=float) / np.sum(shares)
        self.seed, self.moments, self.window = seed, moments, window
        sizes = [_shape(group)[2:] for group in self.groups]
        if window > min(map(min, sizes)):
            raise ParameterError(f"window is {window}, but grids have {sizes} rows and columns")

    def __getitem__(self, step: int) -> tuple[LagMoments | Tensor, Tensor]:
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence((self.seed, step))))
        group = self.groups[rng.choice(len(self.groups), p=self.shares)]
        total, most, *shape = _shape(group)
        batch = max(self.cells // (shape[0] * shape[1]), 1)
        # all cases of a batch or none: they must have one size
        transposed = self.variation.symmetries and rng.random() < 0.5
        inputs: list[Any] = []
        truths = []
        for case in _fetch(group, [int(i) for i in rng.integers(total, size=batch)]):
            maps = [case[name] for name in ("kappa2", "rho", "theta")]
            count = self._count(most, rng)
            fields, truth = vary(case["fields"], maps, self.variation, rng, count)
            if transposed:
                fields, truth = _transpose(fields, truth)
            for visible, target in self._cut(fields, truth, rng):
                tensor = torch.from_numpy(visible)
                inputs.append(lag_moments(tensor).pooled() if self.moments else tensor[None])
                truths.append(torch.from_numpy(target))
        joined = LagMoments.stack(inputs) if self.moments else torch.cat(inputs)
        return joined, torch.stack(truths)

    def _cut(self, fields: Array, truth: Array, rng: Rng) -> list[tuple[Array, Array]]:
        """Windows that together have as many cells as the case, or the case itself."""
        size = self.window
        if not size:
            return [(fields, truth)]
        ny, nx = truth.shape[1:]
        out = []
        for _ in range(max(ny * nx // size**2, 1)):
            j, i = rng.integers(ny - size + 1), rng.integers(nx - size + 1)
            place = (slice(None), slice(j, j + size), slice(i, i + size))
            out.append((fields[place].copy(), truth[place].copy()))
        return out

    def _count(self, most: int, rng: Rng) -> int:
        wanted = min(self.variation.replicates, most)
        if self.variation.fixed or rng.random() < 0.5:
            return wanted
        return int(np.exp(rng.uniform(0.0, np.log(most + 1))))


def _transpose(fields: Array, truth: Array) -> tuple[Array, Array]:
    """Exchange rows and columns; the angle follows."""
    truth = np.ascontiguousarray(np.swapaxes(truth, -1, -2))
    truth[2] = _wrapped(np.pi / 2 - truth[2])
    return np.ascontiguousarray(np.swapaxes(fields, -1, -2)), truth


def held_case(
    arrays: Mapping[str, Array], count: int, *, moments: bool
) -> tuple[LagMoments | Tensor, Tensor]:
    """Input and truth of a validation case, prepared as LatticeVision prepares its test fields.

    Parameters
    ----------
    arrays : mapping
        "fields" (R, H, W), "kappa2", "rho" and "theta" (H, W).
    count : int
        Replicates M to show: the first ones, after pixelwise standardising over the first 30.
    moments : bool
        Whether the input is `LagMoments` or raw replicates.

    Returns
    -------
    inputs : LagMoments or Tensor (1, M, H, W)
    truth : Tensor (1, 3, H, W)
    """
    fields = arrays["fields"][:30].astype(np.float32)
    fields = (fields - fields.mean(0)) / fields.std(0, ddof=1)
    tensor = torch.from_numpy(np.ascontiguousarray(fields[:count]))
    log_rho = np.log(np.maximum(arrays["rho"], 1.0))
    truth = np.stack([np.log(arrays["kappa2"]), log_rho, arrays["theta"]]).astype(np.float32)
    return lag_moments(tensor).pooled() if moments else tensor[None], torch.from_numpy(truth)[None]

"""Windows of codes, batches that a seed and a step determine, and roll-outs."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xr_spde._core.codes import Forcing
from xr_spde._core.errors import ParameterError

__all__ = ["CodeBatch", "CodeBatches", "CodeWindows", "complete_windows", "roll_out"]

LOGGER = logging.getLogger(__name__)

Float = NDArray[np.float64]

_HELD = 0.1


@dataclass(frozen=True)
class CodeBatch:
    """Windows of codes.

    Attributes
    ----------
    codes : Tensor (B, S, n)
        Codes.
    dts : Tensor (B, S - 1)
        Lengths of the steps.
    times : Tensor (B, S)
        In steps since 1970-01-01, float64.
    anew : Tensor (S - 1,)
        Which steps start from the true code.
    """

    codes: Tensor
    dts: Tensor
    times: Tensor
    anew: Tensor

    def to(self, device: str) -> CodeBatch:
        """Copy to a device."""
        return CodeBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def roll_out(network: nn.Module, batch: CodeBatch) -> Tensor:
    """Forecast windows from their first codes.

    Parameters
    ----------
    network : Module
        Of code, length of the step and time in steps.
    batch : CodeBatch
        Windows.

    Returns
    -------
    Tensor (B, S - 1, n)
        Codes after the first.
    """
    z, steps = batch.codes[:, 0], []
    for k in range(batch.dts.shape[1]):
        if k and bool(batch.anew[k]):
            z = batch.codes[:, k]
        z = _advance(network, z, batch.dts[:, k], batch.times[:, k])
        steps.append(z)
    return torch.stack(steps, 1)


def _advance(network: nn.Module, z: Tensor, dts: Tensor, times: Tensor) -> Tensor:
    """One step of all members, those of one length together."""
    lengths = torch.unique(dts)
    if len(lengths) == 1:
        moved: Tensor = network(z, float(lengths), times)
        return moved
    result = torch.empty_like(z)
    for length in lengths:
        part = torch.nonzero(dts == length)[:, 0]
        result = result.index_copy(0, part, network(z[part], float(length), times[part]))
    return result


@dataclass(frozen=True)
class CodeWindows:
    """Windows of codes without gaps.

    Attributes
    ----------
    codes : ndarray (W, S, n)
        As float32.
    dts : ndarray (W, S - 1)
        Lengths of the steps.
    times : ndarray (W, S)
        In steps since 1970-01-01.
    """

    codes: NDArray[np.float32]
    dts: Float
    times: Float

    def part(self, which: NDArray[np.bool_]) -> CodeWindows:
        """Take some of the windows."""
        return CodeWindows(self.codes[which], self.dts[which], self.times[which])

    def take(self, index: NDArray[np.int64], first: NDArray[np.int64], steps: int) -> CodeBatch:
        """Windows of so many steps, from a first code of those numbered."""
        at = first[:, None] + np.arange(steps + 1)
        rows = index[:, None]
        return CodeBatch(
            torch.from_numpy(self.codes[rows, at]),
            torch.from_numpy(self.dts[rows, at[:, :-1]]),
            torch.from_numpy(self.times[rows, at]),
            torch.zeros(steps, dtype=torch.bool),
        )

    def whole(self) -> CodeBatch:
        """Take all windows in full."""
        count, steps = self.dts.shape
        return self.take(np.arange(count), np.zeros(count, dtype=np.int64), steps)


class CodeBatches:
    """Batches by step of the optimiser: each a function of the seed and the step alone.

    Parameters
    ----------
    windows : CodeWindows
        Of the training.
    horizon : int
        Steps of a roll-out.
    size : int
        Windows in a batch.
    seed : int
        Of their order, of noise, and of where roll-outs start anew.
    noise : ndarray (n,), optional
        Standard deviations of noise on first codes.
    decay : float, optional
        Of the probability of starting anew in each epoch; by default they never do.
    """

    def __init__(
        self,
        windows: CodeWindows,
        horizon: int,
        size: int,
        seed: int,
        *,
        noise: Float | None = None,
        decay: float | None = None,
    ) -> None:
        self.windows, self.horizon, self.seed, self.decay = windows, horizon, seed, decay
        self.noise = None if noise is None else torch.from_numpy(noise.astype(np.float32))
        self.places = windows.dts.shape[1] - horizon + 1
        self.count = len(windows.codes) * self.places
        self.size = min(size, self.count)
        self.epoch_steps = max(1, self.count // self.size)

    def __getitem__(self, step: int) -> tuple[CodeBatch, Tensor]:
        epoch, number = divmod(step, self.epoch_steps)
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(self.count)
        drawn = order[number * self.size : (number + 1) * self.size]
        batch = self.windows.take(drawn // self.places, drawn % self.places, self.horizon)
        truth = batch.codes[:, 1:]
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {step}".encode()))
        codes, anew = batch.codes, batch.anew
        if self.noise is not None:
            codes = codes.clone()
            shape = (len(codes), len(self.noise))
            codes[:, 0] += self.noise * torch.randn(shape, generator=generator)
        if self.decay is not None:
            share = self.decay ** (epoch + 1)
            anew = torch.rand(self.horizon, generator=generator) < share
        return CodeBatch(codes, batch.dts, batch.times, anew), truth


def complete_windows(
    windows: ArrayLike, dts: ArrayLike | None, times: ArrayLike | None, held: ArrayLike | None,
    forcing: Forcing | None,
) -> tuple[CodeWindows, NDArray[np.bool_]]:  # fmt: skip
    """Leave out windows with gaps, and say which of the others are held out.

    Parameters
    ----------
    windows, dts, times, held, forcing
        As `xr_spde.nets.latent_dynamics_training.fit_dynamics` takes them.

    Returns
    -------
    windows : CodeWindows
    held : ndarray of bool

    Raises
    ------
    ParameterError
        For shapes that do not fit, or if none are left.
    """
    codes = np.asarray(windows, dtype=np.float32)
    if codes.ndim != 3 or codes.shape[1] < 2:
        raise ParameterError(f"windows have shape {codes.shape}; expected (W, S, n), S at least 2")
    count, length, _ = codes.shape
    dt = np.ones((count, length - 1)) if dts is None else np.asarray(dts, dtype=np.float64)
    time = np.zeros((count, length)) if times is None else np.asarray(times, dtype=np.float64)
    out = np.arange(count) >= count - max(1, round(_HELD * count))
    out = out if held is None else np.asarray(held, dtype=bool)
    if dt.shape != (count, length - 1) or time.shape != (count, length) or out.shape != (count,):
        raise ParameterError(
            f"dts {dt.shape}, times {time.shape}, held {out.shape} do not fit windows {codes.shape}"
        )
    if forcing is not None:
        if times is None:
            raise ParameterError("times= is missing: forcing by the calendar needs them")
        time = time / forcing.step
    kept = np.isfinite(codes).all((1, 2)) & (dt > 0.0).all(1)
    if not kept.all():
        LOGGER.info("%d of %d windows have gaps and are left out", (~kept).sum(), count)
    if not (kept & out).any() or not (kept & ~out).any():
        raise ParameterError(
            f"{int((kept & ~out).sum())} complete windows to train on and {int((kept & out).sum())}"
            " held out; expected one of each at least"
        )
    return CodeWindows(codes[kept], np.round(dt[kept], 3), time[kept]), out[kept]

"""Training of auto-encoders of fields: mean square errors weighed by area, gaps left out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import Seed, resolve_seed
from xr_spde.nets.auto_encoder_map import AeflowMap, AutoEncoderMap
from xr_spde.nets.auto_encoders import FieldAutoEncoder, NetworkSettings
from xr_spde.nets.grid_order import GridOrder
from xr_spde.nets.inference import single_thread
from xr_spde.nets.training import Run, Schedule

__all__ = ["AutoEncoderSettings", "fit_auto_encoder"]

Array = NDArray[Any]
Float = NDArray[np.float64]

_SCORED = 64  # snapshots that validation looks at


@dataclass(frozen=True)
class AutoEncoderSettings:
    """Settings of a training.

    Attributes
    ----------
    kind : {"cae", "aeflow"}
        Network.
    width, latent, blocks : int
        As for :class:`xr_spde.nets.auto_encoders.NetworkSettings`.
    batch : int
        Snapshots of a step.
    held : float
        Share of the snapshots, the last ones, that validation takes.
    schedule : Schedule
        Of the steps.
    """

    kind: str = "cae"
    width: int | None = None
    latent: int = 8
    blocks: int = 4
    batch: int = 16
    held: float = 0.1
    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=10_000, rate=2e-3, warmup=200, decay=0.0, every=500,
                                         patience=20, mixed=False)
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0.0 < self.held < 1.0:
            raise ParameterError(
                f"batch={self.batch}, held={self.held}: expected at least one snapshot, and a "
                "share between 0 and 1"
            )


def fit_auto_encoder(
    values: Any,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    settings: AutoEncoderSettings | None = None,
    folder: str | os.PathLike[str],
    sphere: bool = True,
    seed: Seed = 0,
    device: str = "cpu",
) -> tuple[AutoEncoderMap, Float]:
    """Train an auto-encoder on a series of fields on a grid.

    Parameters
    ----------
    values : array-like (N, P, c)
        Normalised snapshots: an array, or anything that ``[start:stop]`` cuts and numpy can read;
        NaN is missing, and enters the network as zero.
    points : array_like (P, 2)
        Longitude and latitude in radians, or x and y; a complete grid in any order.
    weights : array_like (P,) or (P, c), optional
        Of the squared errors, such as areas; by default equal.
    settings : AutoEncoderSettings, optional
        See there.
    folder : path-like
        For checkpoints: a run that was stopped goes on there.
    sphere : bool, default True
        Whether `points` are longitude and latitude.
    seed : int, SeedSequence or Generator, default 0
        Of the first weights and of the batches.
    device : str, default "cpu"
        Torch device.

    Returns
    -------
    AutoEncoderMap
        The map, on the processor.
    ndarray (N, n)
        Codes of the snapshots.

    Raises
    ------
    ParameterError
        For shapes that do not fit, points that are no grid, or fewer than two snapshots.
    """
    s = AutoEncoderSettings() if settings is None else settings
    grid = GridOrder(points, sphere=sphere)
    shape = tuple(values.shape)
    if len(shape) != 3 or shape[1] != len(grid.order) or shape[0] < 2:
        raise ParameterError(
            f"values have shape {shape}; expected (N, {len(grid.order)}, c), N > 1"
        )
    network = NetworkSettings(
        s.kind, shape[2], grid.ny, grid.nx, periodic=grid.periodic,
        width=s.width, latent=s.latent, blocks=s.blocks,
    )  # fmt: skip
    held = max(1, round(s.held * shape[0]))
    series = _Series(values, grid, _weights(weights, shape, values), shape[0] - held)
    entropy = resolve_seed(seed)
    with single_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(entropy % 2**63)
        net = FieldAutoEncoder(network)
        recipe = json.dumps({**asdict(s), "network": asdict(network), "seed": str(entropy)})
        run = Run(net, s.schedule, folder, device=device, recipe=recipe)
        batches = series.batches(s.batch, entropy, run.step)
        weight = series.weight.to(device)
        for _ in run.train(batches, _loss(weight), series.validate(weight, device)):
            pass
        # the layout in memory of a network that was read back, and so its bits
        net = net.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        codes = series.codes(net)
        residual = series.residual(net)
    kind = AeflowMap if s.kind == "aeflow" else AutoEncoderMap
    spread = np.maximum(codes.std(axis=0), 1e-3 * codes.std())
    fitted = kind(
        net, np.asarray(points, dtype=np.float64), grid.values(series.weight[None])[0].numpy(),
        codes.mean(axis=0), spread, residual, sphere=sphere,
    )  # fmt: skip
    return fitted, codes


def _weights(weights: ArrayLike | None, shape: tuple[int, ...], values: Any) -> Float:
    """Weights (P, c) with sum one, zero where the first snapshots have no value."""
    w = np.ones(shape[1:]) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape not in (shape[1:], shape[1:2]) or not (np.isfinite(w) & (w >= 0.0)).all():
        raise ParameterError(
            f"weights have shape {w.shape}; expected numbers >= 0 of shape ({shape[1]},) or "
            f"{shape[1:]}"
        )
    w = np.broadcast_to(w[:, None] if w.ndim == 1 else w, shape[1:])
    seen = np.zeros(shape[1:], dtype=bool)
    for low in range(0, shape[0], _SCORED):
        seen |= np.isfinite(np.asarray(values[low : low + _SCORED])).any(axis=0)
        if seen[w > 0.0].all():
            break
    w = np.where(seen, w, 0.0)
    if not (w > 0.0).any(axis=0).all():
        raise ParameterError("a variable has no value, or no weight, anywhere; leave it out")
    return np.asarray(w / (shape[2] * w.sum(axis=0)))


def _loss(weight: Tensor) -> Any:
    """Weighted mean square error of what is known."""

    def loss(net: nn.Module, fields: Tensor, truth: Tensor) -> Tensor:
        known = truth.isfinite()
        error = torch.where(known, net(fields) - torch.where(known, truth, 0.0), 0.0)
        # over what is known of each variable
        share = (weight * known).sum((0, 2, 3)) / (weight.sum((1, 2)) * len(truth))
        return ((weight * error**2).sum((0, 2, 3)) / share.clamp_min(1e-6)).sum() / len(truth)

    return loss


class _Series:
    """Snapshots as images: batches at random, the last ones for validation."""

    def __init__(self, values: Any, grid: GridOrder, weights: Float, train: int) -> None:
        self.values, self.grid, self.train, self.count = values, grid, train, int(values.shape[0])
        self.weight = grid.images(weights[None])[0]

    def images(self, numbers: Any) -> Tensor:
        """Images of some snapshots, in order."""
        if isinstance(numbers, slice):
            return self.grid.images(np.asarray(self.values[numbers]))
        each = [np.asarray(self.values[int(k) : int(k) + 1]) for k in numbers]
        return self.grid.images(np.concatenate(each))

    def batches(self, size: int, entropy: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give inputs and truths of steps; each step has a random stream of its own."""
        step = start
        while True:
            rng = np.random.default_rng([entropy % 2**63, step])
            truth = self.images(np.sort(rng.integers(0, self.train, size)))
            yield torch.nan_to_num(truth), truth
            step += 1

    def _held(self) -> Iterator[Tensor]:
        chosen = np.unique(np.linspace(self.train, self.count - 1, _SCORED).astype(int))
        for part in np.array_split(chosen, max(1, len(chosen) // 16)):
            yield self.images(part)

    @torch.no_grad()
    def validate(self, weight: Tensor, device: str) -> Any:
        """Root of the weighted mean square error of held snapshots."""

        def score(net: nn.Module) -> dict[str, float]:
            loss, found = _loss(weight), []
            with torch.no_grad():
                for truth in self._held():
                    on = truth.to(device)
                    found.append(float(loss(net, torch.nan_to_num(on), on)))
            return {"score": float(np.sqrt(np.mean(found)))}

        return score

    @torch.no_grad()
    def codes(self, net: FieldAutoEncoder) -> Float:
        """Codes of all snapshots."""
        parts = [slice(k, min(k + 32, self.count)) for k in range(0, self.count, 32)]
        found = [net.encode(torch.nan_to_num(self.images(part))).numpy() for part in parts]
        return np.concatenate(found).astype(np.float64)

    @torch.no_grad()
    def residual(self, net: FieldAutoEncoder) -> Float:
        """Weighted mean squares of what decoding misses of held snapshots, by variable."""
        total = share = torch.zeros((), dtype=torch.float64)
        for truth in self._held():
            known = truth.isfinite()
            error = torch.where(known, net(torch.nan_to_num(truth)) - truth, 0.0)
            total = total + (self.weight * error**2).sum((0, 2, 3)).double()
            share = share + (self.weight * known).sum((0, 2, 3)).double()
        return np.asarray((total / share).numpy())

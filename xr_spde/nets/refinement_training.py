"""Windows whose iterations are done once, to train the network after them at length.

The iterations of a trained solver are most of the work of a training step, and their result changes
little while the network after them is trained. Here they are done once for every window and kept,
and that network sees them again and again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from xr_spde._core.errors import ParameterError
from xr_spde._core.progress import track
from xr_spde._core.rng import member_generator
from xr_spde.nets.variational_window import Window
from xr_spde.nets.variational_windows import Sample, WindowBatches, stacked

__all__ = ["Searched", "SearchedWindows", "search_windows"]

_FILE = 64
"""Windows of a file."""

_NEAR = 0.01
"""Departure of what is searched again, on another device say, in units of the scale."""


@dataclass(frozen=True)
class Searched:
    """Windows, and the last iterates of a solver.

    Attributes
    ----------
    window : Window
        Observations.
    x : Tensor (B, T, rows, columns)
        Fields at the nodes of the solver.
    """

    window: Window
    x: Tensor

    def to(self, device: str | torch.device) -> Searched:
        """Move it to a device.

        Parameters
        ----------
        device : str or torch.device
            Where to.

        Returns
        -------
        Searched
        """
        return Searched(self.window.to(device), self.x.to(device))


def search_windows(
    solver: Any, batches: WindowBatches, count: int, folder: str | os.PathLike[str],
    *, device: str = "cpu", progress: bool | None = None,
) -> SearchedWindows:  # fmt: skip
    """Do the iterations of a solver on windows, and keep them in files.

    Parameters
    ----------
    solver : VariationalSolver
        Trained.
    batches : WindowBatches
        The windows that are drawn are those of its first steps.
    count : int
        Number of windows.
    folder : path
        Where files go; those that are there are taken, so that an interrupted search goes on.
    device : str, optional
        Torch device.
    progress : bool, optional
        Draw a bar.

    Returns
    -------
    SearchedWindows

    Raises
    ------
    ParameterError
        If the folder holds windows of other data, settings or weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for first in track(range(0, count, _FILE), label="search", enabled=progress):
        path = folder / f"windows_{first:06d}.npz"
        paths.append(path)
        numbers = range(first, min(first + _FILE, count))
        if first == 0 and path.exists():
            _refuse_others(path, solver.to(device).eval(), batches, device)
        if not _holds(path, len(numbers)):
            samples = [batches.sample(k // batches.batch, k % batches.batch) for k in numbers]
            arrays = _searched(solver.to(device).eval(), samples, batches.batch, device)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, allow_pickle=False, **arrays)
            partial.replace(path)
    solver.to("cpu")
    # squares that are cut short at one edge would be so at the other
    whole = batches.size[0] % solver.options["nodes"] == 0
    return SearchedWindows(paths, batches.batch, mirror=whole and "mirror" in batches.augment,
                           seed=batches.seed)  # fmt: skip


def _holds(path: Path, count: int) -> bool:
    """Whether a file is there with so many windows; a last one may hold fewer than are wanted."""
    if not path.exists():
        return False
    with np.load(path) as file:
        return len(file["stops"]) == count


def _refuse_others(path: Path, solver: Any, batches: WindowBatches, device: str) -> None:
    """Search the first window again, to refuse those of other data, settings or weights."""
    found = _searched(solver, [batches.sample(0, 0)], 1, device)
    with np.load(path) as file:
        stop = file["stops"][0]
        kept = {name: file[name][:1] for name in ("x", "truth")}
        kept |= {name: file[name][:stop] for name in ("place", "obs", "variance", "offset")}
    for name, values in kept.items():
        fits = values.shape == found[name].shape
        near = _NEAR if name == "x" else 1e-6
        if not fits or not np.allclose(values, found[name], atol=near, equal_nan=True):
            raise ParameterError(
                f"{path.parent} holds windows of other data, settings or weights ({name} differs); "
                "give another folder, or remove that one"
            )


def _searched(
    solver: Any, samples: Sequence[Sample], batch: int, device: str
) -> dict[str, NDArray[Any]]:
    """Last iterates, and windows with their observed cells alone."""
    found = []
    for low in range(0, len(samples), batch):
        window, _ = stacked(samples[low : low + batch])
        with torch.no_grad():
            found.append(solver.searched(window.to(device))[1].cpu().numpy())
    seen = [np.flatnonzero(one.mask) for one in samples]
    arrays: dict[str, NDArray[Any]] = {
        "x": np.concatenate(found).astype(np.float16),
        "truth": np.stack([one.truth for one in samples]).astype(np.float16),
        "sea": np.stack([one.sea for one in samples]),
        "stops": np.cumsum([one.size for one in seen]),
        "place": np.concatenate(seen).astype(np.int32),
    }
    for name in ("obs", "variance", "offset"):
        parts = [getattr(one, name).ravel()[k] for one, k in zip(samples, seen, strict=True)]
        arrays[name] = np.concatenate(parts).astype(np.float32)
    return arrays


class SearchedWindows(Dataset[tuple[Searched, Tensor]]):
    """Batches of windows that :func:`search_windows` kept, by the number of the step.

    Parameters
    ----------
    paths : sequence of path
        Files.
    batch : int
        Windows of a batch.
    mirror : bool
        Whether half of them are turned north to south with their sign, as quasi-geostrophic flow
        may be.
    seed : int
        Of the order, each window once before any twice, and of what is turned.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], batch: int, *, mirror: bool, seed: int
    ) -> None:
        self.batch, self.mirror, self.seed = batch, mirror, seed
        self.windows: list[dict[str, NDArray[Any]]] = []
        for path in paths:
            with np.load(path) as file:
                arrays = dict(file)
            starts = np.concatenate([[0], arrays["stops"]])
            for k in range(len(arrays["x"])):
                one = {name: arrays[name][k] for name in ("x", "truth", "sea")}
                cut = slice(starts[k], starts[k + 1])
                one |= {n: arrays[n][cut] for n in ("place", "obs", "variance", "offset")}
                self.windows.append(one)

    def __getitem__(self, step: int) -> tuple[Searched, Tensor]:
        """Make the batch of a step."""
        count, order = len(self.windows), {}
        parts = []
        for k in range(step * self.batch, (step + 1) * self.batch):
            turn, place = divmod(k, count)
            if turn not in order:
                order[turn] = member_generator(self.seed, turn).permutation(count)
            parts.append(self._window(int(order[turn][place]), k))
        window, truth = stacked([sample for sample, _ in parts])
        return Searched(window, torch.from_numpy(np.stack([x for _, x in parts]))), truth

    def _window(self, number: int, draw: int) -> tuple[Sample, NDArray[np.float32]]:
        one = self.windows[number]
        shape = one["truth"].shape
        dense = {"obs": np.zeros(shape, np.float32), "variance": np.ones(shape, np.float32),
                 "offset": np.zeros(shape, np.float32)}  # fmt: skip
        mask = np.zeros(shape, dtype=bool)
        mask.ravel()[one["place"]] = True
        for name, values in dense.items():
            values.ravel()[one["place"]] = one[name]
        x = one["x"].astype(np.float32)
        sample = Sample(mask=mask, truth=one["truth"].astype(np.float32), sea=one["sea"], **dense)
        if self.mirror and member_generator(self.seed, draw, 1).random() < 0.5:
            x = -x[..., ::-1, :].copy()
            sample = sample.mapped(lambda a: np.ascontiguousarray(a[..., ::-1, :])).times(-1.0)
        return sample, x

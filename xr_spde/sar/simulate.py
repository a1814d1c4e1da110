"""Training sets: cases of the prior with their replicate fields, streamed to Zarr.

A set is a folder with one Zarr group per grid size. Case number i of a group is drawn from its own
seed, so a set can be made by any number of processes, extended later, or made again bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.lazyimport import require
from xr_spde.fields.sar import weights
from xr_spde.sar.priors import draw_test_case, draw_test_inputs

#: Arrays of a group: name -> dtype. Fields keep half precision, whose rounding (1/2000 of a value)
#: stays far below the difference of neighbours even at the longest ranges of the prior.
ARRAYS = {"fields": np.float16, "kappa2": np.float32, "rho": np.float32, "theta": np.float32}


_BATCH = 32


@dataclass(frozen=True)
class CaseGroup:
    """Cases of one size.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns kept of each field.
    cases : int
        Number of cases.
    replicates : int
        Fields per case.
    buffer : int
        Cells simulated beyond each side and cut off.
    boundary, preset : str
        As in :func:`xr_spde.sar.priors.draw_test_case`.
    """

    shape: tuple[int, int]
    cases: int
    replicates: int = 30
    buffer: int = 10
    boundary: str = "cylinder"
    preset: str = "release"

    def __post_init__(self) -> None:
        if min(*self.shape, self.cases, self.replicates) < 1:
            raise ParameterError(
                f"shape is {self.shape}, cases {self.cases} and replicates {self.replicates}; "
                "each must be at least 1"
            )

    @property
    def name(self) -> str:
        """Name of the group in the store."""
        return f"{self.shape[0]}x{self.shape[1]}"


def _case(group: CaseGroup, seed: int) -> dict[str, NDArray[Any]]:
    """All arrays of one case."""
    values = draw_test_case(
        group.shape,
        group.replicates,
        seed=seed,
        buffer=group.buffer,
        boundary=group.boundary,
        preset=group.preset,
    )
    return {name: v.astype(ARRAYS[name]) for name, v in zip(ARRAYS, values, strict=True)}


def _store(place: Path | str, mode: str) -> Any:
    """Open a Zarr group."""
    zarr = require("zarr", "io")
    return zarr.open_group(str(place), mode=mode)


def _open(path: Path, group: CaseGroup, seed: int) -> Any:
    """Open the group's store, made or enlarged where needed."""
    store = _store(path / group.name, "a")
    recipe = {
        "seed": seed,
        "buffer": group.buffer,
        "boundary": group.boundary,
        "preset": group.preset,
    }
    held = store.attrs.get("recipe", recipe)
    if held != recipe:
        raise ParameterError(
            f"{path / group.name} holds cases of {held}, not {recipe}; give another folder"
        )
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(ARRAYS, group.shape)
    shapes["fields"] = (group.replicates, *group.shape)
    for name, shape in shapes.items():
        if name not in store:
            store.create_array(
                name,
                shape=(group.cases, *shape),
                chunks=(1, *shape),
                dtype=ARRAYS[name],
                compressors=None,
            )
        elif store[name].shape[1:] != shape:
            raise ParameterError(
                f"{path / group.name} holds cases of {store[name].shape[1:]}, not {shape}; "
                "give another folder"
            )
        elif store[name].shape[0] < group.cases:
            store[name].resize((group.cases, *shape))
    if "done" not in store:
        store.create_array("done", shape=(group.cases,), chunks=(1,), dtype=bool, fill_value=False)
    elif store["done"].shape[0] < group.cases:
        store["done"].resize((group.cases,))
    store.attrs["recipe"] = recipe
    return store


def _write(store: Any, index: int, values: dict[str, NDArray[Any]]) -> None:
    """Write one case; the flag comes last, so that a killed write is made again."""
    for name, value in values.items():
        store[name][index] = value
    store["done"][index] = True


def _inputs(
    group: CaseGroup, seed: int
) -> tuple[tuple[NDArray[Any], ...], NDArray[Any], NDArray[np.float32]]:
    """Draw maps, stencils and noise of one case."""
    maps, noise = draw_test_inputs(
        group.shape, group.replicates, seed=seed, buffer=group.buffer, preset=group.preset
    )
    return maps, weights(*maps), noise.astype(np.float32)


def solve_cases(
    group: CaseGroup, seeds: Sequence[int], *, device: str, pool: Executor | None = None
) -> list[dict[str, NDArray[Any]]]:
    """Draw some cases at once on a device, the same as one by one up to rounding.

    Parameters
    ----------
    group : CaseGroup
        Sizes and prior; boundary "cylinder" or "plane".
    seeds : sequence of int
        Of the cases.
    device : str
        Torch device.
    pool : Executor, optional
        Where maps and noise are drawn.

    Returns
    -------
    list of dict
        Arrays of each case.

    Raises
    ------
    ParameterError
        For other boundaries.
    """
    torch = require("torch", "torch")
    from xr_spde.nets.draws import solve_rows

    if group.boundary not in ("cylinder", "plane"):
        raise ParameterError(
            f'boundary is {group.boundary!r}; expected "cylinder" or "plane" on a device, or none'
        )
    drawn = list((map if pool is None else pool.map)(partial(_inputs, group), seeds))
    fields = solve_rows(
        torch.from_numpy(np.stack([stencil for _, stencil, _ in drawn])).to(device),
        torch.from_numpy(np.stack([noise for _, _, noise in drawn])).to(device),
        periodic=group.boundary == "cylinder",
    )
    kept: Any = (..., *(slice(group.buffer, group.buffer + size) for size in group.shape))
    out = []
    for (maps, _, _), values in zip(drawn, fields[kept].cpu().numpy(), strict=True):
        arrays = (values, *(m[kept] for m in maps))
        out.append({n: v.astype(ARRAYS[n]) for n, v in zip(ARRAYS, arrays, strict=True)})
    return out


def _write_case(path: Path, group: CaseGroup, index: int, seed: int) -> None:
    """Draw one case and write it."""
    from threadpoolctl import threadpool_limits

    store = _store(path / group.name, "r+")
    with threadpool_limits(1):
        _write(store, index, _case(group, seed))


def simulate_cases(
    path: str | os.PathLike[str],
    group: CaseGroup,
    *,
    seed: int,
    workers: int = 1,
    device: str = "cpu",
) -> Iterator[int]:
    """Draw the cases a folder still lacks and write them, each as soon as it is drawn.

    Parameters
    ----------
    path : path-like
        Folder of the training set; made if need be.
    group : CaseGroup
        Sizes and prior.
    seed : int
        Seed of the set; case i of a group depends on (seed, shape, i) alone.
    workers : int, optional
        Processes to draw with.
    device : str, optional
        "cuda" solves 32 cases at once on a graphics card, while the processes draw maps and noise.

    Yields
    ------
    int
        Number of each case written.

    Raises
    ------
    ParameterError
        If the folder already holds cases of other sizes, prior or seed under this name.
    """
    root = Path(path)
    store = _open(root, group, seed)
    missing = np.flatnonzero(~store["done"][: group.cases])
    entropy = np.random.SeedSequence(seed, spawn_key=group.shape)
    seeds = entropy.generate_state(group.cases, np.uint64)
    if device != "cpu":
        with ProcessPoolExecutor(workers) as pool:
            for start in range(0, len(missing), _BATCH):
                batch = [int(i) for i in missing[start : start + _BATCH]]
                cases = solve_cases(group, [int(seeds[i]) for i in batch], device=device, pool=pool)
                for number, values in zip(batch, cases, strict=True):
                    _write(store, number, values)
                    yield number
        return
    if workers == 1:
        for index in missing:
            _write_case(root, group, int(index), int(seeds[index]))
            yield int(index)
        return
    pool = ProcessPoolExecutor(workers)
    try:
        jobs = {
            pool.submit(_write_case, root, group, int(i), int(seeds[i])): int(i) for i in missing
        }
        for job in as_completed(jobs):
            job.result()
            yield jobs[job]
    finally:  # an error, or a caller that stops early, must not wait for all cases
        pool.shutdown(cancel_futures=True)


class StoredCases:
    """Some cases of a group, read from the store when asked for; small to pickle.

    Parameters
    ----------
    path : path-like
        Folder of the training set.
    group : CaseGroup
        Size.
    name : str
        One of `ARRAYS`.
    start, stop : int
        First case and the one after the last.

    Raises
    ------
    ParameterError
        If some of them have not been simulated.
    """

    def __init__(
        self, path: str | os.PathLike[str], group: CaseGroup, name: str, start: int, stop: int
    ) -> None:
        self._place, self._name = str(Path(path) / group.name), name
        self._start = start
        self._array: Any = None
        try:
            done = _store(self._place, "r")["done"][start:stop]
        except (FileNotFoundError, KeyError):
            done = np.zeros(0, bool)
        if len(done) < stop - start or not np.all(done):
            raise ParameterError(
                f"{self._place} lacks some of the cases {start} to {stop - 1}; simulate them first"
            )
        self.shape = (stop - start, *self._open().shape[1:])

    def _open(self) -> Any:
        if self._array is None:
            self._array = _store(self._place, "r")[self._name]
        return self._array

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.asarray(self._open()[self._start + index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}


class FreshCases:
    """Cases drawn when asked for, numbered without end, so that a run sees none of them twice.

    Parameters
    ----------
    group : CaseGroup
        Sizes and prior; its number of cases does not matter.
    seed : int
        Case i depends on (seed, shape, i) alone.
    device : str, optional
        "cuda" solves all cases of a batch at once on a graphics card.

    Attributes
    ----------
    shape : tuple of int
        Number of cases, replicates, rows and columns.
    """

    def __init__(self, group: CaseGroup, seed: int, *, device: str = "cpu") -> None:
        self.shape = (2**62, group.replicates, *group.shape)
        self._group, self._seed, self._device = group, seed, device

    def fetch(self, indices: Sequence[int]) -> list[dict[str, NDArray[Any]]]:
        """Draw some cases.

        Parameters
        ----------
        indices : sequence of int
            Numbers of the cases.

        Returns
        -------
        list of dict
            `ARRAYS` of each case.
        """
        shape = self._group.shape
        keys = [np.random.SeedSequence(self._seed, spawn_key=(*shape, i)) for i in indices]
        seeds = [int(key.generate_state(1, np.uint64)[0]) for key in keys]
        if self._device == "cpu":
            return [_case(self._group, seed) for seed in seeds]
        return solve_cases(self._group, seeds, device=self._device)

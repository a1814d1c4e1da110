"""Run a trained network on arrays: tiles, threads, the device."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xr_spde._core.errors import ParameterError
from xr_spde.nets.lag_features import LagMoments
from xr_spde.nets.objectives import estimates
from xr_spde.nets.weights import load_weights

Array = NDArray[np.float32]

#: Side of the tiles of a large grid and the overlap on each side, in cells.
TILE, HALO = 512, 64


@lru_cache(maxsize=4)
def _loaded(path: str, modified: float, device: str) -> nn.Module:
    return load_weights(path, device=device)


def network(path: str | os.PathLike[str], *, device: str = "cpu") -> nn.Module:
    """Read trained weights, or find them where they were read before.

    Parameters
    ----------
    path : path-like
        safetensors file written by `xr_spde.nets.weights.save_weights`.
    device : str, optional
        Torch device.

    Returns
    -------
    Module
        In evaluation mode.

    Raises
    ------
    DataUnavailableError
        If there is no such file.
    SchemaError
        If it holds no network.
    """
    place = Path(path)
    modified = place.stat().st_mtime if place.is_file() else 0.0
    return _loaded(str(place.resolve()), modified, device)


_lock = threading.Lock()
_users = {"inside": 0, "threads": 0}


@contextmanager
def single_thread() -> Iterator[None]:
    """Hold torch to one thread: a scheduler has its own, and results keep the same bits.

    Any number of Python threads may be inside at once: all leave with what the first one found.
    """
    with _lock:
        now = torch.get_num_threads()  # asked first: from then on this thread has its own number
        if _users["inside"] == 0:
            _users["threads"] = now
        _users["inside"] += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _users["inside"] -= 1
            torch.set_num_threads(_users["threads"])


def _spans(size: int) -> list[tuple[int, int, int, int]]:
    """Tiles of one axis: first and last cell read, first and last cell kept."""
    if size <= TILE:
        return [(0, size, 0, size)]
    core = TILE - 2 * HALO
    count = -(-size // core)
    edges = [round(k * size / count) for k in range(count + 1)]
    return [
        (max(low - HALO, 0), min(high + HALO, size), low, high) for low, high in pairwise(edges)
    ]


@torch.no_grad()
def run_on_moments(model: nn.Module, moments: dict[str, Array], *, device: str = "cpu") -> Array:
    """Apply the default network.

    Parameters
    ----------
    model : Module
        `StatisticsNet`.
    moments : dict
        "half", "level", "weight" (36, ny, nx), "variance", "seen" (ny, nx) and "replicates" ():
        see `xr_spde.nets.lag_features.LagMoments`.
    device : str, optional
        Torch device.

    Returns
    -------
    ndarray (7, ny, nx)
        See `StatisticsNet.forward`. Grids beyond 512 cells a side are worked off in tiles that
        overlap by 64 cells on each side.
    """
    ny, nx = moments["variance"].shape
    out = np.empty((7, ny, nx), dtype=np.float32)
    count = torch.tensor([float(moments["replicates"])])
    maps = {name: torch.from_numpy(np.asarray(moments[name], dtype=np.float32)) for name in _MAPS}
    with single_thread():
        for top, bottom, low, high in _spans(ny):
            for left, right, west, east in _spans(nx):
                cut = {name: m[..., top:bottom, left:right] for name, m in maps.items()}
                tile = LagMoments(
                    cut["half"][None],
                    cut["level"][None],
                    cut["weight"][None],
                    cut["variance"][None, None],
                    cut["seen"][None, None],
                    count,
                )
                result = model(tile.to(device))[0].cpu().numpy()
                kept = result[:, low - top : high - top, west - left : east - left]
                out[:, low:high, west:east] = kept
    return out


_MAPS = ("half", "level", "weight", "variance", "seen")


@torch.no_grad()
def run_on_replicates(
    model: nn.Module, fields: Array, *, periodic: bool, device: str = "cpu"
) -> tuple[Array, Array, Array]:
    """Apply a network that takes raw replicates, as in LatticeVision (arXiv 2505.09803).

    Parameters
    ----------
    model : Module
        UNet, ViT, STUN or WindowCNN, trained for as many replicates.
    fields : ndarray (M, ny, nx)
        Standardised replicates without gaps.
    periodic : bool
        Whether columns wrap around.
    device : str, optional
        Torch device.

    Returns
    -------
    log_kappa2, rho, theta : ndarray (ny, nx)

    Raises
    ------
    ParameterError
        If the network was trained for another number of replicates.
    """
    wanted = model.options["replicates"]  # type: ignore[index]
    if len(fields) != wanted:
        raise ParameterError(
            f"{len(fields)} replicates were given to a network trained for {wanted}; select that "
            'many, or use method="net", which takes any number'
        )
    inputs = torch.from_numpy(np.ascontiguousarray(fields, dtype=np.float32))[None].to(device)
    run: Any = getattr(model, "maps", model)
    with single_thread():
        maps = estimates(run(inputs, periodic=periodic).float().cpu())
    log_kappa2, rho, theta = (m[0].numpy() for m in maps)
    return log_kappa2, rho, theta

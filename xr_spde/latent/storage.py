"""Latent dynamics in one file: networks, images, motion, settings and the record of the fit."""

from __future__ import annotations

import os

import numpy as np

from xr_spde._core.errors import SchemaError
from xr_spde._core.lazyimport import require
from xr_spde.fields.arrays import to_numpy
from xr_spde.fields.cells import Cells
from xr_spde.latent.dynamics import LatentDynamics
from xr_spde.latent.windows import settings_from

__all__ = ["load_dynamics", "save_dynamics"]

FORMAT_VERSION = 2
"""Version of the format that is written; older ones are read too."""

_KIND = "latent dynamics"
_ARRAYS = ("frames", "times", "velocity", "spread")
_OPTIONAL = ("initial", "classical", "source", "ensemble")


def save_dynamics(model: LatentDynamics, path: str | os.PathLike[str]) -> None:
    """Write latent dynamics to one safetensors file.

    It holds everything, also the images, so that frames can be made from it alone. An existing file
    is replaced only when the new one is complete.

    Parameters
    ----------
    model : LatentDynamics
        What a fit returned.
    path : path
        File to write, by habit ``.safetensors``; its folder must exist.
    """
    require("torch", "torch")
    from xr_spde.nets.tensor_file import write_tensors

    tensors = {f"networks.{name}": t for name, t in model.networks.state_dict().items()}
    arrays = {name: getattr(model, name) for name in (*_ARRAYS, *_OPTIONAL)}
    arrays |= {"height": model.cells.height, "width": model.cells.width}
    arrays |= {f"log.{name}": values for name, values in model.log.items()}
    description = {
        "format": FORMAT_VERSION,
        "kind": _KIND,
        "options": model.networks.options,
        "settings": model.settings.as_dict(),
        "seed": model.seed,
        "periodic_x": model.cells.periodic_x,
        "log": list(model.log),
        "diffusivity": model.diffusivity,
        "noise": model.noise,
        "operators": dict(model.operators),
        "residuals": {str(seed): mark for seed, mark in model.residuals.items()},
    }
    known = {name: np.asarray(a) for name, a in arrays.items() if a is not None}
    write_tensors(path, {**tensors, **known}, description)


def load_dynamics(path: str | os.PathLike[str]) -> LatentDynamics:
    """Read what :func:`save_dynamics` wrote; its frames are the same.

    Parameters
    ----------
    path : path
        File.

    Returns
    -------
    LatentDynamics

    Raises
    ------
    DataUnavailableError
        If there is no such file.
    SchemaError
        If it holds something else, is damaged, or of a newer format.
    """
    require("torch", "torch")
    from xr_spde.nets.latent_training import build_latent
    from xr_spde.nets.tensor_file import read_tensors

    kinds = {"kind": str, "options": dict, "settings": dict, "seed": int, "log": list}
    description, tensors = read_tensors(path, kinds, FORMAT_VERSION)
    if description["kind"] != _KIND:
        raise SchemaError(f"{path} holds {description['kind']!r}, not {_KIND}")
    if absent := sorted({*_ARRAYS, "height", "width"} - set(tensors)):
        raise SchemaError(f"{path}: {', '.join(absent)} missing")
    networks = build_latent(description["options"])
    prefix = "networks."
    state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    try:
        networks.load_state_dict(state)
    except RuntimeError as error:
        raise SchemaError(f"{path}: its networks do not fit their description: {error}") from error
    arrays = {n: to_numpy(t) for n, t in tensors.items() if not n.startswith(prefix)}
    ny, nx = arrays["frames"].shape[1:]
    cells = Cells(ny, nx, arrays["height"], arrays["width"], bool(description.get("periodic_x")))
    return LatentDynamics(
        **{name: arrays[name] for name in _ARRAYS},
        networks=networks.eval(),
        settings=settings_from(description["settings"]),
        seed=description["seed"],
        cells=cells,
        initial=arrays.get("initial"),
        classical=arrays.get("classical"),
        source=arrays.get("source"),
        ensemble=arrays.get("ensemble"),
        diffusivity=float(description.get("diffusivity", 0.0)),
        noise=float(description.get("noise", 0.0)),
        operators=dict(description.get("operators", {})),
        residuals={int(k): float(v) for k, v in description.get("residuals", {}).items()},
        log={name: arrays[f"log.{name}"] for name in description["log"]},
    )

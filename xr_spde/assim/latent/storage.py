"""Latent models in files: safetensors with a description in JSON, of which nothing is executed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import SchemaError, listed
from xr_spde._core.lazyimport import require
from xr_spde.assim.latent.clock import Clock
from xr_spde.assim.latent.layout import Layout
from xr_spde.assim.latent.model import LatentModel
from xr_spde.assim.latent.scaling import Scaling
from xr_spde.assim.weights_file import weights_file

__all__ = ["SHIPPED", "load_model", "save_model"]

SHIPPED: Mapping[str, str] = {}
"""Models that come with the package, by name."""

FORMAT_VERSION = 1
_KIND = "latent model"

PARTS: Mapping[str, Mapping[str, str]] = {
    "map": {
        "pod": "xr_spde.fields.pod:PodMap",
        "sinr": "xr_spde.nets.sinr_map:SinrMap",
        "cae": "xr_spde.nets.auto_encoder_map:AutoEncoderMap",
        "aeflow": "xr_spde.nets.auto_encoder_map:AeflowMap",
    },
    "propagator": {
        "linear": "xr_spde.fields.linear_dynamics:LinearPropagator",
        "persistence": "xr_spde.fields.linear_dynamics:PersistencePropagator",
        "node": "xr_spde.nets.latent_propagators:NodePropagator",
        "residual_node": "xr_spde.nets.latent_propagators:ResidualNodePropagator",
        "rezero": "xr_spde.nets.latent_propagators:ReZeroPropagator",
    },
    "error": {"gaussian": "xr_spde.assim.latent.model_error:GaussianError"},
}
"""Classes of the parts of a model by their names; only these are ever made."""


def save_model(model: LatentModel, path: str | os.PathLike[str]) -> None:
    """Write a model; see `LatentModel.save`.

    Parameters
    ----------
    model : LatentModel
        The model.
    path : path
        File to write.
    """
    require("torch", "torch")
    require("safetensors", "torch")
    from xr_spde.nets.tensor_file import write_tensors

    tensors: dict[str, NDArray[Any]] = {}
    described: dict[str, Any] = {}
    for name in ("map", "propagator", "error"):
        part = getattr(model, name)
        if part is None:
            continue
        arrays, options = part.state()
        described[name] = {"name": getattr(part, "name", "gaussian"), "options": options}
        tensors |= {f"{name}.{key}": value for key, value in arrays.items()}
    cells, described["layout"] = model.layout.describe()
    tensors |= {f"layout.{k}": v for k, v in cells.items()}
    tensors |= {f"scaling.{k}": v for k, v in model.scaling.describe().items()}
    axes = {}
    for name, axis in model.axes.items():
        tensors[f"axes.{name}"] = np.asarray(axis.values)
        axes[name] = {"dims": list(axis.dims), "attrs": _plain(axis.attrs)}
    write_tensors(path, tensors, {
        "format": FORMAT_VERSION, "kind": _KIND, "parts": described, "axes": axes,
        "clock": {"unit": model.clock.unit, "step": model.clock.step},
        "attrs": {name: _plain(one) for name, one in model.attrs.items()},
        "time_name": model.time_name, "card": dict(model.card),
    })  # fmt: skip


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that JSON can hold."""
    found = {}
    for name, value in attrs.items():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, np.ndarray):
            value = value.tolist()
        found[str(name)] = value if isinstance(value, str | int | float | list) else str(value)
    return found


def load_model(path: str | os.PathLike[str]) -> LatentModel:
    """Read what `LatentModel.save` wrote, or a model that comes with the package.

    Parameters
    ----------
    path : path or str
        File, or a name of :data:`SHIPPED`. Nothing in a file is executed.

    Returns
    -------
    LatentModel

    Raises
    ------
    DataUnavailableError
        If there is no such file, and no model of that name.
    SchemaError
        If it holds something else, is damaged, or of a newer format.
    MissingDependencyError
        Without torch.
    """
    require("torch", "torch")
    require("safetensors", "torch")
    from xr_spde.nets.tensor_file import read_tensors

    place = weights_file(path, SHIPPED, "latent model")
    kinds: dict[str, Any] = {"kind": str, "parts": dict, "axes": dict, "clock": dict}
    kinds |= {"attrs": dict, "time_name": str, "card": dict}
    description, tensors = read_tensors(place, kinds, FORMAT_VERSION)
    if description["kind"] != _KIND:
        raise SchemaError(f"{place} holds {description['kind']!r}, not a {_KIND}")
    try:
        return _assembled(place, description, {k: v.numpy() for k, v in tensors.items()})
    except (KeyError, TypeError) as error:
        raise SchemaError(f"{place} is damaged: {error} is missing or of another kind") from error


def _assembled(
    place: Path, description: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> LatentModel:
    def own(name: str) -> dict[str, NDArray[Any]]:
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    parts: dict[str, Any] = {"error": None}
    for name, told in description["parts"].items():
        if name in PARTS:
            found = _class_of(place, name, told["name"])
            parts[name] = found.from_state(own(name), told["options"])
    axes = {
        name: xr.Variable(told["dims"], tensors[f"axes.{name}"], told["attrs"])
        for name, told in description["axes"].items()
    }
    return LatentModel(
        **parts,
        layout=Layout.of(own("layout"), description["parts"]["layout"]),
        scaling=Scaling.of(own("scaling")),
        clock=Clock(**description["clock"]),
        axes=axes,
        attrs=description["attrs"],
        time_name=description["time_name"],
        card=description["card"],
    )


def _class_of(place: Path, part: str, name: str) -> Any:
    if name not in PARTS[part]:
        raise SchemaError(f"{place} holds a {part} {name!r}; known are {listed(PARTS[part])}")
    module, _, attribute = PARTS[part][name].partition(":")
    return getattr(importlib.import_module(module), attribute)

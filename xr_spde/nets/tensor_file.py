"""Tensors and a description in one safetensors file; nothing in it is ever executed.

The metadata hold one JSON text under ``"xr_spde"``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xr_spde._core.errors import DataUnavailableError, ParameterError, SchemaError
from xr_spde._core.version import __version__

__all__ = ["read_tensors", "write_tensors"]

_KEY = "xr_spde"


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor | NDArray[Any]],
    description: Mapping[str, Any],
) -> None:
    """Write a file; an existing one is replaced only when the new is complete.

    Parameters
    ----------
    path : path
        File to write, by habit ``.safetensors``; its folder must exist.
    tensors : mapping
        Tensors or numpy arrays by name.
    description : mapping
        Anything JSON can hold; "format", a whole number from 1, and the version of the package go
        with it.

    Raises
    ------
    ParameterError
        If the description cannot be written as JSON.
    """
    try:
        text = json.dumps({**description, "version": __version__}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"the description cannot be written as JSON: {error}") from error
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    # a copy each: the format refuses tensors that share memory
    own = {
        name: torch.from_numpy(np.array(value, order="C"))
        if isinstance(value, np.ndarray)
        else value.detach().to("cpu", copy=True).contiguous()
        for name, value in tensors.items()
    }
    try:
        save_file(own, partial, metadata={_KEY: text})
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(
    path: str | os.PathLike[str], kinds: Mapping[str, type], newest: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file.

    Parameters
    ----------
    path : path
        What `write_tensors` wrote.
    kinds : mapping
        What the description must have, and of which type.
    newest : int
        Newest format that can be read.

    Returns
    -------
    description : dict
    tensors : dict of Tensor

    Raises
    ------
    DataUnavailableError
        If there is no such file.
    SchemaError
        If it is something else, damaged, incomplete, or of a newer format.
    """
    place = Path(path)
    if not place.is_file():
        raise DataUnavailableError(f"no file at {place}")
    try:
        with safe_open(place, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise SchemaError(f"{place} is no safetensors file, or a damaged one: {error}") from error
    if text is None:
        raise SchemaError(f"{place}: safetensors, but not written by xr_spde")
    try:
        description = json.loads(text)
        version = description["format"]
        complete = all(isinstance(description[name], kind) for name, kind in kinds.items())
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SchemaError(f"{place}: its description cannot be read ({error!r})") from error
    if not (isinstance(version, int) and 1 <= version <= newest):
        raise SchemaError(
            f"{place}: format {version!r}, this xr_spde {__version__} reads up to {newest}; a "
            "newer release may read it"
        )
    if not complete:
        raise SchemaError(f"{place}: its description is incomplete: {text}")
    return description, tensors

"""Trained networks in one file: safetensors, with what is needed to build them again.

The file holds the tensors by name and, in its metadata, one JSON text under ``"xr_spde"``:
version of the format, architecture, options, version of the package that wrote it, and a card
(how the network was trained and what it reaches). Nothing in it is ever executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde.nets.registry import build_network
from xr_spde.nets.tensor_file import read_tensors, write_tensors

FORMAT_VERSION = 1
"""Version of the format that is written; older ones are read too."""

_LISTED = 4


def save_weights(
    path: str | os.PathLike[str],
    module: nn.Module,
    *,
    half: bool = False,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write a network to one file; an existing one is replaced only when the new is complete.

    Parameters
    ----------
    path : path
        File to write, by habit ``.safetensors``; its folder must exist.
    module : Module
        With the attributes ``architecture`` and ``options``, as every network here.
    half : bool
        Store floating numbers in 16 bits: half the size, about three significant digits.
    card : mapping, optional
        Anything JSON can hold; by default that of the module, if it has one.

    Raises
    ------
    ParameterError
        If the module does not say what it is, the card cannot be written as JSON, or a weight is
        not finite (in 16 bits: at most 65504).
    """
    if not (isinstance(getattr(module, "architecture", None), str) and hasattr(module, "options")):
        raise ParameterError(
            f"module of type {type(module).__name__}: give one with architecture and options, "
            "such as build_network returns"
        )
    description = {
        "format": FORMAT_VERSION,
        "architecture": module.architecture,
        "options": module.options,
        "card": dict(getattr(module, "card", {}) if card is None else card),
    }
    write_tensors(path, stored_tensors(module, half=half), description)


def stored_tensors(module: nn.Module, *, half: bool = False) -> dict[str, Tensor]:
    """Tensors of a network as they are written.

    Parameters
    ----------
    module : Module
        Any.
    half : bool
        In 16 bits.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    ParameterError
        If a weight is not finite.
    """
    return {name: _stored(name, value, half) for name, value in module.state_dict().items()}


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    # a copy each: the format refuses tensors that share memory
    stored = value.detach().to("cpu", copy=True).contiguous()
    if not stored.is_floating_point():
        return stored
    stored = stored.to(torch.float16 if half else torch.float32)
    if not stored.isfinite().all():
        raise ParameterError(
            f"weights {name!r} are not finite{' in 16 bits, give half=False' if half else ''}"
        )
    return stored


def load_weights(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> nn.Module:
    """Build the network of a file, in single precision and ready to estimate.

    Parameters
    ----------
    path : path
        What `save_weights` wrote.
    device : str or torch.device
        Where to put it.

    Returns
    -------
    Module
        In evaluation mode, with the card of the file as ``card``. Random numbers drawn later do
        not depend on this call.

    Raises
    ------
    DataUnavailableError
        If there is no such file.
    SchemaError
        If it is something else, damaged, of a newer format, or its tensors do not fit its own
        description.
    UnknownNameError
        For an architecture that this version does not have.
    ParameterError
        For options that it does not have.
    """
    description, tensors = _read(Path(path))
    network = built(path, description["architecture"], description["options"], tensors)
    network.card = description["card"]
    return network.to(device)


def built(
    path: str | os.PathLike[str],
    architecture: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> nn.Module:
    """Build a network with the weights of a file, in single precision and ready to estimate.

    Parameters
    ----------
    path : path
        Of the file, for messages.
    architecture : str
        Key of the registry.
    options : mapping
        Of the class.
    tensors : mapping of str to Tensor
        Its weights.

    Returns
    -------
    Module
        In evaluation mode. Random numbers drawn later do not depend on this call.

    Raises
    ------
    SchemaError
        If the tensors do not fit.
    UnknownNameError, ParameterError
        As for `xr_spde.nets.registry.build_network`.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(architecture, options)
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        wrong = sorted(n for n in expected | found if expected.get(n) != found.get(n))
        listed = ", ".join(f"{n}: {found.get(n)} for {expected.get(n)}" for n in wrong[:_LISTED])
        raise SchemaError(
            f"{path}: {len(wrong)} tensors do not fit architecture "
            f"{architecture!r} with options {dict(options)} ({listed})"
        )
    network.load_state_dict(tensors)
    return network.eval()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read description and tensors of a file."""
    kinds = {"architecture": str, "options": dict, "card": dict}
    return read_tensors(path, kinds, FORMAT_VERSION)

"""Weights of the source's own networks, loaded into ours.

The code of LatticeVision (arXiv 2505.09803, MIT licence) saves each trained network as the plain
state dictionary of its U-Net, TransUNet (here: STUN), ViT or window CNN. The names below are those
of its published module definitions; attention comes from torchtune there (``q_proj``, ``k_proj``,
``v_proj``, ``output_proj``).

What was verified: networks of random weights, written out from those definitions around the
attention of torchtune 0.5.0 (the version they pin), gave the same maps after conversion to 2e-6,
for all four architectures and all positional codes, at full and at reduced width. What was not:
the trained weights themselves were not at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.registry import build_network
from xr_spde.nets.window_cnn import KERNELS

#: Width of an attention head in the source.
_HEAD_DIM = 64
_LISTED = 4
# our names to theirs, in this order
_NAMES = (
    (r"^body\.", ""),
    (r"^middle\.(?=conv|norm)", "bottleneck."),
    (r"^middle\.", ""),
    (r"^((?:en|de)coders\.\d+)\.", r"\1.conv."),
    (r"^ups\.(\d+)\.", r"decoders.\1.upconv."),
    (r"^head\.", "final_conv."),
    (r"^embed\.", "patch_embedding.conv."),
    (r"^positions\.learned\.columns$", "patch_embedding.pos_embed_x.pos_embed.weight"),
    (r"^positions\.learned\.rows$", "patch_embedding.pos_embed_y.pos_embed.weight"),
    (r"^blocks\.", "transformer."),
    (r"^spread\.", "de_embedding."),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"\.out\.", ".output_proj."),
    (r"^(?!transformer)(.*)\.conv1\.", r"\1.0."),
    (r"^(?!transformer)(.*)\.norm1\.", r"\1.1."),
    (r"^(?!transformer)(.*)\.conv2\.", r"\1.3."),
    (r"^(?!transformer)(.*)\.norm2\.", r"\1.4."),
    (r"^convs\.", "conv_layers."),
    (r"^linears\.", "fc_layers."),
)


def convert_state_dict(
    state: Mapping[str, Tensor],
    *,
    architecture: str,
    replicates: int,
    positions: str | None = None,
    causal: bool = True,
) -> nn.Module:
    """Build a network with the weights of one of the source's state dictionaries.

    Parameters
    ----------
    state : mapping of str to Tensor
        As ``torch.load(path, map_location="cpu", weights_only=True)`` returns it; prefixes that
        wrappers leave (``module.``, ``_orig_mod.``) do not matter. Widths, depth, patch and
        window size are read from the shapes; heads have 64 entries.
    architecture : {"unet", "vit", "stun", "cnn"}
        Which network it is.
    replicates : int
        Replicates that the network was trained on.
    positions : {"none", "sinusoidal", "learned", "rope"}, optional
        Positional code of "vit" and "stun", which only "learned" shows in the weights. Rotary
        codes are those of the source, of the index in raster order.
    causal : bool
        Causal attention, with which all published networks were trained.

    Returns
    -------
    Module
        In evaluation mode. Every tensor of `state` was used exactly once.

    Raises
    ------
    UnknownNameError
        For an unknown architecture or positional code.
    ParameterError
        If tensors are missing, left over or of the wrong shape, or `positions` is not given.

    Examples
    --------
    >>> from xr_spde.nets.convert import convert_state_dict
    >>> convert_state_dict({}, architecture="unet", replicates=30)
    Traceback (most recent call last):
    ...
    xr_spde._core.errors.ParameterError: state has no tensor 'final_conv.weight': not a 'unet' ...
    """
    if architecture not in _OPTIONS:
        raise unknown("architecture", architecture, _OPTIONS)
    if (architecture in ("vit", "stun")) == (positions is None):
        raise ParameterError(
            f"positions={positions!r} for architecture {architecture!r}: only vit and stun have "
            "positional codes, and they need one; the source puts it into the file name "
            "(NullPosEmbed is 'none')"
        )
    given = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): t for name, t in state.items()}
    options = {"replicates": replicates, **_OPTIONS[architecture](_Shapes(given, architecture))}
    if positions is not None:
        options |= {"positions": positions, "rope": "raster", "causal": causal}
    with torch.random.fork_rng(devices=[]):
        network = build_network(architecture, options)
    ours = network.state_dict()
    names = {name: _source_name(name) for name in ours}
    _check(given, {names[name]: tuple(tensor.shape) for name, tensor in ours.items()}, architecture)
    converted = {name: given[names[name]] for name in ours}
    if architecture == "vit":
        # a patch lies there as (row, column, channel), here as (channel, row, column)
        patch = options["patch"]
        for name in ("body.spread.weight", "body.spread.bias"):
            parts = converted[name].unflatten(0, (patch * patch, 3))
            converted[name] = parts.transpose(0, 1).flatten(0, 1)
    network.load_state_dict(converted)
    return network.eval()


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], kind: str) -> None:
    """Refuse tensors that are missing, left over or of another shape."""
    missing, spare = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or spare:
        raise ParameterError(
            f"state does not fit {kind!r}: {len(missing)} tensors missing {missing[:_LISTED]}, "
            f"{len(spare)} left over {spare[:_LISTED]}; check architecture and positions"
        )
    for name, shape in wanted.items():
        if tuple(given[name].shape) != shape:
            raise ParameterError(
                f"state[{name!r}] has shape {tuple(given[name].shape)}, expected {shape}; check "
                "replicates"
            )


def _source_name(name: str) -> str:
    """Name of one of our tensors in the source."""
    for ours, theirs in _NAMES:
        name = re.sub(ours, theirs, name)
    # activations have numbers too in the layers of the window network
    return re.sub(r"(?<=_layers\.)\d+", lambda number: str(2 * int(number[0])), name)


class _Shapes:
    """Shapes of a state dictionary, and an error where a name is missing."""

    def __init__(self, state: Mapping[str, Tensor], kind: str) -> None:
        self.state, self.kind = state, kind

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self.state:
            raise ParameterError(
                f"state has no tensor {name!r}: not a {self.kind!r} of the source, whose names "
                f"this function knows; it has {sorted(self.state)[:_LISTED]}"
            )
        return tuple(self.state[name].shape)

    def first(self, pattern: str) -> list[int]:
        """First sizes of pattern.format(0), pattern.format(1), ... as far as they exist."""
        sizes: list[int] = []
        while (name := pattern.format(len(sizes))) in self.state:
            sizes.append(self[name][0])
        return sizes


def _unet_options(shapes: _Shapes) -> dict[str, Any]:
    _ = shapes["final_conv.weight"]
    widths = shapes.first("encoders.{}.conv.0.weight")
    return {"widths": widths, "bottleneck": shapes["bottleneck.0.weight"][0]}


def _vit_options(shapes: _Shapes) -> dict[str, Any]:
    dim, _, patch, _ = shapes["patch_embedding.conv.weight"]
    hidden = shapes.first("transformer.{}.mlp.0.weight")
    return {
        "patch": patch,
        "dim": dim,
        "depth": len(hidden),
        "heads": max(1, dim // _HEAD_DIM),
        "mlp": shapes["transformer.0.mlp.0.weight"][0],
    }


def _stun_options(shapes: _Shapes) -> dict[str, Any]:
    return {"widths": shapes.first("encoders.{}.conv.0.weight"), **_vit_options(shapes)}


def _cnn_options(shapes: _Shapes) -> dict[str, Any]:
    convs = [shapes[f"conv_layers.{k}.weight"] for k in (0, 2, 4)]
    kernels = tuple(conv[-1] for conv in convs)
    sizes = [size for size, known in KERNELS.items() if known == kernels]
    if not sizes:
        raise ParameterError(f"state: kernels {kernels} belong to no window size of {KERNELS}")
    layers, k = [], 0
    while f"fc_layers.{k}.weight" in shapes.state:
        layers.append(shapes[f"fc_layers.{k}.weight"][0])
        k += 2
    return {"size": sizes[0], "widths": [conv[0] for conv in convs], "hidden": layers[:-1]}


_OPTIONS: dict[str, Callable[[_Shapes], dict[str, Any]]] = {
    "unet": _unet_options,
    "vit": _vit_options,
    "stun": _stun_options,
    "cnn": _cnn_options,
}

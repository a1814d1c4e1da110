"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from xr_spde._core.errors import ParameterError, XrSpdeError, unknown
from xr_spde.nets.statistics_net import StatisticsNet
from xr_spde.nets.stun import STUN
from xr_spde.nets.theta_solver import ThetaSolver
from xr_spde.nets.unet import UNet
from xr_spde.nets.variational import VariationalSolver
from xr_spde.nets.vit import ViT
from xr_spde.nets.window_cnn import WindowCNN

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "net": StatisticsNet,
    "unet": UNet,
    "vit": ViT,
    "stun": STUN,
    "cnn": WindowCNN,
    "4dvarnet": VariationalSolver,
    "4dvarnet-theta": ThetaSolver,
}
"""Classes by the name that they carry as ``architecture``; each also has ``options``."""


def build_network(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    """Build an untrained network.

    Parameters
    ----------
    architecture : str
        A key of :data:`ARCHITECTURES`.
    options : mapping
        Arguments of the class; those that it has under ``options`` build the same again.

    Returns
    -------
    Module

    Raises
    ------
    UnknownNameError
        For a name that does not exist, here or among the options.
    ParameterError
        For options that the class does not have, needs and was not given, or refuses.

    Examples
    --------
    >>> from xr_spde.nets.registry import build_network
    >>> network = build_network("unet", {"replicates": 30, "widths": [16, 32], "bottleneck": 64})
    >>> sum(p.numel() for p in network.parameters())
    121603
    """
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    kind = ARCHITECTURES[architecture]
    known = inspect.signature(kind).parameters
    if strange := sorted(set(options) - set(known)):
        raise ParameterError(
            f"options {strange} of architecture {architecture!r}: known are {list(known)}"
        )
    needed = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if absent := sorted(needed - set(options)):
        raise ParameterError(f"architecture {architecture!r} needs the options {absent}")
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        if isinstance(error, XrSpdeError):
            raise
        raise ParameterError(
            f"options {dict(options)} of architecture {architecture!r}: {error}"
        ) from error

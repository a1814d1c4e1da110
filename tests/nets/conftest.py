"""Small networks in evaluation mode, and fields for them."""

from __future__ import annotations

import pytest

TINY = {
    "unet": {"replicates": 4, "widths": [8, 16], "bottleneck": 24},
    "vit": {"replicates": 4, "patch": 4, "dim": 32, "depth": 2, "heads": 4},
    "stun": {"replicates": 4, "widths": [8, 16], "dim": 32, "depth": 2, "heads": 4},
    "cnn": {"replicates": 4, "size": 9, "widths": [8, 8, 16], "hidden": [12, 6]},
    "net": {"widths": [8, 16], "down": [1, 1], "up": [1]},
    "4dvarnet": {"steps": 3, "iterations": 3, "hidden": 8},
    "4dvarnet-theta": {"steps": 3, "iterations": 2, "hidden": 8},
}


@pytest.fixture
def tiny():
    """Return a function that builds a small network of an architecture, always the same."""
    import torch

    from xr_spde.nets.registry import build_network

    def build(architecture, **options):
        torch.manual_seed(3)
        return build_network(architecture, TINY[architecture] | options).eval()

    return build


@pytest.fixture
def white():
    """Return a function that draws white noise of a shape."""
    import torch

    def draw(*shape, seed=0):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    return draw

"""Muon for the hidden matrices of a network, AdamW for everything else, as one optimiser.

Muon (Jordan et al. 2024; ``torch.optim.Muon``) makes the update of a matrix orthogonal. For the
default network 300 of its steps do what 2000 of AdamW do. PyTorch's takes matrices only, so the
weights of convolutions are shown to it flattened.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xr_spde._core.errors import unknown

OPTIMIZERS = ("adamw", "muon")
"""Optimisers by name."""


class MuonAdam:
    """Muon on the weights of convolutions and linear layers, AdamW on the rest.

    The last layer, whose outputs have meanings of their own, belongs to the rest.

    Parameters
    ----------
    model : Module
        Network to optimise.
    rate : float
        Learning rate of both; Muon's updates are scaled to the size of AdamW's.
    decay : float
        Weight decay of both.
    """

    def __init__(self, model: nn.Module, rate: float, decay: float) -> None:
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        self._matrices = [layer.weight for layer in layers[:-1]]
        self._flat = [nn.Parameter(m.detach().flatten(1).clone()) for m in self._matrices]
        mine = {id(m) for m in self._matrices}
        rest = [p for p in model.parameters() if id(p) not in mine]
        self._muon = torch.optim.Muon(
            self._flat, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )
        self._adam = torch.optim.AdamW(rest, lr=rate, weight_decay=decay, fused=True)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of both, whose "lr" may be set."""
        return [*self._muon.param_groups, *self._adam.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients.

        Parameters
        ----------
        set_to_none : bool, optional
            As in PyTorch.
        """
        for matrix in self._matrices:
            matrix.grad = None
        self._adam.zero_grad(set_to_none=set_to_none)

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters."""
        for matrix, flat in zip(self._matrices, self._flat, strict=True):
            flat.copy_(matrix.flatten(1))
            flat.grad = None if matrix.grad is None else matrix.grad.flatten(1)
        self._muon.step()
        self._adam.step()
        for matrix, flat in zip(self._matrices, self._flat, strict=True):
            matrix.copy_(flat.view_as(matrix))

    def state_dict(self) -> dict[str, Any]:
        """Give what `load_state_dict` takes."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a former state.

        Parameters
        ----------
        state : dict
            Of `state_dict`.
        """
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def make_optimizer(
    kind: str, model: nn.Module, rate: float, decay: float
) -> MuonAdam | torch.optim.Optimizer:
    """Build an optimiser by name.

    Parameters
    ----------
    kind : str
        "muon" or "adamw".
    model : Module
        Network to optimise.
    rate, decay : float
        Learning rate and weight decay.

    Returns
    -------
    MuonAdam or torch.optim.AdamW

    Raises
    ------
    UnknownNameError
        For another name.
    """
    if kind not in OPTIMIZERS:
        raise unknown("optimizer", kind, OPTIMIZERS)
    if kind == "muon":
        return MuonAdam(model, rate, decay)
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=True)

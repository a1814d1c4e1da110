"""A convolutional LSTM cell: what turns gradients into updates, with a memory of earlier ones.

References
----------
Shi et al. (2015), Convolutional LSTM Network, arXiv 1506.04214; Fablet et al. (2021), Learning
variational data assimilation models and solvers, J. Adv. Model. Earth Syst. 13.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError
from xr_spde.nets.blocks import check_sizes

__all__ = ["ConvLSTM", "State"]

State = tuple[Tensor, Tensor]
"""Output and memory of the cell, (B, hidden, ny / coarsen, nx / coarsen) each."""


class ConvLSTM(nn.Module):
    """Gates by convolutions, and one more from the hidden state to the update.

    Parameters
    ----------
    channels, hidden, out : int
        Channels in, of the memory, and out.
    kernel : int, default 3
        Odd size of the convolutions.
    dropout : float, default 0.0
        Share of the inputs that is dropped in training.
    coarsen : int, default 1
        Squares of so many cells a side are taken as channels of one cell: 2 makes the cell four
        times cheaper and doubles its reach.

    Raises
    ------
    ParameterError
        For sizes that are not such numbers.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        out: int,
        *,
        kernel: int = 3,
        dropout: float = 0.0,
        coarsen: int = 1,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, hidden=hidden, out=out, kernel=kernel, coarsen=coarsen)
        if kernel % 2 == 0 or not 0.0 <= dropout < 1.0:
            raise ParameterError(
                f"kernel={kernel}, dropout={dropout}; expected an odd kernel and a share in [0, 1)"
            )
        self.hidden, self.coarsen = hidden, coarsen
        wide = coarsen**2
        self.dropout = nn.Dropout(dropout)
        self.gates = nn.Conv2d(channels * wide + hidden, 4 * hidden, kernel, padding=kernel // 2)
        self.head = nn.Conv2d(hidden, out * wide, kernel, padding=kernel // 2)
        with torch.no_grad():  # updates start small
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()  # type: ignore[union-attr]

    def forward(self, g: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Take one step.

        Parameters
        ----------
        g : Tensor (B, channels, ny, nx)
            Inputs, near unit size.
        state : tuple of Tensor, optional
            What the step before returned; zero at first.

        Returns
        -------
        update : Tensor (B, out, ny, nx)
        state : tuple of Tensor
        """
        ny, nx = g.shape[-2:]
        g = self.dropout(g)
        if self.coarsen > 1:
            padded = F.pad(g, (0, -nx % self.coarsen, 0, -ny % self.coarsen))
            g = F.pixel_unshuffle(padded, self.coarsen)
        if state is None:
            zero = g.new_zeros(g.shape[0], self.hidden, *g.shape[-2:])
            state = zero, zero
        output, memory = state
        gates = self.gates(torch.cat([g, output.to(g.dtype)], 1))
        keep, write, read, fresh = gates.chunk(4, 1)
        memory = keep.sigmoid() * memory + write.sigmoid() * fresh.tanh()
        output = read.sigmoid() * memory.tanh()
        update = cast(Tensor, self.head(output))
        if self.coarsen > 1:
            update = F.pixel_shuffle(update, self.coarsen)[..., :ny, :nx]
        return update, (output, memory)

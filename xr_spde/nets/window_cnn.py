"""Convolutional network for one window: the local baseline (LatticeVision, arXiv 2505.09803).

The estimate of a window belongs to its central cell. Tiling a field evaluates one window per
cell, and neighbouring windows share nearly all of their convolutions. Those have stride 1 and no
padding, so here they run once over the whole field; the 2 x 2 pooling of stride 2 of every window
is then a pooling of stride 1 read at every second cell, and the first linear layer a 3 x 3
convolution of dilation 2. The result is that of the windows, at 1/45 of the operations for
windows of 25 cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError
from xr_spde.nets.blocks import check_fields, check_sizes, extend

KERNELS: dict[int, tuple[int, int, int]] = {9: (2, 2, 2), 17: (6, 4, 4), 25: (10, 7, 5)}
"""Sizes of the three convolutions by window size; each leaves 6 x 6 cells, pooled to 3 x 3."""

_POOLED = 3
# bound what one pass holds in memory: cells of a strip, windows of a batch
_STRIP_CELLS = 1 << 16
_BATCH_WINDOWS = 1 << 12


class WindowCNN(nn.Module):
    """Three convolutions, pooling and three linear layers on one window.

    Parameters
    ----------
    replicates : int
        Channels in: one network serves one number of replicates.
    size : {9, 17, 25}
        Rows and columns of a window.
    widths : sequence of three int
        Channels of the convolutions.
    hidden : sequence of int
        Widths of the hidden linear layers.

    Raises
    ------
    ParameterError
        For another window size, or sizes that are no such numbers.
    """

    architecture: str = "cnn"

    def __init__(
        self,
        replicates: int,
        *,
        size: int = 25,
        widths: Sequence[int] = (64, 128, 256),
        hidden: Sequence[int] = (500, 64),
    ) -> None:
        super().__init__()
        if size not in KERNELS:
            raise ParameterError(f"size={size!r}: windows have {list(KERNELS)} cells a side")
        if len(widths) != len(KERNELS[size]) or len(hidden) == 0:
            raise ParameterError(
                f"widths={tuple(widths)}, hidden={tuple(hidden)}: give the channels of three "
                "convolutions and of at least one hidden layer"
            )
        channels = [replicates, *widths]
        layers = [widths[-1] * _POOLED**2, *hidden, 3]
        check_sizes(**{f"size {n} of {channels}, {layers}": n for n in channels + layers})
        self.size = size
        self.options: dict[str, Any] = {
            "replicates": replicates,
            "size": size,
            "widths": list(widths),
            "hidden": list(hidden),
        }
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, kernel)
            for (i, o), kernel in zip(pairwise(channels), KERNELS[size], strict=True)
        )
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(layers))

    def forward(self, windows: Tensor) -> Tensor:
        """Estimate the parameters of windows.

        Parameters
        ----------
        windows : Tensor (batch, replicates, size, size)
            Standardised replicates.

        Returns
        -------
        Tensor (batch, 3)
            ``log kappa2`` (per squared cell), the angle ``psi`` in radians, the ratio ``rho``.

        Raises
        ------
        ParameterError
            For windows of another shape.
        """
        check_fields(windows, self.options["replicates"])
        if windows.shape[2:] != (self.size, self.size):
            raise ParameterError(
                f"windows of {tuple(windows.shape[2:])} cells: this network takes "
                f"{(self.size, self.size)}; for whole fields call .maps"
            )
        outputs = F.max_pool2d(self._convolve(windows), 2).flatten(1)
        for linear in self.linears[:-1]:
            outputs = F.gelu(linear(outputs))
        return cast(Tensor, self.linears[-1](outputs))

    def maps(self, fields: Tensor, *, periodic: bool = False, windows: bool = False) -> Tensor:
        """Estimate every cell of fields from the window around it; no gradients.

        Parameters
        ----------
        fields : Tensor (batch, replicates, ny, nx)
            Standardised replicates, any size.
        periodic : bool
            Columns wrap at the edge; otherwise they are reflected, as rows always are.
        windows : bool
            Evaluate window by window, as the source does: the same result up to rounding, far
            slower. For comparisons.

        Returns
        -------
        Tensor (batch, 3, ny, nx)

        Raises
        ------
        ParameterError
            For fields of another shape.
        """
        check_fields(fields, self.options["replicates"])
        evaluate = self._by_window if windows else self._dense
        with torch.no_grad():
            return torch.stack(
                [
                    torch.cat([evaluate(strip) for strip in self._strips(field, periodic, windows)])
                    for field in fields
                ]
            ).movedim(-1, 1)

    def _strips(self, field: Tensor, periodic: bool, windows: bool) -> Iterator[Tensor]:
        """Cut a padded field into strips (1, replicates, rows + size - 1, nx + size - 1)."""
        half = self.size // 2
        ny, nx = field.shape[1:]
        padded = extend(field[None], -2, half, half, wrap=False)
        padded = extend(padded, -1, half, half, wrap=periodic)
        rows = max(1, (_BATCH_WINDOWS if windows else _STRIP_CELLS) // nx)
        for start in range(0, ny, rows):
            yield padded[:, :, start : min(start + rows, ny) + 2 * half]

    def _convolve(self, fields: Tensor) -> Tensor:
        for conv in self.convs:
            fields = F.gelu(conv(fields))
        return fields

    def _by_window(self, strip: Tensor) -> Tensor:
        """Estimates (rows, columns, 3) of one strip, each window on its own."""
        views = strip[0].unfold(1, self.size, 1).unfold(2, self.size, 1).movedim(0, 2)
        estimates: Tensor = self(views.flatten(0, 1))
        return estimates.view(*views.shape[:2], -1)

    def _dense(self, strip: Tensor) -> Tensor:
        """Estimates (rows, columns, 3) of one strip, the convolutions run once."""
        pooled = F.max_pool2d(self._convolve(strip), 2, stride=1)
        first = cast(nn.Linear, self.linears[0])
        kernel = first.weight.unflatten(1, (-1, _POOLED, _POOLED))
        outputs = F.conv2d(pooled, kernel, first.bias, dilation=2)[0].movedim(0, -1)
        for linear in self.linears[1:]:
            outputs = linear(F.gelu(outputs))
        return outputs

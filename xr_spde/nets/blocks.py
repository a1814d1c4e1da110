"""Parts that the networks share: padding that knows a periodic seam, convolution blocks.

Fields are ``(batch, channel, row, column)``. The networks of the source (LatticeVision,
arXiv 2505.09803) pad every convolution with zeros on all four sides. With ``periodic=True`` the
columns wrap around instead, as longitudes do, and the rows keep their zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError

#: Channels that share one mean and variance in a group normalisation.
_GROUP = 8


def check_sizes(**sizes: int) -> None:
    """Refuse sizes that are not whole numbers of at least one.

    Parameters
    ----------
    **sizes : int
        By the name that the user knows.

    Raises
    ------
    ParameterError
        Naming the first that is wrong.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ParameterError(f"{name}={size!r}: give a whole number of at least 1")


def check_fields(fields: Tensor, channels: int) -> None:
    """Refuse fields that a network does not accept.

    Parameters
    ----------
    fields : Tensor
        To be ``(batch, channels, row, column)``, with at least one cell.
    channels : int
        What the network was built for.

    Raises
    ------
    ParameterError
        For another number of axes or channels, or an empty grid.
    """
    shape = tuple(fields.shape)
    if len(shape) != 4 or shape[1] != channels or 0 in shape[2:]:
        raise ParameterError(
            f"fields of shape {shape}: this network takes (batch, {channels}, row, column)"
        )


def extend(fields: Tensor, axis: int, before: int, after: int, *, wrap: bool) -> Tensor:
    """Continue fields beyond their edges, by any number of cells.

    Parameters
    ----------
    fields : Tensor
        Any shape.
    axis : int
        Axis to lengthen.
    before, after : int
        Cells to add at either end.
    wrap : bool
        Continue periodically; otherwise reflect about the first and last cell.

    Returns
    -------
    Tensor
        Longer by ``before + after`` along `axis`.

    Examples
    --------
    >>> import torch
    >>> from xr_spde.nets.blocks import extend
    >>> extend(torch.arange(3), 0, 2, 3, wrap=False).tolist()
    [2, 1, 0, 1, 2, 1, 0, 1]
    >>> extend(torch.arange(3), 0, 2, 3, wrap=True).tolist()
    [1, 2, 0, 1, 2, 0, 1, 2]
    """
    if before == after == 0:
        return fields
    size = fields.shape[axis]
    index = torch.arange(-before, size + after, device=fields.device)
    if wrap or size == 1:
        index = index % size
    else:
        period = 2 * (size - 1)
        index = index % period
        index = torch.minimum(index, period - index)
    return fields.index_select(axis, index)


def pad_to_multiple(
    fields: Tensor, multiple: int, *, periodic: bool
) -> tuple[Tensor, slice, slice]:
    """Lengthen rows and columns to a multiple, by reflection or, round the seam, by wrapping.

    Parameters
    ----------
    fields : Tensor (..., ny, nx)
        Any size from 1 x 1.
    multiple : int
        What a network divides rows and columns by.
    periodic : bool
        Columns wrap. A width that is no multiple of itself gets at least half a multiple of true
        neighbours on each side, because the lengthened grid no longer closes upon itself.

    Returns
    -------
    padded : Tensor
        The same tensor where nothing had to be added.
    rows, columns : slice
        Where the original cells are.
    """
    ny, nx = fields.shape[-2:]
    north, east, west = -ny % multiple, -nx % multiple, 0
    if periodic and east:
        west = (east + multiple) // 2
        east = east + multiple - west
    padded = extend(fields, -2, 0, north, wrap=False)
    padded = extend(padded, -1, west, east, wrap=periodic)
    return padded, slice(0, ny), slice(west, west + nx)


def seam_conv(conv: nn.Conv2d, fields: Tensor, *, periodic: bool) -> Tensor:
    """Apply a zero-padded convolution of stride 1; with `periodic`, columns wrap instead.

    Parameters
    ----------
    conv : Conv2d
        Its own padding must be a number of cells per axis.
    fields : Tensor (batch, channel, ny, nx)
        Wider than the padding.
    periodic : bool
        Whether the last column lies beside the first.

    Returns
    -------
    Tensor (batch, channel, ny, nx)
    """
    if not periodic:
        return cast(Tensor, conv(fields))
    rows, columns = cast(tuple[int, int], conv.padding)
    wrapped = F.pad(fields, (columns, columns, 0, 0), mode="circular")
    return F.conv2d(
        wrapped,
        conv.weight,
        conv.bias,
        padding=(rows, 0),
        dilation=conv.dilation,
        groups=conv.groups,
    )


class DoubleConv(nn.Module):
    """Twice: 3 x 3 convolution, group normalisation, GELU.

    Parameters
    ----------
    channels, width : int
        Channels in and out; `width` a multiple of 8, the size of a group.

    Raises
    ------
    ParameterError
        For any other `width`.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        check_sizes(width=width)
        if width % _GROUP:
            raise ParameterError(f"width {width}: channels are normalised in groups of {_GROUP}")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(width // _GROUP, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(width // _GROUP, width)

    def forward(self, fields: Tensor, periodic: bool = False) -> Tensor:
        """Map (batch, channels, ny, nx) to (batch, width, ny, nx)."""
        fields = F.gelu(self.norm1(seam_conv(self.conv1, fields, periodic=periodic)))
        return F.gelu(self.norm2(seam_conv(self.conv2, fields, periodic=periodic)))


class Pyramid(nn.Module):
    """Encoder and decoder with skip connections, around a middle of any kind.

    Parameters
    ----------
    channels : int
        Channels in.
    widths : sequence of int
        Channels of the levels, finest first; each level halves rows and columns.
    middle : Module
        Called with the coarsest level and `periodic`; keeps rows and columns.
    middle_width : int
        Channels that `middle` returns.
    outputs : int
        Channels out.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        middle: nn.Module,
        middle_width: int,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        upward = widths[::-1]
        self.encoders = nn.ModuleList(
            DoubleConv(i, o) for i, o in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.middle = middle
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 2, stride=2)
            for i, o in zip([middle_width, *upward[:-1]], upward, strict=True)
        )
        self.decoders = nn.ModuleList(DoubleConv(2 * width, width) for width in upward)
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, fields: Tensor, periodic: bool = False) -> Tensor:
        """Map (batch, channels, ny, nx) to (batch, outputs, ny, nx)."""
        skips = []
        for encode in self.encoders:
            skips.append(encode(fields, periodic))
            fields = F.max_pool2d(skips[-1], 2)
        fields = self.middle(fields, periodic)
        for up, decode in zip(self.ups, self.decoders, strict=True):
            fields = decode(torch.cat((up(fields), skips.pop()), dim=1), periodic)
        return cast(Tensor, self.head(fields))


class GridNetwork(nn.Module):
    """A network from replicates to maps of the same size, for grids of any size.

    Rows and columns that the body cannot divide are padded by reflection (columns by wrapping
    when periodic) and the result is cropped; padded cells take part in the normalisations.

    Parameters
    ----------
    body : Module
        Called with ``(batch, replicates, row, column)`` and `periodic`.
    multiple : int
        What rows and columns must be divisible by.
    options : dict
        Arguments, JSON-able, from which the network can be built again.

    Attributes
    ----------
    architecture : str
        Name in `xr_spde.nets.registry`.
    """

    architecture: str = ""

    def __init__(self, body: nn.Module, multiple: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.body = body
        self.multiple = multiple
        self.options = options

    def forward(self, fields: Tensor, *, periodic: bool = False) -> Tensor:
        """Estimate the parameters of every cell.

        Parameters
        ----------
        fields : Tensor (batch, replicates, ny, nx)
            Standardised replicates.
        periodic : bool
            Whether the last column lies beside the first.

        Returns
        -------
        Tensor (batch, 3, ny, nx)
            ``log kappa2`` (per squared cell), the angle ``psi`` in radians, the ratio ``rho``;
            nothing bounds them.

        Raises
        ------
        ParameterError
            For fields of another shape, or a grid beyond learned positions.
        """
        check_fields(fields, self.options["replicates"])
        padded, rows, columns = pad_to_multiple(fields, self.multiple, periodic=periodic)
        maps: Tensor = self.body(padded, periodic)
        return maps[..., rows, columns]

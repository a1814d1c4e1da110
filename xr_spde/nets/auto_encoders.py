"""Convolutional auto-encoders of fields on a grid: the CAE and AEflow that LAINR is compared with.

Both halve the grid three times and hold a code of eight channels there; both convolve 5 x 5 cells,
longitudes wrapping around and rows repeated beyond the first and last. With two variables they have
170,070 and 57,838 weights, and a grid of 128 x 64 has codes of 1024.

References
----------
Glaws, King and Sprague (2020), Phys. Rev. Fluids 5 (AEflow); Li, Dong and Zhang (2024), J. Comput.
Phys., arXiv 2309.09574 (both as baselines).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.blocks import check_fields, check_sizes, extend

__all__ = ["FieldAutoEncoder", "NetworkSettings", "build_auto_encoder"]

KINDS = ("cae", "aeflow")

_KERNEL, _HALVINGS, _SLOPE = 5, 3, 0.2
_STUFFED, _ADDED = 2.0, 0.3  # three of four values are zero; a residual begins small


@dataclass(frozen=True)
class NetworkSettings:
    """What a network is built from.

    Attributes
    ----------
    kind : {"cae", "aeflow"}
        Which of the two.
    variables : int
        Channels of fields.
    ny, nx : int
        Rows and columns of fields; those that are no multiples of eight are extended.
    periodic : bool
        Whether columns wrap around.
    width : int, optional
        Channels within: 32 of a CAE, 4 of an AEflow, whose later ones have two and four times that.
    latent : int
        Channels of the code.
    blocks : int
        Residual blocks of an AEflow at full resolution.

    Raises
    ------
    UnknownNameError
        For another kind.
    ParameterError
        For sizes below one.
    """

    kind: str
    variables: int
    ny: int
    nx: int
    periodic: bool = True
    width: int | None = None
    latent: int = 8
    blocks: int = 4

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of auto-encoder", self.kind, KINDS)
        check_sizes(variables=self.variables, ny=self.ny, nx=self.nx, latent=self.latent,
                    blocks=self.blocks, width=self.channels)  # fmt: skip

    @property
    def channels(self) -> int:
        """Channels within, by default those of the kind."""
        return (32 if self.kind == "cae" else 4) if self.width is None else self.width

    @property
    def coarse(self) -> tuple[int, int]:
        """Rows and columns of the code."""
        step = 2**_HALVINGS
        return -(-self.ny // step), -(-self.nx // step)

    @property
    def code(self) -> int:
        """Size of a code."""
        return self.latent * self.coarse[0] * self.coarse[1]


class _Conv(nn.Module):
    """Convolution of 5 x 5 cells that knows the seam; stride two halves the grid.

    It starts with weights that keep the variance of what passes, `gain` times in units of a
    deviation: with the usual ones, signals die out over the many layers of a decoder.
    """

    def __init__(
        self, inputs: int, outputs: int, *, periodic: bool, stride: int = 1, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, _KERNEL, stride)
        nn.init.kaiming_normal_(self.conv.weight, a=_SLOPE)
        with torch.no_grad():
            self.conv.weight *= gain
        self.periodic = periodic

    def forward(self, fields: Tensor) -> Tensor:
        rim = _KERNEL // 2
        index = torch.arange(-rim, fields.shape[-1] + rim, device=fields.device)
        last = fields.shape[-1] - 1
        index = index % (last + 1) if self.periodic else index.clamp(0, last)
        rows = torch.arange(-rim, fields.shape[-2] + rim, device=fields.device)
        rows = rows.clamp(0, fields.shape[-2] - 1)
        wide = fields.index_select(-1, index).index_select(-2, rows)
        return cast(Tensor, self.conv(wide))


class _Stuff(nn.Module):
    """Twice the rows and columns, with zeros between the values."""

    def forward(self, fields: Tensor) -> Tensor:
        for axis in (-2, -1):
            pair = torch.stack([fields, torch.zeros_like(fields)], dim=axis)
            fields = pair.flatten(axis - 1, axis)
        return fields


class _Residual(nn.Module):
    """What is added to its own input."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, fields: Tensor) -> Tensor:
        return cast(Tensor, fields + self.parts(fields))


class FieldAutoEncoder(nn.Module):
    """An encoder and a decoder.

    Parameters
    ----------
    settings : NetworkSettings
        See there.

    Attributes
    ----------
    settings : NetworkSettings
        As given.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        make = _cae if settings.kind == "cae" else _aeflow
        self.encoder, self.decoder = make(settings)

    def encode(self, fields: Tensor) -> Tensor:
        """Codes (batch, n) of fields (batch, variables, ny, nx).

        Raises
        ------
        ParameterError
            For fields of another shape.
        """
        s = self.settings
        check_fields(fields, s.variables)
        if fields.shape[-2:] != (s.ny, s.nx):
            raise ParameterError(
                f"fields of shape {tuple(fields.shape)}: this network takes grids of {s.ny} x "
                f"{s.nx}"
            )
        step, (rows, columns) = 2**_HALVINGS, s.coarse
        fields = extend(fields, -2, 0, rows * step - s.ny, wrap=False)
        fields = extend(fields, -1, 0, columns * step - s.nx, wrap=s.periodic)
        return cast(Tensor, self.encoder(fields)).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Fields (batch, variables, ny, nx) of codes (batch, n)."""
        s = self.settings
        fields = cast(Tensor, self.decoder(codes.reshape(len(codes), s.latent, *s.coarse)))
        return fields[..., : s.ny, : s.nx]

    def forward(self, fields: Tensor) -> Tensor:
        """Fields by way of their codes."""
        return self.decode(self.encode(fields))

    @property
    def options(self) -> dict[str, Any]:
        """What :func:`build_auto_encoder` takes."""
        return asdict(self.settings)


def _halve(inputs: int, outputs: int, *, periodic: bool) -> list[nn.Module]:
    return [
        _Conv(inputs, inputs, periodic=periodic, stride=2), nn.LeakyReLU(_SLOPE),
        _Conv(inputs, outputs, periodic=periodic), nn.LeakyReLU(_SLOPE),
    ]  # fmt: skip


def _cae(s: NetworkSettings) -> tuple[nn.Module, nn.Module]:
    width = s.channels
    down, up = [], []
    for inputs, outputs in ((s.variables, width), (width, width), (width, s.latent)):
        down += _halve(inputs, outputs, periodic=s.periodic)
    for inputs, outputs in ((s.latent, width), (width, width), (width, s.variables)):
        up += [
            _Conv(inputs, outputs, periodic=s.periodic), nn.LeakyReLU(_SLOPE),
            _Stuff(), _Conv(outputs, outputs, periodic=s.periodic, gain=_STUFFED),
            nn.LeakyReLU(_SLOPE),
        ]  # fmt: skip
    return nn.Sequential(*down), nn.Sequential(*up)


def _aeflow(s: NetworkSettings) -> tuple[nn.Module, nn.Module]:
    width, wrap = s.channels, s.periodic

    def trunk() -> nn.Module:
        blocks: list[nn.Module] = [
            _Residual(_Conv(width, width, periodic=wrap), nn.ReLU(),
                      _Conv(width, width, periodic=wrap, gain=_ADDED))
            for _ in range(s.blocks)
        ]  # fmt: skip
        return _Residual(*blocks, _Conv(width, width, periodic=wrap, gain=_ADDED))

    levels = [width, 2 * width, 4 * width, 4 * width]
    down: list[nn.Module] = [_Conv(s.variables, width, periodic=wrap), trunk()]
    for inputs, outputs in pairwise(levels):
        down += _halve(inputs, outputs, periodic=wrap)
    down += [_Conv(levels[-1], s.latent, periodic=wrap)]
    up: list[nn.Module] = [_Conv(s.latent, levels[-1], periodic=wrap)]
    for inputs, outputs in pairwise(levels[::-1]):
        up += [
            _Stuff(), _Conv(inputs, inputs, periodic=wrap, gain=_STUFFED), nn.LeakyReLU(_SLOPE),
            _Conv(inputs, outputs, periodic=wrap), nn.LeakyReLU(_SLOPE),
        ]  # fmt: skip
    up += [trunk(), _Conv(width, s.variables, periodic=wrap)]
    return nn.Sequential(*down), nn.Sequential(*up)


def build_auto_encoder(options: Mapping[str, Any]) -> FieldAutoEncoder:
    """Build an untrained network.

    Parameters
    ----------
    options : mapping
        Of :class:`NetworkSettings`.

    Returns
    -------
    FieldAutoEncoder
    """
    return FieldAutoEncoder(NetworkSettings(**options))

"""Encoder, field extraction and decoder of latent dynamics: three small U-Nets."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError
from xr_spde.nets.blocks import check_sizes

__all__ = ["LatentNets", "SmallUNet"]

_GROUPS = 4
_DIFFUSION_GAIN = 20.0


class _Convolutions(nn.Module):
    """Twice: 3 x 3 convolution of the field continued at its borders, normalisation, SiLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = ((channels, width), (width, width))
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, padding_mode="replicate") for i, o in sizes
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, o) for _, o in sizes)

    def forward(self, fields: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            fields = F.silu(norm(conv(fields)))
        return fields


class SmallUNet(nn.Module):
    """U-Net that averages down and interpolates up; 0.12 million parameters by default.

    Parameters
    ----------
    channels, outputs : int
        Channels in and out.
    width : int
        Channels of the finest level, doubled at each coarser one; a multiple of 4.
    depth : int
        Number of halvings; rows and columns must be multiples of ``2**depth``.
    zero : bool
        Whether the last layer begins at zero, so that the network begins as nothing.

    Raises
    ------
    ParameterError
        For sizes that are not such numbers.
    """

    def __init__(
        self, channels: int, outputs: int, *, width: int = 8, depth: int = 3, zero: bool = False
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, outputs=outputs, width=width, depth=depth)
        if width % _GROUPS:
            raise ParameterError(f"width={width}: channels are normalised in {_GROUPS} groups")
        widths = [width * 2**k for k in range(depth + 1)]
        self.down = nn.ModuleList(
            _Convolutions(i, o) for i, o in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            _Convolutions(i + o, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, outputs, 1)
        if zero:
            self.begin_at_zero()

    def begin_at_zero(self) -> None:
        """Set the last layer to zero."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def forward(self, fields: Tensor) -> Tensor:
        """Map (batch, channels, ny, nx) to (batch, outputs, ny, nx)."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            fields = block(F.avg_pool2d(fields, 2) if level else fields)
            skips.append(fields)
        skips.pop()
        for block in self.up:
            fields = F.interpolate(fields, scale_factor=2, mode="bilinear", align_corners=False)
            fields = block(torch.cat((fields, skips.pop()), dim=1))
        return cast(Tensor, self.head(fields))


class LatentNets(nn.Module):
    r"""The networks E, F and D of one sequence of images.

    With ``residual`` the encoder is :math:`E(u) = u + \epsilon_E(u)` and the decoder
    :math:`D(p) = p + \epsilon_D(p)`, both :math:`\epsilon` zero at first: the model begins as
    advection of the image itself. F begins at zero as well.

    Parameters
    ----------
    channels : int
        Channels of an image.
    latent : int
        Channels of the latent state; with ``residual`` at least those of an image.
    fields : int
        Fields that F gives.
    seen : int
        Images that F sees.
    gaps : bool
        Whether a mask of what is known comes with each image.
    width, depth : int
        See :class:`SmallUNet`.
    residual : bool
        As said above.
    sources : int
        How many of the fields are sources of the latent state: 0, or as many as it has channels.
    diffusivity : float
        Where the search for that of the latent state begins, in squares of a cell per span, below
        zero if images sharpen with time; 0 for a state that does not diffuse.

    Attributes
    ----------
    options : dict
        Arguments from which the networks can be built again.
    diffusivity : Tensor () or None
        Of the latent state, always of the sign it began with.

    Raises
    ------
    ParameterError
        For sizes that do not fit.
    """

    architecture = "latent"

    def __init__(
        self,
        *,
        channels: int = 1,
        latent: int = 1,
        fields: int = 2,
        seen: int = 1,
        gaps: bool = False,
        width: int = 8,
        depth: int = 3,
        residual: bool = True,
        sources: int = 0,
        diffusivity: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(latent=latent, fields=fields, seen=seen)
        if residual and latent < channels:
            raise ParameterError(
                f"latent={latent} for images of {channels} channels; a residual encoder needs at "
                "least as many, or give residual=False"
            )
        self.options: dict[str, Any] = {
            "channels": channels,
            "latent": latent,
            "fields": fields,
            "seen": seen,
            "gaps": gaps,
            "width": width,
            "depth": depth,
            "residual": residual,
            "sources": sources,
            "diffusivity": diffusivity,
        }
        self.log_diffusion = nn.Parameter(torch.zeros(())) if diffusivity else None
        inputs = channels + gaps
        sizes = {"width": width, "depth": depth}
        self.encoder = SmallUNet(inputs, latent, zero=residual, **sizes)
        self.extractor = SmallUNet(seen * inputs, fields, zero=True, **sizes)
        self.decoder = SmallUNet(latent, channels, zero=residual, **sizes)

    @property
    def diffusivity(self) -> Tensor | None:
        """Of the latent state; each step of the optimisation may change it by a twentieth or so."""
        if self.log_diffusion is None:
            return None
        return (
            cast(float, self.options["diffusivity"]) * (_DIFFUSION_GAIN * self.log_diffusion).exp()
        )

    def _with_mask(self, images: Tensor, known: Tensor) -> Tensor:
        return torch.cat((images, known), dim=1) if self.options["gaps"] else images

    def encode(self, images: Tensor, known: Tensor) -> Tensor:
        """Latent state (b, latent, ny, nx) of images (b, channels, ...), masks (b, 1, ...)."""
        state = cast(Tensor, self.encoder(self._with_mask(images, known)))
        if self.options["residual"]:
            missing = self.options["latent"] - self.options["channels"]
            state = state + F.pad(images, (0, 0, 0, 0, 0, missing))
        return state

    def extract(self, images: Tensor, known: Tensor) -> Tensor:
        """Fields (b, fields, ny, nx), unbounded, of images (b, seen, channels, ny, nx)."""
        parts = [self._with_mask(u, m) for u, m in zip(images.unbind(1), known.unbind(1))]  # noqa: B905
        return cast(Tensor, self.extractor(torch.cat(parts, dim=1)))

    def parts(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Motion, between -1 and 1, and sources (b, sources, ny, nx), as :meth:`extract` sees."""
        fields = self.extract(images, known)
        count = cast(int, self.options["sources"])
        motion, source = fields.split([fields.shape[1] - count, count], dim=1)
        return motion.tanh(), source

    def decode(self, state: Tensor) -> Tensor:
        """Images (b, channels, ny, nx) of latent states (b, latent, ny, nx)."""
        images = cast(Tensor, self.decoder(state))
        if self.options["residual"]:
            images = images + state[:, : self.options["channels"]]
        return images

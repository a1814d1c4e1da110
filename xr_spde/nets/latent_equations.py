"""Normal equations of codes: what `xr_spde.nets.latent_encoding` solves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from xr_spde._core.errors import ParameterError

__all__ = [
    "CodePrior",
    "Decoder",
    "Modes",
    "Problem",
    "Target",
    "Weighing",
    "checked_weights",
    "patterns_of",
]

_POINTS, _VALUES = 4096, 2**23

Modes = tuple[Tensor, Tensor]


class Decoder(Protocol):
    """What is asked of a decoder; `xr_spde.nets.sinr.Sinr` is one."""

    @property
    def affine(self) -> bool:
        """Whether values are affine in the code."""

    @property
    def n(self) -> int:
        """Numbers in a code."""

    def columns(self, variable: int) -> Any:
        """Which numbers (w,) of a code a variable reads."""

    def __call__(self, codes: Tensor, functions: Tensor) -> Tensor:
        """Values (B, P, c) of codes (B, n), with functions of position (layers, P, q)."""

    def modes(self, functions: Tensor) -> Modes:
        """Values (P, c) of code 0 and derivatives (c, P, w), where these are constant."""

    def jacobian(self, code: Tensor, functions: Tensor) -> Modes:
        """Values (P, c) of a code (n,) and derivatives (c, P, w)."""


class Weighing(NamedTuple):
    """How values weigh.

    Attributes
    ----------
    plain : Tensor (P, c)
        Weights as given, float64.
    full : Tensor (P, c)
        Divided by the variance of the noise over its harmonic mean.
    noise : float
        Root of that mean.
    """

    plain: Tensor
    full: Tensor
    noise: float


class CodePrior(NamedTuple):
    """Gaussian prior of codes.

    Attributes
    ----------
    mean : Tensor (n,)
        Mean.
    covariance : Tensor (n,) or (n, n)
        Variances, or all of the covariance.
    """

    mean: Tensor
    covariance: Tensor


def checked_weights(
    functions: Tensor, values: Tensor, weights: Tensor | None, noise: float | Tensor
) -> Weighing:
    """Look at all shapes, spread weights over the variables and bring in the noise.

    Parameters
    ----------
    functions, values, weights, noise
        As in `xr_spde.nets.latent_encoding.encode`.

    Returns
    -------
    Weighing

    Raises
    ------
    ParameterError
        For shapes that do not fit, or a negative weight or noise.
    """
    if values.ndim != 3 or values.shape[1] != functions.shape[1]:
        raise ParameterError(
            f"values have shape {tuple(values.shape)}; expected (fields, points, variables) with "
            f"{functions.shape[1]} points"
        )
    points, variables = values.shape[1:]
    given = values.new_ones(points) if weights is None else weights
    if given.shape not in ((points,), (points, variables)):
        raise ParameterError(
            f"weights have shape {tuple(given.shape)}; expected {(points,)} or "
            f"{(points, variables)}"
        )
    given = given.to(values.device, torch.float64)
    given = given[:, None].expand(-1, variables) if given.ndim == 1 else given
    inverse = torch.as_tensor(noise).to(given).square().reciprocal()
    if inverse.shape not in ((), (variables,), (points, variables)):
        raise ParameterError(
            f"noise has shape {tuple(inverse.shape)}; expected a number, {(variables,)} or "
            f"{(points, variables)}"
        )
    proper = bool((given >= 0.0).all() & (inverse > 0.0).all())
    if not proper or not bool(given.isfinite().all() & inverse.isfinite().all()):
        raise ParameterError("weights must be finite and not negative, and noise= positive")
    full = given * (inverse / inverse.mean())
    return Weighing(given, full, float(inverse.mean()) ** -0.5)


def patterns_of(known: Tensor) -> list[Tensor]:
    """Group fields that have values at the same points.

    Parameters
    ----------
    known : Tensor (B, P, c) of bool
        Where there are values.

    Returns
    -------
    list of Tensor
        Numbers of the fields of each group; fields without any value are in none.
    """
    if bool((known == known[:1]).all()):
        every = torch.arange(len(known), device=known.device)
        return [every] if bool(known[:1].any()) else []
    groups: dict[bytes, list[int]] = {}
    for number, mask in enumerate(known.flatten(1).cpu()):
        if bool(mask.any()):
            groups.setdefault(np.packbits(mask.numpy()).tobytes(), []).append(number)
    return [torch.tensor(members, device=known.device) for members in groups.values()]


class Target:
    """The prior as a mean and a precision times the squared noise, and the first codes."""

    def __init__(
        self, n: int, prior: CodePrior | None, noise: float, start: Tensor | None, values: Tensor
    ) -> None:
        zero = torch.zeros(n, dtype=torch.float64, device=values.device)
        self.mean, self.precision = zero, zero.diag()
        if prior is not None:
            self.mean, scaled = prior.mean.to(zero), prior.covariance.to(zero) / noise**2
            if self.mean.shape != (n,) or scaled.shape not in ((n,), (n, n)):
                raise ParameterError(
                    f"the prior has a mean of shape {tuple(self.mean.shape)} and a covariance of "
                    f"shape {tuple(scaled.shape)}; codes have {n} numbers"
                )
            self.precision = (
                (1.0 / scaled).diag()
                if scaled.ndim == 1
                else torch.cholesky_inverse(torch.linalg.cholesky(scaled))
            )
        self.proper = prior is not None
        self.start = self.mean.expand(len(values), n) if start is None else start.to(zero)
        if self.start.shape != (len(values), n):
            raise ParameterError(
                f"start has shape {tuple(self.start.shape)}, expected {(len(values), n)}"
            )


class Problem:
    """Normal equations of fields, summed over blocks of points."""

    def __init__(
        self, decoder: Decoder, functions: Tensor, values: Tensor, weighing: Weighing,
        modes: Modes | None,
    ) -> None:  # fmt: skip
        self.decoder, self.functions, self.values = decoder, functions, values
        self.plain, self.weights = weighing.plain, weighing.full
        self.known = values.isfinite() & (weighing.plain > 0.0)
        self.kept = modes
        self.columns = [
            torch.as_tensor(decoder.columns(k), device=values.device)
            for k in range(values.shape[2])
        ]

    def blocks(self) -> Iterator[slice]:
        """Blocks of points, smaller where there are many fields."""
        fields, count, variables = self.values.shape
        size = min(max(_VALUES // (fields * variables), _POINTS // 8), _POINTS)
        return (slice(low, min(low + size, count)) for low in range(0, count, size))

    def modes(self, part: slice) -> Modes:
        """Offset and modes of an affine decoder in a block, float64."""
        if self.kept is not None:
            offset, modes = self.kept[0][part], self.kept[1][:, part]
        else:
            offset, modes = self.decoder.modes(self.functions[:, part])
        return offset.double(), modes.double()

    def scale(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the weights of what is known and 1 / K, each (fields,)."""
        known = self.known[members]
        total = torch.where(known, self.weights, 0.0).sum((1, 2))
        plain = torch.where(known, self.plain, 0.0)
        return total, plain.square().sum((1, 2)) / plain.sum((1, 2)) / total

    def data(self, members: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Weights and values with 0 for what is missing, each (fields, P, c)."""
        known = self.known[members, part]
        values = torch.where(known, self.values[members, part].double(), 0.0)
        return torch.where(known, self.weights[part], 0.0), values

    def add(
        self, matrix: Tensor, vectors: Tensor, w: Tensor, derivatives: Tensor, left: Tensor
    ) -> None:
        """Add J'WJ (n, n) and J'W left (fields, n), of w (P, c) and left (fields, P, c)."""
        for k, columns in enumerate(self.columns):
            weighted = derivatives[k] * w[:, k, None]
            matrix[columns[:, None], columns] += weighted.T @ derivatives[k]
            vectors[:, columns] += left[:, :, k] @ weighted

"""Codes of the fields of a training, and what is done to them when it ends."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xr_spde.nets.latent_encoding import CodePrior, encode
from xr_spde.nets.sinr import Sinr
from xr_spde.nets.sinr_batches import FieldBatches

__all__ = ["encode_all", "missed", "standardise", "unit_prior"]


def unit_prior(decoder: Sinr) -> CodePrior:
    """Prior N(0, I) of codes.

    Parameters
    ----------
    decoder : Sinr
        Of which n is the size of a code.

    Returns
    -------
    CodePrior
    """
    return CodePrior(torch.zeros(decoder.n), torch.ones(decoder.n))


@torch.no_grad()
def encode_all(
    decoder: Sinr, batches: FieldBatches, *,
    start: Tensor | None = None, noise: float = 0.02, together: int = 256,
) -> Tensor:  # fmt: skip
    """Encode all fields of a training on all points.

    Parameters
    ----------
    decoder : Sinr
        Trained.
    batches : FieldBatches
        Whose fields are read.
    start : Tensor (N, n), optional
        First codes.
    noise : float, optional
        As in `SinrTraining`.
    together : int, optional
        Fields that are read at once.

    Returns
    -------
    Tensor (N, n)
    """
    functions = batches.everywhere().to(decoder.read_bias)
    modes = decoder.modes(functions) if decoder.affine else None
    weights, prior, parts = torch.as_tensor(batches.areas), unit_prior(decoder), []
    for low in range(0, batches.count, together):
        rows = np.arange(low, min(low + together, batches.count))
        values = batches.values(rows).to(functions)
        first = None if start is None else start[rows]
        found = encode(
            decoder, functions, values, weights, prior=prior, noise=noise, start=first, modes=modes
        )
        parts.append(found.codes)
    return torch.cat(parts)


@torch.no_grad()
def standardise(decoder: Sinr, codes: Tensor) -> Tensor:
    """Give codes mean 0, variance 1 and no correlation, without a change of their fields.

    Parameters
    ----------
    decoder : Sinr
        Its maps of the code, and what they add to, are changed in place.
    codes : Tensor (N, n)
        Codes of a training.

    Returns
    -------
    Tensor (N, n)
        The codes of the same fields afterwards. What belongs to one variable, and what all
        share, is standardised by itself; where variables share one map, all together. The codes
        of a decoder that is not affine keep their mean.
    """
    s = decoder.settings
    own = codes[:, : s.variables * s.code].double().reshape(len(codes), s.variables, s.code)
    found = torch.empty_like(codes, dtype=torch.float64)
    weight, bias = decoder.shift_weight.double(), decoder.shift_bias.double()
    gain = None if decoder.affine else decoder.gain_weight.double()
    blocks = [(own.reshape(-1, s.code), slice(None), slice(0, s.code))] if s.shared else [
        (own[:, k], slice(k, k + 1), slice(0, s.code)) for k in range(s.variables)
    ]  # fmt: skip
    turned = []
    for block, maps, reads in blocks if s.code else []:
        turned.append(_turn(block, weight[:, maps, :, reads], bias[:, maps], gain, maps, reads))
    if turned:
        parts = turned[0].reshape(len(codes), -1) if s.shared else torch.cat(turned, dim=1)
        found[:, : s.variables * s.code] = parts
    if s.common:
        maps, reads = slice(None), slice(s.code, s.code + s.common)
        block = codes[:, s.variables * s.code :].double()
        found[:, s.variables * s.code :] = _turn(
            block, weight[:, maps, :, reads], bias[:, maps], gain, maps, reads
        )
    decoder.shift_weight.copy_(weight)
    decoder.shift_bias.copy_(bias)
    if gain is not None:
        decoder.gain_weight.copy_(gain)
    return found.to(codes.dtype)


def _turn(
    block: Tensor, weight: Tensor, bias: Tensor, gain: Tensor | None, maps: slice, reads: slice
) -> Tensor:
    """Standardise some numbers of codes, and change views of their maps accordingly."""
    mean = block.mean(0) if gain is None else torch.zeros_like(block[0])
    _, size, axes = torch.linalg.svd(block - mean, full_matrices=False)
    if len(axes) < block.shape[1]:  # fewer fields than numbers: a whole set of axes all the same
        axes = torch.linalg.svd(block - mean, full_matrices=True)[2]
        size = torch.cat([size, size.new_zeros(len(axes) - len(size))])
    size = size.clamp_min(1e-6 * size[0].clamp_min(1e-300)) / max(len(block), 1) ** 0.5
    bias += (weight @ mean).reshape(bias.shape)
    weight.copy_(weight @ (axes.T * size))
    if gain is not None:
        view = gain[:, maps, :, reads]
        view.copy_(view @ (axes.T * size))
    standard: Tensor = (block - mean) @ axes.T / size
    return standard


@torch.no_grad()
def missed(
    decoder: Sinr, batches: FieldBatches, fields: Tensor, *, noise: float = 0.02
) -> NDArray[np.float64]:
    """Weighted mean square of what decoding misses of fields, by variable.

    Parameters
    ----------
    decoder : Sinr
        Trained.
    batches : FieldBatches
        On the points of these fields.
    fields : Tensor (H, P, c)
        Values.
    noise : float, optional
        As in `SinrTraining`.

    Returns
    -------
    ndarray (c,)
    """
    functions, areas = batches.everywhere().to(fields), torch.as_tensor(batches.areas)
    prior = unit_prior(decoder)
    codes = encode(decoder, functions, fields, areas, prior=prior, noise=noise).codes
    known = fields.isfinite()
    w = torch.where(known, areas, 0.0)
    left = torch.where(known, decoder(codes, functions) - fields, 0.0).double()
    share = (w * left.square()).sum((0, 1)) / w.sum((0, 1)).clamp_min(1e-300)
    return np.asarray(share.numpy())

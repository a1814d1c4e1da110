"""The best maps of the code of an affine decoder, in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from xr_spde.nets.sinr import Sinr
from xr_spde.nets.sinr_batches import FieldBatches

__all__ = ["best_maps"]

_TURNS = 8


@torch.no_grad()
def best_maps(
    decoder: Sinr, batches: FieldBatches, *, flat: float = 1e-7, together: int = 256
) -> bool:
    """Give an affine decoder the maps of the code that leave the least misfit.

    With filters and trunk as they are, modes lie in the span of the rows of `Sinr.sweep`; the
    best are the principal components of the fields projected on it, of each variable or, where
    variables share the whole code, of all. Codes of the fields then have mean 0, variance 1 and
    no correlation.

    Parameters
    ----------
    decoder : Sinr
        Changed in place.
    batches : FieldBatches
        Of the fields; by their share `turned` counts the mean over turns of the sphere.
    flat : float, optional
        Combinations of rows of less than this share of the largest mean square are not used.
    together : int, optional
        Fields that are read at once.

    Returns
    -------
    bool
        False if nothing was done: the decoder is not affine, a code has parts both of variables
        and common, variables share maps, or values are missing.

    References
    ----------
    Izenman (1975), J. Multivariate Anal. 5, 248-264 (reduced-rank regression).
    """
    s = decoder.settings
    if not decoder.affine or (s.code and s.common) or (s.shared and s.variables > 1):
        return False
    areas = torch.as_tensor(batches.areas)
    rows = decoder.sweep(decoder.functions(batches.points))[0].double()
    scale = areas.sum(0)
    white = [_whitened(rows, areas[:, k] / scale[k], flat) for k in range(s.variables)]
    groups = [[k] for k in range(s.variables)] if s.code else [list(range(s.variables))]
    sums = [rows.new_zeros(sum(white[k].shape[1] for k in group)) for group in groups]
    squares = [total.new_zeros(len(total), len(total)) for total in sums]
    for share, numbers, shift in _passes(batches):
        functions = decoder.functions(batches.points + np.array([shift, 0.0]))
        rows, constant = (part.double() for part in decoder.sweep(functions))
        for low in range(0, len(numbers), together):
            fields = batches.values(numbers[low : low + together]).double()
            left = torch.where(areas > 0.0, fields - constant[:, None], 0.0) * areas
            if not bool(left.isfinite().all()):
                return False
            for group, total, square in zip(groups, sums, squares, strict=True):
                parts = [left[:, :, k] @ rows @ white[k] / scale[k].sqrt() for k in group]
                found = torch.cat(parts, dim=1)
                total += share * found.sum(0)
                square += share * (found.T @ found)
    for group, mean, square in zip(groups, sums, squares, strict=True):
        _express(decoder, group, [white[k] / scale[k].sqrt() for k in group], mean, square)
    return True


def _passes(batches: FieldBatches) -> Iterator[tuple[float, np.ndarray, float]]:
    """Weight of a field, numbers of fields and turn in longitude, of what counts."""
    turned, every = batches.training.turned, np.arange(batches.count)
    yield (1.0 - turned) / batches.count, every, 0.0
    if turned:
        shifts = np.random.default_rng([batches.seed, 3]).uniform(0.0, 2.0 * np.pi, _TURNS)
        for number, shift in enumerate(shifts):
            some = every[number % batches.count :: _TURNS]
            yield turned / (_TURNS * len(some)), some, float(shift)


def _express(
    decoder: Sinr, group: list[int], white: list[Tensor], mean: Tensor, square: Tensor
) -> None:
    """Set maps and shifts of some variables from moments of their projections."""
    depth, reads = decoder.settings.depth, decoder.reads
    size, axes = torch.linalg.eigh(square - mean[:, None] * mean)
    kept = min(reads, len(size))
    maps = (axes[:, -kept:] * size[-kept:].clamp_min(0.0).sqrt()).flip(1)
    low = 0
    for k, basis in zip(group, white, strict=True):
        part = slice(low, low + basis.shape[1])
        low = part.stop
        decoder.shift_weight[:, k] = 0.0
        own = (basis @ maps[part]).reshape(depth, -1, kept)
        decoder.shift_weight[:, k, :, :kept] = own.to(decoder.shift_weight.dtype)
        shift = (basis @ mean[part]).reshape(depth, -1)
        decoder.shift_bias[:, k] = shift.to(decoder.shift_bias.dtype) - decoder.trunk_bias


def _whitened(rows: Tensor, share: Tensor, flat: float) -> Tensor:
    """Find combinations (m, r) of rows (P, m) that are orthonormal under weights (P,)."""
    size, axes = torch.linalg.eigh(rows.T @ (rows * share[:, None]))
    kept = size > flat * size[-1]
    combined: Tensor = axes[:, kept] / size[kept].sqrt()
    return combined

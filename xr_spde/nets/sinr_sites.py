"""What a `Sinr` needs at a point set, computed once and kept while there is room."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xr_spde.nets.sinr import Sinr

__all__ = ["BLOCK", "Site", "Sites"]

#: Points that are worked on at a time.
BLOCK = 16_384
_KEPT = 256 * 2**20  # bytes


class Site(NamedTuple):
    """What is kept of points.

    Attributes
    ----------
    functions : Tensor (layers, P, q)
        The filter bank.
    affine : tuple of Tensor (P, c) and (c, P, reads), or None
        Offset and modes, of an affine network.
    """

    functions: Tensor
    affine: tuple[Tensor, Tensor] | None

    @property
    def size(self) -> int:
        """Bytes in memory; an expanded tensor has fewer than its shape says."""
        return sum(t.untyped_storage().nbytes() for t in (self.functions, *(self.affine or ())))


class Sites:
    """The point sets that a network was asked for last.

    Parameters
    ----------
    net : Sinr
        Its weights must not change any more.
    """

    def __init__(self, net: Sinr) -> None:
        self._net = net
        self._kept: OrderedDict[bytes, Site] = OrderedDict()

    def blocks(self, points: NDArray[Any]) -> Iterator[tuple[slice, Site]]:
        """Go through points in blocks.

        Parameters
        ----------
        points : ndarray (P, 2) or (P, 3)
            As the filter bank takes them.

        Yields
        ------
        slice
            Of the points.
        Site
            What they need.

        Raises
        ------
        ParameterError
            For points that the filter bank cannot take.
        """
        for low in range(0, max(len(points), 1), BLOCK):
            part = slice(low, low + BLOCK)
            yield part, self._at(np.ascontiguousarray(points[part]))

    def whole(self, points: NDArray[Any]) -> Site:
        """Give what all points need together.

        Parameters
        ----------
        points : ndarray (P, 2) or (P, 3)
            As the filter bank takes them.

        Returns
        -------
        Site
        """
        sites = [site for _, site in self.blocks(points)]
        if len(sites) == 1:
            return sites[0]
        functions = torch.cat([site.functions for site in sites], 1)
        pairs = [site.affine for site in sites if site.affine]
        if not pairs:
            return Site(functions, None)
        offsets, modes = zip(*pairs, strict=True)
        return Site(functions, (torch.cat(offsets), torch.cat(modes, 1)))

    def _at(self, points: NDArray[Any]) -> Site:
        key = hashlib.blake2b(points.tobytes() + repr(points.shape).encode()).digest()
        site = self._kept.pop(key, None)
        if site is None:
            functions = self._net.functions(points)
            site = Site(functions, self._net.modes(functions) if self._net.affine else None)
        self._kept[key] = site
        while len(self._kept) > 1 and sum(s.size for s in self._kept.values()) > _KEPT:
            self._kept.popitem(last=False)
        return site

"""Scan of an image by overlapping windows, and its exact reassembly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown

__all__ = ["WEIGHTS", "Patches"]

Float = NDArray[np.float64]

WEIGHTS = ("hann", "uniform")
"""Windows count most in their middle, which leaves no seams; or alike everywhere."""


@dataclass(frozen=True)
class Patches:
    r"""Windows that cover a grid; the last of each row and column is flush with the border.

    Assembly is the weighted mean :math:`\sum_k w(x - o_k) y_k(x) / \sum_k w(x - o_k)` over the
    windows with origins :math:`o_k`, so that what was cut and not changed comes back as it was.

    Parameters
    ----------
    ny, nx : int
        Rows and columns of the grid, at least `size`.
    size : int
        Rows and columns of a window.
    stride : int
        Cells from one window to the next, at most `size`.
    weights : {"hann", "uniform"}
        See :data:`WEIGHTS`.

    Raises
    ------
    ParameterError
        For sizes that do not fit.
    UnknownNameError
        For other weights.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.latent.patches import Patches
    >>> patches = Patches(7, 9, size=4, stride=3)
    >>> len(patches)
    6
    >>> image = np.arange(63.0).reshape(7, 9)
    >>> bool(np.allclose(patches.assemble(patches.extract(image)), image))
    True
    """

    ny: int
    nx: int
    size: int = 64
    stride: int = 16
    weights: str = "hann"

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not 1 <= self.stride <= self.size:
            raise ParameterError(
                f"stride={self.stride} for windows of size={self.size}; expected 1 to size, so "
                "that no cell is left out"
            )
        if min(self.ny, self.nx) < self.size:
            raise ParameterError(
                f"windows of size={self.size} on a grid of {self.ny} x {self.nx} cells; give a "
                "size of at most the shorter side"
            )
        if self.weights not in WEIGHTS:
            raise unknown("weights", self.weights, WEIGHTS)

    def __len__(self) -> int:
        return len(self.corners)

    @cached_property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """First row and column of each window."""
        rows, columns = (self._starts(n) for n in (self.ny, self.nx))
        return tuple((r, c) for r in rows for c in columns)

    def _starts(self, n: int) -> list[int]:
        last = n - self.size
        return [*range(0, last, self.stride), last]

    @cached_property
    def window(self) -> Float:
        """Weights (size, size) of the cells of a window."""
        if self.weights == "uniform":
            return np.ones((self.size, self.size))
        line = np.sin(np.pi * (np.arange(self.size) + 0.5) / self.size) ** 2
        # the rim still counts a little: at a corner of the grid there is no other window
        return np.outer(line, line) + 1e-3

    def cut(self, fields: NDArray[np.generic], k: int) -> NDArray[np.generic]:
        """Window k (..., size, size) of fields (..., ny, nx), without a copy."""
        r, c = self.corners[k]
        return fields[..., r : r + self.size, c : c + self.size]

    def extract(self, fields: NDArray[np.generic]) -> NDArray[np.generic]:
        """Cut fields into windows.

        Parameters
        ----------
        fields : ndarray (..., ny, nx)
            On the grid.

        Returns
        -------
        ndarray (k, ..., size, size)

        Raises
        ------
        ParameterError
            For fields of another grid.
        """
        if fields.shape[-2:] != (self.ny, self.nx):
            raise ParameterError(
                f"fields of shape {fields.shape} for windows of a grid {self.ny} x {self.nx}"
            )
        return np.stack([self.cut(fields, k) for k in range(len(self))])

    def assemble(self, windows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Weighted mean of windows on the grid.

        Parameters
        ----------
        windows : ndarray (k, ..., size, size)
            As many as there are :attr:`corners`.

        Returns
        -------
        ndarray (..., ny, nx)
            Of the dtype of `windows`.

        Raises
        ------
        ParameterError
            For another number or size of windows.
        """
        return self._gather(iter(self._checked(windows)), windows.dtype)[0]

    def disagreement(self, windows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Weighted standard deviation of the windows that overlap at each cell.

        Parameters
        ----------
        windows : ndarray (k, ..., size, size)
            As many as there are :attr:`corners`.

        Returns
        -------
        ndarray (..., ny, nx)
            0 where there is only one window.

        Raises
        ------
        ParameterError
            For another number or size of windows.
        """
        return self._gather(iter(self._checked(windows)), windows.dtype)[1]

    def apply(
        self,
        function: Callable[..., NDArray[np.floating]],
        *fields: NDArray[np.floating],
        batch: int = 16,
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Map windows and assemble the results, with a few windows in memory at a time.

        Parameters
        ----------
        function : callable
            Takes stacks (b, ..., size, size) of windows of each field and returns one.
        *fields : ndarray (..., ny, nx)
            What is cut.
        batch : int
            Windows at a time.

        Returns
        -------
        mean, disagreement : ndarray (..., ny, nx)
            As :meth:`assemble` and :meth:`disagreement`.
        """

        def results() -> Iterator[NDArray[np.floating]]:
            for start in range(0, len(self), batch):
                numbers = range(start, min(start + batch, len(self)))
                stacks = [np.stack([self.cut(f, k) for k in numbers]) for f in fields]
                yield from function(*stacks)

        return self._gather(results(), np.dtype(np.result_type(*fields)))

    def _checked(self, windows: NDArray[np.floating]) -> NDArray[np.floating]:
        shape = windows.shape
        if len(shape) < 3 or shape[0] != len(self) or shape[-2:] != (self.size, self.size):
            raise ParameterError(
                f"windows of shape {shape}; expected ({len(self)}, ..., {self.size}, {self.size})"
            )
        return windows

    def _gather(
        self, windows: Iterator[NDArray[np.floating]], dtype: np.dtype[np.floating]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Mean and spread by running updates, which do not cancel."""
        total = np.zeros((self.ny, self.nx))
        mean = spread = np.zeros(())
        for (r, c), values in zip(self.corners, windows, strict=True):
            if mean.ndim == 0:
                mean = np.zeros((*values.shape[:-2], self.ny, self.nx))
                spread = np.zeros_like(mean)
            here = (..., slice(r, r + self.size), slice(c, c + self.size))
            total[here[1:]] += self.window
            off = values - mean[here]
            mean[here] += off * (self.window / total[here[1:]])
            spread[here] += self.window * off * (values - mean[here])
        return mean.astype(dtype), np.sqrt(np.maximum(spread / total, 0.0)).astype(dtype)

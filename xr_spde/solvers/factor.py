"""What every factorisation of one square matrix B offers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@runtime_checkable
class Factor(Protocol):
    """A factorised square matrix B of n rows.

    Implementations are safe to use from several threads at once. A column of a solution depends
    on that column of the right-hand side alone, bit for bit, wherever it stands.
    """

    @property
    def n(self) -> int:
        """Number of rows of B."""

    @property
    def width(self) -> int:
        """Right-hand sides that are solved for at a time; fewer take as long."""

    @property
    def nbytes(self) -> int:
        """Memory held by the factor, in bytes (an estimate where the library hides it)."""

    def solve(self, b: Float) -> Float:
        """Solution of ``B x = b`` for b of shape (n,) or (n, K)."""

    def solve_transposed(self, b: Float) -> Float:
        """Solution of ``B' x = b`` for b of shape (n,) or (n, K)."""

    def logdet(self) -> float:
        """Natural logarithm of ``|det B|``."""

    def gram_inverse_diagonal(self) -> Float:
        """Diagonal of ``(B'B)^-1`` (n,): the variances of ``B^-1 e`` for white noise e."""

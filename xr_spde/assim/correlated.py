"""Errors that are correlated: along the tracks of a satellite, or block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.memory import check_memory
from xr_spde.assim.arrays import as_real, namespace, to_host
from xr_spde.assim.noise import ErrorModel, IndependentErrors, SparseForm
from xr_spde.assim.tracks import TrackErrors

__all__ = [
    "AlongTrack",
    "BlockErrors",
    "JoinedErrors",
    "is_independent",
    "log_determinant",
]

Float = NDArray[np.float64]
Index = NDArray[np.intp]


class BlockErrors:
    """Errors with a full covariance within blocks of observations, and none between blocks.

    Parameters
    ----------
    blocks : sequence of (ndarray of int (b,), ndarray (b, b))
        Numbers of the observations of each block, and their covariance. Every observation
        belongs to exactly one block.

    Raises
    ------
    ParameterError
        If the blocks do not part the observations, or a covariance is not positive definite.
    MemoryGuardError
        If the blocks would not fit in memory.
    """

    def __init__(self, blocks: Sequence[tuple[Index, Float]]) -> None:
        self.blocks = [(np.asarray(i), np.asarray(c, dtype=np.float64)) for i, c in blocks]
        numbers = np.concatenate([index for index, _ in self.blocks])
        if not np.array_equal(np.sort(numbers), np.arange(numbers.size)):
            raise ParameterError(
                f"the blocks hold {numbers.size} numbers of observations, not each of 0 to "
                f"{numbers.size - 1} once; put every observation into one block"
            )
        _guard_blocks([index.size for index, _ in self.blocks])
        self.variance = np.empty(numbers.size)
        self._roots = []
        for index, covariance in self.blocks:
            self._roots.append(_lower(index, covariance))
            self.variance[index] = np.diagonal(covariance)
        self._inverses = [np.linalg.inv(root) for root in self._roots]

    def whiten(self, x: Any) -> Any:
        """Return ``L^-1 x`` for x (..., p), with ``R = L L'``."""
        xp = namespace(x)
        out = xp.empty_like(x)
        for (index, _), inverse in zip(self.blocks, self._inverses, strict=True):
            own = xp.asarray(index)
            out[..., own] = x[..., own] @ xp.asarray(inverse.T, dtype=x.dtype)
        return out

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> Float:
        """Draw errors, shape ``(*shape, p)``."""
        white = rng.standard_normal((*shape, self.variance.size))
        for (index, _), root in zip(self.blocks, self._roots, strict=True):
            white[..., index] = white[..., index] @ root.T
        return white

    def logdet(self) -> float:
        """Natural logarithm of ``|R|``."""
        return float(2.0 * sum(np.log(np.diagonal(root)).sum() for root in self._roots))

    def sparse_form(self) -> SparseForm:
        """Return R as sparse matrices; see :class:`SparseForm`."""
        count = self.variance.size
        order = np.concatenate([index for index, _ in self.blocks])
        whole = sp.csr_array(sp.block_diag([covariance for _, covariance in self.blocks]))
        turn = sp.csr_array((np.ones(count), (np.arange(count), order)), shape=(count, count))
        return SparseForm(turn, whole, 0.0)

    def select(self, keep: Any) -> BlockErrors:
        """Return the errors of some observations, given by a mask (p,) or indices."""
        kept = np.arange(self.variance.size)[np.asarray(keep)]
        place = np.full(self.variance.size, -1)
        place[kept] = np.arange(kept.size)
        blocks = []
        for index, covariance in self.blocks:
            inside = np.flatnonzero(place[index] >= 0)
            if inside.size:
                blocks.append((place[index[inside]], covariance[np.ix_(inside, inside)]))
        return BlockErrors(blocks)


class JoinedErrors:
    """Errors of several groups of observations, one group after the other and independent.

    Parameters
    ----------
    parts : sequence of ErrorModel
        One per group, such as one per observed variable.
    """

    def __init__(self, parts: Sequence[ErrorModel]) -> None:
        self.parts = list(parts)
        sizes = [len(part.variance) for part in self.parts]
        self._starts = np.cumsum([0, *sizes])

    @property
    def variance(self) -> Float:
        """Diagonal of R, shape (p,)."""
        return np.concatenate([to_host(part.variance) for part in self.parts])

    def _slices(self) -> list[slice]:
        return [slice(*pair) for pair in zip(self._starts[:-1], self._starts[1:], strict=True)]

    def whiten(self, x: Any) -> Any:
        """Return ``R^-1/2 x`` for x (..., p)."""
        parts = zip(self.parts, self._slices(), strict=True)
        return namespace(x).concatenate([part.whiten(x[..., own]) for part, own in parts], axis=-1)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> Float:
        """Draw errors, shape ``(*shape, p)``."""
        return np.concatenate([part.noise(rng, shape) for part in self.parts], axis=-1)

    def logdet(self) -> float:
        """Natural logarithm of ``|R|``."""
        return sum(map(log_determinant, self.parts))

    def sparse_form(self) -> SparseForm | None:
        """Return R as sparse matrices; None where a part does not know it."""
        known = [getattr(part, "sparse_form", lambda: None)() for part in self.parts]
        forms = [form for form in known if form is not None]
        if len(forms) < len(known):
            return None
        turn, rest = (sp.csr_array(sp.block_diag([form[k] for form in forms])) for k in (0, 1))
        return SparseForm(turn, rest, sum(form.log_turn for form in forms))

    def select(self, keep: Any) -> JoinedErrors:
        """Return the errors of some observations, given by a mask (p,) or increasing indices."""
        kept = np.arange(self._starts[-1])[np.asarray(keep)]
        if np.any(np.diff(kept) <= 0):
            raise ParameterError("the indices of observations do not increase; sort them")
        parts = [
            part.select(kept[(kept >= own.start) & (kept < own.stop)] - own.start)
            for part, own in zip(self.parts, self._slices(), strict=True)
        ]
        return JoinedErrors([part for part in parts if len(part.variance)])


@dataclass(frozen=True)
class AlongTrack:
    """Errors that are correlated along each track, to be given as ``obs_error``.

    The covariance of two observations of one track, a distance s apart along it, is
    ``std_i std_j (share exp(-s / length) + (1 - share) [i = j])``; tracks are independent.

    Parameters
    ----------
    std : float, array_like (p,) or DataArray
        Standard deviation in the units of the observations.
    length : float
        Distance at which the correlation has fallen to 1 / e, in metres (in units of the
        coordinates where these have no length).
    share : float, default 1
        Share of the variance that is correlated, in (0, 1].
    track : str, optional
        Variable or coordinate that numbers the tracks; by default all is one track.

    Raises
    ------
    ParameterError
        For a length or a share that makes no sense.
    """

    std: Any
    length: float
    share: float = 1.0
    track: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (np.isfinite(self.length) and self.length > 0.0):
            raise ParameterError(f"length={self.length!r} was given; expected metres > 0")
        if not 0.0 < self.share <= 1.0:
            raise ParameterError(
                f"share={self.share!r} was given; expected the part of the variance that is "
                "correlated, above 0 and at most 1"
            )

    def errors(self, std: ArrayLike, steps: Float, track: ArrayLike) -> TrackErrors:
        """Build the model of the errors.

        Parameters
        ----------
        std : array_like (p,)
            Standard deviations, > 0.
        steps : ndarray (p,)
            Distance along the track, from where it begins.
        track : array_like (p,)
            Number or name of the track of each observation.

        Returns
        -------
        TrackErrors

        Raises
        ------
        ParameterError
            As :class:`TrackErrors`.
        """
        return TrackErrors(std, steps, track, length=self.length, share=self.share)


def _guard_blocks(sizes: Sequence[int]) -> None:
    """Refuse blocks whose covariances and roots would not fit in memory."""
    check_memory(
        24.0 * sum(size**2 for size in sizes),
        what=f"the error covariance of {len(sizes)} blocks of up to {max(sizes, default=0)} "
        "observations each",
        remedy="Thin or superob the observations first, part them into smaller blocks, or take "
        "AlongTrack, which needs no covariance.",
    )


def is_independent(errors: ErrorModel) -> bool:
    """Whether errors are known to be independent of one another.

    Parameters
    ----------
    errors : ErrorModel
        Any.

    Returns
    -------
    bool
    """
    if isinstance(errors, JoinedErrors):
        return all(map(is_independent, errors.parts))
    return isinstance(errors, IndependentErrors)


def log_determinant(errors: ErrorModel) -> float:
    """Natural logarithm of ``|R|``.

    Parameters
    ----------
    errors : ErrorModel
        Any; one that has no ``logdet`` is asked for its root, p x p.

    Returns
    -------
    float
    """
    if isinstance(errors, IndependentErrors):
        return float(np.log(to_host(as_real("the variance", errors.variance))).sum())
    known = getattr(errors, "logdet", None)
    if callable(known):
        return float(known())
    return -2.0 * float(np.linalg.slogdet(errors.whiten(np.eye(len(errors.variance))))[1])


def _lower(index: Index, covariance: Float) -> Float:
    if covariance.shape != (index.size, index.size):
        raise ParameterError(
            f"a block of {index.size} observations has a covariance of shape {covariance.shape}; "
            f"expected {(index.size, index.size)}"
        )
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise ParameterError(
            f"the error covariance of a block of {index.size} observations (the first is number "
            f"{index[0]}) is not positive definite; where two observations of a track share one "
            "place, part of their errors must be independent, such as share=0.9"
        ) from error
    return np.asarray(root, dtype=np.float64)

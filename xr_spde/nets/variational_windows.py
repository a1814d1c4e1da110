"""Windows to train a variational solver on: drawn from series, hidden, turned, put in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.rng import member_generator
from xr_spde.nets.variational_window import Window

__all__ = ["AUGMENTATIONS", "Place", "Sample", "Source", "WindowBatches", "stacked"]

Real = NDArray[np.floating[Any]]
Batch = tuple[Window, Tensor]

AUGMENTATIONS = ("sign", "flip_x", "flip_y", "mirror", "rotate", "amplitude")
"""What a field may be turned into that is as likely as itself. "mirror" is "flip_y" and "sign"
together: the symmetry of quasi-geostrophic flow, which the others but "amplitude" are not."""

_TRIES = 30
_HIDDEN = 1
"""Last part of the identity of a random stream."""
_LEAST_SEA = 0.2


@dataclass(frozen=True)
class Place:
    """A part of a series.

    Attributes
    ----------
    start, steps : int
        First step and how many.
    rows, columns : slice
        With start and stop, inside the grid.
    until : int, optional
        Last step that is observed, of the series.
    causal : bool, default False
        Whether nothing is known from after that step, be it nearest to it.
    """

    start: int
    steps: int
    rows: slice
    columns: slice
    until: int | None = None
    causal: bool = False


@dataclass(frozen=True, eq=False)
class Sample:
    """One window in normalised units.

    Attributes
    ----------
    obs, variance : ndarray (T, ny, nx)
        Observed anomalies and their error variances.
    mask : ndarray (T, ny, nx) of bool
        Where there are any.
    truth : ndarray (T, ny, nx)
        NaN where it is not known.
    sea : ndarray (ny, nx) of bool
        False on land.
    offset : ndarray (T, ny, nx)
        Times of the observations after their step, in steps.
    """

    obs: Real
    mask: NDArray[np.bool_]
    variance: Real
    truth: Real
    sea: NDArray[np.bool_]
    offset: Real

    def mapped(self, function: Any) -> Sample:
        """Apply a function to all arrays, such as a reflection.

        Parameters
        ----------
        function : callable
            Of an array (..., ny, nx).

        Returns
        -------
        Sample
        """
        return Sample(*(function(getattr(self, name)) for name in self.__dataclass_fields__))

    def times(self, factor: float) -> Sample:
        """Multiply the anomalies, and with them the errors.

        Parameters
        ----------
        factor : float
            Of either sign.

        Returns
        -------
        Sample
        """
        return replace(self, obs=factor * self.obs, truth=factor * self.truth,
                       variance=factor**2 * self.variance)  # fmt: skip

    def until(self, last: int) -> Sample:
        """Hide the observations after a step.

        Parameters
        ----------
        last : int
            Last step that is seen.

        Returns
        -------
        Sample
        """
        seen = np.arange(len(self.mask)) <= last
        return replace(self, mask=self.mask & seen[:, None, None])

    def padded(self, shape: tuple[int, int]) -> Sample:
        """Add land below and to the right.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns afterwards.

        Returns
        -------
        Sample
        """
        ny, nx = self.sea.shape
        if (ny, nx) == shape:
            return self
        more = ((0, shape[0] - ny), (0, shape[1] - nx))
        return self.mapped(lambda a: np.pad(a, ((0, 0),) * (a.ndim - 2) + more))


class Source(Protocol):
    """A series that windows can be cut from.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def cut(self, place: Place, rng: np.random.Generator) -> Sample:
        """Cut a window; whatever is drawn comes from `rng`."""


def stacked(samples: Sequence[Sample], dtype: torch.dtype = torch.float32) -> Batch:
    """Put windows of one size into a batch.

    Parameters
    ----------
    samples : sequence of Sample
        Windows.
    dtype : torch.dtype, optional
        Of the numbers.

    Returns
    -------
    window : Window
    truth : Tensor (B, T, ny, nx)
        Zero on land, NaN where it is not known.
    """

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(s, name) for s in samples]))

    sea = joined("sea")
    numbers = (joined(name).to(dtype) for name in ("obs", "variance", "offset"))
    obs, variance, offset = numbers
    window = Window(obs, joined("mask"), variance, sea, offset)
    return window, torch.where(sea[:, None], joined("truth").to(dtype), 0.0)


class WindowBatches(Dataset[Batch]):
    """Batches of windows by the number of the step: the same for the same seed and step.

    Parameters
    ----------
    sources : sequence of Source
        Series.
    spans : sequence of (int, int)
        Of each, the first step that may be used and the one after the last.
    shares : sequence of float
        Of each, how often it is drawn.
    steps, patch : int
        Of a window, and its rows and columns at most.
    batch : int
        Windows of a batch.
    hidden : mapping of int to float
        Numbers of last steps without observations, and how often they are drawn.
    augment : sequence of str, optional
        Of :data:`AUGMENTATIONS`, each with probability one half.
    amplitude : float, default 0.3
        Standard deviation of the logarithm of the factor of "amplitude".
    causal : bool, default True
        Whether nothing is seen from after the last step that is not hidden, as at work in near real
        time; else that step has all observations that are nearest to it.
    seed : int, default 0
        Of all draws.

    Raises
    ------
    ParameterError
        For spans shorter than a window, or no window with sea in it.
    UnknownNameError
        For an unknown augmentation.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        spans: Sequence[tuple[int, int]],
        shares: Sequence[float],
        *,
        steps: int,
        patch: int,
        batch: int,
        hidden: dict[int, float],
        augment: Sequence[str] = (),
        amplitude: float = 0.3,
        causal: bool = True,
        seed: int = 0,
    ) -> None:
        for name in augment:
            if name not in AUGMENTATIONS:
                raise unknown("augmentation", name, AUGMENTATIONS)
        for first, stop in spans:
            if stop - first < steps:
                raise ParameterError(
                    f"a series has {stop - first} steps to train or validate on, and a window has "
                    f"{steps}; give more times, or a shorter window="
                )
        self.sources, self.spans, self.batch, self.seed = sources, spans, batch, seed
        self.shares = np.asarray(shares, dtype=np.float64) / np.sum(shares)
        self.steps, self.hidden, self.augment = steps, hidden, tuple(augment)
        self.amplitude, self.causal = amplitude, causal
        largest = [max(source.shape[axis] for source in sources) for axis in (0, 1)]
        self.size = min(patch, largest[0]), min(patch, largest[1])

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of a step."""
        return stacked([self.sample(step, k) for k in range(self.batch)])

    def sample(self, step: int, number: int, *, hidden: int | None = None) -> Sample:
        """Draw one window.

        Parameters
        ----------
        step, number : int
            Of the batch, and of the window in it.
        hidden : int, optional
            Last steps without observations; drawn by default.

        Returns
        -------
        Sample

        Raises
        ------
        ParameterError
            If windows have no sea, or nothing is observed in them.
        """
        rng = member_generator(self.seed, step, number)
        which = int(rng.choice(len(self.sources), p=self.shares))
        if hidden is None:
            # from a stream of its own: the place of a window is the same whatever is hidden
            own = member_generator(self.seed, step, number, _HIDDEN)
            hidden = int(own.choice(list(self.hidden), p=list(self.hidden.values())))
        found = self._drawn(which, self.steps - 1 - hidden, rng)
        return self._augmented(found, rng).padded(self.size)

    def _drawn(self, which: int, last: int, rng: np.random.Generator) -> Sample:
        """Draw places until one has sea in it, and observations up to its last seen step."""
        source, (first, stop) = self.sources[which], self.spans[which]
        found = None
        for _ in range(_TRIES):
            corner = [
                int(rng.integers(0, max(n - size, 0) + 1))
                for n, size in zip(source.shape, self.size, strict=True)
            ]
            rows, columns = (
                slice(low, low + min(size, n))
                for low, size, n in zip(corner, self.size, source.shape, strict=True)
            )
            start = int(rng.integers(first, stop - self.steps + 1))
            place = Place(start, self.steps, rows, columns, start + last, self.causal)
            found = source.cut(place, rng).until(last)
            if found.sea.mean() >= _LEAST_SEA and found.mask.any():
                return found
        if found is not None and found.sea.any() and found.mask.any():
            return found
        raise ParameterError(
            f"{_TRIES} windows of {self.size[0]} x {self.size[1]} cells and {self.steps} steps "
            "were drawn, and none has both sea and observations in it; check where truth and "
            "observations are NaN"
        )

    def _augmented(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Turn a window into one that is as likely."""
        for name in self.augment:
            yes, normal = rng.random() < 0.5, rng.standard_normal()
            if name == "amplitude":
                sample = sample.times(float(np.exp(self.amplitude * normal)))
            elif yes and name == "rotate" and sample.sea.shape[0] == sample.sea.shape[1]:
                sample = sample.mapped(lambda a: np.swapaxes(a, -1, -2))
            elif yes and name in ("flip_y", "mirror"):
                sample = sample.mapped(lambda a: a[..., ::-1, :])
            elif yes and name == "flip_x":
                sample = sample.mapped(lambda a: a[..., ::-1])
            if yes and name in ("sign", "mirror"):
                sample = sample.times(-1.0)
        return sample

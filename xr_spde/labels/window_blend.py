"""Windows of one length over a series of any length, and how their steps are joined."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Span", "plan_blocks", "plan_spans"]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """Steps of a series that are computed together.

    Attributes
    ----------
    index : int
        Number of the window.
    first, stop : int
        Steps; the last is not one of them. Those before or after the series are not observed.
    start : int
        First step that is kept.
    until : int
        Last step that may be observed.
    causal : bool
        Whether nothing may be known from after that step, be it nearest to it.
    """

    index: int
    first: int
    stop: int
    start: int
    until: int
    causal: bool = False


@dataclass(frozen=True, eq=False)
class Block:
    """Steps of a series that the same windows know.

    Attributes
    ----------
    start, stop : int
        Steps; the last is not one of them.
    spans : tuple of int
        Numbers of the windows.
    weights : ndarray (windows, stop - start)
        Which sum to one at each step.
    """

    start: int
    stop: int
    spans: tuple[int, ...]
    weights: Float


def plan_spans(steps: int, window: int, stride: int, *, lead: int | None = None) -> list[Span]:
    """Cut a series into overlapping windows of one length.

    Parameters
    ----------
    steps : int
        Of the series.
    window : int
        Steps of a window.
    stride : int
        Steps from one window to the next, at most; at most `window`.
    lead : int, optional
        Every step has a window of its own that ends with it, of which the last `lead` steps are
        not observed.

    Returns
    -------
    list of Span
        A series that is shorter than a window lies in the middle of one.

    Examples
    --------
    >>> from xr_spde.labels.window_blend import plan_spans
    >>> [(w.first, w.stop) for w in plan_spans(12, 5, 3)]
    [(0, 5), (2, 7), (5, 10), (7, 12)]
    >>> [(w.first, w.stop) for w in plan_spans(3, 5, 3)]
    [(-1, 4)]
    >>> [(w.first, w.stop, w.start, w.until) for w in plan_spans(2, 5, 3, lead=1)]
    [(-4, 1, 0, -1), (-3, 2, 1, 0)]
    """
    if lead is not None:
        return [Span(k, k + 1 - window, k + 1, k, k - lead, True) for k in range(steps)]
    if steps <= window:
        first = -((window - steps) // 2)
        return [Span(0, first, first + window, max(first, 0), steps - 1)]
    count = -(-(steps - window) // stride) + 1
    firsts = np.linspace(0, steps - window, count).round().astype(int).tolist()
    return [Span(k, f, f + window, f, f + window - 1) for k, f in enumerate(firsts)]


def plan_blocks(steps: int, spans: list[Span]) -> list[Block]:
    r"""Say which windows each step is joined from, and by which weights.

    Step t of the T of a window weighs :math:`\sin^2(\pi (t + 1/2) / T)`: the most in the middle,
    where there are observations on both sides, and next to nothing at its ends.

    Parameters
    ----------
    steps : int
        Of the series.
    spans : list of Span
        Windows, in the order of time.

    Returns
    -------
    list of Block
        That follow one another and cover the series.
    """
    edges = {0, steps}
    for span in spans:
        edges |= {max(span.start, 0), min(span.stop, steps)}
    found = []
    for start, stop in pairwise(sorted(edges)):
        own = [w for w in spans if w.start <= start and min(w.stop, steps) >= stop]
        at = np.arange(start, stop)
        weights = np.stack([
            np.sin(np.pi * (at - w.first + 0.5) / (w.stop - w.first)) ** 2 for w in own
        ])  # fmt: skip
        numbers = tuple(w.index for w in own)
        found.append(Block(start, stop, numbers, weights / weights.sum(axis=0)))
    return found

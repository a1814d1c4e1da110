"""Maps by a neural solver, window by window: eager or as the tasks of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.assim.neural_cells import Cells
from xr_spde.assim.neural_input import part_of
from xr_spde.assim.neural_task import (
    CellsTask,
    Context,
    Seen,
    blended,
    gathered,
    scale_of,
)
from xr_spde.assim.neural_theta import MAPS, physical_maps
from xr_spde.assim.problem import Problem
from xr_spde.assim.tracks_in_time import GriddedSeries
from xr_spde.labels.tile_map import deferred
from xr_spde.labels.window_blend import Block, Span
from xr_spde.labels.window_map import shared, steps_of

__all__ = ["Run"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """What is to be computed, and in which parts.

    Attributes
    ----------
    problem : Problem
        What was given.
    context : Context
        What all parts share.
    spans : list of Span
        Windows.
    blocks : list of Block
        What windows are joined to.
    groups : list of list of int
        Patches that a task computes together.
    parameters : bool
        Whether those of the prior are wanted.
    lazy : bool
        Whether to make a graph.
    """

    problem: Problem
    context: Context
    spans: list[Span]
    blocks: list[Block]
    groups: list[list[int]]
    parameters: bool
    lazy: bool

    @property
    def steps(self) -> int:
        """Steps of the series."""
        return int(self.problem.times.size)

    @cached_property
    def pieces(self) -> list[tuple[int, int]]:
        """First step, and the one after the last, of what is read together."""
        length = max(1, self.spans[0].stop - self.spans[0].first)
        return [(k, min(k + length, self.steps)) for k in range(0, self.steps, length)]

    @cached_property
    def common(self) -> Any:
        """The context, once in a graph."""
        return shared(self.context, self.lazy)

    @cached_property
    def cells(self) -> list[Any]:
        """Observed cells of each piece."""
        problem, last, found = self.problem, self.steps - 1, []
        observed = problem.observed
        read = {}
        if isinstance(observed, GriddedSeries):
            read["observed"] = steps_of(observed.values)
            if np.ndim(observed.error):
                read["error"] = steps_of(observed.error)
        guess = None if problem.guess is None else steps_of(problem.guess.data)
        for start, stop in self.pieces:
            part, place = part_of(observed, start, stop, self.steps)
            arrays = {name: reader(*place) for name, reader in read.items()}
            first = max(start - 1, 0)  # points next to the first step may come before it
            if guess is not None:
                arrays["guess"] = guess(first, min(stop, last) + 1)
            causal = self.spans[0].causal
            task = CellsTask(part, problem.grid, problem.land, self.steps, first, causal)
            found.append(deferred(task, self.lazy)(**arrays))
        return found

    @cached_property
    def seen(self) -> list[Any]:
        """What each window knows of the observations."""
        call, scale, found = deferred(_scale, self.lazy), None, []
        for span in self.spans:
            own = [one for one, (start, stop) in zip(self.cells, self.pieces, strict=True)
                   if start < span.stop and stop > span.first]  # fmt: skip
            if span.causal:
                before = sum(start <= max(span.until, 0) for start, _ in self.pieces)
                scale = call(self.common, self.cells[:before], span.until)
            elif scale is None:
                scale = call(self.common, self.cells, None)
            found.append(deferred(gathered, self.lazy)(own, scale))
        return found

    def windows(self, solve: Any) -> Iterator[tuple[Block, list[Span], list[Any]]]:
        """Go through the blocks, each with its windows and what these say.

        Parameters
        ----------
        solve : callable
            Of a span.
        """
        known: dict[int, Any] = {}
        for block in self.blocks:
            for k in block.spans:
                if k not in known:
                    known[k] = solve(self.spans[k])
            yield block, [self.spans[k] for k in block.spans], [known[k] for k in block.spans]
            known = {k: one for k, one in known.items() if self.spans[k].stop > block.stop}

    def maps(self) -> dict[str, list[Any]]:
        """Mean anomaly (steps, ny, nx) of every block, and parameters where these are wanted.

        Returns
        -------
        dict of str to list
            "anomaly", "deviation" where the solver tells it, and names of
            `xr_spde.assim.neural_theta.MAPS`, as stored, NaN on land, in units of the field;
            "theta" (7, steps, ny, nx), canonical and in cells and steps.
        """
        call, whole = deferred(_solve, self.lazy), deferred(_whole, self.lazy)
        names = ["mean", *(["deviation"] if self.context.deviates else []),
                 *(["theta"] if self.parameters else [])]  # fmt: skip

        def solve(span: Span) -> dict[str, Any]:
            parts = [call(self.common, self.seen[span.index], span, group, self.parameters)
                     for group in self.groups]  # fmt: skip
            return {name: whole(self.common, parts, name) for name in names}

        found: dict[str, list[Any]] = {"anomaly": []}
        join, physical = deferred(_anomaly, self.lazy), deferred(_physical, self.lazy)
        for block, spans, windows in self.windows(solve):
            seen = [self.seen[span.index] for span in spans]
            fields = [one["mean"] for one in windows]
            found["anomaly"].append(join(self.common, block, spans, fields, seen))
            if self.context.deviates:
                fields = [one["deviation"] for one in windows]
                found.setdefault("deviation", []).append(
                    join(self.common, block, spans, fields, seen)
                )
            if not self.parameters:
                continue
            theta = deferred(blended, self.lazy)(block, spans, [w["theta"] for w in windows], None)
            found.setdefault("theta", []).append(theta)
            maps = physical(self.common, theta, block, seen, self.problem.step)
            for name in MAPS:
                found.setdefault(name, []).append(deferred(_item, self.lazy)(maps, name))
        return found


def _item(maps: dict[str, Any], name: str) -> Any:
    return maps[name]


def _scale(context: Context, cells: Sequence[Cells], until: int | None) -> float:
    return scale_of(context.model, cells, until)


def _solve(
    context: Context, seen: Seen, span: Span, numbers: Sequence[int], parameters: bool
) -> dict[str, Any]:
    return context.solve(seen, span, numbers, parameters)


def _whole(context: Context, parts: Sequence[dict[str, Any]], name: str) -> Any:
    return context.whole(parts, name)


def _anomaly(
    context: Context, block: Block, spans: Sequence[Span], fields: Sequence[Any],
    seen: Sequence[Seen],
) -> Float:  # fmt: skip
    return context.stored(blended(block, spans, fields, [one.scale for one in seen]))


def _physical(
    context: Context, theta: Float, block: Block, seen: Sequence[Seen], step: float
) -> dict[str, Float]:
    """Parameters of a block in km and days, as stored."""
    scales = np.array([one.scale for one in seen])
    fields = theta.copy()
    fields[1] *= (block.weights.T @ scales)[:, None, None]
    size_y, size_x = context.grid.cell_size()
    maps = physical_maps(fields, size_y, size_x, step=step, alpha=context.alpha, land=~context.sea)
    return {name: context.stored(value) for name, value in maps.items()}

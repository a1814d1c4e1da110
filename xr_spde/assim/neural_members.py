"""Spread of maps by a neural solver: draws of the prior, seen as the field was and solved alike.

Draws are fields of the whole domain and series, so members go on across patches and windows; what
the solver makes of them is joined by the weights that join the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.neural_ensemble import (
    conditional_anomalies,
    linearity_defect,
    simulated_values,
)
from xr_spde.assim.neural_run import Run
from xr_spde.assim.neural_task import Context, Seen, blended
from xr_spde.assim.neural_theta import with_directions
from xr_spde.fields.prior_draws import CHANNELS, draw_prior, observation_noise
from xr_spde.labels.tile_map import deferred
from xr_spde.labels.window_blend import Block, Span

__all__ = ["spread_maps", "with_deviation"]

Float = NDArray[np.float64]
Single = NDArray[np.float32]

TOGETHER = 20
"""Members that a task draws and solves."""

_CELLS = 2**22
"""Cells and steps that a solver is given at once."""


def spread_maps(
    run: Run, thetas: list[Any] | None, *, members: int, kept: int, entropy: int
) -> dict[str, list[Any]]:
    """Draw members about the mean, and their spread.

    Parameters
    ----------
    run : Run
        What is computed, and in which parts.
    thetas : list of array (7, steps, ny, nx) or None
        Parameters of every block, where the solver estimates them; else those that it was built
        with.
    members : int
        Number behind the spread.
    kept : int
        Number of members that are returned.
    entropy : int
        Of all that is random.

    Returns
    -------
    dict of str to list
        Of every block: "std" (steps, ny, nx), as stored; "linearity_defect" (steps,); where some
        are kept "ensemble", lists of (members, steps, ny, nx) about the mean.
    """
    parts = [range(k, min(k + TOGETHER, members)) for k in range(0, members, TOGETHER)]
    squares: list[list[Any]] = [[] for _ in run.blocks]
    found: dict[str, list[Any]] = {"linearity_defect": []}
    if kept:
        found["ensemble"] = [[] for _ in run.blocks]
    keep, square = deferred(_kept, run.lazy), deferred(_square, run.lazy)
    for numbers in parts:
        fields = _draws(run, thetas, numbers, entropy)
        simulate, whole = deferred(_simulated, run.lazy), deferred(_whole, run.lazy)

        def solve(
            span: Span, numbers: range = numbers, fields: list[Any] = fields,
            simulate: Any = simulate, whole: Any = whole,
        ) -> Any:  # fmt: skip
            inside = [k for k, (start, stop) in enumerate(run.pieces)
                      if start < span.stop and stop > span.first]  # fmt: skip
            drawn = [fields[k] for k in inside]
            first = run.pieces[inside[0]][0]
            one = [simulate(run.common, run.seen[span.index], span, group, drawn, first, numbers,
                            entropy) for group in run.groups]  # fmt: skip
            return whole(run.common, one)

        for b, (block, spans, windows) in enumerate(run.windows(solve)):
            seen = [run.seen[span.index] for span in spans]
            joined = deferred(_joined, run.lazy)(run.common, block, spans, windows, seen)
            squares[b].append(square(joined))
            count = min(max(kept - numbers.start, 0), len(numbers))
            if count:
                found["ensemble"][b].append(keep(joined, count))
            if numbers.start == 0:
                found["linearity_defect"].append(deferred(_defects, run.lazy)(block, windows))
    deviation = deferred(_deviation, run.lazy)
    found["std"] = [deviation(one, members) for one in squares]
    return found


def with_deviation(
    found: dict[str, list[Any]], learned: list[Any], lazy: bool
) -> dict[str, list[Any]]:
    """Bring members to the standard deviation that the solver has learned.

    Parameters
    ----------
    found : dict of str to list
        Of :func:`spread_maps`, or without a spread.
    learned : list of array (steps, ny, nx)
        Of every block, as stored.
    lazy : bool
        Whether to make a graph.

    Returns
    -------
    dict of str to list
        With that as "std", and "ensemble" scaled at every cell.
    """
    if "ensemble" in found:
        scaled = deferred(_scaled, lazy)
        many = zip(found["ensemble"], found["std"], learned, strict=True)
        members = [[scaled(one, std, wanted) for one in parts] for parts, std, wanted in many]
        found = {**found, "ensemble": members}
    return {**found, "std": learned}


def _scaled(members: Float, std: Float, wanted: Float) -> Float:
    # members that are all alike at a cell have no shape that could be scaled
    factor = wanted / np.where(std > 0.0, std, 1.0)
    return np.asarray(members * factor)


def _draws(run: Run, thetas: list[Any] | None, numbers: range, entropy: int) -> list[Any]:
    """Draws of the prior (K, steps, ny, nx) on every piece of the series."""
    draw, state, found = deferred(_draw, run.lazy), None, []
    first, second = deferred(_first, run.lazy), deferred(_second, run.lazy)
    for start, stop in run.pieces:
        inside = [(block.start, block.stop) for block in run.blocks
                  if block.start < stop and block.stop > start]  # fmt: skip
        own = thetas and [one for one, block in zip(thetas, run.blocks, strict=True)
                          if (block.start, block.stop) in inside]  # fmt: skip
        made = draw(run.common, own, inside[0][0], state, numbers, start, stop, entropy)
        found.append(first(made))
        state = second(made)
    return found


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]


def _draw(
    context: Context, thetas: Sequence[Float] | None, offset: int, state: Float | None,
    numbers: range, start: int, stop: int, entropy: int,
) -> tuple[Single, Float]:  # fmt: skip
    """Draws of one piece and the state that the next one goes on from."""
    if thetas:
        joined = np.concatenate(list(thetas), axis=1)[:, start - offset : stop - offset]
        theta = with_directions(joined)
    else:
        theta = _constant(context)[:, None, None, None] * np.ones((1, 1, *context.sea.shape))
    closed = "periodic" if context.grid.periodic_x else "neumann"
    return draw_prior(
        theta, state, sea=context.sea, members=list(numbers), first=start, entropy=entropy,
        steps=stop - start, alpha=context.alpha, boundary=("neumann", closed),
    )  # fmt: skip


def _constant(context: Context) -> Float:
    """Parameters of the prior that a solver was built with (8,)."""
    told = getattr(context.model, "prior_theta", None)
    if told is None:
        told = getattr(getattr(context.model, "solver", None), "options", {}).get("theta")
    if told is None:
        raise ParameterError(
            "n= and draws= need a prior to draw from, and this solver has no theta; leave them out"
        )
    numbers = [told[name] for name in CHANNELS] if isinstance(told, Mapping) else told
    return np.asarray(numbers, dtype=np.float64)


def _simulated(
    context: Context, seen: Seen, span: Span, group: Sequence[int], drawn: Sequence[Single],
    first: int, numbers: range, entropy: int,
) -> dict[str, Any]:  # fmt: skip
    """Draws less what the solver makes of them (K, T, rows, nx), summed over patches by weight."""
    fields = _window(np.concatenate(list(drawn), axis=1), first, span)
    low, high = max(span.first, 0), first + sum(part.shape[1] for part in drawn)
    stop = min(span.stop, high)
    shape = context.plan.shape
    white = _window(observation_noise(entropy, list(numbers), low, stop, shape), low, span)
    obs, mask, variance, sea, offset = context.batch(seen, span, group)
    if not getattr(context.model, "reads_times", False):
        offset = np.zeros_like(offset)
    anomalies, defects = [], []
    for k, number in enumerate(group):
        solve = _Bound(context, mask[k], variance[k], sea[k], obs[k], offset[k])
        own, errors = (context.cut(part, number) for part in (fields, white))
        few = int(np.clip(_CELLS // mask[k].size, 1, TOGETHER))
        anomalies.append(
            conditional_anomalies(
                solve, own, errors, mask[k], variance[k], offset=offset[k], together=few
            )
        )
        if numbers.start == 0:
            values = simulated_values(own[:1], errors[:1], mask[k], variance[k], offset[k])
            defects.append(linearity_defect(solve, values, obs[k][None]))
    return {"top": context.plan.band(group).start, "defects": defects,
            "anomaly": context.weighted(np.stack(anomalies), group)}  # fmt: skip


class _Bound:
    """The solver with mask, variances and the parameters of the real observations."""

    def __init__(
        self, context: Context, mask: Any, variance: Any, sea: Any, obs: Any, offset: Any
    ) -> None:
        self._model, self._given = context.model, (mask, variance, sea)
        self._theta, self._offset = None, None
        if getattr(context.model, "reads_times", False):
            self._offset = offset
        if getattr(context.model, "reads_theta", False):
            settings = {} if self._offset is None else {"offset": self._offset[None]}
            given = (a[None] for a in self._given)
            self._theta = context.model.solve(obs[None], *given, **settings)[1]

    def __call__(self, values: Any) -> Any:
        many = [np.repeat(a[None], len(values), axis=0) for a in self._given]
        settings: dict[str, Any] = {"parameters": False}
        if self._offset is not None:
            settings["offset"] = np.repeat(self._offset[None], len(values), axis=0)
        if self._theta is not None:
            settings["theta"] = np.repeat(self._theta, len(values), axis=0)
        return self._model.solve(np.asarray(values, np.float32), *many, **settings)[0]


def _window(fields: Single, first: int, span: Span) -> Single:
    """Cut the steps of a window from fields (K, steps, ny, nx); zero where there are none."""
    low, high = max(span.first, first), min(span.stop, first + fields.shape[1])
    out = np.zeros((len(fields), span.stop - span.first, *fields.shape[2:]), np.float32)
    out[:, low - span.first : high - span.first] = fields[:, low - first : high - first]
    return out


def _whole(context: Context, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    defects = [one for part in parts for one in part["defects"]]
    return {"anomaly": context.whole(parts, "anomaly"), "defects": defects}


def _joined(
    context: Context, block: Block, spans: Sequence[Span], windows: Sequence[dict[str, Any]],
    seen: Sequence[Seen],
) -> Float:  # fmt: skip
    fields = [one["anomaly"] for one in windows]
    return context.stored(blended(block, spans, fields, [one.scale for one in seen]))


def _square(members: Float) -> Float:
    return np.asarray(np.einsum("ktyx,ktyx->tyx", members, members))


def _kept(members: Float, count: int) -> Float:
    return members[:count]


def _deviation(squares: Sequence[Float], members: int) -> Float:
    total = squares[0].copy()
    for one in squares[1:]:
        total += one
    return np.asarray(np.sqrt(total / members))


def _defects(block: Block, windows: Sequence[dict[str, Any]]) -> Float:
    """Mean over the patches of windows, joined like the mean (steps,)."""
    found = [np.mean(one["defects"]) for one in windows]
    return np.asarray(np.tensordot(found, block.weights, axes=1))

"""One window of maps by a neural solver: what lazy tasks compute.

All fields here are canonical, and in units of the scale of the anomalies unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.neural_cells import Cells, CellSeries
from xr_spde.assim.neural_theta import symmetric
from xr_spde.assim.rows import Positions
from xr_spde.assim.tracks_in_time import GriddedSeries, PointSeries
from xr_spde.assim.windows import finite_guess, spacetime_rows
from xr_spde.labels.grid import Grid
from xr_spde.labels.patch_map import PatchPlan
from xr_spde.labels.window_blend import Block, Span

__all__ = ["CellsTask", "Context", "Seen", "blended", "gathered", "scale_of"]

Array = NDArray[np.float32]
Float = NDArray[np.float64]
Flag = NDArray[np.bool_]

_RESOLVED = 1.0 / float(np.finfo(np.float32).eps)
"""Anomalies in units of their errors that single precision, in which solvers compute, resolves."""


@dataclass(frozen=True, eq=False)
class CellsTask:
    """Turns observations of some steps into departures from the first guess on cells.

    Attributes
    ----------
    observed : PointSeries or GriddedSeries
        Whose nearest step is one of these.
    grid : Grid
        Of the fields.
    land : ndarray (ny, nx) of bool
        Canonical.
    steps : int
        Of the series.
    first : int
        First step of the first guess that comes with the call.
    causal : bool
        Whether `Cells.past` is needed.
    """

    observed: PointSeries | GriddedSeries
    grid: Grid
    land: Flag
    steps: int
    first: int
    causal: bool

    def __call__(self, guess: Any = None, observed: Any = None, error: Any = None) -> Cells:
        """Average in cells.

        Raises
        ------
        ParameterError
            For a first guess that is NaN off land, and observations too large for their errors.
        """
        if not self.observed.position.size:
            none = np.zeros(0, dtype=np.intp)
            shape, empty = self.grid.shape, np.zeros(0)
            series = CellSeries(self.steps, shape, none, none, empty, empty, none, empty)
            return Cells(series, series)
        given = {k: v for k, v in (("observed", observed), ("error", error)) if v is not None}
        points = self.observed.points(**given)
        j, i = Positions.of(self.grid, points.y, points.x).cells()
        value = points.value
        if guess is not None and value.size:
            fields = self.grid.to_canonical(np.asarray(guess, dtype=np.float64))
            fields = finite_guess(fields, self.land, self.first)
            rows = spacetime_rows(points.rows, points.position - self.first, len(fields))
            value = value - rows @ fields.ravel()
        _refuse_huge(points, value)
        cell = j * self.grid.nx + i
        return Cells.of(points, self.steps, self.grid.shape, cell=cell, value=value,
                        causal=self.causal)  # fmt: skip


def _refuse_huge(points: PointSeries, value: Float) -> None:
    """Refuse anomalies of which single precision does not hold what their errors leave."""
    size = np.abs(value) / np.sqrt(points.variance)
    huge = size > _RESOLVED
    if huge.any():
        worst = int(np.argmax(size))
        raise ParameterError(
            f"{int(huge.sum())} of the observations are more than {_RESOLVED:.1e} times as large "
            f"as their errors, such as an anomaly of {value[worst]:g} with an error of "
            f"{np.sqrt(points.variance[worst]):g} at ({points.y[worst]:g}, {points.x[worst]:g}); "
            "the solver computes in single precision, which does not resolve that: check units "
            "and fill values, set what is wrong to NaN, or give the errors that these have"
        )


@dataclass(frozen=True, eq=False)
class Seen:
    """What a window knows of its observations.

    Attributes
    ----------
    cells : tuple of Cells
        Of all steps of the window.
    scale : float
        Of the anomalies, in units of the observations.
    """

    cells: tuple[Cells, ...]
    scale: float


def gathered(cells: Sequence[Cells], scale: float) -> Seen:
    """Put together what a window knows.

    Parameters
    ----------
    cells : sequence of Cells
        Of all its steps.
    scale : float
        Of the anomalies.

    Returns
    -------
    Seen
    """
    return Seen(tuple(cells), scale)


def scale_of(model: Any, cells: Sequence[Cells], until: int | None = None) -> float:
    """By what anomalies are divided.

    Parameters
    ----------
    model : NeuralSolver
        Says it.
    cells : sequence of Cells
        Of the series.
    until : int, optional
        Last step whose observations count, and of these none that came later.

    Returns
    -------
    float
    """
    parts = [(one.full, np.ones(one.full.step.size, dtype=bool)) for one in cells]
    if until is not None:
        parts = [(one.full, one.full.step < until) for one in cells]
        parts += [(one.past, one.past.step == until) for one in cells]
    value = np.concatenate([one.value[kept] for one, kept in parts])
    variance = np.concatenate([one.variance[kept] for one, kept in parts])
    return float(model.scale_for(value, variance))


@dataclass(frozen=True, eq=False)
class Context:
    """What all windows share; shipped once.

    Attributes
    ----------
    model : NeuralSolver
        Its `solve` is used.
    grid : Grid
        Of the plane.
    plan : PatchPlan
        Of the plane.
    sea : ndarray (ny, nx) of bool
        Canonical.
    least : int
        Least side of what the solver is given; smaller planes are extended by land.
    """

    model: Any
    grid: Grid
    plan: PatchPlan
    sea: Flag
    least: int

    @property
    def alpha(self) -> int:
        """Power of the prior."""
        told = getattr(self.model, "alpha", None)
        return int(self.model.solver.options["alpha"] if told is None else told)

    @property
    def deviates(self) -> bool:
        """Whether the solver tells the standard deviation of its errors."""
        return bool(getattr(self.model, "deviates", False))

    def batch(
        self, seen: Seen, span: Span, numbers: Sequence[int]
    ) -> tuple[Array, Flag, Array, Flag, Array]:
        """Return what the solver sees of some patches.

        Parameters
        ----------
        seen : Seen
            Observations.
        span : Span
            Window.
        numbers : sequence of int
            Of the patches.

        Returns
        -------
        obs, mask, variance : ndarray (B, T, side_y, side_x)
        sea : ndarray (B, side_y, side_x) of bool
        offset : ndarray (B, T, side_y, side_x)
            Times of the observations after their step, in steps.
        """
        band = self.plan.band(numbers)
        columns, steps = slice(0, self.plan.shape[1]), span.stop - span.first
        rows = band.stop - band.start
        obs, variance, offset = (
            np.zeros((steps, rows, columns.stop), np.float32) for _ in range(3)
        )
        mask = np.zeros(obs.shape, dtype=bool)
        for cells in seen.cells:
            values, known, error, late = cells.dense(
                span.first, span.stop, band, columns, span.until, causal=span.causal
            )
            obs[known] = values[known] / seen.scale
            variance[known] = error[known] / seen.scale**2
            offset[known] = late[known]
            mask |= known
        planes = (obs, mask, np.where(mask, variance, 1.0), self.sea[band], offset)
        cut = [np.stack([self.cut(a, n, band.start) for n in numbers]) for a in planes]
        return cut[0], cut[1], cut[2].astype(np.float32), cut[3], cut[4]

    def cut(self, array: NDArray[Any], number: int, top: int = 0) -> NDArray[Any]:
        """Cut a patch from a plane or a band (..., rows, nx), and extend it if it is too small."""
        cut = self.plan.cut(array, number, top)
        short = [(0, max(0, self.least - n)) for n in cut.shape[-2:]]
        return np.pad(cut, [(0, 0)] * (cut.ndim - 2) + short)

    def solve(
        self, seen: Seen, span: Span, numbers: Sequence[int], parameters: bool
    ) -> dict[str, Any]:
        """Estimate the fields of a window on some patches.

        Parameters
        ----------
        seen : Seen
            Observations.
        span : Span
            Window.
        numbers : sequence of int
            Of the patches.
        parameters : bool
            Whether those of the prior are wanted too.

        Returns
        -------
        dict
            "mean" (T, rows, nx), of a solver that tells it "deviation" likewise, and "theta"
            (7, S, rows, nx): weighted sums over the patches on the rows that they cover; "top", the
            first of these.
        """
        top = self.plan.band(numbers).start
        *given, offset = self.batch(seen, span, numbers)
        told: dict[str, Any] = {"parameters": parameters}
        if getattr(self.model, "reads_times", False):
            told["offset"] = offset
        found: dict[str, Any] = {"top": top}
        if self.deviates:
            mean, theta, deviation = self.model.estimate(*given, **told)
            found["deviation"] = self.weighted(deviation, numbers)
        else:
            mean, theta = self.model.solve(*given, **told)
        found["mean"] = self.weighted(mean, numbers)
        if parameters:
            found["theta"] = self.weighted(symmetric(np.moveaxis(theta, 1, 0)).swapaxes(0, 1),
                                           numbers)  # fmt: skip
        return found

    def weighted(self, fields: NDArray[Any], numbers: Sequence[int]) -> Array:
        """Weighted sum of the fields of patches (B, ..., side_y, side_x) on the rows they cover."""
        band, (side_y, side_x) = self.plan.band(numbers), self.plan.side
        size = (*fields.shape[1:-2], band.stop - band.start, self.plan.shape[1])
        out = np.zeros(size, dtype=np.float32)
        for field, number in zip(fields, numbers, strict=True):
            self.plan.add(out, field[..., :side_y, :side_x], number, band.start)
        return out

    def whole(self, parts: Sequence[Mapping[str, Any]], name: str) -> Array:
        """Sum of the weighted fields of all groups of patches (..., ny, nx)."""
        shape = self.plan.shape
        first: Array = parts[0][name]
        if len(parts) == 1 and first.shape[-2:] == shape:
            return first
        out = np.zeros((*first.shape[:-2], *shape), dtype=np.float32)
        for part in parts:
            field = part[name]
            out[..., part["top"] : part["top"] + field.shape[-2], :] += field
        return out

    def stored(self, fields: Float) -> Float:
        """Fields (..., ny, nx) as stored, NaN on land."""
        found = np.where(self.sea, fields, np.nan)
        return np.ascontiguousarray(self.grid.from_canonical(found))


def blended(
    block: Block, spans: Sequence[Span], fields: Sequence[Array], scales: Sequence[float] | None
) -> Float:
    """Join what windows say about the steps of a block.

    Parameters
    ----------
    block : Block
        Steps and weights.
    spans : sequence of Span
        Its windows.
    fields : sequence of ndarray (..., T, ny, nx)
        Of these; T may be 1 where nothing changes within a window.
    scales : sequence of float or None
        By which they are multiplied.

    Returns
    -------
    ndarray (..., stop - start, ny, nx)
    """
    total: Any = 0.0
    for k, (span, field) in enumerate(zip(spans, fields, strict=True)):
        steps = slice(block.start - span.first, block.stop - span.first)
        part = field if field.shape[-3] == 1 else field[..., steps, :, :]
        weights = block.weights[k] * (1.0 if scales is None else scales[k])
        total = total + weights[:, None, None] * part
    return np.asarray(total)

"""Labelled images read as a sequence: grid, cells and times, and the intervals between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import GridError, ParameterError
from xr_spde._core.warn import warn
from xr_spde.fields.cells import Cells
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.labels.times import TimeAxis
from xr_spde.latent.motion import fit_motion
from xr_spde.latent.scenes import TilePlan, tile_plan
from xr_spde.latent.tiled import tiled_fits
from xr_spde.latent.uncertainty import refit_spread

__all__ = ["COMPONENT", "INTERVAL", "ImageSequence"]

INTERVAL, COMPONENT = "_interval", "_component"
_POLAR = 85.0


@dataclass(frozen=True, eq=False)
class ImageSequence:
    """Images at several times on one grid.

    Attributes
    ----------
    data : DataArray (..., time, y, x)
        The images; floating.
    grid : Grid
        Their grid.
    cells : Cells
        Its cells, in canonical order; of size one where the coordinates have no length.
    time : TimeAxis
        Their times.
    """

    data: xr.DataArray
    grid: Grid
    cells: Cells
    time: TimeAxis

    @classmethod
    def of(
        cls, da: xr.DataArray, *, dim: str | None = None, x: str | None = None, y: str | None = None
    ) -> ImageSequence:
        """Read a sequence.

        Parameters
        ----------
        da : DataArray
            Images with a time axis and two horizontal ones, in any order; others are mapped over.
        dim : str, optional
            Name of the time axis.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        ImageSequence

        Raises
        ------
        AxisNotFoundError
            An axis is missing or ambiguous.
        GridError
            No regular grid, or latitudes beyond 85 degrees on it.
        ParameterError
            Fewer than two frames, or times that do not increase.
        DTypeError
            Values that are not real numbers.
        """
        grid = Grid.from_object(da, x=x, y=y)
        time = TimeAxis.from_object(da, dim, spatial=(grid.y_dim, grid.x_dim))
        return cls(as_float(da), grid, cells_of(grid), time)

    @property
    def metric(self) -> bool:
        """Whether the cells have a size in metres."""
        return self.grid.kind != "index"

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Lengths of the intervals (n - 1,), in the units of the time axis."""
        return np.asarray(np.diff(self.time.numbers))

    def described(self, number: int) -> str:
        """Name an interval by its ends."""
        values = self.time.coordinate.values
        return f"between {values[number]} and {values[number + 1]}"

    def ends(
        self, which: NDArray[np.intp], dim: str, *, whole: bool = True
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Images at the beginning and the end of intervals, along one new dimension.

        Parameters
        ----------
        which : ndarray of int
            Numbers of the intervals.
        dim : str
            Name of the new dimension, in front.
        whole : bool
            Whether each image becomes one chunk where lazy.

        Returns
        -------
        first, second : DataArray (dim, ..., y, x)
            Without the coordinates of time.
        """
        name = self.time.dim
        bare = self.data.drop_vars([k for k, c in self.data.coords.items() if name in c.dims])
        both = []
        for shift in (0, 1):
            index = xr.DataArray(which + shift, dims=dim)
            part = bare.isel({name: index}).transpose(dim, ..., self.grid.y_dim, self.grid.x_dim)
            if whole and is_lazy(part):
                space = (self.grid.y_dim, self.grid.x_dim)
                part = part.chunk({d: -1 if d in space else 1 for d in part.dims})
            both.append(part)
        return both[0], both[1]

    def plan(self, settings: Mapping[str, Any] | None) -> TilePlan | None:
        """Tell how the scene is cut into tiles.

        Parameters
        ----------
        settings : mapping or None
            ``tile``, ``halo`` and ``search``; see `xr_spde.latent.scenes.tile_plan`. None asks for
            the whole.

        Returns
        -------
        TilePlan or None
            None where it is fitted whole.
        """
        if settings is None:
            return None
        given = {k: settings[k] for k in ("tile", "halo", "search") if k in settings}
        return tile_plan(self.cells, **given)

    def fits(
        self,
        which: NDArray[np.intp],
        settings: Mapping[str, Any],
        *,
        optional: Collection[int] = (),
    ) -> dict[str, xr.DataArray]:
        """Fit the motion of intervals; one task each where lazy.

        Parameters
        ----------
        which : ndarray of int
            Numbers of the intervals.
        settings : mapping
            Of `xr_spde.latent.motion.fit_motion`; also ``restarts`` and ``seed`` of
            `xr_spde.latent.uncertainty.refit_spread`, ``tile`` and ``halo`` of
            `xr_spde.latent.scenes.tile_plan`.
        optional : collection of int
            Intervals that may have no motion, for want of data: a warning then, and NaN.

        Returns
        -------
        dict of DataArray (interval, ...)
            ``q`` (component, y, x) in cells per interval along increasing x and y, stored as the
            images are, and scalars ``mismatch``, ``noise``, ``folded``, ``beyond_search``; with
            ``restarts`` above 0 also ``spread`` like ``q``.
        """
        plan = self.plan(settings)
        if plan is not None:
            if settings.get("restarts"):
                raise ParameterError("restarts= means nothing to tiles; select a part of the scene")
            chosen = {"brightness": "auto", "search": 0.25, "smoothness": None, **settings}
            names = {"interval": INTERVAL, "component": COMPONENT}
            return tiled_fits(self, which, chosen, plan, **names)
        first, second = self.ends(which, INTERVAL)
        space = (self.grid.y_dim, self.grid.x_dim)
        scalars = {name: Output(()) for name in ("mismatch", "noise", "folded")}
        field = Output((COMPONENT, *space), self.data.dtype, {COMPONENT: 2})
        results = apply_core(
            _fit,
            first,
            second,
            xr.DataArray(which, dims=INTERVAL),
            core_dims=[space, space, ()],
            output={
                "q": field,
                **({"spread": field} if settings.get("restarts") else {}),
                **scalars,
                "beyond_search": Output((), np.bool_),
            },
            kwargs={
                "grid": self.grid,
                "cells": self.cells,
                "names": {int(k): self.described(int(k)) for k in which},
                "optional": frozenset(optional),
                **_split(settings),
            },
        )
        return {name: da.drop_attrs() for name, da in results.items()}


def cells_of(grid: Grid) -> Cells:
    """Cells of a grid, in metres where its coordinates have a length.

    Parameters
    ----------
    grid : Grid
        The grid.

    Returns
    -------
    Cells

    Raises
    ------
    GridError
        Latitudes beyond 85 degrees, where cells are too narrow to follow a motion across them.
    """
    if grid.kind == "index":
        return Cells(grid.ny, grid.nx, periodic_x=grid.periodic_x)
    if grid.kind == "geographic" and np.abs(grid.canonical_y()).max() > _POLAR:
        raise GridError(
            f"{grid.y_dim!r} reaches {grid.canonical_y()[np.abs(grid.canonical_y()).argmax()]:g} "
            f"degrees; beyond {_POLAR:g} the cells of a latitude-longitude grid are too narrow for "
            "a motion across them; reproject to a polar stereographic grid, or select "
            f".sel({grid.y_dim}=slice(...)) up to {_POLAR:g}"
        )
    dy, dx = grid.cell_size()
    return Cells(grid.ny, grid.nx, dy, dx, grid.periodic_x)


def _split(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Separate settings of the fit from those of what comes after it."""
    after = {"restarts": 0, "seed": 0}
    fitting = {k: v for k, v in settings.items() if k not in (*after, "tile", "halo")}
    return {"settings": fitting, **{k: settings.get(k, v) for k, v in after.items()}}


def _fit(
    u0: NDArray[Any],
    u1: NDArray[Any],
    number: NDArray[np.intp],
    *,
    grid: Grid,
    cells: Cells,
    names: Mapping[int, str],
    optional: Collection[int],
    settings: Mapping[str, Any],
    restarts: int,
    seed: int,
) -> dict[str, Any]:
    first, second = (grid.to_canonical(u) for u in (u0, u1))
    try:
        motion = fit_motion(first, second, cells, **settings)
    except ParameterError as error:
        text = f"no motion {names[int(number)]}: {error}"
        if int(number) not in optional:
            raise ParameterError(text) from error
        warn(f"{text}; the velocity is taken not to change towards it")
        nothing = np.full((2, *u0.shape), np.nan)
        scalars = dict.fromkeys(("mismatch", "noise", "folded"), np.nan)
        return {"q": nothing, "spread": nothing, **scalars, "beyond_search": False}
    spread = {}
    if restarts:
        chosen = {name: settings[name] for name in ("search", "smoothness") if name in settings}
        again = refit_spread(first, second, motion, count=restarts, seed=seed, **chosen)
        spread = {"spread": grid.from_canonical(again)}
    return {
        **spread,
        "q": grid.from_canonical(motion.velocity),
        "mismatch": motion.mismatch,
        "noise": motion.noise,
        "folded": np.nan if motion.report is None else motion.report.folded,
        "beyond_search": motion.beyond_search,
    }

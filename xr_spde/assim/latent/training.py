"""A series read for a fit: normalised snapshots, their times, and which are held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.memory import check_memory
from xr_spde._core.warn import warn
from xr_spde.assim.latent.channels import (
    CHANNEL,
    Labelled,
    as_channels,
    read_layout,
    snapshot_dims,
    variables_of,
)
from xr_spde.assim.latent.clock import Clock, months_of
from xr_spde.assim.latent.layout import Layout
from xr_spde.assim.latent.scaling import Scaling, fit_scaling
from xr_spde.labels.axes import find_spatial
from xr_spde.labels.points import calendar_of

__all__ = ["Part", "Training", "read_training"]

Float = NDArray[np.float64]
_BLOCK = 2**26
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class Part:
    """Some consecutive times of all members.

    Attributes
    ----------
    values : ndarray (W, T, P, c)
        Normalised snapshots of W members; NaN is missing.
    days : ndarray (T,)
        Days since 1970-01-01.
    gaps : ndarray (T - 1,)
        Intervals in steps.
    span : tuple of str
        First and last time, for the card.
    """

    values: NDArray[Any]
    days: Float
    gaps: Float
    span: tuple[str, str]

    @property
    def snapshots(self) -> NDArray[Any]:
        """All snapshots (W * T, P, c), member by member."""
        return self.values.reshape(-1, *self.values.shape[2:])


@dataclass(frozen=True, eq=False)
class Training:
    """A series, read.

    Attributes
    ----------
    layout : Layout
        Of its snapshots.
    scaling : Scaling
        Fitted to the times that are trained on.
    clock : Clock
        Its step.
    weights : ndarray (P,) or (P, c)
        Shares of the area where there is a value; sum to one over the points, or to one over c
        where variables have values at different points, and to one in all.
    trained, held : Part
        Times to fit, and those after them to judge by.
    attrs : dict of str to dict
        Attributes of the variables.
    time_name : str
        Name of the dimension of time.
    irregular : int
        Number of intervals that are not one step.
    """

    layout: Layout
    scaling: Scaling
    clock: Clock
    weights: Float
    trained: Part
    held: Part
    attrs: dict[str, dict[str, Any]]
    time_name: str
    irregular: int

    @property
    def described(self) -> dict[str, Any]:
        """What it is, for a card."""
        channels = [str(one) for one in self.layout.channels]
        return {
            "variables": channels, "grid": self.layout.grid.described(),
            "points": int(self.layout.cells.size), "members": len(self.trained.values),
            "step": str(self.clock), "trained": list(self.trained.span),
            "held_out": list(self.held.span), "snapshots": int(self.trained.values.shape[1]),
            "intervals_of_other_length": self.irregular,
        }  # fmt: skip


def read_training(
    obj: Labelled,
    *,
    variables: list[str] | None = None,
    held: float = 0.2,
    climatology: str = "auto",
    domain: str = "auto",
    whole: bool = False,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Training:
    """Read a series.

    Parameters
    ----------
    obj : DataArray or Dataset
        Fields (..., time, Y, X) in any order of dimensions, with levels and members or without;
        lazy ones are read some times at once.
    variables : list of str, optional
        Of a Dataset.
    held : float
        Share of the times, the last ones, that are held out.
    climatology, domain : str
        See `fit_scaling` and `read_layout`.
    whole : bool, default False
        Keep the cells that never have a value, with weight zero.
    dim : str, optional
        Dimension of members.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Training

    Raises
    ------
    ParameterError, GridError
        As those say; too few times, or a share that leaves none.
    MemoryGuardError
        If the snapshots do not fit.

    Warns
    -----
    UserWarning
        If intervals differ.
    """
    given = variables_of(obj, variables)
    first = next(iter(given.values()))
    space = find_spatial(first, x=x, y=y)
    dims = snapshot_dims(first, dim, space)
    layout = read_layout(
        given, dims=dims, domain=domain, dataset=isinstance(obj, xr.Dataset), x=x, y=y
    )
    fields, _ = as_channels(obj if len(given) > 1 or isinstance(obj, xr.DataArray) else
                            obj[list(given)], layout, x=x, y=y)  # fmt: skip
    fields = fields.transpose(*dims, CHANNEL, *fields.dims[-2:])
    if len(dims) == 1:
        fields = fields.expand_dims("member")
    times = _times(fields, dims[-1])
    clock = Clock.of(times)
    gaps, irregular = clock.intervals(times)
    if irregular:
        warn(
            f"{irregular} of {gaps.size} intervals of the series are not one step of {clock}: the "
            "dynamics are fitted with the intervals as they are"
        )
    split = _split(times.size, held)
    values, layout = _read(fields, layout, whole)
    months = months_of(times)
    scaling = fit_scaling(
        values[:, :split].reshape(-1, *values.shape[2:]),
        None if months is None else np.tile(months[:split], len(values)),
        layout,
        climatology,
    )
    for one in values:  # member by member, in place
        one[...] = scaling.normalise(one, months)
    days = clock.days(times)
    labels = [str(t)[:19] for t in times.values]
    parts = [
        Part(values[:, a:b], days[a:b], gaps[a : max(a, b - 1)], (labels[a], labels[b - 1]))
        for a, b in ((0, split), (split, times.size))
    ]
    attrs = {name: {str(k): v for k, v in one.attrs.items()} for name, one in given.items()}
    return Training(layout, scaling, clock, _weights(values, layout), parts[0], parts[1], attrs,
                    dims[-1], irregular)  # fmt: skip


def _times(fields: xr.DataArray, name: str) -> xr.DataArray:
    if name not in fields.coords:
        return xr.DataArray(np.arange(float(fields.sizes[name])), dims=name)
    times = fields[name]
    if calendar_of(times) is None and times.dtype.kind not in "fiu":
        raise ParameterError(
            f"the times {name!r} have dtype {times.dtype}; expected dates or numbers; decode them "
            "with xr.decode_cf"
        )
    if times.isnull().any():
        raise ParameterError(f"the times {name!r} hold missing ones (NaT); leave these out")
    return times


def _split(count: int, held: float) -> int:
    """Count the times to train on."""
    if not 0.0 < held < 1.0:
        raise ParameterError(f"held={held!r} was given; expected a share of times in (0, 1)")
    split = count - max(1, round(count * held))
    if split < _FEWEST:
        raise ParameterError(
            f"the series has {count} times, of which held={held:g} leaves {max(split, 0)} to train "
            f"on; at least {_FEWEST} are needed, beside one that is held out"
        )
    return split


def _read(fields: xr.DataArray, layout: Layout, whole: bool) -> tuple[NDArray[Any], Layout]:
    """All snapshots (W, T, P, c), at the points that ever have a value; some times at once."""
    members, count = fields.shape[:2]
    cells, c = layout.cells.size, len(layout.channels)
    size = fields.dtype.itemsize
    check_memory(
        3.0 * members * count * cells * c * size,
        what=f"{members * count} snapshots of {cells} cells",
        remedy="select times or a region, coarsen, or convert to float32",
    )
    values = np.empty((members, count, cells, c), fields.dtype)
    step = max(1, _BLOCK // (members * cells * c * size))
    for start in range(0, count, step):
        part = slice(start, start + step)
        values[:, part] = layout.take(np.asarray(fields[:, part].values))
    if np.isinf(values).any():
        raise ParameterError("the series holds infinite values; missing ones are NaN")
    seen = np.isfinite(values).any(axis=(0, 1, 3))
    if not seen.any():
        raise ParameterError("the series has no value at all: every cell is NaN, as on land")
    if whole or seen.all():
        return values, layout
    return values[:, :, seen], replace(layout, cells=layout.cells[seen])


def _weights(values: NDArray[Any], layout: Layout) -> Float:
    wet = np.isfinite(values).any(axis=(0, 1))
    area = layout.area
    if wet.all():
        return area
    own = area[:, None] * wet
    return np.asarray(own / own.sum(axis=0) / wet.shape[1])

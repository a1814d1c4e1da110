"""A fitted latent model: fields to codes and back, forecasts, scores, and its file."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, listed
from xr_spde.assim.latent.channels import CHANNEL, Labelled
from xr_spde.assim.latent.clock import Clock
from xr_spde.assim.latent.labelled import (
    CODE,
    Reader,
    check_code_dim,
    find_time_dim,
    per_snapshot,
    places_of,
    take_apart,
)
from xr_spde.assim.latent.layout import Layout
from xr_spde.assim.latent.protocols import ErrorModel, Propagator, StateMap
from xr_spde.assim.latent.scaling import Scaling

__all__ = ["LatentModel"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LatentModel:
    """Fields as codes, with dynamics and errors of these; what `xr_spde.assim.fit` returns.

    Attributes
    ----------
    map : StateMap
        Between normalised values and codes.
    propagator : Propagator
        Carries codes forward.
    error : ErrorModel or None
        Of one step, and what decoding misses.
    layout : Layout
        Variables, levels and points of the training.
    scaling : Scaling
        From units to normalised numbers.
    clock : Clock
        Step of the training.
    axes : dict of str to Variable
        Horizontal coordinates of the training.
    attrs : mapping of str to mapping
        Attributes of the variables.
    time_name : str
        Name of the dimension of time.
    card : mapping
        How it was fitted: data, seed, settings, scores on what was held out.
    """

    map: StateMap
    propagator: Propagator
    error: ErrorModel | None
    layout: Layout
    scaling: Scaling
    clock: Clock
    axes: Mapping[str, xr.Variable]
    attrs: Mapping[str, Mapping[str, Any]]
    time_name: str = "time"
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(str(one) for one in self.layout.channels)

    def encode(
        self,
        obj: Labelled,
        *,
        noise: float | Mapping[str, float] | None = None,
        prior: bool = True,
        x: str | None = None,
        y: str | None = None,
    ) -> xr.DataArray:
        """Find the codes of fields.

        Parameters
        ----------
        obj : DataArray or Dataset (..., Y, X)
            Of the variables of the model, on any grid; NaN is missing. Leading dimensions are kept.
        noise : float or mapping of str to float, optional
            Standard deviation of the errors of the values, in their units; by default they are
            taken as they are.
        prior : bool, default True
            Whether codes are likely to be those of the training, which decides what is missing.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray (..., code)
            Lazy where `obj` is; each snapshot by itself.

        Raises
        ------
        ParameterError, GridError
            Other variables, levels, units or kinds of grid than those of the training.
        """
        reader, fields = Reader.of(obj, self.layout, self.scaling, x=x, y=y)
        variance = None if noise is None else np.square(self._per_channel(noise) / self.scaling.std)

        def encode(block: NDArray[Any], months: NDArray[np.intp] | None) -> NDArray[Any]:
            values = reader(block, months)
            return np.asarray(
                self.map.encode(values, reader.points, noise=variance, prior=prior), block.dtype
            )

        core = [str(d) for d in fields.dims[-3:]]
        codes = per_snapshot(encode, fields, core, {CODE: self.map.n})
        return codes.rename("codes").assign_attrs(long_name="latent code", units="1")

    def _per_channel(self, given: float | Mapping[str, float]) -> Float:
        """Give a number for every channel."""
        if not isinstance(given, Mapping):
            return np.full(len(self.layout.channels), float(given))
        lacking = {one.variable for one in self.layout.channels} - set(given)
        if lacking:
            raise ParameterError(f"{listed(given)} were given; {listed(sorted(lacking))} lack")
        return np.array([float(given[one.variable]) for one in self.layout.channels])

    def decode(
        self,
        codes: xr.DataArray,
        like: Labelled | None = None,
        *,
        x: str | None = None,
        y: str | None = None,
    ) -> Labelled:
        """Evaluate fields.

        Parameters
        ----------
        codes : DataArray (..., code)
            Codes; with the time of the fields where the model has a climatology.
        like : DataArray or Dataset, optional
            Where: on a grid, or points along one dimension; by default the grid of the training.
        x, y : str, optional
            Names of the horizontal axes of `like`.

        Returns
        -------
        DataArray or Dataset (..., Y, X) or (..., points)
            As the series of the training was, in its units; NaN where it had none. Lazy where
            `codes` are.

        Raises
        ------
        ParameterError, GridError, AxisNotFoundError
            For other codes, or places that are not found.
        """
        codes = check_code_dim(codes, self.map.n)
        places = None if like is None else places_of(like, self.layout, x=x, y=y)
        dims: tuple[str, ...]
        shape: tuple[int, ...]
        if places is None:
            dims, shape = (self.layout.grid.y_dim, self.layout.grid.x_dim), self.layout.grid.shape
            coords: dict[Any, Any] = {k: v for k, v in self.axes.items() if k in dims}
            if like is not None:
                own = {k: v for k, v in like.coords.items() if set(v.dims) <= set(dims)}
                coords = {k: v.variable for k, v in own.items() if v.ndim}
        else:
            dims, shape, coords = places.dims, places.shape, places.coords

        def decode(block: NDArray[Any], months: NDArray[np.intp] | None) -> NDArray[Any]:
            if places is None:
                values = np.asarray(self.map.decode(block), block.dtype)
                return self.layout.put(self.scaling.restore(values, months))
            values = np.asarray(self.map.decode(block, places.points), block.dtype)
            values[:, ~places.known] = np.nan
            restored = self.scaling.restore(values, months, places.rows)
            return np.moveaxis(restored, -1, -2).reshape(len(block), -1, *shape)

        output = {CHANNEL: len(self.layout.channels), **dict(zip(dims, shape, strict=True))}
        found = per_snapshot(decode, codes, (CODE,), output).assign_coords(coords)
        return take_apart(found, self.layout, self.attrs)

    def forecast(
        self,
        start: Labelled,
        steps: int | None = None,
        *,
        times: Any = None,
        codes: bool = False,
        x: str | None = None,
        y: str | None = None,
    ) -> Labelled:
        """Forecast fields from a first one.

        Parameters
        ----------
        start : DataArray or Dataset
            Fields (..., Y, X) of one time, or codes (..., code), with a scalar coordinate of time
            or a dimension of length one.
        steps : int, optional
            How many steps of the training.
        times : array_like of dates or numbers, optional
            Instead: the times of the forecast, after the start, in any intervals.
        codes : bool, default False
            Return codes instead.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        DataArray or Dataset (..., time, Y, X)
            Lazy where `start` is.

        Raises
        ------
        ParameterError
            Both or neither of `steps` and `times`, times that do not increase or that lie before
            the start, or a start without a time where one is needed.
        """
        from xr_spde.assim.latent.forecasts import roll_out

        first = start if isinstance(start, xr.DataArray) and CODE in start.dims else \
            self.encode(start, x=x, y=y)  # fmt: skip
        found = roll_out(self, check_code_dim(first, self.map.n), steps, times)
        if codes:
            return found
        like = None if first is start else start
        return self.decode(found, None if like is None else _flat(like, x, y), x=x, y=y)

    def score(
        self, obj: Labelled, leads: int = 5, *, dim: str | None = None,
        x: str | None = None, y: str | None = None,
    ) -> xr.Dataset:  # fmt: skip
        """Score reconstruction and forecasts against a series.

        Parameters
        ----------
        obj : DataArray or Dataset (..., time, Y, X)
            The truth, at times that the model was not fitted to.
        leads : int, default 5
            Steps of the forecasts.
        dim : str, optional
            Dimension of members.
        x, y : str, optional
            Names of the horizontal axes.

        Returns
        -------
        Dataset
            ``rmse`` and ``persistence`` (lead, variable), lead zero the reconstruction, and
            ``climatology`` (variable): root mean squares over the area, meaned over the snapshots,
            in units of the standard deviation ``scale`` (variable) of the training.
        """
        from xr_spde.assim.latent.forecasts import score_series

        return score_series(self, obj, leads, dim=dim, x=x, y=y)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one safetensors file with a description in JSON.

        Parameters
        ----------
        path : path
            File to write, by habit ``.safetensors``; its folder must exist. An existing one is
            replaced only when the new one is complete.

        Raises
        ------
        ParameterError
            If the card cannot be written as JSON.
        """
        from xr_spde.assim.latent.storage import save_model

        save_model(self, path)

    def time_of(self, obj: xr.DataArray) -> xr.DataArray | None:
        """Time of fields or codes of one time.

        Parameters
        ----------
        obj : DataArray
            With a dimension of length one or a scalar coordinate.

        Returns
        -------
        DataArray () or None

        Raises
        ------
        ParameterError
            If there are several times.
        """
        name = find_time_dim(obj)
        if name is None:
            return None
        times = obj[name]
        if times.size != 1:
            raise ParameterError(
                f"fields of {times.size} times were given; one start is expected; select it, such "
                f"as with .isel({name}=0)"
            )
        return times.squeeze().reset_coords(drop=True)

    def _facts(self) -> dict[str, str]:
        """Name and value of what describes the model."""
        error = "none" if self.error is None else self.error.kind
        facts = {
            "variables": ", ".join(self.variables),
            "grid": self.layout.grid.described(),
            "points": f"{self.layout.cells.size:,} on the {self.layout.domain}",
            "code": f"{self.map.n} numbers" + (", affine" if self.map.affine else ""),
            "step": str(self.clock),
            "climatology": "none" if self.scaling.climatology is None else "by calendar month",
            "dynamics": self.propagator.name,
            "model error": error,
        }
        facts |= {f"card: {k}": _short(v) for k, v in self.card.items()}
        return {name: value for name, value in facts.items() if value}

    def __repr__(self) -> str:
        lines = [f"  {name}: {value}" for name, value in self._facts().items()]
        return "\n".join([f"<LatentModel {self.map.name}>", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<b>LatentModel</b> {html.escape(self.map.name)}<table>{rows}</table>"


_LONGEST = 100


def _short(value: object) -> str:
    text = ", ".join(f"{k} {_short(v)}" for k, v in value.items()) if isinstance(value, Mapping) \
        else f"{value:.4g}" if isinstance(value, float) else str(value)  # fmt: skip
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _flat(obj: Labelled, x: str | None, y: str | None) -> Labelled:
    """Fields of a grid without their leading dimensions."""
    from xr_spde.labels.axes import find_spatial

    space = find_spatial(obj, x=x, y=y)
    return obj.isel({d: 0 for d in obj.dims if d not in space})

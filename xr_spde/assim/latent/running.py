"""A latent analysis that has been checked: what a task computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.latent.background import background_factor, draw_codes
from xr_spde.assim.latent.channels import Labelled
from xr_spde.assim.latent.clock import months_of
from xr_spde.assim.latent.exact import exact_filter
from xr_spde.assim.latent.filtering import Analysed, FilterSettings, Instant, LatentFilter
from xr_spde.assim.latent.labelled import CODE
from xr_spde.assim.latent.model import LatentModel
from xr_spde.assim.latent.observe import ObservedSeries
from xr_spde.assim.latent.seen import NOTHING, Leap
from xr_spde.assim.update import places

__all__ = ["DEAD", "KEPT", "Problem"]

Float = NDArray[np.float64]

DEAD = 1e-2
"""Share of the largest spread below which a number of a code is not in use: of spare ones."""

KEPT = (
    "obs_error", "unusable", "value", "obs_x", "obs_y", "background_error", "representativeness",
    "window", "x", "y", "dim",
)  # fmt: skip
"""Arguments that a task needs."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be computed, without the values; what a task calls.

    Attributes
    ----------
    model : LatentModel
        The model.
    method : str
        Resolved.
    times : DataArray (T,)
        Of the analyses.
    gaps, days : ndarray (T,)
        Steps before each, and the day at their start.
    start : DataArray () or None
        Time of the first guess.
    members : tuple
        Dimension of members of the first guess, or None, and their number.
    given : dict
        Arguments.
    settings : FilterSettings
        Of the filter.
    dtype : dtype
        Of the result.
    """

    model: LatentModel
    method: str
    times: xr.DataArray
    gaps: Float
    days: Float
    start: xr.DataArray
    members: tuple[str | None, int]
    given: dict[str, Any]
    settings: FilterSettings
    dtype: Any

    def __call__(self, first_guess: Labelled, observed: Mapping[str, Labelled]) -> dict[str, Any]:
        """Run the cycle on data in memory."""
        model = self.model
        codes = self._codes(first_guess)
        seen = self._reader().read(observed)
        leaps = [
            Leap(float(gap), float(day), one, str(time)[:19])
            for gap, day, one, time in zip(
                self.gaps, self.days, seen, self.times.values, strict=True
            )
        ]
        if not any(one is not None for one in seen):
            raise ParameterError("there is no observation with a value at any time of the analyses")
        parts = (model.map, model.propagator, model.error, self.settings)
        if self.method == "kalman":
            states: Any = exact_filter(*parts, (codes[0], self._factor(codes[0])), leaps)
        else:
            local = None if self.settings.localization is None else _instant(model)
            states = LatentFilter(*parts, local).run(self._ensemble(codes), leaps)
        return _collected(model, states, self.months, self.dtype)

    @property
    def months(self) -> NDArray[np.intp] | None:
        """Months of the analyses, where the model has a climatology."""
        return None if self.model.scaling.climatology is None else months_of(self.times)

    def _reader(self) -> ObservedSeries:
        model, given = self.model, self.given
        missed = None if model.error is None else model.error.representativeness
        if missed is None or not given["representativeness"]:
            missed = np.zeros(model.scaling.std.size)
        slack = 0.5
        if given["window"] is not None:
            clock = model.clock
            if clock.unit == "number":
                raise ParameterError("window= needs dates, and the model counts plain numbers")
            days = np.timedelta64(given["window"]) / np.timedelta64(1, "s") / 86400.0
            slack = float(days / clock.step / (365.2425 / 12.0 if clock.unit == "month" else 1.0))
        reading = {k: given[k] for k in ("obs_error", "unusable", "value", "obs_x", "obs_y")}
        start = self.start

        def positions(when: xr.DataArray) -> Float:
            return model.clock.positions(when, start)

        return ObservedSeries(model.layout, model.scaling, np.asarray(missed), self.times,
                              positions, slack + 1e-6, reading, self.months)  # fmt: skip

    def _codes(self, first_guess: Labelled) -> Float:
        """Codes (N, n) of the first guess."""
        model, given = self.model, self.given
        if isinstance(first_guess, xr.DataArray) and CODE in first_guess.dims:
            codes = first_guess
        else:
            noise = given["background_error"]
            codes = model.encode(first_guess, noise=noise, x=given["x"], y=given["y"])
        found = np.asarray(codes.values, dtype=np.float64).reshape(-1, model.map.n)
        if not np.isfinite(found).all():
            raise ParameterError("the codes of the first guess are not finite")
        return found

    def _factor(self, code: Float) -> Float:
        """Square root (n, k) of the covariance of the error of a first guess of one."""
        model, given = self.model, self.given["background_error"]
        if given is None:
            return np.diag(model.map.spread).astype(np.float64)
        std = model._per_channel(given) / model.scaling.std
        jacobian = np.asarray(model.map.jacobian(code), dtype=np.float64)
        variance = np.tile(np.square(std), len(jacobian) // std.size)
        kept = np.isfinite(jacobian).all(axis=1)
        prior = np.square(model.map.spread)
        return background_factor(jacobian[kept], variance[kept], prior=prior)

    def _ensemble(self, codes: Float) -> Float:
        """Members: those of the first guess, or drawn about it."""
        if self.members[0] is not None:
            return codes
        root, size = self._factor(codes[0]), self.members[1]
        spread = self.model.map.spread
        root[spread <= DEAD * spread.max()] = 0.0
        drawn = draw_codes(codes[0], root, size, self.settings.entropy)
        return np.asarray(drawn + (codes[0] - drawn.mean(axis=0)))


def _collected(
    model: LatentModel, states: Any, months: NDArray[np.intp] | None, dtype: Any
) -> dict[str, NDArray[Any]]:
    """Fields and statistics of all times."""
    rows: dict[str, list[Any]] = {k: [] for k in ("mean", "std", "increment", "codes", *NOTHING)}
    for k, state in enumerate(states):
        when = None if months is None else months[k : k + 1]
        mean, std, before = state.fields(model.map) if not isinstance(state, Analysed) else \
            _moments(model, state)  # fmt: skip
        shown = {
            "mean": model.scaling.restore(mean[None], when)[0], "std": std * model.scaling.std,
            "increment": (mean - before) * model.scaling.std,
        }  # fmt: skip
        for key, one in shown.items():
            rows[key].append(model.layout.put(one.astype(dtype)))
        rows["codes"].append(state.codes.astype(dtype))
        for key in NOTHING:
            rows[key].append(state.statistics[key])
    return {key: np.asarray(one) for key, one in rows.items()}


def _moments(model: LatentModel, state: Analysed) -> tuple[Float, Float, Float]:
    """Give decoded mean code, spread of decoded members, and decoded mean of the forecast."""
    both = model.map.decode(np.stack([state.codes.mean(axis=0), state.forecast]))
    members = model.map.decode(state.codes)
    return both[0], members.std(axis=0, ddof=1), both[1]


def _instant(model: LatentModel) -> Instant:
    """Places and weights of the points of the training."""
    grid = model.layout.grid
    y, x = np.meshgrid(grid.canonical_y(), grid.canonical_x(), indexing="ij")
    cells = model.layout.cells
    return Instant(places(grid, y.ravel()[cells], x.ravel()[cells]), model.layout.area)

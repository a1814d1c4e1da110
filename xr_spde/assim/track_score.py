"""Maps in space and time scored along tracks that were withheld."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.provenance import provenance
from xr_spde.assim.challenge import interval_scores
from xr_spde.assim.observations import read_observations
from xr_spde.assim.times import days_since, step_of
from xr_spde.assim.verification import (
    binned_spread,
    expected_crps,
    expected_ranks,
    quantile_ranks,
)
from xr_spde.assim.windows import spacetime_rows
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import as_points, calendar_of, find_time

__all__ = ["at_tracks", "has_times", "score_tracks"]

Float = NDArray[np.float64]

_LEVELS = (0.5, 0.9, 0.95)
_WORDS = {
    "count": "number of observations compared",
    "rmse": "root mean square error of the mean",
    "bias": "mean minus truth",
    "spread_skill": "expected over found error; 1 where the standard deviation is right",
    "crps": "continuous ranked probability score",
    "step_count": "number of observations nearest to the map",
    "step_rmse": "root mean square error of the mean at the observations nearest to the map",
    "step_spread": "expected error at the observations nearest to the map",
    "bin_count": "number of observations of like spread",
    "bin_spread": "expected error",
    "bin_rmse": "root mean square error where this is expected",
}


def has_times(obj: object, truth: xr.DataArray | xr.Dataset) -> bool:
    """Whether maps at several times stand against points with times of their own.

    Parameters
    ----------
    obj : object
        What is scored.
    truth : DataArray or Dataset
        The truth.

    Returns
    -------
    bool
    """
    if not (isinstance(obj, xr.Dataset) and {"mean", "std"} <= set(obj.data_vars)):
        return False
    maps = obj["mean"]
    dated = [d for d in maps.dims if d in maps.coords and calendar_of(maps[d]) is not None]
    points = as_points(truth)
    one = points.to_array() if isinstance(points, xr.Dataset) else points
    along = [c for c in points.coords if points[c].ndim == 1 and calendar_of(points[c]) is not None]
    flat = isinstance(points, xr.Dataset) or one.ndim == 1
    return bool(len(dated) == 1 and maps.ndim == 3 and flat and len(points.dims) == 1 and along)


def score_tracks(
    obj: xr.Dataset,
    truth: xr.DataArray | xr.Dataset,
    *,
    obs_error: float = 0.0,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Score maps of mean and standard deviation at the places and times of observations.

    Parameters
    ----------
    obj : Dataset
        ``mean`` and ``std`` (time, Y, X), at regular times, such as the maps of `assimilate`.
    truth : DataArray or Dataset
        Points with positions and times; those outside or on land do not count.
    obs_error : float, default 0
        Standard deviation of their errors, which the maps do not have.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset
        ``count``, ``rmse``, ``bias``, ``spread_skill``, ``crps``, ``rank_histogram`` (rank), and
        ``coverage`` (level) of the central intervals of 50, 90 and 95 %. Where there is an
        ``ensemble`` (realization, time, Y, X), its draws have the CRPS, fair to their number, and
        the ranks; else the Gaussian, with 20 equally likely classes. In time, ``step_count``,
        ``step_rmse`` and ``step_spread``: of the observations nearest to each map. In ten classes
        of increasing spread (bin), ``bin_count``, ``bin_spread`` and ``bin_rmse``. Spread
        includes ``obs_error``.

    Raises
    ------
    ParameterError
        If nothing can be compared, or ``obs_error`` is negative.

    Notes
    -----
    Mean, standard deviation and draws are interpolated, bilinearly in space and linearly in time;
    the deviation is slightly too large between nodes. Errors of observation are averaged over, in
    scores of draws too (`xr_spde.assim.verification`), so that nothing is random.
    """
    if not (np.ndim(obs_error) == 0 and 0.0 <= float(obs_error) < np.inf):
        raise ParameterError(f"obs_error={obs_error!r} was given; expected a number >= 0")
    grid = Grid.from_object(obj["mean"], x=x, y=y)
    (dim,) = (str(d) for d in obj["mean"].dims if d not in (grid.y_dim, grid.x_dim))
    told, value, position = _at_tracks(obj, as_points(truth), grid, dim)
    error, spread = told["mean"] - value, np.hypot(told["std"], float(obs_error))
    scores: dict[str, Any] = interval_scores(told["mean"], spread, value)
    coverage = [scores.pop(f"coverage_{round(100 * level)}") for level in _LEVELS]
    members = told.get("ensemble")
    if members is None:
        ranks = quantile_ranks(told["mean"], spread, value)
    else:
        ranks = expected_ranks(members, value, float(obs_error))
        scores["crps"] = float(expected_crps(members, value, float(obs_error)).mean())
    binned = dict(zip(("bin_spread", "bin_rmse", "bin_count"), binned_spread(spread, error),
                      strict=True))  # fmt: skip
    steps = _by_step(np.rint(position).astype(np.intp), error, spread, obj.sizes[dim])
    result = xr.Dataset(
        {
            **scores,
            "rank_histogram": ("rank", ranks),
            "coverage": ("level", coverage),
            **{name: (dim, values) for name, values in steps.items()},
            **{name: ("bin", values) for name, values in binned.items()},
        },
        {dim: obj[dim], "level": list(_LEVELS), "rank": np.arange(ranks.size)},
    )
    return _described(result, obj["mean"].attrs, members is not None).assign_attrs(
        provenance("score", kind="tracks", obs_error=float(obs_error))
    )


def at_tracks(
    obj: xr.Dataset, truth: xr.DataArray | xr.Dataset, *, x: str | None = None, y: str | None = None
) -> tuple[Float, Float]:
    """Errors of maps at the places and times of observations, with what was predicted for them.

    Parameters
    ----------
    obj : Dataset
        ``mean`` and ``std`` (time, Y, X).
    truth : DataArray or Dataset
        Points; see `score_tracks`.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    error, std : ndarray (p,)
        Mean minus observed, and the standard deviation of the field.

    Raises
    ------
    ParameterError
        If nothing can be compared.
    """
    grid = Grid.from_object(obj["mean"], x=x, y=y)
    (dim,) = (str(d) for d in obj["mean"].dims if d not in (grid.y_dim, grid.x_dim))
    told, value, _ = _at_tracks(obj[["mean", "std"]], as_points(truth), grid, dim)
    return told["mean"] - value, told["std"]


def _at_tracks(
    obj: xr.Dataset, points: Any, grid: Grid, dim: str
) -> tuple[dict[str, Float], Float, Float]:
    """Mean, deviation and draws at the observations that have all, observed values and steps.

    The maps are gone through once, a chunk of times after the other, and only the nodes kept that
    some observation touches.
    """
    names = [name for name in ("mean", "std", "ensemble") if name in obj]
    rows, *_ = _rows(obj, points, grid, dim, None)
    used, nodes = np.unique(rows.indices), grid.ny * grid.nx
    found: dict[str, list[Float]] = {name: [] for name in names}
    sizes = obj["mean"].chunksizes.get(dim, (obj.sizes[dim],))
    for last, size in zip(np.cumsum(sizes), sizes, strict=True):
        part = obj[names].isel({dim: slice(int(last) - size, int(last))}).compute()
        first = (int(last) - size) * nodes
        here = used[(used >= first) & (used < int(last) * nodes)] - first
        for name in names:
            maps = part[name].transpose(..., dim, grid.y_dim, grid.x_dim).values
            lead = maps.shape[: maps.ndim - 3]
            found[name].append(grid.to_canonical(maps).reshape(*lead, -1)[..., here])
    told = {name: np.concatenate(values, axis=-1, dtype=np.float64)
            for name, values in found.items()}  # fmt: skip
    land = np.zeros(nodes, dtype=bool)
    land[used[np.isnan(told["mean"])] % nodes] = True
    rows, value, position = _rows(obj, points, grid, dim, land)
    column = np.searchsorted(used, rows.indices)
    compact = sp.csr_array((rows.data, column, rows.indptr), shape=(rows.shape[0], used.size))
    seen = {name: (compact @ np.nan_to_num(values).T).T for name, values in told.items()}
    return seen, value, position


def _rows(
    obj: xr.Dataset, points: Any, grid: Grid, dim: str, land: NDArray[np.bool_] | None
) -> tuple[sp.csr_array, Float, Float]:
    """Rows in space and time of the observations that can be compared, their values and steps."""
    mask = None if land is None else grid.from_canonical(land.reshape(grid.shape))
    found = read_observations(points, grid, obs_error=1.0, land=mask, unusable="drop")
    step = step_of(obj[dim], "the maps")
    position = (days_since(find_time(points), obj[dim][0]) / step)[found.row >= 0]
    inside = (position >= 0.0) & (position <= obj.sizes[dim] - 1)
    if not inside.any():
        raise ParameterError(
            f"none of the {inside.size} observations is within the times of the maps"
        )
    matrix = found.canonical().matrix[np.flatnonzero(inside)]
    rows = spacetime_rows(matrix, position[inside], obj.sizes[dim])
    return rows, found.values[inside], position[inside]


def _by_step(nearest: NDArray[np.intp], error: Float, spread: Float, steps: int) -> dict[str, Any]:
    """Root mean squares of the observations nearest to each time."""
    count = np.bincount(nearest, minlength=steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        rms = [
            np.sqrt(np.bincount(nearest, values**2, steps) / count) for values in (error, spread)
        ]
    return {"step_count": count, "step_rmse": rms[0], "step_spread": rms[1]}


def _described(result: xr.Dataset, attrs: Any, drawn: bool) -> xr.Dataset:
    for name, text in _WORDS.items():
        units = "1" if name.endswith("count") or name == "spread_skill" else None
        result[name].attrs = derived_attrs(attrs, long_name=text, units=units)
    shares = {"rank_histogram": "share of observations by rank", "coverage": "share of observations"
              " in the interval"}  # fmt: skip
    for name, text in shares.items():
        result[name].attrs = {"long_name": text, "units": "1"}
    what = "draws" if drawn else "quantiles of the prediction"
    result["rank"].attrs = {"long_name": f"number of {what} below the observation", "units": "1"}
    result["level"].attrs = {"long_name": "probability of the interval", "units": "1"}
    return result

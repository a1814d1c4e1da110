"""How well the uncertainty of maps in space and time is told, against the truth on their grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde._core.provenance import provenance
from xr_spde.assim.cell_scores import (
    Cells,
    aligned,
    map_cells,
    of_gaussian,
    of_members,
    truth_of,
)
from xr_spde.assim.ensembles import read_ensemble
from xr_spde.assim.spread_summary import DAILY, PIT_CLASSES, SpreadSummary
from xr_spde.labels.arrays import as_float
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.labels.points import calendar_of

__all__ = ["uncertainty_scores"]

_OF_FIELD = {
    "rmse": "root mean square error of the mean",
    "bias": "mean minus truth",
    "spread": "root mean variance of the prediction",
    "crps": "continuous ranked probability score",
    "bin_spread": "predicted spread, by classes of it",
    "bin_rmse": "root mean square error where the spread is alike",
    "day_rmse": "root mean square error of the mean, by time",
    "day_spread": "root mean variance of the prediction, by time",
    "day_crps": "continuous ranked probability score, by time",
}
_PLAIN = {
    "spread_skill": "spread over error; 1 where the prediction is right",
    "crps_skill": "one minus the CRPS over that of a reference",
    "coverage": "share of truths in the central interval",
    "pit_histogram": "share of truths by the probability of less",
    "rank_histogram": "share of truths by their rank among the members",
    "rank_chi2": "test statistic of a flat rank histogram",
    "rank_p": "probability of a larger test statistic where ranks are alike",
    "rank_flatness": "sum of the distances of the shares of ranks from equal ones",
    "bin_count": "number of times and cells of like spread",
    "slope": "slope of error by spread over the classes; 1 where the prediction is right",
    "correlation_pearson": "correlation of the size of the error with the spread, by time",
    "correlation_spearman": "rank correlation of the size of the error with the spread, by time",
    "correlation_expected": "that correlation where the spread is right, by time",
}


@dataclass(frozen=True, eq=False)
class _Prediction:
    """Maps of the errors of one prediction, on its grid."""

    grid: Grid
    time: str
    like: xr.DataArray
    maps: dict[str, xr.DataArray]
    members: int | None
    estimated: bool


def uncertainty_scores(
    obj: xr.DataArray | xr.Dataset,
    truth: xr.DataArray | xr.Dataset,
    dim: str | None = None,
    *,
    climatology: float | tuple[float, float] | None = None,
    reference: xr.Dataset | xr.DataArray | Mapping[str, xr.Dataset | xr.DataArray] | None = None,
    bins: int = 10,
    levels: tuple[float, ...] = (0.5, 0.9, 0.95),
    thin: int | tuple[int, int] = 1,
    border: int = 0,
    weights: str | None = "area",
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Score the uncertainty of maps in space and time, by lead or whatever leads.

    Parameters
    ----------
    obj : Dataset or DataArray
        ``mean`` and ``std``, and ``ensemble`` where there is one (..., time, Y, X), such as maps
        of `assimilate`; or an ensemble (realization, ..., time, Y, X). Other dimensions, such as
        one of leads, stay.
    truth : DataArray or Dataset
        (time, Y, X) on the same grid at the same times.
    dim : str, optional
        Dimension of the members of an ensemble without mean and std.
    climatology : float or (float, float), optional
        Standard deviation, or mean and standard deviation, of the Gaussian climatology of the skill
        scores; one number is about zero. By default those of the truth itself, over what is scored.
    reference : Dataset, DataArray or mapping of str to these, optional
        Other predictions at these times on this grid, such as the exact interpolation: references
        of further skill scores.
    bins : int, default 10
        Of the curve of error by spread, with equally many values each.
    levels : tuple of float, default (0.5, 0.9, 0.95)
        Of the central intervals.
    thin : int or (int, int), default 1
        Take every so-manyth cell, or (step, cell), for the test of the ranks, which wants
        independent truths: neighbours are not, and with all of them `rank_p` is too small.
    border : int, default 0
        Cells at each edge that are left out.
    weights : {"area"} or None
        Of the cells: cos(latitude) on geographic grids, or all alike.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset
        Over times and cells: ``rmse``, ``bias``, ``spread``, ``spread_skill``, ``crps``,
        ``crps_skill`` (reference): against "climatology", "constant" (the same mean with one
        spread, that of its errors) and those given; ``coverage`` (level), ``pit_histogram`` (pit),
        ``bin_spread``, ``bin_rmse``, ``bin_count`` (bin) and ``slope``; with members
        ``rank_histogram`` (rank), ``rank_chi2``, ``rank_p``, ``rank_flatness``. In time:
        ``day_rmse``, ``day_spread``, ``day_crps``, ``correlation_pearson``,
        ``correlation_spearman`` of the size of the error with the spread, and
        ``correlation_expected``, what the former would be in the mean were the spread right. Lazy
        where data are.

    Raises
    ------
    SchemaError
        A Dataset without ``mean`` and ``std``.
    ParameterError
        No dimension of times, impossible numbers, other labels, or nothing to compare.
    GridError, AxisNotFoundError, DTypeError
        Other grids, no members.

    Notes
    -----
    Errors, coverage and PIT are those of ``mean`` and ``std`` as a Gaussian, CRPS (fair to their
    number) and ranks those of the members where there are some. Where mean and std come from the
    members alone, a truth among N of them departs from their mean as Student's t with N - 1 degrees
    of freedom, with spread ``sqrt((N + 1) / N)`` times as large; coverage and PIT know that. The
    spread of N members has a sampling error of ``1 / sqrt(2 N)``, which flattens ``slope`` and
    lowers the correlations where the spread itself varies little.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim.ensemble_score import uncertainty_scores
    >>> z = np.random.default_rng(0).standard_normal((21, 4, 40, 40))
    >>> fields = xr.DataArray(z, dims=("realization", "time", "y", "x"))
    >>> found = uncertainty_scores(fields[1:], fields[0])
    >>> found.spread_skill.item(), found.coverage.sel(level=0.9).item(), found.rank_p.item() > 0.01
    (1.01, 0.90, True)
    """
    border_, thin_ = _checked(bins, levels, thin, border)
    own = _predicted(obj, truth, dim, weights, x, y)
    references = _named(reference)
    maps, names = dict(own.maps), tuple(references)
    for name, other in references.items():
        found = _predicted(other, truth, None, weights, x, y)
        maps[f"crps_of_{name}"] = aligned(found.maps["crps"], own.like, own.grid, x, y)
    area = Cells.of(own.grid, weights).weight
    if 2 * border_ >= min(area.shape):
        raise ParameterError(f"border={border_} leaves nothing of a grid of {area.shape}")
    inner = slice(border_, -border_ or None)
    climate = None if climatology is None else _climate(climatology)
    summary = SpreadSummary(area[inner, inner], own.members, own.estimated, names, climate, bins,
                            tuple(levels), thin_)  # fmt: skip
    core = (own.time, own.grid.y_dim, own.grid.x_dim)
    cut = [da.isel(dict.fromkeys(core[1:], inner)) for da in maps.values()]
    scored = apply_core(
        partial(summary, names=tuple(maps)),
        *(_broadcast(da, own, core) for da in cut),
        core_dims=[core] * len(cut),
        output=_output(own, bins, len(levels), 2 + len(names)),
    )
    result = xr.Dataset(scored).drop_attrs()
    return _described(result, own, list(levels), ["climatology", "constant", *names])


def _checked(bins: Any, levels: Any, thin: Any, border: Any) -> tuple[int, tuple[int, int]]:
    pair = (1, thin) if np.ndim(thin) == 0 else tuple(thin)
    whole = all(int(n) == n for n in (bins, border, *pair))
    if not whole or bins < 2 or border < 0 or len(pair) != 2 or min(pair) < 1:
        raise ParameterError(
            f"bins={bins}, thin={thin}, border={border} were given; expected whole numbers >= 2, "
            ">= 1 (or two) and >= 0"
        )
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise ParameterError(f"levels={levels!r} were given; expected numbers within (0, 1)")
    return int(border), (int(pair[0]), int(pair[1]))


def _climate(given: Any) -> tuple[float, float]:
    mean, std = (0.0, given) if np.ndim(given) == 0 else given
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0.0):
        raise ParameterError(
            f"climatology={given!r} was given; expected a standard deviation > 0, or (mean, std)"
        )
    return float(mean), float(std)


def _named(reference: Any) -> dict[str, Any]:
    if reference is None:
        return {}
    if isinstance(reference, xr.Dataset | xr.DataArray):
        return {"reference": reference}
    taken = {"climatology", "constant"} & set(reference)
    if taken:
        raise ParameterError(f"a reference is named {taken.pop()!r}, which there is already")
    return {str(name): one for name, one in reference.items()}


def _predicted(
    obj: Any, truth: Any, dim: str | None, weights: str | None, x: str | None, y: str | None
) -> _Prediction:
    """Make maps of error, variance and scores of one prediction."""
    members = None
    if isinstance(obj, xr.Dataset):
        if not {"mean", "std"} <= set(obj.data_vars):
            raise SchemaError(
                f"the dataset has {sorted(map(str, obj.data_vars))}; expected mean and std, such "
                "as maps of assimilate, or an ensemble as a DataArray"
            )
        like = as_float(obj["mean"])
        grid, members = Grid.from_object(like, x=x, y=y), obj.get("ensemble")
    else:
        found = read_ensemble(obj, dim, x=x, y=y)
        ((_, members),) = found.variables.items()
        grid, dim = found.grid, found.dim
        like = members.isel({dim: 0}, drop=True)
    time = _time_of(like, grid)
    true = aligned(truth_of(truth, "mean"), like, grid, x, y)
    maps: dict[str, xr.DataArray] = {}
    if isinstance(obj, xr.Dataset):
        names = ("error", "variance", "crps")
        std = as_float(obj["std"])
        maps = map_cells(of_gaussian, [like, std, true], [[], [], []], names)
    if members is not None:
        if isinstance(obj, xr.Dataset):
            (dim,) = (str(d) for d in members.dims if d not in like.dims)
        by_members = map_cells(of_members, [as_float(members), true], [[str(dim)], []],
                             ("error", "variance", "crps", "below", "equal"))  # fmt: skip
        maps = {**by_members, **{k: v for k, v in maps.items() if k != "crps"}}
    maps["truth"] = true
    size = None if members is None else int(members.sizes[str(dim)])
    return _Prediction(grid, time, like, maps, size, not isinstance(obj, xr.Dataset))


def _time_of(like: xr.DataArray, grid: Grid) -> str:
    """Dimension of times: that of dates, or the one called time."""
    rest = [str(d) for d in like.dims if d not in (grid.y_dim, grid.x_dim)]
    dated = [d for d in rest if d in like.coords and calendar_of(like[d]) is not None]
    found = dated if len(dated) == 1 else [d for d in rest if d == "time"]
    if len(found) != 1:
        raise ParameterError(
            f"the maps have the dimensions {', '.join(map(repr, rest)) or 'of space alone'}, and "
            "none or several of dates; expected maps in time (expand_dims('time') makes one)"
        )
    return found[0]


def _broadcast(da: xr.DataArray, own: _Prediction, core: tuple[str, ...]) -> xr.DataArray:
    """Give a map the times that it may lack."""
    lacking = {d: own.like.sizes[d] for d in core if d not in da.dims}
    return da.expand_dims(lacking) if lacking else da


def _output(own: _Prediction, bins: int, levels: int, references: int) -> dict[str, Output]:
    numbers = ["rmse", "bias", "spread", "spread_skill", "crps", "slope"]
    sizes = {
        "crps_skill": ("reference", references), "coverage": ("level", levels),
        "pit_histogram": ("pit", PIT_CLASSES), "bin_spread": ("bin", bins),
        "bin_rmse": ("bin", bins), "bin_count": ("bin", bins),
    }  # fmt: skip
    if own.members is not None:
        numbers += ["rank_chi2", "rank_p", "rank_flatness"]
        sizes["rank_histogram"] = ("rank", own.members + 1)
    return {
        **{name: Output(()) for name in numbers},
        **{name: Output((d,), sizes={d: n}) for name, (d, n) in sizes.items()},
        **{name: Output((own.time,)) for name in DAILY},
    }


def _described(
    result: xr.Dataset, own: _Prediction, levels: list[float], references: list[str]
) -> xr.Dataset:
    result = result.assign_coords(
        level=("level", levels, {"long_name": "probability of the interval", "units": "1"}),
        reference=("reference", references, {"long_name": "what the score is compared with"}),
        pit=("pit", (np.arange(PIT_CLASSES) + 0.5) / PIT_CLASSES,
             {"long_name": "probability of less than the truth", "units": "1"}),
    )  # fmt: skip
    if own.members is not None:
        words = {"long_name": "number of members below the truth", "units": "1"}
        result = result.assign_coords(rank=("rank", np.arange(own.members + 1), words))
    for name in result.data_vars:
        if name in _OF_FIELD:
            words = derived_attrs(own.like.attrs, long_name=_OF_FIELD[str(name)])  # type: ignore[assignment]
        else:
            words = {"long_name": _PLAIN[str(name)], "units": "1"}
        result[name].attrs = words
    kind = "Gaussian" if own.members is None else "ensemble"
    return result.assign_attrs(provenance("score", kind=f"{kind}, uncertainty"))

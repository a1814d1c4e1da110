"""How good an ensemble is where the truth is known."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.provenance import provenance
from xr_spde.assim.at_points import at_points, is_points
from xr_spde.assim.cell_scores import (
    Cells,
    aligned,
    crps,
    map_cells,
    of_gaussian,
    of_members,
    truth_of,
)
from xr_spde.assim.challenge import challenge_scores
from xr_spde.assim.ensembles import read_ensemble
from xr_spde.assim.track_score import has_times, score_tracks
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core

__all__ = ["crps", "score"]

Float = NDArray[np.float64]

_MOMENT = "xr_spde_moment"
_WORDS = {
    "rmse": "root mean square error of the mean of the members",
    "bias": "mean of the members minus truth",
    "spread": "root mean variance of the members",
    "spread_skill": "spread over error; 1 where members and truth are alike",
    "crps": "continuous ranked probability score, fair to the number of members",
}


def score(
    obj: xr.DataArray | xr.Dataset,
    truth: xr.DataArray | xr.Dataset,
    dim: str | None = None,
    *,
    weights: str | None = "area",
    challenge: bool = False,
    obs_error: float | None = None,
    uncertainty: bool = False,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Score an ensemble against the truth, over all cells that both have.

    Parameters
    ----------
    obj : DataArray or Dataset
        Ensemble (realization, ..., Y, X), such as the result of `assimilate`; a Dataset without
        members but with ``mean`` and ``std`` (..., Y, X) is scored as Gaussian.
    truth : DataArray or Dataset
        On the same grid, in whatever order it is stored; without dimensions that the ensemble
        lacks. Or at points and along tracks, with positions as in `assimilate`: observations that
        were withheld, to which the members are interpolated; those outside or on land are left
        out. Of a Dataset the variables of the ensemble's names.
    dim : str, optional
        Dimension of the members.
    weights : {"area"} or None
        Of the cells: cos(latitude) on geographic grids, or all alike. Points are all alike.
    challenge : bool, default False
        Whether to give the scores of the SSH mapping challenge instead, for maps (time, Y, X) and a
        gridded truth at the same times; see `xr_spde.assim.challenge.challenge_scores`.
    obs_error : float, optional
        Of a truth at points with times, against maps of ``mean`` and ``std`` (time, Y, X): their
        standard deviation, which is added; see `xr_spde.assim.track_score.score_tracks` for what
        is returned then.
    uncertainty : bool, default False
        Whether to give coverage, PIT, skill scores, the curve of error by spread, a test of the
        ranks and daily correlations besides, for maps (..., time, Y, X) and a gridded truth; see
        `xr_spde.assim.ensemble_score.uncertainty_scores`.
    x, y : str, optional
        Names of the horizontal axes.
    **settings
        Of `uncertainty`: ``climatology``, ``reference``, ``bins``, ``levels``, ``thin``,
        ``border``.

    Returns
    -------
    Dataset (...)
        ``rmse``, ``bias``, ``spread``, ``spread_skill`` (``sqrt((N + 1) / N) spread / rmse``:
        Fortin et al., 2014, J. Hydrometeorol. 15), fair ``crps`` and ``rank_histogram`` (..., rank)
        with the share of cells in which the truth has that rank among the members, ties shared out;
        flat at 1 / (N + 1) where it is like a member. Of several variables along ``variable``. Lazy
        where the data are.

    Raises
    ------
    ParameterError, GridError, AxisNotFoundError, DTypeError
        Other grids or labels, no members, nothing to compare, or a truth without labels.
    UnknownNameError
        Other weights.

    Notes
    -----
    A truth that was observed has errors of its own, which the spread of the members does not
    include: ``spread_skill`` is then below 1 even where the ensemble is right. The standard
    deviation of a Gaussian is interpolated to points, which is slightly too large between cells.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim import score
    >>> z = np.random.default_rng(0).standard_normal((21, 30, 40))
    >>> fields = xr.DataArray(z, dims=("realization", "y", "x"))
    >>> found = score(fields[1:], fields[0])
    >>> found.spread_skill.item(), found.crps.item()
    (1.02, 0.55)
    """
    if weights not in ("area", None):
        raise unknown("weights", weights, ("area", "None"))
    if uncertainty:
        from xr_spde.assim.ensemble_score import uncertainty_scores  # which builds on this module

        return uncertainty_scores(obj, truth, dim, weights=weights, x=x, y=y, **settings)
    if settings:
        raise ParameterError(f"{', '.join(settings)} were given; they belong to uncertainty=True")
    if challenge:
        mapped = obj["mean"] if isinstance(obj, xr.Dataset) else obj
        return challenge_scores(mapped, truth_of(truth, "mean"), x=x, y=y)
    if dim is None and has_times(obj, truth):
        return score_tracks(obj, truth, obs_error=obs_error or 0.0, x=x, y=y)  # type: ignore[arg-type]
    if obs_error is not None:
        raise ParameterError(
            "obs_error was given; it belongs to a truth at points with times, against maps of mean "
            "and std at several times"
        )
    if dim is None and isinstance(obj, xr.Dataset) and {"mean", "std"} <= set(obj.data_vars):
        around = set(obj["mean"].dims)
        beyond = [name for name, da in obj.data_vars.items() if set(da.dims) > around]
        if not beyond:  # times of the maps are no members
            return _described(_gaussian(obj, truth, weights, x, y), "Gaussian", obj["mean"].attrs)
        if "ensemble" in beyond:  # the draws of a mapping
            obj = obj["ensemble"]
            (dim,) = (str(d) for d in obj.dims if d not in around)
    ensemble = read_ensemble(obj, dim, x=x, y=y)
    found = {}
    for name, da in ensemble.variables.items():
        true, cells = truth_of(truth, name), Cells.of(ensemble.grid, weights)
        if is_points(true):
            da, true = at_points(da, true, ensemble.grid, ensemble.dim)
            cells = Cells.alike(true)
        else:
            true = aligned(true, da, ensemble.grid, x, y)
        names = ("error", "variance", "crps", "below", "equal")
        maps = map_cells(of_members, [da, true], [[ensemble.dim], []], names)
        found[name] = _means(maps, cells, ensemble.size)
    if len(found) == 1:
        ((name, one),) = found.items()
        return _described(one, "ensemble", ensemble.variables[name].attrs)
    labels = xr.Variable("variable", list(found))
    whole = xr.concat(list(found.values()), labels, coords="minimal", compat="override")
    return _described(whole, "ensemble", {})


def _gaussian(
    obj: xr.Dataset, truth: Any, weights: str | None, x: str | None, y: str | None
) -> xr.Dataset:
    grid = Grid.from_object(obj["mean"], x=x, y=y)
    mean, std = (obj[name].transpose(..., grid.y_dim, grid.x_dim) for name in ("mean", "std"))
    true, cells = truth_of(truth, "mean"), Cells.of(grid, weights)
    if is_points(true):
        both = xr.concat([mean, std], _MOMENT, coords="minimal", compat="override", join="override")
        both, true = at_points(both, true, grid, _MOMENT)
        (mean, std), cells = (both.isel({_MOMENT: k}) for k in range(2)), Cells.alike(true)
    else:
        true = aligned(true, mean, grid, x, y)
    names = ("error", "variance", "crps")
    maps = map_cells(of_gaussian, [mean, std, true], [[], [], []], names)
    return _means(maps, cells, None)


def _means(maps: dict[str, xr.DataArray], cells: Cells, size: int | None) -> xr.Dataset:
    """Weighted means over the cells, each map in one piece: the same bits for any chunks."""
    output = {name: Output(()) for name in _WORDS}
    if size is not None:
        output["rank_histogram"] = Output(("rank",), sizes={"rank": size + 1})
    found = apply_core(
        partial(_mean, area=cells.weight, size=size, names=tuple(maps)),
        *maps.values(),
        core_dims=[cells.dims] * len(maps),
        output=output,
    )
    result = xr.Dataset(found).drop_attrs()
    return result if size is None else result.assign_coords(rank=np.arange(size + 1))


def _mean(*maps: Float, area: Float, size: int | None, names: tuple[str, ...]) -> dict[str, Any]:
    given = dict(zip(names, maps, strict=True))
    there = np.isfinite(given["error"])
    if not there.any():
        raise ParameterError(
            "there is no cell in which both all members and the truth have numbers"
        )
    share = area[there] / area[there].sum()
    values = {name: values[there] for name, values in given.items()}
    rmse = float(np.sqrt(share @ values["error"] ** 2))
    spread = float(np.sqrt(share @ values["variance"]))
    fair = 1.0 if size is None else np.sqrt((size + 1) / size)
    found = {
        "rmse": rmse,
        "bias": share @ values["error"],
        "spread": spread,
        "spread_skill": fair * spread / rmse if rmse > 0.0 else np.nan,
        "crps": share @ values["crps"],
    }
    if size is None:
        return found
    counts = np.zeros(size + 2)
    below = values["below"].astype(np.intp)
    above = below + values["equal"].astype(np.intp) + 1
    each = share / (above - below)
    np.add.at(counts, below, each)
    np.add.at(counts, above, -each)
    return found | {"rank_histogram": np.cumsum(counts)[:-1]}


def _described(result: xr.Dataset, kind: str, attrs: Any) -> xr.Dataset:
    for name, text in _WORDS.items():
        units = "1" if name == "spread_skill" else None
        result[name].attrs = derived_attrs(attrs, long_name=text, units=units)
    if "rank_histogram" in result:
        result["rank_histogram"].attrs = {
            "long_name": "share of cells by rank of truth",
            "units": "1",
        }
        result["rank"].attrs = {"long_name": "number of members below the truth", "units": "1"}
    return result.assign_attrs(provenance("score", kind=kind))

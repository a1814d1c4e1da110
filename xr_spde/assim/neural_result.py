"""What maps by a neural solver look like: labels, attributes, provenance."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.provenance import provenance
from xr_spde.assim.neural_theta import MAPS
from xr_spde.assim.problem import Problem
from xr_spde.labels.attrs import derived_attrs

__all__ = ["labelled"]

_WORDS = {
    "mean": "field given the observations",
    "std": "standard deviation of the field given the observations",
    "ensemble": "draw of the field given the observations",
}


def labelled(
    found: dict[str, Any], given: dict[str, Any], problem: Problem, used: dict[str, Any]
) -> xr.Dataset:
    """Attach labels and attributes.

    Parameters
    ----------
    found : dict of str to array
        "anomaly", "std", "ensemble" (about the mean), "linearity_defect", and parameters; those
        that were computed.
    given : dict
        Arguments of `xr_spde.assim.neural_apply.apply_solver`.
    problem : Problem
        What was read.
    used : dict
        What else is told of the run.

    Returns
    -------
    Dataset
    """
    grid, times, model = problem.grid, problem.times, given["model"]
    dim = str(times.dims[0])
    # of a grid that was cut from a series the time is still there
    own = {k: v for k, v in problem.template.coords.items() if k != dim}
    coords, dims = {dim: times, **own}, (dim, grid.y_dim, grid.x_dim)
    result, attrs = xr.Dataset(), problem.template.attrs
    target = np.dtype(given["dtype"] or problem.template.dtype)

    def field(values: Any, text: str, units: str | None = None) -> xr.DataArray:
        lead = ("realization",) if values.ndim == 4 else ()
        made = xr.DataArray(values, coords, (*lead, *dims)).astype(target)
        return made.assign_attrs(derived_attrs(attrs, long_name=text, units=units))

    mean = found["anomaly"]
    if problem.guess is not None:
        mean = problem.guess.data.astype(np.float64) + mean
    result["mean"] = field(mean, _WORDS["mean"])
    if "std" in found:
        result["std"] = field(found["std"], _WORDS["std"])
    if "ensemble" in found:
        result["ensemble"] = field(mean[None] + found["ensemble"], _WORDS["ensemble"])
        words = {"standard_name": "realization", "long_name": "member", "units": "1"}
        result = result.assign_coords(realization=("realization", np.arange(given["n"]), words))
    if "linearity_defect" in found:
        text = "departure of the solver from a linear one, relative to what it makes of a draw"
        words = {"long_name": text, "units": "1"}
        result["linearity_defect"] = (dim, found["linearity_defect"], words)
    for name, (text, units) in MAPS.items():
        if name in found:
            result[name] = field(found[name], text, units.format(attrs.get("units", "")).strip())
    if problem.points is not None:
        result = result.merge(_statuses(problem))
        used = {**used, "observations": problem.points.summary()}
    settings = {name: given[name] for name in ("lead", "threshold")}
    card = getattr(model, "card", None) or {}
    short = {k: v for k, v in card.items() if isinstance(v, str | int | float | bool)}
    origin = {"model": short or None, "trained_spacing": model.spacing, "scale": model.scale}
    return result.assign_attrs(
        Conventions="CF-1.11", **provenance("4dvarnet", **settings, **used, **origin)
    )


def _statuses(problem: Problem) -> xr.Dataset:
    """Say what became of points, under names that are not those of the fields."""
    points: Any = problem.points
    report = points.report()
    names = {d: f"obs_{d}" for d in report.dims if not str(d).startswith("obs")}
    report = report.rename(names)
    own = {c: f"obs_{c}" for c in report.coords if not str(c).startswith("obs")}
    found: xr.Dataset = report.rename(own).drop_attrs(deep=False)
    return found

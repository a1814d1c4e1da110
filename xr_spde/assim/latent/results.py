"""Labels of what a latent analysis computes."""

from __future__ import annotations

from typing import Any

import xarray as xr
from numpy.typing import DTypeLike

from xr_spde._core.provenance import provenance
from xr_spde.assim.latent.channels import CHANNEL
from xr_spde.assim.latent.labelled import CODE, take_apart
from xr_spde.assim.latent.running import Problem
from xr_spde.labels.window_map import joined

__all__ = ["labelled"]

_FIELDS = {
    "mean": "analysis of {}",
    "std": "standard deviation of the analysis of {}",
    "increment": "analysis less forecast of {}",
}
_NUMBERS = {
    "observations_used": "number of observations that were used",
    "innovation_mean": "mean innovation, in standard deviations of the training",
    "innovation_rms": "root mean square innovation, in standard deviations of the training",
    "innovation_expected_rms": "expected root mean square innovation, in the same unit",
    "chi_square": "innovations in units of their expected covariance, squared and summed",
}


def labelled(problem: Problem, found: Any, lazy: bool) -> xr.Dataset:
    """Give arrays their labels.

    Parameters
    ----------
    problem : Problem
        What was computed.
    found : dict of str to ndarray, or task
        What it returned.
    lazy : bool
        Whether it is a task.

    Returns
    -------
    Dataset
        As :func:`xr_spde.assim.latent.apply.assimilate_latent`.
    """
    model, settings, (dim, size) = problem.model, problem.settings, problem.members
    count, name, grid = problem.times.size, str(problem.times.dims[0]), problem.model.layout.grid
    coords: dict[Any, Any] = {name: (name, problem.times.values)}
    space = {k: v for k, v in model.axes.items() if k in (grid.y_dim, grid.x_dim)}
    shape: tuple[int, ...] = (count, len(model.layout.channels), *grid.shape)
    several, parts = model.layout.dataset, {}
    for key, words in _FIELDS.items():
        values = _array(found[key], shape, problem.dtype, lazy)
        whole = xr.DataArray(values, {**coords, **space}, (name, CHANNEL, grid.y_dim, grid.x_dim))
        apart: Any = take_apart(whole, model.layout, model.attrs)
        for variable, one in apart.data_vars.items() if several else [("", apart)]:
            told = {"long_name": words.format(one.attrs.get("long_name", variable or "the field"))}
            own = one.assign_attrs(told).rename(None)
            if key != "mean":
                own.attrs.pop("standard_name", None)
            parts[f"{variable}_{key}" if several else key] = own
    exact = problem.method == "kalman"
    dims = (name, CODE) if exact else (name, dim or "realization", CODE)
    shape = (count, model.map.n) if exact else (count, size, model.map.n)
    parts["codes"] = xr.DataArray(_array(found["codes"], shape, problem.dtype, lazy), coords, dims)
    parts["codes"].attrs = {"long_name": "latent code", "units": "1"}
    for key, words in _NUMBERS.items():
        values = _array(found[key], (count,), "float64", lazy)
        parts[key] = xr.DataArray(values, coords, name, attrs={"long_name": words, "units": "1"})
    settled = provenance(
        f"latent {problem.method}", model=model.map.name, dynamics=model.propagator.name,
        members=None if exact else size, localization=settings.localization,
        model_noise=settings.noise, seed=settings.entropy,
    )  # fmt: skip
    return xr.Dataset(parts).assign_attrs(Conventions="CF-1.11", **settled)


def _array(found: Any, shape: tuple[int, ...], dtype: DTypeLike, lazy: bool) -> Any:
    return joined([found], [shape], 0, dtype, lazy)

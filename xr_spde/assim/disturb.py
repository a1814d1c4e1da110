"""Model noise on labelled ensembles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import Seed
from xr_spde.assim.arrays import refuse_broken
from xr_spde.assim.ensembles import Ensemble
from xr_spde.assim.model_noise import add_noise
from xr_spde.labels.lazy import is_lazy

__all__ = ["disturb"]


def disturb(
    ensemble: Ensemble,
    variance: float | xr.DataArray | Mapping[str, Any],
    *,
    how: str,
    seed: Seed,
) -> Ensemble:
    """Add noise of given variance to all values of an ensemble in memory.

    Parameters
    ----------
    ensemble : Ensemble
        The forecast.
    variance : float, DataArray or mapping of str to these
        In squared units of the variables, > 0; by variable where there are several.
    how : {"deterministic", "sampled"}
        As in :func:`xr_spde.assim.model_noise.add_noise`.
    seed : int, SeedSequence or Generator
        Of sampled noise.

    Returns
    -------
    Ensemble

    Raises
    ------
    ParameterError
        A lazy ensemble, or variances that do not fit or are not positive.
    """
    names = list(ensemble.variables)
    given = variance if isinstance(variance, Mapping) else dict.fromkeys(names, variance)
    lacking = [name for name in names if name not in given]
    if lacking or (len(names) > 1 and not isinstance(variance, Mapping)):
        raise ParameterError(
            f"model_noise= has no variance for {', '.join(map(repr, lacking or names))}; type for "
            f"instance model_noise={{{names[0]!r}: 0.01, ...}}"
        )
    columns, variances, kept = [], [], []
    for name, da in ensemble.variables.items():
        if is_lazy(da):
            raise ParameterError(
                "model_noise= changes the whole state at once, and the ensemble is a dask array; "
                "call .compute() on it first, or add the noise in your forecast"
            )
        own = given[name]
        if not isinstance(own, xr.DataArray | int | float | np.number):
            raise ParameterError(
                f"model_noise={own!r} was given; expected variances, as a number or a DataArray"
            )
        wide = own if isinstance(own, xr.DataArray) else xr.DataArray(float(own))
        foreign = [str(d) for d in wide.dims if d not in da.dims[1:]]
        if foreign:
            raise ParameterError(f"model_noise= has the dimension {foreign[0]!r}, not in {name!r}")
        first = da.isel({ensemble.dim: 0}, drop=True)
        flat = da.values.reshape(ensemble.size, -1)
        refuse_broken(f"the ensemble of {name!r}", flat, what="grid point")
        sea = np.isfinite(flat[0])
        columns.append(flat[:, sea])
        variances.append(wide.broadcast_like(first).transpose(*first.dims).values.ravel()[sea])
        kept.append(sea)
    state = np.concatenate(columns, axis=1)
    noisy = add_noise(state, np.concatenate(variances), how=how, seed=seed)
    pieces = np.split(noisy, np.cumsum([c.shape[1] for c in columns])[:-1], axis=1)
    changed = {}
    for (name, da), sea, piece in zip(ensemble.variables.items(), kept, pieces, strict=True):
        values = da.values.reshape(ensemble.size, -1).copy()
        values[:, sea] = piece
        changed[name] = da.copy(data=values.reshape(da.shape))
    return ensemble.with_members(changed)

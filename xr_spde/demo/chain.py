"""Estimate, emulate to Zarr and score on the embedded ensemble, with a clock beside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

import xr_spde
from xr_spde.metrics import correlation_score
from xr_spde.sar import correlation

__all__ = ["Chain", "Clock", "run_chain"]


@dataclass
class Clock:
    """Wall-clock seconds of named steps.

    Attributes
    ----------
    seconds : dict
        Step to seconds, in the order in which they ended.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time the body under a name."""
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Chain:
    """What one run of the chain made.

    Attributes
    ----------
    fields : DataArray, shape (number, latitude, longitude)
        Real members.
    params : Dataset
        Estimated parameters.
    ensemble : DataArray, shape (realization, latitude, longitude)
        Synthetic members, lazily from the Zarr store.
    scores : dict of str to Dataset
        Correlation score of the ensemble, and of models to compare it with.
    bound : float
        Least distance that a model without negative correlations could score.
    clock : Clock
        Seconds per step.
    store : Path
        The Zarr store.
    """

    fields: xr.DataArray
    params: xr.Dataset
    ensemble: xr.DataArray
    scores: dict[str, xr.Dataset]
    bound: float
    clock: Clock
    store: Path


def run_chain(out: Path, *, members: int, seed: int = 1) -> Chain:
    """Run the chain on the embedded ensemble.

    Parameters
    ----------
    out : Path
        Folder, made if absent; the members go to ``ensemble.zarr`` in it.
    members : int
        Number of synthetic members.
    seed : int
        Of the members.

    Returns
    -------
    Chain
    """
    from dask.diagnostics import ProgressBar

    clock, store = Clock(), out / "ensemble.zarr"
    fields = xr_spde.open_dataset("ecmwf_ensemble", chunks={}).z
    with clock("estimate the parameters"):
        params = fields.sar.estimate(dim="number").compute()
    with clock(f"emulate {members} members and write them to Zarr"), ProgressBar():
        lazy = params.sar.emulate(members, seed=seed).rename("z")
        lazy.to_zarr(store, mode="w", consolidated=False)
    ensemble = xr.open_dataset(store, engine="zarr", chunks={}, consolidated=False).z
    with clock("score the correlations"):
        scores = {
            "synthetic members": correlation_score(fields, ensemble, dim="number").compute(),
            "the model, exactly": correlation_score(fields, params, dim="number").compute(),
            "stationary and isotropic": correlation_score(
                fields, stationary(params), dim="number"
            ).compute(),
        }
    with clock("estimate from half the members and score on the others"):
        scores |= held_out(fields)
    bound = negative_part(fields, scores["synthetic members"])
    return Chain(fields, params, ensemble, scores, bound, clock, store)


def held_out(fields: xr.DataArray) -> dict[str, xr.Dataset]:
    """Score what half the members say about the other half.

    Parameters
    ----------
    fields : DataArray
        Members on (number, latitude, longitude).

    Returns
    -------
    dict of str to Dataset
        Scores of the model estimated from the even members against the odd ones, and of the
        correlations of the even members themselves.
    """
    even, odd = fields.isel(number=slice(0, None, 2)), fields.isel(number=slice(1, None, 2))
    params = even.sar.estimate(dim="number").compute()
    found = {
        "held out: the model of half the members": params,
        "held out: half the members as they are": even,
    }
    return {
        label: correlation_score(odd, guess, dim="number").compute()
        for label, guess in found.items()
    }


def negative_part(fields: xr.DataArray, score: xr.Dataset) -> float:
    """Distance from correlation maps of members to the same maps with 0 for what is negative.

    Parameters
    ----------
    fields : DataArray
        Members on (number, latitude, longitude).
    score : Dataset
        Whose points are taken.

    Returns
    -------
    float
        Area-weighted root mean square over cells and points.
    """
    points = zip(score.point_latitude.values, score.point_longitude.values, strict=True)
    negative = correlation(fields, list(points), dim="number").clip(max=0.0)
    area = np.cos(np.deg2rad(fields.latitude))
    return float((negative**2).mean("point").weighted(area).mean()) ** 0.5


def stationary(params: xr.Dataset) -> xr.Dataset:
    """Parameters of the isotropic stationary model of the same typical range.

    Parameters
    ----------
    params : Dataset
        Parameters without leading dimensions.

    Returns
    -------
    Dataset
        ``kappa2`` its geometric mean, ``rho`` 1 and ``theta`` 0 everywhere.
    """
    level = np.exp(np.log(params.kappa2).mean())
    return params[["kappa2", "rho", "theta"]].assign(
        kappa2=xr.full_like(params.kappa2, float(level)).where(params.kappa2.notnull()),
        rho=xr.ones_like(params.rho).where(params.rho.notnull()),
        theta=xr.zeros_like(params.theta).where(params.theta.notnull()),
    )

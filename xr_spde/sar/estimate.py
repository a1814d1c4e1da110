"""Parameter maps from replicates of a field: axes, the walk through the data, the fit."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from xr_spde._core.options import carry_options
from xr_spde.labels.arrays import array_of, as_float
from xr_spde.labels.axes import find_replicates, find_spatial
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, fold_replicates
from xr_spde.labels.schema import parameters_dataset
from xr_spde.models import check_buffer
from xr_spde.sar.covariates import COVARIATE, read_covariates
from xr_spde.sar.fit import advance, begin, conclude, wanted_spacings
from xr_spde.sar.settings import (
    DILATIONS,
    METHODS,
    Settings,
    check_dilation,
    check_domain,
    check_likelihood,
    check_method,
    check_modes,
    check_penalty,
    check_raw,
    check_refine,
    check_size,
    check_structure,
    check_uncertainty,
    fitting,
    place_of_sums,
)

__all__ = ["DILATIONS", "METHODS", "estimate"]


def estimate(
    obj: xr.DataArray | xr.Dataset,
    dim: str | None = None,
    *,
    method: str = "auto",
    uncertainty: bool = False,
    modes: int | Literal["auto"] = "auto",
    dilation: int | Literal["auto"] = "auto",
    penalty: float | None = None,
    weights: str | os.PathLike[str] | None = None,
    refine: int = 0,
    structure: str = "nonstationary",
    nugget: bool = False,
    covariates: xr.Dataset | None = None,
    likelihood: str = "auto",
    boundary: str | None = None,
    buffer: int | Literal["auto"] = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Estimate range, anisotropy and direction at every cell from replicates of a field.

    By default the penalised local Whittle likelihood of the nine-point spatial autoregressive model
    ``B y = e`` (model: LatticeVision, arXiv 2505.09803; likelihood: Whittle 1954), see
    `xr_spde.sar.whittle`. The data are read once, replicate by replicate, and enter through their
    lag products alone: memory does not grow with the number of replicates, and chunks do not
    matter at all. Their order tells only which of them are held out to choose patterns (every
    fourth in turn).

    Parameters
    ----------
    obj : DataArray or Dataset
        Replicates (realization, ..., Y, X) on a regular grid, dimensions in any order. Other
        dimensions are mapped over; several variables of a Dataset become a ``variable`` dimension.
        NaN is missing: pairs of cells with a missing end are left out, and a cell that is never
        seen (land) stays NaN. Give anomalies or raw fields, never pixelwise standardised ones:
        the noise of a sample deviation would be read as structure.
    dim : str, optional
        Dimension of the replicates; found by itself where it is clear.
    method : {"auto", "whittle", "mle", "net", "unet", "vit", "stun", "cnn"}, default "auto"
        Estimator. "whittle" is the local likelihood. "mle" climbs from there to the maximum of the
        exact one (`xr_spde.sar.mle`): gaps and what lies beyond the edge are integrated out,
        maps may jump; no patterns, no spacing, all replicates in memory at once, and one more
        factorisation for every set of cells that lack data together. "net" is the default network
        on lag statistics, whose weights come with the package (needs torch): any grid, any number
        of replicates, gaps, in a second or so. "unet", "vit", "stun" and "cnn" are LatticeVision's
        networks on standardised replicates; they need ``weights`` trained for that number of
        replicates. "auto" is "net" for fewer than 8 replicates without ``penalty`` where torch
        is installed, else "whittle"; the attribute ``xr_spde_method`` tells.
    uncertainty : bool, default False
        Add ``kappa2_stderr``, ``rho_stderr``, ``theta_stderr``: from the curvature of the penalised
        likelihood, or as the default network predicts them.
    modes : int or "auto", default "auto"
        Number of large-scale patterns that are taken out first and described apart
        (`xr_spde.sar.patterns`): waves and teleconnections that a local model cannot hold. "auto"
        takes as many as foretell correlations of held-out replicates (0 to 12; 0 for fewer than 8
        replicates), 0 is the pure SAR model. With patterns, kappa2, rho and theta describe what
        the patterns leave.
    dilation : {"auto", 1, 2, 4, 8}, default "auto"
        Distance of the stencil's neighbours, in cells. 1 is the likelihood of the model. Fields
        much smoother or rougher at the grid's own scale than the model fit better at a
        larger one; "auto" takes the smallest that gives the block correlations as well as any.
    penalty : float, optional
        Fixed weight of the maps' roughness (squared Laplacian on the nodes); by default chosen from
        the data. Needed for a single replicate, which is taken as an anomaly: its mean is 0 and
        its std the root mean square over the grid. For the likelihoods: a network needs none.
    weights : path-like, optional
        safetensors file of a network, as `xr_spde.sar.training` writes it.
    refine : int, default 0
        Steps of the likelihood that follow a network (4 replicates or more). They start from
        its maps, the roughness of what they add is penalised, and they are taken as far as one
        half of the replicates makes the other more likely, if block correlations do not suffer:
        not at all where the network knows better (`xr_spde.sar.refine`).
    structure : {"nonstationary", "isotropic", "stationary", "stationary isotropic"}
        For "mle": "stationary" keeps kappa2, rho and theta constant, "isotropic" rho at 1. The
        variance varies from cell to cell in any case. `compare_structures` tests them.
    nugget : bool, default False
        For "mle": whether the observations have independent noise of one common variance, which is
        then estimated along and taken off ``std``: `emulate` draws the field without it.
    covariates : Dataset of maps (Y, X), optional
        For "mle": the mean is an intercept plus these maps times coefficients that are common to
        all cells and replicates (generalised least squares), instead of free in every cell. They
        are read at once.
    likelihood : {"auto", "exact", "windows"}, default "auto"
        For "mle": "exact" is that of the grid at once. "windows" takes it from overlapping windows
        (`xr_spde.fields.exact_windows`), for grids of any size; what they leave out is bounded by
        ``log_likelihood_error``, and is mostly far below one unit. "auto" is the first where that
        is predicted to fit in memory; the attribute ``xr_spde_likelihood`` tells.
    boundary : {"cylinder", "plane", "torus", "paper"}, optional
        By default "cylinder" where longitudes close the circle, "plane" elsewhere.
    buffer : int or "auto", default "auto"
        Cells between the edge of the grid and the boundary of the model, as in `emulate`.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    Dataset (..., Y, X)
        ``kappa2`` (per squared cell), ``rho``, ``theta`` (radian), ``mean`` and ``std`` (units of
        the field), standard errors if asked for; ``patterns`` (..., mode, Y, X) in units of the
        field, each with a standard normal amplitude, unused ones zero, unless ``modes=0``; and the
        ``dilation`` taken. "mle" adds ``log_likelihood`` (at the fit, without penalty; restricted
        where a mean has been taken out), ``effective_parameters``, and, where asked for, ``nugget``
        (variance) and ``coefficients`` (covariate) with standard errors. Lazy for lazy data. kappa2
        lies between 8 / (4 n)^2, n cells on the longer side, and 20; rho between 1 and 15: beyond,
        the data say nothing.

    Raises
    ------
    AxisNotFoundError
        No horizontal axes or replicates, or ambiguous ones.
    GridError
        Coordinates that are not regular; fewer than 6 rows or columns.
    ParameterError
        One replicate without ``penalty``; bad settings; when computed: infinite values, no data,
        no variation, weights of another network.
    MissingDependencyError
        A network without torch.
    DataUnavailableError
        No such file of weights.
    DTypeError
        Complex, object or date values.
    UnknownNameError
        Unknown method or boundary.
    MemoryGuardError
        The sums and the fit would not fit in memory.

    Examples
    --------
    >>> import xr_spde
    >>> from xr_spde.synthetic import constant_parameters
    >>> truth = constant_parameters((24, 24), kappa2=0.5, rho=3.0, theta=0.5)
    >>> fields = xr_spde.sar.emulate(truth, 40, seed=1)
    >>> params = xr_spde.sar.estimate(fields)
    >>> round(float(params.theta.mean()), 1)
    0.5
    """
    check_method(method, weights, refine)
    model = check_structure(structure, nugget, covariates, method)
    way = check_likelihood(likelihood, method)
    uncertainty = check_uncertainty(uncertainty)
    fields = as_float(array_of(obj, x=x, y=y))
    spatial = find_spatial(fields, x=x, y=y)
    replicates = find_replicates(fields, dim, spatial=spatial)
    grid = Grid.from_object(fields, x=x, y=y)
    check_size(grid)
    count = fields.sizes[replicates]
    chosen, file, steps = check_method(method, weights, refine, count=count, penalty=penalty)
    patterns, spacing = check_raw(chosen, modes, dilation, uncertainty)
    check_refine(steps, count, replicates)
    names, design = read_covariates(covariates, grid, x=x, y=y)
    settings = Settings(
        grid=grid,
        boundary=check_domain(grid.boundary if boundary is None else boundary, chosen),
        buffer=check_buffer(buffer),
        modes=check_modes(patterns, count),
        fixed_modes=patterns != "auto",
        dilations=check_dilation(spacing, grid),
        penalty=check_penalty(penalty, count, replicates, method=chosen),
        uncertainty=uncertainty,
        single=count == 1,
        method=chosen,
        weights=file,
        refine=steps,
        structure=model,
        nugget=bool(nugget),
        covariates=names,
        design=design,
        replicates=count,
    )
    settings = fitting(settings, way)
    count_of_sums = len(wanted_spacings(settings)) + 2 * bool(steps) * len(settings.dilations)
    settings = replace(settings, device=place_of_sums(settings, count_of_sums))
    results = fold_replicates(
        fields,
        replicates,
        spatial,
        init=partial(begin, settings),
        step=partial(advance, settings=settings),
        finish=carry_options(partial(conclude, settings=settings)),
        output=_outputs(settings, spatial, fields.dtype),
    )
    for name in ("coefficients", "coefficients_stderr"):
        if name in results:
            results[name] = results[name].assign_coords({COVARIATE: np.array(names, dtype=object)})
    asked = {"dim": replicates, "modes": modes, "dilation": dilation, "buffer": buffer}
    return parameters_dataset(
        results,
        method=chosen,
        boundary=settings.boundary,
        source=fields,
        settings={"replicates": count, **asked, "penalty": penalty, **_special(settings)},
    )


def _special(settings: Settings) -> dict[str, Any]:
    """Return the settings of one method that are recorded."""
    if settings.method == "whittle":
        return {}
    if settings.method == "mle":
        likelihood = "windows" if settings.windows else "exact"
        return {"structure": settings.structure, "likelihood": likelihood}
    return {"weights": settings.weights or "xr_spde", "refine": settings.refine}


def _outputs(
    settings: Settings, spatial: tuple[str, str], dtype: np.dtype[Any]
) -> dict[str, Output]:
    names = ["kappa2", "rho", "theta", "mean", "std"]
    if settings.uncertainty:
        names += ["kappa2_stderr", "rho_stderr", "theta_stderr"]
    outputs = {name: Output(spatial, dtype) for name in names}
    if settings.modes:
        outputs["patterns"] = Output(("mode", *spatial), dtype, {"mode": settings.modes})
    outputs["dilation"] = Output((), np.int64)
    if settings.method == "mle":
        outputs |= {name: Output(()) for name in ("log_likelihood", "effective_parameters")}
    if settings.windows:
        outputs["log_likelihood_error"] = Output(())
    if settings.nugget:
        outputs["nugget"] = Output(())
    if settings.covariates:
        spec = Output((COVARIATE,), sizes={COVARIATE: len(settings.covariates)})
        outputs |= {"coefficients": spec, "coefficients_stderr": spec}
    return outputs

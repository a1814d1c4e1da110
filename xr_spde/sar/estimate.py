"""Parameter maps from replicates of a field: axes, the walk through the data, the fit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.options import carry_options
from xr_spde.fields.sar import from_log_tensor
from xr_spde.fields.stencil import check_boundary
from xr_spde.labels.arrays import array_of, as_float
from xr_spde.labels.axes import find_replicates, find_spatial
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, fold_replicates
from xr_spde.labels.schema import parameters_dataset
from xr_spde.sar.model import check_buffer
from xr_spde.sar.patterns import BlockSums, choose_patterns, make_positive, pattern_maps
from xr_spde.sar.scale import best_scale, pool_gaps, remove_patterns
from xr_spde.sar.settings import (
    DILATIONS,
    METHODS,
    Settings,
    check_dilation,
    check_method,
    check_modes,
    check_penalty,
    check_room,
    check_size,
)
from xr_spde.sar.statistics import LagSums, shifted, stencil_gram
from xr_spde.sar.whittle import LocalFit, LocalModel
from xr_spde.solvers.threads import single_blas_thread

__all__ = ["DILATIONS", "METHODS", "estimate"]

Array = NDArray[np.float64]


@dataclass
class _Walk:
    """Sums over the replicates seen so far."""

    lags: list[LagSums] = field(default_factory=list)
    blocks: BlockSums | None = None


def _begin(settings: Settings) -> _Walk:
    shape = settings.grid.shape
    lags = [LagSums(shape, periodic=settings.periodic, dilation=d) for d in settings.dilations]
    needed = settings.modes > 0 or len(settings.dilations) > 1
    return _Walk(lags, BlockSums(shape) if needed else None)


def _advance(walk: _Walk, member: Array, *, settings: Settings) -> _Walk:
    replicate = settings.grid.to_canonical(member[0])
    for sums in walk.lags:
        sums.add(replicate)
    if walk.blocks is not None:
        walk.blocks.add(replicate)
    return walk


def _conclude(walk: _Walk, *, settings: Settings) -> dict[str, Array]:
    """Fit on one thread: many small systems gain nothing from more, and bits stay the same."""
    with single_blas_thread():
        return _fit(walk, settings)


def _fit(walk: _Walk, settings: Settings) -> dict[str, Array]:
    """Fit the maps to the sums; canonical inside, stored order outside."""
    statistics = [sums.finish(centred=not settings.single) for sums in walk.lags]
    moments = statistics[0]
    usable = _usable_cells(moments.variance, moments.mean, single=settings.single)
    patterns = _find_patterns(walk.blocks, moments.variance, settings)
    scales = []
    for lags in statistics:
        gram, count = stencil_gram(lags, periodic=settings.periodic)
        freedom = count if settings.single else count - 1.0
        clear = _whole_neighbourhood(usable, lags.dilation, periodic=settings.periodic)
        weight = np.where(clear, np.maximum(freedom - len(patterns), 0.0), 0.0)
        repair = bool(moments.seen[usable].min() < moments.replicates)
        if repair:
            gram = pool_gaps(gram, weight, periodic=settings.periodic)
        gram = remove_patterns(gram, patterns, lags.dilation, periodic=settings.periodic)
        if repair or len(patterns):
            gram = make_positive(gram)
        scales.append((lags.dilation, gram, weight))
    if not (scales[0][2] > 0).any():
        raise ParameterError(
            f"no cell of the {settings.grid.ny} x {settings.grid.nx} grid has data together with "
            "all its eight neighbours in two replicates or more; expected an area of at least "
            "3 x 3 cells with values: fill gaps, or take more replicates"
        )
    model = LocalModel(settings.boundary, settings.buffer, penalty=settings.penalty)
    dilation, fit = best_scale(
        scales, model, walk.blocks, patterns, moments.variance, uncertainty=settings.uncertainty
    )
    land = ~np.isfinite(moments.variance)
    maps = _parameters(fit)
    maps |= {"mean": moments.mean, "std": np.sqrt(np.maximum(moments.variance, 0.0))}
    if settings.single:
        maps["mean"] = np.zeros(settings.grid.shape)
        maps["std"] = np.full(settings.grid.shape, np.sqrt(np.nanmean(moments.variance)))
    out = {}
    for name, values in maps.items():
        values = np.array(values)
        values[land] = np.nan
        out[name] = settings.grid.from_canonical(values)
    if settings.modes:
        padded = np.zeros((settings.modes, *settings.grid.shape))
        padded[: len(patterns)] = patterns
        padded[:, land] = np.nan
        out["patterns"] = settings.grid.from_canonical(padded)
    out["dilation"] = np.array(dilation)
    return out


def _usable_cells(variance: Array, mean: Array, *, single: bool) -> NDArray[np.bool_]:
    """Cells that vary; an error if there are none, a warning if some are constant."""
    known = np.isfinite(variance)
    if not known.any():
        number = "the one replicate" if single else "two replicates or more"
        raise ParameterError(
            f"no cell has values in {number} (all NaN?); expected fields with data"
        )
    if single:
        # an anomaly near zero is no sign of a constant cell
        if np.ptp(mean[known]) == 0:
            raise ParameterError(
                "the one replicate has the same value in every cell; expected an anomaly that "
                "varies over the grid"
            )
        return np.asarray(known)
    # ice-covered sea and the like: equal values but for rounding, of the data or of a trend removed
    rounding = (1e-12 * np.abs(np.where(known, mean, 0.0))) ** 2
    varies = known & (variance > np.maximum(rounding, 1e-8 * np.median(variance[known])))
    if not varies.any():
        raise ParameterError(
            "every cell has the same value in all replicates; expected replicates that differ: "
            "is the replicate dimension the right one? Pass dim="
        )
    constant = int((known & ~varies).sum())
    if constant:
        warnings.warn(
            f"{constant} of {int(known.sum())} cells never vary over the replicates (std is 0); "
            "they are left out of the fit, get the parameters of their surroundings and keep "
            "their value in emulated members",
            UserWarning,
            stacklevel=2,
        )
    return np.asarray(varies)


def _whole_neighbourhood(
    usable: NDArray[np.bool_], dilation: int, *, periodic: bool
) -> NDArray[np.bool_]:
    """Cells whose eight neighbours all vary."""
    values = usable.astype(np.float64)
    clear = usable.copy()
    for rows in (-dilation, 0, dilation):
        for columns in (-dilation, 0, dilation):
            clear &= shifted(values, (rows, columns), periodic=periodic) > 0
    return clear


def _find_patterns(blocks: BlockSums | None, variance: Array, settings: Settings) -> Array:
    """Large-scale patterns (number, ny, nx), as many as the data bear out."""
    none = np.zeros((0, *settings.grid.shape))
    if blocks is None or settings.modes == 0:
        return none
    number = settings.modes
    if not settings.fixed_modes:
        number = choose_patterns(blocks, settings.boundary, most=settings.modes)
    data = blocks.covariance()
    if number == 0 or not data.valid.any():
        return none
    components = data.components(number)
    return pattern_maps(blocks, components, data, variance, periodic=settings.periodic)


def _parameters(fit: LocalFit) -> dict[str, Array]:
    """Public parameters, with standard errors by the delta method."""
    rho, theta = from_log_tensor(fit.h1, fit.h2)
    maps: dict[str, Array] = {"kappa2": np.exp(fit.log_kappa2), "rho": rho, "theta": theta}
    if fit.covariance is not None:
        cosine, sine = np.cos(2.0 * theta), np.sin(2.0 * theta)
        c11, c22, c12 = (fit.covariance[i, j] for i, j in ((1, 1), (2, 2), (1, 2)))
        along = cosine**2 * c11 + sine**2 * c22 + 2.0 * sine * cosine * c12
        across = sine**2 * c11 + cosine**2 * c22 - 2.0 * sine * cosine * c12
        # an angle that is not known at all is uniform on half a circle
        angle = 0.5 * np.sqrt(across) / np.maximum(np.log(rho), 1e-6)
        maps["kappa2_stderr"] = maps["kappa2"] * np.sqrt(fit.covariance[0, 0])
        maps["rho_stderr"] = rho * np.sqrt(along)
        maps["theta_stderr"] = np.minimum(angle, np.pi / np.sqrt(12.0))
    return maps


def estimate(
    obj: xr.DataArray | xr.Dataset,
    dim: str | None = None,
    *,
    method: str = "auto",
    uncertainty: bool = False,
    modes: int | Literal["auto"] = "auto",
    dilation: int | Literal["auto"] = "auto",
    penalty: float | None = None,
    boundary: str | None = None,
    buffer: int | Literal["auto"] = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Estimate range, anisotropy and direction at every cell from replicates of a field.

    Penalised local Whittle likelihood of the nine-point spatial autoregressive model
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
    method : {"auto", "whittle"}, default "auto"
        Estimator.
    uncertainty : bool, default False
        Add ``kappa2_stderr``, ``rho_stderr``, ``theta_stderr`` from the curvature of the penalised
        likelihood.
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
        its std the root mean square over the grid.
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
        ``dilation`` taken. Lazy for lazy data. kappa2 lies between 8 / (4 n)^2, n cells on the
        longer side, and 20; rho between 1 and 15: beyond, the data say nothing.

    Raises
    ------
    AxisNotFoundError
        No horizontal axes or replicates, or ambiguous ones.
    GridError
        Coordinates that are not regular; fewer than 6 rows or columns.
    ParameterError
        One replicate without ``penalty``; bad settings; when computed: infinite values, no data,
        no variation.
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
    check_method(method)
    fields = as_float(array_of(obj, x=x, y=y))
    spatial = find_spatial(fields, x=x, y=y)
    replicates = find_replicates(fields, dim, spatial=spatial)
    grid = Grid.from_object(fields, x=x, y=y)
    check_size(grid)
    count = fields.sizes[replicates]
    settings = Settings(
        grid=grid,
        boundary=check_boundary(grid.boundary if boundary is None else boundary),
        buffer=check_buffer(buffer),
        modes=check_modes(modes, count),
        fixed_modes=modes != "auto",
        dilations=check_dilation(dilation, grid),
        penalty=check_penalty(penalty, count, replicates),
        uncertainty=uncertainty,
        single=count == 1,
    )
    check_room(grid, settings.dilations)
    results = fold_replicates(
        fields,
        replicates,
        spatial,
        init=partial(_begin, settings),
        step=partial(_advance, settings=settings),
        finish=carry_options(partial(_conclude, settings=settings)),
        output=_outputs(settings, spatial, fields.dtype),
    )
    recorded: dict[str, Any] = {
        "replicates": count,
        "dim": replicates,
        "modes": modes,
        "dilation": dilation,
        "buffer": buffer,
        "penalty": penalty,
    }
    return parameters_dataset(
        results, method="whittle", boundary=settings.boundary, source=fields, settings=recorded
    )


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
    return outputs

"""From sums over replicates to maps: patterns, the estimator at each spacing, the choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.warn import warn
from xr_spde.fields.sar import from_log_tensor
from xr_spde.sar.covariates import least_squares
from xr_spde.sar.local import ExactFit, LocalFit, LocalModel
from xr_spde.sar.mle import ExactProblem
from xr_spde.sar.network import SPACINGS, NetworkModel, NetworkProblem, ReplicateProblem
from xr_spde.sar.patterns import BlockSums, choose_patterns, make_positive, pattern_maps
from xr_spde.sar.refine import refined
from xr_spde.sar.scale import (
    GAIN,
    Problem,
    Scale,
    best_scale,
    block_error,
    local_problems,
    pool_gaps,
    remove_patterns,
)
from xr_spde.sar.settings import Settings
from xr_spde.sar.statistics import LagSums, shifted, stencil_gram
from xr_spde.solvers.threads import single_blas_thread

Array = NDArray[np.float64]


@dataclass
class Walk:
    """Sums over the replicates seen so far, and they themselves where a network wants them.

    Attributes
    ----------
    lags : list of LagSums
        One for each spacing.
    blocks : BlockSums or None
        Block means, where patterns or a spacing are to be chosen.
    members : list of ndarray (ny, nx)
        Replicates, for estimators that take them as they are.
    halves : tuple of list of LagSums
        Sums over every other replicate, and over the rest, where one half is to judge what the
        other says.
    """

    lags: list[LagSums] = field(default_factory=list)
    blocks: BlockSums | None = None
    members: list[Array] = field(default_factory=list)
    halves: tuple[list[LagSums], list[LagSums]] = field(default_factory=lambda: ([], []))


def begin(settings: Settings) -> Walk:
    """Start the walk through the replicates.

    Parameters
    ----------
    settings : Settings
        What is asked for.

    Returns
    -------
    Walk
    """
    several = settings.modes > 0 or len(settings.dilations) > 1
    blocks = BlockSums(settings.grid.shape) if several else None
    walk = Walk(_lags(settings, sorted(wanted_spacings(settings))), blocks)
    if settings.refine:
        walk.halves = (_lags(settings, settings.dilations), _lags(settings, settings.dilations))
    return walk


def _lags(settings: Settings, spacings: Iterable[int]) -> list[LagSums]:
    shape, periodic, device = settings.grid.shape, settings.periodic, settings.device
    return [LagSums(shape, periodic=periodic, dilation=d, device=device) for d in spacings]


def wanted_spacings(settings: Settings) -> set[int]:
    """Return the spacings of all lag products that are needed."""
    spacings = set(settings.dilations)
    if settings.method != "net":
        return spacings
    # further apart than the grid is wide there is no pair
    wanted = {d * spacing for d in spacings for spacing in SPACINGS}
    return spacings | {d for d in wanted if d < max(settings.grid.shape)}


def advance(walk: Walk, member: Array, *, settings: Settings) -> Walk:
    """Add one replicate, in place.

    Parameters
    ----------
    walk : Walk
        So far.
    member : ndarray (1, ny, nx)
        Replicate in stored order.
    settings : Settings
        What is asked for.

    Returns
    -------
    Walk
    """
    replicate = settings.grid.to_canonical(member[0])
    if np.isnan(replicate).all():
        return walk  # absent, not a replicate that is all gaps
    half, moved = walk.halves[walk.lags[0].count % 2], walk.lags[0].moved(replicate)
    for sums in (*walk.lags, *half):
        sums.add(moved)
    if walk.blocks is not None:
        walk.blocks.add(replicate)
    if settings.keeps_members:
        exact = settings.method == "mle"
        walk.members.append(np.array(replicate, dtype=np.float64 if exact else np.float32))
    return walk


def conclude(walk: Walk, *, settings: Settings) -> dict[str, Array]:
    """Fit the maps, on one thread: small systems gain nothing from more, and bits stay the same.

    Parameters
    ----------
    walk : Walk
        All replicates.
    settings : Settings
        What is asked for.

    Returns
    -------
    dict of str to ndarray
        Variables of the result in stored order.
    """
    with single_blas_thread():
        return _fit(walk, settings)


def _fit(walk: Walk, settings: Settings) -> dict[str, Array]:
    """Fit the maps to the sums; canonical inside, stored order outside."""
    if settings.design is not None:
        walk = _less_regression(walk, settings.design, settings)
    moments = walk.lags[0].finish(centred=not settings.anomalies)
    usable = _usable_cells(moments.variance, moments.mean, single=settings.single)
    patterns = _find_patterns(walk.blocks, moments.variance, settings)
    problems = _problems(walk, usable, patterns, settings)
    uncertainty = settings.uncertainty
    dilation, fit = best_scale(
        problems,
        settings.boundary,
        walk.blocks,
        patterns,
        moments.variance,
        uncertainty=uncertainty,
    )
    if settings.refine:
        fit = _refine(walk, fit, dilation, usable, patterns, moments.variance, settings)
    land = ~np.isfinite(moments.variance)
    maps = _parameters(fit)
    variance = moments.variance
    if settings.single:
        variance = np.full(settings.grid.shape, np.nanmean(variance))
    out = _of_likelihood(fit, settings)
    variance = np.maximum(variance - out.get("nugget", 0.0), 0.0)
    maps |= {"mean": _mean(moments.mean, fit, settings), "std": np.sqrt(variance)}
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


def _less_regression(walk: Walk, design: Array, settings: Settings) -> Walk:
    """Sum again over what a first regression on the covariates leaves."""
    seen = np.isfinite(walk.members).any(axis=0)
    for name, values in zip(settings.covariates, design, strict=True):
        if not np.isfinite(values[seen]).all():
            raise ParameterError(
                f"covariate {name!r} is missing in {int((~np.isfinite(values[seen])).sum())} cells "
                "where the fields have data; fill it there, or mask the fields"
            )
    filled = np.where(np.isfinite(design), design, 0.0)
    fitted = np.tensordot(least_squares(np.stack(walk.members), filled), filled, 1)
    lags = _lags(settings, [one.dilation for one in walk.lags])
    for member in walk.members:
        for sums in lags:
            sums.add(member - fitted)
    return replace(walk, lags=lags)


def _of_likelihood(fit: LocalFit, settings: Settings) -> dict[str, Array]:
    """Numbers that the exact likelihood gives besides maps."""
    if not isinstance(fit, ExactFit):
        return {}
    out = {
        "log_likelihood": np.array(fit.log_likelihood),
        "effective_parameters": np.array(fit.degrees),
    }
    if fit.error is not None:
        out["log_likelihood_error"] = np.array(fit.error)
    if settings.nugget:
        out["nugget"] = np.array(fit.nugget)
    if fit.coefficients is not None and fit.coefficients_stderr is not None:
        out["coefficients"] = fit.coefficients
        out["coefficients_stderr"] = fit.coefficients_stderr
    return out


def _mean(sample: Array, fit: LocalFit, settings: Settings) -> Array:
    """Mean of the fields: the sample's, the regression's, or zero for anomalies."""
    if settings.design is not None and isinstance(fit, ExactFit) and fit.coefficients is not None:
        return np.asarray(np.tensordot(fit.coefficients, settings.design, 1))
    return np.zeros(settings.grid.shape) if settings.single else sample


def _refine(
    walk: Walk,
    fit: LocalFit,
    dilation: int,
    usable: NDArray[np.bool_],
    patterns: Array,
    variance: Array,
    settings: Settings,
) -> LocalFit:
    """Take steps of the likelihood where neither held-out data nor distant blocks object."""
    sources = (walk.lags, *walk.halves)
    sums = [one for lags in sources for one in lags if one.dilation == dilation]
    scales = _scales(sums, usable, patterns, settings)
    likelihoods = local_problems(scales, _model(settings), prior=fit)
    if len(likelihoods) < len(sources):  # too few cells have data in one of the halves
        return fit
    moved = refined(fit, *likelihoods, steps=settings.refine, uncertainty=settings.uncertainty)
    if walk.blocks is not None:
        before, after = (
            block_error(one, walk.blocks, patterns, variance, settings.boundary)
            for one in (fit, moved)
        )
        # the likelihood looks at neighbours; fields that are no SAR fields may lose far ones
        if after > before * (1.0 + GAIN):
            return fit
    return moved


def _model(settings: Settings) -> LocalModel:
    jumps = settings.method == "mle" and settings.penalty is None
    return LocalModel(
        settings.boundary,
        settings.buffer,
        penalty=settings.penalty,
        jumps=jumps,
        structure=settings.structure,
    )


def _problems(
    walk: Walk, usable: NDArray[np.bool_], patterns: Array, settings: Settings
) -> Sequence[Problem]:
    """Set up the estimator that was asked for at each spacing."""
    if settings.method == "mle":
        return [_exact_problem(walk, usable, patterns, settings)]
    if settings.method == "whittle":
        return local_problems(_scales(walk.lags, usable, patterns, settings), _model(settings))
    network = NetworkModel(settings.method, settings.weights, settings.periodic)
    if settings.on_replicates:
        return [ReplicateProblem(np.stack(walk.members), usable, network)]
    statistics = {one.dilation: one.finish(centred=not settings.single) for one in walk.lags}
    return [NetworkProblem(statistics, d, patterns, usable, network) for d in settings.dilations]


def _exact_problem(
    walk: Walk, usable: NDArray[np.bool_], patterns: Array, settings: Settings
) -> ExactProblem:
    """Set up the exact likelihood, with the moments that its start needs."""
    _, gram, weight = next(_scales(walk.lags, usable, patterns, settings))
    design = settings.design if settings.design is None else np.nan_to_num(settings.design)
    return ExactProblem(
        gram,
        weight,
        _model(settings),
        np.where(usable, np.stack(walk.members), np.nan),
        anomalies=settings.single,
        nugget=settings.nugget,
        design=design,
        windows=settings.windows,
    )


def _scales(
    sums: list[LagSums], usable: NDArray[np.bool_], patterns: Array, settings: Settings
) -> Iterator[Scale]:
    """Moments of what the patterns leave, one spacing after the other."""
    periodic = settings.periodic
    for one in sums:
        lags = one.finish(centred=not settings.anomalies)
        gram, count = stencil_gram(lags, periodic=periodic)
        freedom = count if settings.anomalies else count - 1.0
        clear = _whole_neighbourhood(usable, lags.dilation, periodic=periodic)
        weight = np.where(clear, np.maximum(freedom - len(patterns), 0.0), 0.0)
        if one is sums[0] and not weight.any():
            raise ParameterError(
                f"no cell of the {settings.grid.ny} x {settings.grid.nx} grid has data together "
                "with all its eight neighbours in two replicates or more; expected an area of at "
                "least 3 x 3 cells with values: fill gaps, or take more replicates"
            )
        repair = bool(lags.seen[usable].min() < lags.replicates)
        if repair:
            gram = pool_gaps(gram, weight, periodic=periodic)
        gram = remove_patterns(gram, patterns, lags.dilation, periodic=periodic)
        if repair or len(patterns):
            gram = make_positive(gram)
        yield lags.dilation, gram, weight


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
        warn(
            f"{constant} of {int(known.sum())} cells never vary over the replicates (std is 0); "
            "they are left out of the fit, get the parameters of their surroundings and keep "
            "their value in emulated members"
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

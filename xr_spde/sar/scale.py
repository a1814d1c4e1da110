"""The spacing at which a field is read: fits at several, the one that holds at large distance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xr_spde.sar.local import LocalFit, LocalModel
from xr_spde.sar.patterns import BlockSums, combine, local_correlation, shrink
from xr_spde.sar.statistics import shifted, stencil_features
from xr_spde.sar.whittle import LocalProblem

Float = NDArray[np.float64]
Scale = tuple[int, Float, Float]

#: Share by which block correlations may be missed further without being called worse.
GAIN = 0.05

#: Standard deviation of log kappa2 over the prior of LatticeVision's generator.
PRIOR_SPREAD = 1.83


def pool_gaps(gram: Float, weight: Float, *, periodic: bool) -> Float:
    """Average moments over the nine cells around each, weighted by their replicates.

    Moments from pairs with a missing end need not be positive definite, cell by cell; clipping
    their negative part would bias what is left, and the mean over a few cells hardly needs it.

    Parameters
    ----------
    gram : ndarray (4, 4, ny, nx)
        Second moments of the features.
    weight : ndarray (ny, nx)
        Degrees of freedom behind each cell.
    periodic : bool
        Whether columns wrap around.

    Returns
    -------
    ndarray (4, 4, ny, nx)
        Zero where the weight is.
    """
    total, moments = np.zeros_like(weight), np.zeros_like(gram)
    weighted = gram * weight
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            total += shifted(weight, (rows, columns), periodic=periodic)
            moments += shifted(weighted, (rows, columns), periodic=periodic)
    return np.asarray(moments / np.maximum(total, 1e-300) * (weight > 0))


def remove_patterns(gram: Float, patterns: Float, dilation: int, *, periodic: bool) -> Float:
    """Moments of the stencil's features without what the patterns bring to them.

    Parameters
    ----------
    gram : ndarray (4, 4, ny, nx)
        Second moments of the features.
    patterns : ndarray (number, ny, nx)
        Patterns with amplitudes of unit variance.
    dilation : int
        Cells between the neighbours of the stencil.
    periodic : bool
        Whether columns wrap around.

    Returns
    -------
    ndarray (4, 4, ny, nx)
    """
    if not len(patterns):
        return gram
    features = stencil_features(patterns, dilation=dilation, periodic=periodic)
    return np.asarray(gram - np.einsum("aknm,bknm->abnm", features, features))


class Problem(Protocol):
    """An estimator at one spacing."""

    @property
    def dilation(self) -> int:
        """Distance of the stencil's neighbours."""

    def fit(self) -> LocalFit:
        """Fit the maps."""

    def refine(self, *, uncertainty: bool = False) -> LocalFit:
        """Finish the fit that was chosen."""


def local_problems(
    scales: Iterable[Scale], model: LocalModel, *, prior: LocalFit | None = None
) -> list[LocalProblem]:
    """Set up the likelihood at each spacing that has data enough.

    Parameters
    ----------
    scales : iterable of (dilation, gram, weight)
        Moments at each spacing; taken one at a time, so that they need not be held at once.
    model : LocalModel
        Domain and penalty; its dilation is set here.
    prior : LocalFit, optional
        Maps to start from and to stay near.

    Returns
    -------
    list of LocalProblem
    """
    problems: list[LocalProblem] = []
    scarce: list[LocalProblem] = []
    for dilation, gram, weight in scales:
        enough = (weight > 0).sum() >= 16
        if enough or not problems + scarce:
            problem = LocalProblem(gram, weight, replace(model, dilation=dilation), prior=prior)
            (problems if enough else scarce).append(problem)
    return problems or scarce


def best_scale(
    problems: Sequence[Problem],
    boundary: str,
    blocks: BlockSums | None,
    patterns: Float,
    variance: Float,
    *,
    uncertainty: bool,
) -> tuple[int, LocalFit]:
    """Fit at each spacing and keep the smallest that gives block correlations as well as any.

    Spacings at which an estimator says that it knows little of the range (a network whose standard
    errors leave more than half of the prior's variance) stand back behind those at which it knows:
    a range that may be anything fits the noise of few replicates best.

    Parameters
    ----------
    problems : sequence of Problem
        One for each spacing.
    boundary : str
        Boundary of the domain.
    blocks : BlockSums or None
        Block means, needed where there is a choice.
    patterns : ndarray (number, ny, nx)
        Large-scale patterns, in units of the field.
    variance : ndarray (ny, nx)
        Variance of the cells; NaN on land.
    uncertainty : bool
        Whether the fit that is kept needs its covariance.

    Returns
    -------
    dilation : int
    fit : LocalFit
    """
    fits = [problem.fit() for problem in problems]
    errors = [0.0]
    if len(fits) > 1 and blocks is not None:
        errors = [block_error(fit, blocks, patterns, variance, boundary) for fit in fits]
    if max(errors) > 0.0:
        told = [_tells(fit, variance) for fit in fits]
        if any(told):
            errors = [e if t else np.inf for e, t in zip(errors, told, strict=True)]
    bound = min(errors) * (1.0 + GAIN)
    chosen = next(
        problem for problem, error in zip(problems, errors, strict=False) if error <= bound
    )
    return chosen.dilation, chosen.refine(uncertainty=uncertainty)


def _tells(fit: LocalFit, variance: Float) -> bool:
    """Whether data rather than a prior speak: less than half of its variance is left."""
    if fit.covariance is None:
        return True
    left = fit.covariance[0, 0][np.isfinite(variance)]
    return float(np.mean(left)) < 0.5 * PRIOR_SPREAD**2


def block_error(
    fit: LocalFit, blocks: BlockSums, patterns: Float, variance: Float, boundary: str
) -> float:
    """Mean squared difference of model and sample correlations between blocks.

    Parameters
    ----------
    fit : LocalFit
        Maps of the model.
    blocks : BlockSums
        Block means of the replicates.
    patterns : ndarray (number, ny, nx)
        Large-scale patterns, in units of the field.
    variance : ndarray (ny, nx)
        Variance of the cells; NaN on land.
    boundary : str
        Boundary of the domain.

    Returns
    -------
    float
        Zero where fewer than two blocks have data.
    """
    data = blocks.covariance()
    if data.valid.sum() < 2:
        return 0.0
    cells = blocks.pool(np.ones(blocks.shape))
    area = np.log(cells)

    def pooled(values: Float) -> Float:
        return blocks.pool(values) / cells

    coarse = LocalFit(
        (pooled(fit.log_kappa2) + area).reshape(data.blocks),
        pooled(fit.h1).reshape(data.blocks),
        pooled(fit.h2).reshape(data.blocks),
        np.zeros(data.blocks),
        fit.penalty,
    )
    known = np.isfinite(variance).astype(np.float64)
    covered = np.maximum(blocks.pool(known), 1.0)
    deviation = np.sqrt(np.diagonal(data.matrix)[data.valid])
    means = [(blocks.pool(pattern) / covered)[data.valid] / deviation for pattern in patterns]
    components = shrink(np.array(means).reshape(len(patterns), int(data.valid.sum())))
    local = local_correlation(coarse, boundary)[np.ix_(data.valid, data.valid)]
    return float(np.mean((combine(components, local) - data.correlation()) ** 2))

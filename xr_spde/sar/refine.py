"""Steps of the likelihood after a network, as far as held-out replicates bear them out.

A network trained on a prior is close to the mean of its posterior there, and a step towards the
likelihood's own maximum would lead away from it; where data are unlike the prior the step helps.
Which of the two holds is asked of the data: steps taken on every other replicate are scaled by the
factor under which the rest are most likely, and the other way round. The network has seen all of
them, which counts in its favour, and its standard errors hold the maps where it is sure of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xr_spde.sar.local import Local, LocalFit, q_of
from xr_spde.sar.whittle import LocalProblem

#: Parts of the steps that are tried.
_PARTS = np.linspace(0.0, 1.0, 5)


def refined(
    fit: LocalFit,
    whole: LocalProblem,
    first: LocalProblem,
    second: LocalProblem,
    *,
    steps: int,
    uncertainty: bool = False,
) -> LocalFit:
    """Move the maps of a network towards the likelihood, no further than held-out data allow.

    Parameters
    ----------
    fit : LocalFit
        Of the network; also the prior of the problems.
    whole : LocalProblem
        Likelihood of all replicates.
    first, second : LocalProblem
        Likelihoods of every other replicate, and of the rest.
    steps : int
        Largest number of scoring steps.
    uncertainty : bool, optional
        Also give the covariance: that of the network if it has one, since its maps hold the
        result; else that of the likelihood.

    Returns
    -------
    LocalFit
        `fit` itself if no part of the steps makes held-out replicates more likely.
    """
    starts = first.nodes.copy(), second.nodes.copy()
    for half in (first, second):
        half.adjust(steps=steps)
    deviance = np.zeros(_PARTS.size)
    for half, begun, other in zip((first, second), starts, (second, first), strict=True):
        for k, part in enumerate(_PARTS):
            deviance[k] += _deviance(other, _scaled(half, begun + part * (half.nodes - begun)))
    part = float(_PARTS[np.argmin(deviance)])
    if part == 0.0:
        return fit
    begun = whole.nodes.copy()
    moved = whole.adjust(steps=steps, uncertainty=uncertainty and fit.covariance is None)
    whole.nodes = begun + part * (whole.nodes - begun)
    covariance = moved.covariance if fit.covariance is None else fit.covariance
    return replace(whole.result(), covariance=covariance)


def _scaled(half: LocalProblem, nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set the innovations' variance to its mean around each node, by one rule for all parts."""
    q = q_of(half.cells(nodes)[:3])
    forcing = np.einsum("an,abn,bn->n", q, half.gram, q)
    covered, total = (half.basis.T @ (half.weight * x) for x in (np.ones_like(forcing), forcing))
    known = covered > 0
    scaled = nodes.copy()
    scaled[3, known] = np.log(total[known] / covered[known])
    return scaled


def _deviance(problem: LocalProblem, nodes: NDArray[np.float64]) -> float:
    """Negative log-likelihood of the data of a problem under maps that have not seen them."""
    value, _ = Local(problem.cells(nodes), problem.gram).value_and_slope(problem.response)
    return float(problem.weight @ value)

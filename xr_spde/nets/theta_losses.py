r"""Losses of SPDE parameters: the likelihood of complete fields, and how smooth they should be.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855; Fuglstad, Simpson, Lindgren, Rue (2015), Stat.
Sinica 25, for penalties on parameters that vary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xr_spde._core.errors import ParameterError
from xr_spde.nets.spde_stencil import THETA, tensor_of
from xr_spde.nets.spde_terms import SpdePrior

__all__ = ["likelihood_loss", "parameter_penalty"]


def likelihood_loss(
    theta: Tensor,
    anomaly: Tensor,
    sea: Tensor,
    *,
    alpha: int,
    boundary: str | tuple[str, str] = "neumann",
    initial: str = "scaled",
    probes: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Negative log-likelihood of complete fields for each of their values, in float64.

    Parameters
    ----------
    theta : Tensor (B, 8, S, ny, nx)
        Parameters, estimated from observations.
    anomaly : Tensor (B, T, ny, nx)
        The truth about its mean; anything on land. About zero, theta is the prior of optimal
        interpolation and of the simulations that are conditioned; about the solver's mean, of its
        errors.
    sea : Tensor (B, ny, nx) of bool
        False on land.
    alpha : {2, 4}
        Power of the SPDE.
    boundary : str or tuple of str, default "neumann"
        Of the domain.
    initial : {"scaled", "stationary", "given", "rest"}, default "scaled"
        First state; see :data:`xr_spde.nets.spde_terms.INITIALS`. Its variance says most about
        kappa. The stationary one may not exist for tau or flow that vary sharply. "given" takes the
        likelihood of the steps after the first, costs a third, and leaves kappa to the decay from
        step to step alone.
    probes, seed
        As for `xr_spde.nets.spde_terms.SpdePrior.log_determinant`.

    Returns
    -------
    Tensor ()
        Mean over the windows.

    Raises
    ------
    ParameterError, SolverError
        If the likelihood cannot be computed: values that are missing off land, parameters that are
        not finite, no such first state. No window is left out silently.
    """
    prior = SpdePrior(theta.double(), alpha=alpha, sea=sea, boundary=boundary, initial=initial)
    total = prior.negative_log_likelihood(anomaly.double(), probes=probes, seed=seed)
    count = prior.count(anomaly.shape[1])
    if not bool((count > 0).all()):
        raise ParameterError(
            f"{int((count == 0).sum())} windows have no sea, or one step with initial='given'; "
            "expected something whose likelihood can be computed"
        )
    return (total / count).mean()


def parameter_penalty(
    theta: Tensor,
    sea: Tensor,
    *,
    smoothness: float = 0.0,
    spread: float = 0.0,
    centre: Mapping[str, float] | None = None,
) -> Tensor:
    """Weigh rough and far-fetched parameters: minus the logarithm of a prior density of theta.

    Parameters
    ----------
    theta : Tensor (B, 8, S, ny, nx)
        Parameters.
    sea : Tensor (B, ny, nx) of bool
        False on land.
    smoothness : float, default 0
        Weight of the mean squared difference of neighbouring cells, of the logarithms of kappa,
        tau, H11 and H22, of H12 over their geometric mean, and of the velocity.
    spread : float, default 0
        Weight of the mean squared logarithm of kappa, tau, H11 and H22 over their centre: a
        log-normal prior.
    centre : mapping of str to float, optional
        All eight parameters there; needed for the latter.

    Returns
    -------
    Tensor ()

    Raises
    ------
    ParameterError
        For weights that are negative, or a spread without a centre.
    """
    if smoothness < 0.0 or spread < 0.0 or (spread > 0.0 and centre is None):
        raise ParameterError(
            f"smoothness={smoothness}, spread={spread}, centre={centre}; expected weights >= 0, "
            "and a centre where there is a spread"
        )
    filled = theta.new_tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0])[:, None, None, None]
    water = sea[:, None, None].to(theta.dtype)
    maps = _maps(torch.where(sea[:, None, None], theta, filled))
    found = theta.new_zeros(())
    for axis in (-1, -2):
        n = maps.shape[axis]
        ahead, behind = (t.narrow(axis, 1, n - 1) for t in (maps, water))
        both = behind * water.narrow(axis, 0, n - 1)
        rough = (both * (ahead - maps.narrow(axis, 0, n - 1)) ** 2).sum()
        share = both.sum().clamp_min(1.0) * maps.shape[1] * maps.shape[2]
        found = found + smoothness * rough / share
    if spread and centre is not None:
        numbers = theta.new_tensor([centre[name] for name in THETA])[None, :, None, None, None]
        away = (maps - _maps(numbers))[:, :4]
        share = water.sum().clamp_min(1.0) * away.shape[1] * away.shape[2]
        found = found + spread * (water * away**2).sum() / share
    return found


def _maps(theta: Tensor) -> Tensor:
    """Put the parameters on comparable scales: maps (B, 7, S, ny, nx)."""
    h11, h22, h12 = tensor_of(theta)
    kappa, tau, m1, m2 = theta[:, :4].unbind(1)
    size = torch.sqrt(h11 * h22)
    return torch.stack([kappa.log(), tau.log(), h11.log(), h22.log(), h12 / size, m1, m2], 1)

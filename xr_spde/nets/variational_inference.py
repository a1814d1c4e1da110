"""Run a trained variational solver on arrays: threads, device, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde._core.options import get_option
from xr_spde.nets.inference import single_thread
from xr_spde.nets.variational_window import Window

__all__ = ["run_window"]

Array = NDArray[np.float32]

_LEAST = float(np.finfo(np.float32).eps) ** 2
"""Error variance, in units of the scale, below which single precision loses the cost."""


def run_window(
    solver: nn.Module,
    theta_solver: nn.Module | None,
    obs: NDArray[Any],
    mask: NDArray[np.bool_],
    variance: NDArray[Any],
    sea: NDArray[np.bool_],
    theta: NDArray[Any] | None = None,
    *,
    parameters: bool = True,
    oracle: NDArray[Any] | None = None,
    offset: NDArray[Any] | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Estimate the fields of a batch of windows, on one thread.

    Parameters
    ----------
    solver : Module
        `xr_spde.nets.variational.VariationalSolver`.
    theta_solver : Module or None
        `xr_spde.nets.theta_solver.ThetaSolver`.
    obs, mask, variance : ndarray (B, T, ny, nx)
        Observed anomalies, where there is one, and variances of their errors, normalised; what
        stands where nothing is observed never matters.
    sea : ndarray (B, ny, nx) of bool
        False on land.
    theta : ndarray (B, 8, S, ny, nx), optional
        Parameters of the prior, for a solver that reads them; estimated by default.
    parameters : bool, default True
        Whether to estimate parameters that the solver does not read.
    oracle : ndarray (B, T, ny, nx), optional
        The truth, for a theta solver with ``oracle_theta=True`` and refused by any other.
    offset : ndarray (B, T, ny, nx), optional
        Times of the observations after their step, in steps, for a solver that reads them.

    Returns
    -------
    mean : ndarray (B, T, ny, nx) of float32
    theta : ndarray (B, 8, S, ny, nx) of float32, or None
        Those given; else estimated from the observations and the mean, where there is a network
        for it.
    deviation : ndarray (B, T, ny, nx) of float32, or None
        Standard deviation of the errors of the mean, of a solver that tells it.

    Raises
    ------
    ParameterError
        For error variances that single precision cannot tell from zero beside the anomalies, and
        as for `Window`.
    SolverError
        If the fields are not finite.
    """
    device = "cuda" if get_option("device") == "cuda" else "cpu"
    window = Window(
        _tensor(obs), torch.from_numpy(np.ascontiguousarray(mask)), _tensor(variance),
        torch.from_numpy(np.ascontiguousarray(sea)), None if offset is None else _tensor(offset),
    ).to(device)  # fmt: skip
    if float(window.variance.min()) < _LEAST:
        raise ParameterError(
            f"error variances from {float(window.variance.min()):g} in units of the scale were "
            f"given; the solver computes in single precision, which resolves {_LEAST:.1e}: the "
            "anomalies are too large for such errors, or the errors too small; check the units of "
            "both, and fill values"
        )
    given = None if theta is None else _tensor(theta).to(device)
    net: Any = solver.to(device).eval()
    reads = bool(solver.options["parameters"])  # type: ignore[index]
    with single_thread(), torch.no_grad():
        mean, deviation = net.estimate(window, given if reads else None)
        if given is None and theta_solver is not None and (parameters or reads):
            told = {} if oracle is None else {"oracle": _tensor(oracle).to(device)}
            given = theta_solver.to(device).eval()(window, mean, **told)
            if reads:
                mean, deviation = net.estimate(window, given)
    if not bool(mean.isfinite().all()):
        raise SolverError(
            "the solver left fields that are not finite; it was given anomalies up to "
            f"{float(window.obs.abs().max()):g} and error variances from "
            f"{float(window.variance.min()):g}, in units of the scale: give anomalies of the order "
            "of one"
        )
    known, sure = (None if one is None else _array(one) for one in (given, deviation))
    return _array(mean), known, sure


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _array(values: Tensor) -> Array:
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)

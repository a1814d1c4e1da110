r"""Ensembles of any interpolation near linear in the observations, by conditional simulation.

With a draw :math:`x_s` of the prior, observations of it with errors of their own,
:math:`y_s = H x_s + \epsilon_s`, and the interpolation S, a trained network or an exact one,

.. math::

    x_c = x^* + (x_s - S(y_s)), \qquad x^* = S(y).

The difference is an error that S makes where prior and errors are right. For the optimal
interpolation of that prior :math:`x_c` is an exact draw of the posterior; else as good as S is
linear, which :func:`linearity_defect` measures, and as the prior is right, which scores of the
ensemble tell. Draws are fields of the whole domain and series (:mod:`xr_spde.fields.prior_draws`),
so that members go on across the seams of windows and patches.

References
----------
Chiles and Delfiner (2012), Geostatistics, section 7.3 (conditioning by kriging); Beauchamp et al.
(2025), AIES, arXiv 2402.01855.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.neural_cells import between_steps

__all__ = ["Solve", "conditional_anomalies", "linearity_defect", "simulated_values"]

Single = NDArray[np.float32]

Solve = Callable[[Any], Any]
"""Interpolation of one window, its mask, error variances and parameters given: observed values
(K, T, ny, nx) to means of the same shape, each by itself. Values that are not observed are 0."""


def simulated_values(
    fields: NDArray[Any], white: NDArray[Any], mask: NDArray[np.bool_], variance: NDArray[Any],
    offset: NDArray[Any] | None = None,
) -> Single:  # fmt: skip
    """Observe draws as the field was observed, with errors.

    Parameters
    ----------
    fields : ndarray (K, T, ny, nx)
        Draws of the prior, as anomalies.
    white : ndarray (K, T, ny, nx)
        White noise.
    mask : ndarray (T, ny, nx) of bool
        Cells that are observed.
    variance : ndarray (T, ny, nx)
        Of the errors; only where observed.
    offset : ndarray (T, ny, nx), optional
        Times of the observations after their step, in steps; by default zero.

    Returns
    -------
    ndarray (K, T, ny, nx) of float32
        Zero where not observed.
    """
    spread = np.sqrt(np.where(mask, variance, 0.0)).astype(np.float32)
    values = np.asarray(fields, dtype=np.float32)
    if offset is not None:
        values = between_steps(values, np.asarray(offset, dtype=np.float32))
    found = values + spread * np.asarray(white, dtype=np.float32)
    return np.where(mask, found, np.float32(0.0))


def conditional_anomalies(
    solve: Solve,
    fields: NDArray[Any],
    white: NDArray[Any],
    mask: NDArray[np.bool_],
    variance: NDArray[Any],
    *,
    offset: NDArray[Any] | None = None,
    together: int = 16,
) -> Single:
    """Errors of an interpolation of draws: members of the ensemble minus its mean.

    Parameters
    ----------
    solve : callable
        See :data:`Solve`; its parameters are those of the real observations.
    fields, white, mask, variance, offset
        As in :func:`simulated_values`; of one window and patch, cut from those of the domain.
    together : int, default 16
        Draws that are interpolated at once.

    Returns
    -------
    ndarray (K, T, ny, nx) of float32
        ``x_s - S(y_s)``.

    Raises
    ------
    ParameterError
        Shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.neural_ensemble import conditional_anomalies
    >>> draws, mask = np.ones((3, 2, 4, 4)), np.ones((2, 4, 4), dtype=bool)
    >>> found = conditional_anomalies(lambda y: 0.5 * y, draws, 0 * draws, mask, 0.1 + 0 * mask)
    >>> found.shape, float(found.mean())
    ((3, 2, 4, 4), 0.5)
    """
    if (
        fields.ndim != 4
        or white.shape != fields.shape
        or {mask.shape, variance.shape} != {fields.shape[1:]}
    ):
        raise ParameterError(
            f"fields {fields.shape}, white {white.shape}, mask {mask.shape} and variance "
            f"{variance.shape} were given; expected (K, T, ny, nx) twice and (T, ny, nx) twice"
        )
    values = simulated_values(fields, white, mask, variance, offset)
    out = np.array(fields, dtype=np.float32)
    for start in range(0, len(out), together):
        part = slice(start, start + together)
        out[part] -= np.asarray(solve(values[part]), dtype=np.float32)
    return out


def linearity_defect(solve: Solve, first: NDArray[Any], second: NDArray[Any]) -> float:
    r"""How far an interpolation is from affine in the observed values.

    .. math::

        \|S(a + b) - S(a) - S(b) + S(0)\| / \|S(a)\|,

    0 for an optimal interpolation. Simulation by S is exact only there.

    Parameters
    ----------
    solve : callable
        See :data:`Solve`.
    first, second : ndarray (K, T, ny, nx)
        Observed values a and b of the same mask, zero where not observed: such as simulated and
        real ones.

    Returns
    -------
    float
        Over all K; NaN where S(a) is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.neural_ensemble import linearity_defect
    >>> a, b = np.random.default_rng(0).standard_normal((2, 1, 3, 8, 8))
    >>> round(linearity_defect(lambda y: 0.3 * y - 1.0, a, b), 12) + 0.0
    0.0
    >>> linearity_defect(np.tanh, a, b) > 0.1
    True
    """
    a, b = np.broadcast_arrays(first, second)
    values = np.concatenate([a + b, a, b, np.zeros_like(a[:1])])
    found = np.asarray(solve(values), dtype=np.float64)
    k = len(a)
    left = found[:k] - found[k : 2 * k] - found[2 * k : 3 * k] + found[3 * k :]
    size = float(np.linalg.norm(found[k : 2 * k]))
    return float(np.linalg.norm(left)) / size if size > 0.0 else float("nan")

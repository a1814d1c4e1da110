"""Variance, covariance and determinant of a field model: exact where that fits, else with errors.

Two things of a model need more than solutions: the diagonal of ``(B'B)^-1`` and ``log|det B|``. A
factor gives both exactly. Where none fits in memory, the first comes from windows and probes
(:mod:`xr_spde.fields.probing`) and the second from windows (:mod:`xr_spde.fields.windows`), with
the error stated.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.memory import memory_budget
from xr_spde.fields.probing import probed_variance
from xr_spde.fields.sar import weights
from xr_spde.fields.windows import TILE, Domain, halo, logdet_with_error
from xr_spde.solvers.cache import FACTORS
from xr_spde.solvers.dissection import gram_inverse, predict

if TYPE_CHECKING:
    from xr_spde.fields.field import GaussianField

Float = NDArray[np.float64]

VARIANCES = ("auto", "selected", "probing")
"""Methods of the variance."""

DETERMINANTS = ("auto", "exact", "windows")
"""Methods of the log-determinant."""

PROBES = 16
"""Draws that a variance is probed with, where nothing else is asked for."""

OVERLAP = 128
"""Widest overlap of the windows of a variance: wider ones cost more than further probes."""

DIRECT = ("dissection", "superlu")
"""Solvers with a factor, which gives determinants and inverses; the first for those without."""

_COLUMN_BYTES = 2**28
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimated:
    """A number or a map, and how far it can be off.

    Attributes
    ----------
    value : ndarray
        Read only.
    error : ndarray or None
        Same shape; None where the value is exact.
    """

    value: Float
    error: Float | None = None

    def __post_init__(self) -> None:
        """Freeze the arrays, which a cache shares."""
        for part in (self.value, self.error):
            if part is not None:
                part.flags.writeable = False

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.value.nbytes * (1 if self.error is None else 2)


def check_method(method: str, known: tuple[str, ...], what: str) -> str:
    """Return the name of a method if it is a known one.

    Parameters
    ----------
    method : str
        Name.
    known : tuple of str
        :data:`VARIANCES` or :data:`DETERMINANTS`.
    what : str
        Of what, for the message.

    Returns
    -------
    str

    Raises
    ------
    UnknownNameError
        If it is not.
    """
    if method not in known:
        raise unknown(f"method of the {what}", method, known)
    return method


def variance_method(
    shape: tuple[int, int], boundary: str, solver: str, *, margin: float = 1.0, held: int = 0
) -> str:
    """Choose the method of the variance.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` with the buffer.
    boundary : str
        Of the grid.
    solver : str
        That of the model: one without a factor has no selected inverse.
    margin : float, default 1
        Times the memory that is predicted.
    held : int, default 0
        Bytes of it that are taken already.

    Returns
    -------
    {"selected", "probing"}
    """
    fits = margin * predict(shape, boundary=boundary) - held <= memory_budget()
    return "selected" if solver in DIRECT and fits else "probing"


def variance(
    model: GaussianField, method: str = "auto", *, probes: int = PROBES, seed: int = 0
) -> Estimated:
    """Variance of every node, the diagonal of ``(B'B)^-1``, and its standard error.

    Parameters
    ----------
    model : GaussianField
        The model.
    method : {"auto", "selected", "probing"}, default "auto"
        ``"selected"``: exact, by the selected inverse on the grid. ``"probing"``: exact nearby,
        sampled far away, on any grid that fields can be drawn on. ``"auto"``: the first if it is
        predicted to fit in memory; the logger ``xr_spde.fields.moments`` says which.
    probes : int, default 16
        Number of draws of the second.
    seed : int, default 0
        Of those draws: the same seed gives the same numbers.

    Returns
    -------
    Estimated
        Maps (ny, nx); no error where it is exact.

    Raises
    ------
    MemoryGuardError
        If what was asked for would not fit in memory.
    ParameterError
        For fewer than two probes.
    UnknownNameError
        For another method.
    """
    if probes < 2:
        raise ParameterError(f"probes={probes} was given; expected at least 2")
    exact: Hashable = ("variance", model.key)
    if check_method(method, VARIANCES, "variance") == "auto" and exact in FACTORS:
        method = "selected"
    if method == "auto":
        held = model.factor().nbytes if ("factor", model.key, "float64") in FACTORS else 0
        method = variance_method(model.padded_shape, model.boundary, model.chosen, held=held)
    if method == "selected":
        return FACTORS.get(exact, lambda: _selected(model))
    key = ("probed variance", model.key, probes, seed)
    return FACTORS.get(key, lambda: _probed(model, probes, seed))


def _selected(model: GaussianField) -> Estimated:
    if model.chosen in DIRECT:
        return Estimated(_crop(model, model.factor().gram_inverse_diagonal()))
    shape = model.padded_shape
    diagonal, _ = gram_inverse(model.matrix(), shape=shape, boundary=model.boundary)
    return Estimated(_crop(model, diagonal))


def _probed(model: GaussianField, probes: int, seed: int) -> Estimated:
    overlap = min(halo(model.kappa2, model.rho), OVERLAP)
    _LOG.info("variance by %d probes and windows with an overlap of %d cells", probes, overlap)
    value, error = probed_variance(
        Domain.of(weights(*_padded(model)), model.boundary),
        model.factor().solve,
        margins=model.rim,
        overlap=overlap,
        tile=max(TILE, 2 * overlap),
        probes=probes,
        seed=seed,
    )
    return Estimated(value, error)


def covariance_columns(model: GaussianField, nodes: NDArray[np.intp]) -> Float:
    """Columns of ``(B'B)^-1``, by two solutions for each.

    Parameters
    ----------
    model : GaussianField
        The model.
    nodes : ndarray of int (P,)
        Numbers on the padded grid.

    Returns
    -------
    ndarray (P, ny, nx)
        To the accuracy of the solver. Besides these, memory does not grow with their number.
    """
    held, found = model.factor(), np.empty((nodes.size, *model.shape))
    width = int(np.clip(_COLUMN_BYTES // (8 * model.size), 1, 64))
    for start in range(0, nodes.size, width):
        part = nodes[start : start + width]
        unit = np.zeros((model.size, part.size), order="F")
        unit[part, np.arange(part.size)] = 1.0
        found[start : start + width] = _crop(model, held.solve(held.solve_transposed(unit)).T)
    return found


def log_determinant(model: GaussianField, method: str = "auto") -> Estimated:
    """``log|det B|`` of the padded grid.

    Parameters
    ----------
    model : GaussianField
        The model.
    method : {"auto", "exact", "windows"}, default "auto"
        ``"exact"``: from a factor. ``"windows"``: from overlapping windows, on a grid of any size.
        ``"auto"``: the first where the model's solver is a direct one; the logger
        ``xr_spde.fields.moments`` says if it is not.

    Returns
    -------
    Estimated
        A number, and a bound of its error where it is not exact.

    Raises
    ------
    MemoryGuardError
        If a factor would not fit in memory.
    UnknownNameError
        For another method.
    """
    check_method(method, DETERMINANTS, "log-determinant")
    direct = model.chosen in DIRECT
    if method == "exact" or (method == "auto" and direct):
        held = model if direct else replace(model, solver=DIRECT[0])
        return Estimated(np.array(held.factor().logdet()))

    def build() -> Estimated:
        maps = _padded(model)
        value, error = logdet_with_error(*maps, weights(*maps), model.boundary)
        _LOG.info("log-determinant %.6g from windows, error at most %.1e", value, error)
        return Estimated(np.array(value), np.array(error))

    return FACTORS.get(("logdet", model.key), build)


def _padded(model: GaussianField) -> tuple[Float, Float, Float]:
    """Parameters with the buffer."""
    widths = [(width, width) for width in model.rim]
    kappa2, rho, theta = (
        np.pad(value, widths, mode="edge") for value in (model.kappa2, model.rho, model.theta)
    )
    return kappa2, rho, theta


def _crop(model: GaussianField, flat: Float) -> Float:
    """Cut the buffer off (..., n)."""
    (ny, nx), (dy, dx) = model.shape, model.rim
    grid = flat.reshape(*flat.shape[:-1], *model.padded_shape)
    return np.ascontiguousarray(grid[..., dy : dy + ny, dx : dx + nx])

r"""Diffusion and waves with walls or a closed x, exact in time where coefficients are constant.

The Laplacian in flux form, :math:`\frac{1}{hk}\big(\partial_x \frac{k}{h} \partial_x + \partial_y
\frac{h}{k} \partial_y\big)` with h the width and k the height of a row, is diagonal in x in cosines
(walls) or sines and cosines (periodic), and in y in the eigenvectors of a symmetric tridiagonal
matrix. Works on numpy arrays and torch tensors; in torch differentiable in the state and in the
coefficients.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.arrays import Array, as_kind, is_tensor, neighbour, to_numpy
from xr_spde.fields.cells import Cells

__all__ = ["diffuse", "diffusion_step", "laplacian", "wave", "wave_step"]

Float = NDArray[np.float64]


def _modes_x(n: int, periodic: bool) -> tuple[Float, Float]:
    """Eigenvalues (n,) and orthonormal columns (n, n) of minus the second difference."""
    matrix = 2.0 * np.eye(n)
    matrix -= np.eye(n, k=1) + np.eye(n, k=-1)
    if periodic:
        matrix[0, -1] -= 1.0
        matrix[-1, 0] -= 1.0
    else:
        matrix[0, 0] = matrix[-1, -1] = 1.0
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values, 0.0), vectors


def _modes_y(cells: Cells) -> tuple[Float, Float, Float]:
    """Eigenvalues and eigenvectors of minus the y part, and the root of the area that weighs it."""
    h, k = cells.width, cells.height
    face = (h[1:] + h[:-1]) / (k[1:] + k[:-1])
    matrix = np.diag(np.r_[face, 0.0] + np.r_[0.0, face]) - np.diag(face, 1) - np.diag(face, -1)
    root = np.sqrt(h * k)
    values, vectors = np.linalg.eigh(matrix / root / root[:, None])
    return np.maximum(values, 0.0), vectors, root


def _is_field(coefficient: Array | float) -> bool:
    return getattr(coefficient, "ndim", 0) >= 2


def diffusion_step(kappa: Array | float, cells: Cells) -> float:
    """Largest stable step of :func:`diffuse`.

    Parameters
    ----------
    kappa : float, or array or tensor (..., ny, nx)
        Diffusivity in square metres per unit of time.
    cells : Cells
        The grid.

    Returns
    -------
    float
        Infinite for one number, which is exact in time.
    """
    if not _is_field(kappa):
        return math.inf
    largest = float(to_numpy(kappa).max())
    rate = 2.0 * largest * float((1 / cells.width**2 + 1 / cells.height**2).max())
    return math.inf if rate == 0 else 0.9 / rate


def laplacian(state: Array, cells: Cells, kappa: Array | float = 1.0) -> Array:
    """Divergence of ``kappa`` times the gradient; nothing flows through walls.

    Parameters
    ----------
    state : array or tensor (..., ny, nx)
        Any field.
    cells : Cells
        The grid.
    kappa : float, or array or tensor (ny, nx) or like the state
        Coefficient; averaged to the faces.

    Returns
    -------
    array or tensor (..., ny, nx)
        Per square metre.
    """
    h, k = cells.width, cells.height
    across = as_kind((k / h)[:, None], state)
    along = as_kind(np.r_[(h[1:] + h[:-1]) / (k[1:] + k[:-1]), 0.0][:, None], state)
    wrap = cells.periodic_x
    flux_x = (neighbour(state, 1, -1, periodic=wrap) - state) * across
    flux_y = (neighbour(state, 1, -2) - state) * along
    if _is_field(kappa):
        flux_x = flux_x * (kappa + neighbour(kappa, 1, -1, periodic=wrap)) / 2
        flux_y = flux_y * (kappa + neighbour(kappa, 1, -2)) / 2
    else:
        flux_x, flux_y = flux_x * kappa, flux_y * kappa
    # the differences at the last face of a wall are 0, so what rolls around is 0
    out = flux_x - neighbour(flux_x, -1, -1, periodic=True)
    out = out + flux_y - neighbour(flux_y, -1, -2, periodic=True)
    return out / as_kind((h * k)[:, None], state)


def diffuse(state: Array, kappa: Array | float, tau: float, cells: Cells) -> Array:
    """Solve ``p_t = div(kappa grad p)``.

    One diffusivity: exact in time, by eigenvectors (on rows of unequal widths the parts in x and y
    are composed after Strang). A field of diffusivities: explicit steps of second order.

    Parameters
    ----------
    state : array or tensor (..., ny, nx)
        Initial values.
    kappa : float, tensor without dimensions, or array or tensor (ny, nx) or like the state
        Diffusivity, >= 0, in square metres per unit of time (cells squared where cells are 1).
    tau : float
        Time, >= 0.
    cells : Cells
        The grid.

    Returns
    -------
    array or tensor (..., ny, nx)
        With the same sum, weighted by area.

    Raises
    ------
    ParameterError
        For a negative time or diffusivity.
    """
    smallest = float(to_numpy(kappa).min())
    if tau < 0 or smallest < 0:
        raise ParameterError(
            f"tau={tau:g} with a smallest diffusivity of {smallest:g}; diffusion cannot run "
            "backwards, both must be 0 or more"
        )
    if _is_field(kappa):
        count = max(1, math.ceil(tau / diffusion_step(kappa, cells)))
        for _ in range(count):
            half = state + tau / count / 2 * laplacian(state, cells, kappa)
            state = state + tau / count * laplacian(half, cells, kappa)
        return state
    parts = 1 if cells.uniform else 2
    half = _decay_x(state, kappa, tau / parts, cells)
    half = _decay_y(half, kappa, tau, cells)
    return half if parts == 1 else _decay_x(half, kappa, tau / parts, cells)


def _exp(array: Array) -> Array:
    return array.exp() if is_tensor(array) else np.exp(array)


def _decay_x(state: Array, kappa: Array | float, tau: float, cells: Cells) -> Array:
    values, vectors = _modes_x(cells.nx, cells.periodic_x)
    rates = as_kind(-tau * values / cells.width[:, None] ** 2, state)
    basis = as_kind(vectors, state)
    return ((state @ basis) * _exp(kappa * rates)) @ as_kind(vectors.T, state)


def _decay_y(state: Array, kappa: Array | float, tau: float, cells: Cells) -> Array:
    values, vectors, root = _modes_y(cells)
    to_modes = as_kind(vectors.T * root, state)
    back = as_kind(vectors / root[:, None], state)
    return back @ (_exp(kappa * as_kind(-tau * values[:, None], state)) * (to_modes @ state))


def wave_step(speed: Array | float, cells: Cells) -> float:
    """Largest step of :func:`wave` at a Courant number of 0.7.

    Parameters
    ----------
    speed : float, or array or tensor (..., ny, nx)
        Speed in metres per unit of time.
    cells : Cells
        The grid.

    Returns
    -------
    float
        Infinite for one speed on equal cells, which is exact in time.
    """
    if not _is_field(speed) and cells.uniform:
        return math.inf
    fastest = float(abs(to_numpy(speed)).max())
    shortest = min(float(cells.width.min()), float(cells.height.min()))
    return math.inf if fastest == 0 else 0.7 * shortest / fastest / math.sqrt(2.0)


def wave(state: Array, speed: Array | float, tau: float, cells: Cells) -> Array:
    """Solve ``p_tt = div(c^2 grad p)`` with reflecting walls.

    One speed on equal cells: exact in time, by eigenvectors. Otherwise leapfrog in its symmetric
    form (velocity Verlet), which runs backwards as well.

    Parameters
    ----------
    state : array or tensor (..., 2, ny, nx)
        p and its rate of change.
    speed : float, tensor without dimensions, or array or tensor (ny, nx)
        c in metres per unit of time (cells where cells are 1).
    tau : float
        Time.
    cells : Cells
        The grid.

    Returns
    -------
    array or tensor (..., 2, ny, nx)

    Raises
    ------
    ParameterError
        If the state has no second channel.
    """
    if state.ndim < 3 or state.shape[-3] != 2:
        raise ParameterError(
            f"state has shape {tuple(state.shape)}; expected (..., 2, ny, nx): the field and its "
            "rate of change"
        )
    p, rate = state[..., 0, :, :], state[..., 1, :, :]
    if math.isinf(wave_step(speed, cells)):
        p, rate = _rotate(p, rate, speed, tau, cells)
    else:
        count = max(1, math.ceil(abs(tau) / wave_step(speed, cells)))
        h = tau / count
        force = laplacian(p, cells, speed**2)
        for _ in range(count):
            middle = rate + h / 2 * force
            p = p + h * middle
            force = laplacian(p, cells, speed**2)
            rate = middle + h / 2 * force
    if is_tensor(state):
        import torch

        return torch.stack([p, rate], dim=-3)
    return np.stack([p, rate], axis=-3)


def _rotate(
    p: Array, rate: Array, speed: Array | float, tau: float, cells: Cells
) -> tuple[Array, Array]:
    """Turn each mode of a wave by its own frequency."""
    values_x, vectors_x = _modes_x(cells.nx, cells.periodic_x)
    values_y, vectors_y, _ = _modes_y(cells)
    root = np.sqrt(values_y[:, None] + values_x / float(cells.width[0]) ** 2)
    left, right = as_kind(vectors_y, p), as_kind(vectors_x, p)
    left_t, right_t = as_kind(vectors_y.T, p), as_kind(vectors_x.T, p)
    a, b = left_t @ p @ right, left_t @ rate @ right
    angle = speed * as_kind(tau * root, p)
    if is_tensor(angle):
        import torch

        cos, sin, ratio = angle.cos(), angle.sin(), torch.sinc(angle / math.pi)
    else:
        cos, sin, ratio = np.cos(angle), np.sin(angle), np.sinc(angle / math.pi)
    moved = a * cos + b * tau * ratio
    turned = b * cos - a * sin * speed * as_kind(root, p)
    return left @ moved @ right_t, left @ turned @ right_t

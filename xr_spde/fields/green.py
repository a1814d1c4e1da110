"""Where the log-determinant of a varying operator leaves that of a uniform one behind.

The derivative of ``log|det B|`` with respect to kappa2 at a cell is the diagonal of ``B^-1`` there,
the response of the field at a point to its own forcing. A local likelihood takes it from an endless
uniform medium. Next to a boundary, or to a region of much shorter range, the response is smaller,
and where the range is long the difference is far larger than the information about kappa2. In two
dimensions the response has no units and its difference to the uniform one varies slowly, so it is
found on a coarse grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.sar import tensor_weights
from xr_spde.fields.stencil import assemble
from xr_spde.fields.symbol import log_symbol_mean
from xr_spde.solvers.superlu import SuperLUFactor

Float = NDArray[np.float64]

_COLUMNS = 256


def excess_response(
    log_kappa2: Float,
    h1: Float,
    h2: Float,
    *,
    boundary: str,
    buffer: int,
    max_nodes: int = 2500,
) -> Float:
    """Diagonal of B^-1 minus its value in an endless uniform medium.

    Parameters
    ----------
    log_kappa2, h1, h2 : ndarray (ny, nx)
        Logarithm of kappa2 and the two components of log H (`xr_spde.fields.sar.log_tensor`).
    boundary : {"cylinder", "plane", "torus", "paper"}
        Boundary of the domain, outside the buffer.
    buffer : int
        Cells between the grid and the boundary on sides that are not periodic, with the
        parameters of the nearest edge cell.
    max_nodes : int, optional
        Size of the coarse grid, buffer included.

    Returns
    -------
    ndarray (ny, nx)
        Dimensionless; negative where boundaries or neighbours of shorter range hold the field.
    """
    ny, nx = log_kappa2.shape
    wrap_x, wrap_y = boundary != "plane", boundary == "torus"
    pad_y, pad_x = (0 if wrap_y else buffer), (0 if wrap_x else buffer)
    high, wide = ny + 2 * pad_y, nx + 2 * pad_x
    ratio = max(1.0, np.sqrt(high * wide / max_nodes))
    rows, columns = max(3, round(high / ratio)), max(3, round(wide / ratio))
    step_y, step_x = high / rows, wide / columns
    y = np.clip((np.arange(rows) + 0.5) * step_y - 0.5 - pad_y, 0, ny - 1)
    x = np.clip((np.arange(columns) + 0.5) * step_x - 0.5 - pad_x, 0, nx - 1)
    maps = [_sample(field, y, x) for field in (log_kappa2, h1, h2)]
    kappa2 = np.exp(maps[0]) * step_y * step_x
    hxx, hyy, hxy = tensor_of_log(maps[1], maps[2])
    hxx, hyy = hxx * step_y / step_x, hyy * step_x / step_y
    difference = _diagonal_of_inverse(kappa2, hxx, hyy, hxy, boundary)
    difference -= log_symbol_mean(kappa2, hxx, hyy, hxy)[1][0]
    back_y = (np.arange(ny) + pad_y + 0.5) / step_y - 0.5
    back_x = (np.arange(nx) + pad_x + 0.5) / step_x - 0.5
    return _sample(difference, back_y, back_x)


def tensor_of_log(h1: Float, h2: Float) -> tuple[Float, Float, Float]:
    """Diffusion tensor from the components of its logarithm (determinant one).

    Parameters
    ----------
    h1, h2 : ndarray
        ``log rho cos 2 theta`` and ``log rho sin 2 theta``.

    Returns
    -------
    hxx, hyy, hxy : ndarray
    """
    log_rho = np.hypot(h1, h2)
    cosh = np.cosh(log_rho)
    ratio = np.where(log_rho > 1e-8, np.sinh(log_rho) / np.maximum(log_rho, 1e-8), 1.0)
    return cosh + h1 * ratio, cosh - h1 * ratio, h2 * ratio


def _sample(field: Float, y: Float, x: Float) -> Float:
    """Linear interpolation at the rows y and columns x; the nearest edge value outside."""
    from scipy.ndimage import map_coordinates

    points = np.meshgrid(y, x, indexing="ij")
    return np.asarray(map_coordinates(field, points, order=1, mode="nearest"))


def _diagonal_of_inverse(kappa2: Float, hxx: Float, hyy: Float, hxy: Float, boundary: str) -> Float:
    """Exact diagonal of B^-1 on a small grid, by solving for all unit vectors in turn."""
    factor = SuperLUFactor(assemble(tensor_weights(kappa2, hxx, hyy, hxy), boundary=boundary))
    nodes = kappa2.size
    diagonal = np.empty(nodes)
    for start in range(0, nodes, _COLUMNS):
        chosen = np.arange(start, min(start + _COLUMNS, nodes))
        forcing = np.zeros((nodes, chosen.size))
        forcing[chosen, np.arange(chosen.size)] = 1.0
        diagonal[chosen] = factor.solve(forcing)[chosen, np.arange(chosen.size)]
    return diagonal.reshape(kappa2.shape)

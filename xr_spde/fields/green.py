"""Where the log-determinant of a varying operator leaves that of a uniform one behind.

The derivative of ``log|det B|`` with respect to kappa2 at a cell is the diagonal of ``B^-1`` there,
the response of the field at a point to its own forcing. A local likelihood takes it from an endless
uniform medium. Next to a boundary, or to a region of much shorter range, the response is smaller,
and where the range is long the difference is far larger than the information about kappa2. In two
dimensions the response has no units and its difference to the uniform one varies slowly, so it is
found at some hundreds of sites, and on a coarser grid where the given one is large.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.sar import tensor_weights
from xr_spde.fields.stencil import assemble
from xr_spde.fields.symbol import log_symbol_mean
from xr_spde.solvers.grid_cut import PERIODIC
from xr_spde.solvers.strips import diagonal_blocks, strips

Float = NDArray[np.float64]

Index = NDArray[np.int64]


def excess_response(
    log_kappa2: Float,
    h1: Float,
    h2: Float,
    *,
    boundary: str,
    buffer: int,
    max_nodes: int = 20_000,
    max_sites: int = 900,
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
        Size of the grid that is solved on, buffer included.
    max_sites : int, optional
        Number of cells at which the response is found; in between it is interpolated.

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
    inner = (pad_y / step_y, pad_x / step_x)
    sites = _sites((rows, columns), inner, max_sites)
    chosen = np.ix_(*sites)
    difference = _responses(kappa2, hxx, hyy, hxy, boundary, sites)
    difference -= log_symbol_mean(kappa2[chosen], hxx[chosen], hyy[chosen], hxy[chosen])[1][0]
    back_y = (np.arange(ny) + pad_y + 0.5) / step_y - 0.5
    back_x = (np.arange(nx) + pad_x + 0.5) / step_x - 0.5
    return _between(difference, sites, back_y, back_x)


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


def _sites(shape: tuple[int, int], rim: tuple[float, float], most: int) -> tuple[Index, Index]:
    """Rows and columns of a lattice of sites inside the rim, the outermost cells included."""
    spans = [(int(edge), size - 1 - int(edge)) for size, edge in zip(shape, rim, strict=True)]
    lengths = [high - low + 1 for low, high in spans]
    ratio = max(1.0, np.sqrt(lengths[0] * lengths[1] / most))
    rows, columns = (
        np.unique(np.rint(np.linspace(low, high, max(2, round(n / ratio)))).astype(np.int64))
        for (low, high), n in zip(spans, lengths, strict=True)
    )
    return rows, columns


def _responses(
    kappa2: Float, hxx: Float, hyy: Float, hxy: Float, boundary: str, sites: tuple[Index, Index]
) -> Float:
    """Diagonal of B^-1 at the sites."""
    matrix = assemble(tensor_weights(kappa2, hxx, hyy, hxy), boundary=boundary)
    order, width = strips(kappa2.shape, periodic=PERIODIC[boundary], reach=1)
    cells = (sites[0][:, None] * kappa2.shape[1] + sites[1]).ravel()
    found = np.empty(kappa2.size)
    for members, inverse in diagonal_blocks(matrix, order, width, cells):
        found[members] = np.diagonal(inverse)
    return np.asarray(found[cells].reshape(sites[0].size, sites[1].size))


def _between(values: Float, sites: tuple[Index, Index], y: Float, x: Float) -> Float:
    """Linear interpolation between sites; the nearest value outside."""
    rows = np.interp(y, sites[0], np.arange(sites[0].size))
    columns = np.interp(x, sites[1], np.arange(sites[1].size))
    return _sample(values, rows, columns)

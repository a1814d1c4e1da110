"""How well synthetic members carry the correlations of the real ones, beside the noise.

A correlation estimated from 30 members misses the true one by about 0.19 wherever that is 0, so a
raw distance between real and synthetic correlation maps says little by itself. The score here comes
with the distance that a perfect emulator would have, and with what is left beyond it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.provenance import provenance
from xr_spde.labels.arrays import array_of
from xr_spde.labels.axes import check_replicates, find_replicates
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.schema import is_parameters
from xr_spde.sar.diagnose import correlation
from xr_spde.sar.positions import POINT, At, find_points

__all__ = ["correlation_score"]

WEIGHTS = ("area",)
"""Named weights; a DataArray on (Y, X) or None (every cell alike) are the other choices."""


def correlation_score(
    fields: xr.DataArray | xr.Dataset,
    ensemble: xr.DataArray | xr.Dataset,
    *,
    dim: str | None = None,
    points: At | None = None,
    n_points: int = 50,
    seed: int = 0,
    weights: str | xr.DataArray | None = "area",
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    r"""Score the correlations of synthetic members against real ones, corrected for noise.

    At each point p the correlation map of the real members, :math:`\hat r_p`, is compared with
    that of the synthetic ones (or of the model itself), :math:`r_p`:

    .. math::

        \mathrm{raw}^2 = \langle (\hat r_p - r_p)^2 \rangle, \qquad
        \mathrm{floor}^2 = \Big\langle (1 - r_p^2)^2
            \Big(\frac{1}{M - 1} + \frac{1}{N - 1}\Big) \Big\rangle, \qquad
        \mathrm{corrected}^2 = \max(\mathrm{raw}^2 - \mathrm{floor}^2, 0),

    the mean being over cells and then over points. ``floor`` is what the true model would score:
    :math:`(1 - r^2)^2 / (M - 1)` is the sampling variance of a correlation from M real members, and
    the second term, that of N synthetic members, is absent where ``ensemble`` is a model.

    Parameters
    ----------
    fields : DataArray or Dataset
        M real members on (..., Y, X). NaN is missing. Lazy data stay lazy, except that the first
        member is read to keep random points off land.
    ensemble : DataArray or Dataset
        N synthetic members on the same grid, or the parameter Dataset of a SAR model, whose exact
        correlation is then used. Leading dimensions that both have are mapped over.
    dim : str, optional
        Replicate dimension of ``fields``, and of ``ensemble`` if it has it; found by default.
    points : (y, x) tuple, {dim: value} mapping, or list of them, optional
        Where to compare, in coordinate values; by default ``n_points`` random cells.
    n_points : int
        Number of random points, fewer if the grid has fewer cells with data.
    seed : int
        Of the random points.
    weights : {"area"}, DataArray on (Y, X) or None
        Weight of a cell in the mean over cells and in the choice of random points. "area" is
        cos(latitude) on geographic grids and constant on others; None weighs all cells alike.
    x, y : str, optional
        Spatial dimensions; found by CF conventions by default.

    Returns
    -------
    Dataset
        ``raw``, ``floor``, ``ratio`` (raw / floor) and ``corrected``, means over points (of the
        squares), and the same per ``point`` with the prefix ``point_``. Dimensionless.

    Raises
    ------
    AxisNotFoundError
        No or no unambiguous replicate dimension.
    ParameterError
        Fewer than 3 members, no cell with data, points outside the grid, or weights that are
        negative or not on the grid.
    GridError
        The grids differ.
    UnknownNameError
        Weights of another name.

    Notes
    -----
    One pass over each ensemble, with a memory of points x cells numbers whatever its size. With
    missing members the count at a cell and a point is taken as the smaller of the two counts.

    The floor is that of a model that has not seen the fields. One estimated from these very
    members takes up some of their noise and can score below it; a ratio clearly under 1 says so.
    Estimate from some members and score on the others to see what holds.
    """
    real = array_of(fields, x=x, y=y)
    grid = Grid.from_object(real, x=x, y=y)
    replicates = _replicates(real, dim, grid)
    cell_weights = _weights(weights, grid, real)
    if points is None:
        points = _random_points(real, replicates, grid, cell_weights, n_points, seed)
    at: list[Any] = [points] if find_points(points, grid, real).single else list(points)
    observed, noise = _empirical(real, replicates, at, grid)
    size = None
    if isinstance(ensemble, xr.Dataset) and is_parameters(ensemble):
        own_grid = same_grid(grid, Grid.from_object(ensemble, x=x, y=y))
        modelled = _canonical(correlation(ensemble, at, x=x, y=y), own_grid, grid)
    else:
        synthetic = array_of(ensemble, x=x, y=y)
        own_grid = same_grid(grid, Grid.from_object(synthetic, x=x, y=y))
        own = _replicates(synthetic, dim if dim in synthetic.dims else None, own_grid)
        size = synthetic.sizes[own]
        modelled, own_noise = _empirical(synthetic, own, at, own_grid, like=grid)
        noise = noise + own_noise
    score = _score(observed, modelled, noise, _canonical(cell_weights, grid, grid), grid)
    return _described(
        score,
        real_members=real.sizes[replicates],
        synthetic_members=size,
        points=len(at),
        weights=weights if weights is None or isinstance(weights, str) else "given",
    )


def _replicates(members: xr.DataArray, dim: str | None, grid: Grid) -> str:
    found = find_replicates(members, dim, spatial=(grid.y_dim, grid.x_dim))
    check_replicates(members.sizes[found], minimum=3, dim=found)
    return found


def _empirical(
    members: xr.DataArray, dim: str, points: list[Any], grid: Grid, *, like: Grid | None = None
) -> tuple[xr.DataArray, xr.DataArray]:
    """Correlation maps of members and 1 / (count - 1), both canonical."""
    maps = correlation(members, points, dim, x=grid.x_dim, y=grid.y_dim)
    count = members.count(dim)
    j, i = np.transpose(find_points(points, grid, members).stored)
    here = {grid.y_dim: xr.DataArray(j, dims=POINT), grid.x_dim: xr.DataArray(i, dims=POINT)}
    at_points = count.isel(here).drop_vars((grid.y_dim, grid.x_dim), errors="ignore")
    noise = 1.0 / (xr.where(count < at_points, count, at_points) - 1.0)
    return _canonical(maps, grid, like or grid), _canonical(noise, grid, like or grid)


def _canonical(maps: xr.DataArray, grid: Grid, like: Grid) -> xr.DataArray:
    """Turn maps to canonical order, without spatial coordinates, on the dimensions of ``like``."""
    order = grid.to_canonical(np.arange(grid.ny * grid.nx).reshape(grid.shape))
    dims = {grid.y_dim: order[:, 0] // grid.nx, grid.x_dim: order[0] % grid.nx}
    turned = maps.isel(dims)
    turned = turned.drop_vars([n for n, c in turned.coords.items() if set(c.dims) & set(dims)])
    return turned.rename({grid.y_dim: like.y_dim, grid.x_dim: like.x_dim})


def _score(
    observed: xr.DataArray,
    modelled: xr.DataArray,
    noise: xr.DataArray,
    cell_weights: xr.DataArray,
    grid: Grid,
) -> xr.Dataset:
    """Means over cells, then points; cells without both correlations are left out."""
    modelled, noise = modelled.reset_coords(drop=True), noise.reset_coords(drop=True)
    error = (observed - modelled) ** 2
    expected = (1.0 - modelled**2) ** 2 * noise
    both = error.notnull() & expected.notnull()
    space = (grid.y_dim, grid.x_dim)
    total = cell_weights.where(both, 0.0).sum(space)
    squares = {
        "raw": (error.where(both, 0.0) * cell_weights).sum(space) / total,
        "floor": (expected.where(both, 0.0) * cell_weights).sum(space) / total,
    }
    pooled = {name: square.mean(POINT, skipna=True) for name, square in squares.items()}
    result = _compared(pooled["raw"], pooled["floor"], prefix="")
    result.update(_compared(squares["raw"], squares["floor"], prefix="point_"))
    return xr.Dataset(result)


def _compared(raw: xr.DataArray, floor: xr.DataArray, *, prefix: str) -> dict[str, xr.DataArray]:
    excess = (raw - floor).clip(min=0.0)
    roots = {"raw": raw, "floor": floor, "ratio": raw / floor, "corrected": excess}
    return {prefix + name: square**0.5 for name, square in roots.items()}


def _described(score: xr.Dataset, **settings: object) -> xr.Dataset:
    words = {
        "raw": "RMSE between real and modelled correlation maps",
        "floor": "RMSE that sampling noise alone would give",
        "ratio": "RMSE over its noise floor",
        "corrected": "RMSE with the noise taken off in the square",
    }
    for name, text in words.items():
        score[name].attrs = {"long_name": text, "units": "1"}
        score["point_" + name].attrs = {"long_name": f"{text}, at one point", "units": "1"}
    score.attrs = provenance("correlation_score", **settings)
    return score


def _weights(weights: str | xr.DataArray | None, grid: Grid, real: xr.DataArray) -> xr.DataArray:
    """Weights on (Y, X), as stored."""
    space = (grid.y_dim, grid.x_dim)
    coords = {dim: real[dim] for dim in space if dim in real.coords}
    if isinstance(weights, xr.DataArray):
        expected = dict(zip(space, grid.shape, strict=True))
        if dict(weights.sizes) != expected:
            raise ParameterError(
                f"weights have the dimensions {dict(weights.sizes)}; expected those of the grid, "
                f"{expected}"
            )
        values = weights.transpose(*space).to_numpy().astype(np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
            raise ParameterError("weights must be finite and not negative, and not all zero")
    elif weights == "area" and grid.kind == "geographic":
        cos = np.cos(np.deg2rad(np.clip(grid.canonical_y(), -90.0, 90.0)))
        values = grid.from_canonical(np.broadcast_to(cos[:, None], grid.shape))
    elif weights is None or weights == "area":
        values = np.ones(grid.shape)
    else:
        raise unknown("weights", weights, WEIGHTS)
    return xr.DataArray(values, dims=space, coords=coords)


def _random_points(
    real: xr.DataArray,
    replicates: str,
    grid: Grid,
    cell_weights: xr.DataArray,
    n_points: int,
    seed: int,
) -> list[tuple[float, float]]:
    """Random cells with data, by weight, without repetition, whatever the storage order."""
    if n_points < 1:
        raise ParameterError(f"n_points={n_points}; expected at least 1")
    first = real.isel({replicates: 0}).notnull()
    leading = [dim for dim in first.dims if dim not in (grid.y_dim, grid.x_dim)]
    present = first.all(leading).transpose(grid.y_dim, grid.x_dim).to_numpy()
    chance = grid.to_canonical(np.where(present, cell_weights.to_numpy(), 0.0)).ravel()
    usable = int((chance > 0).sum())
    if usable == 0:
        raise ParameterError(
            f"every cell of the first of {real.sizes[replicates]} members is missing or has weight "
            "0; pass fields with data, or the points"
        )
    picked = np.random.default_rng(seed).choice(
        chance.size, size=min(n_points, usable), replace=False, p=chance / chance.sum()
    )
    rows, columns = np.unravel_index(picked, grid.shape)
    y, x = grid.canonical_y()[rows], grid.canonical_x()[columns]
    return [(float(a), float(b)) for a, b in zip(y, x, strict=True)]

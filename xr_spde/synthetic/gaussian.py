"""Gaussian fields in space and time whose parameters are known, and which cells are observed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from xr_spde._core.errors import DTypeError, ParameterError, unknown
from xr_spde._core.memory import check_memory
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_variance import local_std
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import find_time
from xr_spde.synthetic.coordinates import degrees_around, times_from

__all__ = ["PRESETS", "THETA", "diagonal_mask", "spacetime_field"]

Float = NDArray[np.float64]

PRESETS = ("iso", "diff", "random")
"""Round diffusion everywhere; diffusion that changes in space; all parameters change in space."""

THETA = ("kappa", "tau", "m1", "m2", "v1", "v2", "gamma", "beta")
"""Parameters of the SPDE, in the order of networks."""

_KAPPA, _BETA, _WAVE = 0.33, 25.0, 10.0
"""Numbers of the experiment of Beauchamp et al."""

_RANDOM = {"length": (2.0, 4.0), "time": (3.0, 10.0), "std": (0.6, 1.6)}
"""Least and largest lengths across v (cells), decay times (steps) and deviations of random worlds;
the length along v is sqrt(1 + |v|^2) times as large, with a standard normal v."""
_SPEED = 0.5
"""Largest velocity along either axis in random worlds, in cells per step."""
_SMOOTH = 6
"""Random maps change over this part of the domain."""
_MIDDLE = (38.0, -60.0)
_FORGOTTEN = math.log(100.0) / 2.0

_WORDS = {
    "kappa": "inverse range", "tau": "amplitude of the noise", "m1": "advection along x",
    "m2": "advection along y", "v1": "direction of diffusion, along x",
    "v2": "direction of diffusion, along y", "gamma": "round part of the diffusion",
    "beta": "directed part of the diffusion",
}  # fmt: skip


def spacetime_field(
    shape: tuple[int, int] = (100, 100),
    steps: int = 5,
    *,
    preset: str = "diff",
    alpha: int = 4,
    runs: int | None = None,
    seed: Seed = None,
    boundary: str = "neumann",
    burn_in: int | None = None,
    resolution: float | None = None,
    start: str = "2012-10-01",
) -> xr.Dataset:
    r"""Draw fields from the space-time SPDE prior with known parameters.

    The fields are those of :class:`xr_spde.fields.spacetime.SpaceTime` on cells and steps of
    length one. "iso" has ``kappa = 0.33, tau = gamma = 1`` and H = I; "diff" adds
    ``25 v v'`` with ``v = (df/dx, -df/dy)`` of
    ``f = (15 / pi) sin(2 pi x / 50) + sin(2 pi y / 50) / 4`` by central differences. In "random"
    lengths, directions, decay times, velocities and standard deviations are smooth random maps,
    from which the eight parameters follow.

    Parameters
    ----------
    shape : tuple of int, default (100, 100)
        ``(ny, nx)``.
    steps : int, default 5
        Times.
    preset : {"diff", "iso", "random"}
        Parameters.
    alpha : {4, 2}
        Power of the SPDE.
    runs : int, optional
        Independent fields with the same parameters, along a dimension ``run``.
    seed : int, SeedSequence, Generator or None
        Of the maps of "random" and of the fields; run k does not depend on how many there are.
    boundary : {"neumann", "dirichlet", "periodic"}
        What lies beyond the edges.
    burn_in : int, optional
        Steps in front that are drawn and dropped. By default none for "iso" and "diff", whose
        first state is exactly stationary, and for "random", which starts from rest, as many as the
        slowest waves need to come within 1 % of their variance.
    resolution : float, optional
        Cells in degrees about 38 N, 60 W, for tracks of satellites; otherwise cells are 1 m, so
        that numbers in units of cells and steps are those in metres and days.
    start : str, default "2012-10-01"
        First time; steps are days.

    Returns
    -------
    Dataset
        ``field`` ([run,] time, Y, X) and :data:`THETA` (Y, X), in units of cells and steps.

    Raises
    ------
    UnknownNameError
        Another preset, alpha or boundary.
    ParameterError
        Impossible numbers.
    MemoryGuardError
        The fields do not fit in memory.

    References
    ----------
    Beauchamp et al. (2025), AIES, arXiv 2402.01855; Clarotto et al. (2024), Spat. Stat. 62.

    Examples
    --------
    >>> import xr_spde
    >>> world = xr_spde.synthetic.spacetime_field((20, 30), steps=4, preset="iso", seed=1)
    >>> world.field.dims, float(world.kappa.max())
    (('time', 'y', 'x'), 0.33)
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    for name, value, least in (("steps", steps, 1), ("runs", runs, 1), ("burn_in", burn_in, 0)):
        if value is not None and value < least:
            raise ParameterError(f"{name}={value!r}; expected at least {least}")
    if resolution is not None and not 0.0 < resolution < np.inf:
        raise ParameterError(f"resolution={resolution!r}; expected degrees > 0")
    mesh, entropy = Mesh.of(shape, boundary=boundary), resolve_seed(seed)
    coords = _coordinates(mesh.shape, resolution)
    coords["time"] = times_from(start, np.arange(float(steps)))
    parameters = _parameters(mesh, preset, alpha, entropy)
    if burn_in is None:
        slowest = float(parameters.kappa.min()) ** alpha
        burn_in = math.ceil(_FORGOTTEN / math.log1p(slowest)) if preset == "random" else 0
    prior = SpaceTime(
        SpdeOperator(mesh), parameters, steps=steps, alpha=alpha, burn_in=burn_in,
        initial="rest" if preset == "random" else "stationary",
    )  # fmt: skip
    count = 1 if runs is None else runs
    check_memory(
        8.0 * mesh.size * (2 * prior.total + count * steps),
        what=f"{count} runs of {prior.total} steps", remedy="give fewer cells, steps or runs",
    )  # fmt: skip
    fields = np.stack([_draw(prior, entropy, k) for k in range(count)])
    values = fields[0] if runs is None else fields
    settings = {"preset": preset, "alpha": alpha, "boundary": boundary, "burn_in": burn_in}
    attrs = provenance("spacetime_field", seed=entropy, **settings)
    return _labelled(values, parameters, coords, attrs)


def _draw(prior: SpaceTime, entropy: int, run: int) -> Float:
    """Draw one run (steps, ny, nx)."""
    white = member_generator(entropy, 1, run).standard_normal((1, prior.total, prior.nodes))
    drawn = prior.sample(white)[0, prior.burn_in :]
    return drawn.reshape(prior.steps, *prior.operator.mesh.shape)


def _parameters(mesh: Mesh, preset: str, alpha: int, entropy: int) -> SpdeParameters:
    if preset == "iso":
        return SpdeParameters.of(mesh.shape, kappa=_KAPPA)
    if preset == "diff":
        v1, v2 = _stream_velocity(mesh.shape)
        return SpdeParameters.of(mesh.shape, kappa=_KAPPA, v1=v1, v2=v2, beta=_BETA)
    return _random_parameters(mesh, alpha, member_generator(entropy, 0))


def _stream_velocity(shape: tuple[int, int]) -> tuple[Float, Float]:
    """Direction of diffusion of "diff", by central differences also at the edges."""
    wave = 2.0 * np.pi / (5.0 * _WAVE)
    y, x = (np.sin(wave * np.arange(-1, n + 1)) for n in shape)
    along = (2.0 * _WAVE / np.pi) * 0.75 * (x[2:] - x[:-2]) / 2.0
    across = -0.25 * (y[2:] - y[:-2]) / 2.0
    return np.broadcast_to(along, shape), np.broadcast_to(across[:, None], shape)


def _random_parameters(mesh: Mesh, alpha: int, rng: np.random.Generator) -> SpdeParameters:
    def smooth() -> Float:
        """Smooth map with a standard normal value everywhere."""
        reach = max(max(mesh.shape) / _SMOOTH, 1.0)
        edge = math.ceil(3 * reach)
        white = rng.standard_normal([n + 2 * edge for n in mesh.shape])
        drawn = gaussian_filter(white, reach, truncate=3.0)[edge:-edge, edge:-edge]
        impulse = np.zeros((2 * edge + 1, 2 * edge + 1))
        impulse[edge, edge] = 1.0
        power = float((gaussian_filter(impulse, reach, truncate=3.0) ** 2).sum())
        return np.asarray(drawn / math.sqrt(power))

    def between(low: float, high: float) -> Float:
        return np.asarray(low * (high / low) ** ndtr(smooth()))

    near, time, std = (between(*_RANDOM[name]) for name in _RANDOM)
    u, v = (_SPEED * (2.0 * ndtr(smooth()) - 1.0) for _ in range(2))
    kappa = time ** (-1.0 / alpha)
    gamma, speed = (kappa * near) ** 2, 1.0 if alpha == 2 else 2.0 * kappa**2
    given = {"kappa": kappa, "m1": u / speed, "m2": v / speed, "v1": smooth(), "v2": smooth(),
             "gamma": gamma, "beta": gamma}  # fmt: skip
    bare = SpdeParameters.of(mesh.shape, **given)
    tau = std / local_std(bare, mesh, dt=1.0, alpha=alpha)[0]
    return SpdeParameters.of(mesh.shape, tau=tau, **given)


def _coordinates(shape: tuple[int, int], resolution: float | None) -> dict[str, xr.DataArray]:
    if resolution is not None:
        return degrees_around(_MIDDLE, shape, resolution)
    return {
        name: xr.DataArray(
            np.arange(float(n)), dims=name,
            attrs={"units": "m", "standard_name": f"projection_{name}_coordinate"},
        )
        for name, n in zip("yx", shape, strict=True)
    }  # fmt: skip


def _labelled(
    values: Float, parameters: SpdeParameters, coords: dict[str, xr.DataArray],
    attrs: dict[str, Any],
) -> xr.Dataset:  # fmt: skip
    across = tuple(name for name in coords if name != "time")
    dims = ("run", "time", *across)[-values.ndim :]
    result = xr.Dataset({"field": (dims, values)}, coords, attrs)
    result["field"].attrs = {"long_name": "Gaussian field", "units": "1"}
    for name in THETA:
        text = f"{_WORDS[name]}, in units of cells and steps"
        result[name] = (across, getattr(parameters, name)[0], {"long_name": text, "units": "1"})
    return result.assign_attrs(Conventions="CF-1.11")


def diagonal_mask(
    like: xr.DataArray,
    *,
    width: int = 4,
    shift: int = 10,
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Tell which cells are observed along diagonals that move from step to step.

    At step t those with ``(i - j - shift t) mod n < width`` or ``(i + j - shift t) mod n < width``,
    where i and j count columns and rows and n columns there are: 7.8 % of 100 x 100 cells with the
    defaults; 12 % of 32 x 32 with a width of 2 and a shift of 5.

    Parameters
    ----------
    like : DataArray (time, Y, X)
        Times and grid; its values are not read.
    width : int, default 4
        Cells across a diagonal, along a row.
    shift : int, default 10
        Columns that the diagonals move per step.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    DataArray (time, Y, X)
        True where a cell is observed; ``like.where(mask)`` are the observations.

    Raises
    ------
    DTypeError, AxisNotFoundError
        No DataArray, or without time or horizontal axes.
    ParameterError
        A width that is not positive.

    Examples
    --------
    >>> import xr_spde
    >>> world = xr_spde.synthetic.spacetime_field((100, 100), preset="iso", alpha=2, seed=1)
    >>> round(float(xr_spde.synthetic.diagonal_mask(world.field).mean()), 4)
    0.0784
    """
    if not isinstance(like, xr.DataArray):
        raise DTypeError(f"like is of type {type(like).__name__}; expected a DataArray with time")
    if width < 1:
        raise ParameterError(f"width={width!r}; expected at least 1")
    grid, times = Grid.from_object(like, x=x, y=y), find_time(like)
    (ny, nx), steps = grid.shape, times.size
    t, j, i = np.ogrid[:steps, :ny, :nx]
    seen = ((i - j - shift * t) % nx < width) | ((i + j - shift * t) % nx < width)
    dims = (str(times.dims[0]), grid.y_dim, grid.x_dim)
    coords = {name: coord for name, coord in like.coords.items() if set(coord.dims) <= set(dims)}
    return xr.DataArray(
        grid.from_canonical(seen), coords, dims, "observed", {"long_name": "whether observed"}
    )

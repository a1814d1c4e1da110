"""How a large scene is cut into tiles, and what is known of it before any is fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

from xr_spde._core.errors import ParameterError
from xr_spde.fields.cells import Cells
from xr_spde.labels.tile_map import Tile
from xr_spde.latent.pyramid import QUIET, Pair, default_smoothness, shapes

__all__ = ["READY", "Scene", "TilePlan", "scene_of", "survey", "tile_plan"]

_WHOLE_CELLS = 2**22  # more take tiles by default: 1.7 GB and a quarter of an hour
_COARSE_CELLS = 2**19
_TILE = 1024
_SUPPORT = 24  # cells of the coarsest grid of a tile, over which a border makes itself felt
READY = 56  # cells that smoothing and local means reach
_REACH = 256  # cells of motion to either side, at most, by default
_SAMPLES = 2**20


@dataclass(frozen=True, eq=False)
class TilePlan:
    """How a scene is cut.

    Attributes
    ----------
    cells : Cells
        The whole grid.
    tile : int
        Rows and columns of a tile, at most.
    halo : int
        Rows and columns around it that are computed too.
    coarse : tuple of int
        Shape of the whole scene on the coarse grid.
    """

    cells: Cells
    tile: int
    halo: int
    coarse: tuple[int, int]

    @property
    def factors(self) -> tuple[float, float]:
        """Rows and columns of the grid in one of the coarse grid."""
        ny, nx = self.cells.shape
        return ny / self.coarse[0], nx / self.coarse[1]

    @property
    def support(self) -> int:
        """Cells of the halo that are not for the motion itself."""
        return math.ceil(_SUPPORT * max(self.factors) / 2) + READY


@dataclass(frozen=True)
class Scene:
    """What is known of the whole pair of images.

    Attributes
    ----------
    mean, spread : float
        Of both images.
    noise : float
        Over the spread.
    brightness : {"constant", "varying"}
        What is followed.
    weight : float
        Of the data.
    """

    mean: float
    spread: float
    noise: float
    brightness: str
    weight: float

    @property
    def reach(self) -> int:
        """Cells that smoothing and local means look at around a place."""
        return 8 + (48 if self.brightness == "varying" else 0)

    def pair(self, u0: NDArray[Any], u1: NDArray[Any]) -> Pair:
        """Make a window ready."""
        return Pair.of(
            u0,
            u1,
            brightness=self.brightness,
            smooth=1.5 if self.noise > QUIET else 0.0,
            standard=(self.mean, self.spread),
        )


def tile_plan(
    cells: Cells, *, tile: int | str = "auto", halo: int | str = "auto", search: float = 0.25
) -> TilePlan | None:
    """Decide whether and how a scene is cut.

    Parameters
    ----------
    cells : Cells
        The grid.
    tile : int or "auto"
        Rows and columns of a tile, at least 64; by default scenes of up to 4 million cells are
        fitted whole, and larger ones by tiles of 1024.
    halo : int or "auto"
        Rows and columns around a tile that are computed with it. By default half the search, at
        most 256 cells, and what the fit looks at around a place.
    search : float
        Longest displacement that is tried, as a share of the sides.

    Returns
    -------
    TilePlan or None
        None where the scene is fitted whole.

    Raises
    ------
    ParameterError
        For sizes that cannot be used.
    """
    _check_size("tile", tile, 64)
    ny, nx = cells.shape
    size = _TILE if tile == "auto" else int(tile)
    limit = _WHOLE_CELLS if tile == "auto" else 0
    levels = shapes(cells.shape)
    if ny * nx <= limit or max(ny, nx) <= size or len(levels) == 1:
        if halo != "auto" and tile == "auto":
            raise ParameterError(
                f"halo={halo!r} for a scene of {ny} x {nx} cells, which is fitted whole; give "
                "tile= as well, or leave it away"
            )
        return None
    coarse = max(level for level in levels[:-1] if math.prod(level) <= _COARSE_CELLS)
    plan = TilePlan(cells, size, 0, coarse)
    _check_size("halo", halo, plan.support)
    reach = min(math.ceil(search * max(ny, nx) / 2), _REACH)
    return TilePlan(cells, size, reach + plan.support if halo == "auto" else int(halo), coarse)


def _check_size(name: str, given: int | str, least: int) -> None:
    if given != "auto" and (not isinstance(given, int) or given < least):
        raise ParameterError(f'{name}={given!r}; expected "auto" or an integer of {least} or more')


def survey(u0: NDArray[Any], u1: NDArray[Any], *, tile: Tile, plan: TilePlan) -> dict[str, Any]:
    """Values and roughness of a tile on a lattice of at most a million cells of the scene.

    Parameters
    ----------
    u0, u1 : ndarray
        Window of the images; NaN is missing.
    tile : Tile
        Which.
    plan : TilePlan
        How the scene is cut.

    Returns
    -------
    dict
    """
    step = math.ceil(math.sqrt(math.prod(plan.cells.shape) / _SAMPLES))
    rows, columns = tile.inner
    lattice = (slice(-tile.top % step, None, step), slice(-tile.left % step, None, step))
    kernel = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0])
    found: dict[str, Any] = {"infinite": [bool(np.isinf(u).any()) for u in (u0, u1)]}
    for name, image in (("first", u0), ("second", u1)):
        values = image.astype(np.float64)
        rough = np.abs(convolve(values, kernel, mode="nearest"))
        for key, field in ((name, values), ("rough", rough)):
            picked = field[rows, columns][lattice]
            kept = picked[np.isfinite(picked)]
            found[key] = np.concatenate([found[key], kept]) if key in found else kept
    return found


def scene_of(
    surveys: Sequence[Mapping[str, Any]], *, brightness: str, smoothness: float | None
) -> Scene:
    """Join the surveys of all tiles.

    Parameters
    ----------
    surveys : sequence of mapping
        What :func:`survey` returned.
    brightness : {"auto", "constant", "varying"}
        See :func:`xr_spde.latent.motion.fit_motion`.
    smoothness : float, optional
        The same.

    Returns
    -------
    Scene

    Raises
    ------
    ParameterError
        Images without data, constant, or with infinite values.
    """
    images = [np.concatenate([s[name] for s in surveys]) for name in ("first", "second")]
    for k, name in enumerate(("first", "second")):
        if any(s["infinite"][k] for s in surveys) or not images[k].size:
            what = "no data" if images[k].size == 0 else "infinite values"
            raise ParameterError(f"the {name} image has {what}; mark what is missing as NaN")
        if np.ptp(images[k]) == 0:
            raise ParameterError(
                f"the {name} image is constant ({images[k][0]:g}); motion needs something to follow"
            )
    both = np.concatenate(images)
    spread = float(both.std())
    rough = np.concatenate([s["rough"] for s in surveys])
    noise = float(np.median(rough) / 0.6745 / 6.0 / spread) if rough.size else 0.0
    kind = brightness
    if brightness == "auto":
        off = abs(float(np.median(images[1]) - np.median(images[0])))
        own = (float(images[0].std()) + float(images[1].std())) / 2
        kind = "varying" if off > 0.3 * own else "constant"
    weight = 1.0 / (default_smoothness(noise) if smoothness is None else smoothness)
    return Scene(float(both.mean()), spread, noise, kind, weight)

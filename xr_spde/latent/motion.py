r"""Motion between two images from the images alone: a steady velocity and its characteristics.

The velocity q is sought so that both images, carried to the middle of the interval, agree there:

.. math::

    r(x) = u_1(\phi_{1/2}(x)) - u_0(\phi_{-1/2}(x)), \qquad
    \min_q \sum \lambda |r| + \mathrm{TGV}(q),

with :math:`\phi` the flow of q (:mod:`xr_spde.fields.characteristics`). r is linearised again and
again, coarse to fine, and a median filter follows each time. Several first motions are followed to
the end, and the one that best carries each image into the other is kept.

References
----------
Sun, D., Roth, S. and Black, M. J. (2010): Secrets of optical flow estimation and their principles.
CVPR (the median). Vercauteren, T. et al. (2008): Symmetric log-domain diffeomorphic registration.
MICCAI (steady velocities).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import FlowReport, departure, flow_report
from xr_spde.latent.descent import STARTS, last_within, race, score, sides
from xr_spde.latent.evidence import Evidence, evidence_of
from xr_spde.latent.layers import Layers, find_layers
from xr_spde.latent.pyramid import (
    QUIET,
    Pair,
    check_pair,
    default_smoothness,
    noise_ratio,
    resize,
    shapes,
)

__all__ = ["STARTS", "Motion", "fit_motion", "score"]


BRIGHTNESS = ("auto", "constant", "varying")

_CHANGING_CELLS = 130**2  # images that change are followed by their means on so many cells


@dataclass(frozen=True, eq=False)
class Motion:
    """A steady velocity between two images, and how it was found.

    Attributes
    ----------
    velocity : ndarray (2, ny, nx)
        In cells per interval, x first, of the dtype of the images (float64 for integers).
    cells : Cells
        The grid.
    mismatch : float
        Mean absolute difference after each image was carried into the other, in standard
        deviations of the pair.
    starts : dict
        The same of each start where they were compared, on a coarser grid if this one is large.
    report : FlowReport
        Courant and Lipschitz numbers, folds and inflow over the interval.
    noise : float
        Noise of the images over their standard deviation, as it was estimated.
    beyond_search : bool
        Whether the motion is about as long as the longest that was searched for.
    brightness : {"constant", "varying"}
        What was followed: values, or patterns alone.
    layers : Layers, optional
        Pieces that cover each other as they move, with motions of their own; None where the motion
        is in one piece or the images do not tell what covers what.
    change : float
        Share of the difference of the images that motion leaves unexplained on a coarse grid; NaN
        where it was not asked. See :mod:`xr_spde.latent.evidence`.
    smoothness : float
        Factor on the weight of the regularisation that was used.
    """

    velocity: NDArray[np.floating]
    cells: Cells
    mismatch: float
    starts: dict[str, float] = field(default_factory=dict)
    report: FlowReport | None = None
    noise: float = 0.0
    beyond_search: bool = False
    brightness: str = "constant"
    layers: Layers | None = None
    change: float = float("nan")
    smoothness: float = 1.0

    def reversed(self) -> Motion:
        """Return the motion from the second image to the first."""
        layers = None if self.layers is None else self.layers.reversed()
        return replace(self, velocity=-self.velocity, layers=layers)

    def positions(
        self, at: float, since: float
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Positions (y, x) in cells, at one time, of the parcels that are at the nodes at another.

        Parameters
        ----------
        at : float
            Time, as a share of the interval, at which parcels are at the nodes.
        since : float
            Time at which their positions are asked.

        Returns
        -------
        y, x : ndarray (ny, nx)
        """
        y, x = departure(self.velocity, at - since, periodic_x=self.cells.periodic_x)
        return y, x


def fit_motion(
    u0: ArrayLike,
    u1: ArrayLike,
    cells: Cells | None = None,
    *,
    starts: Sequence[str | NDArray[np.floating]] = STARTS,
    brightness: str = "auto",
    search: float = 0.25,
    smoothness: float | None = None,
) -> Motion:
    """Estimate the steady velocity between two images.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images at the beginning and the end; NaN is missing. Speckled images should be in dB.
    cells : Cells, optional
        Sizes of the cells, so that smoothness is per length, and whether x closes; by default all
        are alike.
    starts : sequence of str or ndarray (2, ny, nx)
        First motions to follow, see :data:`STARTS`; arrays are velocities in cells per interval.
    brightness : {"auto", "constant", "varying"}
        Whether values are carried as they are, or may grow and fade on the way, so that only
        patterns are followed. "auto" takes what explains the pair better, see
        :func:`xr_spde.latent.evidence.evidence_of`; the motion tells which.
    search : float
        Longest displacement that "match" tries, as a share of the sides of the image.
    smoothness : float, optional
        Factor on the weight of the regularisation. By default 1, and more in noise and, where
        `brightness` is "auto", for images that change as they move.

    Returns
    -------
    Motion

    Raises
    ------
    ParameterError
        Images, starts or settings that cannot be used.
    UnknownNameError
        Another start or brightness.

    Warns
    -----
    UserWarning
        If the motion is about as long as the search, which may have cut it off.

    Notes
    -----
    Computed in float32. Exchanging the images reverses the motion.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.latent.textures import texture
    >>> from xr_spde.latent.motion import fit_motion
    >>> y, x = np.mgrid[0:32, 0:32]
    >>> motion = fit_motion(texture(1, y, x), texture(1, y, x - 2.0), starts=["zero"])
    >>> bool(np.abs(np.median(motion.velocity, axis=(1, 2)) - [2.0, 0.0]).max() < 0.05)
    True
    """
    first, second = check_pair(u0, u1)
    grid = Cells(*first.shape) if cells is None else cells
    _check_settings(first.shape, grid, starts, brightness, search, smoothness)
    rim = first.shape[1] // 4 if grid.periodic_x else 0
    wide0, wide1 = (_closed(u, rim) for u in (first, second))
    flat = Cells(wide0.shape[0], wide0.shape[1], grid.height, grid.width)
    noise = noise_ratio(wide0, wide1)
    smooth = 1.5 if noise > QUIET else 0.0
    found = Evidence(brightness, default_smoothness(noise), float("nan"))
    if brightness == "auto":
        found = evidence_of(
            wide0, wide1, flat, noise=noise, smooth=smooth, starts=starts, search=search
        )
    factor = found.smoothness if smoothness is None else smoothness
    wide, marks, mismatch = _fitted(
        (wide0, wide1), flat, found, smooth, starts=starts, search=search, rim=rim, factor=factor
    )
    velocity = wide[..., rim : rim + first.shape[1]].astype(first.dtype)
    beyond = bool((np.abs(velocity).max(axis=(1, 2)) > 0.95 * search * sides(first.shape)).any())
    if beyond:
        warnings.warn(
            f"the motion reaches {np.abs(velocity).max():.1f} cells, about as far as was searched; "
            f"give search above {search:g} to try longer ones",
            UserWarning,
            stacklevel=2,
        )
    report = flow_report(velocity, 1.0, grid)
    return Motion(
        velocity,
        grid,
        mismatch,
        marks,
        report,
        noise,
        beyond,
        found.brightness,
        find_layers(first, second, velocity, periodic_x=grid.periodic_x),
        change=found.change,
        smoothness=factor,
    )


def _fitted(
    images: tuple[NDArray[np.floating], NDArray[np.floating]],
    cells: Cells,
    found: Evidence,
    smooth: float,
    *,
    starts: Sequence[str | NDArray[np.floating]],
    search: float,
    rim: int,
    factor: float,
) -> tuple[NDArray[np.float32], dict[str, float], float]:
    """Motion, mismatch of the starts, and its own; of images that change, from their means."""
    pair = Pair.of(*images, brightness=found.brightness, smooth=smooth)
    levels = shapes(pair.shape)
    shape = levels[last_within(levels, _CHANGING_CELLS)]
    given = any(not isinstance(s, str) for s in starts)
    if not found.changing or given or shape == pair.shape:
        wide, _, marks = race(pair, cells, starts, search, rim, 1.0 / factor)
        return wide, marks, score(pair, wide)
    whole = Pair.of(*images, smooth=smooth).coarser(shape)
    means = [np.where(m > 0, u, np.nan) for u, m in ((whole.u0, whole.m0), (whole.u1, whole.m1))]
    coarse = Pair.of(means[0], means[1], brightness=found.brightness)
    flat = cells.coarser(shape)
    slow, _, marks = race(coarse, flat, starts, search, 0, 1.0 / factor)
    size = (sides(pair.shape) / sides(shape)).astype(np.float32)[:, None, None]
    return resize(slow, pair.shape) * size, marks, score(coarse, slow)


def _check_settings(
    shape: tuple[int, ...],
    cells: Cells,
    starts: Sequence[str | NDArray[np.floating]],
    brightness: str,
    search: float,
    smoothness: float | None,
) -> None:
    if cells.shape != shape:
        raise ParameterError(f"cells of shape {cells.shape} for images of shape {shape}")
    if brightness not in BRIGHTNESS:
        raise unknown("brightness", brightness, BRIGHTNESS)
    if not len(starts):
        raise ParameterError(f"starts is empty; give some of {STARTS} or velocities")
    for start in starts:
        if isinstance(start, str) and start not in STARTS:
            raise unknown("start", start, STARTS)
        if not isinstance(start, str) and np.shape(start) != (2, *shape):
            raise ParameterError(
                f"a start has shape {np.shape(start)}; expected {(2, *shape)}, x component first"
            )
    if not 0 < search <= 1:
        raise ParameterError(f"search={search!r}; expected a share above 0 and up to 1")
    if smoothness is not None and not smoothness > 0:
        raise ParameterError(f"smoothness={smoothness!r}; expected a factor above 0")


def _closed(image: NDArray[np.floating], rim: int) -> NDArray[np.floating]:
    """Image with columns of the other side on each side."""
    return np.pad(image, ((0, 0), (rim, rim)), mode="wrap") if rim else image

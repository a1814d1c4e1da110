"""Images on coarser grids, with gaps, and what the estimation of motion reads from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import convolve, gaussian_filter

from xr_spde._core.errors import ParameterError
from xr_spde.fields.sampling import fill_nearest, sample

__all__ = [
    "QUIET",
    "Pair",
    "brightness_of",
    "centres_of",
    "check_pair",
    "default_smoothness",
    "gradient",
    "noise_ratio",
    "resize",
    "shapes",
]

Real = NDArray[np.float32]

SMALLEST = 16
"""Rows or columns of the coarsest level, at least."""

QUIET = 0.1
"""Noise over standard deviation of the images, below which nothing is done about it."""


def check_pair(u0: ArrayLike, u1: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Two images as arrays of one floating type.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images; NaN is missing, integers become float64.

    Returns
    -------
    u0, u1 : ndarray (ny, nx)

    Raises
    ------
    ParameterError
        Other shapes, infinite values, an image without data, or images that are constant.
    """
    images = [np.asarray(u) for u in (u0, u1)]
    if images[0].shape != images[1].shape or images[0].ndim != 2 or min(images[0].shape) < 16:
        raise ParameterError(
            f"images of shapes {images[0].shape} and {images[1].shape}; expected the same (ny, nx) "
            "with at least 16 rows and columns"
        )
    kind = np.result_type(*images)
    if kind.kind not in "fiub":
        raise ParameterError(f"images of dtype {kind}; expected real numbers")
    dtype = kind if kind.kind == "f" else np.dtype(np.float64)
    for name, image in zip(("first", "second"), images, strict=True):
        values = image[np.isfinite(image)]
        infinite = bool(np.isinf(image).any())
        if infinite:
            raise ParameterError(
                f"the {name} image has infinite values; mark what is missing as NaN"
            )
        if not values.size:
            raise ParameterError(f"the {name} image has no data; leave that frame out")
        if _combed(image):
            raise ParameterError(
                f"the {name} image has data only in rows or columns that alternate with empty ones,"
                " as of frames on different grids that were joined; bring them to one grid first, "
                "for instance with .interp_like()"
            )
        if np.ptp(values.astype(np.float64)) == 0:
            raise ParameterError(
                f"the {name} image is constant ({values[0]:g}); motion needs something to follow"
            )
    return images[0].astype(dtype), images[1].astype(dtype)


def _combed(image: NDArray[Any]) -> bool:
    """Whether empty rows or columns alternate with others again and again."""
    filled = np.isfinite(image)
    turns = [np.abs(np.diff(filled.any(axis=axis).astype(np.int8))).sum() for axis in (0, 1)]
    return any(count > n // 3 for count, n in zip(turns, image.shape[::-1], strict=True))


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images made ready: gaps filled, standardised together, with masks of what is known.

    Attributes
    ----------
    u0, u1 : ndarray (ny, nx)
        Float32, mean 0 and standard deviation 1 over the pair.
    m0, m1 : ndarray (ny, nx)
        1 where known and 0 in gaps, float32.
    """

    u0: Real
    u1: Real
    m0: Real
    m1: Real

    @classmethod
    def of(
        cls,
        u0: NDArray[Any],
        u1: NDArray[Any],
        *,
        brightness: str = "constant",
        smooth: float = 0,
        standard: tuple[float, float] | None = None,
    ) -> Pair:
        """Standardise a pair.

        Parameters
        ----------
        u0, u1 : ndarray (ny, nx)
            Images; NaN is missing.
        brightness : {"constant", "varying"}
            Whether values are carried as they are, or only their pattern is: the mean and the
            standard deviation over about 6 cells are then taken out of each image.
        smooth : float
            Standard deviation in cells of a Gaussian that is applied first.
        standard : (float, float), optional
            Mean and standard deviation to take, where the images are parts of larger ones.

        Returns
        -------
        Pair
        """
        masks = [np.isfinite(u).astype(np.float32) for u in (u0, u1)]
        if standard is None:
            known = np.concatenate([u[np.isfinite(u)] for u in (u0, u1)]).astype(np.float64)
            standard = float(known.mean()), float(known.std())
        mean, spread = standard
        images = [(np.where(m > 0, u, mean) - mean) / (spread or 1.0)
                  for u, m in zip((u0, u1), masks, strict=True)]  # fmt: skip
        if smooth > 0:
            images = [_blurred(u, m, smooth) for u, m in zip(images, masks, strict=True)]
        if brightness == "varying":
            images = [_patterned(u, m) for u, m in zip(images, masks, strict=True)]
        filled = [
            fill_nearest(np.where(m > 0, u, np.nan).astype(np.float32))
            for u, m in zip(images, masks, strict=True)
        ]
        return cls(filled[0], filled[1], masks[0], masks[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.u0.shape[0], self.u0.shape[1]

    def coarser(self, shape: tuple[int, int]) -> Pair:
        """Return the pair on fewer cells.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns.

        Returns
        -------
        Pair
        """
        if shape == self.shape:
            return self
        factor = max(a / b for a, b in zip(self.shape, shape, strict=True))
        return self.sampled(factor, *centres_of(shape, self.shape))

    def sampled(self, factor: float, rows: Real, columns: Real) -> Pair:
        """Return local means at some places.

        Parameters
        ----------
        factor : float
            Cells over which means are taken, along each axis.
        rows, columns : ndarray (my,), (mx,)
            Places in cells.

        Returns
        -------
        Pair
            Of (my, mx) cells.
        """
        sigma = 0.5 * np.sqrt(max(factor**2 - 1, 0.0))
        y, x = np.meshgrid(rows, columns, indexing="ij")
        images, masks = [], []
        for u, m in ((self.u0, self.m0), (self.u1, self.m1)):
            share = gaussian_filter(m, sigma, mode="nearest")
            blurred = gaussian_filter(u * m, sigma, mode="nearest") / np.maximum(share, 1e-6)
            known = np.where(share > 1e-3, blurred, u).astype(np.float32)
            images.append(np.asarray(sample(known, y, x, kernel="linear")))
            masks.append((sample(share, y, x, kernel="linear") > 0.5).astype(np.float32))
        return Pair(images[0], images[1], masks[0], masks[1])


def _blurred(image: NDArray[Any], mask: Real, sigma: float) -> NDArray[np.float64]:
    """Gaussian mean of what is known."""
    share = gaussian_filter(mask.astype(np.float64), sigma, mode="nearest")
    total = gaussian_filter(image * mask, sigma, mode="nearest")
    return np.asarray(total / np.maximum(share, 1e-6))


def _patterned(image: NDArray[Any], mask: Real, sigma: float = 6.0) -> NDArray[np.float64]:
    """Image less its local mean, over its local standard deviation."""
    centred = image - _blurred(image, mask, sigma)
    spread = np.sqrt(_blurred(centred**2, mask, sigma))
    # a floor keeps flat parts from becoming noise
    return np.asarray(centred / (spread + 0.05))


def centres_of(shape: tuple[int, int], of: tuple[int, int]) -> tuple[Real, Real]:
    """Place the centres of cells in a grid over the same domain.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the cells.
    of : tuple of int
        Rows and columns of the grid in whose cells places are counted.

    Returns
    -------
    rows, columns : ndarray
        Float32.
    """
    rows, columns = (
        ((np.arange(m) + 0.5) * n / m - 0.5).astype(np.float32)
        for m, n in zip(shape, of, strict=True)
    )
    return rows, columns


def resize(fields: NDArray[Any], shape: tuple[int, int]) -> Real:
    """Sample fields bilinearly at the centres of other cells over the same domain.

    Parameters
    ----------
    fields : ndarray (..., ny, nx)
        Values.
    shape : tuple of int
        Rows and columns of the result.

    Returns
    -------
    ndarray (..., *shape)
        Float32.
    """
    if fields.shape[-2:] == shape:
        return fields.astype(np.float32)
    rows, columns = centres_of(shape, (fields.shape[-2], fields.shape[-1]))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(sample(fields.astype(np.float32), y, x, kernel="linear"))


def gradient(fields: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Differentiate along x and y per cell; central, one-sided at borders.

    Parameters
    ----------
    fields : ndarray (..., ny, nx)
        Values.

    Returns
    -------
    along_x, along_y : ndarray (..., ny, nx)
    """
    return np.gradient(fields, axis=-1), np.gradient(fields, axis=-2)


def shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of the levels, coarsest first, each about twice the one before.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the images.

    Returns
    -------
    list of tuple
    """
    levels = [shape]
    while min(levels[0]) // 2 >= SMALLEST:
        levels.insert(0, ((levels[0][0] + 1) // 2, (levels[0][1] + 1) // 2))
    return levels


def noise_ratio(u0: NDArray[Any], u1: NDArray[Any]) -> float:
    """Estimate the standard deviation of noise between neighbours over that of the images.

    From the median magnitude of the mixed second difference, which smooth images hardly have.

    Parameters
    ----------
    u0, u1 : ndarray (ny, nx)
        Images; NaN is missing.

    Returns
    -------
    float

    References
    ----------
    Immerkaer, J. (1996): Fast noise variance estimation. Comput. Vis. Image Underst. 64, 300-302.
    """
    row = np.array([1.0, -2.0, 1.0])
    rough = [convolve(u.astype(np.float64), np.outer(row, row), mode="nearest") for u in (u0, u1)]
    high = np.concatenate([r[np.isfinite(r)] for r in rough])
    spread = float(np.nanstd(np.stack([u0, u1])))
    if not high.size or not spread > 0:
        return 0.0
    return float(np.median(np.abs(high)) / 0.6745 / 6.0 / spread)


def default_smoothness(noise: float) -> float:
    """Factor on the weight of the regularisation in noise.

    Parameters
    ----------
    noise : float
        Over the standard deviation of the images.

    Returns
    -------
    float
        1 to 50; the data say less by the variance of their noise.
    """
    return min(max(1.0, (noise / QUIET) ** 2), 50.0)


def brightness_of(u0: NDArray[np.floating], u1: NDArray[np.floating]) -> str:
    """Tell whether the images have one level of brightness.

    Parameters
    ----------
    u0, u1 : ndarray (ny, nx)
        Images; NaN is missing.

    Returns
    -------
    {"constant", "varying"}
        "varying" where the medians differ by more than 0.3 standard deviations.
    """
    off = float(np.nanmedian(u1) - np.nanmedian(u0))
    spread = (float(np.nanstd(u0)) + float(np.nanstd(u1))) / 2
    return "varying" if abs(off) > 0.3 * spread else "constant"

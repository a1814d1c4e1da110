"""Errors and intervals of frames, by a calibration on frames that were known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.latent.reading import ImageSequence
from xr_spde.latent.uncertainty import error_scale

__all__ = ["check_calibration", "frame_errors", "frame_scale", "uncertain_frames"]

_TEXTS = {
    "error": "standard deviation of the error",
    "lower": "lower end of the interval",
    "upper": "upper end of the interval",
    "disagreement": "second image less first, both carried to the time",
}


def check_calibration(calibration: Any, level: float, method: str) -> None:
    """Check that a calibration can be used.

    Parameters
    ----------
    calibration : Dataset
        What `xr_spde.latent.calibrate` returned.
    level : float
        Probability that an interval is to hold.
    method : str
        That makes the frames.

    Raises
    ------
    SchemaError
        Something else than a calibration.
    ParameterError
        A level it does not hold, or frames by another method.
    """
    if not isinstance(calibration, xr.Dataset) or not {"quantile", "rms"} <= set(calibration):
        raise SchemaError(
            "calibration lacks quantile and rms; pass what .latent.calibrate() returned"
        )
    levels = calibration["level"].to_numpy()
    if not np.isclose(levels, level).any():
        raise ParameterError(f"level={level!r}; the calibration holds {levels.tolist()}")
    made = calibration.attrs.get("xr_spde_interpolation", method)
    if made != method:
        raise ParameterError(
            f"calibration of frames by method={made!r}, and these are by {method!r}; calibrate them"
        )


def frame_scale(
    frames: ImageSequence,
    which: NDArray[np.intp],
    tau: NDArray[np.float64],
    made: Mapping[str, xr.DataArray],
) -> xr.DataArray:
    """Scale of the error of frames; see `xr_spde.latent.uncertainty.error_scale`.

    Parameters
    ----------
    frames : ImageSequence
        Between which they lie.
    which : ndarray of int
        Interval of each.
    tau : ndarray
        Share of it that has passed.
    made : mapping of str to DataArray (time, ..., y, x)
        With ``disagreement`` and ``seen``.

    Returns
    -------
    DataArray (time, ..., y, x)
    """
    dim = frames.time.dim
    space = (frames.grid.y_dim, frames.grid.x_dim)
    first, second = frames.ends(which, dim)
    return apply_core(
        _scale,
        first,
        second,
        made["disagreement"].drop_vars(dim, errors="ignore"),
        made["seen"].drop_vars(dim, errors="ignore"),
        xr.DataArray(tau, dims=dim),
        core_dims=[space, space, space, space, ()],
        output={"scale": Output(space, frames.data.dtype)},
        kwargs={"grid": frames.grid},
    )["scale"]


def _scale(
    u0: NDArray[Any],
    u1: NDArray[Any],
    disagreement: NDArray[Any],
    seen: NDArray[np.int8],
    tau: NDArray[np.float64],
    *,
    grid: Grid,
) -> NDArray[Any]:
    # in canonical order, so that the sum does not depend on how the images are stored
    both = np.stack([grid.to_canonical(u0), grid.to_canonical(u1)]).astype(np.float64)
    d, count = grid.to_canonical(disagreement), grid.to_canonical(seen)
    return grid.from_canonical(error_scale(d, count, float(tau), float(np.nanstd(both))))


def frame_errors(
    frames: ImageSequence,
    which: NDArray[np.intp],
    tau: NDArray[np.float64],
    made: Mapping[str, xr.DataArray],
    calibration: xr.Dataset,
    level: float,
) -> dict[str, xr.DataArray]:
    """Put standard errors and intervals to frames.

    Parameters
    ----------
    frames : ImageSequence
        Between which they lie.
    which : ndarray of int
        Interval of each.
    tau : ndarray
        Share of it that has passed.
    made : mapping of str to DataArray (time, ..., y, x)
        ``image``, ``disagreement`` and ``seen``.
    calibration : Dataset
        What `xr_spde.latent.calibrate` returned.
    level : float
        Probability that the interval is to hold.

    Returns
    -------
    dict of DataArray
        ``error``, ``lower`` and ``upper``.
    """
    factors = calibration[["quantile", "rms"]].sel(level=level, method="nearest").load()
    table = {name: factors[name].sortby("seen").to_numpy() for name in ("quantile", "rms")}
    space = (frames.grid.y_dim, frames.grid.x_dim)
    output = Output(space, frames.data.dtype)
    return apply_core(
        _interval,
        made["image"],
        made["seen"],
        frame_scale(frames, which, tau, made),
        core_dims=[space, space, space],
        output=dict.fromkeys(("error", "lower", "upper"), output),
        kwargs=table,
    )


def uncertain_frames(image: xr.DataArray, made: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """Put frames together with what tells how far they can be trusted.

    Parameters
    ----------
    image : DataArray
        The frames.
    made : mapping of str to DataArray
        ``disagreement``, ``seen``, and ``error``, ``lower`` and ``upper`` where calibrated.

    Returns
    -------
    Dataset
    """
    parts = {
        name: made[name].assign_attrs(derived_attrs(image.attrs, long_name=text))
        for name, text in _TEXTS.items()
        if name in made
    }
    seen = made["seen"].assign_attrs(long_name="number of images that show the place", units="1")
    return xr.Dataset({str(image.name or "image"): image, **parts, "seen": seen})


def _interval(
    image: NDArray[Any],
    seen: NDArray[np.int8],
    scale: NDArray[Any],
    *,
    quantile: NDArray[np.float64],
    rms: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    known = np.where(np.isfinite(image), 1.0, np.nan)
    half, error = (scale * known * table[seen] for table in (quantile, rms))
    return {"error": error, "lower": image - half, "upper": image + half}

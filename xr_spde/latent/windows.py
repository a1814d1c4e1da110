"""What the fit of latent dynamics and its use share: images made ready, networks in windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.sampling import fill_nearest
from xr_spde.latent.patches import Patches

if TYPE_CHECKING:
    from xr_spde.nets.latent_settings import LatentSettings

__all__ = ["closed", "in_windows", "prepared", "seam_rim", "settings_from", "standardisation"]

Float = NDArray[np.floating]


def standardisation(frames: Float) -> tuple[float, float]:
    """Mean and standard deviation of all images together.

    Parameters
    ----------
    frames : ndarray (n, ny, nx)
        NaN is missing.

    Returns
    -------
    mean, std : float
    """
    values = frames[np.isfinite(frames)].astype(np.float64)
    return float(values.mean()), float(values.std())


def prepared(image: Float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image with its gaps filled by the nearest value, and 1 where it has data.

    Parameters
    ----------
    image : ndarray (ny, nx)
        NaN is missing.

    Returns
    -------
    image, known : ndarray (ny, nx)
        Float32.
    """
    known = np.isfinite(image)
    return fill_nearest(image).astype(np.float32), known.astype(np.float32)


def in_windows(
    function: Callable[..., NDArray[np.floating]],
    fields: Sequence[Float],
    settings: LatentSettings,
    periodic_x: bool,
) -> tuple[Float, Float]:
    """Map the windows of fields; on a grid that closes they cross the seam.

    Parameters
    ----------
    function : callable
        Of stacks (b, ..., size, size), one for each field.
    fields : sequence of ndarray (..., ny, nx)
        What is cut.
    settings : LatentSettings
        Size and distance of the windows.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    mean, disagreement : ndarray (..., ny, nx)
        Of the windows that overlap.
    """
    rim = seam_rim(settings, periodic_x)
    nx = fields[0].shape[-1]
    wide = [closed(f, rim) for f in fields]
    ny, wide_nx = wide[0].shape[-2:]
    patches = Patches(ny, wide_nx, settings.patch, settings.step)
    mean, spread = patches.apply(function, *wide)
    return mean[..., rim : rim + nx], spread[..., rim : rim + nx]


def seam_rim(settings: LatentSettings, periodic_x: bool) -> int:
    """Columns of the other side that are added on each side.

    Parameters
    ----------
    settings : LatentSettings
        Size of the windows.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    int
    """
    return settings.patch // 2 if periodic_x else 0


def closed(fields: Float, rim: int) -> Float:
    """Fields with columns of the other side on each side.

    Parameters
    ----------
    fields : ndarray (..., ny, nx)
        Periodic in x.
    rim : int
        Number of columns.

    Returns
    -------
    ndarray (..., ny, nx + 2 rim)
    """
    if not rim:
        return fields
    return np.pad(fields, [(0, 0)] * (fields.ndim - 1) + [(rim, rim)], mode="wrap")


def settings_from(given: Mapping[str, Any]) -> LatentSettings:
    """Make settings from what a file or a user holds.

    Parameters
    ----------
    given : mapping
        Names and values.

    Returns
    -------
    LatentSettings

    Raises
    ------
    ParameterError
        For names that do not exist.
    """
    from xr_spde.nets.latent_settings import LatentSettings

    names = list(LatentSettings.__dataclass_fields__)
    if strange := sorted(set(given) - set(names)):
        raise ParameterError(f"settings {strange} do not exist; known: {', '.join(names)}")
    return LatentSettings(**given)

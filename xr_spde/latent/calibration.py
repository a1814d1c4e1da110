"""How wrong frames are, learned from frames that were known."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.provenance import provenance
from xr_spde.labels.arrays import as_float
from xr_spde.latent.interpolate import interpolate
from xr_spde.latent.intervals import frame_scale
from xr_spde.latent.reading import ImageSequence
from xr_spde.latent.score import known_frames, places_between
from xr_spde.latent.uncertainty import LEVELS, conformal_table

__all__ = ["calibrate"]


def calibrate(
    da: xr.DataArray,
    truth: xr.DataArray | None = None,
    *,
    method: str = "field",
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    r"""Learn how far frames are off from frames that were known (split conformal prediction).

    The scores are :math:`|u - u_\tau| / s` with the scale s of
    `xr_spde.latent.uncertainty.error_scale`, which follows the disagreement of the two images.
    `interpolate` with ``calibration=`` multiplies its own scale by their quantiles.

    Parameters
    ----------
    da : DataArray
        Images (time, y, x); further dimensions, such as scenes of a kind, count together.
    truth : DataArray, optional
        Images at one or several times between, which are not in ``da``. Without it every image but
        the first and the last is withheld and found from its two neighbours; the intervals are then
        twice as long as between the images, and the errors larger.
    method : {"field", "latent"}
        That makes the frames.
    dim : str, optional
        Name of the time axis.
    x, y : str, optional
        Names of the horizontal axes.
    **settings
        Of `interpolate`, as they are to be used later.

    Returns
    -------
    Dataset (seen, level)
        ``quantile`` and ``rms`` of the scores and the ``count`` of cells, by the number of images
        that ``seen`` a place; NaN where too few cells tell. Computed if lazy. A few numbers, which
        ``to_netcdf`` keeps.

    Raises
    ------
    ParameterError
        Another method, fewer than three images without a truth, or a truth that is not between.
    GridError
        A truth on another grid.

    Notes
    -----
    Intervals hold as often as they promise for images of the kind that was calibrated on: the same
    sensor, season and length of the interval. Cells of one image are not independent, so a
    calibration on few images can be off by chance.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.latent import calibrate, interpolate
    >>> from xr_spde.latent.cases import make_case
    >>> def frames(seed):
    ...     case = make_case("tex_rot", 32, seed)
    ...     stack = [case.frame(t) for t in (0, 0.5, 1)]
    ...     return xr.DataArray(np.array(stack), {"time": [0.0, 1.0, 2.0]}, ("time", "y", "x"))
    >>> known, other = frames(1), frames(2)
    >>> table = calibrate(known)
    >>> pair = other.isel(time=[0, 2])
    >>> found = interpolate(pair, 1.0, uncertainty=True, calibration=table, level=0.9)
    >>> sorted(found)
    ['disagreement', 'error', 'image', 'lower', 'seen', 'upper']
    """
    if method not in ("field", "latent"):
        raise ParameterError(f'method={method!r}; frames of "field" and "latent" can be calibrated')
    axes = {"dim": dim, "x": x, "y": y}
    how = {"method": method, **settings, **axes}
    frames = ImageSequence.of(da, **axes)
    if truth is not None:
        parts = [_scores(frames, da, truth, how)]
        withheld = np.atleast_1d(truth[frames.time.dim].values).size
    else:
        withheld = da.sizes[frames.time.dim] - 2
        if withheld < 1:
            raise ParameterError(
                "two images leave none to withhold; give truth=, images at times between them, or "
                "a sequence of three and more"
            )
        name = frames.time.dim
        parts = [
            _scores(
                ImageSequence.of(da.isel({name: [k, k + 2]}), **axes),
                da.isel({name: [k, k + 2]}),
                da.isel({name: [k + 1]}),
                how,
            )
            for k in range(withheld)
        ]
    values, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
    quantiles, rms, count = conformal_table(values, classes)
    text = "absolute error over scale"
    return xr.Dataset(
        {
            "quantile": (("seen", "level"), quantiles, {"long_name": f"quantile of the {text}"}),
            "rms": ("seen", rms, {"long_name": f"root mean square of the {text}"}),
            "count": ("seen", count, {"long_name": "number of cells"}),
        },
        {"seen": [0, 1, 2], "level": list(LEVELS)},
        provenance("calibrate", interpolation=method, withheld=withheld),
    )


def _scores(
    frames: ImageSequence, da: xr.DataArray, truth: xr.DataArray, how: dict[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Absolute error over scale and number of images that see, of all cells that are known."""
    dim = frames.time.dim
    known = known_frames(as_float(truth), frames)
    when, numbers = frames.time.read(known[dim])
    which, tau = places_between(frames, np.atleast_1d(numbers), np.atleast_1d(when.values))
    made = interpolate(da.rename("image"), np.atleast_1d(when.values), uncertainty=True, **how)
    scale = frame_scale(frames, which, tau, made)
    bare = known.expand_dims(dim) if dim not in known.dims else known
    bare = bare.drop_vars([k for k, c in bare.coords.items() if dim in c.dims])
    off = abs(made["image"].drop_vars(dim) - bare)
    score = (off / scale).where(scale > 0)
    seen = made["seen"].drop_vars(dim).broadcast_like(score).transpose(*score.dims)
    return score.to_numpy().ravel(), seen.to_numpy().ravel()

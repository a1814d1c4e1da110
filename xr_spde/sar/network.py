"""Estimates by a trained network: lag statistics or replicates in, maps of parameters out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.lazyimport import require
from xr_spde._core.options import get_option
from xr_spde.sar.local import LocalFit
from xr_spde.sar.statistics import OFFSETS, LagStatistics, shifted
from xr_spde.sar.whittle import MAX_KAPPA2, MAX_RHO, min_kappa2

Array = NDArray[np.float64]

#: Spacings whose lags the network reads, in units of the distance of the stencil's neighbours.
SPACINGS = (1, 2, 4, 8)

#: Cells copied across a periodic seam on each side.
_SEAM = 64

# moments that are maps
_MAPS = ("half", "level", "weight", "variance", "seen")

# training saw no grid of fewer than 64 cells a side, and a wide spacing leaves far fewer: those
# shorter than the network's coarsest square are continued to twice its side
_SHORT, _LONG = 16, 32


@dataclass(frozen=True)
class NetworkModel:
    """Which network, and where it runs.

    Attributes
    ----------
    architecture : str
        "net", "unet", "vit", "stun" or "cnn".
    weights : str or None
        File of weights; None takes those that come with the package.
    periodic : bool
        Whether columns wrap around.
    """

    architecture: str
    weights: str | None
    periodic: bool

    @property
    def device(self) -> str:
        """Torch device: the processor, unless the option ``device`` says "cuda"."""
        return "cuda" if get_option("device") == "cuda" else "cpu"

    @property
    def path(self) -> str:
        """File of the weights."""
        return self.weights or str(resources.files("xr_spde") / "data" / "net.safetensors")

    def load(self) -> Any:
        """Read the network.

        Raises
        ------
        MissingDependencyError
            If torch is not installed.
        ParameterError
            If the file holds another architecture.
        """
        require("torch", "torch")
        require("safetensors", "torch")
        from xr_spde.nets.inference import network

        model = network(self.path, device=self.device)
        if model.architecture != self.architecture:
            raise ParameterError(
                f"weights {self.path} hold the architecture {model.architecture!r}; expected "
                f"{self.architecture!r}: give method={model.architecture!r} or other weights"
            )
        return model


class NetworkProblem:
    """The default network at one spacing of the stencil.

    Parameters
    ----------
    statistics : mapping of int to LagStatistics
        By their own spacing; those of `dilation` times `SPACINGS` are used, where present.
    dilation : int
        Distance of the stencil's neighbours, in cells.
    patterns : ndarray (number, ny, nx)
        Patterns whose part is taken out of the moments.
    clear : ndarray (ny, nx) of bool
        Cells that may be used.
    model : NetworkModel
        Network and device.
    """

    def __init__(
        self,
        statistics: Mapping[int, LagStatistics],
        dilation: int,
        patterns: Array,
        clear: NDArray[np.bool_],
        model: NetworkModel,
    ) -> None:
        self.dilation, self.model = dilation, model
        self.shape: tuple[int, int] = (clear.shape[0], clear.shape[1])
        moments = _moments(statistics, dilation, patterns, clear, periodic=model.periodic)
        self.moments = _in_single_precision(moments)
        if not self.moments["weight"].any():
            raise ParameterError(
                f"no two neighbouring cells of the {clear.shape[0]} x {clear.shape[1]} grid have "
                "data in two replicates or more; fill gaps, or take more replicates"
            )
        self._fit: LocalFit | None = None

    def fit(self) -> LocalFit:
        """Run the network.

        Returns
        -------
        LocalFit
            With the covariance of the estimates; the innovations' variance is left at one.
        """
        if self._fit is None:
            moments, crop = self.moments, 0
            if self.model.periodic:
                moments, crop = _across_seam(moments)
            out = self._run(moments)
            if self.dilation > 1 and min(out.shape[1:]) < _SHORT:
                longer, place = _continued(moments)
                out[:4] = self._run(longer)[:4, *place]
            out = out[..., crop : out.shape[-1] - crop]
            if self.dilation > 1:
                out = _enlarge(out, self.shape, self.dilation, periodic=self.model.periodic)
            self._fit = _fit_of(out.astype(np.float64), self.shape, self.dilation)
        return self._fit

    def _run(self, moments: dict[str, Any]) -> NDArray[np.float32]:
        from xr_spde.nets.inference import run_on_moments

        return run_on_moments(self.model.load(), moments, device=self.model.device)

    def refine(self, *, uncertainty: bool = False) -> LocalFit:
        """Give the same maps: a network has nothing to refine."""
        return self.fit()


def _moments(
    statistics: Mapping[int, LagStatistics],
    dilation: int,
    patterns: Array,
    clear: NDArray[np.bool_],
    *,
    periodic: bool,
) -> dict[str, Any]:
    """Half variances of differences, variances and weights, on the grid of the spacing."""
    from xr_spde.nets.lag_features import LAG_GROUPS, LAGS

    first = statistics[dilation]
    count = first.replicates
    lost = 1 if count > 1 else 0
    freedom = max(count - 1, 1)
    variance = np.where(clear, np.nan_to_num(first.covariance[0]), 0.0).astype(np.float64)
    local: Array = np.maximum(variance - (patterns**2).sum(0), 1e-3 * variance)
    usable = clear.astype(np.float64)
    half, level, weight = (np.zeros((len(LAGS), *clear.shape)) for _ in range(3))
    for spacing, group in zip(SPACINGS, LAG_GROUPS, strict=True):
        lags = statistics.get(dilation * spacing)
        if lags is None:  # no weight, so neither is read
            continue
        for lag in group:
            n = LAGS.index(lag)
            cells = (dilation * lag[0], dilation * lag[1])
            k = OFFSETS.index((lag[0] // spacing, lag[1] // spacing))
            far = shifted(variance, cells, periodic=periodic)
            there = clear & (shifted(usable, cells, periodic=periodic) > 0)
            known = there & np.isfinite(lags.covariance[k])
            spread = 0.5 * (variance + far) - np.where(known, lags.covariance[k], 0.0)
            steps = patterns - shifted(patterns, cells, periodic=periodic)
            half[n] = np.maximum(spread - 0.5 * (steps**2).sum(0), 1e-6 * variance)
            level[n] = 0.5 * (local + shifted(local, cells, periodic=periodic))
            weight[n] = np.where(known, np.maximum(lags.pairs[k] - lost, 0.0), 0.0) / freedom
    seen = np.where(clear, np.maximum(first.seen - lost, 0.0), 0.0) / freedom
    full = {
        "half": half,
        "level": level,
        "weight": weight,
        "variance": local,
        "seen": seen,
    }
    out: dict[str, Any] = _coarse(full, dilation) if dilation > 1 else full
    out["replicates"] = max(count - len(patterns), 1)
    return out


def _in_single_precision(moments: dict[str, Any]) -> dict[str, Any]:
    """Halve the memory, in units in which no variance leaves the range of single precision."""
    # a power of two costs no digit, and the network looks at ratios only
    exponent = max(math.frexp(float(moments["variance"].max()))[1], -1000)
    for name in ("half", "level", "variance"):
        moments[name] *= math.ldexp(1.0, -exponent)
    return {name: np.float32(values) for name, values in moments.items()}


def _coarse(moments: dict[str, Array], side: int) -> dict[str, Array]:
    """Weighted means over squares of cells: all shifted copies of the grid of that spacing."""

    def summed(values: Array) -> Array:
        ny, nx = values.shape[-2:]
        wide = np.pad(values, [*[(0, 0)] * (values.ndim - 2), (0, -ny % side), (0, -nx % side)])
        rows, columns = wide.shape[-2] // side, wide.shape[-1] // side
        return wide.reshape(*values.shape[:-2], rows, side, columns, side).sum((-3, -1))

    weight, seen = summed(moments["weight"]), summed(moments["seen"])
    safe, once = np.maximum(weight, 1e-12), np.maximum(seen, 1e-12)
    return {
        "half": summed(moments["half"] * moments["weight"]) / safe,
        "level": summed(moments["level"] * moments["weight"]) / safe,
        "weight": weight / side**2,
        "variance": summed(moments["variance"] * moments["seen"]) / once,
        "seen": seen / side**2,
    }


def _across_seam(moments: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Copy columns from beyond the seam to both sides."""
    columns = moments["variance"].shape[-1]
    seam = min(_SEAM, columns)
    out = dict(moments)
    for name in _MAPS:
        values = moments[name]
        out[name] = np.concatenate([values[..., -seam:], values, values[..., :seam]], -1)
    return out, seam


def _continued(moments: dict[str, Any]) -> tuple[dict[str, Any], tuple[slice, slice]]:
    """Continue short grids by their mirror images; also give the place of the grid itself.

    Places are mirrored, directions of lags are not: the parameters go on without a jump, the angle
    included. The copies tell nothing new, so standard errors are to be those of the grid alone.
    """
    out, place = dict(moments), [slice(None), slice(None)]
    for axis in (-2, -1):
        size = out["variance"].shape[axis]
        if size >= _SHORT:
            continue
        copies = -(-_LONG // size) // 2 * 2 + 1
        middle = copies // 2
        for name in _MAPS:
            mirrored = _mirrored(out[name], axis)
            parts = [out[name] if (k - middle) % 2 == 0 else mirrored for k in range(copies)]
            out[name] = np.concatenate(parts, axis)
        place[axis] = slice(middle * size, (middle + 1) * size)
    return out, (place[0], place[1])


def _mirrored(values: Array, axis: int) -> Array:
    """Reverse an axis; a pair of cells stays at its own middle, so its first cell moves."""
    from xr_spde.nets.lag_features import LAGS

    if values.ndim == 2:
        return np.flip(values, axis)
    out = np.zeros_like(values)
    size = values.shape[axis]
    for k, lag in enumerate(LAGS):
        reach = lag[axis]
        inside = slice(max(-reach, 0), size - max(reach, 0))
        if inside.start < inside.stop:
            where = (inside, slice(None)) if axis == -2 else (slice(None), inside)
            out[k][where] = np.flip(values[k][where], axis)
    return out


def _enlarge(
    values: NDArray[np.float32], shape: tuple[int, int], side: int, *, periodic: bool
) -> NDArray[np.float32]:
    """Interpolate linearly between the centres of squares; constant beyond the outer centres."""
    for axis, size in ((-2, shape[0]), (-1, shape[1])):
        count = values.shape[axis]
        position = (np.arange(size) + 0.5) / side - 0.5
        below = np.floor(position).astype(int)
        share = (position - below).astype(np.float32)
        if axis == -1 and periodic and size % side == 0:
            low, high = below % count, (below + 1) % count
        else:
            low, high = np.clip(below, 0, count - 1), np.clip(below + 1, 0, count - 1)
        shares = share[:, None] if axis == -2 else share
        near, far = np.take(values, low, axis), np.take(values, high, axis)
        values = near + shares * (far - near)
    return values


def _fit_of(out: Array, shape: tuple[int, int], dilation: int) -> LocalFit:
    """Read the maps, in cells of the grid and within the bounds of every estimator."""
    log_kappa2 = out[0] - 2.0 * np.log(dilation)
    log_kappa2 = np.clip(log_kappa2, np.log(min_kappa2(shape)), np.log(MAX_KAPPA2))
    length = np.maximum(np.hypot(out[2], out[3]), 1e-6)
    cosine, sine = out[2] / length, out[3] / length
    log_rho = np.minimum(out[1], np.log(MAX_RHO))
    range_, along, across = np.exp(2.0 * out[4:7])
    covariance = np.zeros((3, 3, *shape))
    covariance[0, 0] = range_
    covariance[1, 1] = along * cosine**2 + across * sine**2
    covariance[2, 2] = along * sine**2 + across * cosine**2
    covariance[1, 2] = covariance[2, 1] = (along - across) * cosine * sine
    return LocalFit(
        log_kappa2,
        log_rho * cosine,
        log_rho * sine,
        np.zeros(shape),
        np.zeros((4, 2)),
        covariance,
    )


class ReplicateProblem:
    """A network on raw replicates.

    Parameters
    ----------
    fields : ndarray (M, ny, nx)
        Replicates.
    usable : ndarray (ny, nx) of bool
        Cells that vary.
    model : NetworkModel
        Network and device.
    """

    dilation = 1

    def __init__(
        self, fields: NDArray[np.float32], usable: NDArray[np.bool_], model: NetworkModel
    ) -> None:
        if not np.isfinite(fields).all() or not usable.all():
            raise ParameterError(
                f"method={model.architecture!r} needs replicates without missing or constant "
                'cells; use method="net" or "whittle", which take them'
            )
        # a single anomaly has no deviation of its own: that of the whole grid
        single = len(fields) == 1
        wide = fields.astype(np.float64)  # whose squares do not overflow, whatever the units
        centre = 0.0 if single else wide.mean(0)
        spread = np.sqrt(np.mean(wide**2)) if single else wide.std(0, ddof=1)
        self.fields, self.model = ((wide - centre) / spread).astype(np.float32), model

    def fit(self) -> LocalFit:
        """Run the network.

        Returns
        -------
        LocalFit
        """
        from xr_spde.nets.inference import run_on_replicates

        model = self.model
        maps = run_on_replicates(
            model.load(), self.fields, periodic=model.periodic, device=model.device
        )
        log_kappa2, rho, theta = (np.asarray(m, dtype=np.float64) for m in maps)
        shape = (log_kappa2.shape[0], log_kappa2.shape[1])
        log_rho = np.log(np.clip(rho, 1.0, MAX_RHO))
        return LocalFit(
            np.clip(log_kappa2, np.log(min_kappa2(shape)), np.log(MAX_KAPPA2)),
            log_rho * np.cos(2.0 * theta),
            log_rho * np.sin(2.0 * theta),
            np.zeros(shape),
            np.zeros((4, 2)),
        )

    def refine(self, *, uncertainty: bool = False) -> LocalFit:
        """Give the same maps: a network has nothing to refine."""
        return self.fit()

"""Settings of the estimator, and what is said when one makes no sense."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.device import resolve_device
from xr_spde._core.errors import GridError, ParameterError, unknown
from xr_spde._core.lazyimport import has_module
from xr_spde._core.memory import check_memory, format_bytes, memory_budget
from xr_spde._core.options import get_option
from xr_spde.fields.stencil import check_boundary
from xr_spde.labels.grid import Grid
from xr_spde.sar.patterns import CANDIDATES
from xr_spde.sar.statistics import card_bytes
from xr_spde.solvers.card import array_module, budget

LOGGER = logging.getLogger("xr_spde.sar")

METHODS = ("auto", "whittle", "mle", "net", "unet", "vit", "stun", "cnn")
"""Estimators by name: likelihoods, the network on lag statistics, networks on replicates."""

STRUCTURES = ("nonstationary", "isotropic", "stationary", "stationary isotropic")
"""What the exact likelihood lets vary: see `xr_spde.sar.estimate`."""

LIKELIHOODS = ("auto", "exact", "windows")
"""How the exact likelihood is found: on the grid at once, or in overlapping windows."""

_LIKELIHOODS = ("whittle", "mle")

_ON_REPLICATES = ("unet", "vit", "stun", "cnn")

NETWORK_BELOW = 8
"""Replicates below which the default network is the automatic choice."""

DILATIONS = (1, 2, 4, 8)
"""Distances between the neighbours of the stencil that are tried, in cells."""

_SMALLEST = 6
# Maps of the size of the grid that are held at once, and how many more each spacing takes, as
# measured on 361 x 720 cells; steps after a network hold the sums of both halves besides.
_MAPS, _MAPS_OF_NETWORK, _MAPS_OF_HALVES = (160, 35), (310, 85), (0, 35)
# factors with the rim around the grid, and the copies of the replicates
_MAPS_OF_EXACT, _MAPS_OF_REPLICATE = 1500, 10


@dataclass(frozen=True)
class Settings:
    """What the fit is asked for; small and picklable, it travels in the graph.

    Attributes
    ----------
    grid : Grid
        The grid of the fields.
    boundary : str
        Boundary of the model.
    buffer : int or "auto"
        Cells between the grid and that boundary.
    modes : int
        Size of the mode dimension: the largest number of patterns.
    fixed_modes : bool
        Whether that number was given rather than to be chosen.
    dilations : tuple of int
        Distances of the stencil's neighbours to try.
    penalty : float or None
        Fixed roughness weight.
    uncertainty : bool
        Whether standard errors are wanted.
    single : bool
        Whether there is one replicate, taken as an anomaly.
    method : str
        Estimator.
    weights : str or None
        File of a network's weights; None takes the ones that come with the package.
    refine : int
        Steps of the likelihood that follow a network.
    structure : str
        Of the exact likelihood's model, in `STRUCTURES`.
    nugget : bool
        Whether the observations have noise.
    covariates : tuple of str
        Names of the maps that the mean is a combination of; the first is "intercept".
    design : ndarray (P, ny, nx) or None
        They themselves, canonical.
    device : {"cpu", "cuda"}
        Where lag products are summed.
    windows : bool
        Whether the exact likelihood comes from windows.
    replicates : int
        How many there are.
    """

    grid: Grid
    boundary: str
    buffer: int | str
    modes: int
    fixed_modes: bool
    dilations: tuple[int, ...]
    penalty: float | None
    uncertainty: bool
    single: bool
    method: str = "whittle"
    weights: str | None = None
    refine: int = 0
    structure: str = STRUCTURES[0]
    nugget: bool = False
    covariates: tuple[str, ...] = ()
    design: NDArray[np.float64] | None = field(default=None, compare=False)
    device: str = "cpu"
    windows: bool = False
    replicates: int = 0

    @property
    def anomalies(self) -> bool:
        """Whether no mean is taken out cell by cell."""
        return self.single or self.design is not None

    @property
    def keeps_members(self) -> bool:
        """Whether the replicates themselves are needed, not only sums over them."""
        return self.on_replicates or self.method == "mle"

    @property
    def on_replicates(self) -> bool:
        """Whether the estimator is a network that takes the replicates as they are."""
        return self.method in _ON_REPLICATES

    @property
    def periodic(self) -> bool:
        """Whether columns wrap around."""
        return self.boundary != "plane"


def automatic_method(count: int, penalty: Any) -> str:
    """Return the estimator to take for a number of replicates, as far as it can run here.

    With few replicates the network is ahead on fields of its prior
    (``benchmarks/published_sar.py``) and, scored on replicates held out, ahead of the likelihood or
    level on real ones (``benchmarks/climate_networks.py``). With many the difference is small there
    and the likelihood, which needs no torch and knows no prior, stays the rule.
    """
    if count >= NETWORK_BELOW or count < 1 or penalty is not None:
        return "whittle"
    here = has_module("torch") and has_module("safetensors")
    chosen = "net" if here else "whittle"
    LOGGER.info(
        "%d replicates: method=%r%s", count, chosen, "" if here else ", since torch is missing"
    )
    return chosen


def check_method(
    method: str, weights: Any, refine: Any, *, count: int = NETWORK_BELOW, penalty: Any = None
) -> tuple[str, str | None, int]:
    """Return the estimator, its weights and the steps of the likelihood after it."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    chosen = method
    if method == "auto":
        named = weights is not None or refine != 0
        chosen = "whittle" if named else automatic_method(count, penalty)
    if chosen in _LIKELIHOODS and (weights is not None or refine != 0):
        raise ParameterError(
            f"weights={weights!r} and refine={refine!r} belong to networks; method={method!r} has "
            'none: give method="net"'
        )
    if weights is None and chosen in _ON_REPLICATES:
        raise ParameterError(
            f"no weights for method={method!r} come with the package; train some with `python -m "
            f'xr_spde.sar.training {chosen} ...` and give the file as weights=, or use method="net"'
        )
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise ParameterError(f"weights={weights!r} was given; expected a file")
    if not _whole(refine) or refine < 0:
        raise ParameterError(f"refine={refine!r} was given; expected a whole number >= 0")
    return chosen, None if weights is None else os.fspath(weights), int(refine)


def check_refine(steps: int, count: int, dim: str) -> None:
    """Raise if there are too few replicates to judge the steps by."""
    if steps and count < 4:
        raise ParameterError(
            f"refine={steps} was asked of {count} replicates along {dim!r}; expected at least 4: "
            "one half of them judges what the other says. Leave refine out"
        )


def check_structure(structure: Any, nugget: Any, covariates: Any, method: str) -> str:
    """Return the structure of the model; with covariates and nugget, the exact likelihood's own."""
    if structure not in STRUCTURES:
        raise unknown("structure", structure, STRUCTURES)
    if not isinstance(nugget, bool | np.bool_):
        raise ParameterError(f"nugget={nugget!r} was given; expected True or False")
    given = structure != STRUCTURES[0] or nugget or covariates is not None
    if given and method != "mle":
        raise ParameterError(
            f"structure={structure!r}, nugget={nugget!r} or covariates belong to the exact "
            f'likelihood; method={method!r} knows none of them: give method="mle"'
        )
    return str(structure)


def check_size(grid: Grid) -> None:
    """Raise for a grid that has too few rows or columns."""
    if min(grid.shape) < _SMALLEST:
        raise GridError(
            f"the grid has {grid.ny} rows ({grid.y_dim}) and {grid.nx} columns ({grid.x_dim}); "
            f"expected at least {_SMALLEST} of each: parameters that vary need neighbours"
        )


def check_likelihood(likelihood: Any, method: str) -> str:
    """Return the way to the exact likelihood, which no other method has."""
    if likelihood not in LIKELIHOODS:
        raise unknown("likelihood", likelihood, LIKELIHOODS)
    if likelihood != "auto" and method != "mle":
        raise ParameterError(
            f"likelihood={likelihood!r} was given with method={method!r}; expected it with "
            'method="mle", whose likelihood it is'
        )
    return str(likelihood)


def fitting(settings: Settings, likelihood: str) -> Settings:
    """Return settings that fit in memory, or raise; gaps in the data take up to twice as much.

    The exact likelihood comes from windows where "auto" finds that it would not fit at once.
    """
    if settings.method != "mle" or likelihood == "windows":
        settings = replace(settings, windows=likelihood == "windows")
    elif likelihood == "auto" and _room(settings) > memory_budget():
        LOGGER.info(
            "likelihood from windows: at once it would take about %s; the limit is %s",
            *(format_bytes(_room(settings)), format_bytes(memory_budget())),
        )
        settings = replace(settings, windows=True)
    exact = settings.method == "mle" and not settings.windows
    grid = settings.grid
    check_memory(
        _room(settings),
        what=f"estimating parameters on a grid of {grid.ny} x {grid.nx} cells",
        remedy='Leave likelihood="exact" out, coarsen the fields, or select a region.'
        if exact
        else "Coarsen the fields, select a region, or try one spacing only with dilation=1.",
    )
    return settings


def place_of_sums(settings: Settings, spacings: int) -> str:
    """Return the device that sums lag products, and say in the log if a card is too small."""
    if resolve_device() == "cpu":
        return "cpu"
    needed, limit = spacings * card_bytes(settings.grid.shape), budget(array_module("cuda"))
    if needed > limit and get_option("device") != "cuda":
        LOGGER.info(
            "lag products on the processor: on the graphics card they would take about %s; the "
            "limit is %s",
            *(format_bytes(needed), format_bytes(limit)),
        )
        return "cpu"
    LOGGER.info("lag products on the graphics card")
    return "cuda"


def _room(settings: Settings) -> float:
    """Bytes that sums and fit take."""
    grid, parts = settings.grid, [_MAPS_OF_NETWORK if settings.method == "net" else _MAPS]
    if settings.refine:
        parts.append(_MAPS_OF_HALVES)
    maps = sum(fixed + each * len(settings.dilations) for fixed, each in parts)
    if settings.method == "mle":
        maps += _MAPS_OF_REPLICATE * settings.replicates
    if settings.method == "mle" and not settings.windows:
        maps += _MAPS_OF_EXACT
    return 8.0 * maps * grid.ny * grid.nx


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def check_raw(method: str, modes: Any, dilation: Any, uncertainty: bool) -> tuple[Any, Any]:
    """Return number of patterns and spacing, which estimators on replicates do not know."""
    if method == "mle" and modes in ("auto", 0) and dilation in ("auto", 1):
        return 0, 1
    if method == "mle":
        raise ParameterError(
            f"modes={modes!r} and dilation={dilation!r} were given; method='mle' is the likelihood "
            'of the model itself, without patterns: leave them out, or use method="whittle"'
        )
    if method not in _ON_REPLICATES:
        return modes, dilation
    if modes not in ("auto", 0) or dilation not in ("auto", 1) or uncertainty:
        raise ParameterError(
            f"modes={modes!r}, dilation={dilation!r} and uncertainty={uncertainty!r} were given; "
            f"method={method!r} knows no patterns, spacings or standard errors: leave them out, "
            'or use method="net"'
        )
    return 0, 1


def check_domain(boundary: str, method: str) -> str:
    """Return a boundary that the estimator knows."""
    if method == "mle" and check_boundary(boundary) == "paper":
        raise ParameterError(
            'boundary=\'paper\' was given; method=\'mle\' knows "cylinder", "plane" and "torus"'
        )
    return check_boundary(boundary)


def check_modes(modes: Any, count: int) -> int:
    """Return the size of the mode dimension."""
    if modes == "auto":
        return min(CANDIDATES[-1], count // 4) if count >= 8 else 0
    if not _whole(modes) or modes < 0:
        raise ParameterError(f'modes={modes!r} was given; expected "auto" or a whole number >= 0')
    if modes and modes > count - 2:
        raise ParameterError(
            f"modes={modes} patterns were asked of {count} replicates; expected at most "
            f"{max(count - 2, 0)}"
        )
    return int(modes)


def check_dilation(dilation: Any, grid: Grid) -> tuple[int, ...]:
    """Return the distances to try on a grid."""
    fitting = tuple(d for d in DILATIONS if 4 * d <= min(grid.shape)) or (1,)
    if dilation == "auto":
        return fitting
    if not _whole(dilation) or dilation not in DILATIONS:
        raise ParameterError(
            f'dilation={dilation!r} was given; expected "auto" or one of {DILATIONS}'
        )
    if 2 * dilation >= min(grid.shape):
        raise ParameterError(
            f"dilation={dilation} needs more than {2 * dilation} rows and columns; the grid has "
            f"{grid.ny} x {grid.nx}"
        )
    return (int(dilation),)


def check_uncertainty(uncertainty: Any) -> bool:
    """Return whether standard errors are wanted."""
    if not isinstance(uncertainty, bool | np.bool_):
        raise ParameterError(f"uncertainty={uncertainty!r} was given; expected True or False")
    return bool(uncertainty)


def check_penalty(penalty: Any, count: int, dim: str, *, method: str) -> float | None:
    """Return the penalty; the likelihood needs replicates or one."""
    if method not in _LIKELIHOODS and penalty is not None:
        raise ParameterError(
            f"penalty={penalty!r} was given, which method={method!r} has no use for; leave it out"
        )
    if penalty is None:
        if count < 2 and method in _LIKELIHOODS:
            raise ParameterError(
                f"{count} replicate{'' if count == 1 else 's'} along {dim!r}; at least 2 are "
                "needed to tell spread from mean; pass more members or times, name another "
                "dimension with dim=, or declare how smooth the maps are with penalty= (the one "
                'replicate is then taken as an anomaly), or give method="net", which needs torch'
            )
        return None
    number = isinstance(penalty, int | float | np.number) and not isinstance(penalty, bool)
    if not number or not np.isfinite(penalty) or penalty <= 0:
        raise ParameterError(f"penalty={penalty!r} was given; expected a number > 0, such as 100")
    return float(penalty)

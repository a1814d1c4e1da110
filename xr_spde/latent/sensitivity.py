"""How much a latent model depends on its settings: many fits of the same frames, side by side."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.lazyimport import require
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import resolve_seed
from xr_spde.fields.cells import Cells
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.latent.arguments import chosen_settings
from xr_spde.latent.compare import displacement_of, endpoint_error, rmse
from xr_spde.latent.diagnosis import LIMITS, diagnose, end_residual
from xr_spde.latent.fit import fit_latent_dynamics
from xr_spde.latent.motion import Motion
from xr_spde.latent.reading import ImageSequence
from xr_spde.latent.score import known_frames, places_between

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed

__all__ = ["DESIGNS", "VARY", "sensitivity", "sensitivity_effects"]

DESIGNS = ("one-at-a-time", "latin", "sobol")
"""Each setting by itself, from the others as given; or all at once, from a Latin hypercube or a
Sobol sequence (a power of two of runs)."""

VARY: dict[str, tuple[Any, ...]] = {
    "lam_ae": (0.1, 10.0),
    "lam_mag": (1e-5, 1e-2),
    "lam_sm": (1e-3, 1e-1),
    "lam_c": (0.0, 0.1, 10.0),
    "lam_h": (0.0, 5.0),
    "lam_r": (0.0, 3.0),
    "rate": (5e-4, 5e-3),
    "width": (4, 16),
    "seed": (1, 2),
}
"""Settings that are varied where none are named, with their values."""

_SCORES = {
    "end_residual": ("mismatch at the images over their standard deviation", "1"),
    "latent_residual": ("mismatch of carried latent states, relative to without motion", "1"),
    "mean_speed": ("mean speed in cells per span", "1"),
    "rmse": ("root mean square error of withheld frames", None),
    "epe": ("mean endpoint error of the displacement in cells", "1"),
    "seconds": ("CPU time of the fit", "s"),
}
_FLAG = "flag"


def sensitivity(
    da: xr.DataArray,
    truth: xr.DataArray | None = None,
    *,
    vary: Mapping[str, Sequence[Any]] | None = None,
    design: str = "one-at-a-time",
    samples: int = 16,
    displacement: ArrayLike | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: Seed = 0,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Fit the latent model again and again with other settings (needs torch).

    Parameters
    ----------
    da : DataArray
        Two or more images (time, y, x).
    truth : DataArray (time, y, x) or (y, x), optional
        Frames between that were withheld.
    vary : mapping of str to sequence, optional
        Values of settings, of `xr_spde.latent.fit.fit_latent_dynamics` and of its networks, and of
        ``seed``; by default :data:`VARY`. In "latin" and "sobol" real values stand for all between
        the smallest and the largest, on a logarithmic scale if they are above zero.
    design : {"one-at-a-time", "latin", "sobol"}
        See :data:`DESIGNS`.
    samples : int
        Number of runs of "latin" and "sobol".
    displacement : array_like (2, y, x), optional
        True motion from the first image to the last, in cells along increasing x and y.
    store : path, optional
        Folder in which each run is kept; what it holds already is not run again.
    seed : int, SeedSequence, Generator or None
        Of fits in which it does not vary, and of the design.
    dim : str, optional
        Name of the time axis.
    x, y : str, optional
        Names of the horizontal axes.
    **settings
        Of all fits, such as ``iterations``.

    Returns
    -------
    Dataset (run)
        ``end_residual``, ``latent_residual``, ``mean_speed``, ``rmse`` and ``epe`` (NaN without
        truth), ``seconds`` and ``flagged`` (run, flag), what `diagnose` warns of; the settings of
        each run as coordinates. One task per run where ``da`` is lazy. See `sensitivity_effects`.

    Raises
    ------
    ParameterError
        Settings that do not exist or do not go together, before the first fit.
    UnknownNameError
        Another design.
    MissingDependencyError
        Without torch.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.latent import sensitivity
    >>> from xr_spde.latent.cases import make_case
    >>> case = make_case("tex_rot", 32)
    >>> pair = xr.DataArray([case.u0, case.u1], {"time": [0, 1]}, ("time", "y", "x"))
    >>> quick = {"iterations": 2, "patch": 16, "width": 4, "depth": 2}
    >>> runs = sensitivity(pair, vary={"lam_sm": [1e-3, 1e-1]}, **quick)
    >>> runs.lam_sm.values
    array([0.01 , 0.001, 0.1  ])
    """
    require("torch", "torch")
    frames = ImageSequence.of(da, dim=dim, x=x, y=y)
    grid, space = frames.grid, (frames.grid.y_dim, frames.grid.x_dim)
    entropy = resolve_seed(seed)
    factors = VARY if vary is None else dict(vary)
    base = {"seed": entropy, **settings}
    plan, varied = _plan(factors, base, frames.cells, design, samples)
    known, numbers = _truth(truth, frames)
    runs = xr.DataArray(np.arange(len(plan)), dims="run")
    if is_lazy(frames.data):
        runs = runs.chunk(1)
    moved = None if displacement is None else np.asarray(displacement, dtype=np.float64)
    made = apply_core(
        _run,
        frames.data.drop_vars(list(frames.data.coords)),
        known,
        runs,
        core_dims=[(frames.time.dim, *space), ("_known", *space), ()],
        output={
            **{name: Output(()) for name in _SCORES},
            "flagged": Output((_FLAG,), np.bool_, {_FLAG: len(LIMITS)}),
        },
        kwargs={
            "plan": plan,
            "grid": grid,
            "cells": frames.cells,
            "times": frames.time.numbers,
            "numbers": numbers,
            "displacement": None if moved is None else grid.to_canonical(moved),
            "store": None if store is None else os.fspath(store),
        },
    )
    coords: dict[str, Any] = {n: ("run", _column([one[n] for one in plan])) for n in factors}
    coords |= {"varied": ("run", varied), "flag": list(LIMITS)}
    result = xr.Dataset(made).drop_attrs().assign_coords(coords)
    for name, (text, units) in _SCORES.items():
        result[name].attrs = {"long_name": text, "units": units or da.attrs.get("units", "1")}
    return result.assign_attrs(provenance("sensitivity", design=design))


def sensitivity_effects(runs: xr.Dataset) -> xr.Dataset:
    """Sum up how much each setting matters.

    Parameters
    ----------
    runs : Dataset (run)
        What `sensitivity` returned; computed if lazy.

    Returns
    -------
    Dataset (factor)
        For each score: of "one-at-a-time" the largest less the smallest value while this setting
        alone varies, otherwise the rank correlation after Spearman with the setting (NaN for
        settings that are not numbers).
    """
    from scipy.stats import spearmanr

    loaded = runs[list(_SCORES)].compute()
    factors = [str(n) for n, c in loaded.coords.items() if c.dims == ("run",) and n != "varied"]
    alone = runs.attrs.get("xr_spde_design") == DESIGNS[0]
    table: dict[str, list[float]] = {name: [] for name in _SCORES}
    for factor in factors:
        values = loaded[factor].values
        here = np.isin(loaded["varied"].values, ["", factor])
        for name, column in table.items():
            scores = loaded[name].values
            if alone:
                column.append(float(np.ptp(scores[here])))
            elif values.dtype.kind in "fiub" and np.ptp(values) > 0 and np.ptp(scores) > 0:
                column.append(float(spearmanr(values, scores).statistic))
            else:
                column.append(math.nan)
    made = xr.Dataset({name: ("factor", column) for name, column in table.items()})
    return made.assign_coords(factor=factors)


def _plan(
    factors: Mapping[str, Sequence[Any]],
    base: Mapping[str, Any],
    cells: Cells,
    design: str,
    samples: int,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Plan the settings of every run, and the one that is varied in it ("" for none or all)."""
    if design not in DESIGNS:
        raise unknown("design", design, DESIGNS)
    if empty := [name for name, values in factors.items() if not len(values)]:
        raise ParameterError(f"vary has no values of {empty}")
    usual = chosen_settings(_of_networks(base), cells, 0.0).as_dict()
    usual["stride"] = usual["stride"] or max(usual["patch"] // 4, 1)
    usual |= {"levels": 1, "blur": 1.0, "initial": "classical"}
    strange = sorted(set(factors) - set(usual) - {"seed"})
    if strange:
        raise ParameterError(f"vary names {strange}, which are no settings; known: {list(usual)}")
    centre = {**base, **{name: base.get(name, usual.get(name)) for name in factors}}
    if design == DESIGNS[0]:
        singles = [(name, v) for name, vs in factors.items() for v in vs if v != centre[name]]
        plan = [dict(centre), *({**centre, name: value} for name, value in singles)]
        varied = ["", *(name for name, _ in singles)]
    else:
        places = _places(len(factors), design, samples, int(base["seed"]))
        plan = [
            {
                **centre,
                **{n: _value(vs, u) for (n, vs), u in zip(factors.items(), row, strict=True)},
            }
            for row in places
        ]
        varied = [""] * len(plan)
    for one in plan:  # what does not go together is refused before the first fit
        chosen_settings(_of_networks(one), cells, 0.0)
    return plan, varied


def _of_networks(given: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is of the fit as a whole."""
    whole = ("seed", "levels", "restarts", "blur", "initial", "noise", "degree", "device")
    return {k: v for k, v in given.items() if k not in (*whole, "progress")}


def _places(count: int, design: str, samples: int, seed: int) -> NDArray[np.float64]:
    """Points (samples, count) in the unit cube."""
    from scipy.stats import qmc

    if samples < 2 or (design == "sobol" and samples & (samples - 1)):
        raise ParameterError(
            f"samples={samples} of design={design!r}; expected at least 2, and for 'sobol' a power "
            "of two"
        )
    rng = np.random.default_rng(seed)
    kind = qmc.Sobol if design == "sobol" else qmc.LatinHypercube
    return np.asarray(kind(count, rng=rng).random(samples))


def _value(values: Sequence[Any], share: float) -> Any:
    """One of the values, or a real number between them."""
    if not any(isinstance(v, float) for v in values):
        return values[min(int(share * len(values)), len(values) - 1)]
    low, high = float(min(values)), float(max(values))
    if low > 0:
        return low * (high / low) ** share
    return low + (high - low) * share


def _column(values: list[Any]) -> NDArray[Any]:
    kinds = {type(v) for v in values}
    return np.array(values if kinds <= {int, float} or len(kinds) == 1 else list(map(str, values)))


def _truth(
    truth: xr.DataArray | None, frames: ImageSequence
) -> tuple[xr.DataArray, NDArray[np.float64]]:
    """Withheld frames (known, y, x), none if there is no truth, and their times."""
    space = (frames.grid.y_dim, frames.grid.x_dim)
    if truth is None:
        return xr.DataArray(np.zeros((0, *frames.grid.shape)), dims=("_known", *space)), np.zeros(0)
    known = known_frames(as_float(truth), frames)
    dim = frames.time.dim
    when, numbers = frames.time.read(known[dim])
    places_between(frames, np.atleast_1d(numbers), np.atleast_1d(when.values))
    stack = known if dim in known.dims else known.expand_dims(dim)
    stack = stack.drop_vars(list(stack.coords)).rename({dim: "_known"})
    return stack.transpose("_known", *space), np.atleast_1d(numbers)


def _run(
    images: NDArray[Any],
    truth: NDArray[Any],
    number: NDArray[np.intp],
    *,
    plan: Sequence[Mapping[str, Any]],
    grid: Grid,
    cells: Cells,
    times: NDArray[np.float64],
    numbers: NDArray[np.float64],
    displacement: NDArray[np.float64] | None,
    store: str | None,
) -> dict[str, Any]:
    """Scores of one run, from the folder if it is there."""
    given = dict(plan[int(number)])
    stack, known = (np.ascontiguousarray(grid.to_canonical(u)) for u in (images, truth))
    parts = [stack, known, times, numbers, cells.height, cells.width]
    parts += [] if displacement is None else [displacement]
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode())
    for part in parts:
        digest.update(repr((part.shape, part.dtype.str)).encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    place = None if store is None else Path(store) / f"{digest.hexdigest()[:24]}.json"
    if place is not None and place.exists():
        kept = json.loads(place.read_text())
    else:
        kept = _measured(stack, known, times, numbers, cells, displacement, given)
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(kept))
            beside.replace(place)
    flags = np.array([name in kept["flags"] for name in LIMITS])
    return {**{name: np.float64(kept[name]) for name in _SCORES}, "flagged": flags}


def _measured(
    stack: NDArray[Any],
    known: NDArray[Any],
    times: NDArray[np.float64],
    numbers: NDArray[np.float64],
    cells: Cells,
    displacement: NDArray[np.float64] | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    begun = time.process_time()
    model = fit_latent_dynamics(stack, times, cells, **{"progress": False, **given})
    spent = time.process_time() - begun
    found = diagnose(model)
    error = epe = math.nan
    if numbers.size:
        error = rmse(np.stack([model.frame(float(t)).image for t in numbers]), known)
    if displacement is not None:
        epe = endpoint_error(displacement_of(Motion(model.velocity[0], cells, 0.0)), displacement)
    return {
        "end_residual": end_residual(model),
        "latent_residual": found.numbers["latent"],
        "mean_speed": float(np.hypot(*model.velocity[0]).mean()),
        "rmse": error,
        "epe": epe,
        "seconds": spent,
        "flags": list(found.flags),
    }

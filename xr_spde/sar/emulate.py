"""Ensembles of any size from parameter maps, drawn block by block when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import DTypeError, ParameterError, SchemaError
from xr_spde._core.options import set_options
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import member_generator, resolve_seed
from xr_spde.labels.attrs import KEPT
from xr_spde.labels.members import lazy_members, members_per_block
from xr_spde.labels.schema import MOMENTS, PARAMETERS, PATTERNS
from xr_spde.models import Buffer, ModelRecipe, model_variables, read_model, remaining_std
from xr_spde.sar.moments import variance_method

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from xr_spde._core.rng import Seed
    from xr_spde.fields.field import GaussianField

__all__ = ["REALIZATION", "emulate"]

REALIZATION = "realization"
"""Dimension of the members."""


@dataclass(frozen=True)
class _Shared:
    """What blocks of one set of maps have in common; `std` is what patterns leave of it."""

    model: GaussianField | None
    land: NDArray[np.bool_]
    mean: NDArray[Any] | None
    std: NDArray[np.float64] | None
    patterns: NDArray[np.float64]


@dataclass(frozen=True)
class _EnsembleBlock:
    """Draws members of one set of maps; what a task of the graph calls."""

    recipe: ModelRecipe
    names: tuple[str, ...]
    entropy: int
    dtype: np.dtype[Any]
    variance: str

    def prepare(self, *parameters: NDArray[Any]) -> _Shared:
        """Check one set of maps and build its model."""
        maps = dict(zip(self.names, parameters, strict=True))
        patterns = np.nan_to_num(maps.pop(PATTERNS, np.zeros((0, *parameters[0].shape))))
        model, land = self.recipe.build(**maps)
        std = maps.get("std")
        remaining = None if std is None else remaining_std(std, patterns)
        return _Shared(model, land, maps.get("mean"), remaining, patterns)

    def __call__(
        self, start: int, stop: int, path: tuple[int, ...], shared: _Shared
    ) -> NDArray[Any]:
        members = np.empty((stop - start, *shared.land.shape), dtype=self.dtype)
        model, patterns = shared.model, shared.patterns
        if model is None:
            members.fill(np.nan)
            return members
        scale = self._scale(model, shared.std)
        # As many at a time as the solver takes: the noise of a whole block would take more memory.
        noise = np.empty((min(model.factor(self.dtype).width, stop - start), model.size))
        for low in range(start, stop, len(noise)):
            chosen = range(low, min(low + len(noise), stop))
            amplitudes = self._draw(noise, chosen, path, len(patterns))
            drawn = model.sample(noise[: len(chosen)], self.dtype)
            fields = self.recipe.grid.from_canonical(drawn)
            if scale is not None:
                fields *= scale
            if len(patterns):
                fields += _superpose(amplitudes, patterns)
            finished = members[low - start : chosen.stop - start]
            if shared.mean is None:
                finished[:] = fields
            else:
                np.add(fields, shared.mean, out=finished)
        members[:, shared.land] = np.nan
        return members

    def _scale(
        self, model: GaussianField, std: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        """Factor that turns the variance of the model into what patterns leave of the whole."""
        if std is None:
            return None
        own = self.recipe.grid.from_canonical(model.variance(self.variance))
        return np.asarray(std / np.sqrt(own), dtype=np.float64)

    def _draw(
        self, noise: NDArray[np.float64], members: range, path: tuple[int, ...], modes: int
    ) -> NDArray[np.float64]:
        """Fill rows of noise, and return the amplitudes of patterns, of some members."""
        amplitudes = np.empty((len(members), modes))
        for row, amplitude, member in zip(noise, amplitudes, members, strict=False):
            generator = member_generator(self.entropy, member, *path)
            generator.standard_normal(out=row)
            amplitude[:] = generator.standard_normal(modes)
        return amplitudes


def _superpose(amplitudes: NDArray[Any], patterns: NDArray[Any]) -> NDArray[np.float64]:
    """Sum of patterns, in an order that does not depend on how many members are drawn."""
    total = np.zeros((len(amplitudes), *patterns.shape[1:]))
    for amplitude, pattern in zip(amplitudes.T, patterns, strict=True):
        total += amplitude[:, None, None] * pattern
    return total


def emulate(
    params: xr.Dataset,
    n: int,
    *,
    seed: Seed = None,
    chunks: int | Literal["auto"] = "auto",
    dtype: DTypeLike | None = None,
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    x: str | None = None,
    y: str | None = None,
) -> xr.DataArray:
    """Draw an ensemble of Gaussian fields with given range, anisotropy, mean and spread.

    A member is ``mean + std * y / sqrt(var y)`` with ``B y = e``: ``e`` is white noise, ``B`` the
    nine-point spatial autoregressive operator of the parameters (LatticeVision, arXiv 2505.09803,
    section 2; Lindgren, Rue and Lindstrom 2011), and ``var y`` its exact marginal variance, so
    that ``std`` is restored without sampling error (to some per mille where `variance` has to probe
    it, which the attribute ``xr_spde_variance`` says then). Without ``std`` the bare ``y`` is
    returned (plus ``mean`` where there is one). Large-scale ``patterns`` are added with standard
    normal amplitudes, and ``y`` gets the variance that they leave of ``std`` squared.

    Nothing is computed before it is asked for. Member ``m`` is an identity: its noise depends on
    the seed and ``m`` (and the leading index) alone, and a slice such as ``[5]`` computes one
    block. The matrix is factorised once per process, not stored in the graph.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` and optionally ``mean`` and ``std`` on (..., Y, X) and
        ``patterns`` on (..., mode, Y, X), as `estimate` returns them, read from disk or written by
        hand. NaN in all three parameters is land and stays NaN. Leading dimensions are mapped
        over, with independent noise.
    n : int
        Number of members.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same members, bit for bit, for any chunks and scheduler. None draws
        a fresh one; the one used is the attribute ``xr_spde_seed`` (``int()`` of it, where it is
        longer than 64 bits) of the result.
    chunks : int or "auto", default "auto"
        Members per block; "auto" makes blocks of about 64 MB, in multiples of what the solver takes
        at a time.
    dtype : float32 or float64, optional
        Of the result and of its solver; by default float32 where ``mean`` and ``std`` are, else
        float64. float32 takes half the time. Its members stay within 1e-4 standard deviations
        (root mean square) of those in float64, mostly 1e-6; where a probe of the factor shows
        more, as for ranges of hundreds of cells, they are solved for in float64.
    solver : str, default "auto"
        See `xr_spde.solvers.choose.choose`; the one chosen is the attribute ``xr_spde_solver``.
    boundary : {"cylinder", "plane", "torus", "paper"}, optional
        By default the one recorded in ``params.attrs``, else "cylinder" where longitudes close the
        circle and "plane" elsewhere.
    buffer : int or "auto", default "auto"
        Cells added on every side that is not periodic and cut off afterwards, so that the edge of
        the domain is not felt; "auto" takes about one practical range.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    DataArray, shape (realization, ..., Y, X)
        Lazy (a dask array) also for parameters in memory; in the units of ``mean`` or ``std``.

    Raises
    ------
    SchemaError
        Missing variables; when computed: ``kappa2 <= 0``, ``rho < 1``, NaN in only some of them.
    ParameterError
        ``n``, ``seed``, ``chunks`` or ``buffer`` of a value that makes no sense.
    DTypeError
        A dtype other than float32 and float64.
    UnknownNameError
        Unknown solver or boundary.
    MemoryGuardError
        The factorisation would not fit in memory.

    Notes
    -----
    Memory is one block and one factor per worker thread, whatever ``n``. Changing ``n`` or
    ``chunks`` keeps the members; changing the parameters, the boundary or the buffer does not.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.sar import emulate
    >>> maps = {"kappa2": 0.5, "rho": 3.0, "theta": 0.5}
    >>> params = xr.Dataset({k: (("lat", "lon"), np.full((6, 8), v)) for k, v in maps.items()})
    >>> ensemble = emulate(params, 40, seed=1)
    >>> ensemble.dims, bool((ensemble[5] == emulate(params, 6, seed=1)[5]).all())
    (('realization', 'lat', 'lon'), True)
    """
    members = _check_count(n)
    _check_chunks(chunks)
    target = _default_dtype(params) if dtype is None else _check_dtype(dtype)
    dataset, recipe = read_model(
        params, solver=solver, boundary=boundary, buffer=buffer, x=x, y=y, dtype=target
    )
    if REALIZATION in dataset.dims:
        raise SchemaError(
            f"the parameters already have a dimension {REALIZATION!r}, which the ensemble needs; "
            f'rename it, for instance params.rename({REALIZATION}="estimate")'
        )
    names = (*PARAMETERS, *(name for name in (*MOMENTS, PATTERNS) if name in dataset))
    entropy = resolve_seed(seed)
    # settled here: every worker scales its members alike
    variance = variance_method("auto", recipe)
    block = _EnsembleBlock(recipe, names, entropy, target, variance)
    variables = model_variables(dataset, names)
    choice, cells = recipe.choose(target), recipe.grid.ny * recipe.grid.nx
    if chunks == "auto":
        group = choice.width(cells)
        chunks = members_per_block(members, cells * target.itemsize, group)
    # the device goes along with the tasks, so that all workers use the same
    with set_options(device=choice.device):
        data = lazy_members(
            block,
            [variable.data for variable in variables],
            n=members,
            per_block=min(chunks, members),
            dtype=target,
            token=(recipe, names, entropy, target, choice.device, variance),
        )
    template = variables[0]
    return xr.DataArray(
        data,
        dims=(REALIZATION, *template.dims),
        coords=_coordinates(template, members),
        name=str(dataset.attrs.get("source_variable", "field")),
        attrs=_attributes(dataset, recipe, entropy, device=choice.device, variance=variance),
    )


def _check_count(n: Any) -> int:
    if isinstance(n, bool | np.bool_) or not isinstance(n, int | np.integer):
        raise ParameterError(
            f"n={n!r} is of type {type(n).__name__}; the number of members is a whole number; "
            "type for instance emulate(1000)"
        )
    if n <= 0:
        raise ParameterError(
            f"n={n} members were asked for; expected at least 1; type for instance emulate(1000)"
        )
    return int(n)


def _check_chunks(chunks: Any) -> None:
    if isinstance(chunks, str) and chunks == "auto":
        return
    whole = isinstance(chunks, int | np.integer) and not isinstance(chunks, bool)
    if not whole or chunks < 1:
        raise ParameterError(
            f'chunks={chunks!r} was given; expected "auto" or a number of members per block >= 1; '
            "type for instance chunks=64"
        )


def _check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        target = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(
            f'dtype={dtype!r} is no dtype; expected "float32" or "float64"; type dtype="float32"'
        ) from error
    if target not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise DTypeError(
            f'dtype={target} was asked for; fields are "float32" or "float64"; type '
            'dtype="float32" and convert the result with .astype'
        )
    return target


def _default_dtype(params: Any) -> np.dtype[Any]:
    if not isinstance(params, xr.Dataset):
        return np.dtype(np.float64)  # refused as soon as it is read
    moments = [params[name].dtype for name in MOMENTS if name in params]
    return np.result_type(*moments) if moments else np.dtype(np.float64)


def _coordinates(template: xr.DataArray, n: int) -> dict[Any, Any]:
    kept = {name: coord for name, coord in template.coords.items() if name != REALIZATION}
    attrs = {"standard_name": REALIZATION, "long_name": "member", "units": "1"}
    return {REALIZATION: (REALIZATION, np.arange(n), attrs), **kept}


def _attributes(
    dataset: xr.Dataset, recipe: ModelRecipe, entropy: int, *, device: str, variance: str
) -> dict[str, Any]:
    """Attributes of the field the parameters were estimated from, and how this one was made."""
    moments = [dataset[name].attrs for name in MOMENTS if name in dataset]
    source = moments[0] if moments else {"units": "1"}
    attrs: dict[str, Any] = {"long_name": _quantity(dataset)}
    attrs.update({name: source[name] for name in KEPT if name in source})
    settings = {
        "seed": entropy,
        "boundary": recipe.boundary,
        "buffer": recipe.buffer,
        "solver": recipe.solver,
        "device": device,
        "variance": variance if variance == "probing" and "std" in dataset else None,
        "parameters_method": dataset.attrs.get("xr_spde_method"),
    }
    return attrs | provenance("emulate", **settings)


def _quantity(dataset: xr.Dataset) -> str:
    """Long name of the field, from the one that estimators give to its mean."""
    before, after = "mean of ", " over the replicates"
    described = str(dataset["mean"].attrs.get("long_name", "")) if "mean" in dataset else ""
    if described.startswith(before) and described.endswith(after):
        return described[len(before) : -len(after)]
    return str(dataset.attrs.get("source_variable", "spatial autoregressive Gaussian field"))

"""Exact Gaussian conditioning of the field of a parameter Dataset on observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike

from xr_spde._core.errors import DTypeError, ParameterError
from xr_spde._core.options import carry_options, set_options
from xr_spde._core.provenance import provenance
from xr_spde._core.rng import resolve_seed
from xr_spde.assim.conditioned import OBSERVED, CaseReader, PosteriorBlock
from xr_spde.assim.observations import Observations
from xr_spde.assim.reading import as_gridded, own_name
from xr_spde.assim.status import status_attrs, summarised
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.labels.members import lazy_members, members_per_block
from xr_spde.labels.points import calendar_of, check_calendars
from xr_spde.labels.schema import MODE, MOMENTS, PARAMETERS, PATTERNS
from xr_spde.models import Buffer, model_variables, read_model

if TYPE_CHECKING:
    from xr_spde._core.rng import Seed

__all__ = ["condition"]

REALIZATION = "realization"


def condition(
    params: xr.Dataset,
    obs: xr.DataArray | xr.Dataset | Observations,
    *,
    obs_error: Any = None,
    n: int = 0,
    seed: Seed = None,
    threshold: float | None = None,
    operator: Any = "auto",
    footprint: float | tuple[int, int] | None = None,
    unusable: str = "raise",
    value: str | None = None,
    obs_x: str | None = None,
    obs_y: str | None = None,
    route: str = "auto",
    solver: str = "auto",
    boundary: str | None = None,
    buffer: Buffer = "auto",
    chunks: int | Literal["auto"] = "auto",
    dtype: DTypeLike | None = None,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Condition a Gaussian field on observations, exactly.

    The field is the one that `emulate` draws from the parameters: ``mean + std y / sqrt(var y)``
    plus ``patterns``, with ``B y = e``. Given ``d = H u + errors`` its mean, its standard deviation
    and draws follow by sparse linear algebra (Rue and Held 2005; Lindgren, Rue and Lindstrom 2011):
    what an ensemble method tends to with ever more members.

    Parameters
    ----------
    params : Dataset
        ``kappa2``, ``rho``, ``theta`` and optionally ``mean``, ``std`` and ``patterns``, as
        `estimate` returns them. Leading dimensions are mapped over.
    obs : DataArray, Dataset or Observations
        See `xr_spde.assim.observations.read_observations`. Gridded ones may have leading dimensions
        such as time: each of their fields is used by itself.
    obs_error : float, array_like, AlongTrack or ErrorModel, optional
        Standard deviation in the units of the observations; by default from a variable of theirs.
    n : int, default 0
        Number of draws.
    seed : int, SeedSequence, Generator or None
        Of the draws: member m is member m of `emulate` with the same seed, moved by what the
        observations say of it. It does not depend on ``n`` and ``chunks``.
    threshold : float, optional
        Reject observations whose innovation exceeds so many expected standard deviations; by
        default none.
    operator, footprint, unusable, value, obs_x, obs_y
        As in `read_observations`; the operator must be linear. Land is where the parameters are
        NaN.
    route : {"auto", "precision", "augmented", "covariance"}, default "auto"
        How observations are used. "precision": those that touch cells at most two apart and have
        independent errors enter the sparse precision, any number of them; others take a column
        each, thousands of which take minutes. "augmented": others become unknowns of a sparse
        matrix, with independent errors, `AlongTrack` or errors in blocks; ten thousand take
        seconds, and tiny errors lose no digits. "covariance": a column for all, which bears any
        errors. "auto": columns where they are a few hundred at most and errors are not tiny.
    solver, boundary, buffer
        As in `emulate`.
    chunks : int or "auto", default "auto"
        Members per block.
    dtype : float32 or float64, optional
        Of maps and members; by default that of ``mean`` and ``std``, else float64. All is computed
        in float64.
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.

    Returns
    -------
    Dataset
        ``mean``, ``std`` and ``increment`` (..., Y, X); ``ensemble`` (realization, ..., Y, X),
        lazy, where ``n`` > 0; ``innovation`` (observed minus prior mean, NaN where not used) and
        ``status`` (what became of each) along the observations; ``log_likelihood`` of the
        observations and ``chi_square`` (...), the latter near the number of observations used where
        parameters and errors are right. Lazy for lazy parameters or observations.

    Raises
    ------
    ParameterError
        No observation that can be used, unknown or impossible errors, an operator that is not
        linear, other calendars or labels than the parameters; ``n``, ``seed``, ``chunks`` or
        ``buffer`` of a value that makes no sense.
    SchemaError, DTypeError, UnknownNameError, AxisNotFoundError, GridError
        As for `emulate` and `read_observations`.
    MemoryGuardError
        The factorisation would not fit in memory.
    SolverError
        The precision is too near singular; says what to do.

    Notes
    -----
    ``std`` is exact, by selected inversion, wherever that fits in memory; where the variance of
    the field has to be probed (see `variance`), it has that error.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim.kriging import condition
    >>> maps = {"kappa2": 0.5, "rho": 3.0, "theta": 0.5, "mean": 10.0, "std": 2.0}
    >>> params = xr.Dataset({k: (("lat", "lon"), np.full((6, 8), v)) for k, v in maps.items()})
    >>> params = params.assign_coords(lat=np.arange(6.0), lon=np.arange(8.0))
    >>> place = {"lat": ("obs", [2.0]), "lon": ("obs", [3.0])}
    >>> post = condition(params, xr.DataArray([12.0], place, "obs"), obs_error=2.0)
    >>> post["mean"].sel(lat=2, lon=3).item(), post["std"].sel(lat=2, lon=3).item() ** 2
    (11.0, 2.0)
    """
    members = _whole("n", n, least=0)
    if chunks != "auto":
        _whole("chunks", chunks, least=1)
    dataset, recipe = read_model(
        params, solver=solver, boundary=boundary, buffer=buffer, x=x, y=y, dtype=np.float64
    )
    target = _dtype(dataset, dtype)
    options = {"obs_error": obs_error, "operator": operator, "footprint": footprint}
    options |= {"unusable": unusable, "value": value, "obs_x": obs_x, "obs_y": obs_y}
    names = (*PARAMETERS, *(name for name in (*MOMENTS, PATTERNS) if name in dataset))
    gridded = as_gridded(obs, options)
    if gridded is not None:
        dataset = _over_leading(dataset, gridded.values)
    variables = model_variables(dataset, names)
    if gridded is not None:
        lead = {dim: variables[0].sizes[dim] for dim in variables[0].dims[:-2]}
        missing = {dim: size for dim, size in lead.items() if dim not in gridded.values.dims}
        variables.append(gridded.values.expand_dims(missing).transpose(*lead, ...))
        names, obs = (*names, OBSERVED), gridded.template
    elif isinstance(obs, Observations):
        _refuse_options(options)
    reader = CaseReader(recipe, names, obs, options, threshold, route)
    result = _statistics(reader, variables, target)
    if members:
        result["ensemble"] = _ensemble(reader, variables, members, seed, chunks, target)
    return _described(result, reader, dataset)


def _statistics(
    reader: CaseReader, variables: list[xr.DataArray], target: np.dtype[Any]
) -> xr.Dataset:
    """Compute everything but members."""
    grid = (reader.recipe.grid.y_dim, reader.recipe.grid.x_dim)
    source = reader.source
    seen = {own_name(dim): size for dim, size in source.sizes.items()}
    core = {OBSERVED: tuple(seen), PATTERNS: (MODE, *grid)}
    found = apply_core(
        carry_options(reader.statistics),
        *variables,
        core_dims=[core.get(name, grid) for name in reader.names],
        output={
            **{name: Output(grid) for name in ("mean", "std", "increment")},
            "innovation": Output(tuple(seen), np.float64, seen),
            "status": Output(tuple(seen), np.int8, seen),
            "log_likelihood": Output(()),
            "chi_square": Output(()),
        },
    )
    result = xr.Dataset({name: da.drop_attrs(deep=False) for name, da in found.items()})
    maps = ("mean", "std", "increment")
    return result.assign({name: result[name].astype(target) for name in maps})


def _ensemble(
    reader: CaseReader,
    variables: list[xr.DataArray],
    members: int,
    seed: Seed,
    chunks: int | Literal["auto"],
    target: np.dtype[Any],
) -> xr.DataArray:
    """Lay out the draws."""
    entropy, recipe = resolve_seed(seed), reader.recipe
    choice, cells = recipe.choose(), recipe.grid.ny * recipe.grid.nx
    if chunks == "auto":
        chunks = members_per_block(members, cells * 8, choice.width(cells))
    with set_options(device=choice.device):
        data = lazy_members(
            PosteriorBlock(reader, entropy, target),
            [variable.data for variable in variables],
            n=members,
            per_block=min(chunks, members),
            dtype=target,
            token=(reader, entropy, target, choice.device),
        )
    template = variables[0]
    attrs = {"standard_name": REALIZATION, "long_name": "member", "units": "1"}
    coords = {REALIZATION: (REALIZATION, np.arange(members), attrs), **template.coords}
    found = xr.DataArray(data, coords, (REALIZATION, *template.dims))
    return found.assign_attrs(provenance("conditional draws", seed=entropy))


def _described(result: xr.Dataset, reader: CaseReader, dataset: xr.Dataset) -> xr.Dataset:
    """Attach labels and attributes."""
    source, recipe = reader.source, reader.recipe
    own = {own_name(name): coord for name, coord in source.coords.items() if coord.ndim}
    result = result.assign_coords(
        {n: (tuple(own_name(d) for d in c.dims), c.values, c.attrs) for n, c in own.items()}
    )
    field: Any = next((dataset[name].attrs for name in MOMENTS if name in dataset), {"units": "1"})
    words = {
        "mean": "mean of the field given the observations",
        "std": "standard deviation of the field given the observations",
        "increment": "posterior minus prior mean",
        "ensemble": "draw of the field given the observations",
        "innovation": "observed minus prior mean",
    }
    for name in result.data_vars:
        if name in words:
            result[name].attrs = derived_attrs(
                field, long_name=words[str(name)], **result[name].attrs
            )
    numbers = {
        "log_likelihood": "log-likelihood of the observations",
        "chi_square": "squared innovations in units of what was expected, summed up",
    }
    for name, text in numbers.items():
        result[name].attrs = {"long_name": text, "units": "1"}
    result["status"].attrs = status_attrs()
    settings: dict[str, Any] = {
        "boundary": recipe.boundary,
        "buffer": recipe.buffer,
        "solver": recipe.solver,
    }
    settings |= {"route": reader.route, "threshold": reader.threshold}
    if not is_lazy(result["status"]):
        settings["observations"] = summarised(result["status"].values)
    return result.assign_attrs({"Conventions": "CF-1.11", **provenance("condition", **settings)})


def _over_leading(dataset: xr.Dataset, field: xr.DataArray) -> xr.Dataset:
    """Give the parameters the leading dimensions of gridded observations."""
    known = dataset[PARAMETERS[0]]
    for dim in field.dims[:-2]:
        if dim not in known.dims:
            label = {dim: field[dim] if dim in field.coords else field.sizes[dim]}
            spread = {name: dataset[name].expand_dims(label) for name in PARAMETERS}
            dataset = dataset.assign(spread)
            continue
        if dim in field.coords and dim in known.coords:
            if calendar_of(field[dim]) is not None:
                check_calendars(field[dim], known[dim])
            same = field.indexes[dim].equals(known.indexes[dim])
        else:
            same = field.sizes[dim] == known.sizes[dim]
        if not same:
            raise ParameterError(
                f"the observations and the parameters have other labels along {dim!r} "
                f"({field.sizes[dim]} and {known.sizes[dim]} of them); select the same ones, such "
                f"as obs.sel({dim}=params.{dim})"
            )
    return dataset


def _refuse_options(options: dict[str, Any]) -> None:
    """Refuse arguments that belong to the reading of observations that were read already."""
    usual = {"operator": "auto", "unusable": "raise"}
    given = [name for name, value in options.items() if value is not usual.get(name)]
    if given:
        raise ParameterError(
            f"{', '.join(given)} {'was' if len(given) == 1 else 'were'} given together with "
            "observations that have been read already; pass it to read_observations"
        )


def _whole(name: str, value: Any, *, least: int) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ParameterError(
            f"{name}={value!r} was given; expected a whole number >= {least}; type for instance "
            f"{name}=100"
        )
    return int(value)


def _dtype(dataset: xr.Dataset, dtype: DTypeLike | None) -> np.dtype[Any]:
    moments = [dataset[name].dtype for name in MOMENTS if name in dataset]
    try:
        found = np.dtype(dtype) if dtype is not None else np.result_type(*moments, np.float32)
    except TypeError as error:
        raise DTypeError(f'dtype={dtype!r} is no dtype; type dtype="float32"') from error
    if dtype is None and not moments:
        found = np.dtype(np.float64)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise DTypeError(
            f'dtype={found} was asked for; fields are "float32" or "float64"; type dtype="float32"'
        )
    return found

"""The prior of a field in space and time, fitted to maps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import DTypeError, ParameterError, unknown
from xr_spde._core.options import carry_options
from xr_spde._core.provenance import provenance
from xr_spde._core.warn import warn
from xr_spde.assim.prior_recipe import PriorRecipe, check_names
from xr_spde.assim.times import step_of, time_dim
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spde import SpdeOperator
from xr_spde.fields.spde_fit import SpdeFit, fit
from xr_spde.fields.spde_maps import MAPS, from_maps, knot_basis
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.labels.prior_schema import STEP, describe_prior

__all__ = ["fitted_errors", "maps_of", "spde_prior", "warn_beyond"]

Float = NDArray[np.float64]

_FITTED = ("length", "length_across", "angle", "decay_time", "u", "v", "std")
_STEP = 1e-4


def spde_prior(
    fields: xr.DataArray,
    *,
    alpha: int = 4,
    mean: str | float | xr.DataArray = "time",
    knots: tuple[int, int] = (1, 1),
    anisotropic: bool = True,
    flow: bool = False,
    smoothness: float = 0.3,
    boundary: str = "neumann",
    coast: str = "neumann",
    advection: str = "centred",
    max_iterations: int = 200,
    stderr: bool = True,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Fit the prior of a space-time field to maps of it, by maximum likelihood.

    Anomalies follow ``dx/dt + (kappa^2 + m.grad - div H grad)^(alpha/2) x = tau noise`` in implicit
    Euler steps, with land as a barrier; the series is one window, and its likelihood exact.

    Parameters
    ----------
    fields : DataArray (..., time, Y, X)
        At regular times, complete but for land, which is NaN at all times. Further dimensions are
        mapped over. Real lengths: coordinates in degrees, m or km.
    alpha : {4, 2}
        Power. Fields of alpha = 4 have a Matern correlation of smoothness 1 in space; those of
        alpha = 2 are rough, and their variance belongs to the spacing of the grid.
    mean : "time", float or DataArray (Y, X), default "time"
        Prior mean; by default that of the fields over time.
    knots : (int, int), default (1, 1)
        Knots in y and x of smooth maps of the parameters; (1, 1) is constants.
    anisotropic : bool, default True
        Whether correlations may be longer in one direction.
    flow : bool, default False
        Whether anomalies may move.
    smoothness : float, default 0.3
        Standard deviation of the difference of the logarithms of neighbouring knots.
    boundary : {"neumann", "dirichlet"}, default "neumann"
        What lies beyond the edges; longitudes that close are periodic.
    coast : {"neumann", "dirichlet"}, default "neumann"
        What lies on land.
    advection : {"centred", "upwind-1", "upwind-3"}, default "centred"
        Differences along the flow.
    max_iterations : int, default 200
        Of the climb.
    stderr : bool, default True
        Whether to compute standard errors, at two evaluations for each unknown.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset (..., Y, X)
        ``length``, ``length_across`` (km), ``angle`` (radian), ``decay_time`` (days), ``u``, ``v``
        (m s-1), ``std`` and ``mean`` (units of the fields), each but the mean with its
        ``*_stderr``; ``log_likelihood`` and ``converged``. NaN on land. Lazy where the fields are.

    Raises
    ------
    ParameterError
        For fields with gaps off land, times that are not regular, or options that make no sense.
    AxisNotFoundError, GridError
        No time, or coordinates without lengths.

    Notes
    -----
    A series that is short against ``decay_time`` loses variance with its own mean, and ``std`` and
    ``decay_time`` come out too small. The standard errors are those of the model: real fields are
    no realization of it.

    The likelihood of complete fields is that of their smallest scales. Maps of a product, smoother
    there than any field of the model, give lengths and times far too long, about which a warning
    says so; fit to cells and times that are apart then, with ``grid=`` and ``thin=``
    (`spde_prior_from_points`), or to the observations themselves.

    Warns
    -----
    UserWarning
        If a fitted length or time exceeds that of the fields.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim import spde_prior
    >>> z = np.random.default_rng(0).standard_normal((6, 8, 9)).cumsum(axis=0)
    >>> coords = {"time": np.arange("2014-05-15", "2014-05-21", dtype="datetime64[D]"),
    ...           "lat": np.arange(8.0), "lon": np.arange(9.0)}
    >>> prior = spde_prior(xr.DataArray(z, coords, ("time", "lat", "lon")), alpha=2, stderr=False)
    >>> prior.length.units, prior.decay_time.units
    ('km', 'days')
    """
    check_names(alpha, boundary, coast, advection)
    if not isinstance(fields, xr.DataArray):
        raise DTypeError(
            f"fields of type {type(fields).__name__} were given; expected a DataArray with time; "
            "observations along tracks or at points need grid=, a field on the grid of the prior"
        )
    fields = as_float(fields)
    grid, dim = Grid.from_object(fields, x=x, y=y), time_dim(fields, "the fields")
    settings = {"alpha": int(alpha), "boundary": boundary, "coast": coast, "advection": advection}
    settings["initial"] = "stationary"
    names = maps_of(anisotropic, flow)
    recipe = PriorRecipe(grid, step_of(fields[dim], "the fields"), settings)
    how = {"knots": tuple(knots), "smoothness": smoothness, "names": names}
    how |= {"max_iterations": max_iterations, "stderr": stderr}
    plane = (grid.y_dim, grid.x_dim)
    average = fields.mean(dim) if isinstance(mean, str) and mean == "time" else mean
    if isinstance(average, str):
        raise unknown("mean", average, ("time", "a number", "a DataArray"))
    if not isinstance(average, xr.DataArray):
        average = xr.full_like(fields.isel({dim: 0}, drop=True), float(average))
    maps = [name for base in _FITTED for name in ((base, f"{base}_stderr") if stderr else (base,))]
    found = apply_core(
        carry_options(_Fitter(recipe, how)),
        fields,
        average,
        core_dims=[(dim, *plane), plane],
        output={
            **{name: Output(plane, fields.dtype) for name in maps},
            "log_likelihood": Output(()),
            "converged": Output((), np.bool_),
        },
    )
    found["mean"] = average.transpose(..., *plane).where(found["std"].notnull())
    found["log_likelihood"].attrs = {}
    options = {**how, "mean": mean if isinstance(mean, str | float | int) else "given"}
    attrs = {**settings, STEP: recipe.step, **provenance("spde_prior", **options)}
    if fields.name is not None:
        attrs["source_variable"] = str(fields.name)
    result = describe_prior(found, source=fields, attrs=attrs)
    result["log_likelihood"].attrs = {"long_name": "log-likelihood of the fields", "units": "1"}
    result["converged"].attrs = {"long_name": "whether the climb came to its end"}
    return result


def maps_of(anisotropic: bool, flow: bool) -> tuple[str, ...]:
    """Return the names of the maps that are fitted."""
    return tuple(
        name for name in MAPS
        if (anisotropic or name not in ("h1", "h2")) and (flow or name not in ("u", "v"))
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Fitter:
    """Fits one series; what lazy tasks compute."""

    recipe: PriorRecipe
    how: Mapping[str, Any]

    def __call__(self, fields: NDArray[Any], mean: NDArray[Any]) -> dict[str, Any]:
        """Fit (time, ny, nx) as stored, less the mean (ny, nx)."""
        recipe, grid = self.recipe, self.recipe.grid
        x = grid.to_canonical(np.asarray(fields, dtype=np.float64) - mean)
        missing = np.isnan(x)
        land = missing.all(axis=0)
        gaps = missing & ~land
        if gaps.any() or land.all():
            raise ParameterError(
                f"{int(gaps.sum())} of {x.size} values are missing off land (which is NaN at all "
                f"times, {int(land.sum())} of {land.size} cells); the prior is fitted to complete "
                "maps; fill the gaps, or select times and places without"
            )
        operator = recipe.operator(land)
        x[np.isnan(x)] = 0.0
        found = fit(operator, x[None], dt=recipe.step, alpha=recipe.settings["alpha"], **self.how)
        maps = recipe.physical(found.parameters, operator.mesh)
        warn_beyond(maps, operator.mesh, recipe.step * len(x), "fields")
        if self.how["stderr"]:
            for name, value in fitted_errors(found, recipe, operator, self.how["knots"]).items():
                maps[f"{name}_stderr"] = value
        out: dict[str, Any] = {
            name: np.where(grid.from_canonical(land), np.nan, grid.from_canonical(value))
            for name, value in maps.items()
        }
        return out | {"log_likelihood": found.log_likelihood, "converged": found.converged}


def warn_beyond(maps: Mapping[str, Float], mesh: Mesh, days: float, what: str) -> None:
    """Warn where data are too few to say how far correlations reach.

    Parameters
    ----------
    maps : mapping of str to ndarray (ny, nx)
        With ``length`` and ``decay_time``.
    mesh : Mesh
        Where the data are.
    days : float
        How long they last.
    what : str
        What they are.
    """
    water = ~mesh.land
    width = float(np.hypot(mesh.dx.mean() * mesh.shape[1], mesh.dy.mean() * mesh.shape[0])) / 1e3
    length, decay = (float(np.median(maps[name][water])) for name in ("length", "decay_time"))
    if length > width or decay > days:
        warn(
            f"the fitted prior has a length of {length:.4g} km and a decay time of {decay:.4g} "
            f"days, and the {what} are {width:.4g} km wide and {days:.4g} days long: they do not "
            "say how far correlations reach, or are smoother than the model (maps of a product "
            "often are: fit with grid= and thin=); compare with numbers from elsewhere"
        )


def fitted_errors(
    found: SpdeFit, recipe: PriorRecipe, operator: SpdeOperator, knots: tuple[int, int]
) -> dict[str, Float]:
    """Compute standard errors of the variables, to first order in those of the maps.

    Parameters
    ----------
    found : SpdeFit
        What was fitted.
    recipe, operator
        Of the prior.
    knots : (int, int)
        Of the maps.

    Returns
    -------
    dict of str to ndarray (ny, nx)
    """
    basis = knot_basis(operator.mesh.shape, knots)
    count, shape = len(basis), operator.mesh.shape
    slopes: dict[str, list[Float]] = {name: [] for name in _FITTED}
    for name in found.names:
        ends = []
        for sign in (1.0, -1.0):
            moved = {**found.maps, name: found.maps[name] + sign * _STEP}
            ends.append(recipe.physical(from_maps(moved, operator, recipe.step), operator.mesh))
        for variable, column in slopes.items():
            change = ends[0][variable] - ends[1][variable]
            if variable == "angle":
                change = (change + np.pi / 2) % np.pi - np.pi / 2
            column.append(change.ravel() / (2.0 * _STEP))
    covariance = found.covariance.reshape(len(found.names), count, len(found.names), count)
    local = np.einsum("kn,akbl,ln->abn", basis, covariance, basis, optimize=True)
    errors = {}
    for variable, column in slopes.items():
        slope = np.stack(column)
        variance = np.einsum("an,abn,bn->n", slope, local, slope)
        errors[variable] = np.sqrt(np.maximum(variance, 0.0)).reshape(shape)
    return errors

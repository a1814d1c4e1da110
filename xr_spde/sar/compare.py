"""Which structure the data ask for: nested models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.provenance import provenance
from xr_spde.labels.arrays import array_of
from xr_spde.labels.axes import find_replicates, find_spatial
from xr_spde.sar.estimate import estimate
from xr_spde.sar.settings import STRUCTURES

STRUCTURE = "structure"
_NUMBERS = ("log_likelihood", "effective_parameters")


def compare_structures(
    obj: xr.DataArray | xr.Dataset,
    dim: str | None = None,
    *,
    structures: Sequence[str] = STRUCTURES,
    x: str | None = None,
    y: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Compare nested models of the correlation by their exact likelihood.

    Fits each structure with ``estimate(method="mle")`` and gives information criteria and tests.
    The number of parameters of a penalised map is the effective one, the trace of the posterior
    covariance times the information of the data (Wood 2017, section 6.1); the deviance of a
    narrower model against the widest one is referred to a chi-squared distribution with the
    difference of these numbers, at least one. That is right asymptotically between "stationary" and
    "stationary isotropic"; where maps vary it is approximate and rejects a little too often, since
    their smoothness has been chosen from the same data.

    Parameters
    ----------
    obj : DataArray or Dataset
        Replicates of a field, as for `estimate`.
    dim : str, optional
        Dimension of the replicates; found by itself where it is clear.
    structures : sequence of str
        At least two of "nonstationary", "isotropic", "stationary", "stationary isotropic".
    x, y : str, optional
        Names of the horizontal axes where they should not be searched for.
    **settings
        Of `estimate`: ``nugget``, ``covariates``, ``boundary``, ``buffer``, ``penalty``.

    Returns
    -------
    Dataset (structure)
        ``log_likelihood``, ``effective_parameters``, ``aic``, ``bic`` (smaller is better), and
        ``deviance``, ``degrees_of_freedom`` and ``p_value`` against the widest structure (NaN for
        itself, and for what is no special case of it). Leading dimensions of the data stay; lazy
        for lazy data.

    Raises
    ------
    UnknownNameError
        Another structure.
    ParameterError
        Fewer than two structures, ``method`` or ``structure`` among the settings, data with a
        dimension or coordinate called "structure", or what `estimate` refuses.

    Examples
    --------
    >>> from xr_spde.sar import compare_structures, emulate
    >>> from xr_spde.synthetic import constant_parameters
    >>> truth = constant_parameters((16, 16), kappa2=0.3, rho=4.0, theta=0.5)
    >>> fields = emulate(truth, 8, seed=1).compute()
    >>> table = compare_structures(
    ...     fields, structures=["stationary", "stationary isotropic"], buffer=4
    ... )
    >>> table.aic.idxmin("structure").item()
    'stationary'
    """
    names = [structures] if isinstance(structures, str) else list(structures)
    for name in names:
        if name not in STRUCTURES:
            raise unknown("structure", name, STRUCTURES)
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ParameterError(
            f"structures={names} was given; expected two or more different ones of {STRUCTURES}"
        )
    fixed = [name for name in ("method", "structure") if name in settings]
    if fixed:
        raise ParameterError(
            f"{fixed[0]}={settings[fixed[0]]!r} was given; the structures are compared by "
            'method="mle" alone: leave it out, and name the structures with structures=[...]'
        )
    fields = array_of(obj, x=x, y=y)
    if STRUCTURE in {*fields.dims, *fields.coords}:
        raise ParameterError(
            f"the data already have a dimension or coordinate {STRUCTURE!r}, which the result "
            f'needs; rename it, for instance .rename({STRUCTURE}="{STRUCTURE}_of_data")'
        )
    spatial = find_spatial(fields, x=x, y=y)
    replicates = find_replicates(fields, dim, spatial=spatial)
    fits = [
        estimate(fields, replicates, method="mle", structure=name, x=x, y=y, **settings)
        for name in names
    ]
    # of objects, as strings read from a file are: Zarr has no type of its own for others
    index = xr.DataArray(np.array(names, dtype=object), dims=STRUCTURE, name=STRUCTURE)
    table = xr.concat([fit[list(_NUMBERS)] for fit in fits], index)
    seen = fields.notnull().sum([replicates, *spatial])
    # not the schema: these are no parameters
    own = ("schema", "schema_version", "xr_spde_structure")
    table.attrs = {name: value for name, value in fits[0].attrs.items() if name not in own}
    table.attrs |= provenance("compare_structures")
    return _criteria(table, seen)


def _criteria(table: xr.Dataset, seen: xr.DataArray) -> xr.Dataset:
    """Add criteria and tests against the structure with most parameters."""
    value, count = table.log_likelihood, table.effective_parameters
    more = table.assign(
        aic=2.0 * (count - value),
        bic=np.log(seen) * count - 2.0 * value,
    )
    # the order of the names, not of the noisy effective numbers, says what is nested in what
    widest = min(table.structure.values.tolist(), key=STRUCTURES.index)
    top = table.sel(structure=widest, drop=True)
    nested = table.structure.isin([name for name in STRUCTURES if _nested(name, widest)])
    deviance = (2.0 * (top.log_likelihood - value)).where(nested)
    freedom = (top.effective_parameters - count).where(nested)
    p_value = xr.apply_ufunc(_tail, deviance, freedom, dask="parallelized", output_dtypes=[float])
    out = more.assign(deviance=deviance, degrees_of_freedom=freedom, p_value=p_value)
    words = {
        "aic": "Akaike's information criterion",
        "bic": "Bayesian information criterion",
        "deviance": f"twice the log-likelihood ratio against {widest!r}",
        "degrees_of_freedom": f"effective parameters fewer than {widest!r}",
        "p_value": "probability of a larger deviance under the narrower model",
    }
    for name, long_name in words.items():
        out[name].attrs = {"long_name": long_name, "units": "1"}
    return out.transpose(STRUCTURE, ...)


def _nested(name: str, widest: str) -> bool:
    """Whether a structure is a special case of another."""
    restrictions = set(widest.split()) - {STRUCTURES[0]}
    return name != widest and restrictions <= set(name.split())


def _tail(deviance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Upper tail of chi-squared."""
    from scipy.stats import chi2

    return np.asarray(chi2.sf(np.maximum(deviance, 0.0), np.maximum(freedom, 1.0)))

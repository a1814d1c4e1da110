"""Spatial autoregressive (SAR) Gaussian fields with parameters that vary from place to place.

SAR stands for spatial autoregressive, not for synthetic aperture radar. A field is the solution
of ``B y = e`` with white noise ``e`` and a sparse nine-point operator ``B`` built from three maps:
``kappa2`` (inverse squared range), ``rho`` (anisotropy ratio) and ``theta`` (direction of longest
correlation). `estimate` finds the maps from replicates, `emulate` draws new fields from them, and
the diagnostics say what they mean in kilometres, correlations and likelihoods.
"""

from __future__ import annotations

# Bound here, not on demand: a function of its module's name must come after the module.
from xr_spde.sar.compare import compare_structures
from xr_spde.sar.diagnose import (
    correlation,
    log_likelihood,
    operator,
    range,
    standardize,
    variance,
)
from xr_spde.sar.emulate import emulate
from xr_spde.sar.estimate import estimate

__all__ = [
    "compare_structures",
    "correlation",
    "emulate",
    "estimate",
    "log_likelihood",
    "operator",
    "range",
    "standardize",
    "variance",
]

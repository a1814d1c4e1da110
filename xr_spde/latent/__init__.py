"""Between two images: their motion, and the frames nobody saw.

`interpolate` gives frames at any time, `velocity` the motion in metres per second, `evolve` what
becomes of one image in a velocity, `compare_methods` scores methods on frames that were withheld,
`calibrate` learns from such frames how large errors are, and `fit` returns the latent model,
between whose states and images `encode` and `decode` translate; `sensitivity` tells how much that
model depends on its settings. The modules behind them work on arrays without labels.
"""

from __future__ import annotations

# Bound here, not on demand: a function of its module's name must come after the module.
from xr_spde.latent.calibration import calibrate
from xr_spde.latent.evolve import evolve
from xr_spde.latent.interpolate import interpolate
from xr_spde.latent.labelled_model import decode, encode, fit
from xr_spde.latent.score import compare_methods
from xr_spde.latent.sensitivity import sensitivity, sensitivity_effects
from xr_spde.latent.velocity import velocity

__all__ = [
    "calibrate",
    "compare_methods",
    "decode",
    "encode",
    "evolve",
    "fit",
    "interpolate",
    "sensitivity",
    "sensitivity_effects",
    "velocity",
]

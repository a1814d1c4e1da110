"""Truth that is known: parameter maps, fields drawn from them, and turbulence on demand."""

from __future__ import annotations

from xr_spde.synthetic.gaussian import diagonal_mask, spacetime_field
from xr_spde.synthetic.parameters import constant_parameters, random_parameters
from xr_spde.synthetic.seas import turbulent_sea
from xr_spde.synthetic.shallow_water import shallow_water

__all__ = [
    "constant_parameters",
    "diagonal_mask",
    "random_parameters",
    "shallow_water",
    "spacetime_field",
    "turbulent_sea",
]

"""Assimilation: observations into ensembles and Gaussian fields, on labelled grids.

`assimilate` is the face; `cycle` and `steps` alternate it with a forecast, `score` says how good
the result is. `read_observations`, `thin` and `superob` make observations ready by hand.
"""

from __future__ import annotations

# Bound here, not on demand: a function of its module's name must come after the module.
from xr_spde.assim.assimilate import assimilate
from xr_spde.assim.correlated import AlongTrack
from xr_spde.assim.cycle import cycle, steps
from xr_spde.assim.inflation import Adaptive
from xr_spde.assim.latent.model import LatentModel
from xr_spde.assim.latent.storage import load_model
from xr_spde.assim.neural_fit import fit
from xr_spde.assim.neural_solver import NeuralSolver, load_solver
from xr_spde.assim.observations import read_observations
from xr_spde.assim.observing import simulate_tracks
from xr_spde.assim.prior import spde_prior
from xr_spde.assim.prior_points import spde_prior_from_points
from xr_spde.assim.recalibration import recalibrate
from xr_spde.assim.score import score
from xr_spde.assim.screening import superob, thin

__all__ = [
    "Adaptive",
    "AlongTrack",
    "LatentModel",
    "NeuralSolver",
    "assimilate",
    "cycle",
    "fit",
    "load_model",
    "load_solver",
    "read_observations",
    "recalibrate",
    "score",
    "simulate_tracks",
    "spde_prior",
    "spde_prior_from_points",
    "steps",
    "superob",
    "thin",
]

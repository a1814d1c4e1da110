"""How the implicit representation of shallow water is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _shallow_water import Runs

STEPS = 25_000
"""About 30 CPU minutes of one core."""


def train_map(
    runs: Runs, folder: str | Path, *, joint: bool = False, turned: float = 0.0, steps: int = STEPS,
    held: np.ndarray | None = None, seed: int = 0,
) -> tuple[Any, np.ndarray]:  # fmt: skip
    """State map with codes of 400 numbers, and the codes (N, 400) of the training.

    Parameters
    ----------
    runs : Runs
        To learn from.
    folder : path
        Of checkpoints: a run that was stopped goes on.
    joint : bool
        Both variables read all 400 numbers; otherwise 200 each, as in the source.
    turned : float
        Share of steps on fields turned about the axis.
    steps : int
        Of the training.
    held : ndarray (H, points, 2), optional
        Fields that choose the best checkpoint; by default of the training, never of the test.
    seed : int
        Of weights and draws.
    """
    from xr_spde.nets.sinr import SinrSettings
    from xr_spde.nets.sinr_batches import SinrTraining
    from xr_spde.nets.sinr_training import fit_sinr

    sizes = {"code": 0, "common": 400} if joint else {"code": 200}
    return fit_sinr(
        runs.train.reshape(-1, *runs.train.shape[2:]),
        runs.points,
        runs.weights,
        network=SinrSettings(variables=2, **sizes),
        training=SinrTraining(
            steps=steps,
            rate=5e-3,
            fields=64,
            points=512,
            turned=turned,
            average=0.995,
            every=max(1, min(1000, steps)),
        ),
        held=held,
        folder=folder,
        seed=seed,
    )

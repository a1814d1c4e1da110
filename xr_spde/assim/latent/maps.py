"""Fits of state maps by method: what each is given, and the size of its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.lazyimport import require
from xr_spde.assim.latent.protocols import StateMap
from xr_spde.assim.latent.settings import LatentSettings
from xr_spde.assim.latent.training import Training

__all__ = ["MAPS", "WHOLE", "Task", "options_of"]

Float = NDArray[np.float64]

_MODES = 400
_NUMBERS = 200
_SHARE = 4  # snapshots for each number of a code, where its size is not given


@dataclass(frozen=True, eq=False)
class Task:
    """What the fit of a part is given.

    Attributes
    ----------
    training : Training
        The series.
    settings : LatentSettings
        Of the fit.
    entropy : int
        Of all that is random.
    folder : str
        For what a training keeps.
    """

    training: Training
    settings: LatentSettings
    entropy: int
    folder: str

    @property
    def sphere(self) -> bool:
        """Whether points are longitude and latitude."""
        return self.training.layout.domain == "sphere"

    def code_size(self, usual: int) -> int:
        """Size of a code: as given, or `usual` where there are snapshots enough.

        Parameters
        ----------
        usual : int
            Of the source.

        Returns
        -------
        int

        Raises
        ------
        ParameterError
            If the snapshots do not span so many numbers.
        """
        count = len(self.training.trained.snapshots)
        given = self.settings.code
        if given is None:
            return max(1, min(usual, count // _SHARE))
        if given < 1.0:
            raise ParameterError(f'code={given:g} is a share of variance, which only "pod" knows')
        if given > count - 1:
            raise ParameterError(
                f"code={given:g} was given and there are {count} snapshots to train on, which span "
                f"{count - 1} directions about their mean; give at most that, or more times"
            )
        return int(given)


def options_of(given: Mapping[str, Any], *classes: type) -> list[dict[str, Any]]:
    """Share out options among settings.

    Parameters
    ----------
    given : mapping
        Options by name.
    *classes : type
        Dataclasses; each option goes to the first that knows it.

    Returns
    -------
    list of dict
        One for each class.

    Raises
    ------
    UnknownNameError
        For an option that none of them knows.
    """
    known = [{one.name for one in fields(kind)} for kind in classes]
    found: list[dict[str, Any]] = [{} for _ in classes]
    for name, value in given.items():
        owner = next((k for k, names in enumerate(known) if name in names), None)
        if owner is None:
            raise unknown("option", name, sorted(set().union(*known)))
        found[owner][name] = value
    return found


def _fit_pod(task: Task) -> tuple[StateMap, Float]:
    from xr_spde.fields.pod import fit_pod

    code, training = task.settings.code, task.training
    modes: float = code if code is not None and code < 1.0 else task.code_size(_MODES)
    return fit_pod(training.trained.snapshots, training.layout.points, training.weights,
                   modes=modes, sphere=task.sphere, seed=task.entropy,
                   **task.settings.network)  # fmt: skip


def _fit_sinr(task: Task) -> tuple[StateMap, Float]:
    """Fit an implicit representation; the last tenth of the times chooses when to stop."""
    require("torch", "torch")
    from xr_spde.nets.sinr import SinrSettings
    from xr_spde.nets.sinr_training import SinrTraining, fit_sinr

    training, s = task.training, task.settings
    own, timing = options_of(s.network, SinrSettings, SinrTraining)
    usual = {"bank": "spherical" if task.sphere else "fourier", "code": task.code_size(_NUMBERS)}
    network = SinrSettings(**{**usual, **own, "variables": len(training.layout.channels)})
    values = training.trained.values
    last = values.shape[1] - max(1, values.shape[1] // 10)
    found, _ = fit_sinr(
        _flat(values[:, :last]), training.layout.points, training.weights, network=network,
        training=SinrTraining(**timing), held=_flat(values[:, last:]), folder=f"{task.folder}/map",
        seed=task.entropy % 2**31, progress=s.progress,
    )  # fmt: skip
    state_map: StateMap = found
    return state_map, np.asarray(state_map.encode(training.trained.snapshots), dtype=np.float64)


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(-1, *values.shape[2:])


def _fit_auto_encoder(kind: str) -> Callable[[Task], tuple[StateMap, Float]]:
    def fit(task: Task) -> tuple[StateMap, Float]:
        require("torch", "torch")
        from xr_spde.nets.auto_encoder_training import AutoEncoderSettings, fit_auto_encoder
        from xr_spde.nets.training import Schedule

        if task.settings.code is not None:
            raise ParameterError(
                f'code={task.settings.code:g} was given; that of "{kind}" follows from the grid: '
                'type for instance network={"latent": 8} for its channels'
            )
        own, timing = options_of(task.settings.network, AutoEncoderSettings, Schedule)
        schedule = replace(AutoEncoderSettings().schedule, **timing)
        training = task.training
        found: tuple[StateMap, Float] = fit_auto_encoder(
            training.trained.snapshots, training.layout.points, training.weights,
            settings=AutoEncoderSettings(kind=kind, schedule=schedule, **own),
            folder=f"{task.folder}/map", sphere=task.sphere, seed=task.entropy,
        )  # fmt: skip
        return found

    return fit


MAPS: dict[str, Callable[[Task], tuple[StateMap, Float]]] = {
    "pod": _fit_pod,
    "lainr": _fit_sinr,
    "cae": _fit_auto_encoder("cae"),
    "aeflow": _fit_auto_encoder("aeflow"),
}
"""Fits by method; each gives a map and the codes (N, n) of what was trained on."""

WHOLE = ("cae", "aeflow")
"""Methods of convolutions, which need every cell of a grid, land too."""

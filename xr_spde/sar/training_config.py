"""Settings of a training run, read from TOML and checked."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from xr_spde._core.errors import ParameterError
from xr_spde.sar.simulate import CaseGroup


@dataclass(frozen=True)
class TrainingConfig:
    """A training run, as read from a TOML file.

    Attributes
    ----------
    architecture : str
        Key of `xr_spde.nets.registry.ARCHITECTURES`.
    options : dict
        Arguments of the network.
    groups : tuple of CaseGroup
        What to simulate.
    shares : tuple of float
        Probability of each group in a batch.
    held : tuple of int
        First cases of each group, kept for validation.
    data_seed, seed : int
        Of the simulations; of the initial weights and batches.
    cells : int
        Grid cells of a batch.
    window : int
        Side of the windows cut for a window network; 0 for whole fields.
    variation, schedule : dict
        Arguments of `xr_spde.nets.cases.Variation` and `xr_spde.nets.training.Schedule`.
    threads : int
        Threads of the optimiser.
    fresh : bool
        Draw every case of the training anew, instead of reading a stored set again and again.
    calibration : int
        Cases per size on which the standard errors are calibrated in the end.
    text : str
        The file itself, for the card.
    """

    architecture: str
    options: dict[str, Any]
    groups: tuple[CaseGroup, ...]
    shares: tuple[float, ...]
    held: tuple[int, ...]
    data_seed: int
    seed: int
    cells: int
    window: int = 0
    variation: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    fresh: bool = False
    calibration: int = 40
    text: str = ""

    def __post_init__(self) -> None:
        for group, held in zip(self.groups, self.held, strict=True):
            if not 0 <= held < group.cases:
                raise ParameterError(
                    f"group {group.name} holds {held} of its {group.cases} cases for validation; "
                    "expected at least 0, and some to train on"
                )
            if held and group.replicates < 2:
                raise ParameterError(
                    f"group {group.name} holds cases for validation, which are standardised, but "
                    "has one replicate; give more"
                )
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            # they would share one store: cases held by one are what the other trains on
            raise ParameterError(f"groups have the shapes {names}; expected each shape once")
        if not any(self.held):
            raise ParameterError("no group holds cases for validation; give one held = 10, say")
        if min(self.shares) < 0.0 or sum(self.shares) <= 0.0:
            raise ParameterError(f"shares are {self.shares}; expected none negative, one positive")

    @property
    def stored_groups(self) -> tuple[CaseGroup, ...]:
        """Cases to simulate before the training: all of them, or only those for validation."""
        if not self.fresh:
            return self.groups
        pairs = zip(self.groups, self.held, strict=True)
        return tuple(replace(group, cases=held) for group, held in pairs if held)

    @property
    def calibration_groups(self) -> tuple[CaseGroup, ...]:
        """Further cases of the groups that hold some for validation, to calibrate a network."""
        if self.architecture != "net":
            return ()
        pairs = zip(self.groups, self.held, strict=True)
        return tuple(replace(group, cases=self.calibration) for group, held in pairs if held)

    @property
    def recipe(self) -> str:
        """Settings that decide what the weights become, but for how long they are trained."""
        settings = asdict(self)
        for name in ("text", "threads", "calibration"):
            del settings[name]
        length = ("steps", "every", "patience")
        settings["schedule"] = {k: v for k, v in self.schedule.items() if k not in length}
        return json.dumps(settings, sort_keys=True)

    @classmethod
    def read(cls, source: str | os.PathLike[str]) -> TrainingConfig:
        """Read a TOML file, or one of those that come with the package by name.

        Parameters
        ----------
        source : path-like
            A file, or "net", "unet", "vit", "stun" or "cnn".

        Returns
        -------
        TrainingConfig

        Raises
        ------
        ParameterError
            If there is no such file, it is not TOML, or a setting is absent, unknown or unusable.
        """
        configs = resources.files("xr_spde.sar") / "configs"
        packaged, place = configs / f"{source}.toml", Path(source)
        if not place.is_file() and not packaged.is_file():
            known = sorted(p.name.removesuffix(".toml") for p in configs.iterdir())
            raise ParameterError(f"config is {str(source)!r}: no such file, and not of {known}")
        text = place.read_text() if place.is_file() else packaged.read_text()
        try:
            return cls._from_tables(tomllib.loads(text), text)
        except KeyError as error:
            raise ParameterError(f"config {str(source)!r} lacks the setting {error}") from error
        except (TypeError, ValueError) as error:
            raise ParameterError(f"config {str(source)!r}: {error}") from error

    @classmethod
    def _from_tables(cls, raw: dict[str, Any], text: str) -> TrainingConfig:
        _refuse_others(raw, "tables", {"network", "data", "variation", "schedule", "run"})
        network, data, run = dict(raw["network"]), raw["data"], raw["run"]
        known = {"seed", "cells", "window", "groups", "fresh", "calibration"}
        _refuse_others(data, "settings of [data]", known)
        _refuse_others(run, "settings of [run]", {"seed", "threads"})
        groups = [dict(g) for g in data["groups"]]
        shares = tuple(float(g.pop("share")) for g in groups)
        held = tuple(int(g.pop("held", 0)) for g in groups)
        return cls(
            architecture=network.pop("architecture"),
            options=network,
            groups=tuple(CaseGroup(**{**g, "shape": tuple(g["shape"])}) for g in groups),
            shares=shares,
            held=held,
            data_seed=data["seed"],
            seed=run["seed"],
            cells=data["cells"],
            window=data.get("window", 0),
            variation=raw.get("variation", {}),
            schedule=raw.get("schedule", {}),
            threads=run.get("threads", 1),
            fresh=data.get("fresh", False),
            calibration=data.get("calibration", 40),
            text=text,
        )


def _refuse_others(table: dict[str, Any], what: str, known: set[str]) -> None:
    if strange := sorted(set(table) - known):
        raise ParameterError(f"{what} {strange} are unknown; known are {sorted(known)}")

"""Train an estimating network: ``python -m xr_spde.sar.training CONFIG --data DIR --out DIR``.

Simulates what the data folder still lacks, trains (again from where a former run was stopped),
and leaves ``weights.safetensors``, ``card.json``, ``record.jsonl`` and ``curves.png``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from xr_spde._core.errors import ParameterError
from xr_spde._core.lazyimport import require
from xr_spde._core.progress import track
from xr_spde.sar.simulate import ARRAYS, CaseGroup, StoredCases, simulate_cases

_LOG = logging.getLogger(__name__)

#: Replicates with which each held case is scored, and with which standard errors are calibrated.
_SCORED, _CALIBRATED = (1, 5, 30), (1, 2, 4, 8, 16, 30)


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
        if not any(self.held):
            raise ParameterError("no group holds cases for validation; give one held = 10, say")
        if min(self.shares) < 0.0 or sum(self.shares) <= 0.0:
            raise ParameterError(f"shares are {self.shares}; expected none negative, one positive")

    @property
    def calibration_groups(self) -> tuple[CaseGroup, ...]:
        """Further cases of the groups that hold some for validation, to calibrate a network."""
        if self.architecture != "net":
            return ()
        pairs = zip(self.groups, self.held, strict=True)
        return tuple(replace(group, cases=self.calibration) for group, held in pairs if held)

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
        _refuse_others(
            data, "settings of [data]", {"seed", "cells", "window", "groups", "calibration"}
        )
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
            calibration=data.get("calibration", 40),
            text=text,
        )


def _refuse_others(table: dict[str, Any], what: str, known: set[str]) -> None:
    if strange := sorted(set(table) - known):
        raise ParameterError(f"{what} {strange} are unknown; known are {sorted(known)}")


def _network(config: TrainingConfig) -> tuple[Any, Any, Any]:
    """Build variation, schedule and network; refuse what does not fit together."""
    require("torch", "torch")
    from xr_spde.nets.cases import Variation
    from xr_spde.nets.registry import build_network
    from xr_spde.nets.training import Schedule

    try:
        variation, schedule = Variation(**config.variation), Schedule(**config.schedule)
    except TypeError as error:
        raise ParameterError(f"[variation] or [schedule] of the config: {error}") from error
    network = build_network(config.architecture, config.options)
    if config.architecture != "net":
        count, held = config.options["replicates"], min(g.replicates for g in config.groups)
        takes = variation.fixed and variation.replicates == count <= held and not variation.gaps
        if not takes:
            raise ParameterError(
                f"architecture {config.architecture!r} takes exactly {count} replicates and no "
                f"gaps, but cases have {held} and [variation] is {config.variation}; set fixed = "
                f"true, replicates = {count} and gaps = 0.0"
            )
    return variation, schedule, network


def simulate(
    config: TrainingConfig,
    folder: str | os.PathLike[str],
    *,
    workers: int = 1,
    device: str = "cpu",
) -> None:
    """Simulate the cases that the folder lacks.

    Parameters
    ----------
    config : TrainingConfig
        The run.
    folder : path-like
        Of the training set.
    workers : int, optional
        Processes.
    device : str, optional
        "cuda" solves on a graphics card.
    """
    sets = [(Path(folder), config.data_seed, config.groups)]
    sets.append((_unseen(folder), config.data_seed + 1, config.calibration_groups))
    for place, seed, groups in sets:
        for group in groups:
            cases = simulate_cases(place, group, seed=seed, workers=workers, device=device)
            for _ in track(cases, label=f"simulate {group.name}"):
                pass


def _unseen(folder: str | os.PathLike[str]) -> Path:
    """Folder of the cases that neither training nor the choice of the best state sees."""
    return Path(folder) / "unseen"


def _stored(folder: Path, group: CaseGroup, start: int, stop: int) -> dict[str, StoredCases]:
    return {name: StoredCases(folder, group, name, start, stop) for name in ARRAYS}


def _held_cases(config: TrainingConfig, folder: Path) -> list[tuple[str, int, Any, Any]]:
    """List (size, M, input, truth), standardised over 30 members as in the paper."""
    from xr_spde.nets.cases import held_case

    moments = config.architecture == "net"
    counts = _SCORED if moments else (config.options["replicates"],)
    out = []
    for group, held in zip(config.groups, config.held, strict=True):
        stored = _stored(folder, group, 0, held) if held else {}
        for index in range(held):
            arrays = {name: cases[index] for name, cases in stored.items()}
            for count in sorted({min(count, group.replicates) for count in counts}):
                out.append((group.name, count, *held_case(arrays, count, moments=moments)))
    return out


def _calibration_cases(config: TrainingConfig, folder: Path) -> Iterator[tuple[Any, Any]]:
    """List inputs and truths for every number of replicates that is calibrated."""
    from xr_spde.nets.cases import held_case

    for group in config.calibration_groups:
        stored = _stored(_unseen(folder), group, 0, group.cases)
        for index in range(group.cases):
            arrays = {name: cases[index] for name, cases in stored.items()}
            for count in _CALIBRATED:
                if count <= group.replicates:
                    yield held_case(arrays, count, moments=True)


def _validation(held: list[tuple[str, int, Any, Any]]) -> Any:
    """Make a function from a model to its scores on the held cases."""
    from xr_spde.nets.objectives import score_held

    return lambda model: score_held(model, held)


def train(
    config: TrainingConfig,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    device: str = "cpu",
) -> Path:
    """Train or go on training; write weights and card.

    Parameters
    ----------
    config : TrainingConfig
        The run.
    data : path-like
        Folder of the training set, simulated.
    out : path-like
        Folder of the run.
    device : str, optional
        Torch device.

    Returns
    -------
    Path
        Of the weights.
    """
    require("torch", "torch")
    from xr_spde.nets import training
    from xr_spde.nets.cases import CaseBatches, Variation
    from xr_spde.nets.weights import save_weights

    folder, target = Path(data), Path(out)
    training.prepare(config.seed, config.threads)
    variation, schedule, model = _network(config)
    groups = [
        _stored(folder, group, held, group.cases)
        for group, held in zip(config.groups, config.held, strict=True)
    ]
    moments = config.architecture == "net"
    shared: dict[str, Any] = {
        "cells": config.cells,
        "window": config.window,
        "moments": moments,
    }
    batches = CaseBatches(groups, config.shares, variation=variation, seed=config.seed, **shared)
    run = training.Run(model, schedule, target, device=device)
    if moments and run.step == 0:
        whole = CaseBatches(
            groups, config.shares, variation=Variation(gaps=0.0), seed=config.seed + 1, **shared
        )
        run.fit_inputs([whole[k][0] for k in range(12)])
    began = time.perf_counter()
    for row in run.train(
        training.loader(batches, run.step, run.schedule.steps),
        training.loss_of(config.architecture),
        _validation(_held_cases(config, folder)),
    ):
        _LOG.info("%.0f s: %s", time.perf_counter() - began, json.dumps(row))
    if moments:
        model.calibrate(_calibration_cases(config, folder))
    card = {
        "config": config.text,
        "cases": sum(group.cases for group in config.groups),
        "steps": run.step,
        "command": "python -m xr_spde.sar.training CONFIG --data DATA --out OUT",
        "scores": run.best_scores,
    }
    (target / "card.json").write_text(json.dumps(card, indent=1))
    weights = target / "weights.safetensors"
    save_weights(weights, model, half=True, card=card)
    return weights


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m xr_spde.sar.training", description=__doc__)
    parser.add_argument("config", help="TOML file, or the name of one that comes with xr_spde")
    parser.add_argument("--data", required=True, help="folder of the simulated cases")
    parser.add_argument("--out", required=True, help="folder of the run; resumed if it holds one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = TrainingConfig.read(options.config)
    _network(config)  # a wrong setting shows before hours of simulation
    simulate(config, options.data, workers=options.workers, device=options.device)
    weights = train(config, options.data, options.out, device=options.device)
    _LOG.info("weights in %s", weights)
    draw_curves(Path(options.out))


def draw_curves(folder: Path) -> Path:
    """Draw loss and scores of a run into ``curves.png``.

    Parameters
    ----------
    folder : Path
        Of the run.

    Returns
    -------
    Path
    """
    from xr_spde.plot.curves import plot_record

    rows = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    record = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return plot_record(record, folder / "curves.png")


if __name__ == "__main__":
    main()

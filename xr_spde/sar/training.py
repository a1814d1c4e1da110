"""Train an estimating network: ``python -m xr_spde.sar.training CONFIG --data DIR --out DIR``.

Simulates what the data folder still lacks, trains (again from where a former run was stopped),
and leaves ``weights.safetensors``, ``card.json``, ``record.jsonl`` and ``curves.png``.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde._core.lazyimport import require
from xr_spde._core.progress import track
from xr_spde.sar.simulate import ARRAYS, CaseGroup, FreshCases, StoredCases, simulate_cases
from xr_spde.sar.training_config import TrainingConfig

_LOG = logging.getLogger(__name__)

#: Replicates with which each held case is scored, and with which standard errors are calibrated.
_SCORED, _CALIBRATED = (1, 5, 30), (1, 2, 4, 8, 16, 30)


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
    if config.architecture == "cnn" and config.window != network.size:
        raise ParameterError(
            f"window is {config.window} in [data], but the network of windows has {network.size} "
            f"cells a side; set window = {network.size}"
        )
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
    sets = [(Path(folder), config.data_seed, config.stored_groups)]
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


def _sources(config: TrainingConfig, folder: Path, device: str) -> list[Any]:
    """Give what batches are made of: stored cases that are not held, or new ones."""
    if config.fresh:
        return [FreshCases(group, config.data_seed, device=device) for group in config.groups]
    pairs = zip(config.groups, config.held, strict=True)
    return [_stored(folder, group, held, group.cases) for group, held in pairs]


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

    Raises
    ------
    ParameterError
        If settings do not fit together, or cases have not been simulated.
    SolverError
        If the training diverged.
    """
    require("torch", "torch")
    from xr_spde.nets import training
    from xr_spde.nets.cases import CaseBatches, Variation
    from xr_spde.nets.weights import save_weights

    folder, target = Path(data), Path(out)
    training.prepare(config.seed, config.threads)
    variation, schedule, model = _network(config)
    groups = _sources(config, folder, device)
    moments = config.architecture == "net"
    shared: dict[str, Any] = {
        "cells": config.cells,
        "window": config.window,
        "moments": moments,
    }
    batches = CaseBatches(groups, config.shares, variation=variation, seed=config.seed, **shared)
    run = training.Run(model, schedule, target, device=device, recipe=config.recipe)
    if moments and run.step == 0:
        whole = CaseBatches(
            groups, config.shares, variation=Variation(gaps=0.0), seed=config.seed + 1, **shared
        )
        run.fit_inputs([whole[k][0] for k in range(12)])
    began = time.perf_counter()
    for row in run.train(
        # a forked process cannot draw on the card
        training.loader(
            batches, run.step, run.schedule.steps, workers=int(device == "cpu" or not config.fresh)
        ),
        training.loss_of(config.architecture),
        _validation(_held_cases(config, folder)),
    ):
        _LOG.info("%.0f s: %s", time.perf_counter() - began, json.dumps(row))
    if not math.isfinite(run.best):
        raise SolverError(
            f"no validation of the run in {target} had a finite score: it diverged, and there is "
            "nothing to keep; lower the rate or raise warmup in [schedule], in another folder"
        )
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

"""Training of an implicit representation: its weights, and a code for each field.

Auto-decoding: no network maps a field to its code. A step draws some fields and, from their
points by area, some points, and either

``"solve"``
    finds the codes of these fields by least squares and moves the weights down the gradient at
    these codes, which is that of the smallest misfit over all codes (variable projection; Golub
    and Pereyra, 1973, SIAM J. Numer. Anal. 10). For decoders that are affine in the code. There
    is no table of codes, so that the number of fields has no limit; or
``"adam"``
    moves the weights and the codes of these fields in a table together, as Li, Dong and Zhang
    (2024) do, though for each batch rather than once for all.

Codes have the prior N(0, 1) of `xr_spde.nets.latent_encoding` while they are learned. At the end
all fields are encoded on all points, and the maps of the code are changed so that codes have mean
0, variance 1 and no correlation within a variable; fields stay what they are.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde._core.progress import track
from xr_spde.nets.latent_encoding import code_prior, encode
from xr_spde.nets.sinr import Sinr, SinrSettings
from xr_spde.nets.sinr_batches import Batch, FieldBatches, SinrTraining, checked_sizes
from xr_spde.nets.sinr_codes import encode_all, missed, standardise, unit_prior
from xr_spde.nets.sinr_components import best_maps
from xr_spde.nets.sinr_map import SinrMap
from xr_spde.nets.training import Run

__all__ = ["SinrTraining", "Trained", "fit_sinr", "train_sinr"]

LOGGER = logging.getLogger(__name__)


# at first the trunk is to find its own way, without large maps that cancel
_FIRST_FLAT = 1e-4


class AutoDecoder(nn.Module):
    """A decoder and, where they are learned beside it, the codes of all fields.

    Parameters
    ----------
    decoder : Sinr
        See there.
    count : int
        Fields; 0 for no table.
    ratio : float
        Learning rate of codes over that of weights: codes are kept divided by it, so that one
        rate serves both.
    """

    def __init__(self, decoder: Sinr, count: int, ratio: float) -> None:
        super().__init__()
        self.decoder, self.ratio = decoder, ratio
        self.table = nn.Parameter(torch.zeros(count, decoder.n)) if count else None

    def codes(self, rows: Tensor) -> Tensor | None:
        """Codes (B, n) of fields from the table, if there is one."""
        return None if self.table is None else self.ratio * self.table[rows]


def loss_of(noise: float) -> Callable[[nn.Module, Batch, Tensor], Tensor]:
    """Make the loss as `xr_spde.nets.training.Run` takes it.

    Parameters
    ----------
    noise : float
        Of `SinrTraining`.

    Returns
    -------
    callable
        Weighted mean square of the misfit and, for codes in a table, their prior.
    """

    def loss(model: Any, batch: Batch, values: Tensor) -> Tensor:
        known = values.isfinite()
        w = torch.where(known, batch.weights, 0.0)
        codes = model.codes(batch.rows)
        penalty: Tensor | float = 0.0
        if codes is None:
            found = _projected(model.decoder, batch, values, noise)
        else:
            found = model.decoder(codes, batch.functions).to(values.dtype)
            share = w.square().sum() / w.sum().square()  # 1 / K of all fields together
            penalty = noise**2 * share * codes.square().sum()
        left = torch.where(known, found - values, 0.0)
        value: Tensor = (w * left.square()).sum() / w.sum() + penalty
        return value

    return loss


def _projected(decoder: Sinr, batch: Batch, values: Tensor, noise: float) -> Tensor:
    """Values (B, P, c) at the best codes, with the gradient by the weights at these codes."""
    offset, modes = (part.to(values.dtype) for part in decoder.modes(batch.functions))
    with torch.autocast(values.device.type, enabled=False):
        codes = encode(
            decoder, batch.functions, values, batch.weights, prior=unit_prior(decoder),
            noise=noise, modes=(offset.detach(), modes.detach()),
        ).codes  # fmt: skip
        parts = decoder.split(codes)
        return torch.einsum("kpw,bkw->bpk", modes, parts) + offset


class Trained(NamedTuple):
    """What a training gives beside the weights.

    Attributes
    ----------
    codes : ndarray (N, n) of float32
        Codes of all fields.
    scores : dict
        Of the best validation: "score", the root mean square error of held fields.
    residual : ndarray (c,)
        Weighted mean square of what decoding misses of these, by variable.
    """

    codes: NDArray[np.float32]
    scores: dict[str, float]
    residual: NDArray[np.float64]


def train_sinr(
    decoder: Sinr,
    fields: Any,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    training: SinrTraining | None = None,
    count: int | None = None,
    held: ArrayLike | None = None,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    until: int | None = None,
    progress: bool | None = None,
) -> Trained:
    """Train a decoder, or go on where a former run in the folder was stopped.

    Parameters
    ----------
    decoder : Sinr
        Holds the best averaged weights afterwards.
    fields : array_like (N, P, c) or callable
        See `FieldBatches`.
    points : array_like (P, 2)
        Where the values are.
    weights : array_like (P,) or (P, c), optional
        Of points, for instance areas; 0 where there are never values. Equal by default.
    training : SinrTraining, optional
        See there.
    count : int, optional
        N, where `fields` does not say it.
    held : array_like (H, P, c), optional
        Fields for validation; by default up to 64 of the training, which flatters the score.
    folder : path, optional
        Of checkpoints; without one nothing is kept.
    seed : int, optional
        Of what is drawn.
    device : str, optional
        Torch device.
    until : int, optional
        Step after which the training is left, one of a validation.
    progress : bool, optional
        Draw a bar.

    Returns
    -------
    Trained

    Raises
    ------
    ParameterError
        For arrays that do not fit, a way to find codes that the decoder does not allow, or a
        folder of another run.
    SolverError
        If the training diverged.
    """
    training = SinrTraining() if training is None else training
    where = np.asarray(points, dtype=np.float64)
    number, areas = checked_sizes(decoder, fields, where, weights, count)
    way = {"auto": "solve" if decoder.affine else "adam"}.get(training.codes, training.codes)
    if way == "solve" and not decoder.affine:
        raise ParameterError('codes="solve" asks for a decoder that is affine; give codes="adam"')
    batches = FieldBatches(fields, number, decoder, where, areas, training, seed)
    model = AutoDecoder(decoder, number if way == "adam" else 0, training.code_rate / training.rate)
    known = _held(batches, held)
    validate = _validation(batches, known, training.noise, device)
    if way == "solve":  # a run that goes on reads its own weights
        best_maps(decoder, batches, flat=_FIRST_FLAT)
    recipe = json.dumps([asdict(training), asdict(decoder.settings), number, seed])
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary if folder is None else folder)
        torch.manual_seed(seed % 2**62)
        run = Run(model, training.schedule(), home, device=device, recipe=recipe)
        for network in (run.model, run.mean):  # channels last would only slow matrices down
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        last = training.steps if until is None else min(until, training.steps)
        steps = track(range(run.step, last), label="sinr", enabled=progress)
        for row in run.train((batches[k] for k in steps), loss_of(training.noise), validate):
            LOGGER.info("sinr: %s", json.dumps({k: round(v, 6) for k, v in row.items()}))
    if not run.best < float("inf"):
        raise SolverError(
            "no validation had a finite score: the training diverged; give a lower rate="
        )
    model.to("cpu")
    table = model.codes(torch.arange(number))
    start = None if table is None else table.detach()
    if way == "solve":
        _close(decoder, batches, lambda: validate(model)["score"])
    encoded = encode_all(decoder, batches, start=start, noise=training.noise)
    codes = standardise(decoder, encoded)
    return Trained(
        codes.numpy(), run.best_scores, missed(decoder, batches, known, noise=training.noise)
    )


def _close(decoder: Sinr, batches: FieldBatches, score: Callable[[], float]) -> None:
    """Take the best maps of the code, unless held fields say otherwise."""
    before, kept = score(), copy.deepcopy(decoder.state_dict())
    if best_maps(decoder, batches) and not score() <= before:
        decoder.load_state_dict(kept)
        LOGGER.info("sinr: maps of the code as trained, the best of the training are worse")


def _held(batches: FieldBatches, held: ArrayLike | None) -> Tensor:
    """Fields of the validation."""
    if held is not None:
        return torch.as_tensor(np.asarray(held)).to(batches.decoder.read_bias.dtype)
    rows = np.linspace(0, batches.count - 1, min(64, batches.count)).round()
    return batches.values(rows.astype(np.int64))


def _validation(
    batches: FieldBatches, held: Tensor, noise: float, device: str
) -> Callable[[nn.Module], dict[str, float]]:
    functions, weights = batches.everywhere().to(device), torch.as_tensor(batches.areas).to(device)
    given = held.to(device)

    def validate(model: Any) -> dict[str, float]:
        prior = unit_prior(model.decoder)
        found = encode(model.decoder, functions, given, weights, prior=prior, noise=noise)
        return {"score": float(found.misfit.nanmean().sqrt())}

    return validate


def fit_sinr(
    fields: Any,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    network: SinrSettings | None = None,
    training: SinrTraining | None = None,
    count: int | None = None,
    held: ArrayLike | None = None,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool | None = None,
) -> tuple[SinrMap, NDArray[np.float32]]:
    """Build and train a decoder, as a state map.

    Parameters
    ----------
    fields, points, weights, training, count, held, folder, seed, device, progress
        As in :func:`train_sinr`.
    network : SinrSettings, optional
        What to build; the settings of the source for the variables of `fields` by default.

    Returns
    -------
    SinrMap
        With the mean and covariance of the codes and what decoding misses.
    ndarray (N, n) of float32
        Codes of the fields.

    Raises
    ------
    ParameterError, SolverError
        As in :func:`train_sinr`.
    """
    if network is None:
        shape = getattr(fields, "shape", (0, 0, 1))
        network = SinrSettings(variables=int(shape[-1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**62)
        decoder = Sinr(network)
        trained = train_sinr(
            decoder, fields, points, weights, training=training, count=count, held=held,
            folder=folder, seed=seed, device=device, progress=progress,
        )  # fmt: skip
    mean, covariance = (p.numpy() for p in code_prior(torch.as_tensor(trained.codes), full=True))
    found = SinrMap(
        decoder, points, weights, mean=mean, covariance=covariance, residual=trained.residual
    )
    return found, trained.codes

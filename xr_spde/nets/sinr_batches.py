"""What a training of an implicit representation takes in a step: some fields at some points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.sinr import Sinr
from xr_spde.nets.training import Schedule

__all__ = ["CODES", "Batch", "FieldBatches", "SinrTraining", "checked_sizes"]

CODES = ("auto", "solve", "adam")
"""Ways to find codes while training; "auto" solves where the decoder is affine."""

Reader = Callable[[NDArray[np.int64]], ArrayLike]

_KEPT_POINTS = 2**17


@dataclass(frozen=True)
class SinrTraining:
    """Settings of a training.

    Attributes
    ----------
    steps : int
        Steps of Adam.
    rate : float
        Largest learning rate of the weights; it falls by half a cosine.
    code_rate : float
        That of codes in a table.
    fields : int
        Fields of a step.
    window : int
        Fields that follow one another in these, which lazy data read faster.
    points : int
        Points of a step, the same for its fields; 0 takes all, with their weights.
    codes : {"auto", "solve", "adam"}
        See :data:`CODES`.
    noise : float
        Standard deviation of errors beside the prior of codes.
    average : float
        Decay of the moving average of the weights.
    every : int
        Steps between validations and checkpoints.
    patience : int
        Validations without a better score after which the training ends.
    mixed : bool
        bfloat16 in the decoder while it is trained: faster on processors that have it.
    turned : float
        Share of steps whose fields are turned about the axis of a sphere by a random angle: for
        fields whose statistics know no longitude, or nearly.
    """

    steps: int = 5000
    rate: float = 5e-3
    code_rate: float = 1e-2
    fields: int = 64
    window: int = 1
    points: int = 512
    codes: str = "auto"
    noise: float = 0.02
    average: float = 0.99
    every: int = 500
    patience: int = 1000
    mixed: bool = False
    turned: float = 0.0

    def __post_init__(self) -> None:
        if self.codes not in CODES:
            raise unknown("codes", self.codes, CODES)
        whole = (self.steps, self.fields, self.window, self.every, self.patience, self.points + 1)
        if min(whole) < 1 or min(self.rate, self.code_rate, self.noise) <= 0.0:
            raise ParameterError(
                f"training is {asdict(self)}; expected steps, fields, window, every and patience "
                "of at least 1, points of at least 0, and a positive rate, code_rate and noise"
            )
        if not 0.0 <= self.turned <= 1.0 or (self.turned and self.codes == "adam"):
            raise ParameterError(
                f"turned={self.turned!r}, codes={self.codes!r}; expected a share from 0 to 1, and "
                'with a share codes="solve": a table has one code for a field, not for its turns'
            )

    def schedule(self) -> Schedule:
        """Give the settings of the loop."""
        return Schedule(
            steps=self.steps, rate=self.rate, warmup=min(100, max(self.steps // 20, 1)), decay=0.0,
            clip=10.0, average=self.average, every=min(self.every, self.steps),
            patience=self.patience, mixed=self.mixed,
        )  # fmt: skip


class Batch(NamedTuple):
    """What a step sees beside the values.

    Attributes
    ----------
    rows : Tensor (B,) of int
        Numbers of the fields.
    functions : Tensor (layers, P, q)
        Of position at the points.
    weights : Tensor (P, c)
        Of the points.
    """

    rows: Tensor
    functions: Tensor
    weights: Tensor

    def to(self, device: str) -> Batch:
        """Move to a device."""
        return Batch(*(part.to(device) for part in self))


class FieldBatches(Dataset[tuple[Batch, Tensor]]):
    """Batches by step; the same step always gives the same.

    Parameters
    ----------
    fields : array_like (N, P, c) or callable
        Values, NaN for missing: anything that takes ``fields[rows]`` with ascending rows, such as
        an array, a memory map or a Zarr array; or a function of the rows.
    count : int
        N.
    decoder : Sinr
        Whose functions of position are evaluated.
    points : ndarray (P, 2)
        Where the values are.
    weights : ndarray (P, c)
        See :func:`train_sinr`.
    training : SinrTraining
        How much a step takes.
    seed : int
        Of what is drawn.
    """

    def __init__(
        self, fields: Any, count: int, decoder: Sinr, points: NDArray[np.float64],
        weights: NDArray[np.float64], training: SinrTraining, seed: int,
    ) -> None:  # fmt: skip
        self.count, self.decoder, self.points, self.areas = count, decoder, points, weights
        self.read: Reader = fields if callable(fields) else lambda rows: fields[rows]
        self.training, self.seed = training, seed
        self.size = training.points if training.points < len(points) else 0
        share = weights.mean(1)
        self.share = share / share.sum()
        # drawn by the share of a point, what is left of its weights differs between variables
        self.weights = weights / share[:, None].clip(1e-300) if self.size else weights
        kept = len(points) <= _KEPT_POINTS or not self.size
        self.functions = decoder.functions(points).cpu() if kept else None

    def values(self, rows: NDArray[np.int64]) -> Tensor:
        """Values (B, P, c) of fields at all points."""
        return torch.as_tensor(np.asarray(self.read(rows))).to(self.decoder.read_bias.dtype)

    def everywhere(self) -> Tensor:
        """Functions of position at all points."""
        kept = self.functions
        return self.decoder.functions(self.points).cpu() if kept is None else kept

    def rows(self, step: int) -> NDArray[np.int64]:
        """Numbers of the fields of a step: all come once before one comes again."""
        length = min(self.training.window, self.count)
        windows = self.count // length
        here = max(1, min(self.training.fields, self.count) // length)
        starts = []
        for place in range(step * here, (step + 1) * here):
            epoch, number = divmod(place, windows)
            order = np.random.default_rng([self.seed, 1, epoch])
            shift = int(order.integers(self.count - windows * length + 1))
            starts.append(shift + length * int(order.permutation(windows)[number]))
        return np.unique(np.add.outer(starts, np.arange(length)))

    def __getitem__(self, step: int) -> tuple[Batch, Tensor]:
        """Batch and values (B, P, c) of a step."""
        rows = self.rows(step)
        values = np.asarray(self.read(rows))
        points, functions, weights = self.points, self.functions, self.weights
        if self.size:
            rng = np.random.default_rng([self.seed, 2, step])
            drawn = rng.choice(len(points), self.size, p=self.share)
            values, points, weights = values[:, drawn], points[drawn], weights[drawn]
            functions = None if functions is None else functions[:, drawn]
        chance = np.random.default_rng([self.seed, 4, step])
        if chance.random() < self.training.turned:
            points = points + np.array([chance.uniform(0.0, 2.0 * np.pi), 0.0])
            functions = None
        if functions is None:
            functions = self.decoder.functions(points).cpu()
        batch = Batch(
            torch.as_tensor(rows), functions, torch.as_tensor(weights).to(functions.dtype)
        )
        return batch, torch.as_tensor(values).to(functions.dtype)


def checked_sizes(
    decoder: Sinr, fields: Any, points: NDArray[np.float64], weights: ArrayLike | None,
    count: int | None,
) -> tuple[int, NDArray[np.float64]]:  # fmt: skip
    """Look at the shapes of what a training is given.

    Parameters
    ----------
    decoder, fields, points, weights, count
        As in `xr_spde.nets.sinr_training.train_sinr`.

    Returns
    -------
    count : int
        Number of fields.
    weights : ndarray (P, c)
        That sum to c.

    Raises
    ------
    ParameterError
        Where they do not fit.
    """
    shape, c = getattr(fields, "shape", None), decoder.settings.variables
    if shape is not None and (len(shape) != 3 or tuple(shape[1:]) != (len(points), c)):
        raise ParameterError(
            f"fields have shape {tuple(shape)}; expected (fields, {len(points)} points, "
            f"{c} variables)"
        )
    number = count if shape is None else shape[0]
    if number is None or number < 2:
        raise ParameterError(f"count={number!r}: a training needs at least 2 fields")
    given = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
    if given.shape not in ((len(points),), (len(points), c)):
        raise ParameterError(
            f"weights have shape {given.shape}; expected {(len(points),)} or {(len(points), c)}"
        )
    spread = np.repeat(given[:, None], c, axis=1) if given.ndim == 1 else given
    total = spread.sum()
    if not np.isfinite(spread).all() or (spread < 0.0).any() or not total > 0.0:
        raise ParameterError("weights must be finite, not negative, and not all 0")
    return number, spread * (c / total)

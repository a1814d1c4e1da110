r"""Leading modes of a series that need not fit in memory: proper orthogonal decomposition, EOFs.

With anomalies X (N, D) and weights w of their D values, the modes :math:`\phi_k` (D,) and codes
:math:`z_k` (N,) minimise :math:`\sum_{t,i} w_i (X_{ti} - \sum_k z_{tk} \phi_{ki})^2` with
:math:`\sum_i w_i \phi_{ki} \phi_{li} = \delta_{kl}`. They come from the eigenvectors of the smaller
of the two matrices of inner products (N, N) and (D, D); where both are large, from subspace
iteration, one pass over the series each. A series is read in blocks of times whose length depends
on its shape alone, so that numbers do not depend on how it is stored.

Values missing here and there are filled by what the modes say, shrunk towards the mean as far as a
mode is noise, and the modes found again, until nothing moves.

References
----------
Sirovich (1987), Q. Appl. Math. 45 (snapshots); Halko et al. (2011), SIAM Rev. 53 (subspaces);
Beckers and Rixen (2003), J. Atmos. Oceanic Technol. 20, and Josse and Husson (2012), J. SFdS 153
(missing values).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from xr_spde._core.errors import ParameterError
from xr_spde._core.warn import warn

__all__ = ["Modes", "Series", "find_modes"]

Float = NDArray[np.float64]
Flag = NDArray[np.bool_]
LOGGER = logging.getLogger("xr_spde.latent")

GRAM_LIMIT = 8192
"""Largest matrix of inner products that is decomposed."""

_BLOCK_BYTES = 64 * 2**20
_PASSES = 30
_CLOSE = 1e-7


class Series:
    """Snapshots (N, D) read in blocks, as weighted anomalies.

    Parameters
    ----------
    values : array-like (N, P, c)
        Anything that ``[start:stop]`` cuts and numpy can read; NaN is missing.
    weights : ndarray (P * c,)
        Zero where a value is not to be used; scaled later.
    memory : int
        Bytes up to which the series is kept; a longer one is read again in every pass.
    """

    def __init__(self, values: Any, weights: Float, memory: int) -> None:
        self.values, self.count, self.size = values, int(values.shape[0]), len(weights)
        row = 8 * max(self.size, 1)
        self.kept: dict[int, Float] | None = {} if row * self.count <= memory else None
        whole = _BLOCK_BYTES if self.kept is not None else memory // 4
        step = max(1, whole // row)
        self.parts = [slice(a, min(a + step, self.count)) for a in range(0, self.count, step)]
        self.filled: tuple[Float, Float, Float] | None = None
        self._measure(weights)

    def _measure(self, weights: Float) -> None:
        """Find the mean over times, and which values are used at all."""
        number, total = np.zeros(self.size), np.zeros(self.size)
        for k in range(len(self.parts)):
            raw = self._raw(k)
            finite = np.isfinite(raw)
            number += finite.sum(axis=0)
            total += np.where(finite, raw, 0.0).sum(axis=0)
        self.used: Flag = (number > 1) & (weights > 0.0)
        self.missing = int((self.count - number[self.used]).sum())
        with np.errstate(invalid="ignore"):
            self.mean = np.where(self.used, total / np.maximum(number, 1), np.nan)
        self.root = np.zeros(0)

    def weigh(self, weights: Float) -> None:
        """Set the weights (D,) of the squares."""
        self.root = np.sqrt(weights[self.used])

    def _raw(self, k: int) -> Float:
        if self.kept is not None and k in self.kept:
            return self.kept[k]
        part = self.parts[k]
        raw = np.asarray(self.values[part], dtype=np.float64)
        raw = raw.reshape(part.stop - part.start, self.size)
        if self.kept is not None:
            self.kept[k] = raw
        return raw

    def block(self, k: int) -> Float:
        """Weighted anomalies of the used values at the times of a block."""
        raw = self._raw(k)[:, self.used]
        if self.missing:
            gaps = ~np.isfinite(raw)
            if self.filled is None:
                known: Float = np.broadcast_to(self.mean[self.used], raw.shape)
            else:
                mean, codes, modes = self.filled
                known = mean + codes[self.parts[k]] @ modes.T
            raw = np.where(gaps, known, raw)
        return np.asarray((raw - self.mean[self.used]) * self.root)

    def blocks(self) -> Iterator[tuple[slice, Float]]:
        """Give times and anomalies, block by block."""
        for k, part in enumerate(self.parts):
            yield part, self.block(k)

    def fill(self, codes: Float, modes: Float) -> None:
        """Say what missing values are taken to be, and move the mean with them."""
        self.filled = self.mean[self.used].copy(), codes, modes
        shift = np.zeros(int(self.used.sum()))
        for _, part in self.blocks():
            shift += part.sum(axis=0)
        self.mean[self.used] += shift / (self.count * self.root)


@dataclass(frozen=True)
class Modes:
    """What a decomposition found.

    Attributes
    ----------
    modes : ndarray (D', n)
        Of the used values, orthonormal under the weights.
    codes : ndarray (N, n)
        Of the snapshots.
    variances : ndarray (n,)
        Mean squares of the codes, falling.
    total : ndarray (D',)
        Mean square of each value about its mean.
    """

    modes: Float
    codes: Float
    variances: Float
    total: Float


def find_modes(
    series: Series, wanted: float, *, method: str, fills: int, tol: float, seed: int
) -> Modes:
    """Find the leading modes of a series.

    Parameters
    ----------
    series : Series
        With its weights; its mean moves where values are filled.
    wanted : int or float
        Number of modes, or the share of the variance that they carry, in (0, 1).
    method : {"auto", "gram", "randomised"}
        ``"auto"`` takes the latter where both N and D exceed :data:`GRAM_LIMIT`.
    fills : int
        Most rounds of filling values that are missing here and there.
    tol : float
        Change of the variances, relative to the first, at which filling ends.
    seed : int
        Of the start of the subspace iteration.

    Returns
    -------
    Modes

    Raises
    ------
    ParameterError
        If there are fewer independent snapshots than modes, or nothing varies.
    """
    smaller = min(series.count, int(series.used.sum()))
    if method == "auto":
        method = "gram" if smaller <= GRAM_LIMIT else "randomised"
    if method == "randomised" and not isinstance(wanted, int):
        raise ParameterError(
            f'modes={wanted}: method="randomised" needs their number; give one, or method="gram"'
        )
    if isinstance(wanted, int) and wanted > smaller - (series.count <= smaller):
        raise ParameterError(
            f"modes={wanted}: {series.count} snapshots of {int(series.used.sum())} values have at "
            f"most {smaller - (series.count <= smaller)} modes; ask for fewer, or give more times"
        )
    LOGGER.info('modes=%s of %d snapshots, method="%s"', wanted, series.count, method)
    found = _decompose(series, wanted, method, seed)
    for _ in range(fills if series.missing else 0):
        before = found.variances
        noise = (float(found.total @ series.root**2) - before.sum()) / max(smaller - len(before), 1)
        shrunk = found.codes * (np.maximum(before - noise, 0.0) / before)
        series.fill(shrunk, found.modes)
        found = _decompose(series, len(before), method, seed)
        moved = float(np.abs(found.variances - before).max() / found.variances[0])
        LOGGER.info("filled %d missing values, variances moved by %.2g", series.missing, moved)
        if moved < tol:
            break
    else:
        if series.missing and fills:
            warn(
                f"variances of the modes still move by {moved:.1g} after fills={fills} rounds of "
                "filling missing values; allow more, or ask for fewer modes"
            )
    return found


def _decompose(series: Series, wanted: float, method: str, seed: int) -> Modes:
    if method == "randomised":
        return _in_subspace(series, int(wanted), seed)
    if series.count <= int(series.used.sum()):
        return _of_times(series, wanted)
    return _of_values(series, wanted)


def _leading(matrix: Float, wanted: float) -> tuple[Float, Float]:
    """Leading eigenvalues and eigenvectors of a positive semidefinite matrix, falling."""
    size, trace = len(matrix), float(np.trace(matrix))
    if not trace > 0.0:
        raise ParameterError("values do not vary in time: there are no modes to find")
    if isinstance(wanted, int):
        values, vectors = eigh(matrix, subset_by_index=[size - wanted, size - 1])
    else:
        values, vectors = eigh(matrix)
        share = np.cumsum(values[::-1]) / trace
        values, vectors = (
            a[..., -1 - int(np.searchsorted(share, wanted)) :] for a in (values, vectors)
        )
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > 1e-13 * values[0]).sum())
    if rank < len(values):
        raise ParameterError(
            f"modes={wanted}: the series has only {rank} independent ones; ask for at most these"
        )
    return values, vectors


def _oriented(modes: Float, codes: Float) -> tuple[Float, Float]:
    """Turn each mode so that its largest value is positive."""
    largest = np.abs(modes).argmax(axis=0)
    sign = np.sign(modes[largest, np.arange(modes.shape[1])])
    return modes * sign, codes * sign


def _of_times(series: Series, wanted: float) -> Modes:
    """Modes by inner products of snapshots (N, N)."""
    gram = np.empty((series.count, series.count))
    for i, rows in enumerate(series.parts):
        own = series.block(i)
        for j, columns in enumerate(series.parts[: i + 1]):
            gram[rows, columns] = own @ (own if i == j else series.block(j)).T
            gram[columns, rows] = gram[rows, columns].T
    values, vectors = _leading(gram, wanted)
    del gram
    modes, total = np.zeros((series.root.size, len(values))), np.zeros(series.root.size)
    for part, block in series.blocks():
        modes += block.T @ (vectors[part] / np.sqrt(values))
        total += (block**2).sum(axis=0)
    modes, codes = _oriented(modes, vectors * np.sqrt(values))
    return _scaled(series, modes, codes, total)


def _of_values(series: Series, wanted: float) -> Modes:
    """Modes by the covariance of values (D, D)."""
    covariance = np.zeros((series.root.size, series.root.size))
    for _, block in series.blocks():
        covariance += block.T @ block
    _, modes = _leading(covariance, wanted)
    return _projected(series, modes, np.diagonal(covariance).copy())


def _in_subspace(series: Series, wanted: int, seed: int) -> Modes:
    """Modes by iteration of a subspace somewhat larger than asked for."""
    size = series.root.size
    width = min(wanted + max(10, wanted // 5), size, series.count)
    basis = np.random.default_rng(seed).standard_normal((size, width))
    basis = np.linalg.qr(basis)[0]
    before, moved = np.zeros(wanted), np.inf
    for step in range(_PASSES):
        image = np.zeros((size, width))
        for _, block in series.blocks():
            image += block.T @ (block @ basis)
        values, turn = eigh(basis.T @ image)
        values, turn = values[::-1], turn[:, ::-1]
        if not values[0] > 0.0:
            raise ParameterError("values do not vary in time: there are no modes to find")
        moved = float(np.abs(values[:wanted] - before).max() / values[0])
        LOGGER.info("pass %d: variances moved by %.2g", step + 1, moved)
        before, modes = values[:wanted], basis @ turn[:, :wanted]
        if moved < _CLOSE:
            break
        basis = np.linalg.qr(image @ turn)[0]
    else:
        warn(f"{_PASSES} passes of subspace iteration left variances moving by {moved:.1g} of the "
             "first; trailing modes are approximate")  # fmt: skip
    return _projected(series, np.ascontiguousarray(modes), None)


def _projected(series: Series, modes: Float, total: Float | None) -> Modes:
    """Codes of given orthonormal modes, by one more pass."""
    codes, square = np.empty((series.count, modes.shape[1])), np.zeros(series.root.size)
    for part, block in series.blocks():
        codes[part] = block @ modes
        if total is None:
            square += (block**2).sum(axis=0)
    modes, codes = _oriented(modes, codes)
    return _scaled(series, modes, codes, square if total is None else total)


def _scaled(series: Series, modes: Float, codes: Float, total: Float) -> Modes:
    """From weighted units to those of the values."""
    variances = (codes**2).mean(axis=0)
    return Modes(
        modes / series.root[:, None], codes, variances, total / (series.count * series.root**2)
    )

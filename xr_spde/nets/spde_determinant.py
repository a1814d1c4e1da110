r"""Log-determinant of the precision of a window, with its gradient, from sparse factors.

.. math::

    \log |Q| = \log |Q_0| + \sum_{t \ge 1} (2 \log |A_t| + \log |W_t|), \qquad
    \partial \log |A| = \operatorname{tr}(A^{-1} \partial A).

The trace needs the inverse only where A has entries, which selected inversion gives exactly; or it
is estimated from probes of independent signs z, ``E (A^{-T} z)' dA z`` (Hutchinson), which is
unbiased and takes two solves for each probe. The value is exact either way. All in float64 on the
processor.

References
----------
Rue and Held (2005), Gaussian Markov Random Fields; Takahashi, Fagan, Chin (1973); Hutchinson
(1990), Commun. Stat. Simul. Comput. 19.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from xr_spde._core.errors import SolverError
from xr_spde.nets.spde_stencil import OFFSETS
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.pattern import on_pattern

__all__ = ["Determinant", "Settings"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Settings:
    """What the log-determinant depends on beside the parameters.

    Attributes
    ----------
    steps : int
        Of the window.
    power : {1, 2}
        Of the operator, ``alpha / 2``.
    around : tuple of bool
        Whether the edges in y and in x are periodic.
    initial : {"stationary", "scaled", "rest", "given"}
        First state; no Q_0 with the last.
    probes : int or None
        Number of probes; None takes the exact gradient.
    seed : int
        Of the probes.
    """

    steps: int
    power: int
    around: tuple[bool, bool]
    initial: str
    probes: int | None
    seed: int


class _Places(NamedTuple):
    """Where the entries of a stencil stand in a sparse matrix."""

    row: Index
    column: Index
    kept: Index
    "Flat positions in (9, n) of the entries that have a column."
    pattern: sp.csc_array
    "With the diagonal."
    wide: sp.csc_array
    "Pattern of the square."


@lru_cache(maxsize=16)
def _places(shape: tuple[int, int], around: tuple[bool, bool]) -> _Places:
    """Rows and columns of the stencil's entries, without those that leave the grid."""
    ny, nx = shape
    j, i = np.divmod(np.arange(ny * nx), nx)
    rows, columns, kept = [], [], []
    for k, (dj, di) in enumerate(OFFSETS):
        inside = np.full(ny * nx, True)
        for place, size, step, periodic in ((j, ny, dj, around[0]), (i, nx, di, around[1])):
            inside &= periodic | ((place + step >= 0) & (place + step < size))
        here = np.flatnonzero(inside)
        rows.append(here)
        columns.append((j[here] + dj) % ny * nx + (i[here] + di) % nx)
        kept.append(k * ny * nx + here)
    row, column = np.concatenate(rows), np.concatenate(columns)
    pattern = _matrix(np.ones(row.size), row, column, ny * nx)
    return _Places(row, column, np.concatenate(kept), pattern, sp.csc_array(pattern @ pattern))


def _matrix(data: Float, row: Index, column: Index, n: int) -> sp.csc_array:
    return sp.csc_array(sp.coo_array((data, (row, column)), shape=(n, n)))


class _Window:
    """Factors of one window, and the gradients that they give."""

    def __init__(self, stencil: Float, weight: Float, sea: Float, how: Settings) -> None:
        self.shape = (weight.shape[1], weight.shape[2])
        self.places = _places(self.shape, how.around)
        self.how, self.sea = how, sea.ravel()
        # that of a scaled first state stands before the others
        self.ahead = int(how.initial == "scaled")
        self.stencil = stencil.transpose(1, 0, 2, 3).reshape(len(weight) + self.ahead, -1)
        self.weight = np.where(self.sea > 0.0, weight.reshape(len(weight), -1), 1.0)
        self.by_stencil, self.by_weight = np.zeros_like(self.stencil), np.zeros_like(self.weight)

    def gradients(self) -> tuple[Float, Float]:
        """Return those by the stencil (9, S, ny, nx) and by the weight (S, ny, nx)."""
        by = self.by_stencil.reshape(-1, len(OFFSETS), *self.shape).transpose(1, 0, 2, 3)
        return by, (self.by_weight * self.sea).reshape(-1, *self.shape)

    def value(self, slope: bool) -> float:
        """Log-determinant; its gradients are gathered where asked for."""
        total = 0.0 if self.how.initial == "given" else self._first(slope)
        sets = len(self.weight)
        for k in range(0 if sets == 1 else 1, sets):
            many = self.how.steps - 1 if sets == 1 else 1
            if many:
                total += many * self._step(k, float(many) if slope else 0.0)
        return total

    def _operator(self, k: int) -> tuple[sp.csc_array, sp.csc_array]:
        """Matrices L of the operator and ``A = I + L^p`` of a set of parameters."""
        data = self.stencil[k][self.places.kept]
        n = self.sea.size
        spatial = _matrix(data, self.places.row, self.places.column, n)
        drift = spatial if self.how.power == 1 else spatial @ spatial
        return spatial, sp.csc_array(sp.eye_array(n) + drift)

    def _factor(self, pattern: sp.csc_array, matrix: sp.csc_array, reach: int) -> GridFactor:
        over_y, over_x = self.how.around
        how: dict[str, Any] = {"shape": self.shape, "reach": reach}
        how["boundary"] = "torus" if over_y else "cylinder" if over_x else "plane"
        return GridFactor(on_pattern(pattern, matrix), symmetric=reach > self.how.power, **how)

    def _step(self, k: int, many: float) -> float:
        """``2 log|A| + log|W|`` of a set, and its gradient `many` times."""
        which = k + self.ahead
        spatial, matrix = self._operator(which)
        pattern = self.places.pattern if self.how.power == 1 else self.places.wide
        held = self._factor(pattern, matrix, self.how.power)
        if many and self.how.probes is None:
            self._entries(which, spatial, 2.0 * many * held.inverse_on_pattern(transposed=True))
        elif many:
            white = self._probes(k)
            self._outer(which, spatial, 2.0 * many * held.solve_transposed(white), white)
        self.by_weight[k] += many * self.sea / self.weight[k]
        return 2.0 * float(held.logdet()) + float(np.log(self.weight[k]) @ self.sea)

    def _first(self, slope: bool) -> float:
        """``log|Q_0|`` with ``Q_0 = A' W A``, minus W where it is stationary.

        Of a scaled state it is that of ``A' A - I`` without flow, and of W.
        """
        spatial, matrix = self._operator(0)
        scaled = self.how.initial == "scaled"
        weight = np.ones_like(self.weight[0]) if scaled else self.weight[0]
        still = float(self.how.initial != "rest")
        own = matrix.T @ sp.diags_array(weight) @ matrix
        own = sp.csc_array(own - sp.diags_array(still * self.sea * weight))
        pattern = self.places.pattern if self.how.power == 1 else self.places.wide
        try:
            held = self._factor(sp.csc_array(pattern @ pattern), own, 2 * self.how.power)
        except SolverError as error:
            raise SolverError(
                f"the precision of the first state is not positive definite: {error}. The "
                "likelihood of these parameters cannot be computed: the velocity, or tau, vary too "
                'sharply. Take initial="scaled", which always exists, "given" (the likelihood of '
                'the later steps given the first), "rest", or smoother parameters'
            ) from error
        total = float(held.logdet())
        if scaled:
            total += float(np.log(self.weight[0]) @ self.sea)
            self.by_weight[0] += float(slope) * self.sea / self.weight[0]
        change = 0.0 if scaled else 1.0
        if slope and self.how.probes is None:
            inverse = held.inverse_on_pattern()
            half = sp.csr_array(matrix @ inverse)
            spread = np.asarray(half.multiply(matrix).sum(axis=1)).ravel()
            self.by_weight[0] += change * (spread - still * inverse.diagonal())
            self._entries(0, spatial, sp.csc_array(sp.diags_array(2.0 * weight) @ half))
        elif slope:
            white = self._probes(len(self.weight))
            solved = held.solve(white)
            moved, other = matrix @ white, matrix @ solved
            self.by_weight[0] += change * (moved * other - still * white * solved).sum(axis=1)
            self._outer(0, spatial, weight[:, None] * moved, solved)
            self._outer(0, spatial, weight[:, None] * other, white)
        return total

    def _probes(self, k: int) -> Float:
        """Signs (n, K), over the square root of their number."""
        count = int(self.how.probes or 0)
        rng = np.random.default_rng([self.how.seed, k])
        signs = rng.integers(0, 2, (self.sea.size, count)) * 2.0 - 1.0
        return np.asarray(signs * self.sea[:, None] / np.sqrt(count))

    def _entries(self, k: int, spatial: sp.csc_array, gradient: sp.csc_array) -> None:
        """Add a sparse gradient by A."""
        if self.how.power == 2:
            turned = sp.csc_array(spatial.T)
            gradient = sp.csc_array(gradient @ turned + turned @ gradient)
        found = np.asarray(sp.csr_array(gradient)[self.places.row, self.places.column]).ravel()
        self.by_stencil[k][self.places.kept] += found

    def _outer(self, k: int, spatial: sp.csc_array, left: Float, right: Float) -> None:
        """Add the gradient ``left right'`` by A, of vectors (n, K)."""
        pairs = [(left, right)]
        if self.how.power == 2:
            pairs = [(left, spatial @ right), (spatial.T @ left, right)]
        for one, other in pairs:
            found = np.einsum("nk,nk->n", one[self.places.row], other[self.places.column])
            self.by_stencil[k][self.places.kept] += found


class Determinant(torch.autograd.Function):
    """Log-determinants (B,) of windows from their stencils and weights; differentiable once."""

    @staticmethod
    def forward(ctx: Any, stencil: Tensor, weight: Tensor, sea: Tensor, how: Settings) -> Tensor:
        """Factorise every window; the gradient is taken while the factors are there.

        Parameters
        ----------
        ctx : context
            Of autograd.
        stencil : Tensor (B, 9, S, ny, nx)
            Of the operators; (B, 9, 1 + S, ny, nx) with that of a scaled first state before them.
        weight : Tensor (B, S, ny, nx)
            Precisions of the noise.
        sea : Tensor of bool (B, 1, ny, nx)
            Off land.
        how : Settings
            The rest.

        Returns
        -------
        Tensor (B,)
        """
        slope = any(ctx.needs_input_grad[:2])
        arrays = [t.detach().cpu().double().numpy() for t in (stencil, weight, sea)]
        values, gradients = [], []
        for one, noise, water in zip(*arrays, strict=True):
            window = _Window(one, noise, water, how)
            values.append(window.value(slope))
            gradients.append(window.gradients())
        by = [torch.from_numpy(np.stack(some)).to(stencil) for some in zip(*gradients, strict=True)]
        ctx.save_for_backward(*by)
        return torch.tensor(values, dtype=stencil.dtype, device=stencil.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scale what :meth:`forward` found."""
        by_stencil, by_weight = ctx.saved_tensors
        along = gradient[:, None, None, None]
        return along[..., None] * by_stencil, along * by_weight, None, None

"""Codes of fields under a trained decoder: least squares with a Gaussian prior of codes.

With values x at points p (missing ones left out), weights w that sum to 1 over what is known, and
a prior of mean m and covariance S, the code makes small

    sum_p w (D(z)(p) - x(p))^2 + (noise^2 / K) (z - m)' S^-1 (z - m),    K = 1 / sum_p w^2,

the negative log-posterior of K values with independent errors of that noise, in units of a mean
square. (Where the noise differs between values, w holds its inverse square, and K is counted
without.) A decoder that is affine in its code is solved at once, another by Levenberg-Marquardt
(Marquardt, 1963). The normal equations grow in blocks of points and are solved in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xr_spde._core.errors import ParameterError
from xr_spde.nets.latent_equations import (
    CodePrior,
    Decoder,
    Modes,
    Problem,
    Target,
    checked_weights,
    patterns_of,
)

__all__ = ["CodePrior", "Encoded", "code_prior", "encode", "encode_by_adam"]

_FIELDS, _PATTERNS = 16, 64
_FIRST_DAMPING, _LARGEST_DAMPING = 1e-3, 1e9


class Encoded(NamedTuple):
    """Codes and how they were found.

    Attributes
    ----------
    codes : Tensor (B, n)
        Codes, in the dtype of the values.
    misfit : Tensor (B,)
        Weighted mean square of what is left; NaN where a field has no values.
    iterations : Tensor (B,)
        Linearisations used.
    converged : Tensor (B,) of bool
        Whether no step was left to take.
    """

    codes: Tensor
    misfit: Tensor
    iterations: Tensor
    converged: Tensor


def code_prior(codes: Tensor, *, full: bool = False) -> CodePrior:
    """Prior from the codes of a training set.

    Parameters
    ----------
    codes : Tensor (N, n)
        Codes, at least two.
    full : bool, optional
        With covariances, drawn towards the variances by ``n / (n + N)``.

    Returns
    -------
    CodePrior
        In float64.

    Raises
    ------
    ParameterError
        For fewer than two codes.
    """
    count, n = codes.shape
    if count < 2:
        raise ParameterError(f"a prior of codes needs at least 2 of them, not {count}")
    double = codes.double()
    mean, variance = double.mean(0), double.var(0).clamp_min(1e-12)
    if not full:
        return CodePrior(mean, variance)
    covariance = torch.cov(double.T).reshape(n, n)
    return CodePrior(mean, torch.lerp(covariance, variance.diag(), n / (n + count)))


@torch.no_grad()
def encode(
    decoder: Decoder,
    functions: Tensor,
    values: Tensor,
    weights: Tensor | None = None,
    *,
    prior: CodePrior | None = None,
    noise: float | Tensor = 0.05,
    start: Tensor | None = None,
    iterations: int = 10,
    tolerance: float = 1e-6,
    damped: bool | None = None,
    modes: Modes | None = None,
) -> Encoded:
    """Find the codes of fields.

    Parameters
    ----------
    decoder : Decoder
        See there.
    functions : Tensor (layers, P, q)
        Of the points, as the decoder takes it.
    values : Tensor (B, P, c)
        Fields; NaN is missing, and may be elsewhere in each of them.
    weights : Tensor (P,) or (P, c), optional
        Of points, for instance areas; equal ones by default.
    prior : CodePrior, optional
        Without it, what the values leave open keeps to the start.
    noise : float or Tensor (c,) or (P, c), optional
        Standard deviation of the errors of the values and of the decoder, which sets how much
        the prior weighs; where it differs, weights are divided by its square.
    start : Tensor (B, n), optional
        First codes; by default the mean of the prior, or 0.
    iterations : int, optional
        Largest number of steps of Levenberg-Marquardt.
    tolerance : float, optional
        A step that is predicted to lower the cost by less than this share ends the iteration.
    damped : bool, optional
        Levenberg-Marquardt; by default for decoders that are not affine.
    modes : tuple of Tensor, optional
        ``decoder.modes(functions)`` of an affine decoder, where they are at hand.

    Returns
    -------
    Encoded
        A field without any value gets the mean of the prior, or its start.

    Raises
    ------
    ParameterError
        For shapes that do not fit, or a negative weight or noise.
    """
    weighing = checked_weights(functions, values, weights, noise)
    target = Target(decoder.n, prior, weighing.noise, start, values)
    problem = Problem(decoder, functions, values, weighing, modes)
    found = Encoded(
        target.start.to(values.dtype, copy=True),
        target.start.new_full((len(values),), torch.nan),
        torch.zeros(len(values), dtype=torch.int64, device=values.device),
        torch.ones(len(values), dtype=torch.bool, device=values.device),
    )
    if (not decoder.affine) if damped is None else damped:
        filled = problem.known.flatten(1).any(1).nonzero()[:, 0]
        for members in filled.split(_FIELDS):
            part = _marquardt(problem, target, members, iterations, tolerance)
            _place(found, members, part)
    else:
        patterns = patterns_of(problem.known)
        for low in range(0, len(patterns), _PATTERNS):
            for members, part in _solve(problem, target, patterns[low : low + _PATTERNS]):
                _place(found, members, part)
    return found


def _place(found: Encoded, members: Tensor, part: Encoded) -> None:
    """Put the codes of some fields among those of all."""
    for whole, some in zip(found, part, strict=True):
        whole[members] = some.to(whole.dtype)


def _solve(
    problem: Problem, target: Target, patterns: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Encoded]]:
    """Codes of an affine decoder, for fields that share what is missing."""
    n = len(target.mean)
    matrices = [target.mean.new_zeros(n, n) for _ in patterns]
    vectors = [target.mean.new_zeros(len(members), n) for members in patterns]
    energies = [target.mean.new_zeros(len(members)) for members in patterns]
    for part in problem.blocks():
        offset, modes = problem.modes(part)
        for number, members in enumerate(patterns):
            w, values = problem.data(members[:1], part)[0][0], problem.data(members, part)[1]
            left = torch.where(w > 0.0, values - offset, 0.0)
            problem.add(matrices[number], vectors[number], w, modes, left)
            energies[number] += (w * left.square()).sum((1, 2))
    for members, matrix, vector, energy in zip(patterns, matrices, vectors, energies, strict=True):
        total, share = (found[0] for found in problem.scale(members[:1]))
        matrix, vector, energy = matrix / total, vector / total, energy / total
        start = target.mean if target.proper else target.start[members]
        full = matrix + share * target.precision
        codes = start + _solved(full, vector - start @ matrix, proper=target.proper)
        misfit = energy - (codes * (2.0 * vector - codes @ matrix)).sum(1)
        one = torch.ones_like(members)
        yield members, Encoded(codes, misfit.clamp_min(0.0), one, one.bool())


def _solved(matrix: Tensor, right: Tensor, *, proper: bool) -> Tensor:
    """Solve for rows of `right` (fields, n).

    Without a prior, a ridge holds what the values leave open where it is.
    """
    size = matrix.diagonal().mean().clamp_min(torch.finfo(matrix.dtype).tiny)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    ridge = 0.0 if proper else 1e-10
    factor, failed = torch.linalg.cholesky_ex(matrix + ridge * size * identity)
    while bool(failed):
        ridge = max(10.0 * ridge, 1e-12)
        factor, failed = torch.linalg.cholesky_ex(matrix + ridge * size * identity)
    return torch.cholesky_solve(right.T, factor).T


class _Local(NamedTuple):
    """Cost of codes, its misfit, half of its downward gradient and of its curvature."""

    cost: Tensor
    misfit: Tensor
    pull: Tensor
    matrix: Tensor


def _linearised(problem: Problem, target: Target, members: Tensor, codes: Tensor) -> _Local:
    n = codes.shape[1]
    matrix, pull = codes.new_zeros(len(members), n, n), torch.zeros_like(codes)
    misfit = codes.new_zeros(len(members))
    for part in problem.blocks():
        w, values = problem.data(members, part)
        for row, code in enumerate(codes.to(problem.values.dtype)):
            found, blocks = problem.decoder.jacobian(code, problem.functions[:, part])
            left = torch.where(w[row] > 0.0, values[row] - found.double(), 0.0)
            problem.add(matrix[row], pull[row, None], w[row], blocks.double(), left[None])
            misfit[row] += (w[row] * left.square()).sum()
    total, share = problem.scale(members)
    away = (target.mean - codes) @ target.precision * share[:, None]
    misfit = misfit / total
    return _Local(
        misfit + (away * (target.mean - codes)).sum(1),
        misfit,
        pull / total[:, None] + away,
        matrix / total[:, None, None] + share[:, None, None] * target.precision,
    )


def _marquardt(
    problem: Problem, target: Target, members: Tensor, iterations: int, tolerance: float
) -> Encoded:
    """Codes by Levenberg-Marquardt, each field with a damping of its own."""
    codes = target.start[members].clone()
    state = _linearised(problem, target, members, codes)
    damping = torch.full_like(state.cost, _FIRST_DAMPING)
    # what rounding leaves of a field that the decoder can meet exactly
    rounding = torch.finfo(problem.values.dtype).eps ** 1.5 * state.cost
    used = torch.ones_like(members)
    converged = torch.zeros_like(members, dtype=torch.bool)
    open_ = torch.arange(len(members), device=members.device)
    for _ in range(iterations):
        step, gain = _step(state, damping, open_)
        small = gain <= torch.maximum(tolerance * state.cost, rounding)[open_]
        converged[open_[small]] = True
        open_, step = open_[~small], step[~small]
        if len(open_) == 0:
            break
        trial = _linearised(problem, target, members[open_], codes[open_] + step)
        used[open_] += 1
        better = trial.cost < state.cost[open_]
        taken = open_[better]
        codes[taken] += step[better]
        for old, new in zip(state, trial, strict=True):
            old[taken] = new[better]
        damping[open_] *= torch.where(better, 0.1, 10.0)
        open_ = open_[damping[open_] < _LARGEST_DAMPING]
    return Encoded(codes, state.misfit, used, converged)


def _step(state: _Local, damping: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
    """Find steps of some fields, and by how much they should lower the cost."""
    matrix, pull = state.matrix[open_], state.pull[open_]
    scale = matrix.diagonal(dim1=1, dim2=2)
    # a number that no value depends on has no curvature of its own
    extra = damping[open_, None] * scale.clamp_min(1e-10 * scale.mean())
    factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(extra))
    step = torch.cholesky_solve(pull[:, :, None], factor)[:, :, 0]
    step[failed > 0] = torch.nan  # not better than what is there: more damping
    return step, (step * (pull + extra * step)).sum(1)


def encode_by_adam(
    decoder: Decoder,
    functions: Tensor,
    values: Tensor,
    weights: Tensor | None = None,
    *,
    start: Tensor | None = None,
    rate: float = 1e-2,
    iterations: int = 10_000,
) -> Encoded:
    """Find codes by Adam as Li, Dong and Zhang (2024) do, for comparison.

    All fields share one learning rate, which falls to 0.3 of itself after 10 steps without a
    lower mean loss, until it is below 1e-6; there is no prior.

    Parameters
    ----------
    decoder, functions, values, weights
        As in :func:`encode`.
    start : Tensor (B, n), optional
        First codes; 0 by default.
    rate : float, optional
        First learning rate.
    iterations : int, optional
        Largest number of steps.

    Returns
    -------
    Encoded
        The best codes seen.
    """
    w = torch.where(values.isfinite(), checked_weights(functions, values, weights, 1.0).full, 0.0)
    w = (w / w.sum((1, 2), keepdim=True)).nan_to_num(0.0).to(values.dtype)
    known = torch.where(w > 0.0, values, 0.0)
    first = values.new_zeros(len(values), decoder.n) if start is None else start.to(values)
    codes = first.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([codes], lr=rate)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=10)
    best, best_codes = torch.full_like(w[:, 0, 0], torch.inf), first.clone()
    converged, used = False, 0
    while used < iterations and not converged:
        used += 1
        misfit = (w * (decoder(codes, functions) - known).square()).sum((1, 2))
        (gradient,) = torch.autograd.grad(misfit.mean(), codes)
        lower = misfit.detach() < best
        best = torch.where(lower, misfit.detach(), best)
        best_codes[lower] = codes.detach()[lower]
        codes.grad = gradient
        optimizer.step()
        plateau.step(float(misfit.detach().mean()))
        converged = optimizer.param_groups[0]["lr"] < 1e-6
    count = torch.full((len(values),), used, device=values.device)
    return Encoded(best_codes, best, count, torch.full_like(count, converged, dtype=torch.bool))

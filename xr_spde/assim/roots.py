"""Inverse square roots of many small matrices at once, by products of matrices alone.

The symmetric root ``(I + G)^-1/2`` of an ensemble filter is a smooth function of G, so no
eigenvalues are needed: a chain of polynomials ``q`` with ``x q(x^2)`` close to one turns the
spectrum, known to lie in [1, 1 + |G|], into ones (the coupled iteration of Higham, Functions of
Matrices, 2008, chapter 6, with each q the best of its degree on what the step before left, as in
Chen and Chow, 2014). Stacked products cost a third of stacked eigenproblems on a processor and far
less on a graphics card, and the figures of one matrix do not depend on its neighbours in the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.assim.arrays import namespace, to_host

Float = NDArray[np.float64]

_ENOUGH = {"float64": 2e-16, "float32": 2e-8}
_WIDEST_SINGLE = 14  # half octaves: to condition 128 single precision is as good as its data
_WIDEST = 60  # half octaves: beyond condition 1e9 eigenvectors are as good
_LONGEST = 24  # degree of a polynomial that multiplies columns
_COLUMN = 0.25  # of the cost of a product of matrices, per degree of such a polynomial
_STACK = 12  # matrices at once: the five that are worked on stay in cache


def _error(coefficients: Float, a: Float) -> Float:
    return np.asarray(1.0 - np.sqrt(a) * np.polynomial.polynomial.polyval(a - 1.0, coefficients))


def best_polynomial(low: float, high: float, degree: int) -> tuple[Float, float]:
    """Polynomial q in ``t = a - 1`` with the least ``max |1 - sqrt(a) q|`` on an interval.

    Parameters
    ----------
    low, high : float
        Interval of a, 0 < low < high.
    degree : int
        Of q.

    Returns
    -------
    coefficients : ndarray (degree + 1,)
        Of powers of t, lowest first.
    error : float
        The maximum that was reached.

    Notes
    -----
    Remez exchange; on short intervals around one, where it would be ill conditioned and gains
    little, the series of ``(1 + t)^-1/2``.
    """
    reach = max(1.0 - low, high - 1.0)
    if reach < 0.02:
        return _series(reach, degree)
    share = 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, 1001))  # dense at both ends
    grid = np.union1d(low * (high / low) ** share, low + (high - low) * share)
    picks = np.linspace(0, grid.size - 1, degree + 2).round().astype(int)
    signs = (-1.0) ** np.arange(degree + 2)
    for _ in range(30):
        a = grid[picks]
        powers = np.vander(a - 1.0, degree + 1, increasing=True) * np.sqrt(a)[:, None]
        coefficients = np.linalg.solve(np.column_stack([powers, signs]), np.ones(a.size))[:-1]
        left = _error(coefficients, grid)
        # One extremum per stretch of equal sign: the alternating reference of the next round.
        cuts = np.flatnonzero(np.diff(np.sign(left)) != 0) + 1
        stretches = np.split(np.arange(grid.size), cuts)
        peaks = np.array([piece[np.argmax(np.abs(left[piece]))] for piece in stretches])
        if peaks.size != picks.size or np.array_equal(peaks, picks):
            break
        picks = peaks
    return np.asarray(coefficients), float(np.abs(left).max()) * 1.0001


def _series(reach: float, degree: int) -> tuple[Float, float]:
    """Series of ``(1 + t)^-1/2``, and a bound of its error for ``|t| <= reach < 1``."""
    series = np.cumprod([1.0, *(0.5 / k - 1.0 for k in range(1, degree + 2))])
    error = abs(series[-1]) * reach ** (degree + 1) / (1.0 - reach)
    return np.asarray(series[:-1]), float(error)


def _last(low: float, high: float, enough: float, *, few: bool) -> tuple[Float, float] | None:
    """Polynomial that ends a schedule, and its cost in products; None where none is enough."""
    if not few:
        for degree in (1, 2, 4):
            coefficients, error = best_polynomial(low, high, degree)
            if error <= enough:
                return coefficients, 0.5 * degree
        return None
    reach = max(1.0 - low, high - 1.0)
    for degree in range(1, _LONGEST if reach < 0.5 else 0):
        coefficients, error = _series(reach, degree)
        if error <= enough:
            return coefficients, _COLUMN * degree
    return None


@lru_cache(maxsize=128)
def schedule(kind: int, dtype: str = "float64", *, few: bool = False) -> tuple[Float, ...]:
    """Polynomials that turn a spectrum in [2**(-kind / 2), 1] into ones.

    Parameters
    ----------
    kind : int
        Half octaves that the spectrum spans, > 0.
    dtype : {"float64", "float32"}, default "float64"
        Of the matrices: how close to one is close enough.
    few : bool, default False
        Whether the last polynomial will multiply a few columns, and may have a high degree, or is
        to be formed.

    Returns
    -------
    tuple of ndarray
        Coefficients in powers of ``a - 1``, one array per step, of degree 1, 2 or 4 but for the
        last one where `few`; those of the least work.
    """
    low, high, enough = 2.0 ** (-0.5 * kind), 1.0, _ENOUGH[dtype]
    found: list[tuple[float, tuple[Float, ...]]] = []
    steps: tuple[Float, ...] = ()
    spent = 0.0
    while not found or spent < min(cost for cost, _ in found):
        last = _last(low, high, enough, few=few)
        if last is not None:
            found.append((spent + last[1], (*steps, last[0])))
        after = []
        for degree in (2, 4):  # products: the polynomial, and what it multiplies
            coefficients, error = best_polynomial(low, high, degree)
            bounds = (1.0 - error) ** 2, (1.0 + error) ** 2
            after.append((coefficients, bounds))
            last = _last(*bounds, enough, few=few)
            if last is not None:
                cost = spent + 0.5 * degree + 2.0 + bool(steps) + last[1]
                found.append((cost, (*steps, coefficients, last[0])))
        spent += 4.0 + bool(steps)
        steps, (low, high) = (*steps, after[1][0]), after[1][1]
    return min(found, key=lambda one: one[0])[1]


def _polynomial(
    xp: Any, t: Any, coefficients: Sequence[float] | Float, work: list[Any], out: Any
) -> None:
    """Put ``sum_k c_k t^k``, of degree 1, 2 or 4, into `out`; t and `work` are overwritten."""
    square, inner = work
    c = [float(value) for value in coefficients]
    if len(c) == 2:
        xp.multiply(t, c[1], out=out)
    else:
        xp.matmul(t, t, out=square)
        if len(c) == 5:  # (c4 t^2 + c3 t + c2) t^2 + c1 t + c0
            xp.multiply(square, c[4], out=inner)
            xp.multiply(t, c[3], out=out)
            inner += out
            _diagonal(inner)[...] += c[2]
            xp.matmul(inner, square, out=out)
        else:
            xp.multiply(square, c[2], out=out)
        t *= c[1]
        out += t
    _diagonal(out)[...] += c[0]


def _diagonal(stack: Any) -> Any:
    """View of the diagonals (m, N) of a contiguous stack (m, N, N)."""
    return stack.reshape(len(stack), -1)[:, :: stack.shape[-1] + 1]


class Root:
    """Symmetric roots of a stack, as ``q(t) z`` with the last polynomial q not yet formed.

    Where few columns are to be multiplied, products with t cost less than the matrix q(t).

    Parameters
    ----------
    z : array (m, N, N) or None
        What the steps before the last one made; None for the identity.
    t : array (m, N, N), optional
        Argument of the polynomial; without it, the roots are z.
    coefficients : sequence of float, default (1,)
        Of q.
    work : list of array (m, N, N)
        Room for three stacks, to form the roots.
    """

    def __init__(
        self, z: Any, t: Any = None, coefficients: Sequence[float] = (1.0,), work: Any = ()
    ) -> None:
        self._z, self._t, self._work = z, t, work
        self._c = [float(value) for value in coefficients]

    def __call__(self, columns: Any) -> Any:
        """Return the product with columns (m, N, k), in the precision of the roots."""
        xp, kind = namespace(columns), (self._z if self._t is None else self._t).dtype
        start = columns.astype(kind, copy=False)
        if self._z is not None:
            start = xp.matmul(self._z, start)
        found = start * self._c[-1]
        for coefficient in self._c[-2::-1]:
            found = xp.matmul(self._t, found)
            found += coefficient * start
        return found

    def formed(self) -> Root:
        """Return the same as one matrix each, which takes the place of what it is made from."""
        if self._t is None:
            return self
        xp, (*work, q) = namespace(self._t), self._work
        _polynomial(xp, self._t, self._c, work, q)
        return Root(q if self._z is None else xp.matmul(q, self._z, out=self._t))


def _iterate(xp: Any, gram: Any, kind: int, work: Any, few: bool) -> Root:
    """``(I + gram)^-1/2`` for a stack whose eigenvalues of ``I + gram`` span `kind`."""
    steps, scale = schedule(kind, work.dtype.name, few=few), 2.0 ** (-0.5 * kind)
    y, z, t, q, spare, *rest = work[:, : len(gram)]
    xp.multiply(gram, scale, out=y)
    _diagonal(y)[...] += scale
    t[...] = y
    for place, coefficients in enumerate(steps[:-1]):
        _diagonal(t)[...] -= 1.0
        _polynomial(xp, t, coefficients, rest, q)
        xp.matmul(y, q, out=spare)
        y, spare = spare, y
        if place:
            # This order of factors is the stable one: the other lets rounding errors grow.
            xp.matmul(q, z, out=spare)
            z, spare = spare, z
        else:
            z, q = q, z
        xp.matmul(z, y, out=t)
    _diagonal(t)[...] -= 1.0
    return Root(z if steps[1:] else None, t, steps[-1] * scale**0.5, [*rest, q])


def inverse_roots(
    gram: Any, *, dtype: Any = np.float64, few: bool = False
) -> Iterator[tuple[NDArray[np.intp], Root]]:
    """Symmetric roots ``(I + G)^-1/2`` of a stack, those of a like spread of eigenvalues together.

    Parameters
    ----------
    gram : array (m, N, N)
        Symmetric, positive semi-definite, float64.
    dtype : {float64, float32}, default float64
        Of what the roots will multiply. Single precision is taken for float32 where ``1 + |G|``
        is at most 128.
    few : bool, default False
        Whether the roots will multiply fewer than some N / 4 columns and need not be formed.

    Yields
    ------
    which : ndarray of int (k,)
        Numbers of matrices in the stack.
    roots : Root (k, N, N)
        Good until the next are asked for. Accurate to some ``1e-15 (1 + |G|)^1/2``, or 1e-6 in
        single precision.
    """
    xp = namespace(gram)
    kinds = _kinds(xp, gram)
    shape = (7, min(_STACK, len(gram)), *gram.shape[1:])
    single, double = xp.empty(shape, dtype=dtype), xp.empty(shape)
    for kind in np.unique(kinds):
        same = np.flatnonzero(kinds == kind)
        for start in range(0, same.size, _STACK):
            which = same[start : start + _STACK]
            chosen = gram[xp.asarray(which)]
            if kind <= _WIDEST:
                work = single if kind <= _WIDEST_SINGLE else double
                yield which, _iterate(xp, chosen, int(kind), work, few)
            else:
                yield which, Root(_by_eigen(xp, chosen))


def _kinds(xp: Any, gram: Any) -> NDArray[np.intp]:
    """Half octaves up to ``1 + |G|``, in the norm of Frobenius, which no eigenvalue exceeds."""
    flat = gram.reshape(len(gram), gram.shape[1] * gram.shape[2])
    norm = np.empty(len(gram))
    for start in range(0, len(gram), _STACK):
        part = slice(start, start + _STACK)
        norm[part] = to_host((flat[part] * flat[part]).sum(axis=1))
    return np.maximum(np.ceil(2.0 * np.log2(1.0 + np.sqrt(norm))), 1.0).astype(np.intp)


def _by_eigen(xp: Any, gram: Any) -> Any:
    values, vectors = xp.linalg.eigh(gram)
    scaled = vectors / xp.sqrt(1.0 + xp.maximum(values, 0.0))[:, None, :]
    return xp.matmul(scaled, vectors.transpose(0, 2, 1))

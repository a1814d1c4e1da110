"""Random streams: a member of an ensemble is an identity, not a position in a loop."""

from __future__ import annotations

import numpy as np

from xr_spde._core.errors import ParameterError

__all__ = ["Seed", "member_generator", "resolve_seed"]

Seed = int | np.random.SeedSequence | np.random.Generator | None

_ENTROPY_WORDS = 4


def member_generator(seed_entropy: int, member: int, *path: int) -> np.random.Generator:
    """Return the random stream of one member.

    The stream depends on the identity ``(seed_entropy, member, *path)`` only, so any member
    can be drawn alone, in any order, chunk, thread or process, with the same numbers.

    Parameters
    ----------
    seed_entropy : int
        What :func:`resolve_seed` returned.
    member : int
        Number of the member, >= 0.
    *path : int
        Further identity, such as the flat index along leading dimensions, >= 0.

    Returns
    -------
    numpy.random.Generator
        ``Generator(SFC64(SeedSequence(seed_entropy, spawn_key=(member, *path))))``.

    Examples
    --------
    >>> from xr_spde._core.rng import member_generator
    >>> a, b = (member_generator(1, 7).standard_normal() for _ in range(2))
    >>> a == b
    True
    """
    sequence = np.random.SeedSequence(seed_entropy, spawn_key=(member, *path))
    return np.random.Generator(np.random.SFC64(sequence))


def _as_integer(words: np.ndarray) -> int:
    return sum(int(word) << (32 * place) for place, word in enumerate(words))


def resolve_seed(seed: Seed) -> int:
    """Turn a seed of any accepted kind into one non-negative integer.

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
        An integer stands for itself; a SeedSequence for its entropy and spawn key; a
        Generator gives, and advances by, 128 bits; None asks the system for 128 bits.

    Returns
    -------
    int
        Entropy for :func:`member_generator`; storing it reproduces the result.

    Raises
    ------
    ParameterError
        A bool, a float, a negative number or another kind of object.
    """
    if seed is None:
        return _as_integer(np.random.SeedSequence().generate_state(_ENTROPY_WORDS))
    if isinstance(seed, np.random.SeedSequence):
        if not seed.spawn_key and isinstance(seed.entropy, int):
            return seed.entropy
        return _as_integer(seed.generate_state(_ENTROPY_WORDS))
    if isinstance(seed, np.random.Generator):
        return _as_integer(seed.integers(2**32, size=_ENTROPY_WORDS, dtype=np.uint32))
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer):
        raise ParameterError(
            f"seed={seed!r} is of type {type(seed).__name__}; expected a non-negative integer, "
            "a numpy SeedSequence or Generator, or None; type for instance seed=1"
        )
    if seed < 0:
        raise ParameterError(f"seed={seed!r} is negative; type for instance seed={-int(seed)}")
    return int(seed)

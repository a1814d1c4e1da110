"""Observations of one time as decoded codes see them, and statistics of their innovations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.assim.latent.protocols import StateMap
from xr_spde.assim.localization import Places

__all__ = ["NOTHING", "Leap", "Seen", "innovation_statistics"]

Float = NDArray[np.float64]

NOTHING = {
    "observations_used": 0.0, "innovation_mean": np.nan, "innovation_rms": np.nan,
    "innovation_expected_rms": np.nan, "chi_square": np.nan,
}  # fmt: skip
"""Statistics of a time without observations."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Observations of one time.

    Attributes
    ----------
    points : ndarray (M, 2)
        Where, as the state map takes them.
    index : ndarray of int (M,) or None
        Which points of the training these are; None where some are none of them.
    channel : ndarray of int (M,)
        Of which channel.
    values, variance : ndarray (M,)
        Observed, and variance of the errors, representativeness with them; in units.
    offset, scale : ndarray (M,)
        A normalised value v stands for ``offset + scale * v`` there.
    sites : Places
        Where, for distances.
    """

    points: Float
    index: NDArray[np.intp] | None
    channel: NDArray[np.intp]
    values: Float
    variance: Float
    offset: Float
    scale: Float
    sites: Places

    @property
    def size(self) -> int:
        """Number of observations."""
        return int(self.values.size)

    def of(self, state_map: StateMap, codes: NDArray[Any]) -> Float:
        """Observe decoded codes.

        Parameters
        ----------
        state_map : StateMap
            That decodes.
        codes : ndarray (N, n)
            Of the members.

        Returns
        -------
        ndarray (N, M)
        """
        if self.index is None:
            own = state_map.decode(codes, self.points)[:, np.arange(self.size), self.channel]
        else:
            own = state_map.decode(codes)[:, self.index, self.channel]
        return np.asarray(own * self.scale + self.offset, dtype=np.float64)

    def jacobian(self, state_map: StateMap, code: NDArray[Any]) -> Float:
        """Differentiate `of` by the code.

        Parameters
        ----------
        state_map : StateMap
            That decodes.
        code : ndarray (n,)
            Where.

        Returns
        -------
        ndarray (M, n)
        """
        where = None if self.index is not None else self.points
        rows = np.arange(self.size) if self.index is None else self.index
        whole = state_map.jacobian(code, where)
        own = whole[rows * state_map.variables + self.channel]
        return np.asarray(own * self.scale[:, None], dtype=np.float64)

    def select(self, keep: NDArray[np.bool_]) -> Seen:
        """Keep some."""
        names = ("points", "channel", "values", "variance", "offset", "scale", "sites")
        index = None if self.index is None else self.index[keep]
        return Seen(index=index, **{name: getattr(self, name)[keep] for name in names})

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """Join observations of several variables.

        Parameters
        ----------
        parts : sequence of Seen
            At least one.

        Returns
        -------
        Seen
        """
        names = ("points", "channel", "values", "variance", "offset", "scale")
        known = [one.index for one in parts if one.index is not None]
        sites = replace(parts[0].sites, xyz=np.concatenate([one.sites.xyz for one in parts]))
        return cls(
            index=np.concatenate(known) if len(known) == len(parts) else None, sites=sites,
            **{name: np.concatenate([getattr(one, name) for one in parts]) for name in names},
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Leap:
    """From one time to the next.

    Attributes
    ----------
    dt : float
        Steps of the training; zero for an analysis without a forecast before it.
    time : float
        Days since 1970-01-01 at the start.
    seen : Seen or None
        What is observed at the end.
    name : str
        The time at the end, for messages.
    """

    dt: float
    time: float
    seen: Seen | None
    name: str = ""


def innovation_statistics(
    innovation: Float, known: Float, seen: Seen, chi_square: float
) -> dict[str, float]:
    """Statistics of innovations, in standard deviations of the training.

    Parameters
    ----------
    innovation : ndarray (M,)
        Observed minus forecast mean, in units.
    known : ndarray (M,)
        Variance of the forecast there.
    seen : Seen
        Observations.
    chi_square : float
        Of all.

    Returns
    -------
    dict of str to float
    """
    scaled = innovation / seen.scale
    expected = (known + seen.variance) / seen.scale**2
    return {
        "observations_used": float(seen.size), "innovation_mean": float(scaled.mean()),
        "innovation_rms": float(np.sqrt(np.mean(scaled**2))),
        "innovation_expected_rms": float(np.sqrt(expected.mean())), "chi_square": chi_square,
    }  # fmt: skip

"""What latent assimilation asks of its parts: a state map, a propagator, a model error.

All three speak numpy, whatever is inside, and none knows labels. Values are normalised numbers,
points are longitude and latitude in radians on a sphere, or x and y in [-1, 1] on a plane.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["ErrorModel", "Propagator", "State", "StateMap"]

Array = NDArray[Any]
State = tuple[dict[str, NDArray[Any]], dict[str, Any]]
"""Arrays by name, and options that JSON can hold: what a part is saved as."""


@runtime_checkable
class StateMap(Protocol):
    """Between values at points and codes.

    Attributes
    ----------
    name : str
        "pod", "sinr", "cae", "aeflow".
    n : int
        Size of a code.
    variables : int
        Number of variables c.
    affine : bool
        Whether `decode` is affine in the code: then its Jacobian is the same everywhere, and a
        Kalman filter exact.
    mean, spread : ndarray (n,)
        Of the codes of the training: a Gaussian prior of codes, and the guard against codes that
        run away.
    """

    name: ClassVar[str]
    n: int
    variables: int
    affine: bool
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def encode(
        self,
        values: Array,
        points: Array | None = None,
        weights: Array | None = None,
        *,
        noise: Array | float | None = None,
        start: Array | None = None,
        prior: bool = True,
    ) -> Array:
        """Find the codes of fields.

        Parameters
        ----------
        values : ndarray (B, P, c)
            Normalised; NaN is missing.
        points : ndarray (P, 2), optional
            By default those of the training.
        weights : ndarray (P,) or (P, c), optional
            Of the squared misfits; they need not sum to one. By default those of the training at
            its own points, equal ones elsewhere.
        noise : float or ndarray (c,) or (P, c), optional
            Variance of the errors of the values, which the prior is weighed against; by default
            small, as of values without errors.
        start : ndarray (B, n), optional
            First guess of the codes; by default the mean.
        prior : bool, default True
            Whether the Gaussian prior of the codes is part of the cost.

        Returns
        -------
        ndarray (B, n)
        """

    def decode(self, codes: Array, points: Array | None = None) -> Array:
        """Evaluate fields.

        Parameters
        ----------
        codes : ndarray (B, n)
            Codes.
        points : ndarray (P, 2), optional
            By default those of the training.

        Returns
        -------
        ndarray (B, P, c)
        """

    def jvp(self, codes: Array, tangents: Array, points: Array | None = None) -> Array:
        """Differentiate `decode` along directions.

        Parameters
        ----------
        codes : ndarray (B, n)
            Where.
        tangents : ndarray (B, n, K)
            Directions.
        points : ndarray (P, 2), optional
            By default those of the training.

        Returns
        -------
        ndarray (B, P, c, K)
        """

    def jacobian(self, code: Array, points: Array | None = None) -> Array:
        """Differentiate `decode` at one code.

        Parameters
        ----------
        code : ndarray (n,)
            Where.
        points : ndarray (P, 2), optional
            By default those of the training.

        Returns
        -------
        ndarray (P * c, n)
            Points slow, variables fast.
        """

    def state(self) -> State:
        """Give what the map is saved as.

        Returns
        -------
        tuple of dict
            Arrays by name, and options that JSON can hold.
        """

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the map of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        StateMap
        """


@runtime_checkable
class Propagator(Protocol):
    """Carries codes forward in time.

    Attributes
    ----------
    name : str
        "linear", "node", "rezero", "persistence".
    affine : bool
        Whether a step is affine in the code.
    """

    name: ClassVar[str]
    affine: bool

    def step(self, codes: Array, dt: float = 1.0, time: float | None = None) -> Array:
        """Forecast codes.

        Parameters
        ----------
        codes : ndarray (B, n)
            Codes.
        dt : float, default 1
            Length of the step in steps of the training data; any positive number.
        time : float, optional
            Days since 1970-01-01 at the start of the step, for forcing by season and hour.

        Returns
        -------
        ndarray (B, n)
        """

    def state(self) -> State:
        """Give what the propagator is saved as.

        Returns
        -------
        tuple of dict
            Arrays by name, and options that JSON can hold.
        """

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the propagator of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        Propagator
        """


@runtime_checkable
class ErrorModel(Protocol):
    """Gaussian error of one step of a propagator, and what the state map cannot represent.

    Attributes
    ----------
    kind : str
        "scalar", "diagonal" or "full".
    representativeness : ndarray (c,) or (P, c), or None
        Variance of what decoding misses, in normalised units; of variables, or of the points of the
        training.
    """

    kind: str
    representativeness: NDArray[np.float64] | None

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance (n, n) of the error of one step."""

    @property
    def factor(self) -> NDArray[np.float64]:
        """Square root (n, k): the covariance is factor times its transpose."""

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Draw errors.

        Parameters
        ----------
        rng : Generator
            Source of random numbers.
        count : int
            How many.

        Returns
        -------
        ndarray (count, n)
        """

    def state(self) -> State:
        """Give what the error is saved as.

        Returns
        -------
        tuple of dict
            Arrays by name, and options that JSON can hold.
        """

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> Self:
        """Make the error of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        ErrorModel
        """

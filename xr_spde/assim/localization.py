"""Localisation: which observations act on a point, and how much, by distance in metres.

An ensemble of tens of members finds correlations of some ``N^-1/2`` between places that have
nothing to do with one another; a filter therefore trusts an observation less the farther it is.
Points are embedded in space, so that one tree finds neighbours across the seam of longitudes and
over the poles; distances are those along the sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.warn import warn
from xr_spde.labels.grid import EARTH_RADIUS

Float = NDArray[np.float64]
Index = NDArray[np.intp]

_SAMPLE = 500
_FEW = 16


def gaspari_cohn(distance: ArrayLike, radius: float) -> Float:
    """Correlation function of Gaspari and Cohn: near to a Gaussian, and zero beyond `radius`.

    Parameters
    ----------
    distance : array_like
        Distances >= 0, in the unit of `radius`.
    radius : float
        Where the function reaches zero, twice the length scale ``c`` of the source. It bends like
        a Gaussian of standard deviation ``radius / 3.65`` at zero.

    Returns
    -------
    ndarray
        Shape of `distance`; one at distance zero.

    References
    ----------
    Gaspari and Cohn (1999), Q. J. R. Meteorol. Soc. 125, equation 4.10.

    Examples
    --------
    >>> from xr_spde.assim.localization import gaspari_cohn
    >>> gaspari_cohn([0.0, 50.0, 100.0, 200.0], 100.0)
    array([1.        , 0.20833333, 0.        , 0.        ])
    """
    r = np.asarray(distance, dtype=np.float64) * (2.0 / radius)
    near = np.minimum(r, 1.0)
    inner = ((((-0.25 * near + 0.5) * near + 0.625) * near - 5.0 / 3.0) * near) * near + 1.0
    far = np.clip(r, 1.0, 2.0)
    # (2 - r)^5 (...) of the source, factored so that it falls to zero without cancellation
    rest = 2.0 - far
    outer = rest**4 * ((2.0 * far + 4.0) * far - 1.0) / (24.0 * far)
    return np.where(r < 1.0, inner, outer)


def boxcar(distance: ArrayLike, radius: float) -> Float:
    """One up to `radius`, zero beyond: domain localisation.

    Parameters
    ----------
    distance : array_like
        Distances >= 0.
    radius : float
        In the same unit.

    Returns
    -------
    ndarray
        Shape of `distance`.
    """
    return np.where(np.asarray(distance, dtype=np.float64) <= radius, 1.0, 0.0)


TAPERS = {"gaspari-cohn": gaspari_cohn, "boxcar": boxcar}


@dataclass(frozen=True)
class Places:
    """Points in space, of one geometry.

    Parameters
    ----------
    xyz : ndarray (n, d)
        Cartesian coordinates in metres.
    curvature : float or None
        Radius in metres of the sphere or circle they lie on; None on a plane.
    """

    xyz: Float
    curvature: float | None = None

    def __len__(self) -> int:
        return len(self.xyz)

    def __getitem__(self, key: Any) -> Places:
        return Places(self.xyz[key], self.curvature)

    def chord(self, distance: float) -> float:
        """Straight distance of two points `distance` apart along the surface."""
        if self.curvature is None:
            return distance
        half = min(distance / (2.0 * self.curvature), np.pi / 2)
        return float(2.0 * self.curvature * np.sin(half))

    def along(self, chord: Float) -> Float:
        """Distance along the surface of points `chord` apart; inverse of :meth:`chord`."""
        if self.curvature is None:
            return chord
        half = np.minimum(chord / (2.0 * self.curvature), 1.0)
        return 2.0 * self.curvature * np.arcsin(half)


def _finite(**given: ArrayLike) -> list[Float]:
    arrays = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in given.values()))
    for name, array in zip(given, arrays, strict=True):
        if not np.isfinite(array).all():
            raise ParameterError(
                f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite; "
                "every point needs a place"
            )
    return [array.ravel() for array in arrays]


def on_sphere(lon: ArrayLike, lat: ArrayLike, *, radius: float = EARTH_RADIUS) -> Places:
    """Places on a sphere.

    Parameters
    ----------
    lon, lat : array_like
        Degrees; any convention of longitudes. Broadcast and flattened.
    radius : float, default 6371000
        Of the sphere, in metres.

    Returns
    -------
    Places

    Raises
    ------
    ParameterError
        For values that are not finite, or latitudes beyond the poles.
    """
    x, y = _finite(lon=lon, lat=lat)
    if y.size and np.abs(y).max() > 90.0 + 1e-6:
        raise ParameterError(f"lat reaches {y[np.abs(y).argmax()]:g} degrees; expected -90 to 90")
    a, b = np.deg2rad(x), np.deg2rad(y)
    xyz = np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], axis=1)
    return Places(radius * xyz, radius)


def on_plane(*coordinates: ArrayLike) -> Places:
    """Places on a line, on a plane or in space.

    Parameters
    ----------
    *coordinates : array_like
        One array per axis, in metres. Broadcast and flattened.

    Returns
    -------
    Places
    """
    given = {f"coordinate {k}": value for k, value in enumerate(coordinates)}
    return Places(np.stack(_finite(**given), axis=1))


def on_ring(position: ArrayLike, length: float) -> Places:
    """Places on a circle, such as a circle of latitude or a periodic model in one dimension.

    Parameters
    ----------
    position : array_like
        Along the circle, in metres.
    length : float
        Of the whole circle, in metres.

    Returns
    -------
    Places
    """
    (along,) = _finite(position=position)
    radius = length / (2.0 * np.pi)
    return Places(radius * np.stack([np.cos(along / radius), np.sin(along / radius)], 1), radius)


def check_radius(radius: float, step: float | None = None) -> float:
    """Check a radius of localisation, and warn where it is shorter than a step of the grid.

    Parameters
    ----------
    radius : float
        Metres; infinite for none.
    step : float, optional
        Distance of neighbouring points in metres.

    Returns
    -------
    float

    Raises
    ------
    ParameterError
        Unless it is > 0.
    """
    if not isinstance(radius, int | float | np.integer | np.floating) or not radius > 0:
        raise ParameterError(
            f"the radius of localisation is {radius!r}; expected a distance in metres > 0, or inf"
        )
    if step is not None and radius < step:
        warn(
            f"the radius of localisation, {radius:.4g} m, is shorter than the step of the grid, "
            f"{step:.4g} m: most points will see no observation; it is in metres, from the point "
            "to where observations lose their last influence"
        )
    return float(radius)


def grid_step(places: Places) -> float | None:
    """Typical distance in metres from a point to the nearest other; None for a single point."""
    if len(places) < 2:
        return None
    few = places.xyz[:: max(1, len(places) // _SAMPLE)]
    distances = np.asarray(cKDTree(places.xyz).query(few, k=2)[0])
    return float(places.along(np.asarray(np.median(distances[:, 1]))))


class Neighbours:
    """Observations near points, with their weights.

    Parameters
    ----------
    sites : Places (p)
        Where observations are.
    radius : float
        Metres; infinite lets every observation act on every point with weight one.
    taper : {"gaspari-cohn", "boxcar"}, default "gaspari-cohn"
        Weight by distance: observation-error inflation, which divides the error variance by the
        weight, or domain localisation, which takes all observations up to the radius as they are.

    Raises
    ------
    ParameterError
        For a radius that is not positive.
    UnknownNameError
        For an unknown taper.
    """

    def __init__(self, sites: Places, radius: float, *, taper: str = "gaspari-cohn") -> None:
        if taper not in TAPERS:
            raise unknown("taper", taper, TAPERS)
        self.sites, self.radius, self._taper = sites, check_radius(radius), TAPERS[taper]
        self._tree = cKDTree(sites.xyz) if np.isfinite(radius) else None
        self._reach = sites.chord(self.radius) * (1.0 + 1e-12)

    def crowd(self, points: Places) -> int:
        """Largest number of observations, at least one, near any of a sample of points."""
        if self._tree is None or not len(points):
            return max(1, len(self.sites))
        few = points.xyz[:: max(1, len(points) // _FEW)]
        near = self._tree.query_ball_point(few, self._reach, return_length=True)
        return max(1, int(np.max(near)))

    def of(self, points: Places) -> tuple[Index, Index, Float]:
        """Observations that act on points, in the order of the observations.

        Parameters
        ----------
        points : Places (n)
            Of the same geometry as the sites.

        Returns
        -------
        first : ndarray of int (n + 1,)
            Those of point i stand from ``first[i]`` to ``first[i + 1]``.
        which : ndarray of int
            Numbers of observations.
        weight : ndarray
            In (0, 1].
        """
        n, p = len(points), len(self.sites)
        if self._tree is None:
            first = np.arange(0, n * p + 1, p) if p else np.zeros(n + 1, dtype=np.intp)
            return first, np.tile(np.arange(p), n), np.ones(n * p)
        tree = cKDTree(points.xyz)
        found = tree.sparse_distance_matrix(self._tree, self._reach, output_type="ndarray")
        point, which, chord = (np.ascontiguousarray(found[name]) for name in "ijv")
        weight = self._taper(self.sites.along(chord), self.radius)
        order = np.argsort(point * p + which)
        if not weight.all():
            order = order[weight[order] > 0.0]
        first = np.zeros(n + 1, dtype=np.intp)
        np.cumsum(np.bincount(point[order], minlength=n), out=first[1:])
        return first, which[order], weight[order]

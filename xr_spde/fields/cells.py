"""Cells of a regular grid as transport sees them: their size row by row, and what lies around.

Positions count cells: ``(0, 0)`` is the centre of the first cell of a canonical array
``(..., ny, nx)``, y increases with the row and x with the column. A velocity ``q (..., 2, ny, nx)``
holds x first, in cells per unit of time, the unit being the interval between two images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError

__all__ = ["Cells"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Size of the cells of a grid.

    Parameters
    ----------
    ny, nx : int
        Rows and columns.
    dy, dx : array_like (ny,) or float
        Height and width of the cells of a row, in metres, > 0. One by default: a grid without
        units. On a sphere dx falls with the cosine of latitude; on a projected grid both are
        constant.
    periodic_x : bool
        Whether the last column neighbours the first.

    Raises
    ------
    ParameterError
        For sizes that are not positive or do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.fields.cells import Cells
    >>> cells = Cells(2, 4, dy=100.0, dx=[100.0, 50.0])
    >>> q = cells.to_cells(np.ones((2, 4)), np.zeros((2, 4)), seconds=100.0)
    >>> q[0, :, 0].tolist()
    [1.0, 2.0]
    """

    ny: int
    nx: int
    dy: ArrayLike = 1.0
    dx: ArrayLike = 1.0
    periodic_x: bool = False

    def __post_init__(self) -> None:
        """Check and spread the sizes over the rows."""
        if self.ny < 2 or self.nx < 2:
            raise ParameterError(
                f"a grid of {self.ny} x {self.nx} cells; transport needs at least 2 x 2"
            )
        for name in ("dy", "dx"):
            size = np.asarray(getattr(self, name), dtype=np.float64)
            if size.shape not in ((), (self.ny,)) or not (np.isfinite(size) & (size > 0)).all():
                raise ParameterError(
                    f"{name} has shape {size.shape}, smallest value {size.min(initial=np.inf):g}; "
                    f"expected one positive size or one for each of the {self.ny} rows"
                )
            object.__setattr__(self, name, np.broadcast_to(size, (self.ny,)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.ny, self.nx

    @property
    def height(self) -> Float:
        """Height of the cells (ny,) in metres."""
        return np.asarray(self.dy)

    @property
    def width(self) -> Float:
        """Width of the cells (ny,) in metres."""
        return np.asarray(self.dx)

    @property
    def area(self) -> Float:
        """Area of the cells (ny,) relative to their mean."""
        area = self.height * self.width
        return np.asarray(area / area.mean())

    @property
    def uniform(self) -> bool:
        """Whether all cells have the same size."""
        return bool(np.ptp(self.height) == 0 and np.ptp(self.width) == 0)

    def coarser(self, shape: tuple[int, int]) -> Cells:
        """Return the same domain cut into fewer cells.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns.

        Returns
        -------
        Cells
        """
        ny, nx = shape
        rows = (np.arange(ny) + 0.5) * self.ny / ny - 0.5
        old = np.arange(self.ny)
        dy = np.interp(rows, old, self.height) * self.ny / ny
        dx = np.interp(rows, old, self.width) * self.nx / nx
        return Cells(ny, nx, dy, dx, self.periodic_x)

    def to_cells(self, u: ArrayLike, v: ArrayLike, *, seconds: float) -> Float:
        """Turn metres per second into cells per unit of time.

        Parameters
        ----------
        u, v : array_like (..., ny, nx)
            Velocity along increasing x and y in m s-1.
        seconds : float
            Length of the unit of time.

        Returns
        -------
        ndarray (..., 2, ny, nx)
        """
        x = np.asarray(u, dtype=np.float64) * seconds / self.width[:, None]
        y = np.asarray(v, dtype=np.float64) * seconds / self.height[:, None]
        return np.stack(np.broadcast_arrays(x, y), axis=-3)

    def to_metres(self, velocity: ArrayLike, *, seconds: float) -> tuple[Float, Float]:
        """Turn cells per unit of time into metres per second; the inverse of `to_cells`.

        Parameters
        ----------
        velocity : array_like (..., 2, ny, nx)
            In cells per unit of time.
        seconds : float
            Length of the unit of time.

        Returns
        -------
        u, v : ndarray (..., ny, nx)
            In m s-1.
        """
        q = np.asarray(velocity, dtype=np.float64)
        return (
            q[..., 0, :, :] * self.width[:, None] / seconds,
            q[..., 1, :, :] * self.height[:, None] / seconds,
        )

    def derivative(self, field: ArrayLike, axis: str) -> Float:
        """Differentiate per cell: central differences, one-sided at a border.

        Parameters
        ----------
        field : array_like (..., ny, nx)
            Any field.
        axis : {"x", "y"}
            Direction.

        Returns
        -------
        ndarray (..., ny, nx)
        """
        values = np.asarray(field, dtype=np.float64)
        if axis == "y":
            return np.asarray(np.gradient(values, axis=-2))
        if self.periodic_x:
            return np.asarray(np.roll(values, -1, axis=-1) - np.roll(values, 1, axis=-1)) / 2
        return np.asarray(np.gradient(values, axis=-1))

    def kinematics(self, velocity: ArrayLike) -> dict[str, Float]:
        r"""Divergence, vorticity and deformation of a velocity on the grid's own metric.

        With h the width of a row, :math:`u = h q_x` and :math:`v` along y in metres,

        .. math::

            D = \frac{1}{h}\Big(\partial_x u + \partial_y (h v)\Big), \quad
            \zeta = \frac{1}{h}\Big(\partial_x v - \partial_y (h u)\Big), \quad
            S_n = \frac{1}{h} \partial_x u - h\, \partial_y \frac{v}{h}, \quad
            S_s = \frac{1}{h} \partial_x v + h\, \partial_y \frac{u}{h},

        which on a sphere are the usual expressions with :math:`h \propto \cos\phi`.

        Parameters
        ----------
        velocity : array_like (..., 2, ny, nx)
            In cells per unit of time.

        Returns
        -------
        dict of ndarray (..., ny, nx)
            ``divergence``, ``vorticity``, ``stretching``, ``shear`` and ``deformation`` (the root
            of the sum of squares of the last two), per unit of time.
        """
        u, v = self.to_metres(velocity, seconds=1.0)
        h, k = self.width[:, None], self.height[:, None]
        dx_u, dx_v = self.derivative(u, "x") / h, self.derivative(v, "x") / h
        stretching = dx_u - h * self.derivative(v / h, "y") / k
        shear = dx_v + h * self.derivative(u / h, "y") / k
        return {
            "divergence": dx_u + self.derivative(h * v, "y") / (h * k),
            "vorticity": dx_v - self.derivative(h * u, "y") / (h * k),
            "stretching": stretching,
            "shear": shear,
            "deformation": np.hypot(stretching, shear),
        }

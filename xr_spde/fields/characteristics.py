r"""Characteristics of a steady velocity: where a parcel comes from, and whether that is trusted.

The flow :math:`\phi_\tau` of a velocity q solves :math:`d\phi/d\tau = q(\phi)`. A value carried
along, :math:`p_\tau + q \cdot \nabla p = 0`, is :math:`p(x, \tau) = p_0(\phi_{-\tau}(x))`: only
coordinates are integrated, and the field is sampled once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.arrays import Array, as_kind, is_tensor, neighbour, to_numpy
from xr_spde.fields.cells import Cells
from xr_spde.fields.sampling import sample

__all__ = ["FlowReport", "departure", "flow_report", "jacobian", "nodes", "steps_for"]

Float = NDArray[np.float64]

ORDERS = (2, 4)


def nodes(like: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Positions of the nodes of a grid.

    Parameters
    ----------
    like : array or tensor
        Gives the kind, dtype and device.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    y, x : array or tensor (ny, nx)
    """
    ny, nx = shape
    if is_tensor(like):
        import torch

        lines = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
        y, x = torch.meshgrid(*lines, indexing="ij")
        return y, x
    dtype = like.dtype if like.dtype.kind == "f" else np.float64
    rows, columns = np.arange(ny, dtype=dtype)[:, None], np.arange(nx, dtype=dtype)
    return np.repeat(rows, nx, axis=1), np.repeat(columns[None], ny, axis=0)


def steps_for(velocity: Array, tau: float, *, periodic_x: bool = False) -> int:
    """Return the number of Runge-Kutta steps over a time.

    Four or more, a step no longer than four cells, and no step in which neighbouring
    characteristics could cross: Lipschitz number ``max|grad q| h`` below 1/2.

    Parameters
    ----------
    velocity : array or tensor (..., 2, ny, nx)
        In cells per unit of time.
    tau : float
        Time.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    int

    Raises
    ------
    ParameterError
        If the velocity or the time is not finite.
    """
    fastest, steepest = _largest(velocity, periodic_x)
    span = abs(tau)
    need = max(span * fastest / 4.0, 2.0 * span * steepest)
    if not math.isfinite(need):
        raise ParameterError(
            f"largest speed {fastest:g} cells, time {tau:g}; both must be finite; fill gaps of "
            "the velocity first"
        )
    # A step that just touches the limit is shortened; a wild velocity is cut at 256 steps, and
    # flow_report tells its Lipschitz number.
    return min(max(4, math.floor(need) + 1), 256)


def _largest(velocity: Array, periodic_x: bool) -> tuple[float, float]:
    """Largest speed, and largest difference of a component between neighbours."""
    q = to_numpy(velocity)
    speed = float(np.sqrt((q**2).sum(axis=-3)).max())
    edges = [np.abs(np.diff(q, axis=axis)).max(initial=0.0) for axis in (-1, -2)]
    if periodic_x:
        edges.append(np.abs(q[..., 0] - q[..., -1]).max())
    return speed, float(max(edges))


def departure(
    velocity: Array,
    tau: float,
    *,
    steps: int | None = None,
    order: int = 2,
    periodic_x: bool = False,
    start: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    r"""Positions :math:`\phi_{-\tau}(x)` from which parcels reach the nodes in a time.

    Runge-Kutta steps of length h = tau / steps; of second order the midpoint rule
    :math:`X \leftarrow X - h\,q(X - \tfrac{h}{2} q(X))`, of fourth order the classical one.

    Parameters
    ----------
    velocity : array or tensor (2, ny, nx) or (b, 2, ny, nx)
        x component first, in cells per unit of time.
    tau : float
        Time; negative for where parcels go.
    steps : int, optional
        Number of steps; see :func:`steps_for`.
    order : {2, 4}
        Of the steps. Four pays where trajectories turn by more than about a radian.
    periodic_x : bool
        Whether the columns close.
    start : (y, x), optional
        Positions to start at instead of the nodes.

    Returns
    -------
    y, x : array or tensor (ny, nx) or (b, ny, nx)
        In cells; may lie outside the grid, and beyond the seam of a periodic one.

    Raises
    ------
    ParameterError
        For another order, a number of steps below one, or a velocity of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.fields.characteristics import departure
    >>> y, x = departure(np.full((2, 3, 4), 0.5), 1.0)
    >>> float(y[0, 0]), float(x[1, 2])
    (-0.5, 1.5)
    """
    if order not in ORDERS:
        raise ParameterError(f"order={order!r}; expected one of {ORDERS}")
    if velocity.ndim not in (3, 4) or velocity.shape[-3] != 2:
        raise ParameterError(
            f"velocity has shape {tuple(velocity.shape)}; expected (2, ny, nx) or (b, 2, ny, nx)"
        )
    count = steps_for(velocity, tau, periodic_x=periodic_x) if steps is None else steps
    if count < 1:
        raise ParameterError(f"steps={steps!r}; expected at least 1")
    y, x = nodes(velocity, tuple(velocity.shape[-2:])) if start is None else start
    if velocity.ndim == 4 and y.ndim == 2:
        zero = velocity[:, 0] * 0
        y, x = y + zero, x + zero

    def q(py: Array, px: Array) -> tuple[Array, Array]:
        found = sample(velocity, py, px, kernel="linear", periodic_x=periodic_x)
        return found[..., 1, :, :], found[..., 0, :, :]

    h = tau / count
    for _ in range(count):
        y1, x1 = q(y, x)
        y2, x2 = q(y - h / 2 * y1, x - h / 2 * x1)
        if order == 2:
            y, x = y - h * y2, x - h * x2
            continue
        y3, x3 = q(y - h / 2 * y2, x - h / 2 * x2)
        y4, x4 = q(y - h * y3, x - h * x3)
        y = y - h / 6 * (y1 + 2 * (y2 + y3) + y4)
        x = x - h / 6 * (x1 + 2 * (x2 + x3) + x4)
    return y, x


def jacobian(y: Array, x: Array, *, periodic_x: bool = False) -> tuple[Array, Array, Array, Array]:
    """Differentiate a map of positions by central differences, one-sided at a border.

    Parameters
    ----------
    y, x : array or tensor (..., ny, nx)
        Where each node is taken, in cells; without jumps at a seam.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    dy_dy, dy_dx, dx_dy, dx_dx : array or tensor (..., ny, nx)
    """
    ny, nx = y.shape[-2:]
    wide_y, wide_x = (np.r_[1.0, np.full(n - 2, 2.0), 1.0] for n in (ny, nx))
    if periodic_x:
        wide_x = np.full(nx, 2.0)
    # displacements are periodic, positions are not
    _, columns = nodes(x, (ny, nx))
    off = x - columns

    def slope(f: Array, axis: int, width: NDArray[np.float64], wrap: bool) -> Array:
        ahead, behind = (neighbour(f, step, axis, periodic=wrap) for step in (1, -1))
        return (ahead - behind) / as_kind(width, f)

    return (
        slope(y, -2, wide_y[:, None], False),
        slope(y, -1, wide_x, periodic_x),
        slope(x, -2, wide_y[:, None], False),
        slope(off, -1, wide_x, periodic_x) + 1,
    )


@dataclass(frozen=True)
class FlowReport:
    """How far the numbers of a flow can be trusted.

    Attributes
    ----------
    courant : float
        Largest number of cells crossed in one step.
    lipschitz : float
        ``max|grad q| h``; characteristics computed with a step h cannot cross below 1.
    min_jacobian : float
        Smallest determinant of the map over the whole time; negative where it folds.
    folded : float
        Share of cells with a determinant of zero or less.
    outside : float
        Share of cells whose parcels come from outside the grid.
    steps : int
        Number of steps.
    """

    courant: float
    lipschitz: float
    min_jacobian: float
    folded: float
    outside: float
    steps: int

    @property
    def trusted(self) -> bool:
        """Whether characteristics neither cross nor fold."""
        return self.lipschitz < 1.0 and self.min_jacobian > 0.0


def flow_report(
    velocity: Array, tau: float, cells: Cells, *, steps: int | None = None, order: int = 2
) -> FlowReport:
    """Courant and Lipschitz numbers, folds and inflow of a flow.

    Parameters
    ----------
    velocity : array or tensor (2, ny, nx)
        In cells per unit of time.
    tau : float
        Time.
    cells : Cells
        The grid.
    steps, order
        As in :func:`departure`.

    Returns
    -------
    FlowReport
    """
    q = to_numpy(velocity)
    periodic = cells.periodic_x
    count = steps_for(q, tau, periodic_x=periodic) if steps is None else steps
    y, x = departure(q, tau, steps=count, order=order, periodic_x=periodic)
    a, b, c, d = jacobian(y, x, periodic_x=periodic)
    det = a * d - b * c
    ny, nx = cells.shape
    outside = (y < -0.5) | (y > ny - 0.5)
    if not periodic:
        outside |= (x < -0.5) | (x > nx - 0.5)
    fastest, steepest = _largest(q, periodic)
    h = abs(tau) / count
    return FlowReport(
        courant=fastest * h,
        lipschitz=steepest * h,
        min_jacobian=float(det.min()),
        folded=float((det <= 0).mean()),
        outside=float(outside.mean()),
        steps=count,
    )

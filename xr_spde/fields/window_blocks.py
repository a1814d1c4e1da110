"""How the steps of a window are cut into blocks that are factorised, from sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from xr_spde._core.errors import MemoryGuardError, SolverError, unknown
from xr_spde._core.memory import format_bytes, memory_budget
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.water_factor import WaterFactor
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.grid_memory import predict

__all__ = ["DIRECT_WORK", "SOLVERS", "Blocks", "factorise", "plan", "spread"]

SOLVERS = ("auto", "direct", "pcg")
"""One block, several as a preconditioner, or what is predicted to be cheaper."""

DIRECT_WORK = 2e11
"""Operations of a factorisation up to which one block is taken: half a minute on one core."""

SKIP_LAND = 0.75
"""Share of water below which land is left out of the factors."""


@dataclass(frozen=True)
class Blocks:
    """How the steps are cut.

    Attributes
    ----------
    bounds : tuple of int
        First step of every block, and the number of steps.
    needed : int
        Bytes of all factors and the workspace of one.
    work : float
        Operations of the factorisations.
    reach : int
        Largest distance of coupled nodes.
    """

    bounds: tuple[int, ...]
    needed: int
    work: float
    reach: int

    @property
    def direct(self) -> bool:
        """Whether one block holds all steps."""
        return len(self.bounds) == 2

    def __str__(self) -> str:
        sizes = np.diff(self.bounds)
        how = "direct" if self.direct else f"conjugate gradients, {sizes.size} blocks"
        return (
            f"{how} of up to {sizes.max()} steps, reach {self.reach}: about "
            f"{format_bytes(self.needed)} and {self.work:.1e} operations"
        )


def _cut(prior: SpaceTime, reach: int, span: int) -> Blocks:
    """Predict what blocks of at most `span` steps cost."""
    count = -(-prior.total // span)
    bounds = tuple(int(b) for b in np.linspace(0, prior.total, count + 1).round())
    mesh, needed, work, workspace = prior.operator.mesh, 0, 0.0, 0
    for size in np.unique(np.diff(bounds)):
        made = grid(mesh.shape, boundary=mesh.topology, reach=reach, layers=int(size))
        memory = predict(made, symmetric=True, dtype=np.float64)
        many = int((np.diff(bounds) == size).sum())
        needed += many * (memory.factor + memory.index)
        workspace = max(workspace, memory.factoring, memory.inverting)
        for level in made.levels():
            for kind, boxes in level.items():
                pivots, rim = size * made.cut(kind).pivots, size * kind.rim
                work += many * boxes * (pivots**3 + 2.0 * pivots**2 * rim + pivots * rim**2)
    if _skips_land(prior):
        share = float(prior.sea.mean())
        needed, workspace = int(needed * share), int(workspace * share)
        work *= share**1.5
    return Blocks(bounds, needed + workspace, work, reach)


def _skips_land(prior: SpaceTime) -> bool:
    return float(prior.sea.mean()) < SKIP_LAND


def factorise(
    prior: SpaceTime, matrix: sp.csc_array, reach: int, layers: int
) -> GridFactor | WaterFactor:
    """Factorise a block of a posterior precision.

    Parameters
    ----------
    prior : SpaceTime
        Of the window.
    matrix : csc_array (layers * n, layers * n)
        Symmetric positive definite, the identity on land.
    reach : int
        Largest distance of coupled nodes.
    layers : int
        Steps.

    Returns
    -------
    GridFactor or WaterFactor
        The latter where much of the grid is land.

    Raises
    ------
    SolverError
        If the matrix is too near singular or not positive definite.
    """
    try:
        if _skips_land(prior):
            return WaterFactor(matrix, prior.operator.mesh, layers)
        return prior.factorise(matrix, reach, symmetric=True, layers=layers)
    except SolverError as error:
        raise SolverError(
            f"the posterior precision of {layers} steps cannot be factorised: {error}. A flow of "
            "many cells a step, or parameters that vary sharply, bring this about, or observations "
            "whose errors are tiny against the prior: expected a slower flow or shorter steps, "
            'smoother parameters, larger errors, or the prior with initial="rest"'
        ) from error


def plan(prior: SpaceTime, *, reach: int, solver: str = "auto") -> Blocks:
    """Choose how the steps are cut, from sizes alone.

    Parameters
    ----------
    prior : SpaceTime
        Of the window.
    reach : int
        Largest distance of coupled nodes in the posterior precision.
    solver : {"auto", "direct", "pcg"}, default "auto"
        "auto" takes one block where it fits in memory with at most :data:`DIRECT_WORK`; else, and
        for "pcg", every step is a block (longer ones were slower).

    Returns
    -------
    Blocks

    Raises
    ------
    UnknownNameError
        For another solver.
    MemoryGuardError
        If not even the smallest blocks that were asked for fit; nothing has been allocated then.
    """
    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    limit = memory_budget()
    found = _cut(prior, reach, 1 if solver == "pcg" else prior.total)
    if solver == "auto" and (found.needed > limit or found.work > DIRECT_WORK):
        found = _cut(prior, reach, 1)
    if found.needed <= limit:
        return found
    remedy = '; try solver="auto"' if solver == "direct" else "; use a coarser grid or fewer steps"
    raise MemoryGuardError(
        f"a window of {prior.total} steps on {prior.operator.mesh.shape}: {found}; the limit is "
        f"{format_bytes(limit)}{remedy}, or xr_spde.set_options(memory_limit=...)"
    )


def spread(rows: sp.csr_array, prior: SpaceTime) -> int:
    """Largest distance of two nodes that one observation touches.

    Parameters
    ----------
    rows : csr_array (p, steps * n)
        What is observed.
    prior : SpaceTime
        Of the window.

    Returns
    -------
    int
        In rows or columns, the shorter way where these are periodic.
    """
    if not rows.nnz:
        return 0
    mesh = prior.operator.mesh
    used = np.flatnonzero(np.diff(rows.indptr))
    starts = rows.indptr[used]
    widest = 0
    place = rows.indices % mesh.size
    for axis, position in enumerate(np.divmod(place, mesh.shape[1])):
        span = np.maximum.reduceat(position, starts) - np.minimum.reduceat(position, starts)
        if mesh.boundary[axis] == "periodic":
            half = mesh.shape[axis] // 2
            turned = (position + half) % mesh.shape[axis]
            wrapped = np.maximum.reduceat(turned, starts) - np.minimum.reduceat(turned, starts)
            span = np.minimum(span, wrapped)
        widest = max(widest, int(span.max()))
    return widest

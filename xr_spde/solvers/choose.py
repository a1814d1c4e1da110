"""The ladder of solvers: which one factorises a matrix, where, and whether it fits in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from xr_spde._core.device import resolve_device
from xr_spde._core.errors import MemoryGuardError, ParameterError, SolverError, unknown
from xr_spde._core.memory import format_bytes
from xr_spde._core.options import get_option
from xr_spde._core.warn import warn
from xr_spde.solvers import card, cholmod, multigrid
from xr_spde.solvers.dissection import gram_inverse
from xr_spde.solvers.factor import Factor
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.grid_memory import block_width, predict
from xr_spde.solvers.grid_tree import grow
from xr_spde.solvers.superlu import BLOCK, SuperLUFactor

Shape = tuple[int, int]
DType = np.dtype[Any]
Device = Literal["cpu", "cuda"]

LOGGER = logging.getLogger("xr_spde.solvers")

GEOMETRIC_FROM = 300_000
"""Rows from which the ordering of the grid beats minimum degree in SuperLU."""

SINGLE_ERROR = 3e-5
"""Largest error of a factor in float32, relative to the solution of white noise.

Draws are then within 1e-4 standard deviations (root mean square at the worst node) of those in
float64, and mostly within 1e-6: measured for kappa2 from 1e-5 to 0.5 and rho from 1 to 7.
"""


@dataclass(frozen=True)
class Choice:
    """A solver, and where it runs.

    Parameters
    ----------
    solver : str
        A name in :data:`SOLVERS`.
    device : {"cpu", "cuda"}
        Processor or graphics card.
    dtype : dtype
        Of the factor: float64 where the solver knows no other.
    needed : int
        Bytes that factorising and solving are predicted to take.
    limit : int
        Bytes that they may take.
    before : tuple of Choice
        What came first and does not fit.
    """

    solver: str
    device: Device
    dtype: DType
    needed: int
    limit: int
    before: tuple[Choice, ...] = ()

    @property
    def place(self) -> str:
        """Where it runs, in words."""
        return "on the graphics card" if self.device == "cuda" else "on the processor"

    def width(self, n: int) -> int:
        """Right-hand sides of n rows that are solved for at a time; fewer take as long."""
        return SOLVERS[self.solver].width(n, self.dtype, self.device == "cpu")

    def __str__(self) -> str:
        own = (
            f"{self.solver} {self.place} in {self.dtype} would take about "
            f"{format_bytes(self.needed)}; the limit is {format_bytes(self.limit)}"
        )
        return own + "".join(f" (does not fit: {one})" for one in self.before)


@dataclass(frozen=True)
class Solver:
    """What the ladder knows of a solver.

    Parameters
    ----------
    memory : callable
        Predicted bytes, from shape, boundary, dtype and whether it is on the host.
    width : callable
        Right-hand sides at a time, from the number of rows, dtype and whether on the host.
    build : callable
        The factor, from matrix, shape, boundary, dtype and module of arrays.
    devices, dtypes : tuple of str
        What it knows.
    load : callable
        Imports what it needs besides, or says how to install it.
    stencil : bool
        Whether it takes the nine weights of every node, and the matrix need not be assembled.
    """

    memory: Callable[[Shape, str, DType, bool], int]
    width: Callable[[int, DType, bool], int]
    build: Callable[[Any, Shape, str, DType, Any], Factor]
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float64",)
    load: Callable[[], Any] = lambda: None
    stencil: bool = False


def predict_bytes(n: int) -> int:
    """Peak memory of factorising a nine-point matrix of `n` rows with SuperLU.

    Parameters
    ----------
    n : int
        Number of rows.

    Returns
    -------
    int
        Bytes, within about 30 % above what was measured from 24 thousand to 2 million rows.
    """
    return int(150.0 * n * max(math.log2(n), 1.0))


def _superlu(matrix: sp.csc_array, shape: Shape, boundary: str, dtype: DType, xp: Any) -> Factor:
    large = shape[0] * shape[1] >= GEOMETRIC_FROM
    order = grow(grid(shape, boundary=boundary, leaf=16)).order if large else None
    return SuperLUFactor(
        matrix,
        permutation=order,
        gram_diagonal=lambda: gram_inverse(matrix, shape=shape, boundary=boundary)[0],
    )


def _dissection_bytes(shape: Shape, boundary: str, dtype: DType, host: bool) -> int:
    made = grid(shape, boundary=boundary)
    return predict(made, symmetric=False, dtype=dtype, host=host).peak


def _dissection(matrix: sp.csc_array, shape: Shape, boundary: str, dtype: DType, xp: Any) -> Factor:
    held = GridFactor(matrix, shape=shape, boundary=boundary, dtype=dtype, xp=xp)
    error = held.error(matrix) if dtype == np.float32 else 0.0
    if not error <= SINGLE_ERROR:
        raise SolverError(
            f"single precision leaves an error of {error:.0e} of the solution, limit "
            f"{SINGLE_ERROR:.0e}; factorise in float64"
        )
    return held


def _cholmod(matrix: sp.csc_array, shape: Shape, boundary: str, dtype: DType, xp: Any) -> Factor:
    return cholmod.CholmodFactor(
        matrix, gram_diagonal=lambda: gram_inverse(matrix, shape=shape, boundary=boundary)[0]
    )


def _multigrid(matrix: Any, shape: Shape, boundary: str, dtype: DType, xp: Any) -> Factor:
    return multigrid.MultigridFactor(matrix, shape=shape, boundary=boundary, dtype=dtype, xp=xp)


SOLVERS: Mapping[str, Solver] = {
    "dissection": Solver(
        memory=_dissection_bytes,
        width=lambda n, dtype, host: block_width(n, dtype, host=host),
        build=_dissection,
        devices=("cpu", "cuda"),
        dtypes=("float64", "float32"),
    ),
    "multigrid": Solver(
        memory=lambda shape, boundary, dtype, host: multigrid.predict_bytes(
            shape, boundary=boundary, host=host
        ),
        width=lambda n, dtype, host: 1,
        build=_multigrid,
        devices=("cpu", "cuda"),
        dtypes=("float64", "float32"),
        stencil=True,
    ),
    "superlu": Solver(
        memory=lambda shape, boundary, dtype, host: predict_bytes(shape[0] * shape[1]),
        width=lambda n, dtype, host: BLOCK,
        build=_superlu,
    ),
    "cholmod": Solver(
        memory=lambda shape, boundary, dtype, host: cholmod.predict_bytes(shape[0] * shape[1]),
        width=lambda n, dtype, host: cholmod.BLOCK,
        build=_cholmod,
        load=cholmod.load,
    ),
}
"""Solvers by name."""

LADDER = ("dissection", "multigrid")
"""What ``"auto"`` tries in turn: the first that fits in memory."""


def check_solver(solver: str) -> str:
    """Return the name of a solver if there is one of that name.

    Parameters
    ----------
    solver : str
        ``"auto"`` or a name in :data:`SOLVERS`.

    Returns
    -------
    str
        The same.

    Raises
    ------
    UnknownNameError
        For another name; lists the known ones.
    """
    if solver != "auto" and solver not in SOLVERS:
        raise unknown("solver", solver, ["auto", *SOLVERS])
    return solver


def choose(
    shape: Shape,
    *,
    boundary: str,
    solver: str = "auto",
    dtype: Any = np.float64,
    margin: float = 1.0,
) -> Choice:
    """Choose a solver and a device from the shape of the grid alone.

    ``"auto"`` takes the direct solver by dissection where its predicted memory fits, since it is
    faster by far for several right-hand sides, and beyond that multigrid: on a graphics card where
    the option ``device`` allows it and one of the two fits, else on the processor.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``, buffer included.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Where the grid is periodic.
    solver : str, default "auto"
        Or a name in :data:`SOLVERS`.
    dtype : {float64, float32}
        Of the factor.
    margin : float, default 1
        Factor on the predicted memory, for a buffer whose width is not known yet.

    Returns
    -------
    Choice

    Raises
    ------
    UnknownNameError
        For an unknown solver.
    MemoryGuardError
        If nothing that was asked for is predicted to fit; says the need, the limit and what to do.
    MissingDependencyError
        If a library is missing: cupy for ``device="cuda"``, scikit-sparse for ``"cholmod"``.
    ParameterError
        If the option ``device`` is "cuda" and there is no card.
    """
    names = LADDER if check_solver(solver) == "auto" else (solver,)
    devices: tuple[Device, ...] = ("cuda", "cpu") if resolve_device() == "cuda" else ("cpu",)
    tried: list[Choice] = []
    for device in devices:
        for name in names:
            if device not in SOLVERS[name].devices:
                continue
            found = _weigh(name, device, shape, boundary, np.dtype(dtype), margin)
            if found.needed <= found.limit:
                return replace(found, before=tuple(tried))
            tried.append(found)
        if get_option("device") != "cuda" or device == "cpu":
            continue
        if tried:
            break
        warn(
            f"device='cuda' was asked for and the solver {solver!r} runs on the processor; it is "
            "used all the same"
        )
    raise _too_large(shape, tried)


def _weigh(
    name: str, device: Device, shape: Shape, boundary: str, dtype: DType, margin: float
) -> Choice:
    """Compare the memory that a solver takes with what there is."""
    known = SOLVERS[name]
    known.load()
    used = dtype if dtype.name in known.dtypes else np.dtype(np.float64)
    needed = int(margin * known.memory(shape, boundary, used, device == "cpu"))
    return Choice(name, device, used, needed, card.budget(card.array_module(device)))


def _too_large(shape: Shape, tried: list[Choice]) -> MemoryGuardError:
    """Error that names what was tried, and what is left to try."""
    names = {one.solver for one in tried}
    remedies = ["a coarser or smaller grid", "a smaller buffer"]
    remedies += [f'solver="{name}"' for name in LADDER[1:] if name not in names]
    remedies += ['set_options(device="cpu")'] if tried[-1].device == "cuda" else []
    least = min(one.needed for one in tried)
    return MemoryGuardError(
        f"factorising a grid of {shape[0]} x {shape[1]} nodes (buffer included): "
        f"{', '.join(map(str, tried))}. Use {' or '.join(remedies)}. To allow it all the same type "
        f"xr_spde.set_options(memory_limit={int(least * 1.1)})"
    )


def factor(
    matrix: Any,
    *,
    shape: Shape,
    boundary: str,
    solver: str = "auto",
    dtype: Any = np.float64,
) -> Factor:
    """Factorise the matrix of a nine-point stencil on a grid.

    The logger ``xr_spde.solvers`` says what was chosen and why, at the level INFO.

    Parameters
    ----------
    matrix : sparse matrix (ny * nx, ny * nx)
        As from :func:`xr_spde.fields.stencil.assemble`; multigrid takes the weights (9, ny, nx)
        from which it is assembled as well, with half the memory.
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Where the grid is periodic.
    solver : str, default "auto"
        Or a name in :data:`SOLVERS`; see :func:`choose`.
    dtype : {float64, float32}
        Of the factor; solvers that know float64 only use that.

    Returns
    -------
    Factor
        Solutions, log-determinant, variances.

    Raises
    ------
    UnknownNameError
        For an unknown solver.
    ParameterError
        If matrix and shape do not fit.
    MemoryGuardError
        If it is predicted not to fit in memory; nothing has been allocated then.
    MissingDependencyError
        If a library is missing: cupy for ``device="cuda"``, scikit-sparse for ``"cholmod"``.
    SolverError
        If the matrix is singular, or nearly so, or float32 loses more than :data:`SINGLE_ERROR`.
    """
    check_solver(solver)
    n = shape[0] * shape[1]
    if matrix.shape not in ((n, n), (9, *shape)):
        raise ParameterError(f"matrix has shape {matrix.shape}; expected {(n, n)} for {shape}")
    choice = choose(shape, boundary=boundary, solver=solver, dtype=dtype)
    LOGGER.info("%d x %d nodes, solver=%r: %s", *shape, solver, choice)
    xp = card.array_module(choice.device)
    return SOLVERS[choice.solver].build(matrix, shape, boundary, choice.dtype, xp)

"""Names of what a variational solver is made of, and which go together."""

from __future__ import annotations

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.stationary import BOUNDARIES

__all__ = ["DIRECTIONS", "PRECONDITIONERS", "PRIORS", "UPDATES", "check_names", "check_parts"]

PRIORS = ("auto-encoder", "spde", "both")
"""A learned projection, the SPDE, or the sum of their costs."""

PRECONDITIONERS = ("stationary", "none")
"""Spread gradients by the covariance of the stationary prior, or leave them as they are."""

UPDATES = ("search", "decay", "mean")
"""Lengths of steps: to the minimum; one over their number; one over the number of iterations."""

DIRECTIONS = ("free", "observed")
"""``C (g + a)`` and b; or ``C (g + a)`` and ``C^(1/2) (g + b)`` with a and b at observed cells.

The first learns to lower J most. The second stays near what the minimum is made of, the covariance
of the prior times a field at observed cells: untrained it is a conjugate gradient with two
preconditioners, and its error keeps falling in more iterations than were trained."""


def check_names(
    prior: str, alpha: int, boundary: str, preconditioner: str, update: str, directions: str
) -> None:
    """Refuse unknown names, and a search where the cost is not quadratic."""
    for kind, given, names in (
        ("prior", prior, PRIORS),
        ("boundary", boundary, BOUNDARIES),
        ("preconditioner", preconditioner, PRECONDITIONERS),
        ("update", update, UPDATES),
        ("directions", directions, DIRECTIONS),
    ):
        if given not in names:
            raise unknown(kind, given, names)
    if alpha not in (2, 4):
        raise unknown("alpha", alpha, ("2", "4"))
    if update == "search" and prior != "spde":
        raise ParameterError(
            f'update="search" with prior={prior!r}: the cost of a learned prior is not quadratic; '
            'give update="decay", or prior="spde"'
        )
    if directions == "observed" and update != "search":
        raise ParameterError(f'directions="observed" with update={update!r}: give update="search"')


def check_parts(
    prior: str, update: str | None, hidden: int, refine: int, *, nodes: int, deviation: bool
) -> None:
    """Refuse parts that need others which are not there."""
    if nodes > 1 and prior != "spde":
        raise ParameterError(f'nodes={nodes} with prior={prior!r}: give prior="spde", or nodes=1')
    if not hidden and update != "search":
        raise ParameterError(
            f"hidden=0 with update={update!r}: without a network the search is that of conjugate "
            'gradients; give update="search" and prior="spde", or hidden='
        )
    if deviation and not refine:
        raise ParameterError("deviation=True needs the network after the iterations: give refine=")

r"""The operator ``kappa^2 + m.grad - div H grad`` as a stencil of nine points in torch.

On unit cells, by fluxes through faces and centred advection, with edges and coasts folded into the
stencil: what is built here is the matrix of :class:`xr_spde.fields.spde.SpdeOperator` on a unit
mesh, entry by entry, as tensors (B, 9, S, ny, nx) that depend on the eight fields

.. math::

    \theta = (\kappa, \tau, m_1, m_2, v_1, v_2, \gamma, \beta), \qquad H = \gamma I + \beta v v'.

References
----------
Beauchamp et al. (2025), AIES, arXiv 2402.01855, for the parameters; Clarotto, Allard, Romary,
Desassis (2024), Spat. Stat. 62.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError, unknown

__all__ = [
    "BOUNDARIES", "OFFSETS", "THETA", "apply_stencil", "boundaries", "sea_of", "stencil_of",
    "tensor_of", "transposed_stencil",
]  # fmt: skip

THETA = ("kappa", "tau", "m1", "m2", "v1", "v2", "gamma", "beta")
"""Channels of theta, in grid units."""

BOUNDARIES = ("neumann", "dirichlet", "periodic")
"""What lies beyond an edge: the same value again, zero, or the other edge."""

OFFSETS = tuple((dj, di) for dj in (-1, 0, 1) for di in (-1, 0, 1))
"""Rows and columns from a node to the neighbours, in the order of the stencil."""

_POSITIVE = ("kappa", "tau", "gamma")


def boundaries(boundary: str | tuple[str, str]) -> tuple[str, str]:
    """Return the rules of the edges in y and in x.

    Parameters
    ----------
    boundary : str or tuple of str
        Names in :data:`BOUNDARIES`, for both or each.

    Returns
    -------
    tuple of str

    Raises
    ------
    UnknownNameError
        For another name.
    """
    pair = (boundary, boundary) if isinstance(boundary, str) else tuple(boundary)
    for name in pair:
        if name not in BOUNDARIES:
            raise unknown("boundary", name, BOUNDARIES)
    return pair[0], pair[1]


def sea_of(theta: Tensor, sea: Tensor | None) -> Tensor:
    """Check theta and give the sea the dimensions (B, 1, ny, nx).

    Parameters
    ----------
    theta : Tensor (B, 8, S, ny, nx)
        Parameters.
    sea : Tensor of bool (B, ny, nx) or (ny, nx), optional
        Everywhere by default.

    Returns
    -------
    Tensor of bool (B, 1, ny, nx)

    Raises
    ------
    ParameterError
        For shapes that do not fit.
    """
    if theta.ndim != 5 or theta.shape[1] != len(THETA) or min(theta.shape[3:]) < 2:
        raise ParameterError(
            f"theta has shape {tuple(theta.shape)}; expected (windows, {len(THETA)}, steps, ny, nx)"
        )
    shape = (theta.shape[0], *theta.shape[3:])
    if sea is None:
        return torch.ones(shape, dtype=torch.bool, device=theta.device)[:, None]
    if sea.dtype != torch.bool or sea.shape not in (shape, shape[1:]):
        raise ParameterError(
            f"sea has shape {tuple(sea.shape)} and dtype {sea.dtype}; expected true and false on "
            f"{shape} or {shape[1:]}"
        )
    return sea.expand(shape)[:, None].to(theta.device)


def tensor_of(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Diffusion tensor of the parameters, H11, H22 and H12 (B, S, ny, nx)."""
    v1, v2, gamma, beta = theta[:, 4:].unbind(1)
    return gamma + beta * v1**2, gamma + beta * v2**2, beta * v1 * v2


def stencil_of(theta: Tensor, sea: Tensor, boundary: tuple[str, str]) -> Tensor:
    """Stencil of the operator.

    Parameters
    ----------
    theta : Tensor (B, 8, S, ny, nx)
        Parameters; what stands on land does not matter.
    sea : Tensor of bool (B, 1, ny, nx)
        From :func:`sea_of`.
    boundary : tuple of str
        From :func:`boundaries`.

    Returns
    -------
    Tensor (B, 9, S, ny, nx)
        Row ``p`` of the matrix has entry k in the column of ``p + OFFSETS[k]``; zero where there
        is no such node, and on land.
    """
    filled = torch.tensor([float(name in _POSITIVE) for name in THETA], device=theta.device)
    theta = torch.where(sea[:, None], theta, filled.to(theta.dtype)[:, None, None, None])
    h11, h22, h12 = tensor_of(theta)
    water = sea.to(theta.dtype)
    entries = {offset: torch.zeros_like(h11) for offset in OFFSETS}
    entries[0, 0] = entries[0, 0] + water * theta[:, 0] ** 2
    slopes = {}
    for axis, (flux, flow) in enumerate(((h22, theta[:, 3]), (h11, theta[:, 2]))):
        ahead = (1, 0) if axis == 0 else (0, 1)
        link, same, beyond = _sides(sea, axis, boundary[axis], theta.dtype)
        _add_fluxes(entries, flux, ahead, link, beyond)
        back = (-ahead[0], -ahead[1])
        # difference of the values ahead and behind, where either may be the node's own
        slopes[axis] = {ahead: link[0], back: -link[1], (0, 0): same[0] - same[1]}
        for offset, weight in slopes[axis].items():
            entries[offset] = entries[offset] + 0.5 * weight * flow
    for along, one in slopes[1].items():
        for across, other in slopes[0].items():
            weight = 0.25 * one * other * h12
            for left, right in ((along, across), (across, along)):
                offset = (right[0] - left[0], right[1] - left[1])
                entries[offset] = entries[offset] + _at(weight, (-left[0], -left[1]))
    return torch.stack([entries[offset] for offset in OFFSETS], dim=1)


def _at(field: Tensor, offset: tuple[int, int]) -> Tensor:
    """Value at the node one offset away, around the edges."""
    return torch.roll(field, (-offset[0], -offset[1]), (-2, -1))


def _sides(
    sea: Tensor, axis: int, rule: str, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Ahead and behind: links to water, values that repeat; and the number of sides that are zero.

    Land repeats the value: it is a barrier.
    """
    link, same = [], []
    beyond = torch.zeros(sea.shape, dtype=dtype, device=sea.device)
    for step, edge in ((1, -1), (-1, 0)):
        inside = torch.ones_like(sea)
        if rule != "periodic":
            inside[(..., edge, slice(None)) if axis == 0 else (..., edge)] = False
        other = torch.roll(sea, -step, axis - 2)
        link.append((sea & other & inside).to(dtype))
        zero = sea & ~inside if rule == "dirichlet" else torch.zeros_like(sea)
        same.append((sea & ~(other & inside) & ~zero).to(dtype))
        beyond = beyond + zero.to(dtype)
    return (link[0], link[1]), (same[0], same[1]), beyond


def _add_fluxes(
    entries: dict[tuple[int, int], Tensor],
    flux: Tensor,
    ahead: tuple[int, int],
    link: tuple[Tensor, Tensor],
    beyond: Tensor,
) -> None:
    """Diffusion along an axis, with the mean coefficient of the two nodes of a face."""
    back = (-ahead[0], -ahead[1])
    face = 0.5 * link[0] * (flux + _at(flux, ahead))
    behind = _at(face, back)
    entries[ahead] = entries[ahead] - face
    entries[back] = entries[back] - behind
    entries[0, 0] = entries[0, 0] + face + behind + beyond * flux


def apply_stencil(stencil: Tensor, x: Tensor, *, around: bool) -> Tensor:
    """Product of the matrix of a stencil with fields.

    Parameters
    ----------
    stencil : Tensor (B, 9, S, ny, nx)
        With S = 1 or T.
    x : Tensor (B, T, ny, nx)
        Finite.
    around : bool
        Whether an edge is periodic.

    Returns
    -------
    Tensor (B, T, ny, nx)
    """
    ny, nx = x.shape[-2:]
    # the stencil is zero where there is no neighbour, so that what is padded there never matters
    wide = F.pad(x, (1, 1, 1, 1), mode="circular" if around else "constant")
    found = torch.zeros_like(x)
    # in place where nothing is to be differentiated: no fields come and go
    add = torch.addcmul if torch.is_grad_enabled() else Tensor.addcmul_
    for k, (dj, di) in enumerate(OFFSETS):
        found = add(found, stencil[:, k], wide[..., 1 + dj : 1 + dj + ny, 1 + di : 1 + di + nx])
    return found


def transposed_stencil(stencil: Tensor) -> Tensor:
    """Stencil (B, 9, S, ny, nx) of the transposed matrix."""
    parts = [_at(stencil[:, 8 - k], offset) for k, offset in enumerate(OFFSETS)]
    return torch.stack(parts, dim=1)

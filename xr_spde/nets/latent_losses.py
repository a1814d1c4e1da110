r"""Terms of the loss of latent dynamics, over a batch of windows and one interval.

With :math:`p_k = E(u_k)`, :math:`\Psi_\tau` the transport by :math:`q` and m the cells whose path
stays in the window and meets no gap (each mean is over its m):

.. math::

    L_\mathrm{dyn} &= \langle \rho(D \Psi_1 p_0 - u_1) \rangle, \qquad
    L_\mathrm{AE} = \tfrac12 \sum_k \langle \rho(D p_k - u_k) \rangle, \\
    L_\mathrm{mag} &= \langle |q - q_0|^2 \rangle, \qquad
    L_\mathrm{sm} = \langle |\nabla q|^2 \rangle \text{ or as } \texttt{smoothness} \text{ says}, \\
    L_c &= \langle |\Psi_1 p_0 - p_1|^2 \rangle + \langle \rho(D \Psi_{-1} p_1 - u_0) \rangle, \\
    L_h &= \langle |\Psi_{1/2} p_0 - \Psi_{-1/2} p_1|^2 \rangle, \qquad
    L_r = \tfrac12 \sum_k \langle |p_k - u_k|^2 \rangle
          + \tfrac14 \sum_p \langle |D p - p|^2 \rangle, \qquad
    L_s = \langle |s|^2 + |\nabla s|^2 \rangle,

where :math:`q_0` is a motion that was given, and :math:`\rho(e) = e^2`, or for large e linear with
``robust``. The first four are those of the source; :math:`L_c` and :math:`L_h` tie the middle down,
which the others leave free, and :math:`L_r`, of residual networks only, keeps the model what it
began as, advection of the image, except where that fails. :math:`L_s` weighs a source s of the
latent state where there is one. With diffusion whatever is compared is first brought to the
smoother of both ends.

References
----------
Han, J., Lee, S. and Gelb, A. (2023): Learning in-between imagery dynamics via physical latent
spaces. arXiv 2310.09495.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde.nets.latent_unet import LatentNets

__all__ = ["SMOOTHNESS", "TERMS", "Transport", "Windows", "loss_terms", "roughness"]

TERMS = (
    "dynamics",
    "autoencoding",
    "magnitude",
    "smoothness",
    "consistency",
    "half",
    "departure",
    "source",
)
"""Names of the terms, in the order of the log."""

SMOOTHNESS = ("gradient", "hessian", "tv")
"""Mean square of the first differences; mean size of the second ones, which are zero for rotations
and every affine motion; mean size of the first ones (total variation), which lets motion jump."""

_SOFT = {"hessian": 1e-2, "tv": 1e-2}


@dataclass(frozen=True)
class Transport:
    """How states are carried, given from above: networks know no fields.

    Attributes
    ----------
    trace : callable
        ``trace(velocity, at, since, start=None)`` gives positions (y, x); see
        `xr_spde.fields.unsteady.trace`.
    sample : callable
        ``sample(field, y, x, kernel=...)``; see `xr_spde.fields.sampling.sample`.
    grown, levelled : callable
        Sources and diffusion on the way; see `xr_spde.fields.unsteady`.
    """

    trace: Callable[..., tuple[Tensor, Tensor]]
    sample: Callable[..., Tensor]
    grown: Callable[..., Tensor]
    levelled: Callable[..., Tensor]


@dataclass(frozen=True)
class Windows:
    """A batch of windows of one interval.

    Attributes
    ----------
    first, last : Tensor (b, channels, ny, nx)
        Images at both ends, gaps filled.
    known_first, known_last : Tensor (b, 1, ny, nx)
        1 where they have data.
    velocity : Tensor (b, d + 1, 2, ny, nx)
        Coefficients of the motion; see `xr_spde.fields.unsteady`.
    initial : Tensor like `velocity`
        The motion that was given, or zero.
    interval : (float, float)
        Times of both ends as shares of the whole span.
    source : Tensor (b, latent, ny, nx), optional
        Of the latent state, per span; see `xr_spde.fields.unsteady`.
    """

    first: Tensor
    last: Tensor
    known_first: Tensor
    known_last: Tensor
    velocity: Tensor
    initial: Tensor
    interval: tuple[float, float]
    source: Tensor | None = None


def loss_terms(
    nets: LatentNets,
    windows: Windows,
    transport: Transport,
    *,
    robust: float | None,
    smoothness: str,
    kernel: str = "cubic",
) -> dict[str, Tensor]:
    """All terms, without their weights.

    Parameters
    ----------
    nets : LatentNets
        E and D; F has made ``windows.velocity``.
    windows : Windows
        The batch.
    transport : Transport
        How states are carried.
    robust : float or None
        Mismatch, in standard deviations of the images, from which it counts linearly; None: never.
    smoothness : str
        One of :data:`SMOOTHNESS`.
    kernel : str
        Of the samples of latent states; see `xr_spde.fields.sampling.KERNELS`. That with which
        frames are made: D learns to undo the blur of another one.

    Returns
    -------
    dict of Tensor ()
        By the names of :data:`TERMS`.
    """
    images = torch.cat((windows.first, windows.last))
    masks = (windows.known_first, windows.known_last)
    states = nets.encode(images, torch.cat(masks)).chunk(2)
    gaps = bool(nets.options["gaps"])
    carry = partial(_carried, sample=transport.sample, gaps=gaps, kernel=kernel)
    level = partial(_levelled, nets, windows.interval, transport)
    halves, wholes = _paths(windows, transport)
    met, seen_half = zip(*map(carry, states, masks, halves), strict=True)
    carried, seen = zip(*map(carry, states, masks, wholes), strict=True)
    if windows.source is not None:
        s0, s1 = windows.interval
        middle = 0.5 * (s0 + s1)
        grow = partial(_grown, windows, transport.grown)
        met = grow(met, (middle, middle), (s0, s1))
        carried = grow(carried, (s1, s0), (s0, s1))
    met, carried = level(met), level(carried)

    transported = torch.cat((*states, *carried))
    decoded = nets.decode(transported).chunk(4)
    goals = level((windows.first, windows.last))[::-1]
    arrived = level(states)[::-1]
    seen_goals = [s * m for s, m in zip(seen, reversed(masks), strict=True)]
    there, back = (
        _mean(_penalty(d - u, robust), m)
        for d, u, m in zip(decoded[2:], goals, seen_goals, strict=True)
    )
    own = [
        _mean(_penalty(d - u, robust), m)
        for d, u, m in zip(decoded[:2], images.chunk(2), masks, strict=True)
    ]
    q = windows.velocity
    off = q - windows.initial
    return {
        "dynamics": there,
        "autoencoding": 0.5 * (own[0] + own[1]),
        "magnitude": off.square().sum(dim=2).mean(),
        "smoothness": roughness(q, smoothness),
        "consistency": _mean((carried[0] - arrived[0]).square(), seen_goals[0]) + back,
        "half": _mean((met[0] - met[1]).square(), seen_half[0] * seen_half[1]),
        "departure": _departure(nets, images, transported, torch.cat(decoded)),
        "source": _strength(windows),
    }


def _paths(
    windows: Windows, transport: Transport
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Where parcels in the middle are at both ends, and those at either end at the other one."""
    trace, q = transport.trace, windows.velocity
    s0, s1 = windows.interval
    middle = 0.5 * (s0 + s1)
    halves = [trace(q, middle, end) for end in (s0, s1)]
    if q.shape[1] > 1:
        return halves, [trace(q, s1, s0), trace(q, s0, s1)]
    # the other half of a steady path is the same again
    pairs = zip((s0, s1), halves, strict=True)
    return halves, [trace(q, middle, end, start=half) for end, half in pairs]


def _grown(
    windows: Windows,
    grown: Callable[..., Tensor],
    values: Sequence[Tensor],
    at: tuple[float, float],
    since: tuple[float, float],
) -> tuple[Tensor, ...]:
    """Carried states with what the source has added."""
    return tuple(
        grown(v, windows.source, windows.velocity, t, t0)
        for v, t, t0 in zip(values, at, since, strict=True)
    )


def _levelled(
    nets: LatentNets,
    interval: tuple[float, float],
    transport: Transport,
    values: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Values that come from the first and the last image, both as smooth as the smoother one."""
    kappa = nets.diffusivity
    if kappa is None:
        return tuple(values)
    ends = zip(interval, interval[::-1], strict=True)
    return tuple(
        transport.levelled(v, kappa, own, other)
        for v, (own, other) in zip(values, ends, strict=True)
    )


def _strength(windows: Windows) -> Tensor:
    """Mean square of the source and of its differences."""
    if windows.source is None:
        return windows.velocity.new_zeros(())
    s = windows.source
    return s.square().mean() + s.diff(dim=-1).square().mean() + s.diff(dim=-2).square().mean()


def _carried(
    state: Tensor,
    mask: Tensor,
    positions: tuple[Tensor, Tensor],
    *,
    sample: Callable[..., Tensor],
    gaps: bool,
    kernel: str,
) -> tuple[Tensor, Tensor]:
    """Latent state at positions, and (b, 1, ny, nx) whether it is known there."""
    y, x = positions
    ny, nx = state.shape[-2:]
    inside = (y >= 0) & (y <= ny - 1) & (x >= 0) & (x <= nx - 1)
    known = inside[:, None].to(state.dtype)
    if gaps:
        known = known * (sample(mask, y.detach(), x.detach(), kernel="linear") > 0.99)
    return sample(state, y, x, kernel=kernel), known


def _departure(nets: LatentNets, images: Tensor, states: Tensor, decoded: Tensor) -> Tensor:
    """Mean square of what residual networks add; the first states are those of the images."""
    if not nets.options["residual"]:
        return states.new_zeros(())
    count, channels = images.shape[:2]
    added = states[:count] - F.pad(images, (0, 0, 0, 0, 0, states.shape[1] - channels))
    return added.square().mean() + (decoded - states[:, :channels]).square().mean()


def _penalty(error: Tensor, robust: float | None) -> Tensor:
    """Square, or twice `robust` times the size where that is larger (Charbonnier)."""
    if robust is None:
        return error.square()
    return 2 * robust * ((error.square() + robust**2).sqrt() - robust)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the cells of a mask (b, 1, ny, nx) and all channels; 0 without any."""
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp(min=1.0)


def roughness(velocity: Tensor, kind: str) -> Tensor:
    """How much a velocity varies.

    Parameters
    ----------
    velocity : Tensor (..., 2, ny, nx)
        In cells.
    kind : str
        One of :data:`SMOOTHNESS`.

    Returns
    -------
    Tensor ()
        Mean over cells, summed over components and directions.
    """
    along_y, along_x = velocity.diff(dim=-2), velocity.diff(dim=-1)
    if kind == "gradient":
        return along_y.square().sum(dim=-3).mean() + along_x.square().sum(dim=-3).mean()
    if kind == "tv":
        inner = along_y[..., :-1].square() + along_x[..., :-1, :].square()
    else:
        inner = (
            along_y.diff(dim=-2)[..., 1:-1].square()
            + along_x.diff(dim=-1)[..., 1:-1, :].square()
            + 2 * along_y.diff(dim=-1)[..., 1:, 1:].square()
        )
    soft = _SOFT[kind]
    return ((inner.sum(dim=-3) + soft**2).sqrt() - soft).mean()

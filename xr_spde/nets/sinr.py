r"""Spherical implicit neural representation (SINR): fields from a code, at any points.

A multiplicative filter network. With filters ``g_i(p) = U_i s_i(p) + u_i`` of functions of position
``s_i`` (`xr_spde.nets.filter_banks`), variable k and layers i = 0 ... L - 1,

.. math::

    \eta_0 = g_0, \quad
    \eta_{i+1,k} = (A_i \eta_{i,k} + a_i + M_{i,k} z_k + b_{i,k}) \odot g_{i+1}, \quad
    x_k(p) = \sum_i w_i \cdot \eta_{i,k}(p) + c_i .

The filters do not depend on the code, so x is *affine* in z: with the backward sweep
``v_L = w_L``, ``r_i = v_{i+1} * g_{i+1}``, ``v_i = w_i + A_i' r_i``, which knows neither code nor
variable,

.. math::

    x_k(p) = \sum_i c_i + v_0 \cdot g_0 + \sum_i r_i \cdot (a_i + b_{i,k} + M_{i,k} z_k) .

One sweep per point set then serves every snapshot: some hundred times less work than the recurrence
for each. ``Phi_k(p) = sum_i M_{i,k}' r_i(p)`` are the modes of variable k, its Jacobian.

``modulation="product"`` is ours: the code multiplies the filters too,
``g_{i+1} * (1 + N_{i,k} z_k)``, and x is a polynomial of degree L + 1 in z.

References
----------
Li, Dong and Zhang (2024), J. Comput. Phys., arXiv 2309.09574; Fathony et al. (2021), ICLR
(multiplicative filter networks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.blocks import check_sizes
from xr_spde.nets.filter_banks import bank_size, evaluate_bank

__all__ = ["MODULATIONS", "Sinr", "SinrSettings"]

MODULATIONS = ("shift", "product")


@dataclass(frozen=True)
class SinrSettings:
    """What a network is built from; anything but `variables` has the value of the source.

    Attributes
    ----------
    variables : int
        Fields that a snapshot has.
    code : int
        Entries of the code that belong to one variable alone; 0 only with `common`.
    common : int
        Entries that all variables read beside their own, which keeps the code of many variables
        or levels short. The source has none.
    depth : int
        Layers L after the first.
    order : int
        Resolution of the filter bank, D for the sphere.
    width : int
        Hidden features.
    skip : bool
        Read out every layer; otherwise the last alone.
    modulation : str
        "shift", or "product" as in the module.
    shared : bool
        One map M_i of the code for all variables, as in the first release of the source.
    bank : str
        See `xr_spde.nets.filter_banks`.
    levels : int
        Degree of the polynomials in a third, vertical coordinate; 0 for none.
    periodic : tuple of two bool
        Axes of a plane that close upon themselves.
    """

    variables: int = 1
    code: int = 200
    common: int = 0
    depth: int = 8
    order: int = 8
    width: int = 128
    skip: bool = True
    modulation: str = "shift"
    shared: bool = False
    bank: str = "spherical"
    levels: int = 0
    periodic: tuple[bool, bool] = (False, False)

    def __post_init__(self) -> None:
        check_sizes(variables=self.variables, depth=self.depth, order=self.order, width=self.width)
        for name in ("code", "common", "levels"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise ParameterError(f"{name}={size!r}: give a whole number of at least 0")
        if self.code + self.common == 0:
            raise ParameterError("code=0 and common=0: a snapshot needs a code of at least 1")
        if self.modulation not in MODULATIONS:
            raise unknown("modulation", self.modulation, MODULATIONS)
        # a list when it comes from JSON
        object.__setattr__(self, "periodic", tuple(bool(axis) for axis in self.periodic))
        if len(self.periodic) != 2:
            raise ParameterError(f"periodic={self.periodic}: give two, for x and for y")
        bank_size(self.bank, self.order, self.levels, self.periodic)

    @property
    def n(self) -> int:
        """Size of the whole code: one part per variable, then the common one."""
        return self.variables * self.code + self.common


class Sinr(nn.Module):
    """The network.

    Parameters
    ----------
    settings : SinrSettings
        See there.

    Attributes
    ----------
    n : int
        Size of the code.
    reads : int
        Entries of it that one variable reads, ``code + common``.
    affine : bool
        Whether fields are affine in the code.
    """

    def __init__(self, settings: SinrSettings) -> None:
        super().__init__()
        self.settings = settings
        self.n, self.reads = settings.n, settings.code + settings.common
        self.affine = settings.modulation == "shift"
        depth, width = settings.depth, settings.width
        q = bank_size(settings.bank, settings.order, settings.levels, settings.periodic)
        maps = 1 if settings.shared else settings.variables

        def uniform(*shape: int, fan: int) -> nn.Parameter:
            # what torch.nn.Linear starts with, weight and bias
            return nn.Parameter((2.0 * torch.rand(shape) - 1.0) / math.sqrt(fan))

        self.filter_weight = uniform(depth + 1, width, q, fan=q)
        self.filter_bias = uniform(depth + 1, width, fan=q)
        self.trunk_weight = uniform(depth, width, width, fan=width)
        self.trunk_bias = uniform(depth, width, fan=width)
        self.shift_weight = uniform(depth, maps, width, self.reads, fan=self.reads)
        self.shift_bias = uniform(depth, maps, width, fan=self.reads)
        read = depth + 1 if settings.skip else 1
        self.read_weight = uniform(read, width, fan=width)
        self.read_bias = uniform(read, fan=width)
        if not self.affine:  # from zero: it starts as the source
            shape = (depth, maps, width, self.reads)
            self.gain_weight = nn.Parameter(torch.zeros(shape))

    def columns(self, variable: int) -> NDArray[np.int64]:
        """Entries of the code that a variable reads, in the order of its modes.

        Parameters
        ----------
        variable : int
            From 0.

        Returns
        -------
        ndarray (reads,) of int
        """
        own, every = self.settings.code, self.settings.variables * self.settings.code
        parts = (np.arange(variable * own, (variable + 1) * own), np.arange(every, self.n))
        return np.concatenate(parts)

    def functions(self, points: ArrayLike) -> Tensor:
        """Evaluate the filter bank: once per point set, to be kept.

        Parameters
        ----------
        points : array_like (P, 2), or (P, 3) with levels
            Longitude and latitude in radians; for a plane x and y within [-1, 1].

        Returns
        -------
        Tensor (depth + 1, P, q)
            Computed in float64, then of the type of the weights.

        Raises
        ------
        ParameterError
            For points that the bank cannot take.
        """
        s = self.settings
        values = evaluate_bank(s.bank, points, s.depth + 1, s.order, s.levels, s.periodic)
        own = values if values.strides[0] else values[:1]  # the same in all layers: kept once
        tensor = torch.from_numpy(np.array(own)).to(self.filter_weight)
        return tensor.expand(s.depth + 1, -1, -1)

    def forward(self, codes: Tensor, functions: Tensor) -> Tensor:
        """Decode.

        Parameters
        ----------
        codes : Tensor (B, n)
            One row per snapshot.
        functions : Tensor (depth + 1, P, q)
            Of `functions`.

        Returns
        -------
        Tensor (B, P, variables)

        Raises
        ------
        ParameterError
            For codes of another size.
        """
        parts = self.split(codes)
        if not self.affine:
            return self._recurrence(parts, self.filters(functions))[0]
        batch, variables, _ = parts.shape
        rows, constant = self.sweep(functions)
        features, maps = rows.shape[1], self.shift_weight.shape[1]
        many = batch * variables * (features - self.reads) > features * self.reads * maps
        if many:  # cheaper through the modes
            offset, modes = self._assemble(rows, constant)
            return torch.einsum("kpw,bkw->bpk", modes, parts) + offset
        shift = self._shift(parts).permute(2, 3, 1, 0).reshape(features, -1)
        values = rows @ shift + constant[:, None]
        return values.reshape(-1, variables, batch).permute(2, 0, 1)

    def modes(self, functions: Tensor) -> tuple[Tensor, Tensor]:
        """Give the affine map of an affine network: ``x_k = offset_k + modes_k z[columns(k)]``.

        Parameters
        ----------
        functions : Tensor (depth + 1, P, q)
            Of `functions`.

        Returns
        -------
        offset : Tensor (P, variables)
        modes : Tensor (variables, P, reads)

        Raises
        ------
        ParameterError
            For a network that is not affine: see `jacobian`.
        """
        if not self.affine:
            raise ParameterError(
                'modulation="product" is not affine in the code and has no modes; take jacobian'
            )
        return self._assemble(*self.sweep(functions))

    def jacobian(self, code: Tensor, functions: Tensor) -> tuple[Tensor, Tensor]:
        """Decode one code with the derivatives by it, in closed form.

        Parameters
        ----------
        code : Tensor (n,)
            Where to differentiate.
        functions : Tensor (depth + 1, P, q)
            Of `functions`.

        Returns
        -------
        values : Tensor (P, variables)
        blocks : Tensor (variables, P, reads)
            Derivatives of variable k by the entries ``columns(k)``; by others they are zero.

        Raises
        ------
        ParameterError
            For a code of another size.
        """
        parts = self.split(code[None])
        if self.affine:
            offset, modes = self.modes(functions)
            return torch.einsum("kpw,kw->pk", modes, parts[0]) + offset, modes
        filters, weight = self.filters(functions), self._read()
        values, inner, gain = self._recurrence(parts, filters)
        back = weight[-1].expand_as(inner[0][0])
        blocks = code.new_zeros(())
        for i in range(self.settings.depth - 1, -1, -1):
            by_gain = back * filters[i + 1]
            by_shift = by_gain * gain[i][0, :, None]
            blocks = blocks + by_shift @ self.shift_weight[i]
            blocks = blocks + (by_gain * inner[i][0]) @ self.gain_weight[i]
            back = weight[i] + by_shift @ self.trunk_weight[i]
        return values[0], blocks

    def split(self, codes: Tensor) -> Tensor:
        """Hand each variable the entries of the code that it reads.

        Parameters
        ----------
        codes : Tensor (B, n)
            See `SinrSettings`.

        Returns
        -------
        Tensor (B, variables, reads)

        Raises
        ------
        ParameterError
            For another size.
        """
        if codes.ndim != 2 or codes.shape[1] != self.n:
            raise ParameterError(f"codes of shape {tuple(codes.shape)}: give (snapshots, {self.n})")
        s = self.settings
        own = codes[:, : s.variables * s.code].reshape(len(codes), s.variables, s.code)
        if not s.common:
            return own
        rest = codes[:, None, s.variables * s.code :].expand(-1, s.variables, -1)
        return torch.cat([own, rest], dim=2)

    def filters(self, functions: Tensor) -> Tensor:
        """Combine the functions of position linearly.

        Parameters
        ----------
        functions : Tensor (depth + 1, P, q)
            Of `functions`.

        Returns
        -------
        Tensor (depth + 1, P, width)
        """
        return functions @ self.filter_weight.mT + self.filter_bias[:, None]

    def _read(self) -> Tensor:
        """Read-outs of all layers, zero where a layer has none."""
        if self.settings.skip:
            return self.read_weight
        none = self.read_weight.new_zeros(self.settings.depth, self.settings.width)
        return torch.cat([none, self.read_weight])

    def _shift(self, parts: Tensor) -> Tensor:
        """Terms added before the products: ``(batch, variables, depth, width)``."""
        bias = self.trunk_bias[:, None] + self.shift_bias
        weight = self.shift_weight.expand(-1, parts.shape[1], -1, -1)
        return torch.einsum("ikhw,bkw->bkih", weight, parts) + bias.transpose(0, 1)

    def sweep(self, functions: Tensor) -> tuple[Tensor, Tensor]:
        """Give the rows r of the affine form, which no code changes.

        Parameters
        ----------
        functions : Tensor (depth + 1, P, q)
            Of `functions`.

        Returns
        -------
        rows : Tensor (P, depth * width)
        constant : Tensor (P,)
        """
        filters = self.filters(functions)
        weight = self._read()
        rows: list[Tensor] = []
        back = weight[-1].expand_as(filters[0])
        for i in range(self.settings.depth - 1, -1, -1):
            row = back * filters[i + 1]
            back = torch.addmm(weight[i], row, self.trunk_weight[i])
            rows.append(row)
        constant = self.read_bias.sum() + (back * filters[0]).sum(1)
        return torch.cat(rows[::-1], dim=1), constant

    def _assemble(self, rows: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
        s = self.settings
        bias = (self.trunk_bias[:, None] + self.shift_bias).transpose(0, 1).flatten(1)
        offset = constant[:, None] + rows @ bias.T
        weight = self.shift_weight.transpose(0, 1).flatten(1, 2)
        modes = rows @ weight
        return offset.expand(-1, s.variables), modes.expand(s.variables, -1, -1)

    def _recurrence(
        self, parts: Tensor, filters: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Fields layer by layer, with what stands before each product and the gains."""
        s, weight = self.settings, self._read()
        shift = self._shift(parts)
        gains = torch.einsum(
            "ikhw,bkw->bkih", self.gain_weight.expand(-1, s.variables, -1, -1), parts
        )
        hidden = filters[0].expand(len(parts), s.variables, -1, -1)
        values = self.read_bias.sum() + hidden @ weight[0]
        inner, gain = [], []
        for i in range(s.depth):
            gain.append(1.0 + gains[:, :, i])
            before = hidden if i else filters[0]  # the first product is the same for all
            inner.append(before @ self.trunk_weight[i].mT + shift[:, :, i, None])
            hidden = inner[i] * (filters[i + 1] * gain[i][:, :, None])
            values = values + hidden @ weight[i + 1]
        return values.mT, inner, gain

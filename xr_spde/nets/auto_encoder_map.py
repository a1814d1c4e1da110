r"""Auto-encoders of gridded fields as state maps.

A complete field on the grid of the training goes through the encoder. Any other (with gaps, or at
other points) gets the code that makes small

.. math::

    \tfrac12 \sum_i w_i (d_i - H D(z)_i)^2 / (r_i + \rho)
    + \tfrac12 \sum_k (z_k - m_k)^2 / s_k^2,

with error variances r of the values, the variance :math:`\rho` that decoding misses, interpolation
H from the grid, and mean and spread of the codes of the training. L-BFGS from the mean.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xr_spde._core.errors import ParameterError
from xr_spde._core.point_rows import check_points
from xr_spde._core.warn import warn
from xr_spde.nets.auto_encoders import FieldAutoEncoder, build_auto_encoder
from xr_spde.nets.grid_order import GridOrder, Neighbours
from xr_spde.nets.inference import single_thread

__all__ = ["AeflowMap", "AutoEncoderMap"]

Array = NDArray[Any]
Float = NDArray[np.float64]

_BATCH = 32
_ITERATIONS, _HISTORY = 200, 20
_LEAST = 1e-6  # error variance that is assumed at least, in normalised units


class AutoEncoderMap:
    """A trained auto-encoder; satisfies ``StateMap``.

    Parameters
    ----------
    net : FieldAutoEncoder
        Trained.
    points : ndarray (P, 2)
        The grid of the training, in any order.
    weights : ndarray (P, c)
        With sum one; zero where values are not used.
    mean, spread : ndarray (n,)
        Of the codes of the training.
    residual : ndarray (c,)
        Variance that decoding misses.
    sphere : bool, default True
        Whether `points` are longitude and latitude.

    Attributes
    ----------
    n, variables : int
        Size of a code, and number of variables.
    """

    name: ClassVar[str] = "cae"
    affine = False

    def __init__(
        self,
        net: FieldAutoEncoder,
        points: Array,
        weights: Array,
        mean: Array,
        spread: Array,
        residual: Array,
        *,
        sphere: bool = True,
    ) -> None:
        self.net, self.sphere = net.eval().requires_grad_(False), sphere
        self.points = check_points(points, sphere=sphere)
        self.grid = GridOrder(self.points, sphere=sphere)
        self.variables, self.n = net.settings.variables, net.settings.code
        self.weights, self.mean, self.spread, self.residual = (
            np.asarray(a, dtype=np.float64) for a in (weights, mean, spread, residual)
        )
        shapes = self.weights.shape, self.mean.shape, self.spread.shape, self.residual.shape
        wanted = (len(self.points), self.variables), (self.n,), (self.n,), (self.variables,)
        if shapes != wanted:
            raise ParameterError(
                f"weights, mean, spread and residual have shapes {shapes}; expected {wanted}"
            )
        self._neighbours = Neighbours(self.points, self.weights > 0.0, sphere=sphere)

    def _values(self, codes: Tensor, points: Array | None) -> Tensor:
        """Values (B, M, c) of codes (B, n), differentiable."""
        values = self.grid.values(self.net.decode(codes))
        if points is None:
            unused = torch.from_numpy(self.weights <= 0.0)
            return values.masked_fill(unused, torch.nan) if unused.any() else values
        return self._neighbours.gather(values, points)

    def encode(
        self,
        values: Array,
        points: Array | None = None,
        weights: Array | None = None,
        *,
        start: Array | None = None,
        prior: bool = True,
        noise: ArrayLike | None = None,
    ) -> Array:
        """Find the codes of fields.

        Parameters
        ----------
        values : ndarray (B, P, c)
            NaN is missing. Complete fields on the grid of the training go through the encoder.
        points : ndarray (P, 2), optional
            By default those of the training.
        weights : ndarray (P,) or (P, c), optional
            Of the squared misfits, up to a factor. By default those of the training at its own
            points, equal ones elsewhere.
        start : ndarray (B, n), optional
            First guess of the codes, from which the misfit is minimised even of complete fields.
        prior : bool, default True
            Whether codes are likely to be those of the training.
        noise : float, array (c,) or (P, c), optional
            Error variance of the values; none by default, beside what decoding misses.

        Returns
        -------
        ndarray (B, n)
            Of the dtype of `values`.

        Raises
        ------
        ParameterError
            For shapes that do not fit.
        """
        given, count = np.asarray(values), len(self.points if points is None else points)
        if given.ndim != 3 or given.shape[1:] != (count, self.variables):
            raise ParameterError(
                f"values have shape {given.shape}; expected (B, {count}, {self.variables})"
            )
        if start is not None and np.shape(start) != (len(given), self.n):
            raise ParameterError(
                f"start has shape {np.shape(start)}; expected ({len(given)}, {self.n})"
            )
        precision = self._precision(count, weights, noise, own=points is None)
        codes = np.tile(self.mean, (len(given), 1)) if start is None else np.array(start, float)
        seen = np.isfinite(given) & (precision > 0.0)
        whole = np.zeros(len(given), dtype=bool)
        if points is None and start is None:
            used = self.weights > 0.0
            whole = (np.isfinite(given) | ~used).all(axis=(1, 2))
            codes[whole] = self._encoded(np.where(used, given[whole], 0.0))
        with single_thread():
            for k in np.flatnonzero(~whole):
                if seen[k].any():
                    codes[k] = self._descend(given[k], seen[k] * precision, points, codes[k], prior)
        return codes.astype(np.result_type(given.dtype, np.float32))

    @torch.no_grad()
    def _encoded(self, values: Array) -> Array:
        parts = self.grid.images(values).split(_BATCH)
        with single_thread():
            return np.concatenate([self.net.encode(p).numpy() for p in parts] or
                                  [np.zeros((0, self.n), np.float32)])  # fmt: skip

    def _precision(self, count: int, weights: Any, noise: Any, *, own: bool) -> Float:
        """Inverse error variances (P, c)."""
        shape = (count, self.variables)
        w = self.weights if weights is None and own else weights
        w = np.ones(shape) if w is None else np.asarray(w, dtype=np.float64)
        errors = np.zeros(shape) if noise is None else np.asarray(noise, dtype=np.float64)
        fits = w.shape in (shape, shape[:1]) and errors.shape in ((), shape, shape[1:])
        if not fits or not (w >= 0.0).all() or not (errors >= 0.0).all():
            raise ParameterError(
                f"weights have shape {w.shape} and noise {errors.shape}; expected numbers >= 0 of "
                f"shape ({count},) or {shape}, and one, ({self.variables},) or {shape}"
            )
        w = np.broadcast_to(w[:, None] if w.ndim == 1 else w, shape)
        counted = w[w > 0.0]
        scale = counted.mean() if counted.size else 1.0
        return np.asarray(w / scale / np.maximum(errors + self.residual, _LEAST))

    def _descend(
        self, values: Array, precision: Float, points: Array | None, start: Array, prior: bool
    ) -> Array:
        """Minimise the cost of one field, in units of the spread of the codes."""
        weight = torch.from_numpy(precision).float()
        target = torch.from_numpy(np.where(precision > 0.0, values, 0.0)).float()
        mean, spread = torch.from_numpy(self.mean).float(), torch.from_numpy(self.spread).float()
        steps = ((torch.from_numpy(start).float() - mean) / spread).requires_grad_()
        search = torch.optim.LBFGS(
            [steps], max_iter=_ITERATIONS, history_size=_HISTORY, tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def cost() -> Tensor:
            search.zero_grad()
            found = self._values((mean + spread * steps)[None], points)[0]
            kept = (weight > 0.0) & found.detach().isfinite()
            misfit = torch.where(kept, weight * (torch.where(kept, found, 0.0) - target) ** 2, 0.0)
            total = 0.5 * misfit.sum() + (0.5 * (steps**2).sum() if prior else 0.0)
            total.backward()
            return total

        with torch.enable_grad():
            search.step(cost)
        found = (mean + spread * steps.detach()).double().numpy()
        if not np.isfinite(found).all():
            warn("the search for a code left finite numbers; its first guess is returned")
            return start
        return np.asarray(found)

    @torch.no_grad()
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
            NaN outside the grid and where values are not used; of the dtype of `codes`.

        Raises
        ------
        ParameterError
            For codes of another size.
        """
        given = np.asarray(codes)
        if given.ndim != 2 or given.shape[1] != self.n:
            raise ParameterError(f"codes have shape {given.shape}; expected (B, {self.n})")
        parts = torch.from_numpy(given.astype(np.float32)).split(_BATCH)
        with single_thread():
            found = torch.cat([self._values(part, points) for part in parts])
        return np.asarray(found.numpy().astype(given.dtype))

    def jvp(self, codes: Array, tangents: Array, points: Array | None = None) -> Array:
        """Differentiate `decode` along directions, by forward mode.

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
        given, along = np.asarray(codes), np.asarray(tangents)
        count = along.shape[-1]
        at = torch.from_numpy(np.repeat(given, count, axis=0).astype(np.float32))
        turned = np.ascontiguousarray(along.transpose(0, 2, 1)).reshape(-1, self.n)
        directions = torch.from_numpy(turned.astype(np.float32))
        with single_thread(), torch.no_grad():
            moved = torch.cat([
                torch.func.jvp(lambda z: self._values(z, points), (a,), (d,))[1]
                for a, d in zip(at.split(_BATCH), directions.split(_BATCH), strict=True)
            ])  # fmt: skip
        each = moved.numpy().astype(given.dtype)
        return np.asarray(np.moveaxis(each.reshape(len(given), count, *each.shape[1:]), 1, -1))

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
        """
        eye = np.eye(self.n, dtype=np.asarray(code).dtype)[None]
        return np.asarray(self.jvp(np.asarray(code)[None], eye, points)[0].reshape(-1, self.n))

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Give what the map is saved as.

        Returns
        -------
        tuple of dict
            Arrays by name, and options that JSON can hold.
        """
        names = ("points", "weights", "mean", "spread", "residual")
        arrays = {name: getattr(self, name) for name in names}
        arrays |= {f"net.{k}": v.numpy() for k, v in self.net.state_dict().items()}
        return arrays, {"sphere": self.sphere, "network": self.net.options}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], options: dict[str, Any]) -> AutoEncoderMap:
        """Make the map of what `state` returned.

        Parameters
        ----------
        arrays : dict of str to ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        AutoEncoderMap
            Or an AeflowMap, as the options say.
        """
        net = build_auto_encoder(options["network"])
        own = {k: v for k, v in arrays.items() if not k.startswith("net.")}
        found = {k[4:]: torch.from_numpy(np.array(v)) for k, v in arrays.items() if k not in own}
        net.load_state_dict(found)
        kind = AeflowMap if net.settings.kind == "aeflow" else AutoEncoderMap
        return kind(net, **own, sphere=bool(options["sphere"]))


class AeflowMap(AutoEncoderMap):
    """The same over an AEflow."""

    name: ClassVar[str] = "aeflow"

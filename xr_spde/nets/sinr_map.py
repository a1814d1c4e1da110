"""The SINR decoder as a state map: numpy in and out, encode, decode, derivatives, save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xr_spde._core.errors import ParameterError, SchemaError
from xr_spde._core.memory import check_memory
from xr_spde.nets.inference import single_thread
from xr_spde.nets.latent_encoding import CodePrior, encode
from xr_spde.nets.sinr import Sinr, SinrSettings
from xr_spde.nets.sinr_sites import Site, Sites

__all__ = ["SinrMap"]

Array = NDArray[Any]

_WORK = 128 * 2**20  # bytes of hidden features at a time
_RESIDUAL = 0.05**2  # variance that the decoder misses, where nothing is known
_LEAST = 1e-6  # variance of values without errors, of normalised ones


class SinrMap:
    """Codes of fields by a trained `Sinr`; satisfies ``StateMap``.

    Values come straight from the network at any points. The filter bank, and the modes where
    fields are affine in the code, are computed once per point set.

    Parameters
    ----------
    net : Sinr
        Trained.
    points : array_like (P, 2), or (P, 3) with levels
        Of the training, as the filter bank takes them.
    weights : array_like (P,) or (P, c), optional
        Of the training; zero where a value was not used. Equal by default.
    mean : array_like (n,), optional
        Of the codes of the training; 0 by default.
    spread : array_like (n,), optional
        Their standard deviation; that of `covariance`, or 1, by default.
    covariance : array_like (n, n), optional
        Covariance of the codes, which lets one variable inform another in `encode`; the squares
        of `spread` by default.
    residual : float or array_like (c,), optional
        Variance that decoding misses, of each variable.

    Attributes
    ----------
    n, variables : int
        Size of a code, and number of variables.
    affine : bool
        Whether `decode` is affine in the code.

    Raises
    ------
    ParameterError
        For arrays that do not fit the network.
    """

    name: ClassVar[str] = "sinr"

    def __init__(
        self,
        net: Sinr,
        points: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        mean: ArrayLike | None = None,
        spread: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        residual: ArrayLike = _RESIDUAL,
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.n, self.variables, self.affine = net.n, net.settings.variables, net.affine
        self.points = np.array(points, dtype=np.float64)
        count, c, n = len(self.points), self.variables, self.n
        self.weights = _fitting(
            "weights", np.ones(count) if weights is None else weights, {(count,), (count, c)}
        )
        self.mean = _fitting("mean", np.zeros(n) if mean is None else mean, {(n,)})
        self.covariance = None
        if covariance is not None:
            self.covariance = _fitting("covariance", covariance, {(n, n)})
            spread = np.sqrt(np.diag(self.covariance)) if spread is None else spread
        self.spread = _fitting("spread", np.ones(n) if spread is None else spread, {(n,)})
        self.residual = np.broadcast_to(_fitting("residual", residual, {(), (c,)}), (c,)).copy()
        if min(self.weights.min(), self.spread.min(), self.residual.min()) < 0.0:
            raise ParameterError("weights, spread and residual must not be negative")
        self._sites = Sites(net)

    def encode(
        self,
        values: Array,
        points: Array | None = None,
        weights: Array | None = None,
        *,
        noise: ArrayLike | None = None,
        start: Array | None = None,
        prior: bool = True,
    ) -> Array:
        """Find the codes of fields: at once if affine, else by Levenberg-Marquardt.

        Parameters
        ----------
        values : ndarray (B, P, c)
            Normalised; NaN is missing.
        points : ndarray (P, 2), optional
            By default those of the training.
        weights : ndarray (P,) or (P, c), optional
            Of the squared misfits. By default those of the training at its own points, equal ones
            elsewhere.
        noise : float or ndarray (c,) or (P, c), optional
            Variance of the errors of the values, beside what decoding misses; none by default.
        start : ndarray (B, n), optional
            First guess of the codes; by default the mean.
        prior : bool, default True
            Whether the Gaussian prior of the codes is part of the cost.

        Returns
        -------
        ndarray (B, n)
            Of the dtype of `values`; the mean where a field has no value.

        Raises
        ------
        ParameterError
            For shapes that do not fit, or a negative `noise`.
        """
        given = np.asarray(values)
        at = self._points(points)
        if given.ndim != 3 or given.shape[1:] != (len(at), self.variables):
            raise ParameterError(
                f"values of shape {given.shape}: give (fields, {len(at)}, {self.variables})"
            )
        if weights is None and points is None:
            weights = self.weights
        shapes = {(), (self.variables,), given.shape[1:]}
        variance = _fitting("noise", 0.0 if noise is None else noise, shapes)
        if variance.min() < 0.0:
            raise ParameterError("noise: the variance of errors must not be negative")
        error = np.sqrt(np.maximum(variance + self.residual, _LEAST))
        belief = None
        if prior:
            # an entry that the training never moved keeps a variance all the same
            spread = (
                np.maximum(self.spread**2, _LEAST) if self.covariance is None else self.covariance
            )
            belief = CodePrior(torch.from_numpy(self.mean), torch.from_numpy(spread))
        with torch.no_grad(), single_thread():
            site = self._sites.whole(at)
            found = encode(
                self.net,
                site.functions,
                self._tensor(given),
                None if weights is None else self._tensor(weights),
                prior=belief,
                noise=self._tensor(error),
                start=None if start is None else self._tensor(start),
                modes=site.affine,
            )
        return np.asarray(found.codes.cpu().numpy(), dtype=_kind(given))

    def decode(self, codes: Array, points: Array | None = None) -> Array:
        """Evaluate fields.

        Parameters
        ----------
        codes : ndarray (B, n)
            Codes.
        points : ndarray (P, 2), optional
            Any; by default those of the training.

        Returns
        -------
        ndarray (B, P, c)
            Of the dtype of `codes`.

        Raises
        ------
        ParameterError
            For codes of another size, or points that the filter bank cannot take.
        """
        given, at = self._codes(codes), self._points(points)
        fields = np.empty((len(given), len(at), self.variables), _kind(codes))
        row = 8 * self.variables * self.net.settings.width
        with torch.no_grad(), single_thread():
            for part, site in self._sites.blocks(at):
                if site.affine is not None:
                    offset, modes = site.affine
                    moved = torch.einsum("kpw,bkw->bpk", modes, self.net.split(given))
                    fields[:, part] = (moved + offset).cpu().numpy()
                    continue
                step = max(1, _WORK // (row * site.functions.shape[1]))
                for low in range(0, len(given), step):
                    some = slice(low, low + step)
                    fields[some, part] = self.net(given[some], site.functions).cpu().numpy()
        return fields

    def jvp(self, codes: Array, tangents: Array, points: Array | None = None) -> Array:
        """Differentiate `decode` along directions.

        Parameters
        ----------
        codes : ndarray (B, n)
            Where.
        tangents : ndarray (B, n, K)
            Directions.
        points : ndarray (P, 2), optional
            Any; by default those of the training.

        Returns
        -------
        ndarray (B, P, c, K)

        Raises
        ------
        ParameterError
            For shapes that do not fit.
        """
        given, at = self._codes(codes), self._points(points)
        ways = np.asarray(tangents)
        if ways.ndim != 3 or ways.shape[:2] != tuple(given.shape):
            raise ParameterError(
                f"tangents of shape {ways.shape}: give {tuple(given.shape)} + (K,)"
            )
        moved = np.empty((len(given), len(at), self.variables, ways.shape[2]), _kind(codes))
        directions = self._tensor(ways)
        with torch.no_grad(), single_thread():
            for part, site in self._sites.blocks(at):
                for b, code in enumerate(given):
                    blocks = self._blocks(code, site)
                    for k in range(self.variables):
                        along = blocks[k] @ directions[b, self.net.columns(k)]
                        moved[b, part, k] = along.cpu().numpy()
        return moved

    def jacobian(self, code: Array, points: Array | None = None) -> Array:
        """Differentiate `decode` at one code, in closed form.

        Parameters
        ----------
        code : ndarray (n,)
            Where.
        points : ndarray (P, 2), optional
            Any; by default those of the training.

        Returns
        -------
        ndarray (P * c, n)
            Points slow, variables fast.

        Raises
        ------
        ParameterError
            For a code of another size.
        MemoryGuardError
            If the matrix would not fit.
        """
        given, at = self._codes(np.asarray(code)[None])[0], self._points(points)
        kind = _kind(code)
        check_memory(
            float(len(at) * self.variables * self.n * kind.itemsize),
            what=f"the Jacobian at {len(at)} points",
            remedy="Take fewer points at a time, or jvp along the directions that are needed.",
        )
        matrix = np.zeros((len(at), self.variables, self.n), kind)
        with torch.no_grad(), single_thread():
            for part, site in self._sites.blocks(at):
                for k, block in enumerate(self._blocks(given, site)):
                    matrix[part, k, self.net.columns(k)] = block.cpu().numpy()
        return matrix.reshape(-1, self.n)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Give what the map is saved as.

        Returns
        -------
        arrays : dict of ndarray
            Weights of the network ("net." and its name) and what else the map was built from.
        options : dict
            Settings of the network, as JSON can hold.
        """
        arrays: dict[str, Array] = {
            f"net.{name}": value.detach().cpu().numpy()
            for name, value in self.net.state_dict().items()
        }
        for name in ("points", "weights", "mean", "spread", "residual"):
            arrays[name] = getattr(self, name)
        if self.covariance is not None:
            arrays["covariance"] = self.covariance
        return arrays, {"settings": asdict(self.net.settings)}

    @classmethod
    def from_state(cls, arrays: Mapping[str, Array], options: Mapping[str, Any]) -> Self:
        """Make the map of what `state` returned.

        Parameters
        ----------
        arrays : dict of ndarray
            By name.
        options : dict
            As JSON gave them back.

        Returns
        -------
        SinrMap

        Raises
        ------
        SchemaError
            If something is missing, or does not fit the rest.
        """
        try:
            net = Sinr(SinrSettings(**options["settings"]))
            weights = {
                name.removeprefix("net."): torch.from_numpy(np.array(value))
                for name, value in arrays.items()
                if name.startswith("net.")
            }
            net.to(weights["read_bias"].dtype).load_state_dict(weights)
            return cls(
                net,
                arrays["points"],
                arrays["weights"],
                mean=arrays["mean"],
                spread=arrays["spread"],
                covariance=arrays.get("covariance"),
                residual=arrays["residual"],
            )
        except (KeyError, TypeError, RuntimeError, ParameterError) as error:
            raise SchemaError(f"no saved SINR map, or a damaged one: {error}") from error

    def _tensor(self, values: ArrayLike) -> Tensor:
        like = self.net.read_bias
        return torch.as_tensor(np.array(values), dtype=like.dtype, device=like.device)

    def _codes(self, codes: Array) -> Tensor:
        given = self._tensor(codes)
        if given.ndim != 2 or given.shape[1] != self.n:
            raise ParameterError(f"codes of shape {tuple(given.shape)}: give (fields, {self.n})")
        return given

    def _points(self, points: Array | None) -> Array:
        return self.points if points is None else np.asarray(points, dtype=np.float64)

    def _blocks(self, code: Tensor, site: Site) -> Tensor:
        """Give the derivatives ``(c, P, reads)``."""
        return site.affine[1] if site.affine else self.net.jacobian(code, site.functions)[1]


def _fitting(name: str, values: ArrayLike, shapes: set[tuple[int, ...]]) -> NDArray[np.float64]:
    given = np.array(values, dtype=np.float64)
    if given.shape not in shapes or not np.isfinite(given).all():
        wanted = " or ".join(str(shape) for shape in sorted(shapes, key=len))
        raise ParameterError(
            f"{name} of shape {given.shape}: give finite numbers of shape {wanted}"
        )
    return given


def _kind(values: Array) -> np.dtype[Any]:
    """Precision of a result: that of what was given, single at least."""
    return np.result_type(np.asarray(values).dtype, np.float32)

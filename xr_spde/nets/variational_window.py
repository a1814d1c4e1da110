"""What a variational solver may see: observations on the cells of a window, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from xr_spde._core.errors import ParameterError

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """Gridded observations of a batch of windows, in normalised units.

    What stands in `obs` and `variance` where nothing is observed never matters: it is replaced
    here, so that it cannot reach a result. An observation of zero is an observation.

    Parameters
    ----------
    obs : Tensor (B, T, ny, nx)
        Observed anomalies; anything, NaN too, where there is no observation.
    mask : Tensor (B, T, ny, nx) of bool
        Where there is one. Observations on land are dropped.
    variance : Tensor (B, T, ny, nx)
        Of their errors, positive where observed.
    sea : Tensor (B, ny, nx) of bool
        False on land.
    offset : Tensor (B, T, ny, nx), optional
        Mean time of the observations of a cell after its step, in steps from -1 to 1. By default
        all are of the very step.

    Raises
    ------
    ParameterError
        For shapes or kinds that do not fit, observations that are not finite, variances of them
        that are not positive, or times outside a step on either side.

    Examples
    --------
    >>> import torch
    >>> from xr_spde.nets.variational_window import Window
    >>> obs = torch.tensor([[[[0.0, float("nan")], [1.0, 2.0]]]])
    >>> mask, sea = obs.isfinite(), torch.tensor([[[True, True], [True, False]]])
    >>> Window(obs, mask, torch.full_like(obs, 0.01), sea).count
    2
    """

    obs: Tensor
    mask: Tensor
    variance: Tensor
    sea: Tensor
    offset: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the window and drop what is not observed."""
        shape = tuple(self.obs.shape)
        if len(shape) != 4 or {tuple(self.mask.shape), tuple(self.variance.shape)} != {shape}:
            raise ParameterError(
                f"obs is {shape}, mask {tuple(self.mask.shape)}, variance "
                f"{tuple(self.variance.shape)}; expected (B, T, ny, nx) each"
            )
        if tuple(self.sea.shape) != (shape[0], *shape[2:]):
            raise ParameterError(
                f"sea is {tuple(self.sea.shape)}; expected (B, ny, nx) = {(shape[0], *shape[2:])}"
            )
        if self.mask.dtype != torch.bool or self.sea.dtype != torch.bool:
            raise ParameterError(
                f"mask is {self.mask.dtype} and sea {self.sea.dtype}; expected bool"
            )
        seen = self.mask & self.sea[:, None]
        obs = torch.where(seen, self.obs, 0.0)
        variance = torch.where(seen, self.variance, 1.0)
        if not bool(obs.isfinite().all()):
            raise ParameterError("obs has values that are not finite where mask is true")
        if not bool((variance.isfinite() & (variance > 0.0)).all()):
            raise ParameterError("variance has values that are not positive where mask is true")
        if self.offset is not None:
            if tuple(self.offset.shape) != shape:
                raise ParameterError(f"offset is {tuple(self.offset.shape)}; expected {shape}")
            offset = torch.where(seen, self.offset, 0.0)
            if not bool((offset.abs() <= 1.0).all()):
                raise ParameterError("offset has times that are more than a step off, or NaN")
            object.__setattr__(self, "offset", offset)
        for name, value in (("obs", obs), ("mask", seen), ("variance", variance)):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Windows, steps, rows and columns."""
        batch, steps, rows, columns = self.obs.shape
        return batch, steps, rows, columns

    @property
    def count(self) -> int:
        """Observed cells."""
        return int(self.mask.sum())

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Window:
        """Move the window to a device, its numbers to another precision.

        Parameters
        ----------
        device : str or torch.device, optional
            Where to.
        dtype : torch.dtype, optional
            Of observations and variances.

        Returns
        -------
        Window
        """
        return Window(
            self.obs.to(device, dtype or self.obs.dtype),
            self.mask.to(device),
            self.variance.to(device, dtype or self.variance.dtype),
            self.sea.to(device),
            None if self.offset is None else self.offset.to(device, dtype or self.offset.dtype),
        )

    def coarsened(self, size: int) -> Window:
        """Put the observations of squares of cells together, by the inverse of their variances.

        Their times within a step are left out.

        Parameters
        ----------
        size : int
            Cells of a side of a square; those at the lower and right edges may be cut short.

        Returns
        -------
        Window
            Of squares, which are sea where any of their cells is.
        """
        if size == 1:
            return self
        ny, nx = self.sea.shape[-2:]
        edge = (0, -nx % size, 0, -ny % size)

        def total(values: Tensor) -> Tensor:
            return size**2 * F.avg_pool2d(F.pad(values, edge), size)

        weight = self.mask / self.variance
        whole = total(weight)
        seen = whole > 0.0
        least = torch.where(seen, whole, 1.0)
        sea = total(self.sea[:, None].to(weight.dtype))[:, 0] > 0.0
        return Window(total(weight * self.obs) / least, seen, 1.0 / least, sea)

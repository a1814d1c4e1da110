"""Which axes are periodic; kept until its last user takes it from `grid_cut`."""

from xr_spde.solvers.grid_cut import PERIODIC

__all__ = ["PERIODIC"]

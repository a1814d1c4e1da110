"""An independent, slow operator: a loop over nodes and neighbours, dense."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

WRAPS = {"plane": (False, False), "cylinder": (False, True), "torus": (True, True)}


def dense_operator(kappa2, rho, theta, boundary: str) -> np.ndarray:
    """B of canonical maps, from the table of the nine weights."""
    ny, nx = np.shape(kappa2)
    matrix = np.zeros((ny * nx, ny * nx))
    for j in range(ny):
        for i in range(nx):
            k, r, t = kappa2[j, i], rho[j, i], theta[j, i]
            turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
            (hxx, hxy), (_, hyy) = turn @ np.diag([r, 1 / r]) @ turn.T
            table = {
                (0, 0): k + 2 * hxx + 2 * hyy,
                (0, 1): -hxx, (0, -1): -hxx, (1, 0): -hyy, (-1, 0): -hyy,
                (1, 1): -hxy / 2, (-1, -1): -hxy / 2, (1, -1): hxy / 2, (-1, 1): hxy / 2,
            }  # fmt: skip
            for (dj, di), weight in table.items():
                wrap_y, wrap_x = WRAPS.get(boundary, (dj * di != 0, True))  # the rest is "paper"
                row, column = j + dj, i + di
                if (wrap_y or 0 <= row < ny) and (wrap_x or 0 <= column < nx):
                    matrix[j * nx + i, row % ny * nx + column % nx] += weight
    return matrix


@pytest.fixture(scope="session")
def dense() -> Callable[..., np.ndarray]:
    """The operator, dense: ``dense(kappa2, rho, theta, boundary)``."""
    return dense_operator


@pytest.fixture(scope="session")
def dense_covariance() -> Callable[..., np.ndarray]:
    """Covariance ``(B'B)^-1``, dense."""

    def covariance(kappa2, rho, theta, boundary: str) -> np.ndarray:
        matrix = dense_operator(kappa2, rho, theta, boundary)
        return np.linalg.inv(matrix.T @ matrix)

    return covariance


@pytest.fixture
def params() -> xr.Dataset:
    """Parameters that vary over a regional grid, with mean and std, as an estimator gives them."""
    ny, nx = 7, 9
    rng = np.random.default_rng(5)
    lat = xr.DataArray(np.linspace(40.0, 46.0, ny), dims="lat", attrs={"units": "degrees_north"})
    lon = xr.DataArray(np.linspace(5.0, 13.0, nx), dims="lon", attrs={"units": "degrees_east"})
    maps = {
        "kappa2": rng.uniform(0.2, 1.0, (ny, nx)),
        "rho": rng.uniform(1.0, 4.0, (ny, nx)),
        "theta": rng.uniform(-1.5, 1.5, (ny, nx)),
        "mean": rng.normal(280.0, 5.0, (ny, nx)),
        "std": rng.uniform(0.5, 2.0, (ny, nx)),
    }
    ds = xr.Dataset({k: (("lat", "lon"), v) for k, v in maps.items()}, {"lat": lat, "lon": lon})
    for name in ("mean", "std"):
        ds[name].attrs = {
            "units": "K",
            "long_name": f"{name} of air temperature over the replicates",
        }
    return ds

"""Mediterranean sea level from tracks, each of three missions withheld in turn.

    XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/med_tracks.py [--quick]

Along-track absolute dynamic topography of 20 days of 2014, less the mean dynamic topography (that
of the 2016 product) and the mean of the missions that are used. Two of the missions are mapped, as
means of each track over cells of 1/4 degree; the third is predicted at its own places and times:
RMSE, and coverage of the 90 % interval with the error variance of the observations added. Nothing
of the withheld mission is used: the scales of the space-time prior (length, time, standard
deviation) and the observation error are the maximum of the exact likelihood of the other two in a
box of the western basin over the first ten days. The plain interpolation has a Gaussian covariance
of 100 km and 10 days. Grid of 1/4 degree, steps of two days, land a barrier.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from _machine import answer, isolated, machine, table, write

START = np.datetime64("2014-05-15", "ns")
MISSIONS = ("SARAL/AltiKa", "CryoSat-2", "HY-2A")
STEP_DAYS = 2.0
WHOLE = (-6.0, 36.5, 30.0, 46.0)
BOX = (2.0, 10.5, 37.0, 43.5)
DRAWS = 12


@dataclass
class Tracks:
    """Anomalies in metres with their places and times in days."""

    lon: np.ndarray
    lat: np.ndarray
    day: np.ndarray
    value: np.ndarray
    mission: np.ndarray
    track: np.ndarray

    def select(self, keep: np.ndarray) -> Tracks:
        """Keep some of them."""
        return Tracks(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    def averaged(self, degrees: float = 0.25) -> Tracks:
        """Average every track over cells: neighbours along a track share their errors."""
        cells = np.stack([self.mission, self.track, *(np.floor(a / degrees)
                                                      for a in (self.lon, self.lat))])  # fmt: skip
        _, group = np.unique(cells, axis=1, return_inverse=True)
        count = np.bincount(group)
        return Tracks(*(
            np.bincount(group, weights=getattr(self, name)) / count
            for name in self.__dataclass_fields__
        ))  # fmt: skip


def load() -> tuple[Tracks, xr.DataArray]:
    """Read the tracks, less the mean dynamic topography, and the map of the latter."""
    from xr_spde.datasets import local_path

    found = xr.open_dataset(local_path("med_adt_alongtrack_20140515_20140603.nc"))
    product = xr.open_dataset(local_path("med_adt_sla_20160515.nc")).isel(time=0)
    mdt = (product.adt - product.sla).load()
    filled = mdt.interpolate_na("longitude", method="nearest", fill_value="extrapolate")
    here = {"longitude": found.longitude, "latitude": found.latitude}
    value = (found.adt - filled.interp(here)).values
    day = (found.time.values - START) / np.timedelta64(1, "D")
    labels = found.mission.values, found.track.values
    tracks = Tracks(found.longitude.values, found.latitude.values, day, value, *labels)
    return tracks.select(np.isfinite(value)), mdt


def split(tracks: Tracks, withheld: int) -> tuple[Tracks, Tracks]:
    """Separate what is mapped, averaged, from what is predicted, less the mean of the former."""
    use = tracks.select(tracks.mission != withheld).averaged()
    test = tracks.select(tracks.mission == withheld)
    mean = use.value.mean()
    use.value, test.value = use.value - mean, test.value - mean
    return use, test


class Domain:
    """A region with its mesh, and rows of observations on it."""

    def __init__(self, mdt: xr.DataArray, bounds: tuple[float, ...], days: float) -> None:
        from xr_spde.assim.windows import mesh_of
        from xr_spde.labels.grid import Grid

        west, east, south, north = bounds
        coarse = mdt.coarsen(latitude=2, longitude=2, boundary="trim").mean()
        field = coarse.sel(longitude=slice(west, east), latitude=slice(south, north))
        field["longitude"].attrs["units"] = "degrees_east"
        field["latitude"].attrs["units"] = "degrees_north"
        self.field, self.grid = field, Grid.from_object(field)
        self.land = self.grid.to_canonical(field.isnull().values)
        self.mesh = mesh_of(self.grid, land=self.land)
        self.steps = int(np.ceil(days / STEP_DAYS)) + 1

    def rows(self, tracks: Tracks) -> tuple[Any, np.ndarray]:
        """Rows in space and time, and which tracks they belong to."""
        from xr_spde.assim.observations import read_observations
        from xr_spde.assim.windows import spacetime_rows

        last = (self.steps - 1) * STEP_DAYS
        near = np.flatnonzero((tracks.day >= 0) & (tracks.day <= last))
        at = {"latitude": ("obs", tracks.lat[near]), "longitude": ("obs", tracks.lon[near])}
        points = xr.DataArray(tracks.value[near], at, "obs")
        obs = read_observations(points, self.field, obs_error=1.0, land=self.field.isnull(),
                                unusable="drop")  # fmt: skip
        kept = near[np.flatnonzero(obs.row >= 0)]
        position = tracks.day[kept] / STEP_DAYS
        return spacetime_rows(obs.canonical().matrix, position, self.steps), kept

    def prior(self, numbers: np.ndarray, alpha: int) -> Any:
        """Prior of a length in km, a time in days and a standard deviation in metres."""
        from xr_spde.fields.spacetime import SpaceTime
        from xr_spde.fields.spde import SpdeOperator
        from xr_spde.fields.spde_physical import from_physical, stationary_variance

        length, days, std = 1e3 * numbers[0], numbers[1], numbers[2]
        kappa, (dx, dy) = days ** (-1.0 / alpha), (self.mesh.dx.mean(), self.mesh.dy.mean())
        h = (kappa * length) ** 2
        unit = stationary_variance(kappa=kappa, h11=h, h22=h, dx=dx, dy=dy, dt=STEP_DAYS,
                                   alpha=alpha)  # fmt: skip
        parameters = from_physical(self.mesh.shape, alpha=alpha, longest=length, time=days,
                                   tau=std / np.sqrt(unit))  # fmt: skip
        return SpaceTime(SpdeOperator(self.mesh), parameters, steps=self.steps, dt=STEP_DAYS,
                         alpha=alpha)  # fmt: skip


def climb(goal: Callable[[np.ndarray], float], start: list[float], evaluations: int) -> np.ndarray:
    """Maximise over positive numbers, on the scale of their logarithms."""
    from scipy.optimize import minimize

    simplex = np.log(start) + 0.3 * np.vstack([np.zeros(len(start)), np.eye(len(start))])
    options = {"maxfev": evaluations, "initial_simplex": simplex, "xatol": 0.03, "fatol": 0.3}
    found = minimize(lambda x: -goal(np.exp(x)), simplex[0], method="Nelder-Mead", options=options)
    return np.exp(found.x)


def in_box(tracks: Tracks) -> Tracks:
    west, east, south, north = BOX
    inside = (tracks.lon > west) & (tracks.lon < east) & (tracks.day < 10.0)
    return tracks.select(inside & (tracks.lat > south) & (tracks.lat < north))


def places(tracks: Tracks) -> np.ndarray:
    """Time in days, y and x in km."""
    return np.column_stack(
        [tracks.day, 111.2 * tracks.lat, 111.2 * np.cos(np.radians(38.0)) * tracks.lon]
    )


def gaussian(withheld: int, evaluations: int) -> dict[str, Any]:
    """Interpolate with a Gaussian covariance."""
    from scipy.linalg import solve_triangular

    from xr_spde.assim.challenge import interval_scores
    from xr_spde.fields.gaussian import GaussianCovariance

    tracks, _ = load()
    use, test = split(tracks, withheld)
    began = time.process_time()
    length, days, std, noise = numbers = np.array([100.0, 10.0, 0.06, 0.03])
    covariance = GaussianCovariance(time=days, y=length, x=length, std=std)
    matrix = covariance.between(places(use), places(use))
    matrix[np.diag_indices_from(matrix)] += noise**2
    root = np.linalg.cholesky(matrix)
    cross = solve_triangular(root, covariance.between(places(use), places(test)), lower=True)
    found = solve_triangular(root, use.value, lower=True) @ cross
    variance = std**2 - np.sum(cross**2, axis=0)
    scores = interval_scores(found, np.sqrt(variance + noise**2), test.value)
    return scores | {"numbers": numbers.tolist(), "cpu": time.process_time() - began}


def spde(withheld: int, alpha: int, evaluations: int) -> dict[str, Any]:
    """Interpolate with the space-time prior."""
    from xr_spde.assim.challenge import interval_scores
    from xr_spde.fields.interpolation import SpaceTimePosterior

    tracks, mdt = load()
    use, test = split(tracks, withheld)
    began = time.process_time()
    box, near = Domain(mdt, BOX, 10.0), in_box(use)
    rows, kept = box.rows(near)

    def evidence(numbers: np.ndarray) -> float:
        errors = np.full(kept.size, numbers[3] ** 2)
        found = SpaceTimePosterior(box.prior(numbers, alpha), rows, errors, solver="direct")
        return found.log_likelihood(near.value[kept])[0]

    numbers = climb(evidence, [70.0, 40.0, 0.06, 0.025], evaluations)
    whole = Domain(mdt, WHOLE, 20.0)
    rows, kept = whole.rows(use)
    prior = whole.prior(numbers, alpha)
    found = SpaceTimePosterior(prior, rows, np.full(kept.size, numbers[3] ** 2), tol=1e-5)
    maps = found.mean(use.value[kept])
    deviation = found.deviation(draws=DRAWS, noise=np.random.default_rng(0))
    there, seen = whole.rows(test)
    # the deviation between nodes is taken as the mean of theirs
    spread = np.sqrt((there @ deviation.ravel()) ** 2 + numbers[3] ** 2)
    scores = interval_scores(there @ maps.ravel(), spread, test.value[seen])
    how = str(found.blocks)
    return scores | {"numbers": numbers.tolist(), "cpu": time.process_time() - began, "how": how}


def main() -> None:
    """Run, print and write the tables."""
    if answer({"gaussian": gaussian, "spde": spde}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few evaluations, nothing written")
    parser.add_argument("--evaluations", type=int, default=30)
    options = parser.parse_args()
    evaluations = 5 if options.quick else options.evaluations
    kinds = {
        "Gaussian, 100 km, 10 d": ("gaussian", {}),
        "SPDE, alpha = 4": ("spde", {"alpha": 4}),
        "SPDE, alpha = 2": ("spde", {"alpha": 2}),
    }
    rows, details = [], []
    for name, (part, arguments) in kinds.items():
        each = [
            isolated(__file__, part, withheld=k, evaluations=evaluations, **arguments)
            for k in range(1 if options.quick else 3)
        ]
        rmse, inside, skill, crps = (
            [one[key] for one in each] for key in ("rmse", "coverage_90", "spread_skill", "crps")
        )
        print(name, rmse, inside, flush=True)
        rows.append([
            name, *(f"{100 * value:.2f}" for value in rmse), f"{100 * np.mean(rmse):.2f}",
            f"{np.mean(inside):.2f}", f"{np.mean(skill):.2f}", f"{100 * np.mean(crps):.2f}",
            f"{np.mean([one['cpu'] for one in each]):.0f}",
        ])  # fmt: skip
        for k, one in enumerate(each):
            details.append([name, MISSIONS[k], *(f"{v:.3g}" for v in one["numbers"])])
    header = ["prior", *(f"RMSE {name}" for name in MISSIONS[: len(each)]), "mean (cm)",
              "coverage of 90 %", "spread / error", "CRPS, cm", "CPU s"]  # fmt: skip
    numbers = ["prior", "withheld", "length, km", "time, d", "std, m", "error, m"]
    notes = f"Errors in centimetres. {DRAWS} draws behind the deviation of the SPDE priors."
    body = f"{machine()} {notes}\n\n{table(header, rows)}\n\n{table(numbers, details)}"
    command = "XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/med_tracks.py"
    title = "Mediterranean tracks, each mission withheld in turn"
    write("med_tracks", title, command, body, keep=not options.quick)


if __name__ == "__main__":
    main()

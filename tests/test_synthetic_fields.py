"""Gaussian worlds of known parameters, masks, and tracks over synthetic seas."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde import synthetic
from xr_spde.assim import simulate_tracks
from xr_spde.errors import DTypeError, ParameterError, UnknownNameError
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.labels.grid import Grid
from xr_spde.synthetic.gaussian import THETA


def field(**options):
    defaults = {"shape": (20, 24), "steps": 4, "seed": 1, "preset": "iso"}
    return synthetic.spacetime_field(**(defaults | options))


@pytest.mark.parametrize(("alpha", "variance", "lag"), [(2, 0.129938, 0.55867),
                                                        (4, 0.333172, 0.89111)])  # fmt: skip
def test_the_round_world_has_the_moments_of_the_infinite_lattice(alpha, variance, lag):
    drawn = field(alpha=alpha, boundary="periodic", shape=(40, 40), steps=4, runs=40).field.values
    # 40 runs of 1600 cells, correlated over 3 cells and a few steps: standard error 2 %
    assert (drawn**2).mean() == pytest.approx(variance, rel=0.06)
    assert (drawn[:, 1:] * drawn[:, :-1]).mean() / (drawn**2).mean() == pytest.approx(lag, abs=0.02)
    # stationary from the first day on
    assert (drawn[:, 0] ** 2).mean() == pytest.approx((drawn[:, -1] ** 2).mean(), rel=0.1)


def test_the_diffusive_world_is_that_of_the_experiment():
    world = synthetic.spacetime_field((100, 100), steps=3, preset="diff", alpha=2, seed=3)
    h11, h22 = world.gamma + world.beta * world.v1**2, world.gamma + world.beta * world.v2**2
    h12 = world.beta * world.v1 * world.v2
    ranges = [float(a) for h in (h11, h22, abs(h12)) for a in (h.min(), h.max())]
    # as read off the published code, to two digits
    assert ranges[:4] == pytest.approx([1.04, 9.95, 1.00, 1.02], abs=6e-3)
    assert ranges[5] == pytest.approx(0.47, abs=6e-3)
    assert float(world.field.var()) == pytest.approx(0.066, rel=0.1)


@pytest.mark.parametrize("alpha", [2, 4])
def test_the_maps_of_a_random_world_are_those_its_fields_come_from(alpha):
    world = field(preset="random", alpha=alpha, shape=(30, 40), steps=30)
    maps = {name: world[name].values for name in THETA}
    assert all(np.ptp(values) > 0 for values in maps.values())
    # neighbours are alike: a small part of the whole variation
    assert all(np.abs(np.diff(a)).max() < 0.2 * np.ptp(a) for a in maps.values())
    operator = SpdeOperator(Mesh.of((30, 40)))
    matrix = operator.matrix(SpdeParameters.of((30, 40), **maps).coefficients())
    x = world.field.values.reshape(30, -1).T
    drift = matrix @ x[:, 1:] if alpha == 2 else matrix @ (matrix @ x[:, 1:])
    white = (x[:, 1:] + drift - x[:, :-1]) / maps["tau"].ravel()[:, None]
    count = white.size
    assert abs(white.mean()) < 4 / np.sqrt(count)
    assert abs((white**2).mean() - 1) < 4 * np.sqrt(2 / count)
    assert abs((white[:, 1:] * white[:, :-1]).mean()) < 4 / np.sqrt(count)


@pytest.mark.parametrize("alpha", [2, 4])
def test_the_burn_in_of_a_random_world_is_long_enough(alpha):
    shape = (12, 14)
    world = field(preset="random", alpha=alpha, shape=shape, steps=1)
    maps = {name: world[name].values for name in THETA}
    spatial = SpdeOperator(Mesh.of(shape)).matrix(SpdeParameters.of(shape, **maps).coefficients())
    inverse = np.linalg.inv(np.eye(168) + np.linalg.matrix_power(spatial.toarray(), alpha // 2))
    covariance, noise = np.zeros((168, 168)), np.diag(maps["tau"].ravel() ** 2)
    variances = []
    for _ in range(10 * (world.attrs["xr_spde_burn_in"] + 1)):
        covariance = inverse @ (covariance + noise) @ inverse.T
        variances.append(covariance.trace())
    first = world.attrs["xr_spde_burn_in"]  # the first step that is returned
    assert 0.98 < variances[first] / variances[-1] <= 1.0
    assert variances[0] / variances[-1] < 0.8


def test_runs_labels_and_seeds():
    world = field(runs=3)
    assert world.field.dims == ("run", "time", "y", "x")
    assert Grid.from_object(world.field).kind == "projected"
    assert set(THETA) < set(world.data_vars)
    alone = field(runs=2)
    xr.testing.assert_equal(world.field.isel(run=slice(0, 2)), alone.field)
    np.testing.assert_array_equal(field().field, world.field.isel(run=0))
    degrees = field(resolution=0.1)
    assert Grid.from_object(degrees.field).kind == "geographic"
    np.testing.assert_array_equal(degrees.field, field().field)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"preset": "other"}, UnknownNameError), ({"alpha": 3}, UnknownNameError),
     ({"boundary": "sea"}, UnknownNameError), ({"steps": 0}, ParameterError),
     ({"runs": 0}, ParameterError), ({"burn_in": -1}, ParameterError),
     ({"resolution": 0.0}, ParameterError), ({"shape": (1, 4)}, ParameterError),
     ({"start": "soon"}, ParameterError)],
)  # fmt: skip
def test_impossible_fields_are_refused(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        field(**wrong)


@pytest.mark.parametrize(("n", "width", "shift", "share"), [(100, 4, 10, 0.0784),
                                                            (32, 2, 5, 0.121)])  # fmt: skip
def test_the_mask_observes_the_share_it_promises(n, width, shift, share):
    world = field(shape=(n, n), steps=5)
    mask = synthetic.diagonal_mask(world.field, width=width, shift=shift)
    assert mask.dtype == bool
    assert float(mask.mean()) == pytest.approx(share, abs=6e-4)
    seen = {(t, j, i) for t in range(5) for j in range(n) for i in range(n)
            if (i - j - shift * t) % n < width or (i + j - shift * t) % n < width}  # fmt: skip
    assert {tuple(map(int, k)) for k in np.argwhere(mask.values)} == seen
    xr.testing.assert_equal(mask.drop_attrs().time, world.time.drop_attrs())


def test_the_mask_follows_the_labels():
    world = field().field
    plain = synthetic.diagonal_mask(world)
    turned = synthetic.diagonal_mask(world.isel(y=slice(None, None, -1)))
    xr.testing.assert_equal(turned.sortby("y"), plain)
    with pytest.raises(DTypeError):
        synthetic.diagonal_mask(world.values)
    with pytest.raises(ParameterError, match="width"):
        synthetic.diagonal_mask(world, width=0)


def coverage(tracks, sea):
    """Share of cells with an observation, day by day."""
    day = ((tracks.time - sea.time[0]) / np.timedelta64(1, "D")).values
    row = np.rint((tracks.latitude.values - float(sea.lat[0])) / 0.1).astype(int)
    column = np.rint((tracks.longitude.values - float(sea.lon[0])) / 0.1).astype(int)
    seen = np.zeros(sea.shape, bool)
    seen[np.minimum(np.rint(day).astype(int), sea.sizes["time"] - 1), row, column] = True
    return seen.mean(axis=(1, 2))


def test_tracks_over_a_tenth_of_a_degree_cover_what_the_orbits_say():
    # two cycles of the swath; what the truth is does not matter to where it is seen
    still = field(shape=(100, 100), steps=1, resolution=0.1).field.isel(time=0, drop=True)
    days = np.datetime64("2012-10-01", "ns") + np.arange(42) * np.timedelta64(1, "D")
    sea = still.expand_dims(time=days).rename("ssh")
    nadirs = coverage(simulate_tracks(sea, noise=0.0), sea)
    swot = coverage(simulate_tracks(sea, ["swot"], noise=0.0), sea)
    # 584 passes cross the parallel of 38 N in 20.86 days, 15.8 degrees off the meridian, each seen
    # over 100 km: 9.2 % of the area a day, and somewhat more cells, since half ones count
    assert 0.090 < swot.mean() < 0.105
    assert 0.2 < swot.max() < 0.35
    # a pass of each of the four sees about one cell in a hundred, on most days
    assert 0.03 < nadirs.mean() < 0.045
    assert (swot + nadirs).mean() < 0.14

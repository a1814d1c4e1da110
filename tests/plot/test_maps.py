"""Parameter maps and ellipses: what is on the canvas, in coordinates, for any storage order."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import ParameterError, SchemaError, UnknownNameError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import LogNorm  # noqa: E402

from xr_spde import plot  # noqa: E402
from xr_spde.plot.layers import default_variables, layer  # noqa: E402
from xr_spde.plot.style import degrees, symmetric_limit, units_text  # noqa: E402

LAT, LON = np.arange(20.0, 44.0, 2.0), np.arange(-30.0, 0.0, 3.0)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def parameters(kappa2=0.1, rho=3.0, theta=0.5, *, lat=LAT, lon=LON):
    ramp = np.linspace(1.0, 2.0, lat.size * lon.size).reshape(lat.size, lon.size)
    maps = {"kappa2": kappa2 * ramp, "rho": rho + 0 * ramp, "theta": theta + 0 * ramp}
    dims = ("lat", "lon")
    return xr.Dataset(
        {name: (dims, values) for name, values in maps.items()}, coords={"lat": lat, "lon": lon}
    )


def mesh(ax):
    found = [c for c in ax.collections if isinstance(c, matplotlib.collections.QuadMesh)]
    return found[-1]


def outlines(ax):
    found = [c for c in ax.collections if isinstance(c, matplotlib.collections.PolyCollection)]
    return [path.vertices[:-2] for path in found[-1].get_paths()]


def test_default_panels_and_their_scales():
    params = parameters().assign(std=lambda ds: 5.0 * ds.kappa2)
    params["std"].attrs["units"] = "m2 s-2"
    figure = plot.parameters(params)
    labels = {ax.get_ylabel() for ax in figure.axes}
    assert "practical range (km)" in labels
    assert "standard deviation (m² s⁻²)" in labels
    norms = [mesh(ax).norm for ax in figure.axes[:4]]
    assert isinstance(norms[0], LogNorm)
    assert norms[1].vmin == 1.0
    assert (norms[2].vmin, norms[2].vmax) == (-90.0, 90.0)


def test_range_is_the_geometric_mean_in_km():
    params = parameters(kappa2=0.05, rho=4.0)
    ax = plot.parameters(params, variables=["range"]).axes[0]
    drawn = np.asarray(mesh(ax).get_array()).reshape(LAT.size, LON.size)
    one_degree = 6371.0 * np.pi / 180.0
    cell = one_degree * np.sqrt(2.0 * 3.0 * np.cos(np.deg2rad(LAT)))[:, None]
    np.testing.assert_allclose(drawn, np.sqrt(8.0 / params.kappa2.values) * cell, rtol=1e-6)


@pytest.mark.parametrize(
    "turn",
    [
        lambda ds: ds.isel(lat=slice(None, None, -1)),
        lambda ds: ds.isel(lon=slice(None, None, -1)),
        lambda ds: ds.transpose("lon", "lat"),
    ],
)
def test_picture_does_not_depend_on_storage_order(turn):
    params = parameters()
    names = ["kappa2", "rho", "theta"]
    meshes = [
        [mesh(ax) for ax in plot.parameters(p, variables=names).axes[:3]]
        for p in (params, turn(params))
    ]
    for one, two in zip(*meshes, strict=True):
        np.testing.assert_array_equal(one.get_array(), two.get_array())
        np.testing.assert_array_equal(one.get_coordinates(), two.get_coordinates())


def test_row_order_north_up():
    params = parameters(lat=LAT[::-1])
    params["kappa2"] = 0.1 + 0.0 * params.kappa2 + 0.001 * params.lat
    drawn = mesh(plot.parameters(params, variables=["kappa2"]).axes[0])
    values = np.asarray(drawn.get_array()).reshape(LAT.size, LON.size)
    middles = drawn.get_coordinates()[:, 0, 1]
    assert np.all(np.diff(middles) > 0)
    np.testing.assert_allclose(values[:, 0], 0.1 + 0.001 * LAT, rtol=1e-12)


def test_direction_is_wrapped_and_fades_where_nearly_isotropic():
    params = parameters(theta=np.pi / 2)
    params["rho"] = xr.where(params.lon < -15.0, 1.0, 5.0).broadcast_like(params.theta)
    drawn = mesh(plot.parameters(params, variables=["theta"]).axes[0])
    np.testing.assert_allclose(drawn.get_array(), -90.0)
    alpha = np.asarray(drawn.get_alpha()).reshape(LAT.size, LON.size)
    assert alpha[:, 0].max() == pytest.approx(0.1)
    assert alpha[:, -1].min() == 1.0


def test_land_is_left_blank():
    params = parameters().where(lambda ds: ds.lat < 40)
    for name in ("range", "rho", "theta", "kappa2"):
        drawn = mesh(plot.parameters(params, variables=[name]).axes[0]).get_array()
        assert np.ma.getmaskarray(drawn).reshape(LAT.size, -1)[-2:].all()
        assert not np.ma.getmaskarray(drawn).reshape(LAT.size, -1)[:-2].any()


def test_ellipse_axes_are_the_practical_range_in_coordinate_units():
    theta = np.deg2rad(30.0)
    params = parameters(kappa2=0.5, rho=4.0, theta=theta, lon=np.arange(0.0, 48.0, 2.0))
    params["kappa2"][:] = 0.5
    ax = plot.ellipses(params, scale=1.0, background=None, across=4)
    for outline in outlines(ax):
        centred = outline - outline.mean(axis=0)
        length = np.hypot(*centred.T)
        # sqrt(8 rho / kappa2) cells of 2 degrees, to the vertex nearest to the axis
        assert length.max() == pytest.approx(2.0 * np.sqrt(8 * 4.0 / 0.5), rel=1e-3)
        assert length.min() == pytest.approx(2.0 * np.sqrt(8 / (4.0 * 0.5)), rel=1e-3)
        dx, dy = centred[length.argmax()]
        assert np.arctan2(dy, dx) % np.pi == pytest.approx(theta, abs=1e-6)
    assert "at their practical range" in ax.get_title("left")


def test_ellipses_in_cells_of_different_sides_stretch_with_them():
    params = parameters(kappa2=0.5, rho=1.0)
    params["kappa2"][:] = 0.5
    for outline in outlines(plot.ellipses(params, scale=0.5, background=None)):
        width, height = np.ptp(outline, axis=0)
        assert width == pytest.approx(0.5 * 2 * 4.0 * 3.0, rel=2e-3)
        assert height == pytest.approx(0.5 * 2 * 4.0 * 2.0, rel=2e-3)


def test_ellipses_avoid_land_and_thin_out():
    params = parameters().where(lambda ds: ds.lon > -20)
    few, many = (outlines(plot.ellipses(params, across=n)) for n in (3, 10))
    assert 0 < len(few) < len(many)
    assert min(outline[:, 0].mean() % 360 for outline in many) > 340


def test_automatic_scale_keeps_most_neighbours_apart():
    params = parameters(kappa2=0.01, lat=np.arange(0.0, 60.0), lon=np.arange(0.0, 80.0))
    ax = plot.ellipses(params, across=10)
    widths = [np.ptp(outline, axis=0).max() for outline in outlines(ax)]
    assert np.quantile(widths, 0.7) < 1.6 * 8.0
    assert "1/" in ax.get_title("left")


def test_given_axes_are_used_and_settings_left_alone():
    before = dict(matplotlib.rcParams)
    figure, axes = plt.subplots(1, 2)
    assert plot.parameters(parameters(), variables=["rho", "theta"], axes=axes) is figure
    _, ax = plt.subplots()
    assert plot.ellipses(parameters(), ax=ax) is ax
    assert dict(matplotlib.rcParams) == before


def test_index_grid_shows_kappa2_in_square_cells():
    values = {
        name: (("y", "x"), np.full((6, 8), v))
        for name, v in {"kappa2": 0.1, "rho": 2.0, "theta": 0.0}.items()
    }
    figure = plot.parameters(xr.Dataset(values))
    assert "κ² (per cell²)" in {ax.get_ylabel() for ax in figure.axes}
    assert figure.axes[0].get_aspect() == 1.0
    assert len(outlines(plot.ellipses(xr.Dataset(values)))) > 0


def test_regional_map_is_stretched_by_its_latitude():
    ax = plot.parameters(parameters(), variables=["rho"]).axes[0]
    assert ax.get_aspect() == pytest.approx(1.0 / np.cos(np.deg2rad(31.0)))


def test_global_map_of_rolled_longitudes():
    lat, lon = np.linspace(-85, 85, 12), np.arange(0.0, 360.0, 20.0)
    params = parameters(lat=lat, lon=lon)
    rolled = params.roll(lon=7, roll_coords=True)
    rolled = rolled.assign_coords(lon=(rolled.lon + 180) % 360 - 180)
    one, two = (mesh(plot.parameters(p, variables=["kappa2"]).axes[0]) for p in (params, rolled))
    np.testing.assert_array_equal(one.get_array(), two.get_array())
    np.testing.assert_allclose(one.get_coordinates(), two.get_coordinates())


def test_defaults_by_kind_of_grid():
    from xr_spde.labels.grid import Grid

    params = parameters()
    assert default_variables(params, Grid.from_object(params)) == ("range", "rho", "theta")
    assert layer(params, Grid.from_object(params), "rho").norm.vmin == 1.0


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda p: plot.parameters(p.drop_vars("rho")), SchemaError, r"lacks \['rho'\]"),
        (lambda p: plot.ellipses(p.kappa2), SchemaError, "got DataArray"),
        (lambda p: plot.parameters(p, variables=["rhoo"]), UnknownNameError, "known: 'range'"),
        (lambda p: plot.parameters(p, variables=["std"]), SchemaError, r"lacks \['std'\]"),
        (lambda p: plot.ellipses(p, scale=0.0), ParameterError, "positive"),
        (lambda p: plot.ellipses(p, across=0), ParameterError, "positive"),
        (
            lambda p: plot.ellipses(p.expand_dims(season=2)),
            ParameterError,
            r"\.isel\(season=0\)",
        ),
        (
            lambda p: plot.parameters(p, axes=[plt.subplots()[1]]),
            ParameterError,
            "got 1 axes for 3 variables",
        ),
    ],
)
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call(parameters())


def with_patterns():
    params = parameters()
    shapes = xr.DataArray([1.0, -2.0, 0.0], dims="mode") * (params.lat - 30.0)
    return params.assign(patterns=shapes.broadcast_like(params.lon).assign_attrs(units="K"))


def test_patterns_share_a_scale_and_unused_ones_are_left_out():
    params = with_patterns().transpose("lon", "lat", "mode")
    figure = plot.patterns(params)
    panels = [ax for ax in figure.axes if ax.get_title("left").startswith("pattern")]
    assert len(panels) == 2
    for ax, factor in zip(panels, (1.0, -2.0), strict=True):
        drawn = np.asarray(mesh(ax).get_array()).reshape(LAT.size, LON.size)
        np.testing.assert_allclose(drawn, factor * (LAT - 30.0)[:, None] + 0 * LON)
        assert mesh(ax).norm.vmax == -mesh(ax).norm.vmin == mesh(panels[0]).norm.vmax
    assert figure.axes[-1].get_xlabel() == "one standard deviation (K)"
    assert len(plot.patterns(params, k=1).axes) == 2


def test_patterns_that_are_not_there():
    with pytest.raises(SchemaError, match="patterns"):
        plot.patterns(parameters())
    with pytest.raises(ParameterError, match="none to draw"):
        plot.patterns(with_patterns().isel(mode=[2]))
    with pytest.raises(ParameterError, match="got 1 axes for 2 patterns"):
        plot.patterns(with_patterns(), axes=[plt.subplots()[1]])


def test_texts_and_limits():
    assert [degrees("N", "S")(v) for v in (40.0, -5.0, 0.0)] == ["40°N", "5°S", "0°"]
    assert [degrees("E", "W")(v) for v in (310.0, 360.0, 180.0, 370.0)] == [
        "50°W",
        "0°",
        "180°",
        "10°E",
    ]
    assert units_text("m2 s-2") == " (m² s⁻²)"
    assert units_text("kg m**-3") == " (kg m⁻³)"
    assert units_text("degC") == " (°C)"
    assert units_text("1") == units_text(None) == ""
    assert symmetric_limit(np.array([-3.2, 1.0]), quantile=1.0) == 3.5
    assert symmetric_limit(np.array([np.nan, 0.0])) == 1.0


def test_without_cmocean_matplotlib_maps_are_used(monkeypatch):
    monkeypatch.setattr("xr_spde.plot.style.has_module", lambda _: False)
    drawn = mesh(plot.parameters(parameters(), variables=["theta"]).axes[0])
    assert drawn.get_cmap().name == "twilight"


def test_without_matplotlib_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import xr_spde\n"
        "from xr_spde._core.errors import MissingDependencyError\n"
        "try:\n    xr_spde.plot\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'xr_spde[plot]'" in done.stdout

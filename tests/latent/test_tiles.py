"""Large scenes by tiles: they agree with the whole fit, whatever the chunks."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import ParameterError
from xr_spde.fields.cells import Cells
from xr_spde.labels.tile_map import plan_tiles, windows_of
from xr_spde.latent.scenes import tile_plan
from xr_spde.latent.textures import texture
from xr_spde.latent.tiles import blend

NY, NX, TILE = 128, 170, 90


def turning(tau, ny=NY, nx=NX):
    """Textures that turn by two degrees and drift by (3, 5) cells."""
    y, x = np.mgrid[0:ny, 0:nx].astype(float)
    a, cy, cx = -np.radians(2.0) * tau, ny / 2, nx / 2
    py, px = y - cy - 3 * tau, x - cx - 5 * tau
    py, px = cy + np.cos(a) * py - np.sin(a) * px, cx + np.sin(a) * py + np.cos(a) * px
    return texture(4, py, px) + 0.6 * texture(9, py, px, waves=(6.0, 20.0))


@pytest.fixture(scope="module")
def pair() -> xr.DataArray:
    rng = np.random.default_rng(0)
    stack = np.stack([turning(t) for t in (0.0, 1.0)]) + 0.01 * rng.standard_normal((2, NY, NX))
    stack[0, 40:60, 80:100] = np.nan
    space = {
        "y": ("y", 1e3 * np.arange(NY), {"units": "m"}),
        "x": ("x", 1e3 * np.arange(NX), {"units": "m"}),
    }
    time = ("time", [0.0, 1.0], {"units": "days"})
    return xr.DataArray(stack, {"time": time, **space}, ("time", "y", "x"), "brightness")


@pytest.fixture(scope="module")
def tiled(pair) -> xr.Dataset:
    return pair.latent.velocity(tile=TILE)


def test_tiles_agree_with_the_whole(pair, tiled):
    whole = pair.latent.velocity()
    cells = 86400 / 1e3
    for name in ("u", "v"):
        off = abs(tiled[name] - whole[name]) * cells
        assert float(off.median()) < 0.02
        assert float(off.quantile(0.99)) < 0.3  # along the border, where parcels enter
    np.testing.assert_allclose(tiled["noise"], whole["noise"], rtol=1e-6)
    np.testing.assert_allclose(tiled["opening_rate"], whole["opening_rate"], rtol=0.1)
    assert float((tiled["determined"] != whole["determined"]).mean()) < 0.02
    assert tiled["u"].attrs == whole["u"].attrs
    frame = pair.latent.interpolate(0.5, motion=whole)
    again = pair.latent.interpolate(0.5, motion=whole, tile=TILE)
    np.testing.assert_allclose(again, frame, atol=1e-9)
    by_tile = pair.latent.interpolate(0.5, motion=tiled, tile=TILE)
    assert float(np.sqrt(((by_tile - frame) ** 2).mean())) < 0.01 * float(pair.std())


@pytest.mark.parametrize("chunks", [{"y": 50, "x": 33}, {"time": 1, "y": -1, "x": -1}])
def test_chunks_and_storage_do_not_matter(pair, tiled, chunks):
    lazy = pair.chunk(chunks).isel(y=slice(None, None, -1)).latent.velocity(tile=TILE)
    assert lazy["u"].chunks is not None
    with dask.config.set(scheduler="threads", num_workers=2):
        done = lazy.compute().sortby("y")
    for name in tiled.data_vars:
        np.testing.assert_array_equal(done[name], tiled[name], err_msg=name)


def test_images_that_cannot_be_fitted_are_named(pair):
    constant = pair.copy(data=np.ones_like(pair))
    with pytest.raises(ParameterError, match=r"no motion between 0.0 and 1.0.*constant"):
        constant.latent.velocity(tile=TILE)
    with pytest.raises(ParameterError, match="no data"):
        pair.where(pair.time > 0).latent.velocity(tile=TILE)
    with pytest.raises(ParameterError, match="restarts"):
        pair.latent.velocity(tile=TILE, restarts=2)
    for wrong in ({"tile": 10}, {"tile": "large"}, {"tile": TILE, "halo": 3}, {"halo": 200}):
        with pytest.raises(ParameterError, match=next(reversed(wrong))):
            pair.latent.velocity(**wrong)


def test_scenes_are_cut_only_where_they_are_large():
    assert tile_plan(Cells(701, 1135)) is None
    plan = tile_plan(Cells(10000, 12000))
    assert plan is not None
    assert np.prod(plan.coarse) <= 2**19
    assert plan.halo == 256 + plan.support
    largest = max(
        np.prod(np.subtract(t.outer[1::2], t.outer[::2]))
        for row in plan_tiles(plan.cells.shape, plan.tile, plan.halo)
        for t in row
    )
    assert largest < 2**22  # a window takes no more than the largest scene that is fitted whole


@settings(max_examples=60, deadline=None)
@given(
    st.integers(60, 300), st.integers(60, 300), st.integers(64, 120), st.integers(25, 90),
    st.booleans(),
)  # fmt: skip
def test_tiles_cover_the_grid_and_blend_to_one(ny, nx, tile, halo, periodic):
    if periodic and halo >= nx:
        return
    tiles = plan_tiles((ny, nx), tile, halo, periodic_x=periodic)
    flat = [t for row in tiles for t in row]
    seen = np.zeros((ny, nx), int)
    where = np.arange(ny * nx, dtype=float).reshape(ny, nx)
    for t in flat:
        seen[t.top : t.bottom, t.left : t.right] += 1
        window = windows_of(where)(t)
        np.testing.assert_array_equal(window[t.inner], where[t.top : t.bottom, t.left : t.right])
    assert (seen == 1).all()
    # a field that all tiles agree on comes back
    plan = type("Plan", (), {"cells": Cells(ny, nx, periodic_x=periodic)})()
    kept = []
    for t in flat:
        inside = type(t)(t.top, t.bottom, t.left, t.right, tuple(min(24, h) for h in t.halo))
        kept.append({"q": np.stack([windows_of(where)(inside)] * 2)})
    for t in flat:
        np.testing.assert_allclose(
            blend(kept, flat, tile=t, plan=plan)[0],
            where[t.top : t.bottom, t.left : t.right],
            rtol=1e-5,
        )


@pytest.mark.slow
def test_tiles_of_a_closed_circle_have_no_seam():
    ny, lon = 80, np.arange(0.0, 360.0, 2.0)
    lat = -40.0 + np.arange(ny)
    rng = np.random.default_rng(0)
    waves = zip(
        rng.integers(3, 25, 40), rng.uniform(-0.6, 0.6, 40), rng.uniform(0, 6.3, 40),
        rng.standard_normal(40), strict=True,
    )  # fmt: skip
    waves = list(waves)

    def image(shift):
        x, y = np.radians(lon - shift)[None], np.arange(ny)[:, None]
        return sum(a * np.cos(k * x + m * y + p) for k, m, p, a in waves) / 5

    time = ("time", [0.0, 1.0], {"units": "days"})
    stack = np.stack([image(0.0), image(5.0)])
    pair = xr.DataArray(stack, {"time": time, "lat": lat, "lon": lon}, ("time", "lat", "lon"))
    found = pair.latent.velocity(tile=90)
    expected = np.radians(5.0) * 6_371_000 * np.cos(np.radians(lat)) / 86400
    seam = found["u"].isel(time=0, lon=[0, 1, -2, -1]).median("lon")
    np.testing.assert_allclose(seam, expected, rtol=0.02)
    turned = pair.roll(lon=50, roll_coords=True).isel(lat=slice(None, None, -1))
    turned = turned.assign_coords(lon=(turned.lon + 180) % 360 - 180).chunk(lat=30, lon=33)
    again = turned.latent.velocity(tile=90).compute()
    again = again.assign_coords(lon=again.lon % 360).sortby("lon").sortby("lat")
    np.testing.assert_array_equal(again["u"], found["u"])

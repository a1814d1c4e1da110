"""Window networks: one window, and whole fields by tiling (specification A11)."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402, N812

from xr_spde.errors import ParameterError  # noqa: E402
from xr_spde.nets import window_cnn  # noqa: E402


def loop(network, fields, periodic=False):
    """Estimate cell by cell, each from its own window."""
    half = network.size // 2
    padded = F.pad(fields, (half, half, 0, 0), mode="circular" if periodic else "reflect")
    padded = F.pad(padded, (0, 0, half, half), mode="reflect")
    ny, nx = fields.shape[-2:]
    out = torch.empty(fields.shape[0], 3, ny, nx)
    with torch.no_grad():
        for j in range(ny):
            for i in range(nx):
                out[:, :, j, i] = network(padded[..., j : j + 2 * half + 1, i : i + 2 * half + 1])
    return out


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("size", [9, 17, 25])
def test_tiler_equals_the_loop_over_cells(tiny, white, size, periodic):
    network, fields = tiny("cnn", size=size), white(1, 4, 14, 17)
    expected = loop(network, fields, periodic)
    for windows in (False, True):
        maps = network.maps(fields, periodic=periodic, windows=windows)
        assert not maps.requires_grad
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)


def test_full_width_tiler_equals_the_loop(white):
    torch.manual_seed(0)
    network = window_cnn.WindowCNN(30).eval()
    fields = white(1, 30, 13, 14)
    torch.testing.assert_close(network.maps(fields), loop(network, fields), rtol=0, atol=1e-5)


@pytest.mark.parametrize("windows", [False, True])
def test_strips_do_not_show(tiny, white, monkeypatch, windows):
    network, fields = tiny("cnn"), white(1, 4, 11, 10)
    whole = network.maps(fields, windows=windows)
    for name in ("_STRIP_CELLS", "_BATCH_WINDOWS"):
        monkeypatch.setattr(window_cnn, name, 35)
    torch.testing.assert_close(network.maps(fields, windows=windows), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [9, 17, 25])
def test_three_by_three_cells_are_left_before_the_linear_layers(white, size):
    network = window_cnn.WindowCNN(5, size=size)
    with torch.no_grad():
        pooled = F.max_pool2d(network._convolve(white(1, 5, size, size)), 2)
    assert pooled.shape == (1, 256, 3, 3)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (13, 1)])
def test_fields_smaller_than_a_window_run(tiny, white, shape):
    for periodic in (False, True):
        maps = tiny("cnn", size=25).maps(white(1, 4, *shape), periodic=periodic)
        assert maps.shape == (1, 3, *shape)
        assert maps.isfinite().all()


def test_periodic_maps_shift_with_the_field(tiny, white):
    network, fields = tiny("cnn"), white(1, 4, 9, 14)
    maps, rolled = (network.maps(x, periodic=True) for x in (fields, fields.roll(5, -1)))
    torch.testing.assert_close(rolled, maps.roll(5, -1), rtol=0, atol=1e-6)


def test_one_window_is_one_window(tiny, white):
    network = tiny("cnn")
    assert network(white(6, 4, 9, 9)).shape == (6, 3)
    with pytest.raises(ParameterError, match=r"call \.maps"):
        network(white(1, 4, 10, 9))
    with pytest.raises(ParameterError, match="takes"):
        network.maps(white(4, 10, 9))

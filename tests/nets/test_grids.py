"""Networks on grids: any size, periodic seams, refusals."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from xr_spde.errors import ParameterError, UnknownNameError  # noqa: E402
from xr_spde.nets.blocks import DoubleConv, extend, pad_to_multiple, seam_conv  # noqa: E402

GRID = ("unet", "vit", "stun")
# what a shift must be a multiple of
STRIDE = {"unet": 4, "vit": 4, "stun": 8}
NO_POSITIONS = {"unet": {}, "vit": {"positions": "none"}, "stun": {"positions": "none"}}


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (7, 1), (17, 30), (33, 18), (32, 48)])
@pytest.mark.parametrize("architecture", GRID)
def test_any_size_runs(tiny, white, architecture, shape, periodic):
    with torch.no_grad():
        maps = tiny(architecture)(white(2, 4, *shape), periodic=periodic)
    assert maps.shape == (2, 3, *shape)
    assert maps.isfinite().all()


@pytest.mark.parametrize("architecture", GRID)
def test_a_divisible_grid_is_not_padded(tiny, white, architecture):
    network, fields = tiny(architecture), white(1, 4, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(network(fields), network.body(fields), rtol=0, atol=0)


@pytest.mark.parametrize("architecture", GRID)
def test_periodic_columns_have_no_seam(tiny, white, architecture):
    network, fields = tiny(architecture, **NO_POSITIONS[architecture]), white(1, 4, 16, 32)
    for tokens in (1, 2):
        shift = tokens * STRIDE[architecture]
        with torch.no_grad():
            rolled = network(fields.roll(shift, -1), periodic=True)
            maps = network(fields, periodic=True)
        torch.testing.assert_close(rolled, maps.roll(shift, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["unet", "stun"])
def test_zero_padding_has_a_seam(tiny, white, architecture):
    network, fields = tiny(architecture, **NO_POSITIONS[architecture]), white(1, 4, 16, 32)
    with torch.no_grad():
        rolled, maps = network(fields.roll(8, -1)), network(fields)
    assert (rolled - maps.roll(8, -1)).abs().max() > 1e-3


def test_periodic_convolution_is_that_of_the_repeated_field(white):
    conv, fields = nn.Conv2d(4, 3, (3, 5), padding=(1, 2)), white(1, 4, 6, 9)
    repeated = conv(torch.cat([fields] * 3, -1))[..., 9:18]
    torch.testing.assert_close(seam_conv(conv, fields, periodic=True), repeated)
    torch.testing.assert_close(seam_conv(conv, fields, periodic=False), conv(fields))


def test_zero_padding_is_default_in_both_directions(white):
    block, fields = DoubleConv(4, 8), white(1, 4, 6, 9)
    x = F.gelu(block.norm1(F.conv2d(fields, block.conv1.weight, block.conv1.bias, padding=1)))
    x = F.gelu(block.norm2(F.conv2d(x, block.conv2.weight, block.conv2.bias, padding=1)))
    torch.testing.assert_close(block(fields), x)
    assert block.norm1.num_groups == 1
    assert block.norm1.eps == 1e-5


@given(
    size=st.integers(1, 9), before=st.integers(0, 20), after=st.integers(0, 20), wrap=st.booleans()
)
def test_extend_is_repeated_padding(size, before, after, wrap):
    line = torch.arange(size, dtype=torch.float64)[None]
    extended = extend(line, -1, before, after, wrap=wrap)
    assert extended.shape == (1, size + before + after)
    assert torch.equal(extended[:, before : before + size], line)
    period = size if wrap else max(1, 2 * (size - 1))
    assert torch.equal(extended[:, period:], extended[:, :-period][:, : extended.shape[1] - period])
    if before < size and after < size:
        mode = "circular" if wrap else "reflect"
        assert torch.equal(extended, F.pad(line, (before, after), mode=mode))


@given(ny=st.integers(1, 40), nx=st.integers(1, 40), multiple=st.sampled_from([1, 4, 16, 32]))
def test_padding_to_a_multiple_keeps_the_field(ny, nx, multiple):
    fields = torch.arange(float(ny * nx)).view(1, 1, ny, nx)
    for periodic in (False, True):
        padded, rows, columns = pad_to_multiple(fields, multiple, periodic=periodic)
        assert torch.equal(padded[..., rows, columns], fields)
        assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
        if periodic and nx % multiple:
            west, east = columns.start, padded.shape[-1] - columns.stop
            assert min(west, east) >= multiple // 2
            assert torch.equal(padded[..., rows, west - 1], fields[..., -1])
            assert torch.equal(padded[..., rows, columns.stop], fields[..., 0])


@pytest.mark.parametrize("architecture", GRID)
@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 3, 8, 8), (1, 4, 0, 8)])
def test_other_fields_are_refused(tiny, white, architecture, shape):
    with pytest.raises(ParameterError, match=r"takes \(batch, 4, row, column\)"):
        tiny(architecture)(white(*shape))


@pytest.mark.parametrize(
    ("architecture", "options", "error", "match"),
    [
        ("unet", {"replicates": 0}, ParameterError, "replicates=0"),
        ("unet", {"replicates": 2.5}, ParameterError, "replicates=2.5"),
        ("unet", {"widths": []}, ParameterError, "widths"),
        ("unet", {"widths": [8, 12]}, ParameterError, "width 12"),
        ("vit", {"heads": 5}, ParameterError, "heads=5"),
        ("vit", {"patch": 0}, ParameterError, "patch=0"),
        ("vit", {"dropout": 1.0}, ParameterError, "dropout=1.0"),
        ("vit", {"heads": 16}, ParameterError, "needs a multiple of 4"),
        ("vit", {"positions": "rotary"}, UnknownNameError, "positional code 'rotary'"),
        ("stun", {"rope": "3d"}, UnknownNameError, "rope '3d'"),
        ("cnn", {"size": 11}, ParameterError, "size=11"),
        ("cnn", {"widths": [8, 8]}, ParameterError, "three"),
        ("cnn", {"hidden": []}, ParameterError, "hidden"),
        ("cnn", {"hidden": [0]}, ParameterError, "size 0 of"),
    ],
)
def test_impossible_networks_are_refused(tiny, architecture, options, error, match):
    with pytest.raises(error, match=match):
        tiny(architecture, **options)


@pytest.mark.parametrize("architecture", GRID)
def test_every_parameter_is_used(tiny, white, architecture):
    options = {"positions": "learned"} if architecture != "unet" else {}
    network = tiny(architecture, **options)
    network(white(2, 4, 512, 8)[..., : 64 * STRIDE[architecture], :]).square().mean().backward()
    unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []

"""State dictionaries of the source, here with random weights under its names."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from xr_spde.errors import ParameterError, UnknownNameError  # noqa: E402
from xr_spde.nets.convert import convert_state_dict  # noqa: E402

DOUBLE = ("conv.0", "conv.1", "conv.3", "conv.4")
M, WIDTHS, DIM, HIDDEN, DEPTH = 3, (8, 16), 64, 40, 2


def double(prefix, i, o):
    names = [prefix + part for part in DOUBLE]
    if prefix == "bottleneck.":
        names = [name.replace("conv.", "") for name in names]
    shapes = [(o, i, 3, 3), (o,), (o, o, 3, 3), (o,)]
    return {f"{n}.weight": s for n, s in zip(names, shapes, strict=True)} | {
        f"{n}.bias": (o,) for n in names
    }


def pyramid(bottom):
    (a, b), head = WIDTHS, {"final_conv.weight": (3, WIDTHS[0], 1, 1), "final_conv.bias": (3,)}
    ups = {"decoders.0.upconv.weight": (bottom, b, 2, 2), "decoders.0.upconv.bias": (b,)}
    ups |= {"decoders.1.upconv.weight": (b, a, 2, 2), "decoders.1.upconv.bias": (a,)}
    down = double("encoders.0.", M, a) | double("encoders.1.", a, b)
    return down | ups | double("decoders.0.", 2 * b, b) | double("decoders.1.", 2 * a, a) | head


def transformer(channels, patch, outputs, learned):
    table = "patch_embedding.pos_embed_{}.pos_embed.weight"
    shapes = {"patch_embedding.conv.weight": (DIM, channels, patch, patch)}
    shapes |= {table.format(axis): (64, DIM) for axis in "xy" if learned}
    for k in range(DEPTH):
        block = f"transformer.{k}."
        for part in ("q_proj", "k_proj", "v_proj", "output_proj"):
            shapes[f"{block}attention.{part}.weight"] = (DIM, DIM)
        shapes |= {f"{block}norm{n}.{p}": (DIM,) for n in (1, 2) for p in ("weight", "bias")}
        shapes |= {f"{block}mlp.0.weight": (HIDDEN, DIM), f"{block}mlp.0.bias": (HIDDEN,)}
        shapes |= {f"{block}mlp.2.weight": (DIM, HIDDEN), f"{block}mlp.2.bias": (DIM,)}
    count = outputs * patch**2
    return shapes | {"de_embedding.weight": (count, DIM), "de_embedding.bias": (count,)}


def cnn(kernels):
    shapes, i = {}, M
    for k, (o, size) in enumerate(zip((4, 5, 6), kernels, strict=True)):
        shapes |= {f"conv_layers.{2 * k}.weight": (o, i, size, size)}
        shapes |= {f"conv_layers.{2 * k}.bias": (o,)}
        i = o
    for k, (i, o) in enumerate([(54, 20), (20, 7), (7, 3)]):
        shapes |= {f"fc_layers.{2 * k}.weight": (o, i), f"fc_layers.{2 * k}.bias": (o,)}
    return shapes


def source_shapes(architecture, learned=False):
    return {
        "unet": lambda: pyramid(24) | double("bottleneck.", WIDTHS[1], 24),
        "stun": lambda: pyramid(DIM) | transformer(WIDTHS[1], 2, DIM, learned),
        "vit": lambda: transformer(M, 4, 3, learned),
        "cnn": lambda: cnn((6, 4, 4)),
    }[architecture]()


def source_state(architecture, learned=False):
    generator = torch.Generator().manual_seed(8)
    shapes = source_shapes(architecture, learned)
    return {name: torch.randn(*s, generator=generator) for name, s in shapes.items()}


KINDS = [("unet", None), ("cnn", None)] + [
    (a, p) for a in ("vit", "stun") for p in ("none", "sinusoidal", "learned", "rope")
]


@pytest.mark.parametrize(("architecture", "positions"), KINDS)
def test_every_tensor_arrives(architecture, positions):
    state = source_state(architecture, positions == "learned")
    network = convert_state_dict(
        state, architecture=architecture, replicates=M, positions=positions
    )
    assert network.architecture == architecture
    assert not network.training
    # distinct numbers: the sorted entries are those of the file, each once
    ours, theirs = (
        torch.cat([t.flatten() for t in tensors]).sort().values
        for tensors in (network.parameters(), state.values())
    )
    assert torch.equal(ours, theirs)
    if positions is not None:
        assert network.options["positions"] == positions
        assert network.options["rope"] == "raster"
        assert network.options["causal"]
        assert network.options["heads"] == 1


def test_tensors_arrive_where_they_belong():
    state = source_state("stun", learned=True)
    network = convert_state_dict(
        state, architecture="stun", replicates=M, positions="learned", causal=False
    )
    middle = network.body.middle
    for ours, theirs in [
        (network.body.encoders[1].norm2.bias, "encoders.1.conv.4.bias"),
        (network.body.decoders[0].conv1.weight, "decoders.0.conv.0.weight"),
        (network.body.ups[1].weight, "decoders.1.upconv.weight"),
        (middle.positions.learned.columns, "patch_embedding.pos_embed_x.pos_embed.weight"),
        (middle.positions.learned.rows, "patch_embedding.pos_embed_y.pos_embed.weight"),
        (middle.blocks[1].attention.out.weight, "transformer.1.attention.output_proj.weight"),
        (middle.blocks[0].norm1.weight, "transformer.0.norm1.weight"),
        (middle.spread.weight, "de_embedding.weight"),
    ]:
        assert torch.equal(ours, state[theirs])
    assert not network.options["causal"]


def test_patches_of_the_source_end_in_channels(white):
    # with zero tokens only the bias of the last layer is left
    state = {name: torch.zeros_like(t) for name, t in source_state("vit").items()}
    state["de_embedding.bias"] = torch.arange(48.0)
    network = convert_state_dict(state, architecture="vit", replicates=M, positions="none")
    maps = network(white(1, M, 4, 4))[0]
    torch.testing.assert_close(maps, torch.arange(48.0).view(4, 4, 3).movedim(-1, 0))


def test_a_window_network_computes_what_the_source_computes(white):
    state = source_state("cnn")
    convs = [
        m for i, o, k in [(M, 4, 6), (4, 5, 4), (5, 6, 4)] for m in (nn.Conv2d(i, o, k), nn.GELU())
    ]
    linears = [nn.Linear(54, 20), nn.GELU(), nn.Linear(20, 7), nn.GELU(), nn.Linear(7, 3)]
    source = nn.ModuleDict(
        {"conv_layers": nn.Sequential(*convs), "fc_layers": nn.Sequential(*linears)}
    )
    source.load_state_dict(state)
    windows = white(5, M, 17, 17)
    pooled = nn.MaxPool2d(2)(source["conv_layers"](windows))
    network = convert_state_dict(state, architecture="cnn", replicates=M)
    torch.testing.assert_close(network(windows), source["fc_layers"](pooled.flatten(1)))


def test_prefixes_of_wrappers_do_not_matter():
    state = source_state("unet")
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}
    networks = [convert_state_dict(s, architecture="unet", replicates=M) for s in (state, wrapped)]
    a, b = (network.state_dict() for network in networks)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_does_not_fit_is_refused():
    state = source_state("unet")
    with pytest.raises(UnknownNameError, match="transunet"):
        convert_state_dict(state, architecture="transunet", replicates=M)
    with pytest.raises(ParameterError, match="replicates"):
        convert_state_dict(state, architecture="unet", replicates=30)
    with pytest.raises(ParameterError, match=r"'patch_embedding\.conv\.weight'"):
        convert_state_dict(state, architecture="vit", replicates=M, positions="none")
    with pytest.raises(ParameterError, match="positions"):
        convert_state_dict(source_state("vit"), architecture="vit", replicates=M)
    with pytest.raises(ParameterError, match="only vit and stun"):
        convert_state_dict(state, architecture="unet", replicates=M, positions="rope")
    for learned, positions in [(True, "rope"), (False, "learned")]:
        with pytest.raises(ParameterError, match="pos_embed_x"):
            convert_state_dict(
                source_state("stun", learned),
                architecture="stun",
                replicates=M,
                positions=positions,
            )
    with pytest.raises(ParameterError, match="1 left over"):
        convert_state_dict(state | {"more": torch.ones(1)}, architecture="unet", replicates=M)
    del state["decoders.1.conv.4.bias"]
    with pytest.raises(ParameterError, match=r"1 tensors missing \['decoders\.1\.conv\.4\.bias'\]"):
        convert_state_dict(state, architecture="unet", replicates=M)
    kernels = source_state("cnn")
    kernels["conv_layers.0.weight"] = torch.ones(4, M, 5, 5)
    with pytest.raises(ParameterError, match=r"\(5, 4, 4\) belong to no window size"):
        convert_state_dict(kernels, architecture="cnn", replicates=M)

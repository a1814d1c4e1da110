"""Networks by name, and files of weights."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from xr_spde.errors import (  # noqa: E402
    DataUnavailableError,
    ParameterError,
    SchemaError,
    UnknownNameError,
)
from xr_spde.nets.registry import ARCHITECTURES, build_network  # noqa: E402
from xr_spde.nets.unet import UNet  # noqa: E402
from xr_spde.nets.weights import load_weights, save_weights  # noqa: E402

CARD = {"data": "prior, 64 x 64", "scores": {"rho": 0.25}, "epochs": [1, 2]}


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_module_says_how_to_build_it_again(tiny, architecture):
    network = tiny(architecture)
    assert network.architecture == architecture
    options = json.loads(json.dumps(network.options))
    again = build_network(network.architecture, options)
    assert again.options == network.options
    again.load_state_dict(network.state_dict())
    assert same(network, again)


def test_wrong_names_and_options_are_named():
    with pytest.raises(UnknownNameError, match="did you mean 'unet'"):
        build_network("u-net", {})
    with pytest.raises(ParameterError, match=r"\['depht'\].*'depth'"):
        build_network("vit", {"replicates": 3, "depht": 2})
    with pytest.raises(ParameterError, match=r"needs the options \['replicates'\]"):
        build_network("stun", {})
    with pytest.raises(ParameterError, match="'unet'"):
        build_network("unet", {"replicates": 3, "widths": 5})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_round_trip(tiny, tmp_path, architecture):
    network, path = tiny(architecture), tmp_path / "net.safetensors"
    save_weights(path, network, card=CARD)
    state = torch.get_rng_state()
    loaded = load_weights(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(network)
    assert same(network, loaded)
    assert loaded.card == CARD
    assert not loaded.training
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    # the card travels with the module
    save_weights(path, loaded)
    assert load_weights(path).card == CARD


def test_half_precision_halves_the_file_and_loads_in_single(tiny, white, tmp_path):
    network, fields = tiny("unet"), white(1, 4, 8, 8)
    network.register_buffer("steps", torch.tensor(70_001))
    for half in (False, True):
        save_weights(tmp_path / f"{half}", network, half=half)
    full, half = ((tmp_path / f"{half}").stat().st_size for half in (False, True))
    assert half < 0.6 * full
    with safe_open(tmp_path / "True", framework="pt") as file:
        assert file.get_tensor("steps").item() == 70_001
        assert file.get_tensor("body.head.weight").dtype == torch.float16
    plain = tiny("unet")
    save_weights(tmp_path / "True", plain, half=True)
    loaded = load_weights(tmp_path / "True")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(loaded(fields), plain(fields), rtol=0, atol=1e-2)


@given(
    replicates=st.integers(1, 4),
    widths=st.lists(st.sampled_from([8, 16]), min_size=1, max_size=2),
    half=st.booleans(),
    card=st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=3),
)
def test_any_unet_and_card_come_back(tmp_path_factory, replicates, widths, half, card):
    path = tmp_path_factory.mktemp("weights") / "net"
    network = UNet(replicates, widths=widths, bottleneck=8)
    save_weights(path, network, half=half, card=card)
    loaded = load_weights(path)
    assert loaded.options == network.options
    assert loaded.card == card
    for name, value in network.state_dict().items():
        expected = value.half().float() if half else value
        assert torch.equal(loaded.state_dict()[name], expected)


def test_a_failed_write_leaves_the_old_file(tiny, tmp_path):
    path = tmp_path / "net"
    save_weights(path, tiny("unet"), card=CARD)
    broken = tiny("unet")
    with torch.no_grad():
        broken.body.head.bias[0] = 1e5
    with pytest.raises(ParameterError, match=r"'body\.head\.bias' are not finite"):
        save_weights(path, broken, half=True)
    for card in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(ParameterError, match="JSON"):
            save_weights(path, broken, card=card)
    with pytest.raises(ParameterError, match="Linear"):
        save_weights(path, nn.Linear(1, 1))
    assert load_weights(path).card == CARD
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_other_files_are_refused(tiny, tmp_path):
    with pytest.raises(DataUnavailableError, match="nowhere"):
        load_weights(tmp_path / "nowhere")
    path = tmp_path / "net"
    for content in (b"", b"no weights at all", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(SchemaError, match="safetensors"):
            load_weights(path)
    save_weights(path, tiny("unet"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SchemaError, match="damaged"):
        load_weights(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(SchemaError, match="not written by xr_spde"):
        load_weights(path)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"format": 2}, SchemaError, "format 2.*newer release"),
        ({"format": "1"}, SchemaError, "format '1'"),
        ({"architecture": "resnet"}, UnknownNameError, "resnet"),
        ({"architecture": "cnn"}, ParameterError, "bottleneck"),
        ({"options": {"replicates": 5}}, SchemaError, r"81 tensors do not fit .*\(16,\) for \(512"),
        ({"options": {"replicates": 4, "widths": [8, 16], "bottleneck": 32}}, SchemaError, "24"),
        ({"options": {"deep": 4}}, ParameterError, "deep"),
        ({"card": None}, SchemaError, "incomplete"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tiny, tmp_path, change, error, match):
    path = tmp_path / "net"
    save_weights(path, tiny("unet"))
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["xr_spde"]) | change
    save_file(tiny("unet").state_dict(), path, metadata={"xr_spde": json.dumps(description)})
    with pytest.raises(error, match=match):
        load_weights(path)
    for text in ("{", "[]", "{}", json.dumps({"format": 1})):
        save_file(tiny("unet").state_dict(), path, metadata={"xr_spde": text})
        with pytest.raises(SchemaError):
            load_weights(path)

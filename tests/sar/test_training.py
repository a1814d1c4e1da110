"""From a configuration to weights, by the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zarr")
pytest.importorskip("matplotlib")

from xr_spde._core.errors import ParameterError, SolverError, UnknownNameError  # noqa: E402
from xr_spde.nets.lag_features import lag_moments  # noqa: E402
from xr_spde.nets.weights import load_weights  # noqa: E402
from xr_spde.sar import training  # noqa: E402
from xr_spde.sar.training import TrainingConfig, main  # noqa: E402

NET = """
[network]
architecture = "net"
widths = [8, 16]
down = [0, 1]
up = [1]

[data]
seed = 5
cells = 1920

[[data.groups]]
shape = [24, 40]
cases = 5
replicates = 6
buffer = 3
share = 1.0
held = 2

[schedule]
steps = 6
every = 3
warmup = 2

[run]
seed = 1
"""

UNET = (
    NET.replace('"net"', '"unet"')
    .replace(
        "widths = [8, 16]\ndown = [0, 1]\nup = [1]", "replicates = 4\nwidths = [8]\nbottleneck = 16"
    )
    .replace(
        "[schedule]",
        "[variation]\nreplicates = 4\nfixed = true\ngaps = 0.0\nrolls = true\n[schedule]",
    )
)

CNN = (
    UNET.replace('"unet"', '"cnn"')
    .replace("widths = [8]\nbottleneck = 16", "size = 9\nwidths = [8, 8, 8]\nhidden = [8, 8]")
    .replace("cells = 1920", "cells = 960\nwindow = 9")
)


def write(tmp_path, text):
    place = tmp_path / "config.toml"
    place.write_text(text)
    return place


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Cases that all runs here share."""
    folder = tmp_path_factory.mktemp("data")
    training.simulate(TrainingConfig.read(write(folder, NET)), folder)
    return folder


def run(tmp_path, data, text, out="run"):
    main([str(write(tmp_path, text)), "--data", str(data), "--out", str(tmp_path / out)])
    return tmp_path / out


@pytest.mark.parametrize("text", [NET, UNET, CNN], ids=["net", "unet", "cnn"])
def test_the_command_line_leaves_weights_card_record_and_curves(tmp_path, data, text):
    folder = run(tmp_path, data, text)
    rows = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    most = 6 if text is NET else 4
    assert f"rho 24x40 M={most}" in rows[0]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    card = json.loads((folder / "card.json").read_text())
    assert card["config"] == text
    assert card["steps"] == 6
    assert card["scores"]["score"] == min(row["score"] for row in rows)
    network = load_weights(folder / "weights.safetensors")
    assert network.card == card
    fields = torch.randn(4, 24, 40)
    given = lag_moments(fields) if text is NET else fields[None]
    with torch.no_grad():
        found = getattr(network, "maps", network)(given)
    assert found.shape == (1, 7 if text is NET else 3, 24, 40)
    assert found.isfinite().all()


def test_the_weights_are_the_best_average_in_16_bits(tmp_path, data):
    folder = run(tmp_path, data, NET)
    best = torch.load(folder / "state.pt", weights_only=True)["best_state"]
    kept = load_weights(folder / "weights.safetensors").state_dict()
    assert bool(kept.pop("calibration").any())  # fitted in the end
    for name, value in best.items():
        if name == "calibration":
            continue
        torch.testing.assert_close(kept[name], value.half().float(), rtol=0, atol=0)


def test_running_again_ends_at_once_and_more_steps_go_on(tmp_path, data, monkeypatch):
    folder = run(tmp_path, data, NET)
    weights, record = (folder / "weights.safetensors"), (folder / "record.jsonl")
    before = weights.read_bytes(), record.read_text()
    run(tmp_path, data, NET)
    assert (weights.read_bytes(), record.read_text()) == before
    run(tmp_path, data, NET.replace("steps = 6", "steps = 9"))
    steps = [json.loads(line)["step"] for line in record.read_text().splitlines()]
    assert steps == [3, 6, 9]


def test_a_run_is_reproducible(tmp_path, data):
    first, second = (run(tmp_path, data, NET, out) for out in ("a", "b"))
    for name in ("weights.safetensors", "record.jsonl", "card.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_packaged_configuration_reads():
    config = TrainingConfig.read("net")
    variation, schedule, network = training._network(config)
    assert sum(config.held) >= 20
    assert variation.replicates == 30
    assert schedule.steps > 1000
    assert 2e6 < sum(p.numel() for p in network.parameters()) < 5e6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cells = 1920", "", "lacks the setting 'cells'"),
        ("share = 1.0", "", "lacks the setting 'share'"),
        ("[schedule]", "[shedule]", r"tables \['shedule'\] are unknown"),
        ("seed = 1\n", "seed = 1\nthread = 2", r"\[run\] \['thread'\] are unknown"),
        ("cells = 1920", "cells = 1920\nwindows = 9", r"\[data\] \['windows'\] are unknown"),
        ("buffer = 3", "bufer = 3", "bufer"),
        ("held = 2", "held = 5", "24x40 holds 5 of its 5 cases"),
        ("held = 2", "", "no group holds cases for validation"),
        ("share = 1.0", "share = -1.0", "shares are"),
        (
            "[schedule]",
            "[[data.groups]]\nshape = [24, 40]\ncases = 3\nshare = 1.0\n[schedule]",
            "'24x40', '24x40'.*each shape once",
        ),
        ("replicates = 6", "replicates = 1", "has one replicate"),
        ("replicates = 6", "replicates = 0", "replicates 0"),
        ("cells = 1920", "cells = ", "config .*config.toml"),
    ],
)
def test_a_wrong_configuration_names_the_problem(tmp_path, old, new, message):
    assert old in NET
    with pytest.raises(ParameterError, match=message):
        TrainingConfig.read(write(tmp_path, NET.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 6", "step = 6", "step"),
        ("every = 3", "every = 0", "'every': 0"),
        ("widths = [8, 16]", "width = [8, 16]", r"\['width'\]"),
        ('"net"', '"nett"', "did you mean 'net'"),
        ("[schedule]", "[variation]\nroll = true\n[schedule]", "roll"),
        ("[schedule]", "[variation]\ngaps = 20\n[schedule]", "gaps 20"),
        ("[schedule]", "[variation]\nreplicates = 0\n[schedule]", "replicates is 0"),
    ],
)
def test_wrong_settings_show_before_anything_is_simulated(tmp_path, old, new, message):
    assert old in NET
    with pytest.raises((ParameterError, UnknownNameError), match=message):
        run(tmp_path, tmp_path / "data", NET.replace(old, new))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gaps = 0.0", "gaps = 0.1"),
        ("gaps = 0.0", ""),
        ("fixed = true", "fixed = false"),
        ("replicates = 4\nfixed", "replicates = 5\nfixed"),
        ("replicates = 6", "replicates = 3"),
    ],
)
def test_a_network_on_replicates_needs_all_of_them(tmp_path, old, new):
    assert old in UNET
    with pytest.raises(ParameterError, match=r"'unet' takes exactly 4 replicates and no gaps.*set"):
        run(tmp_path, tmp_path / "data", UNET.replace(old, new))


def test_a_network_of_windows_needs_windows_of_its_size(tmp_path):
    for wrong in ("", "window = 11"):
        with pytest.raises(ParameterError, match="set window = 9"):
            run(tmp_path, tmp_path / "data", CNN.replace("window = 9", wrong))


def test_a_run_that_diverges_leaves_no_weights(tmp_path, data, monkeypatch):
    monkeypatch.setattr(training, "_validation", lambda _: lambda _: {"score": float("nan")})
    with pytest.raises(SolverError, match=r"no validation .* diverged"):
        run(tmp_path, data, NET)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_name_that_does_not_exist_lists_those_that_do():
    with pytest.raises(ParameterError, match=r"'nett': no such file, and not of .*'net'.*'unet'"):
        TrainingConfig.read("nett")


def test_fresh_cases_need_no_stored_ones_but_those_held(tmp_path):
    text = NET.replace("seed = 5\n", "seed = 5\nfresh = true\ncalibration = 2\n", 1)
    (tmp_path / "fresh.toml").write_text(text)
    config = TrainingConfig.read(tmp_path / "fresh.toml")
    assert [group.cases for group in config.stored_groups] == [h for h in config.held if h]
    training.simulate(config, tmp_path / "data")
    first, second = (
        training.train(config, tmp_path / "data", tmp_path / run) for run in ("a", "b")
    )
    ours, theirs = (load_weights(path).state_dict() for path in (first, second))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_goes_on_with_its_own_settings_only(tmp_path, data):
    run(tmp_path, data, NET)
    longer = NET.replace("steps = 6", "steps = 9")
    run(tmp_path, data, longer)
    with pytest.raises(ParameterError, match="other settings"):
        run(tmp_path, data, longer.replace("warmup = 2", "warmup = 1"))

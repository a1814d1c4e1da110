"""Muon for matrices, AdamW for the rest."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from xr_spde.errors import UnknownNameError  # noqa: E402
from xr_spde.nets.optimizer import MuonAdam, make_optimizer  # noqa: E402


def model():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.GELU(), nn.Conv2d(5, 4, 3), nn.GELU(), nn.Conv2d(4, 1, 1)
    )


def descend(network, optimizer, steps):
    torch.manual_seed(4)
    for _ in range(steps):
        value = (network(torch.randn(3, 2, 8, 8)) - 1.0).square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return float(value.detach())


def test_hidden_matrices_move_as_muon_moves_them_and_the_rest_as_adamw():
    mixed, other = model(), model()
    mixed.to(memory_format=torch.channels_last)
    ours = MuonAdam(mixed, rate=1e-3, decay=0.02)
    # the truth: each matrix as a parameter of its own
    hidden = [
        nn.Parameter(other[k].weight.detach().reshape(len(other[k].weight), -1)) for k in (0, 2)
    ]
    rest = [other[0].bias, other[2].bias, other[4].weight, other[4].bias]
    muon = torch.optim.Muon(hidden, lr=1e-3, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=1e-3, weight_decay=0.02)
    shapes = [other[k].weight.shape for k in (0, 2)]
    torch.manual_seed(4)
    for _ in range(5):
        weights = [h.view(s) for h, s in zip(hidden, shapes, strict=True)]
        x = nn.functional.conv2d(torch.randn(3, 2, 8, 8), weights[0], rest[0], padding=1)
        x = nn.functional.conv2d(nn.functional.gelu(x), weights[1], rest[1])
        value = (other[4](nn.functional.gelu(x)) - 1.0).square().mean()
        muon.zero_grad(), adam.zero_grad()
        value.backward()
        muon.step(), adam.step()
    descend(mixed, ours, 5)
    # Muon works in bfloat16: one unit of its last place in an update of a thousandth
    for k, h in zip((0, 2), hidden, strict=True):
        torch.testing.assert_close(mixed[k].weight.flatten(1), h, rtol=0, atol=2e-5)
    torch.testing.assert_close(mixed[4].weight, other[4].weight, rtol=0, atol=2e-5)


def test_other_names_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'adamw'"):
        make_optimizer("adam", model(), 1e-2, 0.0)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_it_descends(kind):
    network = model()
    optimizer = make_optimizer(kind, network, 1e-2, 0.0)
    first = descend(network, optimizer, 1)
    assert descend(network, optimizer, 60) < 0.5 * first


def test_rates_may_be_set_in_place():
    network = model()
    optimizer = MuonAdam(network, rate=1e-2, decay=0.0)
    before = [p.detach().clone() for p in network.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    descend(network, optimizer, 2)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)

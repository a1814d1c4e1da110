"""The networks of the source have exactly its numbers of parameters."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from xr_spde.nets.registry import build_network  # noqa: E402

REPLICATES = (1, 5, 15, 30)
COUNTS = {
    ("unet", None): (25_208_259, 25_210_563, 25_216_323, 25_224_963),
    ("stun", None): (105_309_123, 105_311_427, 105_317_187, 105_325_827),
    ("vit", None): (85_804_800, 86_591_232, 88_557_312, 91_506_432),
    ("cnn", 9): (1_349_303, 1_350_327, 1_352_887, 1_356_727),
    ("cnn", 17): (1_842_871, 1_852_087, 1_875_127, 1_909_687),
    ("cnn", 25): (2_412_215, 2_437_815, 2_501_815, 2_597_815),
}
LEARNED = 98_304


def parameters(architecture, **options):
    with torch.device("meta"):
        network = build_network(architecture, options)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("architecture", "size"), COUNTS)
def test_every_count_of_the_source(architecture, size):
    extra = {} if size is None else {"size": size}
    found = [parameters(architecture, replicates=m, **extra) for m in REPLICATES]
    assert tuple(found) == COUNTS[architecture, size]


@pytest.mark.parametrize("architecture", ["vit", "stun"])
def test_only_learned_positions_have_parameters(architecture):
    base = COUNTS[architecture, None][-1]
    for positions, more in [("none", 0), ("sinusoidal", 0), ("rope", 0), ("learned", LEARNED)]:
        assert parameters(architecture, replicates=30, positions=positions) == base + more


def test_the_small_unet_of_the_learning_checks():
    assert parameters("unet", replicates=30, widths=(16, 32), bottleneck=64) == 121_603


@pytest.mark.parametrize("shape", [(192, 96), (512, 256), (192, 288)])
@pytest.mark.parametrize("architecture", ["unet", "vit", "stun"])
def test_full_networks_run_on_the_grids_of_the_source(architecture, shape):
    with torch.device("meta"):
        network = build_network(architecture, {"replicates": 30})
        assert network(torch.zeros(1, 30, *shape)).shape == (1, 3, *shape)

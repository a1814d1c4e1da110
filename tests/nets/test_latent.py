"""Networks and loss of latent dynamics, against what is known without training."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.errors import ParameterError, UnknownNameError  # noqa: E402
from xr_spde.fields.sampling import sample  # noqa: E402
from xr_spde.fields.unsteady import grown, levelled, trace  # noqa: E402
from xr_spde.nets.latent_losses import Transport, Windows, loss_terms, roughness  # noqa: E402
from xr_spde.nets.latent_training import (  # noqa: E402
    LatentSettings,
    apply_nets,
    build_latent,
    fit_latent,
)
from xr_spde.nets.latent_unet import LatentNets, SmallUNet  # noqa: E402

CARRIED = Transport(trace, sample, grown, levelled)
TINY = {"width": 4, "depth": 2}
N = 24


def drifting(shift, gap=None, fill=0.0):
    """Image that moves by whole cells along x; what lies in the gap of the first is `fill`."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((N, N + 8)).astype(np.float32)
    images = [wide[None, None, :, 4 - k : 4 - k + N] for k in (0, shift)]
    known = [np.ones((1, 1, N, N), np.float32) for _ in images]
    if gap is not None:
        images[0] = np.where(gap, fill, images[0]).astype(np.float32)
        known[0] = np.where(gap, 0, known[0]).astype(np.float32)
    velocity = np.zeros((1, 1, 2, N, N), np.float32)
    velocity[:, :, 0] = shift
    tensors = (torch.from_numpy(np.ascontiguousarray(a)) for a in (*images, *known, velocity))
    first, last, m0, m1, q = tensors
    return Windows(first, last, m0, m1, q, torch.zeros_like(q), (0.0, 1.0))


def values(windows, *, gaps=False, robust=None, smoothness="gradient"):
    nets = build_latent({"gaps": gaps, **TINY})
    with torch.no_grad():
        terms = loss_terms(nets, windows, CARRIED, robust=robust, smoothness=smoothness)
    return {name: float(value) for name, value in terms.items()}


def test_sizes_are_those_of_the_table():
    sizes = {(8, 3): 0.12, (16, 3): 0.49, (16, 4): 1.97}
    for (width, depth), millions in sizes.items():
        count = sum(p.numel() for p in SmallUNet(1, 1, width=width, depth=depth).parameters())
        assert round(count / 1e6, 2) == millions


def test_networks_begin_as_nothing():
    nets = build_latent({"latent": 3, "gaps": True, **TINY})
    u, known = torch.randn(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    with torch.no_grad():
        state = nets.encode(u, known)
        assert state.shape == (2, 3, 16, 16)
        assert torch.equal(state[:, :1], u)
        assert not state[:, 1:].any()
        assert torch.equal(nets.decode(state), u)
        assert not nets.extract(u[:, None], known[:, None]).any()
    with pytest.raises(ParameterError, match="residual=False"):
        LatentNets(channels=2, latent=1)


def test_a_true_motion_costs_nothing_but_its_size():
    found = values(drifting(2))
    for name in ("dynamics", "autoencoding", "consistency", "half", "smoothness", "departure"):
        assert found[name] == pytest.approx(0.0, abs=1e-9), name
    assert found["magnitude"] == pytest.approx(4.0)


def test_without_motion_the_loss_is_the_difference_of_the_images():
    windows = drifting(2)
    still = Windows(*(getattr(windows, f) for f in ("first", "last", "known_first", "known_last")),
                    0 * windows.velocity, windows.initial, (0.0, 1.0))  # fmt: skip
    square = float((windows.first - windows.last).square().mean())
    found = values(still)
    assert found["dynamics"] == pytest.approx(square, rel=1e-5)
    assert found["consistency"] == pytest.approx(2 * square, rel=1e-5)
    error = (windows.first - windows.last).abs()
    soft = float((2 * 0.2 * ((error**2 + 0.2**2).sqrt() - 0.2)).mean())
    assert values(still, robust=0.2)["dynamics"] == pytest.approx(soft, rel=1e-5)


def test_what_residual_networks_add_is_weighed():
    nets = build_latent(TINY)
    with torch.no_grad():
        nets.encoder.head.bias.fill_(0.5)
        nets.decoder.head.bias.fill_(-0.25)
        found = loss_terms(nets, drifting(2), CARRIED, robust=None, smoothness="gradient")
    assert float(found["departure"]) == pytest.approx(0.5**2 + 0.25**2, rel=1e-5)


def test_what_is_put_into_gaps_does_not_count():
    gap = np.zeros((N, N), bool)
    gap[5:12, 3:9] = True
    first, second = (values(drifting(2, gap, fill), gaps=True) for fill in (0.0, 50.0))
    assert first == pytest.approx(second, abs=1e-9)
    assert first["dynamics"] == pytest.approx(0.0, abs=1e-9)


def test_second_order_smoothness_is_blind_to_affine_motion_and_variation_lets_it_jump():
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    turn = torch.stack([-0.3 * y, 0.3 * x])
    assert float(roughness(turn, "hessian")) < 1e-6
    assert float(roughness(turn, "gradient")) == pytest.approx(0.18, rel=1e-5)
    ramp, jump = torch.zeros(2, 16, 16), torch.zeros(2, 16, 16)
    ramp[0] = x
    jump[0] = 15.0 * (x > 7)
    assert float(roughness(jump, "tv")) == pytest.approx(float(roughness(ramp, "tv")), rel=0.02)
    assert float(roughness(jump, "gradient")) > 10 * float(roughness(ramp, "gradient"))


def fitted(seed, **changes):
    rng = np.random.default_rng(1)
    frames = rng.standard_normal((2, 1, 20, 24)).astype(np.float32)
    settings = LatentSettings(patch=16, batch=2, iterations=4, **TINY, **changes)
    times = np.array([0.0, 1.0])
    return fit_latent(
        frames, np.ones_like(frames), times, settings, CARRIED, seed=seed, progress=False
    )


def test_the_seed_decides_and_other_random_numbers_are_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, log = fitted(3)
    assert torch.equal(torch.get_rng_state(), before)
    again, same = fitted(3)
    assert all(np.array_equal(log[name], same[name]) for name in log)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not np.array_equal(fitted(4)[1]["total"], log["total"])
    weights = LatentSettings().weights()
    total = sum(weights[name] * log[name] for name in weights)
    np.testing.assert_allclose(log["total"], total, rtol=1e-5)


def test_every_setting_runs():
    for changes in (
        {"smoothness": "tv", "robust": 0.2, "schedule": "geometric"},
        {"smoothness": "hessian", "residual": False, "sees": "all", "latent": 3},
    ):
        nets, log = fitted(0, **changes)
        assert np.isfinite(log["total"]).all()
        state = apply_nets(nets, "encode", np.zeros((1, 1, 16, 16), np.float32))
        assert apply_nets(nets, "decode", state).shape == (1, 1, 16, 16)


def test_settings_that_cannot_be_used_are_refused():
    for changes, match in (
        ({"patch": 60}, "multiple of 8"),
        ({"stride": 65}, "gaps would stay"),
        ({"lam_c": -1.0}, "lam_c"),
        ({"rate": 0.0}, "rate"),
        ({"iterations": 0}, "iterations"),
    ):
        with pytest.raises(ParameterError, match=match):
            LatentSettings(**changes)
    with pytest.raises(UnknownNameError, match="hessian"):
        LatentSettings(smoothness="hesse")

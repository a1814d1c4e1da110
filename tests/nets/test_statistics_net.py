"""The default network: sizes, symmetries, outputs and loss."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import settings as example_settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from xr_spde.errors import ParameterError  # noqa: E402
from xr_spde.nets.lag_features import LagMoments, lag_moments  # noqa: E402
from xr_spde.nets.objectives import (  # noqa: E402
    WEIGHTS,
    estimates,
    replicate_loss,
    score_held,
    squared_errors,
    statistics_loss,
)
from xr_spde.nets.registry import build_network  # noqa: E402
from xr_spde.nets.statistics_net import StatisticsNet, loss_terms  # noqa: E402
from xr_spde.nets.weights import load_weights, save_weights  # noqa: E402

DIRECTION = slice(2, 4)


def restless(network):
    """Random numbers where training starts from zeros, and some whitening."""
    generator = torch.Generator().manual_seed(1)
    for block in network.modules():
        if hasattr(block, "second"):
            torch.nn.init.normal_(block.second.weight, std=0.05, generator=generator)
    cases = [lag_moments(fields(8, 48, 48, seed=seed)).pooled() for seed in range(2)]
    network.pyramid.fit(cases)
    return network


def fields(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x + torch.roll(x, 1, -1) + 0.5 * torch.roll(x, 1, -2)


@pytest.fixture(scope="module")
def default():
    torch.manual_seed(0)
    return StatisticsNet().eval()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return restless(StatisticsNet(widths=(8, 16, 16), down=(1, 1, 1), up=(1, 1))).eval()


def test_number_of_parameters(default):
    assert sum(p.numel() for p in default.parameters()) == 4_341_959


@torch.no_grad()
@pytest.mark.parametrize("shape", [(6, 6), (7, 13), (6, 41), (19, 8), (16, 32)])
def test_any_grid_of_six_cells_runs(default, shape):
    output = default(lag_moments(fields(5, *shape)))
    assert output.shape == (1, 7, *shape)
    assert output.isfinite().all()


@torch.no_grad()
@given(
    rows=st.integers(6, 40), columns=st.integers(6, 40), count=st.integers(1, 9), gaps=st.booleans()
)
@example_settings(max_examples=12)
def test_outputs_stay_within_their_ranges(small, rows, columns, count, gaps):
    x = fields(count, rows, columns)
    if gaps:
        x[fields(count, rows, columns, seed=9) > 0.3] = torch.nan
    output = small(lag_moments(x))
    assert output.shape == (1, 7, rows, columns)
    assert output.isfinite().all()
    assert (output[:, 1] > 0).all()
    assert output[:, DIRECTION].square().sum(1).max() < 1.0 + 1e-5
    assert output[:, 4:].min() >= -6.0
    assert output[:, 4:].max() <= 2.0


def test_directions_are_normalised():
    raw = torch.randn(2, 7, 9, 9, generator=torch.Generator().manual_seed(0)).double()
    raw[:, DIRECTION] *= 0.5 / raw[:, DIRECTION].norm(dim=1, keepdim=True).clamp(max=0.5)
    output = StatisticsNet.read(raw)
    expected = torch.nn.functional.normalize(raw[:, DIRECTION], dim=1)
    torch.testing.assert_close(output[:, DIRECTION], expected, rtol=0, atol=1e-5)
    raw[:, DIRECTION] = 0.0
    assert StatisticsNet.read(raw).isfinite().all()


@torch.no_grad()
@given(seed=st.integers(0, 10_000), count=st.integers(1, 30))
@example_settings(max_examples=10)
def test_order_of_replicates_changes_nothing(small, seed, count):
    # in double precision: the local fits, which logarithms follow, magnify how sums are rounded
    network, x = deepcopy(small).double(), fields(count, 24, 20, seed=seed).double()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first, second = network(lag_moments(x)), network(lag_moments(x[order]))
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_one_batch_serves_several_numbers_of_replicates(small):
    cases = [lag_moments(fields(m, 24, 16, seed=m)) for m in (1, 4, 30)]
    together = small(LagMoments.stack(cases))
    for k, case in enumerate(cases):
        torch.testing.assert_close(together[k : k + 1], small(case), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_squares_of_two_may_be_pooled_before(small):
    moments = lag_moments(fields(6, 24, 16))
    torch.testing.assert_close(small(moments.pooled()), small(moments), rtol=0, atol=0)
    odd = lag_moments(fields(6, 23, 15))
    torch.testing.assert_close(small(odd.pooled())[..., :23, :15], small(odd), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_mixed_precision_leaves_the_statistics_in_32_bits(small, monkeypatch):
    moments = lag_moments(fields(6, 24, 16)).pooled()
    expected, found = small.pyramid(moments), []
    forward = small.pyramid.forward
    monkeypatch.setattr(small.pyramid, "forward", lambda m: found.extend(forward(m)) or found)
    with torch.autocast("cpu", torch.bfloat16):
        small(moments)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@torch.no_grad()
def test_weights_in_16_bits_come_back_the_same(small, tmp_path):
    save_weights(tmp_path / "a", small, half=True, card={"steps": 3})
    again = load_weights(tmp_path / "a")
    assert again.options == small.options
    assert again.card == {"steps": 3}
    save_weights(tmp_path / "b", again, half=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    moments = lag_moments(fields(6, 24, 16))
    # an untrained network points nowhere in particular, so its directions are left out
    found, expected = (net(moments)[:, :2] for net in (again, small))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"widths": [], "down": [], "up": []},
        {"widths": [8, 16], "down": [1], "up": [1]},
        {"widths": [8, 16], "down": [1, 1], "up": [1, 1]},
    ],
)
def test_levels_that_do_not_fit_together_are_refused(options):
    with pytest.raises(ParameterError, match=r"levels, down .* and up .*; expected"):
        build_network("net", options)


def draw_case(seed=0, shape=(2, 5, 4)):
    """An output, as arrays, and its truth."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-3.0, 3.0, shape)
    output = np.stack(
        [
            rng.normal(-1.0, 1.0, shape),
            rng.uniform(0.0, 2.0, shape),
            np.cos(2 * angle),
            np.sin(2 * angle),
            *rng.normal(-1.0, 0.5, (3, *shape)),
        ],
        1,
    )
    truth = np.stack(
        [
            rng.normal(-1.0, 1.0, shape),
            rng.uniform(0.0, 2.0, shape),
            rng.uniform(-np.pi / 2, np.pi / 2, shape),
        ],
        1,
    )
    return output, truth, angle


def test_loss_terms_against_numpy():
    output, truth, angle = draw_case()
    found = loss_terms(torch.from_numpy(output), torch.from_numpy(truth))
    difference = truth[:, 2] - angle

    def log_h(log_rho, direction):
        c, s = np.cos(direction), np.sin(direction)
        rotation = np.moveaxis(np.array([[c, -s], [s, c]]), (0, 1), (-2, -1))
        scales = log_rho[..., None] * np.array([1.0, -1.0])
        return rotation @ (scales[..., None] * np.swapaxes(rotation, -1, -2))

    # Frobenius norm of the difference of the matrix logarithms: each component counts twice
    apart = log_h(truth[:, 1], truth[:, 2]) - log_h(output[:, 1], angle)
    along = truth[:, 1] * np.cos(2 * difference) - output[:, 1]
    across = truth[:, 1] * np.sin(2 * difference)
    both = np.abs([along, across])
    near = (both < 2.0).all(0)
    assert near.any()
    assert not near.all()
    whole = np.sum(apart**2, (-2, -1))
    np.testing.assert_allclose(found["tensor"][near], whole[near], atol=1e-12)
    linear = np.where(both < 2.0, both**2, 2.0 * (2.0 * both - 2.0)).sum(0)
    np.testing.assert_allclose(found["tensor"], 2.0 * linear, atol=1e-12)
    error = np.abs(truth[:, 0] - output[:, 0])
    assert (error > 3.0).any()
    linear_beyond = np.where(error < 3.0, error**2, 3.0 * (2.0 * error - 3.0))
    np.testing.assert_allclose(found["kappa2"], linear_beyond / 1.8**2)
    rho = (np.exp(truth[:, 1]) - np.exp(output[:, 1])) / 1.5
    np.testing.assert_allclose(found["rho"], rho**2)
    np.testing.assert_allclose(found["angle"], 2.0 * np.sin(difference) ** 2, atol=1e-12)
    expected = sum(
        0.5 * (error / np.exp(log_se)) ** 2 + log_se
        for error, log_se in zip(
            (truth[:, 0] - output[:, 0], along, across),
            np.moveaxis(output[:, 4:], 1, 0),
            strict=True,
        )
    )
    np.testing.assert_allclose(found["spread"], expected)


def test_standard_errors_pull_at_nothing_else():
    output, truth, _ = (torch.from_numpy(a) for a in draw_case())
    output.requires_grad_()
    terms = loss_terms(output, truth)
    (by_spread,) = torch.autograd.grad(terms["spread"].sum(), output, retain_graph=True)
    assert (by_spread[:, :4] == 0).all()
    assert (by_spread[:, 4:] != 0).all()
    rest = sum(term.sum() for name, term in terms.items() if name != "spread")
    (by_rest,) = torch.autograd.grad(rest, output)
    assert (by_rest[:, 4:] == 0).all()
    assert (by_rest[:, :4] != 0).all()


def test_the_likelihood_is_least_at_the_size_of_the_errors():
    output, truth, _ = draw_case(shape=(1, 1, 4000))
    output, truth = torch.from_numpy(output), torch.from_numpy(truth)
    size = (truth[:, 0] - output[:, 0]).square().mean().sqrt().log()

    def likelihood(shift):
        moved = output.clone()
        moved[:, 4] = size + shift
        return float(loss_terms(moved, truth)["spread"].mean())

    assert likelihood(0.0) < min(likelihood(-0.05), likelihood(0.05))


def test_the_loss_weighs_its_terms(small):
    output, truth, _ = (torch.from_numpy(a) for a in draw_case())
    rows, columns = truth.shape[-2:]
    gaps = torch.randn(truth.shape[0], 5, rows, columns)
    gaps[:, :, :4] = torch.nan  # land
    inputs = LagMoments.stack([lag_moments(case) for case in gaps])
    expected = sum(WEIGHTS[n] * t[:, 4:].mean() for n, t in loss_terms(output, truth).items())
    torch.testing.assert_close(statistics_loss(lambda _: output, inputs, truth), expected)
    # statistics of an odd grid come in squares that complete it
    odd = lag_moments(fields(6, 23, 15)).pooled()
    assert statistics_loss(small, odd, torch.zeros(1, 3, 23, 15)).isfinite()


def test_the_loss_of_networks_on_replicates_against_numpy():
    rng = np.random.default_rng(0)
    _, truth, _ = draw_case()
    output = rng.normal(size=truth.shape)
    target = np.stack([truth[:, 0], -truth[:, 2], np.exp(truth[:, 1])], 1)
    errors = ((output - target) / np.array([1.83, 0.735, 1.48])[:, None, None]) ** 2
    given = torch.from_numpy(truth)
    found = replicate_loss(lambda _: torch.from_numpy(output).float(), None, given.float())
    assert float(found) == pytest.approx(errors.mean((0, 2, 3)).sum(), rel=1e-5)
    # one triple a window is compared with its centre
    windows = torch.from_numpy(target[:, :, 2, 2]).float()
    found = replicate_loss(lambda _: windows, None, given[..., :5, :5].float())
    assert float(found) == pytest.approx(0.0, abs=1e-10)


def test_scores_see_the_angle_modulo_pi_and_as_the_source_does():
    log_kappa2, log_rho = np.zeros((1, 1, 2)), np.log([[[1.5, 6.0]]])
    theta = np.array([[[0.0, 1.4]]])
    truth = torch.from_numpy(np.stack([log_kappa2, log_rho, theta], 1))
    # psi = -theta; the second is 0.2 off across the seam at 1.5
    output = torch.from_numpy(np.stack([log_kappa2 + 2.0, -theta - [0.1, 0.2], [[[2.5, 6.0]]]], 1))
    found = squared_errors(output, truth).numpy()
    weights = log_rho.ravel() / log_rho.mean()
    linear = 0.2 - np.pi
    expected = [4.0, (0.1**2 + linear**2) / 2, 0.5, (0.1**2 * weights[0] + 0.2**2 * weights[1]) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # the default network's angles are the same thing
    direction = [np.cos(2 * theta), np.sin(2 * theta)]
    for_net = np.stack([log_kappa2, log_rho, *direction, *[log_rho] * 3], 1)
    _, rho, found_theta = estimates(torch.from_numpy(for_net))
    np.testing.assert_allclose(rho, [[[1.5, 6.0]]])
    np.testing.assert_allclose(found_theta, theta, atol=1e-12)
    np.testing.assert_allclose(squared_errors(torch.from_numpy(for_net), truth), 0, atol=1e-12)


def test_scores_of_held_cases(small):
    truth = torch.stack([torch.full((23, 15), v) for v in (-1.0, 0.7, 0.3)])[None]
    cases = [lag_moments(fields(m, 23, 15, seed=s)).pooled() for m in (1, 6) for s in (1, 2)]
    held = [("23x15", int(case.replicates), case, truth) for case in cases]
    found = score_held(small, held)
    with torch.no_grad():
        outputs = [small(case)[..., :23, :15] for case in cases[2:]]
    rmse = torch.stack([squared_errors(o, truth) for o in outputs]).mean(0).sqrt()
    names = ("log_kappa2", "theta", "rho", "angle")
    assert [found[f"{n} 23x15 M=6"] for n in names] == pytest.approx(rmse.tolist())
    expected = rmse[0] / 1.83 + rmse[2] / 1.48 + rmse[3] / 0.735
    assert found["score"] == pytest.approx(float(expected))
    assert set(found) == {"score", *(f"{n} 23x15 M={m}" for n in names for m in (1, 6))}


def test_calibration_brings_cases_to_the_device_of_the_network(small, monkeypatch):
    moved = []
    monkeypatch.setattr(LagMoments, "to", lambda self, device: moved.append(device) or self)
    copy = build_network("net", small.options)
    copy.calibrate([(lag_moments(fields(4, 24, 16)).pooled(), torch.ones(1, 3, 24, 16))])
    assert moved == [torch.device("cpu")]


def test_calibrated_errors_cover_what_they_say():
    from xr_spde.nets.statistics_net import CALIBRATED, errors_of

    torch.manual_seed(0)
    net = StatisticsNet((8, 12), (1, 1), (1,)).eval()
    cases = []
    for k in (0, 2, 4):
        for _ in range(2):
            moments = lag_moments(torch.randn(2**k, 24, 32)).pooled()
            cases.append((moments, torch.randn(1, 3, 24, 32).abs()))
    net.calibrate(cases)
    for k in (0, 2, 4):
        inside = []
        for moments, truth in cases[k : k + 2]:
            with torch.no_grad():
                out = net(moments)
            inside.append(errors_of(out, truth).abs() < out[:, 4:].exp())
        share = torch.cat(inside).float().mean((0, 2, 3))
        torch.testing.assert_close(share, torch.full((3,), 0.6827), rtol=0, atol=2e-3)
    # between calibrated numbers linear in log M, beyond them constant
    table = net.calibration
    for count, wanted in ((1, 0), (4, 2), (32, CALIBRATED - 1), (500, CALIBRATED - 1)):
        torch.testing.assert_close(
            net._calibrated(torch.tensor([float(count)]))[0], table[:, wanted]
        )
    middle = net._calibrated(torch.tensor([8.0**0.5]))[0]
    torch.testing.assert_close(middle, 0.5 * (table[:, 1] + table[:, 2]))

"""Batches: reproducible, and true to the parameters whatever is done to the grids."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.errors import ParameterError  # noqa: E402
from xr_spde.fields.sar import operator  # noqa: E402
from xr_spde.nets import cases as module  # noqa: E402
from xr_spde.nets.cases import CaseBatches, Variation, held_case, vary  # noqa: E402
from xr_spde.nets.lag_features import LagMoments  # noqa: E402
from xr_spde.solvers.superlu import SuperLUFactor  # noqa: E402

PLAIN = {"fixed": True, "symmetries": False, "scales": False, "gaps": 0.0}


def group(count=5, replicates=12, shape=(20, 14), seed=0):
    """Fields equal to kappa2 plus the replicate's number: where they go, kappa2 must go too."""
    rng = np.random.default_rng(seed)
    kappa2 = rng.uniform(0.1, 0.9, (count, *shape)).astype(np.float32)
    number = np.arange(replicates, dtype=np.float32)[:, None, None]
    return {
        "fields": kappa2[:, None] + number,
        "kappa2": kappa2,
        "rho": rng.uniform(1.0, 5.0, kappa2.shape).astype(np.float32),
        "theta": rng.uniform(-1.5, 1.5, kappa2.shape).astype(np.float32),
    }


def raw(groups, *, cells=280, seed=1, window=0, **variation):
    variation = Variation(**(PLAIN | variation))
    return CaseBatches(
        groups,
        [1.0] * len(groups),
        cells=cells,
        variation=variation,
        seed=seed,
        moments=False,
        window=window,
    )


def flat(batch):
    inputs, truth = batch
    if isinstance(inputs, LagMoments):
        inputs = torch.cat([inputs.half.flatten(), inputs.weight.flatten(), inputs.replicates])
    return inputs, truth


@pytest.mark.parametrize("moments", [False, True])
def test_a_batch_depends_on_seed_and_step_alone(moments):
    def make(seed):
        groups = [group(shape=(20, 14)), group(shape=(16, 24))]
        variation = Variation(replicates=8, rolls=True, gaps=0.5, fixed=not moments)
        return CaseBatches(
            groups, [0.5, 0.5], cells=600, variation=variation, seed=seed, moments=moments
        )

    first, second, other = make(1), make(1), make(2)
    backwards = {step: flat(second[step]) for step in reversed(range(6))}
    for step in range(6):
        for a, b in zip(flat(first[step]), backwards[step], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    truths = [first[0][1], first[1][1], other[0][1]]
    assert len({float(t.sum()) for t in truths}) == 3


@pytest.mark.parametrize("window", [0, 8])
@pytest.mark.parametrize("rolls", [False, True])
@pytest.mark.parametrize("symmetries", [False, True])
def test_fields_and_truth_stay_together(symmetries, rolls, window):
    batches = raw([group()], cells=840, symmetries=symmetries, rolls=rolls, window=window)
    shapes = set()
    for step in range(12):
        fields, truth = batches[step]
        shapes.add(tuple(fields.shape))
        numbers = torch.floor(fields)
        kappa2 = (fields - numbers).movedim(1, 0)
        torch.testing.assert_close(kappa2, truth[:, 0].exp().expand_as(kappa2), rtol=0, atol=2e-6)
        # every replicate once, whole, in another order
        assert (numbers == numbers[:, :, :1, :1]).all()
        order = numbers[:, :, 0, 0]
        torch.testing.assert_close(order.sort(1).values, torch.arange(12.0).expand_as(order))
    if window:
        assert shapes == {(3 * (280 // 64), 12, 8, 8)}
    elif symmetries:
        assert shapes == {(3, 12, 20, 14), (3, 12, 14, 20)}
    else:
        assert shapes == {(3, 12, 20, 14)}


def test_rho_and_theta_move_with_kappa2():
    """With one value per cell, the cell of kappa2 names the cell of the others."""
    one = group(count=1)
    lookup = {float(k): n for n, k in enumerate(one["kappa2"].ravel())}
    rho, theta = one["rho"].ravel(), one["theta"].ravel()
    batches = raw([one], symmetries=True, rolls=True)
    turned = set()
    for step in range(16):
        _, truth = batches[step]
        kappa2 = truth[0, 0].exp().numpy()
        nearest = np.array(list(lookup))[
            np.abs(np.array(list(lookup)) - kappa2[..., None]).argmin(-1)
        ]
        index = np.array([lookup[float(k)] for k in nearest.ravel()])
        np.testing.assert_allclose(truth[0, 1].exp().numpy().ravel(), rho[index], rtol=1e-6)
        found = np.exp(2j * truth[0, 2].numpy().ravel())
        choices = {"same": theta, "mirrored": -theta, "swapped": np.pi / 2 - theta,
                   "turned": theta + np.pi / 2}  # fmt: skip
        fits = [n for n, t in choices.items() if np.abs(found - np.exp(2j * t[index])).max() < 1e-5]
        assert len(fits) == 1
        turned.add(fits[0])
        assert -np.pi / 2 <= truth[0, 2].min()
        assert truth[0, 2].max() < np.pi / 2
    assert turned == {"same", "mirrored", "swapped", "turned"}


def direction(fields):
    """Major axis, from x toward y, of the region with empirical correlation above one half."""
    z = (fields - fields.mean(0)) / fields.std(0)
    _, ny, nx = z.shape
    correlation = (z * z[:, ny // 2, nx // 2][:, None, None]).mean(0)
    j, i = np.nonzero(correlation > 0.5)
    y, x = j - ny // 2, i - nx // 2
    return 0.5 * np.arctan2(2.0 * (x * y).sum(), (x * x).sum() - (y * y).sum())


@pytest.mark.parametrize("theta", [0.45, -1.1])
def test_the_angle_follows_the_fields(theta):
    """Measured off the fields themselves, after every reflection and transposition."""
    shape, count = (44, 52), 500
    factor = SuperLUFactor(operator(np.full(shape, 0.03), 5.0, theta, boundary="plane"))
    noise = np.random.default_rng(7).standard_normal((factor.n, count))
    fields = factor.solve(noise).T.reshape(1, count, *shape)
    assert direction(fields[0]) == pytest.approx(theta, abs=0.07)
    maps = {name: np.full((1, *shape), v) for name, v in
            {"kappa2": 0.03, "rho": 5.0, "theta": theta}.items()}  # fmt: skip
    batches = raw(
        [{"fields": fields.astype(np.float32), **maps}], symmetries=True, replicates=count
    )
    seen = set()
    for step in range(10):
        found, truth = batches[step]
        claimed = float(truth[0, 2].mean())
        difference = (direction(found[0].numpy()) - claimed + np.pi / 2) % np.pi - np.pi / 2
        assert abs(difference) < 0.07
        seen.add(round(claimed, 3))
    assert len(seen) == 4  # theta, -theta, and both transposed


@pytest.mark.parametrize("name", ["scales", "gaps"])
def test_truth_is_that_without_scales_and_gaps(name):
    one = group()
    more = {"scales": {"scales": True}, "gaps": {"gaps": 1.0}}[name]
    maps = [one[n][0] for n in ("kappa2", "rho", "theta")]
    variation = Variation(**(PLAIN | more))
    _, truth = vary(one["fields"][0], maps, variation, np.random.default_rng(1), 12)
    expected = np.stack([np.log(maps[0]), np.log(maps[1]), maps[2]])
    np.testing.assert_allclose(truth, expected, atol=1e-6)


def test_scales_leave_correlations_alone():
    """A factor for each cell, or centring and a factor."""
    fields = np.random.default_rng(0).normal(size=(40, 9, 7)).astype(np.float32)
    fields[:, :, 1:] += fields[:, :, :-1]
    maps = [np.full((9, 7), v, np.float32) for v in (0.2, 2.0, 0.3)]

    def correlation(y):
        return np.corrcoef(y.reshape(len(y), -1).T)

    variances = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        found, _ = vary(fields, maps, Variation(**(PLAIN | {"scales": True})), rng, 40)
        np.testing.assert_allclose(correlation(found), correlation(fields), atol=1e-4)
        variances.append(round(float(found.var(0, ddof=1).mean()), 3))
    assert 1.0 in variances
    assert len(set(variances)) >= 3


def test_standardized_over_all_replicates_whatever_is_shown():
    one = group(replicates=30)
    one["fields"] = np.random.default_rng(4).normal(3.0, 5.0, one["fields"].shape)
    inputs, _ = raw([one], standardize=True, replicates=30)[0]
    torch.testing.assert_close(inputs.mean(1), torch.zeros(1, 20, 14), rtol=0, atol=1e-5)
    torch.testing.assert_close(inputs.square().sum(1), torch.full((1, 20, 14), 29.0))
    few, _ = raw([one], standardize=True, replicates=4)[0]
    torch.testing.assert_close(few, inputs[:, :4], rtol=0, atol=0)


def test_gaps_only_remove():
    one, rng = group(), np.random.default_rng(3)
    maps = [one[n][0] for n in ("kappa2", "rho", "theta")]
    kinds = set()
    for _ in range(20):
        found, _ = vary(one["fields"][0], maps, Variation(**(PLAIN | {"gaps": 1.0})), rng, 12)
        gone = np.isnan(found)
        assert 0.0 < gone.mean() < 0.7
        kept = found - np.floor(found)
        expected = np.broadcast_to(maps[0], kept.shape)
        np.testing.assert_allclose(kept[~gone], expected[~gone], atol=2e-6)
        kinds.add("coast" if (gone == gone[:1]).all() else "others")
    assert kinds == {"coast", "others"}


def test_gaps_only_lower_weights(monkeypatch):
    rng, drawn = np.random.default_rng(0), []
    fields = rng.normal(size=(1, 12, 20, 14)).astype(np.float32)
    one = group(count=1) | {"fields": fields}
    punch = module._punch

    def remembering(fields, rng):
        drawn.append((fields, punch(fields, rng)))
        return drawn[-1][1]

    monkeypatch.setattr(module, "_punch", remembering)
    variation = Variation(**(PLAIN | {"gaps": 1.0}))
    batches = CaseBatches([one], [1.0], cells=280, variation=variation, seed=1)
    for step in range(6):
        moments, _ = batches[step]
        whole, holed = (module.lag_moments(torch.from_numpy(f)) for f in drawn[-1])
        assert (holed.weight <= whole.weight).all()
        assert (holed.weight < whole.weight).any()
        assert all(x.isfinite().all() for x in (moments.half, moments.level, moments.weight))


def test_counts_of_replicates():
    fixed = raw([group()], replicates=5)
    assert {fixed[step][0].shape[1] for step in range(20)} == {5}
    variation = Variation(**(PLAIN | {"replicates": 5, "fixed": False}))
    batches = CaseBatches([group()], [1.0], cells=280 * 4, variation=variation, seed=3)
    counts = torch.cat([batches[step][0].replicates for step in range(60)])
    assert counts.min() == 1
    assert counts.max() == 12
    # half of the visits, and a few of the others
    assert 0.45 < (counts == 5).float().mean() < 0.7
    assert (counts == 1).float().mean() > 0.08


def test_shares_and_sizes_of_batches():
    first, second = group(shape=(20, 14)), group(shape=(10, 14), seed=4)
    variation = Variation(**PLAIN)
    batches = CaseBatches(
        [first, second], [3.0, 1.0], cells=560, variation=variation, seed=5, moments=False
    )
    shapes = [tuple(batches[step][0].shape) for step in range(120)]
    assert set(shapes) == {(2, 12, 20, 14), (4, 12, 10, 14)}
    assert 0.62 < np.mean([s[0] == 2 for s in shapes]) < 0.88
    tiny = raw([first], cells=1)
    assert tiny[0][0].shape[0] == 1


def test_a_window_must_fit():
    with pytest.raises(ParameterError, match=r"window is 15, but grids have \[\(20, 14\)\]"):
        raw([group()], window=15)


def test_held_cases_are_standardised_over_thirty():
    rng = np.random.default_rng(2)
    arrays = {"fields": (5.0 + 3.0 * rng.normal(size=(40, 12, 12))).astype(np.float16)}
    arrays |= {name: a[0][:12, :12] for name, a in group().items() if name != "fields"}
    inputs, truth = held_case(arrays, 30, moments=False)
    torch.testing.assert_close(inputs.mean(1), torch.zeros(1, 12, 12), rtol=0, atol=1e-5)
    torch.testing.assert_close(inputs.square().sum(1), torch.full((1, 12, 12), 29.0))
    few, _ = held_case(arrays, 4, moments=False)
    torch.testing.assert_close(few, inputs[:, :4], rtol=0, atol=0)
    expected = np.stack([np.log(arrays["kappa2"]), np.log(arrays["rho"]), arrays["theta"]])
    np.testing.assert_allclose(truth[0], expected, rtol=1e-6)
    moments, _ = held_case(arrays, 4, moments=True)
    assert moments.replicates.tolist() == [4.0]

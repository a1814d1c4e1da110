"""Training of implicit representations on fields that are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.nets.harmonics import spherical_harmonics, triangle
from xr_spde.nets.latent_encoding import CodePrior, encode
from xr_spde.nets.sinr import Sinr, SinrSettings
from xr_spde.nets.sinr_batches import Batch, FieldBatches, SinrTraining
from xr_spde.nets.sinr_codes import standardise
from xr_spde.nets.sinr_components import best_maps
from xr_spde.nets.sinr_training import AutoDecoder, fit_sinr, loss_of, train_sinr

DEGREE, FREE = 8, 8


def family(points, amplitudes):
    """Fields (N, P, 1) of 8 free amplitudes and 8 of their products, of degree 8, variance 1."""
    rng = np.random.default_rng(5)
    pairs = triangle(DEGREE)
    products = amplitudes * np.roll(amplitudes, 1, axis=1)
    factors = np.concatenate([amplitudes, products], axis=1)
    patterns = rng.standard_normal((factors.shape[1], len(pairs)))
    patterns *= np.sqrt(4.0 * np.pi / (factors.shape[1] * len(pairs)))
    return (factors @ patterns @ spherical_harmonics(points, pairs))[..., None]


def grid(nx, ny):
    node, weight = np.polynomial.legendre.leggauss(ny)
    longitude, latitude = np.meshgrid(
        np.arange(nx) * 2.0 * np.pi / nx, np.arcsin(node), indexing="ij"
    )
    points = np.stack([longitude.ravel(), latitude.ravel()], axis=1)
    return points, np.tile(weight / weight.sum() / nx, nx)


def amplitudes(count, seed):
    return np.random.default_rng([9, seed]).standard_normal((count, FREE))


def rms(error, weights):
    """Root of the weighted mean square of each field, then their mean."""
    return float(np.sqrt((weights[:, None] * error**2).sum(axis=(1, 2))).mean())


class Trained:
    def __init__(self, training, nx=64, ny=32, width=64, seed=0):
        self.points, self.weights = grid(nx, ny)
        self.train = family(self.points, amplitudes(256, 1)).astype(np.float32)
        self.held = family(self.points, amplitudes(32, 2)).astype(np.float32)
        network = SinrSettings(code=16, depth=4, order=4, width=width)
        self.map, self.codes = fit_sinr(
            self.train, self.points, self.weights, network=network, training=training, seed=seed
        )

    def error(self, fields, points, values, weights=None, noise=None):
        """Of the fields on the grid, encoded from values at points."""
        codes = self.map.encode(values, points, weights, noise=noise)
        return rms(self.map.decode(codes) - fields, self.weights)

    def scattered(self, count):
        rng = np.random.default_rng(count)
        latitude = np.arcsin(rng.uniform(-1.0, 1.0, count))
        points = np.stack([rng.uniform(0.0, 2.0 * np.pi, count), latitude], axis=1)
        return points, family(points, amplitudes(32, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    """A smaller twin of the check C1 of the specification."""
    training = SinrTraining(steps=600, rate=1e-2, fields=64, points=192, every=300)
    return Trained(training, nx=32, ny=16, width=48)


def test_known_fields_are_learned_and_found_from_few_points(small):
    train = rms(small.map.decode(small.codes) - small.train, small.weights)
    assert train < 0.1
    assert small.error(small.held, None, small.held) < 0.1
    for count in (200, 50):
        points, values = small.scattered(count)
        assert small.error(small.held, points, values) < 0.12


def test_codes_of_training_are_standard_and_come_back(small):
    """Check C2; codes with mean 0, variance 1 and no correlation."""
    np.testing.assert_allclose(small.codes.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.cov(small.codes.T), np.eye(16), atol=0.01)
    fields = small.map.decode(small.codes[:20])
    again = small.map.decode(small.map.encode(fields))
    assert np.abs(again - fields).max() < 1e-2


def test_half_a_sphere_is_met_as_well_as_from_all_of_it(small):
    """Check C3."""
    seen = small.points[:, 0] < np.pi
    half = np.where(seen[:, None], small.held, np.nan).astype(np.float32)
    found = small.map.decode(small.map.encode(half)) - small.held
    full = small.map.decode(small.map.encode(small.held)) - small.held
    part = small.weights[seen] / small.weights[seen].sum()
    assert rms(found[:, seen], part) < 1.5 * rms(full[:, seen], part)


@pytest.mark.long
@pytest.mark.parametrize(("codes", "rate"), [("adam", 5e-3), ("solve", 1e-2)])
def test_known_fields_as_specified(codes, rate):
    """Check C1: a table of codes at the rates of the specification, 5e-3 and 1e-2 for codes.

    Where codes are solved, none moves at 1e-2 beside the weights, and those take it. At 5e-3 they
    miss the first bound, and only that, in 2000 steps: 0.0216, still falling.
    """
    training = SinrTraining(
        steps=2000, rate=rate, code_rate=1e-2, fields=32, points=256, codes=codes
    )
    trained = Trained(training)
    assert rms(trained.map.decode(trained.codes) - trained.train, trained.weights) < 0.02
    assert trained.error(trained.held, None, trained.held) < 0.03
    for count, bound in ((200, 0.03), (50, 0.035)):
        points, values = trained.scattered(count)
        assert trained.error(trained.held, points, values) < bound


def tiny(variables=2, **options):
    torch.manual_seed(1)
    given = {"variables": variables, "code": 4, "depth": 3, "order": 2, "width": 10}
    return Sinr(SinrSettings(**{**given, **options}))


def tiny_data(count=12, variables=2, seed=0):
    points, weights = grid(12, 6)
    rng = np.random.default_rng(seed)
    basis = spherical_harmonics(points, triangle(2)).T
    fields = np.einsum("pq,nqk->npk", basis, rng.standard_normal((count, 9, variables)))
    return points, weights, fields.astype(np.float32)


def one_loss(net, points, weights, values, codes=None):
    model = AutoDecoder(net, 0 if codes is None else len(values), 1.0)
    if codes is not None:
        model.table.data.copy_(codes)
    w = torch.as_tensor(weights, dtype=torch.float32)[:, None].expand(-1, values.shape[2])
    batch = Batch(torch.arange(len(values)), net.functions(points), w)
    net.zero_grad()
    value = loss_of(1e-6)(model, batch, torch.as_tensor(values))
    value.backward()
    return float(value), [p.grad.clone() for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("table", [False, True])
def test_missing_values_touch_neither_loss_nor_gradient(table):
    """Check A5."""
    net, (points, weights, fields) = tiny(), tiny_data()
    codes = torch.randn(len(fields), net.n) if table else None
    hole = np.zeros(len(points), dtype=bool)
    hole[10:40] = True
    gappy = np.where(hole[None, :, None], np.nan, fields).astype(np.float32)
    value, gradient = one_loss(net, points, weights, gappy, codes)
    less, expected = one_loss(net, points[~hole], weights[~hole], fields[:, ~hole], codes)
    wild, same = one_loss(net, points, np.where(hole, 0.0, weights), fields + 1e3 * hole[:, None],
                          codes)  # fmt: skip
    assert np.isfinite(value)
    assert value == pytest.approx(less, rel=1e-4)
    assert value == pytest.approx(wild, rel=1e-4)
    for found, first, second in zip(gradient, expected, same, strict=True):
        size = float(first.abs().max())
        np.testing.assert_allclose(found, first, atol=2e-3 * size)
        np.testing.assert_allclose(found, second, atol=2e-3 * size)


def test_constant_error_is_the_metric():
    """Check A5: a field that is off by e everywhere has the error e, whatever the weights."""
    net, (points, weights, _) = tiny(), tiny_data()
    codes = torch.randn(3, net.n)
    with torch.no_grad():
        fields = net(codes, net.functions(points)).numpy() + 0.25
    value, _ = one_loss(net, points, weights, fields, codes)
    assert value**0.5 == pytest.approx(0.25, rel=1e-5)


def test_gradient_at_solved_codes_is_that_of_the_least_misfit():
    net, (points, weights, fields) = tiny().double(), tiny_data()
    functions, w = net.functions(points), torch.as_tensor(weights)
    values = torch.as_tensor(fields, dtype=torch.float64)

    def least():
        return float(encode(net, functions, values, w, noise=1e-9).misfit.mean())

    model = AutoDecoder(net, 0, 1.0)
    batch = Batch(torch.arange(len(values)), functions, w[:, None].expand(-1, 2))
    loss_of(1e-9)(model, batch, values).backward()
    weight = net.trunk_weight
    for place in ((0, 1, 2), (2, 3, 4)):
        with torch.no_grad():
            weight[place] += 1e-5
            high = least()
            weight[place] -= 2e-5
            low = least()
            weight[place] += 1e-5
        assert float(weight.grad[place]) == pytest.approx((high - low) / 2e-5, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("codes", ["solve", "adam"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(codes, tmp_path):
    points, weights, fields = tiny_data()
    training = SinrTraining(steps=8, fields=5, points=20, every=4, codes=codes)
    whole, parts = tiny(), tiny()
    once = train_sinr(whole, fields, points, weights, training=training, folder=tmp_path / "a")
    folder = tmp_path / "b"
    train_sinr(parts, fields, points, weights, training=training, folder=folder, until=4)
    again = tiny()
    twice = train_sinr(
        again, lambda rows: fields[rows], points, weights, training=training, folder=folder,
        count=len(fields),
    )  # fmt: skip
    np.testing.assert_array_equal(once.codes, twice.codes)
    for first, second in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    with pytest.raises(ParameterError, match="other settings"):
        train_sinr(
            tiny(), fields, points, weights, training=training, folder=folder, seed=1
        )  # fmt: skip


def test_lazy_fields_are_read_in_windows_and_all_of_them():
    points, weights, fields = tiny_data(40)
    training = SinrTraining(fields=10, window=5, points=7)
    read = []

    def some(rows):
        read.append(rows)
        return fields[rows]

    areas = np.repeat(weights[:, None], 2, axis=1)
    batches = FieldBatches(some, 40, tiny(), points, areas, training, seed=3)
    seen = set()
    for step in range(4):
        batch, values = batches[step]
        rows = batch.rows.numpy()
        assert values.shape == (10, 7, 2)
        assert np.all(np.diff(rows) > 0)
        assert all(np.all(np.diff(part) == 1) for part in rows.reshape(2, 5))
        seen |= set(rows)
    assert seen == set(range(40))
    first, again = batches[2], batches[2]
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[0].functions, again[0].functions)


def test_drawn_points_give_the_weighted_mean():
    points, weights, fields = tiny_data(4)
    areas = np.stack([weights, weights * (points[:, 1] > 0.0)], axis=1)
    areas /= areas.sum(axis=0)
    training = SinrTraining(fields=4, points=40)
    batches = FieldBatches(fields, 4, tiny(), points, areas, training, seed=0)
    sums = np.zeros((2, 2))
    for step in range(400):
        batch, values = batches[step]
        sums[0] += (batch.weights[None] * values**2).sum((0, 1)).numpy() / 4
        sums[1] += batch.weights.sum(0).numpy()
    expected = (areas * fields.astype(float) ** 2).sum(axis=(0, 1)) / 4
    np.testing.assert_allclose(sums[0] / sums[1], expected, rtol=0.05)


@pytest.mark.parametrize("options", [{}, {"common": 3}, {"shared": True}])
def test_standard_codes_are_of_the_same_fields(options):
    net, (points, _, _) = tiny(**options), tiny_data()
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(net.n, net.n, generator=generator)
    codes = 1.0 + torch.randn(200, net.n, generator=generator) @ mixing
    functions = net.functions(points)
    with torch.no_grad():
        before = net(codes, functions)
        found = standardise(net, codes)
        after = net(found, functions)
    np.testing.assert_allclose(after, before, atol=1e-4)
    if "shared" in options:
        found = found.reshape(400, 4)
    width = found.shape[1] if "shared" in options else 4
    np.testing.assert_allclose(found.mean(0), 0.0, atol=1e-5)
    cov = np.cov(found.numpy().T, bias=True)
    np.testing.assert_allclose(cov[:width, :width], np.eye(width), atol=1e-4)


@pytest.mark.parametrize("joint", [False, True])
def test_best_maps_are_the_components_of_projected_fields(joint):
    """Against the singular values of fields projected on the span of the rows, dense."""
    net = tiny(**({"code": 0, "common": 6} if joint else {})).double()
    points, weights, fields = tiny_data(30)
    areas = np.repeat(weights[:, None], 2, axis=1) * np.array([1.0, 0.4])
    batches = FieldBatches(fields, 30, net, points, areas, SinrTraining(), seed=0)
    assert best_maps(net, batches, flat=1e-12)
    functions = net.functions(points)
    rows, constant = (p.detach().numpy() for p in net.sweep(functions))
    found = encode(
        net, functions, torch.as_tensor(fields).double(), torch.as_tensor(areas)
    ).misfit.numpy()  # fmt: skip
    root = np.sqrt(areas)
    u, size, _ = np.linalg.svd(root[:, :1] * rows, full_matrices=False)
    q = u[:, size > 1e-6 * size[0]]
    left = (fields - constant[:, None]) * root
    inside = np.einsum("npk,pq->nkq", left, q)
    outside = (left**2).sum() - (inside**2).sum()
    blocks = [inside.reshape(30, -1)] if joint else [inside[:, 0], inside[:, 1]]
    for block in blocks:
        values = np.linalg.svd(block - block.mean(axis=0), compute_uv=False)
        outside += (values[net.reads :] ** 2).sum()
    np.testing.assert_allclose(found.mean(), outside / 30 / areas.sum(), rtol=1e-4)


def test_turned_fields_leave_no_preferred_longitude():
    """With a share of 1 the modes of each order come as cosine and sine alike."""
    points, weights, fields = tiny_data(16)
    areas = np.repeat(weights[:, None], 2, axis=1)
    turned = fields.reshape(16, 12, 6, 2)[:, np.roll(np.arange(12), 3)].reshape(fields.shape)
    errors = []
    for share in (0.0, 1.0):
        net = tiny(width=16, depth=3).double()
        training = SinrTraining(turned=share)
        batches = FieldBatches(fields[:3], 3, net, points, areas, training, seed=0)
        assert best_maps(net, batches)
        both = torch.as_tensor(np.stack([fields[:3], turned[:3]])).double()
        prior = CodePrior(torch.zeros(net.n), torch.ones(net.n))
        codes = [
            encode(net, net.functions(points), part, torch.as_tensor(areas), prior=prior,
                   noise=1e-3).misfit.mean() for part in both
        ]  # fmt: skip
        errors.append([float(code) for code in codes])
    (own, other), (own_turned, other_turned) = errors
    assert other > 2.0 * own
    assert other_turned < 0.8 * other
    assert own_turned > own
    drawn = FieldBatches(fields, 16, tiny(), points, areas, SinrTraining(turned=1.0), seed=0)
    plain = FieldBatches(fields, 16, tiny(), points, areas, SinrTraining(), seed=0)
    assert not torch.equal(drawn[0][0].functions, plain[0][0].functions)
    assert torch.equal(drawn[0][1], plain[0][1])
    with pytest.raises(ParameterError, match="turned"):
        SinrTraining(turned=0.5, codes="adam")


def test_settings_that_cannot_work_are_refused():
    points, weights, fields = tiny_data()
    with pytest.raises(UnknownNameError, match="solve"):
        SinrTraining(codes="slove")
    with pytest.raises(ParameterError, match="positive rate"):
        SinrTraining(rate=0.0)
    with pytest.raises(ParameterError, match="fields have shape"):
        train_sinr(tiny(), fields[:, :5], points, weights)
    with pytest.raises(ParameterError, match="at least 2 fields"):
        train_sinr(tiny(), fields[:1], points, weights)
    with pytest.raises(ParameterError, match="not all 0"):
        train_sinr(tiny(), fields, points, 0.0 * weights)
    with pytest.raises(ParameterError, match="affine"):
        train_sinr(
            tiny(modulation="product"), fields, points, training=SinrTraining(codes="solve")
        )  # fmt: skip


def test_a_decoder_that_is_not_affine_learns_with_a_table():
    points, weights, fields = tiny_data(24)
    training = SinrTraining(
        steps=150, rate=2e-2, code_rate=5e-2, fields=24, points=0, every=50, average=0.9
    )
    net = tiny(modulation="product")
    trained = train_sinr(net, fields, points, weights, training=training)
    with torch.no_grad():
        found = net(torch.as_tensor(trained.codes), net.functions(points)).numpy()
    assert rms(found - fields, weights) < 0.8 * rms(fields, weights)

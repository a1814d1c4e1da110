"""The SINR decoder against the recurrence as the source writes it, autograd and its band limit."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde._core.errors import ParameterError, UnknownNameError  # noqa: E402
from xr_spde.nets.harmonics import spherical_harmonics, triangle  # noqa: E402
from xr_spde.nets.sinr import Sinr, SinrSettings  # noqa: E402

SMALL = {"variables": 2, "code": 5, "depth": 3, "order": 2, "width": 6}
VARIANTS = [
    {},
    {"skip": False},
    {"shared": True},
    {"common": 3},
    {"code": 0, "common": 4},
    {"bank": "rotational"},
    {"bank": "fourier"},
    {"bank": "fourier", "periodic": (True, False)},
    {"bank": "spline", "order": 3, "periodic": (True, False)},
    {"levels": 2},
    {"bank": "spline", "levels": 1, "common": 2, "shared": True},
]
MODULATED = [(v, m) for v in VARIANTS for m in ("shift", "product")]


def build(seed=0, **options):
    torch.manual_seed(seed)
    net = Sinr(SinrSettings(**SMALL | options)).double().requires_grad_(False)
    if not net.affine:
        net.gain_weight.normal_(std=0.3)
    return net


def points_of(net, count=30, seed=0):
    rng = np.random.default_rng(seed)
    s = net.settings
    points = rng.uniform(-1, 1, (count, 3 if s.levels else 2))
    if s.bank in ("spherical", "rotational"):
        points[:, 0] = np.pi * (points[:, 0] + 1.0)
        points[:, 1] = np.arcsin(points[:, 1])
    return points


def codes_of(net, count, seed=0):
    return torch.randn(count, net.n, generator=torch.Generator().manual_seed(seed)).double()


def recurrence(net, codes, functions):
    """Layer by layer, variable by variable, as the source has it."""
    fields = []
    filters = [
        f @ u.T + b for f, u, b in zip(functions, net.filter_weight, net.filter_bias, strict=True)
    ]
    for code in codes:
        row = []
        for k in range(net.settings.variables):
            z, m = code[net.columns(k)], 0 if net.settings.shared else k
            states = [filters[0]]
            for i in range(net.settings.depth):
                inner = states[i] @ net.trunk_weight[i].T + net.trunk_bias[i]
                inner = inner + net.shift_weight[i, m] @ z + net.shift_bias[i, m]
                gain = 1.0 if net.affine else 1.0 + net.gain_weight[i, m] @ z
                states.append(inner * filters[i + 1] * gain)
            read = states if net.settings.skip else states[-1:]
            pairs = zip(read, net.read_weight, net.read_bias, strict=True)
            row.append(sum(s @ w + c for s, w, c in pairs))
        fields.append(torch.stack(row, -1))
    return torch.stack(fields)


@pytest.mark.parametrize(("options", "modulation"), MODULATED)
def test_fields_are_those_of_the_recurrence(options, modulation):
    net = build(**options, modulation=modulation)
    functions = net.functions(points_of(net))
    for count in (2, 40):  # few and many snapshots go different ways
        codes = codes_of(net, count)
        expected = recurrence(net, codes, functions)
        torch.testing.assert_close(net(codes, functions), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("options", "modulation"), MODULATED)
def test_jacobian_is_that_of_autograd(options, modulation):
    net = build(**options, modulation=modulation)
    functions, code = net.functions(points_of(net, 7)), codes_of(net, 1)[0]
    full = torch.autograd.functional.jacobian(lambda z: net(z[None], functions)[0], code)
    values, blocks = net.jacobian(code, functions)
    torch.testing.assert_close(values, net(code[None], functions)[0])
    for k in range(net.settings.variables):
        columns = net.columns(k)
        torch.testing.assert_close(full[:, k][:, columns], blocks[k], rtol=1e-11, atol=1e-13)
        others = np.setdiff1d(np.arange(net.n), columns)
        assert not full[:, k][:, others].any()


@pytest.mark.parametrize("modulation", ["shift", "product"])
def test_gradient_is_a_finite_difference(modulation):
    net = build(modulation=modulation)
    functions, code = net.functions(points_of(net, 9)), codes_of(net, 1)[0]
    way, step = codes_of(net, 1, seed=4)[0], 1e-5
    difference = net((code + step * way)[None], functions) - net(
        (code - step * way)[None], functions
    )
    _, blocks = net.jacobian(code, functions)
    along = torch.einsum("kpw,kw->pk", blocks, net.split(way[None])[0])
    assert (difference[0] / (2 * step) - along).abs().max() < 1e-6 * along.abs().max()


def test_training_reaches_every_weight():
    net = build(modulation="product").requires_grad_(True)
    net(codes_of(net, 3), net.functions(points_of(net))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_parameters_of_the_source():
    with torch.device("meta"):
        net = Sinr(SinrSettings(variables=2))
        first = Sinr(SinrSettings(variables=2, shared=True, width=256))
    assert sum(p.numel() for p in net.parameters()) == 565_641
    assert net.n == 400
    # first release: (L + 1)(18 h + h + 1) - (L + 1) h + L (h^2 + h + d h + h)
    assert sum(p.numel() for p in first.parameters()) == 9 * (18 * 256 + 257) + 8 * 256 * (
        256 + 202
    )


def test_start_is_that_of_linear_layers():
    torch.manual_seed(0)
    net = Sinr(SinrSettings(variables=2, code=50))
    for weight, bias, fan in [
        (net.filter_weight, net.filter_bias, 17),
        (net.trunk_weight, net.trunk_bias, 128),
        (net.shift_weight, net.shift_bias, 50),
    ]:
        for tensor in (weight, bias):
            assert 0.98 / fan**0.5 < tensor.abs().max() <= 1 / fan**0.5


def test_fields_are_band_limited():
    net = build()
    x, weights = np.polynomial.legendre.leggauss(32)
    longitude = 2 * np.pi * np.arange(64) / 64
    points = np.stack(np.meshgrid(longitude, np.arcsin(x), indexing="ij"), -1).reshape(-1, 2)
    field = net(codes_of(net, 1), net.functions(points))[0, :, 0].numpy()
    pairs = triangle(24)
    weights = np.tile(weights, 64) * 2 * np.pi / 64
    energy = (spherical_harmonics(points, pairs) @ (weights * field)) ** 2
    above = pairs[:, 0] > 14  # (L + 1)(D + L / 2) with L = 3, D = 2
    assert energy[above].sum() < 1e-24 * energy.sum()
    assert energy[pairs[:, 0] == 14].sum() > 1e-24 * energy.sum()


@pytest.mark.parametrize(("modulation", "degree"), [("shift", 1), ("product", 4)])
def test_along_a_line_of_codes_fields_are_a_polynomial(modulation, degree):
    net = build(modulation=modulation)
    functions, way = net.functions(points_of(net, 5)), codes_of(net, 1)
    t = np.linspace(-1, 1, 15)
    values = np.stack([net(s * way, functions)[0].numpy().ravel() for s in t])

    def residual(power):
        fit = np.polynomial.legendre.legfit(t, values, power)
        return np.abs(np.polynomial.legendre.legval(t, fit).T - values).max()

    assert residual(degree) < 1e-12
    assert residual(degree - 1) > 1e-6


@pytest.mark.parametrize("bank", ["spherical", "rotational"])
def test_the_seam_and_the_poles_are_no_places(bank):
    net = build(bank=bank)
    codes, points = codes_of(net, 2), points_of(net)
    here = net(codes, net.functions(points))
    there = net(codes, net.functions(points + np.array([2 * np.pi, 0.0])))
    assert (here - there).abs().max() < 1e-12
    pole = np.stack([np.linspace(0, 6, 9), np.full(9, 0.5 * np.pi)], 1)
    values = net(codes, net.functions(pole))
    assert (values - values[:, :1]).abs().max() < 1e-10


@pytest.mark.parametrize("modulation", ["shift", "product"])
def test_a_value_does_not_know_the_other_points(modulation):
    net = build(modulation=modulation)
    codes, points = codes_of(net, 3), points_of(net, 50)
    some = [3, 17, 18, 40]
    whole = net(codes, net.functions(points))[:, some]
    torch.testing.assert_close(net(codes, net.functions(points[some])), whole, rtol=0, atol=1e-14)


def test_rotated_fields_have_a_network_too():
    """U s(R p) = U' s(p) with all m of each l, and not with the bank of the source."""
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))

    def residual(bank):
        net = build(bank=bank, depth=2)
        points = points_of(net, 400)
        east, north = points.T
        position = np.stack(
            [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], 1
        )
        x, y, z = (position @ rotation.T).T
        turned = np.stack([np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1))], 1)
        codes = codes_of(net, 1)
        expected = net(codes, net.functions(turned))
        here, there = net.functions(points), net.functions(turned)
        maps = torch.linalg.lstsq(here, there).solution  # s(R p) = s(p) map, if there is one
        net.filter_weight.copy_(net.filter_weight @ maps.mT)
        return (net(codes, here) - expected).abs().max() / expected.std()

    assert residual("rotational") < 1e-10
    assert residual("spherical") > 1e-3


def test_single_precision_is_close_to_double():
    net = build(**{"depth": 8, "order": 8, "width": 64})
    points, codes = points_of(net), codes_of(net, 4)
    double = net(codes, net.functions(points))
    single = net.float()(codes.float(), net.functions(points))
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 1e-5 * double.std()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 0}, "depth=0"),
        ({"code": 0}, "code=0 and common=0"),
        ({"code": -1}, "code=-1"),
        ({"levels": 1.5}, "levels=1.5"),
        ({"periodic": (True,)}, "periodic"),
    ],
)
def test_settings_that_make_no_network(options, words):
    with pytest.raises(ParameterError, match=words):
        SinrSettings(**SMALL | options)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean 'spline'"):
        SinrSettings(bank="splines")
    with pytest.raises(UnknownNameError, match="modulation"):
        SinrSettings(modulation="scale")


def test_inputs_that_do_not_fit():
    net = build()
    functions = net.functions(points_of(net))
    with pytest.raises(ParameterError, match=r"give \(snapshots, 10\)"):
        net(torch.zeros(2, 11).double(), functions)
    with pytest.raises(ParameterError, match="no modes"):
        build(modulation="product").modes(functions)
    with pytest.raises(ParameterError, match=r"give \(points, 3\)"):
        build(levels=1).functions(np.zeros((4, 2)))
    with pytest.raises(ParameterError, match=r"reach 1.5: coordinates of a plane"):
        build(bank="fourier").functions([[1.5, 0.0]])
    with pytest.raises(ParameterError, match="heights"):
        build(levels=1).functions([[0.0, 0.0, 500.0]])

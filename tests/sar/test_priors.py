"""Prior of parameter maps: ranges, frequencies and moments of the released generator (A8)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields.closed_form import torus_covariance
from xr_spde.sar import priors
from xr_spde.sar.priors import draw_parameters, draw_test_case

DOMAIN = priors._DOMAINS


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Replace the patterns by ones that count their calls."""
    counts = dict.fromkeys(priors.PATTERNS, 0)

    def wrap(name, pattern):
        def call(*args):
            counts[name] += 1
            return pattern(*args)

        return call

    table = {name: wrap(name, pattern) for name, pattern in priors.PATTERNS.items()}
    monkeypatch.setattr(priors, "PATTERNS", table)
    return counts


@pytest.mark.slow
def test_a8_moments_ranges_and_frequencies(monkeypatch):
    counts = counted(monkeypatch)
    rng = np.random.default_rng(8)
    probabilities = priors._probabilities("release", None)
    draws, sums = 2000, {name: np.zeros((2000, 2)) for name in ("kappa2", "theta", "rho")}
    for k in range(draws):
        maps = priors._draw_release((48, 72), rng, probabilities, 0.5)
        assert maps["kappa2"].min() >= 5e-5
        assert maps["kappa2"].max() <= 2.0001
        assert maps["rho"].min() >= 1.0 - 1e-12
        assert maps["rho"].max() <= 7.0 + 1e-12
        assert maps["theta"].min() >= -0.08
        assert maps["theta"].max() <= 3.08
        maps["kappa2"] = np.log(maps["kappa2"])
        maps["theta"] = np.pi / 2 - maps["theta"]
        for name, value in maps.items():
            sums[name][k] = value.mean(), value.var()
    shares = []
    expected = {"kappa2": (-1.3, 1.83), "theta": (0.12, 0.735), "rho": (3.9, 1.48)}
    for name, (mean, sd) in expected.items():
        means, variances = sums[name].T
        total = variances.mean() + means.var()
        assert means.mean() == pytest.approx(mean, abs=0.1)
        assert np.sqrt(total) == pytest.approx(sd, rel=0.05)
        shares.append(variances.mean() / total)
    assert np.mean(shares) == pytest.approx(0.356, abs=0.02)
    observed = np.array(list(counts.values()))
    share = np.array([1, 1, 2, 2, 2, 2, 1, 4]) / 15
    assert chisquare(observed, share * observed.sum()).pvalue > 1e-3
    # three parameters, half of them mixtures of two patterns
    assert observed.sum() == pytest.approx(4.5 * draws, rel=0.03)


GRID = np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 40), indexing="ij")
Y, X = GRID


@pytest.mark.parametrize("pattern", priors.PATTERNS)
@pytest.mark.parametrize("parameter", DOMAIN)
def test_every_pattern_stays_in_its_domain(pattern, parameter):
    domain = DOMAIN[parameter]
    slack = {"kappa2": 5e-5, "theta": 0.08, "rho": 0.0}[parameter]
    rng = np.random.default_rng(1)
    for _ in range(20 if pattern == "gaussian" else 200):
        value = priors.PATTERNS[pattern](domain, X, Y, rng)
        assert value.shape == (30, 40)
        assert value.min() >= domain.lower - slack - 1e-12
        assert value.max() <= domain.upper + slack + 1e-12


def test_shapes_of_patterns():
    rng = np.random.default_rng(2)
    rho = DOMAIN["rho"]
    taper = priors.PATTERNS["taper"](rho, X, Y, rng)
    assert (taper == taper[:1]).all()
    # the low value lies in the east
    assert taper[0, 0] >= taper[0, -1]
    bump = priors.PATTERNS["bump"](rho, X, Y, rng)
    np.testing.assert_allclose(bump, bump[::-1, ::-1])
    assert np.ptp(bump) > 0.05
    for _ in range(10):
        sine = priors.PATTERNS["sine"](rho, X, Y, rng)
        assert (sine == sine[:1]).all() or (sine == sine[:, :1]).all()
    coast = priors.PATTERNS["coastline"](rho, X, Y, rng)
    # the high value lies north of the coast, up to the jitter of 0.01
    assert (coast[-1] >= coast[0] - 0.3).all()
    assert priors.PATTERNS["constant"](rho, X, Y, rng).std() == 0.0


def test_surface_is_a_wendland_sum_on_a_sar_lattice(monkeypatch):
    captured = {}

    class Factor(priors.SuperLUFactor):
        def solve(self, b):
            captured["nodes"] = super().solve(b)
            return captured["nodes"]

    monkeypatch.setattr(priors, "SuperLUFactor", Factor)
    surface = priors._surface(X, Y, np.random.default_rng(3))
    size = int(np.sqrt(captured["nodes"].size))
    step = 2.0 / (size - 11)
    nodes = -1.0 - 5 * step + step * np.arange(size)
    expected = np.zeros(X.shape)
    for row in range(size):
        for column in range(size):
            d = np.hypot(Y - nodes[row], X - nodes[column]) / (2.5 * step)
            basis = np.where(d < 1, (1 - d) ** 6 * (35 * d**2 + 18 * d + 3) / 3, 0.0)
            expected += captured["nodes"].reshape(size, size)[row, column] * basis
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(surface, expected, atol=1e-12)


def test_wendland_values_of_the_release():
    d = np.array([0.0, 1.0, np.sqrt(2.0), 2.0]) / 2.5
    basis = (1 - d) ** 6 * (35 * d**2 + 18 * d + 3) / 3
    np.testing.assert_allclose(basis, [1.0, 0.2457, 0.0545, 0.00085], atol=6e-5)


def test_user_convention_of_the_angle(monkeypatch):
    release = {}
    original = priors._draw_release

    def keep(*args):
        release.update(original(*args))
        return release

    monkeypatch.setattr(priors, "_draw_release", keep)
    for seed in range(20):
        kappa2, rho, theta = draw_parameters((9, 11), rng=np.random.default_rng(seed))
        psi = np.pi / 2 - release["theta"]
        np.testing.assert_allclose(np.exp(2j * theta), np.exp(-2j * psi), atol=1e-12)
        assert ((theta >= -np.pi / 2) & (theta < np.pi / 2)).all()
        assert (kappa2 > 0).all()
        assert ((rho >= 1) & (rho <= 7)).all()


def test_rotated_prior_has_every_direction():
    rng = np.random.default_rng(4)
    middle = [
        draw_parameters((4, 4), rng=rng, preset="rotated", pattern_weights={"constant": 1})[2][0, 0]
        for _ in range(2000)
    ]
    counts, _ = np.histogram(middle, bins=12, range=(-np.pi / 2, np.pi / 2))
    assert counts.sum() == 2000
    assert chisquare(counts).pvalue > 1e-3


def test_weights_and_stacking_can_be_chosen(monkeypatch):
    counts = counted(monkeypatch)
    for seed in range(20):
        draw_parameters(
            (5, 6),
            rng=np.random.default_rng(seed),
            pattern_weights={"sine": 1.0, "bump": 3.0},
            stack_probability=1.0,
        )
    assert sum(counts.values()) == 120
    assert counts["sine"] + counts["bump"] == 120
    assert counts["bump"] > counts["sine"] > 0
    for value in draw_parameters((5, 6), rng=np.random.default_rng(0), preset="stationary"):
        assert np.ptp(value) == pytest.approx(0.0, abs=1e-12)


class TestCase:
    """Fields with known parameters."""

    def test_shapes_and_reproducibility(self):
        fields, kappa2, rho, theta = draw_test_case((20, 30), 7, seed=3)
        assert fields.shape == (7, 20, 30)
        assert fields.dtype == np.float64
        assert kappa2.shape == rho.shape == theta.shape == (20, 30)
        again = draw_test_case((20, 30), 7, seed=3)
        for one, two in zip((fields, kappa2, rho, theta), again, strict=True):
            np.testing.assert_array_equal(one, two)
        fewer = draw_test_case((20, 30), 5, seed=3)[0]
        np.testing.assert_array_equal(fewer, fields[:5])
        assert not np.array_equal(draw_test_case((20, 30), 7, seed=4)[0], fields)

    def test_law_is_that_of_the_parameters(self):
        case = draw_test_case((24, 24), 3000, seed=11, preset="stationary", buffer=10)
        fields, kappa2, rho, theta = case
        centre = fields[:, 12, 12]
        cov = torus_covariance((256, 256), kappa2=kappa2[0, 0], rho=rho[0, 0], theta=theta[0, 0])
        assert fields.var() == pytest.approx(cov[0, 0], rel=0.03)
        j, i = np.mgrid[:24, :24] - 12
        empirical = np.tensordot(centre, fields, axes=(0, 0)) / 3000
        np.testing.assert_allclose(empirical, cov[j, i], atol=5 * cov[0, 0] / np.sqrt(3000))

    def test_kept_fields_do_not_wrap(self):
        case = draw_test_case((20, 30), 400, seed=1, pattern_weights={"constant": 1.0})
        fields = case[0]
        fields = fields / fields.std(axis=0)
        seam = (fields[:, :, 0] * fields[:, :, -1]).mean()
        inside = (fields[:, :, 0] * fields[:, :, 1]).mean()
        assert inside > 0.4
        assert seam < 0.5 * inside

    def test_bad_arguments(self):
        with pytest.raises(ParameterError, match="replicates is 0"):
            draw_test_case((5, 6), 0, seed=0)
        rng = np.random.default_rng(0)
        with pytest.raises(ParameterError, match=r"\(1, 6\)"):
            draw_parameters((1, 6), rng=rng)
        with pytest.raises(UnknownNameError, match="preset 'paper'"):
            draw_parameters((5, 6), rng=rng, preset="paper")
        with pytest.raises(UnknownNameError, match="pattern 'spiral'"):
            draw_parameters((5, 6), rng=rng, pattern_weights={"spiral": 1.0})
        with pytest.raises(ParameterError, match="positive sum"):
            draw_parameters((5, 6), rng=rng, pattern_weights={"sine": 0.0})
        with pytest.raises(ParameterError, match="stack_probability"):
            draw_parameters((5, 6), rng=rng, stack_probability=1.5)

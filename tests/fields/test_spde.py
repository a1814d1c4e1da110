"""The discretised operator: orders of accuracy, ellipticity, conservation (checks A1 to A3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gamma as gamma_function
from scipy.special import kv

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spde import ADVECTIONS, SCHEMES, SpdeOperator, SpdeParameters
from xr_spde.solvers.grid_factor import GridFactor


def built(shape, *, scheme="flux", advection="centred", mesh=None, **parameters):
    """Matrix on a mesh of unit spacing and zero boundaries."""
    mesh = mesh or Mesh.of(shape, boundary="dirichlet")
    found = SpdeParameters.of(shape, land=mesh.land, **parameters)
    operator = SpdeOperator(mesh, scheme=scheme, advection=advection)
    return operator.matrix(found.coefficients())


def smooth_case(n, *, vary):
    """A field, its parameters and the exact result on the unit square, not square cells."""
    y, x = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, 2 * n - 1), indexing="ij")
    dy, dx = 1 / (n - 1), 1 / (2 * n - 2)
    e = 0.5 * vary
    h11, h22, h12 = 1 + e * np.sin(2 * x + y), 1.5 + e * np.cos(x + y), 0.4 + 0.5 * e * np.sin(x)
    u, ux, uy = np.sin(2 * x + 3 * y), 2 * np.cos(2 * x + 3 * y), 3 * np.cos(2 * x + 3 * y)
    uxx, uyy, uxy = -4 * u, -9 * u, -6 * u
    flux = h11 * uxx + 2 * e * np.cos(2 * x + y) * ux + h22 * uyy - e * np.sin(x + y) * uy
    flux += 2 * h12 * uxy + 0.5 * e * np.cos(x) * uy
    # v = (1, s) and gamma, beta that give this tensor: beta s = h12, gamma = h11 - beta
    s = ((h22 - h11) + np.sqrt((h22 - h11) ** 2 + 4 * h12**2)) / (2 * h12)
    beta = h12 / s
    tensor = {"gamma": h11 - beta, "beta": beta, "v1": 1.0, "v2": s}
    return (dx, dy), u, (ux, uy), flux, tensor


def error(n, *, scheme, advection, vary, m):
    (dx, dy), u, (ux, uy), flux, tensor = smooth_case(n, vary=vary)
    mesh = Mesh.of(u.shape, dx=dx, dy=dy)
    m1, m2 = m
    matrix = built(u.shape, mesh=mesh, scheme=scheme, advection=advection, kappa=0.7, m1=m1,
                   m2=m2, **tensor)  # fmt: skip
    exact = 0.49 * u + m1 * ux + m2 * uy - flux
    missed = (matrix @ u.ravel()).reshape(u.shape) - exact
    return np.abs(missed[3:-3, 3:-3]).max()


@pytest.mark.parametrize(
    ("scheme", "vary", "least"), [("flux", 1, 1.9), ("flux", 0, 1.9), ("frozen", 0, 1.9)]
)
def test_order_of_diffusion(scheme, vary, least):
    kw = {"scheme": scheme, "advection": "centred", "vary": vary, "m": (0.0, 0.0)}
    assert np.log2(error(17, **kw) / error(33, **kw)) >= least


def test_frozen_tensor_is_inconsistent_where_it_varies():
    kw = {"scheme": "frozen", "advection": "centred", "vary": 1, "m": (0.0, 0.0)}
    assert error(33, **kw) > 0.95 * error(17, **kw)
    assert error(33, **kw) > 20 * error(33, **kw | {"scheme": "flux"})


@pytest.mark.parametrize(
    ("advection", "least"), [("centred", 1.9), ("upwind-1", 0.95), ("upwind-3", 2.8)]
)
@pytest.mark.parametrize("m", [(3.0, -2.0), (-3.0, 0.0), (0.0, 4.0)])
def test_order_of_advection(advection, least, m):
    """Also with spacings that differ in x and y: dx must not stand in the entries of y."""

    def advected(n):
        (dx, dy), u, (ux, uy), *_ = smooth_case(n, vary=0)
        mesh = Mesh.of(u.shape, dx=dx, dy=dy)
        operator = SpdeOperator(mesh, advection=advection)
        still, moved = (
            operator.matrix(SpdeParameters.of(u.shape, kappa=1.0, m1=a, m2=b).coefficients())
            for a, b in ((0.0, 0.0), m)
        )
        missed = ((moved - still) @ u.ravel()).reshape(u.shape) - m[0] * ux - m[1] * uy
        return np.abs(missed[3:-3, 3:-3]).max()

    assert np.log2(advected(33) / advected(65)) >= least


def test_positive_advection_moves_features_toward_increasing_coordinates():
    u = np.exp(-0.05 * (np.arange(40) - 15.0) ** 2) * np.ones((5, 1))
    matrix = built(u.shape, mesh=Mesh.of(u.shape), kappa=1e-6, m1=1.0, gamma=1e-6)
    moved = u - 0.5 * (matrix @ u.ravel()).reshape(u.shape)
    x = np.arange(40)
    assert (moved[2] @ x) / moved[2].sum() == pytest.approx(15.5, abs=1e-3)


@pytest.mark.parametrize("beta", [5.0, 25.0])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_tilted_tensors_stay_elliptic(beta, scheme, side):
    """Fault of the released code: the cross term with the other sign, and twice as large."""
    v = np.sqrt(0.5)
    matrix = built((16, 16), scheme=scheme, kappa=0.33, beta=beta, v1=v, v2=side * v).toarray()
    assert np.linalg.eigvalsh(0.5 * (matrix + matrix.T)).min() > 0.33**2
    centre, north_east, south_east = 8 * 16 + 8, 9 * 16 + 9, 7 * 16 + 9
    assert matrix[centre, north_east] == pytest.approx(-side * beta / 4)
    assert matrix[centre, south_east] == pytest.approx(side * beta / 4)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["neumann", "dirichlet", "periodic"]),
       st.sampled_from(["neumann", "dirichlet"]))  # fmt: skip
def test_flux_scheme_is_self_adjoint_and_at_least_kappa2(seed, boundary, coast):
    rng = np.random.default_rng(seed)
    shape = (6, 7)
    mesh = Mesh.of(shape, dx=rng.uniform(0.5, 2.0, (6, 1)), dy=1.3, boundary=boundary,
                   land=rng.random(shape) < 0.3, coast=coast)  # fmt: skip
    parts = {"gamma": rng.uniform(0.01, 2.0, shape), "beta": 10.0 * rng.random(shape)}
    parts |= {name: rng.standard_normal(shape) for name in ("v1", "v2")}
    matrix = built(shape, mesh=mesh, kappa=0.5, **parts).toarray()
    weighed = mesh.area[:, None] * matrix
    np.testing.assert_allclose(weighed, weighed.T, atol=1e-12 * np.abs(weighed).max())
    water = mesh.sea > 0
    root = np.sqrt(mesh.area[water])
    inner = weighed[np.ix_(water, water)] / root / root[:, None]
    assert np.linalg.eigvalsh(inner).min() > 0.25 - 1e-9
    assert not weighed[~water].any()
    if "dirichlet" not in (boundary, coast):
        # no flux through edges and coasts: a constant only decays
        np.testing.assert_allclose(matrix @ mesh.sea, 0.25 * mesh.sea, atol=1e-11)


@pytest.mark.parametrize("advection", ADVECTIONS)
def test_land_is_a_barrier_to_every_scheme(advection):
    land = np.zeros((6, 9), dtype=bool)
    land[:, 4] = True
    mesh = Mesh.of((6, 9), land=land)
    matrix = built((6, 9), mesh=mesh, advection=advection, kappa=1.0, m1=2.0, m2=-1.0, beta=3.0,
                   v1=1.0, v2=1.0).toarray()  # fmt: skip
    west = (np.arange(54) % 9) < 4
    assert not matrix[np.ix_(west, ~west)].any()
    assert not matrix[np.ix_(~west, west)].any()


@pytest.mark.parametrize(
    ("alpha", "kappa", "ratio", "slack", "correlation"),
    [(2, 0.1, 1.0075, 3e-3, 0.006), (2, 0.2, 1.023, 3e-3, 0.015), (2, 0.33, 1.048, 3e-3, 0.028),
     (4, 0.2, None, None, 0.002), (4, 0.33, None, None, 0.004)],
)  # fmt: skip
def test_matern_variance_and_correlation(alpha, kappa, ratio, slack, correlation):
    """The spatial field ``A^(alpha/2) x = tau W`` in the middle of a wide domain."""
    shape, nu = (129, 129), alpha - 1
    dx = 2.0  # a spacing of its own: the noise scales with the area of a cell
    mesh = Mesh.of(shape, dx=dx, dy=dx, boundary="dirichlet")
    operator = SpdeOperator(mesh)
    parameters = SpdeParameters.of(shape, kappa=kappa / dx)
    held = GridFactor(operator.matrix(parameters.coefficients()), shape=shape, boundary="plane")
    unit = np.zeros(129**2)
    centre = 64 * 129 + 64
    unit[centre] = 1.0
    for _ in range(alpha // 2):
        unit = held.solve_transposed(unit)
    for _ in range(alpha // 2):
        unit = held.solve(unit)
    covariance = unit / dx**2
    size = (kappa / dx) ** (2 * nu) * 4 * np.pi * gamma_function(nu + 1) / gamma_function(nu)
    variance = covariance[centre]
    if ratio is not None:
        assert variance * size == pytest.approx(ratio, abs=slack)
    lattice = {(2, 0.1): 8.01794, (2, 0.2): 2.03545, (2, 0.33): 0.766130,
               (4, 0.2): 415.516, (4, 0.33): 20.6844}  # fmt: skip
    # symbol of unit cells: kappa^2 and the differences both scale with dx^-2
    unit_cells = variance * dx**2 / dx ** (2 * alpha)
    assert unit_cells == pytest.approx(lattice[alpha, kappa], rel=1e-3)
    lags = np.arange(1, int(1.5 * np.sqrt(8 * nu) / kappa) + 1)
    h = kappa * lags
    exact = h**nu * kv(nu, h) * 2 ** (1 - nu) / gamma_function(nu)
    assert np.abs(covariance[centre + lags] / variance - exact).max() <= correlation


def test_gradient_by_coefficients_and_parameters():
    rng = np.random.default_rng(4)
    shape = (5, 6)
    mesh = Mesh.of(shape, dx=1.2, land=rng.random(shape) < 0.2)
    operator = SpdeOperator(mesh, advection="upwind-3")
    values = {"kappa": 0.5 + rng.random(shape), "gamma": 0.5 + rng.random(shape)}
    values |= {n: rng.standard_normal(shape) for n in ("m1", "m2", "v1", "v2")}
    values["beta"] = rng.random(shape)
    weight = rng.standard_normal((mesh.size, mesh.size))
    found = SpdeParameters.of(shape, **values)
    pattern = operator.on_pattern(np.ones(operator.matrix(found.coefficients()).nnz))
    by = found.pull_back(operator.pull_back(pattern.multiply(weight)))
    left, right = rng.standard_normal((2, mesh.size, 2))
    outer = operator.pull_back_outer(left, right)
    np.testing.assert_allclose(outer, operator.pull_back(pattern.multiply(left @ right.T)))
    for name, value in values.items():
        spot = np.unravel_index(np.argmax(~mesh.land), shape)
        steps = []
        for sign in (1, -1):
            moved = value.copy()
            moved[spot] += sign * 1e-6
            other = SpdeParameters.of(shape, **values | {name: moved})
            steps.append((operator.matrix(other.coefficients()).toarray() * weight).sum())
        assert by[name][spot] == pytest.approx((steps[0] - steps[1]) / 2e-6, rel=1e-6), name


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"kappa": -1.0}, "kappa has a minimum of -1"),
        ({"kappa": 1.0, "gamma": 0.0}, "not elliptic"),
        ({"kappa": 1.0, "beta": -2.0, "v1": 1.0}, "not elliptic"),
        ({"kappa": 1.0, "tau": np.nan}, "tau has 20 non-finite"),
        ({"kappa": np.ones((2, 4, 5)), "tau": np.ones((3, 4, 5))}, "steps"),
        ({"kappa": np.ones((3, 3))}, "kappa has shape"),
    ],
)
def test_impossible_parameters(given_values, message):
    with pytest.raises(ParameterError, match=message):
        SpdeParameters.of((4, 5), **given_values)


def test_unknown_schemes():
    mesh = Mesh.of((3, 3))
    with pytest.raises(UnknownNameError, match="frozen"):
        SpdeOperator(mesh, scheme="frozn")
    with pytest.raises(UnknownNameError, match="upwind-1"):
        SpdeOperator(mesh, advection="upwind")

"""Baselines and the score card."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from xr_spde._core.errors import MissingDependencyError, ParameterError, UnknownNameError
from xr_spde.fields.cells import Cells
from xr_spde.latent.baselines import baseline, optical_flow, transport
from xr_spde.latent.cases import make_case
from xr_spde.latent.compare import compare, displacement_of, endpoint_error, rmse, ssim
from xr_spde.latent.motion import Motion


def brute_ssim(a, b, data_range):
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for j in range(a.shape[0] - 6):
        for i in range(a.shape[1] - 6):
            p, q = a[j : j + 7, i : i + 7].ravel(), b[j : j + 7, i : i + 7].ravel()
            if not (np.isfinite(p).all() and np.isfinite(q).all()):
                continue
            cov = np.cov(p, q)
            top = (2 * p.mean() * q.mean() + c1) * (2 * cov[0, 1] + c2)
            values.append(top / (p.mean() ** 2 + q.mean() ** 2 + c1) / (cov[0, 0] + cov[1, 1] + c2))
    return np.mean(values)


def test_similarity_against_windows_one_by_one():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 14, 17))
    assert ssim(a, b, data_range=1.0) == pytest.approx(brute_ssim(a, b, 1.0))
    assert ssim(a, a, data_range=1.0) == pytest.approx(1.0)
    a[3, 4] = np.nan
    assert ssim(a, b, data_range=2.0) == pytest.approx(brute_ssim(a, b, 2.0))
    assert np.isnan(ssim(a * np.nan, b, data_range=1.0))


def test_scores_of_known_answers():
    case = make_case("swirl", 32)
    still = Motion(np.zeros((2, 32, 32)), Cells(32, 32), 0.0)
    card = compare(case.u0, case.u1, case.frame(0.5), methods=["field", "linear"], motion=still,
                   displacement=case.displacement, blend="area")  # fmt: skip
    assert card["field"].rmse == pytest.approx(card["linear"].rmse)
    assert card["linear"].rmse == pytest.approx(rmse((case.u0 + case.u1) / 2, case.frame(0.5)))
    assert card["field"].epe == pytest.approx(np.nanmean(np.hypot(*case.displacement)))
    assert np.isnan(card["linear"].epe)
    text = str(card).splitlines()
    assert text[0].split()[:3] == ["method", "RMSE", "SSIM"]
    assert text[2].startswith("linear")
    steady = Motion(np.ones((2, 32, 32)), Cells(32, 32), 0.0)
    np.testing.assert_allclose(displacement_of(steady), 1.0)
    assert endpoint_error(displacement_of(steady), np.zeros((2, 32, 32))) == pytest.approx(2**0.5)
    with pytest.raises(KeyError):
        card["dis"]


def test_linear_blend_stands_on_what_is_there():
    first, second = np.full((8, 8), 1.0), np.full((8, 8), 3.0)
    first[0], second[:, 0] = np.nan, np.nan
    frame, motion = baseline(first, second, 0.25, method="linear")
    assert motion is None
    assert np.isnan(frame[0, 0])
    assert (frame[0, 1], frame[1, 0], frame[1, 1]) == (3.0, 1.0, 1.5)


def test_methods_without_their_library_are_passed_over(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "ot", None)
    case = make_case("swirl", 32)
    card = compare(case.u0, case.u1, case.frame(0.5), methods=["linear", "dis", "transport"])
    assert card["dis"].note.startswith("passed over")
    assert "xr_spde[frames]" in str(card)
    assert np.isfinite(card["linear"].rmse)
    with pytest.raises(MissingDependencyError):
        baseline(case.u0, case.u1, 0.5, method="flow")


@pytest.mark.parametrize("flow", ["dis", "farneback", "dis-splat"])
def test_flows_follow_a_drift(flow):
    pytest.importorskip("cv2")
    case = make_case("lead_open", seed=100)
    frame, motion = optical_flow(case.u0, case.u1, 0.5, flow=flow)
    assert endpoint_error(motion, case.displacement) < 2.5
    blend = rmse((case.u0 + case.u1) / 2, case.frame(0.5))
    assert rmse(frame, case.frame(0.5)) < 0.9 * blend
    for tau, image in ((0.0, case.u0), (1.0, case.u1)):
        np.testing.assert_allclose(optical_flow(case.u0, case.u1, tau, flow=flow)[0], image)


@pytest.mark.parametrize("kind", ["entropic", "exact"])
def test_transport_moves_a_lonely_bell(kind):
    pytest.importorskip("ot")
    n = 64 if kind == "entropic" else 32  # the entropy is a length of about a hundredth of the grid
    y, x = np.mgrid[0:n, 0:n] / n
    bells = [np.exp(-((x - c) ** 2 + (y - 0.5) ** 2) * 120) for c in (0.43, 0.5, 0.57)]
    frame, _ = transport(bells[0], bells[2], 0.5, kind=kind, size=32)
    assert rmse(frame, bells[1]) < 0.4 * rmse((bells[0] + bells[2]) / 2, bells[1])
    assert frame.sum() == pytest.approx(bells[0].sum(), rel=0.02)


def test_what_does_not_fit_is_refused():
    case = make_case("swirl", 32)
    with pytest.raises(UnknownNameError, match="did you mean 'farneback'"):
        baseline(case.u0, case.u1, 0.5, method="farnebak")
    with pytest.raises(UnknownNameError, match="dis-splat"):
        optical_flow(case.u0, case.u1, 0.5, flow="lk")
    with pytest.raises(UnknownNameError, match="exact"):
        transport(case.u0, case.u1, 0.5, kind="w1")
    with pytest.raises(ParameterError, match="between 0 and 1"):
        baseline(case.u0, case.u1, 1.5, method="linear")
    with pytest.raises(ParameterError, match="no data"):
        baseline(case.u0 * np.nan, case.u1, 0.5, method="linear")
    with pytest.raises(ParameterError, match="truth of shape"):
        compare(case.u0, case.u1, case.u0[1:])

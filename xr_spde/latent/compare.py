"""Score card of methods on a pair whose middle is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from xr_spde._core.errors import MissingDependencyError, ParameterError
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure, nodes
from xr_spde.latent.baselines import BASELINES, baseline
from xr_spde.latent.frames import frame_between
from xr_spde.latent.motion import Motion, fit_motion
from xr_spde.latent.occlusion import layered_displacement

if TYPE_CHECKING:
    from xr_spde.latent.dynamics import LatentDynamics

__all__ = [
    "Score",
    "ScoreCard",
    "compare",
    "displacement_of",
    "endpoint_error",
    "rmse",
    "score_of",
    "ssim",
]

Float = NDArray[np.float64]

_WINDOW = 7


@dataclass(frozen=True)
class Score:
    """How well one method met the middle.

    Attributes
    ----------
    method : str
        Its name.
    rmse : float
        Root mean square error where the truth and the frame are known.
    ssim : float
        Structural similarity, 1 at best.
    sharpness : float
        Mean squared gradient over that of the truth; below 1 is blurred.
    epe : float
        Mean endpoint error of the displacement in cells; NaN without one.
    seconds : float
        CPU time.
    missing : float
        Share of the cells of the truth that the frame leaves missing.
    note : str
        Why there are no figures.
    """

    method: str
    rmse: float = np.nan
    ssim: float = np.nan
    sharpness: float = np.nan
    epe: float = np.nan
    seconds: float = np.nan
    missing: float = np.nan
    note: str = ""


@dataclass(frozen=True)
class ScoreCard:
    """Scores of several methods; prints as a table.

    Attributes
    ----------
    scores : tuple of Score
        In the order of the methods.
    """

    scores: tuple[Score, ...]

    def __getitem__(self, method: str) -> Score:
        """Score of one method."""
        for one in self.scores:
            if one.method == method:
                return one
        raise KeyError(method)

    def __str__(self) -> str:
        """Lay out the table."""
        head = f"{'method':16} {'RMSE':>9} {'SSIM':>6} {'sharp':>6} {'EPE':>6} {'CPU s':>6}"
        lines = [head]
        for s in self.scores:
            epe = f"{s.epe:6.2f}" if np.isfinite(s.epe) else "     -"
            figures = f"{s.rmse:9.4g} {s.ssim:6.3f} {s.sharpness:6.2f} {epe} {s.seconds:6.2f}"
            lines.append(f"{s.method:16} {s.note or figures}")
        return "\n".join(lines)

    __repr__ = __str__


def rmse(found: ArrayLike, truth: ArrayLike) -> float:
    """Root mean square error where both are known.

    Parameters
    ----------
    found, truth : array_like (ny, nx)
        Images; NaN is missing.

    Returns
    -------
    float
    """
    off = np.asarray(found, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return float(np.sqrt(np.nanmean(off**2)))


def ssim(found: ArrayLike, truth: ArrayLike, *, data_range: float) -> float:
    """Mean structural similarity over windows of 7 x 7 that hold no gap.

    Parameters
    ----------
    found, truth : array_like (ny, nx)
        Images; NaN is missing.
    data_range : float
        Range of values that counts as full contrast.

    Returns
    -------
    float
        NaN if every window holds a gap.

    References
    ----------
    Wang, Z. et al. (2004): Image quality assessment: from error visibility to structural
    similarity. IEEE Trans. Image Process. 13, 600-612.
    """
    a, b = (np.asarray(u, dtype=np.float64) for u in (found, truth))
    known = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)

    def mean(u: Float) -> Float:
        return np.asarray(uniform_filter(u, _WINDOW))

    mean_a, mean_b = mean(a), mean(b)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    var_a = unbiased * (mean(a * a) - mean_a**2)
    var_b = unbiased * (mean(b * b) - mean_b**2)
    cov = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similar = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    similar /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    rim = _WINDOW // 2
    inner = slice(rim, -rim), slice(rim, -rim)
    whole = mean(known.astype(np.float64))[inner] > 1 - 1e-9
    return float(similar[inner][whole].mean()) if whole.any() else float("nan")


def displacement_of(motion: Motion) -> Float:
    """Displacement of what the first image shows until the second.

    Parameters
    ----------
    motion : Motion
        Between them.

    Returns
    -------
    ndarray (2, ny, nx)
        x first, in cells.
    """
    velocity = np.asarray(motion.velocity, dtype=np.float64)
    y, x = departure(velocity, -1.0, periodic_x=motion.cells.periodic_x)
    rows, columns = nodes(y, motion.cells.shape)
    moved = np.stack([x - columns, y - rows])
    if motion.layers is not None:
        moved = layered_displacement(moved, motion.layers)
    return np.asarray(moved, dtype=np.float64)


def endpoint_error(found: ArrayLike, truth: ArrayLike) -> float:
    """Mean distance of displacements where both are known.

    Parameters
    ----------
    found, truth : array_like (2, ny, nx)
        In cells; NaN is unknown.

    Returns
    -------
    float
    """
    off = np.asarray(found, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return float(np.nanmean(np.hypot(off[0], off[1])))


def compare(
    u0: ArrayLike,
    u1: ArrayLike,
    truth: ArrayLike,
    *,
    tau: float = 0.5,
    methods: Sequence[str] = ("field", *BASELINES),
    displacement: ArrayLike | None = None,
    cells: Cells | None = None,
    motion: Motion | None = None,
    model: LatentDynamics | None = None,
    blend: str = "auto",
) -> ScoreCard:
    """Score methods on a pair whose frame at one time is known.

    Parameters
    ----------
    u0, u1 : array_like (ny, nx)
        Images at times 0 and 1; NaN is missing.
    truth : array_like (ny, nx)
        Image at the time `tau`.
    tau : float
        Time of the truth, 0 to 1.
    methods : sequence of str
        ``"field"`` (:func:`xr_spde.latent.motion.fit_motion`), ``"latent"``
        (:func:`xr_spde.latent.fit.fit_latent_dynamics`, a minute or more) and names of
        :data:`xr_spde.latent.baselines.BASELINES`. One whose library is absent is passed over with
        a note.
    displacement : array_like (2, ny, nx), optional
        True motion of u0 until u1 for endpoint errors.
    cells : Cells, optional
        The grid of "field" and "latent".
    motion : Motion, optional
        A motion that was fitted before, for "field".
    model : LatentDynamics, optional
        A model of this pair that was fitted before, for "latent".
    blend : {"auto", "area", "expected"}
        Of "field"; see :func:`xr_spde.latent.frames.frame_between`.

    Returns
    -------
    ScoreCard

    Raises
    ------
    ParameterError
        For a truth of another shape.
    UnknownNameError
        For an unknown method.

    Examples
    --------
    >>> from xr_spde.latent.cases import make_case
    >>> from xr_spde.latent.compare import compare
    >>> case = make_case("tex_rot", 32)
    >>> compare(case.u0, case.u1, case.frame(0.5), methods=["linear"])["linear"].missing
    0.0
    """
    known = np.asarray(truth, dtype=np.float64)
    if known.shape != np.shape(u0):
        raise ParameterError(f"truth of shape {known.shape} for images of shape {np.shape(u0)}")
    scores = []
    for method in methods:
        begun = time.process_time()
        try:
            if method == "field":
                fitted = fit_motion(u0, u1, cells) if motion is None else motion
                frame: Float = np.asarray(frame_between(u0, u1, fitted, tau, blend=blend).image)
                moved: Float | None = displacement_of(fitted)
            elif method == "latent":
                frame, moved = _latent(u0, u1, tau, model, cells)
            else:
                frame, moved = baseline(u0, u1, tau, method=method)
        except MissingDependencyError as error:
            scores.append(Score(method, note=f"passed over: {error}"))
            continue
        spent = time.process_time() - begun
        scores.append(score_of(method, frame, known, moved, displacement, spent))
    return ScoreCard(tuple(scores))


def _latent(
    u0: ArrayLike, u1: ArrayLike, tau: float, model: LatentDynamics | None, cells: Cells | None
) -> tuple[Float, Float]:
    """Frame of the latent model of a pair, and the displacement until the second image."""
    if model is None:
        from xr_spde.latent.fit import fit_latent_dynamics

        model = fit_latent_dynamics(np.stack([np.asarray(u0), np.asarray(u1)]), cells=cells)
    frame = model.frame(float(model.times[0]) + tau * model.span).image
    motion = Motion(model.velocity[0], model.cells, float("nan"))
    return np.asarray(frame, dtype=np.float64), displacement_of(motion)


def score_of(
    method: str,
    frame: Float,
    truth: Float,
    moved: Float | None = None,
    displacement: ArrayLike | None = None,
    seconds: float = float("nan"),
) -> Score:
    """Score one frame.

    Parameters
    ----------
    method : str
        Its name.
    frame, truth : ndarray (ny, nx)
        Found and known; NaN is missing.
    moved : ndarray (2, ny, nx), optional
        Displacement that was found, in cells.
    displacement : array_like (2, ny, nx), optional
        The true one.
    seconds : float
        CPU time.

    Returns
    -------
    Score
    """
    both = np.isfinite(frame) & np.isfinite(truth)
    steep = [
        sum(np.nanmean(part**2) for part in np.gradient(np.where(both, u, np.nan)))
        for u in (frame, truth)
    ]
    has_motion = moved is not None and displacement is not None
    return Score(
        method,
        rmse=rmse(frame, truth),
        ssim=ssim(frame, truth, data_range=float(np.nanmax(truth) - np.nanmin(truth))),
        sharpness=float(steep[0] / steep[1]) if steep[1] > 0 else float("nan"),
        epe=endpoint_error(moved, displacement) if has_motion else float("nan"),  # type: ignore[arg-type]
        seconds=seconds,
        missing=float((np.isnan(frame) & np.isfinite(truth)).sum() / np.isfinite(truth).sum()),
    )

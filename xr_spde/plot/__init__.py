"""Figures; the only place that imports matplotlib.

Every function takes the labelled object first and draws with latitude and longitude (or x and y)
increasing, whatever the storage order: :func:`parameters`, :func:`ellipses`,
:func:`patterns`, :func:`correlation`, :func:`members`, :func:`score`, :func:`overview`,
:func:`increments`, :func:`snapshot`, :func:`rank_histogram`, :func:`spread`,
:func:`spread_skill`, :func:`series`, :func:`motion`, :func:`frames`.
"""

from __future__ import annotations

from xr_spde._core.lazyimport import require

require("matplotlib", "plot")

from xr_spde.plot.analysis import increments, rank_histogram, series  # noqa: E402
from xr_spde.plot.compare import correlation, members  # noqa: E402
from xr_spde.plot.mapped import snapshot, spread_skill  # noqa: E402
from xr_spde.plot.maps import ellipses, parameters, patterns  # noqa: E402
from xr_spde.plot.motion import frames, motion  # noqa: E402
from xr_spde.plot.spread import spread  # noqa: E402
from xr_spde.plot.summary import overview, score  # noqa: E402

__all__ = [
    "correlation",
    "ellipses",
    "frames",
    "increments",
    "members",
    "motion",
    "overview",
    "parameters",
    "patterns",
    "rank_histogram",
    "score",
    "series",
    "snapshot",
    "spread",
    "spread_skill",
]

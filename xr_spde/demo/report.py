"""One self-contained HTML page about a run of the chain."""

from __future__ import annotations

import base64
import inspect
import io
import os
import platform
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xr_spde._core.versions import versions
from xr_spde.demo.chain import Chain, run_chain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["POINTS", "write_report"]

POINTS = [(52.0, -20.0), (38.0, 5.0), (60.0, 12.0)]
"""Where correlation maps are drawn: mid-Atlantic, western Mediterranean, Scandinavia."""

_STYLE = """
body { font: 16px/1.55 Georgia, 'Times New Roman', serif; color: #222; background: #fff;
       max-width: 62rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; border-top: 1px solid #ddd; padding-top: 1.2rem; }
p.lead { font-size: 1.1rem; color: #444; margin-top: 0; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; color: #555; margin-top: .4rem; max-width: 46rem; }
.pair { display: flex; flex-wrap: wrap; gap: 2rem; align-items: center; }
.pair > * { flex: 1 1 20rem; min-width: 0; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #e5e5e5; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f6f6f4; padding: 1rem; overflow-x: auto; font-size: .82rem; line-height: 1.45; }
p.versions { font-size: .88rem; color: #444; }
footer { margin-top: 3rem; font-size: .85rem; color: #666; }
"""


def write_report(chain: Chain, path: Path) -> Path:
    """Write the page, with its pictures inside.

    Parameters
    ----------
    chain : Chain
        What was run.
    path : Path
        The HTML file.

    Returns
    -------
    Path
        ``path``.
    """
    with chain.clock("draw the figures"):
        pictures = {name: _embedded(figure) for name, figure in _figures(chain).items()}
    path.write_text(_page(chain, pictures), encoding="utf-8")
    return path


def _figures(chain: Chain) -> dict[str, Figure]:
    from xr_spde import plot

    patterns = {"patterns": plot.patterns(chain.params)} if _pattern_count(chain) else {}
    figures: dict[str, Any] = patterns | {
        "parameters": plot.parameters(chain.params),
        "ellipses": plot.ellipses(chain.params).figure,
        "members": plot.members(chain.fields, chain.ensemble, dim="number"),
        "correlation": plot.correlation(chain.fields, POINTS, chain.ensemble, dim="number"),
        "score": plot.score(chain.scores["synthetic members"]).figure,
    }
    return figures


def _embedded(figure: Figure) -> str:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _page(chain: Chain, pictures: dict[str, str]) -> str:
    real, synthetic = chain.fields.sizes["number"], chain.ensemble.sizes["realization"]
    fields = chain.fields
    attribution = fields.attrs.get("attribution", "ECMWF, CC BY 4.0")
    sections = [
        "<h1>Real and synthetic weather</h1>",
        f"<p class='lead'>{real} members of an ECMWF ensemble forecast of 500 hPa geopotential, "
        f"and {synthetic} synthetic members drawn from a non-stationary Gaussian field that was "
        "estimated from them.</p>",
        "<h2>Correlations</h2>",
        _figure(
            pictures["correlation"],
            "Correlation with the marked point over the real members, over the synthetic ones, and "
            "the difference. The line is correlation 0.5. With "
            f"{real} members, a correlation whose true value is 0 comes out as 0 ± "
            f"{1 / np.sqrt(real - 1):.2f}.",
        ),
        "<h2>Members</h2>",
        _figure(
            pictures["members"],
            "Three real and three synthetic members, as anomalies from the mean of the real "
            "ensemble, on one colour scale.",
        ),
        "<h2>Parameters</h2>",
        _figure(
            pictures["ellipses"],
            "Where a correlation falls to 0.14, drawn smaller by the factor in the title, over "
            "the practical range.",
        ),
        _figure(
            pictures["parameters"],
            "Practical range (geometric mean of along and across), anisotropy ratio, direction of "
            "longest correlation (faded where there is hardly any) and standard deviation.",
        ),
        *_pattern_figure(pictures),
        "<h2>The score beside its noise floor</h2>",
        f"<div class='pair'><div>{_score_text(chain)}{_score_table(chain)}</div>",
        _figure(
            pictures["score"],
            "Each dot is one random point and its map of correlations; what stands above the line "
            "is what the model misses.",
        ),
        "</div>",
        "<h2>Timings</h2>",
        _table([(step, f"{s:.2f} s") for step, s in chain.clock.seconds.items()], ("step", "wall")),
        "<h2>The code that made this</h2>",
        f"<pre>{escape(_code(run_chain))}</pre>",
        "<h2>Versions</h2>",
        f"<p class='versions'>{escape(_environment())}</p>",
        f"<footer>Data: {escape(str(attribution))}. Members: {escape(chain.store.name)} beside "
        "this page.</footer>",
    ]
    body = "\n".join(sections)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>xr_spde: real and synthetic weather</title><style>{_STYLE}</style></head>"
        f"<body>\n{body}\n</body></html>\n"
    )


def _code(function: Callable[..., object]) -> str:
    """Body of a function, without its docstring."""
    _, _, body = inspect.getsource(function).split('"""', 2)
    return inspect.cleandoc(body)


def _pattern_figure(pictures: dict[str, str]) -> list[str]:
    if "patterns" not in pictures:
        return []
    caption = (
        "Large-scale patterns, each with a random amplitude of its own in every synthetic member; "
        "range, anisotropy and direction describe what they leave."
    )
    return [_figure(pictures["patterns"], caption)]


def _figure(source: str, caption: str) -> str:
    text = escape(caption)
    return f"<figure><img src='{source}' alt='{text}'><figcaption>{text}</figcaption></figure>"


def _score_text(chain: Chain) -> str:
    score = chain.scores["synthetic members"]
    count = score.sizes["point"]
    return (
        f"<p>At {count} random points the correlation maps of the real and the synthetic members "
        f"differ by {float(score.raw):.3f} (root mean square). Sampling noise alone would make "
        f"{float(score.floor):.3f}: the ratio is <b>{float(score.ratio):.2f}</b>, and "
        f"{float(score.corrected):.3f} is left when the noise is taken off.</p>"
        "<p>These members differ by waves, whose correlations are strongly negative half a wave "
        "away. A local field has next to none below 0: with all the others right and 0 in place "
        f"of these it would still be {chain.bound:.3f} away, "
        f"{chain.bound / float(score.floor):.2f} times the floor. {_pattern_text(chain)}</p>"
        "<p>The model was estimated from the members it is compared with here, and took up some of "
        "their noise with their signal: a ratio below 1 says so. For the last two rows every other "
        "member was kept for the score alone.</p>"
    )


def _pattern_text(chain: Chain) -> str:
    count = _pattern_count(chain)
    if count == 0:
        return ""
    return f"The {count} large-scale pattern{'s' if count > 1 else ''} of the estimate carry them."


def _pattern_count(chain: Chain) -> int:
    if "patterns" not in chain.params:
        return 0
    return int((abs(chain.params["patterns"]).max(("latitude", "longitude")) > 0).sum())


def _score_table(chain: Chain) -> str:
    names = ("raw", "floor", "ratio", "corrected")
    rows = [
        (label, *(f"{float(score[name]):.3f}" for name in names))
        for label, score in chain.scores.items()
    ]
    return _table(rows, ("", *names))


def _environment() -> str:
    libraries = [f"{name} {version}" for name, version in versions().items() if version != "-"]
    machine = f"{platform.platform()}, {os.cpu_count()} processors"
    return " · ".join((f"python {platform.python_version()}", *libraries, machine))


def _table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        marks = ("", *(" class='n'" for _ in cells[1:]))
        text = (f"<{tag}{m}>{escape(c)}</{tag}>" for m, c in zip(marks, cells, strict=True))
        return f"<tr>{''.join(text)}</tr>"

    top = line(head, "th") if any(head) else ""
    return f"<table>{top}{''.join(line(row, 'td') for row in rows)}</table>"

"""Command line of the demonstration."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from xr_spde._core.errors import XrSpdeError
from xr_spde._core.lazyimport import require

__all__ = ["main"]

_PICTURE_POINT = (52.0, -20.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chain, write the page and print where it is.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0, or 1 after an error that was explained on the standard error stream.
    """
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except XrSpdeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m xr_spde.demo",
        description="Estimate a non-stationary field from a real weather ensemble, emulate members "
        "to Zarr and write one HTML page about both.",
    )
    parser.add_argument("--members", type=_count, default=1000, help="synthetic members (1000)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (demo)")
    parser.add_argument("--seed", type=int, default=1, help="of the members (1)")
    parser.add_argument("--picture", type=Path, help="also save the picture of the README here")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 3:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of members, at least 3, is expected")
    return int(text)


def _run(options: argparse.Namespace) -> None:
    require("matplotlib", "plot").use("Agg")
    require("zarr", "io")
    from xr_spde.demo import run_chain, write_report

    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    chain = run_chain(options.out, members=options.members, seed=options.seed)
    for step, seconds in chain.clock.seconds.items():
        print(f"{seconds:7.2f} s  {step}")
    for label, score in chain.scores.items():
        print(
            f"correlation RMSE {float(score.raw):.3f}, noise floor {float(score.floor):.3f}, "
            f"ratio {float(score.ratio):.2f}, corrected {float(score.corrected):.3f}  ({label})"
        )
    page = write_report(chain, options.out / "report.html")
    if options.picture is not None:
        from xr_spde import plot

        options.picture.parent.mkdir(parents=True, exist_ok=True)
        figure = plot.overview(chain.fields, chain.ensemble, _PICTURE_POINT, which=2, dim="number")
        figure.savefig(options.picture, dpi=160, bbox_inches="tight", pad_inches=0.05)
        print(options.picture)
    print(f"{page} after {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    sys.exit(main())

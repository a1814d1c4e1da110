"""What ``import xr_spde`` costs beside ``import xarray``: CPU seconds, memory and modules.

Fresh processes, candidates taking turns, medians. ``--quick`` takes fewer turns and
writes no file.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from statistics import median

from _machine import answer, isolated, machine, table, write

CANDIDATES = {
    "xarray": ["xarray"],
    "xarray, then xr_spde": ["xarray", "xr_spde"],
    "the same, and what `estimate` and `emulate` load": [
        "xarray",
        "xr_spde",
        "xr_spde.sar.estimate",
        "xr_spde.sar.emulate",
    ],
}


def load(modules: Sequence[str]) -> dict[str, float]:
    """Import modules and say what that cost."""
    start, before = time.process_time(), set(sys.modules)
    for name in modules:
        importlib.import_module(name)
    return {"seconds": time.process_time() - start, "modules": len(set(sys.modules) - before)}


def main() -> None:
    """Measure and write the table."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--quick", action="store_true", help="three turns instead of eleven")
    quick = reader.parse_args().quick
    turns = 3 if quick else 11
    runs: dict[str, list[dict[str, float]]] = {label: [] for label in CANDIDATES}
    for _ in range(turns):
        for label, modules in CANDIDATES.items():
            runs[label].append(isolated(__file__, "load", modules=modules))
    rows: list[list[object]] = []
    base = median(run["seconds"] for run in runs["xarray"])
    for label, results in runs.items():
        cost = [run["seconds"] for run in results]
        middle, peak = median(cost), median(run["peak_mb"] for run in results)
        modules = int(results[0]["modules"])
        rows.append(
            [label, f"{middle:.3f}", f"{min(cost):.3f}", f"{middle - base:+.3f}", modules, peak]
        )
    header = ["import", "CPU s, median", "least", "over xarray", "modules", "peak MB"]
    body = f"{machine()}\n\n{table(header, rows)}\n\nMedian of {turns} processes, "
    body += "bytecode compiled; 0.01 s is noise."
    command = "python benchmarks/import_time.py" + (" --quick" if quick else "")
    write("import", "Import", command, body, keep=not quick)


if __name__ == "__main__" and not answer({"load": load}):
    main()

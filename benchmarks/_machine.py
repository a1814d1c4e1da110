"""What benchmark scripts share: the machine, tables, and parts run in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "scipy", "xarray", "dask", "zarr")
PART = "--part"

Part = Callable[..., Mapping[str, Any]]


def _field(path: str, name: str) -> str | None:
    """Value of the first line ``name : value`` of a text file of the system."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(name))
    return next(found, None)


def machine(*packages: str) -> str:
    """One line on the machine, the date and the versions that produced a table.

    Parameters
    ----------
    *packages : str
        Further distributions whose versions matter.

    Returns
    -------
    str
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    versions = [f"Python {platform.python_version()}"]
    for name in ("xr-spde", *PACKAGES, *packages):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} absent")
    hardware = f"{cores} cores of {model}, {memory:.0f} GiB, {platform.system()}"
    return f"{hardware}. {date.today().isoformat()}. {', '.join(versions)}."


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a markdown table, columns aligned.

    Parameters
    ----------
    header : sequence of str
        Column names.
    rows : sequence of sequences
        Cells; floats get three significant digits, None a dash.

    Returns
    -------
    str
        Without a final newline.
    """
    cells = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(name: str, title: str, command: str, body: str, *, keep: bool = True) -> Path:
    """Print a result and keep it in ``benchmarks/results/<name>.md``.

    Parameters
    ----------
    name : str
        Of the file, without ``.md``.
    title : str
        Heading.
    command : str
        What was typed, as it is to be typed again.
    body : str
        Markdown; should say the machine (see :func:`machine`) and what the figures mean.
    keep : bool, default True
        False prints only, as quick runs do.

    Returns
    -------
    Path
        The file.
    """
    text = f"# {title}\n\nMade by `{command}`.\n\n{body.strip()}\n"
    print(text)
    path = RESULTS / f"{name}.md"
    if keep:
        RESULTS.mkdir(exist_ok=True)
        path.write_text(text)
    return path


def peak_megabytes() -> float:
    """Peak resident memory of this process in MB (10^6 bytes)."""
    # getrusage counts what the parent held when this process was started; VmHWM does not
    high = _field("/proc/self/status", "VmHWM")
    if high is not None:
        return int(high.split()[0]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def answer(parts: Mapping[str, Part]) -> bool:
    """Run one part if this process was started for one, and print its result.

    Parameters
    ----------
    parts : mapping
        Functions by name; each returns what JSON can hold.

    Returns
    -------
    bool
        Whether this process is done.
    """
    if len(sys.argv) != 4 or sys.argv[1] != PART:
        return False
    result = dict(parts[sys.argv[2]](**json.loads(sys.argv[3])))
    print(json.dumps(result | {"peak_mb": peak_megabytes()}))
    return True


def isolated(script: str, part: str, **arguments: Any) -> dict[str, Any]:
    """Run a part of a script in a fresh process, with one thread for BLAS and OpenMP.

    Parameters
    ----------
    script : str
        ``__file__`` of the script, whose main calls :func:`answer` first.
    part : str
        Name of the part.
    **arguments
        Its arguments, as JSON can hold them.

    Returns
    -------
    dict
        What the part returned, and ``peak_mb``, the peak memory of its process.

    Raises
    ------
    RuntimeError
        If the process fails; with the end of what it said.
    """
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    done = subprocess.run(
        [sys.executable, script, PART, part, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env=os.environ | single,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{part} {arguments} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))

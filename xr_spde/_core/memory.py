"""How much memory may be used, and a guard that speaks before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from xr_spde._core.errors import MemoryGuardError
from xr_spde._core.options import get_option

__all__ = ["available_memory", "check_memory", "format_bytes", "memory_budget"]

_DEFAULT_SHARE = 0.6
_WITHOUT_INFORMATION = 4 * 2**30


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_file_bytes(path: Path) -> int:
    # Page cache counts as used in a control group, yet is given back on demand.
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    table = dict(line.split()[:2] for line in lines if len(line.split()) >= 2)
    return int(table.get("total_inactive_file", table.get("inactive_file", "0")))


def _control_groups(proc: Path, cgroup: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders with a memory limit above this process, with their file names."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, names = cgroup, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = cgroup / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / group.lstrip("/")
        # Inside a container the path may be the host's: the root folder is then ours.
        for candidate in (folder, *folder.parents):
            yield candidate, *names
            if candidate == root:
                break


def _control_group_room(proc: Path, cgroup: Path) -> Iterator[int]:
    for folder, limit_name, usage_name in _control_groups(proc, cgroup):
        limit = _read_number(folder / limit_name)
        usage = _read_number(folder / usage_name)
        if limit is not None and usage is not None:
            yield max(0, limit - usage + _inactive_file_bytes(folder / "memory.stat"))


def _system_room(proc: Path) -> int:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return _WITHOUT_INFORMATION


def available_memory(*, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes this process may still take.

    The least of what the system reports as available and of the room left in every control
    group (version 1 or 2) above the process. Systems without ``/proc`` count half of the
    physical memory; without any information, 4 GiB.

    Parameters
    ----------
    proc, cgroup : Path
        Where the kernel's files are mounted.

    Returns
    -------
    int
        Bytes.
    """
    return min([_system_room(proc), *_control_group_room(proc, cgroup)])


def memory_budget() -> int:
    """Return the bytes one factorisation may take.

    Returns
    -------
    int
        Option ``memory_limit``, or 60 % of :func:`available_memory`.
    """
    limit = get_option("memory_limit")
    return int(_DEFAULT_SHARE * available_memory()) if limit is None else limit


def format_bytes(count: float) -> str:
    """Write a number of bytes for people.

    Parameters
    ----------
    count : float
        Bytes.

    Returns
    -------
    str

    Examples
    --------
    >>> from xr_spde._core.memory import format_bytes
    >>> format_bytes(1536), format_bytes(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def check_memory(needed: float, *, what: str, remedy: str) -> None:
    """Refuse work that would not fit.

    Parameters
    ----------
    needed : float
        Bytes the work is predicted to take.
    what : str
        The work, as the subject of a sentence ("the factor of a 512 x 1024 grid").
    remedy : str
        What the user can do instead.

    Raises
    ------
    MemoryGuardError
        ``needed`` exceeds :func:`memory_budget`.
    """
    budget = memory_budget()
    if needed > budget:
        raise MemoryGuardError(
            f"{what} would take about {format_bytes(needed)}; the limit is "
            f"{format_bytes(budget)}. {remedy} To allow it all the same type "
            f"xr_spde.set_options(memory_limit={int(needed * 1.1)})"
        )

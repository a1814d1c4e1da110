"""Memory: the least of system and control groups, and the guard."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr_spde._core.errors import MemoryGuardError
from xr_spde._core.memory import available_memory, check_memory, format_bytes, memory_budget
from xr_spde._core.options import set_options

MIB = 2**20


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path):
    """A machine with 1000 MiB available; returns (proc, cgroup)."""
    write(tmp_path / "proc/meminfo", f"MemTotal: 9 kB\nMemAvailable:  {1000 * 1024} kB\n")
    return tmp_path / "proc", tmp_path / "cgroup"


def available(machine) -> float:
    return available_memory(proc=machine[0], cgroup=machine[1]) / MIB


def test_system_alone(machine):
    assert available(machine) == 1000


def test_version_2_counts_the_room_of_every_parent(machine):
    proc, cgroup = machine
    write(proc / "self/cgroup", "0::/a/b\n")
    write(cgroup / "a/b/memory.max", "max\n")
    write(cgroup / "a/b/memory.current", f"{100 * MIB}\n")
    write(cgroup / "a/memory.max", f"{500 * MIB}\n")
    write(cgroup / "a/memory.current", f"{300 * MIB}\n")
    assert available(machine) == 200
    write(cgroup / "a/memory.stat", f"anon 5\ninactive_file {50 * MIB}\n")
    assert available(machine) == 250


def test_version_2_inside_a_container_reads_its_root(machine):
    proc, cgroup = machine
    write(proc / "self/cgroup", "0::/host/only\n")
    write(cgroup / "memory.max", f"{64 * MIB}\n")
    write(cgroup / "memory.current", f"{4 * MIB}\n")
    assert available(machine) == 60


def test_version_1(machine):
    proc, cgroup = machine
    write(proc / "self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/job\n")
    write(cgroup / "memory/job/memory.limit_in_bytes", f"{80 * MIB}\n")
    write(cgroup / "memory/job/memory.usage_in_bytes", f"{30 * MIB}\n")
    assert available(machine) == 50


def test_an_unlimited_group_does_not_count(machine):
    proc, cgroup = machine
    write(proc / "self/cgroup", "4:memory:/\n")
    write(cgroup / "memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    write(cgroup / "memory/memory.usage_in_bytes", "0\n")
    assert available(machine) == 1000


def test_a_full_group_has_no_room_rather_than_a_negative_one(machine):
    proc, cgroup = machine
    write(proc / "self/cgroup", "0::/\n")
    write(cgroup / "memory.max", f"{10 * MIB}\n")
    write(cgroup / "memory.current", f"{11 * MIB}\n")
    assert available(machine) == 0


def test_without_proc_something_positive(tmp_path):
    assert available_memory(proc=tmp_path, cgroup=tmp_path) > 100 * MIB


def test_this_machine_is_between_a_megabyte_and_a_petabyte():
    assert MIB < available_memory() < 2**50


def test_budget_is_the_option_or_a_share():
    assert 0 < memory_budget() < available_memory()
    with set_options(memory_limit=12345):
        assert memory_budget() == 12345


def test_guard_names_need_limit_and_remedy():
    with set_options(memory_limit=3 * MIB):
        check_memory(3 * MIB, what="a small factor", remedy="Nothing.")
        with pytest.raises(MemoryGuardError) as caught:
            check_memory(2**30, what="The factor", remedy="Coarsen the grid.")
    message = str(caught.value)
    assert message.startswith("The factor would take about 1.0 GiB; the limit is 3.0 MiB")
    assert "Coarsen the grid." in message
    assert "set_options(memory_limit=" in message
    assert isinstance(caught.value, MemoryError)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (2048, "2.0 KiB"), (5 * 2**40, "5.0 TiB")]
)
def test_bytes_for_people(count, text):
    assert format_bytes(count) == text

from __future__ import annotations

from pathlib import Path

from tests.unit.host.recorded import plant

from metalmark.host import read_memory
from metalmark.model import GIB, MIB

MEMINFO = "MemTotal:        8388608 kB\nMemFree:  1024 kB\nMemAvailable:    4194304 kB\nSwapTotal:       1048576 kB"


def test_meminfo_counts_in_kib(tmp_path: Path) -> None:
    memory = read_memory(plant(tmp_path, {"proc/meminfo": MEMINFO}))
    assert memory.total_bytes == 8 * GIB
    assert memory.available_bytes == 4 * GIB
    assert memory.swap_bytes == 1 * GIB
    assert memory.limit_bytes is None
    assert memory.usable_bytes == 8 * GIB


def test_the_tightest_cgroup_limit_upwards_counts(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/slice/job",
        "sys/fs/cgroup/slice/job/memory.max": "max",
        "sys/fs/cgroup/slice/memory.max": str(512 * MIB),
    }
    memory = read_memory(plant(tmp_path, files))
    assert memory.limit_bytes == 512 * MIB
    assert memory.usable_bytes == 512 * MIB


def test_the_unlimited_number_of_cgroup_v1_is_no_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "9:memory:/\n0::/",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    assert read_memory(plant(tmp_path, files)).limit_bytes is None


def test_nothing_readable_is_zero(tmp_path: Path) -> None:
    memory = read_memory(tmp_path)
    assert (memory.total_bytes, memory.available_bytes, memory.swap_bytes) == (0, 0, 0)

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.host.recorded import plant, recorded

from metalmark.host import Topology, read_topology

CPU = "sys/devices/system/cpu"


def test_a_machine_with_hyper_threads(tmp_path: Path) -> None:
    topology = read_topology(recorded(tmp_path, "8em64t-4c2t"))
    assert topology.online == topology.allowed == tuple(range(8))
    assert topology.core_count == 4
    assert topology.has_smt
    assert topology.describe() == "8 CPUs (0-7), 4 cores with hyper-threads, 1 package, 1 NUMA node"
    first = topology.cpus[0]
    assert first.siblings[0] == 0
    assert len(first.siblings) == 2


def test_numa_nodes_with_sparse_numbers(tmp_path: Path) -> None:
    topology = read_topology(recorded(tmp_path, "48amd64-4d2n6c-sparse"))
    assert {cpu.number: cpu.node for cpu in topology.cpus}[36] == 72
    assert len({cpu.node for cpu in topology.cpus}) == 8
    assert topology.core_count == 48
    assert not topology.has_smt


def test_cpus_that_are_switched_off_are_left_out(tmp_path: Path) -> None:
    topology = read_topology(recorded(tmp_path, "offline-cpu0-node0"))
    assert topology.online == tuple(range(4, 21))
    assert topology.present == tuple(range(24))
    assert all(set(cpu.siblings) <= set(topology.online) for cpu in topology.cpus)


def test_packages_of_a_large_machine(tmp_path: Path) -> None:
    topology = read_topology(recorded(tmp_path, "32amd64-4s2n4c-cgroup2"))
    assert len({cpu.package for cpu in topology.cpus}) == 4
    assert len({cpu.node for cpu in topology.cpus}) == 8


def test_nothing_readable_is_one_cpu(tmp_path: Path) -> None:
    topology = read_topology(tmp_path)
    assert topology.online == topology.allowed == (0,)
    assert topology.core_count == 1


def test_cpuinfo_stands_in_for_a_hidden_sysfs(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 2\n"})
    assert read_topology(tmp_path).online == (0, 2)


def test_garbled_files_count_as_not_known(tmp_path: Path) -> None:
    plant(tmp_path, {f"{CPU}/online": "0-1", f"{CPU}/isolated": "??", f"{CPU}/cpu0/topology/core_id": "-1"})
    topology = read_topology(tmp_path)
    assert topology.boot_isolated == ()
    assert topology.cpus[0].core is None


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"proc/self/status": "Name:\tx\nCpus_allowed:\tc\nCpus_allowed_list:\t2-3"}, (2, 3)),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpuset.cpus.effective": "1-2"}, (1, 2)),
        ({"proc/self/cgroup": "3:cpuset:/j", "sys/fs/cgroup/cpuset/j/cpuset.effective_cpus": "0"}, (0,)),
        (
            {
                "proc/self/status": "Cpus_allowed_list:\t0-2",
                "proc/self/cgroup": "4:cpu,cpuset:/\n0::/",
                "sys/fs/cgroup/cpuset/cpuset.cpus": "2-3",
            },
            (2,),
        ),
        ({"proc/self/cgroup": "0::/../other", "sys/fs/cgroup/cpuset.cpus.effective": "1"}, (0, 1, 2, 3)),
        ({"proc/self/status": "Cpus_allowed_list:\t8-9"}, (0, 1, 2, 3)),
    ],
)
def test_affinity_and_cpuset_narrow_what_is_allowed(
    tmp_path: Path, files: dict[str, str], allowed: tuple[int, ...]
) -> None:
    topology = read_topology(plant(tmp_path, {f"{CPU}/online": "0-3", **files}))
    assert topology.online == (0, 1, 2, 3)
    assert topology.allowed == allowed


def test_this_machine_can_be_read() -> None:
    topology = read_topology()
    assert isinstance(topology, Topology)
    assert set(topology.allowed) <= set(topology.online)

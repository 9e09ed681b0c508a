from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.system.cgroup_trees import plant_v1, plant_v2, v1_tree, v2_tree

from metalmark.model import StableError
from metalmark.system import BoxCgroup, CgroupLimits, read_layout

LIMITS = CgroupLimits(cpus=(2, 3), cpu_quota=1.5, memory_bytes=64 << 20, pids=9, agent_cpus=(0, 1))


def test_v2_limits_are_on_job_and_on_commands(tmp_path: Path) -> None:
    top = v2_tree(tmp_path)
    plant_v2(top, "b")
    group = BoxCgroup(read_layout(tmp_path), "b")
    group.create(LIMITS)
    group.settle()
    for part in ("job", "job/commands"):
        folder = top / "metalmark/b" / part
        found = {name: (folder / name).read_text() for name in ("cpuset.cpus", "memory.max", "pids.max", "cpu.max")}
        assert found == {
            "cpuset.cpus": "2,3",
            "memory.max": "67108864",
            "pids.max": "9",
            "cpu.max": "150000 100000",
        }
        assert (folder / "memory.swap.max").read_text() == "0"
        assert (folder / "memory.oom.group").read_text() == "1"
    assert (top / "metalmark/b/agent/memory.max").read_text() == "", "the agent is never the victim"
    assert (top / "metalmark/b/agent/cpuset.cpus").read_text() == "0,1"
    assert group.warnings == ()
    assert group.commands_files() == (top / "metalmark/b/job/commands/cgroup.procs",)


def test_v2_what_a_machine_lacks_is_told(tmp_path: Path) -> None:
    top = v2_tree(tmp_path, controllers="cpu memory")
    plant_v2(top, "b", without=("pids.max", "cpuset.cpus", "memory.swap.max"))
    group = BoxCgroup(read_layout(tmp_path), "b")
    group.create(LIMITS)
    group.settle()
    assert [text.split(" is not")[0] for text in group.warnings] == ["the limit of CPUs", "the limit of processes"]


def test_v2_what_does_not_read_back_is_told(tmp_path: Path) -> None:
    top = v2_tree(tmp_path)
    plant_v2(top, "b")
    group = BoxCgroup(read_layout(tmp_path), "b")
    group.create(LIMITS)
    for name in ("memory.max", "cpuset.cpus"):
        path = top / "metalmark/b/job/commands" / name
        path.unlink()
        path.symlink_to("/dev/null")
    group.settle()
    assert len(group.warnings) == 2
    assert "memory.max reads back ''" in group.warnings[1]


@pytest.mark.parametrize("hybrid", [True, False])
def test_v1_limits(tmp_path: Path, hybrid: bool) -> None:
    top = v1_tree(tmp_path, hybrid=hybrid)
    plant_v1(top, "b")
    group = BoxCgroup(read_layout(tmp_path), "b")
    group.create(LIMITS)
    group.settle()
    for part in ("job", "job/commands"):
        memory = top / "memory/metalmark/b" / part
        assert (memory / "memory.limit_in_bytes").read_text() == "67108864"
        assert (memory / "memory.memsw.limit_in_bytes").read_text() == "67108864", "swap is off"
        assert (top / "cpu,cpuacct/metalmark/b" / part / "cpu.cfs_quota_us").read_text() == "150000"
        assert (top / "cpuset/metalmark/b" / part / "cpuset.cpus").read_text() == "2,3"
        assert (top / "cpuset/metalmark/b" / part / "cpuset.mems").read_text() == "0"
    assert (top / "cpuset/metalmark/b/agent/cpuset.cpus").read_text() == "0,1"
    assert not (top / "devices/metalmark/b/job/commands").exists() or not hybrid
    assert group.warnings == ()
    names = [path.relative_to(top).parts[0] for path in group.commands_files()]
    assert sorted(names) == ["cpu,cpuacct", "cpuset", "freezer", "memory", "pids"], "each once, devices not"


def test_a_lack_of_swap_accounting_is_no_lack_without_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = v1_tree(tmp_path, hybrid=True)
    plant_v1(top, "b", without=("memory.memsw.limit_in_bytes",))
    group = BoxCgroup(read_layout(tmp_path), "b")
    group.create(LIMITS)
    monkeypatch.setattr("metalmark.system.cgroup._swap_is_on", lambda: False)
    group.settle()
    assert group.warnings == ()
    monkeypatch.setattr("metalmark.system.cgroup._swap_is_on", lambda: True)
    group.settle()
    assert any("swap" in text for text in group.warnings)


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("")
    with pytest.raises(StableError, match="no cgroups"):
        BoxCgroup(read_layout(tmp_path), "b").create(LIMITS)


def test_the_agent_is_moved_out_of_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = v2_tree(tmp_path)
    plant_v2(top, "b")
    group = BoxCgroup(read_layout(tmp_path), "b")
    group.create(CgroupLimits())
    procs = top / "metalmark/b/job/cgroup.procs"
    procs.write_text("41\n42\n")
    moved: list[tuple[Path, str]] = []

    def write(path: Path, value: str) -> None:
        if path.name == "cgroup.procs":
            moved.append((path, value))
            procs.write_text("")

    monkeypatch.setattr("metalmark.system.cgroup._write", write)
    group.settle()
    assert moved == [(top / "metalmark/b/agent/cgroup.procs", pid) for pid in ("41", "42")]


def test_only_real_pids_are_listed(tmp_path: Path) -> None:
    top = v2_tree(tmp_path)
    plant_v2(top, "b")
    (top / "metalmark/b/job/commands/cgroup.procs").write_text("0\n77\n")
    (top / "metalmark/b/agent/cgroup.procs").write_text("78\n")
    group = BoxCgroup(read_layout(tmp_path), "b")
    assert group.pids() == {77, 78}
    assert group.pids("job/commands") == {77}, "0 is a process of another pid namespace; to signal it hits ourselves"

from __future__ import annotations

from pathlib import Path

from tests.unit.system.cgroup_trees import plant_v1, plant_v2, v1_tree, v2_tree

from metalmark.system import BoxCgroup, CgroupUsage, read_layout, read_usage, reset_peak, watch_oom


def test_v2(tmp_path: Path) -> None:
    top = v2_tree(tmp_path)
    plant_v2(top, "b")
    folder = top / "metalmark/b/job/commands"
    (folder / "cpu.stat").write_text("usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 4\n")
    (folder / "memory.peak").write_text("4096\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\noom_group_kill 1\n")
    group = BoxCgroup(read_layout(tmp_path), "b")
    assert read_usage(group) == CgroupUsage(user_us=10, system_us=20, memory_peak_bytes=4096, oom_kills=1)
    assert watch_oom(group) is None, "the kernel kills the group itself"


def test_v2_of_an_old_kernel_has_no_peak(tmp_path: Path) -> None:
    top = v2_tree(tmp_path)
    plant_v2(top, "b")
    usage = read_usage(BoxCgroup(read_layout(tmp_path), "b"))
    assert usage == CgroupUsage(user_us=0, system_us=0, memory_peak_bytes=0, oom_kills=0)


def test_v1_divides_the_exact_sum_as_the_ticks_are(tmp_path: Path) -> None:
    top = v1_tree(tmp_path, hybrid=True)
    plant_v1(top, "b")
    accounting = top / "cpu,cpuacct/metalmark/b/job/commands"
    (accounting / "cpuacct.usage").write_text("9000000\n")
    (accounting / "cpuacct.usage_user").write_text("8000000\n")
    (accounting / "cpuacct.usage_sys").write_text("4000000\n")
    memory = top / "memory/metalmark/b/job/commands"
    (memory / "memory.max_usage_in_bytes").write_text("8192\n")
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    group = BoxCgroup(read_layout(tmp_path), "b")
    assert read_usage(group) == CgroupUsage(user_us=6000, system_us=3000, memory_peak_bytes=8192, oom_kills=3)
    reset_peak(group)
    assert (memory / "memory.max_usage_in_bytes").read_text() == "0"


def test_v1_without_ticks_is_all_user(tmp_path: Path) -> None:
    top = v1_tree(tmp_path, hybrid=False)
    plant_v1(top, "b")
    (top / "cpu,cpuacct/metalmark/b/job/commands/cpuacct.usage").write_text("1500000\n")
    usage = read_usage(BoxCgroup(read_layout(tmp_path), "b"))
    assert (usage.user_us, usage.system_us) == (1500, 0)

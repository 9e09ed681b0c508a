from __future__ import annotations

from pathlib import Path

from tests.unit.system.cgroup_trees import v1_tree, v2_tree

from metalmark.system import CgroupVersion, read_layout


def test_v2(tmp_path: Path) -> None:
    top = v2_tree(tmp_path)
    layout = read_layout(tmp_path)
    assert layout.version is CgroupVersion.V2
    assert layout.hierarchies == (top,)
    assert layout.controllers["memory"] == top
    assert "freezer" not in layout.controllers


def test_v2_without_controllers_as_in_a_container(tmp_path: Path) -> None:
    v2_tree(tmp_path, controllers="")
    assert read_layout(tmp_path).controllers == {}


def test_hybrid_has_its_controllers_on_v1(tmp_path: Path) -> None:
    top = v1_tree(tmp_path, hybrid=True)
    layout = read_layout(tmp_path)
    assert layout.version is CgroupVersion.HYBRID
    assert not layout.unified
    assert layout.controllers["cpu"] == layout.controllers["cpuacct"] == top / "cpu,cpuacct"
    assert top / "unified" in layout.hierarchies
    assert top / "systemd" in layout.hierarchies, "a runtime makes folders there too"


def test_v1_alone(tmp_path: Path) -> None:
    v1_tree(tmp_path, hybrid=False)
    assert read_layout(tmp_path).version is CgroupVersion.V1


def test_nothing_mounted(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("22 1 0:20 / /proc rw - proc proc rw\n")
    assert read_layout(tmp_path).version is CgroupVersion.NONE

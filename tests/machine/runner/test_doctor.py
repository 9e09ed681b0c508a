"""``host doctor`` on this machine, with prerequisites taken away for real in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.machine.ordinary_user import let_everybody_in

ROOT = Path(__file__).parents[3]
PROGRAM = "from metalmark.cli.main import main; main()"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hiding parts of the machine needs root")


def doctor(home: Path, take_away: str = "", *, before: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """Run it after some mounts that only it sees; return the exit code and the lines by their names."""
    script = f'set -e\n{take_away}\nexec "$@"'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            *before,
            sys.executable,
            "-c",
            PROGRAM,
            "host",
            "doctor",
            "--json",
        ],
        env={**os.environ, "METALMARK_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    shown = json.loads(done.stdout)
    assert shown["usable"] == (done.returncode == 0)
    lines: dict[str, Any] = {finding["name"]: finding for finding in shown["findings"]}
    lines["sandboxes"] = {sandbox["name"]: sandbox for sandbox in shown["sandboxes"]}
    return done.returncode, lines


def hide(*names: str) -> str:
    """Shell lines that make programs vanish from every folder that is searched."""
    places = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    return "\n".join(
        f"[ ! -e {place}/{name} ] || mount --bind /dev/null {place}/{name}" for name in names for place in places
    )


def test_programs_that_are_not_installed(tmp_path: Path) -> None:
    machine = os.uname().machine
    gone = hide(f"qemu-system-{machine}", "runc", "crun", "mksquashfs", "mke2fs", "passt", "firecracker")
    code, lines = doctor(tmp_path, gone)
    assert code == 1, "no sandbox is left"
    for name, package in (
        ("qemu", "qemu-system-"),
        ("container-runtime", "runc"),
        ("squashfs-tools", "squashfs-tools"),
        ("ext4-tools", "e2fsprogs"),
        ("passt", "passt"),
        ("firecracker", "firecracker"),
    ):
        assert lines[name]["status"] == "missing", name
        assert package in lines[name]["fix"]
    assert not any(sandbox["usable"] for name, sandbox in lines["sandboxes"].items() if name != "none")
    assert all(sandbox["reason"] for sandbox in lines["sandboxes"].values())


def test_programs_that_do_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libgone.so' >&2\nexit 127\n")
    broken.chmod(0o755)
    names = (f"qemu-system-{os.uname().machine}", "mksquashfs", "mke2fs", "passt")
    _, lines = doctor(tmp_path, hide(*names).replace("--bind /dev/null", f"--bind {broken}"))
    for name in ("qemu", "squashfs-tools", "ext4-tools", "passt"):
        assert lines[name]["status"] == "unusable", name
        assert "libgone.so" in lines[name]["found"]
    assert not lines["sandboxes"]["qemu"]["usable"]


def test_without_setpriv_nothing_can_be_started(tmp_path: Path) -> None:
    code, lines = doctor(tmp_path, hide("setpriv"))
    assert code == 1
    assert lines["util-linux"]["status"] == "missing"


def test_devices_control_groups_and_file_systems(tmp_path: Path) -> None:
    listing = tmp_path / "filesystems"
    listing.write_text("nodev\tproc\n\text4\n")
    limit = tmp_path / "limit"
    limit.write_text("0\n")
    take_away = f"""
    mkdir -p {tmp_path}/dev
    mount -t tmpfs none {tmp_path}/dev
    for name in null zero urandom random; do
        touch {tmp_path}/dev/$name
        mount --bind /dev/$name {tmp_path}/dev/$name
    done
    mount --rbind {tmp_path}/dev /dev
    mount -t tmpfs none /sys/fs/cgroup
    mount --bind {listing} /proc/filesystems
    mount --bind {limit} /proc/sys/user/max_user_namespaces
    [ ! -d /lib/modules ] || mount -t tmpfs none /lib/modules
    """
    code, lines = doctor(tmp_path / "home", take_away)
    assert code == 1
    for name in ("kvm", "vsock", "loop-devices", "cgroups", "squashfs", "overlayfs", "guest-kernel"):
        assert lines[name]["status"] == "missing", name
        assert lines[name]["fix"]
    assert lines["user-namespaces"]["status"] == "unusable"
    assert "max_user_namespaces" in lines["user-namespaces"]["fix"]
    assert not lines["sandboxes"]["container"]["usable"]


def test_one_cpu_no_space_no_agent(tmp_path: Path) -> None:
    agents = ROOT / "src/metalmark/sandbox/agent"
    take_away = f"mount -t tmpfs -o size=1M none {tmp_path}\nmount -t tmpfs none {agents}"
    if not agents.is_dir():
        pytest.skip("the guest agent was not built")
    code, lines = doctor(tmp_path, take_away, before=("taskset", "--cpu-list", "0"))
    assert code == 1
    assert lines["cpu-topology"]["status"] == "unusable"
    assert lines["free-space"]["status"] == "unusable"
    assert "METALMARK_HOME" in lines["free-space"]["fix"]
    assert lines["guest-agent"]["status"] == "missing"


def test_an_ordinary_user_is_answered_for_itself(tmp_path: Path) -> None:
    let_everybody_in(tmp_path)
    as_user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    if subprocess.run(
        [*as_user, sys.executable, "-c", "import metalmark"], check=False, capture_output=True
    ).returncode:
        pytest.skip("an ordinary user cannot read this environment")
    _, lines = doctor(tmp_path / "home", before=as_user)
    assert lines["free-space"]["status"] == "unusable", "the folder is root's"
    assert lines["kvm-group"]["status"] in ("missing", "ok")
    assert lines["vsock"]["fix"].startswith("sudo ") or lines["vsock"]["status"] == "ok"
    assert not lines["sandboxes"]["container"]["usable"]

"""A freshly debootstrapped Debian to enter, with this checkout in it at /repo and its environment's packages."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache/fresh"
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""Whose own Python is the one that this environment was made for, so that its compiled packages load."""
MIRROR = os.environ.get("METALMARK_DEBIAN_MIRROR", "http://deb.debian.org/debian")
ENTER = """
set -eu
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --rbind /sys "$1/sys"
mkdir -p "$1/repo"
mount --bind "$2" "$1/repo"
root=$1
shift 2
exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    METALMARK_HOME=/metalmark PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$SITE" "$@"
"""
PROGRAM = "from metalmark.cli.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class FreshDebian:
    root: Path

    def run(self, *argv: str, network: bool = True, user: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in it, in namespaces that end with it."""
        isolation = ["--mount", "--pid", "--fork", "--kill-child"] + ([] if network else ["--net"])
        site = next(path for path in sys.path if path.endswith("site-packages"))
        inside = f"/repo/src:/repo/{Path(site).relative_to(ROOT)}"
        words = list(argv)
        if user is not None:
            home = ["env", "HOME=/home/ada", "METALMARK_HOME=/home/ada/mm"]
            words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *home, *argv]
        return subprocess.run(
            ["unshare", *isolation, "sh", "-c", ENTER, "sh", str(self.root), str(ROOT), *words],
            env={**os.environ, "SITE": inside},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def metalmark(self, *words: str, network: bool = True, user: int | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("python3", "-c", PROGRAM, *words, network=network, user=user)

    def doctor(self) -> dict[str, Any]:
        """What ``host doctor`` finds in it, by name of the line."""
        shown = json.loads(self.metalmark("host", "doctor", "--json").stdout)
        return {finding["name"]: finding for finding in shown["findings"]}

    def installed(self) -> set[str]:
        text = self.run("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n").stdout
        return {line.split()[0] for line in text.splitlines() if line.endswith(" installed")}


def base_system(folder: Path) -> Path:
    """Return the archive of the base system, which is made when it is missing: once, whoever else wants it meanwhile.

    Args:
        folder: Where to make it.
    """
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        pytest.skip(
            f"no Debian release has the Python of this environment ({sys.version_info[0]}.{sys.version_info[1]})"
        )
    base = CACHE / f"{suite}.tar"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            if shutil.which("debootstrap") is None:
                pytest.skip("debootstrap is not installed")
            _bootstrap(suite, base, folder / "base")
    return base


def make_fresh_debian(folder: Path) -> FreshDebian:
    """Unpack the cached base system, which is made when it is missing (`scripts/prove-fresh` keeps the same)."""
    base = base_system(folder)
    root = folder / "root"
    root.mkdir(mode=0o755)
    subprocess.run(["tar", "-C", root, "-xf", base], check=True)
    root.chmod(0o755)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    # A mirror whose clock differs from ours is this machine's affair, and goes along like its name servers.
    for setting in Path("/etc/apt/apt.conf.d").glob("99*"):
        shutil.copy(setting, root / "etc/apt/apt.conf.d")
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write("ada:x:1000:1000::/home/ada:/bin/sh\n")
    (root / "home/ada").mkdir()
    os.chown(root / "home/ada", 1000, 1000)
    return FreshDebian(root=root)


def _bootstrap(suite: str, base: Path, folder: Path) -> None:
    include = "--include=ca-certificates,git,python3"
    subprocess.run(["debootstrap", "--variant=minbase", include, suite, folder, MIRROR], check=True, stdout=sys.stderr)
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    partial = base.with_name(f"{base.name}.partial-{os.getpid()}")
    subprocess.run(["tar", "-C", folder, "--numeric-owner", "--one-file-system", "-cf", partial, "."], check=True)
    partial.replace(base)
    shutil.rmtree(folder)

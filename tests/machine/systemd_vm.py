"""A Debian with systemd and cgroup v2 in an emulated virtual machine, in which tests of this repository run.

Most of what users have is cgroup v2 under systemd; the machine that runs these tests may have neither. The root is made
by mmdebstrap once (a minute) and kept in ``.cache/systemd``; the repository and its Python packages are a second disk.
"""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from metalmark.sandbox.initramfs import CpioEntry, cpio
from metalmark.sandbox.kernel import GuestKernel, find_kernel
from metalmark.testing.busybox_root import BUSYBOX

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/systemd"
_SUITE = "bookworm"
_PYTHON = (3, 11)
"""The suite's; compiled packages of the virtual environment have to fit it."""
_PACKAGES = (
    "busybox-static", "crun", "dbus", "e2fsprogs", "iproute2", "kmod", "passt", "procps", "python3", "runc",
    "squashfs-tools", "systemd", "systemd-sysv", "udev", "util-linux",
)  # fmt: skip
_TOOLS = ("mmdebstrap", "mksquashfs", "qemu-system-x86_64", "dpkg-deb")
_DRIVERS = ("virtio_pci", "virtio_blk", "squashfs", "overlay")
_MASKED = ("systemd-udevd", "systemd-logind", "getty@tty1", "serial-getty@ttyS0", "systemd-firstboot",
           "systemd-random-seed", "apt-daily.timer", "apt-daily-upgrade.timer", "systemd-timesyncd")  # fmt: skip
_MEMORY_MIB = 1536
_BEGIN, _END = "---- tests begin ----", "---- tests end "

_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do /bin/busybox insmod $module; done
/bin/busybox mkdir -p /base /over /root
/bin/busybox mount -t squashfs -o ro /dev/vda /base
if [ -e /dev/vdc ]; then /bin/busybox mount -t ext4 /dev/vdc /over
else /bin/busybox mount -t tmpfs -o size=70% over /over; fi
/bin/busybox mkdir -p /over/upper /over/work
/bin/busybox mount -t overlay -o lowerdir=/base,upperdir=/over/upper,workdir=/over/work root /root
/bin/busybox mkdir -p /root/code
/bin/busybox mount -t squashfs -o ro /dev/vdb /root/code
/bin/busybox umount /proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""
_UNIT = """[Unit]
Description=Tests
After=basic.target
[Service]
Type=oneshot
ExecStart=/code/run
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the tests in the machine did."""

    returncode: int
    """Of pytest."""
    text: str
    """What it printed."""

    def count(self, word: str) -> int:
        """How many tests ``passed``, ``failed`` or were ``skipped``, by the summary."""
        found = re.search(rf"(\d+) {word}", self.text.splitlines()[-1] if self.text else "")
        return int(found[1]) if found else 0


def need_systemd_vm() -> None:
    """Skip when the machine cannot be made or booted here."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the root file system is made with device nodes and owners")
    if sys.version_info[:2] != _PYTHON:
        pytest.skip(f"needs Python {_PYTHON[0]}.{_PYTHON[1]}: the virtual machine has that of Debian {_SUITE}")
    for tool in _TOOLS:
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{tool} is not installed")


def run_tests(
    kernels: Path,
    arguments: Sequence[str],
    *,
    timeout_s: float,
    files: Mapping[str, Path] | None = None,
    packages: Sequence[str] = (),
    disk: Path | None = None,
) -> Outcome:
    """Boot the machine, run pytest with some arguments in it, and return what it said.

    Args:
        kernels: Folder of unpacked guest kernels.
        arguments: What follows ``pytest`` in the repository's root.
        timeout_s: For boot and tests together.
        files: What the tests find in ``/code/files``, by name.
        packages: What is installed beside the usual packages.
        disk: An ext4 image that takes all changes: a machine that is booted with it again has them. It ends as by a
            cut of the power, so that it has what was synced, and of the rest nothing for sure. None: memory.
    """
    kernel = find_kernel(kernels, "x86_64")
    root = _root_image(kernel, tuple(packages))
    with tempfile.TemporaryDirectory(prefix="metalmark-vm-") as name:
        folder = Path(name)
        code = _code_image(folder, arguments, files or {}, limit_s=170 if files is None else int(timeout_s))
        (folder / "initrd").write_bytes(_initramfs(kernel))
        console = folder / "console"
        disks: list[str] = []
        for number, image in enumerate((root, code)):
            disks += ["-drive", f"if=none,id=d{number},file={image},format=raw,readonly=on"]
            disks += ["-device", f"virtio-blk-pci,drive=d{number}"]
        if disk is not None:
            disks += ["-drive", f"if=none,id=over,file={disk},format=raw", "-device", "virtio-blk-pci,drive=over"]
        subprocess.run(
            [
                # Deadlines in there are of real time, as everywhere, and it is ten times as slow: before other tests.
                "nice", "-n", "-5", "qemu-system-x86_64", "-M", "q35,accel=tcg", "-cpu", "qemu64", "-smp", "2",
                "-m", str(_MEMORY_MIB),
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{console}",
                "-kernel", str(kernel.image), "-initrd", str(folder / "initrd"), "-append", _command_line(), *disks,
            ],
            timeout=timeout_s, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return _outcome(console.read_text(encoding="utf-8", errors="replace"))


def _outcome(text: str) -> Outcome:
    text = text.replace("\r", "")
    assert _BEGIN in text, f"the machine did not get to the tests:\n{text[-3000:]}"
    body = text.split(_BEGIN, 1)[1]
    assert _END in body, f"the tests did not end:\n{body[-5000:]}"
    said, _, rest = body.partition(_END)
    return Outcome(returncode=int(rest.split()[0]), text=said.strip())


def _command_line() -> str:
    masks = " ".join(f"systemd.mask={name}" for name in _MASKED)
    return (
        f"console=ttyS0 loglevel=2 panic=-1 mitigations=off cryptomgr.notests noreplace-smp tsc=unstable {masks}"
        " systemd.show_status=no systemd.unit=multi-user.target systemd.unified_cgroup_hierarchy=1"
    )


def _initramfs(kernel: GuestKernel) -> bytes:
    folder, file = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    entries = [CpioEntry(name=name, mode=folder) for name in ("bin", "dev", "modules", "proc")]
    entries.append(CpioEntry(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(CpioEntry(name="bin/busybox", mode=file, content=BUSYBOX.read_bytes()))
    entries.append(CpioEntry(name="init", mode=file, content=_INIT.encode()))
    for number, module in enumerate(kernel.select(_DRIVERS)):
        entries.append(
            CpioEntry(name=f"modules/{number:02}-{module.name}.ko", mode=file, content=module.path.read_bytes())
        )
    return cpio(entries)


def _code_image(folder: Path, arguments: Sequence[str], files: Mapping[str, Path], *, limit_s: int) -> Path:
    tree, image = folder / "code", folder / "code.squashfs"
    (tree / "site").mkdir(parents=True)
    (tree / "files").mkdir()
    for name, file in files.items():
        shutil.copy(file, tree / "files" / name)
    packages = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    quoted = " ".join("'" + argument.replace("'", "'\\''") + "'" for argument in arguments)
    (tree / "run").write_text(
        "#!/bin/sh\n"
        f"echo '{_BEGIN}'\n"
        "modprobe -a loop squashfs overlay ext4 tun\n"
        "ip link set lo up\n"
        "export PYTHONPATH=/code/site:/code/src:/code PYTHONDONTWRITEBYTECODE=1 HOME=/root\n"
        "export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1\n"
        "cd /code && python3 -m pytest -p anyio -p timeout -p no:cacheprovider"
        f" -q --color=no --durations=5 --timeout {limit_s} {quoted}\n"
        f'echo "{_END}$?"\n'
        "systemctl poweroff --force --force\n"
    )
    (tree / "run").chmod(0o755)
    # Compiled modules go along, and pytest loads what these tests use: a start of Python takes many seconds in there.
    skipped = shutil.ignore_patterns("mypy", "mypyc", "ruff", "recordings")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=skipped, symlinks=True)
    shutil.copytree(packages, tree / "site", ignore=skipped, symlinks=True, dirs_exist_ok=True)
    assert compileall.compile_dir(tree / "src", quiet=1)
    shutil.copy(ROOT / "pyproject.toml", tree / "pyproject.toml")
    _mksquashfs(tree, image)
    return image


def _root_image(kernel: GuestKernel, packages: tuple[str, ...]) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    name = "-".join(("root", *packages))
    image = CACHE / f"{name}-{kernel.release}.squashfs"
    with _locked(CACHE / "lock"):
        if not image.exists():
            _make_root(kernel, image, CACHE / f"{name}.tar", packages)
    return image


def _make_root(kernel: GuestKernel, image: Path, tarball: Path, packages: tuple[str, ...]) -> None:
    if not tarball.exists():
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        partial = tarball.with_suffix(".partial.tar")
        subprocess.run(
            ["mmdebstrap", "--variant=minbase", f"--include={','.join((*_PACKAGES, *packages))}", *excluded, _SUITE,
             str(partial)],
            check=True, timeout=900, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        partial.rename(tarball)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        tree = Path(name) / "root"
        tree.mkdir()
        subprocess.run(["tar", "-xf", str(tarball), "-C", str(tree), "--numeric-owner"], check=True)
        package = _kernel_package(kernel.release)
        subprocess.run(["dpkg-deb", "-x", str(package), str(Path(name) / "kernel")], check=True)
        shutil.copytree(Path(name) / "kernel/lib/modules", tree / "lib/modules", dirs_exist_ok=True)
        subprocess.run(["chroot", str(tree), "/sbin/depmod", kernel.release], check=True)
        units = tree / "etc/systemd/system"
        (units / "tests.service").write_text(_UNIT)
        (units / "multi-user.target.wants").mkdir(exist_ok=True)
        (units / "multi-user.target.wants/tests.service").symlink_to("../tests.service")
        (tree / "etc/fstab").write_text("")
        _mksquashfs(tree, Path(name) / "image")
        (Path(name) / "image").rename(image)


def _kernel_package(release: str) -> Path:
    for folder in (ROOT / ".cache/kernel-packages", CACHE):
        for package in folder.glob(f"linux-image-{release}_*.deb"):
            return package
    # By the name of the release that the guest kernel was unpacked from.
    done = subprocess.run(
        ["apt-get", "download", f"linux-image-{release}"], cwd=CACHE, check=False, capture_output=True, timeout=300
    )
    for package in CACHE.glob(f"linux-image-{release}_*.deb"):
        return package
    pytest.skip(f"the package linux-image-{release} is not to be had: {done.stderr.decode()[-200:]}")


def _mksquashfs(tree: Path, image: Path) -> None:
    subprocess.run(
        ["mksquashfs", str(tree), str(image), "-noappend", "-quiet", "-no-progress", "-comp", "zstd",
         "-Xcompression-level", "1"],
        check=True, timeout=600,
    )  # fmt: skip


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

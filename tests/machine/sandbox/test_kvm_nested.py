"""The KVM probe where KVM works: in a guest with nested virtualisation, which QEMU emulates, and Debian's kvm_amd."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from tests.machine.sandbox.vm_boxes import made, need_qemu, qemu_driver

from metalmark.model import MIB
from metalmark.sandbox import agent_binary
from metalmark.sandbox.initramfs import make_initramfs
from metalmark.sandbox.kernel import find_kernel
from metalmark.sandbox.kernel_modules import Module, load_order, module_depends, module_name
from metalmark.sandbox.microvm import Boot
from metalmark.sandbox.qemu import DRIVERS
from metalmark.system import run
from metalmark.wire import Exec

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
PYTHON = Path("/usr/bin/python3")
_PROBE = """
import sys, time, types
sys.modules["metalmark"] = types.ModuleType("metalmark")
sys.modules["metalmark.system"] = types.ModuleType("metalmark.system")
sys.modules["metalmark.system"].monotonic_ns = time.monotonic_ns
from pathlib import Path
source = Path("/probe/kvm_guest.py").read_text()
module = types.ModuleType("kvm_guest")
exec(source, module.__dict__)
print(*module.run_probe_guests(Path("/dev/kvm"))[0])
"""


async def kernel_package(release: str) -> Path:
    """Find the package of the unpacked kernel, or fetch it."""
    folder = ROOT / ".cache/kernel-packages"
    found = sorted((ROOT / ".cache").rglob(f"linux-image-{release}_*.deb"))
    if found:
        return found[-1]
    if shutil.which("apt-get") is None:
        pytest.skip("needs apt, to fetch the modules for KVM")
    folder.mkdir(parents=True, exist_ok=True)
    fetched = await run(["apt-get", "download", f"linux-image-{release}"], timeout_s=120, cwd=folder)
    if fetched.returncode != 0:
        pytest.skip(f"the kernel's package cannot be fetched: {fetched.error_text}")
    return max(folder.glob(f"linux-image-{release}_*.deb"))


async def python_root(target: Path, tree: Path) -> None:
    """Make an image of this machine's Python, the libraries it loads, and the probe."""
    listed = await run(
        [str(PYTHON), "-c", "import sys; print(sys.base_prefix, '%d.%d' % sys.version_info[:2])"], timeout_s=30
    )
    prefix, version = listed.stdout.decode().split()
    library = Path(prefix) / "lib" / f"python{version}"
    extensions = [str(path) for path in (library / "lib-dynload").glob("_ctypes.*.so")]
    needed = await run(["ldd", str(PYTHON.resolve()), *extensions], timeout_s=30)
    for word in needed.stdout.decode().split():
        if word.startswith("/") and not word.endswith(":"):
            copy = tree / word.removeprefix("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, copy)
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "probe"):
        (tree / name).mkdir(exist_ok=True)
    shutil.copy(PYTHON.resolve(), tree / "bin/python3")
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    ignored = shutil.ignore_patterns("test", "__pycache__", "config-*", "*-packages", "idlelib", "tkinter")
    shutil.copytree(library, tree / str(library).removeprefix("/"), ignore=ignored, symlinks=True)
    shutil.copy(ROOT / "src/metalmark/sandbox/kvm_guest.py", tree / "probe/kvm_guest.py")
    (tree / "probe/main.py").write_text(_PROBE)
    squashed = await run(
        ["mksquashfs", str(tree), str(target), "-quiet", "-no-progress", "-noD", "-noF"], timeout_s=120
    )
    assert squashed.returncode == 0, squashed.error_text


@pytest.mark.timeout(300)
async def test_probe_guest_runs_to_its_end_under_a_kvm_that_works(
    home_with_kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_qemu()
    if not PYTHON.exists() or sys.byteorder != "little" or os.uname().machine != "x86_64":
        pytest.skip("needs the distribution's Python")
    kernel = find_kernel(home_with_kernel / "state/kernels", "x86_64")
    package = await kernel_package(kernel.release)
    await run(["dpkg-deb", "-x", str(package), str(tmp_path / "package")], timeout_s=60)
    files = {module_name(path): path for path in (tmp_path / "package").rglob("*.ko")}
    modules = {
        name: Module(name=name, path=path, depends=module_depends(path.read_bytes())) for name, path in files.items()
    }
    if "kvm_amd" not in modules:
        pytest.skip("this kernel's package has no kvm_amd")
    await python_root(tmp_path / "root.sqfs", tmp_path / "tree")
    driver = qemu_driver(home_with_kernel, kvm_device=Path("/nonexistent"))
    wanted = load_order([*DRIVERS, "kvm_amd"], modules, kernel.builtin)
    initramfs = make_initramfs(tmp_path / "initramfs", agent_binary("x86_64"), wanted)

    async def boot(*, network: bool) -> Boot:
        del network
        return Boot(kernel=kernel, initramfs=initramfs)

    monkeypatch.setattr(driver, "boot", boot)
    out = bytearray()
    async with made(driver, root=tmp_path / "root.sqfs", resources={"memory_bytes": 384 * MIB}) as one:
        await one.box.start()
        script = "busybox mknod /dev/kvm c 10 232; python3 -I -S /probe/main.py"
        request = Exec(argv=("/bin/busybox", "sh", "-c", script), env=("PATH=/bin",), stream_bytes=10_000)
        command = await one.box.exec(request, lambda stream, data: out.extend(data))
        await command.wait()
    assert out.decode() == "IO HLT\n"

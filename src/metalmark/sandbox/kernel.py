"""The guest kernel: unpacked once from a distribution's package, found again for each box.

``<state>/kernels/<release>/`` holds ``image`` (what the VMM loads), ``modules/*.ko`` (the few that boxes need) and
``kernel.json``. The package is never installed on the host.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metalmark.model import NoPermission, StableError, ToolMissing
from metalmark.sandbox.kernel_image import decompressed, guest_image
from metalmark.sandbox.kernel_modules import Module, load_order, module_depends, module_name, read_builtin
from metalmark.system import Folders, find_tool, in_thread, no_space_told, run, sync_folder

FORMAT: Final = 1
_UNPACK_LIMIT_S: Final = 120.0
_HINT: Final = "run `metalmark host setup`"

DRIVERS: Final[tuple[str, ...]] = (
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "squashfs",
    "overlay",
    "ext4",
)
"""What any box may need, with what these depend on. A box loads only those of its own devices."""


@dataclass(frozen=True, kw_only=True)
class GuestKernel:
    """A kernel that boxes can boot."""

    release: str
    machine: str
    """``x86_64`` or ``aarch64``."""
    image: Path
    modules: tuple[Module, ...]
    builtin: frozenset[str]

    def select(self, drivers: Sequence[str]) -> tuple[Module, ...]:
        """Return the modules for some drivers, in load order; what is built in needs none.

        Raises:
            ToolMissing: The kernel has not got a driver.
        """
        return load_order(drivers, {module.name: module for module in self.modules}, self.builtin)


def kernels_folder(folders: Folders) -> Path:
    """Return the folder of unpacked kernels."""
    return folders.state / "kernels"


def installed_kernels(folder: Path) -> tuple[GuestKernel, ...]:
    """Return the usable kernels under a folder, newest release first; what cannot be read is left out."""
    found = []
    for description in folder.glob("*/kernel.json"):
        try:
            found.append(_read(description))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return tuple(sorted(found, key=lambda kernel: release_key(kernel.release), reverse=True))


def find_kernel(folder: Path, machine: str) -> GuestKernel:
    """Return the newest kernel for a machine (``uname -m``).

    Raises:
        ToolMissing: None is set up.
    """
    for kernel in installed_kernels(folder):
        if kernel.machine == machine:
            return kernel
    raise ToolMissing(
        f"there is no guest kernel for {machine} in {folder}", why="a virtual machine boots one", hint=_HINT
    )


def release_key(release: str) -> tuple[tuple[int, str], ...]:
    """Return a key that orders releases as versions: 6.1.9 before 6.1.10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[^\d]+", release))


async def unpack_kernel_package(package: Path, folder: Path, *, extra: Sequence[Path] = ()) -> GuestKernel:
    """Unpack a Debian or Ubuntu kernel package, without installing it, into ``folder/<release>``.

    Keeps the kernel, uncompressed, and the modules that boxes need. Done again, it replaces what is there.

    Args:
        package: ``linux-image-…deb``.
        folder: Where unpacked kernels are (`kernels_folder`); made when missing.
        extra: Packages that hold the modules, where the distribution ships them apart (Ubuntu's ``linux-modules-…``).

    Raises:
        StableError: The package holds no kernel, or one that cannot be used.
        ToolMissing: ``dpkg-deb`` is not there, or a driver is missing.
        NoSpace, NoPermission, PhaseTimeout
    """
    await in_thread(_make_folder, folder)
    with no_space_told(folder), tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as name:
        tree = Path(name) / "tree"
        for archive in (package, *extra):
            done = await run([find_tool("dpkg-deb"), "-x", str(archive), str(tree)], timeout_s=_UNPACK_LIMIT_S)
            if done.returncode != 0:
                raise StableError(f"{archive} cannot be unpacked", why=done.error_text)
        return await in_thread(_install, tree, folder, package.name)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except PermissionError as error:
        raise NoPermission(f"{folder} cannot be made", hint="set METALMARK_HOME, or run as root") from error


def _install(tree: Path, folder: Path, package: str) -> GuestKernel:
    kernels = sorted(tree.glob("boot/vmlinuz-*"))
    if not kernels:
        raise StableError(f"{package} holds no kernel", why="there is no boot/vmlinuz-… in it")
    release = kernels[-1].name.removeprefix("vmlinuz-")
    staged = tree.parent / "staged"
    (staged / "modules").mkdir(parents=True)
    image = guest_image(kernels[-1].read_bytes())
    (staged / "image").write_bytes(image)
    modules_root = next(iter(tree.glob(f"**/lib/modules/{release}")), tree / "lib/modules" / release)
    builtin = _builtin(modules_root)
    files = {module_name(path): path for path in modules_root.rglob("*.ko*")}
    needed = _keep(files, builtin, staged / "modules")
    description = {
        "format": FORMAT,
        "release": release,
        "machine": "x86_64" if image[:4] == b"\x7fELF" else "aarch64",
        "package": package,
        "modules": {module.name: list(module.depends) for module in needed},
        "builtin": sorted(builtin),
    }
    (staged / "kernel.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    return _publish(staged, folder / release)


def _keep(files: dict[str, Path], builtin: frozenset[str], target: Path) -> tuple[Module, ...]:
    """Copy the modules of `DRIVERS` with all that they depend on, uncompressed."""
    modules: dict[str, Module] = {}
    waiting = [name for name in DRIVERS if name in files]
    while waiting:
        name = waiting.pop()
        if name in modules or name in builtin or name not in files:
            continue
        content = decompressed(files[name].read_bytes())
        path = target / f"{name}.ko"
        path.write_bytes(content)
        modules[name] = Module(name=name, path=path, depends=module_depends(content))
        waiting += modules[name].depends
    return load_order([name for name in DRIVERS if name in modules], modules, builtin)


def _builtin(modules_root: Path) -> frozenset[str]:
    listing = modules_root / "modules.builtin"
    return read_builtin(listing.read_text(encoding="ascii")) if listing.exists() else frozenset()


def _publish(staged: Path, target: Path) -> GuestKernel:
    """Rename the made folder into place; one that is there goes first (a box that runs has its files open)."""
    if target.exists():
        target.rename(staged.parent / "replaced")
    staged.rename(target)
    sync_folder(target.parent)
    return _read(target / "kernel.json")


def _read(description: Path) -> GuestKernel:
    found = json.loads(description.read_text(encoding="utf-8"))
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']}")
    folder = description.parent
    image = folder / "image"
    if not image.is_file():
        raise FileNotFoundError(image)
    return GuestKernel(
        release=found["release"],
        machine=found["machine"],
        image=image,
        modules=tuple(
            Module(name=name, path=folder / "modules" / f"{name}.ko", depends=tuple(depends))
            for name, depends in found["modules"].items()
        ),
        builtin=frozenset(found["builtin"]),
    )

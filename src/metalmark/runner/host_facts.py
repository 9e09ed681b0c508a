"""What an examination reads of the host: files below a root folder, tools, free space. Nothing is judged here."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metalmark.host import MemoryFacts, Topology, read_memory, read_topology
from metalmark.model import MetalmarkError
from metalmark.runner.distribution import Distribution, read_distribution
from metalmark.system import Folders, free_bytes, in_thread, run

_SBIN = ("usr/local/sbin", "usr/sbin", "sbin")
_TOOL_LIMIT_S = 5.0
_VERSION_FLAG = {"mksquashfs": "-version", "mke2fs": "-V"}
_NUMBER = re.compile(r"\d+(?:\.\d+)+(?:[-~+.\w]*)")


@dataclass(frozen=True, kw_only=True)
class ToolFact:
    """A program, and whether it starts."""

    name: str
    path: str | None = None
    version: str = ""
    error: str = ""
    """Why it does not start; empty when it does, or when it is not there."""

    @property
    def usable(self) -> bool:
        """Whether it is there and starts."""
        return self.path is not None and not self.error


@dataclass(frozen=True, kw_only=True)
class CgroupFacts:
    """The control groups that are mounted."""

    version: str
    """``v2``, ``v1``, ``hybrid`` (v1 with an extra v2 tree), or empty: none."""
    controllers: frozenset[str] = frozenset()
    writable: bool = False
    """Whether this process may make groups at the top."""
    favordynmods: bool = False


@dataclass(frozen=True, kw_only=True)
class UserNamespaceFacts:
    """What the kernel says of user namespaces, and whether making one worked."""

    supported: bool
    limit: int | None = None
    """``user.max_user_namespaces``."""
    clone_allowed: bool = True
    """``kernel.unprivileged_userns_clone``, on kernels of Debian and Ubuntu that have it."""
    apparmor_restricts: bool = False
    """``kernel.apparmor_restrict_unprivileged_userns``."""
    error: str = ""
    """What making one with ``unshare`` failed with; empty: it worked, or was not tried."""


@dataclass(frozen=True, kw_only=True)
class KvmDeviceFacts:
    """The device file and who may open it."""

    exists: bool
    readable: bool = False
    group: str = ""
    """The group that owns it."""


@dataclass(frozen=True, kw_only=True)
class VirtualisationFacts:
    """Whether this machine is a virtual one, and whether it could host others."""

    guest: bool
    vendor: str = ""
    cpu_extension: str = ""
    """``vmx``, ``svm``, or empty: the CPU (as this machine sees it) cannot virtualise; aarch64 never says."""
    nested: str = ""
    """The ``nested`` parameter of the KVM module: ``Y``, ``N``, ``1``, ``0``; empty when there is none."""
    modules: frozenset[str] = frozenset()
    """Loaded kernel modules whose name starts with ``kvm``."""
    nx_huge_pages: str = ""


@dataclass(frozen=True, kw_only=True)
class FolderSpace:
    """Free space of one of Metalmark's folders."""

    purpose: str
    folder: Path
    free_bytes: int
    writable: bool


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """Everything that the checks decide on."""

    machine: str
    kernel_release: str
    distribution: Distribution
    uid: int
    user: str
    groups: frozenset[str]
    """Those of this process."""
    listed_groups: frozenset[str]
    """Those that list the user by now; a new one counts from the next login on."""
    known_groups: frozenset[str]
    """All that there are."""
    kvm_device: KvmDeviceFacts
    virtualisation: VirtualisationFacts
    tools: Mapping[str, ToolFact]
    cgroups: CgroupFacts
    filesystems: frozenset[str]
    """Registered with the kernel, or loadable as a module of the running kernel."""
    loop_control: bool
    loop_usable: bool
    user_namespaces: UserNamespaceFacts
    vsock_guest: bool
    vsock_host: bool
    spaces: tuple[FolderSpace, ...]
    topology: Topology
    memory: MemoryFacts
    irqbalance: bool
    boot_arguments: str

    def tool(self, name: str) -> ToolFact:
        """Return what is known of a program."""
        return self.tools.get(name, ToolFact(name=name))


def qemu_program(machine: str) -> str:
    """Return the name of the QEMU system emulator for a ``uname -m`` value."""
    return f"qemu-system-{machine}"


async def read_host_facts(
    *,
    folders: Folders,
    environment: Mapping[str, str],
    root: Path = Path("/"),
    uid: int | None = None,
    machine: str | None = None,
    firecracker: Path | None = None,
) -> HostFacts:
    """Read the host.

    Args:
        folders: Metalmark's folders, for free space.
        environment: For PATH.
        root: Where ``/proc``, ``/sys``, ``/dev``, ``/etc`` and the sbin folders are looked for.
        uid: The user; None: this process's.
        machine: ``uname -m``; None: this machine's.
        firecracker: Firecracker's binary where it is not on PATH.
    """
    who = os.geteuid() if uid is None else uid
    of_machine = platform.machine() if machine is None else machine
    search = _search_path(root, environment)
    names = (qemu_program(of_machine), "runc", "crun", "mksquashfs", "mke2fs", "passt", "pasta", "setpriv", "unshare")
    tools = {name: await _read_tool(name, shutil.which(name, path=search)) for name in names}
    found = shutil.which("firecracker", path=search) if firecracker is None else str(firecracker)
    tools["firecracker"] = await _read_tool("firecracker", found)
    spaces = await in_thread(_spaces, folders)
    return HostFacts(
        machine=of_machine,
        kernel_release=platform.release(),
        distribution=read_distribution(root),
        uid=who,
        user=user_name(who),
        groups=_groups(),
        listed_groups=listed_groups(root, user_name(who)),
        known_groups=known_groups(root),
        kvm_device=kvm_device_facts(root),
        virtualisation=_virtualisation(root),
        tools=tools,
        cgroups=_cgroups(root),
        filesystems=_filesystems(root, platform.release()),
        loop_control=(root / "dev/loop-control").exists(),
        loop_usable=os.access(root / "dev/loop-control", os.R_OK | os.W_OK),
        user_namespaces=await _user_namespaces(root, tools["unshare"]),
        vsock_guest=(root / "dev/vsock").exists(),
        vsock_host=(root / "dev/vhost-vsock").exists(),
        spaces=spaces,
        topology=read_topology(root),
        memory=read_memory(root),
        irqbalance=await in_thread(_runs, root, "irqbalance"),
        boot_arguments=_read(root / "proc/cmdline"),
    )


def _search_path(root: Path, environment: Mapping[str, str]) -> str:
    return ":".join([environment.get("PATH", ""), *(str(root / folder) for folder in _SBIN)])


async def _read_tool(name: str, path: str | None) -> ToolFact:
    if path is None:
        return ToolFact(name=name)
    try:
        done = await run([path, _VERSION_FLAG.get(name, "--version")], timeout_s=_TOOL_LIMIT_S)
    except (MetalmarkError, OSError) as error:
        return ToolFact(name=name, path=path, error=str(error))
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    first = said.partition("\n")[0]
    version = _NUMBER.search(first)
    # mksquashfs 4.4 and older end with 1 after having shown their version.
    if done.returncode != 0 and version is None:
        last = said.rpartition("\n")[2]
        return ToolFact(name=name, path=path, error=last or f"it ended with exit code {done.returncode}")
    return ToolFact(name=name, path=path, version=version[0] if version else "")


def user_name(uid: int) -> str:
    """Return the name of a user, or the number when there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups() -> frozenset[str]:
    names = set()
    for number in {os.getegid(), *os.getgroups()}:
        with suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return frozenset(names)


def known_groups(root: Path) -> frozenset[str]:
    """Return the names of all groups in ``/etc/group``."""
    return frozenset(line.partition(":")[0] for line in _read(root / "etc/group").splitlines())


def listed_groups(root: Path, user: str) -> frozenset[str]:
    """Return the groups that list a user as a member, by now."""
    lines = (line.split(":") for line in _read(root / "etc/group").splitlines())
    return frozenset(fields[0] for fields in lines if len(fields) == 4 and user in fields[3].split(","))


def kvm_device_facts(root: Path) -> KvmDeviceFacts:
    """Return who may open ``/dev/kvm``."""
    device = root / "dev/kvm"
    try:
        status = device.stat()
    except OSError:
        return KvmDeviceFacts(exists=False)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return KvmDeviceFacts(exists=True, readable=os.access(device, os.R_OK | os.W_OK), group=group)


def _virtualisation(root: Path) -> VirtualisationFacts:
    info = _read(root / "proc/cpuinfo")
    flags = {
        word
        for line in info.splitlines()
        if line.startswith(("flags", "Features"))
        for word in line.partition(":")[2].split()
    }
    vendor = _hypervisor_vendor(root)
    modules = frozenset(path.name for path in (root / "sys/module").glob("kvm*"))
    nested = next(
        (
            text
            for name in ("kvm_intel", "kvm_amd")
            if (text := _read(root / f"sys/module/{name}/parameters/nested").strip())
        ),
        "",
    )
    return VirtualisationFacts(
        guest="hypervisor" in flags or bool(vendor),
        vendor=vendor,
        cpu_extension=next((name for name in ("vmx", "svm") if name in flags), ""),
        nested=nested,
        modules=modules,
        nx_huge_pages=_read(root / "sys/module/kvm/parameters/nx_huge_pages").strip(),
    )


def _hypervisor_vendor(root: Path) -> str:
    for name in ("sys_vendor", "product_name"):
        text = _read(root / "sys/devices/virtual/dmi/id" / name).strip()
        if any(word in text for word in ("QEMU", "KVM", "VMware", "Xen", "innotek", "Virtual Machine")):
            return text
    return ""


def _cgroups(root: Path) -> CgroupFacts:
    base = root / "sys/fs/cgroup"
    writable = os.access(base, os.W_OK)
    if (base / "cgroup.controllers").exists():
        mounts = _read(root / "proc/mounts").splitlines()
        options = next((line.split()[3] for line in mounts if line.split()[1:3] == ["/sys/fs/cgroup", "cgroup2"]), "")
        return CgroupFacts(
            version="v2",
            controllers=frozenset(_read(base / "cgroup.controllers").split()),
            writable=writable,
            favordynmods="favordynmods" in options.split(","),
        )
    named = {name for path in base.glob("*/tasks") for name in path.parent.name.split(",")}
    controllers = frozenset(named) - {"systemd", "unified"}
    if not controllers:
        return CgroupFacts(version="")
    hybrid = (base / "unified/cgroup.controllers").exists()
    return CgroupFacts(version="hybrid" if hybrid else "v1", controllers=controllers, writable=writable)


def _filesystems(root: Path, release: str) -> frozenset[str]:
    registered = {line.split()[-1] for line in _read(root / "proc/filesystems").splitlines() if line.strip()}
    modules = root / "lib/modules" / release
    loadable = {
        line.partition(":")[0].rpartition("/")[2].partition(".ko")[0].strip()
        for name in ("modules.dep", "modules.builtin")
        for line in _read(modules / name).splitlines()
    }
    return frozenset(registered | loadable)


async def _user_namespaces(root: Path, unshare: ToolFact) -> UserNamespaceFacts:
    limit = _read(root / "proc/sys/user/max_user_namespaces").strip()
    error = ""
    if root == Path("/") and unshare.path is not None:
        try:
            done = await run([unshare.path, "--user", "--map-root-user", "/bin/true"], timeout_s=_TOOL_LIMIT_S)
            error = (done.error_text or f"unshare ended with {done.returncode}") if done.returncode else ""
        except (MetalmarkError, OSError) as problem:
            error = str(problem)
    return UserNamespaceFacts(
        supported=(root / "proc/self/ns/user").exists() or limit not in ("", "0"),
        limit=int(limit) if limit.isdecimal() else None,
        clone_allowed=_read(root / "proc/sys/kernel/unprivileged_userns_clone").strip() != "0",
        apparmor_restricts=_read(root / "proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1",
        error=error,
    )


def _spaces(folders: Folders) -> tuple[FolderSpace, ...]:
    found = []
    for purpose, folder in (("state", folders.state), ("cache", folders.cache), ("run", folders.run)):
        existing = folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        found.append(
            FolderSpace(
                purpose=purpose,
                folder=folder,
                free_bytes=free_bytes(existing),
                writable=os.access(existing, os.W_OK | os.X_OK),
            )
        )
    return tuple(found)


def _runs(root: Path, name: str) -> bool:
    return any(_read(path).strip() == name for path in (root / "proc").glob("[0-9]*/comm"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

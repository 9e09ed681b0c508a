"""Decisions about what containers and root file systems need. Pure: an examination in, a finding out."""

from __future__ import annotations

from metalmark.runner.examination import Examination
from metalmark.runner.finding import Finding, Status

_RUNTIMES = ("runc", "crun")
_CONTROLLERS = {
    "v2": ("cpu", "cpuset", "memory", "pids"),
    "v1": ("cpu", "cpuacct", "cpuset", "memory", "pids"),
    "hybrid": ("cpu", "cpuacct", "cpuset", "memory", "pids"),
}


def check_container_runtime(examination: Examination) -> Finding:
    """An OCI runtime that starts; runc is tried before crun, as the sandbox does."""
    why = "sandbox container"
    tools = [examination.facts.tool(name) for name in _RUNTIMES]
    usable = [tool for tool in tools if tool.usable]
    if usable:
        found = ", ".join(f"{tool.path} {tool.version}" for tool in usable)
        return Finding(name="container-runtime", status=Status.OK, found=found, why=why)
    fix = examination.install("runc")
    if broken := [tool for tool in tools if tool.path is not None]:
        found = "; ".join(f"{tool.path} does not start: {tool.error}" for tool in broken)
        reinstall = fix.replace(" install ", " install --reinstall ", 1)
        return Finding(name="container-runtime", status=Status.UNUSABLE, found=found, why=why, fix=reinstall)
    found = "neither runc nor crun is installed"
    return Finding(name="container-runtime", status=Status.MISSING, found=found, why=why, fix=fix)


def check_cgroups(examination: Examination) -> Finding:
    """Control groups: their version, and the controllers that limit a box."""
    cgroups, uid = examination.facts.cgroups, examination.facts.uid
    why = "sandboxes container and none limit and measure the benchmark with them"
    if not cgroups.version:
        fix = examination.root_command(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"])
        found = "no control groups at /sys/fs/cgroup"
        return Finding(name="cgroups", status=Status.MISSING, found=found, why=why, fix=fix)
    lacking = [name for name in _CONTROLLERS[cgroups.version] if name not in cgroups.controllers]
    if lacking:
        found = f"{cgroups.version}, without the controllers {', '.join(lacking)}"
        fix = "boot with systemd.unified_cgroup_hierarchy=1"
        if "memory" in lacking:
            fix += " and cgroup_enable=memory"
        return Finding(
            name="cgroups", status=Status.UNUSABLE, found=found, why=why, fix=f"{fix} on the kernel command line"
        )
    found = f"{cgroups.version} with {', '.join(sorted(cgroups.controllers))}"
    if uid == 0 and not cgroups.writable:
        fix = "outside of a container, or in one that may write /sys/fs/cgroup, run it again"
        return Finding(name="cgroups", status=Status.UNUSABLE, found=f"{found}, read-only", why=why, fix=fix)
    if uid != 0:
        found += "; making groups needs root"
    return Finding(name="cgroups", status=Status.OK, found=found, why=why)


def check_squashfs_tools(examination: Examination) -> Finding:
    """``mksquashfs``, which writes root file systems."""
    return _tool(examination, "squashfs-tools", "mksquashfs", "squashfs-tools", "every image becomes a squashfs file")


def check_squashfs(examination: Examination) -> Finding:
    """Whether the host's kernel can mount squashfs."""
    return _filesystem(
        examination, "squashfs", "sandboxes container and none mount the image; virtual machines use the guest's kernel"
    )


def check_overlayfs(examination: Examination) -> Finding:
    """Whether the host's kernel has overlayfs."""
    return _filesystem(
        examination, "overlay", "sandboxes container and none put the scratch over the image with it", name="overlayfs"
    )


def check_ext4_tools(examination: Examination) -> Finding:
    """``mke2fs``, which makes scratch disks."""
    return _tool(examination, "ext4-tools", "mke2fs", "e2fsprogs", "scratch disks and --rootfs ext4 are ext4")


def check_loop_devices(examination: Examination) -> Finding:
    """Loop devices, by which an image file is mounted."""
    facts = examination.facts
    why = "sandboxes container and none mount image files through them"
    if not facts.loop_control:
        fix = examination.root_command(["modprobe", "loop"])
        found = "there is no /dev/loop-control"
        return Finding(name="loop-devices", status=Status.MISSING, found=found, why=why, fix=fix)
    if facts.uid == 0 and not facts.loop_usable:
        found = "/dev/loop-control may not be opened, even by root"
        fix = "outside of a container, or in one that may use loop devices, run it again"
        return Finding(name="loop-devices", status=Status.UNUSABLE, found=found, why=why, fix=fix)
    found = "/dev/loop-control" if facts.loop_usable else "/dev/loop-control; using it needs root"
    return Finding(name="loop-devices", status=Status.OK, found=found, why=why)


def check_user_namespaces(examination: Examination) -> Finding:
    """User namespaces, and what may keep an ordinary user from making one."""
    facts = examination.facts
    spaces = facts.user_namespaces
    why = "passt, which carries --network, locks itself into one"
    name = "user-namespaces"
    if not spaces.supported and spaces.limit != 0:
        fix = "use a kernel with CONFIG_USER_NS"
        return Finding(name=name, status=Status.MISSING, found="the kernel has none", why=why, fix=fix)
    if spaces.limit == 0:
        fix = examination.root_command(["sysctl", "-w", "user.max_user_namespaces=15000"])
        found = "switched off: user.max_user_namespaces is 0"
        return Finding(name=name, status=Status.UNUSABLE, found=found, why=why, fix=fix)
    if facts.uid != 0 and not spaces.clone_allowed:
        fix = examination.root_command(["sysctl", "-w", "kernel.unprivileged_userns_clone=1"])
        found = "for root only: kernel.unprivileged_userns_clone is 0"
        return Finding(name=name, status=Status.UNUSABLE, found=found, why=why, fix=fix)
    # AppArmor lets unshare(1) through where a profile for it is loaded, and still denies every other program.
    if facts.uid != 0 and spaces.apparmor_restricts:
        fix = examination.root_command(["sysctl", "-w", "kernel.apparmor_restrict_unprivileged_userns=0"])
        found = "restricted by AppArmor: kernel.apparmor_restrict_unprivileged_userns is 1"
        return Finding(name=name, status=Status.UNUSABLE, found=found, why=why, fix=fix)
    if spaces.error:
        found = f"making one failed: {spaces.error}"
        fix = "run outside of the container or security profile that forbids it"
        return Finding(name=name, status=Status.UNUSABLE, found=found, why=why, fix=fix)
    found = "available" if spaces.limit is None else f"available, up to {spaces.limit}"
    if facts.uid == 0 and (spaces.apparmor_restricts or not spaces.clone_allowed):
        found += " (to root; ordinary users are restricted)"
    return Finding(name=name, status=Status.OK, found=found, why=why)


def check_passt(examination: Examination) -> Finding:
    """``passt`` and ``pasta``, which connect a box to the network."""
    return _tool(
        examination, "passt", "passt", "passt", "--network connects a box with it; without --network nothing needs it"
    )


def check_util_linux(examination: Examination) -> Finding:
    """``setpriv``, which ties every helper process to the life of Metalmark."""
    why = "every process that Metalmark starts is tied to its own life with it"
    return _tool(examination, "util-linux", "setpriv", "util-linux", why)


def _tool(examination: Examination, name: str, program: str, package: str, why: str) -> Finding:
    tool = examination.facts.tool(program)
    fix = examination.install(package)
    if tool.path is None:
        return Finding(name=name, status=Status.MISSING, found=f"{program} is not installed", why=why, fix=fix)
    if tool.error:
        found = f"{tool.path} does not start: {tool.error}"
        reinstall = fix.replace(" install ", " install --reinstall ", 1)
        return Finding(name=name, status=Status.UNUSABLE, found=found, why=why, fix=reinstall)
    return Finding(name=name, status=Status.OK, found=f"{tool.path} {tool.version}".strip(), why=why)


def _filesystem(examination: Examination, kind: str, why: str, *, name: str = "") -> Finding:
    if kind in examination.facts.filesystems:
        return Finding(name=name or kind, status=Status.OK, found="the kernel has it", why=why)
    found = f"the kernel {examination.facts.kernel_release} has no {kind}, nor a module for it"
    fix = (
        f"{examination.root_command(['modprobe', kind])}; when there is no such module, boot the distribution's kernel"
    )
    return Finding(name=name or kind, status=Status.MISSING, found=found, why=why, fix=fix)

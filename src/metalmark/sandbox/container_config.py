"""The OCI runtime configuration of a container box, as a pure function (OCI runtime specification 1.0.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metalmark.model import Resources

Json = dict[str, object]

AGENT_PATH = "/dev/.metalmark-agent"
"""Where the guest agent is shown in the box: below ``/dev``, which is the box's own, so the image is not written to."""

CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What root may in a box: Docker's default set without CAP_MKNOD, since a box has no use for device nodes."""

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DENIED_SYSCALLS = (
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "pivot_root",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "userfaultfd",
    "uselib",
    "vhangup",
)
"""Refused with EPERM. A list of what is refused, rather than of what is allowed, has no argument to look at, so the
kernel answers from its bitmap: the system calls of a benchmark cost the same with it as without."""
_NEW_USER_NAMESPACE = 0x10000000
_EPERM, _ENOSYS = 1, 38

_SECCOMP_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
MAX_OPEN_FILES = 1048576
"""What a command gets in a virtual machine too."""


@dataclass(frozen=True, kw_only=True)
class ContainerPlan:
    """What the configuration of one box is made from."""

    root: Path
    """The mounted root file system."""
    agent: Path
    agent_argv: tuple[str, ...]
    """What follows the agent's name on its command line."""
    hostname: str
    resources: Resources
    cgroup: str
    """Path of the cgroup that the runtime starts the agent in, from the root of the hierarchies."""
    network_namespace: Path
    machine: str
    open_files: int = MAX_OPEN_FILES
    """Most open files of a process; not over this program's own hard limit."""
    with_cgroup_namespace: bool = True


def container_config(plan: ContainerPlan) -> Json:
    """Return the content of ``config.json``."""
    capabilities = list(CAPABILITIES)
    return {
        "ociVersion": "1.0.2",
        "hostname": plan.hostname,
        "root": {"path": str(plan.root), "readonly": False},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [AGENT_PATH, *plan.agent_argv],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": plan.open_files, "hard": plan.open_files}],
            # Set-user-id programs of an image (sudo, ping) work, as they do in a virtual machine.
            "noNewPrivileges": False,
        },
        "mounts": _mounts(plan),
        "linux": {
            "namespaces": _namespaces(plan),
            "cgroupsPath": plan.cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "rootfsPropagation": "private",
            **_seccomp(plan.machine),
        },
    }


def _namespaces(plan: ContainerPlan) -> list[Json]:
    kinds = ["pid", "ipc", "uts", "mount", *(["cgroup"] if plan.with_cgroup_namespace else [])]
    own: list[Json] = [{"type": kind} for kind in kinds]
    return [*own, {"type": "network", "path": str(plan.network_namespace)}]


def _mounts(plan: ContainerPlan) -> list[Json]:
    shared_bytes = plan.resources.memory_bytes // 2
    mounts = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _mount("/dev/shm", "tmpfs", "nosuid", "nodev", "mode=1777", f"size={shared_bytes}"),  # noqa: S108 - in the box
        _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _bind(AGENT_PATH, plan.agent),
    ]
    if plan.with_cgroup_namespace:
        mounts.append(_mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"))
    return mounts


def _mount(target: str, fs_type: str, *options: str) -> Json:
    return {"destination": target, "type": fs_type, "source": fs_type, "options": list(options)}


def _bind(target: str, source: Path) -> Json:
    return {
        "destination": target,
        "type": "bind",
        "source": str(source),
        "options": ["bind", "ro", "nosuid", "nodev"],
    }


def _seccomp(machine: str) -> Json:
    architectures = _SECCOMP_ARCHITECTURES.get(machine)
    if architectures is None:
        return {}
    return {
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": list(architectures),
            "syscalls": [
                {"names": list(DENIED_SYSCALLS), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
                # In a user namespace of its own a program would have every capability over its other namespaces. The
                # flags of clone3 are in memory, out of a filter's sight: a C library that misses it takes clone.
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": _EPERM,
                    "args": [
                        {
                            "index": 0,
                            "value": _NEW_USER_NAMESPACE,
                            "valueTwo": _NEW_USER_NAMESPACE,
                            "op": "SCMP_CMP_MASKED_EQ",
                        }
                    ],
                },
            ],
        }
    }

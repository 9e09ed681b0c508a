"""A user-mode network for a network namespace, by ``pasta`` (package passt).

The box gets the host's address and route on an interface of its own and reaches what the host's user could reach,
except the host's loopback: no port of the host is forwarded in, and the gateway's address is not mapped to the host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import PhaseTimeout, StableError
from metalmark.system import Child, find_tool, monotonic_s, sleep_s, spawn

_READY_S = 10.0
_NAMESERVER = re.compile(r"^\s*nameserver\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class PastaPlan:
    """What pasta is started with."""

    network_namespace: Path
    """A file that stands for the namespace, seen from ``mount_namespace``."""
    mount_namespace: int
    """Descriptor of the mount namespace in which that file is."""
    pid_file: Path
    log: Path


def pasta_argv(plan: PastaPlan) -> list[str]:
    """Return the command line, complete with the change of mount namespace."""
    return [
        find_tool("nsenter"),
        f"--mount=/proc/self/fd/{plan.mount_namespace}",
        find_tool("pasta", hint="apt-get install passt"),
        "--foreground", "--config-net", "--no-map-gw", "--netns-only", "--no-netns-quit",
        # Without a user namespace to join it would turn into nobody, who may not enter the network namespace; it
        # drops its capabilities and its view of the file system itself.
        "--runas", "0:0",
        "-t", "none", "-u", "none", "-T", "none", "-U", "none",
        "--pid", str(plan.pid_file),
        "--netns", str(plan.network_namespace),
    ]  # fmt: skip


async def start_pasta(plan: PastaPlan, *, cgroup_procs: tuple[Path, ...] = ()) -> Child:
    """Start pasta and wait until the namespace's interface is up.

    Raises:
        ToolMissing: It is not installed.
        StableError: It ended; its log says why.
        PhaseTimeout: It did not get ready.
    """
    with plan.log.open("wb") as log:
        child = spawn(
            pasta_argv(plan), stdout=log, stderr=log, pass_fds=(plan.mount_namespace,), cgroup_procs=cgroup_procs
        )
    deadline = monotonic_s() + _READY_S
    while not plan.pid_file.exists():
        if child.returncode is not None:
            child.close()
            raise StableError("pasta ended", why=_last_lines(plan.log), hint="check that the host has a network")
        if monotonic_s() > deadline:
            child.close()
            raise PhaseTimeout("network", _READY_S)
        await sleep_s(0.005)
    return child


def resolv_conf_of(files: Mapping[str, str]) -> str:
    """Return a ``resolv.conf`` with the host's name servers that a box can reach.

    A resolver on the host's loopback (systemd-resolved) is out of reach; where it keeps the real servers is read then.

    Args:
        files: Content of the host's candidates, in the order in which they are asked.
    """
    for text in files.values():
        servers = [name for name in _NAMESERVER.findall(text) if not _is_loopback(name)]
        if servers:
            return "".join(f"nameserver {name}\n" for name in servers)
    return ""


def read_resolv_confs() -> dict[str, str]:
    """Read the host's files for `resolv_conf_of`."""
    found = {}
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        with suppress(OSError):
            found[path] = Path(path).read_text(encoding="utf-8", errors="replace")
    return found


def _is_loopback(name: str) -> bool:
    return name.startswith("127.") or name in ("::1", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


def _last_lines(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return " / ".join(line for line in lines[-5:] if "syslog" not in line)
    return ""

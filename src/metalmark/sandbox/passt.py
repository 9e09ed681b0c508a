"""A user-mode network for a virtual machine, by ``passt``: what the guest sends leaves through this user's sockets.

The guest has an address of its own that nobody else sees. No port of the host is forwarded in, and no address stands
for the host's loopback, so that what listens there cannot be reached.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metalmark.model import StableError
from metalmark.sandbox.pasta import read_resolv_confs, resolv_conf_of
from metalmark.system import Child, find_tool, spawn

ADDRESS: Final = "10.0.2.15"
PREFIX: Final = 24
GATEWAY: Final = "10.0.2.2"


@dataclass(frozen=True, kw_only=True)
class GuestNetwork:
    """What the guest configures itself with."""

    address: str = f"{ADDRESS}/{PREFIX}"
    gateway: str = GATEWAY
    nameserver: str = ""


def guest_network() -> GuestNetwork:
    """Return the guest's settings; the name server is the first of the host's that is not on its loopback."""
    words = resolv_conf_of(read_resolv_confs()).split()
    return GuestNetwork(nameserver=words[1] if len(words) > 1 else "")


def passt_argv(descriptor: int) -> tuple[str, ...]:
    """Return the command line for a connected socket that it inherits."""
    return (
        find_tool("passt", hint="apt-get install passt"),
        "--foreground", "--quiet", "--stderr", "--one-off", "--ipv4-only",
        "--fd", str(descriptor),
        "--address", ADDRESS, "--netmask", str(PREFIX), "--gateway", GATEWAY,
        "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra",
        "--tcp-ports", "none", "--udp-ports", "none",
    )  # fmt: skip


def start_passt(log: Path, *, cgroup_procs: tuple[Path, ...] = ()) -> tuple[Child, socket.socket]:
    """Start passt and return it with the VMM's end of its connection.

    Raises:
        ToolMissing: It is not installed.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs, log.open("wb") as errors:
            child = spawn(
                passt_argv(theirs.fileno()), stderr=errors, pass_fds=(theirs.fileno(),), cgroup_procs=cgroup_procs
            )
    except BaseException:
        ours.close()
        raise
    return child, ours


def passt_failure(log: Path) -> StableError:
    """Explain, from its own words, why passt ended."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip() and "syslog" not in line]
    return StableError(
        "passt ended", why=" / ".join(lines[-3:]), hint="check that the host has a network and user namespaces"
    )

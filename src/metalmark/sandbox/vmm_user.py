"""The user that a VMM runs as when the runner is root: nobody that owns a file or runs anything else.

A guest that breaks out of its VMM is then an unknown user without capabilities, groups or a way to gain any. All files
reach the VMM as open descriptors (`metalmark.sandbox.vmm_files`), so it needs no right to any of them.
"""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metalmark.system import find_tool

FIRST_UID: Final = 0x70000000
"""Above every range that distributions and systemd hand out to users and containers (systemd's "Users, Groups, UIDs
and GIDs")."""
_UID_BITS: Final = 0x07FFFFFF
_NOBODY: Final = 65534


@dataclass(frozen=True, kw_only=True)
class VmmUser:
    """User, group and supplementary groups of a VMM."""

    uid: int
    groups: tuple[int, ...] = ()


def vmm_user(
    box: str, *, kvm_device: Path | None, proc: Path = Path("/proc"), euid: int | None = None
) -> VmmUser | None:
    """Return whom the VMM of a box runs as, or None: as whoever runs this.

    Args:
        box: Name of the box; each gets a user of its own.
        kvm_device: The KVM device, when the VMM needs it.
        proc: Where the proc file system is.
        euid: User of this process; None: ask.
    """
    if (os.geteuid() if euid is None else euid) != 0:
        return None
    groups: tuple[int, ...] = ()
    if kvm_device is not None:
        status = kvm_device.stat()
        if status.st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP and status.st_gid != 0:
            groups = (status.st_gid,)
        elif status.st_mode & (stat.S_IROTH | stat.S_IWOTH) != stat.S_IROTH | stat.S_IWOTH:
            return None
    uid = FIRST_UID + (zlib.crc32(box.encode()) & _UID_BITS)
    return VmmUser(uid=uid if _is_mapped(uid, proc) else _NOBODY, groups=groups)


def _is_mapped(uid: int, proc: Path) -> bool:
    # In a user namespace only some numbers exist.
    for name in ("uid_map", "gid_map"):
        ranges = [[int(word) for word in line.split()] for line in (proc / "self" / name).read_text().splitlines()]
        if not any(first <= uid < first + count for first, _, count in ranges):
            return False
    return True


def as_user(user: VmmUser | None, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments that run a program as a user, without capabilities or a way to new ones.

    Raises:
        ToolMissing: setpriv is not installed.
    """
    if user is None:
        return argv
    groups = f"--groups={','.join(map(str, user.groups))}" if user.groups else "--clear-groups"
    return (
        find_tool("setpriv"), f"--reuid={user.uid}", f"--regid={user.uid}", groups, "--inh-caps=-all",
        "--bounding-set=-all", "--no-new-privs",
        # The kernel forgets the signal when the user changes.
        "--pdeathsig=KILL", "--", *argv,
    )  # fmt: skip

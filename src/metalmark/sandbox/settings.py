"""What drivers are told of this installation."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

from metalmark.system import Folders, folders


@dataclass(frozen=True, kw_only=True)
class DriverSettings:
    """Folders and choices that hold for every box."""

    folders: Folders = field(default_factory=folders)
    machine: str = field(default_factory=platform.machine)
    """Architecture of the guest, as ``uname -m`` has it; another than the host's is emulated."""
    oci_runtime: str | None = None
    """Path or name of the OCI runtime for ``container``; None: runc, else crun."""
    allow_none: bool = False
    """``--danger-allow-no-sandbox`` was given."""
    kvm_device: Path = Path("/dev/kvm")
    firecracker: Path | None = None
    """Firecracker's binary; None: the one of `metalmark host setup`, else on PATH."""
    agent: Path | None = None
    """The guest agent's binary; None: the packaged one."""

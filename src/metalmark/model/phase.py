"""The phases of a run, each timed on the host's monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """The phases in the order in which they happen."""

    PULL = "pull"
    """Resolve the image and bring its blobs into the cache."""
    ROOTFS = "rootfs"
    """Build the root file system, or find it in the cache; make the scratch disk."""
    SPAWN = "spawn"
    """Start the VMM or the container runtime, up to where the guest can begin."""
    KERNEL = "kernel"
    """Boot the guest kernel up to its first process; nothing for sandboxes without a kernel of their own."""
    AGENT = "agent"
    """The agent's own set-up: devices, mounts, cgroup."""
    EXEC = "exec"
    """From the request to run the command to its end."""
    COLLECT = "collect"
    """Output files, then stop of the box."""


@dataclass(frozen=True, kw_only=True)
class PhaseSpan:
    """One phase of one iteration. ``start_ns`` counts from an arbitrary origin, the same for a whole run."""

    phase: Phase
    start_ns: int
    duration_ns: int

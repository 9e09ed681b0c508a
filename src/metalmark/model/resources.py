"""What a box may use and how much a run may hand out."""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.model.quantity import GIB, MIB


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of one box. Every sandbox enforces all of them; swap is always off."""

    vcpus: int = 1
    memory_bytes: int = 512 * MIB
    disk_bytes: int = 1 * GIB
    """Size of the scratch file system, the only writable one beside ``/tmp`` and ``/dev/shm``."""
    pids: int = 4096


@dataclass(frozen=True, kw_only=True)
class OutputLimits:
    """Bounds on what a run collects. Beyond them output is dropped and the result carries a flag."""

    stream_bytes: int = 25 * MIB
    """Most bytes kept of each of stdout and stderr."""
    files_bytes: int = 25 * MIB
    """Most bytes of all output files together."""
    file_count: int = 255

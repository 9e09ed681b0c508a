"""Processes, files, cgroups, mounts and the clock: the only package that touches the operating system."""

from __future__ import annotations

from metalmark.system.blocking import T, in_thread
from metalmark.system.clock import monotonic_ns, monotonic_s, realtime_ns, sleep_s
from metalmark.system.files import clone, free_bytes, locked, no_space_told, published, sync_folder, try_locked
from metalmark.system.folders import FORMAT_VERSION, Folders, ensure_private, folders
from metalmark.system.identity import ProcessIdentity, boot_id, identity_of, is_alive, own_identity, start_ticks
from metalmark.system.process import Child, Completed, find_tool, run, spawn

__all__ = [
    "FORMAT_VERSION",
    "Child",
    "Completed",
    "Folders",
    "ProcessIdentity",
    "T",
    "boot_id",
    "clone",
    "ensure_private",
    "find_tool",
    "folders",
    "free_bytes",
    "identity_of",
    "in_thread",
    "is_alive",
    "locked",
    "monotonic_ns",
    "monotonic_s",
    "no_space_told",
    "own_identity",
    "published",
    "realtime_ns",
    "run",
    "sleep_s",
    "spawn",
    "start_ticks",
    "sync_folder",
    "try_locked",
]

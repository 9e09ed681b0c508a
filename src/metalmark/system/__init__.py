"""Processes, files, cgroups, mounts and the clock: the only package that touches the operating system."""

from __future__ import annotations

from metalmark.system.affinity import bound_to
from metalmark.system.blocking import T, in_thread
from metalmark.system.cgroup import BoxCgroup, CgroupLimits
from metalmark.system.cgroup_layout import CgroupLayout, CgroupVersion, read_layout
from metalmark.system.cgroup_usage import CgroupUsage, read_usage, reset_peak, watch_oom
from metalmark.system.clock import Clock, SystemClock, monotonic_ns, monotonic_s, realtime_ns, sleep_s
from metalmark.system.files import clone, free_bytes, locked, no_space_told, published, sync_folder, try_locked
from metalmark.system.folders import FORMAT_VERSION, Folders, ensure_private, folders
from metalmark.system.identity import (
    ProcessIdentity,
    boot_id,
    identity_of,
    is_alive,
    kill_process,
    own_identity,
    start_ticks,
)
from metalmark.system.loops import Loop, attached, read_loops
from metalmark.system.loops import detach as detach_loop
from metalmark.system.mounts import (
    Mount,
    MountFlag,
    bind,
    make_private,
    mount,
    parse_mountinfo,
    pivot_root,
    read_mounts,
    unmount,
    unmount_below,
)
from metalmark.system.namespaces import Namespace, NamespaceThread, has_privilege, raise_loopback, set_hostname
from metalmark.system.ownership import open_to_others
from metalmark.system.process import Child, Completed, find_tool, max_open_files, run, spawn
from metalmark.system.service_manager import keep_manager_content, notify_manager, replace_process, watchdog_period_s
from metalmark.system.threads import Thread, bind_others, bind_thread, threads_of

__all__ = [
    "FORMAT_VERSION",
    "BoxCgroup",
    "CgroupLayout",
    "CgroupLimits",
    "CgroupUsage",
    "CgroupVersion",
    "Child",
    "Clock",
    "Completed",
    "Folders",
    "Loop",
    "Mount",
    "MountFlag",
    "Namespace",
    "NamespaceThread",
    "ProcessIdentity",
    "SystemClock",
    "T",
    "Thread",
    "attached",
    "bind",
    "bind_others",
    "bind_thread",
    "boot_id",
    "bound_to",
    "clone",
    "detach_loop",
    "ensure_private",
    "find_tool",
    "folders",
    "free_bytes",
    "has_privilege",
    "identity_of",
    "in_thread",
    "is_alive",
    "keep_manager_content",
    "kill_process",
    "locked",
    "make_private",
    "max_open_files",
    "monotonic_ns",
    "monotonic_s",
    "mount",
    "no_space_told",
    "notify_manager",
    "open_to_others",
    "own_identity",
    "parse_mountinfo",
    "pivot_root",
    "published",
    "raise_loopback",
    "read_layout",
    "read_loops",
    "read_mounts",
    "read_usage",
    "realtime_ns",
    "replace_process",
    "reset_peak",
    "run",
    "set_hostname",
    "sleep_s",
    "spawn",
    "start_ticks",
    "sync_folder",
    "threads_of",
    "try_locked",
    "unmount",
    "unmount_below",
    "watch_oom",
    "watchdog_period_s",
]

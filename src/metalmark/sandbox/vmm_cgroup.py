"""The host's cgroup around a VMM: a bound on what a guest that breaks out of it could use up.

The guest's own memory is bounded by the virtual machine. The group's bound lies above that, so that it never slows down
a benchmark. An ordinary user may not make cgroups and goes without.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from metalmark.model import MIB, NoPermission, StableError
from metalmark.sandbox.leftovers import Kind, note
from metalmark.sandbox.port import BoxSpec
from metalmark.system import BoxCgroup, CgroupLimits, in_thread, read_layout

_HEADROOM_BYTES: Final = 512 * MIB
"""For the VMM's own memory and the cached pages of the disks that it reads."""
_EMULATOR_BYTES: Final = 512 * MIB
"""For translated code and its tables."""
_HELPER_THREADS: Final = 256


class VmmCgroup:
    """The cgroup of one VMM; all of it does nothing where it cannot be made."""

    def __init__(self, spec: BoxSpec, *, emulated: bool) -> None:
        self._spec = spec
        self._emulated = emulated
        self._group: BoxCgroup | None = None
        self.warning = ""
        """Why there is none, when one could be expected."""

    @property
    def vmm_files(self) -> tuple[Path, ...]:
        """Files through which the VMM joins."""
        return self._group.procs_files("job") if self._group else ()

    @property
    def helper_files(self) -> tuple[Path, ...]:
        """Files through which a helper joins, which is not limited."""
        return self._group.procs_files("agent") if self._group else ()

    async def create(self) -> None:
        """Make it, for root."""
        if os.geteuid() != 0:
            return
        resources = self._spec.resources
        limits = CgroupLimits(
            memory_bytes=resources.memory_bytes + _HEADROOM_BYTES + (_EMULATOR_BYTES if self._emulated else 0),
            pids=resources.vcpus + _HELPER_THREADS,
        )
        layout = await in_thread(read_layout)
        group = BoxCgroup(layout, self._spec.name)
        note(self._spec.workspace, Kind.CGROUP, self._spec.name)
        try:
            await in_thread(group.create, limits)
        except (NoPermission, StableError) as error:
            self.warning = f"the virtual machine monitor runs without a cgroup of its own: {error}"
            return
        self._group = group

    async def remove(self) -> bool:
        """Kill what is in it and take it away; safe to repeat.

        Returns:
            False: it could not be removed.
        """
        group, self._group = self._group, None
        return True if group is None else await in_thread(group.remove)

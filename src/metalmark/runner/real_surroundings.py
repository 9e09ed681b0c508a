"""The images and sandboxes of this machine, behind the interfaces that a run sees."""

from __future__ import annotations

import platform as machine_platform
from contextlib import AbstractAsyncContextManager
from typing import cast

from metalmark.model import JobSpec, Platform, ProgressSink, RootfsMode, SandboxName
from metalmark.oci import ImageCache, RegistryAccess, ResolvedImage, Rootfs, open_rootfs, parse_source, pull
from metalmark.runner.context import ChosenSandbox, RunImage, RunRootfs
from metalmark.sandbox import DriverSettings, choose


class CachedImages:
    """Images pulled into a cache (`metalmark.runner.context.Images`)."""

    def __init__(self, cache: ImageCache, access: RegistryAccess) -> None:
        self._cache = cache
        self._access = access

    async def pull(self, spec: JobSpec, progress: ProgressSink) -> RunImage:
        """See `metalmark.oci.pull`."""
        wanted = Platform.parse(spec.platform) if spec.platform else Platform.of_machine(machine_platform.machine())
        return await pull(
            parse_source(spec.image), cache=self._cache, platform=wanted, access=self._access, progress=progress
        )

    def open_rootfs(
        self, image: RunImage, *, mode: RootfsMode, disk_bytes: int, progress: ProgressSink
    ) -> AbstractAsyncContextManager[RunRootfs]:
        """See `metalmark.oci.open_rootfs`."""
        opened: AbstractAsyncContextManager[Rootfs] = open_rootfs(
            cast("ResolvedImage", image), cache=self._cache, mode=mode, disk_bytes=disk_bytes, progress=progress
        )
        return opened


class MachineSandboxes:
    """The sandboxes of this machine (`metalmark.runner.context.Sandboxes`)."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settings = settings

    async def choose(self, requested: SandboxName | None) -> ChosenSandbox:
        """See `metalmark.sandbox.choose`."""
        return await choose(requested, self._settings)

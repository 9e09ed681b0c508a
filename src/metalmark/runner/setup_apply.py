"""Carrying out a set-up plan. Each action stands by itself: one that fails is told, and the others are still done."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from metalmark.model import MetalmarkError, StableError, TransientError
from metalmark.runner.apt import Apt, PackageFile, local_repository
from metalmark.runner.bundle import Bundle, Kind, stage_files
from metalmark.runner.firecracker import FirecrackerRelease
from metalmark.runner.kernel_package import download_kernel
from metalmark.runner.packages import PACKAGES
from metalmark.runner.setup_plan import (
    Action,
    InstallFirecracker,
    InstallPackages,
    JoinGroup,
    SetupPlan,
    UnpackKernel,
)
from metalmark.sandbox import unpack_kernel_package
from metalmark.system import find_tool, in_thread, run

_USERMOD_LIMIT_S = 30.0

Say = Callable[[str], None]
"""Takes a line for the person who waits."""


@dataclass(frozen=True, kw_only=True)
class SetupReport:
    """What came of a plan."""

    done: tuple[str, ...]
    failed: tuple[tuple[str, MetalmarkError], ...]
    """What was to be done, and why it was not."""


@dataclass
class SetupRun:
    """Carries out one plan.

    Args:
        apt: The package tools.
        firecracker: The pinned release.
        say: Takes lines of progress.
        bundle_folder: The verified folder to install from.
        bundle: Its manifest.
    """

    apt: Apt
    firecracker: FirecrackerRelease
    say: Say
    bundle_folder: Path | None = None
    bundle: Bundle | None = None
    _updated: bool = field(default=False, init=False)

    async def apply(self, plan: SetupPlan) -> SetupReport:
        """Do every action of the plan."""
        done: list[str] = []
        failed: list[tuple[str, MetalmarkError]] = []
        for action in plan.actions:
            self.say(action.describe())
            try:
                done.append(await self._do(action))
            except MetalmarkError as error:
                if isinstance(action, InstallFirecracker) and not action.required:
                    self.say(f"Firecracker is left out, it is optional: {error}")
                    continue
                failed.append((action.describe(), error))
        return SetupReport(done=tuple(done), failed=tuple(failed))

    async def _do(self, action: Action) -> str:
        match action:
            case InstallPackages():
                return await self._install(action)
            case UnpackKernel():
                return await self._unpack(action)
            case InstallFirecracker():
                return await self._firecracker(action)
            case JoinGroup():
                return await self._join(action)

    async def _install(self, action: InstallPackages) -> str:
        if action.bundle is not None:
            async with local_repository(self.apt, self._packages()) as apt:
                return await self._install_known(apt, action.names)
        await self._update()
        return await self._install_known(self.apt, action.names)

    async def _install_known(self, apt: Apt, names: tuple[str, ...]) -> str:
        known = await apt.candidates(names)
        optional = {package.name for package in PACKAGES if not package.required}
        unknown = [name for name in names if name not in known]
        if needed := [name for name in unknown if name not in optional]:
            raise StableError(
                f"apt has no package {', '.join(needed)}",
                hint="on Ubuntu enable the component universe: add-apt-repository universe",
            )
        for name in unknown:
            self.say(f"{name} is left out: this release of the distribution does not have it")
        wanted = [name for name in names if name in known]
        if wanted:
            await apt.install(wanted)
        return f"installed {', '.join(wanted) or 'nothing'}"

    async def _update(self) -> None:
        if self._updated:
            return
        self._updated = True
        try:
            await self.apt.update()
        except TransientError as error:
            # Lists that are a little old still serve; where they do not, what is asked of them says so.
            self.say(f"the lists of packages could not be refreshed: {error.why or error.found}")

    async def _unpack(self, action: UnpackKernel) -> str:
        if action.update:
            await self._update()
        with tempfile.TemporaryDirectory(prefix="metalmark-kernel-") as name:
            if action.bundle is not None:
                (image,) = await self._staged(Kind.KERNEL, Path(name))
                modules = await self._staged(Kind.KERNEL_MODULES, Path(name))
            else:
                image, modules = await download_kernel(self.apt, action.package, Path(name))
            kernel = await unpack_kernel_package(image, action.folder, extra=modules)
        return f"guest kernel {kernel.release}"

    async def _firecracker(self, action: InstallFirecracker) -> str:
        with tempfile.TemporaryDirectory(prefix="metalmark-firecracker-") as name:
            if action.bundle is not None:
                (archive,) = await self._staged(Kind.FIRECRACKER, Path(name))
            else:
                archive = await self.firecracker.fetch(Path(name))
            path = await self.firecracker.install(archive)
        return f"Firecracker at {path}"

    async def _join(self, action: JoinGroup) -> str:
        argv = [find_tool("usermod"), "-aG", action.group, action.user]
        completed = await run(argv, timeout_s=_USERMOD_LIMIT_S)
        if completed.returncode != 0:
            raise StableError(f"{action.user} could not be put into group {action.group}", why=completed.error_text)
        return f"{action.user} is in group {action.group} from the next login on"

    def _packages(self) -> list[PackageFile]:
        assert self.bundle is not None
        assert self.bundle_folder is not None
        return [
            PackageFile(path=self.bundle_folder / file.path, size_bytes=file.size_bytes, sha256=file.sha256)
            for file in self.bundle.files
            if file.kind is Kind.PACKAGE
        ]

    async def _staged(self, kind: Kind, target: Path) -> tuple[Path, ...]:
        assert self.bundle is not None
        assert self.bundle_folder is not None
        return await in_thread(stage_files, self.bundle_folder, self.bundle, kind, target)

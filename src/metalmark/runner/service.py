"""The service of a runner on this machine: put in place, brought up to date, and taken away again.

Doing it twice is the same as once: what is as it should be stays untouched, and the service is started again only when
something has changed.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from metalmark.client import find_runner_key
from metalmark.model import InputError, NoPermission, StableError
from metalmark.runner.installation import LOCK, VERSIONS, Installation, InstalledVersion
from metalmark.runner.launcher import CURRENT, FAILED, LAUNCHER, TRIAL
from metalmark.runner.service_unit import UNIT_NAME, ServiceUnit
from metalmark.runner.version_folder import artifact_checksum, install_artifact, install_copy
from metalmark.system import Completed, in_thread, open_to_others, published, run

UNITS = Path("/etc/systemd/system")
SYSTEMD_MIN = 247
"""The first with ``LoadCredential``."""
_QUICK_S = 60.0
_START_S = 360.0
_HIDDEN_FOLDERS = ("/home", "/root", "/run/user")
"""What ``ProtectHome`` takes from the service."""
_OWN = (LAUNCHER, CURRENT, TRIAL, FAILED, "failures.json", LOCK)


class ServiceManager(Protocol):
    """What is asked of systemd."""

    async def version(self) -> int | None:
        """Return its version; None when this machine was not started by it."""

    async def reload(self) -> None:
        """Read the units again."""

    async def enable(self, unit: str) -> None:
        """Have a unit started with the machine."""

    async def restart(self, unit: str, *, within_s: float) -> None:
        """Start a unit, or start it again, and wait until it is ready."""

    async def disable(self, unit: str, *, within_s: float) -> None:
        """Stop a unit, and have it started no more."""

    async def is_active(self, unit: str) -> bool:
        """Whether a unit runs."""


class Systemctl(ServiceManager):
    """The systemd of this machine."""

    async def version(self) -> int | None:
        """Return its version; None when this machine was not started by it."""
        if not await in_thread(Path("/run/systemd/system").is_dir):
            return None
        done = await self._call("--version", check=False)
        found = re.match(rb"systemd (\d+)", done.stdout)
        return int(found[1]) if found else None

    async def reload(self) -> None:
        """Read the units again."""
        await self._call("daemon-reload")

    async def enable(self, unit: str) -> None:
        """Have a unit started with the machine."""
        await self._call("enable", "--quiet", unit)

    async def restart(self, unit: str, *, within_s: float) -> None:
        """Start a unit, or start it again, and wait until it is ready."""
        await self._call("restart", unit, within_s=within_s)

    async def disable(self, unit: str, *, within_s: float) -> None:
        """Stop a unit, and have it started no more."""
        await self._call("disable", "--now", "--quiet", unit, within_s=within_s)

    async def is_active(self, unit: str) -> bool:
        """Whether a unit runs."""
        return (await self._call("is-active", "--quiet", unit, check=False)).returncode == 0

    async def _call(self, *words: str, check: bool = True, within_s: float = _QUICK_S) -> Completed:
        done = await run(["systemctl", "--no-pager", *words], timeout_s=within_s)
        if check and done.returncode != 0:
            raise StableError(
                f"systemctl {words[0]} failed", why=done.error_text[-400:], hint=f"journalctl -e -u {UNIT_NAME}"
            )
        return done


@dataclass(frozen=True, kw_only=True)
class ServiceRequest:
    """What the service shall be."""

    unit: ServiceUnit
    artifact: Path | None = None
    """What to install; None: a copy of what this process runs from, unless there is a version already."""
    start: bool = True
    python: Path = field(default_factory=lambda: Path(sys.executable).resolve())
    """The Python that runs what is installed."""


async def install_service(
    request: ServiceRequest,
    *,
    manager: ServiceManager,
    tell: Callable[[str], None],
    units: Path = UNITS,
    uid: int | None = None,
) -> bool:
    """Install the service, or bring it up to date.

    Args:
        request: What it shall be.
        manager: This machine's.
        tell: Is told each step, one line.
        units: Folder of the administrator's units.
        uid: User of this process; None: ask.

    Returns:
        Whether anything was changed.

    Raises:
        NoPermission: This is not root.
        InputError: A value, the key or the artifact cannot be used.
        StableError: There is no systemd, or something does not work on this machine.
    """
    text = request.unit.text()
    await _check(request, manager, os.geteuid() if uid is None else uid)
    installation = Installation(request.unit.root)
    await in_thread(installation.prepare)
    with installation.alone():
        before = await in_thread(installation.current)
        version = await _version(request, installation, before)
        if version != before:
            await in_thread(installation.switch, version.name)
            await in_thread(installation.end_trial)
            tell(f"installed version {version.version} in {installation.folder(version.name)}")
    for folder in (request.unit.state, request.unit.cache):
        await in_thread(functools.partial(folder.mkdir, mode=0o700, parents=True, exist_ok=True))
    written = await in_thread(_write, units / UNIT_NAME, text)
    if written:
        tell(f"wrote {units / UNIT_NAME}")
        await manager.reload()
    await manager.enable(UNIT_NAME)
    changed = written or version != before
    if request.start and (changed or not await manager.is_active(UNIT_NAME)):
        # A service that runs ends its job first.
        await manager.restart(UNIT_NAME, within_s=request.unit.stop_timeout_s + _START_S)
        tell(f"started {UNIT_NAME}")
        return True
    return changed


async def _check(request: ServiceRequest, manager: ServiceManager, uid: int) -> None:
    if uid != 0:
        raise NoPermission("a service of the system is installed by root", hint="run this with sudo, or see --print")
    version = await manager.version()
    if version is None or version < SYSTEMD_MIN:
        raise StableError(
            "this machine was not started by systemd" if version is None else f"this is systemd {version}",
            why=f"the service needs systemd {SYSTEMD_MIN} or later",
            hint="run `metalmark runner up` under whatever supervises services here",
        )
    # The key that the service will be given is read once here, so that a wrong one is told now.
    key = await in_thread(functools.partial(find_runner_key, key_file=request.unit.key_file, environment={}))
    if key.exposed:
        raise InputError("--key-file", str(request.unit.key_file), key.exposed)


async def _version(
    request: ServiceRequest, installation: Installation, before: InstalledVersion | None
) -> InstalledVersion:
    if request.artifact is None and before is not None:
        return before
    if any(request.python.is_relative_to(folder) for folder in _HIDDEN_FOLDERS):
        raise StableError(
            f"Python is in {request.python}, a home folder",
            why="the service sees none, and a version is run by the Python that made it",
            hint="call Metalmark with a Python of the system, as in /usr/bin/python3 -m venv /opt/metalmark-install",
        )
    place = await in_thread(open_to_others, request.python)
    if place is not None:
        raise StableError(
            f"Python is {request.python}, and {place} can be written by others",
            why="it is to run as root",
            hint="call Metalmark with a Python of the system, as in /usr/bin/python3 -m venv /opt/metalmark-install",
        )
    arguments = request.unit.arguments()
    if request.artifact is None:
        return await install_copy(installation, arguments=arguments)
    checksum = await in_thread(artifact_checksum, request.artifact)
    return await install_artifact(installation, request.artifact, checksum=checksum, arguments=arguments)


def _write(path: Path, text: str) -> bool:
    try:
        if path.read_text("utf-8") == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    with published(path, mode=0o644) as stream:
        stream.write(text.encode())
    return True


async def uninstall_service(
    root: Path,
    *,
    manager: ServiceManager,
    tell: Callable[[str], None],
    units: Path = UNITS,
    stop_within_s: float = 3600.0,
    uid: int | None = None,
) -> bool:
    """Stop the service and take it away. The key, results that wait for the server, and caches stay.

    Args:
        root: Folder of the install.
        manager: This machine's.
        tell: Is told each step, one line.
        units: Folder of the administrator's units.
        stop_within_s: How long the service may take to end its job.
        uid: User of this process; None: ask.

    Returns:
        Whether anything was there.

    Raises:
        NoPermission: This is not root.
        StableError: The service cannot be stopped.
    """
    if (os.geteuid() if uid is None else uid) != 0:
        raise NoPermission("a service of the system is taken away by root", hint="run this with sudo")
    found = False
    if (units / UNIT_NAME).exists():
        found = True
        await manager.disable(UNIT_NAME, within_s=stop_within_s)
        await in_thread((units / UNIT_NAME).unlink)
        await manager.reload()
        tell(f"stopped and removed {UNIT_NAME}")
    if (root / LAUNCHER).is_file():
        found = True
        await in_thread(_remove, root)
        tell(f"removed {root}")
    return found


def _remove(root: Path) -> None:
    # By name: nobody's own files go with it.
    Installation(root).discard_all_but()
    for name in _OWN:
        (root / name).unlink(missing_ok=True)
    shutil.rmtree(root / VERSIONS, ignore_errors=True)
    if not any(root.iterdir()):
        root.rmdir()

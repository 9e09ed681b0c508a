"""The sandboxes and the Firecracker release of this machine, for doctor and set-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from metalmark.model import SandboxName, SandboxUnavailable
from metalmark.runner.doctor import examine
from metalmark.runner.examination import Examination
from metalmark.runner.firecracker import FirecrackerRelease
from metalmark.sandbox import DriverSettings, PinnedFirecracker, agent_binary, make_driver


async def examine_host(settings: DriverSettings, environment: Mapping[str, str]) -> Examination:
    """Examine this machine with its own sandboxes; see `metalmark.runner.doctor.examine`."""
    # Whether `none` would work is told; that it must be allowed is told where it is used.
    probed = replace(settings, allow_none=True)
    return await examine(
        settings,
        environment=environment,
        drivers=[make_driver(name, probed) for name in SandboxName],
        find_agent=agent_binary,
        find_firecracker=_installed_firecracker,
    )


def host_firecracker(settings: DriverSettings) -> FirecrackerRelease:
    """Return the pinned release for this machine; where there is none, one that can only refuse."""
    try:
        return PinnedFirecracker(settings)
    except SandboxUnavailable as error:
        return NoRelease(error)


class NoRelease:
    """Firecracker on an architecture that it is not made for.

    Args:
        error: Says so.
    """

    version = "none"

    def __init__(self, error: SandboxUnavailable) -> None:
        self._error = error

    def installed(self) -> Path | None:
        """Return None."""
        return None

    async def fetch(self, folder: Path) -> Path:
        """Refuse.

        Raises:
            SandboxUnavailable: Always.
        """
        del folder
        raise self._error

    async def install(self, archive: Path) -> Path:
        """Refuse.

        Raises:
            SandboxUnavailable: Always.
        """
        del archive
        raise self._error


def _installed_firecracker(settings: DriverSettings) -> Path | None:
    return settings.firecracker or host_firecracker(settings).installed()

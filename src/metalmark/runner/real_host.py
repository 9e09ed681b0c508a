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
    """Return the pinned release for this machine.

    Raises:
        SandboxUnavailable: There is no release for this architecture.
    """
    return PinnedFirecracker(settings)


def _installed_firecracker(settings: DriverSettings) -> Path | None:
    if settings.firecracker is not None:
        return settings.firecracker
    try:
        return PinnedFirecracker(settings).installed()
    except SandboxUnavailable:
        return None

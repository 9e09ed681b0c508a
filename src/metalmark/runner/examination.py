"""Everything that was read and tried on the host, for the checks to decide on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import SandboxName
from metalmark.runner.distribution import as_root, install_command
from metalmark.runner.host_facts import HostFacts
from metalmark.sandbox import Availability, GuestKernel, KvmProbe


@dataclass(frozen=True, kw_only=True)
class AgentFact:
    """The guest agent's binary."""

    path: Path | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Input of the checks."""

    facts: HostFacts
    kvm: KvmProbe
    kernels: tuple[GuestKernel, ...]
    """Guest kernels that are set up, newest first, of any machine."""
    kernels_folder: Path
    agent: AgentFact
    sandboxes: Mapping[SandboxName, Availability]

    def install(self, *packages: str) -> str:
        """Return the command that installs packages here."""
        return install_command(packages, family=self.facts.distribution.family, uid=self.facts.uid)

    def root_command(self, argv: Sequence[str]) -> str:
        """Return a command line that needs root, as this user would type it."""
        return as_root(argv, uid=self.facts.uid)

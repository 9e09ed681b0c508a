"""What an examination of the host finds: one value a prerequisite, one a sandbox, and notes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from metalmark.model import SandboxName

SCHEMA_VERSION = 1
TROUBLESHOOTING = "docs/howto/troubleshooting.md"


class Status(StrEnum):
    """How a prerequisite stands."""

    OK = "ok"
    MISSING = "missing"
    """It is not there."""
    UNUSABLE = "unusable"
    """It is there and does not serve."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of ``metalmark host doctor``."""

    name: str
    """Also the anchor of its entry in the troubleshooting page."""
    status: Status
    found: str
    """What was found."""
    why: str
    """What it is needed for, and what its lack means."""
    fix: str = ""
    """The command that mends it, or what to do where there is no command; empty when nothing needs mending."""

    @property
    def entry(self) -> str:
        """Where the line is explained: page and anchor."""
        return f"{TROUBLESHOOTING}#{self.name}"


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that stops nothing and may make results noisier or slower."""

    name: str
    """Also the anchor of its entry in the troubleshooting page."""
    text: str
    advice: str = ""

    @property
    def entry(self) -> str:
        """Where the note is explained: page and anchor."""
        return f"{TROUBLESHOOTING}#{self.name}"


@dataclass(frozen=True, kw_only=True)
class SandboxFinding:
    """Whether one sandbox works here, as its driver's probe proved it."""

    name: SandboxName
    usable: bool
    accelerator: str | None = None
    """``kvm``, ``tcg`` or ``native``; None when not usable."""
    reason: str
    hint: str = ""

    @property
    def entry(self) -> str:
        """Where the sandbox and what it needs is explained: page and anchor. A tool may have the same name."""
        return f"{TROUBLESHOOTING}#sandbox-{self.name}"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The whole examination."""

    host: dict[str, str]
    """Facts for the heading: distribution, kernel, machine, user, CPUs, memory."""
    findings: tuple[Finding, ...]
    sandboxes: tuple[SandboxFinding, ...]
    notes: tuple[Note, ...]

    @property
    def usable(self) -> bool:
        """Whether a benchmark can run here in a sandbox; running it without one does not count."""
        return any(sandbox.usable for sandbox in self.sandboxes if sandbox.name is not SandboxName.NONE)

    def as_json(self) -> dict[str, Any]:
        """Return the documented object (docs/reference/host-doctor.md)."""
        return {
            "schema": SCHEMA_VERSION,
            "usable": self.usable,
            "host": self.host,
            "sandboxes": [
                {
                    "name": str(sandbox.name),
                    "usable": sandbox.usable,
                    "accelerator": sandbox.accelerator,
                    "reason": sandbox.reason,
                    "hint": sandbox.hint,
                    "entry": sandbox.entry,
                }
                for sandbox in self.sandboxes
            ],
            "findings": [
                {
                    "name": finding.name,
                    "status": str(finding.status),
                    "found": finding.found,
                    "why": finding.why,
                    "fix": finding.fix,
                    "entry": finding.entry,
                }
                for finding in self.findings
            ],
            "notes": [
                {"name": note.name, "text": note.text, "advice": note.advice, "entry": note.entry}
                for note in self.notes
            ],
        }

"""What a runner says of itself when it connects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from metalmark.wire import ProvedCapabilities, RunnerMetadata


@dataclass(frozen=True, kw_only=True)
class RunnerIdentity:
    """Who connects, and what it can do."""

    runner: str
    """UUID or slug of the runner at its server."""
    version: str
    """Of the program."""
    process: str
    """Drawn at random when the process started."""
    boot: str
    """The kernel's boot id."""
    capabilities: ProvedCapabilities
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    """What else is to be known of the host; at most 64 KiB as JSON."""
    metadata: RunnerMetadata | None = None
    """What a server of public messages is told for its offers of an update; None asks for none."""

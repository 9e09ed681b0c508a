"""What a runner does with another version of itself that its server offers: the port, and installs that never update.

The channel tells an `Updates` what was offered and that a ``ready`` was acknowledged; the daemon runs it beside its
jobs and replaces its process when `Updates.run` returns. `managed_update` has those of an install that updates itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import structlog

import metalmark

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class UpdateOffer:
    """Another version of the runner, as a server offers it."""

    version: str
    url: str
    """Where the server says that it is. Only the path counts: a runner asks nobody but the server that it was given."""
    checksum: str
    """SHA-256 of the artifact, lower-case hex."""


@dataclass(frozen=True, kw_only=True)
class Restart:
    """What this process is to be replaced by. Its arguments are those that it was started with."""

    program: Path
    why: str


class Hands(Protocol):
    """The jobs of a runner, as far as an update has to do with them."""

    def stop_claiming(self) -> None:
        """Take no more jobs."""

    def resume_claiming(self) -> None:
        """Take jobs again."""

    async def empty(self) -> None:
        """Wait until no job is in hand and every end was acknowledged."""


class Updates(Protocol):
    """What becomes of offers."""

    @property
    def checksum(self) -> str | None:
        """SHA-256 of the artifact that this install was made from; None when it is not known, or no offer is wanted.

        A session with the public messages leaves out ``runner`` when it is None: it says nothing of itself.
        """

    @property
    def on_trial(self) -> bool:
        """Whether this version has not proved itself yet: then it is best to learn soon that the server answers."""

    def offered(self, version: str, url: str, checksum: str) -> None:
        """The server offers a version. Returns at once, and may be called with the same offer any number of times."""

    def acknowledged(self) -> None:
        """The server took a ``ready``: whatever version this is, it works."""

    async def run(self, hands: Hands) -> Restart:
        """Carry out what is offered, between jobs, until this process has to be replaced; else until canceled."""


class NoUpdates(Updates):
    """For an install that does not update itself. It says so once for every version that is offered.

    Args:
        advice: How this install is updated; empty when its user wants to hear nothing of it.
    """

    def __init__(self, advice: str = "") -> None:
        self._advice = advice
        self._told: set[str] = set()

    @property
    def checksum(self) -> str | None:
        """None."""
        return None

    @property
    def on_trial(self) -> bool:
        """Never."""
        return False

    def offered(self, version: str, url: str, checksum: str) -> None:  # noqa: ARG002  # nothing is downloaded
        """Say how to update this install, once a version, and go on."""
        if self._advice and checksum not in self._told and version != metalmark.__version__:
            self._told.add(checksum)
            _log.warning("the server offers another version of the runner", version=version, hint=self._advice)

    def acknowledged(self) -> None:
        """Nothing depends on it."""

    async def run(self, hands: Hands) -> Restart:  # noqa: ARG002  # they are left alone
        """Wait until canceled."""
        await anyio.sleep_forever()
        raise AssertionError("the wait above has no end")

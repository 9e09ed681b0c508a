"""The ends of jobs on disk, from before they are sent until they are acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID


class EndKind(StrEnum):
    """How a job ended; the value is the event that tells it."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, kw_only=True)
class SpooledEnd:
    """The end of a job, durable. Its document is a `JobOutput` as JSON, the file that ``job view`` shows as output."""

    job: UUID
    lease: int
    kind: EndKind
    error: str | None
    """Why it failed; only with `EndKind.FAILED`."""
    infrastructure: bool
    """The benchmark is not to blame for the failure."""
    document: Path
    checksum: str
    """SHA-256 of the document in lower-case hex."""
    size_bytes: int

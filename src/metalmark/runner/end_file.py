"""The end of a job: what the runner knows of it, and what of that is in its file on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from metalmark.wire import IterationEnd, IterationEnds

ERROR_MAX_LENGTH = 4096
"""Most characters of an error: the reserve of the spool has room for it in any script."""
BARE_DOCUMENT = b'{"results":[]}'
"""Of an end without results."""
_BARE_CHECKSUM = hashlib.sha256(BARE_DOCUMENT).hexdigest()


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
    """Not there for an end without results that could not be written."""
    checksum: str
    """SHA-256 of the document in lower-case hex."""
    size_bytes: int
    iterations: tuple[IterationEnd, ...] = ()
    """How each iteration ended, for a document that is too large for a message."""


@dataclass(frozen=True, kw_only=True)
class EndOfJob:
    """How a job ended, without its document."""

    kind: EndKind
    error: str | None = None
    infrastructure: bool = False
    iterations: tuple[IterationEnd, ...] = ()
    """How each iteration ended; as many as are kept of a job."""


class EndFile(BaseModel):
    """What a file ``.end`` of the spool holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    job: UUID
    lease: Annotated[int, Field(ge=0)]
    kind: EndKind
    error: str | None
    infrastructure: bool
    checksum: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]
    iterations: IterationEnds = ()

    @classmethod
    def of(cls, job: UUID, lease: int, end: EndOfJob, *, checksum: str, size_bytes: int) -> EndFile:
        """Return what is to be written of an end.

        Args:
            job: Which job's.
            lease: Under which lease.
            end: How it ended.
            checksum: SHA-256 of its document in lower-case hex.
            size_bytes: Of the document.
        """
        return cls(
            job=job,
            lease=lease,
            kind=end.kind,
            error=None if end.error is None else short_error(end.error),
            infrastructure=end.infrastructure,
            checksum=checksum,
            size_bytes=size_bytes,
            iterations=end.iterations,
        )

    @property
    def text(self) -> bytes:
        """Return the file's content."""
        return self.model_dump_json().encode()

    def spooled(self, document: Path) -> SpooledEnd:
        """Return the end whose document is that file."""
        return SpooledEnd(
            job=self.job,
            lease=self.lease,
            kind=self.kind,
            error=self.error,
            infrastructure=self.infrastructure,
            document=document,
            checksum=self.checksum,
            size_bytes=self.size_bytes,
            iterations=self.iterations,
        )


def has_results(end: SpooledEnd) -> bool:
    """Whether there is more in the document of an end than that there is nothing."""
    return end.checksum != _BARE_CHECKSUM


def short_error(text: str) -> str:
    """Return an error as an end keeps it: bounded, and what has no place in UTF-8 replaced."""
    fits = text if len(text) <= ERROR_MAX_LENGTH else text[: ERROR_MAX_LENGTH - 1] + "…"
    return fits.encode("utf-8", "replace").decode("utf-8")


def bare_end(job: UUID, lease: int, end: EndOfJob) -> EndFile:
    """Return the file of an end without results."""
    end = replace(end, iterations=())
    return EndFile.of(job, lease, end, checksum=_BARE_CHECKSUM, size_bytes=len(BARE_DOCUMENT))

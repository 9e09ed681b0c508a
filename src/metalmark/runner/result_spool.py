"""The ends of jobs on disk, from before they are sent until they are acknowledged.

::

    <folder>/in-use                  locked by the process whose ends these are
    <folder>/<job>.<lease>.begun     a job in hand: the end that it has if this process dies, ready to be renamed, with
                                     room for another error, for when the disk is full by then
    <folder>/<job>.<lease>.spare     its document, without results
    <folder>/<job>.<lease>.json      the document; counts only beside…
    <folder>/<job>.<lease>.end       …the end of the job, renamed into place once the document is on disk; what is in
                                     reserve does not count any more
    <folder>/*.bad                   what could not be read

Each end begins with a format version. A job that was in hand when the process or the machine died is told as failed at
the next start: its server would otherwise wait for its lease to run out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Protocol, Self
from uuid import UUID

import structlog
from pydantic import ValidationError

from metalmark.model import Conflict, NoSpace
from metalmark.runner.end_file import BARE_DOCUMENT, EndFile, EndKind, EndOfJob, SpooledEnd, bare_end
from metalmark.system import no_space_told, published, sync_folder, try_locked

SPOOL_MAX_BYTES = 4 * 1024**3
"""Most bytes of all documents that wait for the server."""
_RESERVE_BYTES = 64 * 1024
_DIED = "the runner ended in the middle of the job"
_log = structlog.get_logger(__name__)


class ByteSink(Protocol):
    """Takes a document piece by piece."""

    def write(self, data: bytes, /) -> int:
        """Take the next piece.

        Raises:
            NoSpace: There is no room for it.
        """
        ...


class ResultSpool:
    """A folder of ends. Use as a context: it is one process's alone.

    Its methods block; call them in a thread.

    Args:
        folder: An existing private folder, the same for each start of the same runner of the same server.
        limit_bytes: Most bytes of all documents.

    Raises:
        Conflict: Another process has it.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = SPOOL_MAX_BYTES) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            if not resources.enter_context(try_locked(self.folder / "in-use")):
                raise Conflict(
                    "another process of this runner is at work",
                    why=f"it has {self.folder}",
                    hint="stop it first, or register a second runner and give it METALMARK_HOME of its own",
                )
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def read_back(self) -> tuple[SpooledEnd, ...]:
        """Return the ends that an earlier process left, oldest first, and put the folder in order.

        What cannot be read is set aside with a line in the log.
        """
        for begun in sorted(self.folder.glob("*.begun")):
            if begun.with_suffix(".end").exists():
                begun.unlink()
                continue
            # Without it, it was renamed already.
            with suppress(FileNotFoundError):
                begun.with_suffix(".spare").replace(begun.with_suffix(".json"))
            begun.replace(begun.with_suffix(".end"))
        found = [end for path in sorted(self.folder.glob("*.end"), key=_age) if (end := self._read(path)) is not None]
        wanted = {end.document for end in found}
        for path in self.folder.iterdir():
            if path.suffix in (".json", ".spare", ".partial") and path not in wanted:
                path.unlink()
        return tuple(found)

    def begin(self, job: UUID, lease: int) -> None:
        """Note that a job is in hand, and keep room for its end.

        Raises:
            NoSpace: There is none.
            OSError: The folder cannot be written.
        """
        place = self._place(job, lease)
        spare, begun = place.with_suffix(".spare"), place.with_suffix(".begun")
        died = EndOfJob(kind=EndKind.FAILED, error=_DIED, infrastructure=True)
        try:
            with no_space_told(spare):
                spare.write_bytes(BARE_DOCUMENT)
                text = bare_end(job, lease, died).text
                # White space after JSON is JSON, and takes up the room that is to be kept.
                begun.write_bytes(text + b" " * (_RESERVE_BYTES - len(text)))
        except (NoSpace, OSError):
            with suppress(OSError):
                self.forget(job, lease)
            raise

    def keep(self, job: UUID, lease: int, end: EndOfJob, write: Callable[[ByteSink], object]) -> SpooledEnd:
        """Make the end of a job durable, and return it.

        Without room for the document the job has failed, for want of infrastructure, with an empty one. Where not even
        that can be written, the end is in memory only: it is told while this process lives.

        Args:
            job: Which.
            lease: Under which lease.
            end: How it ended.
            write: Writes the document. It may raise `NoSpace`.
        """
        try:
            return self._keep(job, lease, end, write)
        except (NoSpace, OSError) as error:
            _log.error("results could not be kept", job=str(job), error=str(error))
            if end.kind is not EndKind.CANCELED:
                # The text of the error names folders of this machine, which are no submitter's business.
                what = "no space left" if isinstance(error, NoSpace) else error.strerror
                why = f"the runner's disk could not keep the results: {what}"
                end = EndOfJob(kind=EndKind.FAILED, error=why, infrastructure=True)
        try:
            return self._keep_in_reserve(job, lease, end)
        except (NoSpace, OSError) as error:
            return self._in_memory(job, lease, end, error)

    def keep_bare(self, job: UUID, lease: int, end: EndOfJob) -> SpooledEnd:
        """Make the end of a job durable that has no results and was not begun, and return it.

        Where it cannot be written, it is in memory only.
        """
        try:
            return self._keep(job, lease, end, lambda sink: sink.write(BARE_DOCUMENT))
        except (NoSpace, OSError) as error:
            return self._in_memory(job, lease, end, error)

    def forget(self, job: UUID, lease: int) -> None:
        """Remove whatever there is of a job."""
        place = self._place(job, lease)
        # A death in between leaves an end that is told once more, and neither another one nor half of one.
        for suffix in (".begun", ".spare", ".end", ".json"):
            place.with_suffix(suffix).unlink(missing_ok=True)

    def _keep(self, job: UUID, lease: int, end: EndOfJob, write: Callable[[ByteSink], object]) -> SpooledEnd:
        place = self._place(job, lease)
        document = place.with_suffix(".json")
        room = self._limit_bytes - self._kept_bytes()
        try:
            # It counts from when its end is published, which makes its name durable too.
            with no_space_told(document), document.open("wb") as stream:
                counted = _Counted(stream, room)
                write(counted)
                stream.flush()
                os.fsync(stream.fileno())
            checksum = counted.hasher.hexdigest()
            kept = EndFile.of(job, lease, end, checksum=checksum, size_bytes=counted.size_bytes)
            with published(place.with_suffix(".end")) as stream:
                stream.write(kept.text)
        except BaseException:
            with suppress(OSError):
                document.unlink(missing_ok=True)
            raise
        # What was kept in reserve is removed with the rest: nobody waits for that.
        return kept.spooled(document)

    def _kept_bytes(self) -> int:
        total = 0
        for path in self.folder.glob("*.json"):
            # Another job's may be forgotten this moment, in another thread.
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _keep_in_reserve(self, job: UUID, lease: int, end: EndOfJob) -> SpooledEnd:
        place = self._place(job, lease)
        spare, begun, document = (place.with_suffix(suffix) for suffix in (".spare", ".begun", ".json"))
        with no_space_told(spare):
            kept = bare_end(job, lease, end)
            _overwrite(begun, kept.text)
            spare.replace(document)
            begun.replace(place.with_suffix(".end"))
            sync_folder(self.folder)
        return kept.spooled(document)

    def _in_memory(self, job: UUID, lease: int, end: EndOfJob, error: Exception) -> SpooledEnd:
        _log.error("the end of a job is in memory only", job=str(job), error=str(error))
        bare = bare_end(job, lease, end)
        return bare.spooled(self._place(job, lease).with_suffix(".json"))

    def _read(self, path: Path) -> SpooledEnd | None:
        document = path.with_suffix(".json")
        try:
            found = EndFile.model_validate_json(path.read_bytes())
            written = (document.stat().st_size, _sha256(document)) == (found.size_bytes, found.checksum)
            why = "" if written and path.stem == f"{found.job}.{found.lease}" else "it is not what was written"
        except ValidationError:
            # The text of the error would repeat what is in the file.
            why = "it is malformed"
        except OSError as error:
            why = str(error)
        else:
            if not why:
                return found.spooled(document)
        _log.error("an end of a job cannot be read, and is set aside", file=str(path), why=why)
        for file in (path, document):
            with suppress(OSError):
                file.replace(file.with_name(f"{file.name}.bad"))
        return None

    def _place(self, job: UUID, lease: int) -> Path:
        return self.folder / f"{job}.{lease}.x"


class _Counted:
    """Takes a document, counts and hashes it, and holds it to a bound."""

    def __init__(self, stream: IO[bytes], room: int) -> None:
        self._stream = stream
        self._room = room
        self.size_bytes = 0
        self.hasher = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.size_bytes += len(data)
        if self.size_bytes > self._room:
            raise NoSpace("too many results wait for the server", hint="see to it that the server can be reached")
        self.hasher.update(data)
        return self._stream.write(data)


def _overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.write(data)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns

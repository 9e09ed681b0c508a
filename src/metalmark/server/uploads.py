"""Uploads of job output: parts that add up, checked against a checksum, then one blob.

A part is a blob of its own, so that any process of the server can go on where another one was cut off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from metalmark.model import Conflict, InputError, TooLarge
from metalmark.server.job_desk import output_key
from metalmark.store import BlobFacts, Blobs, JobRecord

PART_BYTES = 8 * 1024 * 1024
"""What of an upload is kept in memory at a time, and lost when the connection breaks."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One document that a runner uploads for a job it holds."""

    job: JobRecord
    checksum: str
    """SHA-256 of the whole, in lower-case hex."""
    size_bytes: int

    @property
    def key(self) -> str:
        """Where the whole will be."""
        return output_key(self.job, self.checksum)

    @property
    def folder(self) -> str:
        """Where its parts are until then."""
        return f"uploads/{self.job.id}/{self.job.lease}/{self.checksum}"


async def uploaded_bytes(blobs: Blobs, upload: Upload) -> int:
    """Return how much of an upload has arrived, from its beginning without a gap.

    Raises:
        StoreUnavailable: The storage cannot be asked.
    """
    whole = await blobs.facts(upload.key)
    if whole is not None:
        return whole.size_bytes
    return sum(part.size_bytes for part in await _parts(blobs, upload))


async def _parts(blobs: Blobs, upload: Upload) -> list[BlobFacts]:
    """Return the parts that follow each other; what was written by somebody who was behind is left out."""
    found: list[BlobFacts] = []
    end = 0
    for part in await blobs.below(upload.folder):
        if int(part.key.rpartition("/")[2]) == end:
            found.append(part)
            end += part.size_bytes
    return found


async def take_in(blobs: Blobs, upload: Upload, offset: int, body: AsyncIterator[bytes]) -> int:
    """Take in a piece of an upload, and return how much has arrived then.

    With the last byte the whole is checked and put in its place.

    Raises:
        Conflict: The piece does not begin where the upload is.
        TooLarge: There is more than was announced.
        InputError: The whole has another checksum; it has to be uploaded again from its beginning.
        StoreUnavailable: The storage cannot take it; what was taken before stays.
    """
    arrived = await uploaded_bytes(blobs, upload)
    if arrived == upload.size_bytes and await blobs.facts(upload.key) is not None:
        return arrived
    if offset != arrived:
        raise Conflict(f"{arrived} bytes have arrived", field="offset", hint="go on from there")
    if not arrived:
        await _forget_others(blobs, upload)
    async for part in _in_parts(body, upload.size_bytes - arrived, announced=upload.size_bytes):
        await blobs.put(f"{upload.folder}/{arrived:016d}", part, durable=False)
        arrived += len(part)
    if arrived == upload.size_bytes:
        await _finish(blobs, upload)
    return arrived


async def _in_parts(body: AsyncIterator[bytes], room: int, *, announced: int) -> AsyncIterator[bytearray]:
    # Not a list: whoever sends single bytes would have each of them kept as an object.
    pending = bytearray()
    try:
        async for piece in body:
            room -= len(piece)
            if room < 0:
                raise TooLarge("the upload", announced, hint="it is longer than it was announced")
            pending += piece
            if len(pending) >= PART_BYTES:
                yield pending
                pending = bytearray()
    except (ClientDisconnect, HTTPException):
        # The connection broke, or brought nothing more in time: what came is kept, and the rest may come later.
        if pending:
            yield pending
        raise
    if pending:
        yield pending


async def _finish(blobs: Blobs, upload: Upload) -> None:
    parts = [part.key for part in await _parts(blobs, upload)]
    right = await blobs.join(parts, upload.key, checksum=upload.checksum)
    await forget(blobs, upload)
    if not right:
        raise InputError("checksum", upload.checksum, "the bytes that arrived have another one", hint="begin anew")


async def _forget_others(blobs: Blobs, upload: Upload) -> None:
    # A lease has one output: what its runner uploaded before and gave up would fill the storage. Of this lease alone,
    # for by now the job may be another runner's.
    begun, _, _ = upload.folder.rpartition("/")
    done, _, _ = upload.key.rpartition("/")
    parts = [part.key for part in await blobs.below(begun) if not part.key.startswith(f"{upload.folder}/")]
    wholes = [whole.key for whole in await blobs.below(done) if whole.key.startswith(f"{done}/{upload.job.lease}-")]
    kept = (upload.key, upload.job.output_key)
    await blobs.delete(*parts, *(whole for whole in wholes if whole not in kept))


async def forget(blobs: Blobs, upload: Upload) -> None:
    """Delete the parts of an upload.

    Raises:
        StoreUnavailable: The storage cannot.
    """
    await blobs.delete(*(part.key for part in await blobs.below(upload.folder)))

"""What a push does: uploads begun, gone on with and ended, in whatever process of the server their requests land.

What an upload is, and how far it has come, is in the store. A process remembers one thing besides: the hash of what it
took in itself. Where that is not at hand, the parts are read once more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

import structlog

from metalmark.model import Digest, Forbidden, MetalmarkError, NotFound, StoreUnavailable, TooLarge, TooManyRequests
from metalmark.server.context import ServerContext
from metalmark.server.registry_access import RepositoryRef
from metalmark.server.registry_content import digest_of
from metalmark.server.registry_errors import RegistryFault
from metalmark.server.registry_intake import Intake, RunningHash
from metalmark.store import (
    Connection,
    ContentPart,
    Isolation,
    RepositoryPlace,
    UploadRecord,
    append_to_upload,
    cancel_upload,
    count_parts,
    count_uploads,
    create_content,
    drop_contents,
    find_parts,
    find_upload,
    publish_blob,
    registry_bytes,
    start_upload,
)

UPLOADS_MAX = 1000
"""Uploads to one project that have begun and are not over."""
PARTS_MAX = 20_000
"""Parts of one upload: whoever sends a byte at a time is stopped before the rows cost more than the bytes."""
_REMEMBERED = 4096
_CANONICAL = "sha256"
_log = structlog.get_logger(__name__)


def place_of(ref: RepositoryRef) -> RepositoryPlace:
    """Return where the store has a repository."""
    return RepositoryPlace(project_id=ref.project_id, inner=ref.inner, whole_project=ref.whole_project)


async def session_of(reading: Connection, ref: RepositoryRef, session: str) -> UploadRecord:
    """Return the upload that a request names.

    Raises:
        NotFound: There is none to this repository.
    """
    try:
        identifier = UUID(session)
    except ValueError:
        raise NotFound("upload", session[:64]) from None
    upload = await find_upload(reading, place_of(ref), identifier)
    if upload is None:
        raise NotFound("upload", session, hint="begin anew")
    return upload


class RegistryDesk:
    """Carries out pushes of blobs.

    Args:
        context: The server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._hashes: OrderedDict[UUID, RunningHash] = OrderedDict()

    async def begin(self, ref: RepositoryRef) -> UploadRecord:
        """Begin an upload.

        Raises:
            TooManyRequests: The project has too many that are not over.
            Forbidden: The project is at its bound.
            StoreUnavailable: The store is away.
        """
        await self.room(ref)
        now = self._context.clock.now()

        async def work(connection: Connection) -> UploadRecord:
            if await count_uploads(connection, project_id=ref.project_id) >= UPLOADS_MAX:
                raise TooManyRequests("uploads that are not over", retry_after_s=60)
            return await start_upload(connection, place_of(ref), now=now)

        upload = await self._context.store.write(work, isolation=Isolation.READ_COMMITTED)
        self._remember(upload.id, RunningHash(_CANONICAL))
        return upload

    async def room(self, ref: RepositoryRef, *, announced: int = 0) -> int:
        """Return how many bytes the project may still take.

        Args:
            ref: The repository.
            announced: What a request says that it has.

        Raises:
            Forbidden: None, or fewer than were announced.
        """
        most = self._context.config.registry.project_max_bytes
        if most is None:
            return self._context.config.registry.layer_max_bytes
        async with self._context.store.read() as connection:
            used = await registry_bytes(connection, project_id=ref.project_id)
        if used + announced > most or used >= most:
            raise _over(most)
        return most - used

    async def append(
        self,
        ref: RepositoryRef,
        upload: UploadRecord,
        body: AsyncIterator[bytes],
        *,
        announced: int | None,
        algorithm: str,
    ) -> UploadRecord:
        """Take in what comes next of an upload, and return it as it is then.

        Args:
            ref: The repository.
            upload: The upload.
            body: What comes.
            announced: How much that will be, if the request says so.
            algorithm: Of the digest, as far as it is known: what the bytes are hashed by when they are the first.

        Raises:
            TooLarge: The blob would be larger than any may be.
            Forbidden: The project is at its bound.
            RegistryFault: Somebody else went on with it meanwhile, or it is in too many parts.
            ClientDisconnect: The client is gone; what came of it is kept.
            StoreUnavailable: The store or the storage cannot take it.
        """
        limit = await self._limit(ref, upload.size_bytes, announced)
        running = self._take(upload, algorithm)

        async def keep(part: ContentPart) -> None:
            nonlocal upload
            upload = await self._keep(ref, upload, part)

        try:
            await Intake(self._context.blobs, body, running, limit_bytes=limit).store(keep)
        finally:
            if running.position == upload.size_bytes:
                self._remember(upload.id, running)
        return upload

    async def _limit(self, ref: RepositoryRef, arrived: int, announced: int | None) -> int:
        most = self._context.config.registry.layer_max_bytes
        if arrived + (announced or 0) > most:
            raise TooLarge("the blob", most)
        return min(most - arrived, await self.room(ref, announced=announced or 0))

    async def _keep(self, ref: RepositoryRef, upload: UploadRecord, part: ContentPart) -> UploadRecord:
        now, most = self._context.clock.now(), self._context.config.registry.project_max_bytes
        # What is hashed anew at the end counts from this body's beginning.
        placed = ContentPart(id=part.id, position=upload.size_bytes, size_bytes=part.size_bytes)

        async def work(connection: Connection) -> None:
            if placed.position and await count_parts(connection, content_id=upload.content_id) >= PARTS_MAX:
                raise RegistryFault("BLOB_UPLOAD_INVALID", 400, f"the upload is in more than {PARTS_MAX} parts")
            if not await append_to_upload(connection, upload, placed, now=now):
                raise _overtaken()
            # Many uploads begin while there is room for each: what arrived of all of them counts.
            if most is not None and await registry_bytes(connection, project_id=ref.project_id) > most:
                raise _over(most)

        isolation = Isolation.READ_COMMITTED if most is None else Isolation.SERIALIZABLE
        try:
            await self._context.store.write(work, isolation=isolation)
        except StoreUnavailable:
            # The row may be there for all that: then the sweep looks whether the part is needed.
            raise
        except MetalmarkError:
            await self._discard(placed.key)
            raise
        return UploadRecord(
            id=upload.id,
            repository_id=upload.repository_id,
            content_id=upload.content_id,
            size_bytes=upload.size_bytes + part.size_bytes,
        )

    async def finish(self, ref: RepositoryRef, upload: UploadRecord, digest: Digest) -> None:
        """End an upload: it is a blob of the repository then.

        Raises:
            RegistryFault: Its digest is another; it is over, and has to begin anew.
            NotFound: Somebody else ended it.
            Forbidden: The project is over its bound.
            StoreUnavailable: The store or the storage is away.
        """
        found = await self._digest_of(upload, digest.algorithm)
        if found != digest:
            await self.cancel(upload)
            raise _mismatch(digest)
        await self._publish(ref, digest, upload=upload)

    async def take_whole(
        self, ref: RepositoryRef, digest: Digest, body: AsyncIterator[bytes], *, announced: int | None
    ) -> None:
        """Take in a blob that comes in one request.

        Raises:
            RegistryFault: Its digest is another.
            TooLarge: It is larger than any blob may be.
            Forbidden: The project is at its bound.
            ClientDisconnect: The client is gone; nothing is kept.
            StoreUnavailable: The store or the storage cannot take it.
        """
        limit = await self._limit(ref, 0, announced)
        running = RunningHash(digest.algorithm)
        parts: list[ContentPart] = []
        right = False

        async def keep(part: ContentPart) -> None:
            parts.append(part)

        try:
            await Intake(self._context.blobs, body, running, limit_bytes=limit).store(keep)
            right = running.hasher.hexdigest() == digest.hex
        finally:
            if not right:
                await self._discard(*(part.key for part in parts))
        if not right:
            raise _mismatch(digest)
        try:
            await self._publish(ref, digest, parts=parts)
        except StoreUnavailable:
            # It may be published for all that.
            raise
        except MetalmarkError:
            await self._discard(*(part.key for part in parts))
            raise

    async def _publish(
        self,
        ref: RepositoryRef,
        digest: Digest,
        *,
        upload: UploadRecord | None = None,
        parts: list[ContentPart] | None = None,
    ) -> None:
        now, most = self._context.clock.now(), self._context.config.registry.project_max_bytes

        async def work(connection: Connection) -> UUID | None:
            content_id = await self._content(connection, upload, parts or [], now)
            try:
                taken = await publish_blob(
                    connection,
                    place_of(ref),
                    digest,
                    content_id=content_id,
                    size_bytes=upload.size_bytes if upload else sum(part.size_bytes for part in parts or []),
                    upload=upload,
                    now=now,
                )
            except LookupError as error:
                if upload is not None and await find_upload(connection, place_of(ref), upload.id) is not None:
                    raise _overtaken() from error
                raise NotFound("upload", upload.id if upload else "", hint="begin anew") from None
            if most is not None and await registry_bytes(connection, project_id=ref.project_id) > most:
                raise _over(most)
            return None if taken else content_id

        spare = await self._context.store.write(work)
        if upload is not None:
            self._hashes.pop(upload.id, None)
        if spare is not None:
            await self._forget(spare)

    @staticmethod
    async def _content(
        connection: Connection, upload: UploadRecord | None, parts: list[ContentPart], now: datetime
    ) -> UUID:
        return upload.content_id if upload else await create_content(connection, now=now, parts=parts)

    async def cancel(self, upload: UploadRecord) -> None:
        """End an upload without a blob. One that is over already is passed over."""
        now = self._context.clock.now()
        self._hashes.pop(upload.id, None)
        if await self._context.store.write(lambda connection: cancel_upload(connection, upload, now=now)):
            await self._forget(upload.content_id)

    async def _forget(self, content_id: UUID) -> None:
        # Nobody ever read it, so nobody has to be waited for; should this fail, the collection comes back to it.
        try:
            async with self._context.store.read() as connection:
                parts = await find_parts(connection, content_id=content_id)
            await self._context.blobs.delete(*(part.key for part in parts))
            await self._context.store.write(lambda connection: drop_contents(connection, ids=[content_id]))
        except MetalmarkError as error:
            _log.warning("spare bytes left to the collection", content=str(content_id), error=str(error))

    async def _discard(self, *keys: str) -> None:
        try:
            await self._context.blobs.delete(*keys)
        except MetalmarkError as error:
            _log.warning("spare parts left to the sweep", count=len(keys), error=str(error))

    async def _digest_of(self, upload: UploadRecord, algorithm: str) -> Digest:
        running = self._hashes.get(upload.id)
        if running is not None and (running.algorithm, running.position) == (algorithm, upload.size_bytes):
            return Digest(algorithm, running.hasher.hexdigest())
        async with self._context.store.read() as connection:
            parts = await find_parts(connection, content_id=upload.content_id)
        return await digest_of(self._context.blobs, parts, algorithm)

    def _take(self, upload: UploadRecord, algorithm: str) -> RunningHash:
        running = self._hashes.pop(upload.id, None)
        if upload.size_bytes == 0:
            return RunningHash(algorithm)
        if running is not None and running.position == upload.size_bytes:
            return running
        # Another process took in what came before: the whole is hashed at its end.
        return RunningHash(algorithm)

    def _remember(self, upload_id: UUID, running: RunningHash) -> None:
        self._hashes[upload_id] = running
        while len(self._hashes) > _REMEMBERED:
            self._hashes.popitem(last=False)


def _overtaken() -> RegistryFault:
    return RegistryFault("BLOB_UPLOAD_INVALID", 416, "another request went on with this upload")


def _mismatch(digest: Digest) -> RegistryFault:
    found = "what arrived has another digest"
    return RegistryFault("DIGEST_INVALID", 400, found, details=[{"digest": str(digest)}])


def _over(most: int) -> Forbidden:
    return Forbidden(
        f"the images of this project take the {most} bytes that they may", hint="delete some, or ask the operator"
    )

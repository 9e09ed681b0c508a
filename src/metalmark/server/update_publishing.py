"""Publishing updates of the runner's program, and withdrawing them; recorded as done by the operator."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from metalmark.model import InputError, NotFound
from metalmark.store import (
    Act,
    Blobs,
    Connection,
    PublishedUpdate,
    Store,
    UpdateAudience,
    find_update_by_checksum,
    list_updates,
    publish_updates,
    record_act,
    update_key,
    withdraw_updates,
)
from metalmark.system import Clock, in_thread
from metalmark.wire import UpdateArtifact

_PIECE_BYTES = 1024 * 1024
_VERSION_MAX_LENGTH = 256
CHANNELS = ("stable", "canary")
ARCHITECTURES = ("x86_64", "aarch64")


class UpdatePublisher:
    """Publishes updates and withdraws them, whether or not a server runs.

    Args:
        store: The server's.
        blobs: The server's.
        clock: Where the time is read.
    """

    def __init__(self, store: Store, blobs: Blobs, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock

    async def publish_artifact(self, file: Path) -> tuple[PublishedUpdate, ...]:
        """Publish an artifact for our own runners, on every architecture that it is for.

        Raises:
            ProtocolError: It is none, or damaged.
            InputError: The file cannot be read.
            StoreUnavailable: It could not be stored.
        """
        version, architectures = await in_thread(_read_artifact, file)
        wanted = [(UpdateAudience.METALMARK, "stable", architecture) for architecture in architectures]
        return await self._publish(file, version, wanted)

    async def publish_program(
        self, file: Path, *, version: str, architecture: str, channel: str
    ) -> tuple[PublishedUpdate, ...]:
        """Publish a program for public runners, which put it in place of their own.

        Raises:
            InputError: It is no program for Linux, or a word is none that such runners know.
            StoreUnavailable: It could not be stored.
        """
        if architecture not in ARCHITECTURES:
            raise InputError("--architecture", architecture, f"it is one of {', '.join(ARCHITECTURES)}")
        if channel not in CHANNELS:
            raise InputError("--channel", channel, f"it is one of {', '.join(CHANNELS)}")
        if not version or len(version) > _VERSION_MAX_LENGTH or not version.isprintable():
            raise InputError("--version", version, "it is what the program says of itself")
        machine = await in_thread(_elf_machine, file)
        if machine != architecture:
            raise InputError(
                "FILE", str(file), f"it is no program for Linux on {architecture}", hint="an artifact needs no --public"
            )
        return await self._publish(file, version, [(UpdateAudience.PUBLIC, channel, architecture)])

    async def withdraw(self, checksum: str) -> int:
        """Withdraw an update, and delete its content. Runners that have it keep it.

        Args:
            checksum: Its SHA-256.

        Returns:
            For how many kinds of runners it was published.

        Raises:
            NotFound: There is none.
            StoreUnavailable: It could not be withdrawn, or its content not deleted.
        """

        async def work(connection: Connection) -> int:
            count = await withdraw_updates(connection, checksum)
            if count:
                await record_act(connection, _act("update.withdraw", checksum=checksum), now=self._clock.now())
            return count

        count = await self._store.write(work)
        if not count:
            raise NotFound("update", checksum, hint="`metalmark server admin list-updates` shows them")
        await self._blobs.delete(update_key(checksum))
        return count

    async def _publish(
        self, file: Path, version: str, wanted: list[tuple[UpdateAudience, str, str]]
    ) -> tuple[PublishedUpdate, ...]:
        checksum, size = await in_thread(_measure, file)
        # The content first: a runner may ask for it the moment that the row is there.
        await self._blobs.put(update_key(checksum), _pieces(file, checksum))
        now = self._clock.now()
        found = tuple(
            PublishedUpdate(
                audience=audience,
                channel=channel,
                architecture=architecture,
                version=version,
                checksum=checksum,
                size_bytes=size,
                published=now,
            )
            for audience, channel, architecture in wanted
        )

        async def work(connection: Connection) -> tuple[PublishedUpdate, ...]:
            before = await list_updates(connection)
            await publish_updates(connection, found)
            for update in found:
                details = {"version": version, "architecture": update.architecture, "checksum": checksum}
                act = _act("update.publish", audience=str(update.audience), **details)
                await record_act(connection, act, now=now)
            return before

        before = await self._store.write(work)
        async with self._store.read() as connection:
            keys = {old.key for old in before if await find_update_by_checksum(connection, old.checksum) is None}
        await self._blobs.delete(*sorted(keys))
        return found


async def _pieces(file: Path, checksum: str) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := await in_thread(stream.read, _PIECE_BYTES):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != checksum:
        raise InputError("FILE", str(file), "it changed while it was read")


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        stream = file.open("rb")
    except OSError as error:
        raise InputError("FILE", str(file), error.strerror or "it cannot be read") from None
    with stream:
        yield stream


def _act(action: str, **details: str) -> Act:
    return Act(
        actor_kind="operator", actor_id=None, action=action, subject_kind="server", subject_id=None, details=details
    )


def _read_artifact(file: Path) -> tuple[str, tuple[str, ...]]:
    with _opened(file) as stream:
        artifact = UpdateArtifact(stream)
        for _, pieces in artifact.wheels():
            for _piece in pieces:
                pass  # reading is checking
    architectures = sorted({target.architecture for target in artifact.manifest.targets})
    return artifact.manifest.version, tuple(architectures)


def _measure(file: Path) -> tuple[str, int]:
    with _opened(file) as stream:
        digest, size = hashlib.sha256(), 0
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
        return digest.hexdigest(), size


def _elf_machine(file: Path) -> str | None:
    """Return the architecture of a program by its ELF header (elf(5)); None when it is none for these."""
    with _opened(file) as stream:
        head = stream.read(20)
    if len(head) < 20 or head[:6] != b"\x7fELF\x02\x01":
        return None
    return {62: "x86_64", 183: "aarch64"}.get(int.from_bytes(head[18:20], "little"))

"""Brings the output of a job to the server in pieces, and goes on where a lost connection left off."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from metalmark.client.session import QueryValue, ServerSession
from metalmark.model import ProtocolError, RequestRefused
from metalmark.system import in_thread

PIECE_BYTES = 8 * 1024 * 1024
"""What is sent with one request, and so is in memory at a time."""
SMALL_PIECE_BYTES = 512 * 1024
"""The same behind a proxy that takes no more; a megabyte is a common bound of theirs."""
_BEGUN_ANEW_MAX = 3


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """Output that a runner holds in a file."""

    job: UUID
    lease: int
    checksum: str
    """SHA-256 of the whole, in lower-case hex."""
    size_bytes: int
    path: Path


async def upload_output(session: ServerSession, runner: str, output: OutputFile) -> None:
    """Upload a file until the server has all of it and has checked it. Any number of calls do the same as one.

    Args:
        session: With the runner's key as its credential.
        runner: UUID or slug of the runner.
        output: What to upload.

    Raises:
        RequestRefused: The lease is over (409), the output is too large for the server (413), or the key is wrong.
        ServerUnavailable: The server cannot be reached; what it has is kept there for the next call.
        ProtocolError: The server's answers do not lead anywhere, or the file is not what it is said to be.
    """
    upload = _Upload(session, runner, output)
    begun_anew = 0
    offset, complete = await upload.ask()
    while not complete:
        try:
            before = offset
            offset, complete = await upload.send(offset)
            if not complete and offset <= before:
                raise ProtocolError(f"an upload of {output.size_bytes} bytes does not get past byte {offset}")
        except RequestRefused as error:
            if error.status == 413 and upload.piece_bytes > SMALL_PIECE_BYTES:
                upload.piece_bytes = SMALL_PIECE_BYTES
                continue
            # Another connection of this runner may have sent meanwhile, or the bytes did not add up to the checksum.
            begun_anew += 1
            if error.status not in (400, 409):
                raise
            if begun_anew > _BEGUN_ANEW_MAX:
                raise ProtocolError("an upload comes to no end", why=str(error)) from None
            offset, complete = await upload.ask()


class _Upload:
    def __init__(self, session: ServerSession, runner: str, output: OutputFile) -> None:
        self.piece_bytes = PIECE_BYTES
        self._session = session
        self._path = ("runners", runner, "jobs", str(output.job), "output")
        self._output = output
        self._query: dict[str, QueryValue] = {
            "lease": output.lease,
            "checksum": output.checksum,
            "size": output.size_bytes,
        }

    async def ask(self) -> tuple[int, bool]:
        """Return how many bytes the server has, and whether that is the whole."""
        return self._progress((await self._session.call("GET", *self._path, query=self._query)).value)

    async def send(self, offset: int) -> tuple[int, bool]:
        """Send the piece at an offset; return how many bytes the server has then, and whether that is the whole."""
        piece = await in_thread(_read, self._output.path, offset, self.piece_bytes)
        if not piece:
            raise ProtocolError(f"{self._output.path} has no byte {offset}, which the server asks for")
        query = {**self._query, "offset": offset}
        return self._progress((await self._session.call("PUT", *self._path, query=query, content=piece)).value)

    def _progress(self, value: object) -> tuple[int, bool]:
        offset = value.get("offset") if isinstance(value, dict) else None
        complete = value.get("complete") if isinstance(value, dict) else None
        size = self._output.size_bytes
        if not isinstance(offset, int) or not isinstance(complete, bool) or not 0 <= offset <= size:
            raise ProtocolError("the server does not say how far the upload is")
        return offset, complete


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)

"""Output files of an iteration: taken from the box as an untrusted tar stream, kept as numbered files.

Nothing in the stream decides where something is written: each file goes to a name of the runner's own, and the path
that the box gave is only recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from metalmark.model import LayerRefused, OutputLimits, ProtocolError
from metalmark.oci import Bounds, EntryKind, Tally, TarReader
from metalmark.system import no_space_told

_BLOCK_BYTES = 64 * 1024
_HEADER_BYTES_PER_FILE = 16 * 1024
"""Tar header, PAX records with a path of 4096 bytes, and padding, with room to spare."""


@dataclass(frozen=True, kw_only=True)
class CollectedFile:
    """One file that came out of a box."""

    path: str
    """Absolute path in the box; bytes that are not UTF-8 are surrogate-escaped."""
    kept: Path
    """Where its content is now."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CollectedFiles:
    """What came out of a box."""

    files: tuple[CollectedFile, ...] = ()
    missing: tuple[str, ...] = ()
    truncated: bool = False


class TarSpool:
    """Takes a tar stream from a box into a file, up to what the limits can need."""

    def __init__(self, path: Path, limits: OutputLimits) -> None:
        self.path = path
        self.overflowed = False
        self._room = limits.files_bytes + (limits.file_count + 2) * _HEADER_BYTES_PER_FILE
        self._file = path.open("wb")

    def take(self, data: bytes) -> None:
        """Keep the next piece.

        Raises:
            NoSpace: The file system is full.
        """
        with no_space_told(self.path):
            self._file.write(data[: self._room])
        self.overflowed |= len(data) > self._room
        self._room -= min(len(data), self._room)

    def close(self) -> None:
        """Nothing more will come.

        Raises:
            NoSpace: The file system is full.
        """
        with no_space_told(self.path):
            self._file.close()


def unpack_outputs(
    tar: Path, folder: Path, limits: OutputLimits, *, missing: tuple[str, ...] = (), truncated: bool = False
) -> CollectedFiles:
    """Take the regular files out of a tar file into numbered files of a new folder.

    Args:
        tar: What the box sent. A stream that was cut gives the files before the cut, and the truncation flag.
        folder: Made here.
        limits: Held here too, whatever the box was told.
        missing: Patterns that the box says matched nothing.
        truncated: Whether the box, or the spool, says that something was left out.

    Raises:
        ProtocolError: This is not a tar stream.
        NoSpace: The file system is full.
    """
    folder.mkdir(mode=0o700)
    files: list[CollectedFile] = []
    room = limits.files_bytes
    with no_space_told(folder), tar.open("rb") as raw:
        stream = _Pieces(raw)
        reader = TarReader(stream, layer=tar.name, tally=Tally(Bounds()))
        try:
            for path, size in _regular(reader):
                if len(files) >= limits.file_count:
                    truncated = True
                    break
                if size > room:
                    truncated = True
                    continue
                files.append(_keep(path, reader.content(), folder / f"{len(files)}"))
                room -= size
        except LayerRefused as error:
            # One that was cut tells nothing of the files before the cut; half a file would be mistaken for the whole.
            (folder / f"{len(files)}").unlink(missing_ok=True)
            if not stream.ended:
                raise ProtocolError("output files came as a malformed tar stream", why=str(error)) from error
            truncated = True
    return CollectedFiles(files=tuple(files), missing=missing, truncated=truncated)


class _Pieces:
    """The pieces of a file, and whether it was wanted to go on after its end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        while data := self._raw.read(_BLOCK_BYTES):
            yield data
        self.ended = True


def _regular(reader: TarReader) -> Iterator[tuple[str, int]]:
    for entry in reader.entries():
        # Sparse files are made of holes that their header claims; the agent never sends one.
        if entry.kind is EntryKind.FILE and entry.segments is None:
            yield "/" + entry.name.decode("utf-8", "surrogateescape"), entry.size_bytes


def _keep(path: str, content: Iterable[memoryview], target: Path) -> CollectedFile:
    hasher, size = hashlib.sha256(), 0
    with target.open("xb") as writer:
        for data in content:
            writer.write(data)
            hasher.update(data)
            size += len(data)
    return CollectedFile(path=path, kept=target, size_bytes=size, sha256=hasher.hexdigest())

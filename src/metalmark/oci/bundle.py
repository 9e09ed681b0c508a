"""The files of an image on disk: a folder, or a tar file that is read in place.

Names come from the image, so they are not trusted: a name that leads out of the folder, through whatever links, to
something that is no regular file, or round in circles is refused.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from metalmark.model import GIB, MIB, NoPermission, NotAnImage
from metalmark.oci.documents import shown
from metalmark.oci.media import Compression
from metalmark.oci.unpack import Unpacker, UnpackLimits, UnpackRefused
from metalmark.system import no_space_told

_MAX_MEMBERS = 20_000
_MAX_LINKS = 16
_MAX_HEADER_BYTES = 1 * MIB
_MAX_UNPACKED_BYTES = 256 * GIB


@dataclass(frozen=True, kw_only=True)
class Section:
    """A run of bytes in an open file."""

    name: str
    descriptor: int
    start: int
    size_bytes: int

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``offset``; empty at the end."""
        return os.pread(self.descriptor, max(0, min(count, self.size_bytes - offset)), self.start + offset)


class Bundle(Protocol):
    """Named files that belong together."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def open(self, name: str) -> Section:
        """Return a file's bytes; open until the bundle is closed.

        Raises:
            NotAnImage: There is no such file, or it is not to be trusted.
        """
        ...

    def close(self) -> None:
        """Close every file."""


def read_file(bundle: Bundle, name: str, limit: int) -> bytes:
    """Return a whole file of at most ``limit`` bytes.

    Raises:
        NotAnImage: Missing or larger.
    """
    section = bundle.open(name)
    if section.size_bytes > limit:
        raise NotAnImage(
            f"{shown(name)} in {bundle.path} has {section.size_bytes} bytes", why=f"at most {limit} are read"
        )
    return section.read(0, limit)


class FolderBundle:
    """A folder. Links inside it are followed, links out of it are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = os.path.realpath(path)
        self._open: dict[str, Section] = {}

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return _is_plain(name) and (self.path / name).is_file()

    def open(self, name: str) -> Section:
        """Return a file's bytes."""
        if name in self._open:
            return self._open[name]
        if not _is_plain(name):
            raise NotAnImage(f"{self.path} names the file {shown(name)}", why="it leads out of the folder")
        try:
            # Without O_NONBLOCK a named pipe would hang the open.
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise NoPermission(f"{self.path / name} may not be read", hint="run as a user who may") from error
        except (OSError, ValueError) as error:
            raise NotAnImage(f"{self.path} has no file {shown(name)}", why="the image says it has") from error
        section = Section(name=name, descriptor=descriptor, start=0, size_bytes=os.fstat(descriptor).st_size)
        self._open[name] = section  # from here on `close` closes it
        self._check(section)
        return section

    def _check(self, section: Section) -> None:
        # Where the descriptor really is cannot be changed under us, unlike a path that was checked before.
        real = str(Path(f"/proc/self/fd/{section.descriptor}").readlink())
        regular = stat.S_ISREG(os.fstat(section.descriptor).st_mode)
        if not regular or os.path.commonpath((real, self._root)) != self._root:
            raise NotAnImage(
                f"{shown(section.name)} in {self.path} is no regular file inside it", why="nothing else is read"
            )

    def close(self) -> None:
        """Close every file."""
        for section in self._open.values():
            os.close(section.descriptor)
        self._open.clear()


class TarBundle:
    """A tar file, plain or packed; a packed one is unpacked into an unnamed file first.

    Args:
        path: The tar file.
        scratch: A folder for the unnamed file.

    Raises:
        NotAnImage: It is no tar file, or damaged, or holds more than an image can.
        NoPermission: It may not be read.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._descriptor = _open_plain(path, scratch)
        try:
            with os.fdopen(os.dup(self._descriptor), "rb") as stream:
                self._members = dict(_members(path, stream))
        except BaseException:
            os.close(self._descriptor)
            raise

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return posixpath.normpath(name) in self._members

    def open(self, name: str) -> Section:
        """Return a file's bytes. Docker wrote layers that appear twice as links to the first."""
        found = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(found)
            if member is None:
                raise NotAnImage(f"{self.path} has no file {shown(found)}", why="the image says it has")
            if member.isreg() and not member.issparse():
                return Section(name=name, descriptor=self._descriptor, start=member.offset_data, size_bytes=member.size)
            if member.issym():
                found = posixpath.normpath(posixpath.join(posixpath.dirname(found), member.linkname))
            elif member.islnk():
                found = posixpath.normpath(member.linkname)
            else:
                break
        raise NotAnImage(f"{shown(name)} in {self.path} is no regular file", why="nothing else is read")

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def names_in_tar(path: Path) -> frozenset[str]:
    """Return the names in a tar file, plain or packed.

    Raises:
        NotAnImage: It is no tar file.
        NoPermission: It may not be read.
    """
    with os.fdopen(_open_regular(path), "rb") as stream:
        return frozenset(name for name, _ in _members(path, stream))


def _open_regular(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise NoPermission(f"{path} may not be read", hint="run as a user who may") from error
    except OSError as error:
        raise NotAnImage(f"{path} cannot be opened", why=error.strerror or "") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAnImage(f"{path} is neither a folder nor a regular file")
    return descriptor


def _open_plain(path: Path, scratch: Path) -> int:
    descriptor = _open_regular(path)
    if Compression.of(os.pread(descriptor, 4, 0)) is Compression.NONE:
        return descriptor
    try:
        with no_space_told(scratch):
            return _unpacked(descriptor, scratch)
    except UnpackRefused as error:
        raise NotAnImage(f"{path} cannot be unpacked", why=str(error)) from error
    finally:
        os.close(descriptor)


def _unpacked(descriptor: int, scratch: Path) -> int:
    """Return a file without a name that holds what a packed file unpacks to."""
    with tempfile.TemporaryFile(dir=scratch) as target:
        unpacker = Unpacker(target.write, UnpackLimits(max_bytes=_MAX_UNPACKED_BYTES))
        offset = 0
        while data := os.pread(descriptor, MIB, offset):
            unpacker.feed(data)
            offset += len(data)
        unpacker.finish()
        target.seek(0)
        return os.dup(target.fileno())


def _members(path: Path, stream: IO[bytes]) -> Iterator[tuple[str, tarfile.TarInfo]]:
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _reader(stream)), mode="r:") as archive:
            for count, member in enumerate(iter(archive.next, None)):
                _check_count(count)
                name = posixpath.normpath(member.name)
                if _is_plain(name):
                    yield name, member
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise NotAnImage(f"{path} is not a tar file, or it is damaged", why=str(error)) from error


def _check_count(count: int) -> None:
    if count >= _MAX_MEMBERS:
        raise ValueError(f"it holds more than {_MAX_MEMBERS} files")


def _reader(stream: IO[bytes]) -> _BoundedReads:
    size = os.fstat(stream.fileno()).st_size
    limits = UnpackLimits()
    longest = max(limits.free_bytes, limits.ratio * size)
    match Compression.of(os.pread(stream.fileno(), 4, 0)):
        case Compression.GZIP:
            return _BoundedReads(gzip.GzipFile(fileobj=stream), longest)
        case Compression.ZSTD:
            import zstandard  # noqa: PLC0415 - rarely needed, and slow to import

            decompressor = zstandard.ZstdDecompressor()
            return _BoundedReads(decompressor.stream_reader(stream, read_across_frames=True, closefd=False), longest)
        case Compression.NONE:
            return _BoundedReads(stream, size)


class _Reads(Protocol):
    def read(self, count: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...
    def tell(self) -> int: ...


class _BoundedReads:
    """A file for tarfile, which reads a header extension whole into memory at whatever length it claims."""

    def __init__(self, stream: _Reads, longest: int) -> None:
        self._stream = stream
        self._longest = longest

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _MAX_HEADER_BYTES:
            raise ValueError(f"a header claims {count} bytes")
        return self._stream.read(count)

    def seek(self, offset: int, _whence: int = 0) -> int:
        if not 0 <= offset <= self._longest:
            raise ValueError(f"a member claims to reach byte {offset} of {self._longest}")
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        """The caller closes the file."""


def _is_plain(name: str) -> bool:
    return bool(name) and "\0" not in name and not name.startswith("/") and ".." not in name.split("/")

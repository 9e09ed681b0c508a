"""One blob on its way into the cache: written, hashed and unpacked in one pass, published only when all is right."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from metalmark.model import MIB, Digest, DigestMismatch, LayerRefused
from metalmark.oci.media import Compression
from metalmark.oci.unpack import Unpacker, UnpackLimits, UnpackRefused
from metalmark.system import no_space_told, sync_folder

_READ_BYTES = MIB


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """What was found out about a layer while it was verified."""

    diff_id: Digest
    compression: Compression


class LayerCheck:
    """Computes the diff_id of a layer that is pushed through.

    Args:
        layer: Digest of the layer.
        diff_id: What the configuration says it unpacks to.
        limits: How much it may unpack to.
    """

    def __init__(self, layer: Digest, diff_id: Digest, limits: UnpackLimits | None = None) -> None:
        self._layer = layer
        self._diff_id = diff_id
        self._hasher = diff_id.hasher()
        self._unpacker = Unpacker(self._hasher.update, limits)
        self._same: bool | None = None

    def feed(self, data: bytes) -> None:
        """Take in more of the blob.

        Raises:
            LayerRefused: It is damaged or unpacks to too much.
        """
        if self._same is None:
            # Of a plain layer digest and diff_id are one and the same, and its digest is verified anyway.
            start = data[:4]
            self._same = self._layer == self._diff_id and len(start) == 4 and Compression.of(start) is Compression.NONE
        if self._same:
            return
        try:
            self._unpacker.feed(data)
        except UnpackRefused as error:
            raise LayerRefused(str(self._layer), "", str(error)) from error

    def finish(self) -> LayerFacts:
        """State that the blob has ended.

        Raises:
            LayerRefused: It ended in the middle.
            DigestMismatch: It does not unpack to what the configuration says.
        """
        if self._same:
            return LayerFacts(diff_id=self._diff_id, compression=Compression.NONE)
        try:
            self._unpacker.finish()
        except UnpackRefused as error:
            raise LayerRefused(str(self._layer), "", str(error)) from error
        found = Digest(self._diff_id.algorithm, self._hasher.hexdigest())
        if found != self._diff_id:
            raise DigestMismatch(
                f"layer {self._layer} unpacks to {found}",
                why=f"the image's configuration says diff_id {self._diff_id}",
                hint="the image is damaged or was put together wrongly; build it again",
            )
        return LayerFacts(diff_id=found, compression=self._unpacker.compression)


class IncomingBlob:
    """A blob that is being written. Use as a context manager; without `commit` nothing stays.

    Args:
        target: Where it is published.
        partial: Where it is written until then; whoever makes this object holds the blob's lock.
        digest: What it must hash to.
        size_bytes: How long it must be.
        what: The blob, for errors: ``layer sha256:…``.
        check: The layer's own check.
    """

    def __init__(
        self, *, target: Path, partial: Path, digest: Digest, size_bytes: int, what: str, check: LayerCheck
    ) -> None:
        self.digest = digest
        self.size_bytes = size_bytes
        self.what = what
        self.written = 0
        self._target = target
        self._partial = partial
        self._check = check
        self._hasher = digest.hasher()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        with no_space_told(self._partial):
            self._stream = self._partial.open("wb", buffering=0)
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._partial.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Take in more of the blob. Blocking.

        Raises:
            DigestMismatch: It is longer than announced.
            LayerRefused: It is damaged or unpacks to too much.
            NoSpace: The file system is full.
        """
        self.written += len(data)
        if self.written > self.size_bytes:
            raise DigestMismatch(
                f"{self.what} is longer than the {self.size_bytes} bytes that were announced",
                why="its digest cannot be right",
            )
        self._hasher.update(data)
        with no_space_told(self._partial):
            _write_all(self._file, data)
        self._check.feed(data)

    def commit(self) -> LayerFacts:
        """Verify the whole and publish it. Blocking.

        Raises:
            DigestMismatch: Size, digest or diff_id are not what was announced.
            LayerRefused: The layer ends in the middle.
            NoSpace: The file system is full.
        """
        if self.written != self.size_bytes:
            raise DigestMismatch(f"{self.what} has {self.written} bytes", why=f"the image says {self.size_bytes}")
        found = Digest(self.digest.algorithm, self._hasher.hexdigest())
        if found != self.digest:
            raise DigestMismatch(f"{self.what} has the content of {found}", why="it was damaged or replaced on the way")
        facts = self._check.finish()
        with no_space_told(self._partial):
            os.fsync(self._file.fileno())
        self._file.close()
        self._stream = None
        self._partial.replace(self._target)
        sync_folder(self._target.parent)
        return facts

    @property
    def _file(self) -> BinaryIO:
        if self._stream is None:
            raise ValueError("the blob is not open")
        return self._stream


def check_stored_layer(path: Path, digest: Digest, diff_id: Digest) -> LayerFacts:
    """Compute the diff_id of a layer that is in the cache already. Blocking.

    Raises:
        LayerRefused: It is damaged.
        DigestMismatch: It does not unpack to what the configuration says.
    """
    check = LayerCheck(digest, diff_id)
    with path.open("rb", buffering=0) as stream:
        while data := stream.read(_READ_BYTES):
            check.feed(data)
    return check.finish()


def _write_all(stream: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]

"""Make an OCI image of files, without Docker and without privilege; the same input always has the same digest.

One layer, entries sorted by name, owner root, all times the epoch. The layer is a plain tar by default: what a
compressor writes differs between its versions, what a tar writer writes does not.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol, cast

from metalmark.model import Digest, ImageConfig, InputError, NoPermission, Platform
from metalmark.oci import media
from metalmark.oci.media import Compression
from metalmark.oci.packed_output import PackedBlobs, write_archive, write_layout
from metalmark.oci.packing_list import PackEntry, PackSource, list_entries
from metalmark.system import no_space_told

_BUFFER_BYTES = 256 * 1024
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class PackRequest:
    """What to make an image of."""

    sources: tuple[PackSource, ...]
    config: ImageConfig = field(default_factory=ImageConfig)
    platform: Platform
    tag: str = "latest"
    compression: Compression = Compression.NONE


@dataclass(frozen=True, kw_only=True)
class PackedImage:
    """An image that was made."""

    path: Path
    """The layout folder or the archive."""
    tag: str
    digest: Digest
    """Of the manifest."""
    layer_digest: Digest
    diff_id: Digest
    layer_bytes: int
    """Of the layer as it is stored."""
    entries: int


def pack(request: PackRequest, target: Path, *, archive: bool) -> PackedImage:
    """Make an image. Blocking.

    Args:
        request: What to make it of.
        target: The layout folder, or the archive. A layout that exists gets the image added; an archive is replaced.
        archive: Whether the target is an archive, which ``docker load`` reads as well.

    Raises:
        InputError: A source or the target cannot be used.
        NoPermission: A file cannot be read, or the target not be written.
        NoSpace: The file system is full; no half-written image stays.
    """
    entries = list_entries(request.sources)
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            no_space_told(target),
            tempfile.NamedTemporaryFile(dir=folder, prefix=".pack.", suffix=".partial") as layer,
        ):
            digest, diff_id = _write_layer(entries, request.compression, layer)
            size = layer.seek(0, os.SEEK_END)
            blobs = _documents(request, Path(layer.name), digest, diff_id, size)
            (write_archive if archive else write_layout)(target, blobs)
    except PermissionError as error:
        raise NoPermission(f"{error.filename or target} cannot be written", hint="choose another place") from error
    return PackedImage(
        path=target,
        tag=request.tag,
        digest=blobs.manifest,
        layer_digest=digest,
        diff_id=diff_id,
        layer_bytes=size,
        entries=len(entries),
    )


def _documents(request: PackRequest, layer: Path, digest: Digest, diff_id: Digest, size: int) -> PackedBlobs:
    config = _json(_configuration(request, diff_id))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": {"mediaType": media.OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
            "layers": [{"mediaType": media.layer_media_type(request.compression), "digest": str(digest), "size": size}],
        }
    )
    return PackedBlobs(
        tag=request.tag,
        platform=request.platform,
        manifest=Digest.of(manifest),
        config=Digest.of(config),
        layer=digest,
        documents={Digest.of(manifest): manifest, Digest.of(config): config},
        layer_file=layer,
        layer_bytes=size,
    )


def _configuration(request: PackRequest, diff_id: Digest) -> dict[str, object]:
    config, platform = request.config, request.platform
    run: dict[str, object] = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Env": list(config.env),
        "WorkingDir": config.workdir,
        "User": config.user,
        "Labels": dict(sorted(config.labels.items())),
    }
    document: dict[str, object] = {
        "created": _EPOCH,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {name: value for name, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
        "history": [{"created": _EPOCH, "created_by": "metalmark image pack"}],
    }
    if platform.variant:
        document["variant"] = platform.variant
    return document


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _write_layer(entries: Iterable[PackEntry], compression: Compression, target: IO[bytes]) -> tuple[Digest, Digest]:
    stream = _LayerStream(target, compression)
    names: dict[tuple[int, int], bytes] = {}
    with tarfile.open(
        fileobj=cast("IO[bytes]", stream), mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER_BYTES
    ) as archive:
        for entry in entries:
            info = _header(entry, names)
            if not info.isreg() or entry.path is None:
                archive.addfile(info)
                continue
            try:
                with entry.path.open("rb") as content:
                    archive.addfile(info, content)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise InputError("DIR|FILE", str(entry.path), "it became shorter while it was read") from error
    return stream.finish()


def _header(entry: PackEntry, names: dict[tuple[int, int], bytes]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(entry.name))
    info.mode = stat.S_IMODE(entry.mode)
    kind = stat.S_IFMT(entry.mode)
    info.type = {
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
    }.get(kind, tarfile.REGTYPE)
    info.devmajor, info.devminor = entry.device
    if entry.link is not None:
        info.linkname = os.fsdecode(entry.link)
        info.mode = 0o777
    if entry.inode is not None:
        first = names.setdefault(entry.inode, entry.name)
        if first != entry.name:
            info.type, info.linkname = tarfile.LNKTYPE, os.fsdecode(first)
    if info.isreg():
        info.size = entry.size_bytes
    if not info.islnk():
        info.pax_headers = {
            f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs
        }
    return info


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _LayerStream:
    """What tarfile writes to: hashes the tar stream, packs it, hashes that, and stores it."""

    def __init__(self, target: IO[bytes], compression: Compression) -> None:
        self._target = target
        self._plain = Digest.of(b"").hasher()
        self._stored = Digest.of(b"").hasher()
        self._compressor = _compressor(compression)

    def write(self, data: bytes) -> int:
        if self._compressor is None:
            self._store(data)
        else:
            self._plain.update(data)
            self._store(self._compressor.compress(data))
        return len(data)

    def finish(self) -> tuple[Digest, Digest]:
        """Return the digest of what was stored and of the tar stream."""
        if self._compressor is not None:
            self._store(self._compressor.flush())
        self._target.flush()
        stored = Digest("sha256", self._stored.hexdigest())
        return stored, stored if self._compressor is None else Digest("sha256", self._plain.hexdigest())

    def _store(self, data: bytes) -> None:
        self._stored.update(data)
        self._target.write(data)


def _compressor(compression: Compression) -> _Compressor | None:
    match compression:
        case Compression.NONE:
            return None
        case Compression.GZIP:
            return zlib.compressobj(wbits=31)  # its header has no time and no name
        case Compression.ZSTD:
            import zstandard  # noqa: PLC0415 - only this choice needs it

            return zstandard.ZstdCompressor(level=3).compressobj()

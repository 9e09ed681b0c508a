"""Push an image, whatever it is in, into a repository of a registry."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from metalmark.model import (
    Digest,
    DigestMismatch,
    InputError,
    NotAnImage,
    Platform,
    Progress,
    ProgressSink,
    ignore_progress,
)
from metalmark.oci import media
from metalmark.oci.access import RegistryAccess
from metalmark.oci.documents import Node
from metalmark.oci.finder import ManifestFinder
from metalmark.oci.manifest import MAX_DOCUMENT_BYTES, Descriptor, Index
from metalmark.oci.origin import Origin, Root
from metalmark.oci.pull import open_origin
from metalmark.oci.reference import Reference
from metalmark.oci.source import ImageSource, SourceKind
from metalmark.oci.upload_record import UploadRecord, upload_record

if TYPE_CHECKING:
    from metalmark.oci.push_target import PushTarget

_MAX_DEPTH = 4
_MAX_DOCUMENTS = 1024
_MAX_BLOBS = 8192
_KEPT_ELSEWHERE = ("foreign", "nondistributable")


@dataclass(frozen=True, kw_only=True)
class PushRequest:
    """What is pushed, and where to."""

    source: ImageSource
    target: Reference
    access: RegistryAccess
    """Of the target."""
    source_access: RegistryAccess = field(default_factory=RegistryAccess)
    """Of the source, where that is a registry."""
    platform: Platform | None = None
    """Push the image for this platform alone; None pushes all that the source has."""
    scratch: Path
    """A folder for archives that have to be unpacked, and for what is known of uploads."""


@dataclass(frozen=True, kw_only=True)
class PushedImage:
    """What is in the registry now."""

    reference: Reference
    digest: Digest
    """Of its manifest or index."""
    manifests: int
    """Manifests and indexes."""
    blobs: int
    """Configurations and layers."""
    uploaded: int
    """How many of them were not there."""
    bytes: int
    """Size of all blobs."""
    uploaded_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Document:
    digest: Digest
    media_type: str
    data: bytes


@dataclass(kw_only=True)
class _Contents:
    documents: list[_Document] = field(default_factory=list)
    """What an index names comes before it."""
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)


async def push(request: PushRequest, *, progress: ProgressSink = ignore_progress) -> PushedImage:
    """Push an image: blobs that are not there, several at once, then manifests, and the tag last.

    Manifests go byte for byte, so that the digest stays what it was.

    Raises:
        ImageError: The source holds no image, or is damaged.
        InputError: The target is named by a digest that is not the image's.
        RegistryDenied: A registry said no.
        RegistryUnavailable: One could not be reached, also after retries.
    """
    from metalmark.oci.push_target import PushTarget  # noqa: PLC0415 - the HTTP library is slow to import

    async with open_origin(request.source, request.source_access, request.scratch / "images") as origin:
        root = await origin.root()
        if request.platform is not None:
            root = await _only(root, origin, request.platform, str(request.source))
        contents = _Contents()
        digest = await _Walk(origin, contents).root(root)
        wanted = request.target.digest
        if wanted is not None and wanted != digest:
            raise InputError("target", str(request.target), f"the image has the digest {digest}", hint="give a tag")
        target = PushTarget(request.target, request.access)
        try:
            uploaded = await _Blobs(request, origin, target, progress).push(list(contents.blobs.values()))
            for document in contents.documents[:-1]:
                await target.put_manifest(document.data, document.media_type, str(document.digest))
            top = contents.documents[-1]
            await target.put_manifest(top.data, top.media_type, request.target.tag or str(digest))
        finally:
            with anyio.CancelScope(shield=True):
                await target.aclose()
    return PushedImage(
        reference=request.target,
        digest=digest,
        manifests=len(contents.documents),
        blobs=len(contents.blobs),
        uploaded=len(uploaded),
        bytes=sum(blob.size_bytes for blob in contents.blobs.values()),
        uploaded_bytes=sum(blob.size_bytes for blob in uploaded),
    )


async def delete_image(target: Reference, access: RegistryAccess) -> None:
    """Delete a tag, or by its digest a manifest with all its tags, from a repository.

    Raises:
        ImageNotFound: There is none.
        RegistryDenied: The registry said no.
        RegistryUnavailable: It could not be reached, also after retries.
    """
    from metalmark.oci.push_target import PushTarget  # noqa: PLC0415 - the HTTP library is slow to import

    repository = PushTarget(target, access)
    try:
        await repository.delete(target.version)
    finally:
        with anyio.CancelScope(shield=True):
            await repository.aclose()


async def _only(root: Root, origin: Origin, platform: Platform, name: str) -> Root:
    found = await ManifestFinder(origin, platform, name).find(root)
    data = root.data if found.digest == root.digest else found.documents[found.digest]
    return Root(document=found.manifest, data=data, digest=found.digest)


class _Walk:
    def __init__(self, origin: Origin, contents: _Contents) -> None:
        self._origin = origin
        self._contents = contents
        self._seen: set[Digest] = set()

    async def root(self, root: Root) -> Digest:
        data, digest = root.data, root.digest
        if digest is None:
            # Several images of a layout that have no index of their own: they get one.
            assert isinstance(root.document, Index), "a manifest has a digest"
            data = _index_of(root.document)
            digest = Digest.of(data)
        await self._take(digest, root.document.media_type, data, 0)
        return digest

    async def _take(self, digest: Digest, media_type: str, data: bytes, depth: int) -> None:
        if depth > _MAX_DEPTH or len(self._seen) >= _MAX_DOCUMENTS:
            raise NotAnImage(f"manifest {digest} leads too deep, or to too many others")
        self._seen.add(digest)
        top = Node.parse(data, what=f"manifest {digest}")
        if top.has("manifests"):
            for item in top.get("manifests").items(_MAX_DOCUMENTS):
                child = _descriptor(item)
                if child.digest not in self._seen:
                    await self._take(child.digest, child.media_type, await self._read(child), depth + 1)
        else:
            self._take_blobs(top)
        self._contents.documents.append(_Document(digest=digest, media_type=media_type, data=data))

    def _take_blobs(self, top: Node) -> None:
        blobs = [_descriptor(item) for item in top.get("layers").items(_MAX_BLOBS)] if top.has("layers") else []
        if top.has("config"):
            blobs.append(_descriptor(top.get("config")))
        for blob in blobs:
            # Nobody but who made them may pass such layers on.
            if not any(word in blob.media_type for word in _KEPT_ELSEWHERE):
                self._contents.blobs[blob.digest] = blob
        if len(self._contents.blobs) > _MAX_BLOBS:
            raise NotAnImage(f"{top.what} brings more than {_MAX_BLOBS} blobs")

    async def _read(self, child: Descriptor) -> bytes:
        if child.size_bytes > MAX_DOCUMENT_BYTES:
            raise NotAnImage(f"manifest {child.digest} has {child.size_bytes} bytes", why="so large are none")
        data = await self._origin.read(child)
        found = Digest.of(data, child.digest.algorithm)
        if found != child.digest:
            raise DigestMismatch(f"manifest {child.digest} has the content of {found}", why="the image is damaged")
        return data


def _descriptor(node: Node) -> Descriptor:
    return Descriptor(
        media_type=node.get("mediaType").text(), digest=node.get("digest").digest(), size_bytes=node.get("size").size()
    )


def _index_of(index: Index) -> bytes:
    manifests = []
    for entry in index.manifests:
        said: dict[str, object] = {
            "mediaType": entry.media_type,
            "digest": str(entry.digest),
            "size": entry.size_bytes,
        }
        if entry.platform is not None:
            platform = {"architecture": entry.platform.architecture, "os": entry.platform.os}
            said["platform"] = platform | ({"variant": entry.platform.variant} if entry.platform.variant else {})
        manifests.append(said)
    document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": manifests}
    return json.dumps(document, separators=(",", ":")).encode()


class _Blobs:
    def __init__(self, request: PushRequest, origin: Origin, target: PushTarget, progress: ProgressSink) -> None:
        self._request = request
        self._origin = origin
        self._target = target
        self._progress = progress
        self._mount = _same_registry(request)

    async def push(self, blobs: list[Descriptor]) -> list[Descriptor]:
        """Send what is not there, and return it."""
        limiter = anyio.CapacityLimiter(self._request.access.parallel)
        sent: list[Descriptor] = []

        async def one(number: int, blob: Descriptor) -> None:
            async with limiter:
                if await self._one(blob, f"push {blob.digest.short} ({number} of {len(blobs)})"):
                    sent.append(blob)

        try:
            async with anyio.create_task_group() as tasks:
                for number, blob in enumerate(blobs, 1):
                    tasks.start_soon(one, number, blob)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from group
        return sent

    async def _one(self, blob: Descriptor, task: str) -> bool:
        with upload_record(self._request.scratch / "uploads", self._request.target, blob) as record:
            if await self._target.has(blob) or await self._mounted(blob):
                # An earlier push may have sent it and been killed before it heard so.
                record.remove()
                return False
            await self._upload(blob, task, record)
        return True

    async def _mounted(self, blob: Descriptor) -> bool:
        return bool(self._mount) and await self._target.mount(blob, self._mount)

    async def _upload(self, blob: Descriptor, task: str, record: UploadRecord) -> None:
        def advance(done: int) -> None:
            self._progress(Progress(task=task, done=done, total=blob.size_bytes))

        await self._target.upload(blob, lambda offset: self._origin.pieces(blob, offset), advance, record)
        self._progress(Progress(task=task, done=blob.size_bytes, total=blob.size_bytes, finished=True))


def _same_registry(request: PushRequest) -> str:
    """Return the repository of the source where it is in the target's registry, else nothing."""
    if request.source.kind is not SourceKind.REGISTRY:
        return ""
    source = Reference.parse(request.source.location)
    return source.repository if source.registry == request.target.registry else ""

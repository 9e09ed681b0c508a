"""Bring an image into the cache, whole and verified."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio

from metalmark.model import Digest, NotAnImage, Platform, Progress, ProgressSink, ignore_progress
from metalmark.oci.access import RegistryAccess
from metalmark.oci.bundle import FolderBundle, TarBundle
from metalmark.oci.cache import ImageCache
from metalmark.oci.collect import DEFAULT_MAX_BYTES, collect
from metalmark.oci.docker_archive import DockerArchiveOrigin
from metalmark.oci.finder import FoundManifest, ManifestFinder
from metalmark.oci.image import ResolvedImage
from metalmark.oci.incoming import LayerCheck, LayerFacts, check_stored_layer
from metalmark.oci.layout import LayoutOrigin
from metalmark.oci.manifest import Descriptor
from metalmark.oci.origin import Origin
from metalmark.oci.record import ImageRecord, LayerRecord
from metalmark.oci.reference import Reference
from metalmark.oci.source import ImageSource, SourceKind
from metalmark.system import in_thread

_LOCAL_PARALLEL = 2


async def pull(
    source: ImageSource,
    *,
    cache: ImageCache,
    platform: Platform,
    access: RegistryAccess | None = None,
    progress: ProgressSink = ignore_progress,
) -> ResolvedImage:
    """Resolve an image for a platform and bring what is missing of it into the cache.

    An image that is asked for by digest and is complete in the cache is found there without asking anybody, unless
    ``access`` says otherwise.

    Args:
        source: Where the image is.
        cache: Where it goes; it protects the image from clean-up until it is closed.
        platform: What it must run on.
        access: Credentials and transport for a registry.
        progress: Told about each blob that is fetched.

    Raises:
        ImageError: See its subclasses.
        RegistryDenied: The registry answered no.
        RegistryUnavailable: It could not be reached, also after retries.
        NoSpace: The cache's file system is full; nothing half-written stays.
    """
    access = access or RegistryAccess()
    if source.kind is SourceKind.REGISTRY and (digest := Reference.parse(source.location).digest) is not None:
        record = await in_thread(cache.find, digest, platform)
        if record is not None and (access.cached_for_all or str(source) in record.references):
            return record.resolved(str(source), cache.blobs, cached=True)
    async with open_origin(source, access, cache.images) as origin:
        parallel = access.parallel if source.kind is SourceKind.REGISTRY else _LOCAL_PARALLEL
        return await _Pull(
            source=source, origin=origin, cache=cache, platform=platform, parallel=parallel, progress=progress
        ).run()


@asynccontextmanager
async def open_origin(source: ImageSource, access: RegistryAccess, scratch: Path) -> AsyncIterator[Origin]:
    """Open the place where an image is.

    Args:
        source: The image.
        access: Credentials and transport for a registry.
        scratch: A folder for an archive that has to be unpacked to be read; made when missing.

    Raises:
        NotAnImage: An archive is damaged.
    """
    origin = await _origin(source, access, scratch)
    try:
        yield origin
    finally:
        with anyio.CancelScope(shield=True):
            await origin.aclose()


async def _origin(source: ImageSource, access: RegistryAccess, scratch: Path) -> Origin:
    if source.kind is SourceKind.REGISTRY:
        from metalmark.oci.registry import RegistryOrigin  # noqa: PLC0415 - the HTTP library is slow to import

        return RegistryOrigin(Reference.parse(source.location), access)
    path = Path(source.location)
    is_folder = await in_thread(path.is_dir)
    if not is_folder:
        await in_thread(ImageCache(scratch.parent).prepare)
    bundle = FolderBundle(path) if is_folder else await in_thread(TarBundle, path, scratch)
    if source.kind is SourceKind.DOCKER_ARCHIVE:
        return DockerArchiveOrigin(source, bundle)
    return LayoutOrigin(source, bundle)


class _Pull:
    def __init__(
        self,
        *,
        source: ImageSource,
        origin: Origin,
        cache: ImageCache,
        platform: Platform,
        parallel: int,
        progress: ProgressSink,
    ) -> None:
        self._source = source
        self._origin = origin
        self._cache = cache
        self._platform = platform
        self._parallel = parallel
        self._progress = progress

    async def run(self) -> ResolvedImage:
        root = await self._origin.root()
        if root.digest is not None and (cached := await self._cached(root.digest, (root.digest,))) is not None:
            return cached
        found = await ManifestFinder(self._origin, self._platform, str(self._source)).find(root)
        keys = (found.digest,) if root.digest is None else (found.digest, root.digest)
        if (cached := await self._cached(found.digest, keys)) is not None:
            return cached
        await in_thread(self._begin, found)
        facts = await self._layers(found)
        record = self._record(found, facts)
        await in_thread(self._cache.remember, record, keys, self._platform)
        await in_thread(self._shrink)
        return record.resolved(str(self._source), self._cache.blobs, cached=False)

    def _shrink(self) -> None:
        collect(self._cache, max_bytes=DEFAULT_MAX_BYTES)

    async def _cached(self, digest: Digest, keys: tuple[Digest, ...]) -> ResolvedImage | None:
        record = await in_thread(self._cache.find, digest, self._platform)
        if record is None:
            return None
        named = replace(record, references=(str(self._source),))
        await in_thread(self._cache.remember, named, keys, self._platform)
        return record.resolved(str(self._source), self._cache.blobs, cached=True)

    def _begin(self, found: FoundManifest) -> None:
        self._cache.prepare()
        self._cache.sweep()
        self._cache.protect((*found.documents, *(layer.digest for layer in found.manifest.layers)))
        for digest, data in found.documents.items():
            self._cache.put(digest, data, what=f"document {digest}")

    async def _layers(self, found: FoundManifest) -> dict[Digest, LayerFacts]:
        wanted: dict[Digest, tuple[Descriptor, Digest]] = {}
        for layer, diff_id in zip(found.manifest.layers, found.configuration.diff_ids, strict=True):
            known = wanted.setdefault(layer.digest, (layer, diff_id))
            if known[1] != diff_id or known[0].size_bytes != layer.size_bytes:
                raise NotAnImage(f"layer {layer.digest} stands twice in the manifest", why="with different contents")
        limiter = anyio.CapacityLimiter(self._parallel)
        facts: dict[Digest, LayerFacts] = {}

        async def one(number: int, layer: Descriptor, diff_id: Digest) -> None:
            async with limiter:
                facts[layer.digest] = await self._layer(layer, diff_id, f"layer {number} of {len(wanted)}")

        try:
            async with anyio.create_task_group() as tasks:
                for number, (layer, diff_id) in enumerate(wanted.values(), 1):
                    tasks.start_soon(one, number, layer, diff_id)
        except BaseExceptionGroup as group:
            raise _first(group) from group
        return facts

    async def _layer(self, layer: Descriptor, diff_id: Digest, task: str) -> LayerFacts:
        cache = self._cache
        async with cache.exclusive(layer.digest):
            if await in_thread(cache.has, layer.digest, layer.size_bytes):
                facts = await in_thread(cache.layer_facts, layer.digest)
                if facts is None or facts.diff_id != diff_id:
                    path = cache.blob_path(layer.digest)
                    facts = await in_thread(check_stored_layer, path, layer.digest, diff_id)
            else:
                facts = await self._fetch(layer, diff_id, f"pull {layer.digest.short} ({task})")
            await in_thread(cache.remember_layer, layer.digest, facts)
        return facts

    async def _fetch(self, layer: Descriptor, diff_id: Digest, task: str) -> LayerFacts:
        def advance(done: int) -> None:
            self._progress(Progress(task=task, done=done, total=layer.size_bytes))

        advance(0)
        what = f"layer {layer.digest}"
        check = LayerCheck(layer.digest, diff_id)
        with self._cache.incoming(layer.digest, layer.size_bytes, what=what, check=check) as blob:
            await self._origin.copy(layer, blob, advance)
            facts = await in_thread(blob.commit)
        self._progress(Progress(task=task, done=layer.size_bytes, total=layer.size_bytes, finished=True))
        return facts

    def _record(self, found: FoundManifest, facts: dict[Digest, LayerFacts]) -> ImageRecord:
        return ImageRecord(
            digest=found.digest,
            platform=found.configuration.platform,
            config=found.configuration.config,
            layers=tuple(
                LayerRecord(
                    digest=layer.digest,
                    media_type=layer.media_type,
                    size_bytes=layer.size_bytes,
                    diff_id=facts[layer.digest].diff_id,
                    compression=facts[layer.digest].compression,
                )
                for layer in found.manifest.layers
            ),
            documents=tuple(found.documents),
            documents_bytes=sum(map(len, found.documents.values())),
            references=(str(self._source),),
        )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

"""Manifests by tag and digest, for whoever serves or resolves them."""

from __future__ import annotations

import re

import structlog

from metalmark.model import Digest, InputError, NotFound
from metalmark.server.context import ServerContext
from metalmark.server.registry_access import RepositoryRef
from metalmark.server.registry_desk import place_of
from metalmark.server.registry_errors import RegistryFault
from metalmark.server.registry_lease import wants_renewal
from metalmark.server.registry_manifest import ManifestDocument, parse_manifest
from metalmark.store import (
    Connection,
    Isolation,
    Lacking,
    ManifestRecord,
    NewManifest,
    delete_manifest,
    delete_tag,
    find_manifest,
    put_manifest,
    registry_bytes,
    touch_manifest,
)

_log = structlog.get_logger(__name__)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


def parse_tag(text: str) -> str:
    """Return a tag (OCI distribution specification 1.1, "Pulling manifests").

    Raises:
        InputError: It is none.
    """
    if not _TAG.fullmatch(text):
        raise InputError("tag", text[:130], "this is not a tag")
    return text


def parse_manifest_reference(text: str) -> Digest | str:
    """Return the digest or tag that the path of a manifest ends in.

    Raises:
        InputError: It is neither.
    """
    return Digest.parse(text) if ":" in text else parse_tag(text)


async def read_manifest(reading: Connection, ref: RepositoryRef, reference: str) -> ManifestRecord:
    """Return a manifest.

    One that is not what was pushed is not there: whoever pushes it again repairs it.

    Args:
        reading: Of a read.
        ref: The repository.
        reference: A tag or digest.

    Raises:
        NotFound: There is none, or the reference is neither tag nor digest.
        StoreUnavailable: The store is away.
    """
    try:
        parsed = parse_manifest_reference(reference)
    except InputError:
        raise NotFound("manifest", reference[:150]) from None
    manifest = await find_manifest(reading, place_of(ref), parsed)
    if manifest is None:
        raise NotFound("manifest", reference)
    if Digest.of(manifest.content, manifest.digest.algorithm) != manifest.digest:
        _log.error("damaged manifest", repository=ref.name, digest=str(manifest.digest))
        raise NotFound("manifest", reference, hint="push it again: the database gave other bytes than were pushed")
    return manifest


async def renew_manifest(context: ServerContext, ref: RepositoryRef, manifest: ManifestRecord) -> None:
    """Renew the lease of a manifest that somebody asked for, where it is old.

    Raises:
        StoreUnavailable: The store is away.
    """
    # Whoever asks may be about to push an index that names it, and will not push it again.
    now = context.clock.now()
    if ref.whole_project or not wants_renewal(context.config.registry, manifest.touched, now):
        return

    async def work(connection: Connection) -> None:
        await touch_manifest(connection, place_of(ref), manifest.digest, now=now)

    await context.store.write(work, isolation=Isolation.READ_COMMITTED)


async def write_manifest(
    context: ServerContext, ref: RepositoryRef, reference: str, content: bytes, content_type: str | None
) -> tuple[Digest, ManifestDocument]:
    """Store a manifest under a tag or its digest.

    Raises:
        InputError: The reference is neither.
        RegistryFault: It is not its digest, the manifest is not one, names what is not there, or the project is over
            its bound.
        StoreUnavailable: The store is away.
    """
    parsed = parse_manifest_reference(reference)
    digest = Digest.of(content, parsed.algorithm if isinstance(parsed, Digest) else "sha256")
    if isinstance(parsed, Digest) and parsed != digest:
        found = "the manifest has another digest"
        raise RegistryFault("DIGEST_INVALID", 400, found, details=[{"digest": str(parsed)}])
    document = parse_manifest(content, content_type)
    new = NewManifest(
        digest=digest,
        media_type=document.media_type,
        content=content,
        blobs=document.blobs,
        children=document.children,
        subject=document.subject,
        artifact_type=document.artifact_type,
        annotations=document.annotations,
    )
    registry, now = context.config.registry, context.clock.now()
    tag = parsed if isinstance(parsed, str) else None

    async def work(connection: Connection) -> Lacking | None:
        lacking = await put_manifest(connection, place_of(ref), new, tag=tag, sparse=registry.sparse_indexes, now=now)
        most = registry.project_max_bytes
        if lacking is None and most is not None and await registry_bytes(connection, project_id=ref.project_id) > most:
            raise RegistryFault("DENIED", 403, f"the images of this project take the {most} bytes that they may")
        return lacking

    lacking = await context.store.write(work)
    if lacking is not None:
        raise _refused(lacking)
    return digest, document


def _refused(lacking: Lacking) -> RegistryFault:
    missing = lacking.blobs + lacking.manifests
    if missing:
        found = f"this manifest names {len(missing)} blobs or manifests that are not in the repository"
        details = [{"digest": digest} for digest in missing[:_SHOWN]]
        return RegistryFault("MANIFEST_BLOB_UNKNOWN", 400, found, details=details)
    details = [{"digest": digest} for digest in lacking.other_sizes[:_SHOWN]]
    return RegistryFault("MANIFEST_INVALID", 400, "this manifest tells wrong sizes", details=details)


_SHOWN = 100


async def remove_manifest(context: ServerContext, ref: RepositoryRef, reference: str) -> None:
    """Delete a tag, or a manifest with all its tags.

    Raises:
        NotFound: There is none.
        RegistryFault: An index names the manifest.
        StoreUnavailable: The store is away.
    """
    try:
        parsed = parse_manifest_reference(reference)
    except InputError:
        raise NotFound("manifest", reference[:150]) from None
    now = context.clock.now()

    async def work(connection: Connection) -> str | None:
        if isinstance(parsed, Digest):
            return await delete_manifest(connection, place_of(ref), parsed, now=now)
        if not await delete_tag(connection, place_of(ref), parsed):
            raise LookupError(parsed)
        return None

    try:
        index = await context.store.write(work)
    except LookupError:
        raise NotFound("manifest", reference) from None
    if index is not None:
        found = f"the index {index} names this manifest"
        raise RegistryFault("DENIED", 405, found, headers={"Allow": "GET, HEAD, PUT"})

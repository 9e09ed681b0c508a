"""How the engines carry out what the registry asks: all through an index, and collections through those of what is due.

Every statement of pushes, pulls, deletions and collections is explained; see `test_query_plans`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.integration.store.job_floor import Floor
from tests.integration.store.query_plans import Call, faults_of_call, indexes_of_call

from metalmark.model import Digest, new_id
from metalmark.store import Connection, ContentPart, NewManifest, Page, RepositoryPlace, Store
from metalmark.store.registry_blobs import (
    blob_sizes,
    drop_unlinked,
    find_registry_blob,
    mount_blob,
    publish_blob,
    registry_bytes,
    touch_blob,
    unlink_blob,
    unlink_unused,
)
from metalmark.store.registry_contents import (
    condemned_contents,
    create_content,
    drop_contents,
    find_parts,
    known_parts,
)
from metalmark.store.registry_health import names_of_blob, stored_blobs, stored_manifests
from metalmark.store.registry_images import (
    delete_manifests,
    delete_tags,
    forsaken_manifests,
    images_of_jobs,
    list_images,
    old_tags,
)
from metalmark.store.registry_manifests import (
    delete_manifest,
    delete_tag,
    find_manifest,
    list_referrers,
    list_tags,
    put_manifest,
)
from metalmark.store.registry_release import release_images
from metalmark.store.registry_repositories import list_repositories, repositories_in_turn
from metalmark.store.registry_uploads import (
    append_to_upload,
    cancel_upload,
    count_parts,
    count_uploads,
    expire_uploads,
    find_upload,
    start_upload,
)

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, tzinfo=UTC)
BLOB, OTHER, MANIFEST, CHILD = (Digest.of(text) for text in (b"blob", b"other", b"manifest", b"child"))
MOST = 10


def new_digest() -> Digest:
    return Digest.of(new_id().bytes)


def part(position: int = 0) -> ContentPart:
    return ContentPart(id=new_id(), position=position, size_bytes=4)


async def pushed(connection: Connection, place: RepositoryPlace, digest: Digest) -> None:
    content = await create_content(connection, now=NOW, parts=[part()])
    await publish_blob(connection, place, digest, content_id=content, size_bytes=4, now=NOW)


def manifest(digest: Digest, **names: dict[str, int]) -> NewManifest:
    return NewManifest(digest=digest, media_type="a/b", content=b"{}", subject=str(BLOB), **names)


async def push_images(connection: Connection, place: RepositoryPlace) -> None:
    for digest in (BLOB, OTHER):
        await pushed(connection, place, digest)
    child, index = manifest(CHILD, blobs={str(BLOB): 4}), manifest(MANIFEST, children={str(CHILD): 2})
    for new, tag in ((child, None), (index, "v1")):
        assert await put_manifest(connection, place, new, tag=tag, sparse=False, now=NOW) is None


async def whole_upload(connection: Connection, place: RepositoryPlace) -> None:
    upload = await start_upload(connection, place, now=NOW)
    assert await append_to_upload(connection, upload, part(), now=NOW)
    found = await find_upload(connection, place, upload.id)
    assert found is not None
    await publish_blob(
        connection, place, new_digest(), content_id=found.content_id, size_bytes=4, upload=found, now=NOW
    )
    upload = await start_upload(connection, place, now=NOW)
    await count_parts(connection, content_id=upload.content_id)
    await cancel_upload(connection, upload, now=NOW)
    await drop_contents(connection, ids=[upload.content_id])


async def repository_of(connection: Connection, place: RepositoryPlace) -> None:
    (found,) = await list_repositories(connection, project_id=place.project_id)
    await blob_sizes(connection, repository_id=found.id, digests=[str(BLOB), str(OTHER)])
    await delete_manifests(connection, repository_id=found.id, gone=[str(CHILD)], now=NOW)


async def retain(connection: Connection, place: RepositoryPlace) -> None:
    (owner,) = await repositories_in_turn(connection, after=None, limit=1)
    await repositories_in_turn(connection, after=owner.id, limit=1)
    await images_of_jobs(connection, project_id=place.project_id)
    await forsaken_manifests(connection, repository_id=owner.id, before=NOW)
    old = await old_tags(connection, repository_id=owner.id, keep=1, before=NOW)
    await delete_tags(connection, repository_id=owner.id, gone=[*old, ("none", str(BLOB))])


async def read_parts(connection: Connection, place: RepositoryPlace) -> None:
    blob = await find_registry_blob(connection, place, BLOB)
    assert blob is not None
    await find_parts(connection, content_id=blob.content_id)
    await known_parts(connection, ids=[new_id()])


def calls(place: RepositoryPlace) -> dict[str, Call]:
    whole = RepositoryPlace(project_id=place.project_id, whole_project=True)
    other = RepositoryPlace(project_id=place.project_id, inner="other")
    return {
        "push of images": lambda c: push_images(c, place),
        "upload": lambda c: whole_upload(c, place),
        "uploads of a project": lambda c: count_uploads(c, project_id=place.project_id),
        "bytes of a project": lambda c: registry_bytes(c, project_id=place.project_id),
        "blob": lambda c: read_parts(c, place),
        "blob of a project": lambda c: find_registry_blob(c, whole, BLOB),
        "touch": lambda c: touch_blob(c, place, BLOB, now=NOW),
        "mount": lambda c: mount_blob(c, place, other, BLOB, now=NOW),
        "manifest by tag": lambda c: find_manifest(c, place, "v1"),
        "manifest by digest": lambda c: find_manifest(c, place, MANIFEST),
        "manifest of a project": lambda c: find_manifest(c, whole, MANIFEST),
        "tags": lambda c: list_tags(c, place, after="a", limit=MOST),
        "referrers": lambda c: list_referrers(c, place, BLOB, artifact_type="x/y", limit=MOST),
        "images": lambda c: list_images(c, page=Page(limit=8), project_id=place.project_id),
        "names of a blob": lambda c: names_of_blob(c, BLOB),
        "blobs in turn": lambda c: stored_blobs(c, after=BLOB, limit=MOST),
        "manifests in turn": lambda c: stored_manifests(c, after=None, limit=MOST),
        "tag deleted": lambda c: delete_tag(c, place, "none"),
        "manifest deleted": lambda c: delete_manifest(c, place, MANIFEST, now=NOW),
        "blob deleted": lambda c: unlink_blob(c, place, OTHER, now=NOW),
        "expired uploads": lambda c: expire_uploads(c, before=NOW, now=NOW, most=MOST),
        "unused blobs": lambda c: unlink_unused(c, before=NOW + timedelta(days=1), now=NOW, most=MOST),
        "unlinked blobs": lambda c: drop_unlinked(c, now=NOW, most=MOST),
        "condemned contents": lambda c: condemned_contents(c, before=NOW, most=MOST),
        "old images": lambda c: retain(c, place),
        "manifests deleted": lambda c: repository_of(c, place),
        "project released": lambda c: release_images(c, project_ids=[place.project_id], now=NOW),
    }


SORTED_AFTERWARDS = {"names of a blob", "images", "referrers", "old images"}
"""Few rows each: what one page, batch or repository has, or the few repositories that have a blob."""
DUE = {
    "expired uploads": "ix_registry_uploads_by_age",
    "unused blobs": "ix_registry_links_by_age",
    "unlinked blobs": "ix_registry_blobs_loose",
    "condemned contents": "ix_registry_contents_condemned",
}


async def placed(store: Store) -> RepositoryPlace:
    floor = Floor(store=store, now=NOW)
    await floor.lay()
    place = RepositoryPlace(project_id=floor.project, inner="app")
    await store.write(lambda connection: push_images(connection, place))
    return place


async def each(store: Store, place: RepositoryPlace, look: Callable[[Connection, str, Call], Awaitable[None]]) -> None:
    async def work(connection: Connection) -> None:
        for name, call in calls(place).items():
            await look(connection, name, call)

    await store.write(work)


async def test_an_index_serves_all_that_the_registry_asks(store: Store) -> None:
    found: dict[str, dict[str, list[str]]] = {}

    async def look(connection: Connection, name: str, call: Call) -> None:
        found[name] = await faults_of_call(connection, call, sorts=name in SORTED_AFTERWARDS)

    await each(store, await placed(store), look)
    assert {name: faults for name, faults in found.items() if faults} == {}


async def test_a_collection_looks_at_what_is_due_alone(store: Store) -> None:
    found: dict[str, set[str]] = {}

    async def look(connection: Connection, name: str, call: Call) -> None:
        # What others have deleted before is not there any more.
        with contextlib.suppress(LookupError, ValueError):
            found[name] = await indexes_of_call(connection, call)

    await each(store, await placed(store), look)
    assert {name: index for name, index in DUE.items() if index not in found[name]} == {}

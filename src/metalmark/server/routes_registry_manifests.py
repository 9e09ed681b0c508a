"""``/v2/{name}/manifests``, ``tags`` and ``referrers``: what a repository holds, by name and by relation."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from metalmark.model import Digest, InputError, NotFound
from metalmark.server.context import CurrentContext
from metalmark.server.registry_access import allowed, reached
from metalmark.server.registry_desk import place_of
from metalmark.server.registry_manifest import OCI_INDEX
from metalmark.server.registry_manifests import (
    parse_tag,
    read_manifest,
    remove_manifest,
    renew_manifest,
    write_manifest,
)
from metalmark.server.registry_scope import Action
from metalmark.store import ReferrerRecord, find_repository_id, list_referrers, list_tags

router = APIRouter(include_in_schema=False)

_PAGE = 1000
_PAGE_MAX = 10_000
_REFERRERS_BYTES = 3 * 1024 * 1024
"""Clients take an index of up to 4 MiB."""


@router.api_route("/v2/{name:path}/manifests/{reference}", methods=["GET", "HEAD"])
async def get_manifest(request: Request, context: CurrentContext, name: str, reference: str) -> Response:
    """Read a manifest, byte for byte as it was pushed."""
    async with reached(request, context, name, Action.PULL) as (ref, reading):
        manifest = await read_manifest(reading, ref, reference)
    await renew_manifest(context, ref, manifest)
    headers = {
        "Docker-Content-Digest": str(manifest.digest),
        "ETag": f'"{manifest.digest}"',
        "Content-Length": str(len(manifest.content)),
        # Not through the media type: a character set must not be added to it.
        "Content-Type": manifest.media_type,
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        del headers["Content-Length"]
        return Response(status_code=304, headers=headers)
    return Response(b"" if request.method == "HEAD" else manifest.content, headers=headers)


@router.put("/v2/{name:path}/manifests/{reference}")
async def put_manifest(request: Request, context: CurrentContext, name: str, reference: str) -> Response:
    """Push a manifest."""
    ref = await allowed(request, context, name, Action.PUSH)
    content = await request.body()
    content_type = request.headers.get("content-type")
    digest, document = await write_manifest(context, ref, reference, content, content_type)
    headers = {"Location": f"/v2/{ref.name}/manifests/{digest}", "Docker-Content-Digest": str(digest)}
    if document.subject is not None:
        headers["OCI-Subject"] = document.subject
    return Response(status_code=201, headers=headers)


@router.delete("/v2/{name:path}/manifests/{reference}")
async def delete_manifest(request: Request, context: CurrentContext, name: str, reference: str) -> Response:
    """Delete a tag, or a manifest with all tags of it."""
    ref = await allowed(request, context, name, Action.DELETE)
    await remove_manifest(context, ref, reference)
    return Response(status_code=202)


def _limit(request: Request) -> int:
    text = request.query_params.get("n", str(_PAGE))
    if not (text.isascii() and text.isdecimal()):
        raise InputError("tag", text[:20], "n is a whole number")
    return min(int(text[:9]), _PAGE_MAX)


@router.get("/v2/{name:path}/tags/list")
async def get_tags(request: Request, context: CurrentContext, name: str) -> Response:
    """List tags in their order, a page at a time."""
    async with reached(request, context, name, Action.PULL) as (ref, connection):
        limit, last = _limit(request), request.query_params.get("last")
        after = parse_tag(last) if last else None
        if await find_repository_id(connection, place_of(ref)) is None:
            raise NotFound("repository", name)
        found = await list_tags(connection, place_of(ref), after=after, limit=limit + 1)
    shown = [record.tag for record in found[:limit]]
    headers = {}
    if shown and len(found) > limit:
        headers["Link"] = f'</v2/{ref.name}/tags/list?{urlencode({"n": limit, "last": shown[-1]})}>; rel="next"'
    return JSONResponse({"name": ref.name, "tags": shown}, headers=headers)


@router.get("/v2/{name:path}/referrers/{digest}")
async def get_referrers(request: Request, context: CurrentContext, name: str, digest: str) -> Response:
    """List the manifests that refer to one, whether that is there or not, a page at a time."""
    async with reached(request, context, name, Action.PULL) as (ref, connection):
        subject, limit = Digest.parse(digest), _limit(request)
        wanted = request.query_params.get("artifactType") or None
        last = request.query_params.get("last")
        after = str(Digest.parse(last)) if last else ""
        found = await list_referrers(
            connection, place_of(ref), subject, artifact_type=wanted, after=after, limit=limit + 1
        )
    shown = _fitting([_descriptor(record) for record in found[:limit]])
    # No character set is added to the type, and what does not apply is not told.
    headers = {"Content-Type": OCI_INDEX}
    if wanted is not None:
        headers["OCI-Filters-Applied"] = "artifactType"
    if shown and len(found) > len(shown):
        query = {"n": limit, "last": shown[-1]["digest"], **({"artifactType": wanted} if wanted else {})}
        headers["Link"] = f'</v2/{ref.name}/referrers/{subject}?{urlencode(query)}>; rel="next"'
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": shown}
    return Response(json.dumps(index).encode(), headers=headers)


def _descriptor(record: ReferrerRecord) -> dict[str, object]:
    descriptor: dict[str, object] = {
        "mediaType": record.media_type,
        "digest": str(record.digest),
        "size": record.size_bytes,
    }
    if record.artifact_type is not None:
        descriptor["artifactType"] = record.artifact_type
    if record.annotations is not None:
        descriptor["annotations"] = dict(record.annotations)
    return descriptor


def _fitting(descriptors: list[dict[str, object]]) -> list[dict[str, object]]:
    # Annotations can be of any length: at least one descriptor is told, or there would be no going on.
    size, fitting = 0, 0
    for descriptor in descriptors:
        size += len(json.dumps(descriptor))
        if fitting and size > _REFERRERS_BYTES:
            break
        fitting += 1
    return descriptors[:fitting]

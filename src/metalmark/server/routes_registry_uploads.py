"""``/v2/{name}/blobs/uploads``: pushes of blobs, by the OCI distribution specification 1.1, "Pushing blobs"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from metalmark.model import Digest, InputError
from metalmark.server.config import RegistrySection
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.registry_access import RepositoryRef, allowed, may_pull, reached
from metalmark.server.registry_desk import PARTS_MAX, RegistryDesk, place_of, session_of
from metalmark.server.registry_errors import RegistryFault
from metalmark.server.registry_scope import Action
from metalmark.store import Connection, RepositoryPlace, UploadRecord, mount_blob

router = APIRouter(include_in_schema=False)

_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?", re.ASCII)
_CANONICAL = "sha256"


def _desk(request: Request, context: ServerContext) -> RegistryDesk:
    state = request.app.state
    if not hasattr(state, "registry_desk"):
        state.registry_desk = RegistryDesk(context)
    desk: RegistryDesk = state.registry_desk
    return desk


def least_chunk(rules: RegistrySection) -> int:
    """Return the bytes that each chunk of an upload should have at least, so that the largest blob can be uploaded."""
    # Half of the parts are for chunks that broken connections cut.
    return max(1, -(-rules.layer_max_bytes // (PARTS_MAX // 2)))


def _single(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise InputError(name, f"given {len(values)} times", "it takes one value")
    return values[0] if values else None


def _digest(request: Request, name: str = "digest") -> Digest | None:
    text = _single(request, name)
    return None if text is None else Digest.parse(text)


def _announced(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isascii() and length.isdecimal() else None


def _progress(ref: RepositoryRef, upload: UploadRecord) -> dict[str, str]:
    return {
        "Location": f"/v2/{ref.name}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(0, upload.size_bytes - 1)}",
        "Docker-Upload-UUID": str(upload.id),
    }


def _created(ref: RepositoryRef, digest: Digest) -> Response:
    headers = {"Location": f"/v2/{ref.name}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
    return Response(status_code=201, headers=headers)


@router.post("/v2/{name:path}/blobs/uploads")
async def begin_upload(request: Request, context: CurrentContext, name: str) -> Response:
    """Begin an upload, mount a blob of another repository, or take in a blob whole."""
    ref = await allowed(request, context, name, Action.PUSH)
    desk = _desk(request, context)
    mount, digest = _digest(request, "mount"), _digest(request)
    if mount is not None and await _mounted(request, context, ref, mount):
        return _created(ref, mount)
    announced = _announced(request)
    has_body = bool(announced) or "transfer-encoding" in request.headers
    # Older clients name the digest when they begin, and send nothing yet.
    if digest is not None and mount is None and (has_body or digest == Digest.of(b"", digest.algorithm)):
        await desk.take_whole(ref, digest, request.stream(), announced=announced)
        return _created(ref, digest)
    upload = await desk.begin(ref)
    headers = _progress(ref, upload) | {"OCI-Chunk-Min-Length": str(least_chunk(context.config.registry))}
    return Response(status_code=202, headers=headers)


async def _mounted(request: Request, context: ServerContext, ref: RepositoryRef, digest: Digest) -> bool:
    source_name = _single(request, "from")
    if source_name is None:
        # Without a name, whatever repository of the project it is in: whoever pushes to one may push to all.
        source = RepositoryPlace(project_id=ref.project_id, whole_project=True)
    else:
        found = await may_pull(request, context, source_name)
        if found is None:
            return False
        source = place_of(found)
    now = context.clock.now()

    async def work(connection: Connection) -> bool:
        return await mount_blob(connection, source, place_of(ref), digest, now=now)

    return await context.store.write(work)


@router.put("/v2/{name:path}/blobs/uploads")
async def put_whole(request: Request, context: CurrentContext, name: str) -> Response:
    """Take in a blob whole; public clients do it this way too."""
    ref = await allowed(request, context, name, Action.PUSH)
    digest = _required_digest(request)
    await _desk(request, context).take_whole(ref, digest, request.stream(), announced=_announced(request))
    return _created(ref, digest)


def _required_digest(request: Request) -> Digest:
    digest = _digest(request)
    if digest is None:
        raise InputError("digest", None, "an upload ends with the digest of the blob", hint="?digest=sha256:…")
    return digest


async def _upload(
    request: Request, context: ServerContext, name: str, session: str
) -> tuple[RepositoryRef, UploadRecord]:
    async with reached(request, context, name, Action.PUSH) as (ref, reading):
        return ref, await session_of(reading, ref, session)


@router.get("/v2/{name:path}/blobs/uploads/{session}")
async def get_upload(request: Request, context: CurrentContext, name: str, session: str) -> Response:
    """View how far an upload is."""
    ref, upload = await _upload(request, context, name, session)
    return Response(status_code=204, headers=_progress(ref, upload))


@router.patch("/v2/{name:path}/blobs/uploads/{session}")
async def patch_upload(request: Request, context: CurrentContext, name: str, session: str) -> Response:
    """Go on with an upload."""
    ref, upload = await _upload(request, context, name, session)
    _check_range(request, ref, upload)
    upload = await _appended(request, context, ref, upload, _CANONICAL)
    return Response(status_code=202, headers=_progress(ref, upload))


@router.put("/v2/{name:path}/blobs/uploads/{session}")
async def put_upload(request: Request, context: CurrentContext, name: str, session: str) -> Response:
    """End an upload, with its last bytes if there are any."""
    ref, upload = await _upload(request, context, name, session)
    digest = _required_digest(request)
    _check_range(request, ref, upload)
    upload = await _appended(request, context, ref, upload, digest.algorithm)
    await _desk(request, context).finish(ref, upload, digest)
    return _created(ref, digest)


@router.delete("/v2/{name:path}/blobs/uploads/{session}")
async def delete_upload(request: Request, context: CurrentContext, name: str, session: str) -> Response:
    """Cancel an upload."""
    _, upload = await _upload(request, context, name, session)
    await _desk(request, context).cancel(upload)
    return Response(status_code=204)


async def _appended(
    request: Request, context: ServerContext, ref: RepositoryRef, upload: UploadRecord, algorithm: str
) -> UploadRecord:
    desk = _desk(request, context)
    try:
        return await desk.append(ref, upload, request.stream(), announced=_announced(request), algorithm=algorithm)
    except RegistryFault as error:
        if error.status == 416:
            async with context.store.read() as reading:
                error.headers.update(_progress(ref, await session_of(reading, ref, str(upload.id))))
        raise


def _check_range(request: Request, ref: RepositoryRef, upload: UploadRecord) -> None:
    header = request.headers.get("content-range")
    # Some clients send a word that is no range where they mean none.
    if header is None or "-" not in header:
        return
    match = _RANGE.fullmatch(header.strip())
    progress: Mapping[str, str] = _progress(ref, upload)
    if match is None:
        raise _out_of_order("this Content-Range is none", progress)
    start, last = (int(text) for text in match.groups())
    announced = _announced(request)
    if start != upload.size_bytes or last < start:
        raise _out_of_order(f"{upload.size_bytes} bytes have arrived, and this is not what comes next", progress)
    if announced is not None and announced != last - start + 1:
        raise _out_of_order("Content-Range and Content-Length differ", progress)


def _out_of_order(found: str, progress: Mapping[str, str]) -> RegistryFault:
    return RegistryFault("BLOB_UPLOAD_INVALID", 416, found, headers=progress)
